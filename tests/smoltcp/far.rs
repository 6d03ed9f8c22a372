//! The far end of the wire: another smoltcp, which does all checksums itself and believes none,
//! and an eye on every frame that the NIC sends.

use pagewire::hal::{Instant, Nic};
use pagewire_drivers::smoltcp::PhyDevice;
use pagewire_models::Wire;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::{tcp, udp};
use smoltcp::time::Instant as SmoltcpInstant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress};

use super::server::{ADDRESSES, PORT, Server, prefix, tcp_socket, time, udp_socket};
use super::strict;

/// What is sent and is to come back, over IPv4 and as much over IPv6.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    /// Bytes by TCP.
    pub bytes: usize,
    /// Lengths of UDP datagrams.
    pub datagrams: Vec<usize>,
    /// One in so many frames towards the NIC has a wrong byte; 0: none.
    pub corrupt_one_in: u64,
}

/// A bare wire as a device of smoltcp.
pub struct Far<W: Wire> {
    wire: W,
    mtu: usize,
    random: fastrand::Rng,
    corrupt_one_in: u64,
    now: Instant,
    /// Seen from the NIC.
    pub frames: u64,
    pub longest: usize,
    pub corrupted: u64,
    what: String,
}

impl<W: Wire> Far<W> {
    pub fn new(wire: W, what: &str) -> Self {
        Self {
            wire,
            mtu: 1514,
            random: fastrand::Rng::with_seed(0),
            corrupt_one_in: 0,
            now: Instant::ZERO,
            frames: 0,
            longest: 0,
            corrupted: 0,
            what: what.to_owned(),
        }
    }
}

pub struct Frame(Vec<u8>);

impl RxToken for Frame {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

pub struct Ticket<'a, W: Wire>(&'a mut Far<W>);

impl<W: Wire> TxToken for Ticket<'_, W> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let far = self.0;
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        let one_in = far.corrupt_one_in;
        // ARP has no checksum, and what is not IP is nobody's business.
        if one_in > 0 && far.random.u64(..one_in) == 0 && strict::word(&frame, 12) != 0x0806 {
            let at = far.random.usize(14..len);
            frame[at] ^= 1 << far.random.u32(..8);
            far.corrupted += 1;
        }
        far.wire.transmit(&mut frame, far.now);
        result
    }
}

impl<W: Wire> Device for Far<W> {
    type RxToken<'a>
        = Frame
    where
        Self: 'a;
    type TxToken<'a>
        = Ticket<'a, W>
    where
        Self: 'a;

    fn receive(&mut self, _: SmoltcpInstant) -> Option<(Frame, Ticket<'_, W>)> {
        let mut frame = Vec::new();
        if !self.wire.receive(&mut frame, self.now) {
            return None;
        }
        strict::assert_right(&frame, &self.what);
        self.frames += 1;
        self.longest = self.longest.max(frame.len());
        Some((Frame(frame), Ticket(self)))
    }

    fn transmit(&mut self, _: SmoltcpInstant) -> Option<Ticket<'_, W>> {
        Some(Ticket(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.mtu;
        capabilities
    }
}

/// A stream that is sent to the server and comes back.
struct Stream {
    handle: SocketHandle,
    data: Vec<u8>,
    sent: usize,
    received: Vec<u8>,
}

impl Stream {
    fn work(&mut self, socket: &mut tcp::Socket<'_>) -> bool {
        if socket.can_send() && self.sent < self.data.len() {
            self.sent += socket.send_slice(&self.data[self.sent..]).unwrap();
            if self.sent == self.data.len() {
                socket.close();
            }
        }
        while socket.can_recv() {
            let data = socket.recv(|data| (data.len(), data.to_vec())).unwrap();
            self.received.extend_from_slice(&data);
        }
        self.received.len() == self.data.len()
    }
}

/// Datagrams that are sent to the server one by one, again and again until they come back.
struct Datagrams {
    handle: SocketHandle,
    to: IpAddress,
    left: Vec<Vec<u8>>,
    round: u32,
}

impl Datagrams {
    fn work(&mut self, socket: &mut udp::Socket<'_>, what: &str) -> bool {
        let Some(next) = self.left.last() else {
            return true;
        };
        if self.round.is_multiple_of(50) {
            // Full while the neighbour is not known yet.
            let _ = socket.send_slice(next, (self.to, PORT));
        }
        self.round += 1;
        while let Ok((data, _)) = socket.recv() {
            // An echo of one that was sent twice may come late.
            if self.left.last().is_some_and(|next| next == data) {
                self.left.pop();
                self.round = 0;
            }
            assert!(data.iter().all(|byte| *byte == data.len() as u8), "{what}");
        }
        false
    }
}

/// Has a peer talk to a [`Server`] on `device` until everything has come back. `clock` lets the
/// device work, and tells the time; it panics when it has waited long enough.
pub fn converse<N: Nic, W: Wire>(
    device: &mut PhyDevice<N>,
    far: &mut Far<W>,
    plan: &Plan,
    mut clock: impl FnMut(&mut PhyDevice<N>) -> Instant,
) {
    let mut server = Server::new(device);
    far.random.seed(plan.seed);
    far.corrupt_one_in = plan.corrupt_one_in;
    let mac = EthernetAddress([2, 0, 0, 0, 0, 2]);
    let mut config = Config::new(HardwareAddress::Ethernet(mac));
    config.random_seed = plan.seed;
    let mut interface = Interface::new(config, far, SmoltcpInstant::ZERO);
    let ours = ADDRESSES.map(|address| match address {
        IpAddress::Ipv4(_) => IpAddress::v4(10, 77, 0, 2),
        IpAddress::Ipv6(_) => IpAddress::v6(0xfd77, 0, 0, 0, 0, 0, 0, 2),
    });
    interface.update_ip_addrs(|list| ours.iter().for_each(|a| list.push(prefix(*a)).unwrap()));
    let mut sockets = SocketSet::new(Vec::new());
    let mut streams = Vec::new();
    let mut datagrams = Vec::new();
    for (index, address) in ADDRESSES.into_iter().enumerate() {
        let mut socket = tcp_socket(1 << 17);
        let from = (ours[index], 50_000 + index as u16);
        socket
            .connect(interface.context(), (address, PORT), from)
            .unwrap();
        let mut data = vec![0; plan.bytes];
        fastrand::Rng::with_seed(plan.seed + index as u64).fill(&mut data);
        streams.push(Stream {
            handle: sockets.add(socket),
            data,
            sent: 0,
            received: Vec::new(),
        });
        let mut socket = udp_socket();
        socket.bind((ours[index], 50_000)).unwrap();
        let lens = plan.datagrams.iter();
        datagrams.push(Datagrams {
            handle: sockets.add(socket),
            to: address,
            left: lens.map(|len| vec![*len as u8; *len]).collect(),
            round: 0,
        });
    }
    let what = format!("{}, {plan:?}", far.what);
    loop {
        let now = clock(device);
        far.now = now;
        server.poll(device, now);
        interface.poll(time(now), far, &mut sockets);
        let mut done = true;
        for stream in &mut streams {
            done &= stream.work(sockets.get_mut(stream.handle));
        }
        for one in &mut datagrams {
            done &= one.work(sockets.get_mut(one.handle), &what);
        }
        assert_eq!(device.fault(), None, "{what}");
        if done {
            break;
        }
    }
    for stream in streams {
        assert!(stream.received == stream.data, "{what}: other bytes");
    }
}
