//! The few fields of PCI configuration space that every driver must touch: memory access, bus
//! mastering, capabilities, pending transactions, link power states.
//!
//! Offsets and bits: PCI Local Bus 3.0 and PCI Express Base as in Linux `pci_regs.h`.

use crate::Platform;

/// Command in bits 15:0, status in bits 31:16 (whose set bits clear themselves when written, so
/// zero is written there).
const COMMAND: u16 = 0x04;
const COMMAND_MEMORY: u32 = 1 << 1;
const COMMAND_BUS_MASTER: u32 = 1 << 2;
const STATUS_CAPABILITIES: u32 = 1 << 20;
const CAPABILITY_POINTER: u16 = 0x34;
const FIRST_CAPABILITY: u16 = 0x40;
const CAPABILITY_PCIE: u8 = 0x10;
/// Device control in bits 15:0, device status in bits 31:16, from the capability on.
const PCIE_DEVICE: u16 = 0x08;
const PCIE_TRANSACTIONS_PENDING: u32 = 1 << 21;
/// Link control in bits 15:0, link status in bits 31:16, from the capability on.
const PCIE_LINK: u16 = 0x10;
const PCIE_ASPM: u32 = 0b11;

/// Capabilities lie in 192 bytes, at four bytes each: a list that is longer is a ring.
const MAX_CAPABILITIES: usize = 48;

/// Vendor and device id; all ones if nobody answers.
#[must_use]
pub fn identity<P: Platform>(platform: &P) -> (u16, u16) {
    let word = platform.read_config(0);
    (word as u16, (word >> 16) as u16)
}

fn change_command<P: Platform>(platform: &mut P, clear: u32, set: u32) {
    let command = platform.read_config(COMMAND) & 0xFFFF & !clear | set;
    // SAFETY: the command register moves no BAR. It can switch bus mastering on: the one caller
    // that does, `start_bus_mastering`, demands that all memory the device was told of is in
    // custody.
    unsafe { platform.write_config(COMMAND, command) };
}

/// Lets the CPU reach the BARs.
pub fn enable_memory<P: Platform>(platform: &mut P) {
    change_command(platform, 0, COMMAND_MEMORY);
}

/// Lets the device reach memory.
///
/// # Safety
/// All memory that the device was told of since its last reset stays mapped until bus mastering
/// is off again and nothing is pending.
pub unsafe fn start_bus_mastering<P: Platform>(platform: &mut P) {
    change_command(platform, 0, COMMAND_BUS_MASTER);
}

/// Lets the device begin no new access to memory.
pub fn stop_bus_mastering<P: Platform>(platform: &mut P) {
    change_command(platform, COMMAND_BUS_MASTER, 0);
}

/// Whether bus mastering is off. A function that is gone reads all ones: not off.
#[must_use]
pub fn is_bus_mastering_off<P: Platform>(platform: &P) -> bool {
    platform.read_config(COMMAND) & COMMAND_BUS_MASTER == 0
}

/// The capabilities of the function, from the first to the last: its identifier (0x10 PCI
/// Express, 0x11 MSI-X, 0x09 vendor-specific) and its offset in configuration space.
///
/// Whatever the function says, there are at most 48.
pub fn capabilities<P: Platform>(platform: &P) -> impl Iterator<Item = (u8, u16)> + '_ {
    let has_list = platform.read_config(COMMAND) & STATUS_CAPABILITIES != 0;
    let mut next = if has_list {
        platform.read_config(CAPABILITY_POINTER) & 0xFC
    } else {
        0
    };
    let one = move || {
        let offset = next as u16;
        // Below lies the header: the end of the list, or a pointer that is none.
        if offset < FIRST_CAPABILITY {
            return None;
        }
        let header = platform.read_config(offset);
        next = header >> 8 & 0xFC;
        Some((header as u8, offset))
    };
    core::iter::from_fn(one).take(MAX_CAPABILITIES)
}

/// Offset of the PCI Express capability, if there is one.
#[must_use]
pub fn find_pcie<P: Platform>(platform: &P) -> Option<u16> {
    let mut all = capabilities(platform);
    all.find_map(|(id, offset)| (id == CAPABILITY_PCIE).then_some(offset))
}

/// Whether requests of the function still wait for their completion. Without a PCI Express
/// capability nobody can say; then the device's own status has to do.
#[must_use]
pub fn transactions_pending<P: Platform>(platform: &P, pcie: Option<u16>) -> bool {
    pcie.is_some_and(|at| platform.read_config(at + PCIE_DEVICE) & PCIE_TRANSACTIONS_PENDING != 0)
}

/// Turns the link's power states L0s and L1 off on the device's side, as Linux does for the
/// 82574 (and for it alone) against lost completions. The other side of the link is not ours.
pub fn disable_aspm<P: Platform>(platform: &mut P, pcie: Option<u16>) {
    let Some(at) = pcie else { return };
    let control = platform.read_config(at + PCIE_LINK) & 0xFFFF;
    if control & PCIE_ASPM != 0 {
        // SAFETY: link control concerns the state of the link, no memory and no BAR.
        unsafe { platform.write_config(at + PCIE_LINK, control & !PCIE_ASPM) };
    }
}

#[cfg(all(test, feature = "alloc"))]
#[path = "pci_tests.rs"]
mod tests;
