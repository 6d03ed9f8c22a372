//! A connection that sends memory which a program may write again at any moment.

use pagewire_hal::{Granule, RegionId};
use pagewire_tcp::{ConnectionId, Explanation, OnWrite, Outcome, SendOptions, Slice, Thresholds};

use super::guarded::{Guarded, PAGE};
use super::{Peer, PeerOptions, Setup, World};

/// A connection, memory that is watched and full of `o`, and a copy pool of some slots.
pub(crate) struct Case {
    pub(crate) w: World,
    pub(crate) id: ConnectionId,
    pub(crate) peer: Peer,
    pub(crate) memory: Guarded,
    pub(crate) region: RegionId,
}

pub(crate) fn case(setup: &Setup, slots: usize) -> Case {
    with_memory(setup, slots, Guarded::new(32))
}

pub(crate) fn with_memory(setup: &Setup, slots: usize, memory: Guarded) -> Case {
    let mut w = World::new(setup);
    let (id, peer) = w.established(PeerOptions::default());
    assert!(memory.write(0, &vec![b'o'; memory.size()]));
    let region = w.host.register(memory.clone()).unwrap();
    let region = w.stack.register(region).unwrap();
    if slots > 0 {
        let pool = w.host.allocate(slots * PAGE, PAGE).unwrap();
        let slot = Granule::from_bytes(PAGE).unwrap();
        w.stack.set_copy_pool(pool, slot).unwrap();
    }
    Case {
        w,
        id,
        peer,
        memory,
        region,
    }
}

/// Everything is lent, whatever its length.
pub(crate) fn lends() -> Setup {
    let mut setup = Setup::default();
    setup.config.thresholds = Thresholds {
        owned: 0,
        watched: 0,
        live: 0,
    };
    setup
}

impl Case {
    pub(crate) fn slice(&self, start: usize, len: usize) -> Slice {
        Slice {
            region: self.region,
            start,
            len,
        }
    }

    pub(crate) fn send(&mut self, start: usize, len: usize, options: &SendOptions) -> usize {
        let slice = self.slice(start, len);
        let now = self.w.now;
        self.w
            .stack
            .send_with(now, self.id, &[slice], 7, options)
            .unwrap()
    }

    /// What is sent arrives and is acknowledged; the bytes.
    pub(crate) fn deliver(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        loop {
            let sent = self.w.pump();
            if sent.is_empty() {
                return bytes;
            }
            bytes.extend(self.peer.take(&sent));
            let ack = self.peer.ack();
            self.w.give(&ack);
        }
    }

    pub(crate) fn explained(&mut self) -> Explanation {
        let now = self.w.now;
        let (completion, explanation) = self.w.stack.explained(now, self.id).expect("over");
        assert_eq!(
            (completion.tag, completion.outcome),
            (7, Outcome::Delivered)
        );
        explanation.expect("asked for")
    }

    /// Nothing is lent and the pool is empty.
    pub(crate) fn assert_all_back(&self) {
        assert_eq!((self.memory.lent_pages(), self.w.loans()), (0, 0));
        let pool = self.w.stack.copy_pool().unwrap();
        assert_eq!(pool.free_bytes(), pool.len());
        assert_eq!(self.w.stack.lent_bytes(self.id), 0);
    }
}

pub(crate) fn explain() -> SendOptions {
    let mut options = SendOptions::default();
    options.explain = true;
    options
}

pub(crate) fn move_away() -> SendOptions {
    let mut options = explain();
    options.on_write = OnWrite::MoveAway;
    options
}
