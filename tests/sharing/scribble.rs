//! Threads that scribble by pointer over what is sent, stopped by the system (userfaultfd).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pagewire::hal::RegionId;
use pagewire::tcp::{CopyRule, OnWrite, SendOptions, Slice};
use pagewire_vfio::protect::{Arena, Buffer, Choice, Mode, PollingThread, Protector};

use super::machine::{Kind, Machine, PAGE, Setup};

const PAGES: usize = 16;
/// Writers by pointer: each has the bytes of which the offset is its number modulo this many, in the
/// first half of each page. The second half is the kernel's.
const WRITERS: usize = 3;

/// A place in the buffer, for another thread.
#[derive(Clone, Copy)]
struct Place(*mut u8);

// SAFETY: a number; who uses it says why he may.
unsafe impl Send for Place {}

impl Place {
    fn at(self, offset: usize) -> *mut u8 {
        self.0.wrapping_add(offset)
    }
}

struct Scribblers {
    stop: Arc<AtomicBool>,
    writes: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
    /// Each says what it has written last to its places.
    threads: Vec<JoinHandle<Vec<(usize, u8)>>>,
}

impl Scribblers {
    fn start(buffer: &Buffer, seed: u64, kernel: bool) -> Self {
        let place = Place(buffer.as_ptr().expect("not in huge pages").as_ptr());
        let stop = Arc::new(AtomicBool::new(false));
        let (writes, refused) = (Arc::default(), Arc::default());
        let mut scribblers = Self {
            stop: Arc::clone(&stop),
            writes: Arc::clone(&writes),
            refused: Arc::clone(&refused),
            threads: Vec::new(),
        };
        for index in 0..WRITERS {
            let (stop, writes) = (Arc::clone(&stop), Arc::clone(&writes));
            let mut random = fastrand::Rng::with_seed(seed ^ index as u64);
            scribblers.threads.push(std::thread::spawn(move || {
                let place = place;
                let mut last = vec![None; PAGES * PAGE];
                while !stop.load(Ordering::Relaxed) {
                    let page = random.usize(..PAGES) * PAGE;
                    let own = random.usize(..PAGE / 2 / WRITERS) * WRITERS + index;
                    let value = random.u8(..);
                    // SAFETY: the buffer outlives the thread, and nobody makes a slice of it.
                    unsafe { place.at(page + own).write_volatile(value) };
                    last[page + own] = Some(value);
                    writes.fetch_add(1, Ordering::Relaxed);
                }
                let told = last.into_iter().enumerate();
                told.filter_map(|(at, value)| Some((at, value?))).collect()
            }));
        }
        if kernel {
            let mut random = fastrand::Rng::with_seed(seed ^ 77);
            scribblers.threads.push(std::thread::spawn(move || {
                let place = place;
                let (reader, writer) = std::io::pipe().expect("a pipe");
                let mut last = vec![0; PAGES];
                while !stop.load(Ordering::Relaxed) {
                    let page = random.usize(..PAGES);
                    let value = random.u8(1..);
                    rustix::io::write(&writer, &[value; 64]).expect("room");
                    let at = place.at(page * PAGE + PAGE / 2);
                    // SAFETY: these 64 bytes are this thread's, and the buffer outlives it.
                    let target = unsafe { std::slice::from_raw_parts_mut(at, 64) };
                    match rustix::io::read(&reader, target) {
                        Ok(64) => last[page] = value,
                        // For user mode only, the kernel does not wait; the bytes may be gone.
                        Err(rustix::io::Errno::FAULT) => {
                            refused.fetch_add(1, Ordering::Relaxed);
                            let _ = rustix::io::read(&reader, &mut [0; 64][..]);
                            last[page] = 0;
                        }
                        other => panic!("{other:?}"),
                    }
                    writes.fetch_add(1, Ordering::Relaxed);
                }
                let told = last.into_iter().enumerate().filter(|(_, value)| *value > 0);
                told.map(|(page, value)| (page * PAGE + PAGE / 2, value))
                    .collect()
            }));
        }
        scribblers
    }

    /// Gives them a processor for a moment: until one has written, or sleeps in front of a lent page.
    fn work(&self, protector: &Protector) {
        let before = (
            self.writes.load(Ordering::Relaxed),
            protector.counters().waits,
        );
        let begun = std::time::Instant::now();
        while before
            == (
                self.writes.load(Ordering::Relaxed),
                protector.counters().waits,
            )
            && begun.elapsed() < std::time::Duration::from_millis(20)
        {
            std::thread::yield_now();
        }
    }

    /// Stops them; each place has what was written there last.
    fn finish(self, buffer: &Buffer, seed: u64) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        let told = self
            .threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"));
        for (at, value) in told.flatten() {
            assert_eq!(
                buffer.bytes()[at],
                value,
                "seed {seed}: a write to {at} is lost"
            );
        }
        (
            self.writes.load(Ordering::Relaxed),
            self.refused.load(Ordering::Relaxed),
        )
    }
}

struct Scene {
    machine: Machine,
    arena: Arena,
    buffer: Buffer,
    region: RegionId,
    expected: Vec<Vec<u8>>,
}

impl Scene {
    fn new(protector: &Protector, setup: &Setup) -> Self {
        let mut machine = Machine::new(setup);
        let arena = protector.arena(PAGES * PAGE).unwrap();
        let buffer = arena.buffer(PAGES * PAGE).unwrap();
        let region = machine.host.register(arena.clone()).unwrap();
        let region = machine.stack.register(region).unwrap();
        Self {
            machine,
            arena,
            buffer,
            region,
            expected: vec![Vec::new(); setup.connections],
        }
    }

    /// Sends a range, and takes note of its bytes as they are then: nobody can change them before
    /// the next poll.
    fn send(&mut self, connection: usize, start: usize, len: usize, on_write: OnWrite) {
        let mut options = SendOptions::default();
        options.on_write = on_write;
        options.copy = CopyRule::Never;
        let slice = Slice {
            region: self.region,
            start: self.buffer.arena_offset() + start,
            len,
        };
        let now = self.machine.host.now();
        let id = self.machine.connections[connection];
        let sent = self.machine.stack.send_with(now, id, &[slice], 1, &options);
        let accepted = sent.unwrap();
        let from = self.buffer.as_ptr().unwrap().as_ptr().wrapping_add(start);
        let mut bytes = vec![0; accepted];
        // SAFETY: the range lies in the buffer, and is lent, so nobody writes it.
        unsafe { from.copy_to_nonoverlapping(bytes.as_mut_ptr(), accepted) };
        self.expected[connection].extend(bytes);
    }

    fn assert_arrived(&mut self) {
        for connection in 0..self.expected.len() {
            let len = self.expected[connection].len();
            let arrived = |m: &mut Machine| m.arrived(connection).len() >= len;
            self.machine.run_until("arrived", arrived);
            let (arrived, expected) =
                (self.machine.arrived(connection), &self.expected[connection]);
            let mut pairs = arrived.iter().zip(expected).enumerate();
            let other = pairs.find(|(_, (one, other))| one != other);
            let seed = self.machine.seed;
            assert_eq!(
                other, None,
                "seed {seed}: other bytes on connection {connection}"
            );
            assert_eq!(arrived.len(), expected.len(), "seed {seed}");
        }
    }
}

/// One of each mode that this user can have.
fn protectors() -> Vec<Protector> {
    let user = Protector::open(Choice::UserOnly).expect("needs no privilege");
    let full = Protector::open(Choice::Full);
    if rustix::process::geteuid().is_root() {
        assert!(full.is_ok(), "{full:?}");
    }
    full.into_iter().chain([user]).collect()
}

fn scribbled(protector: &Protector, kind: Kind, on_write: OnWrite, seed: u64) -> (u64, u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut setup = Setup::new(kind, seed);
    setup.loss = 5.0;
    setup.connections = if random.u8(..5) == 0 { 8 } else { 2 };
    setup.checksum = random.bool();
    let mut scene = Scene::new(protector, &setup);
    let scribblers = Scribblers::start(&scene.buffer, seed, random.bool());
    for _ in 0..15 {
        let connection = random.usize(..setup.connections);
        let start = random.usize(..PAGES * PAGE - 1);
        let len = random.usize(1..=(PAGES * PAGE - start).min(5 * PAGE));
        scene.send(connection, start, len, on_write);
        scribblers.work(protector);
        scene.machine.rounds(random.u32(1..20));
    }
    scene.assert_arrived();
    scene.machine.assert_all_back();
    scribblers.finish(&scene.buffer, seed)
}

#[test]
fn threads_that_scribble_change_nothing_that_was_sent() {
    let first = fastrand::u64(..1 << 40);
    println!("seed {first}");
    for protector in protectors() {
        let (mut writes, mut refused) = (0, 0);
        let mut round_of_all = |round: u64| {
            for (kind, on_write) in Kind::ALL
                .into_iter()
                .flat_map(|kind| [OnWrite::Wait, OnWrite::MoveAway].map(|way| (kind, way)))
            {
                let (more, no) = scribbled(&protector, kind, on_write, first + round);
                writes += more;
                refused += no;
            }
        };
        (0..6).for_each(&mut round_of_all);
        // Where those that write have few turns it may take more until one has waited.
        let begin = Instant::now();
        let mut more = 6..;
        while protector.counters().waits == 0 && begin.elapsed() < Duration::from_secs(60) {
            more.next().into_iter().for_each(&mut round_of_all);
        }
        let counters = protector.counters();
        println!(
            "{}: {writes} writes, {refused} refused by the kernel, {counters:?}",
            protector.way()
        );
        assert!(counters.waits > 0, "nobody ever waited");
        assert!(protector.mode() != Mode::Full || refused == 0);
        assert_eq!((counters.protected_bytes, counters.lent_bytes), (0, 0));
    }
}

/// The thread that polls the NIC writes by pointer to what is lent, while completions are held back
/// by its own not polling: it does not sleep, and the receiver gets the old bytes.
#[test]
fn the_polling_thread_writes_without_a_wait() {
    for protector in protectors() {
        for (seed, kind) in (1..).zip(Kind::ALL) {
            for checksum in [true, false] {
                let mut setup = Setup::new(kind, seed);
                setup.checksum = checksum;
                setup.loss = 5.0;
                let mut scene = Scene::new(&protector, &setup);
                let polling = PollingThread::enter();
                scene.buffer.bytes_mut(0..PAGES * PAGE).unwrap().fill(b'o');
                for round in 0..20_u8 {
                    scene.send(0, 100, 6 * PAGE, OnWrite::Wait);
                    let place = scene.buffer.as_ptr().unwrap().as_ptr();
                    for page in 0..6 {
                        // SAFETY: the place lies in the buffer, of which no slice is in use.
                        unsafe { place.wrapping_add(page * PAGE + 200).write_volatile(round) };
                    }
                    scene.machine.rounds(3);
                }
                scene.assert_arrived();
                scene.machine.assert_all_back();
                drop(polling);
                let bytes = scene.buffer.bytes();
                assert!((0..6).all(|page| bytes[page * PAGE + 200] == 19));
            }
        }
    }
}

/// Resets by the peer, aborts, and drops in the midst: every writer goes on, every page comes back.
#[test]
fn every_way_out_wakes_the_writers() {
    for protector in protectors() {
        for (seed, way) in (0..12).zip(["reset", "abort", "remove", "drop"].into_iter().cycle()) {
            let mut setup = Setup::new(Kind::ALL[seed as usize % 3], seed);
            setup.connections = 2;
            let mut scene = Scene::new(&protector, &setup);
            let scribblers = Scribblers::start(&scene.buffer, seed, false);
            scene.machine.receiver.asleep = true;
            for connection in [0, 1] {
                scene.send(connection, 0, PAGES * PAGE, OnWrite::Wait);
                scene.send(connection, 0, PAGES * PAGE, OnWrite::Wait);
            }
            scene.machine.rounds(50);
            let now = scene.machine.host.now();
            let connections = scene.machine.connections.clone();
            match way {
                "reset" => scene.machine.receiver.abort(),
                "abort" => connections
                    .iter()
                    .for_each(|id| scene.machine.stack.abort(now, *id)),
                "remove" => connections
                    .iter()
                    .for_each(|id| scene.machine.stack.remove(now, *id)),
                _ => {}
            }
            let Scene {
                mut machine,
                arena,
                buffer,
                ..
            } = scene;
            if way != "drop" {
                machine.assert_all_back();
            } else {
                // What the device may still read it keeps: first it is done.
                machine.run_until("sent", |m| m.stack.port().outstanding() == 0);
            }
            drop(machine);
            // A writer that still slept would not come to an end.
            scribblers.finish(&buffer, seed);
            drop((arena, buffer));
            assert_eq!(
                protector.counters().registered_bytes,
                0,
                "{way}, seed {seed}"
            );
        }
    }
}

/// 100,000 sends leave no loan, no mapping, no locked byte and no protection.
#[test]
fn nothing_is_left_after_many_sends() {
    let status = |field: &str| -> String {
        let text = std::fs::read_to_string("/proc/self/status").expect("Linux");
        let line = text.lines().find(|line| line.starts_with(field));
        line.unwrap_or_default().to_owned()
    };
    let protector = Protector::open(Choice::Best).unwrap();
    let mappings = || {
        let text = std::fs::read_to_string("/proc/self/maps").expect("Linux");
        text.lines()
            .filter(|line| line.contains("pagewire"))
            .count()
    };
    let before = (mappings(), status("VmLck"), status("VmPin"));
    let mut scene = Scene::new(&protector, &Setup::new(Kind::Virtio, 1));
    let mut random = fastrand::Rng::with_seed(1);
    for round in 0..100_000_u32 {
        let start = random.usize(..PAGES * PAGE - 200);
        let on_write = [OnWrite::Wait, OnWrite::MoveAway][round as usize % 2];
        scene.send(0, start, random.usize(1..200), on_write);
        if round % 50 == 0 {
            scene.assert_arrived();
            scene
                .machine
                .receiver
                .arrived
                .values_mut()
                .for_each(Vec::clear);
            scene.expected[0].clear();
            let counters = protector.counters();
            assert!(counters.protected_bytes <= counters.registered_bytes);
            if round % 1000 == 0 {
                scene.machine.assert_all_back();
                let all = scene.buffer.try_bytes_mut(0..PAGES * PAGE);
                all.expect("nothing is lent").fill(1);
            }
        }
    }
    scene.assert_arrived();
    scene.machine.assert_all_back();
    assert_eq!(protector.counters().lent_bytes, 0);
    drop(scene);
    let counters = protector.counters();
    assert_eq!(
        (counters.protected_bytes, counters.registered_bytes),
        (0, 0)
    );
    let after = (mappings(), status("VmLck"), status("VmPin"));
    // Other tests of this program have mappings of that name meanwhile.
    assert_eq!((&before.1, &before.2), (&after.1, &after.2));
    println!("mappings of arenas: {} before, {} after", before.0, after.0);
}
