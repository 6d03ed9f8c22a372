//! Network namespaces, and the interfaces in them.

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::net::{AddressFamily, SocketType, socket};

/// A network namespace: kept alive, and reached from any thread, by sockets that were made in it.
#[derive(Debug)]
pub(super) struct Namespace {
    file: File,
    /// For the calls of netdevice(7).
    control: OwnedFd,
    /// For what they cannot: rtnetlink(7).
    route: Socket,
}

impl Namespace {
    /// That of the calling thread.
    pub(super) fn current() -> io::Result<Self> {
        let mut route = Socket::new(NETLINK_ROUTE)?;
        route.bind_auto()?;
        Ok(Self {
            file: File::open("/proc/thread-self/ns/net")?,
            control: socket(AddressFamily::INET, SocketType::DGRAM, None)?,
            route,
        })
    }

    /// A new one, which the calling thread moves into: the rest of the process stays where it is.
    pub(super) fn enter_new() -> io::Result<Self> {
        // SAFETY: a new network namespace for this thread alone changes no memory and no file
        // descriptor.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }?;
        Self::current()
    }

    /// For setns(2).
    #[cfg(test)]
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Address and netmask, MTU, and up.
    pub(super) fn configure(
        &self,
        interface: &str,
        (address, prefix_len): (Ipv4Addr, u8),
        mtu: u16,
    ) -> io::Result<()> {
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix_len));
        self.set_address(interface, libc::SIOCSIFADDR, address)?;
        self.set_address(
            interface,
            libc::SIOCSIFNETMASK,
            Ipv4Addr::from(mask.unwrap_or(0)),
        )?;
        self.set_mtu(interface, mtu.into())?;
        self.set_up(interface, true)
    }

    pub(super) fn mtu(&self, interface: &str) -> io::Result<i32> {
        let mut request = named(interface, libc::__c_anonymous_ifr_ifru { ifru_mtu: 0 });
        self.call(libc::SIOCGIFMTU, &mut request)?;
        // SAFETY: the call has filled in the MTU.
        Ok(unsafe { request.ifr_ifru.ifru_mtu })
    }

    pub(super) fn set_mtu(&self, interface: &str, mtu: i32) -> io::Result<()> {
        let value = libc::__c_anonymous_ifr_ifru { ifru_mtu: mtu };
        self.call(libc::SIOCSIFMTU, &mut named(interface, value))
    }

    pub(super) fn is_up(&self, interface: &str) -> io::Result<bool> {
        Ok(i32::from(self.flags(interface)?) & libc::IFF_UP != 0)
    }

    /// Whether the interface is up and its driver sees a link. (The flag IFF_RUNNING is late: for a
    /// while after "up" it says yes for an interface that has none.)
    pub(super) fn has_link(&self, interface: &str) -> io::Result<bool> {
        // `struct ethtool_value` and ETHTOOL_GLINK of Linux's `include/uapi/linux/ethtool.h`.
        const GET_LINK: u32 = 10;
        let mut value = [GET_LINK, 0];
        let data = libc::__c_anonymous_ifr_ifru {
            ifru_data: value.as_mut_ptr().cast(),
        };
        // The kernel writes the second number, which lives through the call.
        self.call(libc::SIOCETHTOOL, &mut named(interface, data))?;
        let [_, link] = value;
        Ok(link != 0)
    }

    pub(super) fn set_up(&self, interface: &str, up: bool) -> io::Result<()> {
        let flag = libc::IFF_UP as libc::c_short;
        let flags = self.flags(interface)?;
        let flags = if up { flags | flag } else { flags & !flag };
        let value = libc::__c_anonymous_ifr_ifru { ifru_flags: flags };
        self.call(libc::SIOCSIFFLAGS, &mut named(interface, value))
    }

    /// Moves an interface from here into another namespace. Linux takes it down, and its addresses
    /// away (`dev_change_net_namespace`).
    pub(super) fn give(&self, interface: &str, to: &Self) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = self.index(interface)?;
        link.attributes = vec![LinkAttribute::NetNsFd(to.file.as_raw_fd())];
        let mut message = NetlinkMessage::from(RouteNetlinkMessage::SetLink(link));
        message.header.flags = NLM_F_REQUEST | NLM_F_ACK;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.route.send_to(&bytes, &SocketAddr::new(0, 0), 0)?;
        let (answer, _) = self.route.recv_from_full()?;
        let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer);
        match answer.map_err(io::Error::other)?.payload {
            NetlinkPayload::Error(error) if error.code.is_none() => Ok(()),
            NetlinkPayload::Error(error) => Err(error.to_io()),
            _ => Err(io::Error::other("rtnetlink answered something else")),
        }
    }

    fn index(&self, interface: &str) -> io::Result<u32> {
        let mut request = named(interface, libc::__c_anonymous_ifr_ifru { ifru_ifindex: 0 });
        self.call(libc::SIOCGIFINDEX, &mut request)?;
        // SAFETY: the call has filled in the index.
        Ok(unsafe { request.ifr_ifru.ifru_ifindex }.cast_unsigned())
    }

    fn flags(&self, interface: &str) -> io::Result<libc::c_short> {
        let mut request = named(interface, libc::__c_anonymous_ifr_ifru { ifru_flags: 0 });
        self.call(libc::SIOCGIFFLAGS, &mut request)?;
        // SAFETY: the call has filled in the flags.
        Ok(unsafe { request.ifr_ifru.ifru_flags })
    }

    fn set_address(
        &self,
        interface: &str,
        request: libc::Ioctl,
        address: Ipv4Addr,
    ) -> io::Result<()> {
        let value = libc::__c_anonymous_ifr_ifru {
            ifru_addr: sockaddr(address),
        };
        self.call(request, &mut named(interface, value))
    }

    /// A call of netdevice(7).
    fn call(&self, request: libc::Ioctl, interface: &mut libc::ifreq) -> io::Result<()> {
        // SAFETY: these requests read and write an `ifreq`, which lives through the call, and what
        // it points to, if anything; the descriptor is an open socket.
        let result = unsafe { libc::ioctl(self.control.as_raw_fd(), request, interface) };
        if result < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }
}

/// What the calls of netdevice(7) take. A name that is too long is cut, and its last byte is 0.
fn named(interface: &str, value: libc::__c_anonymous_ifr_ifru) -> libc::ifreq {
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: value,
    };
    let places = request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1);
    for (to, from) in places.zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    request
}

/// An IPv4 address as these calls take it.
fn sockaddr(address: Ipv4Addr) -> libc::sockaddr {
    let mut data = [0; 14];
    for (to, from) in data.iter_mut().skip(2).zip(address.octets()) {
        *to = from as libc::c_char;
    }
    libc::sockaddr {
        sa_family: libc::AF_INET as libc::sa_family_t,
        sa_data: data,
    }
}
