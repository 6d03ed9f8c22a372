//! Routes: which neighbour a packet is handed to.

use alloc::vec::Vec;
use core::fmt;
use core::net::Ipv4Addr;

/// A network: the addresses that share the first `prefix` bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Network {
    address: u32,
    prefix: u8,
}

impl Network {
    /// The host bits of `address` are dropped; `None` if `prefix` is above 32.
    fn new(address: Ipv4Addr, prefix: u8) -> Option<Self> {
        let network = Self { address: 0, prefix };
        (prefix <= 32).then(|| Self {
            address: address.to_bits() & network.mask(),
            prefix,
        })
    }

    fn mask(self) -> u32 {
        u32::MAX
            .checked_shl(32 - u32::from(self.prefix.min(32)))
            .unwrap_or(0)
    }

    fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() & self.mask() == self.address
    }

    /// Whether `address` is the network itself or its broadcast address. A network of two
    /// addresses or one has neither (RFC 3021).
    fn is_not_a_host(self, address: Ipv4Addr) -> bool {
        let host = address.to_bits() & !self.mask();
        self.prefix < 31 && self.contains(address) && (host == 0 || host == !self.mask())
    }
}

/// Why a route was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RouteError {
    /// A prefix of more than 32 bits.
    PrefixLength(u8),
    /// The address of an interface or gateway is not one of a host.
    NotAHost(Ipv4Addr),
    /// The gateway is not in the network of the interface.
    GatewayNotOnLink(Ipv4Addr),
}

impl fmt::Display for RouteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PrefixLength(bits) => write!(f, "a prefix of {bits} bits is longer than 32"),
            Self::NotAHost(address) => write!(f, "{address} is not the address of a host"),
            Self::GatewayNotOnLink(gateway) => {
                write!(
                    f,
                    "the gateway {gateway} is not in the network of the interface"
                )
            }
        }
    }
}

impl core::error::Error for RouteError {}

/// The routes of one interface.
#[derive(Clone, Debug)]
pub struct RouteTable {
    address: Ipv4Addr,
    link: Network,
    /// Longest prefix first.
    routes: Vec<(Network, Ipv4Addr)>,
}

impl RouteTable {
    /// The routes of an interface that has `address` in a network of `prefix` bits: the
    /// neighbours on that network, and no other destination yet.
    ///
    /// # Errors
    /// [`RouteError::PrefixLength`], [`RouteError::NotAHost`].
    pub fn new(address: Ipv4Addr, prefix: u8) -> Result<Self, RouteError> {
        let link = Network::new(address, prefix).ok_or(RouteError::PrefixLength(prefix))?;
        if !is_unicast(address) || link.is_not_a_host(address) {
            return Err(RouteError::NotAHost(address));
        }
        Ok(Self {
            address,
            link,
            routes: Vec::new(),
        })
    }

    /// The address of the interface.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Packets to `destination`/`prefix` go to `gateway`. The default route is 0.0.0.0/0. A
    /// route to the same network is replaced.
    ///
    /// The gateway is a neighbour. On an interface with a prefix of 32 bits, as some clouds hand
    /// out, any gateway counts as one.
    ///
    /// # Errors
    /// [`RouteError::PrefixLength`], [`RouteError::NotAHost`], [`RouteError::GatewayNotOnLink`].
    pub fn add(
        &mut self,
        destination: Ipv4Addr,
        prefix: u8,
        gateway: Ipv4Addr,
    ) -> Result<(), RouteError> {
        let network = Network::new(destination, prefix).ok_or(RouteError::PrefixLength(prefix))?;
        if !is_unicast(gateway) || self.link.is_not_a_host(gateway) || gateway == self.address {
            return Err(RouteError::NotAHost(gateway));
        }
        if self.link.prefix < 32 && !self.link.contains(gateway) {
            return Err(RouteError::GatewayNotOnLink(gateway));
        }
        self.routes.retain(|(other, _)| *other != network);
        let place = self
            .routes
            .partition_point(|(other, _)| other.prefix >= prefix);
        self.routes.insert(place, (network, gateway));
        Ok(())
    }

    /// The neighbour to which a packet for `destination` goes: the destination itself if it is
    /// on the link, else the gateway of the longest matching prefix. `None` if there is no route,
    /// and for what TCP does not connect to: multicast and broadcast (RFC 9293, MUST-46),
    /// loopback, reserved and unspecified addresses, and the interface itself.
    #[must_use]
    pub fn next_hop(&self, destination: Ipv4Addr) -> Option<Ipv4Addr> {
        if !is_unicast(destination)
            || self.link.is_not_a_host(destination)
            || destination == self.address
        {
            return None;
        }
        let route = self.routes.iter().find(|(n, _)| n.contains(destination));
        match route {
            Some((network, gateway)) if network.prefix > self.link.prefix => Some(*gateway),
            _ if self.link.contains(destination) => Some(destination),
            Some((_, gateway)) => Some(*gateway),
            None => None,
        }
    }
}

/// Whether the address can be that of a host on a network: not 0/8, 127/8, nor 224/3 (multicast,
/// reserved, limited broadcast).
fn is_unicast(address: Ipv4Addr) -> bool {
    !matches!(address.octets(), [0 | 127 | 224.., ..])
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ip(a: u8, b: u8, c: u8, d: u8) -> Ipv4Addr {
        Ipv4Addr::new(a, b, c, d)
    }

    const GATEWAY: Ipv4Addr = ip(192, 168, 1, 1);

    fn table() -> RouteTable {
        RouteTable::new(ip(192, 168, 1, 10), 24).unwrap()
    }

    #[test]
    fn neighbours_are_reached_directly_and_others_not_at_all() {
        let table = table();
        assert_eq!(table.address(), ip(192, 168, 1, 10));
        assert_eq!(
            table.next_hop(ip(192, 168, 1, 77)),
            Some(ip(192, 168, 1, 77))
        );
        assert_eq!(table.next_hop(ip(192, 168, 2, 77)), None);
    }

    #[test]
    fn the_longest_prefix_wins_in_any_order() {
        let routes = [
            (ip(0, 0, 0, 0), 0, ip(192, 168, 1, 1)),
            (ip(10, 0, 0, 0), 8, ip(192, 168, 1, 2)),
            (ip(10, 1, 2, 0), 24, ip(192, 168, 1, 3)),
            (ip(10, 1, 2, 3), 32, ip(192, 168, 1, 4)),
        ];
        for order in [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]] {
            let mut table = table();
            for index in order {
                let (destination, prefix, gateway) = routes[index];
                table.add(destination, prefix, gateway).unwrap();
            }
            let hop = |d| table.next_hop(d).map(|hop| hop.octets()[3]);
            assert_eq!(hop(ip(8, 8, 8, 8)), Some(1), "{order:?}");
            assert_eq!(hop(ip(10, 9, 9, 9)), Some(2), "{order:?}");
            assert_eq!(hop(ip(10, 1, 2, 9)), Some(3), "{order:?}");
            assert_eq!(hop(ip(10, 1, 2, 3)), Some(4), "{order:?}");
            assert_eq!(hop(ip(192, 168, 1, 99)), Some(99), "{order:?}");
        }
    }

    #[test]
    fn a_route_more_specific_than_the_link_goes_before_it() {
        let mut table = table();
        table.add(ip(192, 168, 1, 128), 25, GATEWAY).unwrap();
        assert_eq!(table.next_hop(ip(192, 168, 1, 200)), Some(GATEWAY));
        assert_eq!(
            table.next_hop(ip(192, 168, 1, 100)),
            Some(ip(192, 168, 1, 100))
        );
    }

    #[test]
    fn a_route_to_the_same_network_replaces_the_old_one() {
        let mut table = table();
        table.add(ip(10, 0, 0, 0), 8, GATEWAY).unwrap();
        let other = ip(192, 168, 1, 2);
        table.add(ip(10, 200, 0, 1), 8, other).unwrap(); // host bits are dropped
        assert_eq!(table.next_hop(ip(10, 0, 0, 1)), Some(other));
    }

    #[test]
    fn what_is_no_host_is_refused() {
        let mut table = table();
        table.add(Ipv4Addr::UNSPECIFIED, 0, GATEWAY).unwrap();
        for destination in [
            Ipv4Addr::UNSPECIFIED,
            Ipv4Addr::BROADCAST,
            Ipv4Addr::LOCALHOST,
            ip(0, 1, 2, 3),
            ip(127, 9, 9, 9),
            ip(224, 0, 0, 1),
            ip(239, 255, 255, 255),
            ip(240, 0, 0, 1),
            ip(192, 168, 1, 0),
            ip(192, 168, 1, 255),
            ip(192, 168, 1, 10),
        ] {
            assert_eq!(table.next_hop(destination), None, "{destination}");
        }
        assert_eq!(table.next_hop(ip(223, 255, 255, 254)), Some(GATEWAY));
    }

    #[test]
    fn links_of_two_addresses_and_of_one() {
        let table = RouteTable::new(ip(10, 0, 0, 0), 31).unwrap();
        assert_eq!(table.next_hop(ip(10, 0, 0, 1)), Some(ip(10, 0, 0, 1)));
        let mut table = RouteTable::new(ip(10, 0, 0, 5), 32).unwrap();
        assert_eq!(table.next_hop(ip(10, 0, 0, 1)), None);
        table
            .add(Ipv4Addr::UNSPECIFIED, 0, ip(10, 0, 0, 1))
            .unwrap();
        assert_eq!(table.next_hop(ip(10, 0, 0, 1)), Some(ip(10, 0, 0, 1)));
        assert_eq!(table.next_hop(ip(8, 8, 8, 8)), Some(ip(10, 0, 0, 1)));
    }

    #[test]
    fn impossible_interfaces_and_routes_are_refused() {
        let new = |address, prefix| RouteTable::new(address, prefix).map(|_| ()).unwrap_err();
        assert_eq!(new(ip(10, 0, 0, 1), 33), RouteError::PrefixLength(33));
        for address in [ip(10, 0, 0, 0), ip(10, 0, 0, 255), ip(224, 0, 0, 5)] {
            assert_eq!(new(address, 24), RouteError::NotAHost(address));
        }
        let mut table = table();
        let mut add = |prefix, gateway| table.add(Ipv4Addr::UNSPECIFIED, prefix, gateway);
        assert_eq!(add(33, GATEWAY), Err(RouteError::PrefixLength(33)));
        let far = ip(192, 168, 2, 1);
        assert_eq!(add(0, far), Err(RouteError::GatewayNotOnLink(far)));
        for gateway in [
            ip(192, 168, 1, 255),
            ip(192, 168, 1, 10),
            Ipv4Addr::BROADCAST,
        ] {
            assert_eq!(add(0, gateway), Err(RouteError::NotAHost(gateway)));
        }
        assert_eq!(table.next_hop(ip(8, 8, 8, 8)), None);
    }
}
