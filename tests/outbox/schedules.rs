//! Anything in any order, with losses, by seed.

use std::fs::File;

use pagewire::hal::RegionId;
use pagewire::tcp::{OnWrite, SendOptions, Slice};
use pagewire_outbox::{Limits, Message};

use super::desk::{Desk, file};
use super::machine::{Kind, PAGE, Setup};

const SEEDS: u64 = 60;

struct Sources {
    file: File,
    content: Vec<u8>,
    region: RegionId,
    memory: Vec<u8>,
}

impl Sources {
    /// A message of some pieces, and its bytes.
    fn message(&self, random: &mut fastrand::Rng) -> (Message, Vec<u8>) {
        let mut options = SendOptions::default();
        options.explain = random.bool();
        if random.bool() {
            options.on_write = OnWrite::MoveAway;
        }
        let mut message = Message::new().options(options);
        let mut bytes = Vec::new();
        for _ in 0..random.usize(0..6) {
            let start = random.usize(0..self.memory.len());
            let len = match random.usize(0..3) {
                0 => random.usize(0..3),
                1 => random.usize(0..2000),
                _ => random.usize(0..40_000),
            };
            let end = (start + len).min(self.memory.len());
            match random.usize(0..3) {
                0 => {
                    bytes.extend_from_slice(&self.content[start..end]);
                    let file = self.file.try_clone().unwrap();
                    message = message.file(file, start as u64..end as u64);
                }
                1 => {
                    bytes.extend_from_slice(&self.memory[start..end]);
                    message = message.slice(Slice {
                        region: self.region,
                        start,
                        len: end - start,
                    });
                }
                _ => {
                    let text: Vec<u8> = (start..end).map(|i| ((i * 5) >> 2) as u8).collect();
                    bytes.extend_from_slice(&text);
                    message = message.text(text);
                }
            }
        }
        (message, bytes)
    }
}

#[test]
fn what_arrives_is_what_was_sent_and_each_message_is_told_of_once() {
    for seed in 0..SEEDS {
        let mut random = fastrand::Rng::with_seed(seed);
        let kind = Kind::ALL[seed as usize % 3];
        let mut setup = Setup::new(kind, seed);
        setup.connections = random.usize(1..4);
        setup.loss = f64::from(random.u32(0..6));
        setup.send_limit = random.usize(3000..100_000);
        setup.max_fragments = random.bool().then(|| random.u16(2..6));
        let limits = Limits {
            connection: random.usize(1..12) * PAGE,
            total: random.usize(1..20) * PAGE,
            window: random.usize(1..10) * PAGE,
            connections: 3,
        };
        let mut desk = Desk::new(&setup, limits);
        let (file, content) = file(30 * PAGE, seed);
        let memory: Vec<u8> = (0..30 * PAGE).map(|_| random.u8(..)).collect();
        let region = desk.machine.host.register(memory.clone()).unwrap();
        let region = desk.machine.stack.register(region).unwrap();
        let sources = Sources {
            file,
            content,
            region,
            memory,
        };
        let mut expected = vec![Vec::new(); setup.connections];
        let mut lens = vec![Vec::new(); setup.connections];
        for _ in 0..random.usize(1..12) {
            let connection = random.usize(..setup.connections);
            let id = desk.id(connection);
            let (mut message, bytes) = sources.message(&mut random);
            if random.bool() {
                lens[connection].push(bytes.len() as u64);
                expected[connection].extend_from_slice(&bytes);
                desk.outbox.send(id, message);
            } else {
                let now = desk.machine.host.now();
                let stack = &mut desk.machine.stack;
                let sent = desk.outbox.try_send(stack, now, id, &mut message).unwrap();
                assert_eq!(message.len(), (bytes.len() - sent) as u64, "seed {seed}");
                lens[connection].extend((sent > 0).then_some(sent as u64));
                expected[connection].extend_from_slice(&bytes[..sent]);
            }
            (0..random.usize(0..200)).for_each(|_| desk.round());
        }
        for (connection, lens) in lens.iter().enumerate() {
            for len in lens {
                let done = desk.done(connection);
                assert_eq!((done.len, done.delivered), (*len, *len), "seed {seed}");
            }
            let id = desk.id(connection);
            assert!(desk.outbox.done(id).is_none(), "seed {seed}");
            let arrived = desk.machine.arrived(connection);
            assert!(arrived == expected[connection], "seed {seed}: other bytes");
        }
        let most = desk.outbox.counters().most_mapped;
        assert!(most <= limits.total, "seed {seed}: {most} mapped");
        desk.assert_all_back();
    }
    println!("{SEEDS} schedules from seed 0");
}
