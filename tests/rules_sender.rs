//! The rules of the design that need the sender: 1, 2, 3, 5 and 6, on the e1000e driver and the
//! model of the 82574L with every latitude. Each test names its rule.
// A test may panic: that is how it fails.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use common::peer::{PEER_IP, PEER_PORT, Peer};
use common::{Lab, Tx, granule};
use pagewire::e1000e::Config;
use pagewire::hal::{Granule, Nic, PortPair, Region, RegionId, RxQueue, TxPort};
use pagewire::tcp::{
    ConnectionError, ConnectionId, Outcome, Slice, Stack, StackConfig, StackError, State,
};
use pagewire_models::{HostMemory, HostRegion};

type Bytes = Arc<HostRegion<Vec<u8>>>;

/// Driver, model, sender and a peer that obeys the test.
struct World {
    lab: Lab,
    stack: Stack<Tx, HostMemory>,
    peer: Peer,
    connection: ConnectionId,
    bytes: Bytes,
    region: RegionId,
}

const LEN: usize = 1 << 16;

impl World {
    fn new(seed: u64, granule: Granule, device: &Config) -> Self {
        Self::with_peer(seed, granule, device, Peer::new())
    }

    fn with_peer(seed: u64, granule: Granule, device: &Config, peer: Peer) -> Self {
        let (mut lab, tx) = Lab::new(seed, granule, device);
        let port = TxPort::new(&mut lab.nic, tx, &common::layout()).unwrap();
        let config = StackConfig {
            mac: lab.nic.mac_address(),
            address: Ipv4Addr::new(10, 0, 0, 1),
            secret: [seed as u8; 16],
            max_retries: 3,
            ..StackConfig::default()
        };
        let mut stack = Stack::new(port, config).unwrap();
        let bytes: Vec<u8> = (0..LEN).map(|i| (i * 31 + i / 251) as u8).collect();
        let bytes = lab.host.register(bytes).unwrap();
        let region = stack
            .register(Arc::clone(&bytes) as Arc<dyn Region>)
            .unwrap();
        let remote = SocketAddrV4::new(PEER_IP.into(), PEER_PORT);
        let connection = stack.connect(lab.host.now(), remote, None).unwrap();
        let mut world = Self {
            lab,
            stack,
            peer,
            connection,
            bytes,
            region,
        };
        world.run(300);
        world
    }

    /// One round of everybody.
    fn round(&mut self) {
        let now = self.lab.host.now();
        let mut scratch = [0; 2048];
        let Self { lab, stack, .. } = self;
        let received = lab.rx.receive(64, &mut |f| {
            stack.input(now, f.copy_to(&mut scratch), f.checksum())
        });
        let polled = self.stack.poll(now);
        assert!(received.is_ok() && polled.is_ok(), "seed {}", self.lab.seed);
        self.lab.run(1);
        for frame in self.lab.arrived() {
            for answer in self.peer.take(&frame) {
                self.lab.deliver(&answer);
            }
        }
    }

    fn run(&mut self, rounds: u32) {
        for _ in 0..rounds {
            self.round();
        }
    }

    /// Lets much time pass, with little work in between.
    fn wait(&mut self, time: Duration) {
        for _ in 0..100 {
            self.lab.host.advance(time / 100);
            self.run(2);
        }
    }

    fn send(&mut self, start: usize, len: usize) {
        let slice = Slice {
            region: self.region,
            start,
            len,
        };
        let accepted = self
            .stack
            .send(self.connection, &[slice], start as u64)
            .unwrap();
        assert_eq!(accepted, len, "seed {}", self.lab.seed);
    }

    fn pinned(&self) -> u64 {
        self.stack.port().ledger().counters().pinned_pages
    }

    fn hold_completions(&self, on: bool) {
        self.lab
            .model
            .with_device(|device| device.hold_completions(on));
    }

    /// The region is given back exactly once, to the one owner that is left.
    fn assert_given_back(mut self, text: &str) {
        let text = format!("seed {}: {text}", self.lab.seed);
        let counters = self.stack.port().ledger().counters();
        assert_eq!((counters.pinned_pages, counters.loans), (0, 0), "{text}");
        self.stack.release_region(self.region).unwrap();
        let (id, share) = self.stack.take_released().expect("the region");
        assert_eq!(id, self.region, "{text}");
        assert!(
            self.stack.take_released().is_none(),
            "{text}: given back twice"
        );
        assert!(self.stack.release_region(self.region).is_err(), "{text}");
        drop(share);
        let region = Arc::into_inner(self.bytes).unwrap_or_else(|| panic!("{text}: still held"));
        assert_eq!(region.into_inner().unwrap().len(), LEN, "{text}");
        assert_eq!(self.stack.port().counters().stray_tokens, 0, "{text}");
        self.lab.assert_clean();
    }
}

fn device(max_fragments: u16) -> Config {
    let mut config = Config::default();
    config.max_fragments = Some(max_fragments);
    config
}

/// Offset of the last byte of the second page of the region.
fn page_end(world: &World) -> usize {
    2 * 4096 - 1 - world.bytes.base().as_ptr().addr() % 4096
}

#[test]
fn rule_1_pieces_are_counted_not_crossings() {
    // One crossing, two pieces, and the header is one more: two fragments do not suffice.
    for (granule, max_fragments, shared) in [
        (granule(4096), 2, false),
        (granule(4096), 3, true),
        (Granule::CONTIGUOUS, 2, true),
        (granule(1 << 14), 1, false),
    ] {
        for seed in 0..5 {
            let mut world = World::new(seed, granule, &device(max_fragments));
            let start = page_end(&world);
            world.send(start, 2);
            world.run(300);
            let stats = world
                .stack
                .connection_stats(world.connection)
                .unwrap()
                .clone();
            let text = format!("seed {seed}: {granule:?}, {max_fragments} fragments: {stats:?}");
            assert_eq!(stats.shared_segments, u64::from(shared), "{text}");
            assert_eq!(stats.copied.total().segments, u64::from(!shared), "{text}");
            assert_eq!(
                world.peer.data,
                world.bytes.bytes()[start..start + 2],
                "{text}"
            );
            world.assert_given_back("after two bytes");
        }
    }
}

#[test]
fn rule_2_acknowledged_is_not_done() {
    for seed in 0..10 {
        let mut world = World::new(seed, granule(4096), &Config::default());
        world.hold_completions(true);
        world.send(0, 10_000);
        world.run(1500);
        assert_eq!(world.peer.data.len(), 10_000, "seed {seed}");
        let stats = world.stack.connection_stats(world.connection).unwrap();
        assert_eq!(stats.bytes_acked, 10_000, "seed {seed}");
        assert!(
            world.pinned() > 0,
            "seed {seed}: released before the device was done"
        );
        let now = world.lab.host.now();
        assert!(
            world.stack.completion(now, world.connection).is_none(),
            "seed {seed}"
        );
        world.hold_completions(false);
        world.run(1500);
        assert_eq!(world.pinned(), 0, "seed {seed}");
        let now = world.lab.host.now();
        let completion = world
            .stack
            .completion(now, world.connection)
            .expect("a completion");
        assert_eq!(
            (completion.bytes, completion.outcome),
            (10_000, Outcome::Delivered)
        );
        world.assert_given_back("completed after the acknowledgement");
    }
}

#[test]
fn rule_2_done_is_not_acknowledged_and_sack_releases_nothing() {
    for seed in 0..10 {
        let mut world = World::new(seed, granule(4096), &Config::default());
        world.peer.acknowledge = false;
        // Whole segments: Nagle's algorithm would hold back a last short one.
        world.send(0, 3 * 1460);
        world.run(1500);
        assert_eq!(
            world.stack.port().outstanding(),
            0,
            "seed {seed}: the device is done"
        );
        let pinned = world.pinned();
        assert!(pinned >= 2, "seed {seed}");
        let sack = world.peer.sack();
        world.lab.deliver(&sack);
        world.run(300);
        assert_eq!(
            world.pinned(),
            pinned,
            "seed {seed}: SACK has released something"
        );
        let ack = world.peer.ack();
        world.lab.deliver(&ack);
        world.run(1500);
        world.assert_given_back("acknowledged after the completion");
    }
}

#[test]
fn rule_2_a_retransmission_waits_for_the_original_to_leave_the_ring() {
    for seed in 0..10 {
        let mut world = World::new(seed, granule(4096), &Config::default());
        world.peer.acknowledge = false;
        world.hold_completions(true);
        world.send(0, 1000);
        world.run(300);
        let posted = world.stack.port().counters().frames;
        world.wait(Duration::from_millis(400));
        assert_eq!(
            world.stack.port().counters().frames,
            posted,
            "seed {seed}: sent twice"
        );
        assert!(
            world
                .stack
                .connection_stats(world.connection)
                .unwrap()
                .put_off
                > 0
        );
        world.hold_completions(false);
        world.wait(Duration::from_secs(2));
        assert!(
            world.stack.port().counters().frames > posted,
            "seed {seed}: never repeated"
        );
        world.peer.acknowledge = true;
        world.wait(Duration::from_secs(4));
        world.assert_given_back("after a retransmission that was put off");
    }
}

#[test]
fn rule_3_a_retransmission_carries_the_bytes_of_the_send() {
    for seed in 0..10 {
        let mut world = World::new(seed, granule(4096), &Config::default());
        world.peer.lose = 2;
        world.send(1000, 4000);
        world.run(200);
        assert!(
            Arc::get_mut(&mut world.bytes).is_none(),
            "seed {seed}: writable while lent"
        );
        world.wait(Duration::from_secs(3));
        let expected = world.bytes.bytes()[1000..5000].to_vec();
        assert_eq!(world.peer.data, expected, "seed {seed}");
        assert!(
            world.peer.seen.len() > 3,
            "seed {seed}: something was repeated"
        );
        let first = world.peer.seen.iter().map(|s| s.seq).min().unwrap();
        for segment in &world.peer.seen {
            let at = segment.seq.wrapping_sub(first) as usize;
            assert_eq!(
                segment.payload,
                expected[at..at + segment.payload.len()],
                "seed {seed}"
            );
        }
        world.assert_given_back("after retransmissions");
    }
}

#[test]
fn rule_5_sharing_needs_gather_not_checksum_offload() {
    for seed in 0..5 {
        let mut config = Config::default();
        config.checksum_offload = false;
        let mut world = World::new(seed, granule(4096), &config);
        world.send(33, 40_001);
        world.run(3000);
        let stats = world
            .stack
            .connection_stats(world.connection)
            .unwrap()
            .clone();
        assert_eq!(stats.shared_bytes, 40_001, "seed {seed}");
        assert_eq!(stats.checksums.tcp_device, 0, "seed {seed}");
        // The peer has verified each checksum.
        assert_eq!(
            world.peer.data,
            world.bytes.bytes()[33..40_034],
            "seed {seed}"
        );
        world.assert_given_back("without checksum offload");
    }
}

#[test]
fn rule_6_given_back_after_rst_abort_timeout_and_removal() {
    for seed in 0..10 {
        for (end, expected) in [
            ("reset by the peer", Some(ConnectionError::Reset)),
            ("abort", Some(ConnectionError::Aborted)),
            ("timeout", Some(ConnectionError::TimedOut)),
            ("removal", None),
        ] {
            for held in [false, true] {
                let mut world = World::new(seed, granule(4096), &Config::default());
                world.peer.acknowledge = false;
                world.hold_completions(held);
                world.send(100, 20_000);
                world.run(400);
                assert!(world.pinned() > 0);
                let now = world.lab.host.now();
                match end {
                    "reset by the peer" => {
                        let rst = world.peer.rst();
                        world.lab.deliver(&rst);
                    }
                    "abort" => world.stack.abort(now, world.connection),
                    "removal" => world.stack.remove(now, world.connection),
                    _ => {
                        world.hold_completions(false);
                        world.wait(Duration::from_secs(120));
                        world.hold_completions(held);
                    }
                }
                world.run(400);
                assert_eq!(
                    world.stack.error(world.connection),
                    expected,
                    "seed {seed} {end}"
                );
                if held && end != "timeout" {
                    assert!(
                        world.pinned() > 0,
                        "seed {seed} {end}: the device is not done"
                    );
                }
                world.hold_completions(false);
                world.run(1500);
                world.assert_given_back(end);
            }
        }
    }
}

#[test]
fn rule_6_given_back_in_every_state() {
    for seed in 0..3 {
        for state in [
            "SynSent",
            "Established",
            "FinWait1",
            "FinWait2",
            "CloseWait",
            "LastAck",
        ] {
            let deaf = state == "SynSent";
            let mut peer = Peer::new();
            peer.deaf = deaf;
            let mut world = World::with_peer(seed, granule(4096), &Config::default(), peer);
            let now = world.lab.host.now();
            if deaf {
                let slice = Slice {
                    region: world.region,
                    start: 0,
                    len: 3000,
                };
                // Accepted before the handshake or not: nothing may stay behind.
                let _ = world.stack.send(world.connection, &[slice], 1);
            } else {
                world.peer.acknowledge = state == "FinWait2";
                world.send(0, 3000);
            }
            if matches!(state, "CloseWait" | "LastAck") {
                let fin = world.peer.fin();
                world.lab.deliver(&fin);
                world.run(300);
            }
            if matches!(state, "FinWait1" | "FinWait2" | "LastAck") {
                world.stack.close(now, world.connection);
            }
            world.run(600);
            let seen = format!("{:?}", world.stack.state(world.connection).unwrap());
            assert_eq!(seen, state, "seed {seed}");
            let now = world.lab.host.now();
            world.stack.remove(now, world.connection);
            world.run(1500);
            assert_eq!(world.stack.state(world.connection), None::<State>);
            world.assert_given_back(state);
        }
    }
}

#[test]
fn rule_6_a_device_reset_loses_no_page_and_no_byte() {
    for seed in 0..10 {
        let mut world = World::new(seed, granule(4096), &Config::default());
        world.hold_completions(true);
        world.send(0, 60_000);
        world.run(20 + seed as u32 * 5);
        world.hold_completions(false);
        assert!(world.lab.quiesce(), "seed {seed}");
        let pair = PortPair {
            tx: world.stack.port_mut(),
            rx: &mut world.lab.rx,
        };
        pagewire::hal::restart(&mut world.lab.nic, &mut [pair]).unwrap();
        assert_eq!(world.stack.port().outstanding(), 0, "seed {seed}");
        world.wait(Duration::from_secs(20));
        assert_eq!(
            world.peer.data,
            world.bytes.bytes()[..60_000],
            "seed {seed}"
        );
        world.assert_given_back("after a device reset");
    }
}

#[test]
fn rule_6_dropping_the_sender_gives_everything_back() {
    for seed in 0..5 {
        let mut world = World::new(seed, granule(4096), &Config::default());
        world.peer.acknowledge = false;
        world.send(0, 10_000);
        world.run(1500);
        assert_eq!(world.stack.port().outstanding(), 0, "seed {seed}");
        let World { stack, bytes, .. } = world;
        drop(stack);
        assert!(
            Arc::into_inner(bytes).is_some(),
            "seed {seed}: the region is still held"
        );

        // With frames in the ring, the device may still read: leaked, not freed.
        let mut world = World::new(seed, granule(4096), &Config::default());
        world.hold_completions(true);
        world.send(0, 10_000);
        world.run(100);
        let World {
            stack, bytes, lab, ..
        } = world;
        let weak = Arc::downgrade(&bytes);
        drop((stack, bytes));
        assert!(
            weak.upgrade().is_some(),
            "seed {seed}: freed under the device"
        );
        lab.run(1000);
        lab.assert_clean();
    }
}

/// With a longest timeout of zero all tries of a connection would be over at once.
#[test]
fn timeouts_that_cannot_work_are_refused() {
    let second = Duration::from_secs(1);
    for (min_rto, max_rto) in [(Duration::ZERO, Duration::ZERO), (second * 2, second)] {
        let (mut lab, tx) = Lab::new(1, granule(4096), &Config::default());
        let port = TxPort::new(&mut lab.nic, tx, &common::layout()).unwrap();
        let config = StackConfig {
            min_rto,
            max_rto,
            address: Ipv4Addr::new(10, 0, 0, 1),
            ..StackConfig::default()
        };
        assert_eq!(Stack::new(port, config).err(), Some(StackError::Timeouts));
    }
}
