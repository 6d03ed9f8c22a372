//! smoltcp at the far end, with a listening socket for each connection; keeps what arrives.

use std::collections::BTreeMap;
use std::time::Duration;

use pagewire::hal::Instant;
use pagewire_models::Wire;
use pagewire_models::wire::PairEnd;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::Instant as SmolInstant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr};

pub(crate) const PORT: u16 = 7777;
const WINDOW: usize = 64 << 10;

pub(crate) struct Receiver {
    interface: Interface,
    wire: FarWire,
    sockets: SocketSet<'static>,
    handles: Vec<SocketHandle>,
    /// By the sender's port, in order.
    pub(crate) arrived: BTreeMap<u16, Vec<u8>>,
    /// Take nothing out of the sockets: the window closes.
    pub(crate) asleep: bool,
}

impl Receiver {
    pub(crate) fn new(wire: PairEnd, seed: u64, connections: usize) -> Self {
        let mut wire = FarWire {
            wire,
            now: Instant::ZERO,
            frame: Vec::new(),
            frames: Vec::new(),
        };
        let mac = HardwareAddress::Ethernet(EthernetAddress([2, 0, 0, 0, 0, 2]));
        let mut config = Config::new(mac);
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut wire, SmolInstant::ZERO);
        interface.update_ip_addrs(|addresses| {
            let own = IpCidr::new(IpAddress::v4(10, 0, 0, 2), 24);
            addresses.push(own).expect("the first one");
        });
        let mut sockets = SocketSet::new(Vec::new());
        let handles = (0..connections).map(|_| {
            let buffer = || tcp::SocketBuffer::new(vec![0; WINDOW]);
            let mut socket = tcp::Socket::new(buffer(), buffer());
            socket.set_ack_delay(None);
            socket.listen(PORT).expect("a port");
            sockets.add(socket)
        });
        let handles = handles.collect();
        Self {
            interface,
            wire,
            sockets,
            handles,
            arrived: BTreeMap::new(),
            asleep: false,
        }
    }

    pub(crate) fn poll(&mut self, now: Instant) {
        self.wire.now = now;
        self.wire.frames.clear();
        let _ = self
            .interface
            .poll(time(now), &mut self.wire, &mut self.sockets);
        for handle in &self.handles {
            let socket = self.sockets.get_mut::<tcp::Socket<'_>>(*handle);
            let Some(end) = socket.remote_endpoint() else {
                continue;
            };
            let arrived = self.arrived.entry(end.port).or_default();
            while !self.asleep && socket.can_recv() {
                let taken = socket.recv(|bytes| {
                    arrived.extend_from_slice(bytes);
                    (bytes.len(), ())
                });
                taken.expect("it can receive");
            }
        }
    }

    /// Breaks all connections off, with RST.
    pub(crate) fn abort(&mut self) {
        for handle in &self.handles {
            self.sockets.get_mut::<tcp::Socket<'_>>(*handle).abort();
        }
    }

    pub(crate) fn next_event(&mut self, now: Instant) -> Option<Duration> {
        let delay = self.interface.poll_delay(time(now), &self.sockets)?;
        Some(Duration::from_micros(delay.total_micros()))
    }

    /// Frames that came with the last poll, as lengths of Ethernet frames.
    pub(crate) fn frames(&self) -> &[Vec<u8>] {
        &self.wire.frames
    }
}

fn time(now: Instant) -> SmolInstant {
    SmolInstant::from_micros_const((now.as_nanos() / 1000) as i64)
}

struct FarWire {
    wire: PairEnd,
    now: Instant,
    frame: Vec<u8>,
    frames: Vec<Vec<u8>>,
}

struct Taken<'a>(&'a [u8]);

impl RxToken for Taken<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

struct Given<'a>(&'a mut PairEnd, Instant);

impl TxToken for Given<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.0.transmit(&mut frame, self.1);
        result
    }
}

impl Device for FarWire {
    type RxToken<'a> = Taken<'a>;
    type TxToken<'a> = Given<'a>;

    fn receive(&mut self, _: SmolInstant) -> Option<(Taken<'_>, Given<'_>)> {
        if !self.wire.receive(&mut self.frame, self.now) {
            return None;
        }
        self.frames.push(self.frame.clone());
        Some((Taken(&self.frame), Given(&mut self.wire, self.now)))
    }

    fn transmit(&mut self, _: SmolInstant) -> Option<Given<'_>> {
        Some(Given(&mut self.wire, self.now))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}
