//! Opening: order, errors, configuration; and the control part of a running device.

use core::time::Duration;

use pagewire_hal::{
    Causes, Instant, LinkState, MacAddress, Nic, NicError, Phase, Platform, PlatformError,
};

use super::{open, open_with};
use crate::fake::{Fake, Fault, MAC, X540T, with_id};
use crate::regs::PerQueue;
use crate::{Config, Ixgbe, RssKey, regs, supported};

const BUS_MASTER: u32 = 1 << 2;
const ENABLE: u32 = 1 << 25;

fn open_error(fake: &Fake) -> NicError {
    Ixgbe::open(fake.clone(), &Config::default()).expect_err("this device does not open")
}

/// Position of the first write to `register` that `is` accepts.
fn first_write(log: &[(u32, u32)], register: u32, is: impl Fn(u32) -> bool) -> usize {
    log.iter()
        .position(|(offset, value)| *offset == register && is(*value))
        .expect("written")
}

#[test]
fn a_device_opens_with_its_address_and_its_link() {
    for (fake, name) in [
        (Fake::new(), "ixgbe 82599 KX4"),
        (with_id(X540T), "ixgbe X540T"),
    ] {
        let mut nic = Ixgbe::open(fake.clone(), &Config::default()).expect("opens");
        assert_eq!(nic.name(), name);
        assert_eq!(nic.mac_address(), MacAddress(MAC));
        let link = LinkState {
            up: true,
            speed_mbps: 10_000,
            full_duplex: true,
        };
        assert_eq!(nic.link(), link);
        assert_eq!(nic.poll(Instant::ZERO), Ok(Phase::Running(link)));
        assert!(nic.take_queues(0).is_some() && nic.take_queues(0).is_none());
        assert!(nic.take_queues(1).is_none() && nic.take_queues(16).is_none());
        let device = fake.device();
        assert_ne!(device.config[1] & BUS_MASTER, 0);
        assert_eq!(device.get(regs::SW_FW_SYNC.0), 0, "all was given back");
        assert_eq!(device.get(regs::SWSM.0) & 0b11, 0, "all was given back");
    }
}

#[test]
fn the_order_of_initialisation_is_kept() {
    let (fake, _nic, _tx, _rx) = open();
    let device = fake.device();
    let log = &device.log;
    let order = [
        first_write(log, regs::EIMC.0, |v| v == 0x7FFF_FFFF),
        first_write(log, regs::RXCTRL.0, |v| v & 1 == 0),
        first_write(log, regs::TXDCTL.0, |v| v & ENABLE == 0),
        first_write(log, regs::CTRL.0, |v| v & 1 << 2 != 0),
        first_write(log, regs::CTRL.0, |v| v & 1 << 26 != 0),
        first_write(log, regs::EERD.0, |_| true),
        first_write(log, regs::RXPBSIZE.0, |v| v == 512 << 10),
        first_write(log, regs::MTQC.0, |v| v == 0),
        first_write(log, regs::TDBAL.0, |_| true),
        first_write(log, regs::RDBAL.0, |_| true),
        first_write(log, regs::DMATXCTL.0, |v| v & 1 != 0),
        first_write(log, regs::TXDCTL.0, |v| v & ENABLE != 0),
        first_write(log, regs::RXDCTL.0, |v| v & ENABLE != 0),
        first_write(log, regs::RDT.0, |v| v == 511),
        first_write(log, regs::SECRXCTRL.0, |v| v & 2 != 0),
        first_write(log, regs::RXCTRL.0, |v| v & 1 != 0),
        first_write(log, regs::SECRXCTRL.0, |v| v & 2 == 0),
    ];
    assert!(order.is_sorted(), "{order:?}");
    let moved = |&(at, value): &(u32, u32)| at == regs::TDT.0 && value != 0;
    assert!(!log.iter().any(moved), "no tail yet");
    assert_eq!(device.get(regs::TDLEN.0), 512 * 16);
    assert_eq!(device.get(regs::RDLEN.0), 512 * 16);
    assert_eq!(device.get(regs::TDBAL.0) % 128, 0);
    assert_eq!(device.get(regs::TDBAH.0), 1, "addresses have 64 bits");
    assert_eq!(device.get(regs::TXDCTL.0), ENABLE | 1 << 8 | 32);
    assert_eq!(device.get(regs::CTRL.0) & 1 << 2, 0, "mastering allowed");
    assert_eq!(device.get(regs::HLREG0.0) & 0x8407, 0x0403, "CRC, padding");
    assert_eq!(device.get(regs::RDRXCTL.0), 0x0600_000A);
    assert_eq!(device.get(regs::DCA_TXCTRL.0), 0x2200);
    assert_eq!(device.get(regs::DCA_RXCTRL.0), 0x0200);
    assert_eq!(device.get(regs::FCRTH.0), (512 - 24) << 10);
    assert_eq!(device.get(regs::RXPBSIZE.at(1).0), 0);
    assert_eq!(device.get(regs::RTTDCS.0) & 1 << 6, 0);
}

/// Found by the model of the 82599: the buffers were set up with the arbiter on.
#[test]
fn the_transmit_arbiter_is_off_while_its_buffers_are_set_up() {
    let (fake, _nic, _tx, _rx) = open();
    let device = fake.device();
    let off = 1 << 6;
    let mut arbiter = 0;
    let mut seen = 0;
    for (offset, value) in &device.log {
        match *offset {
            at if at == regs::RTTDCS.0 => arbiter = *value & off,
            at if [
                regs::TXPBSIZE,
                regs::TXPBTHRESH,
                regs::DTXMXSZRQ,
                regs::MTQC,
            ]
            .iter()
            .any(|register| register.0 == at) =>
            {
                assert_eq!(arbiter, off, "{at:#x}");
                seen += 1;
            }
            _ => {}
        }
    }
    assert_eq!((seen, arbiter), (4, 0));
}

#[test]
fn each_step_that_hangs_ends_in_its_own_error() {
    let cases = [
        (Fault::StuckMaster, "GIO master disable"),
        (Fault::StuckPending, "GIO master disable"),
        (Fault::EndlessReset, "the reset"),
        (Fault::NoAutoRead, "reading of the EEPROM"),
        (Fault::NoDmaInit, "the reset"),
        (Fault::SilentEeprom, "word of the EEPROM"),
        (Fault::GreedyFirmware, "semaphore"),
        (Fault::NoTxEnable, "TXDCTL"),
        (Fault::NoRxEnable, "RXDCTL"),
    ];
    for (fault, part) in cases {
        let fake = Fake::with_fault(fault);
        match open_error(&fake) {
            NicError::Timeout { what, .. } => assert!(what.contains(part), "{fault:?}: {what}"),
            other => panic!("{fault:?}: {other}"),
        }
        assert_eq!(fake.mapped(), 0, "{fault:?}: nothing leaks");
        assert_eq!(fake.device().config[1] & BUS_MASTER, 0, "{fault:?}");
    }
    let greedy = with_id(X540T);
    greedy.break_with(Fault::GreedyFirmware);
    assert!(matches!(open_error(&greedy), NicError::Timeout { .. }));
}

#[test]
fn a_device_that_opens_late_opens() {
    // The GIO status clears after the flush and the second reset alone; a driver has died with the
    // semaphore; the receive path is busy (Linux goes on, too).
    for fault in [Fault::SlowMaster, Fault::DeadDriver, Fault::BusyReceive] {
        let fake = Fake::with_fault(fault);
        assert!(
            Ixgbe::open(fake.clone(), &Config::default()).is_ok(),
            "{fault:?}"
        );
        let expected = if fault == Fault::SlowMaster { 3 } else { 2 };
        assert_eq!(fake.device().resets, expected, "{fault:?}");
    }
}

#[test]
fn a_resource_that_nobody_releases_is_taken_in_the_end() {
    let fake = Fake::new();
    fake.device().set(regs::SW_FW_SYNC.0, 0b1 << 5 | 0b1000);
    assert!(Ixgbe::open(fake.clone(), &Config::default()).is_ok());
    assert_eq!(fake.device().get(regs::SW_FW_SYNC.0), 0b1 << 5);
}

#[test]
fn the_flush_before_two_resets_keeps_the_order_of_the_specification_update() {
    let fake = Fake::with_fault(Fault::SlowMaster);
    let _nic = Ixgbe::open(fake.clone(), &Config::default()).expect("opens");
    let device = fake.device();
    let log = &device.log;
    let order = [
        first_write(log, regs::CTRL.0, |v| v & 1 << 2 != 0),
        first_write(log, regs::HLREG0.0, |v| v & 1 << 15 != 0),
        first_write(log, regs::GCR_EXT.0, |v| v & 1 << 30 != 0),
        first_write(log, regs::GCR_EXT.0, |v| v & 1 << 30 == 0),
        first_write(log, regs::HLREG0.0, |v| v & 1 << 15 == 0),
        first_write(log, regs::CTRL.0, |v| v & 1 << 26 != 0),
    ];
    assert!(order.is_sorted(), "{order:?}");
}

#[test]
fn a_device_that_is_gone_is_said_to_be_gone() {
    assert_eq!(
        open_error(&Fake::with_fault(Fault::Removed)),
        NicError::Removed
    );
    let (fake, mut nic, _tx, _rx) = open();
    let before = nic.statistics();
    fake.break_with(Fault::Removed);
    assert_eq!(nic.statistics(), before, "all ones are not counted");
    assert_eq!(nic.link(), LinkState::default());
    assert_eq!(nic.poll(Instant::ZERO), Err(NicError::Removed));
    assert_eq!(nic.poll(Instant::ZERO), Ok(Phase::Failed));
    nic.begin_reset(Instant::ZERO);
    assert_eq!(nic.poll(Instant::ZERO), Ok(Phase::Failed));
}

#[test]
fn a_damaged_eeprom_is_refused() {
    // In the first words, and in a section.
    for word in [0x20, 0x82] {
        let fake = Fake::new();
        fake.device().eeprom[word] += 1;
        let expected = NicError::EepromChecksum {
            found: 0xBABB,
            expected: 0xBABA,
        };
        assert_eq!(open_error(&fake), expected, "word {word:#x}");
    }
}

#[test]
fn pointers_that_lead_nowhere_are_left_out() {
    let fake = Fake::new();
    let mut device = fake.device();
    // Four sections that end behind what can be read, or are none: the sum of the words changes.
    let before = device.eeprom[0x3F];
    device.eeprom[0x07] = 0x4000;
    device.eeprom[0x08] = 0xFFFE;
    device.eeprom[0x09] = 0;
    let change = 0x4000u16
        .wrapping_add(0xFFFE)
        .wrapping_sub(3u16.wrapping_mul(0xFFFF));
    device.eeprom[0x3F] = before.wrapping_sub(change);
    drop(device);
    assert!(Ixgbe::open(fake, &Config::default()).is_ok());
}

/// It may have sections of any length, and take its time with each word.
#[test]
fn an_eeprom_without_end_ends_in_an_error() {
    let fake = Fake::with_fault(Fault::SlowEeprom);
    let sections = 0x03..0x0F;
    fake.device().eeprom[sections].fill(0x80);
    fake.device().eeprom[0x80] = 0x3F00;
    match open_error(&fake) {
        NicError::Timeout { what, .. } => assert!(what.contains("EEPROM"), "{what}"),
        other => panic!("{other}"),
    }
    let took = fake.now().saturating_since(Instant::ZERO);
    assert!(took < Duration::from_secs(60), "{took:?}");
    assert_eq!(
        fake.device().get(regs::SW_FW_SYNC.0),
        0,
        "it was given back"
    );
}

#[test]
fn only_known_and_tested_devices_are_opened() {
    for id in [0x10F7, 0x10FC, 0x1528, 0x10FB] {
        assert!(supported(0x8086, id).is_some_and(|info| info.tested));
    }
    assert!(supported(0x8086, 0x10F8).is_some_and(|info| !info.tested));
    assert!(supported(0x8086, 0x10D3).is_none());
    assert!(supported(0x10EC, 0x10F7).is_none());
    let fake = with_id(0x1517_8086);
    assert!(matches!(
        open_error(&fake),
        NicError::Untested { device: 0x1517, .. }
    ));
    let config = Config {
        allow_untested: true,
        ..Config::default()
    };
    assert!(Ixgbe::open(fake, &config).is_ok());
    assert!(matches!(
        open_error(&with_id(0x1234_8086)),
        NicError::UnknownDevice { device: 0x1234, .. }
    ));
}

#[test]
fn values_out_of_range_are_refused() {
    let wrong: [fn(&mut Config); 12] = [
        |c| c.tx_descriptors = 4,
        |c| c.tx_descriptors = 100,
        |c| c.tx_descriptors = 8192,
        |c| c.rx_descriptors = 12,
        |c| c.rx_descriptors = 32768,
        |c| c.mtu = 575,
        |c| c.mtu = 9711,
        |c| c.queue_pairs = 0,
        |c| c.queue_pairs = 17,
        |c| c.max_fragments = Some(0),
        |c| c.interrupt_interval = 1001,
        |c| c.mac_address = Some(MacAddress([1, 0, 0, 0, 0, 1])),
    ];
    for (n, change) in wrong.into_iter().enumerate() {
        let mut config = Config::default();
        change(&mut config);
        let fake = Fake::new();
        let error = Ixgbe::open(fake.clone(), &config).expect_err("out of range");
        assert!(matches!(error, NicError::Config { .. }), "change {n}");
        assert!(fake.device().log.is_empty(), "the device was not touched");
    }
}

#[test]
fn memory_that_runs_out_is_an_error_and_nothing_leaks() {
    for left in 0..3 {
        let fake = Fake::new();
        fake.device().allocations_left = left;
        assert_eq!(
            open_error(&fake),
            NicError::Platform(PlatformError::OutOfMemory)
        );
        assert_eq!(fake.mapped(), 0, "{left} allocations");
    }
}

#[test]
fn the_station_address_can_be_chosen_and_filters_follow_the_configuration() {
    let mac = [2, 0, 0, 0, 0, 7];
    let config = Config {
        mac_address: Some(MacAddress(mac)),
        promiscuous: true,
        ..Config::default()
    };
    let (fake, nic, _tx, _rx) = open_with(&config);
    assert_eq!(nic.mac_address(), MacAddress(mac));
    assert_eq!(fake.device().get(regs::RAL0.0), 2);
    assert_eq!(fake.device().get(regs::RAH0.0), 1 << 31 | 7 << 8);
    assert_eq!(fake.device().get(regs::MPSAR.0), 1, "pool 0");
    assert_eq!(fake.device().get(regs::MPSAR.at(1).0), 0);
    assert_eq!(fake.device().get(regs::FCTRL.0), 0x700);
    let quiet = Config {
        all_multicast: false,
        ..Config::default()
    };
    assert_eq!(open_with(&quiet).0.device().get(regs::FCTRL.0), 0x400);
}

#[test]
fn rss_spreads_over_the_queues_with_the_key_that_was_chosen() {
    let config = Config {
        queue_pairs: 3,
        rss_key: RssKey::Symmetric,
        ..Config::default()
    };
    let (fake, _nic, _tx, _rx) = open_with(&config);
    let device = fake.device();
    assert_eq!(device.get(regs::MRQC.0), 0x0033_0001);
    for n in 0..10 {
        assert_eq!(device.get(regs::RSSRK.at(n).0), 0x5A6D_5A6D);
    }
    let entries = (0..32).flat_map(|n| device.get(regs::RETA.at(n).0).to_le_bytes());
    assert!(
        entries
            .zip((0..3).cycle())
            .all(|(found, queue)| found == queue)
    );
    drop(device);
    let one = open();
    assert_eq!(one.0.device().get(regs::MRQC.0), 0x0033_0001);
    let entries = (0..32).map(|n| one.0.device().get(regs::RETA.at(n).0));
    assert_eq!(entries.max(), Some(0), "one queue, and the hash");
    let standard = Config {
        queue_pairs: 2,
        ..Config::default()
    };
    let device = open_with(&standard);
    assert_eq!(device.0.device().get(regs::RSSRK.0), 0xDA56_5A6D);
}

#[test]
fn a_link_that_is_down_is_negotiated_anew_and_one_that_is_up_is_left_alone() {
    let (fake, ..) = open();
    let restarted = |(at, value): &(u32, u32)| *at == regs::AUTOC.0 && value & 1 << 12 != 0;
    assert!(!fake.device().log.iter().any(restarted));
    let fake = Fake::with_fault(Fault::NoLink);
    let mut nic = Ixgbe::open(fake.clone(), &Config::default()).expect("opens");
    assert!(!nic.link().up);
    assert!(fake.device().log.iter().any(restarted));
    let device = fake.device();
    let reset = first_write(&device.log, regs::CTRL.0, |v| v & 1 << 26 != 0);
    let (_, value) = device.log[reset];
    drop(device);
    assert_ne!(value & 1 << 3, 0, "the link is reset as well");
    fake.repair();
    for (links, speed) in [
        (7 << 28, 10_000),
        (6 << 28, 1000),
        (5 << 28, 100),
        (4 << 28, 0),
    ] {
        fake.device().set(regs::LINKS.0, links);
        assert_eq!(nic.link().speed_mbps, speed);
        assert!(nic.link().up);
    }
}

#[test]
fn interrupts_have_vectors_of_their_own_and_let_through_what_was_taken() {
    let config = Config {
        queue_pairs: 2,
        ..Config::default()
    };
    let (fake, mut nic, _tx, _rx) = open_with(&config);
    assert_eq!(nic.take_interrupts(), Causes::empty());
    assert_eq!(nic.enable_interrupts(), Ok(5));
    assert_eq!(nic.enable_interrupts(), Ok(5));
    {
        let device = fake.device();
        assert_eq!(device.get(regs::IVAR.0), 0x8382_8180);
        assert_eq!(device.get(regs::IVAR_MISC.0), 0x8400);
        assert_eq!(device.get(regs::GPIE.0), 0xC000_0030);
        assert_eq!(device.get(regs::EIMS_EX.0), 0b11111);
        assert_eq!(device.get(regs::EIAM_EX.0), 0b11111);
        assert_eq!(device.get(regs::EIAC.0), 0xFFFF);
        assert_eq!(device.get(regs::EIMS.0), 0x0012_0000);
        assert_eq!(device.get(regs::EITR.at(4).0), 1 << 31 | 24 << 3);
    }
    fake.device().fired = 1 << 2;
    fake.device().log.clear();
    assert_eq!(nic.take_interrupts(), Causes::RECEIVE);
    assert_eq!(fake.device().log, [(regs::EIMS_EX.0, 1 << 2)]);
    fake.device().fired = 1 << 1;
    assert_eq!(nic.take_interrupts(), Causes::TRANSMIT);
    fake.device().fired = 1 << 4;
    fake.device().set(regs::EICR.0, 1 << 20 | 1 << 17 | 1);
    assert_eq!(nic.take_interrupts(), Causes::LINK | Causes::OVERRUN);
    fake.device().log.clear();
    assert_eq!(nic.take_interrupts(), Causes::empty());
    assert!(
        fake.device().log.is_empty(),
        "nothing fired, nothing written"
    );
}

#[test]
fn counters_are_added_up_and_those_from_before_are_not_ours() {
    let (fake, mut nic, _tx, _rx) = open();
    assert_eq!(nic.statistics(), pagewire_hal::Statistics::default());
    for _ in 0..2 {
        let mut device = fake.device();
        for (register, value) in [
            (regs::GPTC.0, 3),
            (regs::QPRC.of(0).0, 4),
            (regs::QPRC.of(15).0, 1),
            (regs::QPRDC.of(1).0, 6),
            (regs::MPC.at(0).0, 7),
            (regs::CRCERRS.0, 8),
            (regs::ROC.0, 9),
            (regs::GOTCL.0, 10),
            (regs::GOTCL.at(1).0, 1),
            (regs::QBRCL.of(0).0, 11),
            (regs::QBRCL.of(15).at(1).0, 1),
        ] {
            device.set(register, value);
        }
        drop(device);
        nic.statistics();
    }
    let found = nic.statistics();
    assert_eq!((found.tx_frames, found.rx_frames), (6, 10));
    assert_eq!((found.rx_no_buffer, found.rx_missed), (12, 14));
    assert_eq!((found.rx_crc_errors, found.rx_length_errors), (16, 18));
    assert_eq!(found.tx_bytes, (1 << 33) + 20);
    // Without the frame check sequences, which were stripped from ten frames.
    assert_eq!(found.rx_bytes, (1 << 33) + 22 + 10 * 4);
}

#[test]
fn a_cage_without_a_module_for_10_gigabit_is_said_to_be_so() {
    // The fake pulls the data wire low for ever: it acknowledges all, and all bytes are zero.
    let fake = with_id(0x10FB_8086);
    let error = Ixgbe::open(fake.clone(), &Config::default()).expect_err("no module");
    assert!(matches!(error, NicError::NotOffered { .. }), "{error}");
    assert_eq!(fake.device().get(regs::SW_FW_SYNC.0), 0, "given back");
    assert_eq!(fake.mapped(), 0);
}
