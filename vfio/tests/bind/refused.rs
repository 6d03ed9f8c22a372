//! What is refused, and what only looks as if it had to be.

use pagewire_vfio::bind::{BindOptions, Note, Played, Problem};

use crate::tree::{NIC, RELEASE, Tree};
use crate::{bind_on, bound, codes, for_maria, forced};

/// What refusal and mend say, in one text.
fn said(tree: &Tree) -> String {
    bound(tree).unwrap_err().to_string()
}

#[test]
fn a_usual_nic_is_bound() {
    let tree = Tree::usual();
    let bound = bound(&tree).unwrap();
    assert!(bound.changed);
    assert_eq!(bound.previous.as_deref(), Some("e1000e"));
    assert_eq!(bound.files, ["/dev/vfio/7"]);
    assert_eq!(bound.notes, []);
    assert_eq!(tree.driver_of(NIC).as_deref(), Some("vfio-pci"));
    assert!(tree.remembers(NIC));
}

#[test]
fn a_device_of_another_class_is_no_nic() {
    let tree = Tree::usual();
    tree.file(&Tree::of(NIC, "class"), "0x010802\n");
    assert_eq!(codes(&tree), ["not-a-nic"]);
    assert!(said(&tree).contains("0108"), "{}", said(&tree));
}

#[test]
fn no_iommu() {
    let tree = Tree::usual();
    tree.remove("sys/kernel/iommu_groups");
    tree.remove(&Tree::of(NIC, "iommu_group"));
    assert_eq!(codes(&tree), ["no-iommu"]);
    assert!(said(&tree).contains("intel_iommu=on"), "{}", said(&tree));
}

#[test]
fn an_iommu_that_does_not_cover_the_device() {
    let tree = Tree::usual();
    tree.remove(&Tree::of(NIC, "iommu_group"));
    assert_eq!(codes(&tree), ["no-iommu-group"]);
}

#[test]
fn the_mode_without_an_iommu() {
    let tree = Tree::usual();
    let mode = "sys/module/vfio/parameters/enable_unsafe_noiommu_mode";
    tree.file(mode, "Y\n");
    tree.remove(&Tree::of(NIC, "iommu_group"));
    assert_eq!(codes(&tree), ["unsafe-noiommu-mode"]);
    // The kernel makes such a group up.
    tree.group(NIC, 7);
    tree.file("sys/kernel/iommu_groups/7/name", "vfio-noiommu\n");
    assert_eq!(codes(&tree), ["unsafe-noiommu-mode"]);
    assert!(matches!(forced(&tree), Err(Problem::Refused { .. })));
}

#[test]
fn a_group_shared_with_a_nic_in_use() {
    let tree = Tree::usual();
    tree.nic("0000:03:00.1", "ixgbe", 7);
    tree.nic("0000:03:00.2", "", 7);
    assert_eq!(codes(&tree), ["group-in-use"]);
    // All that is in it is listed, and force does not help.
    for text in [
        "0000:03:00.1 (class 0200, driver ixgbe)",
        "0000:03:00.2 (class 0200, no driver)",
    ] {
        assert!(said(&tree).contains(text), "{}", said(&tree));
    }
    assert!(matches!(forced(&tree), Err(Problem::Refused { .. })));
}

#[test]
fn a_group_shared_with_a_bridge() {
    let tree = Tree::usual();
    tree.bridge("0000:00:1c.0", "pcieport", 7);
    tree.bridge("0000:00:1e.0", "", 7);
    let bound = bound(&tree).unwrap();
    assert_eq!(bound.notes, []);
}

#[test]
fn a_bridge_with_a_driver_that_the_kernel_does_not_allow() {
    let tree = Tree::usual();
    tree.bridge("0000:00:1e.0", "shpchp", 7);
    assert_eq!(codes(&tree), ["group-in-use"]);
    let mend = "echo 0000:00:1e.0 > /sys/bus/pci/drivers/shpchp/unbind";
    assert!(said(&tree).contains(mend), "{}", said(&tree));
}

#[test]
fn a_group_shared_with_what_user_space_has() {
    let tree = Tree::usual();
    for (number, driver) in ["vfio-pci", "pci-stub", "", "mlx5_vfio_pci"]
        .into_iter()
        .enumerate()
    {
        tree.nic(&format!("0000:03:00.{}", number + 1), driver, 7);
    }
    let bound = bound(&tree).unwrap();
    let [Note::Shared(others)] = &bound.notes[..] else {
        panic!("{:?}", bound.notes);
    };
    assert_eq!(others.len(), 4);
}

#[test]
fn a_group_with_something_that_is_not_on_pci() {
    let tree = Tree::usual();
    let device = "sys/kernel/iommu_groups/7/devices/fd8c0000.dma";
    tree.folder(device);
    assert_eq!(codes(&tree), [""; 0]);
    let tree = Tree::usual();
    tree.link(&format!("{device}/driver"), "../../pl330");
    assert_eq!(codes(&tree), ["group-in-use"]);
}

#[test]
fn the_module_is_absent() {
    let tree = Tree::usual();
    tree.file(
        &format!("lib/modules/{RELEASE}/modules.dep"),
        "kernel/drivers/vfio/vfio.ko:\n",
    );
    assert_eq!(codes(&tree), ["no-vfio-pci"]);
    assert!(said(&tree).contains(RELEASE), "{}", said(&tree));
    // Built into the kernel it needs none.
    tree.folder("sys/bus/pci/drivers/vfio-pci");
    assert_eq!(codes(&tree), [""; 0]);
}

#[test]
fn nothing_maps_memory() {
    let tree = Tree::usual();
    tree.remove("sys/module/vfio_iommu_type1");
    // It is on disk, and modprobe did not know that vfio needs it.
    let bound_now = bound(&tree).unwrap();
    assert_eq!(bound_now.notes, [Note::NoMappingYet]);
    let text = bound_now.notes[0].to_string();
    assert!(text.contains("modprobe vfio_iommu_type1"), "{text}");
    let tree = Tree::usual();
    tree.remove("sys/module/vfio_iommu_type1");
    let list = format!("lib/modules/{RELEASE}/modules.dep");
    tree.file(&list, "kernel/drivers/vfio/pci/vfio-pci.ko:\n");
    assert_eq!(codes(&tree), ["no-mapping"]);
    // iommufd will do.
    tree.folder("sys/module/iommufd");
    tree.file("dev/iommu", "0\n");
    assert_eq!(bound(&tree).unwrap().notes, []);
}

#[test]
fn without_a_list_of_modules_it_is_tried() {
    let tree = Tree::usual();
    tree.remove("lib/modules");
    let before = tree.snapshot();
    let error = bound(&tree).unwrap_err();
    let text = "cannot load module vfio-pci";
    assert!(
        error.was_begun() && error.to_string().contains(text),
        "{error}"
    );
    assert_eq!(tree.snapshot(), before);
}

#[test]
fn only_root() {
    let tree = Tree::usual();
    tree.file("proc/self/status", "Uid:\t1000\t1000\t1000\t1000\n");
    assert_eq!(codes(&tree), ["not-root"]);
    assert!(said(&tree).contains("sudo"));
    assert!(!tree.at("run").exists(), "not even a lock");
    // sudo changes the effective number.
    tree.file("proc/self/status", "Uid:\t1000\t0\t0\t0\n");
    assert_eq!(codes(&tree), [""; 0]);
}

#[test]
fn a_kernel_without_driver_override() {
    let tree = Tree::usual();
    tree.remove(&Tree::of(NIC, "driver_override"));
    assert_eq!(codes(&tree), ["no-driver-override"]);
}

#[test]
fn a_physical_function_with_virtual_ones() {
    let tree = Tree::usual();
    tree.file(&Tree::of(NIC, "sriov_numvfs"), "0\n");
    assert_eq!(codes(&tree), [""; 0]);
    let tree = Tree::usual();
    tree.file(&Tree::of(NIC, "sriov_numvfs"), "4\n");
    assert_eq!(codes(&tree), ["virtual-functions"]);
}

#[test]
fn a_virtual_function_is_a_device_like_another() {
    let tree = Tree::usual();
    tree.link(&Tree::of(NIC, "physfn"), "../0000:02:00.0");
    assert_eq!(codes(&tree), [""; 0]);
}

#[test]
fn several_reasons_are_all_said() {
    let tree = Tree::usual();
    tree.interface("eth1", NIC, true);
    tree.ipv4("eth1", [192, 168, 1, 5]);
    tree.nic("0000:03:00.1", "ixgbe", 7);
    tree.file("proc/self/status", "Uid:\t1000\t1000\t1000\t1000\n");
    assert_eq!(codes(&tree), ["not-root", "group-in-use", "has-address"]);
}

#[test]
fn a_device_that_the_kernel_cannot_reset() {
    let tree = Tree::usual();
    tree.remove(&Tree::of(NIC, "reset"));
    tree.file(&Tree::of(NIC, "reset_method"), "\n");
    assert_eq!(bound(&tree).unwrap().notes, [Note::NoReset]);
}

#[test]
fn bound_already() {
    let tree = Tree::usual();
    bound(&tree).unwrap();
    let before = tree.snapshot();
    let again = bound(&tree).unwrap();
    assert!(!again.changed && again.steps.is_empty());
    assert_eq!(again.previous.as_deref(), Some("e1000e"));
    assert_eq!(again.files, ["/dev/vfio/7"]);
    assert_eq!(tree.snapshot(), before);
    // Nothing is to be done, so nobody need be root.
    tree.file("proc/self/status", "Uid:\t1000\t1000\t1000\t1000\n");
    assert!(!bound(&tree).unwrap().changed);
}

#[test]
fn bound_already_by_someone_else() {
    let tree = Tree::usual();
    tree.nic("0000:03:00.1", "vfio-pci", 8);
    tree.file("dev/vfio/8", "0\n");
    let mut system = Played::new(tree.path()).unwrap();
    let bound = bind_on(&mut system, "0000:03:00.1", &BindOptions::default()).unwrap();
    assert!(!bound.changed);
    assert_eq!(bound.previous, None);
}

#[test]
fn bound_already_in_a_group_that_cannot_be_opened() {
    let tree = Tree::usual();
    bound(&tree).unwrap();
    tree.nic("0000:03:00.1", "ixgbe", 7);
    let again = bound(&tree).unwrap();
    let [Note::Unusable(refusal)] = &again.notes[..] else {
        panic!("{:?}", again.notes);
    };
    assert_eq!(refusal.code(), "group-in-use");
}

#[test]
fn bound_already_and_not_for_a_user() {
    let given = |tree: &Tree| {
        let mut system = Played::new(tree.path()).unwrap();
        bind_on(&mut system, NIC, &for_maria())
    };
    let code_of = |tree: &Tree| match given(tree) {
        Err(Problem::Refused { refusals, .. }) => refusals[0].code(),
        other => panic!("{other:?}"),
    };
    let noted = |tree: &Tree| {
        let bound = bound(tree).unwrap();
        let [Note::Unusable(refusal)] = &bound.notes[..] else {
            panic!("{:?}", bound.notes);
        };
        refusal.code()
    };
    // A disk that vfio-pci has for a guest.
    let disk = Tree::usual();
    bound(&disk).unwrap();
    disk.file(&Tree::of(NIC, "class"), "0x010802\n");
    // Without an IOMMU, in a group that VFIO makes up, or in none.
    let made_up = Tree::usual();
    bound(&made_up).unwrap();
    made_up.file("sys/kernel/iommu_groups/7/name", "vfio-noiommu\n");
    made_up.file("dev/vfio/noiommu-7", "0\n");
    let none = Tree::usual();
    bound(&none).unwrap();
    none.remove(&Tree::of(NIC, "iommu_group"));
    none.remove("sys/kernel/iommu_groups/0");
    none.remove("sys/kernel/iommu_groups/7");
    for (tree, code) in [
        (disk, "not-a-nic"),
        (made_up, "unsafe-noiommu-mode"),
        (none, "no-iommu"),
    ] {
        let before = tree.snapshot();
        assert_eq!(code_of(&tree), code);
        assert_eq!(tree.snapshot(), before);
        if code != "no-iommu" {
            assert_eq!(noted(&tree), code);
        }
    }
}

#[test]
fn bound_already_and_given_to_a_user() {
    let tree = Tree::usual();
    bound(&tree).unwrap();
    let mut system = Played::new(tree.path()).unwrap();
    let bound = bind_on(&mut system, NIC, &for_maria()).unwrap();
    assert!(bound.changed);
    assert_eq!(tree.read("dev/vfio/7"), "1042\n");
}

#[test]
fn two_at_a_time_wait_for_each_other() {
    let tree = Tree::usual();
    let mut first = Played::new(tree.path()).unwrap();
    bind_on(&mut first, NIC, &BindOptions::default()).unwrap();
    // The first still has the lock.
    assert!(matches!(bound(&tree), Err(Problem::Busy)));
    drop(first);
    assert!(!bound(&tree).unwrap().changed);
}

/// What cannot be read may hold an interface that is in use, or a device that is.
#[test]
fn folders_that_cannot_be_read() {
    for folder in ["sys/class/net", "sys/kernel/iommu_groups/7/devices"] {
        let tree = Tree::usual();
        tree.remove(folder);
        // Reading it as a folder fails, and not because there is none.
        tree.file(folder, "");
        assert!(codes(&tree).contains(&"odd-sysfs"), "{folder}");
        assert!(said(&tree).contains("ot a directory"), "{}", said(&tree));
    }
}
