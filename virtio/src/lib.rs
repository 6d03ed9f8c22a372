//! virtio-net 1.x over PCI: split and packed rings, gather with indirect descriptors, checksum and
//! TCP segmentation offload, several pairs of queues, MSI-X.
//!
//! [`VirtioNet::open`] takes a [`Platform`] and yields a [`Nic`] with up to eight pairs of queues
//! ([`Config::queue_pairs`]). Modern devices only: 1af4:1041, and 1af4:1000 where that has the
//! modern interface beside the legacy one.
//!
//! # What is negotiated
//! [`Features`] lists the bits that are implemented; [`VirtioNet::features`] tells which of them
//! this device and the driver agreed on, and its `Display` names them. Nothing else is ever
//! accepted. Not implemented: filters and other commands of the control queue, speed and duplex.
//! RING_RESET serves to stop the device, queue by queue and then as a whole; a queue that went down
//! is not started again alone, as a [`Nic`] has no word for that.
//!
//! # Long frames
//! With MRG_RXBUF, which is accepted wherever it is offered, a receive buffer has 2 KiB and longer
//! frames lie in several. With GUEST_TSO4 or GUEST_TSO6, which the program has to ask for
//! ([`Config::features`]), it receives frames of up to
//! [`max_receive_len`](Capabilities::max_receive_len) bytes that were joined from segments. Frames
//! longer than what the capabilities say are dropped and counted, also where the device's MTU is
//! larger than the program's.
//!
//! # Several pairs
//! With MQ the control queue takes one command, which puts the pairs to use: opening waits for the
//! answer. [`restart`](Nic::restart) does not: the command is in the ring before the first frame
//! is, which is all that the specification asks of a driver, and [`poll`](Nic::poll) looks for
//! the answer. A device that refuses, or that does not answer for a second, is
//! [`Hung`](Phase::Hung). Vectors, where there are enough: 2i for the receive queue of pair i,
//! 2i + 1 for its transmit queue, the last one for changes of the link. With fewer, vector i is
//! that of pair i; with fewer still, pairs share them.
//!
//! # Differences from a NIC with registers
//! - The device counts nothing, so [`Nic::statistics`] is all zeros: what the control part could
//!   know is in the queues, which may be on other threads. [`VirtioTx::counters`] and
//!   [`RxCounters`](pagewire_hal::RxCounters) tell what each queue has counted.
//! - [`Phase::Hung`] is reported when the device says that it needs a reset (virtio 1.3, section
//!   2.1.2), and when a transmit queue has had work and made no progress: for half a second, by the
//!   index that the device writes, or in a packed ring, which has none, for four seconds, by what
//!   was reclaimed. Of all devices together 256 transmit queues are watched, those that were
//!   opened first. Frames that wait for a link count as work. A queue that is forgotten
//!   ([`core::mem::forget`]) keeps its place for good.
//! - Completions come in any order, unless IN_ORDER was negotiated. It is not where a ring of one
//!   descriptor is asked for: QEMU 11.1 takes the number of buffers that are out modulo the length
//!   of the ring, and a full ring for an empty one.
//! - With GUEST_CSUM a received frame is [`Good`](pagewire_hal::Verdict::Good) where the device
//!   says that it has verified the transport checksum, or that the frame never was on a wire and
//!   has none; then the driver completes it. Elsewhere the verdict is `Unknown`, and there is no
//!   telling before: so [`rx_checksum`](Capabilities::rx_checksum) offers nothing.
//! - The device does not filter: frames for other stations are dropped by the receive queue.
//! - No frame is padded: the shortest has 60 bytes.
//!
//! # Ordering
//! Barriers are always those for a PCI device ([`pagewire_hal::barrier`]), so ORDER_PLATFORM is
//! accepted wherever it is offered and changes nothing.
//!
//! # Lifecycle
//! A device that is dropped goes on as it was: its queues may be in use elsewhere. To stop it,
//! go through [`begin_reset`](Nic::begin_reset), [`poll`](Nic::poll) until [`Phase::Quiet`], and
//! [`release`](Nic::release). Queues that are dropped without `release` leak their rings and
//! buffers, with a warning in the log: the device may still reach them.
//!
//! # Sources
//! OASIS virtio 1.3, by section; PCI Local Bus 3.0; the behaviour of Linux virtio_net and QEMU.
#![no_std]

#[cfg(test)]
extern crate std;

mod arrival;
mod capabilities;
mod checksum;
mod config;
mod control;
mod desc;
mod features;
mod ids;
mod init;
mod interrupts;
mod link;
mod packed;
mod progress;
mod regs;
mod reset;
mod ring;
mod rx;
mod selftest;
mod shadow;
mod split;
mod tx;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod fake_ring;
#[cfg(test)]
mod tests;

use pagewire_hal::driver;
use pagewire_hal::{
    Capabilities, Causes, DomainId, Instant, LinkState, MacAddress, Nic, NicError, Phase, Platform,
    QueuePair, Statistics, Token, pci,
};

pub use config::Config;
pub use features::Features;
pub use ids::{DeviceInfo, supported};
pub use rx::VirtioRx;
pub use tx::{TxCounters, VirtioTx};

use arrival::Reception;
use capabilities::{capabilities, station_address};
use config::MAX_PAIRS;
use control::{Answer, ControlQueue};
use init::Agreement;
use interrupts::Interrupts;
use progress::Watch;
use regs::{DEVICE_STATUS, Status, Structures};
use reset::{State, Stop};

type Pairs<P> = driver::Pairs<VirtioTx<P>, VirtioRx<P>, { MAX_PAIRS as usize }>;
type Lent<'a, P> = QueuePair<'a, VirtioTx<P>, VirtioRx<P>>;

/// A virtio network device: the control part.
///
/// See the crate's documentation for what happens when it is dropped.
pub struct VirtioNet<P: Platform> {
    platform: P,
    device: Structures<P::Registers>,
    info: DeviceInfo,
    config: Config,
    features: Features,
    capabilities: Capabilities,
    mac: MacAddress,
    /// Where the PCI Express capability is.
    pcie: Option<u16>,
    pairs: Pairs<P>,
    control: Option<ControlQueue<P>>,
    /// On the transmit queues.
    watches: [Watch; MAX_PAIRS as usize],
    state: State,
    interrupts: Interrupts,
}

impl<P: Platform> core::fmt::Debug for VirtioNet<P> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("VirtioNet")
            .field("info", &self.info)
            .field("features", &self.features)
            .field("mac", &self.mac)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl<P: Platform> VirtioNet<P> {
    /// Resets the device behind `platform`, negotiates, initialises and starts it. Takes up to
    /// a second with a device that is slow to reset.
    ///
    /// # Errors
    /// [`NicError`]: the device is not known, legacy or gone, the configuration is out of range,
    /// the device did not reset in time, refuses the features or has no queues or station
    /// address, or what the platform said. The device is left reset and reaches no memory of
    /// ours.
    pub fn open(mut platform: P, config: &Config) -> Result<Self, NicError> {
        config.check()?;
        let info = driver::identify(&platform, supported)?;
        pci::enable_memory(&mut platform);
        init::disable_legacy_interrupt(&mut platform);
        let device = match regs::locate(&mut platform) {
            Ok(device) => device,
            // A device that has gone in between is not a legacy one.
            Err(_) if platform.read_config(0) == u32::MAX => return Err(NicError::Removed),
            Err(error) => return Err(error),
        };
        let left = device.clone();
        Self::initialise(platform, device, info, config).map_err(|error| {
            // Whatever went wrong, all ones explain it better.
            if left.is_gone() {
                return NicError::Removed;
            }
            // Nothing of ours is known to the device yet: it need not be waited for.
            init::begin_reset(&left);
            error
        })
    }

    fn initialise(
        mut platform: P,
        device: Structures<P::Registers>,
        info: DeviceInfo,
        config: &Config,
    ) -> Result<Self, NicError> {
        if device.is_gone() {
            return Err(NicError::Removed);
        }
        let pcie = pci::find_pcie(&platform);
        init::reset(&platform, &device)?;
        pci::stop_bus_mastering(&mut platform);
        let agreement = init::negotiate(&device, config, None)?;
        let features = agreement.features;
        let mac = station_address(&device, features, config)?;
        let own_mtu = agreement.mtu.unwrap_or(config.mtu);
        let (pairs, control) = make_control(&mut platform, &device, agreement, config)?;
        let sizes = init::queue_sizes(&device, pairs, config)?;
        let mtu = config.mtu.min(own_mtu);
        let capabilities = capabilities(config, features, mtu, sizes.transmit, pairs);
        let interrupts = Interrupts::plan(&mut platform, pairs);
        // Frames of the device's MTU may arrive, whatever the user chose.
        let longest = (config.mtu.max(own_mtu), capabilities.max_joined_len);
        let buffer_len = config::buffer_len(features, sizes.receive, longest.0, longest.1);
        let reception = Reception::new(config, mac, features, &capabilities);
        let mut watches = [Watch::NONE; MAX_PAIRS as usize];
        let pairs = Pairs::new(pairs, |id| {
            let platform = &mut platform;
            let tx = VirtioTx::new(platform, id, capabilities, features, sizes.transmit)?;
            if let Some(watch) = watches.get_mut(usize::from(id.pair())) {
                *watch = tx.watch();
            }
            let rx = VirtioRx::new(platform, id, features, sizes.receive, buffer_len, reception)?;
            Ok((tx, rx))
        })?;
        let mut nic = Self {
            platform,
            device,
            info,
            config: config.clone(),
            features,
            capabilities,
            mac,
            pcie,
            pairs,
            control,
            watches,
            state: State::Quiet,
            interrupts,
        };
        nic.start(&mut [])?;
        nic.wait_for_control()?;
        log::info!("{} with station address {mac}: {features}", info.name);
        Ok(nic)
    }

    /// What was opened.
    #[must_use]
    pub const fn info(&self) -> DeviceInfo {
        self.info
    }

    /// What device and driver have agreed on.
    #[must_use]
    pub const fn features(&self) -> Features {
        self.features
    }

    /// Starts a device that has agreed on its features: rings, bus mastering, the receive buffers,
    /// and last the command that puts all pairs to use.
    ///
    /// # Errors
    /// The device no longer has what it had: it was told of nothing.
    fn start(&mut self, lent: &mut [Lent<'_, P>]) -> Result<(), NicError> {
        let device = &self.device;
        self.pairs
            .try_each(lent, |tx, rx| init::find_doorbells(device, tx, rx))?;
        if let Some(control) = &mut self.control {
            control.set_bell(init::doorbell(device, control.index(), control.size())?);
        }
        self.interrupts.map(device);
        self.pairs
            .each(lent, |_, tx, rx| init::program_pair(device, tx, rx));
        if let Some(control) = &mut self.control {
            init::program_control(device, control);
        }
        init::run(&mut self.platform, device);
        self.state = State::Running;
        self.watches.iter_mut().for_each(Watch::forget);
        self.pairs.each(lent, |_, _, rx| rx.offer_all());
        if let Some(control) = &mut self.control {
            control.ask();
        }
        Ok(())
    }

    /// At open: waits until all pairs are in use. If the device refuses, it is reset, and what it
    /// was told of is freed if it becomes quiet.
    fn wait_for_control(&mut self) -> Result<(), NicError> {
        let Some(control) = &mut self.control else {
            return Ok(());
        };
        let Err(error) = control.wait(&self.platform) else {
            return Ok(());
        };
        let reset = init::reset(&self.platform, &self.device);
        pci::stop_bus_mastering(&mut self.platform);
        if reset.is_ok()
            && pci::is_bus_mastering_off(&self.platform)
            && !pci::transactions_pending(&self.platform, self.pcie)
        {
            // SAFETY: the status reads 0, bus mastering reads off and nothing is pending. The
            // queues are dropped next.
            unsafe { self.set_quiet(&mut []) };
        }
        Err(error)
    }

    /// Lets the memory of all queues be freed on drop.
    ///
    /// # Safety
    /// The device is quiet, and is told of the queues again by [`start`](Self::start) only.
    unsafe fn set_quiet(&mut self, lent: &mut [Lent<'_, P>]) {
        // SAFETY: the caller's promise; `start` prepares the queues before it tells the device
        // of them.
        unsafe { self.pairs.set_quiet(lent) };
        if let Some(control) = &mut self.control {
            // SAFETY: as above.
            unsafe { control.set_quiet() };
        }
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
        let pairs = self.capabilities.queue_pairs;
        let step = stop.step(&mut self.platform, &self.device, pairs, self.pcie, now);
        self.state.go_on(self.info.name, step)
    }

    /// Agrees with the device, which was reset, on the features that it had.
    fn negotiate_again(&self) -> Result<(), NicError> {
        if !init::is_reset(&self.device) {
            // An attempt before this one failed and has begun another reset.
            return Err(NicError::Timeout {
                what: "the reset of the virtio device after a restart that failed",
                after: reset::RESET_LIMIT,
            });
        }
        init::negotiate(&self.device, &self.config, Some(self.features))?;
        Ok(())
    }
}

/// How many pairs there are, and the control queue if it takes one. Its index follows from what
/// the device has, not from what is used (virtio 1.3, section 5.1.2).
fn make_control<P: Platform>(
    platform: &mut P,
    device: &Structures<P::Registers>,
    agreement: Agreement,
    config: &Config,
) -> Result<(u16, Option<ControlQueue<P>>), NicError> {
    let Some(most) = agreement.max_pairs else {
        return Ok((1, None));
    };
    let pairs = most.min(config.queue_pairs);
    // With 32768 pairs it would be 65536, which a queue's number cannot be: `queue_size` refuses
    // 65535 in its place, as there are at most so many queues.
    let index = most.saturating_mul(2);
    let size = init::queue_size(device, index, control::DESCRIPTORS)?;
    if size < control::COMMAND_DESCRIPTORS {
        return Err(NicError::NotOffered {
            what: "control queue that holds a command",
        });
    }
    let control = ControlQueue::new(platform, agreement.features, index, size, pairs)?;
    Ok((pairs, Some(control)))
}

// SAFETY: tokens are handed back by `VirtioTx::drain`, in the state `Quiet` only, which the
// device reaches when its status reads 0, bus mastering is off and nothing is pending.
// `Pairs::check` lets through all pairs that are ours and no others; `Pairs::each` gives each its
// position. The queues are borrowed, not moved. `allocate` is the platform's, whose memory has the
// platform's domain.
unsafe impl<P: Platform> Nic for VirtioNet<P> {
    type Tx = VirtioTx<P>;
    type Rx = VirtioRx<P>;
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
        link::read(&self.device, self.features)
    }

    fn statistics(&mut self) -> Statistics {
        Statistics::default()
    }

    fn enable_interrupts(&mut self) -> Result<u16, NicError> {
        self.interrupts.enable(&mut self.platform)
    }

    fn take_interrupts(&mut self) -> Causes {
        if self.state != State::Running {
            return Causes::empty();
        }
        self.interrupts.take(&mut self.platform)
    }

    fn poll(&mut self, now: Instant) -> Result<Phase, NicError> {
        match self.state {
            State::Failed => return Ok(Phase::Failed),
            State::Quiet => return Ok(Phase::Quiet),
            State::Running | State::Stopping(_) => {}
        }
        if self.device.is_gone() {
            return Err(self.state.fail(self.info.name, NicError::Removed));
        }
        if let State::Stopping(stop) = self.state {
            return self.go_on(stop, now);
        }
        let status = Status::from_bits_retain(self.device.common.read8(DEVICE_STATUS));
        let mut hung = status.contains(Status::NEEDS_RESET);
        if let Some(control) = &mut self.control {
            hung |= control.answer(now) == Answer::Refused;
        }
        for watch in &mut self.watches {
            hung |= watch.is_hung(now);
        }
        if hung {
            return Ok(Phase::Hung);
        }
        Ok(Phase::Running(self.link()))
    }

    fn begin_reset(&mut self, now: Instant) {
        if self.state != State::Running {
            return;
        }
        let pairs = self.capabilities.queue_pairs;
        let stop = Stop::begin(&self.device, self.features, pairs, now);
        self.state = State::Stopping(stop);
    }

    fn restart(
        &mut self,
        queues: &mut [QueuePair<'_, Self::Tx, Self::Rx>],
        released: &mut dyn FnMut(u16, Token),
    ) -> Result<(), NicError> {
        self.drain(queues, released)?;
        if self.device.is_gone() {
            return Err(NicError::Removed);
        }
        let agreed = self.negotiate_again();
        let started = agreed.and_then(|()| self.start(queues));
        started.inspect_err(|_| init::begin_reset(&self.device))
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
