//! Echo servers on a NIC under test: TCP and UDP, IPv4 and IPv6, and ping.

use pagewire::hal::{Instant, Nic};
use pagewire_drivers::smoltcp::PhyDevice;
use smoltcp::iface::{Config, Interface, PollResult, SocketHandle, SocketSet};
use smoltcp::socket::{tcp, udp};
use smoltcp::time::Instant as SmoltcpInstant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};

use super::soft_nic::Handle;

pub const PORT: u16 = 7;
/// The server's addresses; its neighbours have those that end with 2.
pub const ADDRESSES: [IpAddress; 2] = [
    IpAddress::v4(10, 77, 0, 1),
    IpAddress::v6(0xfd77, 0, 0, 0, 0, 0, 0, 1),
];

pub fn time(now: Instant) -> SmoltcpInstant {
    SmoltcpInstant::from_micros((now.as_nanos() / 1000) as i64)
}

pub fn tcp_socket(buffer: usize) -> tcp::Socket<'static> {
    let buffer = || tcp::SocketBuffer::new(vec![0; buffer]);
    tcp::Socket::new(buffer(), buffer())
}

pub fn udp_socket() -> udp::Socket<'static> {
    let buffer = || {
        let metadata = vec![udp::PacketMetadata::EMPTY; 16];
        udp::PacketBuffer::new(metadata, vec![0; 1 << 16])
    };
    udp::Socket::new(buffer(), buffer())
}

pub fn prefix(address: IpAddress) -> IpCidr {
    let len = match address {
        IpAddress::Ipv4(_) => 24,
        IpAddress::Ipv6(_) => 64,
    };
    IpCidr::new(address, len)
}

/// The servers.
pub struct Server {
    interface: Interface,
    sockets: SocketSet<'static>,
    tcp: Vec<SocketHandle>,
    udp: SocketHandle,
}

impl Server {
    pub fn new<N: Nic>(device: &mut PhyDevice<N>) -> Self {
        let config = Config::new(HardwareAddress::Ethernet(device.ethernet_address()));
        let mut interface = Interface::new(config, device, SmoltcpInstant::ZERO);
        interface.update_ip_addrs(|list| {
            for address in ADDRESSES {
                list.push(prefix(address)).unwrap();
            }
        });
        let mut sockets = SocketSet::new(Vec::new());
        let tcp = (0..2).map(|_| sockets.add(tcp_socket(1 << 17))).collect();
        let udp = sockets.add(udp_socket());
        Self {
            interface,
            sockets,
            tcp,
            udp,
        }
    }

    /// One burst. Whether anything moved.
    pub fn poll<N: Nic>(&mut self, device: &mut PhyDevice<N>, now: Instant) -> bool {
        let before = device.counters();
        let result = self
            .interface
            .poll(time(now), &mut device.burst(), &mut self.sockets);
        for handle in &self.tcp {
            echo_stream(self.sockets.get_mut(*handle));
        }
        echo_datagrams(self.sockets.get_mut(self.udp));
        result == PollResult::SocketStateChanged || device.counters() != before
    }
}

fn echo_stream(socket: &mut tcp::Socket<'_>) {
    if socket.state() == tcp::State::TimeWait {
        socket.abort();
    }
    if !socket.is_open() {
        socket.listen(PORT).unwrap();
    }
    while socket.can_recv() && socket.can_send() {
        let room = socket.send_capacity() - socket.send_queue();
        let data = socket.recv(|data| {
            let len = data.len().min(room);
            (len, data[..len].to_vec())
        });
        socket.send_slice(&data.unwrap()).unwrap();
    }
    if socket.state() == tcp::State::CloseWait && !socket.can_recv() {
        socket.close();
    }
}

fn echo_datagrams(socket: &mut udp::Socket<'_>) {
    if !socket.is_open() {
        socket.bind(PORT).unwrap();
    }
    while socket.can_recv() && socket.can_send() {
        let (data, from) = socket.recv().unwrap();
        let data = data.to_vec();
        socket.send_slice(&data, from).unwrap();
    }
}

/// Sends a UDP datagram of 4000 bytes to a neighbour that has just asked for our address.
pub fn send_long_datagram<N: Nic>(device: &mut PhyDevice<N>, far: &Handle) {
    let mut server = Server::new(device);
    server.poll(device, Instant::ZERO);
    let mut request = vec![0xff; 6];
    request.extend_from_slice(&[2, 0, 0, 0, 0, 2, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    request.extend_from_slice(&[2, 0, 0, 0, 0, 2, 10, 77, 0, 2]);
    request.extend_from_slice(&[0, 0, 0, 0, 0, 0, 10, 77, 0, 1]);
    far.lock().arriving.push_back(request);
    server.poll(device, Instant::ZERO);
    let socket = server.sockets.get_mut::<udp::Socket<'_>>(server.udp);
    let to = (IpAddress::v4(10, 77, 0, 2), 9);
    socket.send_slice(&[0x5a; 4000], to).unwrap();
    for millis in 1..10 {
        server.poll(device, Instant::from_nanos(millis * 1_000_000));
    }
}
