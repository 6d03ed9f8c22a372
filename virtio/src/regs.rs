//! Where the device's structures are, and access to them.
//!
//! Layout: virtio 1.3, sections 4.1.4 (capabilities), 4.1.4.3 (common configuration), 4.1.4.4
//! (notification) and 5.1.4 (configuration of a network device).

use bitflags::bitflags;
use pagewire_hal::{NicError, Platform, PlatformError, Registers, pci};

/// PCI capability: vendor-specific.
const CAPABILITY_VENDOR: u8 = 0x09;
/// Bytes of a capability that names a structure, and of the one for notifications.
const CAPABILITY_LEN: u16 = 16;
const NOTIFY_CAPABILITY_LEN: u16 = 20;
const TYPE_COMMON: u8 = 1;
const TYPE_NOTIFY: u8 = 2;
const TYPE_DEVICE: u8 = 4;
/// Bytes of configuration space in which capabilities lie.
const CONFIG_SPACE: u16 = 256;
/// Bytes of the common configuration that the driver uses: up to `queue_device`.
const COMMON_LEN: u32 = 56;
/// The same with RING_RESET: up to `queue_reset`.
pub(crate) const COMMON_LEN_WITH_RESET: u32 = 60;

/// Selects 32 feature bits of the device. 32 bits.
pub(crate) const DEVICE_FEATURE_SELECT: u32 = 0;
/// The selected bits. 32 bits.
pub(crate) const DEVICE_FEATURE: u32 = 4;
/// Selects 32 feature bits of the driver. 32 bits.
pub(crate) const DRIVER_FEATURE_SELECT: u32 = 8;
/// The selected bits. 32 bits.
pub(crate) const DRIVER_FEATURE: u32 = 12;
/// MSI-X vector of configuration changes. 16 bits.
pub(crate) const CONFIG_MSIX_VECTOR: u32 = 16;
/// Queues that there are. 16 bits.
pub(crate) const NUM_QUEUES: u32 = 18;
/// See [`Status`]. 8 bits.
pub(crate) const DEVICE_STATUS: u32 = 20;
/// Changes with the configuration. 8 bits.
pub(crate) const CONFIG_GENERATION: u32 = 21;
/// Selects the queue of the registers that follow. 16 bits.
pub(crate) const QUEUE_SELECT: u32 = 22;
/// Descriptors in the ring; at first the most that the device can. 16 bits.
pub(crate) const QUEUE_SIZE: u32 = 24;
/// MSI-X vector of the queue. 16 bits.
pub(crate) const QUEUE_MSIX_VECTOR: u32 = 26;
/// 1 hands the ring to the device. 16 bits.
pub(crate) const QUEUE_ENABLE: u32 = 28;
/// Where the queue's doorbell is, in units of the multiplier. 16 bits.
pub(crate) const QUEUE_NOTIFY_OFF: u32 = 30;
/// Address of the descriptors. 64 bits, two accesses of 32.
pub(crate) const QUEUE_DESC: u32 = 32;
/// Address of what the driver writes. 64 bits.
pub(crate) const QUEUE_DRIVER: u32 = 40;
/// Address of what the device writes. 64 bits.
pub(crate) const QUEUE_DEVICE: u32 = 48;
/// With RING_RESET: 1 resets the queue, and is read until that is done. 16 bits.
pub(crate) const QUEUE_RESET: u32 = 58;

/// Station address, in the configuration of a network device: six bytes.
pub(crate) const NET_MAC: u32 = 0;
/// Link status in bit 0. 16 bits.
pub(crate) const NET_STATUS: u32 = 6;
/// Most pairs of queues, with MQ. 16 bits.
pub(crate) const NET_MAX_PAIRS: u32 = 8;
/// Largest MTU. 16 bits.
pub(crate) const NET_MTU: u32 = 10;

/// No MSI-X vector; read back where the device could not take one.
pub(crate) const NO_VECTOR: u16 = 0xFFFF;

bitflags! {
    /// Device status (virtio 1.3, section 2.1). Writing 0 resets the device.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub(crate) struct Status: u8 {
        /// The driver has seen the device.
        const ACKNOWLEDGE = 1;
        /// The driver knows how to drive it.
        const DRIVER = 2;
        /// The device runs.
        const DRIVER_OK = 4;
        /// The features are agreed on.
        const FEATURES_OK = 8;
        /// The device has met an error that only a reset cures.
        const NEEDS_RESET = 64;
    }
}

/// A structure of the device in one of its BARs.
#[derive(Clone, Debug)]
pub(crate) struct Area<R> {
    registers: R,
    offset: u32,
    len: u32,
}

impl<R: Registers> Area<R> {
    /// Bytes.
    pub(crate) const fn len(&self) -> u32 {
        self.len
    }

    /// Where field `at` of `width` bytes is in the BAR; beyond it if it is not in the structure,
    /// where reads return ones and writes do nothing.
    #[inline(always)]
    fn place(&self, at: u32, width: u32) -> u32 {
        match at.checked_add(width) {
            // `locate` checked that offset and length do not overflow.
            Some(end) if end <= self.len => self.offset + at,
            _ => u32::MAX,
        }
    }

    pub(crate) fn read8(&self, at: u32) -> u8 {
        self.registers.read8(self.place(at, 1))
    }

    pub(crate) fn read16(&self, at: u32) -> u16 {
        self.registers.read16(self.place(at, 2))
    }

    pub(crate) fn read32(&self, at: u32) -> u32 {
        self.registers.read(self.place(at, 4))
    }

    pub(crate) fn write8(&self, at: u32, value: u8) {
        // SAFETY: no 8-bit field holds an address. Those that let the device run let it reach
        // only the rings that `write_queue_address` told it of, whose owner answers for them.
        unsafe { self.registers.write8(self.place(at, 1), value) };
    }

    pub(crate) fn write16(&self, at: u32, value: u16) {
        // SAFETY: no 16-bit field holds an address. The size of a ring is written by
        // `init::program`, before the addresses of a ring of that size.
        unsafe { self.registers.write16(self.place(at, 2), value) };
    }

    pub(crate) fn write32(&self, at: u32, value: u32) {
        debug_assert!(at < QUEUE_DESC);
        // SAFETY: the 32-bit fields, but for halves of queue addresses, are feature bits.
        unsafe { self.registers.write(self.place(at, 4), value) };
    }

    /// Tells the device of a part of the selected queue: `at` is one of [`QUEUE_DESC`],
    /// [`QUEUE_DRIVER`] and [`QUEUE_DEVICE`].
    ///
    /// # Safety
    /// At `address` is that part of a ring of the size that was written, which stays mapped until
    /// the device is quiet, and so does all memory that it names.
    pub(crate) unsafe fn write_queue_address(&self, at: u32, address: u64) {
        // SAFETY: the caller's promise.
        unsafe { self.registers.write(self.place(at, 4), address as u32) };
        let high = (address >> 32) as u32;
        // SAFETY: the caller's promise.
        unsafe { self.registers.write(self.place(at + 4, 4), high) };
    }
}

/// All structures that the driver uses.
#[derive(Clone, Debug)]
pub(crate) struct Structures<R> {
    /// The common configuration.
    pub(crate) common: Area<R>,
    /// The doorbells.
    notify: Area<R>,
    /// Bytes between two of them.
    multiplier: u32,
    /// The configuration of a network device, if it has one.
    pub(crate) device: Option<Area<R>>,
}

/// One queue's doorbell.
#[derive(Clone, Debug)]
pub(crate) struct Doorbell<R> {
    registers: R,
    offset: u32,
    queue: u16,
}

impl<R: Registers> Doorbell<R> {
    /// Tells the device to look at the ring.
    ///
    /// # Safety
    /// All memory that the ring names, as far as it is available to the device, stays mapped
    /// until the device has said that it is done with it, or is quiet.
    #[inline(always)]
    pub(crate) unsafe fn ring(&self) {
        // SAFETY: the caller's promise.
        unsafe { self.registers.write16(self.offset, self.queue) };
    }
}

impl<R: Registers> Structures<R> {
    /// The doorbell of the selected queue, whose number is `queue`. `None` if the device says
    /// that it lies outside the structure, or at an odd place.
    pub(crate) fn doorbell(&self, queue: u16) -> Option<Doorbell<R>> {
        let at = u32::from(self.common.read16(QUEUE_NOTIFY_OFF)).checked_mul(self.multiplier)?;
        let offset = self.notify.place(at, 2);
        (offset != u32::MAX && offset.is_multiple_of(2)).then(|| Doorbell {
            registers: self.notify.registers.clone(),
            offset,
            queue,
        })
    }

    /// Whether all registers read ones: the device is no longer there. No device has 65535
    /// queues, or all bits of its status set.
    pub(crate) fn is_gone(&self) -> bool {
        self.common.read8(DEVICE_STATUS) == u8::MAX && self.common.read16(NUM_QUEUES) == u16::MAX
    }
}

/// Maps BARs, each once.
struct Bars<R> {
    mapped: [Option<R>; 6],
}

impl<R: Registers> Bars<R> {
    fn get<P>(&mut self, platform: &mut P, bar: u8) -> Result<Option<R>, NicError>
    where
        P: Platform<Registers = R>,
    {
        let Some(slot) = self.mapped.get_mut(usize::from(bar)) else {
            // A reserved value: the capability is to be ignored.
            return Ok(None);
        };
        if slot.is_none() {
            *slot = match platform.map_bar(bar) {
                Ok(registers) => Some(registers),
                // An I/O BAR, perhaps: there may be another capability of this type.
                Err(PlatformError::NoBar(_)) => None,
                Err(error) => return Err(error.into()),
            };
        }
        Ok(slot.clone())
    }
}

/// What a capability says.
struct Capability {
    kind: u8,
    bar: u8,
    offset: u32,
    len: u32,
    multiplier: u32,
}

fn parse<P: Platform>(platform: &P, at: u16) -> Option<Capability> {
    let head = platform.read_config(at);
    let (len, kind) = ((head >> 16) as u8, (head >> 24) as u8);
    let is_notify = kind == TYPE_NOTIFY;
    let needed = if is_notify {
        NOTIFY_CAPABILITY_LEN
    } else {
        CAPABILITY_LEN
    };
    if u16::from(len) < needed || at + needed > CONFIG_SPACE {
        return None;
    }
    Some(Capability {
        kind,
        bar: platform.read_config(at + 4) as u8,
        offset: platform.read_config(at + 8),
        len: platform.read_config(at + 12),
        multiplier: if is_notify {
            platform.read_config(at + 16)
        } else {
            0
        },
    })
}

/// Finds the structures by the capabilities of the function: the first of each type that can be
/// used, as the specification asks for (virtio 1.3, section 4.1.4.1).
pub(crate) fn locate<P: Platform>(platform: &mut P) -> Result<Structures<P::Registers>, NicError> {
    // As many as there can be; the walk is bounded, and the platform is needed to map.
    let mut places = [0u16; 48];
    let mut count = 0;
    for (id, at) in pci::capabilities(platform) {
        if id == CAPABILITY_VENDOR
            && let Some(place) = places.get_mut(count)
        {
            *place = at;
            count += 1;
        }
    }
    let mut bars = Bars {
        mapped: [const { None }; 6],
    };
    let (mut common, mut notify, mut device) = (None, None, None);
    for at in places.into_iter().take(count) {
        let Some(found) = parse(platform, at) else {
            continue;
        };
        let (wanted, align, least) = match found.kind {
            TYPE_COMMON => (common.is_none(), 4, COMMON_LEN),
            TYPE_NOTIFY => (notify.is_none(), 2, 2),
            TYPE_DEVICE => (device.is_none(), 4, 1),
            _ => (false, 1, 0),
        };
        let fits = found.offset.checked_add(found.len).is_some();
        if !wanted || !fits || !found.offset.is_multiple_of(align) || found.len < least {
            continue;
        }
        let Some(registers) = bars.get(platform, found.bar)? else {
            continue;
        };
        let area = Area {
            registers,
            offset: found.offset,
            len: found.len,
        };
        match found.kind {
            TYPE_COMMON => common = Some(area),
            TYPE_NOTIFY => notify = Some((area, found.multiplier)),
            _ => device = Some(area),
        }
    }
    match (common, notify) {
        (Some(common), Some((notify, multiplier))) => Ok(Structures {
            common,
            notify,
            multiplier,
            device,
        }),
        _ => Err(NicError::NotOffered {
            what: "virtio 1.x interface (a legacy device; QEMU: disable-modern=off)",
        }),
    }
}
