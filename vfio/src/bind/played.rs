//! A made-up machine in a folder, whose kernel is played.
//!
//! Plain files do not react. So this plays what Linux does when binding writes to sysfs: a
//! driver's link comes and goes, with it the device's interfaces or its files in `/dev/vfio`. Only
//! that is played; whatever else the folder holds stays as it is. For tests, and for looking at the
//! tree of another machine.
//!
//! - A driver is there if its folder in `/sys/bus/pci/drivers` is. A module can be loaded if
//!   `/lib/modules/RELEASE/modules.dep` lists it; nothing is run.
//! - Which driver takes a device by itself is said by `modules.alias` beside that list.
//! - IPv4 addresses with their interfaces, which no file of the kernel has, are lines such as
//!   `eth1 192.0.2.5/24` in `/proc/net/ipv4_addresses` (of a real machine: `ip -4 -o addr | awk '{print $2, $4}'`).
//!   Without that file the addresses in `/proc/net/fib_trie` may be anybody's.
//! - A file in `/dev` holds the number of its owner, so that no one need be root.

use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::environment::{Module, VFIO_PCI};
use super::group::{Companion, IommuGroup, Usage, is_vfio};
use super::nic::{Driver, Override, folder, group_files, own_files, pci_owner};
use super::system::{self, System};
use super::text::{hexadecimal, line, parts};
use crate::PciAddress;

/// Where a made-up machine has its IPv4 addresses.
const ADDRESSES: &str = "/proc/net/ipv4_addresses";

/// A made-up machine in a folder.
#[derive(Debug)]
pub struct Played {
    root: PathBuf,
    lock: Option<File>,
}

impl Played {
    /// The machine whose files are below `root`.
    ///
    /// # Errors
    /// If there is no such folder, or it has no `sys/bus/pci/devices`.
    pub fn new(root: &Path) -> io::Result<Self> {
        let root = root.canonicalize()?;
        fs::read_dir(root.join("sys/bus/pci/devices"))?;
        Ok(Self { root, lock: None })
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// A path to be changed. No link may lead out of the folder.
    fn inside(&self, path: &str) -> io::Result<PathBuf> {
        let path = self.path(path);
        let there = path.ancestors().find(|path| path.exists());
        let real = there.unwrap_or(&self.root).canonicalize()?;
        let dangling = path.is_symlink() && !path.exists();
        if real.starts_with(&self.root) && !dangling {
            Ok(path)
        } else {
            let why = format!("{} leads out of the made-up tree", path.display());
            Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
        }
    }

    /// The device that was named in a write.
    fn device(&self, text: &str) -> io::Result<PciAddress> {
        let address: PciAddress = text.trim().parse().map_err(|_| Errno::NODEV)?;
        if self.path(&folder(address)).exists() {
            Ok(address)
        } else {
            Err(Errno::NODEV.into())
        }
    }

    /// `driver/unbind`.
    fn detach(&self, address: PciAddress, driver: &str) -> io::Result<()> {
        if Driver::read(self, address).name() != Some(driver) {
            return Err(Errno::NODEV.into());
        }
        fs::remove_file(self.path(&format!("{}/driver", folder(address))))?;
        if !is_vfio(driver) {
            self.move_interfaces("/sys/class/net", &stash(address, driver), address)?;
        } else {
            let device = folder(address);
            for file in own_files(self, &device) {
                let _ = fs::remove_file(self.inside(&file)?);
            }
            let _ = fs::remove_dir_all(self.inside(&format!("{device}/vfio-dev"))?);
            let others = Companion::all(self, &device, address).map_err(io::Error::other)?;
            if others.iter().all(|other| other.usage != Usage::Vfio) {
                for file in group_files(&IommuGroup::read(self, &device)) {
                    let _ = fs::remove_file(self.inside(&file)?);
                }
            }
        }
        Ok(())
    }

    /// `driver/bind`.
    fn attach(&self, address: PciAddress, driver: &str) -> io::Result<()> {
        if Driver::read(self, address) != Driver::None {
            return Err(Errno::BUSY.into());
        }
        if !self.matches(address, driver) {
            return Err(Errno::NODEV.into());
        }
        let group = IommuGroup::read(self, &folder(address));
        if is_vfio(driver) && group.number().is_none() {
            // It refuses what is behind no IOMMU.
            return Err(Errno::INVAL.into());
        }
        let link = self.inside(&format!("{}/driver", folder(address)))?;
        symlink(format!("../../drivers/{driver}"), link)?;
        if is_vfio(driver) {
            self.open_to_users(address, &group)
        } else {
            self.move_interfaces(&stash(address, driver), "/sys/class/net", address)
        }
    }

    /// vfio-pci has the device: its files appear.
    fn open_to_users(&self, address: PciAddress, group: &IommuGroup) -> io::Result<()> {
        let device = folder(address);
        let mut files = group_files(group);
        if self.path("/dev/iommu").exists() {
            let used = system::names(&self.path("/dev/vfio/devices")).unwrap_or_default();
            let free = (0..)
                .map(|n| format!("vfio{n}"))
                .find(|n| !used.contains(n));
            let name = free.unwrap_or_default();
            fs::create_dir_all(self.inside(&format!("{device}/vfio-dev/{name}"))?)?;
            files.push(format!("/dev/vfio/devices/{name}"));
        }
        for file in files.iter().filter(|file| !self.path(file).exists()) {
            let path = self.inside(file)?;
            path.parent().map_or(Ok(()), fs::create_dir_all)?;
            fs::write(path, "0\n")?;
        }
        Ok(())
    }

    /// `drivers_probe`: success also where no driver matches or wants the device.
    fn probe(&self, address: PciAddress) -> io::Result<()> {
        let drivers = system::names(&self.path("/sys/bus/pci/drivers"))?;
        let takes = |driver: &String| self.attach(address, driver).is_ok();
        drivers.iter().any(takes);
        Ok(())
    }

    /// Whether a driver is there and takes a device: the one that is named for it alone, else by
    /// its ids.
    fn matches(&self, address: PciAddress, driver: &str) -> bool {
        if !self
            .path(&format!("/sys/bus/pci/drivers/{driver}"))
            .is_dir()
        {
            return false;
        }
        if let Override::Name(named) = Override::read(self, address) {
            return named == driver;
        }
        let id = |name| hexadecimal(self, &format!("{}/{name}", folder(address)));
        let (Some(vendor), Some(device)) = (id("vendor"), id("device")) else {
            return false;
        };
        let alias = format!("alias pci:v{vendor:08X}d{device:08X}sv");
        let aliases = self.modules("modules.alias").unwrap_or_default();
        let aliases = aliases.lines().filter(|line| line.starts_with(&alias));
        let modules = aliases.filter_map(|line| line.split_whitespace().nth(2));
        let same = |module: &str| module.replace('_', "-") == driver.replace('_', "-");
        modules.into_iter().any(same)
    }

    fn modules(&self, list: &str) -> Option<String> {
        let release = line(self, "/proc/sys/kernel/osrelease")?;
        let bytes = self.read(&format!("/lib/modules/{release}/{list}")).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn move_interfaces(&self, from: &str, to: &str, address: PciAddress) -> io::Result<()> {
        for name in system::names(&self.path(from)).unwrap_or_default() {
            let (from, to) = (format!("{from}/{name}"), format!("{to}/{name}"));
            let target = self.link(&from).unwrap_or_default();
            if pci_owner(&parts(&target)) == Some(address) {
                let to = self.inside(&to)?;
                to.parent().map_or(Ok(()), fs::create_dir_all)?;
                // A link is moved, wherever it leads.
                fs::rename(self.path(&from), to)?;
            }
        }
        Ok(())
    }
}

/// Where the interfaces of a device wait for their driver to come back.
fn stash(address: PciAddress, driver: &str) -> String {
    format!("/run/pagewire/played/{address}/{driver}")
}

impl System for Played {
    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        system::read(&self.path(path))
    }

    fn link(&self, path: &str) -> io::Result<PathBuf> {
        fs::read_link(self.path(path))
    }

    fn names(&self, path: &str) -> io::Result<Vec<String>> {
        system::names(&self.path(path))
    }

    fn owner(&self, path: &str) -> io::Result<u32> {
        let said = path
            .starts_with("/dev/")
            .then(|| line(self, path))
            .flatten();
        match said.and_then(|text| text.parse().ok()) {
            Some(owner) => Ok(owner),
            None => fs::symlink_metadata(self.path(path)).map(|data| data.uid()),
        }
    }

    fn ipv4_addresses(&self) -> io::Result<Vec<(String, Ipv4Addr)>> {
        let text = String::from_utf8_lossy(&self.read(ADDRESSES)?).into_owned();
        let read = |line: &str| {
            let (interface, address) = line.trim().split_once(' ')?;
            let address = address.split('/').next()?;
            Some((interface.to_owned(), address.parse().ok()?))
        };
        let list = text.lines().map(read).collect::<Option<_>>();
        list.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    fn write(&mut self, path: &str, text: &str) -> io::Result<()> {
        let words: Vec<_> = path
            .trim_start_matches("/sys/bus/pci/")
            .split('/')
            .collect();
        match words[..] {
            ["devices", _, "driver_override"] => {
                let text = if text.trim().is_empty() {
                    "(null)\n"
                } else {
                    text
                };
                // Never creates a file.
                let path = self.inside(path)?;
                system::read(&path)?;
                fs::write(path, text)
            }
            ["drivers", driver, "unbind"] => self.detach(self.device(text)?, driver),
            ["drivers", driver, "bind"] => self.attach(self.device(text)?, driver),
            ["drivers_probe"] => self.probe(self.device(text)?),
            _ => system::write(&self.inside(path)?, text),
        }
    }

    fn save(&mut self, path: &str, text: &str) -> io::Result<()> {
        system::save(&self.inside(path)?, text)
    }

    fn remove(&mut self, path: &str) -> io::Result<()> {
        fs::remove_file(self.inside(path)?)
    }

    fn set_owner(&mut self, path: &str, user: u32) -> io::Result<()> {
        let path = self.inside(path)?;
        // Never creates a file.
        system::read(&path)?;
        fs::write(path, format!("{user}\n"))
    }

    /// Nothing is run: that it was asked for is in the outcome's steps.
    fn load_module(&mut self, name: &str) -> io::Result<()> {
        let release = line(self, "/proc/sys/kernel/osrelease");
        match Module::find(self, name, release.as_deref()) {
            Module::Present => Ok(()),
            Module::Loadable => {
                let name = if name.replace('_', "-") == VFIO_PCI {
                    VFIO_PCI
                } else {
                    name
                };
                fs::create_dir_all(self.inside(&format!("/sys/bus/pci/drivers/{name}"))?)
            }
            Module::Absent | Module::Unknown => {
                let why = format!("module {name} is not in the made-up tree");
                Err(io::Error::new(io::ErrorKind::NotFound, why))
            }
        }
    }

    fn lock(&mut self, path: &str) -> io::Result<()> {
        self.lock = None;
        self.lock = Some(system::lock(&self.inside(path)?)?);
        Ok(())
    }

    fn pause(&mut self) {}
}
