//! A network interface of a NIC.

use std::collections::BTreeSet;

use super::name::is_interface_name;
use super::network::{Carried, Network};
use super::nic::{neighbours, pci_owner};
use super::system::System;
use super::text::{hexadecimal, line, names_or_none, parts};
use crate::PciAddress;

/// IFF_UP (Linux `include/uapi/linux/if.h`).
const UP: u32 = 1;

/// A network interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Whether it is up; one that does not say counts as up.
    pub up: bool,
    /// Its link.
    pub link: Link,
    /// What it carries, and what the bridges, bonds and VLANs above it carry, nearest first.
    pub carries: Vec<(String, Carried)>,
}

/// The link of an interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Link {
    /// There is one, of that many Mb/s where the driver says it.
    Up(Option<u32>),
    /// There is none.
    Down,
    /// Not known: the interface is down.
    Unknown,
}

impl Interface {
    /// The interfaces of a PCI device. They are looked for from `/sys/class/net`, as drivers put
    /// them at different depths below the device (virtio's sit below `virtioN`).
    ///
    /// # Errors
    /// The folder is there and cannot be read: it is not known which there are.
    pub(super) fn of(
        system: &dyn System,
        address: PciAddress,
        network: &Network,
    ) -> Result<Vec<Self>, String> {
        let names = names_or_none(system, "/sys/class/net")?;
        let names = names.into_iter().filter(|name| is_interface_name(name));
        let own = names.filter(|name| {
            let target = system.link(&format!("/sys/class/net/{name}"));
            target.is_ok_and(|target| pci_owner(&parts(&target)) == Some(address))
        });
        Ok(own.map(|name| Self::read(system, name, network)).collect())
    }

    /// The interface of this name, of whatever device; `None` if there is none.
    #[must_use]
    pub fn named(system: &dyn System, name: &str, network: &Network) -> Option<Self> {
        let there = is_interface_name(name)
            && system
                .names(&format!("/sys/class/net/{name}"))
                .is_ok_and(|inside| !inside.is_empty());
        there.then(|| Self::read(system, name.to_owned(), network))
    }

    fn read(system: &dyn System, name: String, network: &Network) -> Self {
        let folder = format!("/sys/class/net/{name}");
        let flags = hexadecimal(system, &format!("{folder}/flags"));
        let speed = line(system, &format!("{folder}/speed")).and_then(|text| text.parse().ok());
        Self {
            up: flags.is_none_or(|flags| flags & UP != 0),
            link: match line(system, &format!("{folder}/carrier")).as_deref() {
                Some("1") => Link::Up(speed),
                Some("0") => Link::Down,
                _ => Link::Unknown,
            },
            carries: above(system, &name)
                .into_iter()
                .map(|name| (name.clone(), network.of(&name)))
                .collect(),
            name,
        }
    }
}

/// The interface and all above it, nearest first. A tree that runs in circles ends as well.
fn above(system: &dyn System, interface: &str) -> Vec<String> {
    let mut seen = BTreeSet::from([interface.to_owned()]);
    let mut order = vec![interface.to_owned()];
    let mut next = 0;
    while let Some(name) = order.get(next).cloned() {
        for upper in neighbours(system, &name, "upper_") {
            if seen.insert(upper.clone()) {
                order.push(upper);
            }
        }
        next += 1;
    }
    order
}
