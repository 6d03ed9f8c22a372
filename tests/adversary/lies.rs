//! A peer that lies: every field that TCP has, as wrong as it can be, against a program that calls
//! whatever it likes, over a device that completes when it likes.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::time::Duration;

use fastrand::Rng;
use pagewire::hal::{ChecksumOffload, RegionId};
use pagewire::tcp::{ConnectionId, Slice, StackConfig, State};

use super::rig::*;

/// Options that are legal, nearly legal or neither, for a sender of about `near`.
fn lying_options(random: &mut Rng, near: u32) -> Vec<u8> {
    let mut options = Vec::new();
    for _ in 0..random.usize(0..4) {
        match random.u8(0..8) {
            0 => {
                let mss = [0, 1, 63, 64, 536, 1460, 65535, random.u16(..)];
                options.extend_from_slice(&[2, 4]);
                options.extend_from_slice(&mss[random.usize(0..mss.len())].to_be_bytes());
            }
            1 => options.extend_from_slice(&[3, 3, [0, 7, 14, 15, 255][random.usize(0..5)]]),
            2 => options.extend_from_slice(&[4, 2]),
            3 => {
                let value = if random.bool() {
                    random.u32(..)
                } else {
                    random.u32(0..1000)
                };
                options.extend_from_slice(&[8, 10]);
                options.extend_from_slice(&value.to_be_bytes());
                options.extend_from_slice(&random.u32(..).to_be_bytes());
            }
            4 | 5 => {
                let blocks = random.u8(1..4);
                options.extend_from_slice(&[5, 2 + 8 * blocks]);
                for _ in 0..2 * blocks {
                    let edge = near.wrapping_add(random.u32(0..20_000)).wrapping_sub(5000);
                    let edge = if random.u8(0..8) == 0 {
                        random.u32(..)
                    } else {
                        edge
                    };
                    options.extend_from_slice(&edge.to_be_bytes());
                }
            }
            6 => options.push(random.u8(0..2)),
            _ => options.extend((0..random.usize(1..12)).map(|_| random.u8(..))),
        }
    }
    options
}

fn lie(random: &mut Rng, known: &BTreeMap<(u16, u16), Segment>) -> Segment {
    let index = random.usize(0..known.len().max(1));
    let Some(last) = known.values().nth(index).filter(|_| random.u8(0..10) > 0) else {
        return Segment {
            from: random.u16(0..4),
            to: [80, 81, random.u16(..)][random.usize(0..3)],
            seq: random.u32(..),
            ack: random.u32(..),
            flags: [SYN, SYN, SYN, ACK, random.u8(..)][random.usize(0..5)],
            window: random.u16(..),
            options: lying_options(random, 0),
            payload: Vec::new(),
        };
    };
    let near = |random: &mut Rng, base: u32| match random.u8(0..12) {
        0..=5 => base,
        6 => base.wrapping_add(1),
        7 => base.wrapping_sub(1),
        8 => base.wrapping_add(random.u32(0..70_000)),
        9 => base.wrapping_sub(random.u32(0..70_000)),
        10 => base.wrapping_add(1 << 31),
        _ => random.u32(..),
    };
    let payload = if random.bool() {
        0
    } else {
        random.usize(0..1461)
    };
    let flags = match random.u8(0..20) {
        0 => RST,
        1 => RST | ACK,
        2 => SYN,
        3 | 4 => SYN | ACK,
        5 => FIN | ACK,
        6 => random.u8(..),
        _ => ACK,
    };
    Segment {
        from: last.to,
        to: last.from,
        seq: near(random, last.ack),
        ack: near(random, last.end()),
        flags,
        window: [0, 0, 1, 100, 0xffff, random.u16(..)][random.usize(0..6)],
        options: lying_options(random, last.end()),
        payload: vec![0; payload],
    }
}

/// Whether a connection has something that only the stack can move on.
fn has_work(rig: &Rig, id: ConnectionId, limit: usize) -> bool {
    let open = matches!(
        rig.stack.state(id),
        Some(State::Established | State::CloseWait)
    );
    open && rig.stack.send_room(id) < limit
}

fn any_setup(random: &mut Rng) -> Setup {
    let config = StackConfig {
        mtu: [576, 1500, 9000][random.usize(0..3)],
        nagle: random.bool(),
        receive_window: [1, 100, 65536, 1 << 20][random.usize(0..4)],
        send_limit: [1, 3000, 4 << 20][random.usize(0..3)],
        max_retries: random.u32(0..8),
        ..Setup::default().config
    };
    let usual = Setup::default();
    Setup {
        max_fragments: [1, 2, 3, 16, 64, 255][random.usize(0..6)],
        ring_len: [256, 300, 1024][random.usize(0..3)],
        large_buffers: random.usize(1..32),
        small_buffers: random.usize(0..64),
        checksum: if random.bool() {
            usual.checksum
        } else {
            ChecksumOffload::empty()
        },
        config,
        ..usual
    }
}

/// The program, and what its enemies know.
struct Program {
    random: Rng,
    rig: Rig,
    bytes: Vec<u8>,
    region: RegionId,
    connections: Vec<ConnectionId>,
    known: BTreeMap<(u16, u16), Segment>,
    limit: usize,
    down: bool,
}

impl Program {
    fn new(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let setup = any_setup(&mut random);
        let mut rig = Rig::new(seed, &setup);
        let bytes = pattern(200_000);
        let region = rig.region(&bytes);
        rig.stack.listen(80).unwrap();
        rig.stack.listen(81).unwrap();
        Self {
            random,
            rig,
            bytes,
            region,
            connections: Vec::new(),
            known: BTreeMap::new(),
            limit: setup.config.send_limit,
            down: false,
        }
    }

    /// One call of the program, whichever.
    fn call(&mut self) {
        let (random, rig) = (&mut self.random, &mut self.rig);
        let index = random.usize(0..self.connections.len().max(1));
        let id = self.connections.get(index).copied();
        match (random.u8(0..16), id) {
            (0, _) if self.connections.len() < 12 => {
                let remote = SocketAddrV4::new(PEER_IP.into(), random.u16(1..4));
                self.connections
                    .extend(rig.stack.connect(rig.now, remote, None));
            }
            (1, _) => self.connections.extend(rig.stack.accept(80)),
            (2, _) => self.connections.extend(rig.stack.accept(81)),
            (3..=8, Some(id)) => self.send(id),
            (9, Some(id)) => rig.stack.close(rig.now, id),
            (10, Some(id)) if random.bool() => rig.stack.abort(rig.now, id),
            (11, Some(id)) if random.bool() => {
                rig.stack.remove(rig.now, id);
                self.connections.retain(|other| *other != id);
            }
            (12, Some(id)) => {
                let _ = rig.stack.receive(id, &mut vec![0; random.usize(0..5000)]);
                while rig.stack.completion(rig.now, id).is_some() {}
            }
            (13, _) => {
                rig.stack.release_region(self.region).unwrap();
                while rig.stack.take_released().is_some() {}
                self.region = rig.region(&self.bytes);
            }
            _ => {}
        }
    }

    fn send(&mut self, id: ConnectionId) {
        let (random, region) = (&mut self.random, self.region);
        let slices: Vec<Slice> = (0..random.usize(0..20))
            .map(|_| {
                let len = random.usize(0..3000);
                Slice {
                    region,
                    start: random.usize(0..=self.bytes.len() - len),
                    len,
                }
            })
            .collect();
        let _ = self.rig.stack.send(id, &slices, random.u64(..));
    }

    /// The device does something, and time passes.
    fn pass(&mut self) {
        let (random, rig) = (&mut self.random, &mut self.rig);
        match random.u8(0..24) {
            0 if random.u8(0..8) == 0 => rig.handle.reset_all(),
            1 => {
                self.down = random.u8(0..4) == 0;
                rig.handle.set_down(self.down);
            }
            2..=4 => {
                let count = random.usize(0..50);
                rig.handle.complete_some_shuffled(random.u64(..), count);
            }
            5 | 6 => {
                rig.handle.complete_all();
            }
            _ => {}
        }
        match random.u8(0..8) {
            0..=3 => rig.advance(Duration::from_micros(random.u64(0..5000))),
            4 => rig.advance(Duration::from_millis(random.u64(0..500))),
            5 => rig.now = rig.next_call.unwrap_or(rig.now).max(rig.now),
            6 if random.u8(0..10) == 0 => rig.advance(Duration::from_secs(random.u64(0..90))),
            _ => {}
        }
    }

    fn poll(&mut self, text: &str) {
        let rig = &mut self.rig;
        match rig.stack.poll(rig.now) {
            Ok(next) => {
                rig.next_call = next;
                let waits = self
                    .connections
                    .iter()
                    .any(|id| has_work(rig, *id, self.limit));
                assert!(next.is_some() || !waits, "{text}: nobody is to call again");
                // At once is right where an address of ARP has just been found to be stale.
                assert!(
                    next.is_none_or(|at| at >= rig.now),
                    "{text}: called in the past"
                );
            }
            Err(error) => assert!(self.down, "{text}: {error}"),
        }
        for frame in rig.handle.take_frames() {
            match (arp_reply(&frame.bytes), Segment::parse(&frame.bytes)) {
                (Some(reply), _) if self.random.u8(0..4) > 0 => rig.give(&reply),
                (_, Some(segment)) => {
                    self.known.insert((segment.from, segment.to), segment);
                }
                _ => {}
            }
        }
        if self.known.len() > 30 {
            self.known.pop_first();
        }
        rig.assert_clean(text);
    }

    /// Everything is removed, and everything must be back.
    fn end(mut self, text: &str) {
        let rig = &mut self.rig;
        for id in self.connections {
            rig.stack.remove(rig.now, id);
        }
        while let Some(id) = rig.stack.accept(80).or_else(|| rig.stack.accept(81)) {
            rig.stack.remove(rig.now, id);
        }
        rig.assert_empty(text);
    }
}

#[test]
fn a_program_that_does_anything_among_peers_that_say_anything() {
    for seed in seeds(300) {
        let mut program = Program::new(seed);
        for step in 0..400 {
            for _ in 0..program.random.usize(0..4) {
                let segment = lie(&mut program.random, &program.known);
                program.rig.give(&segment.frame());
            }
            program.call();
            program.pass();
            program.poll(&format!("seed {seed}, step {step}"));
        }
        program.end(&format!("seed {seed}"));
    }
}
