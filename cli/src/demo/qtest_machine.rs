//! QEMU's own device, without a guest: another process, real time, memory that both share.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use pagewire::hal::Instant;
use pagewire_models::Wire;
use pagewire_models::qtest::{
    Netdev, Qtest, QtestOptions, QtestPlatform, QtestRegion, QtestWire, find_qemu,
};
use pagewire_vfio::SealedFile;

use super::args::{Args, PeerKind};
use super::machine::{About, FarEnd, Machine, Seen, cannot_register};
use crate::error::Failure;
use crate::software::SoftwareNic;

/// Memory of QEMU's machine beside the input: rings, buffers, what is lost to alignment.
const ROOM: u64 = 96 << 20;
/// A q35 has 2 GiB of memory below its hole for PCI.
const MOST_INPUT: u64 = (2 << 30) - ROOM;
/// Frames carried in one step, each way: as often the driver gives buffers back in between.
const BURST: usize = 64;
/// How long nobody looks at the receive ring when QEMU has the TAP and nothing tells of a frame.
const LOOK: Duration = Duration::from_micros(50);

/// QEMU, and what this program carries.
pub(crate) struct QtestMachine {
    qtest: Qtest,
    line: Option<Line>,
}

/// The far end of the device's wire, and the cable that it is plugged into.
struct Line {
    wire: QtestWire,
    near: Box<dyn Wire>,
    frame: Vec<u8>,
}

impl Machine for QtestMachine {
    type Device = SoftwareNic;
    type Platform = QtestPlatform;
    type Region = QtestRegion<SealedFile>;

    const TAKES_TAP: bool = true;

    fn check(_: &Args, device: &SoftwareNic, input_len: u64) -> Result<(), Failure> {
        let refused = |why: String| Failure::usage(format!("{device}: {why}"));
        if input_len > MOST_INPUT {
            let most = MOST_INPUT >> 20;
            let why = format!("its memory takes an input of {most}M at most");
            return Err(refused(why));
        }
        find_qemu().map_err(|missing| refused(missing.to_string()))?;
        Ok(())
    }

    fn build(
        args: &Args,
        device: &SoftwareNic,
        input_len: u64,
        far: FarEnd,
    ) -> Result<(Self, Self::Platform), Failure> {
        Self::check(args, device, input_len)?;
        let failed = |what: &dyn std::fmt::Display| Failure::failed(format!("{device}: {what}"));
        let qemu = find_qemu().map_err(|missing| failed(&missing))?;
        let mut options = QtestOptions::new(qemu);
        options.device = device.qemu_device();
        options.ram = (input_len.next_multiple_of(1 << 20) + ROOM) as usize;
        options.granule = args.dma_page().granule();
        let near = match far {
            FarEnd::Wire(near) => Some(near),
            FarEnd::Tap(tap) => {
                options.netdev = Netdev::Tap(tap.into());
                None
            }
            FarEnd::Cable => return Err(failed(&"no cable leads there")),
        };
        let mut qtest = Qtest::start(&options).map_err(|error| failed(&error))?;
        let platform = qtest.take_platform();
        let platform = platform.ok_or_else(|| failed(&"QEMU has no device"))?;
        let mut line = None;
        if let Some(near) = near {
            let wire = qtest.take_wire();
            line = Some(Line {
                wire: wire.ok_or_else(|| failed(&"QEMU's device has no wire"))?,
                near,
                frame: Vec::new(),
            });
        }
        Ok((Self { qtest, line }, platform))
    }

    fn about(&self, args: &Args, device: &SoftwareNic, _: &str) -> About {
        About {
            device: device.description(),
            mapping: "one copy into the memory that is shared with QEMU",
            cpu: match args.peer() {
                PeerKind::Smoltcp => "  wire (QEMU is not counted)",
                PeerKind::Linux => "  wire, kernel behind it (not QEMU)",
            },
        }
    }

    fn register(&self, sealed: SealedFile) -> Result<Arc<Self::Region>, Failure> {
        self.qtest.register(sealed).map_err(cannot_register)
    }

    fn bytes(region: &Self::Region) -> &[u8] {
        region.bytes()
    }

    fn now(&self) -> Instant {
        self.qtest.now()
    }

    fn advance(&self, _: Duration) -> bool {
        false
    }

    fn readable(&self) -> Option<BorrowedFd<'_>> {
        self.line.as_ref().map(|line| line.wire.as_fd())
    }

    fn longest_sleep(&self) -> Duration {
        match self.line {
            Some(_) => Duration::from_millis(10),
            None => LOOK,
        }
    }

    fn step(&mut self) -> bool {
        let now = self.qtest.now();
        let Some(Line { wire, near, frame }) = &mut self.line else {
            return false;
        };
        let out = carry(wire, near.as_mut(), frame, now);
        let back = carry(near.as_mut(), wire, frame, now);
        out + back > 0
    }

    fn seen(&self) -> Seen {
        Seen {
            region_bytes: None,
            most_fragments: None,
            violations: Vec::new(),
        }
    }
}

/// Carries what has arrived at `from` to `to`; the number of frames.
fn carry(from: &mut dyn Wire, to: &mut dyn Wire, frame: &mut Vec<u8>, now: Instant) -> usize {
    let mut carried = 0;
    while carried < BURST && from.receive(frame, now) {
        to.transmit(frame, now);
        carried += 1;
    }
    carried
}
