//! Each text says what, where, and how to mend it.

use super::*;

fn address() -> PciAddress {
    "0000:03:00.0".parse().unwrap()
}

#[track_caller]
fn says(error: &VfioError, parts: &[&str]) {
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }
    assert!(!text.contains("  "), "spaces in: {text}");
    assert!(!text.contains('\n'), "lines in: {text}");
}

#[test]
fn a_limit_on_locked_memory_names_the_value_that_would_do() {
    let memlock = Memlock {
        locked: 2 << 20,
        limit: Some(8 << 20),
    };
    let error = VfioError::MemlockTooSmall {
        wanted: (64 << 20) + 1,
        memlock,
    };
    let parts = [
        "8388608",
        "69206017",
        "ulimit -l 67585",
        "LimitMEMLOCK=69206017",
    ];
    says(&error, &parts);
    assert_eq!(PlatformError::from(error), PlatformError::OutOfMemory);
}

#[test]
fn a_group_that_is_not_viable_names_who_is_in_it() {
    let others = vec![
        GroupMember {
            address: "0000:03:00.1".parse().unwrap(),
            driver: "igb".to_owned(),
        },
        GroupMember {
            address: "0000:02:00.0".parse().unwrap(),
            driver: "pcieport".to_owned(),
        },
    ];
    let error = VfioError::GroupNotViable { group: 17, others };
    says(
        &error,
        &[
            "17",
            "0000:03:00.1 (igb)",
            "0000:02:00.0 (pcieport)",
            "vfio-pci",
        ],
    );
    let unseen = VfioError::GroupNotViable {
        group: 3,
        others: Vec::new(),
    };
    says(&unseen, &["group 3", "nobody that can be seen"]);
}

#[test]
fn a_busy_device_names_who_has_it() {
    let holder = |process, name: &str| Holder {
        process,
        name: name.to_owned(),
        file: "/dev/vfio/17".to_owned(),
    };
    let holders = vec![holder(4711, "qemu-system-x86"), holder(12, "pagewire")];
    let address = address();
    let error = VfioError::Busy { address, holders };
    let parts = [
        "0000:03:00.0",
        "process 4711 (qemu-system-x86, /dev/vfio/17)",
        "process 12 (pagewire, /dev/vfio/17)",
    ];
    says(&error, &parts);
    let holders = Vec::new();
    let unseen = VfioError::Busy { address, holders };
    says(&unseen, &["0000:03:00.0", "be root"]);
}

#[test]
fn a_device_that_is_not_bound_says_whose_it_is_and_how_to_bind_it() {
    let address = address();
    let driver = Some("e1000e".to_owned());
    let error = VfioError::NotBound { address, driver };
    says(&error, &["driver e1000e", "`pagewire bind 0000:03:00.0`"]);
    let driver = None;
    let error = VfioError::NotBound { address, driver };
    says(&error, &["has no driver", "`pagewire bind 0000:03:00.0`"]);
}

#[test]
fn what_the_kernel_lacks_is_named() {
    let missing = vec![
        PathBuf::from("/dev/iommu"),
        PathBuf::from("/dev/vfio/devices"),
    ];
    let api = Some(Api::Cdev);
    let error = VfioError::ApiMissing { api, missing };
    says(
        &error,
        &["no /dev/iommu, no /dev/vfio/devices", "CONFIG_IOMMUFD"],
    );
    let missing = vec![PathBuf::from("/dev/vfio/vfio")];
    let api = Some(Api::Group);
    let error = VfioError::ApiMissing { api, missing };
    says(&error, &["no /dev/vfio/vfio", "vfio_iommu_type1"]);
    let error = VfioError::ApiMissing {
        api: None,
        missing: Vec::new(),
    };
    says(&error, &["vfio-pci"]);
    says(
        &VfioError::NoIommu(address()),
        &["0000:03:00.0", "firmware", "intel_iommu=on"],
    );
    says(
        &VfioError::NoDevice(address()),
        &["0000:03:00.0", "lspci -D"],
    );
    says(
        &VfioError::UnsafeInterrupts(address()),
        &["0000:03:00.0", "allow_unsafe_interrupts=1"],
    );
    says(
        &VfioError::Container("no capability 3".to_owned()),
        &["no capability 3", "5.10"],
    );
    let path = PathBuf::from("/dev/vfio/17");
    let address = address();
    says(
        &VfioError::NoAccess { address, path },
        &["/dev/vfio/17", "pagewire bind 0000:03:00.0 --user"],
    );
}

#[test]
fn resets_say_whom_they_would_hit() {
    let error = VfioError::ResetHitsOthers {
        address: address(),
        others: vec!["0000:03:00.1".parse().unwrap()],
    };
    says(&error, &["0000:03:00.0", "not ours: 0000:03:00.1"]);
    says(&VfioError::NoReset(address()), &["0000:03:00.0"]);
}

#[test]
fn system_errors_keep_their_number() {
    let error = VfioError::system("cannot map BAR 0", Errno::ACCESS);
    says(&error, &["cannot map BAR 0: ", "ermission denied"]);
    assert_eq!(PlatformError::from(error), PlatformError::System(13));
    let error = VfioError::system("mmap", Errno::NOMEM);
    assert_eq!(PlatformError::from(error), PlatformError::OutOfMemory);
    let error = VfioError::NoAddresses {
        wanted: 1 << 32,
        longest: 4096,
    };
    says(&error, &["4294967296", "4096"]);
    assert_eq!(PlatformError::from(error), PlatformError::OutOfMemory);
    says(&VfioError::Alignment(3), &["3 bytes", "2 MiB"]);
    says(&VfioError::NotSealed, &["F_SEAL_WRITE"]);
    says(&VfioError::Empty, &["one byte"]);
}
