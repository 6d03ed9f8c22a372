//! The end of a wire in memory, as a peer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pagewire::drivers::selftest::Peer;
use pagewire::hal::{Instant, MacAddress};
use pagewire_models::Wire;
use pagewire_models::wire::{PairEnd, Plug};

/// The far end's address: a local one.
const ADDRESS: MacAddress = MacAddress([0x02, 0, 0, 0, 0, 0x99]);

/// The far end of a wire.
pub(super) struct FarEnd<W> {
    wire: W,
    plug: Option<Plug>,
    room: u32,
    /// The time, in nanoseconds.
    now: Arc<AtomicU64>,
}

impl FarEnd<PairEnd> {
    /// An end in this process, whose plug can be pulled.
    pub(super) fn of_pair(wire: PairEnd, now: Arc<AtomicU64>) -> Self {
        Self {
            plug: Some(wire.plug()),
            wire,
            room: 4096,
            now,
        }
    }
}

impl<W: Wire> FarEnd<W> {
    /// Any other, at which `room` frames can wait.
    pub(super) fn of(wire: W, room: u32) -> Self {
        Self {
            wire,
            plug: None,
            room,
            now: Arc::default(),
        }
    }

    fn now(&self) -> Instant {
        Instant::from_nanos(self.now.load(Ordering::Relaxed))
    }
}

impl<W: Wire> Peer for FarEnd<W> {
    fn mac_address(&self) -> MacAddress {
        ADDRESS
    }

    fn room(&self) -> u32 {
        self.room
    }

    fn send(&mut self, frame: &[u8]) -> Result<(), String> {
        let now = self.now();
        self.wire.transmit(&mut frame.to_vec(), now);
        Ok(())
    }

    fn receive(&mut self, frame: &mut Vec<u8>) -> Result<bool, String> {
        let now = self.now();
        Ok(self.wire.receive(frame, now))
    }

    fn set_carrier(&mut self, on: bool) -> bool {
        match &self.plug {
            Some(plug) => {
                plug.set(on);
                true
            }
            None => false,
        }
    }
}
