//! A pair of queues with everything that works on it: its port, its sender, its connections. Lanes
//! share nothing but the input, which is fixed; each can have a thread of its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use pagewire::drivers::{AnyRx, AnyTx};
use pagewire::hal::{
    Granule, Instant, Platform, PortPair, QueueError, Region, RegionId, RxChecksum, RxQueue,
};
use pagewire::tcp::{ConnectError, ConnectionId, Slice, Stack, State};
use sha2::{Digest, Sha256};

use super::input::Input;
use super::loss::Losses;
use super::machine::Machine;
use super::scribble::Scribble;
use super::stopwatch::Stopwatch;
use super::world::REMOTE;
use crate::error::Failure;
use crate::receiver::hex;

/// Bytes offered to the sender in one call.
const OFFER: u64 = 256 << 10;
/// Slices offered in one call.
const SLICES: usize = 512;
/// Received frames handled in one round.
const RECEIVE_BUDGET: usize = 256;

/// Which lane has a local port.
pub(crate) type Owners = BTreeMap<u16, usize>;

pub(crate) type DemoStack<P> = Stack<AnyTx<P>, <P as Platform>::Memory>;

/// The input as others write to it, and its pages for the device.
pub(crate) type Scribbled = (Arc<Scribble>, Arc<dyn Region>);

type NicOf<M> = pagewire::drivers::AnyNic<<M as Machine>::Platform>;

/// A pair of queues and what is on it.
pub(crate) struct Lane<M: Machine> {
    pub(super) index: usize,
    rx: AnyRx<M::Platform>,
    pub(super) stack: DemoStack<M::Platform>,
    region: RegionId,
    sealed: Arc<M::Region>,
    /// The input is there instead, and others write to it.
    scribble: Option<Arc<Scribble>>,
    pub(super) feeds: Vec<Feed>,
    pub(super) watch: Stopwatch,
    /// Frames received here.
    pub(super) received: u64,
    /// Segments of them that were for another lane.
    pub(super) misdirected: u64,
    losses: Losses,
    scratch: Vec<u8>,
    slices: Vec<Slice>,
}

/// A connection, and how far its stream is.
pub(crate) struct Feed {
    pub(super) id: ConnectionId,
    /// Ours.
    pub(super) port: u16,
    offered: u64,
    accepted: u64,
    delivered: u64,
    hash: Sha256,
    closed: bool,
}

/// What a lane needs for a round.
pub(crate) struct Order {
    pub(super) now: Instant,
    /// Frames for this lane that came to others.
    pub(super) mail: Vec<Stray>,
}

/// A frame that came to a lane that it is not for.
#[derive(Clone)]
pub(crate) struct Stray {
    frame: Vec<u8>,
    checksum: RxChecksum,
}

/// Whom a frame is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum For {
    /// The lane of its connection.
    One(usize),
    /// All of them: the answer to an ARP request, which any of them may have sent.
    All,
}

/// What a round has brought.
pub(crate) struct Done {
    /// Whether anything moved.
    pub(super) worked: bool,
    /// When the sender wants to be called again.
    pub(super) timer: Option<Instant>,
    /// Bytes that the peer has, of all connections.
    pub(super) delivered: u64,
    /// The peer has everything, and every page has come back.
    pub(super) finished: bool,
    pub(super) strays: Vec<(For, Stray)>,
}

impl<M: Machine> Lane<M> {
    pub(super) fn new(
        index: usize,
        rx: AnyRx<M::Platform>,
        mut stack: DemoStack<M::Platform>,
        (sealed, scribble): (&Arc<M::Region>, Option<&Scribbled>),
        longest_frame: u32,
        losses: Losses,
    ) -> Result<Self, Failure> {
        let input = match scribble {
            Some((_, region)) => Arc::clone(region),
            None => Arc::clone(sealed) as _,
        };
        let region = stack
            .register(input)
            .map_err(|error| Failure::failed(format!("cannot register the input: {error}")))?;
        Ok(Self {
            index,
            rx,
            stack,
            region,
            sealed: Arc::clone(sealed),
            scribble: scribble.map(|(scribble, _)| Arc::clone(scribble)),
            feeds: Vec::new(),
            watch: Stopwatch::default(),
            received: 0,
            misdirected: 0,
            losses,
            scratch: vec![0; longest_frame as usize],
            slices: Vec::with_capacity(SLICES),
        })
    }

    /// Opens a connection from `port`, or from one that is free.
    pub(super) fn connect(&mut self, now: Instant, port: Option<u16>) -> Result<u16, Failure> {
        let failed = |error: ConnectError| Failure::failed(format!("cannot connect: {error}"));
        let id = self.stack.connect(now, REMOTE, port).map_err(failed)?;
        let port = self.stack.addresses(id).map_or(0, |(own, _)| own.port());
        self.feeds.push(Feed::new(id, port));
        Ok(port)
    }

    /// How far the input is contiguous for the device.
    pub(super) fn granule(&self) -> Granule {
        self.sealed.translation().granule()
    }

    /// Frames that came and were thrown away, as they were to be lost.
    pub(super) fn lost(&self) -> u64 {
        self.losses.lost()
    }

    /// Ends the connections' lives at the sender.
    pub(super) fn remove_connections(&mut self, now: Instant) {
        for feed in &self.feeds {
            self.stack.remove(now, feed.id);
        }
    }

    /// For a reset of the device.
    pub(super) fn port_pair(&mut self) -> PortPair<'_, NicOf<M>> {
        PortPair {
            tx: self.stack.port_mut(),
            rx: &mut self.rx,
        }
    }

    /// One round: feeds the connections, and lets driver and sender work.
    pub(super) fn round(
        &mut self,
        order: Order,
        input: &Input,
        owners: &Owners,
    ) -> Result<Done, Failure> {
        let now = order.now;
        self.watch.lap();
        let mut worked = !order.mail.is_empty();
        for Stray { frame, checksum } in order.mail {
            self.stack.input(now, &frame, checksum);
        }
        for index in 0..self.feeds.len() {
            worked |= self.feed(now, index, input)?;
        }
        let strays = self.receive(now, owners, &mut worked)?;
        let posted = self.stack.port().counters().frames;
        let timer = self.stack.poll(now).map_err(nic_failed)?;
        worked |= self.stack.port().counters().frames != posted;
        worked |= self.take_completions(now)?;
        let lap = self.watch.lap();
        self.watch.sender += lap;
        Ok(Done {
            worked,
            timer,
            delivered: self.feeds.iter().map(|feed| feed.delivered).sum(),
            finished: self.finished(input.len),
            strays,
        })
    }

    /// Offers the next bytes to a connection, and hashes what it accepts.
    fn feed(&mut self, now: Instant, index: usize, input: &Input) -> Result<bool, Failure> {
        let Self {
            stack,
            feeds,
            slices,
            watch,
            scribble,
            ..
        } = self;
        let options = scribble.as_ref().map(|scribble| scribble.options());
        let Some(feed) = feeds.get_mut(index) else {
            return Ok(false);
        };
        if !stack.is_established(feed.id) || feed.accepted == input.len {
            return Ok(false);
        }
        slices.clear();
        let mut position = feed.accepted;
        while position < input.len && position - feed.accepted < OFFER && slices.len() < SLICES {
            let (start, len) = input.piece_at(position);
            let len = len.min((OFFER - (position - feed.accepted)) as usize);
            slices.push(Slice {
                region: self.region,
                start,
                len,
            });
            position += len as u64;
        }
        feed.offered += 1;
        let accepted = stack
            .send_with(
                now,
                feed.id,
                slices,
                feed.offered,
                &options.unwrap_or_default(),
            )
            .map_err(|error| Failure::failed(format!("cannot send: {error}")))?;
        let lap = watch.lap();
        watch.sender += lap;
        match scribble {
            Some(scribble) => scribble.hash(&mut feed.hash, slices, accepted)?,
            None => feed.hash_accepted(M::bytes(&self.sealed), slices, accepted),
        }
        let lap = watch.lap();
        watch.hash += lap;
        feed.accepted += accepted as u64;
        if feed.accepted == input.len && !feed.closed {
            feed.closed = true;
            stack.close(now, feed.id);
        }
        Ok(accepted > 0)
    }

    /// Takes what the receive queue has; what is for other lanes is returned.
    fn receive(
        &mut self,
        now: Instant,
        owners: &Owners,
        worked: &mut bool,
    ) -> Result<Vec<(For, Stray)>, Failure> {
        let Self {
            index,
            rx,
            stack,
            scratch,
            misdirected,
            losses,
            ..
        } = self;
        let mut strays = Vec::new();
        let received = rx.receive(RECEIVE_BUDGET, &mut |frame| {
            if losses.takes_one() {
                return;
            }
            let checksum = frame.checksum();
            let frame = frame.copy_to(scratch);
            let whose = whose(frame, owners, *index);
            if whose != For::One(*index) {
                let frame = frame.to_vec();
                strays.push((whose, Stray { frame, checksum }));
            }
            match whose {
                For::One(other) if other != *index => *misdirected += 1,
                _ => stack.input(now, frame, checksum),
            }
        });
        let received = received.map_err(nic_failed)?;
        self.received += received as u64;
        *worked |= received > 0;
        Ok(strays)
    }

    fn take_completions(&mut self, now: Instant) -> Result<bool, Failure> {
        let mut worked = false;
        for feed in &mut self.feeds {
            while let Some(completion) = self.stack.completion(now, feed.id) {
                feed.delivered += completion.bytes as u64;
                worked = true;
            }
            if let Some(error) = self.stack.error(feed.id) {
                return Err(Failure::failed(format!("the connection broke: {error}")));
            }
        }
        Ok(worked)
    }

    fn finished(&self, len: u64) -> bool {
        let is_over = |feed: &Feed| {
            let state = self.stack.state(feed.id);
            feed.delivered == len && matches!(state, Some(State::TimeWait | State::Closed))
        };
        self.stack.port().outstanding() == 0 && self.feeds.iter().all(is_over)
    }

    /// The connections' states, for whoever wonders why nothing moves.
    pub(super) fn states(&self) -> Vec<Option<State>> {
        let states = self.feeds.iter().map(|feed| self.stack.state(feed.id));
        states.collect()
    }
}

impl Feed {
    fn new(id: ConnectionId, port: u16) -> Self {
        Self {
            id,
            port,
            offered: 0,
            accepted: 0,
            delivered: 0,
            hash: Sha256::new(),
            closed: false,
        }
    }

    fn hash_accepted(&mut self, bytes: &[u8], slices: &[Slice], accepted: usize) {
        let mut left = accepted;
        for slice in slices {
            let len = slice.len.min(left);
            let sent = bytes.get(slice.start..slice.start + len);
            self.hash.update(sent.unwrap_or_default());
            left -= len;
        }
    }

    /// SHA-256 of what was sent.
    pub(super) fn digest(&self) -> String {
        hex(&self.hash.clone().finalize())
    }
}

fn nic_failed(error: QueueError) -> Failure {
    Failure::failed(format!("the NIC: {error}"))
}

/// Whom a frame is for that came to the lane `here`.
fn whose(frame: &[u8], owners: &Owners, here: usize) -> For {
    if is_arp_reply(frame) {
        return For::All;
    }
    let owner = local_port(frame).and_then(|port| owners.get(&port));
    For::One(owner.copied().unwrap_or(here))
}

fn is_arp_reply(frame: &[u8]) -> bool {
    const ARP: [u8; 2] = [8, 6];
    const REPLY: [u8; 2] = [0, 2];
    frame.get(12..14) == Some(&ARP) && frame.get(20..22) == Some(&REPLY)
}

/// The destination port, if the frame holds a TCP segment over IPv4.
fn local_port(frame: &[u8]) -> Option<u16> {
    const IPV4: [u8; 2] = [8, 0];
    const TCP: u8 = 6;
    let packet = frame.get(14..)?;
    let header_len = usize::from(packet.first()? & 0xf) * 4;
    if frame.get(12..14)? != IPV4 || *packet.get(9)? != TCP {
        return None;
    }
    let port = packet.get(header_len + 2..header_len + 4)?;
    Some(u16::from_be_bytes([*port.first()?, *port.get(1)?]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_goes_to_the_lane_of_its_port() {
        let owners = Owners::from([(7, 0), (0x1234, 2)]);
        let whose = |frame: &[u8]| super::whose(frame, &owners, 5);
        let mut frame = [0; 54];
        frame[12..15].copy_from_slice(&[8, 0, 0x45]);
        frame[23] = 6;
        frame[36..38].copy_from_slice(&[0x12, 0x34]);
        assert_eq!(whose(&frame), For::One(2));
        frame[14] = 0x46; // An option: the port is four bytes later.
        assert_eq!(whose(&frame), For::One(5), "nobody's port");
        frame[40..42].copy_from_slice(&[0, 7]);
        assert_eq!(whose(&frame), For::One(0));
        assert_eq!(whose(&frame[..41]), For::One(5), "cut off");
        frame[23] = 17;
        assert_eq!(whose(&frame), For::One(5), "UDP");
        assert_eq!(whose(&[]), For::One(5));
    }

    #[test]
    fn an_answer_to_arp_goes_to_all() {
        let mut frame = [0; 42];
        frame[12..14].copy_from_slice(&[8, 6]);
        frame[21] = 1;
        assert_eq!(whose(&frame, &Owners::new(), 3), For::One(3), "a question");
        frame[21] = 2;
        assert_eq!(whose(&frame, &Owners::new(), 3), For::All);
    }
}
