//! What can be said without a device; the rest is seen in a guest.

use std::cell::Cell;
use std::path::PathBuf;

use super::*;

fn missing(path: &str) -> VfioError {
    VfioError::ApiMissing {
        api: Some(Api::Cdev),
        missing: vec![PathBuf::from(path)],
    }
}

fn no_access() -> VfioError {
    VfioError::NoAccess {
        address: "0000:00:03.0".parse().unwrap(),
        path: PathBuf::from("/dev/vfio/devices/vfio0"),
    }
}

#[test]
fn the_newer_way_is_taken_where_it_is_there() {
    let older_tried = Cell::new(false);
    let older = || {
        older_tried.set(true);
        Ok(Api::Group)
    };
    assert_eq!(newest(|| Ok(Api::Cdev), older), Ok(Api::Cdev));
    // An error that has nothing to do with the way is not tried again by the other.
    let busy = VfioError::NoReset("0000:00:03.0".parse().unwrap());
    assert_eq!(newest(|| Err(busy.clone()), older), Err(busy.clone()));
    assert!(!older_tried.get());
    assert_eq!(newest(|| Err(missing("/dev/iommu")), older), Ok(Api::Group));
    assert_eq!(newest(|| Err(no_access()), older), Ok(Api::Group));
}

#[test]
fn what_is_missing_for_both_ways_is_told_together() {
    let older = || -> Result<Api, VfioError> { Err(missing("/dev/vfio/17")) };
    let error = newest(|| Err(missing("/dev/iommu")), older).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("no /dev/iommu, no /dev/vfio/17"), "{text}");
    assert_eq!(newest(|| Err(no_access()), older), Err(no_access()));
}

#[test]
fn a_function_that_is_not_there_is_not_opened() {
    let address: PciAddress = "ffff:ff:1f.7".parse().unwrap();
    for api in [None, Some(Api::Cdev), Some(Api::Group)] {
        let options = Options {
            api,
            ..Options::default()
        };
        let opened = VfioPlatform::open(address, &options);
        assert_eq!(opened.err(), Some(VfioError::NoDevice(address)));
    }
}
