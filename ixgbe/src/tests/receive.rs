//! Receive.

use pagewire_hal::RxQueue;

use super::open;

#[test]
fn a_frame_arrives() {
    let (fake, _nic, _tx, mut rx) = open();
    let bytes = [0x5A; 64];
    assert!(fake.deliver(0, &bytes, 64, 0b11, 0));
    let mut seen = 0;
    let count = rx.receive(9, &mut |frame| {
        let mut copy = [0; 128];
        assert_eq!(frame.copy_to(&mut copy), bytes);
        seen += 1;
    });
    assert_eq!((count, seen), (Ok(1), 1));
}
