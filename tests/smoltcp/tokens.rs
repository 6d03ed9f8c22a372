//! Tokens, buffers and doorbells, without a stack above.

use std::panic::{AssertUnwindSafe, catch_unwind};

use pagewire::hal::{Capabilities, Instant, Nic, NicError, Phase, QueueError, Segmentation};
use pagewire_drivers::smoltcp::{Config, PhyDevice};
use smoltcp::phy::{Device, RxToken, TxToken};
use smoltcp::time::Instant as SmoltcpInstant;

use super::server::Server;
use super::soft_nic::{Handle, SoftNic};
use super::{plan, talk};

const NOW: SmoltcpInstant = SmoltcpInstant::ZERO;

fn device(buffers: u16, ring: usize) -> (PhyDevice<SoftNic>, Handle) {
    let (nic, handle) = SoftNic::new(Capabilities::minimal(), ring);
    let mut config = Config::default();
    config.transmit_buffers = buffers;
    (PhyDevice::new(nic, &config).unwrap(), handle)
}

fn send(device: &mut impl Device, byte: u8) -> bool {
    let token = device.transmit(NOW);
    token
        .map(|token| token.consume(100, |frame| frame.fill(byte)))
        .is_some()
}

#[test]
fn a_token_that_is_dropped_costs_nothing() {
    let (mut device, handle) = device(4, 64);
    let before = device.port().vacant_buffers();
    for round in 0..10_000 {
        handle.lock().arriving.push_back(vec![1; 60]);
        let (received, transmit) = device.receive(NOW).unwrap();
        if round % 2 == 0 {
            drop((received, transmit));
        } else {
            received.consume(|frame| assert_eq!(frame, [1; 60]));
        }
        drop(device.transmit(NOW).unwrap());
        drop(device.burst().transmit(NOW).unwrap());
        assert_eq!(device.port().vacant_buffers(), before, "round {round}");
    }
    assert_eq!(device.port().counters().frames, 0);
    assert!(send(&mut device, 1));
    assert_eq!(handle.lock().sent.len(), 1);
}

#[test]
fn frames_come_once_in_order_and_those_that_are_too_long_do_not() {
    let (mut device, handle) = device(4, 64);
    // Batches are of 32.
    for number in 0..100 {
        let len = if number % 3 == 1 { 1519 } else { 1518 };
        handle.lock().arriving.push_back(vec![number; len]);
    }
    for number in (0..100).filter(|number| number % 3 != 1) {
        let (received, _) = device.receive(NOW).unwrap();
        received.consume(|frame| assert_eq!(frame, [number; 1518]));
    }
    assert!(device.receive(NOW).is_none());
    let counters = device.counters();
    assert_eq!((counters.received, counters.too_long), (67, 33));
}

#[test]
fn a_panic_of_the_stack_gives_the_buffer_back() {
    let (mut device, handle) = device(1, 64);
    for _ in 0..10 {
        let token = device.transmit(NOW).unwrap();
        let panics = || token.consume(100, |_| panic!("as smoltcp does on a bad length"));
        assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
    }
    assert!(send(&mut device, 1));
    assert_eq!(handle.lock().sent.len(), 1);
}

#[test]
fn what_does_not_fit_is_written_nowhere_and_counted() {
    let (mut device, handle) = device(2, 64);
    for len in [0, 13, 1515, 9000, 70_000] {
        let token = device.transmit(NOW).unwrap();
        let seen = token.consume(len, |frame| {
            frame.fill(0xaa);
            frame.len()
        });
        assert_eq!(seen, len);
    }
    assert_eq!(device.counters().transmit_lost, 5);
    assert_eq!(handle.lock().sent.len(), 0);
    for len in [14, 60, 1514] {
        let token = device.transmit(NOW).unwrap();
        token.consume(len, |frame| frame.fill(0xbb));
        let sent = handle.lock().sent.pop_front().unwrap();
        assert_eq!(sent, vec![0xbb; len]);
    }
    assert_eq!(device.counters().transmit_lost, 5);
}

#[test]
fn no_byte_of_an_earlier_frame_is_sent() {
    let mut capabilities = Capabilities::minimal();
    capabilities.min_frame_len = 60;
    let (nic, handle) = SoftNic::new(capabilities, 8);
    let mut config = Config::default();
    config.transmit_buffers = 1;
    let mut device = PhyDevice::new(nic, &config).unwrap();
    device
        .transmit(NOW)
        .unwrap()
        .consume(1514, |f| f.fill(0xee));
    // smoltcp writes nothing, or not all.
    device
        .transmit(NOW)
        .unwrap()
        .consume(40, |f| f[..20].fill(7));
    let mut expected = vec![7; 20];
    expected.resize(60, 0);
    let sent: Vec<_> = handle.lock().sent.drain(..).collect();
    assert_eq!(sent, [vec![0xee; 1514], expected]);
}

#[test]
fn a_doorbell_for_each_frame_or_one_for_a_burst() {
    let (mut device, handle) = device(32, 64);
    for frame in 1..=5 {
        assert!(send(&mut device, 1));
        assert_eq!(handle.lock().doorbells, frame);
    }
    let mut burst = device.burst();
    for _ in 0..20 {
        assert!(send(&mut burst, 2));
    }
    assert_eq!(handle.lock().sent.len(), 5, "before the end of the burst");
    drop(burst);
    assert_eq!(handle.lock().doorbells, 6);
    assert_eq!(handle.lock().sent.len(), 25);
    // A burst that is forgotten, or ends with a panic, leaves nothing behind for ever.
    let mut burst = device.burst();
    assert!(send(&mut burst, 3));
    std::mem::forget(burst);
    drop(device.burst());
    assert_eq!(handle.lock().sent.len(), 26);
    let panics = || {
        let mut burst = device.burst();
        send(&mut burst, 4);
        panic!("in the middle");
    };
    assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
    assert_eq!(handle.lock().sent.len(), 27);
    drop(device.burst());
    assert_eq!(handle.lock().doorbells, 8, "nothing new, no doorbell");
}

#[test]
fn without_room_there_is_no_token_and_later_there_is() {
    // First the buffers are short, then the ring.
    for (buffers, ring, most) in [(8, 64, 8), (64, 5, 5)] {
        let (mut device, handle) = device(buffers, ring);
        handle.lock().holds = true;
        let mut burst = device.burst();
        let mut sent = 0;
        while send(&mut burst, 1) {
            sent += 1;
        }
        assert_eq!(sent, most);
        // The device must see the frames: else none would ever complete.
        assert_eq!(handle.lock().sent.len(), most);
        handle.lock().arriving.push_back(vec![1; 60]);
        assert!(burst.receive(NOW).is_none(), "no room for an answer");
        handle.lock().holds = false;
        let (received, _) = burst.receive(NOW).unwrap();
        received.consume(|frame| assert_eq!(frame.len(), 60));
        assert!(send(&mut burst, 2));
        drop(burst);
        assert_eq!(device.outstanding(), 0);
        assert_eq!(device.port().vacant_buffers().0, usize::from(buffers));
    }
}

#[test]
fn a_request_to_segment_always_finds_a_buffer() {
    let mut capabilities = Capabilities::minimal();
    capabilities.tx_checksum = pagewire::hal::ChecksumOffload::all();
    capabilities.max_fragment_len = 1 << 16;
    let mut limits = Segmentation::new(60_000, 240);
    limits.ipv4 = true;
    capabilities.segmentation = Some(limits);
    let (nic, handle) = SoftNic::new(capabilities, 64);
    let mut config = Config::default();
    (config.transmit_buffers, config.segmentation_buffers) = (3, 2);
    let mut device = PhyDevice::new(nic, &config).unwrap();
    handle.lock().holds = true;
    // Short frames take long buffers when the short ones are out, but not all of them.
    let mut sent = 0;
    while send(&mut device, 1) {
        assert!(device.port().vacant_buffers().1 > 0 || sent == 4);
        sent += 1;
    }
    assert_eq!(sent, 5);
    // With one large buffer left there is a token, and it is large enough for anything.
    handle.lock().holds = false;
    assert!(device.transmit(NOW).is_some());
    let told = device.capabilities().segmentation.tcpv4.unwrap().get();
    assert_eq!(told, 54 + 60_000);
}

#[test]
fn a_reset_in_the_middle_of_it_loses_frames_and_no_buffer() {
    let (mut device, handle) = device(16, 64);
    handle.lock().holds = true;
    for round in 1..=4 {
        for _ in 0..7 {
            send(&mut device, round);
        }
        send(&mut device.burst(), round);
        assert_eq!(device.restart(), Err(NicError::WrongPhase));
        device.nic_mut().begin_reset(Instant::ZERO);
        while device.poll(Instant::ZERO).unwrap() != Phase::Quiet {}
        device.restart().unwrap();
        assert_eq!(device.outstanding(), 0, "round {round}");
        assert_eq!(device.port().vacant_buffers(), (16, 0), "round {round}");
        assert_eq!(device.port().counters().stray_tokens, 0, "round {round}");
    }
}

#[test]
fn shut_down_it_frees_everything() {
    let (mut device, handle) = device(16, 64);
    handle.lock().holds = true;
    for _ in 0..5 {
        send(&mut device, 1);
    }
    assert!(handle.lock().allocated > 16 * 1514);
    device.shut_down(|| Instant::ZERO).unwrap();
    assert_eq!(device.outstanding(), 0);
    assert!(device.transmit(NOW).is_some() || device.fault().is_some());
    drop(device);
    assert_eq!(handle.lock().allocated, 0);
}

#[test]
fn an_error_of_a_queue_is_told_and_a_reset_mends_it() {
    let (mut device, handle) = device(4, 64);
    handle.lock().down = true;
    assert!(device.receive(NOW).is_none());
    assert_eq!(device.fault(), Some(QueueError::Removed));
    assert!(send(&mut device, 1), "smoltcp hears nothing of it");
    assert_eq!(device.counters().transmit_lost, 1);
    assert_eq!(device.port().vacant_buffers().0, 4);
    device.nic_mut().begin_reset(Instant::ZERO);
    while device.poll(Instant::ZERO).unwrap() != Phase::Quiet {}
    device.restart().unwrap();
    assert_eq!(device.fault(), None);
    handle.lock().arriving.push_back(vec![9; 64]);
    assert!(device.receive(NOW).is_some());
    assert!(send(&mut device, 2));
    assert_eq!(handle.lock().sent.len(), 1);
}

#[test]
fn a_configuration_out_of_range_is_refused() {
    let config = |change: fn(&mut Config)| {
        let mut config = Config::default();
        change(&mut config);
        let (nic, _) = SoftNic::new(Capabilities::minimal(), 64);
        PhyDevice::new(nic, &config).err()
    };
    assert_eq!(config(|_| {}), None);
    let changes: [fn(&mut Config); 3] = [
        |c| c.transmit_buffers = 0,
        |c| c.receive_batch = 0,
        |c| c.max_burst = Some(0),
    ];
    for change in changes {
        assert!(matches!(config(change), Some(NicError::Config { .. })));
    }
    let mut short = Capabilities::minimal();
    short.max_frame_len = 589;
    let (nic, _) = SoftNic::new(short, 64);
    let refused = PhyDevice::new(nic, &Config::default()).err();
    assert!(matches!(refused, Some(NicError::Config { .. })));
    let (mut nic, _) = SoftNic::new(Capabilities::minimal(), 64);
    let taken = nic.take_queues(0);
    let refused = PhyDevice::new(nic, &Config::default()).err();
    assert!(matches!(refused, Some(NicError::Config { .. })));
    drop(taken);
}

#[test]
fn rubbish_from_the_wire_breaks_nothing() {
    let all = pagewire::hal::ChecksumOffload::all();
    for seed in 0..4 {
        // Frames of a real conversation, to begin with.
        let mut far_frames = Vec::new();
        let mut capabilities = super::capabilities(all, all);
        capabilities.max_fragments = 4;
        let (mut device, handle) = super::soft(capabilities, &Config::default());
        let mut server = Server::new(&mut device);
        for kind in [false, true] {
            for tcp in [false, true] {
                let kind = super::common::packets::Kind {
                    ipv6: kind,
                    tcp,
                    options: 0,
                };
                far_frames.push(kind.frame(&[0x5a; 64]));
            }
        }
        let mut random = fastrand::Rng::with_seed(seed);
        for round in 0..20_000u64 {
            let mut frame = far_frames[random.usize(..far_frames.len())].clone();
            frame[..6].copy_from_slice(&super::soft_nic::MAC.0);
            for _ in 0..random.usize(..8) {
                let at = random.usize(12..frame.len());
                frame[at] = random.u8(..);
            }
            frame.resize(random.usize(14..1600), random.u8(..));
            let mut shared = handle.lock();
            // Nothing is said of it: then the adapter has to look itself.
            shared.silent_every = 1;
            shared.arriving.push_back(frame);
            shared.sent.clear();
            drop(shared);
            if round % 8 == 0 {
                server.poll(&mut device, Instant::from_nanos(round * 1_000_000));
            }
        }
        let counters = device.counters();
        assert!(
            counters.malformed > 100 && counters.bad_checksums > 100 && counters.too_long > 100,
            "seed {seed}: {counters:?}"
        );
        assert_eq!(device.fault(), None, "seed {seed}");
        // The device works as before.
        assert!(device.transmit(NOW).is_some(), "seed {seed}");
    }
    talk(
        super::capabilities(all, all),
        &Config::default(),
        &plan(1),
        0,
    );
}
