//! Driver for the Intel 82574L on the Pagewire HAL: gather, checksum offload, MSI-X.
//!
//! [`E1000e::open`] takes a [`Platform`] and a [`Config`] and yields a [`Nic`]. There is one
//! pair of queues. `no_std`, without an allocator.
//!
//! What the device does here: frames of up to 64 fragments, insertion of the IPv4 header, TCP
//! and UDP checksums over IPv4 and IPv6, padding of short frames, verification of the same
//! checksums on receive, jumbo frames of up to 9000 bytes of MTU. What it does not: TCP
//! segmentation (an erratum of the family writes a descriptor back before its data is read,
//! which would release shared pages too early), flow control, VLAN tags, filters for single
//! multicast groups, the second pair of queues.
//!
//! # Lifecycle
//! A device that is dropped goes on as it was: its queues may be in use elsewhere. To stop it,
//! go through [`begin_reset`](Nic::begin_reset), [`poll`](Nic::poll) until
//! [`Phase::Quiet`], and [`release`](Nic::release). Queues that are dropped without `release`
//! leak their rings and buffers, with a warning in the log: the device may still reach them.
//!
//! # Sources
//! Public ones: the 8254x software developer's manual, what is quoted of the 82574 datasheet,
//! and the behaviour of Linux e1000e, DPDK and QEMU. Each item names its own. Where they are
//! silent or disagree, the place says so and says what was chosen.
#![no_std]

#[cfg(test)]
extern crate std;

mod config;
mod desc;
mod eeprom;
mod ids;
mod init;
mod interrupts;
mod link;
mod regs;
mod reset;
mod rx;
mod statistics;
mod tx;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

use pagewire_hal::{
    Capabilities, Causes, ChecksumOffload, DomainId, Instant, LinkState, MacAddress, Nic, NicError,
    Phase, Platform, QueueOwner, QueuePair, Statistics, Token, pci,
};

pub use config::Config;
pub use ids::{DeviceInfo, supported};
pub use rx::E1000eRx;
pub use tx::E1000eTx;

use desc::TX_DTALEN_MAX;
use ids::Family;
use init::TX_FIFO_RESERVE;
use interrupts::Vectors;
use regs::{Bar, STATUS};
use reset::{HangWatch, State, Step, Stop};
use statistics::Counted;
use tx::{CONTEXTS, GAP};

/// QEMU's model drops a frame of more fragments and still marks it done (`E1000E_MAX_TX_FRAGS`,
/// QEMU `e1000e_core.c`). The 82574 itself has no limit that is documented.
const QEMU_MAX_FRAGMENTS: u32 = 64;
/// Shortest frame that the device pads. Linux e1000e: "the minimum packet size with TCTL.PSP set
/// is 17 bytes", and it pads to that itself.
const MIN_FRAME_LEN: u32 = 17;
/// Linux e1000e: a descriptor holds at most the transmit FIFO less 96 bytes, and 24 KiB.
const FRAGMENT_FIFO_RESERVE: u32 = 96;
/// See [`FRAGMENT_FIFO_RESERVE`].
const MAX_FRAGMENT_LEN: u32 = 24 * 1024;
const _: () = assert!(MAX_FRAGMENT_LEN <= TX_DTALEN_MAX);

/// An 82574L or one of its relatives: the control part.
///
/// See the crate's documentation for what happens when it is dropped.
pub struct E1000e<P: Platform> {
    platform: P,
    registers: Bar<P::Registers>,
    info: DeviceInfo,
    config: Config,
    capabilities: Capabilities,
    mac: MacAddress,
    /// Where the PCI Express capability is.
    pcie: Option<u16>,
    /// The queues until they are taken.
    queues: Option<(E1000eTx<P>, E1000eRx<P>)>,
    /// What names our queues.
    owner: QueueOwner,
    state: State,
    watch: HangWatch,
    counted: Counted,
    vectors: Option<Vectors>,
}

impl<P: Platform> core::fmt::Debug for E1000e<P> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("E1000e")
            .field("info", &self.info)
            .field("mac", &self.mac)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl<P: Platform> E1000e<P> {
    /// Resets the device behind `platform`, initialises it and starts it. Takes some 50 ms, and
    /// up to half a minute with a device that answers each step at the last moment.
    ///
    /// # Errors
    /// [`NicError`]: the device is not known, not tested or gone, the configuration is out of
    /// range, a step of the initialisation has timed out, the EEPROM is damaged, or what the
    /// platform said. The device is left stopped and reaches no memory of ours.
    pub fn open(mut platform: P, config: &Config) -> Result<Self, NicError> {
        config.check()?;
        let info = ids::identify(&platform, config.allow_untested)?;
        pci::enable_memory(&mut platform);
        let registers = Bar::new(platform.map_bar(0)?);
        let removed = registers.clone();
        Self::initialise(platform, registers, info, config).map_err(|error| {
            // Whatever went wrong, all ones explain it better.
            if removed.is_gone() {
                NicError::Removed
            } else {
                error
            }
        })
    }

    fn initialise(
        mut platform: P,
        registers: Bar<P::Registers>,
        info: DeviceInfo,
        config: &Config,
    ) -> Result<Self, NicError> {
        if registers.is_gone() {
            return Err(NicError::Removed);
        }
        let family = info.family;
        let pcie = pci::find_pcie(&platform);
        pci::disable_aspm(&mut platform, pcie);
        init::reset(&mut platform, &registers, family, config)?;
        eeprom::verify(&platform, &registers)?;
        let mac = eeprom::station_address(&platform, &registers)?;
        let capabilities = capabilities(config, init::tx_fifo_len(&registers))?;
        link::wake_phy(&platform, &registers, family)?;
        let owner = QueueOwner::new_unique();
        let tx_len = config.tx_descriptors;
        let tx = E1000eTx::new(
            &mut platform,
            owner,
            registers.clone(),
            capabilities,
            tx_len,
        )?;
        let (rx_len, buffer_len) = (config.rx_descriptors, config.buffer_len());
        let rx = E1000eRx::new(&mut platform, owner, registers.clone(), rx_len, buffer_len)?;
        let mut nic = Self {
            platform,
            registers,
            info,
            config: config.clone(),
            capabilities,
            mac,
            pcie,
            owner,
            queues: None,
            state: State::Running,
            watch: HangWatch::default(),
            counted: Counted::default(),
            vectors: None,
        };
        nic.counted.clear(&nic.registers);
        let (mut tx, mut rx) = (tx, rx);
        nic.start(&mut tx, &mut rx);
        nic.queues = Some((tx, rx));
        log::info!("{} with station address {mac}", info.name);
        Ok(nic)
    }

    /// What was opened.
    #[must_use]
    pub const fn info(&self) -> DeviceInfo {
        self.info
    }

    /// Starts a device that has just been reset.
    fn start(&mut self, tx: &mut E1000eTx<P>, rx: &mut E1000eRx<P>) {
        init::prepare(&self.registers, self.info.family, self.mac);
        let platform = &mut self.platform;
        init::start(platform, &self.registers, &self.config, tx, rx);
        if let Some(vectors) = self.vectors {
            interrupts::program(&self.registers, vectors);
        }
        self.watch.restart();
        self.state = State::Running;
    }

    /// Whether `queues` is the pair that was taken, and nothing else.
    fn check_pairs(
        &self,
        queues: &[QueuePair<'_, E1000eTx<P>, E1000eRx<P>>],
    ) -> Result<(), NicError> {
        let is_ours = |pair: &QueuePair<'_, E1000eTx<P>, E1000eRx<P>>| {
            pair.tx.owner() == self.owner && pair.rx.owner() == self.owner
        };
        if !queues.iter().all(is_ours) {
            return Err(NicError::Config {
                what: "a queue pair of another device was handed in",
            });
        }
        if queues.is_empty() && self.queues.is_none() {
            return Err(NicError::QueueMissing { index: 0 });
        }
        Ok(())
    }

    fn check_quiet(
        &self,
        queues: &[QueuePair<'_, E1000eTx<P>, E1000eRx<P>>],
    ) -> Result<(), NicError> {
        if self.state != State::Quiet {
            return Err(NicError::WrongPhase);
        }
        self.check_pairs(queues)
    }

    /// Calls `with` with the pair, wherever it is. `check_pairs` has found it to be there.
    fn with_pair(
        &mut self,
        queues: &mut [QueuePair<'_, E1000eTx<P>, E1000eRx<P>>],
        with: impl FnOnce(&mut Self, &mut E1000eTx<P>, &mut E1000eRx<P>),
    ) {
        if let Some((mut tx, mut rx)) = self.queues.take() {
            with(self, &mut tx, &mut rx);
            self.queues = Some((tx, rx));
        } else if let Some(pair) = queues.first_mut() {
            with(self, pair.tx, pair.rx);
        }
    }

    fn fail(&mut self, error: NicError) -> NicError {
        log::warn!("{}: {error}", self.info.name);
        self.state = State::Failed;
        error
    }

    fn go_on(&mut self, stop: Stop, now: Instant) -> Result<Phase, NicError> {
        let family = self.info.family;
        match stop.step(&mut self.platform, &self.registers, family, self.pcie, now) {
            Step::Wait(stop) => {
                self.state = State::Stopping(stop);
                Ok(Phase::Stopping)
            }
            Step::Quiet => {
                self.state = State::Quiet;
                Ok(Phase::Quiet)
            }
            Step::NotQuiet => Err(self.fail(NicError::NotQuiet)),
        }
    }
}

/// What the device can do with a transmit FIFO of `fifo` bytes.
fn capabilities(config: &Config, fifo: u32) -> Result<Capabilities, NicError> {
    let max_frame_len = config.max_frame_len();
    let max_fragment_len = fifo
        .saturating_sub(FRAGMENT_FIFO_RESERVE)
        .min(MAX_FRAGMENT_LEN);
    if fifo.saturating_sub(TX_FIFO_RESERVE) < max_frame_len || max_fragment_len == 0 {
        return Err(NicError::Config {
            what: "the transmit FIFO does not hold a frame of this mtu",
        });
    }
    let ring = u32::from(config.tx_descriptors) - GAP - CONTEXTS;
    let bound = config.max_fragments.map_or(u32::MAX, u32::from);
    let max_fragments = QEMU_MAX_FRAGMENTS.min(ring).min(bound);
    let checksum = ChecksumOffload::IPV4_HEADER
        | ChecksumOffload::TCP_IPV4
        | ChecksumOffload::UDP_IPV4
        | ChecksumOffload::TCP_IPV6
        | ChecksumOffload::UDP_IPV6;
    let mut capabilities = Capabilities::minimal();
    capabilities.max_fragments = max_fragments as u16;
    capabilities.max_fragment_len = max_fragment_len;
    capabilities.min_frame_len = MIN_FRAME_LEN;
    capabilities.max_frame_len = max_frame_len;
    capabilities.tx_checksum = checksum;
    if !config.checksum_offload {
        capabilities.tx_checksum = ChecksumOffload::empty();
    }
    if config.generic_checksum {
        capabilities.tx_checksum |= ChecksumOffload::GENERIC;
    }
    capabilities.rx_checksum = checksum;
    capabilities.statistics = true;
    capabilities.dma_address_bits = 64;
    Ok(capabilities)
}

// SAFETY: tokens are handed back by `E1000eTx::drain`, in the state `Quiet` only, which the
// device reaches when bus mastering is off and nothing is pending. `check_pairs` lets through
// the one pair that is ours, so its position is 0. The queues are borrowed, not moved.
// `allocate` is the platform's, whose memory has the platform's domain.
unsafe impl<P: Platform> Nic for E1000e<P> {
    type Tx = E1000eTx<P>;
    type Rx = E1000eRx<P>;
    type Memory = P::Memory;

    fn name(&self) -> &'static str {
        self.info.name
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn mac_address(&self) -> MacAddress {
        self.mac
    }

    fn domain(&self) -> DomainId {
        self.platform.domain()
    }

    fn allocate(&mut self, len: usize, align: usize) -> Result<Self::Memory, NicError> {
        Ok(self.platform.allocate(len, align)?)
    }

    fn take_queues(&mut self, index: u16) -> Option<(Self::Tx, Self::Rx)> {
        if index == 0 { self.queues.take() } else { None }
    }

    fn link(&mut self) -> LinkState {
        link::read(&self.registers)
    }

    fn statistics(&mut self) -> Statistics {
        if self.registers.is_gone() {
            return self.counted.total();
        }
        self.counted.collect(&self.registers)
    }

    fn enable_interrupts(&mut self) -> Result<u16, NicError> {
        if self.info.family != Family::I82574 {
            return Err(NicError::NotOffered { what: "MSI-X" });
        }
        // Setting the vectors up again could lose a message that has come, and with it its
        // cause: ICR would keep that, and no new one would come.
        if let Some(vectors) = self.vectors {
            return Ok(vectors.count());
        }
        let granted = self.platform.enable_interrupts(interrupts::VECTORS)?;
        let count = granted.min(interrupts::VECTORS);
        if count == 0 {
            return Err(NicError::NotOffered { what: "MSI-X" });
        }
        let vectors = Vectors::new(count);
        self.vectors = Some(vectors);
        if self.state == State::Running {
            interrupts::program(&self.registers, vectors);
        }
        Ok(count)
    }

    fn take_interrupts(&mut self) -> Causes {
        match self.vectors {
            Some(vectors) if self.state == State::Running => {
                interrupts::take(&mut self.platform, &self.registers, vectors)
            }
            _ => Causes::empty(),
        }
    }

    fn poll(&mut self, now: Instant) -> Result<Phase, NicError> {
        match self.state {
            State::Failed => return Ok(Phase::Failed),
            State::Quiet => return Ok(Phase::Quiet),
            State::Running | State::Stopping(_) => {}
        }
        let status = self.registers.read(STATUS);
        if status == u32::MAX {
            return Err(self.fail(NicError::Removed));
        }
        if let State::Stopping(stop) = self.state {
            return self.go_on(stop, now);
        }
        let (registers, counted) = (&self.registers, &mut self.counted);
        let sent = || counted.collect(registers).tx_frames;
        if self.watch.is_hung(registers, now, sent) {
            return Ok(Phase::Hung);
        }
        Ok(Phase::Running(link::state(status)))
    }

    fn begin_reset(&mut self, now: Instant) {
        if self.state != State::Running {
            return;
        }
        self.statistics();
        let stop = reset::begin(&self.registers, self.info.family, now);
        self.state = State::Stopping(stop);
    }

    fn restart(
        &mut self,
        queues: &mut [QueuePair<'_, Self::Tx, Self::Rx>],
        released: &mut dyn FnMut(u16, Token),
    ) -> Result<(), NicError> {
        self.check_quiet(queues)?;
        if self.registers.is_gone() {
            return Err(NicError::Removed);
        }
        if !init::is_reset_done(&self.registers) {
            return Err(NicError::Timeout {
                what: "the global reset and the reading of the EEPROM after it",
                after: init::RESET_LIMIT,
            });
        }
        self.with_pair(queues, |nic, tx, rx| {
            // SAFETY: the state is `Quiet`.
            unsafe { tx.drain(&mut |token| released(0, token)) };
            nic.start(tx, rx);
        });
        Ok(())
    }

    fn release(
        &mut self,
        queues: &mut [QueuePair<'_, Self::Tx, Self::Rx>],
        released: &mut dyn FnMut(u16, Token),
    ) -> Result<(), NicError> {
        self.check_quiet(queues)?;
        self.with_pair(queues, |_, tx, rx| {
            rx.stop();
            // SAFETY: the state is `Quiet`.
            unsafe { tx.drain(&mut |token| released(0, token)) };
            // SAFETY: the state is `Quiet`, and `restart`, the only way out of it, programs the
            // queues before it switches bus mastering on.
            unsafe { tx.set_quiet() };
            // SAFETY: as above.
            unsafe { rx.set_quiet() };
        });
        Ok(())
    }
}
