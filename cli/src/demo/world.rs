//! Everything that takes part: the machine with the NIC, the driver, the sender, the cable and
//! the receiver.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use pagewire::drivers::{AnyNic, AnyRx, AnyTx, Config};
use pagewire::hal::{
    FixedBytes, Granule, Instant, Nic, NicError, Platform, PoolLayout, PortPair, RegionId, TxPort,
};
use pagewire::tcp::{Stack, StackConfig};
use pagewire_models::Wire;
use pagewire_models::wire::{Tap, open_vnet_tap, pair};

use super::args::{Args, PeerKind};
use super::input::Sealed;
use super::linux_peer::LinuxPeer;
use super::machine::{FarEnd, Machine};
use super::peer::Peer;
use super::smoltcp_peer::SmoltcpPeer;
use super::wires::Cable;
use crate::device::DeviceName;
use crate::error::Failure;

/// The page of this machine, in which pinned pages are counted.
pub(crate) const PAGE: usize = 4096;

/// Where the receiver listens; the addresses exist on the cable only.
pub(crate) const REMOTE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 77, 0, 2), 7777);
const LOCAL: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const PREFIX_LEN: u8 = 24;

/// Descriptors in the receive ring: more than the acknowledgements of a burst.
const DESCRIPTORS: u16 = 1024;

/// Header buffers, and buffers for copied frames: as many frames may be in the ring.
const BUFFERS: usize = 1024;

/// Room for the headers of a frame and a short prefix.
const HEADER_BUFFER: usize = 192;

pub(crate) type DemoStack<P> = Stack<AnyTx<P>, <P as Platform>::Memory>;

/// Everything that takes part.
pub(crate) struct World<M: Machine> {
    pub(crate) nic: AnyNic<M::Platform>,
    pub(crate) rx: AnyRx<M::Platform>,
    pub(crate) stack: DemoStack<M::Platform>,
    pub(crate) region: RegionId,
    pub(crate) sealed: Arc<M::Region>,
    pub(crate) peer: Box<dyn Peer>,
    pub(crate) cable: Cable,
    /// Tells that the peer has sent a frame, if it lives in real time.
    readable: Option<OwnedFd>,
    // Last: the device goes when nobody uses it any more.
    pub(crate) machine: M,
}

impl<M: Machine> World<M> {
    /// Builds everything and registers the input.
    pub(crate) fn build(args: &Args, name: &DeviceName, sealed: Sealed) -> Result<Self, Failure> {
        let Far {
            peer,
            end,
            cable,
            readable,
        } = far::<M>(args)?;
        let (mut machine, platform) = M::build(args, name, sealed.bytes().len() as u64, end)?;
        let device = |error: NicError| Failure::failed(format!("{name}: {error}"));
        let mut nic = AnyNic::open(platform, &driver_config(args, name)).map_err(device)?;
        let Some((tx, rx)) = nic.take_queues(0) else {
            return Err(Failure::failed(format!("{name} has no queues")));
        };
        let port = TxPort::new(&mut nic, tx, &pool(args)).map_err(device)?;
        let mut stack = Stack::new(port, stack_config(args, &nic))
            .map_err(|error| Failure::failed(format!("the sender: {error}")))?;
        let sealed = machine.register(sealed)?;
        let region = stack
            .register(Arc::clone(&sealed) as _)
            .map_err(|error| Failure::failed(format!("cannot register the input: {error}")))?;
        machine.start_clock();
        Ok(Self {
            nic,
            rx,
            stack,
            region,
            sealed,
            peer,
            cable,
            readable,
            machine,
        })
    }

    /// Now, for everybody.
    pub(crate) fn now(&self) -> Instant {
        self.machine.now()
    }

    /// Lets time pass: at most `longest`, less if something may happen earlier.
    pub(crate) fn sleep(&self, longest: Duration) {
        sleep(&self.machine, self.readable.as_ref(), longest);
    }

    /// Stops the device and takes back what it still had.
    pub(crate) fn shut_down(&mut self) -> Result<(), NicError> {
        let Self {
            nic,
            rx,
            stack,
            machine,
            readable,
            ..
        } = self;
        let tx = stack.port_mut();
        pagewire::hal::shut_down(nic, &mut [PortPair { tx, rx }], || {
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

/// The receiver, the far end of the NIC's wire and the cable before it, and what tells that the
/// peer has sent a frame.
struct Far {
    peer: Box<dyn Peer>,
    end: FarEnd,
    cable: Cable,
    readable: Option<OwnedFd>,
}

fn far<M: Machine>(args: &Args) -> Result<Far, Failure> {
    let (peer, far, readable): (Box<dyn Peer>, Box<dyn Wire>, _) = match args.peer {
        PeerKind::Smoltcp => {
            let (near, far) = pair();
            let peer = SmoltcpPeer::new(Box::new(far), REMOTE, PREFIX_LEN, args.mtu, args.seed)
                .map_err(|error| Failure::failed(error.to_string()))?;
            (Box::new(peer), Box::new(near), None)
        }
        PeerKind::Linux if M::TAKES_TAP && !Cable::is_wanted(args) => {
            let (tap, peer) = LinuxPeer::start(REMOTE, PREFIX_LEN, args.mtu, open_vnet_tap)?;
            return Ok(Far {
                peer: Box::new(peer),
                end: FarEnd::Tap(tap),
                cable: Cable::default(),
                readable: None,
            });
        }
        PeerKind::Linux => {
            let (tap, peer) = LinuxPeer::start(REMOTE, PREFIX_LEN, args.mtu, Tap::open)?;
            let readable = tap.as_fd().try_clone_to_owned();
            let readable =
                readable.map_err(|error| Failure::failed(format!("the TAP: {error}")))?;
            (Box::new(peer), Box::new(tap), Some(readable))
        }
    };
    let (cable, near) = Cable::lay(far, args)?;
    Ok(Far {
        peer,
        end: FarEnd::Wire(near),
        cable,
        readable,
    })
}

fn driver_config(args: &Args, device: &DeviceName) -> Config {
    let mut config = Config::default();
    config.tx_descriptors = args.tx_descriptors;
    config.rx_descriptors = DESCRIPTORS;
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

fn stack_config(args: &Args, nic: &impl Nic) -> StackConfig {
    let mut secret = [0; 16];
    fastrand::Rng::with_seed(args.seed ^ 0x005e_c2e7).fill(&mut secret);
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
