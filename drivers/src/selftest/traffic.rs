//! Frames of a session: sent in pieces, looked for, compared.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use pagewire_hal::{MacAddress, Nic, Offload, PortError, PostError};

use super::outcome::{Stop, fault};
use super::packet::{ETHERNET, is_between_hosts};
use super::session::{PAGE, Received, Route, Session, peer_fault};
use super::station::Station;

/// How long a frame may take to arrive. Long, as machines in software are slow, and others may have
/// their turn.
pub(super) const ARRIVAL: Duration = Duration::from_secs(10);
/// How long a frame may take to complete.
const COMPLETION: Duration = Duration::from_secs(10);
/// Type of a frame for local experiments (IEEE 802).
const EXPERIMENTAL: [u8; 2] = [0x88, 0xb5];
/// Begins the payload of every frame of the tests; its number follows.
const MARK: [u8; 4] = *b"PWst";
/// Bytes of a header, mark and number included.
pub(super) const PLAIN_HEADER: usize = 22;
/// Shortest frame on the wire, without frame check sequence.
const SHORTEST: usize = 60;

/// Bytes of the payload: where they begin, and how many.
pub(super) type Piece = (usize, usize);

/// `count` pieces of `total` bytes together (at least as many), none of which reaches across a page
/// or follows the one before: each is a fragment of its own. Each is 3000 bytes at most.
pub(super) fn pieces(total: usize, count: usize) -> Vec<Piece> {
    let mut rest = total;
    let one = |n: usize| {
        let len = (rest / (count - n)).min(3000);
        rest -= len;
        let page = (5 * n + 1) % (super::session::PAYLOAD / PAGE);
        // Never the beginning of a page, so never next to the end of another one.
        (page * PAGE + 1 + 61 * n % 1000, len)
    };
    (0..count).map(one).collect()
}

/// The header of a frame that carries number `sequence`.
pub(super) fn plain_header(to: MacAddress, from: MacAddress, sequence: u32) -> Vec<u8> {
    let mut header = Vec::with_capacity(PLAIN_HEADER);
    header.extend_from_slice(&to.0);
    header.extend_from_slice(&from.0);
    header.extend_from_slice(&EXPERIMENTAL);
    header.extend_from_slice(&MARK);
    header.extend_from_slice(&sequence.to_be_bytes());
    header
}

/// The number of a frame of the tests, if it is one that goes from `from` to `to`.
pub(super) fn sequence_of(frame: &[u8], to: MacAddress, from: MacAddress) -> Option<u32> {
    let header = plain_header(to, from, 0);
    let known = header.get(..PLAIN_HEADER - 4)?;
    let rest = frame.strip_prefix(known)?;
    rest.first_chunk().copied().map(u32::from_be_bytes)
}

/// Whether `frame` is one of the tests: whatever else is on the wire is none of their business.
pub(super) fn is_ours(frame: &[u8]) -> bool {
    let marked = frame.get(ETHERNET - 2..).is_some_and(|rest| {
        rest.strip_prefix(&EXPERIMENTAL)
            .is_some_and(|payload| payload.starts_with(&MARK))
    });
    marked || is_between_hosts(frame)
}

/// Where `got` differs from `sent`, in words; `None` if it is the same, padded with zeros at most.
pub(super) fn difference(sent: &[u8], got: &[u8]) -> Option<(usize, String)> {
    if let Some(at) = sent.iter().zip(got).position(|(a, b)| a != b) {
        let at_byte = |bytes: &[u8]| bytes.get(at).copied().unwrap_or(0);
        let (want, found) = (at_byte(sent), at_byte(got));
        return Some((
            at,
            format!("byte {at} is {found:#04x} instead of {want:#04x}"),
        ));
    }
    let (sent_len, got_len) = (sent.len(), got.len());
    if got_len < sent_len {
        return Some((got_len, format!("{got_len} of {sent_len} bytes arrived")));
    }
    if got_len > sent_len.max(SHORTEST) {
        return Some((
            sent_len,
            format!("{got_len} bytes arrived instead of {sent_len}"),
        ));
    }
    let padding = got.get(sent_len..).unwrap_or_default();
    let at = padding.iter().position(|byte| *byte != 0)?;
    Some((sent_len + at, "the padding is not zero".into()))
}

impl<S: Station> Session<'_, S> {
    /// The number of the next frame.
    pub(super) fn next_sequence(&mut self) -> u32 {
        self.sequence += 1;
        self.sequence
    }

    /// Posts a frame: `header`, and `pieces` of the payload behind it. Its bytes as they were handed
    /// over.
    pub(super) fn post(
        &mut self,
        pair: usize,
        header: &[u8],
        pieces: &[Piece],
        offload: Offload,
    ) -> Result<Vec<u8>, Stop> {
        let place = format!(
            "transmit queue {pair}, a frame of {} fragments",
            1 + pieces.len()
        );
        let fragments = 1 + pieces.len();
        let room = |session: &mut Self| {
            let port = &session.pairs.get(pair)?.port;
            (port.has_room(fragments) && port.vacant_buffers().0 > 0).then_some(())
        };
        if room(self).is_none() && self.until(COMPLETION, room)?.is_none() {
            let out = self
                .pairs
                .get(pair)
                .map_or(0, |pair| pair.port.outstanding());
            let what = format!("{out} frames that were sent are not reported as done");
            return fault(
                what,
                place,
                "see whether the link is up and the peer is there",
            );
        }
        let Some(own) = self.pairs.get_mut(pair) else {
            return fault("there is no such queue", place, "report it");
        };
        let Some(mut buffer) = own.port.buffer(header.len()) else {
            return fault("there is no buffer for the header", place, "report it");
        };
        let bytes = own.port.bytes_mut(&mut buffer).iter_mut();
        bytes.zip(header).for_each(|(to, from)| *to = *from);
        let mut builder = own.port.frame(buffer, header.len());
        let mut frame = header.to_vec();
        if let Some(loan) = &own.loan {
            for (start, len) in pieces {
                builder.attach(loan, *start, *len);
                let bytes = self.payload.get(*start..start + len);
                frame.extend_from_slice(bytes.unwrap_or_default());
            }
        }
        match builder.post(offload) {
            Ok(_) => Ok(frame),
            Err(PortError::Post(PostError::Down)) => fault(
                "the transmit queue is down",
                place,
                "the log says what the device did",
            ),
            Err(error) => fault(
                format!("the driver refuses a frame that it says it takes: {error}"),
                place,
                "a fault of the driver: report it",
            ),
        }
    }

    /// Tells the device of what was posted.
    pub(super) fn ring(&mut self, pair: usize) {
        if let Some(pair) = self.pairs.get_mut(pair) {
            pair.port.doorbell();
        }
    }

    /// Waits for the first frame at the far end of which `is` holds, and takes it; `None` if none
    /// comes in time.
    pub(super) fn arrival(&mut self, is: impl Fn(&[u8]) -> bool) -> Result<Option<Vec<u8>>, Stop> {
        self.until(ARRIVAL, |session| {
            let at = session.arrived.iter().position(|frame| is(frame))?;
            Some(session.arrived.swap_remove(at))
        })
    }

    /// Sends a frame of `len` bytes in `fragments` fragments and compares what arrives. `what` it
    /// is, for a message.
    pub(super) fn there(&mut self, pair: usize, len: usize, fragments: usize) -> Result<(), Stop> {
        let sequence = self.next_sequence();
        let (to, from) = (self.far_address(), self.nic.mac_address());
        let mut header = plain_header(to, from, sequence);
        let mut behind = Vec::new();
        if fragments > 1 {
            behind = pieces(
                len.saturating_sub(PLAIN_HEADER).max(fragments - 1),
                fragments - 1,
            );
        } else {
            header.extend(self.payload.iter().take(len.saturating_sub(PLAIN_HEADER)));
        }
        let sent = self.post(pair, &header, &behind, Offload::NONE)?;
        self.ring(pair);
        let place = |at: Option<usize>| {
            let mut end = header.len();
            let number = behind.iter().take_while(|(_, len)| {
                let before = at.is_some_and(|at| at >= end);
                end += len;
                before
            });
            let frame = format!("a frame of {} bytes in {fragments} fragments", sent.len());
            match at {
                Some(_) => format!("{frame}, fragment {}", 1 + number.count()),
                None => frame,
            }
        };
        let Some(got) = self.arrival(|frame| sequence_of(frame, to, from) == Some(sequence))?
        else {
            return fault(
                format!("it did not arrive within {ARRIVAL:?}"),
                place(None),
                "see whether others arrive (test throughput) and whether the peer hears all",
            );
        };
        match difference(&sent, &got) {
            None => Ok(()),
            Some((at, what)) => fault(
                format!("it arrived changed: {what}"),
                place(Some(at)),
                "the device gathers wrongly: max_fragments below this number may help",
            ),
        }
    }

    /// Frames that may be under way to the far end at once.
    pub(super) fn peer_room(&mut self) -> u32 {
        let room = self.station.peer().map_or(u32::MAX, |peer| peer.room());
        if self.route == Route::Peer {
            room.max(1)
        } else {
            u32::MAX
        }
    }

    /// Lets the peer send `frame`.
    pub(super) fn peer_sends(&mut self, frame: &[u8]) -> Result<(), Stop> {
        match self.station.peer() {
            Some(peer) => peer.send(frame).or_else(|error| peer_fault(&error)),
            None => peer_fault("nobody is there any more"),
        }
    }

    /// Waits for the first frame that the device receives of which `is` holds, and takes it.
    pub(super) fn reception(
        &mut self,
        is: impl Fn(&[u8]) -> bool,
    ) -> Result<Option<Received>, Stop> {
        self.until(ARRIVAL, |session| {
            let at = session.received.iter().position(|frame| is(&frame.bytes))?;
            Some(session.received.swap_remove(at))
        })
    }

    /// A frame of `len` bytes from the peer to the device, compared there. In loopback the device
    /// receives what it sends.
    pub(super) fn back(&mut self, len: usize) -> Result<(), Stop> {
        if self.route != Route::Peer {
            return Ok(());
        }
        let sequence = self.next_sequence();
        let (to, from) = (self.nic.mac_address(), self.far_address());
        let mut frame = plain_header(to, from, sequence);
        frame.extend(self.payload.iter().take(len.saturating_sub(PLAIN_HEADER)));
        self.peer_sends(&frame)?;
        let place = format!("a frame of {len} bytes from the peer");
        let Some(got) = self.reception(|got| sequence_of(got, to, from) == Some(sequence))? else {
            return fault(
                format!("the device did not receive it within {ARRIVAL:?}"),
                place,
                "see the counters in the log, and whether the peer's frames reach the wire",
            );
        };
        match difference(&frame, &got.bytes) {
            None => Ok(()),
            Some((_, what)) => fault(
                format!("it was received changed: {what}"),
                place,
                "see whether the peer sends it right",
            ),
        }
    }

    /// A frame each way, to see that the device works; `when`, for a message.
    pub(super) fn both_ways(&mut self, when: &str) -> Result<(), Stop> {
        let result = self.there(0, 300, 2).and_then(|()| self.back(300));
        match result {
            Err(Stop::Fault(mut fault)) => {
                fault.place = format!("{}, {when}", fault.place);
                Err(Stop::Fault(fault))
            }
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::vec;

    use super::*;

    #[test]
    fn pieces_are_fragments_of_their_own() {
        for (total, count) in [(1, 1), (38, 38), (1492, 255), (60_000, 20), (9000, 3)] {
            let pieces = pieces(total, count);
            assert_eq!(pieces.len(), count);
            assert_eq!(pieces.iter().map(|(_, len)| len).sum::<usize>(), total);
            for (start, len) in &pieces {
                assert!(
                    *len > 0 && start / PAGE == (start + len) / PAGE,
                    "{start} {len}"
                );
            }
            for pair in pieces.windows(2) {
                assert_ne!(pair[0].0 + pair[0].1, pair[1].0);
            }
        }
    }

    #[test]
    fn frames_are_compared_with_their_padding() {
        let sent = [1, 2, 3];
        let mut got = vec![1, 2, 3];
        assert_eq!(difference(&sent, &got), None);
        got.resize(60, 0);
        assert_eq!(difference(&sent, &got), None);
        got[59] = 1;
        assert_eq!(difference(&sent, &got).unwrap().0, 59);
        got.push(0);
        assert!(difference(&sent, &got).unwrap().1.contains("61 bytes"));
        assert_eq!(difference(&sent, &[1, 2]).unwrap().0, 2);
        assert_eq!(difference(&sent, &[1, 9, 3]).unwrap().0, 1);
    }
}
