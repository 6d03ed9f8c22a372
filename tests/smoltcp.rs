//! smoltcp on the HAL: every mapping judged by the bytes on the wire, on a NIC in software with
//! each combination of capabilities, on the model of the 82574L, on QEMU's, against another
//! smoltcp and against Linux.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test may panic
#![allow(unreachable_pub)] // its modules are its own

mod common;
#[path = "smoltcp/far.rs"]
mod far;
#[path = "smoltcp/linux.rs"]
mod linux;
#[path = "../examples/common/namespace.rs"]
mod namespace;
mod qtest;
#[path = "smoltcp/server.rs"]
mod server;
#[path = "smoltcp/soft_nic.rs"]
mod soft_nic;
#[path = "smoltcp/strict.rs"]
mod strict;
#[path = "smoltcp/tokens.rs"]
mod tokens;

use std::time::Duration;

use pagewire::e1000e::{Config as DriverConfig, E1000e};
use pagewire::hal::{Capabilities, ChecksumOffload, Instant, Nic, Segmentation};
use pagewire_drivers::smoltcp::{Config, PhyDevice};
use pagewire_models::e1000e::{E1000e82574, ModelConfig};
use pagewire_models::qtest::Qtest;
use pagewire_models::wire::pair;
use pagewire_models::{Host, HostConfig};

use far::{Far, Plan, converse};
use qtest::{SOON, options};
use server::send_long_datagram;
use soft_nic::{Handle, SoftNic};

/// Rounds of a millisecond until a conversation is given up.
const PATIENCE: u32 = 200_000;

fn capabilities(tx: ChecksumOffload, rx: ChecksumOffload) -> Capabilities {
    let mut capabilities = Capabilities::minimal();
    capabilities.tx_checksum = tx;
    capabilities.rx_checksum = rx;
    capabilities
}

fn soft(capabilities: Capabilities, config: &Config) -> (PhyDevice<SoftNic>, Handle) {
    let (nic, handle) = SoftNic::new(capabilities, 64);
    (PhyDevice::new(nic, config).unwrap(), handle)
}

/// A millisecond per round.
fn virtual_clock<N: Nic>(what: &str) -> impl FnMut(&mut PhyDevice<N>) -> Instant {
    let mut rounds = 0;
    move |_| {
        rounds += 1;
        assert!(rounds < PATIENCE, "{what}: nothing comes back any more");
        Instant::from_nanos(u64::from(rounds) * 1_000_000)
    }
}

/// A conversation on a NIC in software; returns the device and what it has seen.
fn talk(
    capabilities: Capabilities,
    config: &Config,
    plan: &Plan,
    silent_every: u64,
) -> (PhyDevice<SoftNic>, Handle, Far<Handle>) {
    let (mut device, handle) = soft(capabilities, config);
    handle.lock().silent_every = silent_every;
    let what = format!("{capabilities:?}, {config:?}, seed {}", plan.seed);
    let mut far = Far::new(handle.clone(), &what);
    converse(&mut device, &mut far, plan, virtual_clock(&what));
    let violations = std::mem::take(&mut handle.lock().violations);
    assert!(violations.is_empty(), "{what}: {violations:?}");
    assert_eq!(device.counters().transmit_lost, 0, "{what}");
    (device, handle, far)
}

fn plan(seed: u64) -> Plan {
    Plan {
        seed,
        bytes: 20_001,
        datagrams: vec![0, 1, 2, 17, 512, 1451, 1452],
        corrupt_one_in: 0,
    }
}

#[test]
fn each_combination_of_checksums_is_right_on_the_wire() {
    let mut seed = 0;
    for tx in (0..=u8::MAX).filter_map(ChecksumOffload::from_bits) {
        // All 64 on transmit, each with another one on receive.
        let rx = ChecksumOffload::from_bits_truncate(tx.bits().reverse_bits() >> 2);
        for fragments in [false, true] {
            seed += 1;
            let mut config = Config::default();
            config.fragments = fragments;
            let (device, ..) = talk(capabilities(tx, rx), &config, &plan(seed), 0);
            let counters = device.counters();
            // What the device could do it was asked for, and the rest was not left to chance.
            let transport = tx & ChecksumOffload::TRANSPORT;
            let some = !transport.is_empty();
            let udp = ChecksumOffload::UDP_IPV4 | ChecksumOffload::UDP_IPV6;
            let only_udp = udp.contains(transport);
            let expected = some && !(fragments && only_udp);
            assert_eq!(
                counters.device_checksums > 0,
                expected,
                "seed {seed}, {tx:?}, fragments {fragments}: {counters:?}"
            );
            assert_eq!(counters.bad_checksums, 0, "seed {seed}");
        }
    }
}

#[test]
fn the_device_does_all_where_it_offers_all() {
    let all = ChecksumOffload::all();
    let (device, ..) = talk(capabilities(all, all), &Config::default(), &plan(7), 0);
    let counters = device.counters();
    assert_eq!((counters.cpu_checksums, counters.cpu_verified), (0, 0));
    assert!(counters.device_checksums > 0 && counters.device_verified > 0);
    // And smoltcp all where it offers nothing.
    let none = ChecksumOffload::empty();
    let (device, ..) = talk(capabilities(none, none), &Config::default(), &plan(7), 0);
    let counters = device.counters();
    assert_eq!((counters.cpu_checksums, counters.cpu_verified), (0, 0));
    assert_eq!(
        (counters.device_checksums, counters.device_verified),
        (0, 0)
    );
}

#[test]
fn wrong_bytes_never_arrive_whoever_verifies() {
    let udp_ipv4 = ChecksumOffload::UDP_IPV4;
    let combinations = [
        ChecksumOffload::empty(),
        ChecksumOffload::all(),
        ChecksumOffload::IPV4_HEADER,
        ChecksumOffload::TCP_IPV6 | udp_ipv4,
        ChecksumOffload::TCP_IPV4 | ChecksumOffload::UDP_IPV6,
    ];
    for (index, rx) in combinations.into_iter().enumerate() {
        for silent_every in [0, 1, 3] {
            let seed = 100 + index as u64;
            let plan = Plan {
                bytes: 100_000,
                corrupt_one_in: 6,
                ..plan(seed)
            };
            let capabilities = capabilities(ChecksumOffload::all(), rx);
            let (device, _, far) = talk(capabilities, &Config::default(), &plan, silent_every);
            let counters = device.counters();
            assert!(far.corrupted > 20, "seed {seed}: {}", far.corrupted);
            let is_judged_here = rx == ChecksumOffload::all();
            assert!(
                !is_judged_here || counters.bad_checksums > 10,
                "seed {seed}, {rx:?}: {counters:?}"
            );
        }
    }
}

#[test]
fn short_frames_are_padded_with_zeros() {
    let mut capabilities = capabilities(ChecksumOffload::all(), ChecksumOffload::all());
    capabilities.min_frame_len = 60;
    // The strict far end sums padded frames; the bytes of the pad are looked at in `tokens`.
    let (_, _, far) = talk(capabilities, &Config::default(), &plan(3), 0);
    assert!(far.frames > 0);
}

#[test]
fn a_frame_longer_than_a_fragment_is_gathered() {
    let mut capabilities = capabilities(ChecksumOffload::all(), ChecksumOffload::all());
    capabilities.max_fragment_len = 100;
    capabilities.max_fragments = 16;
    let (_, _, far) = talk(capabilities, &Config::default(), &plan(4), 0);
    assert_eq!(far.longest, 1514);
}

#[test]
fn the_device_segments_what_smoltcp_leaves_whole() {
    for (seed, seed_has_length) in [(11, false), (12, true)] {
        for max_payload_len in [4000, 30_000, 1 << 20] {
            let mut capabilities = capabilities(ChecksumOffload::all(), ChecksumOffload::all());
            let mut limits = Segmentation::new(max_payload_len, 240);
            limits.ipv4 = true;
            limits.ipv6 = true;
            limits.seed_has_length = seed_has_length;
            capabilities.segmentation = Some(limits);
            capabilities.max_fragment_len = 16_000;
            capabilities.max_fragments = 8;
            let plan = Plan {
                bytes: 1 << 20,
                ..plan(seed)
            };
            let (device, handle, far) = talk(capabilities, &Config::default(), &plan, 0);
            assert_eq!(far.longest, 1514, "seed {seed}");
            let segmented = handle.lock().segmented;
            let frames = device.counters().transmitted;
            assert!(
                segmented > 10 && frames < far.frames,
                "seed {seed}: {segmented} requests, {frames} frames, {} sent",
                far.frames
            );
        }
    }
}

#[test]
fn fragmented_datagrams_are_summed_by_smoltcp_or_not_sent() {
    let all = ChecksumOffload::all();
    let plan = Plan {
        bytes: 1000,
        ..plan(5)
    };
    let mut config = Config::default();
    let (mut device, handle) = soft(capabilities(all, all), &config);
    send_long_datagram(&mut device, &handle);
    let counters = device.counters();
    assert_eq!(
        (counters.transmit_fragments, counters.transmit_lost),
        (3, 0)
    );
    // Only the answer to the neighbour was sent.
    let sent: Vec<_> = handle.lock().sent.drain(..).collect();
    assert_eq!((sent.len(), strict::word(&sent[0], 12)), (1, 0x0806));
    config.fragments = true;
    let (mut device, handle) = soft(capabilities(all, all), &config);
    send_long_datagram(&mut device, &handle);
    let sent: Vec<_> = handle.lock().sent.drain(1..).collect();
    assert_eq!(sent.len(), 3);
    for part in &sent {
        assert_eq!(strict::look(part).0, strict::Kind::Fragment);
        strict::assert_right(part, "a fragment");
    }
    assert_ne!(strict::word(&sent[0], 14 + 20 + 6), 0, "no UDP checksum");
    talk(capabilities(all, all), &config, &plan, 0);
}

#[test]
fn on_the_model_of_the_82574_with_every_latitude() {
    for seed in 0..12 {
        let mut driver = DriverConfig::default();
        driver.tx_descriptors = 64;
        driver.checksum_offload = seed % 3 != 2;
        let host = Host::new(HostConfig {
            seed,
            granule: common::granule(4096),
        });
        let (near, far) = pair();
        let config = ModelConfig {
            seed,
            ..Default::default()
        };
        let attached = host.attach(E1000e82574::new(config, Box::new(near)));
        let nic = E1000e::open(attached.platform, &driver).unwrap();
        let mut device = PhyDevice::new(nic, &Config::default()).unwrap();
        let what = format!("seed {seed}");
        let mut far = Far::new(far, &what);
        let plan = Plan {
            bytes: 200_000,
            corrupt_one_in: 20 * (seed % 2),
            ..plan(seed)
        };
        let model = attached.handle;
        let mut rounds = 0;
        converse(&mut device, &mut far, &plan, |_| {
            rounds += 1;
            assert!(rounds < PATIENCE, "{what}: nothing comes back any more");
            for _ in 0..20 {
                model.step();
                host.advance(Duration::from_micros(25));
            }
            host.now()
        });
        let counters = device.counters();
        assert_eq!(counters.transmit_lost, 0, "{what}");
        assert_eq!(counters.device_checksums > 0, seed % 3 != 2, "{what}");
        device
            .shut_down(|| {
                model.step();
                host.advance(Duration::from_micros(10));
                host.now()
            })
            .unwrap();
        assert_eq!(device.outstanding(), 0, "{what}");
        let violations = model.violations();
        assert!(violations.is_empty(), "{what}: {violations:#?}");
    }
}

#[test]
fn on_qemus_e1000e_with_smoltcp_at_the_other_end() {
    let Some(options) = options() else { return };
    let mut qtest = Qtest::start(&options).unwrap();
    let nic = E1000e::open(qtest.take_platform().unwrap(), &DriverConfig::default()).unwrap();
    let mut device = PhyDevice::new(nic, &Config::default()).unwrap();
    let mut far = Far::new(qtest.take_wire().unwrap(), "QEMU");
    let plan = Plan {
        bytes: 300_000,
        corrupt_one_in: 30,
        ..plan(21)
    };
    let start = std::time::Instant::now();
    converse(&mut device, &mut far, &plan, |device| {
        assert!(start.elapsed() < 3 * SOON, "nothing comes back any more");
        device.poll(qtest.now()).unwrap();
        qtest.now()
    });
    let counters = device.counters();
    assert!(counters.device_checksums > 0 && counters.device_verified > 0);
    assert_eq!((counters.cpu_checksums, counters.transmit_lost), (0, 0));
    device.shut_down(|| qtest.now()).unwrap();
    assert_eq!(device.outstanding(), 0);
}
