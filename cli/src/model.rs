//! The name of a PCI device, for people.

use pagewire::drivers::known;
use pagewire_vfio::bind::System;

/// Where distributions keep the list of PCI ids.
const LISTS: [&str; 2] = ["/usr/share/misc/pci.ids", "/usr/share/hwdata/pci.ids"];

/// The list of PCI ids, if the machine has one.
pub(crate) struct Names {
    list: String,
}

impl Names {
    /// Reads it. (It is long: once for all devices.)
    pub(crate) fn read(system: &dyn System) -> Self {
        let bytes = LISTS.iter().find_map(|path| system.read(path).ok());
        let list = String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned();
        Self { list }
    }

    /// What our table calls the device, else what the list does.
    pub(crate) fn of(&self, vendor: Option<u16>, device: Option<u16>) -> Option<String> {
        let (vendor, device) = (vendor?, device?);
        known(vendor, device)
            .map(|known| known.name.to_owned())
            .or_else(|| self.listed(vendor, device))
    }

    /// A line `8086  Intel Corporation`, and below it lines that begin with a tab,
    /// `10d3  82574L …`. Two tabs are a subsystem's.
    fn listed(&self, vendor: u16, device: u16) -> Option<String> {
        let (vendor, device) = (format!("{vendor:04x}  "), format!("\t{device:04x}  "));
        let mut lines = self.list.lines();
        let maker = lines.find_map(|line| line.strip_prefix(&*vendor))?;
        let below = lines.take_while(|line| line.starts_with(['\t', '#']) || line.is_empty());
        let name = below
            .into_iter()
            .find_map(|line| line.strip_prefix(&*device))?;
        Some(format!("{maker} {name}").escape_debug().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_searched_below_its_vendor() {
        let list = "# PCI ids\n\
                    8086  Intel\n\t10fb  82599ES\n\t\t8086 7a11  Server Adapter\n\t1533  I210\n\
                    15b3  Mellanox\n\t1533  Not an I210\n";
        let names = Names { list: list.into() };
        let of = |vendor, device| names.of(Some(vendor), Some(device));
        assert_eq!(of(0x8086, 0x1533).as_deref(), Some("Intel I210"));
        assert_eq!(of(0x15b3, 0x1533).as_deref(), Some("Mellanox Not an I210"));
        assert_eq!(of(0x15b3, 0x10fb), None);
        assert_eq!(of(0x8086, 0x10d3).as_deref(), Some("e1000e 82574L"));
        assert_eq!(names.of(None, Some(1)), None);
    }
}
