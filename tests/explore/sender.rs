//! One TCP connection with three segments of two regions, and the device and the peer in all
//! orders: completions, acknowledgments, losses, resets of both kinds, and the ways to end.

use std::net::SocketAddrV4;
use std::ops::Range;
use std::time::Duration;

use pagewire::hal::{
    Granule, Instant, MacAddress, Nic, PoolLayout, PortPair, QueueError, RxChecksum, TxPort,
    Verdict, restart,
};
use pagewire::tcp::{ConnectionError, ConnectionId, Slice, Stack, StackConfig, State};

use crate::device::{Device, Queue, Receive};
use crate::machine::{Fault, Machine, PoolMemory, Power, Stage};
use crate::search::{World, same};
use crate::sender_books::{
    Action, BLOCKS, BOUNDARIES, Books, MAX_RETRIES, PAGE, REGIONS, STREAM, Setup, WAIT, WINDOW,
};
use crate::wire::{ACK, FIN, OUR_IP, OUR_MAC, PEER_IP, PEER_PORT, RST, SYN, Seen, Told, arp_reply};

/// A stack on the machine, its peer, and the books.
pub(crate) struct Sender {
    pub(crate) setup: Setup,
    pub(crate) machine: Machine,
    pub(crate) device: Device,
    pub(crate) stack: Stack<Queue, PoolMemory>,
    pub(crate) id: ConnectionId,
    pub(crate) now: Instant,
    /// When the stack wants to be polled.
    pub(crate) next_call: Option<Instant>,
    pub(crate) our_port: u16,
    /// Sequence number of the first byte of the stream.
    pub(crate) first: u32,
    /// The peer's next sequence number.
    pub(crate) seq: u32,
    pub(crate) books: Books,
    /// Regions that the stack has handed out.
    pub(crate) handed_out: u32,
}

impl Sender {
    fn give(&mut self, frame: &[u8]) {
        let vouched = RxChecksum {
            ipv4_header: Verdict::Good,
            transport: Verdict::Good,
        };
        self.stack.input(self.now, frame, vouched);
    }

    fn told(&self, flags: u8) -> Told {
        let window = if self.books.shut { 0 } else { WINDOW };
        Told {
            to: self.our_port,
            seq: self.seq,
            ack: self.first.wrapping_add(self.books.una as u32),
            flags,
            window,
            sack: None,
        }
    }

    /// Position of a sequence number in the stream, if it is near.
    pub(crate) fn position(&self, seq: u32) -> Option<usize> {
        let position = seq.wrapping_sub(self.first) as usize;
        (position <= STREAM + 1).then_some(position)
    }

    /// Positions that a segment takes.
    pub(crate) fn range(&self, seen: &Seen) -> Option<Range<usize>> {
        let start = self.position(seen.seq)?;
        (!seen.payload.is_empty()).then(|| start..start + seen.payload.len())
    }

    fn ack(&mut self, position: usize) {
        let told = Told {
            ack: self.first.wrapping_add(position as u32),
            ..self.told(ACK)
        };
        self.give(&told.frame());
        // What was never sent, or is acknowledged already, changes nothing.
        if self.books.live && position <= self.books.next && position > self.books.una {
            self.books.una = position;
            self.books.duplicates = 0;
        }
    }

    fn poll(&mut self) -> Result<(), String> {
        let works = self.machine.lock().power == Power::Running;
        self.books.waited = false;
        self.books.since_poll.clear();
        match self.stack.poll(self.now) {
            Ok(next_call) if works => self.next_call = next_call,
            Err(QueueError::Down) if !works => {}
            other => return Err(format!("poll: {other:?}, works: {works}")),
        }
        Ok(())
    }

    fn stop(&mut self) {
        self.device.begin_reset(self.now);
        self.machine.lock().power = Power::Quiet;
    }

    fn restart(&mut self) -> Result<(), String> {
        let pair = PortPair {
            tx: self.stack.port_mut(),
            rx: &mut Receive,
        };
        restart(&mut self.device, &mut [pair]).map_err(|error| format!("restart: {error}"))
    }

    /// An established connection that has accepted both regions and not posted a byte of them.
    fn establish(&mut self) -> Result<(), String> {
        self.poll()?;
        self.give(&arp_reply());
        self.settle()?;
        let log = std::mem::take(&mut self.machine.lock().log);
        let syn = Seen::parse(log.last().ok_or("no SYN")?)?.ok_or("no TCP")?;
        same!(syn.flags, SYN, "flags of the SYN");
        self.our_port = syn.from;
        self.first = syn.seq.wrapping_add(1);
        self.seq = 7000;
        let answer = self.told(SYN | ACK);
        self.give(&answer.frame());
        self.seq += 1;
        self.settle()?;
        let regions = REGIONS.iter().enumerate();
        for (index, (start, len)) in regions {
            let page = Granule::from_bytes(PAGE).unwrap();
            let region = self.machine.region(index, *start, *len, page);
            let region = self.stack.register(region).unwrap();
            let slice = Slice {
                region,
                start: 0,
                len: *len,
            };
            let accepted = self.stack.send(self.id, &[slice], index as u64);
            same!(accepted, Ok(*len), "accepted");
            // The program lets go at once: the last holder gives the region back.
            self.stack.release_region(region).unwrap();
        }
        self.books.live = true;
        self.agree()
    }

    /// Sends and completes what there is.
    fn settle(&mut self) -> Result<(), String> {
        self.poll()?;
        while !self.machine.lock().at(Stage::Rung).is_empty() {
            self.machine.lock().complete(0);
        }
        self.poll()
    }

    fn play(&mut self, steps: &mut u64, actions: &[Action]) -> Result<(), String> {
        for action in actions {
            *steps += 1;
            self.apply(*action)
                .map_err(|what| format!("at {action:?} of the ending: {what}"))?;
        }
        Ok(())
    }

    fn complete_all(&mut self, steps: &mut u64) -> Result<(), String> {
        while !self.machine.lock().at(Stage::Rung).is_empty() {
            self.play(steps, &[Action::Complete(0)])?;
        }
        self.play(steps, &[Action::Poll])
    }

    /// A device that works, and a peer that takes everything.
    fn deliver(&mut self, steps: &mut u64) -> Result<(), String> {
        for _ in 0..12 {
            if !self.books.live || self.books.una >= STREAM {
                break;
            }
            self.play(steps, &[Action::Open, Action::Wait, Action::Poll])?;
            self.complete_all(steps)?;
            self.play(steps, &[Action::Ack(self.books.next)])?;
        }
        same!(
            self.books.una >= STREAM || !self.books.live,
            true,
            "everything is delivered"
        );
        self.complete_all(steps)
    }
}

impl World for Sender {
    type Setup = Setup;
    type Action = Action;
    const ENDINGS: &'static [&'static str] = &["Deliver", "Aborted", "DeviceReset", "Drop"];

    fn new(setup: &Setup) -> Self {
        let machine = Machine::new(8, Fault::None);
        let (mut device, queue) = Device::new(&machine, setup.max_fragments);
        let config = StackConfig {
            mac: MacAddress(OUR_MAC),
            address: OUR_IP.into(),
            mtu: 300,
            min_rto: Duration::from_secs(1),
            max_rto: Duration::from_secs(1),
            max_retries: MAX_RETRIES,
            nagle: false,
            secret: [7; 16],
            ..StackConfig::default()
        };
        let layout = PoolLayout {
            small_len: 128,
            small_count: 8,
            large_len: 320,
            large_count: 4,
            page: Granule::from_bytes(PAGE).unwrap(),
        };
        let port = TxPort::new(&mut device, queue, &layout).unwrap();
        let mut stack = Stack::new(port, config).unwrap();
        let now = Instant::from_nanos(1_000_000_000);
        let remote = SocketAddrV4::new(PEER_IP.into(), PEER_PORT);
        let id = stack.connect(now, remote, None).unwrap();
        let mut sender = Self {
            setup: setup.clone(),
            machine,
            device,
            stack,
            id,
            now,
            next_call: None,
            our_port: 0,
            first: 0,
            seq: 0,
            books: Books::default(),
            handed_out: 0,
        };
        sender.establish().unwrap();
        sender.machine.lock().fault = setup.fault;
        for action in setup.begin {
            sender.apply(*action).unwrap();
        }
        sender
    }

    fn enabled(&self) -> Vec<Action> {
        let books = &self.books;
        let (rung, power) = {
            let state = self.machine.lock();
            (state.at(Stage::Rung).len(), state.power)
        };
        let mut actions = vec![Action::Poll];
        if power == Power::Running {
            actions.extend((0..rung).map(Action::Complete));
        }
        if !books.waited {
            actions.push(Action::Wait);
        }
        if self.setup.resets {
            actions.push(match power {
                Power::Running => Action::Stop,
                _ => Action::Restart,
            });
        }
        if books.removed {
            return actions;
        }
        actions.push(Action::Remove);
        let places = BOUNDARIES.iter().chain(&[STREAM + 1]);
        let new = places.filter(|place| **place > books.una);
        // The last of them is not sent yet, and acknowledges nothing.
        let sent = new.clone().filter(|place| **place <= books.next).count();
        actions.extend(new.take(sent + 1).map(|place| Action::Ack(*place)));
        if !books.live {
            return actions;
        }
        actions.extend([Action::Reset, Action::Abort]);
        if !books.closed {
            actions.push(Action::Close);
        }
        if !self.setup.chatter {
            return actions;
        }
        if books.una > 0 {
            // Older than what is acknowledged.
            actions.push(Action::Ack(0));
        }
        for (index, block) in BLOCKS.iter().enumerate() {
            if block.start > books.una && block.end <= books.next {
                actions.push(Action::Sack(index));
            }
        }
        actions.extend([Action::Duplicate, Action::ForgedReset]);
        actions.push(if books.shut {
            Action::Open
        } else {
            Action::Shut
        });
        if !books.peer_finished {
            actions.push(Action::PeerFin);
        }
        actions
    }

    fn apply(&mut self, action: Action) -> Result<(), String> {
        let quiet = [Action::Wait, Action::Stop, Action::Restart, Action::Abort];
        if !matches!(action, Action::Complete(_)) && !quiet.contains(&action) {
            self.books.since_poll.push(format!("{action:?}"));
            self.books.since_poll.sort_unstable();
        }
        match action {
            Action::Poll => self.poll()?,
            Action::Complete(nth) => self.machine.lock().complete(nth),
            Action::Ack(position) => self.ack(position),
            Action::Sack(index) => {
                let block = &BLOCKS[index];
                let place = |at: usize| self.first.wrapping_add(at as u32);
                let told = Told {
                    sack: Some((place(block.start), place(block.end))),
                    ..self.told(ACK)
                };
                self.give(&told.frame());
                self.books.sacked[index] = true;
                self.books.duplicates += 1;
            }
            Action::Duplicate => {
                self.give(&self.told(ACK).frame());
                self.books.duplicates += 1;
            }
            Action::Shut | Action::Open => {
                self.books.shut = action == Action::Shut;
                self.give(&self.told(ACK).frame());
            }
            Action::Wait => {
                self.now = self.now + WAIT;
                self.books.waited = true;
                self.books.waits += 1;
            }
            Action::Reset => {
                self.give(&self.told(RST | ACK).frame());
                self.books.live = false;
            }
            Action::ForgedReset => {
                let told = self.told(RST | ACK);
                let seq = told.seq.wrapping_add(9);
                self.give(&Told { seq, ..told }.frame());
            }
            Action::PeerFin => {
                self.give(&self.told(FIN | ACK).frame());
                self.seq = self.seq.wrapping_add(1);
                self.books.peer_finished = true;
            }
            Action::Abort => {
                self.stack.abort(self.now, self.id);
                self.books.live = false;
            }
            Action::Close => {
                self.stack.close(self.now, self.id);
                self.books.closed = true;
            }
            Action::Remove => {
                self.stack.remove(self.now, self.id);
                self.books.live = false;
                self.books.removed = true;
            }
            Action::Stop => self.stop(),
            Action::Restart => self.restart()?,
        }
        self.agree()
    }

    fn key(&self) -> Vec<u8> {
        let books = &self.books;
        let mut key = vec![books.una as u8, books.next as u8, books.told as u8];
        for flag in [
            books.live,
            books.removed,
            books.closed,
            books.peer_finished,
            books.shut,
            books.waited,
            books.sacked[0],
            books.sacked[1],
        ] {
            key.push(u8::from(flag));
        }
        // A segment or a call may leave something behind that the next poll sends.
        key.extend([books.waits as u8, books.duplicates]);
        key.extend(books.since_poll.concat().bytes());
        let state = self.machine.lock();
        key.push(state.power as u8);
        for held in &state.posted {
            key.extend([held.token.0 as u8, held.stage as u8]);
            // Sequence number, flags.
            key.extend(held.bytes.get(38..48).unwrap_or_default());
        }
        key.push(0xff);
        key.extend(state.done.iter().map(|token| token.0 as u8));
        // The stack's own view: what it waits for, and what has happened to it. The window of
        // congestion and the timer follow from that.
        let wait = self.next_call.map(|at| at.saturating_since(self.now));
        let text = format!("{:?}{wait:?}", self.stack.state(self.id));
        key.extend(text.bytes());
        if let Some(stats) = self.stack.connection_stats(self.id) {
            for count in [
                stats.data.segments,
                stats.control_segments,
                stats.fast_retransmits.segments,
                stats.timeout_retransmits.segments,
                stats.timeouts,
                stats.duplicate_acks,
                stats.challenge_acks,
                stats.segments_not_kept,
                stats.window_probes,
            ] {
                key.push(count as u8);
            }
        }
        key
    }

    fn events(&self) -> Vec<&'static str> {
        let books = &self.books;
        let state = self.stack.state(self.id);
        let error = self.stack.error(self.id);
        let free = self.handed_out;
        let mut events = vec![
            (free == 2, "all given back"),
            (free == 1, "one region given back"),
            (books.told == 1, "one call completed"),
            (state == Some(State::Closed) && error.is_none(), "closed"),
            (error == Some(ConnectionError::TimedOut), "timed out"),
            (error == Some(ConnectionError::Reset), "reset"),
        ];
        if let Some(stats) = self.stack.connection_stats(self.id) {
            events.extend([
                (stats.put_off > 0, "put off"),
                (stats.timeout_retransmits.segments > 0, "sent again"),
                (stats.fast_retransmits.segments > 0, "fast retransmit"),
                (stats.copied.total().segments > 0, "copied"),
                (stats.shared_segments > 0, "shared"),
                (stats.refused_posts > 0, "refused"),
                (stats.window_probes > 0, "probed"),
                (stats.challenge_acks > 0, "challenged"),
            ]);
        }
        let machine = self.machine.lock();
        let out = !machine.posted.is_empty();
        events.extend([
            (machine.power == Power::Quiet && out, "stopped with frames"),
            (books.una >= STREAM && out, "acknowledged, not done"),
            (!books.live && out && free < 2, "over, not done"),
        ]);
        let came = events.into_iter().filter(|(came, _)| *came);
        came.map(|(_, event)| event).collect()
    }

    fn finish(mut self, ending: usize) -> Result<u64, String> {
        let mut steps = 1;
        if ending < 3 {
            if self.machine.lock().power == Power::Quiet {
                self.play(&mut steps, &[Action::Restart])?;
            }
            match ending {
                0 => self.deliver(&mut steps)?,
                1 => {
                    self.play(&mut steps, &[Action::Abort])?;
                    self.complete_all(&mut steps)?;
                    self.complete_all(&mut steps)?;
                }
                _ => {
                    self.play(&mut steps, &[Action::Stop, Action::Restart])?;
                    self.play(&mut steps, &[Action::Poll, Action::Remove])?;
                    self.complete_all(&mut steps)?;
                }
            }
            same!(self.machine.lock().drops, [1, 1, 0], "all is given back");
        }
        self.drop_stack()?;
        Ok(steps)
    }
}
