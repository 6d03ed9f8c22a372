//! Which addresses and routes an interface carries.
//!
//! Read are `/proc/net/route` (IPv4), `/proc/net/if_inet6` and `/proc/net/ipv6_route` (IPv6; both
//! are missing where IPv6 is off). Whose an IPv4 address is /proc does not say, and the routes do
//! not either (an address of 32 bits needs none, and other tables than the main one are not in
//! `/proc/net/route`): so the kernel is asked ([`System::ipv4_addresses`]). A made-up tree may not
//! know it. Then the local addresses of `/proc/net/fib_trie` may be anybody's, and that is how it
//! is reported.
//!
//! What cannot be read, or is not what the kernel writes, makes the whole not known: an interface
//! that is up may then carry anything.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::system::System;

/// The addresses and routes of the machine.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Network {
    interfaces: BTreeMap<String, Carried>,
    /// Local addresses that are not known to be any interface's.
    unplaced: Vec<Ipv4Addr>,
    /// What is there and could not be read, or makes no sense.
    unreadable: Vec<String>,
}

/// What one interface carries itself.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Carried {
    /// Its addresses, link-local IPv6 ones left out.
    pub addresses: Vec<IpAddr>,
    /// Its link-local IPv6 addresses: Linux gives one to each interface that is up.
    pub link_local: Vec<Ipv6Addr>,
    /// Whether a route leads through it: any of IPv4 (of the main table), and of IPv6 any that is
    /// not link-local or multicast, which Linux gives to each interface that is up.
    pub routed: bool,
    /// Whether a default route leads through it. As such counts also what stands for one: a half
    /// of all IPv4 addresses, and IPv6 routes of at most 3 bits, as 2000::/3 has (all global
    /// addresses there are, RFC 4291 section 2.5.4).
    pub default_route: bool,
}

impl Network {
    /// Reads all of it.
    #[must_use]
    pub fn read(system: &dyn System) -> Self {
        let mut network = Self::default();
        network.file(system, "/proc/net/if_inet6", true, Self::address_v6);
        network.file(system, "/proc/net/ipv6_route", true, Self::route_v6);
        network.file(system, "/proc/net/route", false, Self::route_v4);
        match system.ipv4_addresses() {
            Ok(list) => {
                for (interface, address) in list {
                    network.entry(&interface).addresses.push(address.into());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut locals = Locals::default();
                let path = "/proc/net/fib_trie";
                network.file(system, path, false, |_, line| locals.line(line));
                network.unplaced = locals.found.into_iter().collect();
            }
            Err(error) => network.unreadable.push(format!("IPv4 addresses: {error}")),
        }
        network
    }

    /// What an interface carries itself.
    #[must_use]
    pub fn of(&self, interface: &str) -> Carried {
        self.interfaces.get(interface).cloned().unwrap_or_default()
    }

    /// Local IPv4 addresses that are not known to be any interface's. None on a real machine.
    #[must_use]
    pub fn unplaced(&self) -> &[Ipv4Addr] {
        &self.unplaced
    }

    /// What could not be read: then what an interface carries is not known.
    #[must_use]
    pub fn unreadable(&self) -> &[String] {
        &self.unreadable
    }

    /// Reads a file line by line. A line that `take` does not understand makes all of it unknown.
    fn file(
        &mut self,
        system: &dyn System,
        path: &str,
        may_be_missing: bool,
        mut take: impl FnMut(&mut Self, &str) -> Option<()>,
    ) {
        match system.read(path) {
            Ok(bytes) => {
                let text = String::from_utf8_lossy(&bytes);
                let odd = (1..)
                    .zip(text.lines())
                    .find(|(_, line)| take(self, line).is_none());
                if let Some((number, _)) = odd {
                    self.unreadable
                        .push(format!("{path}: line {number} is odd"));
                }
            }
            Err(error) if may_be_missing && error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => self.unreadable.push(format!("{path}: {error}")),
        }
    }

    fn entry(&mut self, interface: &str) -> &mut Carried {
        self.interfaces.entry(interface.into()).or_default()
    }

    /// `address index prefix scope flags name`, in hexadecimal. Scope 20 is link-local (Linux
    /// `include/net/ipv6.h`), and so is fe80::/10 whatever the scope says.
    fn address_v6(&mut self, line: &str) -> Option<()> {
        let words: Vec<_> = line.split_whitespace().collect();
        let [address, _, _, scope, _, interface] = words[..] else {
            return None;
        };
        let address = address_v6(address)?;
        let carried = self.entry(interface);
        if scope == "20" || address.is_unicast_link_local() {
            carried.link_local.push(address);
        } else {
            carried.addresses.push(address.into());
        }
        Some(())
    }

    /// `destination prefix source prefix hop metric references uses flags name`, in hexadecimal; a
    /// route that leads nowhere has no name, or is lo's. Bit 0 of the flags: it is up.
    fn route_v6(&mut self, line: &str) -> Option<()> {
        let words: Vec<_> = line.split_whitespace().collect();
        let [destination, prefix, _, _, _, _, _, _, flags, ref name @ ..] = words[..] else {
            return None;
        };
        let destination = address_v6(destination)?;
        let prefix = u8::from_str_radix(prefix, 16).ok()?;
        let is_up = u32::from_str_radix(flags, 16).ok()? & 1 != 0;
        let interface = match name {
            [] => return Some(()),
            [name] => *name,
            _ => return None,
        };
        let everybody_has = destination.is_unicast_link_local() || destination.is_multicast();
        if is_up && interface != "lo" && !everybody_has {
            let carried = self.entry(interface);
            carried.routed = true;
            carried.default_route |= prefix <= 3;
        }
        Some(())
    }

    /// `interface destination gateway flags references uses metric mask …`, numbers in
    /// hexadecimal, below a line of titles. A route that leads nowhere is the interface `*`'s.
    fn route_v4(&mut self, line: &str) -> Option<()> {
        let words: Vec<_> = line.split_whitespace().collect();
        let interface = *words.first()?;
        if interface == "Iface" && words.get(1) == Some(&"Destination") {
            return Some(());
        }
        let [_destination, _gateway] = [address_v4(words.get(1)?)?, address_v4(words.get(2)?)?];
        let mask = address_v4(words.get(7)?)?;
        let carried = self.entry(interface);
        carried.routed = true;
        carried.default_route |= mask.count_ones() <= 1;
        Some(())
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

/// The local addresses in `/proc/net/fib_trie`.
#[derive(Default)]
struct Locals {
    found: BTreeSet<Ipv4Addr>,
    last: Option<Ipv4Addr>,
}

impl Locals {
    /// `Main:`, `Local:` and `Id 7:` head a table, `+-- 0.0.0.0/0 2 0 2` a part of it. An address
    /// stands in a line `|-- 192.0.2.2`, and what it is in lines below: `/32 host LOCAL`.
    fn line(&mut self, line: &str) -> Option<()> {
        let line = line.trim();
        if let Some(address) = line.strip_prefix("|-- ") {
            self.last = Some(address.parse().ok()?);
        } else if line.starts_with("/32 host LOCAL") {
            let address = self.last?;
            self.found
                .extend((!address.is_loopback()).then_some(address));
        } else if !line.starts_with(['/', '+']) && !line.ends_with(':') {
            return None;
        }
        Some(())
    }
}
