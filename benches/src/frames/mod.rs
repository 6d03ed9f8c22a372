//! Frames through a driver: instructions and nanoseconds of each.

pub mod case;
pub mod draw;
pub mod intel;
pub mod meter;
pub mod open;
pub mod receive;
pub mod run;
pub mod table;
pub mod transmit;
pub mod virtio;

/// What stands for the device when the model is gone.
pub trait Device {
    /// Is done with all frames that it was told of.
    fn complete(&mut self);

    /// Fills a receive buffer with each of frames of so many bytes.
    fn deliver(&mut self, lens: &[u32]);
}
