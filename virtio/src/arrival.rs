//! A received frame between its header and the caller: what is wanted, how long it may be, what
//! the device says of its checksum.

use core::ptr::NonNull;

use pagewire_hal::{Capabilities, MacAddress, RxChecksum, RxFrame, Verdict};
use zerocopy::IntoBytes;

use crate::Features;
use crate::checksum::Completion;
use crate::config::Config;
use crate::desc::{HEADER_LEN, NetHeader};

/// Which frames are handed over. The device filters nothing: it would take commands of its control
/// queue.
#[derive(Clone, Copy, Debug)]
struct Filter {
    mac: MacAddress,
    all_multicast: bool,
    promiscuous: bool,
}

impl Filter {
    fn passes(&self, to: MacAddress) -> bool {
        if to.is_multicast() {
            self.all_multicast || to == MacAddress::BROADCAST
        } else {
            self.promiscuous || to == self.mac
        }
    }
}

/// What a receive queue looks at. The same for all frames.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reception {
    filter: Filter,
    features: Features,
    /// Longest frame as it was on a wire, and as joined from segments, in bytes.
    max_frame_len: usize,
    max_joined_len: usize,
}

/// One frame.
pub(crate) struct Arrival {
    /// Bytes so far, and at most.
    len: usize,
    max_len: usize,
    completion: Option<Completion>,
    checksum: RxChecksum,
}

/// Why a frame is not handed over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Dropped {
    /// It is for others.
    Filtered,
    /// It is longer than what the capabilities say.
    TooLong,
    /// Its header makes no sense.
    Nonsense,
}

impl Reception {
    pub(crate) fn new(
        config: &Config,
        mac: MacAddress,
        features: Features,
        capabilities: &Capabilities,
    ) -> Self {
        Self {
            filter: Filter {
                mac,
                all_multicast: config.all_multicast,
                promiscuous: config.promiscuous,
            },
            features,
            max_frame_len: capabilities.max_frame_len as usize,
            max_joined_len: capabilities.max_joined_len as usize,
        }
    }

    /// Whether a frame may lie in several buffers.
    #[inline(always)]
    pub(crate) const fn merges(&self) -> bool {
        self.features.contains(Features::MRG_RXBUF)
    }

    /// The header at `buffer`, as far as anything was negotiated that it tells of; otherwise that
    /// of a plain frame.
    ///
    /// # Safety
    /// At `buffer` are readable bytes for a header.
    #[inline]
    pub(crate) unsafe fn header(&self, buffer: NonNull<u8>) -> NetHeader {
        let mut copy = NetHeader::default();
        if self
            .features
            .intersects(Features::GUEST_CSUM.union(Features::MRG_RXBUF))
        {
            // SAFETY: the caller's promise.
            let header =
                unsafe { RxFrame::new(buffer, HEADER_LEN as usize, RxChecksum::default()) };
            header.copy_to(copy.as_mut_bytes());
        }
        copy
    }

    /// What is to be done with a frame of this header for station `to`.
    #[inline]
    pub(crate) fn judge(&self, header: &NetHeader, to: MacAddress) -> Result<Arrival, Dropped> {
        if !self.filter.passes(to) {
            return Err(Dropped::Filtered);
        }
        let mut arrival = Arrival {
            len: 0,
            max_len: self.max_frame_len,
            completion: None,
            checksum: RxChecksum::default(),
        };
        if header.is_joined() {
            let is_known = header.is_joined_ipv4() && self.features.contains(Features::GUEST_TSO4)
                || header.is_joined_ipv6() && self.features.contains(Features::GUEST_TSO6);
            // The host has not summed what it did not segment (virtio 1.3, "Processing of Incoming
            // Packets").
            if !is_known || header.incomplete_checksum().is_none() {
                return Err(Dropped::Nonsense);
            }
            arrival.max_len = self.max_joined_len;
        }
        if self.features.contains(Features::GUEST_CSUM) {
            arrival.completion = header.incomplete_checksum().map(Completion::new);
            if arrival.completion.is_some() || header.is_verified() {
                arrival.checksum.transport = Verdict::Good;
            }
        }
        Ok(arrival)
    }
}

impl Arrival {
    /// The next `len` bytes are at `piece`.
    ///
    /// # Safety
    /// As [`Completion::add`], until [`finish`](Self::finish).
    #[inline]
    pub(crate) unsafe fn add(&mut self, piece: NonNull<u8>, len: usize) {
        self.len += len;
        if let Some(completion) = &mut self.completion {
            // SAFETY: the caller's promise.
            unsafe { completion.add(piece, len) };
        }
    }

    /// What to say of the checksum, which is complete after this, of a frame of which all was
    /// added.
    ///
    /// # Safety
    /// As [`add`](Self::add).
    #[inline]
    pub(crate) unsafe fn finish(self) -> Result<RxChecksum, Dropped> {
        if self.len > self.max_len {
            return Err(Dropped::TooLong);
        }
        if let Some(completion) = self.completion {
            // SAFETY: the caller's promise.
            if !unsafe { completion.finish() } {
                return Err(Dropped::Nonsense);
            }
        }
        Ok(self.checksum)
    }
}
