//! What needs no device.

use std::format;
use std::string::ToString;

use crate::{Config, DRIVERS, Driver, KnownIds, find, known, supported};

#[test]
fn the_table_is_that_of_the_drivers() {
    for vendor in [0x8086, 0x1AF4, 0x15AD, 0, u16::MAX] {
        for device in 0..=u16::MAX {
            let e1000e = pagewire_e1000e::supported(vendor, device);
            let virtio = pagewire_virtio::supported(vendor, device);
            let ixgbe = pagewire_ixgbe::supported(vendor, device);
            let by_drivers = match (e1000e, ixgbe, virtio) {
                (Some(info), None, None) => Some((Driver::E1000e, info.name, info.tested)),
                (None, Some(info), None) => Some((Driver::Ixgbe, info.name, info.tested)),
                (None, None, Some(info)) => Some((Driver::Virtio, info.name, true)),
                (None, None, None) => None,
                _ => panic!("{vendor:04x}:{device:04x} has two drivers"),
            };
            let here = find(vendor, device).zip(known(vendor, device));
            let here =
                here.map(|(info, known)| (info.driver, known.name, known.tested_on.is_some()));
            assert_eq!(here, by_drivers, "{vendor:04x}:{device:04x}");
        }
    }
}

#[test]
fn no_device_is_listed_twice() {
    let mut ids: std::vec::Vec<_> = supported()
        .map(|(_, known)| (known.vendor, known.device))
        .collect();
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all);
    assert_eq!(all, DRIVERS.iter().map(|info| info.devices.len()).sum());
}

#[test]
fn an_error_message_can_say_what_would_be_supported() {
    let text = KnownIds.to_string();
    for part in [
        "8086:10d3 (e1000e 82574L)",
        "8086:10f7 (ixgbe 82599 KX4)",
        "8086:1528 (ixgbe X540T)",
        "1af4:1041 (virtio-net)",
        "1af4:1000",
    ] {
        assert!(text.contains(part), "{text}");
    }
    for untested in ["10f6", "10f8"] {
        assert!(!text.contains(untested), "{untested}: {text}");
    }
}

#[test]
fn what_is_common_reaches_each_driver() {
    let mut config = Config {
        mtu: 4000,
        tx_descriptors: 32,
        rx_descriptors: 64,
        queue_pairs: 3,
        max_fragments: Some(5),
        checksum_offload: false,
        all_multicast: false,
        promiscuous: true,
        ..Config::default()
    };
    config.e1000e.allow_untested = true;
    config.ixgbe.segmentation = false;
    // What is common takes the place of this.
    config.virtio.mtu = 600;
    config.e1000e.tx_descriptors = 8;
    config.ixgbe.queue_pairs = 16;
    let (e1000e, ixgbe, virtio) = (config.for_e1000e(), config.for_ixgbe(), config.for_virtio());
    let common = "(4000, 32, 64, Some(5), false, false, true)";
    let seen = (
        e1000e.mtu,
        e1000e.tx_descriptors,
        e1000e.rx_descriptors,
        e1000e.max_fragments,
        e1000e.checksum_offload,
        e1000e.all_multicast,
        e1000e.promiscuous,
    );
    assert_eq!(format!("{seen:?}"), common);
    let seen = (
        ixgbe.mtu,
        ixgbe.tx_descriptors,
        ixgbe.rx_descriptors,
        ixgbe.max_fragments,
        ixgbe.checksum_offload,
        ixgbe.all_multicast,
        ixgbe.promiscuous,
    );
    assert_eq!(format!("{seen:?}"), common);
    let seen = (
        virtio.mtu,
        virtio.tx_descriptors,
        virtio.rx_descriptors,
        virtio.max_fragments,
        virtio.features.contains(pagewire_virtio::Features::CSUM),
        virtio.all_multicast,
        virtio.promiscuous,
    );
    assert_eq!(format!("{seen:?}"), common);
    assert_eq!((ixgbe.queue_pairs, virtio.queue_pairs), (3, 3));
    assert!(e1000e.allow_untested && !ixgbe.allow_untested && !ixgbe.segmentation);
    config.queue_pairs = 16;
    let (ixgbe, virtio) = (config.for_ixgbe(), config.for_virtio());
    assert_eq!(ixgbe.queue_pairs, 16);
    assert_eq!(virtio.queue_pairs, 8, "as many as its driver has");
}

#[test]
fn the_defaults_are_those_of_the_drivers() {
    let config = Config::default();
    assert_eq!(config.for_e1000e(), pagewire_e1000e::Config::default());
    // But for the rings, which are as long for all devices.
    let mut ixgbe = pagewire_ixgbe::Config::default();
    (ixgbe.tx_descriptors, ixgbe.rx_descriptors) = (256, 256);
    assert_eq!(config.for_ixgbe(), ixgbe);
    assert_eq!(config.for_virtio(), pagewire_virtio::Config::default());
}

#[test]
fn the_number_of_queue_pairs_has_bounds() {
    for (queue_pairs, good) in [(0, false), (1, true), (16, true), (17, false)] {
        let config = Config {
            queue_pairs,
            ..Config::default()
        };
        assert_eq!(config.check().is_ok(), good, "{queue_pairs}");
    }
}
