//! QEMU's own devices, without a guest: a device model that nobody here wrote.
//!
//! [`Qtest::start`] runs `qemu-system-x86_64` with `accel=qtest`: a machine whose processor does
//! nothing, whose ports and memory this program reads and writes over a socket. The machine's
//! memory is a memfd that both map, so DMA is direct. The wire is a pair of datagram sockets, or a
//! TAP interface of Linux ([`Netdev`]).
//!
//! Time is real: QEMU's own clock, which stands still under qtest, is moved on every
//! millisecond.
//!
//! What is behind: QEMU 11.0 or newer (`exit-with-parent`), which `tests/lab/get-qemu` fetches;
//! [`find_qemu`] finds it.

mod clock;
mod connection;
mod find;
mod memory;
mod monitor;
mod netdev;
mod pages;
mod pci;
mod platform;
mod process;
mod region;
mod virtio;
mod wire;

use std::fmt;
use std::io::{self, ErrorKind};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant as RealInstant};

use pagewire_hal::{DomainId, FixedBytes, Granule, Instant, PlatformError};
use tempfile::TempDir;

pub use find::{QemuMissing, find_qemu};
pub use memory::QtestMemory;
pub use netdev::{Netdev, TapQueues};
pub use platform::{QtestPlatform, QtestRegisters};
pub use region::QtestRegion;
pub use virtio::{VirtioInterface, VirtioOptions, VirtioOptionsError, station_address};
pub use wire::{QtestWire, QtestWireCounters};

use clock::Clock;
use connection::Connection;
use memory::{PAGE, Ram};
use monitor::Monitor;
use netdev::NETDEV;
use process::Process;

/// How long a QEMU that does not answer may take to say why it ends.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// The q35 machine has up to 2 GiB below the hole for BARs.
const MOST_RAM: usize = 2 << 30;
const LEAST_RAM: usize = 2 << 20;

/// What is started.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct QtestOptions {
    /// The program: a qemu-system-x86_64 of version 11.0 or newer.
    pub qemu: PathBuf,
    /// The device as QEMU's option `-device` has it, with properties if wanted: "e1000e", or
    /// "e1000e,mac=52:54:00:12:34:56". [`VirtioOptions`] writes it for a virtio-net device.
    pub device: String,
    /// What the device is plugged into.
    pub netdev: Netdev,
    /// Memory of the machine in bytes, from 2 MiB to 2 GiB, a multiple of 4 KiB. Only what is
    /// used is taken from the host.
    pub ram: usize,
    /// The pieces in which registered regions lie in that memory: contiguous, or granules of at
    /// least 4 KiB of which no two neighbours are contiguous.
    pub granule: Granule,
    /// How long QEMU may take to start, and then for each reply.
    pub limit: Duration,
}

impl QtestOptions {
    /// An e1000e on datagram sockets, with 64 MiB of memory, regions in pieces of 4 KiB, and a limit of 10 seconds.
    #[must_use]
    pub fn new(qemu: impl Into<PathBuf>) -> Self {
        Self {
            qemu: qemu.into(),
            device: "e1000e".into(),
            netdev: Netdev::Dgram,
            ram: 64 << 20,
            granule: Granule::from_bytes(PAGE).unwrap_or(Granule::CONTIGUOUS),
            limit: Duration::from_secs(10),
        }
    }

    fn check(&self) -> io::Result<()> {
        let what = if !(LEAST_RAM..=MOST_RAM).contains(&self.ram) || !self.ram.is_multiple_of(PAGE)
        {
            "ram is from 2 MiB to 2 GiB, a multiple of 4 KiB"
        } else if self.granule.bytes() < PAGE {
            "granule is at least 4 KiB"
        } else {
            return Ok(());
        };
        Err(io::Error::new(ErrorKind::InvalidInput, what))
    }
}

/// A running QEMU with one device. Dropped, QEMU is ended and its files are removed; to the
/// driver that is the removal of the device. Memory stays as long as its owners.
pub struct Qtest {
    platform: Option<QtestPlatform>,
    wire: Option<QtestWire>,
    connection: Connection,
    monitor: Monitor,
    link: Arc<AtomicBool>,
    ram: Arc<Ram>,
    clock: Clock,
    // In this order: QEMU ends before its files go.
    process: Process,
    _folder: TempDir,
}

impl Qtest {
    /// Starts QEMU, places the device's BARs and connects the wire. Takes about 100 ms. A TAP
    /// interface should be up before, or QEMU's first frames are lost.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for options out of range; [`ErrorKind::TimedOut`] if QEMU
    /// does not answer in time; [`ErrorKind::BrokenPipe`] with what QEMU said if it ended; or
    /// what the system said.
    pub fn start(options: &QtestOptions) -> io::Result<Self> {
        options.check()?;
        let clock = Clock::start();
        let ram = Ram::new(options.ram, options.granule)?;
        let folder = tempfile::Builder::new()
            .prefix("pagewire-qtest-")
            .tempdir()?;
        let paths = Paths::new(folder.path());
        let listener = UnixListener::bind(&paths.qtest)?;
        let link = Arc::new(AtomicBool::new(true));
        let wire = match options.netdev {
            Netdev::Dgram => Some(QtestWire::bind(&paths.near, Arc::clone(&link))?),
            Netdev::Tap(_) => None,
        };
        let command = command(options, &ram, &paths);
        let process = Process::start(command, &paths.errors, clock)?;
        let connection = accept(&listener, &process, &paths, options.limit)?;
        let explain = |error: io::Error| {
            // A QEMU that does not like its options closes the socket before it has ended.
            if process.ends_within(LAST_WORDS) {
                process::last_words(&paths.errors)
            } else {
                error
            }
        };
        process.tell_time(connection.clone());
        let platform = QtestPlatform::new(connection.clone(), Arc::clone(&ram), clock);
        let platform = platform.map_err(explain)?;
        if let Some(wire) = &wire {
            wire.connect(&paths.far).map_err(explain)?;
        }
        let monitor = Monitor::connect(&paths.monitor, options.limit).map_err(explain)?;
        Ok(Self {
            platform: Some(platform),
            wire,
            connection,
            monitor,
            link,
            ram,
            clock,
            process,
            _folder: folder,
        })
    }

    /// The platform for the device's driver; `None` if it was taken already.
    pub const fn take_platform(&mut self) -> Option<QtestPlatform> {
        self.platform.take()
    }

    /// The far end of the device's wire; `None` if it was taken already, or is a TAP interface.
    pub const fn take_wire(&mut self) -> Option<QtestWire> {
        self.wire.take()
    }

    /// Makes `bytes` a region that the device reads: they are copied into QEMU's memory, in
    /// pieces of [`QtestOptions::granule`].
    ///
    /// # Errors
    /// [`PlatformError::OutOfMemory`] if there is no room, or no byte.
    pub fn register<B: FixedBytes>(&self, bytes: B) -> Result<Arc<QtestRegion<B>>, PlatformError> {
        QtestRegion::new(&self.ram, bytes)
    }

    /// The address space of the device.
    #[must_use]
    pub fn domain(&self) -> DomainId {
        self.ram.domain()
    }

    /// Bytes of QEMU's memory that nobody owns.
    #[must_use]
    pub fn free_memory(&self) -> usize {
        self.ram.free()
    }

    /// The time that the platform tells.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Plugs the cable in or out, as QEMU's monitor command `set_link` does.
    ///
    /// # Errors
    /// What QEMU or the socket said.
    pub fn set_link(&mut self, up: bool) -> io::Result<()> {
        self.monitor.set_link(NETDEV, up)?;
        self.link.store(up, Ordering::Release);
        Ok(())
    }

    /// The process number of QEMU, for a debugger say.
    #[must_use]
    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// Whether QEMU runs and answers.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.connection.is_open() && self.process.is_running()
    }

    /// Ends QEMU at once: the device is removed without a warning.
    pub fn kill(&self) {
        // First, so that nobody is told of an end that was wanted.
        self.connection.close();
        self.process.kill();
        self.link.store(false, Ordering::Release);
    }
}

impl Drop for Qtest {
    fn drop(&mut self) {
        self.kill();
    }
}

impl fmt::Debug for Qtest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Qtest")
            .field("ram", &self.ram)
            .finish_non_exhaustive()
    }
}

/// The files of one QEMU, all in one folder.
struct Paths {
    qtest: PathBuf,
    monitor: PathBuf,
    near: PathBuf,
    far: PathBuf,
    errors: PathBuf,
}

impl Paths {
    fn new(folder: &Path) -> Self {
        Self {
            qtest: folder.join("qtest"),
            monitor: folder.join("monitor"),
            near: folder.join("near"),
            far: folder.join("far"),
            errors: folder.join("errors"),
        }
    }
}

/// In QEMU's options a comma ends a value unless it is doubled.
fn escape(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

fn command(options: &QtestOptions, ram: &Ram, paths: &Paths) -> Command {
    let size = options.ram / 1024;
    let mut command = Command::new(&options.qemu);
    command.args(["-machine", "q35,accel=qtest,memory-backend=ram"]);
    command.args([
        "-nodefaults",
        "-display",
        "none",
        "-run-with",
        "exit-with-parent=on",
    ]);
    command
        .args(["-qtest-log", "none", "-qtest"])
        .arg(format!("unix:{}", escape(&paths.qtest)));
    let monitor = escape(&paths.monitor);
    command
        .arg("-qmp")
        .arg(format!("unix:{monitor},server=on,wait=off"));
    command
        .arg("-m")
        .arg(format!("{size}k"))
        .arg("-object")
        .arg(format!(
            "memory-backend-file,id=ram,size={size}k,share=on,mem-path={}",
            ram.path()
        ));
    let (near, far) = (escape(&paths.near), escape(&paths.far));
    options.netdev.add(&mut command, &near, &far);
    // Without an option ROM: there is no firmware to run it.
    let (device, slot) = (&options.device, pci::DEVICE);
    command
        .arg("-device")
        .arg(format!("{device},netdev={NETDEV},addr={slot}.0,romfile="));
    command
}

/// Waits for QEMU to connect.
fn accept(
    listener: &UnixListener,
    process: &Process,
    paths: &Paths,
    limit: Duration,
) -> io::Result<Connection> {
    listener.set_nonblocking(true)?;
    let start = RealInstant::now();
    loop {
        match listener.accept() {
            Ok((stream, _)) => return Connection::new(stream, limit),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if !process.is_running() {
            return Err(process::last_words(&paths.errors));
        }
        if start.elapsed() >= limit {
            let what = format!("QEMU did not connect within {limit:?}");
            return Err(io::Error::new(ErrorKind::TimedOut, what));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = Qtest::start(&QtestOptions::new("/nowhere/qemu")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("/nowhere/qemu"), "{error}");
    }

    #[test]
    fn a_program_that_ends_is_quoted_and_one_that_is_silent_is_ended() {
        let error = Qtest::start(&QtestOptions::new("ls")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
        assert!(error.to_string().contains("QEMU has ended: "), "{error}");
        let folder = tempfile::tempdir().unwrap();
        let silent = folder.path().join("silent");
        std::fs::write(&silent, "#!/bin/sh\nexec sleep 60\n").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(&silent, mode).unwrap();
        let mut options = QtestOptions::new(silent);
        options.limit = Duration::from_millis(100);
        assert_eq!(
            Qtest::start(&options).unwrap_err().kind(),
            ErrorKind::TimedOut
        );
    }

    #[test]
    fn options_out_of_range_are_refused() {
        let mut small = QtestOptions::new("ls");
        small.ram = 1 << 20;
        let mut odd = QtestOptions::new("ls");
        odd.ram += 1;
        let mut fine = QtestOptions::new("ls");
        fine.granule = Granule::from_bytes(2048).unwrap();
        for options in [small, odd, fine] {
            assert_eq!(
                Qtest::start(&options).unwrap_err().kind(),
                ErrorKind::InvalidInput
            );
        }
    }

    #[test]
    fn a_comma_in_a_path_is_doubled() {
        assert_eq!(escape(Path::new("/a,b/c")), "/a,,b/c");
    }
}
