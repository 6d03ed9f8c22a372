//! `unbind`: back to the driver that it had.

use pagewire_vfio::bind::{Action, After, BindOptions, Played, Problem, Refusal, unbind};
use rustix::io::Errno;

use crate::faulty::{Fail, Faulty};
use crate::tree::{NIC, RELEASE, Tree};
use crate::{bind_on, bound, for_maria, unbound};

#[test]
fn there_and_back() {
    let tree = Tree::usual();
    tree.file("dev/iommu", "0\n");
    tree.folder("sys/bus/pci/drivers/vfio-pci");
    let before = tree.snapshot();
    let mut system = Played::new(tree.path()).unwrap();
    let there = bind_on(&mut system, NIC, &for_maria()).unwrap();
    assert_eq!(there.files, ["/dev/vfio/7", "/dev/vfio/devices/vfio0"]);
    drop(system);
    let back = unbound(&tree).unwrap();
    assert!(back.changed && back.remembered);
    assert_eq!(back.driver.as_deref(), Some("e1000e"));
    assert_eq!(tree.snapshot(), before);
    assert!(!tree.remembers(NIC));
}

#[test]
fn a_device_without_a_driver_gets_none() {
    let tree = Tree::empty();
    tree.nic(NIC, "", 7);
    bound(&tree).unwrap();
    let back = unbound(&tree).unwrap();
    assert_eq!((back.driver, back.remembered), (None, true));
}

#[test]
fn nothing_is_remembered() {
    let tree = Tree::usual();
    bound(&tree).unwrap();
    tree.remove("run/pagewire/bind");
    let back = unbound(&tree).unwrap();
    assert_eq!(back.driver.as_deref(), Some("e1000e"), "the kernel chose");
    assert!(!back.remembered);
    assert_eq!(tree.read(&Tree::of(NIC, "driver_override")), "(null)\n");
}

#[test]
fn nothing_is_remembered_and_no_driver_knows_it() {
    let tree = Tree::usual();
    bound(&tree).unwrap();
    tree.remove("run/pagewire/bind");
    tree.remove("sys/bus/pci/drivers/e1000e");
    let problem = unbound(&tree).unwrap_err();
    let Problem::Failed { after, .. } = &problem else {
        panic!("{problem}");
    };
    assert!(
        matches!(after, After::Left { driver: None, .. }),
        "{problem}"
    );
}

#[test]
fn what_was_remembered_is_of_another_device() {
    // The card was changed while the machine ran.
    let tree = Tree::usual();
    bound(&tree).unwrap();
    tree.file(&Tree::of(NIC, "device"), "0x10fb\n");
    let back = unbound(&tree).unwrap();
    assert_eq!(back.driver.as_deref(), Some("ixgbe"));
    assert!(!back.remembered);
}

#[test]
fn what_was_remembered_is_odd() {
    for odd in [
        "",
        "ids=8086:10d3",
        "ids=8086:10d3\ndriver=../../../etc\n",
        "ids=8086:10d3\ndriver=-f\nmodule=--all\n",
        "driver=e1000e\n",
    ] {
        let tree = Tree::usual();
        bound(&tree).unwrap();
        tree.file(&format!("run/pagewire/bind/{NIC}"), odd);
        let mut system = Faulty::new(tree.path());
        unbind(&mut system, &NIC.parse().unwrap(), &|| false).unwrap();
        assert!(system.modules.is_empty(), "{odd}");
        assert_ne!(tree.driver_of(NIC).as_deref(), Some("vfio-pci"), "{odd}");
    }
}

#[test]
fn the_driver_that_it_had_is_loaded_again() {
    let tree = Tree::usual();
    bound(&tree).unwrap();
    tree.remove("sys/bus/pci/drivers/e1000e");
    let mut system = Faulty::new(tree.path());
    let back = unbind(&mut system, &NIC.parse().unwrap(), &|| false).unwrap();
    assert_eq!(system.modules, ["e1000e"]);
    assert_eq!(back.driver.as_deref(), Some("e1000e"));
}

#[test]
fn the_module_of_the_driver_that_it_had_is_gone() {
    let tree = Tree::usual();
    bound(&tree).unwrap();
    tree.remove("sys/bus/pci/drivers/e1000e");
    tree.file(&format!("lib/modules/{RELEASE}/modules.dep"), "");
    let problem = unbound(&tree).unwrap_err();
    let text = problem.to_string();
    assert!(text.contains("cannot load module e1000e"), "{text}");
    assert!(text.contains("no driver"), "{text}");
    // It is not kept for vfio-pci: whichever driver comes gets it.
    assert_eq!(tree.read(&Tree::of(NIC, "driver_override")), "(null)\n");
    assert!(tree.remembers(NIC));
}

#[test]
fn the_kernel_would_choose_another_driver() {
    // It had a driver that does not list its ids, as `new_id` makes possible.
    let tree = Tree::usual();
    let alias = format!("lib/modules/{RELEASE}/modules.alias");
    bound(&tree).unwrap();
    tree.file(
        &alias,
        "alias pci:v00008086d000010D3sv*sd*bc*sc*i* e1000\n\
                       alias pci:v00008086d000010D3sv*sd*bc*sc*i* e1000e\n",
    );
    tree.driver("e1000");
    assert_eq!(unbound(&tree).unwrap().driver.as_deref(), Some("e1000e"));
}

#[test]
fn the_override_that_it_had_comes_back() {
    let tree = Tree::usual();
    tree.file(&Tree::of(NIC, "driver_override"), "e1000e\n");
    bound(&tree).unwrap();
    assert_eq!(tree.read(&Tree::of(NIC, "driver_override")), "vfio-pci\n");
    unbound(&tree).unwrap();
    assert_eq!(tree.read(&Tree::of(NIC, "driver_override")), "e1000e\n");
}

#[test]
fn an_override_for_another_driver_comes_back_last() {
    // driverctl and rules of udev name a driver for the next boot.
    for name in ["vfio-pci\n", "igb\n"] {
        let tree = Tree::usual();
        tree.file(&Tree::of(NIC, "driver_override"), name);
        // Nobody bound it: what somebody else wants stays.
        let before = tree.snapshot();
        assert!(!unbound(&tree).unwrap().changed);
        assert_eq!(tree.snapshot(), before);
        bound(&tree).unwrap();
        assert_eq!(tree.read(&Tree::of(NIC, "driver_override")), "vfio-pci\n");
        let back = unbound(&tree).unwrap();
        assert_eq!(back.driver.as_deref(), Some("e1000e"));
        assert_eq!(tree.read(&Tree::of(NIC, "driver_override")), name);
        assert!(!tree.remembers(NIC));
    }
}

#[test]
fn a_device_that_is_not_bound_is_left_alone() {
    let tree = Tree::usual();
    let before = tree.snapshot();
    let back = unbound(&tree).unwrap();
    assert!(!back.changed && back.steps.is_empty());
    assert_eq!(back.driver.as_deref(), Some("e1000e"));
    assert_eq!(tree.snapshot(), before);
    tree.file("proc/self/status", "Uid:\t1000\t1000\t1000\t1000\n");
    assert!(!unbound(&tree).unwrap().changed);
}

#[test]
fn only_root_unbinds() {
    let tree = Tree::usual();
    bound(&tree).unwrap();
    tree.file("proc/self/status", "Uid:\t1000\t1000\t1000\t1000\n");
    let problem = unbound(&tree).unwrap_err();
    let text = problem.to_string();
    assert!(
        text.starts_with("0000:03:00.0 is not unbound: only root"),
        "{text}"
    );
    assert!(text.contains("sudo") && !text.contains("--user"), "{text}");
    let Problem::Refused { refusals, .. } = problem else {
        panic!("{problem}");
    };
    assert_eq!(refusals, [Refusal::NotRoot(Action::Unbind)]);
}

#[test]
fn other_devices_are_not_unbound() {
    // A disk that vfio-pci has for a guest is not ours.
    let tree = Tree::usual();
    tree.file(&Tree::of(NIC, "class"), "0x010802\n");
    tree.link(&Tree::of(NIC, "driver"), "../../drivers/vfio-pci");
    let problem = unbound(&tree).unwrap_err();
    assert!(
        problem
            .to_string()
            .contains("is not unbound: it is not a NIC"),
        "{problem}"
    );
    let Problem::Refused { refusals, .. } = problem else {
        panic!("{problem}");
    };
    assert_eq!(refusals[0].code(), "not-a-nic");
}

#[test]
fn a_process_has_it_open() {
    let tree = Tree::usual();
    tree.file("dev/iommu", "0\n");
    bound(&tree).unwrap();
    tree.file("proc/4711/comm", "qemu\u{7}system\n");
    for open in ["/dev/vfio/7", "/dev/vfio/devices/vfio0"] {
        tree.link("proc/4711/fd/9", open);
        let before = tree.snapshot();
        let problem = unbound(&tree).unwrap_err();
        let Problem::InUse { holders, .. } = &problem else {
            panic!("{problem}");
        };
        assert_eq!((holders[0].process, &*holders[0].file), (4711, open));
        assert!(!problem.to_string().contains('\u{7}'), "{problem}");
        assert_eq!(tree.snapshot(), before);
    }
    tree.link("proc/4711/fd/9", "/dev/vfio/71");
    unbound(&tree).unwrap();
}

#[test]
fn a_process_has_another_device_of_the_group_open() {
    let tree = Tree::usual();
    tree.nic("0000:03:00.1", "vfio-pci", 7);
    tree.folder(&Tree::of("0000:03:00.1", "vfio-dev/vfio3"));
    bound(&tree).unwrap();
    tree.link("proc/4711/fd/9", "/dev/vfio/devices/vfio3");
    assert!(matches!(unbound(&tree), Err(Problem::InUse { .. })));
}

#[test]
fn the_group_of_another_device_keeps_its_file() {
    let tree = Tree::usual();
    tree.nic("0000:03:00.1", "", 7);
    let mut system = Played::new(tree.path()).unwrap();
    let second = bind_on(&mut system, "0000:03:00.1", &BindOptions::default());
    // The first of the group is still with its driver.
    assert!(matches!(second, Err(Problem::Refused { .. })));
    bind_on(&mut system, NIC, &BindOptions::default()).unwrap();
    bind_on(&mut system, "0000:03:00.1", &BindOptions::default()).unwrap();
    drop(system);
    unbound(&tree).unwrap();
    assert!(tree.at("dev/vfio/7").exists());
}

#[test]
fn vfio_pci_does_not_let_go() {
    let tree = Tree::usual();
    bound(&tree).unwrap();
    let before = tree.snapshot();
    let fail = Fail::Path("vfio-pci/unbind", Errno::BUSY);
    let mut system = Faulty::failing(tree.path(), fail);
    let problem = unbind(&mut system, &NIC.parse().unwrap(), &|| false).unwrap_err();
    let Problem::Failed { after, .. } = &problem else {
        panic!("{problem}");
    };
    assert_eq!(*after, After::Back(Some("vfio-pci".into())));
    assert_eq!(tree.snapshot(), before, "and it is still kept for vfio-pci");
}
