//! Which processes have a device, or its group, open.
//!
//! The kernel takes a device from vfio-pci only when no one has it open, and waits without end
//! until then. Not seen is a process in another PID namespace, and one that opened the device by
//! its group and then closed the group: what it has left is `anon_inode:[vfio-device]`, which does
//! not say whose. While such a process has the device, `unbind` sleeps in the kernel until it ends.

use std::fmt;

use super::group::{Companion, IommuGroup};
use super::nic::{DEVICES, Nic, folder, group_files, own_files};
use super::system::System;
use super::text::line;

/// A process that has a device file of VFIO open.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holder {
    /// Its number.
    pub process: u32,
    /// Its name.
    pub name: String,
    /// The file.
    pub file: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            process,
            name,
            file,
        } = self;
        write!(f, "process {process} ({name}, {file})")
    }
}

/// The processes that have the device or any other in its group open: a group is given to user
/// space whole, and while one device of it is open, no kernel driver may have another.
pub(super) fn holders(system: &dyn System, nic: &Nic) -> Vec<Holder> {
    let mut files = group_files(&nic.group);
    files.extend(own_files(system, &folder(nic.address)));
    if matches!(nic.group, IommuGroup::Number(_)) {
        for Companion { name, .. } in &nic.companions {
            files.extend(own_files(system, &format!("{DEVICES}/{name}")));
        }
    }
    let processes = system.names("/proc").unwrap_or_default();
    let processes = processes.iter().filter_map(|name| name.parse().ok());
    processes
        .filter_map(|process| holder(system, process, &files))
        .collect()
}

fn holder(system: &dyn System, process: u32, files: &[String]) -> Option<Holder> {
    let folder = format!("/proc/{process}/fd");
    // It may have ended by now, or belong to someone else.
    let open = system.names(&folder).ok()?;
    let open = open
        .iter()
        .filter_map(|name| system.link(&format!("{folder}/{name}")).ok());
    let file = open
        .filter_map(|target| {
            files
                .iter()
                .find(|file| target.as_os_str() == file.as_str())
        })
        .next()?;
    let name = line(system, &format!("/proc/{process}/comm")).unwrap_or_else(|| "?".into());
    Some(Holder {
        process,
        name: name.escape_debug().to_string(),
        file: file.clone(),
    })
}
