//! The link: the PHY is woken if it sleeps, speed and duplex come from its negotiation.
//!
//! Flow control stays off in both directions. A peer that may pause the transmitter decides how
//! long our pages stay with the device; the peer's PAUSE frames are discarded
//! ([`DPF`](crate::regs::Rctl::DPF)). The PHY still advertises what its EEPROM says: to change
//! that would take the link down at each open.

use core::time::Duration;

use pagewire_hal::driver::wait_until;
use pagewire_hal::{LinkState, NicError, Platform, Registers};

use crate::ids::Family;
use crate::regs::{Bar, CTRL, Ctrl, EXTCNF_CTRL, MDIC, MDIO_SW_OWNERSHIP, Mdic, STATUS, Status};

/// Address of the PHY on the management interface (Linux e1000e `82571.c`).
const PHY: u32 = 1 << 21;
/// IEEE 802.3 clause 22, register 0: control.
const PHY_CONTROL: u32 = 0;
/// Starts negotiation again.
const RESTART_NEGOTIATION: u16 = 1 << 9;
/// Cut off from the MAC.
const ISOLATE: u16 = 1 << 10;
/// Asleep.
const POWER_DOWN: u16 = 1 << 11;
/// Negotiates.
const NEGOTIATE: u16 = 1 << 12;
/// Sends back what it gets.
const LOOPBACK: u16 = 1 << 14;

/// Linux e1000e gives an access 96 ms.
const MDIC_LIMIT: Duration = Duration::from_millis(100);
/// Linux tries ten times at 2 ms.
const OWNERSHIP_LIMIT: Duration = Duration::from_millis(20);

/// Takes the PHY's management interface from the firmware of 82573, 82574 and 82583, which must
/// not use it during a global reset. If the firmware does not let go the caller goes on without
/// (as Linux does).
pub(crate) fn take_mdio<P: Platform>(
    platform: &P,
    registers: &Bar<P::Registers>,
    family: Family,
) -> bool {
    if family == Family::I82571 {
        return false;
    }
    let taken = wait_until(
        platform,
        "the firmware releasing the PHY",
        OWNERSHIP_LIMIT,
        Duration::from_millis(2),
        || {
            request_mdio(registers, family);
            registers.read(EXTCNF_CTRL) & MDIO_SW_OWNERSHIP != 0
        },
    );
    if let Err(error) = &taken {
        log::warn!("e1000e: {error}; going on without");
    }
    taken.is_ok()
}

/// Asks for the management interface without waiting for it.
pub(crate) fn request_mdio<R: Registers>(registers: &Bar<R>, family: Family) {
    if family != Family::I82571 {
        registers.change(EXTCNF_CTRL, 0, MDIO_SW_OWNERSHIP);
    }
}

/// Gives the management interface back.
pub(crate) fn put_mdio<R: Registers>(registers: &Bar<R>, family: Family) {
    if family != Family::I82571 {
        registers.change(EXTCNF_CTRL, MDIO_SW_OWNERSHIP, 0);
    }
}

/// One access to the PHY; `None` if the PHY reports an error.
fn access<P: Platform>(
    platform: &P,
    registers: &Bar<P::Registers>,
    command: u32,
) -> Result<Option<u16>, NicError> {
    registers.write(MDIC, command);
    let mut value = 0;
    wait_until(
        platform,
        "an access to a register of the PHY",
        MDIC_LIMIT,
        Duration::from_micros(50),
        || {
            value = registers.read(MDIC);
            Mdic::from_bits_retain(value).contains(Mdic::READY)
        },
    )?;
    let failed = Mdic::from_bits_retain(value).contains(Mdic::ERROR);
    Ok((!failed).then_some(value as u16))
}

/// Sees to it that the PHY is awake and negotiates, if it was left otherwise.
pub(crate) fn wake_phy<P: Platform>(
    platform: &P,
    registers: &Bar<P::Registers>,
    family: Family,
) -> Result<(), NicError> {
    let taken = take_mdio(platform, registers, family);
    let result = wake(platform, registers);
    if taken {
        put_mdio(registers, family);
    }
    result
}

fn wake<P: Platform>(platform: &P, registers: &Bar<P::Registers>) -> Result<(), NicError> {
    let place = PHY | PHY_CONTROL << 16;
    let Some(control) = access(platform, registers, place | Mdic::OP_READ.bits())? else {
        log::warn!("e1000e: the PHY does not answer; the link stays as it is");
        return Ok(());
    };
    let sleeping = ISOLATE | POWER_DOWN | LOOPBACK;
    if control & sleeping == 0 && control & NEGOTIATE != 0 {
        return Ok(());
    }
    let awake = control & !sleeping | NEGOTIATE | RESTART_NEGOTIATION;
    let write = place | Mdic::OP_WRITE.bits() | u32::from(awake);
    if access(platform, registers, write)?.is_none() {
        log::warn!("e1000e: the PHY cannot be written; the link stays as it is");
    }
    Ok(())
}

/// Lets the MAC follow the PHY: link up, nothing forced, no flow control, no VLAN tags touched.
pub(crate) fn set_up<R: Registers>(registers: &Bar<R>) {
    let clear = Ctrl::FRCSPD | Ctrl::FRCDPX | Ctrl::RFCE | Ctrl::TFCE | Ctrl::VME;
    registers.change(CTRL, clear.bits(), Ctrl::SLU.bits());
}

/// The link by the status register.
pub(crate) const fn state(status: u32) -> LinkState {
    let status = Status::from_bits_retain(status);
    let up = status.contains(Status::LU);
    LinkState {
        up,
        speed_mbps: match (up, status.contains(Status::SPEED_1000)) {
            (false, _) => 0,
            (true, true) => 1000,
            (true, false) if status.contains(Status::SPEED_100) => 100,
            (true, false) => 10,
        },
        full_duplex: up && status.contains(Status::FD),
    }
}

/// The link as of now.
pub(crate) fn read<R: Registers>(registers: &Bar<R>) -> LinkState {
    let status = registers.read(STATUS);
    if status == u32::MAX {
        return LinkState::default();
    }
    state(status)
}
