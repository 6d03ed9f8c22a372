//! What an 82599 or X540 is asked for beyond what any NIC is: contexts that are remembered, the
//! spread over queues, moderation, many fragments. The driver runs on the model, which counts.
// A test may panic: that is how it fails.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "ixgbe_device/beside.rs"]
mod beside;
#[path = "ixgbe_device/lab.rs"]
mod lab;
#[path = "conformance_ixgbe/listener.rs"]
#[allow(dead_code)]
mod listener;
#[path = "common/packets.rs"]
#[allow(dead_code, unreachable_pub)]
mod packets;
#[path = "ixgbe_device/queues.rs"]
mod queues;

use std::time::Duration;

use lab::{Lab, fragments};
use packets::{Kind, sum};
use pagewire::hal::{
    Causes, ChecksumOffload, Fragment, FrameError, HashInput, Nic, Offload, Phase, PostError,
    RxQueue, TxQueue,
};
use pagewire::ixgbe::{Config, Ixgbe, RssKey};
use pagewire_models::ixgbe::{DeviceId, Ixgbe82599, Latitude, ModelConfig, Module};
use pagewire_models::wire::pair;
use pagewire_models::{Host, HostConfig, Wire};

const TCP: Kind = Kind {
    ipv6: false,
    tcp: true,
    options: 0,
};

fn model(seed: u64) -> ModelConfig {
    ModelConfig {
        seed,
        ..ModelConfig::default()
    }
}

fn pairs(count: u16) -> Config {
    let mut config = Config::default();
    config.queue_pairs = count;
    config
}

/// Bytes that differ from place to place.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + i / 251) as u8).collect()
}

/// The request for the checksums of a packet.
fn checksums(kind: Kind) -> Offload {
    let transport = match (kind.tcp, kind.ipv6) {
        (true, false) => ChecksumOffload::TCP_IPV4 | ChecksumOffload::IPV4_HEADER,
        (false, false) => ChecksumOffload::UDP_IPV4 | ChecksumOffload::IPV4_HEADER,
        (true, true) => ChecksumOffload::TCP_IPV6,
        (false, true) => ChecksumOffload::UDP_IPV6,
    };
    Offload {
        checksum: transport,
        l2_len: 14,
        l3_len: kind.network_len() as u16,
        l4_len: kind.transport_len() as u8,
        checksum_offset: if kind.tcp { 16 } else { 6 },
        segment_len: 0,
    }
}

/// The request for segments of `segment_len` bytes.
fn segments(kind: Kind, segment_len: u16) -> Offload {
    Offload {
        segment_len,
        ..checksums(kind)
    }
}

/// The header of a TCP packet over IPv4 that is to be segmented: no lengths, and a seed without
/// one.
fn segmented_header() -> Vec<u8> {
    let mut header = TCP.frame(&[]);
    header[16..18].fill(0);
    header[24..26].fill(0);
    let mut pseudo = header[26..34].to_vec();
    pseudo.extend_from_slice(&[0, 6]);
    let at = TCP.checksum_at();
    header[at..at + 2].copy_from_slice(&sum(&pseudo).to_be_bytes());
    header
}

#[test]
fn a_gathered_frame_goes_out_and_one_comes_in() {
    for device in [DeviceId::Kx4, DeviceId::Xaui, DeviceId::X540T] {
        for latitude in [Latitude::none(), Latitude::default()] {
            let config = ModelConfig {
                latitude,
                device,
                ..model(1)
            };
            let mut lab = Lab::new(config, &pairs(1));
            let bytes = pattern(300);
            let pieces: Vec<_> = [&bytes[..14], &bytes[14..15], &bytes[15..]]
                .map(|part| lab.fragment(part))
                .into();
            assert_eq!(lab.post(0, &pieces, Offload::NONE, 7), Ok(()));
            assert_eq!(lab.finish(0), [7]);
            assert_eq!(lab.arrived(), std::slice::from_ref(&bytes), "{device:?}");
            let (pair, got, _) = lab.receive(&bytes);
            assert_eq!((pair, &got[6..]), (0, &bytes[6..]), "{device:?}");
            let counters = lab.counters();
            assert_eq!((counters.requests, counters.fragments[3]), (1, 1));
            lab.assert_clean();
        }
    }
}

#[test]
fn a_module_is_identified_and_its_laser_is_on_after_every_reset() {
    let config = pairs(1);
    for seed in 0..12 {
        let module = [Module::ShortReach, Module::Cable][seed as usize % 2];
        let device = ModelConfig {
            device: DeviceId::Sfp,
            module,
            ..model(seed)
        };
        let mut lab = Lab::new(device, &config);
        for _ in 0..3 {
            let bytes = pattern(200);
            let fragment = lab.fragment(&bytes);
            assert_eq!(lab.post(0, &[fragment], Offload::NONE, 1), Ok(()));
            assert_eq!(lab.finish(0), [1], "seed {seed}");
            assert_eq!(lab.arrived(), std::slice::from_ref(&bytes), "seed {seed}");
            assert_eq!(lab.nic.link().speed_mbps, 10_000, "seed {seed}");
            assert_eq!(lab.reset(), [], "seed {seed}");
        }
        lab.assert_clean();
    }
    for module in [Module::None, Module::Gigabit] {
        let (near, _far) = pair();
        let device = Ixgbe82599::new(
            ModelConfig {
                device: DeviceId::Sfp,
                module,
                ..model(1)
            },
            Box::new(near),
        );
        let attached = Host::new(HostConfig::default()).attach(device);
        let error = Ixgbe::open(attached.platform, &config).expect_err("no 10 Gbit/s");
        assert!(error.to_string().contains("SFP+"), "{module:?}: {error}");
        assert_eq!(attached.handle.violations(), [""; 0], "{module:?}");
    }
}

/// Frames that ask for `wanted`, in turns on each of the pairs, and how many contexts a device
/// with two slots needs if the one that was used longest ago is replaced.
fn send_all(lab: &mut Lab, wanted: &[Offload]) -> u64 {
    let mut needed = 0;
    for pair in 0..lab.pairs.len() {
        let mut slots: Vec<Offload> = Vec::new();
        for (token, offload) in (0..).zip(wanted) {
            let header = match offload.segment_len {
                0 if offload.l3_len == 40 => Kind { ipv6: true, ..TCP }.seeded(&[]),
                0 => {
                    let tcp = offload.checksum.contains(ChecksumOffload::TCP_IPV4);
                    Kind { tcp, ..TCP }.seeded(&[])
                }
                _ => [segmented_header(), pattern(1500)].concat(),
            };
            let fragment = lab.fragment(&header);
            while lab.post(pair, &[fragment], *offload, token) == Err(PostError::Full) {
                lab.finish(pair);
            }
            if *offload == Offload::NONE {
                continue;
            }
            let known = slots.iter().position(|slot| slot == offload);
            needed += u64::from(known.is_none());
            let oldest = known.or((slots.len() == 2).then_some(0));
            oldest.map(|index| slots.remove(index));
            slots.push(*offload);
        }
        lab.finish(pair);
    }
    needed
}

#[test]
fn a_repeated_offload_costs_no_new_context() {
    let (plain, cut) = (checksums(TCP), segments(TCP, 1000));
    let udp = checksums(Kind { tcp: false, ..TCP });
    let other_cut = segments(TCP, 500);
    let ipv6 = checksums(Kind { ipv6: true, ..TCP });
    for seed in 0..8 {
        let mut lab = Lab::new(model(seed), &pairs(1 + seed as u16 % 4));
        let queues = lab.pairs.len() as u64;
        // A connection that sends short frames and long ones: two contexts for all of them.
        let turns: Vec<_> = [plain, cut, Offload::NONE]
            .into_iter()
            .cycle()
            .take(300)
            .collect();
        assert_eq!(send_all(&mut lab, &turns), 2 * queues);
        assert_eq!(lab.counters().contexts, 2 * queues, "seed {seed}");
        // The device has forgotten them after a reset.
        assert_eq!(lab.reset(), []);
        assert_eq!(send_all(&mut lab, &turns), 2 * queues);
        assert_eq!(lab.counters().contexts, 4 * queues, "seed {seed}");
        // Others by chance: each is written when it is not there, and only then.
        let mut random = fastrand::Rng::with_seed(seed);
        let all = [plain, cut, udp, other_cut, ipv6, Offload::NONE];
        assert_eq!(lab.reset(), []);
        let before = lab.counters().contexts;
        let mixed: Vec<_> = (0..300).map(|_| all[random.usize(..all.len())]).collect();
        let needed = send_all(&mut lab, &mixed);
        let counters = lab.counters();
        assert_eq!(counters.contexts - before, needed, "seed {seed}");
        assert_eq!(counters.contexts_repeated, 0, "seed {seed}");
        assert_eq!(counters.frames_dropped, 0, "seed {seed}");
        lab.assert_clean();
    }
}

#[test]
fn seventeen_pieces_of_64_kib_fit_and_slices_of_700_bytes_bind() {
    for seed in 0..8 {
        let mut lab = Lab::new(model(seed), &pairs(1));
        let most = usize::from(lab.nic.capabilities().max_fragments);
        assert_eq!(
            most, 37,
            "40 less 2 less a context, by the device's own limit"
        );
        let bytes = pattern(1 << 17);
        let region = lab.region(bytes.clone());
        // Not at the beginning of a page: 16 pages' worth lies in 17.
        let lead = region.base().as_ptr().addr() % 4096;
        let start = 4096 - lead + 700;
        let header = segmented_header();
        let mut pieces = vec![lab.fragment(&header)];
        pieces.extend(fragments(&region, start, 65_536));
        assert_eq!(pieces.len(), 1 + 17, "seed {seed}");
        assert_eq!(lab.post(0, &pieces, segments(TCP, 1460), 1), Ok(()));
        assert_eq!(lab.finish(0), [1]);
        let arrived = lab.arrived();
        assert_eq!(arrived.len(), 65_536usize.div_ceil(1460), "seed {seed}");
        let sent: Vec<u8> = arrived.iter().flat_map(|f| f[54..].to_vec()).collect();
        assert!(sent == bytes[start..start + 65_536], "seed {seed}");
        let counters = lab.counters();
        assert_eq!(counters.segmented_payload, 65_536, "seed {seed}");
        assert_eq!(counters.most_fragments, 18, "seed {seed}");
        // Slices of 700 bytes that are no neighbours: the limit is reached before the length is.
        let run = lab.fragment(&pattern(700));
        for (slices, fits) in [(most - 1, true), (most, false)] {
            let mut pieces = vec![pieces[0]];
            pieces.extend(std::iter::repeat_n(run, slices));
            let posted = lab.post(0, &pieces, segments(TCP, 1460), 2);
            let refused = Err(PostError::Refused(FrameError::TooManyFragments {
                count: pieces.len(),
                max: most as u16,
            }));
            assert_eq!(posted, if fits { Ok(()) } else { refused }, "seed {seed}");
        }
        assert_eq!(lab.finish(0), [2]);
        assert_eq!(lab.counters().most_fragments, 37, "seed {seed}");
        lab.assert_clean();
    }
}

#[test]
fn the_longest_frames_go_both_ways_in_one_piece() {
    for seed in 0..4 {
        let mut config = pairs(1);
        config.mtu = 9710;
        let device = [DeviceId::Kx4, DeviceId::X540T][seed as usize % 2];
        let mut lab = Lab::new(
            ModelConfig {
                device,
                ..model(seed)
            },
            &config,
        );
        let bytes = pattern(9710 + 14);
        let fragment = lab.fragment(&bytes);
        assert_eq!(lab.post(0, &[fragment], Offload::NONE, 1), Ok(()));
        assert_eq!(lab.finish(0), [1]);
        assert_eq!(lab.arrived(), std::slice::from_ref(&bytes), "seed {seed}");
        let (_, got, _) = lab.receive(&bytes);
        assert_eq!(got[6..], bytes[6..], "seed {seed}");
        assert_eq!(lab.counters().frames_scattered, 0, "seed {seed}");
        lab.assert_clean();
    }
}

/// A packet of flow `flow`, from either side.
fn packet(kind: Kind, flow: u8, back: bool) -> Vec<u8> {
    let mut frame = kind.frame(&[flow; 20]);
    let (addresses, len) = if kind.ipv6 { (22, 16) } else { (26, 4) };
    let ports = 14 + kind.network_len();
    // Neither the addresses nor the ports of a flow are the same at both ends.
    frame[addresses + len - 1] = flow;
    frame[ports] ^= flow;
    if back {
        let (first, second) = frame[addresses..addresses + 2 * len].split_at_mut(len);
        first.swap_with_slice(second);
        frame.swap(ports, ports + 2);
        frame.swap(ports + 1, ports + 3);
    }
    frame
}

#[test]
fn with_the_symmetric_key_both_directions_hash_alike() {
    for (key, alike) in [(RssKey::Symmetric, true), (RssKey::Standard, false)] {
        for count in [1, 4, 16] {
            let mut config = pairs(count);
            config.rss_key = key.clone();
            let mut lab = Lab::new(model(count.into()), &config);
            let mut same = 0;
            for kind in [TCP, Kind { ipv6: true, ..TCP }] {
                for flow in 1..60 {
                    let (queue, _, hash) = lab.receive(&packet(kind, flow, false));
                    let (back_queue, _, back) = lab.receive(&packet(kind, flow, true));
                    let (hash, back) = (hash.expect("a hash"), back.expect("a hash"));
                    assert_eq!(hash.input, HashInput::AddressesAndPorts);
                    // The table names the queues in turns.
                    for (hash, queue) in [(hash, queue), (back, back_queue)] {
                        let entry = hash.value as usize % 128;
                        assert_eq!(queue, entry % usize::from(count), "{hash:x?}");
                    }
                    same += u32::from(hash == back);
                    assert!(!alike || queue == back_queue, "{kind:?}, flow {flow}");
                }
            }
            if alike {
                assert_eq!(same, 2 * 59, "{count} pairs");
            } else {
                assert!(same < 5, "{count} pairs, {key:?}: {same}");
            }
            lab.assert_clean();
        }
    }
}

#[test]
fn interrupts_keep_their_distance_and_mask_themselves() {
    for interval in [0u16, 100, 500] {
        let mut config = pairs(2);
        config.interrupt_interval = interval;
        // Those have their own distances.
        let latitude = Latitude {
            spurious_interrupts: false,
            late_interrupts: false,
            ..Latitude::default()
        };
        let mut lab = Lab::new(
            ModelConfig {
                latitude,
                ..model(5)
            },
            &config,
        );
        lab.nic.enable_interrupts().unwrap();
        lab.run(200);
        lab.nic.take_interrupts();
        lab.run(200);
        // Nobody takes them: one message, and its vector is masked.
        let frame = pattern(60);
        let deliver = |lab: &mut Lab| {
            let mut sent = frame.clone();
            sent[..6].copy_from_slice(&lab.nic.mac_address().0);
            let now = lab.host.now();
            lab.far.transmit(&mut sent, now);
            lab.run(1);
            lab.pairs[0].1.receive(64, &mut |_| {}).unwrap();
        };
        let before = lab.counters().interrupts;
        for _ in 0..500 {
            deliver(&mut lab);
        }
        assert_eq!(lab.counters().interrupts - before, 1, "{interval} µs");
        // Everybody takes them at once: as many as the interval lets through.
        let before = lab.counters().interrupts;
        let start = lab.host.now();
        let mut taken = 0;
        for _ in 0..2000 {
            deliver(&mut lab);
            taken += u64::from(lab.nic.take_interrupts().contains(Causes::RECEIVE));
        }
        let micros = lab.host.now().saturating_since(start).as_micros() as u64;
        let sent = lab.counters().interrupts - before;
        // Steps of 2.048 µs, rounded down: 98 and 499 µs.
        let most = match interval {
            0 => 2000,
            interval => micros / u64::from(interval - 2) + 2,
        };
        assert!(
            sent <= most && taken <= most,
            "{interval} µs: {sent}, {taken} of {most}"
        );
        assert!(sent >= most / 4, "{interval} µs: {sent} of {most}");
        lab.assert_clean();
    }
}

/// Waits for `cause`, and takes whatever comes.
fn await_cause(lab: &mut Lab, cause: Causes, what: &str) {
    for _ in 0..2000 {
        if lab.nic.take_interrupts().contains(cause) {
            return;
        }
        lab.run(1);
    }
    panic!("{what}: no interrupt for {cause:?}");
}

#[test]
fn every_queue_interrupts_with_however_many_vectors() {
    // One for each queue and one more; for each pair; fewer; one for all.
    for (count, vectors) in [
        (1, 64),
        (1, 2),
        (1, 1),
        (4, 5),
        (4, 3),
        (16, 64),
        (16, 17),
        (16, 2),
    ] {
        let mut lab = Lab::with_vectors(model(u64::from(vectors)), &pairs(count), vectors);
        let granted = lab.nic.enable_interrupts().unwrap();
        assert_eq!(granted, vectors.min(2 * count + 1));
        for round in 0..2 {
            let mut reached = vec![false; usize::from(count)];
            let mut flow = 0;
            while reached.contains(&false) {
                lab.run(100);
                lab.nic.take_interrupts();
                flow += 1;
                let what = format!("{count} pairs, {vectors} vectors, round {round}, flow {flow}");
                let mut sent = packet(TCP, flow, false);
                sent[..6].copy_from_slice(&lab.nic.mac_address().0);
                let now = lab.host.now();
                lab.far.transmit(&mut sent, now);
                // An interrupt may come before its frame. It comes again then.
                let pair = loop {
                    await_cause(&mut lab, Causes::RECEIVE, &what);
                    if let Some((pair, ..)) = lab.take() {
                        break pair;
                    }
                };
                reached[pair] = true;
            }
            for pair in 0..usize::from(count) {
                lab.run(100);
                lab.nic.take_interrupts();
                let what = format!("{count} pairs, {vectors} vectors, round {round}, pair {pair}");
                let fragment = lab.fragment(&pattern(60));
                assert_eq!(lab.post(pair, &[fragment], Offload::NONE, 1), Ok(()));
                lab.pairs[pair].0.doorbell();
                await_cause(&mut lab, Causes::TRANSMIT, &what);
                assert_eq!(lab.finish(pair), [1], "{what}");
            }
            assert_eq!(lab.reset(), []);
        }
        lab.assert_clean();
    }
}

/// Posts `count` frames of three fragments on each pair, whose tokens tell the pair.
fn fill(lab: &mut Lab, count: u32) {
    let parts: Vec<Fragment> = [14, 100, 900].map(|len| lab.fragment(&pattern(len))).into();
    for pair in 0..lab.pairs.len() {
        for index in 0..count {
            let token = (pair as u32) << 16 | index;
            assert_eq!(lab.post(pair, &parts, Offload::NONE, token), Ok(()));
        }
        if pair % 3 != 2 {
            lab.pairs[pair].0.doorbell();
        }
    }
}

#[test]
fn a_reset_gives_back_what_is_in_flight_on_every_pair() {
    for seed in 0..12 {
        let count = [1, 2, 5, 16][seed as usize % 4];
        let device = [DeviceId::Kx4, DeviceId::X540T][seed as usize % 2];
        let mut lab = Lab::new(
            ModelConfig {
                device,
                ..model(seed)
            },
            &pairs(count),
        );
        for round in 0..3 {
            lab.model
                .with_device(|device| device.inner.hold_completions(true));
            fill(&mut lab, 20);
            // In the middle of a frame, or of a write-back.
            lab.run(round * 3);
            lab.model
                .with_device(|device| device.inner.hold_completions(round == 0));
            lab.run(round);
            let mut reclaimed = Vec::new();
            for (tx, _) in &mut lab.pairs {
                tx.reclaim(&mut |token| reclaimed.push(token.0)).unwrap();
            }
            let back = lab.reset();
            let mut all: Vec<u32> = reclaimed;
            for (position, token) in back {
                assert_eq!(u32::from(position), token >> 16, "seed {seed}: whose it is");
                all.push(token);
            }
            // Each once, those of a pair in order.
            for pair in 0..u32::from(count) {
                let own: Vec<_> = all.iter().filter(|token| **token >> 16 == pair).collect();
                assert!(own.is_sorted(), "seed {seed}: {own:?}");
                assert_eq!(own.len(), 20, "seed {seed}, round {round}, pair {pair}");
            }
            lab.model
                .with_device(|device| device.inner.hold_completions(false));
            lab.arrived();
            for pair in 0..usize::from(count) {
                let bytes = [pair as u8; 77];
                let fragment = lab.fragment(&bytes);
                assert_eq!(lab.post(pair, &[fragment], Offload::NONE, 9), Ok(()));
                assert_eq!(lab.finish(pair), [9], "seed {seed}");
                assert_eq!(lab.arrived(), [bytes.to_vec()], "seed {seed}, pair {pair}");
            }
        }
        lab.assert_clean();
    }
}

#[test]
fn a_hang_of_any_pair_is_noticed_and_cured() {
    for pair in [0, 1, 7, 15] {
        let mut lab = Lab::new(model(pair as u64), &pairs(16));
        for stall in [true, false] {
            lab.model.with_device(|device| device.inner.stall(stall));
            let fragment = lab.fragment(&pattern(100));
            assert_eq!(lab.post(pair, &[fragment], Offload::NONE, 3), Ok(()));
            lab.pairs[pair].0.doorbell();
            let mut hung = false;
            for _ in 0..20 {
                hung |= lab.nic.poll(lab.host.now()) == Ok(Phase::Hung);
                lab.run(1);
                lab.host.advance(Duration::from_millis(100));
            }
            assert_eq!(hung, stall, "pair {pair}");
            lab.model.with_device(|device| device.inner.stall(false));
            if stall {
                assert_eq!(lab.reset(), [(pair as u16, 3)]);
            } else {
                assert_eq!(lab.finish(pair), [3]);
            }
        }
        lab.assert_clean();
    }
}

#[test]
fn frames_that_wait_for_a_link_are_a_hang_and_come_back() {
    let mut lab = Lab::new(model(3), &pairs(2));
    lab.plug.set(false);
    while lab.nic.link().up {
        lab.run(1);
    }
    fill(&mut lab, 4);
    let mut phase = lab.nic.poll(lab.host.now());
    for _ in 0..20 {
        lab.run(1);
        lab.host.advance(Duration::from_millis(100));
        phase = lab.nic.poll(lab.host.now());
    }
    assert_eq!(phase, Ok(Phase::Hung));
    lab.plug.set(true);
    // Or go out, if the link comes back before anybody resets.
    for _ in 0..2000 {
        lab.run(1);
    }
    assert!(lab.finish(0).len() + lab.finish(1).len() == 8);
    assert_eq!(lab.arrived().len(), 8);
    lab.assert_clean();
}
