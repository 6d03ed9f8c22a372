use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;

/// A made-up tree, which goes with the value.
struct Tree {
    machine: Machine,
    _root: TempDir,
}

impl Tree {
    fn new() -> Self {
        let root = TempDir::new().unwrap();
        let machine = Machine {
            sys: root.path().join("sys"),
            dev: root.path().join("dev"),
            proc: root.path().join("proc"),
        };
        Self {
            machine,
            _root: root,
        }
    }

    fn function(&self, address: &str, group: Option<u32>, driver: Option<&str>) {
        let folder = self.machine.sys.join("bus/pci/devices").join(address);
        fs::create_dir_all(&folder).unwrap();
        if let Some(driver) = driver {
            symlink(
                format!("../../../bus/pci/drivers/{driver}"),
                folder.join("driver"),
            )
            .unwrap();
        }
        if let Some(group) = group {
            let devices = format!("kernel/iommu_groups/{group}/devices");
            let devices = self.machine.sys.join(devices);
            fs::create_dir_all(&devices).unwrap();
            symlink(&folder, devices.join(address)).unwrap();
            let group = format!("../../../../kernel/iommu_groups/{group}");
            symlink(group, folder.join("iommu_group")).unwrap();
        }
    }

    fn process(&self, pid: u32, name: &str, open: &[&Path]) {
        let folder = self.machine.proc.join(pid.to_string());
        fs::create_dir_all(folder.join("fd")).unwrap();
        fs::write(folder.join("comm"), format!("{name}\n")).unwrap();
        for (fd, path) in open.iter().enumerate() {
            symlink(path, folder.join("fd").join(fd.to_string())).unwrap();
        }
    }
}

fn address(text: &str) -> PciAddress {
    text.parse().unwrap()
}

#[test]
fn a_function_is_found_or_the_reason_is_told() {
    let tree = Tree::new();
    tree.function("0000:03:00.0", Some(17), Some("vfio-pci"));
    tree.function("0000:04:00.0", Some(18), Some("e1000e"));
    tree.function("0000:05:00.0", Some(19), None);
    tree.function("0000:06:00.0", None, Some("vfio-pci"));
    tree.function("0000:07:00.0", Some(20), Some("mlx5_vfio_pci"));
    tree.function("0000:09:00.0", Some(21), Some("vfio-pci"));
    let made_up = tree.machine.sys.join("kernel/iommu_groups/21/name");
    fs::write(made_up, "vfio-noiommu\n").unwrap();
    let group = |text: &str| tree.machine.group(address(text));
    assert_eq!(group("0000:03:00.0"), Ok(17));
    assert_eq!(group("0000:07:00.0"), Ok(20));
    let there = |text: &str, driver: Option<&str>| VfioError::NotBound {
        address: address(text),
        driver: driver.map(str::to_owned),
    };
    assert_eq!(
        group("0000:04:00.0"),
        Err(there("0000:04:00.0", Some("e1000e")))
    );
    assert_eq!(group("0000:05:00.0"), Err(there("0000:05:00.0", None)));
    let missing = address("0000:06:00.0");
    assert_eq!(group("0000:06:00.0"), Err(VfioError::NoIommu(missing)));
    let missing = address("0000:09:00.0");
    assert_eq!(group("0000:09:00.0"), Err(VfioError::NoIommu(missing)));
    let missing = address("0000:08:00.0");
    assert_eq!(group("0000:08:00.0"), Err(VfioError::NoDevice(missing)));
}

#[test]
fn the_device_file_is_named_by_the_kernel() {
    let tree = Tree::new();
    tree.function("0000:03:00.0", Some(17), Some("vfio-pci"));
    let function = address("0000:03:00.0");
    assert_eq!(tree.machine.device_file(function), None);
    let folder = tree
        .machine
        .sys
        .join("bus/pci/devices/0000:03:00.0/vfio-dev/vfio3");
    fs::create_dir_all(folder).unwrap();
    let expected = tree.machine.dev.join("vfio/devices/vfio3");
    assert_eq!(tree.machine.device_file(function), Some(expected));
}

#[test]
fn only_those_that_use_dma_are_in_the_way() {
    let tree = Tree::new();
    tree.function("0000:02:00.0", Some(5), Some("pcieport"));
    tree.function("0000:03:00.1", Some(5), Some("igb"));
    tree.function("0000:03:00.0", Some(5), Some("vfio-pci"));
    tree.function("0000:03:00.2", Some(5), None);
    tree.function("0000:04:00.0", Some(6), Some("ahci"));
    let expected = GroupMember {
        address: address("0000:03:00.1"),
        driver: "igb".to_owned(),
    };
    assert_eq!(tree.machine.in_the_way(5), [expected]);
    assert_eq!(tree.machine.in_the_way(7), []);
}

#[test]
fn holders_are_found_by_what_they_have_open() {
    let tree = Tree::new();
    let group = tree.machine.group_file(17);
    let other = tree.machine.group_file(1);
    tree.process(4711, "qemu", &[Path::new("/dev/null"), &group]);
    tree.process(12, "pagewire", &[&group, &group]);
    tree.process(13, "sh", &[&other]);
    fs::create_dir_all(tree.machine.proc.join("self")).unwrap();
    let holder = |process, name: &str| Holder {
        process,
        name: name.to_owned(),
        file: group.display().to_string(),
    };
    let expected = [holder(12, "pagewire"), holder(4711, "qemu")];
    assert_eq!(
        tree.machine.holders(std::slice::from_ref(&group), None),
        expected
    );
    assert_eq!(tree.machine.holders(&[tree.machine.iommufd()], None), []);
}

#[test]
fn a_machine_of_qemu_is_known_by_its_bridge() {
    let tree = Tree::new();
    assert!(!tree.machine.is_qemu());
    tree.function("0000:00:00.0", Some(0), None);
    let vendor = tree
        .machine
        .sys
        .join("bus/pci/devices/0000:00:00.0/subsystem_vendor");
    fs::write(&vendor, "0x8086\n").unwrap();
    assert!(!tree.machine.is_qemu());
    fs::write(&vendor, "0x1af4\n").unwrap();
    assert!(tree.machine.is_qemu());
}
