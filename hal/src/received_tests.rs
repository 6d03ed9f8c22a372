//! Received frames are copied, as much as fits, from however many buffers.

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
    assert_eq!(frame.hash(), None);
    for room in [0, 1, 99, 100, 101] {
        let mut target = vec![0xee; room];
        let copied = frame.copy_to(&mut target).len();
        assert_eq!(copied, room.min(100));
        assert_eq!(target[..copied], bytes[..copied]);
        assert!(target[copied..].iter().all(|byte| *byte == 0xee));
    }
}

#[test]
fn a_frame_in_several_buffers_is_copied_in_their_order() {
    let mut bytes = pattern(100, 0);
    let base = NonNull::from(&mut bytes[..]).cast::<u8>();
    let piece = |start: usize, len| {
        assert!(start + len <= 100);
        // SAFETY: just checked to be inside of `bytes`.
        let pointer = unsafe { base.add(start) };
        // SAFETY: as above, and the bytes live until the end of the test.
        unsafe { RxPiece::new(pointer, len) }
    };
    // Not in the order of the addresses, and one of them empty.
    let rest = [piece(0, 30), piece(60, 0), piece(30, 1)];
    assert!(rest[1].is_empty());
    let frame = RxFrame::scattered(piece(40, 20), &rest, RxChecksum::default());
    assert_eq!(frame.len(), 51);
    let hash = RxHash {
        value: 7,
        input: HashInput::Addresses,
    };
    let frame = frame.with_hash(Some(hash));
    assert_eq!(frame.hash(), Some(hash));
    let whole = [&bytes[40..60], &bytes[0..30], &bytes[30..31]].concat();
    for room in [0, 1, 20, 21, 49, 50, 51, 60] {
        let mut target = vec![0xee; room];
        let copied = frame.copy_to(&mut target).len();
        assert_eq!(copied, room.min(51));
        assert_eq!(target[..copied], whole[..copied]);
        assert!(target[copied..].iter().all(|byte| *byte == 0xee));
    }
}
