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
    /// and for what TCP does not connect to: multicast and broadcast (RFC 9293 section 3.9.2.3,
    /// MUST-46), loopback, reserved and unspecified addresses, and the interface itself.
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
