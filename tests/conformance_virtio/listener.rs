//! The model of virtio-net, with an ear on the transmit doorbell.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pagewire::hal::Instant;
use pagewire_models::virtio::VirtioNet;
use pagewire_models::{Bus, Device};

/// The index of the first transmit queue, which is what its doorbell is rung with.
const TRANSMIT: u32 = 1;

/// What has been heard.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen(Arc<AtomicU64>);

impl Seen {
    /// How often the doorbell of the first transmit queue was rung.
    pub(crate) fn doorbells(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// See the [module](self).
pub(crate) struct Listener {
    pub(crate) inner: VirtioNet,
    seen: Seen,
}

impl Listener {
    pub(crate) fn new(inner: VirtioNet) -> (Self, Seen) {
        let seen = Seen::default();
        let listener = Self {
            inner,
            seen: seen.clone(),
        };
        (listener, seen)
    }

    fn hear(&self, bar: u8, offset: u32, value: u32) {
        if self.inner.is_doorbell(bar, offset) && value == TRANSMIT {
            self.seen.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Device for Listener {
    fn config_read(&mut self, offset: u16) -> u32 {
        self.inner.config_read(offset)
    }

    fn config_write(&mut self, offset: u16, value: u32) {
        self.inner.config_write(offset, value);
    }

    fn bar_len(&self, index: u8) -> Option<u32> {
        self.inner.bar_len(index)
    }

    fn read(&mut self, bar: u8, offset: u32, now: Instant) -> u32 {
        self.inner.read(bar, offset, now)
    }

    fn write(&mut self, bar: u8, offset: u32, value: u32, now: Instant) {
        self.hear(bar, offset, value);
        self.inner.write(bar, offset, value, now);
    }

    fn read_narrow(&mut self, bar: u8, offset: u32, width: u32, now: Instant) -> Option<u16> {
        self.inner.read_narrow(bar, offset, width, now)
    }

    fn write_narrow(&mut self, bar: u8, offset: u32, width: u32, value: u16, now: Instant) -> bool {
        self.hear(bar, offset, value.into());
        self.inner.write_narrow(bar, offset, width, value, now)
    }

    fn is_doorbell(&self, bar: u8, offset: u32) -> bool {
        self.inner.is_doorbell(bar, offset)
    }

    fn vectors(&self) -> u16 {
        self.inner.vectors()
    }

    fn step(&mut self, bus: &mut dyn Bus, now: Instant) -> bool {
        self.inner.step(bus, now)
    }

    fn take_violations(&mut self) -> Vec<String> {
        self.inner.take_violations()
    }
}
