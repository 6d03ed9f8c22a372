//! Unit tests on the [fake platform](crate::fake).

mod open;
mod pairs;
mod receive;
mod reset;
mod sources;
mod transmit;
mod transmit_property;

use pagewire_hal::fake::lifecycle;
pub(super) use pagewire_hal::fake::lifecycle::{fragments, reclaim};
use pagewire_hal::{Fragment, Nic, Offload, PostError};

use crate::fake::{Device, Fake};
use crate::{Config, Ixgbe, IxgbeRx, IxgbeTx};

pub(super) type Opened = (Fake, Ixgbe<Fake>, IxgbeTx<Fake>, IxgbeRx<Fake>);

/// An open device with its first queues taken.
pub(super) fn open_with(config: &Config) -> Opened {
    let fake = Fake::new();
    let mut nic = Ixgbe::open(fake.clone(), config).expect("the fake opens");
    let (tx, rx) = nic.take_queues(0).expect("the pair is there");
    (fake, nic, tx, rx)
}

pub(super) fn open() -> Opened {
    open_with(&Config::default())
}

/// Posts a frame of `count` fragments that exist nowhere.
pub(super) fn post(
    tx: &mut IxgbeTx<Fake>,
    count: usize,
    offload: Offload,
    token: u32,
) -> Result<(), PostError> {
    lifecycle::post::<Device>(tx, count, offload, token)
}

/// Posts a frame of fragments that exist nowhere.
pub(super) fn post_list(
    tx: &mut IxgbeTx<Fake>,
    fragments: &[Fragment],
    offload: Offload,
    token: u32,
) -> Result<(), PostError> {
    lifecycle::post_list::<Device>(tx, fragments, offload, token)
}
