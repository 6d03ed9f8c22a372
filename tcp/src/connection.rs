//! One connection: its state, and what the program asks of it. Segments that arrive are handled
//! in `connection_input`, acknowledgments in `connection_ack`, what goes out in
//! `connection_output`.

use core::fmt;
use core::net::{Ipv4Addr, SocketAddrV4};
use core::time::Duration;

use pagewire_hal::{DmaMemory, Instant, LendError, TxPort, TxQueue};

use crate::congestion::NewReno;
use crate::connection_loss::Loss;
use crate::flight::Flight;
use crate::headers::Headers;
use crate::lending::{Explanation, Lender};
use crate::receive::Receiver;
use crate::rtt::RttEstimator;
use crate::sack::Scoreboard;
use crate::send_buffer::{Completion, NewCall, SendBuffer, Slice};
use crate::seq::SeqNumber;
use crate::share::Held;
use crate::stack_config::StackConfig;
use crate::stats::ConnectionStats;
use crate::wire::TcpHeader;

/// The state of a connection (RFC 9293 section 3.3.2). Listening is done by the stack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// A SYN was sent, or waits for ARP.
    SynSent,
    /// SYNs were exchanged, ours is not acknowledged.
    SynReceived,
    /// Data flows both ways.
    Established,
    /// We have sent FIN.
    FinWait1,
    /// Our FIN is acknowledged; the peer may still send.
    FinWait2,
    /// The peer has sent FIN; we may still send.
    CloseWait,
    /// Both have sent FIN, ours is not acknowledged.
    Closing,
    /// As closing, the peer's came first.
    LastAck,
    /// Both FINs are acknowledged; late segments are waited for.
    TimeWait,
    /// It is over. The connection can be looked at until it is removed.
    Closed,
}

/// Why a connection ended before its time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ConnectionError {
    /// The peer answered the SYN with RST: nobody listens there.
    Refused,
    /// The peer sent RST.
    Reset,
    /// The peer did not answer in spite of all retransmissions or probes.
    TimedOut,
    /// No answer to ARP.
    Unreachable,
    /// [`abort`](crate::Stack::abort) was called.
    Aborted,
}

impl fmt::Display for ConnectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "the peer refused the connection",
            Self::Reset => "the peer reset the connection",
            Self::TimedOut => "the peer does not answer",
            Self::Unreachable => "the next hop does not answer to ARP",
            Self::Aborted => "the connection was aborted",
        })
    }
}

impl core::error::Error for ConnectionError {}

/// The one timer of a connection: no two of its uses are ever due at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Timer {
    Off,
    /// Something is in flight, or could not be sent for want of room or of ARP (RFC 6298).
    Retransmit(Instant),
    /// Nothing is in flight and the window is too small (RFC 9293 section 3.8.6.1).
    Persist(Instant),
    /// TIME-WAIT ends.
    TimeWait(Instant),
}

impl Timer {
    #[inline]
    pub(crate) const fn deadline(self) -> Option<Instant> {
        match self {
            Self::Off => None,
            Self::Retransmit(at) | Self::Persist(at) | Self::TimeWait(at) => Some(at),
        }
    }
}

/// The timestamps option, once both sides have agreed on it (RFC 7323).
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecentTimestamp {
    /// TS.Recent.
    pub(crate) value: u32,
    /// When it was taken over: after 24 days it counts no more (RFC 7323 section 5.5).
    pub(crate) at: Instant,
}

/// Challenge ACKs of one connection in a second (RFC 5961 section 7: a limit is needed; per
/// connection, as a common one can be watched by a third party).
const CHALLENGES_PER_SECOND: u8 = 10;

/// The most duplicate ACKs that are owed at a time.
const MAX_DUPLICATE_ACKS: u8 = 8;

/// Doublings of the persist timer that are counted.
const MAX_PERSIST_SHIFT: u32 = 16;

/// Who talks to whom, and with which numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Endpoints {
    pub(crate) local: SocketAddrV4,
    pub(crate) remote: SocketAddrV4,
    /// The neighbour that packets are handed to (step 1 of the path of 1997, done once).
    pub(crate) next_hop: Ipv4Addr,
    /// Our initial sequence number.
    pub(crate) iss: SeqNumber,
    /// What is added to the clock in timestamps, so that they tell nobody our uptime.
    pub(crate) timestamp_offset: u32,
}

/// A connection. Positions count as in the send buffer: 0 is our SYN.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) endpoints: Endpoints,
    pub(crate) state: State,
    pub(crate) error: Option<ConnectionError>,
    /// Opened by a listener on the local port, and not accepted yet.
    pub(crate) pending: bool,

    /// SND.UNA.
    pub(crate) una: u64,
    /// SND.NXT; nothing beyond was ever sent.
    pub(crate) next: u64,
    /// SND.WND, in bytes.
    pub(crate) window: u32,
    /// The largest that it has been.
    pub(crate) max_window: u32,
    /// SND.WL1 and SND.WL2: the segment that told the window.
    pub(crate) window_seq: SeqNumber,
    pub(crate) window_ack: SeqNumber,
    /// Shift of the peer's window field.
    pub(crate) peer_scale: u8,
    /// Most payload bytes of a segment, options counted.
    pub(crate) segment_len: u32,
    /// Our SYN offers, and the peer's has agreed to, SACK.
    pub(crate) sack: bool,
    /// Likewise timestamps.
    pub(crate) timestamps: Option<RecentTimestamp>,
    /// Likewise window scaling.
    pub(crate) scaling: bool,
    pub(crate) buffer: SendBuffer,
    pub(crate) flight: Flight,
    /// The last request for segmentation ended where the page budget did.
    pub(crate) over_budget: bool,
    /// Of the segment posted last.
    pub(crate) headers: Headers,
    pub(crate) congestion: NewReno,
    pub(crate) rtt: RttEstimator,
    /// The next round trip is measured with an ACK beyond this position: one per window.
    pub(crate) rtt_mark: u64,
    pub(crate) board: Scoreboard,
    pub(crate) loss: Loss,

    pub(crate) receive: Receiver,
    /// RCV.NXT as last told: decides which timestamp is echoed (RFC 7323 section 4.3).
    pub(crate) told: SeqNumber,

    /// The program has closed: a FIN follows the data.
    pub(crate) closing: bool,
    /// The FIN has been sent.
    pub(crate) fin_sent: bool,
    /// An ACK is owed.
    pub(crate) ack_due: bool,
    /// Further ACKs are owed, each by itself, as the peer counts them.
    pub(crate) duplicate_acks_due: u8,
    /// A zero-window probe is due.
    pub(crate) probe_due: bool,
    /// The next segment may be as small as the window (sender's silly window override).
    pub(crate) forced: bool,

    pub(crate) timer: Timer,
    /// Timeouts or probes without an answer.
    pub(crate) retries: u32,
    /// The peer has acknowledged something, new or not, since the last timeout.
    pub(crate) heard: bool,
    /// Doublings of the persist timer.
    pub(crate) persist_shift: u32,
    /// The longest that any timer waits.
    max_rto: Duration,
    challenges: (Instant, u8),

    /// The stack's own marks: in the queue for transmission, due time in the timer heap, in the
    /// list of those whose frames drain, waiting for ARP.
    pub(crate) queued: bool,
    pub(crate) scheduled: Option<Instant>,
    pub(crate) listed_draining: bool,
    pub(crate) awaits_neighbour: bool,
    /// What the stack has counted of what it holds.
    pub(crate) noted: Held,

    pub(crate) stats: ConnectionStats,
}

/// Bytes of the timestamps option with its padding.
pub(crate) const TIMESTAMPS_LEN: u16 = 12;

/// Payload that every host takes if it does not say otherwise (RFC 9293 section 3.7.1).
pub(crate) const DEFAULT_MSS: u16 = 536;

impl Connection {
    pub(crate) fn new(endpoints: Endpoints, state: State, config: &StackConfig) -> Self {
        let segment_len = u32::from(DEFAULT_MSS);
        Self {
            endpoints,
            state,
            error: None,
            pending: state == State::SynReceived,
            una: 0,
            next: 0,
            window: 0,
            max_window: 0,
            window_seq: SeqNumber(0),
            window_ack: endpoints.iss,
            peer_scale: 0,
            segment_len,
            sack: false,
            timestamps: None,
            scaling: false,
            buffer: SendBuffer::new(),
            flight: Flight::default(),
            over_budget: false,
            headers: Headers::EMPTY,
            congestion: NewReno::new(segment_len),
            rtt: RttEstimator::new(config.min_rto, config.max_rto),
            rtt_mark: 0,
            board: Scoreboard::new(),
            loss: Loss::default(),
            receive: Receiver::new(config.receive_window),
            told: SeqNumber(0),
            closing: false,
            fin_sent: false,
            ack_due: false,
            duplicate_acks_due: 0,
            probe_due: false,
            forced: false,
            timer: Timer::Off,
            retries: 0,
            heard: false,
            persist_shift: 0,
            max_rto: config.max_rto,
            challenges: (Instant::ZERO, 0),
            queued: false,
            scheduled: None,
            listed_draining: false,
            awaits_neighbour: false,
            noted: Held::default(),
            stats: ConnectionStats::default(),
        }
    }

    /// The sequence number of a position.
    #[inline]
    pub(crate) const fn seq(&self, position: u64) -> SeqNumber {
        // Positions wrap to sequence numbers by design.
        self.endpoints.iss.add(position as u32)
    }

    /// Sequence numbers sent and not acknowledged; a window is at most 2^30.
    #[inline]
    pub(crate) const fn flight_size(&self) -> u32 {
        (self.next - self.una) as u32
    }

    /// Bytes of the TCP header of a segment with payload.
    #[inline]
    pub(crate) const fn tcp_header_len(&self) -> usize {
        TcpHeader::LEN
            + if self.timestamps.is_some() {
                TIMESTAMPS_LEN as usize
            } else {
                0
            }
    }

    /// Bytes accepted and never sent.
    #[inline]
    pub(crate) const fn unsent(&self) -> u64 {
        // While the SYN is not sent, `next` is before the first byte.
        let first = if self.next > 0 { self.next } else { 1 };
        self.buffer.end().saturating_sub(first)
    }

    /// Whether a FIN is to follow the data.
    #[inline]
    pub(crate) const fn fin_due(&self) -> bool {
        self.closing && !self.fin_sent
    }

    /// Whether SYNs have been exchanged and the connection is not over.
    #[inline]
    pub(crate) const fn is_synchronised(&self) -> bool {
        !matches!(
            self.state,
            State::SynSent | State::SynReceived | State::Closed
        )
    }

    /// Whether the program may still send.
    pub(crate) const fn accepts_data(&self) -> bool {
        !self.closing
            && matches!(
                self.state,
                State::SynSent | State::SynReceived | State::Established | State::CloseWait
            )
    }

    /// Takes slices of the program: as much as the limit allows.
    pub(crate) fn send<M: DmaMemory>(
        &mut self,
        lender: Lender<'_, M>,
        slices: &[Slice],
        mut call: NewCall<'_>,
    ) -> Result<usize, LendError> {
        call.limit = call.limit.saturating_sub(self.buffer.len());
        let early = &mut self.stats.copied_early;
        self.buffer.accept(lender, slices, &call, early)
    }

    /// The next call of `send` that is over, and what is known of it if it is to be explained.
    pub(crate) fn completion<Q: TxQueue, M: DmaMemory>(
        &mut self,
        now: Instant,
        port: &TxPort<Q, M>,
    ) -> Option<(Completion, Option<Explanation>)> {
        if !self.buffer.has_calls() {
            return None;
        }
        self.settle(now, port);
        let unread = self.flight.unread(|frame| port.in_flight(frame));
        self.buffer.completion(now, unread)
    }

    /// Takes note of frames that the device has completed after their acknowledgment.
    #[inline]
    pub(crate) fn settle<Q: TxQueue, M: DmaMemory>(&mut self, now: Instant, port: &TxPort<Q, M>) {
        if self.flight.is_draining() {
            self.flight
                .settle(now, |frame| port.in_flight(frame), &mut self.stats.lent);
        }
    }

    /// Ends the connection. Its loans go back; what the device still reads it keeps in loans of
    /// its own.
    pub(crate) fn end<Q: TxQueue, M: DmaMemory>(
        &mut self,
        now: Instant,
        port: &mut TxPort<Q, M>,
        error: Option<ConnectionError>,
    ) {
        self.state = State::Closed;
        self.error = self.error.or(error);
        self.timer = Timer::Off;
        self.ack_due = false;
        self.duplicate_acks_due = 0;
        self.probe_due = false;
        self.flight
            .abort(now, |frame| port.in_flight(frame), &mut self.stats.lent);
        self.buffer.abort(port.ledger_mut());
    }

    /// Owes the peer an ACK of its own.
    pub(crate) fn owe_duplicate_ack(&mut self) {
        self.duplicate_acks_due = (self.duplicate_acks_due + 1).min(MAX_DUPLICATE_ACKS);
    }

    /// Owes the peer a challenge ACK, if there were not too many of late (RFC 5961 section 7).
    pub(crate) fn owe_challenge_ack(&mut self, now: Instant) {
        let (since, count) = &mut self.challenges;
        if now.saturating_since(*since) >= Duration::from_secs(1) {
            *since = now;
            *count = 0;
        }
        if *count < CHALLENGES_PER_SECOND {
            *count += 1;
            self.stats.challenge_acks += 1;
            self.owe_duplicate_ack();
        }
    }

    /// The timer is due at `now`.
    pub(crate) fn on_timer<Q: TxQueue, M: DmaMemory>(
        &mut self,
        now: Instant,
        port: &mut TxPort<Q, M>,
        config: &StackConfig,
    ) {
        if self.timer.deadline().is_none_or(|at| at > now) {
            return;
        }
        match core::mem::replace(&mut self.timer, Timer::Off) {
            Timer::Off => {}
            Timer::TimeWait(_) => self.end(now, port, None),
            Timer::Retransmit(_) => {
                // A peer that keeps its window shut, but answers, is alive (RFC 9293
                // section 3.8.6.1).
                if !(self.window == 0 && core::mem::take(&mut self.heard)) {
                    self.retries = self.retries.saturating_add(1);
                }
                if self.retries > config.max_retries {
                    self.end(now, port, Some(ConnectionError::TimedOut));
                } else {
                    self.retransmission_timeout(now);
                }
            }
            Timer::Persist(_) => {
                self.retries = self.retries.saturating_add(1);
                self.persist_shift = (self.persist_shift + 1).min(MAX_PERSIST_SHIFT);
                if self.retries > config.max_retries {
                    self.end(now, port, Some(ConnectionError::TimedOut));
                } else if self.window > self.flight_size() {
                    self.forced = true;
                } else {
                    self.probe_due = true;
                }
            }
        }
    }

    /// The next hop does not answer: a new connection fails, an old one takes it as silence of
    /// the peer.
    pub(crate) fn on_unreachable<Q: TxQueue, M: DmaMemory>(
        &mut self,
        now: Instant,
        port: &mut TxPort<Q, M>,
    ) {
        if matches!(self.state, State::SynSent | State::SynReceived) {
            self.end(now, port, Some(ConnectionError::Unreachable));
        } else {
            self.set_timer(now, true);
        }
    }

    /// Sets the timer to what is waited for. `blocked`: there is something to send and no room,
    /// or no next hop.
    #[inline]
    pub(crate) fn set_timer(&mut self, now: Instant, blocked: bool) {
        match self.timer {
            Timer::TimeWait(_) => {}
            _ if self.state == State::Closed => self.timer = Timer::Off,
            _ if !self.flight.is_empty() || blocked => {
                if !matches!(self.timer, Timer::Retransmit(_)) {
                    self.timer = Timer::Retransmit(now + self.rtt.rto());
                }
            }
            _ if self.is_synchronised() && (self.unsent() > 0 || self.fin_due()) => {
                if !matches!(self.timer, Timer::Persist(_)) {
                    let wait = self.rtt.rto().saturating_mul(1 << self.persist_shift);
                    self.timer = Timer::Persist(now + wait.min(self.max_rto));
                }
            }
            _ => self.timer = Timer::Off,
        }
    }
}
