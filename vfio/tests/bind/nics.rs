//! `list`, the notes for users, and trees that no kernel makes.

use std::os::unix::ffi::OsStrExt;

use pagewire_vfio::bind::{
    BindOptions, Environment, Function, IommuGroup, Link, Module, Network, Note, Played, System,
    User, Verdict, list,
};

use crate::tree::{NIC, RELEASE, Tree};
use crate::{bind_on, bound, codes, for_maria};

#[test]
fn all_nics_and_nothing_else() {
    let tree = Tree::usual();
    tree.device(
        "0000:00:04.0",
        ("0x1af4", "0x1041"),
        "0x020000",
        "virtio-pci",
    );
    tree.interface_below("eth0", "0000:00:04.0", "virtio0/", true);
    tree.ipv4("eth0", [10, 0, 2, 15]);
    tree.device("10000:e1:00.0", ("0x8086", "0x10fb"), "0x020700", "");
    tree.link(&Tree::of("10000:e1:00.0", "physfn"), "../10000:e0:00.0");
    tree.device("0000:00:1f.2", ("0x8086", "0x2922"), "0x010601", "ahci");
    tree.bridge("0000:00:1c.0", "pcieport", 3);
    let system = Played::new(tree.path()).unwrap();
    let nics = list(&system).unwrap();
    let addresses: Vec<_> = nics.iter().map(|nic| nic.address.to_string()).collect();
    assert_eq!(addresses, ["0000:00:04.0", NIC, "10000:e1:00.0"]);
    let [virtio, intel, function] = &nics[..] else {
        panic!();
    };
    assert_eq!((virtio.vendor, virtio.device), (Some(0x1af4), Some(0x1041)));
    assert_eq!(virtio.driver.name(), Some("virtio-pci"));
    assert_eq!(virtio.group, IommuGroup::None);
    assert_eq!(virtio.interfaces[0].name, "eth0");
    assert_eq!(virtio.interfaces[0].link, Link::Up(Some(1000)));
    assert_eq!(intel.interfaces[0].link, Link::Unknown);
    assert_eq!(intel.group, IommuGroup::Number(7));
    let parent = "10000:e0:00.0".parse().unwrap();
    assert_eq!(function.function, Function::Virtual(Some(parent)));
    let (environment, network) = (Environment::read(&system), Network::read(&system));
    let codes = |nic| {
        let verdict = Verdict::of(nic, &environment, &network);
        verdict
            .refusals
            .iter()
            .map(|r| r.code())
            .collect::<Vec<_>>()
    };
    assert_eq!(codes(virtio), ["no-iommu-group", "has-address"]);
    assert_eq!(codes(intel), [""; 0]);
    assert_eq!(codes(function), ["no-iommu-group"]);
}

#[test]
fn the_machine() {
    let tree = Tree::empty();
    let read = |tree: &Tree| Environment::read(&Played::new(tree.path()).unwrap());
    let usual = read(&tree);
    assert_eq!(usual.release.as_deref(), Some(RELEASE));
    assert_eq!(usual.vfio_pci, Module::Loadable);
    assert_eq!(
        (usual.root, usual.locked_memory),
        (Some(true), Some(64 << 20))
    );
    tree.memory_lock("unlimited");
    tree.remove("proc/self/status");
    tree.file("proc/sys/kernel/osrelease", "../../../../etc\n");
    let odd = read(&tree);
    assert_eq!((odd.root, odd.locked_memory), (None, None));
    assert_eq!((odd.release, odd.vfio_pci), (None, Module::Unknown));
}

#[test]
fn users() {
    let tree = Tree::empty();
    let system = Played::new(tree.path()).unwrap();
    let id = |name| User::find(&system, name).map(|user| user.id);
    assert_eq!(id("maria"), Some(1042));
    assert_eq!(id("1042"), Some(1042));
    assert_eq!(id("77"), Some(77), "a number need not be listed");
    for none in ["", "mari", "4294967295", "4294967296", "-1", "maria:x", "x"] {
        assert_eq!(id(none), None, "{none}");
    }
}

#[test]
fn what_a_user_needs_is_said() {
    let tree = Tree::usual();
    tree.memory_lock("8388608");
    tree.file("dev/iommu", "0\n");
    let mut system = Played::new(tree.path()).unwrap();
    let bound = bind_on(&mut system, NIC, &for_maria()).unwrap();
    assert_eq!(bound.notes, [Note::LockedMemory(8 << 20), Note::IommuFile]);
    assert!(bound.notes[0].to_string().contains("ulimit -l"));
    assert_eq!(tree.read("dev/vfio/7"), "1042\n");
    assert_eq!(tree.read("dev/vfio/devices/vfio0"), "1042\n");
    assert_eq!(tree.read("dev/iommu"), "0\n", "it serves all devices");
    assert_eq!(tree.read("dev/vfio/vfio"), "0\n");
}

#[test]
fn files_of_odd_bytes() {
    let odd: [&[u8]; 6] = [
        b"",
        b"\n\n\n",
        b"\xff\xfe\x00\x01",
        b"0x",
        b"-1\n",
        &[b'9'; 5000],
    ];
    let files = [
        "vendor",
        "device",
        "class",
        "reset_method",
        "driver_override",
        "sriov_numvfs",
        "net/eth1/flags",
        "net/eth1/carrier",
        "net/eth1/speed",
    ];
    for file in files {
        for bytes in odd {
            let tree = Tree::usual();
            tree.file(&Tree::of(NIC, file), bytes);
            let system = Played::new(tree.path()).unwrap();
            let nics = list(&system).unwrap();
            assert_eq!(nics.len(), usize::from(file != "class"), "{file}");
            // Whatever comes of it, it is all or nothing.
            let before = tree.snapshot();
            if bound(&tree).is_err() {
                assert_eq!(tree.snapshot(), before, "{file} {bytes:?}");
            } else {
                assert_eq!(tree.driver_of(NIC).as_deref(), Some("vfio-pci"));
            }
        }
    }
    let tree = Tree::usual();
    tree.file(&Tree::of(NIC, "class"), b"\xff\xff\n");
    assert_eq!(codes(&tree), ["not-a-nic"]);
}

#[test]
fn links_that_lead_to_odd_places() {
    for target in ["..", "/", "a\u{1b}[2J", "-f", "\u{e4}"] {
        for (link, code) in [("driver", "odd-sysfs"), ("iommu_group", "odd-sysfs")] {
            let tree = Tree::usual();
            tree.link(&Tree::of(NIC, link), target);
            assert_eq!(codes(&tree), [code], "{link} {target}");
            let error = bound(&tree).unwrap_err().to_string();
            assert!(!error.contains('\u{1b}'), "{error}");
        }
    }
    // A plain file where a link should be.
    let tree = Tree::usual();
    tree.remove(&Tree::of(NIC, "driver"));
    tree.file(&Tree::of(NIC, "driver"), "e1000e");
    assert_eq!(codes(&tree), ["odd-sysfs"]);
}

#[test]
fn names_of_odd_bytes() {
    let tree = Tree::usual();
    let odd = std::ffi::OsStr::from_bytes(b"\xff\x1b[2J");
    for folder in [
        "sys/bus/pci/devices",
        "sys/class/net",
        "sys/kernel/iommu_groups/7/devices",
    ] {
        std::fs::create_dir(tree.at(folder).join(odd)).unwrap();
    }
    assert_eq!(list(&Played::new(tree.path()).unwrap()).unwrap().len(), 1);
    // What cannot be asked for its driver may be in use.
    assert_eq!(codes(&tree), ["group-in-use"]);
    assert!(!bound(&tree).unwrap_err().to_string().contains('\u{1b}'));
}

#[test]
fn a_file_without_end() {
    let tree = Tree::usual();
    tree.link(&Tree::of(NIC, "vendor"), "/dev/zero");
    let system = Played::new(tree.path()).unwrap();
    assert_eq!(list(&system).unwrap()[0].vendor, None);
}

#[test]
fn a_made_up_tree_is_not_left() {
    let outside = tempfile::tempdir().unwrap();
    let precious = outside.path().join("precious");
    std::fs::write(&precious, "as it was").unwrap();
    let tree = Tree::usual();
    let path = Tree::of(NIC, "driver_override");
    tree.link(&path, precious.to_str().unwrap());
    assert!(bound(&tree).is_err());
    tree.link(&path, outside.path().join("new").to_str().unwrap());
    assert!(bound(&tree).is_err());
    let tree = Tree::usual();
    tree.link("run", outside.path().to_str().unwrap());
    assert!(bound(&tree).is_err());
    assert_eq!(std::fs::read_to_string(&precious).unwrap(), "as it was");
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
    assert!(Played::new(outside.path()).is_err(), "no tree at all");
}

#[test]
fn a_driver_that_the_machine_has_not_got() {
    // The NIC has no driver and vfio-pci is in the kernel: bound without a module.
    let tree = Tree::empty();
    tree.nic(NIC, "", 7);
    tree.folder("sys/bus/pci/drivers/vfio-pci");
    let mut system = Played::new(tree.path()).unwrap();
    let bound = bind_on(&mut system, NIC, &BindOptions::default()).unwrap();
    assert_eq!(bound.previous, None);
    assert!(system.read("/dev/vfio/7").is_ok());
}
