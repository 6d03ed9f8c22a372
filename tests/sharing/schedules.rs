//! Random schedules under a virtual clock: calls, writes, losses, on memory with a book for a
//! watcher. A write to what is lent is tried again until it is let in, as a writer that sleeps and
//! wakes would.

use std::collections::VecDeque;

use pagewire::tcp::{OnWrite, SendOptions, Slice};

use super::guarded::Guarded;
use super::machine::{Kind, Machine, PAGE, Setup};

/// What a schedule has met.
#[derive(Default, Debug)]
struct Met {
    waited: u64,
    moved: u64,
    resent: u64,
    shared: u64,
}

struct Schedule {
    machine: Machine,
    random: fastrand::Rng,
    memory: Guarded,
    region: pagewire::hal::RegionId,
    /// What the memory is to be at the end.
    intended: Vec<u8>,
    /// Writers that wait, in order for each page.
    pending: VecDeque<(usize, Vec<u8>)>,
    expected: Vec<Vec<u8>>,
    met: Met,
}

const PAGES: usize = 12;

impl Schedule {
    fn new(kind: Kind, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut setup = Setup::new(kind, seed);
        setup.loss = 5.0;
        setup.connections = if random.u8(..8) == 0 {
            8
        } else {
            random.usize(1..3)
        };
        setup.slots = random.usize(1..32);
        setup.checksum = random.u8(..4) > 0;
        if random.u8(..3) == 0 {
            setup.max_fragments = Some(random.u16(2..8));
        }
        if random.u8(..3) == 0 {
            setup.pin_limit = random.usize(1..PAGES * PAGE);
        }
        if random.u8(..3) == 0 {
            setup.thresholds.watched = random.usize(1..2 * PAGE);
        }
        let mut machine = Machine::new(&setup);
        let memory = Guarded::new(PAGES);
        let region = machine.host.register(memory.clone()).unwrap();
        let region = machine.stack.register(region).unwrap();
        Self {
            expected: vec![Vec::new(); setup.connections],
            intended: vec![0; memory.size()],
            pending: VecDeque::new(),
            met: Met::default(),
            machine,
            random,
            memory,
            region,
        }
    }

    /// A call: the bytes that it has accepted are the memory's of this moment.
    fn send(&mut self) {
        let index = self.random.usize(..self.expected.len());
        let start = self.random.usize(..self.memory.size() - 1);
        let most = (self.memory.size() - start).min(4 * PAGE);
        let len = self.random.usize(1..=most);
        let mut options = SendOptions::default();
        if self.random.bool() {
            options.on_write = OnWrite::MoveAway;
        }
        // In pieces, as of writev, not all of them neighbours.
        let middle = self.random.usize(..=len);
        let region = self.region;
        let piece = |start, len| Slice { region, start, len };
        let slices = [piece(start + middle, len - middle), piece(start, middle)];
        let id = self.machine.connections[index];
        let now = self.machine.host.now();
        let sent = self.machine.stack.send_with(now, id, &slices, 1, &options);
        let mut left = sent.unwrap();
        for Slice { start, len, .. } in slices {
            let taken = len.min(left);
            left -= taken;
            self.expected[index].extend(self.memory.read(start..start + taken));
        }
    }

    fn write(&mut self) {
        let at = self.random.usize(..self.memory.size() - 64);
        let len = self.random.usize(1..=64);
        let bytes: Vec<u8> = (0..len).map(|_| self.random.u8(..)).collect();
        self.intended[at..at + len].copy_from_slice(&bytes);
        self.pending.push_back((at, bytes));
        self.retry();
    }

    fn retry(&mut self) {
        self.met.waited += let_in(&self.memory, &mut self.pending);
    }

    fn run(mut self) -> Met {
        let seed = self.machine.seed;
        for _ in 0..60 {
            match self.random.u8(..5) {
                0 | 1 => self.send(),
                2 | 3 => self.write(),
                _ => {
                    let rounds = self.random.u32(1..60);
                    self.machine.rounds(rounds);
                }
            }
            self.machine.round();
            self.retry();
        }
        for index in 0..self.expected.len() {
            let expected = std::mem::take(&mut self.expected[index]);
            let len = expected.len();
            let (memory, pending) = (&self.memory, &mut self.pending);
            self.machine.run_until("arrived", |machine| {
                let_in(memory, pending);
                machine.arrived(index).len() >= len
            });
            assert!(
                self.machine.arrived(index) == expected,
                "seed {seed}: other bytes"
            );
        }
        self.machine.assert_all_back();
        self.retry();
        assert!(self.pending.is_empty(), "seed {seed}: a writer still waits");
        let end = self.memory.read(0..self.memory.size());
        assert!(end == self.intended, "seed {seed}: a write is lost");
        let stats = self.machine.stack.stats().connections;
        self.met.moved = stats.copied_early.written;
        self.met.resent = stats.retransmits().segments;
        self.met.shared = stats.shared_bytes;
        self.met
    }
}

/// Lets in those that can be, each behind all that were to the same pages before it. Says how many
/// wait on.
fn let_in(memory: &Guarded, pending: &mut VecDeque<(usize, Vec<u8>)>) -> u64 {
    let mut blocked = [false; PAGES];
    for _ in 0..pending.len() {
        let (at, bytes) = pending.pop_front().unwrap();
        let pages = at / PAGE..(at + bytes.len()).div_ceil(PAGE);
        let waits = pages.clone().any(|page| blocked[page]);
        if waits || !memory.write(at, &bytes) {
            pages.for_each(|page| blocked[page] = true);
            pending.push_back((at, bytes));
        }
    }
    pending.len() as u64
}

/// 10,000, each driver in turn.
#[test]
fn what_was_sent_arrives_and_no_write_is_lost() {
    let count = 10_000;
    let first: u64 = std::env::var("PAGEWIRE_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(0);
    let mut all = Met::default();
    for seed in first..first + count {
        let kind = Kind::ALL[seed as usize % 3];
        let met = Schedule::new(kind, seed).run();
        all.waited += met.waited;
        all.moved += met.moved;
        all.resent += met.resent;
        all.shared += met.shared;
    }
    println!("{count} schedules from seed {first}: {all:?}");
    assert!(all.waited > count && all.moved > count && all.resent > count && all.shared > count);
}
