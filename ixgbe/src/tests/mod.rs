//! Unit tests on the [fake platform](crate::fake).

mod open;
mod pairs;
mod receive;
mod reset;
mod sources;
mod transmit;
mod transmit_property;

use pagewire_hal::{DeviceAddress, Fragment, Nic, Offload, Token, TxFrame, TxQueue};
use std::vec::Vec;

use crate::fake::Fake;
use crate::{Config, Ixgbe, IxgbeRx, IxgbeTx};

pub(super) type Opened = (Fake, Ixgbe<Fake>, IxgbeTx<Fake>, IxgbeRx<Fake>);

/// An open device with its first queues taken.
pub(super) fn open_with(config: &Config) -> Opened {
    let fake = Fake::new();
    let mut nic = Ixgbe::open(fake.clone(), config).expect("the fake opens");
    let (tx, rx) = nic.take_queues(0).expect("the pair is there");
    (fake, nic, tx, rx)
}

pub(super) fn open() -> Opened {
    open_with(&Config::default())
}

/// `count` fragments of 100 bytes. The fake never reads them.
pub(super) fn fragments(count: usize) -> Vec<Fragment> {
    (0..count as u64)
        .map(|n| Fragment {
            address: DeviceAddress(0xAA_0000_0000 + 0x1000 * n),
            len: 100,
        })
        .collect()
}

/// Posts a frame of `count` fragments that exist nowhere.
pub(super) fn post(
    tx: &mut IxgbeTx<Fake>,
    count: usize,
    offload: Offload,
    token: u32,
) -> Result<(), pagewire_hal::PostError> {
    post_list(tx, &fragments(count), offload, token)
}

/// Posts a frame of fragments that exist nowhere.
pub(super) fn post_list(
    tx: &mut IxgbeTx<Fake>,
    fragments: &[Fragment],
    offload: Offload,
    token: u32,
) -> Result<(), pagewire_hal::PostError> {
    let frame = TxFrame {
        fragments,
        offload,
        first: None,
    };
    // SAFETY: the fake device reads no fragment.
    unsafe { tx.post(&frame, Token(token)) }
}

/// Reclaims and returns the tokens.
pub(super) fn reclaim(tx: &mut IxgbeTx<Fake>) -> Vec<u32> {
    let mut tokens = Vec::new();
    let count = tx.reclaim(&mut |token| tokens.push(token.0));
    assert_eq!(count, Ok(tokens.len()));
    tokens
}
