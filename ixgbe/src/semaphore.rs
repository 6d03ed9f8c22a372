//! What the drivers of both ports and the firmware share: each takes a resource before it uses
//! it.
//!
//! Two steps (Linux and DPDK ixgbe): the semaphore of the register SW_FW_SYNC first, then the
//! resource's bit in there. The 82599 has two bits in SWSM for the first step
//! (`ixgbe_get_eeprom_semaphore`), the X540 one in SWSM and one in SW_FW_SYNC itself
//! (`ixgbe_get_swfw_sync_semaphore`).

use core::time::Duration;

use pagewire_hal::driver::wait_until;
use pagewire_hal::{NicError, Platform, Registers};

use crate::bits::{REGSMP, Swsm};
use crate::ids::Family;
use crate::regs::{Bar, STATUS, SW_FW_SYNC, SWSM};

/// How long the semaphore of the register is waited for: 2000 times 50 µs in Linux.
const REGISTER_LIMIT: Duration = Duration::from_millis(100);
/// How long a resource is waited for: 200 times 5 ms in Linux.
pub(crate) const RESOURCE_LIMIT: Duration = Duration::from_secs(1);

/// What is shared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Resource {
    /// The EEPROM; on the X540 the flash memory that takes its place.
    Eeprom,
    /// The PHY, or the wires to the module, of port 0.
    Phy0,
    /// As above, of port 1.
    Phy1,
    /// The registers of the link that the firmware may write.
    Mac,
}

impl Resource {
    /// Software's bit (`ixgbe_type.h`: `IXGBE_GSSR_EEP_SM`, `_PHY0_SM`, `_PHY1_SM`, `_MAC_CSR_SM`).
    const fn software(self) -> u32 {
        match self {
            Self::Eeprom => 1 << 0,
            Self::Phy0 => 1 << 1,
            Self::Phy1 => 1 << 2,
            Self::Mac => 1 << 3,
        }
    }

    /// The bits of whoever may have it: software, firmware (five bits higher, Linux
    /// `ixgbe_acquire_swfw_sync`), and on the X540 the hardware that uses the flash memory
    /// (`IXGBE_GSSR_FLASH_SM`).
    const fn all(self, family: Family) -> u32 {
        let software = self.software();
        let hardware = match (self, family) {
            (Self::Eeprom, Family::X540) => 1 << 4,
            _ => 0,
        };
        software | software << 5 | hardware
    }
}

/// One try for the semaphore of the register.
fn try_register<R: Registers>(registers: &Bar<R>, family: Family) -> bool {
    if registers.read(SWSM) & Swsm::SMBI.bits() != 0 {
        return false;
    }
    // The read has set SMBI.
    let granted = match family {
        Family::I82599 => {
            registers.change(SWSM, 0, Swsm::SWESMBI.bits());
            registers.read(SWSM) & Swsm::SWESMBI.bits() != 0
        }
        // As with SMBI, a read that finds it clear sets it.
        Family::X540 => registers.read(SW_FW_SYNC) & REGSMP == 0,
    };
    if !granted {
        // Only SMBI was ours.
        registers.change(SWSM, Swsm::SMBI.bits(), 0);
    }
    granted
}

/// Gives the semaphore of the register back.
fn put_register<R: Registers>(registers: &Bar<R>, family: Family) {
    if family == Family::X540 {
        registers.change(SW_FW_SYNC, REGSMP, 0);
    }
    registers.change(SWSM, (Swsm::SMBI | Swsm::SWESMBI).bits(), 0);
    // Posted writes arrive before a read returns. (One of SWSM would take the semaphore again.)
    registers.read(STATUS);
}

/// One try for `resource`.
pub(crate) fn try_take<R: Registers>(
    registers: &Bar<R>,
    family: Family,
    resource: Resource,
) -> bool {
    if !try_register(registers, family) {
        return false;
    }
    let state = registers.read(SW_FW_SYNC) & !REGSMP;
    let free = state & resource.all(family) == 0;
    if free {
        registers.change(SW_FW_SYNC, 0, resource.software());
    }
    put_register(registers, family);
    free
}

/// Takes `resource`, which [`put`] gives back.
///
/// Who dies with the semaphore of the register would keep it for ever, so after a while it is
/// released (Linux), and tried once more. A resource that is not released in its time is taken all
/// the same: "the SW can assume that the FW/HW malfunctions" (DPDK, of the X540). Of another
/// driver's bit, and of the 82599, DPDK says that it is to be cleared and all of it tried once
/// again; the outcome is the same, so one way does for all.
///
/// # Errors
/// The semaphore of the register is not to be had.
pub(crate) fn take<P: Platform>(
    platform: &P,
    registers: &Bar<P::Registers>,
    family: Family,
    resource: Resource,
) -> Result<(), NicError> {
    let mut taken = false;
    let mut waited = Duration::ZERO;
    let pause = Duration::from_millis(5);
    while !taken && waited < RESOURCE_LIMIT {
        take_register(platform, registers, family)?;
        let state = registers.read(SW_FW_SYNC) & !REGSMP;
        taken = state & resource.all(family) == 0;
        waited += pause;
        if !taken && waited >= RESOURCE_LIMIT {
            log::warn!("ixgbe: {resource:?} is not released ({state:#x}); taken all the same");
            taken = true;
        }
        if taken {
            registers.change(SW_FW_SYNC, 0, resource.software());
        }
        put_register(registers, family);
        if !taken {
            platform.wait(pause);
        }
    }
    Ok(())
}

fn take_register<P: Platform>(
    platform: &P,
    registers: &Bar<P::Registers>,
    family: Family,
) -> Result<(), NicError> {
    const WHAT: &str = "the semaphore between drivers and firmware (SWSM)";
    let try_it = || try_register(registers, family);
    let step = Duration::from_micros(50);
    if wait_until(platform, WHAT, REGISTER_LIMIT, step, try_it).is_ok() {
        return Ok(());
    }
    log::warn!("ixgbe: the semaphore of drivers and firmware is stuck and is released");
    put_register(registers, family);
    wait_until(platform, WHAT, step, step, try_it)
}

/// Gives `resource` back without waiting: where the semaphore of the register is not to be had,
/// the bit is cleared without it (Linux goes on, too).
pub(crate) fn put<R: Registers>(registers: &Bar<R>, family: Family, resource: Resource) {
    let owned = try_register(registers, family);
    // The X540's semaphore in the register stays as it is read: set where it is taken. Where it is
    // not ours, and its owner gives it back between the reading and the writing, it is set again.
    // Nobody holds it then, and the next one to want it releases it as stuck.
    registers.change(SW_FW_SYNC, resource.software(), 0);
    if owned {
        put_register(registers, family);
    }
}
