//! Whose the IPv4 addresses of this machine are, asked of the kernel by rtnetlink(7): /proc has no
//! list that says it.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::net::netdevice::index_to_name;

/// How often the list is asked for if it changes while it is told.
const TRIES: u32 = 10;

/// Each address with its interface.
pub(super) fn ipv4_addresses() -> io::Result<Vec<(String, Ipv4Addr)>> {
    for _ in 0..TRIES {
        if let Some(list) = once()? {
            return Ok(list);
        }
    }
    Err(io::Error::other("the addresses change all the time"))
}

/// `None` if the list has changed meanwhile.
fn once() -> io::Result<Option<Vec<(String, Ipv4Addr)>>> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    let mut question = AddressMessage::default();
    question.header.family = AddressFamily::Inet;
    let mut message = NetlinkMessage::from(RouteNetlinkMessage::GetAddress(question));
    message.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send_to(&bytes, &SocketAddr::new(0, 0), 0)?;
    let names = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        None,
    )?;
    let mut list = Vec::new();
    loop {
        let (answer, _) = socket.recv_from_full()?;
        for message in messages(&answer)? {
            if message.header.flags & NLM_F_DUMP_INTR != 0 {
                return Ok(None);
            }
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(Some(list)),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(address)) => {
                    let name = match index_to_name(&names, address.header.index) {
                        Ok(name) => name,
                        // The interface has gone meanwhile.
                        Err(_) => return Ok(None),
                    };
                    list.extend(local(&address).map(|address| (name, address)));
                }
                _ => {}
            }
        }
    }
}

/// The messages in one answer, each of which begins at a multiple of 4 bytes.
fn messages(mut answer: &[u8]) -> io::Result<Vec<NetlinkMessage<RouteNetlinkMessage>>> {
    let mut found = Vec::new();
    while !answer.is_empty() {
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(answer);
        let message = message.map_err(io::Error::other)?;
        let len = (message.header.length as usize).max(1).next_multiple_of(4);
        answer = answer.get(len..).unwrap_or_default();
        found.push(message);
    }
    Ok(found)
}

/// The machine's own end: on a point-to-point link the other attribute is the peer's.
fn local(message: &AddressMessage) -> Option<Ipv4Addr> {
    let mut peer = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(IpAddr::V4(address)) => return Some(*address),
            AddressAttribute::Address(IpAddr::V4(address)) => peer = Some(*address),
            _ => {}
        }
    }
    peer
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// In a thread of its own, as it moves into another network namespace.
    #[test]
    fn each_address_has_its_interface_whatever_the_routes_say() {
        if !rustix::process::geteuid().is_root() {
            assert!(std::env::var_os("CI").is_none(), "CI must be root");
            eprintln!("skipped: it needs root");
            return;
        }
        let asked = std::thread::spawn(|| {
            // SAFETY: a new network namespace for this thread alone changes no memory and no file
            // descriptor.
            unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }
                .unwrap();
            let ip = |words: &str| {
                let status = Command::new("ip").args(words.split(' ')).status().unwrap();
                assert!(status.success(), "ip {words}");
            };
            assert_eq!(ipv4_addresses().unwrap(), []);
            ip("link add pw0 type veth peer name pw1");
            ip("link set pw0 up");
            ip("link set pw1 up");
            ip("addr add 10.0.0.1/8 dev pw0");
            ip("addr add 10.1.2.3/32 dev pw1");
            ip("addr add 192.0.2.1 peer 192.0.2.9 dev pw1");
            // More than one answer's worth.
            for last in 0..250 {
                ip(&format!("addr add 10.2.0.{last}/32 dev pw0 label pw0:x"));
            }
            ipv4_addresses().unwrap()
        });
        let list = asked.join().unwrap();
        let of = |name: &str| list.iter().filter(|(of, _)| of == name).count();
        assert_eq!((of("pw0"), of("pw1"), list.len()), (251, 2, 253));
        for (name, address) in [
            ("pw0", [10, 0, 0, 1]),
            ("pw1", [10, 1, 2, 3]),
            ("pw1", [192, 0, 2, 1]),
            ("pw0", [10, 2, 0, 249]),
        ] {
            assert!(
                list.contains(&(name.into(), address.into())),
                "{name} {address:?}"
            );
        }
    }
}
