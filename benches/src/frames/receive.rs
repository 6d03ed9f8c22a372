//! Frames on their way in.

use pagewire_hal::{RxFrame, RxQueue, Verdict};

use super::Device;
use super::meter::Meter;

/// Adds up the lengths of at most `budget` frames, and counts those with a good checksum.
#[inline(never)]
fn measured_receive<Q: RxQueue>(queue: &mut Q, budget: usize) -> (usize, usize) {
    let (mut bytes, mut good) = (0, 0);
    let mut frame = |frame: RxFrame<'_>| {
        bytes += frame.len();
        good += usize::from(frame.checksum().transport == Verdict::Good);
    };
    if queue.receive(budget, &mut frame).is_err() {
        return (0, 0);
    }
    (bytes, good)
}

/// Receives frames of these lengths.
///
/// # Errors
/// What went wrong.
pub fn round<Q: RxQueue>(
    queue: &mut Q,
    lens: &[u32],
    device: &mut impl Device,
    meter: &mut impl Meter,
) -> Result<(), &'static str> {
    device.deliver(lens);
    meter.begin();
    let (bytes, good) = measured_receive(queue, lens.len());
    meter.end("receive");
    let sum: u32 = lens.iter().sum();
    if bytes != sum as usize || good != lens.len() {
        return Err("a frame was not received as it was delivered");
    }
    Ok(())
}
