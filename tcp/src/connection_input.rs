//! A segment arrives (RFC 9293 section 3.10.7).

use core::time::Duration;

use pagewire_hal::{DmaMemory, Instant, TxPort, TxQueue};

use crate::connection::{
    Connection, ConnectionError, DEFAULT_MSS, RecentTimestamp, State, TIMESTAMPS_LEN, Timer,
};
use crate::connection_ack::Acknowledged;
use crate::seq::SeqNumber;
use crate::stack_config::{Limits, StackConfig};
use crate::wire::{TcpFlags, TcpHeader};

/// Age at which a remembered timestamp counts no more (RFC 7323 section 5.5).
const TIMESTAMP_LIFE: Duration = Duration::from_secs(24 * 24 * 60 * 60);

/// The smallest segment size taken from a peer: with less (0 would be legal to write) headers
/// would be all that is sent. Linux has a like limit.
const MIN_MSS: u16 = 64;

/// What is to be answered besides what the connection sends by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reply {
    None,
    /// An RST with the sequence number that the peer acknowledged.
    Reset,
}

/// What every step of the arrival needs.
pub(crate) struct Arrival<'a, Q: TxQueue, M: DmaMemory> {
    pub(crate) now: Instant,
    pub(crate) config: &'a StackConfig,
    pub(crate) limits: &'a Limits,
    pub(crate) port: &'a mut TxPort<Q, M>,
    pub(crate) header: &'a TcpHeader,
    pub(crate) payload: &'a [u8],
}

impl Connection {
    /// Handles a segment for this connection.
    pub(crate) fn segment_arrives<Q: TxQueue, M: DmaMemory>(
        &mut self,
        arrival: &mut Arrival<'_, Q, M>,
    ) -> Reply {
        match self.state {
            State::Closed => Reply::None,
            State::SynSent => self.arrives_in_syn_sent(arrival),
            _ => self.arrives(arrival),
        }
    }

    /// Section 3.10.7.3.
    fn arrives_in_syn_sent<Q: TxQueue, M: DmaMemory>(
        &mut self,
        arrival: &mut Arrival<'_, Q, M>,
    ) -> Reply {
        let header = arrival.header;
        let flags = header.flags;
        let acks = flags.contains(TcpFlags::ACK);
        if acks && (self.next == 0 || header.ack != self.seq(1)) {
            self.stats.segments_not_kept += 1;
            return if flags.contains(TcpFlags::RST) {
                Reply::None
            } else {
                Reply::Reset
            };
        }
        if flags.contains(TcpFlags::RST) {
            if acks {
                self.end(arrival.now, arrival.port, Some(ConnectionError::Refused));
            }
            return Reply::None;
        }
        if !flags.contains(TcpFlags::SYN) {
            self.stats.segments_not_kept += 1;
            return Reply::None;
        }
        self.take_syn(arrival.now, header, arrival.limits);
        if acks {
            self.establish();
            let _ = self.on_ack(arrival.now, arrival.port, header, 0);
            self.take_window(header);
            self.ack_due = true;
            self.take_data(arrival, header.seq.add(1));
        } else {
            // Simultaneous open: our SYN goes again, as SYN and ACK.
            self.state = State::SynReceived;
            self.resend_syn();
        }
        Reply::None
    }

    /// Takes the peer's SYN: its number and its options.
    pub(crate) fn take_syn(&mut self, now: Instant, header: &TcpHeader, limits: &Limits) {
        let options = &header.options;
        self.scaling = options.window_scale.is_some();
        self.peer_scale = options.window_scale.unwrap_or(0);
        self.sack = options.sack_permitted;
        self.timestamps = options.timestamps.map(|t| RecentTimestamp {
            value: t.value,
            at: now,
        });
        let own_scale = if self.scaling {
            self.receive.wanted_scale()
        } else {
            0
        };
        self.receive.start(header.seq, own_scale);
        self.told = self.receive.next();
        let peer_mss = options.mss.unwrap_or(DEFAULT_MSS).max(MIN_MSS);
        let per_segment = if self.timestamps.is_some() {
            TIMESTAMPS_LEN
        } else {
            0
        };
        // RFC 6691: the option does not count options, the sender has to.
        let mss = limits.segment_room().min(peer_mss).max(MIN_MSS);
        self.segment_len = u32::from(mss - per_segment);
        self.congestion.set_mss(self.segment_len);
    }

    /// The window of a segment with SYN is not scaled (RFC 7323 section 2.2).
    fn take_window(&mut self, header: &TcpHeader) {
        self.window = if header.flags.contains(TcpFlags::SYN) {
            u32::from(header.window)
        } else {
            u32::from(header.window) << self.peer_scale
        };
        self.max_window = self.window;
        self.window_seq = header.seq;
        self.window_ack = header.ack;
    }

    fn establish(&mut self) {
        self.state = State::Established;
        if self.retries > 0 {
            self.congestion.handshake_retransmitted();
            self.rtt.handshake_retransmitted();
        }
    }

    /// Makes the SYN go out again, with the flags of the state as it is now.
    fn resend_syn(&mut self) {
        if self.next > 0 && self.una == 0 {
            self.loss.resend = 0;
            self.loss.lost_below = 1;
        }
    }

    /// Section 3.10.7.4.
    fn arrives<Q: TxQueue, M: DmaMemory>(&mut self, arrival: &mut Arrival<'_, Q, M>) -> Reply {
        let header = arrival.header;
        let flags = header.flags;
        let mut seq = header.seq;
        let mut syn = flags.contains(TcpFlags::SYN);
        if self.state == State::SynReceived && syn && seq.add(1) == self.receive.next() {
            if !flags.contains(TcpFlags::ACK) {
                // The peer's SYN again: it has not seen ours.
                self.resend_syn();
                return Reply::None;
            }
            // Simultaneous open: the peer's SYN with its ACK. The checks of the RFC, taken
            // literally, would refuse it as old; only the SYN is.
            seq = seq.add(1);
            syn = false;
        }
        let fin = flags.contains(TcpFlags::FIN);
        let len = arrival.payload.len() as u32 + u32::from(syn) + u32::from(fin);
        if !self.passes_timestamp(arrival.now, header) {
            self.refuse();
            return Reply::None;
        }
        if !self.receive.acceptable(seq, len) {
            self.on_unacceptable(arrival, seq, len);
            return Reply::None;
        }
        if flags.contains(TcpFlags::RST) {
            self.on_reset(arrival, seq);
            return Reply::None;
        }
        if syn {
            // RFC 5961 section 4: whoever means it will answer the challenge with an RST.
            self.stats.segments_not_kept += 1;
            self.owe_challenge_ack(arrival.now);
            return Reply::None;
        }
        if !flags.contains(TcpFlags::ACK) {
            self.stats.segments_not_kept += 1;
            return Reply::None;
        }
        let state = self.state;
        if state == State::SynReceived {
            if !self.acks_sent(header.ack) {
                return Reply::Reset;
            }
            self.establish();
            let _ = self.on_ack(arrival.now, arrival.port, header, 0);
            self.take_window(header);
        } else if self.on_ack(arrival.now, arrival.port, header, arrival.payload.len())
            == Acknowledged::Drop
        {
            return Reply::None;
        }
        // Not before the ACK was judged: a forged segment must not move the clock of PAWS.
        self.take_timestamp(arrival.now, header, seq);
        self.after_ack(arrival, state);
        if self.state != State::Closed {
            self.take_data(arrival, seq);
        }
        Reply::None
    }

    /// Whether an ACK is for something that was sent and not acknowledged before.
    fn acks_sent(&self, ack: SeqNumber) -> bool {
        ack.is_after(self.seq(self.una)) && ack.is_at_or_before(self.seq(self.next))
    }

    /// Duplicates of the past, probes and keep-alives: told where we are.
    fn on_unacceptable<Q: TxQueue, M: DmaMemory>(
        &mut self,
        arrival: &mut Arrival<'_, Q, M>,
        seq: SeqNumber,
        len: u32,
    ) {
        if arrival.header.flags.contains(TcpFlags::RST) {
            self.stats.segments_not_kept += 1;
            return;
        }
        // With a shut window the ACKs of the peer are valid all the same (RFC 9293
        // section 3.10.7.4, "special allowance").
        if self.receive.window() == 0
            && seq == self.receive.next()
            && arrival.header.flags.contains(TcpFlags::ACK)
            && self.is_synchronised()
        {
            let state = self.state;
            let _ = self.on_ack(arrival.now, arrival.port, arrival.header, len as usize);
            self.after_ack(arrival, state);
        }
        if self.state == State::TimeWait && arrival.header.flags.contains(TcpFlags::FIN) {
            // Our last ACK was lost: wait again.
            self.timer = Timer::TimeWait(arrival.now + arrival.config.time_wait);
        }
        if self.state != State::Closed {
            self.refuse();
        }
    }

    fn refuse(&mut self) {
        self.stats.segments_not_kept += 1;
        self.owe_duplicate_ack();
    }

    /// RFC 5961 section 3: only the exact number resets, any other in the window is questioned.
    fn on_reset<Q: TxQueue, M: DmaMemory>(
        &mut self,
        arrival: &mut Arrival<'_, Q, M>,
        seq: SeqNumber,
    ) {
        if seq != self.receive.next() {
            self.stats.segments_not_kept += 1;
            self.owe_challenge_ack(arrival.now);
            return;
        }
        let error = match self.state {
            State::SynReceived => Some(ConnectionError::Refused),
            // Everything was delivered: not an error any more.
            State::TimeWait | State::Closing | State::LastAck if self.una == self.next => None,
            _ => Some(ConnectionError::Reset),
        };
        self.end(arrival.now, arrival.port, error);
    }

    /// PAWS (RFC 7323 section 5.3): a segment with an older timestamp is an old duplicate.
    #[inline]
    fn passes_timestamp(&self, now: Instant, header: &TcpHeader) -> bool {
        let (Some(recent), Some(theirs)) = (self.timestamps, header.options.timestamps) else {
            return true;
        };
        header.flags.contains(TcpFlags::RST)
            || !SeqNumber(theirs.value).is_before(SeqNumber(recent.value))
            || now.saturating_since(recent.at) > TIMESTAMP_LIFE
    }

    /// RFC 7323 section 4.3: the timestamp to echo is that of the earliest segment that is not
    /// acknowledged.
    #[inline]
    fn take_timestamp(&mut self, now: Instant, header: &TcpHeader, seq: SeqNumber) {
        if let (Some(recent), Some(theirs)) = (&mut self.timestamps, header.options.timestamps)
            && seq.is_at_or_before(self.told)
            && (!SeqNumber(theirs.value).is_before(SeqNumber(recent.value))
                || now.saturating_since(recent.at) > TIMESTAMP_LIFE)
        {
            *recent = RecentTimestamp {
                value: theirs.value,
                at: now,
            };
        }
    }

    /// What the ACK may have finished.
    fn after_ack<Q: TxQueue, M: DmaMemory>(
        &mut self,
        arrival: &mut Arrival<'_, Q, M>,
        before: State,
    ) {
        match self.state {
            State::Closed => self.end(arrival.now, arrival.port, None),
            State::TimeWait if before != State::TimeWait => self.wait_at_the_end(arrival),
            _ => {}
        }
    }

    fn wait_at_the_end<Q: TxQueue, M: DmaMemory>(&mut self, arrival: &Arrival<'_, Q, M>) {
        self.state = State::TimeWait;
        self.timer = Timer::TimeWait(arrival.now + arrival.config.time_wait);
    }

    /// Seventh and eighth check: payload and FIN, the payload beginning at `seq`.
    fn take_data<Q: TxQueue, M: DmaMemory>(
        &mut self,
        arrival: &mut Arrival<'_, Q, M>,
        seq: SeqNumber,
    ) {
        let fin = arrival.header.flags.contains(TcpFlags::FIN);
        if arrival.payload.is_empty() && !fin {
            return;
        }
        let may_send = matches!(
            self.state,
            State::Established | State::FinWait1 | State::FinWait2
        );
        if !may_send {
            // The peer had sent FIN: nothing new can follow it.
            self.refuse();
            return;
        }
        let next = self.receive.next();
        let kept = self.receive.keep(seq, arrival.payload, fin);
        self.stats.bytes_received += kept as u64;
        if self.receive.next() == next {
            self.refuse();
            return;
        }
        self.ack_due = true;
        if self.receive.finished() {
            match self.state {
                State::Established => self.state = State::CloseWait,
                State::FinWait1 => self.state = State::Closing,
                _ => self.wait_at_the_end(arrival),
            }
        }
    }
}
