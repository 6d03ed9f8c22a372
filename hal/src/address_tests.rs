//! Numbers that name one thing only.

use std::collections::BTreeSet;
use std::format;
use std::panic::catch_unwind;
use std::vec::Vec;

use super::*;

#[test]
fn no_two_numbers_are_the_same_on_any_threads() {
    let threads: Vec<_> = (0..4)
        .map(|_| std::thread::spawn(|| (0..1000).map(|_| unique()).collect::<Vec<_>>()))
        .collect();
    let all: Vec<_> = threads
        .into_iter()
        .flat_map(|thread| thread.join().unwrap())
        .collect();
    let distinct: BTreeSet<_> = all.iter().collect();
    assert_eq!(distinct.len(), all.len());
    assert_ne!(DomainId::new_unique(), DomainId::new_unique());
}

#[test]
fn when_the_numbers_run_out_none_is_given_twice() {
    let next = AtomicUsize::new(usize::MAX - 1);
    assert_eq!(take(&next).get(), usize::MAX - 1);
    for _ in 0..2 {
        assert!(catch_unwind(|| take(&next)).is_err());
    }
}

#[test]
fn addresses_wrap_and_read_as_hexadecimal() {
    let last = DeviceAddress(u64::MAX);
    assert_eq!(last.offset(2), DeviceAddress(1));
    assert_eq!(format!("{:?}", DeviceAddress(0xbeef)), "0xbeef");
}
