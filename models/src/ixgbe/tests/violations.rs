//! Each rule, broken once.

use super::super::{DeviceId, Latitude, ModelConfig, Rules};
use super::rig::*;
use crate::Device;

/// Sends one frame after `spoil` has had its way with its descriptors.
fn spoiled(spoil: impl FnOnce(&mut Rig)) -> Rig {
    let mut rig = Rig::plain();
    spoil(&mut rig);
    rig.doorbell();
    rig.steps(4);
    rig
}

fn frame(rig: &mut Rig, len: usize) -> u64 {
    rig.put(PAYLOAD, &pattern(len, 1))
}

#[test]
fn descriptors_are_judged() {
    type Spoil = fn(&mut Rig, u64);
    let cases: [(&str, Spoil); 14] = [
        ("without length", |rig, at| {
            rig.push(data(at, 60, IFCS, 0, 60));
            rig.push(data(at, 0, LAST, 0, 60));
        }),
        ("more than 16 KiB", |rig, at| {
            rig.push(data(at, 16 * 1024 + 1, LAST, 0, 16 * 1024 + 1));
        }),
        ("nothing to read", |rig, at| {
            rig.push(data(at - 0x100_0000, 60, LAST, 0, 60));
        }),
        ("less than 17 bytes", |rig, at| {
            rig.push(data(at, 16, LAST, 0, 16));
        }),
        ("more than 15.5 KiB", |rig, at| {
            rig.push(data(at, 8000, IFCS, 0, 16_000));
            rig.push(data(at, 8000, LAST, 0, 16_000));
        }),
        ("PAYLEN is 61", |rig, at| {
            rig.push(data(at, 60, LAST, 0, 61));
        }),
        ("IFCS is off", |rig, at| {
            rig.push(data(at, 60, EOP | RS, 0, 60));
        }),
        ("RS without EOP", |rig, at| {
            rig.push(data(at, 60, IFCS | RS, 0, 120));
            rig.push(data(at, 60, LAST, 0, 120));
        }),
        ("its status is not zero", |rig, at| {
            rig.push(data(at, 60, LAST, 1, 60));
        }),
        ("reserved bit of DCMD", |rig, at| {
            rig.push(data(at, 60, LAST | 1 << 26, 0, 60));
        }),
        ("reserved bit of POPTS", |rig, at| {
            rig.push(data(at, 60, LAST, 1 << 12, 60));
        }),
        ("legacy", |rig, at| {
            let mut raw = data(at, 60, LAST, 0, 0);
            raw[11] &= !0x20;
            rig.push(raw);
        }),
        ("no completion asked for", |rig, at| {
            rig.push(data(at, 60, EOP | IFCS, 0, 60));
        }),
        ("middle of a frame", |rig, at| {
            rig.push(data(at, 60, IFCS, 0, 60));
        }),
    ];
    for (text, spoil) in cases {
        let mut rig = spoiled(|rig| {
            let at = frame(rig, 200);
            spoil(rig, at);
        });
        rig.expect_violation(text);
    }
}

/// Sends a TCP frame with the given context, and options beside TXSM and IXSM.
fn offloaded(lengths: (u32, u32, u32), kind: u32, mss: u32, command: u32) -> Rig {
    spoiled(|rig| {
        let segments = command & TSE != 0;
        let mut frame = ip_frame(4, 6, &pattern(3000, 1));
        seed_checksum(&mut frame, segments);
        if segments {
            frame[16..18].fill(0);
        }
        rig.push(context(lengths, kind, mss, 0));
        let payload = if segments { 3000 } else { frame.len() };
        rig.post(&frame, &[], command, TXSM | IXSM, payload);
    })
}

#[test]
fn contexts_are_judged_with_the_frame_that_uses_them() {
    let tcp = IPV4 | TCP;
    offloaded((14, 20, 0), tcp, 0, 0).expect_clean();
    offloaded((14, 20, 20), tcp, 1460, TSE).expect_clean();
    let cases = [
        ("MACLEN is not from 14", (13, 20, 20), tcp, 1460, TSE),
        ("IPLEN is not from 20", (14, 19, 20), tcp, 1460, TSE),
        ("EtherType", (18, 20, 0), tcp, 0, 0),
        ("length of the IPv4 header", (14, 24, 20), tcp, 1460, TSE),
        ("L4LEN is not from 8", (14, 20, 7), tcp, 1460, TSE),
        ("L4LEN is not from 8", (14, 20, 65), tcp, 1460, TSE),
        ("length of the TCP header", (14, 20, 24), tcp, 1460, TSE),
        ("MSS is zero", (14, 20, 20), tcp, 0, TSE),
        ("MSS makes frames", (14, 20, 20), tcp, 15_900, TSE),
        ("anything but TCP", (14, 20, 20), IPV4, 1460, TSE),
        ("less than an IPv6 header", (14, 20, 20), TCP, 1460, TSE),
        ("L4T is not the protocol", (14, 20, 0), IPV4, 0, 0),
        ("EtherType", (14, 40, 0), TCP, 0, 0),
    ];
    for (text, lengths, kind, mss, command) in cases {
        offloaded(lengths, kind, mss, command).expect_violation(text);
    }
}

#[test]
fn headers_are_judged_before_they_are_completed() {
    type Spoil = fn(&mut [u8]);
    let cases: [(&str, u32, Spoil); 5] = [
        ("the seed is not the sum of the pseudo-header", 0, |f| {
            f[50] ^= 1
        }),
        ("without a length", TSE, |f| f[50] ^= 1),
        ("is summed as well", 0, |f| f[24] = 1),
        ("total length", TSE, |f| f[17] = 40),
        ("TCP header", TSE, |f| f[46] = 0x60),
    ];
    for (text, command, spoil) in cases {
        let mut rig = spoiled(|rig| {
            let segments = command & TSE != 0;
            let mut frame = ip_frame(4, 6, &pattern(2000, 1));
            seed_checksum(&mut frame, segments);
            if segments {
                frame[16..18].fill(0);
            }
            spoil(&mut frame);
            rig.push(context((14, 20, 20), IPV4 | TCP, 1000, 0));
            let payload = if segments { 2000 } else { frame.len() };
            rig.post(&frame, &[], command, TXSM | IXSM, payload);
        });
        rig.expect_violation(text);
    }
}

/// DPDK leaves the length of the whole in the header: each segment has its own all the same.
#[test]
fn a_length_that_is_left_is_written_over() {
    for version in [4, 6] {
        let mut rig = Rig::with(ModelConfig {
            latitude: Latitude::none(),
            rules: Rules::dpdk(),
            mac: MAC,
            ..ModelConfig::default()
        })
        .warmed_up();
        let mut frame = ip_frame(version, 6, &pattern(2000, 1));
        seed_checksum(&mut frame, true);
        let (ip, kind) = if version == 4 {
            (20, IPV4 | TCP)
        } else {
            (40, TCP)
        };
        let options = TXSM | if version == 4 { IXSM } else { 0 };
        rig.push(context((14, ip, 20), kind, 1000, 0));
        let last = rig.post(&frame, &[], TSE, options, 2000);
        rig.doorbell();
        rig.until_done(last);
        let sent = rig.sent();
        assert_eq!(sent.len(), 2);
        assert!(sent.iter().all(|segment| verifies(segment)));
        rig.expect_clean();
    }
}

#[test]
fn slots_and_the_place_of_contexts_are_judged() {
    let mut rig = spoiled(|rig| {
        rig.push(context((14, 20, 0), IPV4 | TCP, 0, 2));
    });
    rig.expect_violation("beyond the second one");
    let mut rig = spoiled(|rig| {
        let at = frame(rig, 60);
        rig.push(data(at, 60, IFCS, 0, 120));
        rig.push(context((14, 20, 0), IPV4 | TCP, 0, 0));
        rig.push(data(at, 60, LAST, 0, 120));
    });
    rig.expect_violation("inside a frame");
    let mut rig = spoiled(|rig| {
        rig.push(context((14, 20, 0), IPV4 | TCP, 0, 0));
        let frame = ip_frame(4, 6, &[]);
        rig.post(&frame, &[], 0, TXSM | 1 << 4, frame.len());
    });
    rig.expect_violation("no context in its slot");
    let mut rig = spoiled(|rig| {
        let mut raw = context((14, 20, 0), IPV4 | TCP, 0, 0);
        raw[11] |= 8;
        rig.push(raw);
    });
    rig.expect_violation("a context has not");
}

#[test]
fn a_repeated_header_in_five_pieces_is_reported() {
    let mut rig = spoiled(|rig| {
        let mut frame = ip_frame(4, 6, &pattern(2000, 1));
        seed_checksum(&mut frame, true);
        frame[16..18].fill(0);
        rig.push(context((14, 20, 20), IPV4 | TCP, 1000, 0));
        rig.post(&frame, &[10, 10, 10, 10, 14], TSE, TXSM | IXSM, 2000);
    });
    rig.expect_violation("more than four descriptors");
}

#[test]
fn a_tail_is_judged() {
    let mut rig = Rig::plain();
    rig.write(0x6018, ENTRIES);
    rig.expect_violation("in a ring of 64");
    rig.device.hold_completions(true);
    let at = frame(&mut rig, 60);
    for _ in 0..40 {
        rig.push(data(at, 60, LAST, 0, 60));
    }
    rig.doorbell();
    rig.steps(3);
    rig.expect_clean();
    rig.write(0x6018, 10);
    rig.expect_violation("went back");
    let mut rig = Rig::plain();
    rig.write(0x1018, ENTRIES + 1);
    rig.expect_violation("in a ring of 64");
    // Queue 7 was never enabled.
    rig.write(0x6000 + 7 * 0x40 + 8, 1024);
    rig.write(0x6000 + 7 * 0x40 + 0x18, 5);
    rig.expect_violation("while it is disabled");
    rig.write(0x1000 + 7 * 0x40 + 8, 1024);
    rig.write(0x1000 + 7 * 0x40 + 0x18, 5);
    rig.expect_violation("before RXDCTL.ENABLE");
}

/// A thread that does not know of a reset may ring meanwhile; the driver must put the tail right.
#[test]
fn a_tail_of_a_stopped_device_is_kept_and_judged_when_the_queue_is_switched_on() {
    for (ring, place) in [(0x6000, TX_RING), (0x1000, RX_RING)] {
        let mut rig = Rig::cold(0, Latitude::none());
        rig.write(ring + 0x18, 5);
        assert_eq!(rig.read(ring + 0x18), 5);
        rig.initialise();
        assert_eq!(rig.read(ring + 0x18), 0, "a reset clears it");
        rig.set(0, 1 << 2);
        rig.write(ring + 0x18, 5);
        rig.clear(0, 1 << 2);
        rig.expect_clean();
        rig.write(ring, (MEMORY + place as u64) as u32);
        rig.write(ring + 4, ((MEMORY + place as u64) >> 32) as u32);
        rig.write(ring + 8, ENTRIES * 16);
        rig.write(ring + 0x14, 1 << 25 | 2 | 4 << 8);
        rig.write(ring + 0x28, 1 << 25);
        rig.expect_violation("enabled with head 0 and tail 5");
    }
}

#[test]
fn enable_must_be_read_before_the_tail_moves() {
    let mut rig = Rig::cold(0, Latitude::none());
    rig.initialise();
    rig.ring(0x6000, TX_RING);
    rig.write(0x4a80, 1);
    rig.write(0x6028, 1 << 25);
    rig.write(0x6018, 1);
    rig.expect_violation("before TXDCTL.ENABLE was read");
    // To look while it is not set is not enough.
    let slow = Latitude {
        slow_queue_enable: true,
        ..Latitude::none()
    };
    let mut early = 0;
    for seed in 0..20 {
        let mut rig = Rig::cold(seed, slow);
        rig.initialise();
        rig.ring(0x6000, TX_RING);
        rig.write(0x4a80, 1);
        rig.write(0x6028, 1 << 25);
        if rig.read(0x6028) & 1 << 25 != 0 {
            continue;
        }
        early += 1;
        rig.steps(200);
        rig.write(0x6018, 1);
        rig.expect_violation("before TXDCTL.ENABLE was read");
    }
    assert!(early > 0);
}

#[test]
fn thresholds_are_judged() {
    for (control, text) in [
        (36 | 8 << 8 | 5 << 16, "more than 40"),
        (32, "HTHRESH of zero"),
    ] {
        let mut rig = Rig::cold(0, Latitude::none());
        rig.initialise();
        rig.start_transmit(0, control);
        rig.expect_violation(text);
    }
    let mut rig = Rig::cold(0, Latitude::none());
    rig.initialise();
    rig.start_transmit(0, 1 << 16);
    rig.until("link", |rig| rig.read(0x42a4) & 1 << 30 != 0);
    rig.expect_clean();
    rig.send(&pattern(60, 1));
    rig.expect_violation("RS, and WTHRESH is not zero");
}

#[test]
fn head_write_back_is_judged() {
    for (low, dca, control, text) in [
        (0x11, 0, 1 << 16, "head write-back with WTHRESH"),
        (0x09, 0, 0, "16-byte aligned"),
        (0x11, 1 << 11, 0, "relaxed ordering"),
    ] {
        let mut rig = Rig::cold(0, Latitude::none());
        rig.initialise();
        rig.write(0x6038, low);
        rig.write(0x600c, dca);
        rig.start_transmit(0, control);
        rig.expect_violation(text);
    }
}

/// A cold device that was set up but for what `skip` undoes, with its receiver enabled.
fn enabled_after(skip: impl FnOnce(&mut Rig)) -> Rig {
    let mut rig = Rig::cold(0, Latitude::none());
    rig.initialise();
    rig.start_receive(0);
    rig.expect_clean();
    skip(&mut rig);
    rig.start_receiver();
    rig
}

#[test]
fn the_receiver_is_enabled_when_all_else_is_done() {
    enabled_after(|_| {}).expect_clean();
    type Skip = fn(&mut Rig);
    let cases: [(&str, Skip); 4] = [
        ("unequal to HLREG0.RXCRCSTRP", |rig| rig.clear(0x2f00, 2)),
        ("RSCFRSTSIZE must be 0", |rig| rig.set(0x2f00, 1 << 20)),
        ("RSCACKC", |rig| rig.clear(0x2f00, 1 << 25)),
        ("packet buffers 1 to 7", |rig| rig.write(0x3c04, 1 << 10)),
    ];
    for (text, skip) in cases {
        enabled_after(skip).expect_violation(text);
    }
    let mut rig = enabled_after(|_| {});
    rig.write(0x3000, 0);
    rig.write(0x3000, 1);
    rig.expect_violation("data path is not halted");
}

#[test]
fn nothing_is_enabled_before_the_eeprom_was_read() {
    let mut found = 0;
    for seed in 0..20 {
        let mut rig = Rig::cold(seed, Latitude::default());
        rig.reset();
        if rig.read(0x1_0010) & 1 << 9 == 0 {
            rig.write(0x4a80, 1);
            rig.expect_violation("DMATXCTL.TE before EEC.Auto_RD");
            found += 1;
        }
    }
    assert!(found > 5, "seeds 0 to 19: {found}");
}

#[test]
fn the_receive_queue_is_judged() {
    let cases = [
        (0x1014, 2, "DESCTYPE 0"),
        (0x1014, 5 << 25 | 2, "DESCTYPE 5"),
        (0x1014, 1 << 25, "1 to 16 KiB"),
        (0x1014, 1 << 25 | 17, "1 to 16 KiB"),
        (0x1008, 0, "base and the length"),
    ];
    for (at, value, text) in cases {
        let mut rig = Rig::cold(0, Latitude::none());
        rig.initialise();
        rig.ring(0x1000, RX_RING);
        rig.write(0x1014, 1 << 25 | 2);
        rig.write(at, value);
        rig.write(0x1028, 1 << 25);
        rig.expect_violation(text);
    }
    let mut rig = Rig::plain();
    rig.write(0x1014, 1 << 25 | 4);
    rig.expect_violation("while the queue is enabled");
    rig.write(0x6008, 128);
    rig.expect_violation("while the queue is enabled");
}

#[test]
fn what_a_frame_needs_is_judged_when_it_comes() {
    let mut frame = pattern(64, 1);
    frame[..6].copy_from_slice(&MAC);
    for (at, text) in [(0x0018, "NS_DIS"), (0x100c, "DCA_RXCTRL")] {
        let mut rig = Rig::plain();
        if at == 0x0018 {
            rig.clear(at, 1 << 16);
        } else {
            rig.set(at, 1 << 12);
        }
        rig.give(0, 2);
        rig.deliver(&frame);
        rig.until_received(0, 0);
        rig.expect_violation(text);
    }
    let mut rig = Rig::plain();
    rig.memory.bytes[RX_RING + 8] = 1;
    rig.write(0x1018, 1);
    rig.step();
    rig.expect_violation("DD would be seen");
}

#[test]
fn order_between_transmit_registers_is_judged() {
    let mut rig = Rig::cold(0, Latitude::none());
    rig.initialise();
    rig.write(0x8100, 0xfff);
    rig.expect_violation("arbiter is on");
    rig.ring(0x6040, TX_RING);
    rig.write(0x6068, 1 << 25);
    rig.expect_violation("before DMATXCTL.TE");
    let mut rig = Rig::plain();
    rig.write(0x0000, 1 << 26);
    rig.expect_violation("without a master disable");
    let mut rig = Rig::plain();
    rig.device.config_write(4, 2);
    rig.write(0x6018, 1);
    rig.expect_violation("bus mastering is off");
}

#[test]
fn interrupts_need_gpie() {
    let mut rig = Rig::plain();
    rig.write(0x0898, 0);
    rig.write(0x0880, 1);
    rig.step();
    rig.expect_violation("Multiple_MSIX");
    rig.write(0x0900, 0xc0);
    rig.expect_violation("IVAR");
}

#[test]
fn what_linux_does_not_do_is_a_switch() {
    let config = |beyond_linux, every_frame_reports| ModelConfig {
        latitude: Latitude::none(),
        rules: Rules {
            beyond_linux,
            every_frame_reports,
            ..Rules::default()
        },
        mac: MAC,
        ..ModelConfig::default()
    };
    for strict in [false, true] {
        let mut rig = Rig::with(config(strict, false));
        let command = rig.device.config_read(4);
        rig.device.config_write(4, command | 4);
        rig.reset();
        rig.write(0x2f00, 1 << 1 | 1 << 25 | 1 << 26);
        for buffer in 1..8 {
            rig.write(0x3c00 + 4 * buffer, 0);
        }
        rig.start_receiver();
        if strict {
            rig.expect_violation("all of MTA");
        } else {
            rig.expect_clean();
        }
    }
    let mut rig = Rig::with(config(true, true));
    rig.initialise();
    rig.start_transmit(0, 0);
    rig.until("link", |rig| rig.read(0x42a4) & 1 << 30 != 0);
    let at = frame(&mut rig, 60);
    rig.push(data(at, 60, EOP | IFCS, 0, 60));
    rig.push(data(at, 60, LAST, 0, 60));
    rig.doorbell();
    rig.steps(3);
    rig.expect_violation("no RS on the last descriptor");
}

#[test]
fn what_dpdk_does_not_do_is_a_switch() {
    for (rules, clean) in [(Rules::dpdk(), true), (Rules::linux(), false)] {
        let mut rig = Rig::with(ModelConfig {
            latitude: Latitude::none(),
            rules,
            mac: MAC,
            ..ModelConfig::default()
        });
        let command = rig.device.config_read(4);
        rig.device.config_write(4, command | 4);
        rig.reset();
        // GPIE is as it was: MSI-X with one vector.
        rig.device.config_write(0x70, 1 << 31);
        rig.write(0x0880, 1 << 20);
        rig.write(0x4a80, 1);
        rig.start_transmit(0, 32);
        rig.write(0x6010, 0);
        rig.start_receive(0);
        rig.write(0x2f00, 1 << 1);
        rig.start_receiver();
        rig.until("link", |rig| rig.read(0x42a4) & 1 << 30 != 0);
        let at = frame(&mut rig, 60);
        rig.push(data(at, 60, EOP | IFCS, 0, 60));
        rig.doorbell();
        rig.steps(3);
        if clean {
            rig.expect_clean();
            continue;
        }
        let texts = rig.device.take_violations();
        for part in [
            "TE, and packet buffers 1 to 7",
            "RXEN, and packet buffers 1 to 7",
            "HTHRESH of zero",
            "written while the queue is enabled",
            "RSCACKC",
            "Multiple_MSIX",
            "no completion asked for",
        ] {
            assert!(
                texts.iter().any(|text| text.contains(part)),
                "{part} in {texts:?}"
            );
        }
    }
}

#[test]
fn a_long_silence_is_reported() {
    let mut rig = Rig::plain();
    let at = frame(&mut rig, 60);
    for round in 0..4 {
        for index in 0..30 {
            let last = index == 29 && round == 3;
            let command = if last { LAST } else { EOP | IFCS };
            rig.push(data(at, 60, command, 0, 60));
        }
        rig.doorbell();
        rig.steps(2);
    }
    rig.expect_violation("no RS in 80");
}

#[test]
fn an_x540_may_start_to_receive_as_linux_has_it() {
    for (device, linux, clean) in [
        (DeviceId::Kx4, true, false),
        (DeviceId::X540T, true, true),
        (DeviceId::X540T, false, false),
    ] {
        let mut config = ModelConfig {
            latitude: Latitude::none(),
            device,
            ..ModelConfig::default()
        };
        if linux {
            config.rules = Rules::linux();
        }
        let mut rig = Rig::with(config).warmed_up();
        rig.write(0x3000, 0);
        // SECRXCTRL: the path is open.
        rig.write(0x8d00, 0);
        rig.steps(2);
        rig.device.take_violations();
        rig.write(0x3000, 1);
        let said = rig.device.take_violations().join("; ");
        assert_eq!(
            !said.contains("data path"),
            clean,
            "{device:?}, {linux}: {said}"
        );
    }
}
