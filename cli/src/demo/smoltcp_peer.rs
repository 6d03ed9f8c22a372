//! The receiver in this process: smoltcp's TCP at the other end of the wire.

use std::collections::VecDeque;
use std::net::SocketAddrV4;
use std::time::Duration;

use pagewire::hal::Instant;
use pagewire_models::Wire;
use sha2::{Digest, Sha256};
use smoltcp::iface::{Config, Interface, PollResult, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::Instant as SmolInstant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr};

use super::args::Args;
use super::peer::{Arrived, Peer, PeerError, Stream};
use crate::receiver::hex;

/// Bytes that smoltcp buffers for its program: the window that it offers.
const RECEIVE_BUFFER: usize = 1 << 20;
const TRANSMIT_BUFFER: usize = 16 << 10;

/// smoltcp with a listening socket for each connection; hashes what arrives.
pub(crate) struct SmoltcpPeer {
    interface: Interface,
    device: WireDevice,
    sockets: SocketSet<'static>,
    ends: Vec<End>,
}

/// The receiving end of a connection.
struct End {
    handle: SocketHandle,
    /// The sender's port, once it has connected.
    port: Option<u16>,
    hash: Sha256,
    bytes: u64,
    was_open: bool,
    /// The stream has ended.
    is_over: bool,
}

impl SmoltcpPeer {
    /// A peer at `address` on `wire`, as the options of the demo have it.
    pub(crate) fn new(
        wire: Box<dyn Wire>,
        (address, prefix_len): (SocketAddrV4, u8),
        args: &Args,
    ) -> Result<Self, PeerError> {
        let mut device = WireDevice::new(wire, args.mtu);
        let mac = EthernetAddress([2, 0, 0, 0, 0, 2]);
        let mut config = Config::new(HardwareAddress::Ethernet(mac));
        config.random_seed = args.seed;
        let mut interface = Interface::new(config, &mut device, SmolInstant::ZERO);
        interface.update_ip_addrs(|addresses| {
            // One address always fits.
            let _ = addresses.push(IpCidr::new((*address.ip()).into(), prefix_len));
        });
        let mut sockets = SocketSet::new(Vec::new());
        let mut listen = || {
            let mut socket = tcp::Socket::new(
                tcp::SocketBuffer::new(vec![0; RECEIVE_BUFFER]),
                tcp::SocketBuffer::new(vec![0; TRANSMIT_BUFFER]),
            );
            socket
                .listen(address.port())
                .map_err(|why| PeerError(format!("smoltcp does not listen: {why:?}")))?;
            Ok(End::new(sockets.add(socket)))
        };
        let ends = (0..args.connections()).map(|_| listen());
        let ends = ends.collect::<Result<_, _>>()?;
        Ok(Self {
            interface,
            device,
            sockets,
            ends,
        })
    }
}

impl End {
    fn new(handle: SocketHandle) -> Self {
        Self {
            handle,
            port: None,
            hash: Sha256::new(),
            bytes: 0,
            was_open: false,
            is_over: false,
        }
    }

    /// Takes what the socket holds. Closes when the sender has.
    fn drain(&mut self, socket: &mut tcp::Socket<'_>) -> Result<bool, PeerError> {
        let mut worked = false;
        self.port = self.port.or(socket.remote_endpoint().map(|end| end.port));
        while socket.can_recv() {
            let taken = socket.recv(|data| {
                self.hash.update(&*data);
                (data.len(), data.len())
            });
            self.bytes += taken.map_err(|why| PeerError(format!("smoltcp: {why}")))? as u64;
            worked = true;
        }
        self.was_open |= socket.may_recv();
        if self.was_open && !socket.may_recv() {
            if socket.state() == tcp::State::CloseWait {
                socket.close();
                worked = true;
            } else if socket.state() == tcp::State::Closed && !self.is_over {
                return Err(PeerError("smoltcp's connection broke off".into()));
            }
            self.is_over = true;
        }
        Ok(worked)
    }

    fn stream(&self) -> Option<Stream> {
        self.is_over.then(|| Stream {
            port: self.port.unwrap_or(0),
            bytes: self.bytes,
            sha256: hex(&self.hash.clone().finalize()),
        })
    }
}

impl Peer for SmoltcpPeer {
    fn poll(&mut self, now: Instant) -> Result<bool, PeerError> {
        self.device.now = now;
        let time = SmolInstant::from_micros_const((now.as_nanos() / 1000) as i64);
        let result = self
            .interface
            .poll(time, &mut self.device, &mut self.sockets);
        let mut worked = false;
        for end in &mut self.ends {
            worked |= end.drain(self.sockets.get_mut(end.handle))?;
        }
        Ok(worked || result == PollResult::SocketStateChanged)
    }

    fn next_event(&mut self, now: Instant) -> Option<Duration> {
        let time = SmolInstant::from_micros_const((now.as_nanos() / 1000) as i64);
        let delay = self.interface.poll_delay(time, &self.sockets)?;
        Some(Duration::from_micros(delay.total_micros()))
    }

    fn arrived(&mut self) -> Result<Option<Arrived>, PeerError> {
        let streams: Option<Vec<_>> = self.ends.iter().map(End::stream).collect();
        Ok(streams.map(|streams| Arrived {
            streams,
            frames: self.device.frames,
            frame_bytes: self.device.frame_bytes,
            // The wire counts what it loses.
            lost: 0,
        }))
    }
}

/// smoltcp's view of a wire. It verifies and makes all checksums itself.
struct WireDevice {
    wire: Box<dyn Wire>,
    now: Instant,
    max_frame_len: usize,
    received: Vec<u8>,
    /// Frames received, and their bytes.
    frames: u64,
    frame_bytes: u64,
    spare: VecDeque<Vec<u8>>,
}

impl WireDevice {
    fn new(wire: Box<dyn Wire>, mtu: u16) -> Self {
        let max_frame_len = usize::from(mtu) + 14;
        Self {
            wire,
            now: Instant::ZERO,
            max_frame_len,
            received: Vec::new(),
            frames: 0,
            frame_bytes: 0,
            spare: VecDeque::from([Vec::with_capacity(max_frame_len)]),
        }
    }
}

struct Received<'a>(&'a [u8]);

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

struct Transmit<'a> {
    wire: &'a mut dyn Wire,
    spare: &'a mut VecDeque<Vec<u8>>,
    now: Instant,
}

impl TxToken for Transmit<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = self.spare.pop_front().unwrap_or_default();
        frame.clear();
        frame.resize(len, 0);
        let result = f(&mut frame);
        self.wire.transmit(&mut frame, self.now);
        self.spare.push_back(frame);
        result
    }
}

impl Device for WireDevice {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Transmit<'a>;

    fn receive(&mut self, _: SmolInstant) -> Option<(Received<'_>, Transmit<'_>)> {
        let Self {
            wire,
            now,
            received,
            frames,
            frame_bytes,
            spare,
            ..
        } = self;
        wire.receive(received, *now).then(|| {
            *frames += 1;
            *frame_bytes += received.len() as u64;
            (
                Received(received),
                Transmit {
                    wire: &mut **wire,
                    spare,
                    now: *now,
                },
            )
        })
    }

    fn transmit(&mut self, _: SmolInstant) -> Option<Transmit<'_>> {
        let Self {
            wire, now, spare, ..
        } = self;
        Some(Transmit {
            wire: &mut **wire,
            spare,
            now: *now,
        })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.max_frame_len;
        capabilities
    }
}
