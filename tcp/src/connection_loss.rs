//! What is lost and sent again: fast recovery by duplicate ACKs (RFC 6582) or by SACK (RFC 6675,
//! simplified), and the retransmission timeout (RFC 6298).
//!
//! All of it is one pair of positions: what lies between `resend` and `lost_below` and is not
//! held by the peer is lost and has not been sent again. A timeout puts everything there; a
//! partial acknowledgment the next segment; the scoreboard what it takes for lost, which is
//! always all the holes up to some position.

use pagewire_hal::Instant;

use crate::connection::{Connection, Timer};

/// Duplicate ACKs that are taken for a loss (RFC 5681 section 3.2).
const DUPLICATE_THRESHOLD: u32 = 3;

/// What the sender is doing about loss.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Mode {
    /// No loss is known.
    #[default]
    Open,
    /// Fast recovery, until all that was in flight at its start is acknowledged.
    Fast,
    /// After a timeout, likewise.
    Timeout,
}

/// The state of loss recovery.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Loss {
    pub(crate) mode: Mode,
    /// Position of the next byte to be looked at for sending again (HighRxt of RFC 6675, plus 1).
    pub(crate) resend: u64,
    /// Position up to which holes are lost.
    pub(crate) lost_below: u64,
    /// Position that ends the recovery ("recover" of RFC 6582).
    recover: u64,
    /// Duplicate ACKs in a row.
    duplicates: u32,
}

impl Connection {
    /// Bytes taken to be in the network ("pipe" of RFC 6675 section 4; without SACK all that is
    /// in flight).
    #[inline]
    pub(crate) fn pipe(&self) -> u32 {
        match self.loss.mode {
            Mode::Open => self.flight_size().saturating_sub(self.board.sacked_bytes()),
            Mode::Fast if !self.sack => self.flight_size(),
            Mode::Fast | Mode::Timeout => {
                let resent = self.loss.resend.min(self.loss.lost_below);
                self.unsacked(self.una, resent) + self.unsacked(self.loss.lost_below, self.next)
            }
        }
    }

    /// Sequence numbers from one position to another that the peer does not hold. The scoreboard
    /// has a bounded number of ranges, so this is bounded work.
    fn unsacked(&self, from: u64, to: u64) -> u32 {
        let mut sum = 0;
        let mut at = self.seq(from.max(self.una));
        let end = self.seq(to);
        while let Some((start, stop)) = self.board.first_hole(at, end) {
            sum += stop.distance(start).max(0).cast_unsigned();
            at = stop;
        }
        sum
    }

    /// The congestion window, with what limited transmit adds (RFC 3042): each of the first two
    /// duplicate ACKs lets one more segment go. With SACK `pipe` says the same by itself.
    #[inline]
    pub(crate) fn congestion_window(&self) -> u32 {
        let window = self.congestion.window();
        if self.loss.mode == Mode::Open && !self.sack {
            return window.saturating_add(self.loss.duplicates.min(2) * self.segment_len);
        }
        window
    }

    /// An ACK for `acked` new sequence numbers; `una` has been moved.
    #[inline]
    pub(crate) fn loss_on_new_ack(&mut self, acked: u32, flight_before: u32) {
        self.loss.duplicates = 0;
        self.loss.resend = self.loss.resend.max(self.una);
        let over = self.una >= self.loss.recover;
        match self.loss.mode {
            Mode::Open => self.congestion.on_ack(acked, flight_before),
            Mode::Timeout => {
                self.congestion.on_ack(acked, flight_before);
                if over {
                    self.loss.mode = Mode::Open;
                }
            }
            Mode::Fast if over => {
                self.congestion.exit_recovery();
                self.loss.mode = Mode::Open;
            }
            Mode::Fast => {
                self.congestion.on_partial_ack(acked);
                if self.sack {
                    self.extend_by_scoreboard();
                } else {
                    // RFC 6582 section 3.2 step 3: the next segment is lost as well.
                    self.take_first_for_lost();
                }
            }
        }
        if self.loss.mode == Mode::Open {
            self.loss.lost_below = self.una;
        }
    }

    /// An ACK that acknowledged nothing new, but tells that a segment has arrived.
    pub(crate) fn loss_on_duplicate_ack(&mut self) {
        self.stats.duplicate_acks += 1;
        self.loss.duplicates = self.loss.duplicates.saturating_add(1);
        match self.loss.mode {
            Mode::Open => {
                let lost = self.loss.duplicates >= DUPLICATE_THRESHOLD
                    || self.board.is_lost(self.seq(self.una), self.segment_len);
                // RFC 6582 section 4: after a timeout, duplicate ACKs may be the echo of
                // what was sent again. SACK tells the difference.
                if lost && (self.sack || self.una > self.loss.recover) {
                    self.enter_recovery();
                }
            }
            Mode::Fast => {
                self.congestion.on_duplicate_ack();
                self.extend_by_scoreboard();
            }
            Mode::Timeout => {}
        }
    }

    /// Whether nothing hints at a loss: what is in flight will be acknowledged, and let more go.
    #[inline]
    pub(crate) fn all_seems_well(&self) -> bool {
        self.loss.mode == Mode::Open && self.loss.duplicates == 0 && self.board.sacked_bytes() == 0
    }

    fn enter_recovery(&mut self) {
        let flight = self.flight_size();
        if self.sack {
            self.congestion.enter_sack_recovery(flight);
        } else {
            self.congestion.enter_recovery(flight);
        }
        self.loss.mode = Mode::Fast;
        self.loss.recover = self.next;
        self.loss.resend = self.una;
        self.take_first_for_lost();
        self.extend_by_scoreboard();
    }

    /// The segment at `una` is lost, whatever the scoreboard says.
    fn take_first_for_lost(&mut self) {
        self.loss.resend = self.una;
        if let Some(first) = self.flight.at(self.una, self.segment_len) {
            self.loss.lost_below = self.loss.lost_below.max(first.end());
        }
    }

    /// Moves `lost_below` over all holes that the scoreboard takes for lost.
    fn extend_by_scoreboard(&mut self) {
        let (una, next) = (self.seq(self.una), self.seq(self.next));
        let mut at = una;
        while let Some((start, end)) = self.board.first_hole(at, next) {
            if !self.board.is_lost(start, self.segment_len) {
                break;
            }
            let position = self.una + u64::from(end.distance(una).max(0).cast_unsigned());
            self.loss.lost_below = self.loss.lost_below.max(position);
            at = end;
        }
    }

    /// The retransmission timer has expired, and there are tries left.
    pub(crate) fn retransmission_timeout(&mut self, now: Instant) {
        self.rtt.back_off();
        self.timer = Timer::Retransmit(now + self.rtt.rto());
        if self.flight.is_empty() {
            return; // nothing could be sent so far
        }
        self.stats.timeouts += 1;
        self.congestion.on_timeout(self.flight_size());
        // The peer may have thrown away what it had not acknowledged (RFC 2018 section 8).
        self.board.clear();
        self.loss = Loss {
            mode: Mode::Timeout,
            resend: self.una,
            lost_below: self.next,
            recover: self.next,
            duplicates: 0,
        };
    }
}
