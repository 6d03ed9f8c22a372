//! Made-up machines: a folder with the parts of sysfs, /proc, /dev and /lib that binding reads.
//! The tests of the command `pagewire` use them as well.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// The kernel's release.
pub const RELEASE: &str = "6.12.1-made-up";
/// The NIC of most tests: an 82574L, with e1000e and the interface eth1, in group 7.
pub const NIC: &str = "0000:03:00.0";

/// Thousands of small files: better in memory, where there is a file system for that.
fn memory() -> PathBuf {
    let shm = Path::new("/dev/shm");
    let usable = tempfile::tempfile_in(shm).is_ok();
    if usable {
        shm.into()
    } else {
        std::env::temp_dir()
    }
}

pub struct Tree {
    folder: tempfile::TempDir,
}

impl Tree {
    /// A machine with an IOMMU, without a NIC, whose user is root.
    pub fn empty() -> Self {
        let tree = Self {
            folder: tempfile::tempdir_in(memory()).unwrap(),
        };
        tree.file("proc/sys/kernel/osrelease", RELEASE);
        tree.file("proc/self/status", "Name:\tpagewire\nUid:\t0\t0\t0\t0\n");
        tree.memory_lock("67108864");
        tree.file(
            &format!("lib/modules/{RELEASE}/modules.dep"),
            "kernel/drivers/vfio/vfio.ko.xz:\n\
             kernel/drivers/vfio/pci/vfio-pci.ko.xz: kernel/drivers/vfio/vfio.ko.xz\n\
             kernel/drivers/vfio/vfio_iommu_type1.ko.xz: kernel/drivers/vfio/vfio.ko.xz\n\
             kernel/drivers/net/ethernet/intel/e1000e/e1000e.ko.xz:\n",
        );
        tree.file(
            &format!("lib/modules/{RELEASE}/modules.alias"),
            "alias pci:v00008086d000010D3sv*sd*bc*sc*i* e1000e\n\
             alias pci:v00008086d000010FBsv*sd*bc*sc*i* ixgbe\n\
             alias pci:v00001AF4d00001041sv*sd*bc*sc*i* virtio_pci\n",
        );
        for driver in ["e1000e", "ixgbe", "virtio-pci"] {
            tree.driver(driver);
        }
        tree.folder("sys/bus/pci/devices");
        tree.folder("sys/class/net");
        tree.folder("sys/kernel/iommu_groups/0/devices");
        tree.folder("sys/module/vfio_iommu_type1");
        tree.file("dev/vfio/vfio", "0\n");
        tree.file(
            "etc/passwd",
            "root:x:0:0::/root:/bin/sh\nmaria:x:1042:1042::/home/maria:/bin/sh\n",
        );
        tree.file("proc/net/ipv4_addresses", "lo 127.0.0.1/8\n");
        tree.file("proc/net/route", "Iface\tDestination\tGateway\n");
        tree.file(
            "proc/net/fib_trie",
            "Local:\n  +-- 0.0.0.0/0 2 0 2\n     |-- 127.0.0.1\n        /32 host LOCAL\n",
        );
        tree.file(
            "proc/net/if_inet6",
            "00000000000000000000000000000001 01 80 10 80       lo\n",
        );
        // Where nothing is reachable, Linux lists such a default route of lo.
        tree.file(
            "proc/net/ipv6_route",
            "00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
             00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo\n",
        );
        tree
    }

    /// The same with one NIC: an 82574L at [`NIC`], alone in group 7, eth1 down.
    pub fn usual() -> Self {
        let tree = Self::empty();
        tree.nic(NIC, "e1000e", 7);
        tree.interface("eth1", NIC, false);
        tree
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    pub fn folder(&self, path: &str) {
        fs::create_dir_all(self.at(path)).unwrap();
    }

    pub fn file(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub fn add(&self, path: &str, content: &str) {
        let before = self.read(path);
        self.file(path, before + content);
    }

    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap_or_default()
    }

    pub fn remove(&self, path: &str) {
        let path = self.at(path);
        if path.is_symlink() || path.is_file() {
            fs::remove_file(path).unwrap();
        } else if path.exists() {
            fs::remove_dir_all(path).unwrap();
        }
    }

    pub fn link(&self, path: &str, target: &str) {
        self.remove(path);
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
    }

    pub fn driver(&self, name: &str) {
        self.folder(&format!("sys/bus/pci/drivers/{name}"));
        let module = name.replace('-', "_");
        let link = format!("sys/bus/pci/drivers/{name}/module");
        self.link(&link, &format!("../../../../module/{module}"));
    }

    pub fn memory_lock(&self, soft: &str) {
        let limits = format!(
            "Limit                     Soft Limit           Hard Limit           Units     \n\
             Max locked memory         {soft}              unlimited            bytes     \n"
        );
        self.file("proc/self/limits", limits);
    }

    /// A file of a device.
    pub fn of(device: &str, file: &str) -> String {
        format!("sys/bus/pci/devices/{device}/{file}")
    }

    /// A PCI device; `driver` may be empty.
    pub fn device(&self, address: &str, ids: (&str, &str), class: &str, driver: &str) {
        self.file(&Self::of(address, "vendor"), format!("{}\n", ids.0));
        self.file(&Self::of(address, "device"), format!("{}\n", ids.1));
        self.file(&Self::of(address, "class"), format!("{class}\n"));
        self.file(&Self::of(address, "driver_override"), "(null)\n");
        self.file(&Self::of(address, "reset"), "");
        self.file(&Self::of(address, "reset_method"), "flr bus\n");
        if !driver.is_empty() {
            self.folder(&format!("sys/bus/pci/drivers/{driver}"));
            self.link(
                &Self::of(address, "driver"),
                &format!("../../drivers/{driver}"),
            );
        }
    }

    pub fn group(&self, address: &str, number: u32) {
        let group = format!("../../../../kernel/iommu_groups/{number}");
        self.link(&Self::of(address, "iommu_group"), &group);
        self.link(
            &format!("sys/kernel/iommu_groups/{number}/devices/{address}"),
            &format!("../../../../bus/pci/devices/{address}"),
        );
    }

    /// An 82574L.
    pub fn nic(&self, address: &str, driver: &str, group: u32) {
        self.device(address, ("0x8086", "0x10d3"), "0x020000", driver);
        self.group(address, group);
    }

    pub fn bridge(&self, address: &str, driver: &str, group: u32) {
        self.device(address, ("0x8086", "0x3420"), "0x060400", driver);
        self.group(address, group);
    }

    /// An interface of a device; `below` is where its driver puts it (`virtio0/`, or nothing).
    pub fn interface_below(&self, name: &str, device: &str, below: &str, up: bool) {
        let place = format!("bus/pci/devices/{device}/{below}net/{name}");
        self.file(
            &format!("sys/{place}/flags"),
            if up { "0x1003\n" } else { "0x1002\n" },
        );
        self.file(&format!("sys/{place}/carrier"), if up { "1\n" } else { "" });
        self.file(&format!("sys/{place}/speed"), "1000\n");
        self.link(&format!("sys/class/net/{name}"), &format!("../../{place}"));
    }

    pub fn interface(&self, name: &str, device: &str, up: bool) {
        self.interface_below(name, device, "", up);
    }

    /// A bridge, bond or VLAN above another interface.
    pub fn above(&self, upper: &str, lower: &str) {
        let place = format!("devices/virtual/net/{upper}");
        self.file(&format!("sys/{place}/flags"), "0x1003\n");
        self.link(&format!("sys/class/net/{upper}"), &format!("../../{place}"));
        self.link(&format!("sys/class/net/{lower}/upper_{upper}"), "nowhere");
        self.link(&format!("sys/class/net/{upper}/lower_{lower}"), "nowhere");
    }

    pub fn route(&self, interface: &str, destination: [u8; 4], gateway: [u8; 4], prefix: u32) {
        let number = u32::from_ne_bytes;
        let mask = u32::MAX.checked_shl(32 - prefix).unwrap_or(0);
        let line = format!(
            "{interface}\t{:08X}\t{:08X}\t0001\t0\t0\t0\t{:08X}\t0\t0\t0\n",
            number(destination),
            number(gateway),
            number(mask.to_be_bytes()),
        );
        self.add("proc/net/route", &line);
    }

    /// An address, without any route.
    pub fn local(&self, interface: &str, address: [u8; 4]) {
        let address = Ipv4Addr::from(address);
        self.add(
            "proc/net/ipv4_addresses",
            &format!("{interface} {address}/32\n"),
        );
        self.add(
            "proc/net/fib_trie",
            &format!("     |-- {address}\n        /32 host LOCAL\n"),
        );
    }

    /// An address in a network of 24 bits.
    pub fn ipv4(&self, interface: &str, address: [u8; 4]) {
        self.local(interface, address);
        let [a, b, c, _] = address;
        self.route(interface, [a, b, c, 0], [0; 4], 24);
    }

    pub fn ipv6(&self, interface: &str, address: &str) {
        let address: Ipv6Addr = address.parse().unwrap();
        let scope = if address.is_unicast_link_local() {
            "20"
        } else {
            "00"
        };
        let digits = format!("{:032x}", address.to_bits());
        self.add(
            "proc/net/if_inet6",
            &format!("{digits} 02 40 {scope} 80 {interface:>8}\n"),
        );
    }

    pub fn default_route_v6(&self, interface: &str) {
        self.route_v6(interface, "::", 0);
    }

    pub fn route_v6(&self, interface: &str, destination: &str, prefix: u8) {
        let zeros = "0".repeat(32);
        let destination: Ipv6Addr = destination.parse().unwrap();
        self.add(
            "proc/net/ipv6_route",
            &format!(
                "{:032x} {prefix:02x} {zeros} 00 fe800000000000000000000000000001 00000400 00000001 00000000 \
                 00000003 {interface:>8}\n",
                destination.to_bits()
            ),
        );
    }

    /// Every file and link with its content, but for what Pagewire keeps for itself.
    pub fn snapshot(&self) -> BTreeMap<PathBuf, String> {
        let mut found = BTreeMap::new();
        let mut open = vec![PathBuf::new()];
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(self.path().join(&folder)).unwrap().flatten() {
                let name = folder.join(entry.file_name());
                let kind = entry.file_type().unwrap();
                if kind.is_dir() {
                    if name != Path::new("run/pagewire") {
                        open.push(name);
                    }
                } else if kind.is_symlink() {
                    let target = fs::read_link(entry.path()).unwrap();
                    found.insert(name, format!("-> {}", target.display()));
                } else {
                    let content = fs::read(entry.path()).unwrap();
                    found.insert(name, String::from_utf8_lossy(&content).into_owned());
                }
            }
        }
        found
    }

    /// The driver that a device has.
    pub fn driver_of(&self, device: &str) -> Option<String> {
        let target = fs::read_link(self.at(&Self::of(device, "driver"))).ok()?;
        Some(target.file_name()?.to_string_lossy().into_owned())
    }

    /// Whether anything is remembered of the device.
    pub fn remembers(&self, device: &str) -> bool {
        self.at(&format!("run/pagewire/bind/{device}")).exists()
    }
}
