//! A program that sleeps until `poll` says, and no longer: whatever is lost or late, that must do.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use pagewire::hal::{ChecksumOffload, Granule, Instant, RegionId};
use pagewire::tcp::{ConnectionId, Outcome, Slice, StackConfig};

use super::rig::*;

/// A receiver that keeps what comes in order or not, as large as `capacity`.
struct Receiver {
    /// What it says next: ports, numbers and its own position.
    reply: Segment,
    first: u32,
    got: Vec<u8>,
    ahead: BTreeMap<usize, Vec<u8>>,
    read: usize,
    capacity: usize,
    scale: u8,
    sack: bool,
    timestamps: bool,
    fin: bool,
}

impl Receiver {
    fn window(&self) -> usize {
        self.capacity - (self.got.len() - self.read)
    }

    /// Takes a segment and returns the answer.
    fn take(&mut self, segment: &Segment) -> Option<Segment> {
        let at = segment.seq.wrapping_sub(self.first).cast_signed();
        let room = self.got.len() + self.window();
        if let Ok(at) = usize::try_from(at)
            && at + segment.payload.len() <= room
            && !segment.payload.is_empty()
        {
            self.ahead.insert(at, segment.payload.clone());
        }
        while let Some((at, bytes)) = self.ahead.pop_first() {
            if at > self.got.len() {
                self.ahead.insert(at, bytes);
                break;
            }
            let known = self.got.len() - at;
            self.got
                .extend_from_slice(bytes.get(known..).unwrap_or_default());
        }
        let end = segment.end().wrapping_sub(self.first) as usize;
        self.fin |= segment.flags & FIN != 0 && end == self.got.len() + 1;
        let in_place = at == self.got.len() as i32;
        let bare = segment.payload.is_empty() && segment.flags & FIN == 0;
        if bare && in_place {
            return None;
        }
        Some(self.acknowledgment(segment))
    }

    fn acknowledgment(&self, last: &Segment) -> Segment {
        let mut reply = self.reply.clone();
        let position = self.got.len() as u32 + u32::from(self.fin);
        reply.ack = self.first.wrapping_add(position);
        reply.window = (self.window() >> self.scale).min(0xffff) as u16;
        if self.timestamps
            && let Some(value) = last.options.windows(10).find(|w| w[..2] == [8, 10])
        {
            reply.options.extend_from_slice(&[1, 1, 8, 10, 0, 0, 0, 1]);
            reply.options.extend_from_slice(&value[2..6]);
        }
        if let Some((at, bytes)) = self.ahead.first_key_value().filter(|_| self.sack) {
            let start = self.first.wrapping_add(*at as u32);
            reply.options.extend_from_slice(&[1, 1, 5, 10]);
            reply.options.extend_from_slice(&start.to_be_bytes());
            reply
                .options
                .extend_from_slice(&start.wrapping_add(bytes.len() as u32).to_be_bytes());
        }
        reply
    }
}

fn any_setup(random: &mut Rng) -> Setup {
    let usual = Setup::default();
    let max_fragments = [1, 2, 3, 64, 255][random.usize(0..5)];
    let least = 300u32.div_ceil(u32::from(max_fragments));
    let lens = [least, least + random.u32(0..100), 2048, 16384];
    let tiny = Granule::from_bytes(64).unwrap();
    Setup {
        granule: [tiny, usual.granule, Granule::CONTIGUOUS][random.usize(0..3)],
        max_fragments,
        max_fragment_len: lens[random.usize(0..4)],
        ring_len: 256 + random.usize(0..300),
        large_buffers: random.usize(1..8),
        small_buffers: random.usize(0..8),
        checksum: if random.bool() {
            usual.checksum
        } else {
            ChecksumOffload::empty()
        },
        config: StackConfig {
            mtu: [576, 1500, 9000][random.usize(0..3)],
            nagle: random.bool(),
            max_retries: 60,
            send_limit: random.usize(1000..200_000),
            ..usual.config
        },
    }
}

/// A connection to a receiver with any options.
fn any_connection(random: &mut Rng, rig: &mut Rig) -> (ConnectionId, Receiver) {
    let (sack, timestamps, scale) = (random.bool(), random.bool(), random.bool());
    let shift = random.u8(0..8);
    let mut options = vec![2, 4];
    options.extend_from_slice(&[536u16, 1460, 8960, 65535][random.usize(0..4)].to_be_bytes());
    options.extend_from_slice(if sack { &[4, 2] } else { &[] });
    options.extend_from_slice(if timestamps {
        &[8, 10, 0, 0, 0, 1, 0, 0, 0, 0]
    } else {
        &[]
    });
    options.extend_from_slice(&if scale { [3, 3, shift] } else { [1, 1, 1] });
    let (id, peer) = rig.established(0xffff, &options);
    let receiver = Receiver {
        first: peer.ack,
        reply: peer,
        got: Vec::new(),
        ahead: BTreeMap::new(),
        read: 0,
        capacity: random.usize(10_000..60_000),
        scale: if scale { shift } else { 0 },
        sack,
        timestamps,
        fin: false,
    };
    (id, receiver)
}

/// Both ends and the wire between them, which loses `loss` percent in either direction.
struct Transfer {
    random: Rng,
    rig: Rig,
    region: RegionId,
    bytes: Vec<u8>,
    id: ConnectionId,
    receiver: Receiver,
    loss: u8,
    latency: Duration,
    /// When the peer's program reads.
    reads_at: Instant,
    on_the_way: Vec<(Instant, Segment)>,
    last: Segment,
    sent: usize,
    completed: usize,
}

impl Transfer {
    fn new(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let setup = any_setup(&mut random);
        let mut rig = Rig::new(seed, &setup);
        let bytes = pattern(random.usize(1..120_000));
        let region = rig.region(&bytes);
        let (id, receiver) = any_connection(&mut random, &mut rig);
        let loss = [0, 1, 10][random.usize(0..3)];
        let latency = Duration::from_micros(random.u64(0..50_000));
        Self {
            random,
            rig,
            region,
            bytes,
            id,
            receiver,
            loss,
            latency,
            reads_at: Instant::ZERO,
            on_the_way: Vec::new(),
            last: Segment::default(),
            sent: 0,
            completed: 0,
        }
    }

    fn arrives(&mut self) -> bool {
        self.random.u8(0..100) >= self.loss
    }

    /// Hands in what there is room for, in slices of any length, none included.
    fn send(&mut self) {
        while self.sent < self.bytes.len() {
            let mut slices = Vec::new();
            let mut at = self.sent;
            while at < self.bytes.len() && slices.len() < 300 {
                let most = [2, 300, 5000][self.random.usize(0..3)];
                let len = self.random.usize(0..most).min(self.bytes.len() - at);
                slices.push(Slice {
                    region: self.region,
                    start: at,
                    len,
                });
                at += len;
            }
            let accepted = self.rig.stack.send(self.id, &slices, 0).unwrap();
            self.sent += accepted;
            if accepted == 0 && at > self.sent {
                return;
            }
        }
        self.rig.stack.close(self.rig.now, self.id);
    }

    fn exchange(&mut self) {
        for segment in self.rig.poll() {
            if self.arrives()
                && let Some(answer) = self.receiver.take(&segment)
                && self.arrives()
            {
                self.on_the_way.push((self.rig.now + self.latency, answer));
            }
            self.last = segment;
        }
        if self.random.bool() {
            let count = self.random.usize(1..20);
            self.rig
                .handle
                .complete_some_shuffled(self.random.u64(..), count);
        }
        // The program of the peer reads now and then; the news of it may be lost as well.
        if self.reads_at <= self.rig.now && self.receiver.read < self.receiver.got.len() {
            self.receiver.read = self.receiver.got.len();
            self.reads_at = self.rig.now + Duration::from_micros(self.random.u64(1..300_000));
            if self.arrives() {
                let update = self.receiver.acknowledgment(&self.last);
                self.on_the_way.push((self.rig.now + self.latency, update));
            }
        }
    }

    /// Sleeps until something arrives, or `poll` wanted to be called.
    fn sleep(&mut self, text: &str) {
        let unread = self.receiver.read < self.receiver.got.len();
        let arrivals = self.on_the_way.iter().map(|(at, _)| *at);
        let next = arrivals
            .chain(self.rig.next_call)
            .chain(unread.then_some(self.reads_at))
            .min();
        let Some(next) = next else {
            if self.is_over(text) {
                return;
            }
            panic!(
                "{text}: it stands still: {} of {} bytes",
                self.completed,
                self.bytes.len()
            );
        };
        self.rig.now = self.rig.now.max(next);
        self.on_the_way.sort_by_key(|(at, _)| *at);
        while self
            .on_the_way
            .first()
            .is_some_and(|(at, _)| *at <= self.rig.now)
        {
            let (_, segment) = self.on_the_way.remove(0);
            self.rig.give(&segment.frame());
        }
        let error = self.rig.stack.error(self.id);
        assert!(error.is_none(), "{text}: {error:?}");
    }

    fn is_over(&mut self, text: &str) -> bool {
        while let Some(done) = self.rig.stack.completion(self.rig.now, self.id) {
            assert_eq!(done.outcome, Outcome::Delivered, "{text}");
            self.completed += done.bytes;
        }
        self.receiver.fin && self.completed == self.bytes.len() && self.rig.loans() == 0
    }
}

#[test]
fn a_transfer_goes_on_though_nobody_polls_before_poll_says_so() {
    for seed in seeds(300) {
        let text = format!("seed {seed}");
        let mut transfer = Transfer::new(seed);
        let mut rounds = 0;
        while !transfer.is_over(&text) {
            transfer.send();
            transfer.exchange();
            transfer.sleep(&text);
            rounds += 1;
            assert!(rounds < 200_000, "{text}: it goes round");
        }
        assert!(
            transfer.receiver.got == transfer.bytes,
            "{text}: other bytes"
        );
        transfer.rig.stack.remove(transfer.rig.now, transfer.id);
        transfer.rig.assert_empty(&text);
    }
}
