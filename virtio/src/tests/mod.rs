//! Unit tests on the [fake platform](crate::fake).

mod hang;
mod interrupts;
mod merge;
mod open;
mod pairs;
mod random;
mod receive;
mod reset;
mod transmit;
mod transmit_hostile;

use core::ptr::NonNull;
use std::vec::Vec;

use pagewire_hal::fake::FakeMemory;
use pagewire_hal::{
    DeviceAddress, DmaMemory, Fragment, Nic, Offload, Platform, PostError, Token, TxFrame, TxQueue,
};

use crate::fake::{Device, Fake, Play};
use crate::{Config, Features, VirtioNet, VirtioRx, VirtioTx};

/// Where the first fragment begins in the memory of a [`Bench`].
pub(super) const FIRST: usize = 64;

/// An open device with its queues taken, and memory for the first fragment.
pub(super) struct Bench {
    pub(super) fake: Fake,
    pub(super) nic: VirtioNet<Fake>,
    pub(super) tx: VirtioTx<Fake>,
    pub(super) rx: VirtioRx<Fake>,
    memory: FakeMemory<Device>,
}

impl Bench {
    pub(super) fn of(mut fake: Fake, config: &Config) -> Self {
        let mut nic = VirtioNet::open(fake.clone(), config).expect("the fake opens");
        let (tx, rx) = nic.take_queues(0).expect("the pair is there");
        let memory = fake.allocate(4096, 4096).expect("memory");
        Self {
            fake,
            nic,
            tx,
            rx,
            memory,
        }
    }

    pub(super) fn new() -> Self {
        Self::of(Fake::new(), &Config::default())
    }

    /// With these features and no others, and queues of this size.
    pub(super) fn with(features: Features, size: u16) -> Self {
        let fake = Fake::new();
        fake.offer(features | Features::VERSION_1 | Features::MAC);
        let config = Config {
            tx_descriptors: size,
            rx_descriptors: size,
            features: Features::all(),
            ..Config::default()
        };
        for queue in fake.device().queues.iter_mut() {
            queue.max = queue.max.max(size);
        }
        Self::of(fake, &config)
    }

    /// `count` fragments of 60 bytes; only the first is somewhere.
    pub(super) fn fragments(&self, count: usize) -> Vec<Fragment> {
        let first = self.memory.address().offset(FIRST as u64);
        let place = |n: u64| match n {
            0 => first,
            n => DeviceAddress(0xAA_0000_0000 + 0x1000 * n),
        };
        (0..count as u64)
            .map(|n| Fragment {
                address: place(n),
                len: 60,
            })
            .collect()
    }

    pub(super) fn post_list(
        &mut self,
        fragments: &[Fragment],
        offload: Offload,
        token: u32,
    ) -> Result<(), PostError> {
        post_to(&mut self.tx, &self.memory, fragments, offload, token)
    }

    pub(super) fn post(&mut self, count: usize, token: u32) -> Result<(), PostError> {
        let fragments = self.fragments(count);
        self.post_list(&fragments, Offload::NONE, token)
    }

    /// The same on a queue of another pair.
    pub(super) fn post_on(
        &self,
        tx: &mut VirtioTx<Fake>,
        count: usize,
        token: u32,
    ) -> Result<(), PostError> {
        let fragments = self.fragments(count);
        post_to(tx, &self.memory, &fragments, Offload::NONE, token)
    }

    /// Reclaims and returns the tokens.
    pub(super) fn reclaim(&mut self) -> Vec<u32> {
        let mut tokens = Vec::new();
        let count = self.tx.reclaim(&mut |token| tokens.push(token.0));
        assert_eq!(count, Ok(tokens.len()));
        tokens
    }
}

fn post_to(
    tx: &mut VirtioTx<Fake>,
    memory: &FakeMemory<Device>,
    fragments: &[Fragment],
    offload: Offload,
    token: u32,
) -> Result<(), PostError> {
    // SAFETY: the memory has 4096 bytes.
    let first: NonNull<u8> = unsafe { memory.pointer().add(FIRST) };
    let frame = TxFrame {
        fragments,
        offload,
        first: Some(first),
    };
    // SAFETY: the fake device reads the first fragment at most, whose memory the bench keeps;
    // nobody else uses its head room.
    unsafe { tx.post(&frame, Token(token)) }
}
