//! A NIC that another process plays, at its vfio-user socket; its peer is on the wire of that process,
//! or an interface of this machine.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pagewire::drivers::Config;
use pagewire::drivers::selftest::{Peer, Station, Stray};
use pagewire::hal::Instant;
use pagewire_models::wire::SharedWire;
use pagewire_vfio::Memory;
use pagewire_vfio::user::{Options, VfioUserPlatform};

use super::packet_socket::PacketSocket;
use super::peer::FarEnd;
use super::summary::Surroundings;
use super::{Args, Bench};
use crate::error::{Failure, shown};

/// What stands before the directory of a wire between processes, as `pagewire model` has it.
const PAIR: &str = "pair:";

/// Frames that can wait at an end of a wire between processes: Linux lets as few as ten datagrams wait
/// at a socket.
const WAITING: u32 = 8;
/// How long a server may take to see that its last client, which was this program, has gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// A device of another process.
pub(super) struct Served {
    socket: PathBuf,
    /// It was open before.
    was_open: bool,
    peer: Option<Box<dyn Peer>>,
    peer_name: String,
    stop: Arc<AtomicBool>,
    start: std::time::Instant,
}

impl Served {
    pub(super) fn new(args: &Args, socket: &Path, stop: &Arc<AtomicBool>) -> Result<Self, Failure> {
        let (peer, peer_name) = match args.interface() {
            None => (None, "none".into()),
            Some(name) => join(name)?,
        };
        Ok(Self {
            socket: socket.to_owned(),
            was_open: false,
            peer,
            peer_name,
            stop: Arc::clone(stop),
            start: std::time::Instant::now(),
        })
    }
}

/// The other end: of a wire between processes, or an interface.
fn join(name: &str) -> Result<(Option<Box<dyn Peer>>, String), Failure> {
    let Some(directory) = name.strip_prefix(PAIR) else {
        let socket = PacketSocket::open(name)?;
        let text = format!("the interface {name} of this machine");
        return Ok((Some(Box::new(socket)), text));
    };
    let directory = Path::new(directory);
    let wire = SharedWire::join(directory)
        .map_err(|error| Failure::usage(format!("--peer {PAIR}{}: {error}", shown(directory))))?;
    let text = format!("this process, on the wire in {}", shown(directory));
    Ok((Some(Box::new(FarEnd::of(wire, WAITING))), text))
}

impl Bench for Served {
    fn surroundings(&self) -> Surroundings {
        Surroundings {
            backend: format!("vfio-user, at {}", shown(&self.socket)),
            peer: self.peer_name.clone(),
            iommu: "none: its process reaches what it was given a file of".into(),
            virtual_time: false,
        }
    }
}

impl Station for Served {
    type Platform = VfioUserPlatform;
    type Memory = Memory;

    fn open(&mut self) -> Result<VfioUserPlatform, String> {
        let start = std::time::Instant::now();
        loop {
            match VfioUserPlatform::connect(&self.socket, &Options::default()) {
                Ok(platform) => {
                    self.was_open = true;
                    return Ok(platform);
                }
                Err(_) if self.was_open && start.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    fn config(&self) -> Config {
        let mut config = Config::default();
        config.e1000e.allow_untested = true;
        config.ixgbe.allow_untested = true;
        config
    }

    fn now(&self) -> Instant {
        let nanos = self.start.elapsed().as_nanos();
        Instant::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    fn wait(&mut self, duration: Duration) {
        std::thread::sleep(duration);
    }

    fn peer(&mut self) -> Option<&mut dyn Peer> {
        let peer = self.peer.as_mut()?;
        Some(peer.as_mut())
    }

    fn peer_advice(&self) -> String {
        "`--peer pair:DIR`, the wire of the process (pagewire model --wire pair:DIR), or `--peer \
         INTERFACE`"
            .into()
    }

    fn stray(&mut self, _: usize, _: &[u8]) -> Result<Box<dyn Stray>, String> {
        Err("there is no IOMMU: the process of the device has what it was given".into())
    }

    fn is_cancelled(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}
