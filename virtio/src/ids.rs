//! The PCI devices that this driver knows (virtio 1.3, section 4.1.2).

/// A PCI device that this driver knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct DeviceInfo {
    /// PCI device id; the vendor is 1af4.
    pub device: u16,
    /// The driver's name and the device's.
    pub name: &'static str,
}

const VENDOR: u16 = 0x1AF4;
const DEVICES: [DeviceInfo; 2] = [
    DeviceInfo {
        device: 0x1041,
        name: "virtio-net",
    },
    DeviceInfo {
        device: 0x1000,
        name: "virtio-net transitional",
    },
];

/// What this driver knows of a PCI device; `None` for a device that it does not drive. A
/// transitional device (1000) may turn out to be legacy only when it is opened.
#[must_use]
pub fn supported(vendor: u16, device: u16) -> Option<DeviceInfo> {
    DEVICES
        .into_iter()
        .find(|info| vendor == VENDOR && info.device == device)
}
