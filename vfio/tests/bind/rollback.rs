//! What fails, changes or ends half-way: the device then has what it had.

use std::cell::Cell;

use pagewire_vfio::bind::{After, BindOptions, Problem, Reason, bind, unbind};
use rustix::io::Errno;

use crate::faulty::{Fail, Faulty};
use crate::tree::{NIC, RELEASE, Tree};
use crate::{bind_on, bound, for_maria, unbound};

type Make = fn() -> Tree;

/// Trees that make different steps: a driver or none, a module to load or not, device files of
/// one kind or two, an override that was there before.
const TREES: [(&str, Make); 7] = [
    ("usual", Tree::usual),
    ("no driver before", || {
        let tree = Tree::empty();
        tree.nic(NIC, "", 7);
        tree
    }),
    ("vfio-pci is loaded", || {
        let tree = Tree::usual();
        tree.folder("sys/bus/pci/drivers/vfio-pci");
        tree
    }),
    ("device files of its own", || {
        let tree = Tree::usual();
        tree.file("dev/iommu", "0\n");
        tree
    }),
    ("an override before", || {
        let tree = Tree::usual();
        tree.file(&Tree::of(NIC, "driver_override"), "e1000e\n");
        tree
    }),
    ("kept for vfio-pci, which has not got it", || {
        let tree = Tree::usual();
        tree.file(&Tree::of(NIC, "driver_override"), "vfio-pci\n");
        tree
    }),
    ("kept for a driver that is not there", || {
        let tree = Tree::empty();
        tree.nic(NIC, "", 7);
        tree.file(&Tree::of(NIC, "driver_override"), "igb\n");
        tree
    }),
];

/// Runs a test at change 0, 1, … of each tree, until it says that there was no such change.
fn at_every_change(test: impl Fn(&str, &Tree, usize) -> bool) -> usize {
    let mut reached = 0;
    for (name, tree) in TREES {
        reached += (0..).take_while(|&at| test(name, &tree(), at)).count();
    }
    reached
}

/// Loading a module stays done: it changes no device.
fn same_but_for_modules(
    tree: &Tree,
    before: &std::collections::BTreeMap<std::path::PathBuf, String>,
) {
    let _ = std::fs::remove_dir(tree.at("sys/bus/pci/drivers/vfio-pci"));
    assert_eq!(&tree.snapshot(), before);
}

#[test]
fn every_change_fails_in_turn() {
    for error in [Errno::BUSY, Errno::ACCESS, Errno::NODEV] {
        let failed = at_every_change(|name, tree, at| {
            let before = tree.snapshot();
            let mut system = Faulty::failing(tree.path(), Fail::Once(at, error));
            let result = bind_on(&mut system, NIC, &for_maria());
            if system.changes <= at {
                assert!(result.unwrap().changed, "{name}");
                return false;
            }
            let problem = result.unwrap_err();
            let Problem::Failed { reason, after, .. } = &problem else {
                panic!("{name}, change {at}: {problem}");
            };
            let Reason::Io(cause) = reason else {
                panic!("{name}, change {at}: {problem}");
            };
            assert_eq!(cause.raw_os_error(), Some(error.raw_os_error()));
            let whole = matches!(after, After::Unchanged | After::Back(_));
            assert!(whole, "{name}, change {at}: {problem}");
            same_but_for_modules(tree, &before);
            assert!(!tree.remembers(NIC), "{name}, change {at}");
            true
        });
        assert!(failed >= 25, "{failed}");
    }
}

#[test]
fn every_change_of_unbind_fails_in_turn() {
    for error in [Errno::BUSY, Errno::NODEV] {
        let failed = at_every_change(|name, tree, at| {
            let free = tree.snapshot();
            bound(tree).unwrap();
            let mut system = Faulty::failing(tree.path(), Fail::Once(at, error));
            let result = unbind(&mut system, &NIC.parse().unwrap(), &|| false);
            let reached = system.changes > at;
            drop(system);
            match result {
                // It may have found another way, or failed to forget.
                Ok(now) => assert_eq!(now.driver, tree.driver_of(NIC), "{name}, change {at}"),
                Err(problem) => {
                    let Problem::Failed { after, .. } = &problem else {
                        panic!("{name}, change {at}: {problem}");
                    };
                    assert_ne!(*after, After::Gone);
                    assert!(tree.remembers(NIC), "{name}, change {at}: {problem}");
                }
            }
            if tree.remembers(NIC) {
                // Whatever failed: the next one succeeds.
                unbound(tree).unwrap();
            }
            same_but_for_modules(tree, &free);
            reached
        });
        assert!(failed >= 15, "{failed}");
    }
}

#[test]
fn killed_at_every_change_and_taken_back_by_unbind() {
    at_every_change(|name, tree, at| {
        let before = tree.snapshot();
        let mut system = Faulty::failing(tree.path(), Fail::From(at));
        let result = bind_on(&mut system, NIC, &for_maria());
        drop(system);
        // Without a memory nothing had been changed yet.
        if tree.remembers(NIC) {
            unbound(tree).unwrap_or_else(|problem| panic!("{name}, change {at}: {problem}"));
        }
        same_but_for_modules(tree, &before);
        assert!(!tree.remembers(NIC), "{name}, change {at}");
        result.is_err()
    });
}

#[test]
fn killed_at_every_change_and_finished_by_bind() {
    at_every_change(|name, tree, at| {
        let before = tree.snapshot();
        let driver = tree.driver_of(NIC);
        let mut system = Faulty::failing(tree.path(), Fail::From(at));
        let result = bind_on(&mut system, NIC, &for_maria());
        drop(system);
        let again = bound(tree).unwrap_or_else(|p| panic!("{name}, change {at}: {p}"));
        assert_eq!(again.previous, driver, "{name}, change {at}");
        unbound(tree).unwrap();
        same_but_for_modules(tree, &before);
        result.is_err()
    });
}

#[test]
fn interrupted_before_every_step() {
    let interrupted = at_every_change(|name, tree, at| {
        let before = tree.snapshot();
        let asked = Cell::new(0);
        let mut system = Faulty::new(tree.path());
        let result = bind(&mut system, &NIC.parse().unwrap(), &for_maria(), &|| {
            asked.set(asked.get() + 1);
            asked.get() > at
        });
        if asked.get() <= at {
            assert!(result.unwrap().changed);
            return false;
        }
        assert!(result.unwrap_err().was_interrupted(), "{name}, step {at}");
        same_but_for_modules(tree, &before);
        assert!(!tree.remembers(NIC));
        true
    });
    assert!(interrupted >= 25, "{interrupted}");
}

#[test]
fn unbind_interrupted() {
    let tree = Tree::usual();
    bound(&tree).unwrap();
    let before = tree.snapshot();
    let mut system = Faulty::new(tree.path());
    let problem = unbind(&mut system, &NIC.parse().unwrap(), &|| true).unwrap_err();
    assert!(problem.was_interrupted(), "{problem}");
    assert_eq!(tree.snapshot(), before);
}

#[test]
fn the_device_vanishes_at_every_call() {
    let mut vanished = 0;
    for at in 0.. {
        let tree = Tree::usual();
        let mut system = Faulty::watched(tree.path(), |number, _| {
            if number == at {
                tree.remove(&format!("sys/bus/pci/devices/{NIC}"));
                tree.remove("sys/class/net/eth1");
                tree.remove("sys/kernel/iommu_groups/7");
                tree.remove("dev/vfio/7");
            }
        });
        let result = bind_on(&mut system, NIC, &for_maria());
        let calls = system.calls.get();
        drop(system);
        if calls <= at {
            assert!(result.unwrap().changed);
            break;
        }
        match result {
            // Between one look and the next it may also look like a device without a class or a
            // group.
            Err(Problem::Missing(_) | Problem::Refused { .. }) => {}
            Err(Problem::Failed { after, .. }) => {
                vanished += 1;
                assert!(
                    matches!(after, After::Gone | After::Unchanged),
                    "{at}: {after}"
                );
            }
            // After the last change it was bound, and no longer is.
            Ok(_) => assert!(at + 4 >= calls, "{at} of {calls}"),
            Err(other) => panic!("{at}: {other}"),
        }
        assert!(tree.driver_of(NIC).is_none());
    }
    assert!(vanished > 10, "{vanished}");
}

#[test]
fn the_device_vanishes_at_every_call_of_unbind() {
    for at in 0.. {
        let tree = Tree::usual();
        bound(&tree).unwrap();
        let mut system = Faulty::watched(tree.path(), |number, _| {
            if number == at {
                tree.remove(&format!("sys/bus/pci/devices/{NIC}"));
                tree.remove("sys/kernel/iommu_groups/7");
            }
        });
        let result = unbind(&mut system, &NIC.parse().unwrap(), &|| false);
        if system.calls.get() <= at {
            assert_eq!(result.unwrap().driver.as_deref(), Some("e1000e"));
            break;
        }
        if let Err(problem) = result {
            let fair = match &problem {
                Problem::Missing(_) | Problem::Refused { .. } => true,
                Problem::Failed { after, .. } => matches!(after, After::Gone),
                _ => false,
            };
            assert!(fair, "{at}: {problem}");
        }
    }
}

#[test]
fn the_tree_comes_to_life_while_we_look() {
    // Another program changes what it likes, from another thread.
    let tree = Tree::usual();
    let path = tree.path().to_owned();
    let end = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let device = path.join("sys/bus/pci/devices").join(NIC);
            let aside = path.join("aside");
            while !end.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = std::fs::rename(&device, &aside);
                let _ = std::fs::rename(&aside, &device);
            }
        });
        for _ in 0..200 {
            let _ = bound(&tree);
            let _ = unbound(&tree);
        }
        end.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    let _ = std::fs::rename(
        tree.at("aside"),
        tree.at(&format!("sys/bus/pci/devices/{NIC}")),
    );
    // Once it is quiet, the device can be had and given back. (It may have come back as a new one,
    // without a driver.)
    bound(&tree).unwrap();
    unbound(&tree).unwrap();
    assert_ne!(tree.driver_of(NIC).as_deref(), Some("vfio-pci"));
}

#[test]
fn vfio_pci_does_not_take_it() {
    let tree = Tree::usual();
    let before = tree.snapshot();
    // The group goes as the driver is asked: vfio-pci's probe fails, and the write succeeds.
    let mut system = Faulty::watched(tree.path(), |_, path| {
        if path.ends_with("drivers_probe") {
            tree.remove(&Tree::of(NIC, "iommu_group"));
        }
    });
    let problem = bind_on(&mut system, NIC, &BindOptions::default()).unwrap_err();
    let Problem::Failed { reason, after, .. } = &problem else {
        panic!("{problem}");
    };
    assert!(matches!(reason, Reason::Driver(None)), "{problem}");
    assert_eq!(*after, After::Back(Some("e1000e".into())));
    drop(system);
    tree.group(NIC, 7);
    same_but_for_modules(&tree, &before);
}

#[test]
fn no_device_file_appears() {
    let tree = Tree::usual();
    let before = tree.snapshot();
    let mut system = Faulty::watched(tree.path(), |_, path| {
        if path == "/dev/vfio/7" {
            tree.remove("dev/vfio/7");
        }
    });
    let problem = bind_on(&mut system, NIC, &BindOptions::default()).unwrap_err();
    let Problem::Failed { reason, after, .. } = &problem else {
        panic!("{problem}");
    };
    assert!(matches!(reason, Reason::NoDeviceFile), "{problem}");
    assert_eq!(*after, After::Back(Some("e1000e".into())));
    drop(system);
    same_but_for_modules(&tree, &before);
}

#[test]
fn a_device_file_cannot_be_given_away() {
    let tree = Tree::usual();
    tree.file("dev/iommu", "0\n");
    // Another device of the group, which keeps the group's file.
    tree.nic("0000:03:00.1", "vfio-pci", 7);
    tree.file("dev/vfio/7", "0\n");
    let before = tree.snapshot();
    let fail = Fail::Owner("/dev/vfio/devices", Errno::PERM);
    let mut system = Faulty::failing(tree.path(), fail);
    let problem = bind_on(&mut system, NIC, &for_maria()).unwrap_err();
    assert!(
        problem
            .to_string()
            .contains("give /dev/vfio/devices/vfio0 to user 1042"),
        "{problem}"
    );
    drop(system);
    assert_eq!(
        tree.read("dev/vfio/7"),
        "0\n",
        "the first file has its owner again"
    );
    assert_eq!(tree.snapshot(), before);
}

#[test]
fn the_way_back_is_blocked_too() {
    let tree = Tree::usual();
    // vfio-pci cannot have it, and its old driver does not take it back.
    let mut system = Faulty::failing(tree.path(), Fail::Path("drivers_probe", Errno::IO));
    system.watch = Box::new(|_, path| {
        if path.ends_with("drivers_probe") {
            tree.remove("sys/bus/pci/drivers/e1000e");
            tree.remove(&format!("lib/modules/{RELEASE}/modules.dep"));
        }
    });
    let problem = bind_on(&mut system, NIC, &BindOptions::default()).unwrap_err();
    let Problem::Failed { after, .. } = &problem else {
        panic!("{problem}");
    };
    assert!(
        matches!(after, After::Left { driver: None, .. }),
        "{problem}"
    );
    assert!(
        problem
            .to_string()
            .contains("`pagewire unbind` tries again"),
        "{problem}"
    );
    drop(system);
    // What it had is not forgotten, and once the driver is there again it gets it.
    assert!(tree.remembers(NIC));
    tree.driver("e1000e");
    assert_eq!(unbound(&tree).unwrap().driver.as_deref(), Some("e1000e"));
    assert!(!tree.remembers(NIC));
}
