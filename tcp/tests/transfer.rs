//! Whole transfers with everything at random, from a seed: slices, lengths, granules, limits of
//! the device, completions late and out of order, loss, duplicates and reordering both ways.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test may panic

mod common;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use common::{ACK, FIN, Peer, PeerOptions, Segment, Setup, World, pattern};
use fastrand::Rng;
use pagewire_hal::{ChecksumOffload, Granule, RegionId};
use pagewire_tcp::{ConnectionId, ConnectionStats, Outcome, Slice, State};

/// Network and device of one run, in percent.
#[derive(Clone, Copy, Debug)]
struct Weather {
    loss: u8,
    duplication: u8,
    reordering: u8,
    shuffled_completions: bool,
    device_resets: bool,
}

fn percent(random: &mut Rng, chance: u8) -> bool {
    random.u8(..100) < chance
}

/// A receiver that keeps what arrives out of order, and says so if SACK was agreed on.
struct Receiver {
    peer: Peer,
    stream: Vec<u8>,
    early: BTreeMap<u32, Vec<u8>>,
    first: u32,
    fin: Option<u32>,
}

impl Receiver {
    fn take(&mut self, segment: &Segment, seed: u64) {
        if let Some((value, _)) = segment.timestamps
            && segment.seq == self.peer.ack
        {
            self.peer.echo = value;
        }
        let offset = segment.seq.wrapping_sub(self.first);
        if !segment.payload.is_empty() && offset < 1 << 31 {
            let old = self.early.get(&offset).map_or(0, Vec::len);
            if segment.payload.len() > old {
                self.early.insert(offset, segment.payload.clone());
            }
        }
        if segment.flags & FIN != 0 {
            let end = offset.wrapping_add(segment.payload.len() as u32);
            assert!(
                self.fin.is_none_or(|fin| fin == end),
                "seed {seed}: two FINs"
            );
            self.fin = Some(end);
        }
        while let Some(entry) = self.early.first_entry() {
            let at = *entry.key() as usize;
            if at > self.stream.len() {
                break;
            }
            let bytes = entry.remove();
            let known = self.stream.len() - at;
            let overlap = known.min(bytes.len());
            assert!(
                bytes[..overlap] == self.stream[at..at + overlap],
                "seed {seed}: bytes at {at} were sent twice and differ"
            );
            self.stream.extend_from_slice(&bytes[overlap..]);
        }
        let done = self.fin == Some(self.stream.len() as u32);
        let next = self.stream.len() as u32 + u32::from(done);
        self.peer.ack = self.first.wrapping_add(next);
    }

    fn ack(&mut self, random: &mut Rng) -> Vec<u8> {
        self.peer.clock += 1;
        if !self.peer.options.sack || self.early.is_empty() {
            return self.peer.ack();
        }
        let mut blocks: Vec<(u32, u32)> = Vec::new();
        for (start, bytes) in &self.early {
            let range = (*start, start + bytes.len() as u32);
            match blocks.last_mut() {
                Some(last) if last.1 >= range.0 => last.1 = last.1.max(range.1),
                _ => blocks.push(range),
            }
        }
        random.shuffle(&mut blocks);
        blocks.truncate(3);
        let absolute: Vec<_> = blocks
            .iter()
            .map(|(a, b)| (self.first.wrapping_add(*a), self.first.wrapping_add(*b)))
            .collect();
        self.peer.sack(self.peer.ack, &absolute)
    }
}

struct Transfer {
    w: World,
    id: ConnectionId,
    receiver: Receiver,
    region: RegionId,
    slices: VecDeque<Slice>,
    wanted: Vec<u8>,
    calls: VecDeque<(u64, usize)>,
    to_us: VecDeque<Vec<u8>>,
    to_peer: VecDeque<Segment>,
    seed: u64,
    random: Rng,
    weather: Weather,
    setup: Setup,
    tag: u64,
}

fn random_setup(random: &mut Rng, seed: u64, segmentation: bool) -> Setup {
    let granules = [
        Granule::CONTIGUOUS,
        Granule::from_bytes(64).unwrap(),
        Granule::from_bytes(512).unwrap(),
        Granule::from_bytes(4096).unwrap(),
        Granule::from_bytes(65536).unwrap(),
    ];
    let mut checksum = ChecksumOffload::empty();
    checksum.set(ChecksumOffload::TCP_IPV4, random.bool());
    checksum.set(ChecksumOffload::IPV4_HEADER, random.bool());
    let mut setup = Setup {
        seed,
        granule: granules[random.usize(..granules.len())],
        max_fragments: if random.bool() {
            random.u16(1..=8)
        } else {
            random.u16(1..=64)
        },
        max_fragment_len: *random.choice(&[16384, 16384, 2048, 700, 100]).unwrap(),
        min_frame_len: *random.choice(&[17, 17, 60]).unwrap(),
        checksum,
        ring_len: random.usize(64..600),
        large_buffers: random.usize(1..40),
        ..Setup::default()
    };
    // A frame that is copied whole has to fit, too.
    if u32::from(setup.max_fragments) * setup.max_fragment_len < 300 {
        setup.max_fragment_len = 2048;
    }
    setup.config.mtu = random.u16(300..=3000);
    if segmentation {
        // Without it nothing can be asked for, and all goes in single segments.
        if random.u8(..8) > 0 {
            setup.checksum |= ChecksumOffload::TCP_IPV4;
        }
        let mut limits = common::segmentation(random.bool());
        limits.max_payload_len = *random.choice(&[65535, 65535, 20_000, 5000]).unwrap();
        limits.max_header_len = *random.choice(&[192, 192, 66, 54]).unwrap();
        setup.segmentation = Some(limits);
    }
    setup.config.nagle = random.bool();
    setup.config.share_min = *random.choice(&[0, 1, 512]).unwrap();
    setup.config.send_limit = random.usize(3000..200_000);
    setup.config.max_retries = 100;
    setup
}

impl Transfer {
    fn new(seed: u64, weather: Weather, segmentation: bool) -> Self {
        let mut random = Rng::with_seed(seed);
        let setup = random_setup(&mut random, seed, segmentation);
        let mut w = World::new(&setup);
        let scale = random.bool().then(|| random.u8(0..5));
        let options = PeerOptions {
            mss: random.bool().then(|| random.u16(64..4000)),
            scale,
            sack: random.bool(),
            timestamps: random.bool(),
            window: random.u16(4000..),
        };
        let (id, peer) = w.established(options);
        let bytes = pattern(100_000, seed);
        let region = w.region(bytes.clone());
        let mut slices = VecDeque::new();
        let mut wanted = Vec::new();
        let longest = *random.choice(&[10, 300, 5000, 60_000]).unwrap();
        while wanted.len() < 150_000 && slices.len() < 300 {
            let len = random.usize(0..=longest);
            let start = random.usize(0..=bytes.len() - len);
            wanted.extend_from_slice(&bytes[start..start + len]);
            slices.push_back(Slice { region, start, len });
        }
        Self {
            receiver: Receiver {
                first: peer.ack,
                peer,
                stream: Vec::new(),
                early: BTreeMap::new(),
                fin: None,
            },
            w,
            id,
            region,
            slices,
            wanted,
            calls: VecDeque::new(),
            to_us: VecDeque::new(),
            to_peer: VecDeque::new(),
            seed,
            random,
            weather,
            setup,
            tag: 0,
        }
    }

    /// Hands in some slices; what is not accepted stays for later.
    fn send_some(&mut self) {
        let count = self.random.usize(0..=self.slices.len().min(8));
        let batch: Vec<Slice> = self.slices.iter().copied().take(count).collect();
        self.tag += 1;
        let mut accepted = self.w.stack.send(self.id, &batch, self.tag).unwrap();
        if accepted > 0 {
            self.calls.push_back((self.tag, accepted));
        }
        while let Some(slice) = self.slices.front_mut() {
            let part = accepted.min(slice.len);
            slice.start += part;
            slice.len -= part;
            accepted -= part;
            if slice.len > 0 {
                break;
            }
            self.slices.pop_front();
        }
        if self.slices.is_empty() {
            self.w.stack.close(self.w.now, self.id);
        }
    }

    fn network(&mut self) {
        for frame in self.w.handle.take_frames() {
            assert!(
                frame.fragments <= usize::from(self.setup.max_fragments),
                "seed {}: {} fragments",
                self.seed,
                frame.fragments
            );
            if common::parse_arp_request(&frame.bytes).is_some() {
                self.w.give(&common::arp_reply());
                continue;
            }
            let segment = Segment::parse(&frame.bytes);
            if percent(&mut self.random, self.weather.loss) {
                continue;
            }
            if percent(&mut self.random, self.weather.duplication) {
                self.to_peer.push_back(segment.clone());
            }
            self.to_peer.push_back(segment);
        }
        if percent(&mut self.random, self.weather.reordering) && self.to_peer.len() > 1 {
            let (a, b) = (
                self.random.usize(..self.to_peer.len()),
                self.random.usize(..self.to_peer.len()),
            );
            self.to_peer.swap(a, b);
        }
        let arriving = self.random.usize(0..=self.to_peer.len());
        for _ in 0..arriving {
            if let Some(segment) = self.to_peer.pop_front() {
                self.receiver.take(&segment, self.seed);
                let takes_numbers = !segment.payload.is_empty() || segment.flags & FIN != 0;
                if takes_numbers && self.random.u8(..4) > 0 {
                    let ack = self.receiver.ack(&mut self.random);
                    self.to_us.push_back(ack);
                }
            }
        }
        // An ACK for what was last, now and then, or the peer would be one that never delays.
        if self.random.u8(..8) == 0 {
            let ack = self.receiver.ack(&mut self.random);
            self.to_us.push_back(ack);
        }
        let arriving = self.random.usize(0..=self.to_us.len());
        for _ in 0..arriving {
            if let Some(frame) = self.to_us.pop_front()
                && !percent(&mut self.random, self.weather.loss)
            {
                self.w.give(&frame);
            }
        }
    }

    fn device(&mut self) {
        // One device in four is slow: what is lost is still in its ring.
        let most = if self.seed.is_multiple_of(4) { 3 } else { 40 };
        let count = self.random.usize(0..most);
        if self.weather.shuffled_completions {
            let seed = self.random.u64(..);
            self.w.handle.complete_some_shuffled(seed, count);
        } else {
            self.w.handle.complete(count);
        }
        if self.weather.device_resets && self.random.u8(..) == 0 {
            self.w.handle.reset_all();
        }
    }

    fn take_completions(&mut self) {
        while let Some(done) = self.w.stack.completion(self.w.now, self.id) {
            let call = self.calls.pop_front();
            assert_eq!(Some((done.tag, done.bytes)), call, "seed {}", self.seed);
            assert_eq!(done.outcome, Outcome::Delivered, "seed {}", self.seed);
        }
    }

    fn run(mut self) -> ConnectionStats {
        let seed = self.seed;
        let case = format!("seed {seed}, {:?}, {:?}", self.weather, self.setup);
        let mut steps = 0;
        while !matches!(
            self.w.stack.state(self.id),
            Some(State::FinWait2 | State::Closed)
        ) {
            steps += 1;
            assert!(steps < 100_000, "does not end: {case}");
            if !self.slices.is_empty() {
                self.send_some();
            }
            self.w.poll();
            self.network();
            self.device();
            self.take_completions();
            let far = self.random.u64(1..2_000_000);
            self.w.advance(Duration::from_nanos(far));
            if self.to_us.is_empty() && self.to_peer.is_empty() {
                self.w.advance(Duration::from_millis(20));
            }
        }
        assert_eq!(self.w.stack.error(self.id), None, "{case}");
        assert!(self.receiver.stream == self.wanted, "wrong bytes: {case}");
        self.w.handle.complete_all();
        self.w.poll();
        self.take_completions();
        assert!(self.calls.is_empty(), "calls without completion: {case}");
        let fin = self.receiver.peer.data(b"", FIN);
        self.w.give(&fin);
        let sent = self.w.pump();
        assert!(sent.iter().any(|s| s.flags & ACK != 0), "{case}");
        assert_eq!(self.w.stack.state(self.id), Some(State::TimeWait), "{case}");
        assert_eq!((self.w.pinned(), self.w.loans()), (0, 0), "{case}");
        self.check_counters(&case);
        self.w.stack.release_region(self.region).unwrap();
        assert!(self.w.stack.take_released().is_some(), "{case}");
        self.w.stack.stats().connections
    }

    fn check_counters(&self, case: &str) {
        let stats = self.w.stack.connection_stats(self.id).unwrap();
        let port = self.w.stack.port();
        assert_eq!(
            stats.shared_bytes,
            port.counters().shared_bytes,
            "what was called shared, and what was posted: {case}"
        );
        if !self.weather.device_resets {
            let read = self.w.handle.counters().region_bytes;
            assert_eq!(stats.shared_bytes, read, "what the device read: {case}");
        }
        let copied = stats.copied.total().bytes + stats.rescued.bytes;
        assert_eq!(stats.data.bytes, stats.shared_bytes + copied, "{case}");
        let posted_once = stats.data.bytes - stats.retransmits().bytes;
        assert_eq!(posted_once, self.wanted.len() as u64, "{case}");
        assert_eq!(stats.bytes_acked, self.wanted.len() as u64, "{case}");
        assert_eq!(stats.lent.count() > 0, !self.wanted.is_empty(), "{case}");
        if self.setup.max_fragments == 1 {
            assert_eq!(stats.shared_bytes, 0, "{case}");
        }
        let requests = self.w.handle.take_requests();
        let payload: usize = requests.iter().map(|r| r.payload).sum();
        let segments: usize = requests.iter().map(|r| r.segments).sum();
        if !self.weather.device_resets {
            assert_eq!(stats.segmented.requests, requests.len() as u64, "{case}");
            assert_eq!(stats.segmented.segments, segments as u64, "{case}");
            assert_eq!(stats.segmented.bytes, payload as u64, "{case}");
        }
        let violations = self.w.handle.violations();
        assert!(violations.is_empty(), "{violations:?}: {case}");
    }
}

/// Runs from `count` seeds, without segmentation by the device and then with it. What none of them met would not be tested: each of `met` must be
/// more than 0 in one of them at least.
fn runs(first_seed: u64, count: u64, weather: Weather, met: &[Met]) {
    run_all(first_seed, count, weather, met, false);
    let met = [&SEGMENTED, met].concat();
    run_all(first_seed, count, weather, &met, true);
}

fn run_all(first_seed: u64, count: u64, weather: Weather, met: &[Met], segmentation: bool) {
    let mut seen = vec![0; met.len()];
    for seed in first_seed..first_seed + count {
        let stats = Transfer::new(seed, weather, segmentation).run();
        for (sum, (_, counter)) in seen.iter_mut().zip(met) {
            *sum += counter(&stats);
        }
    }
    for (sum, (name, _)) in seen.iter().zip(met) {
        assert!(
            *sum > 0,
            "no seed from {first_seed} on met {name}, segmentation: {segmentation}"
        );
    }
}

type Met = (&'static str, fn(&ConnectionStats) -> u64);

const WAYS: [Met; 7] = [
    ("sharing", |s| s.shared_segments),
    ("rescue", |s| s.rescued.segments),
    ("copies without gather", |s| s.copied.no_gather.segments),
    ("copies over budget", |s| s.copied.over_budget.segments),
    ("a full ring", |s| s.ring_full),
    ("sums by the device", |s| s.checksums.tcp_device),
    ("sums by the CPU", |s| s.checksums.tcp_cpu),
];

const SEGMENTED: [Met; 3] = [
    ("requests", |s| s.segmented.requests),
    ("segments of requests", |s| s.segmented.segments),
    ("requests over budget", |s| s.segmented.ended_by_budget),
];

const REPAIRS: [Met; 3] = [
    ("fast retransmission", |s| s.fast_retransmits.segments),
    ("timeouts", |s| s.timeout_retransmits.segments),
    ("duplicate ACKs", |s| s.duplicate_acks),
];

const FAIR: Weather = Weather {
    loss: 0,
    duplication: 0,
    reordering: 0,
    shuffled_completions: false,
    device_resets: false,
};

#[test]
fn in_fair_weather() {
    runs(1_000, 150, FAIR, &WAYS);
}

#[test]
fn with_completions_out_of_order() {
    let weather = Weather {
        shuffled_completions: true,
        ..FAIR
    };
    runs(2_000, 150, weather, &WAYS);
}

#[test]
fn with_loss() {
    runs(3_000, 150, Weather { loss: 5, ..FAIR }, &REPAIRS);
}

#[test]
fn with_duplicates_and_reordering() {
    let weather = Weather {
        duplication: 10,
        reordering: 40,
        ..FAIR
    };
    runs(4_000, 150, weather, &WAYS);
}

#[test]
fn in_a_storm() {
    let weather = Weather {
        loss: 15,
        duplication: 15,
        reordering: 50,
        shuffled_completions: true,
        device_resets: true,
    };
    runs(5_000, 150, weather, &REPAIRS);
    runs(
        6_000,
        60,
        weather,
        &[("retransmissions put off", |s| s.put_off)],
    );
}
