//! Opening: order, errors, configuration; and the control part of a running device.

use std::vec::Vec;

use pagewire_hal::{
    Causes, Instant, LinkState, MacAddress, Nic, NicError, Phase, PlatformError, TxQueue,
};

use super::{open, open_with};
use crate::fake::{Fake, Fault, MAC};
use crate::{Config, E1000e, regs, supported};

const BUS_MASTER: u32 = 1 << 2;
/// Receive address 0 is not valid.
const NO_ADDRESS: (u32, u32) = (regs::RAH0.0, 0);

fn open_error(fake: &Fake) -> NicError {
    E1000e::open(fake.clone(), &Config::default()).expect_err("this device does not open")
}

/// Position of the first write to `register` that `is` accepts.
fn first_write(log: &[(u32, u32)], register: u32, is: impl Fn(u32) -> bool) -> usize {
    log.iter()
        .position(|(offset, value)| *offset == register && is(*value))
        .expect("written")
}

#[test]
fn a_device_opens_with_its_address_and_its_link() {
    let (fake, mut nic, _tx, _rx) = open();
    assert_eq!(nic.name(), "e1000e 82574L");
    assert_eq!(nic.mac_address(), MacAddress(MAC));
    let link = LinkState {
        up: true,
        speed_mbps: 1000,
        full_duplex: true,
    };
    assert_eq!(nic.link(), link);
    assert_eq!(nic.poll(Instant::ZERO), Ok(Phase::Running(link)));
    assert_eq!(nic.capabilities().queue_pairs, 1);
    assert!(nic.take_queues(0).is_none(), "taken already");
    assert!(nic.take_queues(1).is_none());
    assert_ne!(fake.device().config[1] & BUS_MASTER, 0);
    assert_eq!(fake.device().config[(0xE0 + 0x10) / 4] & 0b11, 0, "no ASPM");
}

#[test]
fn the_order_of_initialisation_is_kept() {
    let (fake, _nic, _tx, _rx) = open();
    let device = fake.device();
    let log = &device.log;
    let masked = first_write(log, regs::IMC.0, |v| v == u32::MAX);
    let master_off = first_write(log, regs::CTRL.0, |v| v & 1 << 2 != 0);
    let receive_off = first_write(log, regs::RCTL.0, |v| v == 0);
    let owned = first_write(log, regs::EXTCNF_CTRL.0, |v| v & 1 << 5 != 0);
    let reset = first_write(log, regs::CTRL.0, |v| v & 1 << 26 != 0);
    let eeprom = first_write(log, regs::EERD.0, |_| true);
    let tx_ring = first_write(log, regs::TDBAL.0, |_| true);
    let rx_ring = first_write(log, regs::RDBAL.0, |_| true);
    let transmit_on = first_write(log, regs::TCTL.0, |v| v & 1 << 1 != 0);
    let receive_on = first_write(log, regs::RCTL.0, |v| v & 1 << 1 != 0);
    let offered = first_write(log, regs::RDT.0, |v| v == 255);
    let order = [
        masked,
        master_off,
        receive_off,
        owned,
        reset,
        eeprom,
        tx_ring,
        rx_ring,
        transmit_on,
        receive_on,
        offered,
    ];
    assert!(order.is_sorted(), "{order:?}");
    assert_eq!(device.get(regs::TDLEN.0), 256 * 16);
    assert_eq!(device.get(regs::RDLEN.0), 256 * 16);
    assert_eq!(device.get(regs::TDBAL.0) % 128, 0);
    assert_eq!(device.get(regs::TDBAH.0), 1, "addresses have 64 bits");
    assert_eq!(device.get(regs::TXDCTL0.0), device.get(regs::TXDCTL1.0));
    assert_eq!(device.get(regs::TXDCTL0.0), 0x0141_011F);
    assert_eq!(device.get(regs::TCTL.0) & 0b1010, 0b1010, "on, and pads");
    assert_eq!(
        device.get(regs::CTRL.0) & 1 << 2,
        0,
        "bus mastering allowed"
    );
    assert_eq!(device.get(regs::EXTCNF_CTRL.0) & 1 << 5, 0, "given back");
}

#[test]
fn each_step_that_hangs_ends_in_its_own_error() {
    let cases = [
        (Fault::StuckMaster, "GIO master disable"),
        (Fault::EndlessReset, "global reset"),
        (Fault::NoAutoRead, "EEPROM"),
        (Fault::SilentEeprom, "word of the EEPROM"),
        (Fault::SilentPhy, "PHY"),
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
fn a_bad_checksum_is_an_error() {
    let fake = Fake::new();
    fake.device().eeprom[5] ^= 1;
    let error = open_error(&fake);
    assert_eq!(
        error,
        NicError::EepromChecksum {
            found: 0xBABB,
            expected: 0xBABA
        }
    );
}

#[test]
fn an_address_that_is_none_is_an_error() {
    for word in [0x0001u16, 0x0000] {
        let fake = Fake::new();
        let mut device = fake.device();
        let eeprom = &mut device.eeprom;
        eeprom[..3].fill(0);
        eeprom[0] = word;
        eeprom[63] = 0xBABAu16.wrapping_sub(word);
        // The fake loads receive address 0 with MAC on reset.
        device.fixed = Some(NO_ADDRESS);
        drop(device);
        let error = E1000e::open(fake, &Config::default()).map(|_| ());
        let bytes = [word as u8, 0, 0, 0, 0, 0];
        assert_eq!(error, Err(NicError::BadMacAddress(MacAddress(bytes))));
    }
}

#[test]
fn the_eeprom_has_the_address_if_the_device_does_not() {
    let fake = Fake::new();
    fake.device().fixed = Some(NO_ADDRESS);
    let nic = E1000e::open(fake, &Config::default()).expect("opens");
    assert_eq!(nic.mac_address(), MacAddress(MAC));
}

#[test]
fn only_known_and_tested_devices_are_opened() {
    assert!(supported(0x8086, 0x10D3).is_some_and(|info| info.tested));
    assert!(supported(0x8086, 0x150C).is_some_and(|info| !info.tested));
    assert!(supported(0x8086, 0x1234).is_none());
    assert!(supported(0x10EC, 0x10D3).is_none());
    let fake = Fake::new();
    fake.device().config[0] = 0x150C_8086;
    assert!(matches!(
        open_error(&fake),
        NicError::Untested { device: 0x150C, .. }
    ));
    let config = Config {
        allow_untested: true,
        ..Config::default()
    };
    let mut nic = E1000e::open(fake.clone(), &config).expect("opens on request");
    let refused = NicError::NotOffered { what: "MSI-X" };
    assert_eq!(nic.enable_interrupts(), Err(refused), "an 82583 has none");
    fake.device().config[0] = 0x1234_8086;
    assert!(matches!(
        open_error(&fake),
        NicError::UnknownDevice { device: 0x1234, .. }
    ));
}

#[test]
fn values_out_of_range_are_refused() {
    let wrong: [fn(&mut Config); 9] = [
        |c| c.tx_descriptors = 0,
        |c| c.tx_descriptors = 4,
        |c| c.tx_descriptors = 100,
        |c| c.tx_descriptors = 8192,
        |c| c.rx_descriptors = 12,
        |c| c.rx_descriptors = 32768,
        |c| c.mtu = 67,
        |c| c.mtu = 9001,
        |c| c.max_fragments = Some(0),
    ];
    for (n, change) in wrong.into_iter().enumerate() {
        let mut config = Config::default();
        change(&mut config);
        let error = E1000e::open(Fake::new(), &config).map(|_| ());
        assert!(matches!(error, Err(NicError::Config { .. })), "case {n}");
    }
    let config = Config {
        max_fragments: Some(1),
        ..Config::default()
    };
    let (_fake, nic, _tx, _rx) = open_with(&config);
    assert!(!nic.capabilities().gathers());
}

#[test]
fn the_transmit_fifo_bounds_frames_and_fragments() {
    // As Linux leaves it: 32 KiB for receive, 8 KiB for transmit.
    let fake = Fake::new();
    fake.device().set(regs::PBA.0, 0x0008_0020);
    let nic = E1000e::open(fake.clone(), &Config::default()).expect("8 KiB hold 1514 bytes");
    assert_eq!(nic.capabilities().max_fragment_len, 8192 - 96);
    drop(nic);
    let config = Config {
        mtu: 9000,
        ..Config::default()
    };
    let nic = E1000e::open(fake.clone(), &config).expect("the split is moved");
    assert_eq!(nic.capabilities().max_frame_len, 9014);
    assert_eq!(
        fake.device().get(regs::PBA.0) >> 16,
        9,
        "9 KiB hold 9094 bytes"
    );
    // A device that does not move it.
    let tiny = Fake::new();
    tiny.device().set(regs::PBA.0, 0x0000_0000);
    tiny.break_with(Fault::EndlessReset);
    tiny.repair();
    // The packet buffer gives transmit 1 KiB, whatever is written.
    tiny.device().fixed = Some((regs::PBA.0, 0x0001_0027));
    let error = E1000e::open(tiny, &config).map(|_| ());
    assert!(matches!(error, Err(NicError::Config { .. })), "{error:?}");
}

#[test]
fn a_transmit_share_that_cannot_be_read_is_what_receive_leaves() {
    // QEMU's, after Linux has written 32 KiB for receive.
    let fake = Fake::new();
    fake.device().fixed = Some((regs::PBA.0, 0x0000_0020));
    let nic = E1000e::open(fake, &Config::default());
    let nic = nic.expect("8 KiB hold 1514 bytes");
    assert_eq!(nic.capabilities().max_fragment_len, 8192 - 96);
}

#[test]
fn out_of_memory_at_any_point_leaks_nothing() {
    for allocations in 0..3 {
        let fake = Fake::new();
        fake.device().allocations_left = allocations;
        let error = open_error(&fake);
        assert_eq!(error, NicError::Platform(PlatformError::OutOfMemory));
        assert_eq!(fake.mapped(), 0, "after {allocations} allocations");
        assert_eq!(fake.device().freed, allocations);
    }
}

#[test]
fn statistics_add_up_what_the_device_clears() {
    let (fake, mut nic, _tx, _rx) = open();
    for round in 1..=3u64 {
        let mut device = fake.device();
        device.set(regs::GPTC.0, 10);
        device.set(regs::GOTCL.0, 0xFFFF_FFFF);
        device.set(regs::GOTCL.0 + 4, 1);
        device.set(regs::GPRC.0, 7);
        device.set(regs::MPC.0, 2);
        drop(device);
        let statistics = nic.statistics();
        assert_eq!(statistics.tx_frames, 10 * round);
        assert_eq!(statistics.tx_bytes, 0x1_FFFF_FFFF * round);
        assert_eq!(statistics.rx_frames, 7 * round);
        assert_eq!(statistics.rx_missed, 2 * round);
        assert_eq!(statistics.rx_crc_errors, 0);
    }
}

#[test]
fn interrupts_say_which_queue_or_what_else() {
    let (fake, mut nic, _tx, _rx) = open();
    assert_eq!(nic.take_interrupts(), Causes::empty());
    assert_eq!(nic.enable_interrupts(), Ok(3));
    assert_eq!(fake.device().get(regs::IVAR.0), 0x800A_0908);
    assert_eq!(fake.device().get(regs::EIAC.0), 0x0050_0000);
    fake.device().fired = 0b001;
    assert_eq!(nic.take_interrupts(), Causes::RECEIVE);
    assert_eq!(nic.take_interrupts(), Causes::empty());
    fake.device().fired = 0b010;
    assert_eq!(nic.take_interrupts(), Causes::TRANSMIT);
    let writes = fake.device().log.len();
    fake.device().fired = 0b100;
    fake.device()
        .set(regs::ICR.0, 1 << 2 | 1 << 6 | 1 << 22 | 1 << 24);
    let all = Causes::LINK | Causes::OVERRUN | Causes::TRANSMIT;
    assert_eq!(nic.take_interrupts(), all);
    let device = fake.device();
    let written: Vec<u32> = device.log[writes..].iter().map(|(at, _)| *at).collect();
    assert_eq!(
        written,
        [regs::ICR.0, regs::IMS.0],
        "cleared, then let through again"
    );
}

#[test]
fn fewer_vectors_are_shared() {
    let (fake, mut nic, _tx, _rx) = open();
    fake.device().vectors = 1;
    assert_eq!(nic.enable_interrupts(), Ok(1));
    assert_eq!(fake.device().get(regs::IVAR.0), 0x8008_0808);
    fake.device().fired = 0b001;
    fake.device().set(regs::ICR.0, 1 << 2);
    let shared = Causes::RECEIVE | Causes::TRANSMIT | Causes::LINK;
    assert_eq!(nic.take_interrupts(), shared);
    // Once they are on they stay as they are.
    fake.device().vectors = 0;
    assert_eq!(nic.enable_interrupts(), Ok(1));
    let (fake, mut nic, _tx, _rx) = open();
    fake.device().vectors = 0;
    assert!(nic.enable_interrupts().is_err());
}

#[test]
fn a_phy_that_sleeps_is_woken() {
    let fake = Fake::new();
    fake.device().phy_control = 0x0800;
    let nic = E1000e::open(fake.clone(), &Config::default()).expect("opens");
    assert_eq!(fake.device().phy_control, 0x1200, "awake, negotiating anew");
    drop(nic);
    let fake = Fake::new();
    let _nic = E1000e::open(fake.clone(), &Config::default()).expect("opens");
    assert_eq!(fake.device().phy_control, 0x1140, "left alone");
}

#[test]
fn queues_are_send() {
    fn is_send<T: Send>(_: &T) {}
    let (_fake, nic, tx, rx) = open();
    is_send(&nic);
    is_send(&tx);
    is_send(&rx);
    assert_eq!(tx.outstanding(), 0);
}
