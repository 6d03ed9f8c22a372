//! The link: what the EEPROM has set up, restarted if it is down.
//!
//! A backplane negotiates as AUTOC says, which the device has loaded from its EEPROM. The X540's
//! PHY is brought up by the firmware; nothing is written to it here. Flow control stays off in
//! both directions: a peer that may pause the transmitter decides how long our pages stay with
//! the device. (The 82599 datasheet has it on here, 4.6.11.3.4 as TinyNF quotes it; 4.6.3.2 says
//! what to do without.) The peer's PAUSE frames are discarded
//! ([`DPF`](crate::bits::Mflcn::DPF)). What is advertised stays as the EEPROM has it.
//!
//! Sources: Linux and DPDK ixgbe (`ixgbe_reset_hw_82599` for a link that the EEPROM has switched
//! off, `ixgbe_setup_mac_link_82599`); TinyNF leaves AUTOC as the EEPROM has set it, by the 82599
//! datasheet 8.2.3.22.19. For an SFP+ module Linux also plays a sequence of words from the EEPROM
//! into CORECTL (`ixgbe_setup_sfp_modules_82599`); ixy and TinyNF bring up such ports without, so
//! it is left out here.

use pagewire_hal::{LinkState, NicError, Platform, Registers};

use crate::bits::{Autoc, Autoc2, Links, Mflcn};
use crate::ids::{DeviceInfo, Family, Media};
use crate::regs::{AUTOC, AUTOC2, Bar, FCCFG, LINKS, MFLCN};
use crate::semaphore::{self, Resource};
use crate::sfp;

/// At open: finds out what is behind the port, and sees to it that the link can come up. The
/// firmware writes the same registers, so they are taken from it meanwhile.
pub(crate) fn bring_up<P: Platform>(
    platform: &P,
    registers: &Bar<P::Registers>,
    info: DeviceInfo,
) -> Result<(), NicError> {
    if info.family == Family::X540 {
        return Ok(());
    }
    if info.media == Media::SfpPlus {
        sfp::check(platform, registers)?;
    }
    semaphore::take(platform, registers, info.family, Resource::Mac)?;
    start(registers, info);
    semaphore::put(registers, info.family, Resource::Mac);
    Ok(())
}

/// Starts negotiation where the link is down: so a link that is up stays up.
///
/// After a restart this is done without the semaphore, which might have to be waited for. What
/// the firmware changes at the same moment, the next change of the link sets right.
pub(crate) fn start<R: Registers>(registers: &Bar<R>, info: DeviceInfo) {
    if info.family == Family::X540 {
        return;
    }
    registers.change(AUTOC2, Autoc2::LINK_DISABLE.bits(), 0);
    if info.media == Media::SfpPlus {
        sfp::switch_on(registers);
        let sfi = Autoc2::SERIAL_SFI.bits();
        registers.change(AUTOC2, Autoc2::SERIAL.bits(), sfi);
        let serial = Autoc::LMS_10G_SERIAL.bits();
        registers.change(AUTOC, Autoc::LMS.bits(), serial);
    }
    if !read(registers).up {
        registers.change(AUTOC, 0, Autoc::RESTART_AN.bits());
    }
}

/// No flow control, neither by the link nor by priority (82599 datasheet 4.6.3.2, as TinyNF quotes
/// it: 0 without flow control; Linux `ixgbe_fc_enable_generic`).
pub(crate) fn disable_flow_control<R: Registers>(registers: &Bar<R>) {
    let off = Mflcn::RFCE | Mflcn::RPFCE | Mflcn::RPFCE_CLASSES;
    registers.change(MFLCN, off.bits(), Mflcn::DPF.bits());
    registers.write(FCCFG, 0);
}

/// The link by the register LINKS (Linux `ixgbe_check_mac_link_generic`). There is no half duplex.
pub(crate) const fn state(links: u32) -> LinkState {
    let links = Links::from_bits_retain(links);
    let up = links.contains(Links::UP);
    let speed = (
        links.contains(Links::SPEED_1G),
        links.contains(Links::SPEED_100M),
    );
    LinkState {
        up,
        speed_mbps: match (up, speed) {
            (false, _) | (true, (false, false)) => 0,
            (true, (true, true)) => 10_000,
            (true, (true, false)) => 1000,
            (true, (false, true)) => 100,
        },
        full_duplex: up,
    }
}

/// The link as of now.
pub(crate) fn read<R: Registers>(registers: &Bar<R>) -> LinkState {
    let links = registers.read(LINKS);
    if links == u32::MAX {
        return LinkState::default();
    }
    state(links)
}
