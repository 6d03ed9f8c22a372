//! The transmit half: a buffer of the port is filled by smoltcp, finished and posted.

use alloc::vec;
use core::num::NonZeroU16;

use ::smoltcp::phy::{self, PacketMeta};
use pagewire_hal::{
    DmaMemory, FrameBuffer, Granule, Nic, NicError, Offload, PoolLayout, QueueError, TxPort,
    TxQueue,
};

use super::checksum::{Unsendable, prepare, prepare_segmentation};
use super::config::Config;
use super::mapping::Mapping;
use super::packet::ETHERNET_HEADER;
use super::{Counters, Fault};

/// No region is ever registered, so no pages are counted; buffers need the alignment of a cache
/// line and no more.
const BUFFER_ALIGN: usize = 64;

/// What transmits: the port and its books.
pub(super) struct Transmit<N: Nic> {
    pub(super) port: TxPort<N::Tx, N::Memory>,
    pub(super) mapping: Mapping,
    pub(super) counters: Counters,
    pub(super) fault: Fault,
}

impl<N: Nic> Transmit<N> {
    pub(super) fn new(
        nic: &mut N,
        queue: N::Tx,
        mapping: Mapping,
        config: &Config,
    ) -> Result<Self, NicError> {
        let (large_len, large_count) = mapping.segmentation.map_or((0, 0), |segmentation| {
            let count = usize::from(config.segmentation_buffers);
            (segmentation.frame_len.get(), count)
        });
        let layout = PoolLayout {
            small_len: mapping.frame_len.max(mapping.min_frame_len),
            small_count: usize::from(config.transmit_buffers),
            large_len,
            large_count,
            page: Granule::from_bytes(BUFFER_ALIGN).unwrap_or(Granule::CONTIGUOUS),
        };
        Ok(Self {
            port: TxPort::new(nic, queue, &layout)?,
            mapping,
            counters: Counters::default(),
            fault: Fault::default(),
        })
    }

    /// Whether the longest frame can be posted now. Takes completed frames back if need be.
    pub(super) fn make_room(&mut self) -> bool {
        if self.has_room() {
            return true;
        }
        // What is held back by a burst must be seen by the device to complete.
        self.port.doorbell();
        if let Err(error) = self.reclaim() {
            self.fault.note(error);
            return false;
        }
        self.has_room()
    }

    fn has_room(&self) -> bool {
        let (small, large) = self.port.vacant_buffers();
        let buffers = if self.mapping.segmentation.is_some() {
            large
        } else {
            small
        };
        buffers > 0 && self.port.has_room(self.mapping.gather)
    }

    pub(super) fn reclaim(&mut self) -> Result<usize, QueueError> {
        self.port.reclaim(&mut |_| {})
    }

    /// Has `fill` write a frame of `len` bytes, and posts it. Whatever goes wrong, `fill` gets
    /// its bytes: smoltcp has no way to hear of it.
    fn send<R>(
        &mut self,
        len: usize,
        segment_len: Option<NonZeroU16>,
        fill: impl FnOnce(&mut [u8]) -> R,
    ) -> R {
        let padded = len.max(self.mapping.min_frame_len);
        let mut filling = Filling {
            buffer: self.buffer(len, padded, segment_len.is_some()),
            port: &mut self.port,
        };
        let Some(frame) = filling.bytes().get_mut(..padded).filter(|f| !f.is_empty()) else {
            self.counters.transmit_lost += 1;
            drop(filling);
            return fill(&mut vec![0; len]);
        };
        // What smoltcp leaves unwritten, and the pad, must not be bytes of an earlier frame.
        frame.fill(0);
        let (frame, _) = frame.split_at_mut(len.min(padded));
        let result = fill(frame);
        let request = match segment_len {
            Some(len) => prepare_segmentation(frame, len, &self.mapping),
            None => prepare(frame, &self.mapping, &mut self.counters),
        };
        match request {
            Ok(offload) if filling.post(padded, offload) => self.counters.transmitted += 1,
            Ok(_) | Err(Unsendable::NotSegmentable) => self.counters.transmit_lost += 1,
            Err(Unsendable::Fragment) => self.counters.transmit_fragments += 1,
        }
        result
    }

    fn buffer(&mut self, len: usize, padded: usize, is_segmented: bool) -> Option<FrameBuffer> {
        let most = match self.mapping.segmentation {
            Some(segmentation) if is_segmented => segmentation.frame_len.get(),
            _ => self.mapping.frame_len,
        };
        if (ETHERNET_HEADER..=most).contains(&len) {
            self.port.buffer(padded)
        } else {
            None
        }
    }
}

/// A buffer that goes back to its pool, unless it is posted: also if smoltcp panics.
struct Filling<'a, Q: TxQueue, M: DmaMemory> {
    port: &'a mut TxPort<Q, M>,
    buffer: Option<FrameBuffer>,
}

impl<Q: TxQueue, M: DmaMemory> Filling<'_, Q, M> {
    fn bytes(&mut self) -> &mut [u8] {
        match &mut self.buffer {
            Some(buffer) => self.port.bytes_mut(buffer),
            None => &mut [],
        }
    }

    /// Whether the queue has taken the frame.
    fn post(mut self, len: usize, offload: Offload) -> bool {
        self.buffer
            .take()
            .is_some_and(|buffer| match self.port.frame(buffer, len).post(offload) {
                Ok(_) => true,
                Err(error) => {
                    log::debug!("a frame of {len} bytes was not posted: {error}");
                    false
                }
            })
    }
}

impl<Q: TxQueue, M: DmaMemory> Drop for Filling<'_, Q, M> {
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            self.port.put_buffer(buffer);
        }
    }
}

/// The right to transmit one frame.
///
/// It holds nothing: its buffer is taken when it is consumed. Dropped, or forgotten, it costs
/// nothing.
#[must_use = "a token that is not consumed transmits nothing"]
pub struct TxToken<'a, N: Nic> {
    transmit: &'a mut Transmit<N>,
    rings: bool,
    meta: PacketMeta,
}

impl<'a, N: Nic> TxToken<'a, N> {
    /// A token whose frame the device sees at once if it `rings` the doorbell.
    pub(super) fn new(transmit: &'a mut Transmit<N>, rings: bool) -> Self {
        Self {
            transmit,
            rings,
            meta: PacketMeta::default(),
        }
    }
}

impl<N: Nic> phy::TxToken for TxToken<'_, N> {
    /// Has `f` write a frame of `len` bytes and posts it. A frame that cannot be posted (longer
    /// than the device takes, say, which smoltcp does not ask for) is lost and counted.
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let segment_len = self.meta.segmentation_offload_size;
        let result = self.transmit.send(len, segment_len, f);
        if self.rings {
            self.transmit.port.doorbell();
        }
        result
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.meta = meta;
    }
}
