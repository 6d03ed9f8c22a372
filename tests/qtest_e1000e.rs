//! The e1000e driver on QEMU's own e1000e, without a guest: a device that nobody here wrote.
//!
//! Needs QEMU (`tests/lab/get-qemu`, or `PAGEWIRE_QEMU`). Without it these tests pass with a line
//! that says so; where the environment has `CI`, they fail, unless it says `PAGEWIRE_QEMU=none`.
#![cfg(target_os = "linux")]
// A test may panic: that is how it fails.
#![allow(clippy::unwrap_used)]

mod common;
mod qtest;

use std::sync::Arc;
use std::time::{Duration, Instant as RealInstant};

use common::packets::Kind;
use pagewire::e1000e::{Config, E1000e, E1000eRx, E1000eTx};
use pagewire::hal::{
    Causes, ChecksumOffload, Granule, Loan, Nic, NicError, Offload, Phase, PortPair, QueueError,
    Region, RegionId, RxQueue, TxPort, Verdict,
};
use pagewire_models::Wire;
use pagewire_models::qtest::{Qtest, QtestMemory, QtestPlatform, QtestWire};

use qtest::{MAC, SOON, options};

type Port = TxPort<E1000eTx<QtestPlatform>, QtestMemory>;

/// The driver on QEMU's device, and the far end of its wire.
struct Bench {
    nic: E1000e<QtestPlatform>,
    port: Port,
    rx: E1000eRx<QtestPlatform>,
    wire: QtestWire,
    // Last: QEMU ends when the test does.
    qtest: Qtest,
}

impl Bench {
    fn start(granule: Granule, config: &Config) -> Option<Self> {
        let mut options = options()?;
        options.granule = granule;
        let mut qtest = Qtest::start(&options).unwrap();
        let platform = qtest.take_platform().unwrap();
        let mut nic = E1000e::open(platform, config).unwrap();
        let (tx, rx) = nic.take_queues(0).unwrap();
        let port = TxPort::new(&mut nic, tx, &common::layout()).unwrap();
        let wire = qtest.take_wire().unwrap();
        let mut bench = Self {
            nic,
            port,
            rx,
            wire,
            qtest,
        };
        bench.until("the link is up", |bench| bench.nic.link().up);
        Some(bench)
    }

    fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let start = RealInstant::now();
        while !done(self) {
            assert!(start.elapsed() < SOON, "{what}: not after {SOON:?}");
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    fn register(&mut self, bytes: Vec<u8>) -> (Loan, RegionId) {
        let len = bytes.len();
        let region = self.qtest.register(bytes).unwrap() as Arc<dyn Region>;
        let id = self.port.ledger_mut().register(region).unwrap();
        (self.port.ledger_mut().lend(id, 0, len).unwrap(), id)
    }

    /// Sends the first `header` bytes of `frame` from a buffer, the rest from `pieces` of a
    /// region; returns what has arrived on the wire.
    fn send(
        &mut self,
        frame: &[u8],
        loan: &Loan,
        pieces: &[(usize, usize)],
        offload: Offload,
    ) -> Vec<u8> {
        let header = frame.len() - pieces.iter().map(|(_, len)| len).sum::<usize>();
        let mut buffer = self.port.buffer(header).unwrap();
        self.port.bytes_mut(&mut buffer)[..header].copy_from_slice(&frame[..header]);
        let mut builder = self.port.frame(buffer, header);
        for (start, len) in pieces {
            builder.attach(loan, *start, *len);
        }
        builder.post(offload).unwrap();
        self.port.doorbell();
        self.until("the frame completes", |bench| {
            bench.port.reclaim(&mut |_| {}).unwrap() == 1
        });
        self.arrived()
    }

    fn arrived(&mut self) -> Vec<u8> {
        assert!(self.wire.wait(SOON), "no frame on the wire");
        let mut frame = Vec::new();
        assert!(self.wire.receive(&mut frame, self.qtest.now()));
        frame
    }

    fn deliver(&mut self, frame: &[u8]) {
        self.wire.transmit(&mut frame.to_vec(), self.qtest.now());
    }

    /// The next received frame and what the device says of its checksums.
    fn received(&mut self) -> (Vec<u8>, pagewire::hal::RxChecksum) {
        let mut got = None;
        self.until("a frame is received", |bench| {
            let taken = bench.rx.receive(1, &mut |frame| {
                let mut bytes = vec![0; frame.len()];
                frame.copy_to(&mut bytes);
                got = Some((bytes, frame.checksum()));
            });
            taken.unwrap() == 1
        });
        got.unwrap()
    }

    /// Waits until `cause` has interrupted; returns all causes until then, and how often there
    /// were any.
    fn interrupted(&mut self, cause: Causes) -> (Causes, u32) {
        let mut causes = Causes::empty();
        let mut count = 0;
        self.until("an interrupt", |bench| {
            let taken = bench.nic.take_interrupts();
            count += u32::from(!taken.is_empty());
            causes |= taken;
            causes.contains(cause)
        });
        (causes, count)
    }

    fn quiesce(&mut self) {
        self.nic.begin_reset(self.qtest.now());
        self.until("the device is quiet", |bench| {
            let phase = bench.nic.poll(bench.qtest.now()).unwrap();
            assert!(matches!(phase, Phase::Stopping | Phase::Quiet), "{phase:?}");
            phase == Phase::Quiet
        });
    }

    fn restart(&mut self) {
        self.quiesce();
        let pair = PortPair {
            tx: &mut self.port,
            rx: &mut self.rx,
        };
        pagewire::hal::restart(&mut self.nic, &mut [pair]).unwrap();
        self.until("the link is up", |bench| bench.nic.link().up);
    }

    /// Stops the device; all memory but the driver's own is back then.
    fn finish(mut self) {
        self.quiesce();
        let pair = PortPair {
            tx: &mut self.port,
            rx: &mut self.rx,
        };
        pagewire::hal::release(&mut self.nic, &mut [pair]).unwrap();
        assert_eq!(self.port.outstanding(), 0);
        let before = self.qtest.free_memory();
        drop(self.port);
        drop(self.rx);
        assert!(
            self.qtest.free_memory() > before,
            "rings and buffers were not freed"
        );
    }
}

fn pages() -> Granule {
    common::granule(4096)
}

fn every_kind() -> impl Iterator<Item = Kind> {
    let options = [(false, 0), (false, 12), (true, 0)];
    options
        .into_iter()
        .flat_map(|(ipv6, options)| [false, true].map(|tcp| Kind { ipv6, tcp, options }))
}

fn offload(kind: Kind) -> Offload {
    let checksum = match (kind.ipv6, kind.tcp) {
        (false, true) => ChecksumOffload::IPV4_HEADER | ChecksumOffload::TCP_IPV4,
        (false, false) => ChecksumOffload::IPV4_HEADER | ChecksumOffload::UDP_IPV4,
        (true, true) => ChecksumOffload::TCP_IPV6,
        (true, false) => ChecksumOffload::UDP_IPV6,
    };
    Offload {
        checksum,
        l2_len: 14,
        l3_len: kind.network_len() as u16,
        ..Offload::NONE
    }
}

#[test]
fn it_opens_with_its_address_and_a_link() {
    let Some(mut bench) = Bench::start(pages(), &Config::default()) else {
        return;
    };
    assert_eq!(bench.nic.mac_address(), MAC);
    assert!(bench.nic.name().contains("82574"), "{}", bench.nic.name());
    let link = bench.nic.link();
    assert!(
        link.up && link.full_duplex && link.speed_mbps == 1000,
        "{link:?}"
    );
    assert_eq!(bench.port.max_fragments(), 64);
    bench.finish();
}

#[test]
fn the_cable_goes_out_and_in() {
    let Some(mut bench) = Bench::start(pages(), &Config::default()) else {
        return;
    };
    bench.qtest.set_link(false).unwrap();
    assert!(!bench.wire.carrier());
    bench.until("the link is down", |bench| !bench.nic.link().up);
    bench.qtest.set_link(true).unwrap();
    assert!(bench.wire.carrier());
    bench.until("the link is up again", |bench| bench.nic.link().up);
    let (loan, _) = bench.register(vec![7; 4096]);
    let frame = Kind {
        ipv6: false,
        tcp: true,
        options: 0,
    }
    .frame(&[7; 100]);
    assert_eq!(bench.send(&frame, &loan, &[(0, 100)], Offload::NONE), frame);
    bench.port.ledger_mut().give_back(loan);
    bench.finish();
}

#[test]
fn one_to_64_fragments_arrive_byte_for_byte_with_checksums() {
    let Some(mut bench) = Bench::start(pages(), &Config::default()) else {
        return;
    };
    let mut random = fastrand::Rng::with_seed(64);
    let mut payload = vec![0; 256 << 10];
    random.fill(&mut payload);
    let (loan, _) = bench.register(payload.clone());
    let mut frames = 0;
    let mut bytes = 0;
    for fragments in 1..=64 {
        for kind in every_kind() {
            // One fragment is the header, or all of the frame. Pieces lie within a page each,
            // and no two are neighbours.
            let room = 1500 + 14 - kind.header_len();
            let mut pieces = Vec::new();
            let mut data = Vec::new();
            for index in 0..fragments - 1 {
                let len = random.usize(1..=(room / 63).min(4096));
                let page = index * 4096;
                let start = page + random.usize(..4096 - len);
                pieces.push((start, len));
                data.extend_from_slice(&payload[start..start + len]);
            }
            // The lead of the region may put a page end inside a piece, which is one more.
            let whole = pieces.iter().map(|(start, len)| {
                bench
                    .port
                    .ledger()
                    .runs(&loan, *start, *len)
                    .unwrap()
                    .count()
            });
            if whole.sum::<usize>() + 1 > 64 {
                pieces.pop();
                data.truncate(pieces.iter().map(|(_, len)| len).sum());
            }
            if fragments == 1 {
                data = payload[..random.usize(..room.min(100))].to_vec();
            }
            let sent = kind.seeded(&data);
            // QEMU pads nothing on transmit: a short frame arrives as short as it was.
            let expected = kind.frame(&data);
            let arrived = bench.send(&sent, &loan, &pieces, offload(kind));
            assert_eq!(
                arrived, expected,
                "{fragments} fragments, {kind:?}, {pieces:?}"
            );
            frames += 1;
            bytes += expected.len() as u64 + 4;
        }
    }
    for (count, frames) in bench.port.counters().by_fragments.iter().enumerate() {
        assert_eq!(*frames > 0, (1..=64).contains(&count), "{count} fragments");
    }
    let statistics = bench.nic.statistics();
    assert_eq!((statistics.tx_frames, statistics.tx_bytes), (frames, bytes));
    bench.port.ledger_mut().give_back(loan);
    bench.finish();
}

#[test]
fn jumbo_frames_arrive_on_both_ways() {
    let mut config = Config::default();
    config.mtu = 9000;
    let Some(mut bench) = Bench::start(pages(), &config) else {
        return;
    };
    let payload: Vec<u8> = (0..16_384u32).map(|i| (i * 31 + i / 251) as u8).collect();
    let (loan, _) = bench.register(payload.clone());
    for kind in every_kind() {
        let len = 9014 - kind.header_len();
        let frame = kind.frame(&payload[100..100 + len]);
        let seeded = kind.seeded(&payload[100..100 + len]);
        assert_eq!(
            bench.send(&seeded, &loan, &[(100, len)], offload(kind)),
            frame,
            "{kind:?}"
        );
        let mut frame = frame;
        frame[..6].copy_from_slice(&MAC.0);
        bench.deliver(&frame);
        assert_eq!(bench.received().0, frame, "{kind:?}");
    }
    bench.port.ledger_mut().give_back(loan);
    bench.finish();
}

#[test]
fn what_is_received_is_whole_and_judged() {
    let Some(mut bench) = Bench::start(pages(), &Config::default()) else {
        return;
    };
    let mut random = fastrand::Rng::with_seed(5);
    let mut frames = 0;
    let mut bytes = 0;
    // More than twice round the ring of 256.
    for round in 0..120 {
        for kind in every_kind() {
            let mut payload = vec![0; random.usize(20..1400)];
            random.fill(&mut payload);
            let mut frame = kind.frame(&payload);
            frame[..6].copy_from_slice(&MAC.0);
            let bad = random.bool();
            if bad {
                *frame.last_mut().unwrap() ^= 0x55;
            }
            bench.deliver(&frame);
            let (received, checksum) = bench.received();
            assert_eq!(received, frame, "round {round}, {kind:?}");
            let transport = if bad { Verdict::Bad } else { Verdict::Good };
            assert_eq!(checksum.transport, transport, "round {round}, {kind:?}");
            let network = if kind.ipv6 {
                Verdict::Unknown
            } else {
                Verdict::Good
            };
            assert_eq!(checksum.ipv4_header, network, "round {round}, {kind:?}");
            frames += 1;
            bytes += frame.len() as u64 + 4;
        }
    }
    let statistics = bench.nic.statistics();
    assert_eq!((statistics.rx_frames, statistics.rx_bytes), (frames, bytes));
    assert_eq!(bench.rx.counters().delivered, frames);
    bench.finish();
}

#[test]
fn a_burst_beyond_the_ring_comes_in_order() {
    let mut config = Config::default();
    config.rx_descriptors = 64;
    let Some(mut bench) = Bench::start(pages(), &config) else {
        return;
    };
    let kind = Kind {
        ipv6: false,
        tcp: false,
        options: 0,
    };
    // QEMU takes no frame without a buffer for it; the socket holds some, the rest is dropped. Of those
    // for which there is a buffer each is sent until it is taken, as QEMU may have its turn late.
    let mut taken = Vec::new();
    let begin = RealInstant::now();
    for number in 0..200u8 {
        let mut frame = kind.frame(&[number; 100]);
        frame[..6].copy_from_slice(&MAC.0);
        let before = bench.wire.counters().transmitted;
        bench.deliver(&frame);
        while number < 63 && bench.wire.counters().transmitted == before && begin.elapsed() < SOON {
            std::thread::sleep(Duration::from_millis(1));
            bench.deliver(&frame);
        }
        if bench.wire.counters().transmitted > before {
            taken.push(number);
        }
    }
    assert!(taken.len() >= 63, "{taken:?}");
    for number in taken {
        let (frame, _) = bench.received();
        assert_eq!(frame[42..], [number; 100]);
    }
    bench.finish();
}

#[test]
fn interrupts_say_what_has_happened() {
    let Some(mut bench) = Bench::start(pages(), &Config::default()) else {
        return;
    };
    assert_eq!(bench.nic.enable_interrupts(), Ok(3));
    bench.nic.take_interrupts();
    let (loan, _) = bench.register(vec![1; 4096]);
    let frame = Kind {
        ipv6: false,
        tcp: false,
        options: 0,
    }
    .frame(&[1; 200]);
    let mut incoming = frame.clone();
    incoming[..6].copy_from_slice(&MAC.0);
    const ROUNDS: u32 = 20;
    let mut messages = 0;
    for round in 0..ROUNDS {
        bench.send(&frame, &loan, &[(0, 200)], Offload::NONE);
        let (causes, count) = bench.interrupted(Causes::TRANSMIT);
        messages += count;
        // QEMU was seen to send a second message for the same cause when its throttling timer
        // ends (EITR is 128 µs after a reset): so one of the frame before may come as well.
        assert!(
            (Causes::TRANSMIT | Causes::RECEIVE).contains(causes),
            "round {round}: {causes:?}"
        );
        bench.deliver(&incoming);
        let (causes, count) = bench.interrupted(Causes::RECEIVE);
        messages += count;
        assert!(
            (Causes::TRANSMIT | Causes::RECEIVE).contains(causes),
            "round {round}: {causes:?}"
        );
        bench.received();
    }
    assert!(
        messages <= 4 * ROUNDS,
        "{messages} messages for {} frames",
        2 * ROUNDS
    );
    bench.qtest.set_link(false).unwrap();
    bench.interrupted(Causes::LINK);
    bench.port.ledger_mut().give_back(loan);
    bench.finish();
}

#[test]
fn a_reset_gives_each_frame_back_once_and_it_goes_on() {
    let Some(mut bench) = Bench::start(Granule::CONTIGUOUS, &Config::default()) else {
        return;
    };
    assert_eq!(bench.nic.enable_interrupts(), Ok(3));
    let payload: Vec<u8> = (0..65_536u32).map(|i| (i / 97) as u8).collect();
    let (loan, _) = bench.register(payload.clone());
    let frame = Kind {
        ipv6: true,
        tcp: true,
        options: 0,
    }
    .frame(&payload[..1000]);
    let header = frame.len() - 1000;
    for round in 0..5 {
        // Some are handed to the device and some not yet; none is reclaimed before.
        for number in 0..10 {
            let mut buffer = bench.port.buffer(header).unwrap();
            bench.port.bytes_mut(&mut buffer)[..header].copy_from_slice(&frame[..header]);
            let mut builder = bench.port.frame(buffer, header);
            builder.attach(&loan, 0, 500).attach(&loan, 500, 500);
            builder.post(Offload::NONE).unwrap();
            if number == round {
                bench.port.doorbell();
            }
        }
        assert_eq!(bench.port.outstanding(), 10, "round {round}");
        bench.restart();
        assert_eq!(bench.port.outstanding(), 0, "round {round}");
        assert_eq!(bench.port.counters().stray_tokens, 0, "round {round}");
        assert_eq!(bench.port.ledger().counters().loans, 1, "round {round}");
        for _ in 0..=round {
            assert_eq!(bench.arrived(), frame, "round {round}");
        }
        assert_eq!(
            bench.send(&frame, &loan, &[(0, 1000)], Offload::NONE),
            frame
        );
        let mut incoming = frame.clone();
        incoming[..6].copy_from_slice(&MAC.0);
        bench.deliver(&incoming);
        assert_eq!(bench.received().0, incoming, "round {round}");
        bench.interrupted(Causes::RECEIVE | Causes::TRANSMIT);
    }
    bench.port.ledger_mut().give_back(loan);
    bench.finish();
}

#[test]
fn when_qemu_goes_the_device_is_removed() {
    let Some(mut bench) = Bench::start(pages(), &Config::default()) else {
        return;
    };
    let (loan, _) = bench.register(vec![1; 4096]);
    let mut buffer = bench.port.buffer(64).unwrap();
    bench.port.bytes_mut(&mut buffer)[..64].fill(1);
    bench.port.frame(buffer, 64).post(Offload::NONE).unwrap();
    assert!(bench.qtest.is_running());
    bench.qtest.kill();
    assert!(!bench.qtest.is_running());
    bench.port.doorbell();
    assert!(matches!(
        bench.port.reclaim(&mut |_| {}),
        Ok(0) | Err(QueueError::Removed)
    ));
    assert!(!bench.nic.link().up);
    assert_eq!(bench.nic.poll(bench.qtest.now()), Err(NicError::Removed));
    // The kernel may close a socket some time after its process has ended.
    bench.until("the wire refuses a frame", |bench| {
        bench.deliver(&[0; 60]);
        bench.wire.counters().errors > 0
    });
    assert!(bench.qtest.set_link(true).is_err());
    bench.port.ledger_mut().give_back(loan);
}
