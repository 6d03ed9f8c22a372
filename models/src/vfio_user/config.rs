//! Configuration space, by bytes, and what a system does there: resets, MSI-X.

use std::time::Duration;

use pagewire_hal::Instant;

use crate::Device;

/// Words that every PCI function has, and bytes of the larger space of PCI Express.
const WORDS: u16 = 64;
const EXPRESS_LEN: u64 = 4096;

/// Registers and bits, as in Linux (`pci_regs.h`).
const STATUS_CAPABILITIES: u32 = 1 << 20;
const COMMAND_STATUS: u16 = 0x04;
const CAPABILITIES_POINTER: u16 = 0x34;
const INTERRUPT: u16 = 0x3c;
const POWER_MANAGEMENT: u32 = 0x01;
const VENDOR: u32 = 0x09;
const EXPRESS: u32 = 0x10;
const CAPABILITY_MSIX: u32 = 0x11;
/// In the first word of MSI-X.
const MSIX_ENABLE: u32 = 1 << 31;
/// In Device Capabilities and Device Control.
const FLR_CAPABLE: u32 = 1 << 28;
const INITIATE_FLR: u32 = 1 << 15;
/// The power state in Power Management Control and Status.
const D3HOT: u32 = 0b11;
/// Most capabilities that fit; ends a list that is a circle.
const MOST_CAPABILITIES: usize = 48;

/// Common configuration of virtio: its type of structure, and its field `device_status` (virtio
/// 1.3, sections 4.1.4 and 4.1.4.3).
const VIRTIO_COMMON: u32 = 1;
const DEVICE_STATUS: u32 = 20;

/// A copy of configuration space.
pub(super) struct Config {
    words: Vec<u32>,
    len: u64,
}

impl Config {
    pub(super) fn read(device: &mut dyn Device) -> Self {
        let words = (0..WORDS)
            .map(|word| device.config_read(4 * word))
            .collect();
        let is_express = find(device, EXPRESS).is_some();
        Self {
            words,
            len: if is_express {
                EXPRESS_LEN
            } else {
                4 * u64::from(WORDS)
            },
        }
    }

    /// Bytes of the space.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Whether the device has an interrupt pin.
    pub(super) fn has_pin(&self) -> bool {
        let word = self.words.get(usize::from(INTERRUPT) / 4);
        word.is_some_and(|word| (word >> 8) as u8 != 0)
    }

    /// Writes everything back that can be written.
    pub(super) fn restore(&self, device: &mut dyn Device) {
        for (offset, word) in (0..).step_by(4).zip(&self.words) {
            device.config_write(offset, *word);
        }
    }
}

/// Reads bytes of configuration space; zeros beyond the common part.
pub(super) fn read(device: &mut dyn Device, offset: u64, data: &mut [u8]) {
    let end = offset + data.len() as u64;
    for word in words(offset, end) {
        let bytes = device.config_read(word).to_le_bytes();
        for (at, byte) in (u64::from(word)..).zip(bytes) {
            let place = at
                .checked_sub(offset)
                .and_then(|at| data.get_mut(at as usize));
            if let Some(place) = place {
                *place = byte;
            }
        }
    }
}

/// Writes bytes of configuration space; of a word that is written in part the rest as it was.
pub(super) fn write(device: &mut dyn Device, offset: u64, data: &[u8]) {
    let end = offset + data.len() as u64;
    for word in words(offset, end) {
        let is_whole = u64::from(word) >= offset && u64::from(word) + 4 <= end;
        let mut bytes = if is_whole {
            [0; 4]
        } else {
            device.config_read(word).to_le_bytes()
        };
        for (at, byte) in (u64::from(word)..).zip(&mut bytes) {
            let new = at.checked_sub(offset).and_then(|at| data.get(at as usize));
            if let Some(new) = new {
                *byte = *new;
            }
        }
        device.config_write(word, u32::from_le_bytes(bytes));
    }
}

/// The words of the common part that hold bytes `offset..end`.
fn words(offset: u64, end: u64) -> impl Iterator<Item = u16> {
    let last = u64::from(WORDS) * 4;
    let (first, end) = (offset.min(last) as u16 & !3, end.min(last) as u16);
    (first..end).step_by(4)
}

/// The capabilities: where each is, and its first word.
fn capabilities(device: &mut dyn Device) -> Vec<(u16, u32)> {
    let mut all = Vec::new();
    if device.config_read(COMMAND_STATUS) & STATUS_CAPABILITIES == 0 {
        return all;
    }
    let mut at = device.config_read(CAPABILITIES_POINTER) as u16 & 0xfc;
    while at >= 0x40 && all.len() < MOST_CAPABILITIES {
        let word = device.config_read(at);
        all.push((at, word));
        at = (word >> 8) as u16 & 0xfc;
    }
    all
}

fn find(device: &mut dyn Device, kind: u32) -> Option<u16> {
    let all = capabilities(device);
    let found = all.iter().find(|(_, word)| word & 0xff == kind);
    found.map(|(at, _)| *at)
}

/// Turns MSI-X on or off, as the system does for a driver in user space. Whether all vectors are
/// masked stays as it is.
pub(super) fn set_msix(device: &mut dyn Device, on: bool) {
    if let Some(at) = find(device, CAPABILITY_MSIX) {
        let word = device.config_read(at);
        let new = if on {
            word | MSIX_ENABLE
        } else {
            word & !MSIX_ENABLE
        };
        if new != word {
            device.config_write(at, new);
        }
    }
}

/// Resets the device in the way that it has: function level reset, a visit to D3hot, or, of
/// virtio, its status.
pub(super) fn reset(device: &mut dyn Device, now: Duration) {
    if let Some(at) = find(device, EXPRESS)
        && device.config_read(at + 4) & FLR_CAPABLE != 0
    {
        let control = device.config_read(at + 8);
        device.config_write(at + 8, control & 0xffff | INITIATE_FLR);
    } else if let Some(at) = find(device, POWER_MANAGEMENT) {
        let control = device.config_read(at + 4);
        device.config_write(at + 4, control | D3HOT);
        device.config_write(at + 4, control & !D3HOT);
    } else {
        reset_virtio(device, now);
    }
}

fn reset_virtio(device: &mut dyn Device, now: Duration) {
    let now = Instant::from_nanos(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX));
    for (at, word) in capabilities(device) {
        if word & 0xff != VENDOR || word >> 24 != VIRTIO_COMMON {
            continue;
        }
        let bar = device.config_read(at + 4) as u8;
        let offset = device.config_read(at + 8);
        let fits = |len: u32| offset.checked_add(DEVICE_STATUS).is_some_and(|at| at < len);
        if device.bar_len(bar).is_some_and(fits) {
            device.write_narrow(bar, offset + DEVICE_STATUS, 1, 0, now);
        }
    }
    set_msix(device, false);
}
