//! Received frames are copied, as much as fits.

use std::format;
use std::vec;

use super::*;
use crate::test_support::pattern;

#[test]
fn a_received_frame_is_copied_as_far_as_it_fits() {
    let mut bytes = pattern(100, 0);
    let pointer = NonNull::from(&mut bytes[..]).cast();
    // SAFETY: the bytes live until the end of the test.
    let frame = unsafe { RxFrame::new(pointer, 100, RxChecksum::default()) };
    assert_eq!((frame.len(), frame.is_empty()), (100, false));
    assert_eq!(frame.checksum().transport, Verdict::Unknown);
    for room in [0, 1, 99, 100, 101] {
        let mut target = vec![0xee; room];
        let copied = frame.copy_to(&mut target).len();
        assert_eq!(copied, room.min(100));
        assert_eq!(target[..copied], bytes[..copied]);
        assert!(target[copied..].iter().all(|byte| *byte == 0xee));
    }
}

#[test]
fn a_mac_address_reads_as_usual() {
    let mac = MacAddress([0, 0x1b, 0x21, 0xa, 0xff, 0x10]);
    assert_eq!(format!("{mac}"), "00:1b:21:0a:ff:10");
    assert_eq!(format!("{mac:?}"), "00:1b:21:0a:ff:10");
}
