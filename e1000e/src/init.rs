//! Reset and initialisation, in the order of Linux e1000e (`e1000_reset_hw_82571`,
//! `e1000_init_hw_82571`, `e1000_configure`), with a time limit to everything that is waited for.

use core::time::Duration;

use pagewire_hal::driver::{intel, wait_until};
use pagewire_hal::{MacAddress, NicError, Platform, Registers, pci};

use crate::config::{Config, STANDARD_MTU};
use crate::ids::Family;
use crate::link;
use crate::regs::{
    Bar, CTRL, CTRL_EXT, Ctrl, CtrlExt, EECD, ERT, Eecd, FCRTH, FCRTL, GCR, GCR_22,
    GCR_L1_WITHOUT_L0S_RX, GCR2, GCR2_COMPLETION_FIX, ICR, IMC, MRQC, MTA, MTA_WORDS, PBA, RADV,
    RAH0, RAL0, RCTL, RDTR, RECEIVE_ADDRESSES, RFCTL, RXCSUM, RXDCTL, Rctl, Rfctl, Rxcsum, STATUS,
    Status, TARC_26, TARC_26_23, TARC_30_27, TARC0, TCTL, TIDV, TIPG, TIPG_COPPER, TXDCTL0,
    TXDCTL1, Tctl, Thresholds, VFTA, VFTA_WORDS,
};
use crate::rx::E1000eRx;
use crate::tx::E1000eTx;

/// Linux e1000e: 800 times 100 µs.
const MASTER_DISABLE_LIMIT: Duration = Duration::from_millis(80);
/// Time that receive and transmit get to finish a frame, and that a global reset takes at least.
pub(crate) const SETTLE: Duration = Duration::from_millis(10);
/// Time for a global reset to clear its bit, and for the EEPROM to be read after it. Linux gives
/// each about 10 ms.
pub(crate) const RESET_LIMIT: Duration = Duration::from_millis(100);
/// The PHY is configured from the EEPROM after that has been read (Linux e1000e, 82573 to
/// 82583).
const PHY_CONFIGURATION: Duration = Duration::from_millis(25);
/// What the transmit FIFO must hold above a frame: "at least 80 bytes less than the allocated
/// size of the transmit FIFO" (8254x manual 3.3.6, of segmentation; taken for every frame).
pub(crate) const TX_FIFO_RESERVE: u32 = 80;

/// Stops the device whatever it was doing, and resets it. Nothing of ours is known to it yet.
pub(crate) fn reset<P: Platform>(
    platform: &mut P,
    registers: &Bar<P::Registers>,
    family: Family,
    config: &Config,
) -> Result<(), NicError> {
    registers.write(IMC, u32::MAX);
    registers.change(CTRL, 0, Ctrl::GIO_MASTER_DISABLE.bits());
    wait_until(
        platform,
        "the device finishing its bus accesses (GIO master disable)",
        MASTER_DISABLE_LIMIT,
        Duration::from_micros(100),
        || !is_master(registers),
    )?;
    pci::stop_bus_mastering(platform);
    stop_queues(registers);
    platform.wait(SETTLE);
    fit_packet_buffer(registers, family, config);
    let taken = link::take_mdio(platform, registers, family);
    issue_reset(registers);
    platform.wait(SETTLE);
    if taken {
        link::put_mdio(registers, family);
    }
    wait_until(
        platform,
        "the global reset and the reading of the EEPROM after it",
        RESET_LIMIT,
        Duration::from_millis(1),
        || is_reset_done(registers),
    )?;
    platform.wait(PHY_CONFIGURATION);
    clear_interrupts(registers);
    Ok(())
}

/// Whether the device may still have requests on the bus.
pub(crate) fn is_master<R: Registers>(registers: &Bar<R>) -> bool {
    Status::from_bits_retain(registers.read(STATUS)).contains(Status::GIO_MASTER_ENABLE)
}

/// Lets receive and transmit begin no new frame.
pub(crate) fn stop_queues<R: Registers>(registers: &Bar<R>) {
    registers.write(RCTL, 0);
    registers.change(TCTL, Tctl::EN.bits(), 0);
    registers.read(STATUS); // Posted writes arrive before a read returns.
}

/// Resets all but the PHY and configuration space.
pub(crate) fn issue_reset<R: Registers>(registers: &Bar<R>) {
    registers.change(CTRL, 0, Ctrl::RST.bits());
}

/// Whether the reset bit has cleared itself and the EEPROM has been read.
pub(crate) fn is_reset_done<R: Registers>(registers: &Bar<R>) -> bool {
    !Ctrl::from_bits_retain(registers.read(CTRL)).contains(Ctrl::RST)
        && Eecd::from_bits_retain(registers.read(EECD)).contains(Eecd::AUTO_RD)
}

/// Masks all causes, then reads those that are pending away: a reset keeps them.
pub(crate) fn clear_interrupts<R: Registers>(registers: &Bar<R>) {
    registers.write(IMC, u32::MAX);
    registers.read(ICR);
}

/// KiB of the packet buffer for receive, and for transmit.
///
/// The second is read-only, what the first leaves (8254x manual 13.4.16). QEMU's keeps the register
/// as it was written, and Linux e1000e writes the first alone, so that 0 may be read there once
/// that has had the device: then it is what the first leaves of the 40 KiB of an 82574 (20 and 20
/// by default, in QEMU's and in Linux's `e1000_82574_info`: 32 and so 8).
fn packet_buffer<R: Registers>(registers: &Bar<R>, family: Family) -> (u32, u32) {
    const I82574_TOTAL: u32 = 40;
    let split = registers.read(PBA);
    let (receive, transmit) = (split & 0xFFFF, split >> 16);
    match family {
        Family::I82574 if transmit == 0 => (receive, I82574_TOTAL.saturating_sub(receive)),
        _ => (receive, transmit),
    }
}

/// Bytes in the transmit FIFO.
pub(crate) fn tx_fifo_len<R: Registers>(registers: &Bar<R>, family: Family) -> u32 {
    packet_buffer(registers, family).1 << 10
}

/// Gives the transmit FIFO a larger share if a frame does not fit. The split outlives a global
/// reset and takes effect with it (Linux e1000e), so it is what the last driver left. Where the
/// default of 20 KiB is in place nothing is written.
fn fit_packet_buffer<R: Registers>(registers: &Bar<R>, family: Family, config: &Config) {
    let (receive, transmit) = packet_buffer(registers, family);
    let wanted = (config.max_frame_len() + TX_FIFO_RESERVE).div_ceil(1024);
    if transmit < wanted {
        registers.write(PBA, (receive + transmit).saturating_sub(wanted));
    }
}

/// All that is set once after each reset, before the rings: the bits that Linux sets for the
/// hardware's sake, address filters, checksum and flow control.
pub(crate) fn prepare<R: Registers>(registers: &Bar<R>, family: Family, mac: MacAddress) {
    prepare_hardware(registers, family);
    prepare_filters(registers, mac);
    for register in [FCRTL, FCRTH, ERT, MRQC, RDTR, RADV] {
        registers.write(register, 0);
    }
    registers.write(RXCSUM, (Rxcsum::IPOFL | Rxcsum::TUOFL).bits());
    registers.write(RFCTL, receive_filter(family).bits());
    link::set_up(registers);
}

/// Bits without a name in any public source: Linux e1000e, `e1000_initialize_hw_bits_82571`.
/// What Linux sets for the second transmit queue of 82571 and 82572 is left out with that queue.
fn prepare_hardware<R: Registers>(registers: &Bar<R>, family: Family) {
    let tarc = match family {
        Family::I82571 => TARC_26_23,
        Family::I82573 => 0,
        Family::I82574 | Family::I82583 => TARC_26,
    };
    registers.change(TARC0, TARC_30_27, tarc);
    if family != Family::I82571 {
        registers.change(CTRL, Ctrl::BIT_29.bits(), 0);
        registers.change(CTRL_EXT, CtrlExt::BIT_23.bits(), CtrlExt::BIT_22.bits());
    }
    if matches!(family, Family::I82574 | Family::I82583) {
        registers.change(GCR, 0, GCR_22 | GCR_L1_WITHOUT_L0S_RX);
        registers.change(GCR2, 0, GCR2_COMPLETION_FIX);
    }
}

fn receive_filter(family: Family) -> Rfctl {
    // Bit 15 (extended descriptors) stays clear: the receive ring has legacy ones.
    let filter = Rfctl::NFSW_DIS | Rfctl::NFSR_DIS | Rfctl::ACK_DIS;
    match family {
        Family::I82571 | Family::I82573 => filter | Rfctl::IPV6_EX_DIS | Rfctl::NEW_IPV6_EXT_DIS,
        Family::I82574 | Family::I82583 => filter,
    }
}

/// Receive address 0 is ours, nothing else passes the filters.
fn prepare_filters<R: Registers>(registers: &Bar<R>, mac: MacAddress) {
    let [low, high] = intel::receive_address_words(mac);
    registers.write(RAL0, low);
    registers.write(RAH0, high);
    for pair in 1..RECEIVE_ADDRESSES {
        // The high word, with the valid bit, goes first.
        registers.write(RAH0.at(2 * pair), 0);
        registers.write(RAL0.at(2 * pair), 0);
    }
    registers.fill(MTA, MTA_WORDS, 0);
    registers.fill(VFTA, VFTA_WORDS, 0);
}

/// Programs both rings, lets the device reach memory, switches both directions on.
pub(crate) fn start<P: Platform>(
    platform: &mut P,
    registers: &Bar<P::Registers>,
    config: &Config,
    tx: &mut E1000eTx<P>,
    rx: &mut E1000eRx<P>,
) {
    tx.program();
    rx.program();
    let transmit = Thresholds::PTHRESH_31
        | Thresholds::HTHRESH_1
        | Thresholds::WTHRESH_1
        | Thresholds::COUNT_DESC
        | Thresholds::GRAN;
    registers.write(TXDCTL0, transmit.bits());
    registers.write(TXDCTL1, transmit.bits());
    let receive =
        Thresholds::PTHRESH_32 | Thresholds::HTHRESH_4 | Thresholds::WTHRESH_1 | Thresholds::GRAN;
    registers.write(RXDCTL, receive.bits());
    registers.write(TIDV, 1);
    registers.write(TIPG, TIPG_COPPER);
    // SAFETY: the device has been reset since it was last told of memory, and `program` has put
    // both rings and the receive buffers into custody as not quiet: they stay mapped until
    // `set_quiet(true)`, which `restart` and `release` call only in the state `Quiet`.
    unsafe { pci::start_bus_mastering(platform) };
    registers.change(CTRL, Ctrl::GIO_MASTER_DISABLE.bits(), 0);
    registers.change(
        TCTL,
        (Tctl::CT | Tctl::COLD).bits(),
        (Tctl::EN | Tctl::PSP | Tctl::CT_15 | Tctl::COLD_63 | Tctl::RTLC).bits(),
    );
    registers.write(RCTL, receive_control(config).bits());
    rx.offer_all();
}

fn receive_control(config: &Config) -> Rctl {
    let mut control = Rctl::EN | Rctl::BAM | Rctl::DPF | Rctl::SECRC;
    control |= match config.buffer_len() {
        0..=2048 => Rctl::empty(),
        2049..=4096 => Rctl::BSEX | Rctl::BSIZE_HIGH | Rctl::BSIZE_LOW,
        4097..=8192 => Rctl::BSEX | Rctl::BSIZE_HIGH,
        _ => Rctl::BSEX | Rctl::BSIZE_LOW,
    };
    if config.mtu > STANDARD_MTU {
        control |= Rctl::LPE;
    }
    if config.all_multicast {
        control |= Rctl::MPE;
    }
    if config.promiscuous {
        control |= Rctl::UPE | Rctl::MPE;
    }
    control
}
