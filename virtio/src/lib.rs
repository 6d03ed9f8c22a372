//! virtio-net 1.x over PCI: split and packed rings, gather with indirect descriptors, checksum and TCP
//! segmentation offload, MSI-X.
//!
//! [`VirtioNet::open`] takes a [`Platform`] and yields a [`Nic`] with one pair of queues. Modern
//! devices only: 1af4:1041, and 1af4:1000 where that has the modern interface beside the legacy
//! one.
//!
//! # What is negotiated
//! [`Features`] lists the bits that are implemented; [`VirtioNet::features`] tells which of them
//! this device and the driver agreed on, and its `Display` names them. Nothing else is ever
//! accepted. Not implemented: the segmentation of received frames (GUEST_TSO), mergeable receive buffers (a buffer
//! holds the longest frame), several queue pairs and the control queue, reset of single queues,
//! speed and duplex.
//!
//! # Differences from a NIC with registers
//! - The device counts nothing, so [`Nic::statistics`] is all zeros: what the control part could
//!   know is in the queues, which may be on other threads. [`VirtioTx::counters`] and
//!   [`RxCounters`](pagewire_hal::RxCounters) tell what each queue has counted.
//! - For the same reason [`Phase::Hung`] is reported when the device says that it needs a reset
//!   (virtio 1.3, section 2.1.2), and not for a transmitter without progress.
//! - Completions come in any order, unless IN_ORDER was negotiated.
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

mod checksum;
mod config;
mod desc;
mod features;
mod ids;
mod init;
mod interrupts;
mod link;
mod packed;
mod regs;
mod reset;
mod ring;
mod rx;
mod shadow;
mod split;
mod tx;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod fake_ring;
#[cfg(test)]
mod tests;

use pagewire_hal::{
    Capabilities, Causes, ChecksumOffload, DomainId, Instant, LinkState, MacAddress, Nic, NicError,
    Phase, Platform, QueueOwner, QueuePair, Segmentation, Statistics, Token, pci,
};

pub use config::Config;
pub use features::Features;
pub use ids::{DeviceInfo, supported};
pub use rx::VirtioRx;
pub use tx::{TxCounters, VirtioTx};

use config::ETHERNET_HEADER;
use init::{Doorbells, RECEIVE_QUEUE, TRANSMIT_QUEUE};
use interrupts::Interrupts;
use regs::{DEVICE_STATUS, Status, Structures};
use reset::{State, Step, Stop};

/// QEMU's elements have at most 1024 pieces (`VIRTQUEUE_MAX_SIZE`), as has Linux' writev, and the
/// header may become a piece of its own there.
const MAX_CHAIN: u16 = 1023;
/// No virtual device pads, and what is behind it may be a wire: so the shortest frame is that of
/// Ethernet, without its frame check sequence.
const MIN_FRAME_LEN: u32 = 60;
/// Payload of a request for segmentation: with the longest IPv4 and TCP headers (60 bytes each)
/// the packet's length fits its 16-bit field.
const MAX_SEGMENTATION_PAYLOAD: u32 = 65_535 - 120;
/// The specification sets no limit; this is more than Ethernet, VLAN, IPv6 with the longest TCP
/// header have, with room for extension headers.
const MAX_SEGMENTATION_HEADER: u16 = 255;

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
    /// The queues until they are taken.
    queues: Option<(VirtioTx<P>, VirtioRx<P>)>,
    /// What names our queues.
    owner: QueueOwner,
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
        let info = ids::identify(&platform)?;
        pci::enable_memory(&mut platform);
        init::disable_legacy_interrupt(&mut platform);
        let device = regs::locate(&mut platform)?;
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
        let features = init::negotiate(&device, config.features, None)?;
        let mac = station_address(&device, features, config)?;
        let own_mtu = match &device.device {
            Some(area) if features.contains(Features::MTU) => link::mtu(area),
            _ => config.mtu,
        };
        let mtu = config.mtu.min(own_mtu);
        let tx_size = init::queue_size(&device, TRANSMIT_QUEUE, config.tx_descriptors)?;
        let rx_size = init::queue_size(&device, RECEIVE_QUEUE, config.rx_descriptors)?;
        let capabilities = capabilities(config, features, mtu, tx_size);
        let interrupts = Interrupts::plan(&mut platform, 1);
        let owner = QueueOwner::new_unique();
        let mut tx = VirtioTx::new(&mut platform, owner, capabilities, features, tx_size)?;
        // Frames of the device's MTU may arrive, whatever the user chose.
        let buffer_len = config::buffer_len(config.mtu.max(own_mtu));
        let receive = (config, mac);
        let mut rx = VirtioRx::new(&mut platform, owner, features, rx_size, buffer_len, receive)?;
        let mut nic = Self {
            platform,
            device,
            info,
            config: config.clone(),
            features,
            capabilities,
            mac,
            pcie,
            owner,
            queues: None,
            state: State::Quiet,
            interrupts,
        };
        let bells = nic.doorbells(tx.size(), rx.size())?;
        nic.start(bells, &mut tx, &mut rx);
        nic.queues = Some((tx, rx));
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

    fn doorbells(&self, tx: u32, rx: u32) -> Result<Doorbells<P::Registers>, NicError> {
        Ok((
            init::doorbell(&self.device, TRANSMIT_QUEUE, tx)?,
            init::doorbell(&self.device, RECEIVE_QUEUE, rx)?,
        ))
    }

    /// Starts a device that has agreed on its features.
    fn start(
        &mut self,
        bells: Doorbells<P::Registers>,
        tx: &mut VirtioTx<P>,
        rx: &mut VirtioRx<P>,
    ) {
        self.interrupts.map(&self.device);
        init::start(&mut self.platform, &self.device, bells, tx, rx);
        self.state = State::Running;
    }

    /// Whether `queues` is the pair that was taken, and nothing else.
    fn check_quiet(
        &self,
        queues: &[QueuePair<'_, VirtioTx<P>, VirtioRx<P>>],
    ) -> Result<(), NicError> {
        if self.state != State::Quiet {
            return Err(NicError::WrongPhase);
        }
        let is_ours = |pair: &QueuePair<'_, VirtioTx<P>, VirtioRx<P>>| {
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

    /// Calls `with` with the pair, wherever it is. `check_quiet` has found it to be there.
    fn with_pair(
        &mut self,
        queues: &mut [QueuePair<'_, VirtioTx<P>, VirtioRx<P>>],
        with: impl FnOnce(&mut Self, &mut VirtioTx<P>, &mut VirtioRx<P>) -> Result<(), NicError>,
    ) -> Result<(), NicError> {
        if let Some((mut tx, mut rx)) = self.queues.take() {
            let result = with(self, &mut tx, &mut rx);
            self.queues = Some((tx, rx));
            result
        } else if let Some(pair) = queues.first_mut() {
            with(self, pair.tx, pair.rx)
        } else {
            Err(NicError::QueueMissing { index: 0 })
        }
    }

    fn fail(&mut self, error: NicError) -> NicError {
        log::warn!("{}: {error}", self.info.name);
        self.state = State::Failed;
        error
    }

    fn go_on(&mut self, stop: Stop, now: Instant) -> Result<Phase, NicError> {
        match stop.step(&mut self.platform, &self.device, self.pcie, now) {
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

    /// Agrees with the device, which was reset, on the features that it had.
    fn negotiate_again(&self) -> Result<(), NicError> {
        if !init::is_reset(&self.device) {
            // An attempt before this one failed and has begun another reset.
            return Err(NicError::Timeout {
                what: "the reset of the virtio device after a restart that failed",
                after: reset::RESET_LIMIT,
            });
        }
        init::negotiate(&self.device, self.config.features, Some(self.features))?;
        Ok(())
    }
}

fn station_address<R: pagewire_hal::Registers>(
    device: &Structures<R>,
    features: Features,
    config: &Config,
) -> Result<MacAddress, NicError> {
    if !features.contains(Features::MAC) {
        return config.mac_address.ok_or(NicError::Config {
            what: "the device has no station address: mac_address is needed",
        });
    }
    let mac = link::mac_address(device).ok_or(NicError::NotOffered {
        what: "station address that can be read: it changes all the time",
    })?;
    if mac.is_multicast() || mac.0 == [0; 6] {
        return Err(NicError::BadMacAddress(mac));
    }
    Ok(mac)
}

/// What the device can do with `features` and a transmit ring of `size` descriptors.
fn capabilities(config: &Config, features: Features, mtu: u16, size: u16) -> Capabilities {
    let mut capabilities = Capabilities::minimal();
    // A chain is never longer than the queue, in an indirect table either (virtio 1.3, section
    // 2.7.5.3.1).
    let bound = config.max_fragments.unwrap_or(u16::MAX);
    capabilities.max_fragments = size.min(MAX_CHAIN).min(bound);
    capabilities.max_frame_len = u32::from(mtu) + ETHERNET_HEADER;
    capabilities.max_fragment_len = capabilities.max_frame_len;
    capabilities.min_frame_len = MIN_FRAME_LEN;
    capabilities.head_room = desc::HEADER_LEN as u16;
    capabilities.dma_address_bits = 64;
    if features.contains(Features::CSUM) {
        capabilities.tx_checksum = ChecksumOffload::TRANSPORT;
    }
    let mut limits = Segmentation::new(MAX_SEGMENTATION_PAYLOAD, MAX_SEGMENTATION_HEADER);
    limits.ipv4 = features.contains(Features::HOST_TSO4);
    limits.ipv6 = features.contains(Features::HOST_TSO6);
    limits.seed_has_length = true;
    if limits.ipv4 || limits.ipv6 {
        capabilities.segmentation = Some(limits);
        capabilities.max_fragment_len =
            MAX_SEGMENTATION_PAYLOAD + u32::from(MAX_SEGMENTATION_HEADER);
    }
    capabilities
}

// SAFETY: tokens are handed back by `VirtioTx::drain`, in the state `Quiet` only, which the
// device reaches when its status reads 0, bus mastering is off and nothing is pending.
// `check_quiet` lets through the one pair that is ours, so its position is 0. The queues are
// borrowed, not moved. `allocate` is the platform's, whose memory has the platform's domain.
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
        if index == 0 { self.queues.take() } else { None }
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
            return Err(self.fail(NicError::Removed));
        }
        if let State::Stopping(stop) = self.state {
            return self.go_on(stop, now);
        }
        let status = Status::from_bits_retain(self.device.common.read8(DEVICE_STATUS));
        if status.contains(Status::NEEDS_RESET) {
            return Ok(Phase::Hung);
        }
        Ok(Phase::Running(self.link()))
    }

    fn begin_reset(&mut self, now: Instant) {
        if self.state != State::Running {
            return;
        }
        init::begin_reset(&self.device);
        self.state = State::Stopping(Stop::Reset(now));
    }

    fn restart(
        &mut self,
        queues: &mut [QueuePair<'_, Self::Tx, Self::Rx>],
        released: &mut dyn FnMut(u16, Token),
    ) -> Result<(), NicError> {
        self.check_quiet(queues)?;
        self.with_pair(queues, |nic, tx, rx| {
            if nic.device.is_gone() {
                return Err(NicError::Removed);
            }
            rx.stop();
            // SAFETY: the state is `Quiet`: the device knows no ring and is no bus master.
            unsafe { tx.drain(&mut |token| released(0, token)) };
            let agreed = nic.negotiate_again();
            let bells = agreed.and_then(|()| nic.doorbells(tx.size(), rx.size()));
            let bells = bells.inspect_err(|_| init::begin_reset(&nic.device))?;
            nic.start(bells, tx, rx);
            Ok(())
        })
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
            // SAFETY: the state is `Quiet`, and `restart`, the only way out of it, prepares the
            // queues before it tells the device of them.
            unsafe { tx.set_quiet() };
            // SAFETY: as above.
            unsafe { rx.set_quiet() };
            Ok(())
        })
    }
}
