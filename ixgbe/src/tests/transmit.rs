//! Transmit.

use pagewire_hal::{Offload, TxQueue};

use super::{open, post, reclaim};

#[test]
fn frames_go_out_and_come_back() {
    let (fake, _nic, mut tx, _rx) = open();
    for token in 0..3 {
        assert_eq!(post(&mut tx, 2, Offload::NONE, token), Ok(()));
    }
    assert_eq!(fake.tail(0), 0);
    tx.doorbell();
    assert_eq!(fake.tail(0), 6);
    assert_eq!(fake.complete(0, 4), 4);
    assert_eq!(reclaim(&mut tx), [0, 1]);
    assert_eq!(fake.complete(0, 9), 2);
    assert_eq!(reclaim(&mut tx), [2]);
    assert_eq!(tx.outstanding(), 0);
}
