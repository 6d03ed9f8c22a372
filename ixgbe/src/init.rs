//! From any state to a running device: what is set once after each reset, in the order of the
//! datasheet as Linux and DPDK ixgbe have it. Numbers are sections of the 82599 datasheet as TinyNF
//! (`device.h`) quotes them.
//!
//! The order: general configuration and flow control → the tables that a reset leaves undefined
//! (in the machine-readable map their reset value is X) → receive → transmit → rings → the queues
//! on → tails → the receiver. A tail is not written before its queue reads as on.

use core::time::Duration;

use pagewire_hal::driver::{FRAME_CHECK_SEQUENCE, Register, intel};
use pagewire_hal::{MacAddress, Registers};

use crate::bits::{
    CtrlExt, Fctrl, Hlreg0, RSC_ACK_DISABLE, RXEN, Rdrxctl, Rfctl, Rttdcs, Rxcsum, Rxdctl,
    SECRX_READY, Secrx, TX_ENABLE, Txdctl, Vlnctrl,
};
use crate::config::{Config, STANDARD_MTU};
use crate::ids::Family;
use crate::regs::{
    Bar, CTRL_EXT, DMATXCTL, DTXMXSZRQ, FCRTH, FCRTL, FCTRL, FTQF, HLREG0, MAXFRS, MCSTCTRL, MPSAR,
    MTA, MTQC, PACKET_BUFFERS, PFUTA, PFVLVF, PFVLVFB, PerQueue, QUEUE_COUNTERS, QUEUES, RAH0,
    RAL_ALL, RAL0, RDRXCTL, RECEIVE_ADDRESSES, RFCTL, RQSMR, RSCDBU, RTTBCNRC, RTTDCS, RTTDQSEL,
    RTTDT1C, RXCSUM, RXCTRL, RXDCTL, RXPBSIZE, SECRXCTRL, SECRXSTAT, TABLE_WORDS, TQSM, TXDCTL,
    TXPBSIZE, TXPBTHRESH, VFTA, VLNCTRL,
};
use crate::{link, rss};

/// Time for a queue to read as on. Linux gives each 10 to 20 ms.
pub(crate) const ENABLE_LIMIT: Duration = Duration::from_millis(20);
/// How often a restart, which must not wait, looks for queues to be on.
pub(crate) const ENABLE_LOOKS: u32 = 1000;
/// How often the receive data path is looked at before the receiver is switched on regardless.
/// Linux gives it 40 times 1 ms and then goes on, "for informational purposes only".
const SECRX_LOOKS: u32 = 1000;
/// Receive packet buffer of the 82599, in KiB (reset value; `IXGBE_82599_RX_PB_SIZE`).
const RX_BUFFER_82599: u32 = 512;
/// Receive packet buffer of the X540, in KiB (Linux and DPDK `IXGBE_X540_RX_PB_SIZE`; both write it
/// after the reset).
const RX_BUFFER_X540: u32 = 384;
/// Transmit packet buffer, in KiB (reset value; `IXGBE_TXPBSIZE_MAX`).
const TX_BUFFER: u32 = 160;
/// What of it stays free for the longest frame, in KiB (Linux `IXGBE_TXPKT_SIZE_MAX`; 4.6.11.3.4
/// says so without a number).
const TX_LONGEST: u32 = 10;
/// A packet buffer's size, in its register.
const BUFFER_SHIFT: u32 = 10;
/// How far below the size of the receive buffer its high mark is, in bytes: 6000h (4.6.3.2), needed
/// without flow control, too (the same; Linux: else "Tx hangs" where frames are switched inside).
const HIGH_MARK_BELOW: u32 = 24 * 1024;
/// Most that [`DTXMXSZRQ`] holds; right where there are no traffic classes (4.6.11.3.4; ixy).
const MAX_REQUEST: u32 = 0xFFF;

/// [`MPSAR`]: a receive address is in pool 0 (machine-readable map: a bit for each pool).
const POOL_0: u32 = 1;

/// All that is set once after each reset, before the rings.
pub(crate) fn prepare<R: Registers>(
    registers: &Bar<R>,
    family: Family,
    config: &Config,
    mac: MacAddress,
) {
    let owned = CtrlExt::NS_DIS | CtrlExt::DRV_LOAD;
    registers.change(CTRL_EXT, 0, owned.bits());
    link::disable_flow_control(registers);
    prepare_buffers(registers, family);
    prepare_filters(registers, mac);
    prepare_receive(registers, config);
    rss::program(registers, &config.rss_key, config.queue_pairs);
    prepare_transmit(registers);
    map_counters(registers);
}

/// One receive packet buffer, as there is one traffic class (4.6.11.3.4).
fn prepare_buffers<R: Registers>(registers: &Bar<R>, family: Family) {
    let receive = match family {
        Family::I82599 => RX_BUFFER_82599,
        Family::X540 => RX_BUFFER_X540,
    };
    let high_mark = (receive << BUFFER_SHIFT) - HIGH_MARK_BELOW;
    first_alone(registers, RXPBSIZE, receive << BUFFER_SHIFT);
    first_alone(registers, FCRTH, high_mark);
    first_alone(registers, FCRTL, 0);
}

/// `value` for packet buffer 0, nothing for the others.
fn first_alone<R: Registers>(registers: &Bar<R>, register: Register, value: u32) {
    registers.write(register, value);
    registers.fill(register.at(1), PACKET_BUFFERS - 1, 0);
}

/// Receive address 0 is ours; the tables of multicast, unicast, VLANs, pools and five-tuples are
/// empty (4.6.7; in the machine-readable map they have no reset value).
///
/// That pools of an address matter where there are none is nowhere said. Ours is in pool 0, as in
/// Linux and DPDK (`ixgbe_set_rar`) and TinyNF, so that it is right either way.
fn prepare_filters<R: Registers>(registers: &Bar<R>, mac: MacAddress) {
    let [low, high] = intel::receive_address_words(mac);
    registers.write(RAL0, low);
    registers.write(RAH0, high);
    for address in 1..RECEIVE_ADDRESSES {
        let low = receive_address(address);
        // The high word, with the valid bit, goes first. (Linux and DPDK `ixgbe_clear_rar` begin
        // with the low one: half an address is valid for a moment.)
        registers.write(low.at(1), 0);
        registers.write(low, 0);
    }
    registers.write(MPSAR, POOL_0);
    registers.fill(MPSAR.at(1), 2 * RECEIVE_ADDRESSES - 1, 0);
    registers.write(MCSTCTRL, 0);
    registers.fill(MTA, TABLE_WORDS, 0);
    registers.fill(PFUTA, TABLE_WORDS, 0);
    registers.fill(VFTA, TABLE_WORDS, 0);
    registers.fill(PFVLVF, 64, 0);
    registers.fill(PFVLVFB, 128, 0);
    registers.fill(FTQF, TABLE_WORDS, 0);
    registers.change(VLNCTRL, Vlnctrl::VFE.bits(), 0);
}

/// Low word of a receive address. The first sixteen have two places, see
/// [`regs`](crate::regs).
const fn receive_address(n: u32) -> Register {
    if n < 16 {
        RAL0.at(2 * n)
    } else {
        RAL_ALL.at(2 * n)
    }
}

/// The longest frame, stripping, no joining of segments (4.6.7; Linux `ixgbe_setup_rdrxctl`).
fn prepare_receive<R: Registers>(registers: &Bar<R>, config: &Config) {
    registers.write(FCTRL, receive_filter(config).bits());
    let longest = config.max_frame_len() + FRAME_CHECK_SEQUENCE;
    registers.change(MAXFRS, 0xFFFF_0000, longest << 16);
    let mut core = Hlreg0::TXCRCEN | Hlreg0::RXCRCSTRP | Hlreg0::TXPADEN;
    core.set(
        Hlreg0::JUMBOEN,
        config.max_frame_len() > u32::from(STANDARD_MTU) + 14,
    );
    let off = Hlreg0::JUMBOEN | Hlreg0::LPBK;
    registers.change(HLREG0, off.bits(), core.bits());
    let dma = Rdrxctl::CRC_STRIP | Rdrxctl::RSCACKC | Rdrxctl::FCOE_WRFIX;
    registers.change(RDRXCTL, Rdrxctl::RSCFRSTSIZE.bits(), dma.bits());
    let filter = Rfctl::RSC_DIS | Rfctl::NFSW_DIS | Rfctl::NFSR_DIS;
    registers.change(RFCTL, 0, filter.bits());
    registers.change(RSCDBU, 0, RSC_ACK_DISABLE);
    registers.change(RXCSUM, 0, Rxcsum::PCSD.bits());
}

fn receive_filter(config: &Config) -> Fctrl {
    let mut filter = Fctrl::BAM;
    if config.all_multicast {
        filter |= Fctrl::MPE;
    }
    if config.promiscuous {
        filter |= Fctrl::UPE | Fctrl::MPE;
    }
    filter
}

/// One traffic class and one packet buffer, no pools, no rate limits (Linux `ixgbe_start_hw_gen2`,
/// for RTTBCNRC); all with the arbiter off (4.6.8: ARBDIS, then DTXMXSZRQ, TXPBSIZE, TXPBTHRESH and
/// MTQC, then ARBDIS cleared; Linux and DPDK switch it off for MTQC alone). The order of DTXMXSZRQ
/// and the rest between them is free.
fn prepare_transmit<R: Registers>(registers: &Bar<R>) {
    registers.change(RTTDCS, 0, Rttdcs::ARBDIS.bits());
    registers.write(DTXMXSZRQ, MAX_REQUEST);
    first_alone(registers, TXPBSIZE, TX_BUFFER << BUFFER_SHIFT);
    first_alone(registers, TXPBTHRESH, TX_BUFFER - TX_LONGEST);
    registers.write(MTQC, 0);
    for queue in 0..QUEUES {
        registers.write(RTTDQSEL, queue.into());
        registers.write(RTTDT1C, 0);
        registers.write(RTTBCNRC, 0);
    }
    registers.change(RTTDCS, Rttdcs::ARBDIS.bits(), 0);
}

/// Each of the first sixteen queues has a counter of its own (DPDK
/// `ixgbe_dev_queue_stats_mapping_set`, for the layout).
fn map_counters<R: Registers>(registers: &Bar<R>) {
    for word in 0..u32::from(QUEUE_COUNTERS) / 4 {
        let first = 4 * word;
        let map = first | (first + 1) << 8 | (first + 2) << 16 | (first + 3) << 24;
        registers.write(RQSMR.at(word), map);
        registers.write(TQSM.at(word), map);
    }
}

/// Switches transmit DMA on: before the first queue (4.6.8; DPDK, ixy).
pub(crate) fn enable_transmit<R: Registers>(registers: &Bar<R>) {
    registers.change(DMATXCTL, 0, TX_ENABLE);
}

/// Switches the receiver on. Frames that arrive at that moment may hang the receive DMA of the
/// 82599, so the path in front of it is held up and empty meanwhile (4.6.7; an erratum, by Linux
/// and DPDK `ixgbe_enable_rx_dma_82599`). The X540 is treated alike, which costs nothing. The
/// datasheet ends it by clearing "SECRX_DIS": RX_DIS is meant, which was set (TinyNF; Linux).
pub(crate) fn enable_receive<R: Registers>(registers: &Bar<R>) {
    registers.change(SECRXCTRL, 0, Secrx::RX_DIS.bits());
    let is_empty = |_: &u32| registers.read(SECRXSTAT) & SECRX_READY != 0;
    if (0..SECRX_LOOKS).find(is_empty).is_none() {
        log::warn!("ixgbe: the receive path does not become empty; the receiver goes on");
    }
    registers.change(RXCTRL, 0, RXEN);
    registers.change(SECRXCTRL, Secrx::RX_DIS.bits(), 0);
}

/// Whether the queues of all `pairs` read as on.
pub(crate) fn are_enabled<R: Registers>(registers: &Bar<R>, pairs: u16) -> bool {
    (0..pairs).all(|pair| {
        registers.read(TXDCTL.of(pair)) & Txdctl::ENABLE.bits() != 0
            && registers.read(RXDCTL.of(pair)) & Rxdctl::ENABLE.bits() != 0
    })
}
