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

mod capabilities;
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
mod selftest;
mod statistics;
mod tx;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

use pagewire_hal::driver::{self, HangWatch};
use pagewire_hal::{
    Capabilities, Causes, DomainId, Instant, LinkState, MacAddress, Nic, NicError, Phase, Platform,
    QueuePair, Statistics, Token, pci,
};

pub use config::Config;
pub use ids::{DeviceInfo, supported};
pub use rx::E1000eRx;
pub use tx::E1000eTx;

use capabilities::capabilities;
use ids::Family;
use interrupts::Vectors;
use regs::{Bar, STATUS, TDH, TDT};
use reset::{State, Stop};
use statistics::Counted;

type Pairs<P> = driver::Pairs<E1000eTx<P>, E1000eRx<P>, 1>;
type Lent<'a, P> = QueuePair<'a, E1000eTx<P>, E1000eRx<P>>;

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
    pairs: Pairs<P>,
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
        let registers = regs::bar(platform.map_bar(0)?);
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
        let capabilities = capabilities(config, init::tx_fifo_len(&registers, family))?;
        link::wake_phy(&platform, &registers, family)?;
        let pairs = Pairs::new(1, |id| {
            let (platform, registers) = (&mut platform, || registers.clone());
            let tx_len = config.tx_descriptors;
            let tx = E1000eTx::new(platform, id, registers(), capabilities, tx_len)?;
            let rx_size = (config.rx_descriptors, config.buffer_len());
            let rx = E1000eRx::new(platform, id, registers(), rx_size)?;
            Ok((tx, rx))
        })?;
        let mut nic = Self {
            platform,
            registers,
            info,
            config: config.clone(),
            capabilities,
            mac,
            pcie,
            pairs,
            state: State::Running,
            watch: HangWatch::default(),
            counted: Counted::default(),
            vectors: None,
        };
        nic.counted.clear(&nic.registers);
        nic.start(&mut []);
        log::info!("{} with station address {mac}", info.name);
        Ok(nic)
    }

    /// What was opened.
    #[must_use]
    pub const fn info(&self) -> DeviceInfo {
        self.info
    }

    /// Starts a device that has just been reset.
    fn start(&mut self, lent: &mut [Lent<'_, P>]) {
        let (platform, registers) = (&mut self.platform, &self.registers);
        init::prepare(registers, self.info.family, self.mac);
        self.pairs.each(lent, |_, tx, rx| {
            init::start(platform, registers, &self.config, tx, rx);
        });
        if let Some(vectors) = self.vectors {
            interrupts::program(&self.registers, vectors);
        }
        self.watch.restart();
        self.state = State::Running;
    }

    /// Lets the memory of the queues be freed on drop.
    ///
    /// # Safety
    /// The device is quiet, and is told of the queues again by [`start`](Self::start) only.
    unsafe fn set_quiet(&mut self, lent: &mut [Lent<'_, P>]) {
        // SAFETY: the caller's promise; `start` programs the queues before it switches bus
        // mastering on.
        unsafe { self.pairs.set_quiet(lent) };
    }

    /// Stops the queues and hands back all tokens.
    ///
    /// # Errors
    /// As [`Nic::release`]: nothing has been changed.
    fn drain(
        &mut self,
        lent: &mut [Lent<'_, P>],
        released: &mut dyn FnMut(u16, Token),
    ) -> Result<(), NicError> {
        self.state.check_quiet()?;
        self.pairs.check(lent)?;
        // SAFETY: the state is `Quiet`.
        unsafe { self.pairs.drain(lent, released) };
        Ok(())
    }

    fn go_on(&mut self, stop: Stop, now: Instant) -> Result<Phase, NicError> {
        let family = self.info.family;
        let step = stop.step(&mut self.platform, &self.registers, family, self.pcie, now);
        self.state.go_on(self.info.name, step)
    }
}

// SAFETY: tokens are handed back by `E1000eTx::drain`, in the state `Quiet` only, which the
// device reaches when bus mastering is off and nothing is pending. `Pairs::check` lets through all
// pairs that are ours and no others; `Pairs::each` gives each its position. The queues are
// borrowed, not moved.
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
        self.pairs.take(index)
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
            return Err(self.state.fail(self.info.name, NicError::Removed));
        }
        if let State::Stopping(stop) = self.state {
            return self.go_on(stop, now);
        }
        let (registers, counted) = (&self.registers, &mut self.counted);
        let sent = || counted.collect(registers).tx_frames;
        let place = [registers.read_ring(TDH), registers.read_ring(TDT)];
        if self.watch.is_hung(place, now, sent) {
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
        self.state.check_quiet()?;
        self.pairs.check(queues)?;
        if self.registers.is_gone() {
            return Err(NicError::Removed);
        }
        if !init::is_reset_done(&self.registers) {
            return Err(NicError::Timeout {
                what: "the global reset and the reading of the EEPROM after it",
                after: init::RESET_LIMIT,
            });
        }
        self.drain(queues, released)?;
        self.start(queues);
        Ok(())
    }

    fn release(
        &mut self,
        queues: &mut [QueuePair<'_, Self::Tx, Self::Rx>],
        released: &mut dyn FnMut(u16, Token),
    ) -> Result<(), NicError> {
        self.drain(queues, released)?;
        // SAFETY: the state is `Quiet`, and `restart` is the only way out of it.
        unsafe { self.set_quiet(queues) };
        Ok(())
    }
}
