//! What queues owe one another, and what a queue owes the device right after a restart.

use super::*;
use pagewire::hal::Instant;

/// A frame with a TCP packet whose source port is `port`, for the NIC at its other end.
fn from_port(port: u16) -> Vec<u8> {
    let mut frame = TCP.frame(&pattern(40));
    let at = 14 + TCP.network_len();
    frame[at..at + 2].copy_from_slice(&port.to_be_bytes());
    frame
}

#[test]
fn a_queue_that_nobody_empties_holds_up_no_other() {
    for seed in 0..4 {
        let mut config = pairs(2);
        config.rx_descriptors = 8;
        let mut lab = Lab::new(model(seed), &config);
        // A flow to each queue.
        let mut flow = [None; 2];
        for port in 1000..1100 {
            let (pair, ..) = lab.receive(&from_port(port));
            flow[pair].get_or_insert(port);
        }
        let flow = flow.map(|port| port.expect("a hundred flows reach both queues"));
        for full in [0, 1] {
            // Far more than the queue has buffers, and than the packet buffer holds.
            for _ in 0..2000 {
                let mut frame = from_port(flow[full]);
                frame.resize(1514, 0);
                frame[..6].copy_from_slice(&lab.nic.mac_address().0);
                let now = lab.host.now();
                lab.far.transmit(&mut frame, now);
                lab.run(1);
            }
            let other = 1 - full;
            let mut frame = from_port(flow[other]);
            frame[..6].copy_from_slice(&lab.nic.mac_address().0);
            let now = lab.host.now();
            lab.far.transmit(&mut frame, now);
            let mut received = 0;
            for _ in 0..1000 {
                lab.run(1);
                received += lab.pairs[other].1.receive(8, &mut |_| {}).unwrap();
            }
            assert_eq!(
                received, 1,
                "seed {seed}: queue {full} holds up queue {other}"
            );
            while lab.pairs[full].1.receive(8, &mut |_| {}).unwrap() > 0 {
                lab.run(10);
            }
        }
        lab.assert_clean();
    }
}

#[test]
fn a_header_in_five_pieces_is_refused_or_sent_whole() {
    // The device reads the header to repeat from at most four descriptors.
    for pieces in 1..=6usize {
        let mut lab = Lab::new(model(pieces as u64), &pairs(1));
        let header = segmented_header();
        let cut = header.len() / pieces;
        let mut fragments = Vec::new();
        for piece in 0..pieces {
            let end = if piece + 1 == pieces {
                header.len()
            } else {
                (piece + 1) * cut
            };
            fragments.push(lab.fragment(&header[piece * cut..end]));
        }
        fragments.push(lab.fragment(&pattern(5000)));
        let posted = lab.post(0, &fragments, segments(TCP, 1460), 1);
        if pieces > 4 {
            let refused = Err(PostError::Refused(FrameError::OffloadLayout));
            assert_eq!(posted, refused, "{pieces} pieces");
            continue;
        }
        assert_eq!(posted, Ok(()), "{pieces} pieces");
        assert_eq!(lab.finish(0), [1]);
        let lens: Vec<_> = lab.arrived().iter().map(Vec::len).collect();
        assert_eq!(
            lens,
            [1514, 1514, 1514, 54 + 5000 - 3 * 1460],
            "{pieces} pieces"
        );
        lab.assert_clean();
    }
}

#[test]
fn a_doorbell_right_after_a_restart_waits_for_the_queue() {
    for seed in 0..14 {
        let mut lab = Lab::new(model(seed), &pairs(3));
        let late = Duration::from_micros(1 << seed);
        lab.model
            .with_device(|device| device.queues_are_off_until = Instant::from_nanos(u64::MAX));
        lab.stop_and_restart(|_| {});
        let until = lab.host.now() + late;
        lab.model
            .with_device(|device| device.queues_are_off_until = until);
        for pair in 0..3 {
            let bytes = [pair as u8; 90];
            let fragment = lab.fragment(&bytes);
            assert_eq!(lab.post(pair, &[fragment], Offload::NONE, 5), Ok(()));
            lab.pairs[pair].0.doorbell();
        }
        lab.wait_for_link();
        for pair in 0..3 {
            assert_eq!(lab.finish(pair), [5], "seed {seed}, pair {pair}");
        }
        assert_eq!(lab.arrived().len(), 3, "seed {seed}");
        lab.assert_clean();
    }
}
