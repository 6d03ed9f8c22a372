//! Driver for Intel 82599 and X540 on the Pagewire HAL: gather, checksum and TCP segmentation
//! offload, several pairs of queues with RSS, MSI-X with moderation.
//!
//! [`Ixgbe::open`] takes a [`Platform`] and a [`Config`] and yields a [`Nic`] with up to sixteen
//! pairs of queues ([`Config::queue_pairs`]). `no_std`, without an allocator.
//!
//! What the device does here: frames of up to 37 fragments, insertion of the IPv4 header, TCP and
//! UDP checksums over IPv4 and IPv6, TCP segmentation, padding of short frames, verification of
//! checksums and the RSS hash on receive, jumbo frames of up to 9710 bytes of MTU. Two offloads per
//! queue are remembered by the device: a frame that asks for one of them costs no descriptor more.
//! What it does not: joining of received segments (RSC), flow control, VLAN tags, filters for single
//! multicast groups, flow director, virtual functions, traffic classes, head write-back.
//!
//! # Several pairs
//! Frames are spread over the receive queues by [`Config::rss_key`]. With more than one pair a
//! frame for a queue without a free buffer is dropped; with one it waits in the device's packet
//! buffer. Vectors, where there are enough: 2i for the receive queue of pair i, 2i + 1 for its
//! transmit queue, the last one for the rest. With fewer, vector i is that of pair i; with fewer
//! still, pairs share them. Queues share no lock and no cache line: each is aligned to 128 bytes,
//! has its own ring, buffers and slots with margins, and its own registers.
//!
//! # After a restart
//! A queue that the device has not switched on by the time [`restart`](Nic::restart) returns hands
//! nothing over until it has; its [`doorbell`](pagewire_hal::TxQueue::doorbell),
//! [`reclaim`](pagewire_hal::TxQueue::reclaim) and [`receive`](pagewire_hal::RxQueue::receive)
//! look; a receive queue that nobody calls stays without buffers. `restart` looks a thousand times
//! before it returns, so this takes a device that is slower than any known. A queue that is not on
//! for 20 ms is [`Hung`](Phase::Hung).
//!
//! # Lifecycle
//! A device that is dropped goes on as it was: its queues may be in use elsewhere. To stop it,
//! go through [`begin_reset`](Nic::begin_reset), [`poll`](Nic::poll) until
//! [`Phase::Quiet`], and [`release`](Nic::release). Queues that are dropped without `release`
//! leak their rings and buffers, with a warning in the log: the device may still reach them.
//!
//! # Sources
//! Public ones: Linux ixgbe, DPDK ixgbe, FreeBSD ix, ixy; a machine-readable register map made for
//! a verified driver; TinyNF, which quotes the 82599 datasheet section by section; the X550
//! datasheet as the project's facts quote it; Intel's specification update for the 82599 (revision
//! 3.1, of later ones the lists of changes). The 82599 datasheet itself was not at hand: its
//! sections are named as TinyNF has them. Each item names its own. Where they are silent or
//! disagree, the place says so and says what was chosen.
#![no_std]

#[cfg(test)]
extern crate std;

mod bits;
mod capabilities;
mod config;
mod desc;
mod eeprom;
mod hang;
mod ids;
mod init;
mod interrupts;
mod link;
mod regs;
mod reset;
mod rss;
mod rx;
mod selftest;
mod semaphore;
mod sfp;
mod statistics;
mod tx;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

use core::net::SocketAddr;

use pagewire_hal::driver::{self, Vectors};
use pagewire_hal::{
    Capabilities, Causes, DomainId, Instant, LinkState, MacAddress, Nic, NicError, Phase, Platform,
    QueuePair, Statistics, Token, pci,
};

pub use config::Config;
pub use ids::{DeviceInfo, supported};
pub use rss::RssKey;
pub use rx::IxgbeRx;
pub use tx::IxgbeTx;

use bits::{Ctrl, Status};
use capabilities::capabilities;
use config::MAX_PAIRS;
use hang::HangWatch;
use regs::{Bar, CTRL, STATUS};
use reset::{State, Stop};
use semaphore::Resource;
use statistics::Counted;

type Pairs<P> = driver::Pairs<IxgbeTx<P>, IxgbeRx<P>, { MAX_PAIRS as usize }>;
type Lent<'a, P> = QueuePair<'a, IxgbeTx<P>, IxgbeRx<P>>;

/// Whether the queues are on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Starting {
    /// All of them were seen on.
    Done,
    /// They were asked to be.
    Asked,
    /// Not all of them were on when this was first looked at.
    Since(Instant),
}

/// An 82599 or X540: the control part.
///
/// See the crate's documentation for what happens when it is dropped.
pub struct Ixgbe<P: Platform> {
    platform: P,
    registers: Bar<P::Registers>,
    info: DeviceInfo,
    config: Config,
    capabilities: Capabilities,
    mac: MacAddress,
    /// The PHY of this port, for the semaphore.
    port: Resource,
    /// Where the PCI Express capability is.
    pcie: Option<u16>,
    pairs: Pairs<P>,
    state: State,
    starting: Starting,
    /// On the transmit queues.
    watches: [HangWatch; MAX_PAIRS as usize],
    counted: Counted,
    vectors: Option<Vectors>,
}

impl<P: Platform> core::fmt::Debug for Ixgbe<P> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Ixgbe")
            .field("info", &self.info)
            .field("mac", &self.mac)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl<P: Platform> Ixgbe<P> {
    /// Resets the device behind `platform`, initialises it and starts it. Takes some 100 ms, and
    /// up to a minute and a half with a device that answers each step at the last moment.
    ///
    /// # Errors
    /// [`NicError`]: the device is not known, not tested or gone, the configuration is out of
    /// range, a step of the initialisation has timed out, the EEPROM is damaged, the cage has no
    /// module for 10 gigabit ([`NicError::NotOffered`]), or what the platform said. The device is
    /// left stopped and reaches no memory of ours. Only if a queue has not switched on, and the
    /// device then does not become quiet either, it may: the memory of the queues leaks.
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
        let port = port(&registers);
        reset::run(&mut platform, &registers, family, port, pcie)?;
        eeprom::verify(&platform, &registers, family)?;
        let mac = match config.mac_address {
            Some(mac) => mac,
            None => eeprom::station_address(&registers)?,
        };
        link::bring_up(&platform, &registers, info)?;
        let capabilities = capabilities(config, family);
        let pairs = Pairs::new(config.queue_pairs, |id| {
            let (platform, registers) = (&mut platform, || registers.clone());
            let tx_len = config.tx_descriptors;
            let tx = IxgbeTx::new(platform, id, registers(), capabilities, tx_len)?;
            let rx_size = (config.rx_descriptors, config.buffer_len());
            let drops = config.queue_pairs > 1;
            let rx = IxgbeRx::new(platform, id, family, registers(), rx_size, drops)?;
            Ok((tx, rx))
        })?;
        let mut nic = Self {
            platform,
            registers,
            info,
            config: config.clone(),
            capabilities,
            mac,
            port,
            pcie,
            pairs,
            state: State::Quiet,
            starting: Starting::Asked,
            watches: [HangWatch::default(); MAX_PAIRS as usize],
            counted: Counted::default(),
            vectors: None,
        };
        nic.counted.clear(&nic.registers);
        nic.program(&mut []);
        if let Err(error) = nic.wait_for_queues() {
            nic.stop_for_good();
            return Err(error);
        }
        nic.run(&mut []);
        log::info!("{} with station address {mac}", info.name);
        Ok(nic)
    }

    /// What was opened.
    #[must_use]
    pub const fn info(&self) -> DeviceInfo {
        self.info
    }

    /// The receive queue that a TCP segment from `source` to `destination` comes to, as
    /// [`Config::rss_key`] and the number of pairs have it: the first if there is one pair. A
    /// program that opens connections can so choose ports whose segments come to the pair that it
    /// sends them on. Both addresses are of one family.
    #[must_use]
    pub fn receive_queue(&self, source: SocketAddr, destination: SocketAddr) -> u16 {
        let hash = self.config.rss_key.hash_tcp(source, destination);
        rss::queue(hash, self.config.queue_pairs)
    }

    /// Programs a device that has just been reset, and asks for its queues to be switched on.
    fn program(&mut self, lent: &mut [Lent<'_, P>]) {
        let (platform, registers) = (&mut self.platform, &self.registers);
        init::prepare(registers, self.info.family, &self.config, self.mac);
        self.pairs.each(lent, |_, tx, rx| {
            tx.program();
            rx.program();
        });
        // SAFETY: the device has been reset since it was last told of memory, and `program` has put
        // all rings and receive buffers into custody as not quiet: they stay mapped until
        // `set_quiet(true)`, which `release` calls only in the state `Quiet`.
        unsafe { pci::start_bus_mastering(platform) };
        registers.change(CTRL, Ctrl::GIO_MASTER_DISABLE.bits(), 0);
        init::enable_transmit(registers);
        self.pairs.each(lent, |_, tx, rx| {
            tx.enable();
            rx.enable();
        });
    }

    /// At open: waits until all queues are on.
    fn wait_for_queues(&mut self) -> Result<(), NicError> {
        let (platform, pairs) = (&self.platform, &mut self.pairs);
        let step = core::time::Duration::from_millis(1);
        let what = "a queue switching itself on (TXDCTL, RXDCTL)";
        driver::wait_until(platform, what, init::ENABLE_LIMIT, step, || {
            let mut on = true;
            pairs.each(&mut [], |_, tx, rx| on &= tx.is_enabled() & rx.offer_all());
            on
        })
    }

    /// After an opening that failed: resets the device, and lets what it was told of be freed if it
    /// becomes quiet.
    fn stop_for_good(&mut self) {
        let (platform, registers) = (&mut self.platform, &self.registers);
        let (family, port, pcie) = (self.info.family, self.port, self.pcie);
        if reset::run(platform, registers, family, port, pcie).is_ok() {
            // SAFETY: the reset has found bus mastering off and nothing pending. The queues are
            // dropped next.
            unsafe { self.set_quiet(&mut []) };
        }
    }

    /// Lets the memory of all queues be freed on drop.
    ///
    /// # Safety
    /// The device is quiet, and is told of the queues again by [`program`](Self::program) only.
    unsafe fn set_quiet(&mut self, lent: &mut [Lent<'_, P>]) {
        // SAFETY: the caller's promise; `program` prepares the queues before it tells the
        // device of them.
        unsafe { self.pairs.set_quiet(lent) };
    }

    /// Gives the receive buffers of the queues that are on to the device and switches the receiver
    /// on.
    fn run(&mut self, lent: &mut [Lent<'_, P>]) {
        for _ in 0..init::ENABLE_LOOKS {
            let mut on = true;
            self.pairs
                .each(lent, |_, tx, rx| on &= tx.is_enabled() & rx.offer_all());
            if on {
                break;
            }
        }
        init::enable_receive(&self.registers);
        if let Some(vectors) = self.vectors {
            interrupts::program(&self.registers, vectors, self.config.interrupt_interval);
        }
        self.watches.iter_mut().for_each(HangWatch::restart);
        self.starting = Starting::Asked;
        self.state = State::Running;
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
        let (platform, registers) = (&mut self.platform, &self.registers);
        let (family, port, pcie) = (self.info.family, self.port, self.pcie);
        let step = stop.step(platform, registers, family, port, pcie, now);
        self.state.go_on(self.info.name, step)
    }

    /// Whether a reset has been issued: until it has ended the registers are left alone.
    const fn has_reset(&self) -> bool {
        matches!(self.state, State::Stopping(stop) if stop.has_reset())
    }

    /// Whether a queue hangs, or does not switch itself on.
    fn is_hung(&mut self, now: Instant) -> bool {
        let pairs = self.config.queue_pairs;
        let started = match self.starting {
            Starting::Done => true,
            _ => init::are_enabled(&self.registers, pairs),
        };
        match self.starting {
            _ if started => self.starting = Starting::Done,
            Starting::Asked => self.starting = Starting::Since(now),
            Starting::Since(first) if now.saturating_since(first) >= init::ENABLE_LIMIT => {
                return true;
            }
            Starting::Since(_) | Starting::Done => {}
        }
        let mut hung = false;
        for (pair, watch) in (0..pairs).zip(&mut self.watches) {
            hung |= watch.is_hung(&self.registers, pair, now);
        }
        hung
    }
}

/// Which PHY is that of this port.
pub(crate) fn port<R: pagewire_hal::Registers>(registers: &Bar<R>) -> Resource {
    if registers.read(STATUS) & Status::LAN_1.bits() != 0 {
        Resource::Phy1
    } else {
        Resource::Phy0
    }
}

// SAFETY: tokens are handed back by `IxgbeTx::drain`, in the state `Quiet` only, which the device
// reaches when bus mastering is off and nothing is pending. `Pairs::check` lets through all pairs
// that are ours and no others; `Pairs::each` gives each its position. The queues are borrowed, not
// moved. `allocate` is the platform's, whose memory has the platform's domain.
unsafe impl<P: Platform> Nic for Ixgbe<P> {
    type Tx = IxgbeTx<P>;
    type Rx = IxgbeRx<P>;
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
        if self.has_reset() {
            return LinkState::default();
        }
        link::read(&self.registers)
    }

    fn statistics(&mut self) -> Statistics {
        if self.has_reset() || self.registers.is_gone() {
            return self.counted.total();
        }
        self.counted.collect(&self.registers)
    }

    fn enable_interrupts(&mut self) -> Result<u16, NicError> {
        // Setting the vectors up again could lose a message that has come.
        if let Some(vectors) = self.vectors {
            return Ok(vectors.count());
        }
        let pairs = self.config.queue_pairs;
        let wanted = Vectors::wanted(pairs);
        let count = self.platform.enable_interrupts(wanted)?.min(wanted);
        if count == 0 {
            return Err(NicError::NotOffered { what: "MSI-X" });
        }
        let vectors = Vectors::new(count, pairs);
        self.vectors = Some(vectors);
        if matches!(self.state, State::Running) {
            interrupts::program(&self.registers, vectors, self.config.interrupt_interval);
        }
        Ok(count)
    }

    fn take_interrupts(&mut self) -> Causes {
        match (self.vectors, self.state) {
            (Some(vectors), State::Running) => {
                interrupts::take(&mut self.platform, &self.registers, vectors)
            }
            _ => Causes::empty(),
        }
    }

    fn poll(&mut self, now: Instant) -> Result<Phase, NicError> {
        match self.state {
            State::Failed => return Ok(Phase::Failed),
            State::Quiet => return Ok(Phase::Quiet),
            State::Stopping(stop) if stop.is_resetting(self.info.family, now) => {
                return Ok(Phase::Stopping);
            }
            State::Running | State::Stopping(_) => {}
        }
        if self.registers.is_gone() {
            return Err(self.state.fail(self.info.name, NicError::Removed));
        }
        if let State::Stopping(stop) = self.state {
            return self.go_on(stop, now);
        }
        if self.is_hung(now) {
            return Ok(Phase::Hung);
        }
        Ok(Phase::Running(self.link()))
    }

    fn begin_reset(&mut self, now: Instant) {
        if !matches!(self.state, State::Running) {
            return;
        }
        self.statistics();
        let stop = reset::begin(&self.registers, now);
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
        if !reset::is_reset_done(&self.registers) {
            return Err(NicError::Timeout {
                what: "the reset, and the reading of the EEPROM after it",
                after: reset::RESET_LIMIT,
            });
        }
        self.drain(queues, released)?;
        link::start(&self.registers, self.info);
        self.program(queues);
        self.run(queues);
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
