//! Which addresses and default routes an interface carries, as /proc says it.
//!
//! Read are `/proc/net/route` and `/proc/net/fib_trie` (IPv4), `/proc/net/if_inet6` and
//! `/proc/net/ipv6_route` (IPv6; both are missing where IPv6 is off), and below
//! `/sys/class/net/NAME` the links `upper_*` to bridges, bonds and VLANs, whose addresses count as
//! well: who binds a bridge's only port cuts the bridge off.
//!
//! What /proc does not say: which interface a local IPv4 address belongs to. It is found by the
//! route to its network, which names the interface. An address of 32 bits without any route (or
//! with routes in another table) stays without one; then an interface that is up and has no other
//! may be its owner, and that is how it is reported.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::system::System;

/// The addresses and routes of the machine.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Network {
    interfaces: BTreeMap<String, Carried>,
    /// Local addresses that no route gives to an interface.
    unplaced: Vec<Ipv4Addr>,
    /// Files that are there and could not be read.
    unreadable: Vec<String>,
}

/// What one interface carries itself.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Carried {
    /// Its addresses, link-local IPv6 ones left out.
    pub addresses: Vec<IpAddr>,
    /// Its link-local IPv6 addresses: Linux gives one to each interface that is up.
    pub link_local: Vec<Ipv6Addr>,
    /// Whether an IPv4 route leads through it.
    pub routed: bool,
    /// Whether a default route leads through it.
    pub default_route: bool,
}

/// A route of `/proc/net/route`.
struct Route {
    interface: String,
    destination: u32,
    gateway: u32,
    mask: u32,
}

impl Network {
    /// Reads all of it.
    #[must_use]
    pub fn read(system: &dyn System) -> Self {
        let mut network = Self::default();
        if let Some(text) = network.file(system, "/proc/net/if_inet6", true) {
            network.addresses_v6(&text);
        }
        if let Some(text) = network.file(system, "/proc/net/ipv6_route", true) {
            network.routes_v6(&text);
        }
        let routes = network.file(system, "/proc/net/route", false);
        let routes = routes.map_or_else(Vec::new, |text| routes_v4(&text));
        let locals = network.file(system, "/proc/net/fib_trie", false);
        let locals = locals.map_or_else(BTreeSet::new, |text| locals_v4(&text));
        network.place_v4(&routes, &locals);
        network
    }

    /// What an interface carries itself.
    #[must_use]
    pub fn of(&self, interface: &str) -> Carried {
        self.interfaces.get(interface).cloned().unwrap_or_default()
    }

    /// Local IPv4 addresses that no route gives to an interface.
    #[must_use]
    pub fn unplaced(&self) -> &[Ipv4Addr] {
        &self.unplaced
    }

    /// Files that could not be read: then what an interface carries is not known.
    #[must_use]
    pub fn unreadable(&self) -> &[String] {
        &self.unreadable
    }

    fn file(&mut self, system: &dyn System, path: &str, may_be_missing: bool) -> Option<String> {
        match system.read(path) {
            Ok(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) if may_be_missing && error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                self.unreadable.push(format!("{path}: {error}"));
                None
            }
        }
    }

    fn entry(&mut self, interface: &str) -> &mut Carried {
        self.interfaces.entry(interface.into()).or_default()
    }

    /// `address index prefix scope flags name`, in hexadecimal. Scope 20 is link-local (Linux
    /// `include/net/ipv6.h`), and so is fe80::/10 whatever the scope says.
    fn addresses_v6(&mut self, text: &str) {
        for line in text.lines() {
            let words: Vec<_> = line.split_whitespace().collect();
            let [address, _, _, scope, _, interface] = words[..] else {
                continue;
            };
            let Some(address) = address_v6(address) else {
                continue;
            };
            let carried = self.entry(interface);
            if scope == "20" || address.is_unicast_link_local() {
                carried.link_local.push(address);
            } else {
                carried.addresses.push(address.into());
            }
        }
    }

    /// `destination prefix source prefix hop metric references uses flags name`: a default route
    /// has prefix 00 and is up (bit 0). One that refuses everything is listed as lo's.
    fn routes_v6(&mut self, text: &str) {
        for line in text.lines() {
            let words: Vec<_> = line.split_whitespace().collect();
            let [_, prefix, _, _, _, _, _, _, flags, interface] = words[..] else {
                continue;
            };
            let flags = u32::from_str_radix(flags, 16).unwrap_or(1);
            if prefix == "00" && interface != "lo" && flags & 1 != 0 {
                self.entry(interface).default_route = true;
            }
        }
    }

    fn place_v4(&mut self, routes: &[Route], locals: &BTreeSet<Ipv4Addr>) {
        for route in routes {
            let carried = self.entry(&route.interface);
            carried.routed = true;
            carried.default_route |= route.destination == 0 && route.mask == 0;
        }
        for &address in locals {
            let bits = u32::from(address);
            let leads_here =
                |r: &&Route| r.gateway == 0 && r.mask != 0 && bits & r.mask == r.destination;
            // Two interfaces in one network: either may have it.
            let longest = routes.iter().filter(leads_here).map(|r| r.mask).max();
            let owners = routes.iter().filter(leads_here);
            let owners: BTreeSet<_> = owners
                .filter(|route| Some(route.mask) == longest)
                .map(|route| route.interface.clone())
                .collect();
            if owners.is_empty() {
                self.unplaced.push(address);
            }
            for owner in owners {
                self.entry(&owner).addresses.push(address.into());
            }
        }
    }
}

/// Thirty-two digits, two a byte.
fn address_v6(text: &str) -> Option<Ipv6Addr> {
    let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let bits = digits.then(|| u128::from_str_radix(text, 16).ok())??;
    Some(Ipv6Addr::from_bits(bits))
}

/// The kernel prints a network-order number as if it were the machine's.
fn address_v4(text: &str) -> Option<u32> {
    let number = u32::from_str_radix(text, 16).ok()?;
    Some(u32::from_be_bytes(number.to_ne_bytes()))
}

fn routes_v4(text: &str) -> Vec<Route> {
    let read = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        Some(Route {
            interface: (*words.first()?).into(),
            destination: address_v4(words.get(1)?)?,
            gateway: address_v4(words.get(2)?)?,
            mask: address_v4(words.get(7)?)?,
        })
    };
    // The first line, of titles, has no numbers.
    text.lines().filter_map(read).collect()
}

/// An address stands in a line `|-- 192.0.2.2`, and what it is in lines below:
/// `/32 host LOCAL`.
fn locals_v4(text: &str) -> BTreeSet<Ipv4Addr> {
    let mut locals = BTreeSet::new();
    let mut last = None;
    for line in text.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.trim().parse::<Ipv4Addr>().ok();
        } else if line.starts_with("/32 host LOCAL") {
            locals.extend(last.filter(|address| !address.is_loopback()));
        }
    }
    locals
}
