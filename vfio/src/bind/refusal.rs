//! Why a device is not bound, in a form to act on.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use super::group::Companion;
use super::outcome::Action;

/// A reason not to bind. Its `Display` is the reason, [`mend`](Self::mend) what helps.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Refusal {
    /// The device's class is not that of a network controller.
    NotANic(Option<u32>),
    /// No IOMMU is on.
    NoIommu,
    /// There is an IOMMU, and the device is in none of its groups.
    NoGroup,
    /// VFIO's mode without an IOMMU is on: the device could write all memory.
    UnsafeMode,
    /// Others in the same IOMMU group are in use by the kernel.
    GroupInUse {
        /// The group.
        group: u32,
        /// All the others in it, those in use and those not.
        companions: Vec<Companion>,
    },
    /// An interface is up, and it, or what lies above it, has addresses.
    HasAddress {
        /// The interface of the device.
        interface: String,
        /// The one that has the addresses: itself, or a bridge, bond or VLAN above it.
        of: String,
        /// The addresses; empty if all that is known is that a route leads there.
        addresses: Vec<IpAddr>,
    },
    /// An interface is up and below others. What they carry need not show: Open vSwitch has its
    /// addresses elsewhere, and a bridge for virtual machines has none.
    Below {
        /// The interface of the device.
        interface: String,
        /// What is above it (bridge, bond, VLAN, Open vSwitch, macvlan, …), nearest first.
        above: Vec<String>,
    },
    /// An interface is up and has no address that is known, but the machine has addresses that
    /// are not known to be any interface's.
    MayHaveAddress {
        /// The interface.
        interface: String,
        /// These addresses.
        addresses: Vec<Ipv4Addr>,
    },
    /// An interface, or what lies above it, carries the default route.
    DefaultRoute {
        /// The interface of the device.
        interface: String,
        /// The one that the route names.
        of: String,
    },
    /// An interface is up, and what it carries cannot be read.
    NetworkUnknown {
        /// The interface.
        interface: String,
        /// What cannot be read, and why.
        files: Vec<String>,
    },
    /// A driver has the device and no interface is to be seen: it may be in a container.
    InterfaceElsewhere {
        /// The driver.
        driver: String,
    },
    /// Virtual functions are switched on: they would go.
    VirtualFunctions(u32),
    /// The kernel does not know `driver_override`.
    NoOverride,
    /// The kernel has no vfio-pci, and no module of that name.
    NoVfioPci {
        /// The kernel's release.
        release: Option<String>,
    },
    /// The kernel has neither of what maps memory for a device, vfio_iommu_type1 and iommufd, and
    /// no module of that name.
    NoMapping {
        /// The kernel's release.
        release: Option<String>,
    },
    /// Only root may do this.
    NotRoot(Action),
    /// Something in sysfs is not as the kernel makes it.
    Odd(String),
}

impl Refusal {
    /// A word for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotANic(_) => "not-a-nic",
            Self::NoIommu => "no-iommu",
            Self::NoGroup => "no-iommu-group",
            Self::UnsafeMode => "unsafe-noiommu-mode",
            Self::GroupInUse { .. } => "group-in-use",
            Self::HasAddress { .. } => "has-address",
            Self::Below { .. } => "below-another",
            Self::MayHaveAddress { .. } => "may-have-address",
            Self::DefaultRoute { .. } => "default-route",
            Self::NetworkUnknown { .. } => "network-unknown",
            Self::InterfaceElsewhere { .. } => "interface-elsewhere",
            Self::VirtualFunctions(_) => "virtual-functions",
            Self::NoOverride => "no-driver-override",
            Self::NoVfioPci { .. } => "no-vfio-pci",
            Self::NoMapping { .. } => "no-mapping",
            Self::NotRoot(_) => "not-root",
            Self::Odd(_) => "odd-sysfs",
        }
    }

    /// Whether a user who knows better may say so (`--force`): what the network is used for is
    /// theirs to judge; what the hardware and the kernel cannot do is not.
    #[must_use]
    pub fn can_be_forced(&self) -> bool {
        matches!(
            self,
            Self::HasAddress { .. }
                | Self::Below { .. }
                | Self::MayHaveAddress { .. }
                | Self::DefaultRoute { .. }
                | Self::NetworkUnknown { .. }
                | Self::InterfaceElsewhere { .. }
        )
    }

    /// How to mend it.
    #[must_use]
    pub fn mend(&self) -> String {
        match self {
            Self::NotANic(_) => "`pagewire list` shows the NICs".into(),
            Self::NoIommu => "switch VT-d or AMD-Vi on in the firmware, boot Linux with \
                              intel_iommu=on (Intel); a guest needs a virtual IOMMU, such as \
                              QEMU's -device intel-iommu"
                .into(),
            Self::NoGroup => "the firmware may leave the device out, or its slot; try another \
                              slot, or the kernel's log (dmesg | grep -e DMAR -e IOMMU)"
                .into(),
            Self::UnsafeMode => "switch it off: echo N > \
                                 /sys/module/vfio/parameters/enable_unsafe_noiommu_mode, and \
                                 switch the IOMMU on"
                .into(),
            Self::GroupInUse { companions, .. } => {
                let bridge = companions.iter().find(|c| c.is_bridge() && c.is_used());
                match bridge {
                    Some(Companion {
                        name,
                        driver: Some(driver),
                        ..
                    }) => format!(
                        "take that driver from the bridge (echo {name} > \
                         /sys/bus/pci/drivers/{driver}/unbind), or move the card to a slot with a \
                         group of its own"
                    ),
                    _ => "take the others from their drivers as well, if nothing needs them, or \
                          move the card to a slot with a group of its own"
                        .into(),
                }
            }
            Self::HasAddress { interface, of, .. } | Self::DefaultRoute { interface, of } => {
                let take = if interface == of {
                    format!("ip link set {interface} down")
                } else {
                    format!("ip link set {interface} nomaster, or take {of} down")
                };
                format!("{take}; or --force, if the connection you use is another")
            }
            Self::Below { interface, above } => format!(
                "take it out (ip link set {interface} nomaster; Open vSwitch: ovs-vsctl del-port \
                 {interface}), remove {}, or ip link set {interface} down; or --force, if nothing \
                 needs them",
                above.join(", ")
            ),
            Self::MayHaveAddress { interface, .. } | Self::NetworkUnknown { interface, .. } => {
                format!("ip link set {interface} down; or --force")
            }
            Self::InterfaceElsewhere { .. } => {
                "look into the machine's other network namespaces (ip netns, containers); or \
                 --force"
                    .into()
            }
            Self::VirtualFunctions(_) => {
                "switch them off first: echo 0 > sriov_numvfs in the device's folder".into()
            }
            Self::NoOverride => "Linux 3.16 or newer has it".into(),
            Self::NoVfioPci { release } => format!(
                "install the modules of kernel {}, or build it with CONFIG_VFIO_PCI",
                release.as_deref().unwrap_or("that runs")
            ),
            Self::NoMapping { release } => format!(
                "install the modules of kernel {}, or build it with CONFIG_VFIO_IOMMU_TYPE1",
                release.as_deref().unwrap_or("that runs")
            ),
            Self::NotRoot(Action::Bind) => {
                "run it with sudo; --user USER then gives the device to you".into()
            }
            Self::NotRoot(Action::Unbind) => "run it with sudo".into(),
            Self::Odd(_) => "this is no tree that Linux makes".into(),
        }
    }
}

impl Companion {
    fn is_used(&self) -> bool {
        self.usage == super::group::Usage::InUse
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotANic(Some(class)) => {
                write!(
                    f,
                    "it is not a NIC (PCI class {:04x}, not 02xx)",
                    class >> 8
                )
            }
            Self::NotANic(None) => f.write_str("it is not known to be a NIC: its class is odd"),
            Self::NoIommu => f.write_str("there is no IOMMU, or it is off"),
            Self::NoGroup => f.write_str("it is in no IOMMU group: the IOMMU does not cover it"),
            Self::UnsafeMode => f.write_str(
                "VFIO's mode without an IOMMU is on, in which a device can write all memory",
            ),
            Self::GroupInUse { group, companions } => {
                let list: Vec<_> = companions.iter().map(ToString::to_string).collect();
                write!(
                    f,
                    "it shares IOMMU group {group} with a device in use; in the group are also {}",
                    list.join(", ")
                )
            }
            Self::HasAddress {
                interface,
                of,
                addresses,
            } => {
                write!(f, "{}", up(interface, of))?;
                if addresses.is_empty() {
                    f.write_str(", which has routes")
                } else {
                    write!(f, ", which has {}", joined(addresses))
                }
            }
            Self::Below { interface, above } => write!(
                f,
                "interface {interface} is up below {}, and what it carries for that would be cut",
                above.join(", ")
            ),
            Self::MayHaveAddress {
                interface,
                addresses,
            } => write!(
                f,
                "{interface} is up, and it may have {}: whose these addresses are is not known",
                joined(addresses)
            ),
            Self::DefaultRoute { interface, of } => {
                write!(f, "{}, which carries the default route", up(interface, of))
            }
            Self::NetworkUnknown { interface, files } => write!(
                f,
                "{interface} is up, and what it carries is not known ({})",
                files.join(", ")
            ),
            Self::InterfaceElsewhere { driver } => write!(
                f,
                "driver {driver} has it, yet there is no interface: it may be in another network \
                 namespace, in use"
            ),
            Self::VirtualFunctions(number) => write!(
                f,
                "its driver has {number} virtual functions switched on, which would go"
            ),
            Self::NoOverride => {
                f.write_str("the kernel takes no driver for a single device (driver_override)")
            }
            Self::NoVfioPci { .. } => f.write_str("the kernel has no driver vfio-pci"),
            Self::NoMapping { .. } => f.write_str(
                "the kernel has nothing that maps memory for it (vfio_iommu_type1, iommufd)",
            ),
            Self::NotRoot(_) => f.write_str("only root may change a device's driver"),
            Self::Odd(what) => write!(f, "{what} is odd"),
        }
    }
}

fn up(interface: &str, of: &str) -> String {
    if interface == of {
        format!("interface {interface} is up")
    } else {
        format!("interface {interface} is up below {of}")
    }
}

pub(super) fn joined<T: ToString>(items: &[T]) -> String {
    let items: Vec<_> = items.iter().map(ToString::to_string).collect();
    items.join(", ")
}
