//! Finding the structures, negotiation, what opening refuses.

use std::format;
use std::string::ToString;

use pagewire_hal::{ChecksumOffload, MacAddress, Nic, NicError, pci};

use super::Bench;
use crate::fake::{Fake, Fault, MAC, Play};
use crate::fake_ring::PlayRings;
use crate::{Config, Features, VirtioNet};

fn error(fake: &Fake, config: &Config) -> NicError {
    VirtioNet::open(fake.clone(), config).expect_err("does not open")
}

#[test]
fn what_is_offered_and_implemented_is_negotiated_and_nothing_else() {
    let bench = Bench::new();
    let several_pairs = Features::MQ | Features::CTRL_VQ;
    let on_request = Features::RING_PACKED | Features::GUEST_TSO4 | Features::GUEST_TSO6;
    let expected = Features::all() - Features::IN_ORDER - on_request - several_pairs;
    assert_eq!(bench.nic.features(), expected);
    assert_eq!(bench.fake.device().accepted, expected.bits());
    assert_eq!(bench.fake.device().status, 0x0F);
    assert_eq!(bench.nic.mac_address(), MacAddress(MAC));
    let config = bench.fake.device().config[1];
    assert_eq!(config & 0x406, 0x406, "memory, bus master, no INTx");
    let name = bench.nic.features().to_string();
    assert_eq!(
        name,
        "csum guest_csum mtu mac host_tso4 host_tso6 mrg_rxbuf status indirect_desc event_idx version_1 \
         access_platform order_platform ring_reset guest_hdrlen"
    );
}

#[test]
fn capabilities_follow_from_what_was_negotiated() {
    let full = Bench::new();
    let capabilities = *full.nic.capabilities();
    assert_eq!(capabilities.max_fragments, 256);
    assert_eq!(capabilities.head_room, 12);
    assert_eq!(capabilities.max_frame_len, 1514);
    assert_eq!(capabilities.tx_checksum, ChecksumOffload::TRANSPORT);
    let limits = capabilities.segmentation.expect("TSO");
    assert!(limits.ipv4 && limits.ipv6 && limits.seed_has_length);
    let bare = Bench::with(Features::empty(), 4);
    let capabilities = *bare.nic.capabilities();
    assert_eq!(capabilities.max_fragments, 4);
    assert_eq!(capabilities.tx_checksum, ChecksumOffload::empty());
    assert_eq!(capabilities.segmentation, None);
    let one = Bench::with(Features::CSUM | Features::HOST_TSO6, 4);
    let limits = one.nic.capabilities().segmentation.expect("TSO");
    assert!(!limits.ipv4 && limits.ipv6);
}

#[test]
fn no_entry_of_a_used_ring_lies_across_the_end_of_a_page() {
    let bench = Bench::new();
    let device = bench.fake.device();
    let enabled = device.queues.iter().filter(|queue| queue.enabled);
    assert!(enabled.clone().count() >= 2);
    for queue in enabled {
        let entries = queue.address[2] + 4;
        assert_eq!(entries % 8, 0, "the used ring at {:#x}", queue.address[2]);
    }
}

#[test]
fn segmentation_without_checksum_is_not_accepted() {
    let bench = Bench::with(Features::HOST_TSO4, 4);
    assert_eq!(bench.nic.features(), Features::VERSION_1 | Features::MAC);
}

#[test]
fn order_is_not_negotiated_for_a_ring_of_one_descriptor() {
    for (transmit, receive, expected) in [(2, 2, true), (1, 2, false), (2, 1, false)] {
        let fake = Fake::new();
        fake.device().offered |= Features::IN_ORDER.bits();
        let config = Config {
            tx_descriptors: transmit,
            rx_descriptors: receive,
            ..Config::default()
        };
        let features = Bench::of(fake, &config).nic.features();
        let context = format!("{transmit} {receive}");
        assert_eq!(features.contains(Features::IN_ORDER), expected, "{context}");
    }
}

#[test]
fn the_user_can_leave_features_out_but_not_those_of_the_platform() {
    let config = Config {
        features: Features::MAC,
        ..Config::default()
    };
    let bench = Bench::of(Fake::new(), &config);
    let expected =
        Features::MAC | Features::VERSION_1 | Features::ACCESS_PLATFORM | Features::ORDER_PLATFORM;
    assert_eq!(bench.nic.features(), expected);
}

#[test]
fn legacy_devices_are_refused_with_a_clear_error() {
    let fake = Fake::new();
    fake.device().config[0] = 0x1000_1AF4;
    let opened = VirtioNet::open(fake.clone(), &Config::default());
    assert_eq!(
        opened.expect("transitional").name(),
        "virtio-net transitional"
    );
    fake.device().offered &= !Features::VERSION_1.bits();
    let said = error(&fake, &Config::default()).to_string();
    assert!(said.contains("legacy"), "{said}");
    // Without capabilities there is no modern interface at all.
    let fake = Fake::new();
    fake.device().config[0] = 0x1000_1AF4;
    fake.device().config[1] = 0;
    let said = error(&fake, &Config::default()).to_string();
    assert!(said.contains("legacy"), "{said}");
}

#[test]
fn capabilities_that_lie_lead_nowhere() {
    // The common configuration, the fourth of the list, in turn: too short, beyond 4 GiB, at an
    // odd place, in a capability too short to say so.
    let common = (0x40 + 3 * 20) / 4;
    for (word, value) in [(3, 55), (2, 0xFFFF_FFF0), (2, 2)] {
        let fake = Fake::new();
        fake.device().config[common + word] = value;
        let refused = error(&fake, &Config::default());
        assert!(
            matches!(refused, NicError::NotOffered { .. }),
            "{word} {value}"
        );
    }
    let fake = Fake::new();
    fake.device().config[common] &= !(0xFF << 16);
    fake.device().config[common] |= 15 << 16;
    assert!(matches!(
        error(&fake, &Config::default()),
        NicError::NotOffered { .. }
    ));
    // A doorbell beyond its structure.
    let fake = Fake::new();
    fake.device().config[common + 5 + 3] = 4;
    assert!(matches!(
        error(&fake, &Config::default()),
        NicError::NotOffered { .. }
    ));
    assert!(!fake.device().queues[0].enabled);
}

#[test]
fn what_goes_wrong_is_said_and_leaks_nothing() {
    for fault in [Fault::EndlessReset, Fault::RefusesFeatures, Fault::Removed] {
        let fake = Fake::new();
        fake.break_with(fault);
        let said = error(&fake, &Config::default());
        let expected = match fault {
            Fault::EndlessReset => matches!(said, NicError::Timeout { .. }),
            Fault::Removed => said == NicError::Removed,
            _ => matches!(said, NicError::NotOffered { .. }),
        };
        assert!(expected, "{fault:?}: {said:?}");
        assert_eq!(fake.mapped(), 0, "{fault:?}");
        assert!(
            fault == Fault::Removed || pci::is_bus_mastering_off(&fake),
            "{fault:?}"
        );
    }
    let fake = Fake::new();
    fake.device().config[0] = 0x10D3_8086;
    assert!(matches!(
        error(&fake, &Config::default()),
        NicError::UnknownDevice { .. }
    ));
    let fake = Fake::new();
    fake.device().queues[1].max = 0;
    assert!(matches!(
        error(&fake, &Config::default()),
        NicError::NotOffered { .. }
    ));
    let fake = Fake::new();
    fake.device().net[0] = 1;
    assert!(matches!(
        error(&fake, &Config::default()),
        NicError::BadMacAddress(_)
    ));
}

#[test]
fn a_device_without_an_address_is_given_one() {
    let fake = Fake::new();
    fake.offer(Features::VERSION_1);
    assert!(matches!(
        error(&fake, &Config::default()),
        NicError::Config { .. }
    ));
    let mac = MacAddress([2, 0, 0, 0, 0, 1]);
    let config = Config {
        mac_address: Some(mac),
        ..Config::default()
    };
    assert_eq!(Bench::of(fake, &config).nic.mac_address(), mac);
}

#[test]
fn values_out_of_range_are_refused() {
    for config in [
        Config {
            tx_descriptors: 3,
            ..Config::default()
        },
        Config {
            rx_descriptors: 0,
            ..Config::default()
        },
        Config {
            mtu: 575,
            ..Config::default()
        },
        Config {
            queue_pairs: 0,
            ..Config::default()
        },
        Config {
            queue_pairs: 9,
            ..Config::default()
        },
        Config {
            max_fragments: Some(0),
            ..Config::default()
        },
    ] {
        assert!(matches!(
            error(&Fake::new(), &config),
            NicError::Config { .. }
        ));
    }
}

#[test]
fn the_mtu_is_the_lesser_and_buffers_hold_the_larger() {
    let fake = Fake::new();
    fake.device().net[10..].copy_from_slice(&9000u16.to_le_bytes());
    fake.device().offered &= !Features::MRG_RXBUF.bits();
    let bench = Bench::of(fake, &Config::default());
    assert_eq!(bench.nic.capabilities().max_frame_len, 1514);
    let chain = bench.fake.fetch(crate::fake::RX).expect("a buffer");
    assert_eq!(chain.pieces[0].1, 16384);
    let fake = Fake::new();
    fake.device().net[10..].copy_from_slice(&1280u16.to_le_bytes());
    let bench = Bench::of(fake, &Config::default());
    assert_eq!(bench.nic.capabilities().max_frame_len, 1294);
    // Out of range: not negotiated.
    let fake = Fake::new();
    fake.device().net[10..].copy_from_slice(&60_000u16.to_le_bytes());
    let bench = Bench::of(fake, &Config::default());
    assert!(!bench.nic.features().contains(Features::MTU));
}

#[test]
fn rule_7_the_mtu_is_that_of_the_first_answer() {
    for second in [0, 575, 9001, u16::MAX] {
        let fake = Fake::new();
        fake.device().net[10..].copy_from_slice(&1280u16.to_le_bytes());
        fake.device().fickle.push((10, second, false));
        let bench = Bench::of(fake, &Config::default());
        assert_eq!(bench.nic.capabilities().max_frame_len, 1294, "{second}");
    }
}

#[test]
fn the_link_is_what_the_device_says() {
    let mut bench = Bench::new();
    assert!(bench.nic.link().up);
    bench.fake.device().net[6] = 0;
    assert!(!bench.nic.link().up);
    let mut bench = Bench::with(Features::empty(), 4);
    bench.fake.device().net[6] = 0;
    assert!(bench.nic.link().up, "without STATUS it is taken to be up");
    bench.fake.break_with(Fault::Removed);
    assert!(!bench.nic.link().up);
}
