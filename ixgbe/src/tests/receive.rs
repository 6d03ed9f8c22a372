//! The receive queue: delivery, errors, hostile write-backs, refill.

use pagewire_hal::{
    ChecksumOffload, HashInput, Nic, QueueError, RxChecksum, RxHash, RxQueue, Verdict,
};
use std::vec;
use std::vec::Vec;

use super::{open, open_with};
use crate::fake::{Fake, KX4, Play, X540T, with_id};
use crate::{Config, Ixgbe, IxgbeRx, regs};

const DD: u32 = 1 << 0;
const EOP: u32 = 1 << 1;
const L4CS: u32 = 1 << 5;
const IPCS: u32 = 1 << 6;
const RXE: u32 = 1 << 29;
const L4E: u32 = 1 << 30;
const IPE: u32 = 1 << 31;
/// Types of packets.
const IPV4: u16 = 1 << 4;
const IPV6: u16 = 1 << 6;
const TCP: u16 = 1 << 8;
const UDP: u16 = 1 << 9;

fn frame(fill: u8, len: usize) -> Vec<u8> {
    vec![fill; len]
}

fn receive(rx: &mut IxgbeRx<Fake>, budget: usize) -> Vec<(Vec<u8>, RxChecksum)> {
    let mut frames = Vec::new();
    let count = rx.receive(budget, &mut |frame| {
        let mut bytes = vec![0; frame.len()];
        frame.copy_to(&mut bytes);
        frames.push((bytes, frame.checksum()));
    });
    assert_eq!(count, Ok(frames.len()));
    frames
}

#[test]
fn frames_arrive_in_order_and_their_buffers_go_back_with_one_tail_write() {
    let (fake, _nic, _tx, mut rx) = open();
    assert_eq!(fake.device().get(regs::RDT.0), 511);
    assert!(receive(&mut rx, 10).is_empty());
    for n in 0..5 {
        assert!(fake.deliver(
            0,
            &frame(n, 60 + usize::from(n)),
            60 + u16::from(n),
            DD | EOP,
            0
        ));
    }
    let writes = fake.device().log.len();
    let frames = receive(&mut rx, 3);
    assert_eq!(frames.len(), 3, "the budget");
    assert_eq!(fake.device().log.len(), writes + 1);
    assert_eq!(fake.device().get(regs::RDT.0), 2);
    let rest = receive(&mut rx, 100);
    assert_eq!(fake.device().get(regs::RDT.0), 4);
    for (n, (bytes, _)) in (0u8..).zip(frames.iter().chain(&rest)) {
        assert_eq!(*bytes, frame(n, 60 + usize::from(n)));
    }
    assert_eq!(rx.counters().delivered, 5);
}

#[test]
fn the_ring_can_be_gone_round_many_times() {
    let config = Config {
        rx_descriptors: 8,
        ..Config::default()
    };
    let (fake, _nic, _tx, mut rx) = open_with(&config);
    for round in 0u8..50 {
        let mut sent = 0;
        while fake.deliver(0, &frame(round, 64), 64, DD | EOP, 0) {
            sent += 1;
        }
        assert_eq!(
            sent, 7,
            "all descriptors but one are the device's, round {round}"
        );
        let frames = receive(&mut rx, 100);
        assert_eq!(frames.len(), 7, "round {round}");
        assert!(frames.iter().all(|(bytes, _)| *bytes == frame(round, 64)));
    }
}

#[test]
fn verdicts_are_given_only_where_the_device_looked() {
    use Verdict::{Bad, Good, Unknown};
    // Status, type of packet, then what is said of the IPv4 header, and of the transport by an
    // 82599 and by an X540.
    let cases = [
        (0, 0, Unknown, Unknown, Unknown),
        (IPCS, IPV4, Good, Unknown, Unknown),
        (IPCS | L4CS, IPV4 | TCP, Good, Good, Good),
        (IPCS | L4CS | L4E, IPV4 | TCP, Good, Bad, Bad),
        (IPCS | L4CS, IPV4 | UDP, Good, Good, Good),
        // Perhaps it has none.
        (IPCS | L4CS | L4E, IPV4 | UDP, Good, Unknown, Bad),
        (L4CS | L4E, IPV6 | UDP, Unknown, Bad, Bad),
        (IPCS | L4CS | IPE, IPV4 | TCP, Bad, Good, Good),
        // Perhaps a fragment, of which the device may say so wrongly.
        (IPCS | IPE, IPV4, Unknown, Unknown, Unknown),
        (L4CS, IPV6 | TCP, Unknown, Good, Good),
        (IPE | L4E, IPV4 | TCP, Unknown, Unknown, Unknown),
    ];
    for (id, is_82599) in [(KX4, true), (X540T, false)] {
        let fake = with_id(id);
        let mut nic = Ixgbe::open(fake.clone(), &Config::default()).expect("opens");
        let offered = nic.capabilities().rx_checksum;
        assert_ne!(offered.contains(ChecksumOffload::UDP_IPV4), is_82599);
        let (_tx, mut rx) = nic.take_queues(0).expect("a pair");
        for (status, packet, ipv4_header, by_82599, by_x540) in cases {
            assert!(fake.deliver(0, &frame(1, 60), 60, DD | EOP | status, packet));
            let frames = receive(&mut rx, 1);
            let expected = RxChecksum {
                ipv4_header,
                transport: if is_82599 { by_82599 } else { by_x540 },
            };
            assert_eq!(frames[0].1, expected, "{id:#x}: {status:#x} of {packet:#x}");
        }
    }
}

#[test]
fn damaged_frames_are_counted_and_dropped() {
    let (fake, _nic, _tx, mut rx) = open();
    for error in [RXE; 5] {
        assert!(fake.deliver(0, &frame(0, 60), 60, DD | EOP | error, 0));
    }
    assert!(fake.deliver(0, &frame(9, 60), 60, DD | EOP, 0));
    let frames = receive(&mut rx, 1);
    assert_eq!(frames[0].0, frame(9, 60));
    assert_eq!(rx.counters().damaged, 5);
    assert_eq!(rx.counters().delivered, 1);
    assert_eq!(fake.device().get(regs::RDT.0), 5, "their buffers went back");
}

#[test]
fn a_frame_over_several_buffers_is_counted_once_and_dropped() {
    let (fake, _nic, _tx, mut rx) = open();
    assert!(fake.deliver(0, &frame(0, 2048), 2048, DD, 0));
    assert!(fake.deliver(0, &frame(0, 2048), 2048, DD, 0));
    assert!(receive(&mut rx, 10).is_empty(), "its end has not come yet");
    assert!(fake.deliver(0, &frame(0, 100), 100, DD | EOP, 0));
    assert!(fake.deliver(0, &frame(5, 60), 60, DD | EOP, 0));
    let frames = receive(&mut rx, 10);
    assert_eq!(frames.len(), 1);
    assert_eq!(frames[0].0, frame(5, 60));
    assert_eq!(rx.counters().too_long, 1);
}

#[test]
fn rule_7_hostile_lengths_are_counted_and_never_followed() {
    let (fake, _nic, _tx, mut rx) = open();
    for len in [0, 1, 13, 2049, 0x7FFF, u16::MAX] {
        assert!(fake.deliver(0, &[], len, DD | EOP, 0));
    }
    assert!(receive(&mut rx, 10).is_empty());
    assert_eq!(rx.counters().nonsense, 6);
    assert!(fake.deliver(0, &frame(1, 2048), 2048, DD | EOP, 0));
    assert_eq!(
        receive(&mut rx, 10)[0].0.len(),
        2048,
        "the whole buffer is fine"
    );
}

#[test]
fn rule_7_a_device_that_fills_what_it_does_not_have_cannot_hold_the_caller() {
    let config = Config {
        rx_descriptors: 8,
        ..Config::default()
    };
    let (fake, _nic, _tx, mut rx) = open_with(&config);
    let mut count = 0;
    let result = rx.receive(usize::MAX, &mut |_| {
        count += 1;
        assert!(count < 100, "the caller is held for ever");
    });
    assert_eq!(result, Ok(0));
    // The device ignores its tail: each frame that is looked at is followed by another one.
    for _ in 0..7 {
        assert!(fake.deliver(0, &frame(0, 60), 60, DD | EOP, 0));
    }
    let result = rx.receive(usize::MAX, &mut |_| {
        count += 1;
        assert!(count < 100, "the caller is held for ever");
        let mut device = fake.device();
        let beyond = (device.get(regs::RDH.0) + 1) % 8;
        device.set(regs::RDT.0, beyond);
        drop(device);
        fake.deliver(0, &frame(0, 60), 60, DD | EOP, 0);
    });
    assert_eq!(result, Ok(7));
}

#[test]
fn buffers_have_the_size_that_the_mtu_needs() {
    let cases = [
        (576, 2, false),
        (1500, 2, false),
        (1501, 2, true),
        (4000, 4, true),
        (8000, 8, true),
        (9710, 16, true),
    ];
    for (mtu, kilobytes, long) in cases {
        let config = Config {
            mtu,
            rx_descriptors: 8,
            ..Config::default()
        };
        let (fake, _nic, _tx, mut rx) = open_with(&config);
        let format = fake.device().get(regs::SRRCTL.0);
        assert_eq!(format, 0x0200_0400 | kilobytes, "mtu {mtu}");
        let core = fake.device().get(regs::HLREG0.0);
        assert_eq!(core & 1 << 2 != 0, long, "long frames for mtu {mtu}");
        assert_eq!(
            core & 1 << 1,
            1 << 1,
            "the frame check sequence is stripped"
        );
        let longest = fake.device().get(regs::MAXFRS.0) >> 16;
        assert_eq!(longest, u32::from(mtu) + 18);
        let distance = rx.buffer_address(1).0 - rx.buffer_address(0).0;
        assert_eq!(distance, u64::from(kilobytes) << 10, "mtu {mtu}");
        let len = mtu + 18;
        assert!(fake.deliver(0, &frame(3, usize::from(len)), len, DD | EOP, 0));
        assert_eq!(
            receive(&mut rx, 1)[0].0.len(),
            usize::from(len),
            "mtu {mtu}"
        );
    }
}

#[test]
fn a_stopped_queue_says_so() {
    let (_fake, _nic, _tx, mut rx) = open();
    pagewire_hal::driver::ReceiveHalf::stop(&mut rx);
    assert_eq!(rx.receive(1, &mut |_| {}), Err(QueueError::Down));
}

#[test]
fn the_hash_is_handed_over_where_it_was_asked_for() {
    let (fake, _nic, _tx, mut rx) = open();
    for kind in 0..16 {
        assert!(fake.deliver(0, &frame(1, 60), 60, DD | EOP, IPV4 | TCP | kind));
    }
    let mut found = Vec::new();
    let count = rx.receive(100, &mut |frame| found.push(frame.hash()));
    assert_eq!(count, Ok(16));
    for (kind, hash) in (0..).zip(found) {
        let input = match kind {
            1 | 3 => HashInput::AddressesAndPorts,
            2 | 5 => HashInput::Addresses,
            _ => {
                assert_eq!(hash, None, "kind {kind}");
                continue;
            }
        };
        let value = 0xAABB_CCDD;
        assert_eq!(hash, Some(RxHash { value, input }), "kind {kind}");
    }
}
