//! Requests for segmentation (TSO): how much goes to the device in one frame, which it cuts into
//! segments.
//!
//! A request is what could have gone as single segments, one after the other: it is a multiple of
//! the segment length but at the end of the data, it fits both windows, and a last segment that
//! is short is in it only where it might have gone by itself. What is sent again is never a
//! request: after a loss it is a few segments at a time, and only they are lost.
//!
//! A device that does not gather gets none: all of the payload would have to be copied behind the
//! header, and the buffers for that would be of 64 KiB each.
//!
//! # How long
//!
//! Besides the device's limit, that of the IPv4 length field, the windows and the page budget
//! (see [`plan`](crate::plan)) there is the ACK clock to think of: a window that leaves in one
//! burst comes back in one, and finds every queue on the way empty before and full behind it. So
//!
//! - a request is no more than *half* the window (the smaller of the congestion window and the
//!   peer's), and
//! - one that could be no more than a *third* of it waits for further ACKs, or each ACK would let
//!   a request of two or three segments go, for ever. It waits only where the page budget would
//!   let a longer one go, and while much more than that is in flight and nothing hints at a
//!   loss: then ACKs are sure to come, of the receiver or of the retransmission timer's making.
//!   And it waits only if the next ACK is *near*: what it will acknowledge was sent at least half
//!   a round trip ago. Right after a burst there is nothing to wait for, and a receiver that
//!   acknowledges a whole window at once would never see the last third of it.
//!
//! Linux waits for a third likewise (`tcp_tso_should_defer`, `tcp_tso_win_divisor`), also only half
//! a round trip after what is first in flight was sent (`head->tstamp`, `srtt_us`), and bounds the
//! length by what its pacing rate makes of a millisecond. There is no pacing here; a half is
//! what lets a window of 128 KiB already fill requests of 64 KiB.
//!
//! # What it saves
//!
//! Instructions of the CPU per KiB of payload, from `send` to `completion`, as callgrind counts
//! them in `examples/segmentation.rs` (pages of 4 KiB that are never neighbours, 64 fragments,
//! MSS 1460; the difference of 128 MiB and 64 MiB):
//!
//! | slices of the program | segments | requests | mean request |
//! |---|---|---|---|
//! | 32 KiB | 927 | 137 | 53,153 bytes |
//! | 4 KiB | 1066 | 323 | 53,996 bytes |
//! | 700 bytes | 1817 | 1592 | 32,990 bytes, 6 of 7 ended by the page budget |
//!
//! (Before headers were kept per connection, and requests tried before their pieces are counted: 1911
//! and 171, 2168 and 381, 3084 and 1463.)

use pagewire_hal::{Capabilities, ChecksumOffload, Instant};

use crate::connection::Connection;
use crate::connection_output::Allowed;
use crate::headers::NETWORK_END;
use crate::wire::Ipv4Header;

/// A request is at most the window divided by this.
const LONGEST: u32 = 2;
/// A request that is shorter than the window divided by this may wait for more room.
const WORTHWHILE: u32 = 3;

/// The device's segmentation of TCP over IPv4.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segmenting {
    max_payload_len: usize,
    max_header_len: usize,
    seed_has_length: bool,
}

impl Segmenting {
    /// `None` where the device does not do it, or does not gather.
    pub(crate) fn new(capabilities: &Capabilities) -> Option<Self> {
        // The sum that segmentation goes with, by the docs of `Offload`; a generic one is none.
        let sums = capabilities.tx_checksum.contains(ChecksumOffload::TCP_IPV4);
        let limits = capabilities
            .segmentation
            .filter(|limits| limits.ipv4 && sums && capabilities.gathers())?;
        Some(Self {
            max_payload_len: limits.max_payload_len as usize,
            max_header_len: usize::from(limits.max_header_len),
            seed_has_length: limits.seed_has_length,
        })
    }

    /// Whether the headers of a request tell its length.
    pub(crate) const fn seed_has_length(&self) -> bool {
        self.seed_has_length
    }

    /// Most payload bytes of a request behind a TCP header of `tcp_header_len` bytes; 0 if the
    /// device does not repeat one that long. No more than the length field of IPv4 can tell, also
    /// where the device wants none told: 64 KiB are enough to make the cost of a frame small.
    pub(crate) fn most(&self, tcp_header_len: usize) -> u32 {
        if NETWORK_END + tcp_header_len > self.max_header_len {
            return 0;
        }
        let packet = usize::from(u16::MAX) - Ipv4Header::LEN - tcp_header_len;
        self.max_payload_len.min(packet) as u32
    }
}

impl Connection {
    /// Step 4a for a request, where one full segment may go and the device takes `most` bytes:
    /// how many may go with it.
    pub(crate) fn request_may_go(
        &self,
        now: Instant,
        pipe: u32,
        nagle: bool,
        most: u32,
    ) -> Allowed {
        let segment_len = self.segment_len.max(1);
        let multiple = |bytes: u32| bytes - bytes % segment_len;
        let congestion = self.congestion_window();
        let room = self
            .window
            .saturating_sub(self.flight_size())
            .min(congestion.saturating_sub(pipe));
        let window = congestion.min(self.window);
        let most = most.min(window / LONGEST);
        let unsent = u32::try_from(self.unsent()).unwrap_or(u32::MAX);
        let len = multiple(unsent.min(room).min(most)).max(segment_len);
        let rest = unsent.saturating_sub(len);
        if rest >= segment_len {
            let worthwhile = multiple(most.min(window / WORTHWHILE));
            let may_wait = pipe > 0 && self.all_seems_well() && self.ack_is_near(now);
            return Allowed {
                len,
                fin: false,
                worth_waiting: if may_wait { worthwhile.min(unsent) } else { 0 },
            };
        }
        // The data ends here. What is left of it is less than a segment, and subject to the same
        // rules as by itself; the FIN takes a sequence number, and so needs room for it.
        let fin = self.fin_due() && room > unsent;
        let rest_goes =
            rest > 0 && unsent <= room.min(most) && (fin || !nagle || rest >= self.max_window / 2);
        Allowed {
            len: if rest_goes { unsent } else { len },
            fin: fin && (rest_goes || rest == 0),
            worth_waiting: 0,
        }
    }

    /// Whether an ACK is to be expected soon: what is acknowledged next was sent half a round
    /// trip ago, or longer.
    fn ack_is_near(&self, now: Instant) -> bool {
        match (self.flight.oldest_sent(), self.rtt.smoothed()) {
            (Some(sent), Some(round_trip)) => now.saturating_since(sent) >= round_trip / 2,
            _ => false,
        }
    }
}
