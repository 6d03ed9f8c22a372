//! The configuration of a network device: station address, link, queue pairs, MTU (virtio 1.3,
//! section 5.1.4).

use pagewire_hal::{LinkState, MacAddress, Registers};

use crate::Features;
use crate::regs::{
    Area, CONFIG_GENERATION, NET_MAC, NET_MAX_PAIRS, NET_MTU, NET_STATUS, Structures,
};

/// The link is up.
const LINK_UP: u16 = 1;
/// How often a configuration that changes while it is read is read again.
const ATTEMPTS: usize = 10;

/// The station address. Read again if it changes meanwhile (virtio 1.3, section 2.5.1).
pub(crate) fn mac_address<R: Registers>(device: &Structures<R>) -> Option<MacAddress> {
    let config = device.device.as_ref()?;
    let mut mac = [0; 6];
    for _ in 0..ATTEMPTS {
        let before = device.common.read8(CONFIG_GENERATION);
        for (at, byte) in (NET_MAC..).zip(&mut mac) {
            *byte = config.read8(at);
        }
        if device.common.read8(CONFIG_GENERATION) == before {
            return Some(MacAddress(mac));
        }
    }
    None
}

/// The largest MTU that the device tells, in bytes.
pub(crate) fn mtu<R: Registers>(config: &Area<R>) -> u16 {
    config.read16(NET_MTU)
}

/// The pairs of queues that a device with MQ has.
pub(crate) fn max_pairs<R: Registers>(config: &Area<R>) -> u16 {
    config.read16(NET_MAX_PAIRS)
}

/// The link as of now. Without STATUS it is taken to be up (virtio 1.3, section 5.1.4.2). Its
/// speed is not told: SPEED_DUPLEX is not negotiated, as devices make it up.
pub(crate) fn read<R: Registers>(device: &Structures<R>, features: Features) -> LinkState {
    let up = match &device.device {
        Some(config) if features.contains(Features::STATUS) => {
            let status = config.read16(NET_STATUS);
            status & LINK_UP != 0 && !device.is_gone()
        }
        _ => !device.is_gone(),
    };
    LinkState {
        up,
        speed_mbps: 0,
        full_duplex: up,
    }
}
