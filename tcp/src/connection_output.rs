//! What a connection sends: how much may go now (step 4a of the path of 1997), what was lost,
//! and the segments without payload.

use alloc::vec::Vec;
use core::ops::Range;

use pagewire_hal::{DmaMemory, FrameId, Instant, MacAddress, TxPort, TxQueue};

use crate::connection::{Connection, State};
use crate::connection_loss::Mode;
use crate::flight::Segment;
use crate::headers::{Envelope, Headers, NETWORK_END};
use crate::plan::{Plan, Reason, Request};
use crate::segmentation::Segmenting;
use crate::stack_config::{Limits, StackConfig};
use crate::transmit::{Blocked, Device, Outgoing, Posted, request_budget, transmit};
use crate::wire::{TcpFlags, TcpHeader, TcpOptions, Timestamps};

/// What a connection needs to send.
pub(crate) struct Output<'a, Q: TxQueue, M: DmaMemory> {
    pub(crate) now: Instant,
    pub(crate) config: &'a StackConfig,
    pub(crate) limits: &'a Limits,
    pub(crate) device: &'a Device,
    pub(crate) port: &'a mut TxPort<Q, M>,
    pub(crate) next_hop: MacAddress,
    /// Counts the IPv4 identification on.
    pub(crate) identification: &'a mut u16,
    /// Segments that this connection may still post in this turn; the last request may be of
    /// more.
    pub(crate) quota: usize,
    /// The connection's headers are those of a segment of this turn: acknowledgment, window and
    /// timestamps are the same for all of them.
    pub(crate) prepared: bool,
}

/// How a turn ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Turn {
    /// Everything that may go has gone.
    Done,
    /// The quota is used up, there is more.
    More,
    /// A retransmission waits for its original to leave the ring.
    PutOff,
    /// The ring or the buffers are full.
    Full,
    /// The queue takes nothing.
    Refused,
    /// A request has more pieces than the device gathers. It goes again, shorter, in the same turn.
    OverBudget,
}

impl From<Blocked> for Turn {
    fn from(blocked: Blocked) -> Self {
        match blocked {
            Blocked::Full => Self::Full,
            Blocked::Refused => Self::Refused,
            Blocked::OverBudget => Self::OverBudget,
        }
    }
}

/// A segment that may go now, or several as one request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Allowed {
    /// Bytes of payload.
    pub(crate) len: u32,
    /// The FIN goes with it.
    pub(crate) fin: bool,
    /// Bytes of a request that is worth waiting for, if it is longer than `len` and fits the page
    /// budget.
    pub(crate) worth_waiting: u32,
}

impl Connection {
    /// Sends what may go, and sets the timer.
    pub(crate) fn transmit<Q: TxQueue, M: DmaMemory>(
        &mut self,
        out: &mut Output<'_, Q, M>,
    ) -> Turn {
        let turn = match self.transmit_all(out) {
            Ok(()) => Turn::Done,
            Err(turn) => turn,
        };
        let blocked = matches!(turn, Turn::Full | Turn::Refused | Turn::PutOff);
        self.set_timer(out.now, blocked);
        turn
    }

    fn transmit_all<Q: TxQueue, M: DmaMemory>(
        &mut self,
        out: &mut Output<'_, Q, M>,
    ) -> Result<(), Turn> {
        if self.state == State::Closed {
            return Ok(());
        }
        self.open(out)?;
        let put_off = self.send_lost_again(out)?;
        if self.is_synchronised() {
            self.send_new(out)?;
            self.send_acks(out)?;
        }
        if put_off { Err(Turn::PutOff) } else { Ok(()) }
    }

    /// Sends the first SYN.
    fn open<Q: TxQueue, M: DmaMemory>(&mut self, out: &mut Output<'_, Q, M>) -> Result<(), Turn> {
        if self.next > 0 || !matches!(self.state, State::SynSent | State::SynReceived) {
            return Ok(());
        }
        let frame = self.post(out, 0, 0, TcpFlags::SYN)?;
        self.flight.push(Segment {
            start: 0,
            len: 0,
            syn: true,
            fin: false,
            retransmitted: false,
            frame,
            first_sent: out.now,
        });
        self.next = 1;
        Ok(())
    }

    /// Sends again what is lost, as far as the congestion window allows; the first segment goes
    /// in any case. Segments on the wire are looked at one by one, also those of a request: only
    /// holes are sent again. Returns whether the rest was put off because the device still reads
    /// the original, or the request that it is a part of (rule 2).
    fn send_lost_again<Q: TxQueue, M: DmaMemory>(
        &mut self,
        out: &mut Output<'_, Q, M>,
    ) -> Result<bool, Turn> {
        if self.loss.resend >= self.loss.lost_below {
            return Ok(false);
        }
        let window = self.congestion_window();
        let mut pipe = self.pipe();
        while self.loss.resend < self.loss.lost_below {
            let Some(segment) = self.flight.at(self.loss.resend, self.segment_len) else {
                break;
            };
            // Of a segment that was acknowledged in part only the rest is sent again.
            let start = segment.start.max(self.una);
            if self
                .board
                .is_sacked(self.seq(start), self.seq(segment.end()))
            {
                self.loss.resend = segment.end();
                continue;
            }
            if out.port.in_flight(segment.frame) {
                self.stats.put_off += 1;
                return Ok(true);
            }
            let sequence_len = (segment.end() - start) as u32;
            if self.loss.resend > self.una && pipe + sequence_len > window {
                break;
            }
            self.send_again(out, segment, start)?;
            pipe += sequence_len;
            self.loss.resend = segment.end();
        }
        Ok(false)
    }

    fn send_again<Q: TxQueue, M: DmaMemory>(
        &mut self,
        out: &mut Output<'_, Q, M>,
        segment: Segment,
        start: u64,
    ) -> Result<(), Turn> {
        let syn = segment.syn && start == 0;
        let len = (segment.end() - start) as u32 - u32::from(syn) - u32::from(segment.fin);
        let mut flags = TcpFlags::empty();
        flags.set(TcpFlags::SYN, syn);
        flags.set(TcpFlags::FIN, segment.fin);
        flags.set(TcpFlags::PSH, len > 0 && segment.end() >= self.buffer.end());
        let frame = self.post(out, start, len, flags)?;
        let sent = Segment {
            start,
            len,
            syn,
            frame,
            retransmitted: true,
            ..segment
        };
        self.flight.sent_again(sent, self.una);
        let count = if self.loss.mode == Mode::Fast {
            &mut self.stats.fast_retransmits
        } else {
            &mut self.stats.timeout_retransmits
        };
        count.add(len as usize);
        Ok(())
    }

    /// Sends data and FIN for the first time.
    fn send_new<Q: TxQueue, M: DmaMemory>(
        &mut self,
        out: &mut Output<'_, Q, M>,
    ) -> Result<(), Turn> {
        if self.unsent() == 0 && !self.fin_due() {
            return Ok(());
        }
        let mut pipe = self.pipe();
        let segmenting = out.device.segmenting();
        let most = segmenting.map_or(0, |s: &Segmenting| s.most(self.tcp_header_len()));
        if most == 0 {
            pipe = self.send_full_segments(out, pipe)?;
        }
        while let Some(allowed) = self.how_much_may_go(out.now, pipe, out.config.nagle, most) {
            if out.quota == 0 {
                return Err(Turn::More);
            }
            let start = self.next;
            let Some(Allowed { len, fin, .. }) = self.within_page_budget(out, allowed) else {
                break;
            };
            let mut flags = TcpFlags::empty();
            flags.set(TcpFlags::FIN, fin);
            flags.set(
                TcpFlags::PSH,
                len > 0 && start + u64::from(len) == self.buffer.end(),
            );
            let frame = match self.post(out, start, len, flags) {
                Err(Turn::OverBudget) if !self.over_budget => {
                    self.over_budget = true;
                    continue;
                }
                // It was counted to fit: nothing else can be tried.
                Err(Turn::OverBudget) => return Err(Turn::Refused),
                posted => posted?,
            };
            self.over_budget = len < allowed.len;
            if len < allowed.len {
                self.stats.segmented.ended_by_budget += 1;
            }
            if len > self.segment_len {
                self.congestion.sends_requests();
            }
            let segment = Segment {
                start,
                len,
                syn: false,
                fin,
                retransmitted: false,
                frame,
                first_sent: out.now,
            };
            if self.flight.is_empty() {
                self.retries = 0;
            }
            self.flight.push(segment);
            self.next = segment.end();
            pipe += segment.sequence_len();
            self.forced = false;
            if fin {
                self.fin_sent = true;
                self.state = match self.state {
                    State::CloseWait => State::LastAck,
                    _ => State::FinWait1,
                };
            }
        }
        Ok(())
    }

    /// Sends full segments as long as more data follows: almost all of them, without the questions
    /// that the last one raises. Returns what is in the network then.
    fn send_full_segments<Q: TxQueue, M: DmaMemory>(
        &mut self,
        out: &mut Output<'_, Q, M>,
        mut pipe: u32,
    ) -> Result<u32, Turn> {
        let len = self.segment_len;
        let offered = self.window.saturating_sub(self.flight_size());
        let congestion = self.congestion_window().saturating_sub(pipe);
        let mut room = offered.min(congestion);
        let mut unsent = self.unsent();
        while room >= len && unsent > u64::from(len) {
            if out.quota == 0 {
                return Err(Turn::More);
            }
            let start = self.next;
            let frame = self.post(out, start, len, TcpFlags::empty())?;
            if self.flight.is_empty() {
                self.retries = 0;
            }
            self.flight.push(Segment {
                start,
                len,
                syn: false,
                fin: false,
                retransmitted: false,
                frame,
                first_sent: out.now,
            });
            self.next = start + u64::from(len);
            self.forced = false;
            pipe += len;
            room -= len;
            unsent -= u64::from(len);
        }
        Ok(pipe)
    }

    /// Step 4a: the usual TCP algorithms. `pipe` is what is in the network, `most` the longest
    /// request that the device takes, 0 if none. `None` if nothing may go now.
    #[inline]
    fn how_much_may_go(&self, now: Instant, pipe: u32, nagle: bool, most: u32) -> Option<Allowed> {
        let one = self.segment_may_go(pipe, nagle)?;
        if one.len < self.segment_len || one.fin || most < 2 * self.segment_len {
            return Some(one);
        }
        Some(self.request_may_go(now, pipe, nagle, most))
    }

    /// Step 4a for one segment.
    #[inline]
    fn segment_may_go(&self, pipe: u32, nagle: bool) -> Option<Allowed> {
        let unsent = self.unsent();
        if unsent == 0 && !self.fin_due() {
            return None;
        }
        let offered = self.window.saturating_sub(self.flight_size());
        let congestion = self.congestion_window().saturating_sub(pipe);
        let wanted = u32::try_from(unsent)
            .unwrap_or(u32::MAX)
            .min(self.segment_len);
        let len = wanted.min(offered);
        let all = u64::from(len) == unsent;
        // The FIN takes a sequence number, and so needs room for it.
        let fin = self.fin_due() && all && offered > len;
        if len == 0 && !fin {
            return None;
        }
        if congestion < len + u32::from(fin) && pipe > 0 {
            return None;
        }
        // Nagle (RFC 9293 section 3.7.4) and the sender's silly window avoidance
        // (section 3.8.6.2.1).
        let idle = self.next == self.una;
        let worth = len == self.segment_len
            || fin
            || (all && (idle || !nagle))
            || (len > 0 && len >= self.max_window / 2)
            || (len > 0 && self.forced);
        worth.then_some(Allowed {
            len,
            fin,
            worth_waiting: 0,
        })
    }

    /// Step 4b for a request: ends it where the page budget ends. If that leaves no segment, one
    /// goes by itself, and is rescued or copied. `None` if a longer one fits and is waited for.
    fn within_page_budget<Q: TxQueue, M: DmaMemory>(
        &self,
        out: &Output<'_, Q, M>,
        allowed: Allowed,
    ) -> Option<Allowed> {
        let longest = allowed.len.max(allowed.worth_waiting);
        // What fits almost always is tried, and counted if the last one did not.
        let tried = allowed.worth_waiting <= allowed.len && !self.over_budget;
        if longest <= self.segment_len || tried {
            return Some(allowed);
        }
        let fits = request_budget(
            out.port.ledger(),
            out.device,
            NETWORK_END + self.tcp_header_len(),
            self.buffer.parts(self.next, longest as usize),
            self.segment_len,
        );
        let fits = match fits {
            Request::Whole => longest,
            Request::Ended { len } => len as u32,
        };
        if fits > allowed.len {
            return None;
        }
        if fits == allowed.len {
            return Some(allowed);
        }
        Some(Allowed {
            len: fits.max(self.segment_len),
            fin: false,
            worth_waiting: 0,
        })
    }

    /// Sends the ACKs that are owed and have not gone with data, and a probe that is due.
    fn send_acks<Q: TxQueue, M: DmaMemory>(
        &mut self,
        out: &mut Output<'_, Q, M>,
    ) -> Result<(), Turn> {
        while self.duplicate_acks_due > 0 {
            self.post_bare(out, self.next)?;
            self.duplicate_acks_due -= 1;
        }
        if self.ack_due || self.window_update_due() {
            self.post_bare(out, self.next)?;
        }
        if self.probe_due {
            // A number that the peer has acknowledged long ago: it must answer with an ACK that
            // tells its window (RFC 9293 section 3.10.7.4, first check). The RFC probes with a
            // byte of new data; that would have to be sent again when the window opens without
            // it. Linux probes as it is done here.
            self.post_bare(out, self.una.wrapping_sub(1))?;
            self.stats.window_probes += 1;
            self.probe_due = false;
        }
        Ok(())
    }

    fn window_update_due(&self) -> bool {
        !self.receive.finished() && self.receive.window_update_due()
    }

    fn post_bare<Q: TxQueue, M: DmaMemory>(
        &mut self,
        out: &mut Output<'_, Q, M>,
        position: u64,
    ) -> Result<(), Turn> {
        self.post(out, position, 0, TcpFlags::empty()).map(|_| ())
    }

    /// Posts a segment, or a request if it is longer than one. ACK is set but in a first SYN;
    /// whatever carries it pays what is owed.
    fn post<Q: TxQueue, M: DmaMemory>(
        &mut self,
        out: &mut Output<'_, Q, M>,
        position: u64,
        len: u32,
        flags: TcpFlags,
    ) -> Result<FrameId, Turn> {
        if out.quota == 0 {
            return Err(Turn::More);
        }
        self.prepare_headers(out, position, flags);
        // Almost always one, without a division.
        let segments = if len <= self.segment_len {
            1
        } else {
            len.div_ceil(self.segment_len.max(1))
        };
        let request;
        let offload = if segments == 1 {
            out.device.offload()
        } else {
            // It follows from MSS options and MTU, which have 16 bits.
            let segment_len = self.segment_len as u16;
            request = out
                .device
                .request_offload(self.headers.tcp_len(), segment_len);
            &request
        };
        let outgoing = Outgoing {
            device: out.device,
            headers: &self.headers,
            identification: *out.identification,
            payload: self.buffer.parts(position, len as usize),
            len: len as usize,
            offload,
            segments,
            has_copies: self.buffer.has_copies(),
        };
        let posted = transmit(out.port, &outgoing, &mut self.stats)?;
        let frame = posted.frame;
        if self.buffer.explains() && len > 0 {
            self.account(position, len as usize, posted);
        }
        // The device counts the identification on from segment to segment.
        *out.identification = out.identification.wrapping_add(segments as u16);
        out.quota = out.quota.saturating_sub(segments as usize);
        self.buffer.sent_up_to(position + u64::from(len));
        self.told = self.receive.next();
        self.ack_due = false;
        Ok(frame)
    }

    /// Adds a frame to the accounts of the calls whose bytes it carries.
    #[cold]
    fn account(&mut self, position: u64, len: usize, posted: Posted) {
        // Copies in the pool, as ranges of this frame's payload.
        let mut at = 0;
        let copies = self.buffer.parts(position, len).filter_map(|part| {
            at += part.len;
            part.copied.then_some(at - part.len..at)
        });
        let copies: Vec<Range<usize>> = copies.collect();
        let both = |one: &Range<usize>, other: &Range<usize>| {
            let end = one.end.min(other.end);
            end.saturating_sub(one.start.max(other.start))
        };
        self.buffer.account_posted(position, len, |account, own| {
            account.frames += 1;
            account.fragments += posted.fragments as u64;
            let (copied, reason) = match posted.plan {
                Plan::Share => (0, None),
                Plan::Rescue { prefix } => (both(&own, &(0..prefix)), Some(Reason::OverBudget)),
                Plan::Copy(reason) => (own.len(), Some(reason)),
            };
            if let Some(reason) = reason {
                account.add_copied(reason, copied);
            }
            let rest = own.start + copied..own.end;
            let pool: usize = copies.iter().map(|copy| both(copy, &rest)).sum();
            account.from_pool += pool as u64;
            account.shared += (rest.len() - pool) as u64;
        });
    }

    /// The headers of the next segment: those of the last one, with other numbers, where no options
    /// differ.
    #[inline]
    fn prepare_headers<Q: TxQueue, M: DmaMemory>(
        &mut self,
        out: &mut Output<'_, Q, M>,
        position: u64,
        flags: TcpFlags,
    ) {
        if !out.prepared || flags.contains(TcpFlags::SYN) {
            out.prepared = false;
            if flags.contains(TcpFlags::SYN) || !self.headers.is_template_for(out.next_hop) {
                return self.new_headers(out, position, flags);
            }
            out.prepared = true;
            let window = self.receive.offer(true);
            let timestamps = self.echo(out.now);
            self.headers
                .set_turn(self.receive.next(), window, timestamps);
        }
        self.headers.set(self.seq(position), flags | TcpFlags::ACK);
    }

    #[cold]
    fn new_headers<Q: TxQueue, M: DmaMemory>(
        &mut self,
        out: &Output<'_, Q, M>,
        position: u64,
        flags: TcpFlags,
    ) {
        let envelope = Envelope {
            source_mac: out.config.mac,
            destination_mac: out.next_hop,
            source: *self.endpoints.local.ip(),
            destination: *self.endpoints.remote.ip(),
        };
        let header = self.header(out, position, flags);
        let is_template = !flags.contains(TcpFlags::SYN);
        self.headers = Headers::new(&envelope, &header, is_template);
    }

    fn header<Q: TxQueue, M: DmaMemory>(
        &mut self,
        out: &Output<'_, Q, M>,
        position: u64,
        mut flags: TcpFlags,
    ) -> TcpHeader {
        let syn = flags.contains(TcpFlags::SYN);
        let first_syn = self.state == State::SynSent;
        flags.set(TcpFlags::ACK, !first_syn);
        let options = if syn {
            self.syn_options(out.now, out.limits, first_syn)
        } else {
            TcpOptions {
                timestamps: self.echo(out.now),
                ..TcpOptions::default()
            }
        };
        let ack = if first_syn {
            Default::default()
        } else {
            self.receive.next()
        };
        TcpHeader {
            source_port: self.endpoints.local.port(),
            destination_port: self.endpoints.remote.port(),
            seq: self.seq(position),
            ack,
            flags,
            window: self.receive.offer(!syn),
            options,
        }
    }

    /// All options in the first SYN; in the answer to one those that it had.
    fn syn_options(&self, now: Instant, limits: &Limits, first: bool) -> TcpOptions {
        TcpOptions {
            mss: Some(limits.mss()),
            window_scale: (first || self.scaling).then(|| self.receive.wanted_scale()),
            sack_permitted: first || self.sack,
            timestamps: if first {
                Some(Timestamps {
                    value: self.timestamp(now),
                    echo: 0,
                })
            } else {
                self.echo(now)
            },
            ..TcpOptions::default()
        }
    }

    #[inline]
    fn echo(&self, now: Instant) -> Option<Timestamps> {
        self.timestamps.map(|recent| Timestamps {
            value: self.timestamp(now),
            echo: recent.value,
        })
    }

    /// The clock of our timestamps: milliseconds (RFC 7323 section 5.4 asks for 1 ms to 1 s).
    #[inline]
    pub(crate) fn timestamp(&self, now: Instant) -> u32 {
        let millis = (now.as_nanos() / 1_000_000) as u32;
        millis.wrapping_add(self.endpoints.timestamp_offset)
    }

    /// The RST that ends a connection at once; it says what the peer has said already. `None`
    /// where there is nobody to tell.
    pub(crate) fn reset_header(&self) -> Option<TcpHeader> {
        if !matches!(self.state, State::SynReceived) && !self.is_synchronised()
            || self.state == State::TimeWait
        {
            return None;
        }
        Some(TcpHeader {
            source_port: self.endpoints.local.port(),
            destination_port: self.endpoints.remote.port(),
            seq: self.seq(self.next),
            ack: self.receive.next(),
            flags: TcpFlags::RST | TcpFlags::ACK,
            ..TcpHeader::default()
        })
    }
}
