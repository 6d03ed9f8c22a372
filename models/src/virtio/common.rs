//! The registers in BAR 4: common configuration, ISR, device configuration, doorbells.
//!
//! Every field is accessed in its own width (virtio 1.3, "PCI Device Layout"); 64-bit fields in
//! two halves.

use super::VirtioNet;
use super::bits::{NO_VECTOR, feature, status};
use super::pci::{COMMON, COMMON_LEN, DEVICE, DEVICE_LEN, ISR, MULTIPLIER, NOTIFY};
use super::queue::Queue;

/// The fields of the common configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Field {
    DeviceFeatureSelect,
    DeviceFeature,
    DriverFeatureSelect,
    DriverFeature,
    ConfigVector,
    QueueCount,
    Status,
    Generation,
    QueueSelect,
    QueueSize,
    QueueVector,
    QueueEnable,
    NotifyOffset,
    /// The lower or upper half of the address of area 0 to 2.
    Area(u8, bool),
    QueueReset,
}

/// The field at an offset, and its width.
pub(super) fn field(offset: u32) -> Option<(Field, u32)> {
    Some(match offset {
        0x00 => (Field::DeviceFeatureSelect, 4),
        0x04 => (Field::DeviceFeature, 4),
        0x08 => (Field::DriverFeatureSelect, 4),
        0x0c => (Field::DriverFeature, 4),
        0x10 => (Field::ConfigVector, 2),
        0x12 => (Field::QueueCount, 2),
        0x14 => (Field::Status, 1),
        0x15 => (Field::Generation, 1),
        0x16 => (Field::QueueSelect, 2),
        0x18 => (Field::QueueSize, 2),
        0x1a => (Field::QueueVector, 2),
        0x1c => (Field::QueueEnable, 2),
        0x1e => (Field::NotifyOffset, 2),
        0x20 | 0x24 => (Field::Area(0, offset == 0x24), 4),
        0x28 | 0x2c => (Field::Area(1, offset == 0x2c), 4),
        0x30 | 0x34 => (Field::Area(2, offset == 0x34), 4),
        0x3a => (Field::QueueReset, 2),
        _ => return None,
    })
}

/// What the common configuration holds beside the queues.
#[derive(Debug, Default)]
pub(super) struct Common {
    device_select: u32,
    driver_select: u32,
    pub(super) driver_features: u64,
    pub(super) config_vector: u16,
    pub(super) status: u8,
    generation: u8,
    /// The device configuration has changed since it was last read.
    pub(super) changed: bool,
    queue_select: u16,
    pub(super) isr: u8,
}

impl Common {
    pub(super) fn new(generation: u8) -> Self {
        Self {
            config_vector: NO_VECTOR,
            generation,
            ..Self::default()
        }
    }

    pub(super) fn generation(&self) -> u8 {
        self.generation
    }
}

/// The half of `value` that `select` shows.
fn half(value: u64, select: u32) -> u32 {
    match select {
        0 => value as u32,
        1 => (value >> 32) as u32,
        _ => 0,
    }
}

fn with_half(value: u64, upper: bool, half: u32) -> u64 {
    if upper {
        value & 0xffff_ffff | u64::from(half) << 32
    } else {
        value & !0xffff_ffff | u64::from(half)
    }
}

impl VirtioNet {
    /// Reads a register of BAR 4; `None` if there is none of that width.
    pub(super) fn read_register(&mut self, offset: u32, width: u32) -> Option<u32> {
        match offset {
            COMMON..COMMON_LEN => {
                let (field, due) = field(offset - COMMON)?;
                (due == width).then(|| self.read_common(field))
            }
            ISR if width == 1 => Some(std::mem::take(&mut self.common.isr).into()),
            DEVICE.. if offset < DEVICE + DEVICE_LEN => self.read_device(offset - DEVICE, width),
            _ => None,
        }
    }

    /// Writes a register of BAR 4; `false` if there is none of that width.
    pub(super) fn write_register(&mut self, offset: u32, width: u32, value: u32) -> bool {
        if let COMMON..COMMON_LEN = offset {
            return match field(offset - COMMON) {
                Some((field, due)) if due == width => {
                    self.write_common(field, value);
                    true
                }
                _ => false,
            };
        }
        width == 2 && self.ring_doorbell(offset, value as u16)
    }

    fn selected(&mut self) -> Option<&mut Queue> {
        let index = usize::from(self.common.queue_select);
        self.queues.get_mut(index)
    }

    fn read_common(&mut self, field: Field) -> u32 {
        if field == Field::QueueReset && self.common.driver_features & feature::RING_RESET == 0 {
            self.report("queue_reset read without RING_RESET");
        }
        let notify = self.notify_offset(self.common.queue_select);
        let offered = self.config.offers.bits();
        match field {
            Field::DeviceFeatureSelect => self.common.device_select,
            Field::DeviceFeature => half(offered, self.common.device_select),
            Field::DriverFeatureSelect => self.common.driver_select,
            Field::DriverFeature => half(self.common.driver_features, self.common.driver_select),
            Field::ConfigVector => self.common.config_vector.into(),
            Field::QueueCount => self.queues.len() as u32,
            // Not zero before a reset is done.
            Field::Status if self.reset.is_some() => u32::from(self.common.status | 1),
            Field::Status => self.common.status.into(),
            Field::Generation => self.common.generation.into(),
            Field::QueueSelect => self.common.queue_select.into(),
            Field::NotifyOffset => notify.into(),
            Field::QueueSize => self.selected().map_or(0, |q| q.size.into()),
            Field::QueueVector => self.selected().map_or(NO_VECTOR, |q| q.vector).into(),
            Field::QueueEnable => self.selected().is_some_and(|q| q.enabled).into(),
            Field::QueueReset => self.selected().is_some_and(|q| q.reset.is_some()).into(),
            Field::Area(area, upper) => {
                let address = self.selected().map_or(0, |q| match area {
                    0 => q.descriptors,
                    1 => q.driver,
                    _ => q.device,
                });
                half(address, upper.into())
            }
        }
    }

    fn write_common(&mut self, field: Field, value: u32) {
        if self.reset.is_some() && !(field == Field::Status && value == 0) {
            self.report("a register written before the reset has finished");
            return;
        }
        match field {
            Field::DeviceFeatureSelect => self.common.device_select = value,
            Field::DriverFeatureSelect => self.common.driver_select = value,
            Field::DriverFeature => self.write_features(value),
            Field::ConfigVector => self.common.config_vector = self.valid_vector(value as u16),
            Field::Status => self.write_status(value as u8),
            Field::QueueSelect => self.common.queue_select = value as u16,
            Field::QueueReset => self.reset_queue(value),
            Field::DeviceFeature | Field::QueueCount | Field::Generation | Field::NotifyOffset => {
                self.report(&format!("{field:?} written, which is read-only"));
            }
            _ => self.write_queue(field, value),
        }
    }

    /// What reads back: a vector that the device does not have is refused.
    fn valid_vector(&mut self, vector: u16) -> u16 {
        if vector == NO_VECTOR || vector < self.pci.vectors() {
            return vector;
        }
        self.report(&format!("interrupt vector {vector}"));
        NO_VECTOR
    }

    fn write_features(&mut self, value: u32) {
        if self.common.status & status::DRIVER == 0 {
            self.report("features written before DRIVER");
        }
        if self.common.status & status::FEATURES_OK != 0 {
            self.report("features written after FEATURES_OK");
            return;
        }
        match self.common.driver_select {
            select @ (0 | 1) => {
                let features = self.common.driver_features;
                self.common.driver_features = with_half(features, select == 1, value);
            }
            _ if value != 0 => self.report("features beyond bit 63 accepted"),
            _ => {}
        }
    }

    /// A field of the selected queue.
    fn write_queue(&mut self, field: Field, value: u32) {
        let index = self.common.queue_select;
        // No vector is what a queue has after a reset: Linux says so once more when it lets go of a
        // device (virtio 1.3, section 4.1.5.1.2: NO_VECTOR unmaps a queue, at any time).
        let is_unmapped = field == Field::QueueVector && value as u16 == NO_VECTOR;
        let before = self.common.status & status::FEATURES_OK == 0;
        if before && !is_unmapped {
            self.report(&format!("queue {index}: set up before FEATURES_OK"));
        }
        let vector = match field {
            Field::QueueVector => self.valid_vector(value as u16),
            _ => NO_VECTOR,
        };
        let Some(queue) = self.selected() else {
            self.report(&format!("queue {index} does not exist"));
            return;
        };
        if queue.enabled && !(field == Field::QueueEnable && value == 1) {
            self.report(&format!(
                "queue {index}: {field:?} written while it is enabled"
            ));
            return;
        }
        match field {
            Field::QueueSize => queue.size = value as u16,
            Field::QueueVector => queue.vector = vector,
            Field::QueueEnable => self.enable_queue(value),
            Field::Area(area, upper) => {
                let address = match area {
                    0 => &mut queue.descriptors,
                    1 => &mut queue.driver,
                    _ => &mut queue.device,
                };
                *address = with_half(*address, upper, value);
            }
            _ => {}
        }
    }

    fn enable_queue(&mut self, value: u32) {
        let index = self.common.queue_select;
        let running = self.common.status & status::DRIVER_OK != 0;
        let packed = self.common.driver_features & feature::RING_PACKED != 0;
        let has_role = self.has_role(index);
        let Some(queue) = self.selected() else { return };
        let mut faults = Vec::new();
        if value != 1 {
            faults.push(format!("queue_enable written with {value}"));
        } else {
            faults = queue.faults(packed);
            if running && !queue.was_reset {
                faults.push("enabled after DRIVER_OK".to_owned());
            }
            if queue.reset.is_some() {
                faults.push("enabled before its reset has finished".to_owned());
            }
            if !has_role {
                faults.push("enabled, which the negotiated features do not use".to_owned());
            }
            let sound = queue.size > 0 && (packed || queue.size.is_power_of_two());
            queue.enabled = sound && queue.size <= queue.most() && queue.reset.is_none();
            if running {
                let when = self.pace.delay(false, &mut self.random, 0);
                if let Some(queue) = self.selected() {
                    queue.wake(when);
                }
            }
        }
        for fault in faults {
            self.report(&format!("queue {index}: {fault}"));
        }
    }

    fn reset_queue(&mut self, value: u32) {
        let index = self.common.queue_select;
        if value != 1 || self.common.driver_features & feature::RING_RESET == 0 {
            self.report(&format!(
                "queue {index}: queue_reset written with {value}, or not negotiated"
            ));
            return;
        }
        let slow = self.config.latitude.slow_reset;
        let when = self.pace.delay(slow, &mut self.random, 100_000);
        match self.selected().filter(|queue| queue.enabled) {
            Some(queue) => queue.reset = Some(when),
            None => self.report(&format!("queue {index}: reset, but not enabled")),
        }
        self.settle();
    }

    /// The doorbell of a queue, in units of the multiplier.
    fn notify_offset(&self, index: u16) -> u16 {
        let count = self.queues.len() as u16;
        if self.config.latitude.scattered_doorbells && index < count {
            count - 1 - index
        } else {
            index
        }
    }

    /// Whether a doorbell may be at `offset`.
    pub(super) fn is_notify(&self, offset: u32) -> bool {
        let end = NOTIFY + MULTIPLIER * u32::from(self.pci.vectors());
        (NOTIFY..end).contains(&offset)
    }

    /// A write where the doorbells are; `false` if there is none.
    fn ring_doorbell(&mut self, offset: u32, value: u16) -> bool {
        if !self.is_notify(offset) {
            return false;
        }
        let place = (offset - NOTIFY) / MULTIPLIER;
        let known = usize::from(value) < self.queues.len();
        if !offset.is_multiple_of(MULTIPLIER)
            || !known
            || u32::from(self.notify_offset(value)) != place
        {
            self.report(&format!("doorbell at {offset:#x} for queue {value}"));
            return true;
        }
        if self.reset.is_some() || self.common.status & status::DRIVER_OK == 0 {
            self.report(&format!("queue {value}: doorbell before DRIVER_OK"));
            return true;
        }
        let slow = self.config.latitude.late_look;
        let when = self.pace.delay(slow, &mut self.random, 20_000);
        let Some(queue) = self.queues.get_mut(usize::from(value)) else {
            return true;
        };
        if queue.enabled && queue.reset.is_none() {
            queue.call(when, value % 2 == 1, &mut self.counters);
        } else {
            self.report(&format!("queue {value}: doorbell while it is disabled"));
        }
        true
    }

    /// The device configuration: address, status, pairs, MTU.
    fn read_device(&mut self, offset: u32, width: u32) -> Option<u32> {
        let (needs, due, value) = match offset {
            0..6 => {
                let byte = self.filter.mac().get(offset as usize).copied();
                (feature::MAC, 1, u32::from(byte.unwrap_or(0)))
            }
            6 | 7 => (feature::STATUS, 2, u32::from(self.link)),
            8 | 9 => (feature::MQ, 2, u32::from(self.config.pairs)),
            10 | 11 => (feature::MTU, 2, u32::from(self.config.mtu)),
            _ => return None,
        };
        let value = match width {
            _ if width == due && offset.is_multiple_of(width) => value,
            // A byte of a field: DPDK reads one after the other.
            1 if !self.config.beyond_dpdk => value >> (offset % 2 * 8) & 0xff,
            _ => return None,
        };
        if self.config.offers.bits() & needs == 0 {
            self.report(&format!(
                "device configuration at {offset} read, which is not offered"
            ));
        }
        let odd = self.config.latitude.spurious_configuration && self.random.u8(..64) == 0;
        if std::mem::take(&mut self.common.changed) || odd {
            self.common.generation = self.common.generation.wrapping_add(1);
        }
        Some(value)
    }
}
