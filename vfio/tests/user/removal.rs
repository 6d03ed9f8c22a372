//! A server that is killed in the middle of traffic.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pagewire_drivers::{AnyNic, Config};
use pagewire_hal::{Granule, Nic, NicError, Offload, Phase, PoolLayout, Region, RxQueue, TxPort};
use pagewire_models::vfio_user::Server;
use pagewire_models::wire::Silent;
use pagewire_vfio::user::{Options, VfioUserPlatform};

use crate::bench::Subject;
use crate::conformance::{Intel82574, Intel82599, Virtio};

/// Names the socket and the device, for the process that serves.
const SOCKET: &str = "PAGEWIRE_TEST_SOCKET";
const DEVICE: &str = "PAGEWIRE_TEST_DEVICE";
const DEVICES: [&str; 3] = ["e1000e", "ixgbe", "virtio"];
/// Nothing takes so long.
const SOON: Duration = Duration::from_secs(120);

/// The process that is to be killed: no test of its own.
#[test]
fn serves_until_it_is_killed() {
    let Ok(socket) = std::env::var(SOCKET) else {
        return;
    };
    match std::env::var(DEVICE).unwrap().as_str() {
        "e1000e" => serve::<Intel82574>(Path::new(&socket)),
        "ixgbe" => serve::<Intel82599>(Path::new(&socket)),
        _ => serve::<Virtio>(Path::new(&socket)),
    }
}

fn serve<S: Subject>(socket: &Path) {
    let model = S::model(7, Box::new(Silent::new()));
    let running = Server::bind(socket, model, Vec::new()).unwrap().spawn();
    let _running = running.unwrap();
    // The one that kills may die itself.
    std::thread::sleep(SOON);
}

/// A process that serves a device.
struct Process(Child);

impl Process {
    fn start(socket: &Path, device: &str) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "removal::serves_until_it_is_killed"])
            .env(SOCKET, socket)
            .env(DEVICE, device)
            .stdout(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SIGKILL.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Connects as soon as the process listens.
fn wait_for(socket: &Path) -> VfioUserPlatform {
    let begin = Instant::now();
    while VfioUserPlatform::connect(socket, &Options::default()).is_err() {
        assert!(begin.elapsed() < SOON, "nobody listens");
        std::thread::sleep(Duration::from_millis(10));
    }
    // That one has been dropped, which the server may not have seen yet.
    loop {
        match VfioUserPlatform::connect(socket, &Options::default()) {
            Ok(platform) => return platform,
            Err(_) => std::thread::yield_now(),
        }
    }
}

/// Sends until something fails; how many frames were done by then. The process is killed after
/// `kill_after` of them.
fn send_until_it_fails(platform: VfioUserPlatform, process: Process, kill_after: usize) -> usize {
    let handle = platform.handle();
    let mut nic = AnyNic::open(platform, &Config::default()).unwrap();
    let (tx, mut rx) = nic.take_queues(0).unwrap();
    let layout = PoolLayout {
        small_len: 256,
        small_count: 64,
        large_len: 2048,
        large_count: 4,
        page: Granule::from_bytes(4096).unwrap(),
    };
    let mut port = TxPort::new(&mut nic, tx, &layout).unwrap();
    let region = Arc::new(handle.register(vec![0x5a; 1 << 16]).unwrap());
    let region = port
        .ledger_mut()
        .register(region as Arc<dyn Region>)
        .unwrap();
    let loan = port.ledger_mut().lend(region, 0, 1 << 16).unwrap();
    let mut process = Some(process);
    let (mut done, begin) = (0, Instant::now());
    loop {
        assert!(begin.elapsed() < SOON, "{done} frames, and no error");
        if done >= kill_after {
            process = None;
        }
        for _ in 0..16 {
            let Some(mut buffer) = port.buffer(14) else {
                break;
            };
            let header = port.bytes_mut(&mut buffer);
            header[..14].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5]);
            let mut builder = port.frame(buffer, 14);
            builder.attach(&loan, 0, 1000);
            if builder.post(Offload::default()).is_err() {
                break;
            }
        }
        port.doorbell();
        // What was written back before the end counts as done; no reclaim hangs.
        done += port.reclaim(&mut |_| {}).unwrap_or(0);
        let _ = rx.receive(16, &mut |_| {});
        match nic.poll(handle.now()) {
            Ok(Phase::Running(_) | Phase::Hung) => {}
            Ok(phase) => panic!("{phase:?} without a word before"),
            Err(error) => {
                assert_eq!(error, NicError::Removed);
                assert!(process.is_none(), "while the process lives: {error}");
                break;
            }
        }
    }
    assert!(handle.is_gone());
    assert_eq!(nic.poll(handle.now()), Ok(Phase::Failed));
    assert!(!nic.link().up);
    assert_eq!(handle.stranded_bytes(), 0);
    done
}

#[test]
fn a_killed_server_is_a_removed_device_and_the_next_one_starts() {
    for device in DEVICES {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("nic");
        for kill_after in [0, 1, 100, 1000] {
            let process = Process::start(&socket, device);
            let platform = wait_for(&socket);
            let done = send_until_it_fails(platform, process, kill_after);
            assert!(done >= kill_after, "{device}: {done} frames");
            println!("{device}: killed after {done} frames");
            assert!(socket.exists(), "SIGKILL leaves the file");
        }
    }
}

#[test]
fn a_driver_that_is_opened_on_a_dead_server_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("nic");
    let process = Process::start(&socket, "e1000e");
    drop(wait_for(&socket));
    let platform = loop {
        match VfioUserPlatform::connect(&socket, &Options::default()) {
            Ok(platform) => break platform,
            Err(_) => std::thread::yield_now(),
        }
    };
    drop(process);
    let error = AnyNic::open(platform, &Config::default()).map(drop);
    assert!(error.is_err());
    let error = VfioUserPlatform::connect(&socket, &Options::default()).unwrap_err();
    assert!(error.to_string().contains("listens"), "{error}");
    // And again, with another server.
    let _process = Process::start(&socket, "e1000e");
    drop(wait_for(&socket));
}
