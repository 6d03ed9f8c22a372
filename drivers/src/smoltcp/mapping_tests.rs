use ChecksumOffload as C;

use super::*;

fn device() -> Capabilities {
    let mut capabilities = Capabilities::minimal();
    capabilities.max_fragments = 8;
    capabilities.max_fragment_len = 16_384;
    capabilities
}

fn every(kinds: C) -> impl Iterator<Item = C> {
    (0..=u8::MAX)
        .filter_map(C::from_bits)
        .filter(move |set| kinds.contains(*set))
}

#[test]
fn each_combination_of_checksums_is_mapped_exactly() {
    let kinds = C::IPV4_HEADER | C::TRANSPORT;
    let mut config = Config::default();
    let mut combinations = 0;
    for fragments in [false, true] {
        config.fragments = fragments;
        for tx in every(kinds) {
            for rx in every(kinds) {
                let mut device = device();
                (device.tx_checksum, device.rx_checksum) = (tx, rx);
                let told = Mapping::new(&device, &config)
                    .device_capabilities()
                    .checksum;
                let what = (tx, rx, fragments);
                // smoltcp does what nobody else does.
                assert_eq!(told.ipv4.tx(), !tx.contains(C::IPV4_HEADER), "{what:?}");
                assert_eq!(told.ipv4.rx(), !rx.contains(C::IPV4_HEADER), "{what:?}");
                let tcp = C::TCP_IPV4 | C::TCP_IPV6;
                let udp = C::UDP_IPV4 | C::UDP_IPV6;
                let by_smoltcp = !tx.intersects(tcp | C::GENERIC);
                assert_eq!(told.tcp.tx(), by_smoltcp, "{what:?}");
                assert_eq!(told.tcp.rx(), fragments || !rx.intersects(tcp), "{what:?}");
                assert_eq!(told.udp.tx(), fragments || !tx.intersects(udp), "{what:?}");
                assert_eq!(told.udp.rx(), fragments || !rx.intersects(udp), "{what:?}");
                assert!(told.icmpv4.tx() && told.icmpv4.rx(), "{what:?}");
                assert!(told.icmpv6.tx() && told.icmpv6.rx(), "{what:?}");
                combinations += 1;
            }
        }
    }
    assert_eq!(combinations, 2 * 64 * 64);
}

#[test]
fn the_mtu_is_what_a_gather_list_holds() {
    let mut device = device();
    let told = |device: &Capabilities| {
        let mapping = Mapping::new(device, &Config::default());
        let told = mapping.device_capabilities();
        assert_eq!(told.medium, Medium::Ethernet);
        (told.max_transmission_unit, told.ip_mtu(), mapping.gather)
    };
    assert_eq!(told(&device), (1514, 1500, 1));
    device.max_frame_len = 9014;
    device.max_fragment_len = 2048;
    assert_eq!(told(&device), (9014, 9000, 5));
    device.max_fragments = 3;
    assert_eq!(told(&device), (6144, 6130, 3));
    device.max_fragments = 1;
    device.max_fragment_len = 1024;
    assert_eq!(told(&device), (1024, 1010, 1));
}

#[test]
fn a_burst_is_what_the_user_says() {
    let mut config = Config::default();
    let told = |config: &Config| {
        Mapping::new(&device(), config)
            .device_capabilities()
            .max_burst_size
    };
    assert_eq!(told(&config), None);
    config.max_burst = Some(7);
    assert_eq!(told(&config), Some(7));
}

#[test]
fn segmentation_is_told_of_where_the_device_does_all_of_it() {
    let mut device = device();
    device.tx_checksum = C::IPV4_HEADER | C::TCP_IPV4;
    let mut limits = pagewire_hal::Segmentation::new(30_000, 240);
    limits.ipv4 = true;
    limits.ipv6 = true;
    device.segmentation = Some(limits);
    let config = Config::default();
    let told = |device: &Capabilities, config: &Config| {
        let mapping = Mapping::new(device, config);
        let told = mapping.device_capabilities();
        assert_eq!(told.segmentation.tcpv6, None);
        assert!(told.segmentation.tcpv4.is_none() || !told.checksum.tcp.tx());
        (
            told.segmentation.tcpv4.map(NonZeroUsize::get),
            mapping.gather,
        )
    };
    assert_eq!(told(&device, &config), (Some(54 + 30_000), 2));
    // The length field of IPv4 is the limit, then the gather list.
    let mut larger = device;
    if let Some(limits) = &mut larger.segmentation {
        limits.max_payload_len = 1 << 20;
    }
    assert_eq!(told(&larger, &config), (Some(14 + 65_535), 5));
    larger.max_fragments = 2;
    assert_eq!(told(&larger, &config), (Some(32_768), 2));
    // What is missing: a checksum, the family, room for options, buffers, a length worth it.
    for missing in [C::IPV4_HEADER, C::TCP_IPV4] {
        let mut less = device;
        less.tx_checksum.remove(missing);
        assert_eq!(told(&less, &config), (None, 1), "{missing:?}");
    }
    for change in [
        |limits: &mut pagewire_hal::Segmentation| limits.ipv4 = false,
        |limits: &mut pagewire_hal::Segmentation| limits.max_header_len = 93,
        |limits: &mut pagewire_hal::Segmentation| limits.max_payload_len = 1460,
    ] {
        let mut less = device;
        less.segmentation.as_mut().map(change);
        assert_eq!(told(&less, &config), (None, 1));
    }
    let mut without = config;
    without.segmentation_buffers = 0;
    assert_eq!(told(&device, &without), (None, 1));
}
