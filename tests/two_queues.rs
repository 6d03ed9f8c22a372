//! Two queues of an 82599 used by two threads share no lock and no cache line on the transmit path:
//! seen in a trace of every load and store that `TxPort` and the driver make to lend the pages of
//! *one* region, post frames, ring the doorbell, and take completions and loans back.
//!
//! The test runs itself (`worker`) under valgrind's tool lackey. The two threads live at the same
//! time and take turns, so the trace tells them apart; a lock that both take would be a line that
//! both write. The BAR is left out: it is not cached. Lines that both only read (code, capabilities,
//! the region's translation) are no trouble.
//!
//! Without valgrind the test is skipped with a line that says so; with `CI` in the environment that
//! is a failure.
// A test may panic: that is how it fails.
#![allow(clippy::unwrap_used, clippy::expect_used)]
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[path = "two_queues/platform.rs"]
mod platform;
#[path = "two_queues/trace.rs"]
mod trace;
#[path = "two_queues/turns.rs"]
mod turns;

use std::io::{BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;

use pagewire::hal::{
    ChecksumOffload, Granule, Nic, Offload, Phase, PoolLayout, Region, RxQueue, TxPort, TxQueue,
};
use pagewire::ixgbe::{Config, Ixgbe};
use pagewire_models::ixgbe::{Ixgbe82599, Latitude, ModelConfig};
use pagewire_models::{Host, HostConfig, HostMemory, wire::pair};
use platform::PlainPlatform;
use trace::{Lines, Places};
use turns::Turns;

/// Set for the `worker` under valgrind: it waits for a line of input before it begins.
const VARIABLE: &str = "PAGEWIRE_TWO_QUEUES";
/// Descriptors in a transmit ring: no other memory of the driver has this size.
const RING: u16 = 128;
/// The first rounds allocate what the later ones use.
const WARM: usize = 2;
/// Then rounds in which the threads have nothing in common.
const APART: usize = 8;
/// Then rounds in which they write one line on purpose, to see that it is seen.
const TOGETHER: usize = 1;
const FRAMES: usize = 16;

/// A place for marks: a store to it is seen in the trace.
#[repr(align(128))]
struct Mark(AtomicU64);

impl Mark {
    const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    fn set(&self) {
        self.0.store(1, Ordering::SeqCst);
    }

    fn address(&self) -> usize {
        self.0.as_ptr().addr()
    }
}

/// Begin and end of the windows of each thread, while they are apart and while they are together.
static MARKS: [[[Mark; 2]; 2]; 2] = [const { [const { [const { Mark::new() }; 2] }; 2] }; 2];
/// A line for both, for the check of the check.
static COMMON: Mark = Mark::new();

type Port<Q> = TxPort<Q, HostMemory>;

/// One round of one thread: a burst of frames of a header and two slices of the region.
fn burst<Q: TxQueue>(port: &mut Port<Q>, region: pagewire::hal::RegionId, thread: usize) {
    let offload = Offload {
        checksum: ChecksumOffload::IPV4_HEADER | ChecksumOffload::TCP_IPV4,
        l2_len: 14,
        l3_len: 20,
        l4_len: 20,
        ..Offload::NONE
    };
    for number in 0..FRAMES {
        let at = number * 1448 + thread * 700;
        let loan = port.ledger_mut().lend(region, at, 1400).unwrap();
        let mut buffer = port.buffer(54).unwrap();
        port.bytes_mut(&mut buffer)[0] = number as u8;
        let mut frame = port.frame(buffer, 54);
        frame.attach(&loan, at, 600).attach(&loan, at + 600, 800);
        frame.post(offload).unwrap();
        port.ledger_mut().give_back(loan);
    }
    port.doorbell();
}

/// A thread's work: the loop's windows are what the trace is looked at for.
fn work<Q: TxQueue>(
    mut port: Port<Q>,
    region: Arc<dyn Region>,
    thread: usize,
    turns: &mut Turns<'_>,
    complete: impl Fn(),
) -> Port<Q> {
    let region = port.ledger_mut().register(region).unwrap();
    turns.begin();
    let rounds = WARM + APART + TOGETHER;
    for round in 1..=rounds {
        let together = round > WARM + APART;
        let marks = &MARKS[usize::from(together)][thread];
        let mark = |which: usize| (round > WARM).then(|| marks[which].set());
        mark(0);
        burst(&mut port, region, thread);
        if together {
            COMMON.set();
        }
        mark(1);
        complete();
        mark(0);
        let count = port.reclaim(&mut |_| {}).unwrap();
        mark(1);
        assert_eq!(count, FRAMES);
        if round < rounds {
            turns.pass();
        }
    }
    assert_eq!(port.ledger().counters().pinned_pages, 0);
    port
}

/// Says of every descriptor of a ring that it is done, as the device does. The driver looks at the
/// last one of a frame only.
fn complete(ring: usize) {
    for descriptor in 0..usize::from(RING) {
        let status = (ring + descriptor * 16 + 12) as *mut u32;
        // SAFETY: `ring` is memory of the driver's transmit ring, which lives until the queues are
        // dropped; its thread is the one that calls this.
        let status = unsafe { AtomicU32::from_ptr(status) };
        status.fetch_or(1, Ordering::Relaxed);
    }
}

/// Run by the tests below under valgrind; alone, it tries that the work itself does what it should.
#[test]
fn worker() {
    let host = Host::new(HostConfig::default());
    let (near, _far) = pair();
    let model = ModelConfig {
        latitude: Latitude::none(),
        ..ModelConfig::default()
    };
    let device = host.attach(Ixgbe82599::new(model, Box::new(near)));
    let (platform, plain, allocations) = PlainPlatform::new(device.platform);
    let mut config = Config::default();
    config.queue_pairs = 2;
    config.tx_descriptors = RING;
    config.rx_descriptors = 8;
    let mut nic = Ixgbe::open(platform, &config).unwrap();
    let ring_bytes = usize::from(RING) * 16;
    let allocated = allocations.lock().unwrap().clone();
    let rings: Vec<usize> = allocated
        .iter()
        .filter_map(|(at, len)| (*len == ring_bytes).then_some(*at))
        .collect();
    let &[first, second] = rings.as_slice() else {
        panic!("which are the transmit rings? {rings:x?}");
    };
    let running = (0..100_000).any(|_| {
        device.handle.step();
        host.advance(std::time::Duration::from_micros(100));
        matches!(nic.poll(host.now()), Ok(Phase::Running(link)) if link.up)
    });
    assert!(running, "the link stays down");
    let layout = PoolLayout {
        small_len: 64,
        small_count: 64,
        large_len: 0,
        large_count: 0,
        page: Granule::from_bytes(4096).unwrap(),
    };
    let mut ports = Vec::new();
    for index in 0..2 {
        let (mut tx, rx) = nic.take_queues(index).unwrap();
        // The queue looks whether it is on before its first doorbell.
        tx.doorbell();
        assert_eq!(rx.counters().delivered, 0);
        ports.push((TxPort::new(&mut nic, tx, &layout).unwrap(), rx));
    }
    let region: Arc<dyn Region> = host.register(vec![7u8; 64 << 10]).unwrap();
    plain.take_over();
    let (bar, bar_len) = plain.range();
    let marks = MARKS.iter().flatten().flatten().map(Mark::address);
    let places = [bar, bar_len].into_iter().chain(marks);
    let places: Vec<_> = places.map(|place| format!("{place:x}")).collect();
    eprintln!("{}", places.join(" "));
    if std::env::var_os(VARIABLE).is_some() {
        std::io::stdin().read_line(&mut String::new()).unwrap();
    }
    let ids = [const { AtomicI32::new(0) }; 2];
    thread::scope(|scope| {
        let sides = turns::pair(&ids).into_iter().zip([first, second]);
        for (thread, ((port, _rx), (mut turns, ring))) in ports.into_iter().zip(sides).enumerate() {
            let region = Arc::clone(&region);
            scope.spawn(move || {
                let _port = work(port, region, thread, &mut turns, || complete(ring));
                turns.finish();
            });
        }
    });
}

/// Runs `worker` under lackey; `None` if there is no valgrind.
fn traced() -> Option<[Lines; 2]> {
    let mut command = Command::new("valgrind");
    command
        .args(["--tool=lackey", "--trace-mem=yes", "--log-fd=1"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "worker", "--nocapture", "--test-threads=1"])
        .env(VARIABLE, "yes")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) if std::env::var_os("CI").is_none() => {
            eprintln!("skipped: valgrind (Debian: valgrind) cannot be run: {error}");
            return None;
        }
        Err(error) => panic!("valgrind (Debian: valgrind) cannot be run: {error}"),
    };
    let (said, mut go) = (child.stderr.take().unwrap(), child.stdin.take().unwrap());
    let trace = BufReader::with_capacity(1 << 20, child.stdout.take().unwrap());
    let places = OnceLock::new();
    let (lines, text) = thread::scope(|scope| {
        let said = scope.spawn(|| {
            let (mut said, mut text) = (BufReader::new(said), String::new());
            places.set(Places::read(&mut said, &mut text)).unwrap();
            // Only now does it begin, so no window can be missed.
            go.write_all(b"go\n").ok();
            said.read_to_string(&mut text).ok();
            text
        });
        let lines = Lines::read(trace, || places.get());
        (lines, said.join().unwrap())
    });
    let status = child.wait().unwrap();
    assert!(status.success(), "{status}: {text}");
    Some(lines)
}

#[test]
fn nothing_is_shared() {
    let Some([apart, together]) = traced() else {
        return;
    };
    for thread in 0..2 {
        let (touched, written) = apart.count(thread);
        eprintln!("thread {thread}: {touched} cache lines, {written} of them written");
        // Descriptors, slots and headers of a burst at least.
        assert!(
            written >= FRAMES * 3,
            "thread {thread}: the trace is not read"
        );
    }
    let shared = apart.shared();
    eprintln!("written by one and touched by the other: {}", shared.len());
    assert!(shared.is_empty(), "cache lines {shared:x?}");
    let shared = together.shared();
    assert_eq!(
        shared.len(),
        1,
        "what is shared on purpose was not seen: {shared:x?}"
    );
}
