//! Everything that takes part: the machine with the NIC, the driver, the sender, the cable and
//! the receiver.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use pagewire::drivers::{AnyNic, Config};
use pagewire::hal::{FixedBytes, Granule, Instant, Nic, NicError, PoolLayout, TxPort};
use pagewire::tcp::{Stack, StackConfig};
use pagewire_models::Wire;
use pagewire_models::wire::{SharedWire, Tap, open_vnet_tap, pair};
use pagewire_vfio::SealedFile;
use pagewire_vfio::protect::Choice;

use super::args::{Args, PeerKind};
use super::lane::{Lane, Owners};
use super::linux_peer::LinuxPeer;
use super::loss::Losses;
use super::machine::{About, FarEnd, Machine};
use super::peer::{Arrived, Peer};
use super::scribble::Scribble;
use super::smoltcp_peer::SmoltcpPeer;
use super::wires::Cable;
use crate::device::DeviceName;
use crate::error::{Failure, shown};

/// The page of this machine, in which pinned pages are counted.
pub(crate) const PAGE: usize = 4096;

/// Where the receiver listens; the addresses exist on the cable only.
pub(crate) const REMOTE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 77, 0, 2), 7777);
/// First port that connections are opened from, if it matters which (RFC 6335 section 6).
const FIRST_PORT: u16 = 49152;
const LOCAL: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const PREFIX_LEN: u8 = 24;

/// Descriptors in the receive ring: more than the acknowledgements of a burst.
const DESCRIPTORS: u16 = 1024;

/// Header buffers, and buffers for copied frames: as many frames may be in the ring.
const BUFFERS: usize = 1024;

/// Bytes for what moves away because somebody wants to write over it.
const COPY_POOL: usize = 1 << 20;

/// Room for the headers of a frame and a short prefix.
const HEADER_BUFFER: usize = 192;

/// Everything that takes part.
pub(crate) struct World<M: Machine> {
    pub(crate) nic: AnyNic<M::Platform>,
    /// One for each pair of queues.
    pub(crate) lanes: Vec<Lane<M>>,
    pub(crate) peer: Box<dyn Peer>,
    pub(crate) cable: Cable,
    pub(crate) about: About,
    /// Who writes to the input while it is sent.
    pub(crate) scribble: Option<Arc<Scribble>>,
    /// Tells that the peer has sent a frame, if it lives in real time.
    readable: Option<OwnedFd>,
    // Last: the device goes when nobody uses it any more.
    pub(crate) machine: M,
}

impl<M: Machine> World<M> {
    /// Builds everything and registers the input.
    pub(crate) fn build(
        args: &Args,
        name: &DeviceName,
        device: &M::Device,
        sealed: SealedFile,
    ) -> Result<Self, Failure> {
        let len = sealed.bytes().len() as u64;
        let (mut machine, platform, far) = if M::HAS_CABLE {
            // First the device: what is wrong with it is told before the receiver asks for more.
            let (machine, platform) = M::build(args, device, len, FarEnd::Cable)?;
            (machine, platform, Far::by_cable(args)?)
        } else {
            let (far, end) = far::<M>(args)?;
            let (machine, platform) = M::build(args, device, len, end)?;
            (machine, platform, far)
        };
        let Far {
            peer,
            cable,
            readable,
        } = far;
        let failed = |error: NicError| Failure::failed(format!("{name}: {error}"));
        let mut nic = AnyNic::open(platform, &driver_config(args, name)).map_err(failed)?;
        let scribble = match args.scribble {
            Some(policy) => {
                let scribble = Scribble::new(sealed.bytes(), policy, Choice::Best)?;
                let region = machine.register_arena(scribble.arena.clone())?;
                Some((scribble, region))
            }
            None => None,
        };
        let sealed = machine.register(sealed)?;
        let mut lanes = Vec::new();
        for index in 0..args.queues {
            let Some((tx, rx)) = nic.take_queues(index) else {
                let pairs = nic.capabilities().queue_pairs;
                let why = format!("{name} has {pairs} pairs of queues, not {}", args.queues);
                return Err(Failure::usage(why));
            };
            let port = TxPort::new(&mut nic, tx, &pool(args)).map_err(failed)?;
            let mut stack = Stack::new(port, stack_config(args, index, &nic))
                .map_err(|error| Failure::failed(format!("the sender: {error}")))?;
            if scribble.is_some() {
                let page = Granule::from_bytes(PAGE).unwrap_or(Granule::CONTIGUOUS);
                let pool = nic.allocate(COPY_POOL, PAGE).map_err(failed)?;
                stack
                    .set_copy_pool(pool, page)
                    .map_err(|error| Failure::failed(format!("the sender: {error}")))?;
            }
            let longest = nic.capabilities().max_receive_len();
            let input = (&sealed, scribble.as_ref());
            // A wire in software loses them itself.
            let percent = if M::HAS_CABLE { args.loss } else { 0.0 };
            let losses = Losses::new(percent, args.seed, index.into());
            lanes.push(Lane::new(index.into(), rx, stack, input, longest, losses)?);
        }
        machine.start_clock();
        let about = machine.about(args, device, nic.name());
        Ok(Self {
            nic,
            lanes,
            peer,
            cable,
            about,
            scribble: scribble.map(|(scribble, _)| scribble),
            readable,
            machine,
        })
    }

    /// How far the input is contiguous for the device.
    pub(crate) fn granule(&self) -> Granule {
        let lane = self.lanes.first();
        lane.map_or(Granule::CONTIGUOUS, |lane| lane.granule())
    }

    /// Now, for everybody.
    pub(crate) fn now(&self) -> Instant {
        self.machine.now()
    }

    /// Opens the connections, each on its lane, and says which lane has which local port.
    ///
    /// What comes back must come to the pair of queues that it is sent on. Where the NIC chooses the
    /// receive queue by a hash of addresses and ports, a port is looked for whose hash is right;
    /// others bring a flow to where it was sent, or have one pair only.
    pub(crate) fn connect(&mut self, args: &Args) -> Result<Owners, Failure> {
        let now = self.now();
        let mut owners = Owners::new();
        for index in 0..usize::from(args.connections()) {
            let lane = index % self.lanes.len();
            let port = match args.queues {
                1 => None,
                _ => Some(free_port(args, &self.nic, lane, &owners)?),
            };
            let lane = &mut self.lanes[lane];
            owners.insert(lane.connect(now, port)?, lane.index);
        }
        Ok(owners)
    }

    /// What the peer has, once all streams have ended.
    pub(crate) fn arrived(&mut self) -> Result<Option<Arrived>, Failure> {
        let arrived = self.peer.arrived();
        arrived.map_err(|error| Failure::failed(error.to_string()))
    }

    /// Lets time pass: at most `longest`, less if something may happen earlier.
    pub(crate) fn sleep(&self, longest: Duration) {
        sleep(&self.machine, self.readable.as_ref(), longest);
    }

    /// Stops the device and takes back what it still had.
    pub(crate) fn shut_down(&mut self) -> Result<(), NicError> {
        let Self {
            nic,
            lanes,
            machine,
            readable,
            ..
        } = self;
        let mut pairs: Vec<_> = lanes.iter_mut().map(Lane::port_pair).collect();
        pagewire::hal::shut_down(nic, &mut pairs, || {
            machine.step();
            sleep(machine, readable.as_ref(), Duration::from_micros(100));
            Some(machine.now())
        })
    }
}

fn sleep<M: Machine>(machine: &M, peer: Option<&OwnedFd>, longest: Duration) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    if machine.advance(longest) {
        return;
    }
    let timeout = Timespec::try_from(longest.min(machine.longest_sleep()));
    let mut fds: Vec<_> = [peer.map(AsFd::as_fd), machine.readable()]
        .into_iter()
        .flatten()
        .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
        .collect();
    // A signal ends the sleep early, which is what is wanted.
    let _ = poll(&mut fds, timeout.ok().as_ref());
}

/// The receiver, the cable before it, and what tells that the peer has sent a frame.
struct Far {
    peer: Box<dyn Peer>,
    cable: Cable,
    readable: Option<OwnedFd>,
}

impl Far {
    /// The kernel behind another interface of this machine, or smoltcp on a wire of another process.
    fn by_cable(args: &Args) -> Result<Self, Failure> {
        if let Some(directory) = &args.wire {
            let failed = |why: &dyn std::fmt::Display| {
                Failure::usage(format!("--wire pair:{}: {why}", shown(directory)))
            };
            let wire = SharedWire::join(directory).map_err(|error| failed(&error))?;
            let readable = wire.as_fd().try_clone_to_owned();
            let readable = readable.map_err(|error| failed(&error))?;
            let peer = SmoltcpPeer::new(Box::new(wire), (REMOTE, PREFIX_LEN), args)
                .map_err(|error| Failure::failed(error.to_string()))?;
            return Ok(Self {
                peer: Box::new(peer),
                cable: Cable::default(),
                readable: Some(readable),
            });
        }
        let interface = args.peer_interface.as_deref().unwrap_or_default();
        let peer = LinuxPeer::behind(interface, (REMOTE, PREFIX_LEN), args)?;
        Ok(Self {
            peer: Box::new(peer),
            cable: Cable::default(),
            readable: None,
        })
    }
}

/// What is at the far end of a wire in software, and that end.
fn far<M: Machine>(args: &Args) -> Result<(Far, FarEnd), Failure> {
    let (peer, far, readable): (Box<dyn Peer>, Box<dyn Wire>, _) = match args.peer() {
        PeerKind::Smoltcp => {
            let (near, far) = pair();
            let peer = SmoltcpPeer::new(Box::new(far), (REMOTE, PREFIX_LEN), args)
                .map_err(|error| Failure::failed(error.to_string()))?;
            (Box::new(peer), Box::new(near), None)
        }
        PeerKind::Linux if M::TAKES_TAP && !Cable::is_wanted(args) => {
            let (tap, peer) = LinuxPeer::behind_tap((REMOTE, PREFIX_LEN), args, open_vnet_tap)?;
            let far = Far {
                peer: Box::new(peer),
                cable: Cable::default(),
                readable: None,
            };
            return Ok((far, FarEnd::Tap(tap)));
        }
        PeerKind::Linux => {
            let (tap, peer) = LinuxPeer::behind_tap((REMOTE, PREFIX_LEN), args, Tap::open)?;
            let readable = tap.as_fd().try_clone_to_owned();
            let readable =
                readable.map_err(|error| Failure::failed(format!("the TAP: {error}")))?;
            (Box::new(peer), Box::new(tap), Some(readable))
        }
    };
    let (cable, near) = Cable::lay(far, args)?;
    let far = Far {
        peer,
        cable,
        readable,
    };
    Ok((far, FarEnd::Wire(near)))
}

fn driver_config(args: &Args, device: &DeviceName) -> Config {
    let mut config = Config::default();
    config.tx_descriptors = args.tx_descriptors;
    config.rx_descriptors = DESCRIPTORS;
    config.queue_pairs = args.queues;
    config.mtu = args.mtu;
    config.max_fragments = args.max_fragments;
    config.checksum_offload = !args.no_checksum;
    device.configure(&mut config);
    config
}

fn pool(args: &Args) -> PoolLayout {
    PoolLayout {
        small_len: HEADER_BUFFER,
        small_count: BUFFERS,
        large_len: usize::from(args.mtu) + 14,
        large_count: BUFFERS,
        page: Granule::from_bytes(PAGE).unwrap_or(Granule::CONTIGUOUS),
    }
}

/// A source port that nobody has. Unless it does not matter to the user, what is sent to it comes to
/// `lane`.
fn free_port<P: pagewire::hal::Platform>(
    args: &Args,
    nic: &AnyNic<P>,
    lane: usize,
    taken: &Owners,
) -> Result<u16, Failure> {
    let comes_here = |port: &u16| {
        let own = SocketAddrV4::new(LOCAL, *port);
        let queue = nic.receive_queue(REMOTE.into(), own.into());
        args.any_port || queue.is_none_or(|queue| usize::from(queue) == lane)
    };
    (FIRST_PORT..=u16::MAX)
        .filter(|port| !taken.contains_key(port))
        .find(comes_here)
        .ok_or_else(|| Failure::usage(format!("no port leads to queue {lane}")))
}

fn stack_config(args: &Args, lane: u16, nic: &impl Nic) -> StackConfig {
    let mut secret = [0; 16];
    let seed = args.seed ^ 0x005e_c2e7 ^ u64::from(lane) << 32;
    fastrand::Rng::with_seed(seed).fill(&mut secret);
    StackConfig {
        mac: nic.mac_address(),
        address: LOCAL,
        prefix_len: PREFIX_LEN,
        mtu: args.mtu,
        segmentation: !args.no_segmentation,
        secret,
        ..StackConfig::default()
    }
}
