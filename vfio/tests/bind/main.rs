//! `bind`, `unbind` and `list` on made-up machines, some of which fail or change meanwhile.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests: a panic is the failure"
)]
#![allow(unreachable_pub, reason = "modules of a test program")]

mod back;
mod faulty;
mod network;
mod nics;
mod refused;
mod rollback;
mod tree;

use pagewire_vfio::bind::{
    BindOptions, Bound, Played, Problem, Refusal, System, Unbound, User, bind, unbind,
};
use tree::{NIC, Tree};

/// Binds a device by name, with nobody in a hurry.
pub fn bind_on(
    system: &mut dyn System,
    device: &str,
    options: &BindOptions,
) -> Result<Bound, Problem> {
    bind(system, &device.parse().unwrap(), options, &|| false)
}

/// Binds [`NIC`].
pub fn bound(tree: &Tree) -> Result<Bound, Problem> {
    let mut system = Played::new(tree.path()).unwrap();
    bind_on(&mut system, NIC, &BindOptions::default())
}

/// Binds [`NIC`] with force.
pub fn forced(tree: &Tree) -> Result<Bound, Problem> {
    let options = BindOptions {
        force: true,
        ..Default::default()
    };
    bind_on(&mut Played::new(tree.path()).unwrap(), NIC, &options)
}

/// Unbinds [`NIC`].
pub fn unbound(tree: &Tree) -> Result<Unbound, Problem> {
    let mut system = Played::new(tree.path()).unwrap();
    unbind(&mut system, &NIC.parse().unwrap(), &|| false)
}

/// Gives the device files to user 1042.
pub fn for_maria() -> BindOptions {
    let user = User {
        id: 1042,
        name: "maria".into(),
    };
    BindOptions {
        user: Some(user),
        force: false,
    }
}

/// The codes of the reasons for which [`NIC`] is not bound. The tree must not have changed.
pub fn codes(tree: &Tree) -> Vec<&'static str> {
    let before = tree.snapshot();
    let codes = match bound(tree) {
        Ok(_) => Vec::new(),
        Err(Problem::Refused { refusals, .. }) => refusals.iter().map(Refusal::code).collect(),
        Err(other) => panic!("{other}"),
    };
    if !codes.is_empty() {
        assert_eq!(tree.snapshot(), before);
        assert!(!tree.remembers(NIC));
    }
    codes
}
