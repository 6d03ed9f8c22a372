//! The receive queue: delivery, errors, hostile write-backs, refill.

use pagewire_hal::{QueueError, RxChecksum, RxQueue, Verdict};
use std::vec;
use std::vec::Vec;

use super::{open, open_with};
use crate::fake::{Fake, Play};
use crate::{Config, E1000eRx, regs};

const DD: u16 = 0x01;
const EOP: u16 = 0x02;
const IXSM: u16 = 0x04;
const UDPCS: u16 = 0x10;
const TCPCS: u16 = 0x20;
const IPCS: u16 = 0x40;
const TCPE: u16 = 0x2000;
const IPE: u16 = 0x4000;

fn frame(fill: u8, len: usize) -> Vec<u8> {
    vec![fill; len]
}

fn receive(rx: &mut E1000eRx<Fake>, budget: usize) -> Vec<(Vec<u8>, RxChecksum)> {
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
    assert_eq!(fake.device().get(regs::RDT.0), 255);
    assert!(receive(&mut rx, 10).is_empty());
    for n in 0..5 {
        assert!(fake.deliver(&frame(n, 60 + usize::from(n)), 60 + u16::from(n), DD | EOP));
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
        while fake.deliver(&frame(round, 64), 64, DD | EOP) {
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
    let (fake, _nic, _tx, mut rx) = open();
    use Verdict::{Bad, Good, Unknown};
    let cases = [
        (0, Unknown, Unknown),
        (IPCS, Good, Unknown),
        (IPCS | TCPCS, Good, Good),
        (IPCS | TCPCS | UDPCS, Good, Good),
        (IPCS | TCPCS | TCPE, Good, Bad),
        (IPCS | IPE, Bad, Unknown),
        (TCPCS, Unknown, Good),
        // A fragment of UDP: the device has a partial sum only.
        (IPCS | UDPCS, Good, Unknown),
        (IPCS | TCPCS | IXSM, Unknown, Unknown),
        (IPE | TCPE, Unknown, Unknown),
    ];
    for (status, ipv4_header, transport) in cases {
        assert!(fake.deliver(&frame(1, 60), 60, DD | EOP | status));
        let frames = receive(&mut rx, 1);
        let expected = RxChecksum {
            ipv4_header,
            transport,
        };
        assert_eq!(frames[0].1, expected, "status {status:#06x}");
    }
}

#[test]
fn damaged_frames_are_counted_and_dropped() {
    let (fake, _nic, _tx, mut rx) = open();
    for error in [0x01u16, 0x02, 0x04, 0x10, 0x80] {
        assert!(fake.deliver(&frame(0, 60), 60, DD | EOP | error << 8));
    }
    assert!(fake.deliver(&frame(9, 60), 60, DD | EOP));
    let frames = receive(&mut rx, 1);
    assert_eq!(frames[0].0, frame(9, 60));
    assert_eq!(rx.counters().damaged, 5);
    assert_eq!(rx.counters().delivered, 1);
    assert_eq!(fake.device().get(regs::RDT.0), 5, "their buffers went back");
}

#[test]
fn a_frame_over_several_buffers_is_counted_once_and_dropped() {
    let (fake, _nic, _tx, mut rx) = open();
    assert!(fake.deliver(&frame(0, 2048), 2048, DD));
    assert!(fake.deliver(&frame(0, 2048), 2048, DD));
    assert!(receive(&mut rx, 10).is_empty(), "its end has not come yet");
    assert!(fake.deliver(&frame(0, 100), 100, DD | EOP));
    assert!(fake.deliver(&frame(5, 60), 60, DD | EOP));
    let frames = receive(&mut rx, 10);
    assert_eq!(frames.len(), 1);
    assert_eq!(frames[0].0, frame(5, 60));
    assert_eq!(rx.counters().too_long, 1);
}

#[test]
fn rule_7_hostile_lengths_are_counted_and_never_followed() {
    let (fake, _nic, _tx, mut rx) = open();
    for len in [0, 1, 13, 2049, 0x7FFF, u16::MAX] {
        assert!(fake.deliver(&[], len, DD | EOP));
    }
    assert!(receive(&mut rx, 10).is_empty());
    assert_eq!(rx.counters().nonsense, 6);
    assert!(fake.deliver(&frame(1, 2048), 2048, DD | EOP));
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
        assert!(fake.deliver(&frame(0, 60), 60, DD | EOP));
    }
    let result = rx.receive(usize::MAX, &mut |_| {
        count += 1;
        assert!(count < 100, "the caller is held for ever");
        let mut device = fake.device();
        let beyond = (device.get(regs::RDH.0) + 1) % 8;
        device.set(regs::RDT.0, beyond);
        drop(device);
        fake.deliver(&frame(0, 60), 60, DD | EOP);
    });
    assert_eq!(result, Ok(7));
}

#[test]
fn buffers_have_the_size_that_the_mtu_needs() {
    let cases = [
        (68, 2048, 0x0000_0000, false),
        (1500, 2048, 0x0000_0000, false),
        (1501, 2048, 0x0000_0000, true),
        (4000, 4096, 0x0203_0000, true),
        (8000, 8192, 0x0202_0000, true),
        (9000, 16384, 0x0201_0000, true),
    ];
    for (mtu, size, bits, long) in cases {
        let config = Config {
            mtu,
            rx_descriptors: 8,
            ..Config::default()
        };
        let (fake, _nic, _tx, mut rx) = open_with(&config);
        let control = fake.device().get(regs::RCTL.0);
        assert_eq!(control & 0x0203_0000, bits, "buffer size for mtu {mtu}");
        assert_eq!(control & 1 << 5 != 0, long, "long frames for mtu {mtu}");
        assert_ne!(control & 1 << 26, 0, "the frame check sequence is stripped");
        let distance = rx.buffer_address(1).0 - rx.buffer_address(0).0;
        assert_eq!(distance, size, "mtu {mtu}");
        let len = mtu + 18;
        assert!(fake.deliver(&frame(3, usize::from(len)), len, DD | EOP));
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
