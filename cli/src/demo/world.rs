//! Everything that takes part: the machine, the NIC on its model, the driver, the sender, the
//! cable and the receiver.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use pagewire::e1000e::{Config, E1000e, E1000eRx, E1000eTx};
use pagewire::hal::{
    Granule, Instant, Nic, NicError, Phase, PoolLayout, PortPair, RegionId, TxPort,
};
use pagewire::tcp::{Stack, StackConfig};
use pagewire_models::e1000e::{E1000e82574, ModelConfig};
use pagewire_models::wire::pair;
use pagewire_models::{Host, HostConfig, HostMemory, ModelHandle, ModelPlatform, Wire};

use super::args::{Args, PeerKind};
use super::input::Sealed;
use super::linux_peer::LinuxPeer;
use super::peer::Peer;
use super::smoltcp_peer::SmoltcpPeer;
use super::wires::Cable;
use crate::error::Failure;

/// The page of this machine, in which pinned pages are counted.
pub(crate) const PAGE: usize = 4096;

/// Where the receiver listens; the addresses exist on the cable only.
pub(crate) const REMOTE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 77, 0, 2), 7777);
const LOCAL: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const PREFIX_LEN: u8 = 24;

/// Descriptors per ring: enough that a burst is worth its doorbell.
const DESCRIPTORS: u16 = 1024;

/// Header buffers, and buffers for copied frames: as many frames may be in the ring.
const BUFFERS: usize = 1024;

/// Room for the headers of a frame and a short prefix.
const HEADER_BUFFER: usize = 192;

pub(crate) type DemoStack = Stack<E1000eTx<ModelPlatform>, HostMemory>;

/// Everything that takes part.
pub(crate) struct World {
    pub(crate) host: Host,
    pub(crate) model: ModelHandle<E1000e82574>,
    pub(crate) nic: E1000e<ModelPlatform>,
    pub(crate) rx: E1000eRx<ModelPlatform>,
    pub(crate) stack: DemoStack,
    pub(crate) region: RegionId,
    pub(crate) sealed: Arc<pagewire_models::HostRegion<Sealed>>,
    pub(crate) peer: Box<dyn Peer>,
    pub(crate) cable: Cable,
    pub(crate) clock: Clock,
}

/// Whose time it is.
pub(crate) enum Clock {
    /// Moves when there is nothing to do, and a little with each round.
    Virtual,
    /// The machine's; with what tells that a frame has arrived.
    Real {
        /// The host's time at `start`: the driver's waits have moved it by then.
        base: Instant,
        start: std::time::Instant,
        readable: OwnedFd,
    },
}

impl World {
    /// Builds everything and registers the input.
    pub(crate) fn build(args: &Args, sealed: Sealed) -> Result<Self, Failure> {
        let host = Host::new(HostConfig {
            seed: args.seed,
            granule: args.dma_page.granule(),
        });
        let (peer, far, mut clock) = peer(args)?;
        let (cable, near) = Cable::lay(far, args)?;
        let config = ModelConfig {
            seed: args.seed,
            ..ModelConfig::default()
        };
        let attached = host.attach(E1000e82574::new(config, near));
        let device = |error: NicError| Failure::failed(format!("e1000e on its model: {error}"));
        let mut nic = E1000e::open(attached.platform, &driver_config(args)).map_err(device)?;
        let Some((tx, rx)) = nic.take_queues(0) else {
            return Err(Failure::failed("e1000e on its model has no queues"));
        };
        let port = TxPort::new(&mut nic, tx, &pool(args)).map_err(device)?;
        let mut stack = Stack::new(port, stack_config(args, &nic))
            .map_err(|error| Failure::failed(format!("the sender: {error}")))?;
        let sealed = host
            .register(sealed)
            .map_err(|error| Failure::failed(format!("cannot register the input: {error}")))?;
        let region = stack
            .register(Arc::clone(&sealed) as _)
            .map_err(|error| Failure::failed(format!("cannot register the input: {error}")))?;
        if let Clock::Real { base, start, .. } = &mut clock {
            *base = host.now();
            *start = std::time::Instant::now();
        }
        let model = attached.handle;
        Ok(Self {
            host,
            model,
            nic,
            rx,
            stack,
            region,
            sealed,
            peer,
            cable,
            clock,
        })
    }

    /// Now, for everybody.
    pub(crate) fn now(&self) -> Instant {
        if let Clock::Real { base, start, .. } = &self.clock {
            self.host.set_now(*base + start.elapsed());
        }
        self.host.now()
    }

    /// Lets time pass: at most `longest`, less if something may happen earlier.
    pub(crate) fn sleep(&self, longest: Duration) {
        match &self.clock {
            Clock::Virtual => self.host.advance(longest),
            Clock::Real { readable, .. } => {
                use rustix::event::{PollFd, PollFlags, Timespec, poll};
                let timeout = Timespec::try_from(longest.min(Duration::from_millis(10)));
                let mut fds = [PollFd::new(readable, PollFlags::IN)];
                // A signal ends the sleep early, which is what is wanted.
                let _ = poll(&mut fds, timeout.ok().as_ref());
            }
        }
    }

    /// Stops the device and takes back what it still had.
    pub(crate) fn shut_down(&mut self) -> Result<(), NicError> {
        let begin = self.now();
        self.nic.begin_reset(begin);
        loop {
            let now = self.now();
            match self.nic.poll(now)? {
                Phase::Quiet => break,
                Phase::Failed => return Err(NicError::NotQuiet),
                _ => {}
            }
            self.model.step();
            self.sleep(Duration::from_micros(100));
        }
        let pair = PortPair {
            tx: self.stack.port_mut(),
            rx: &mut self.rx,
        };
        pagewire::hal::release(&mut self.nic, &mut [pair])
    }
}

type Far = (Box<dyn Peer>, Box<dyn Wire>, Clock);

fn peer(args: &Args) -> Result<Far, Failure> {
    match args.peer {
        PeerKind::Smoltcp => {
            let (near, far) = pair();
            let peer = SmoltcpPeer::new(Box::new(far), REMOTE, PREFIX_LEN, args.mtu, args.seed)
                .map_err(|error| Failure::failed(error.to_string()))?;
            Ok((Box::new(peer), Box::new(near), Clock::Virtual))
        }
        PeerKind::Linux => {
            let (tap, peer) = LinuxPeer::start(REMOTE, PREFIX_LEN, args.mtu)?;
            let readable = tap
                .as_fd()
                .try_clone_to_owned()
                .map_err(|error| Failure::failed(format!("the TAP: {error}")))?;
            let clock = Clock::Real {
                base: Instant::ZERO,
                start: std::time::Instant::now(),
                readable,
            };
            Ok((Box::new(peer), Box::new(tap), clock))
        }
    }
}

fn driver_config(args: &Args) -> Config {
    let mut config = Config::default();
    config.tx_descriptors = DESCRIPTORS;
    config.rx_descriptors = DESCRIPTORS;
    config.mtu = args.mtu;
    config.max_fragments = args.max_fragments;
    config.checksum_offload = !args.no_checksum;
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

fn stack_config(args: &Args, nic: &E1000e<ModelPlatform>) -> StackConfig {
    let mut secret = [0; 16];
    fastrand::Rng::with_seed(args.seed ^ 0x005e_c2e7).fill(&mut secret);
    StackConfig {
        mac: nic.mac_address(),
        address: LOCAL,
        prefix_len: PREFIX_LEN,
        mtu: args.mtu,
        secret,
        ..StackConfig::default()
    }
}
