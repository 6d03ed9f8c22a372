//! What the ACK field of a segment says: the second half of the sketch of 1997 ("on ack of the
//! transmission").

use core::time::Duration;

use pagewire_hal::{DmaMemory, Instant, TxPort, TxQueue};

use crate::connection::{Connection, State, Timer};
use crate::wire::{TcpFlags, TcpHeader};

/// What became of an ACK field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Acknowledged {
    /// Go on with the rest of the segment.
    Continue,
    /// It acknowledges what was never sent, or too long ago: drop the segment.
    Drop,
}

impl Connection {
    /// RFC 9293 section 3.10.7.4, fifth check, in a synchronised state.
    pub(crate) fn on_ack<Q: TxQueue, M: DmaMemory>(
        &mut self,
        now: Instant,
        port: &mut TxPort<Q, M>,
        header: &TcpHeader,
        payload_len: usize,
    ) -> Acknowledged {
        let ahead = header.ack.distance(self.seq(self.una));
        if ahead > 0 && u64::from(ahead.cast_unsigned()) > self.next - self.una {
            // RFC 9293: an ACK of what is not sent is answered with an ACK. RFC 5961 section 5.2
            // makes that a challenge ACK, with its limit.
            self.owe_challenge_ack(now);
            return Acknowledged::Drop;
        }
        if ahead < 0 {
            // RFC 5961 section 5: older than a window cannot be honest.
            if ahead.unsigned_abs() > self.max_window.max(self.segment_len) {
                self.owe_challenge_ack(now);
                return Acknowledged::Drop;
            }
            return Acknowledged::Continue;
        }
        self.heard = true;
        if matches!(self.timer, Timer::Persist(_)) || self.window == 0 {
            self.retries = 0;
        }
        let window_before = self.window;
        self.update_window(header);
        if ahead > 0 {
            self.on_new_ack(now, port, header, ahead.cast_unsigned());
            return Acknowledged::Continue;
        }
        let news = self.take_sack(header);
        let bare = payload_len == 0
            && !header.flags.intersects(TcpFlags::SYN | TcpFlags::FIN)
            && self.window == window_before;
        if self.next > self.una && (bare || news > 0) {
            self.loss_on_duplicate_ack();
        }
        Acknowledged::Continue
    }

    /// SND.WND, unless the segment is older than the one that told it last.
    #[inline]
    fn update_window(&mut self, header: &TcpHeader) {
        let newer = self.window_seq.is_before(header.seq)
            || (self.window_seq == header.seq && self.window_ack.is_at_or_before(header.ack));
        if !newer {
            return;
        }
        self.window_seq = header.seq;
        self.window_ack = header.ack;
        let before = core::mem::replace(
            &mut self.window,
            u32::from(header.window) << self.peer_scale,
        );
        self.max_window = self.max_window.max(self.window);
        if self.window > before && matches!(self.timer, Timer::Persist(_)) {
            // The window has opened: send what fits, and begin anew if that is nothing. A window
            // that stays small must not: a peer that talks all the time would hold up the
            // override for ever (RFC 9293 section 3.8.6.2.1).
            self.timer = Timer::Off;
            self.persist_shift = 0;
            self.probe_due = false;
        }
    }

    /// Bytes that the peer newly says to hold.
    #[inline]
    fn take_sack(&mut self, header: &TcpHeader) -> u32 {
        if !self.sack || header.options.sack.is_empty() {
            return 0;
        }
        let (una, next) = (self.seq(self.una), self.seq(self.next));
        self.board.update(una, next, &header.options.sack)
    }

    /// "On ack of the transmission": unpins the pages, then normal processing.
    fn on_new_ack<Q: TxQueue, M: DmaMemory>(
        &mut self,
        now: Instant,
        port: &mut TxPort<Q, M>,
        header: &TcpHeader,
        acked: u32,
    ) {
        let flight_before = self.flight_size();
        let before = self.buffer.len();
        self.una += u64::from(acked);
        let in_flight = |frame| port.in_flight(frame);
        let sent = self
            .flight
            .acknowledge(self.una, now, in_flight, &mut self.stats.lent);
        self.buffer.acknowledge(port.ledger_mut(), self.una);
        self.stats.bytes_acked += (before - self.buffer.len()) as u64;
        self.retries = 0;
        self.measure_round_trip(now, header, sent);
        self.board.advance(self.seq(self.una));
        let _ = self.take_sack(header);
        self.loss_on_new_ack(acked, flight_before);
        // RFC 6298, rules 5.2 and 5.3.
        self.timer = match self.timer {
            Timer::TimeWait(_) => self.timer,
            _ if self.flight.is_empty() => Timer::Off,
            _ => Timer::Retransmit(now + self.rtt.rto()),
        };
        if self.fin_sent && self.una == self.next {
            self.on_fin_acknowledged();
        }
    }

    /// A round trip, once per window: exactly, by a segment that was sent once; else by the
    /// timestamp echoed (RFC 7323 section 4).
    #[inline]
    fn measure_round_trip(&mut self, now: Instant, header: &TcpHeader, sent: Option<Instant>) {
        if self.una <= self.rtt_mark {
            return;
        }
        let rtt = match (sent, self.timestamps, header.options.timestamps) {
            (Some(sent), _, _) => now.saturating_since(sent),
            (None, Some(_), Some(echoed)) => {
                let millis = self.timestamp(now).wrapping_sub(echoed.echo);
                // An echo from the future, or from weeks ago, is not of ours.
                if millis > 1 << 30 {
                    return;
                }
                Duration::from_millis(u64::from(millis))
            }
            _ => return,
        };
        self.rtt.sample(rtt);
        self.rtt_mark = self.next;
    }

    fn on_fin_acknowledged(&mut self) {
        self.state = match self.state {
            State::FinWait1 => State::FinWait2,
            State::Closing => State::TimeWait,
            // Nothing is left in either direction.
            State::LastAck => State::Closed,
            other => other,
        };
    }
}
