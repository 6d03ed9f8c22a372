//! Reset, negotiation and start (virtio 1.3, section 3.1.1), with a time limit to everything that
//! is waited for.

use core::time::Duration;

use pagewire_hal::driver::{ReceiveHalf, TransmitHalf, wait_until};
use pagewire_hal::{NicError, Platform, Registers, pci};

use crate::Features;
use crate::config::{Config, MAX_MTU, MIN_MTU};
use crate::control::ControlQueue;
use crate::link;
use crate::regs::{
    Area, COMMON_LEN_WITH_RESET, DEVICE_FEATURE, DEVICE_FEATURE_SELECT, DEVICE_STATUS,
    DRIVER_FEATURE, DRIVER_FEATURE_SELECT, Doorbell, NUM_QUEUES, QUEUE_DESC, QUEUE_DEVICE,
    QUEUE_DRIVER, QUEUE_ENABLE, QUEUE_RESET, QUEUE_SELECT, QUEUE_SIZE, Status, Structures,
};
use crate::ring::Parts;
use crate::rx::VirtioRx;
use crate::tx::VirtioTx;

/// How long a device may take to reset. The specification sets no limit, and Linux waits for
/// ever.
const RESET_LIMIT: Duration = Duration::from_secs(1);

/// Begins to reset the device: it reaches no memory when its status reads 0 (virtio 1.3, section
/// 2.4.2).
pub(crate) fn begin_reset<R: Registers>(device: &Structures<R>) {
    device.common.write8(DEVICE_STATUS, 0);
}

/// Whether a reset has finished.
pub(crate) fn is_reset<R: Registers>(device: &Structures<R>) -> bool {
    device.common.read8(DEVICE_STATUS) == 0
}

/// Resets the device and waits until that is done.
pub(crate) fn reset<P: Platform>(
    platform: &P,
    device: &Structures<P::Registers>,
) -> Result<(), NicError> {
    begin_reset(device);
    let (what, step) = ("the reset of the virtio device", Duration::from_millis(1));
    wait_until(platform, what, RESET_LIMIT, step, || is_reset(device))
}

/// Begins to reset the queues of `pairs` pairs, one by one (virtio 1.3, section 2.6.1), of a device
/// with RING_RESET: transmit queues first, as their memory is the program's. Not the control
/// queue: QEMU has taken it for one of a pair, and looked beyond its tables.
pub(crate) fn begin_queue_resets<R: Registers>(device: &Structures<R>, pairs: u16) {
    let transmit = (0..pairs).map(transmit_queue);
    let receive = (0..pairs).map(receive_queue);
    for index in transmit.chain(receive) {
        device.common.write16(QUEUE_SELECT, index);
        device.common.write16(QUEUE_RESET, 1);
    }
}

/// Whether these resets have finished.
pub(crate) fn are_queues_reset<R: Registers>(device: &Structures<R>, pairs: u16) -> bool {
    (0..2 * pairs).all(|index| {
        device.common.write16(QUEUE_SELECT, index);
        device.common.read16(QUEUE_RESET) == 0
    })
}

/// Bit 10 of the PCI command register: no INTx messages (PCI Local Bus 3.0, section 6.2.2).
const COMMAND: u16 = 0x04;
const INTX_DISABLE: u32 = 1 << 10;

/// Keeps the device from its legacy interrupt, which it would otherwise raise for each used
/// buffer while MSI-X is off.
pub(crate) fn disable_legacy_interrupt<P: Platform>(platform: &mut P) {
    let command = platform.read_config(COMMAND) & 0xFFFF | INTX_DISABLE;
    // SAFETY: the bit concerns an interrupt; the others stay as they are.
    unsafe { platform.write_config(COMMAND, command) };
}

fn offered<R: Registers>(common: &Area<R>) -> u64 {
    let half = |select: u32| {
        common.write32(DEVICE_FEATURE_SELECT, select);
        u64::from(common.read32(DEVICE_FEATURE))
    };
    half(0) | half(1) << 32
}

fn add_status<R: Registers>(common: &Area<R>, status: Status) {
    let now = common.read8(DEVICE_STATUS);
    common.write8(DEVICE_STATUS, now | status.bits());
}

/// What device and driver agree on, and the fields that were looked at for that. These are read
/// once: the device may answer differently the next time, and nobody would check that.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Agreement {
    pub(crate) features: Features,
    /// With MTU: from [`MIN_MTU`] to [`MAX_MTU`], in bytes.
    pub(crate) mtu: Option<u16>,
    /// With MQ: the pairs that the device has, from 2 to 32768.
    pub(crate) max_pairs: Option<u16>,
}

/// Of what the configuration wants, what the device offers and what can be used.
fn choose<R: Registers>(device: &Structures<R>, config: &Config) -> Agreement {
    let offered = Features::from_bits_truncate(offered(&device.common));
    let mut features = offered & (config.features | Features::ALWAYS);
    let len = device.device.as_ref().map_or(0, Area::len);
    for (feature, needed) in [
        (Features::MAC, 6),
        (Features::STATUS, 8),
        (Features::MQ, 10),
        (Features::MTU, 12),
    ] {
        if len < needed {
            features.remove(feature);
        }
    }
    if device.common.len() < COMMON_LEN_WITH_RESET {
        features.remove(Features::RING_RESET);
    }
    // In order QEMU 11.1 never uses what takes the whole ring (`virtqueue_ordered_fill` counts
    // modulo its length). Longer rings leave a gap: see `capabilities` and `buffer_len`. No QEMU
    // has rings of one descriptor unless they are asked for.
    if config.tx_descriptors == 1 || config.rx_descriptors == 1 {
        features.remove(Features::IN_ORDER);
    }
    // With MTU there must be buffers for frames of that size.
    let area = device.device.as_ref();
    let mtu = area.filter(|_| features.contains(Features::MTU));
    let mtu = mtu.map(link::mtu);
    let mtu = mtu.filter(|mtu| (MIN_MTU..=MAX_MTU).contains(mtu));
    if features.contains(Features::MTU) && mtu.is_none() {
        log::warn!("virtio-net: the device's MTU is out of range and not used");
        features.remove(Features::MTU);
    }
    // The device may have as many as 32768 pairs (virtio 1.3, section 5.1.4.1); more is nonsense.
    // The field is there if MQ is offered only.
    let max_pairs = area.filter(|_| features.contains(Features::MQ) && config.queue_pairs > 1);
    let max_pairs = max_pairs.map(link::max_pairs);
    let max_pairs = max_pairs.filter(|pairs| (2..=0x8000).contains(pairs));
    if max_pairs.is_none() {
        features.remove(Features::MQ);
    }
    let features = features.consistent();
    Agreement {
        features,
        mtu,
        max_pairs: max_pairs.filter(|_| features.contains(Features::MQ)),
    }
}

/// Tells a device that has just been reset of its driver, and agrees with it on what
/// `choose` yields, or on exactly `again`.
///
/// # Errors
/// The device is legacy, does not offer what it offered before, or refuses.
pub(crate) fn negotiate<R: Registers>(
    device: &Structures<R>,
    config: &Config,
    again: Option<Features>,
) -> Result<Agreement, NicError> {
    let common = &device.common;
    add_status(common, Status::ACKNOWLEDGE);
    add_status(common, Status::DRIVER);
    let agreement = choose(device, config);
    let features = agreement.features;
    if !features.contains(Features::VERSION_1) {
        return Err(NicError::NotOffered {
            what: "virtio 1.x interface (no VERSION_1: a legacy device)",
        });
    }
    if again.is_some_and(|before| before != features) {
        return Err(NicError::NotOffered {
            what: "set of features that it had before the reset",
        });
    }
    for (select, half) in [(0, features.bits()), (1, features.bits() >> 32)] {
        common.write32(DRIVER_FEATURE_SELECT, select);
        common.write32(DRIVER_FEATURE, half as u32);
    }
    add_status(common, Status::FEATURES_OK);
    let status = Status::from_bits_retain(common.read8(DEVICE_STATUS));
    if !status.contains(Status::FEATURES_OK) {
        return Err(NicError::NotOffered {
            what: "common set of features with this driver (FEATURES_OK is refused)",
        });
    }
    Ok(agreement)
}

/// The size for queue `index`: at most `wanted`, a power of two, as a split ring must have and
/// a packed one may.
pub(crate) fn queue_size<R: Registers>(
    device: &Structures<R>,
    index: u16,
    wanted: u16,
) -> Result<u16, NicError> {
    let common = &device.common;
    const NO_QUEUE: NicError = NicError::NotOffered {
        what: "pair of queues",
    };
    if index >= common.read16(NUM_QUEUES) {
        return Err(NO_QUEUE);
    }
    common.write16(QUEUE_SELECT, index);
    // The specification allows up to 32768; more is taken for that.
    let most = common.read16(QUEUE_SIZE);
    let size = most.min(wanted).checked_ilog2().ok_or(NO_QUEUE)?;
    Ok(1 << size)
}

/// Where the device has the receive queue of a pair (virtio 1.3, section 5.1.2).
const fn receive_queue(pair: u16) -> u16 {
    2 * pair
}

/// Where the device has the transmit queue of a pair.
const fn transmit_queue(pair: u16) -> u16 {
    2 * pair + 1
}

/// Descriptors in the rings of all pairs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueueSizes {
    pub(crate) transmit: u16,
    pub(crate) receive: u16,
}

/// The sizes for `pairs` pairs of queues, the same for all.
pub(crate) fn queue_sizes<R: Registers>(
    device: &Structures<R>,
    pairs: u16,
    config: &Config,
) -> Result<QueueSizes, NicError> {
    let mut sizes = QueueSizes {
        transmit: config.tx_descriptors,
        receive: config.rx_descriptors,
    };
    for pair in 0..pairs {
        sizes.receive = queue_size(device, receive_queue(pair), sizes.receive)?;
        sizes.transmit = queue_size(device, transmit_queue(pair), sizes.transmit)?;
    }
    Ok(sizes)
}

/// Finds the doorbell of queue `index`, before anything of the queue is programmed.
pub(crate) fn doorbell<R: Registers>(
    device: &Structures<R>,
    index: u16,
    size: u32,
) -> Result<Doorbell<R>, NicError> {
    let common = &device.common;
    common.write16(QUEUE_SELECT, index);
    if u32::from(common.read16(QUEUE_SIZE)) < size {
        return Err(NicError::NotOffered {
            what: "queue as long as before the reset",
        });
    }
    device.doorbell(index).ok_or(NicError::NotOffered {
        what: "doorbell for a queue inside its notification structure",
    })
}

/// Tells the device of queue `index`.
///
/// # Safety
/// `parts` are those of an empty ring of `size` descriptors, which stay mapped until the device
/// is quiet; so does all memory that is ever made available in it.
unsafe fn program<R: Registers>(device: &Structures<R>, index: u16, size: u32, parts: Parts) {
    let common = &device.common;
    common.write16(QUEUE_SELECT, index);
    common.write16(QUEUE_SIZE, size as u16);
    for (at, address) in [
        (QUEUE_DESC, parts.descriptors),
        (QUEUE_DRIVER, parts.driver),
        (QUEUE_DEVICE, parts.device),
    ] {
        // SAFETY: the caller's promise.
        unsafe { common.write_queue_address(at, address.0) };
    }
    common.write16(QUEUE_ENABLE, 1);
}

/// Finds the doorbells of a pair.
///
/// # Errors
/// The device no longer has such queues.
pub(crate) fn find_doorbells<P: Platform>(
    device: &Structures<P::Registers>,
    tx: &mut VirtioTx<P>,
    rx: &mut VirtioRx<P>,
) -> Result<(), NicError> {
    rx.set_bell(doorbell(device, receive_queue(rx.id().pair()), rx.size())?);
    tx.set_bell(doorbell(device, transmit_queue(tx.id().pair()), tx.size())?);
    Ok(())
}

/// Tells the device, which has agreed on its features, of a pair of queues.
pub(crate) fn program_pair<P: Platform>(
    device: &Structures<P::Registers>,
    tx: &mut VirtioTx<P>,
    rx: &mut VirtioRx<P>,
) {
    let parts = rx.prepare();
    // SAFETY: the ring is empty, in custody as not quiet, and offers only buffers that are too.
    unsafe { program(device, receive_queue(rx.id().pair()), rx.size(), parts) };
    let parts = tx.prepare();
    // SAFETY: the ring is empty and in custody as not quiet; the callers of `post` answer for the
    // frames.
    unsafe { program(device, transmit_queue(tx.id().pair()), tx.size(), parts) };
}

/// Tells the device of the control queue.
pub(crate) fn program_control<P: Platform>(
    device: &Structures<P::Registers>,
    control: &mut ControlQueue<P>,
) {
    let parts = control.prepare();
    // SAFETY: the ring is empty, and it and the command are in custody as not quiet.
    unsafe { program(device, control.index(), control.size(), parts) };
}

/// Lets the device run, when it has been told of all queues.
pub(crate) fn run<P: Platform>(platform: &mut P, device: &Structures<P::Registers>) {
    // SAFETY: all that the device was told of is in custody as not quiet.
    unsafe { pci::start_bus_mastering(platform) };
    add_status(&device.common, Status::DRIVER_OK);
}
