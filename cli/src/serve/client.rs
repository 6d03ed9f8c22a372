//! One connection: requests come in, responses go out, one after the other.

use std::collections::VecDeque;
use std::net::SocketAddrV4;
use std::time::{Duration, SystemTime};

use pagewire::hal::Instant;
use pagewire::outbox::{Done, Message};
use pagewire::tcp::{ConnectionId, CopyRule, SendOptions, State};
use pagewire_cli::http::{self, Bad, MAX_HEAD, Parsed, Response, Root, Status};

use super::journal::{Entry, Journal};
use crate::endpoint::{Endpoint, Home};
use crate::error::Failure;

/// How long a client may take to end its side after we have ended ours. What it still sends until
/// then is read and dropped: a reset would take our last bytes from it (RFC 9112 section 9.6).
const LINGER: Duration = Duration::from_secs(5);

/// The longest head of a response.
const LONGEST_HEAD: usize = 4096;

/// Times that bound what a client may do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// How long a page may be held.
    pub(super) hold: Duration,
    /// How long there may be no request.
    pub(super) idle: Duration,
}

/// What is to become of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    /// It goes on.
    Stays,
    /// All has arrived, and both sides have ended: nothing is left but late segments.
    Rests,
    /// It is over, or is to be.
    Ends,
}

/// A connection.
pub(super) struct Client {
    pub(super) id: ConnectionId,
    peer: SocketAddrV4,
    inbox: Vec<u8>,
    /// Responses of which not all has arrived, in their order.
    entries: VecDeque<Entry>,
    /// When the last response had arrived, or the first byte of the next request had come.
    since: Instant,
    /// Since when our side has ended, or is to end behind what is on its way, of which the last has
    /// arrived then.
    closed: Option<Instant>,
}

impl Client {
    pub(super) fn new(id: ConnectionId, peer: SocketAddrV4, now: Instant) -> Self {
        Self {
            id,
            peer,
            inbox: Vec::new(),
            entries: VecDeque::new(),
            since: now,
            closed: None,
        }
    }

    /// Does what can be done now; whether it was anything.
    pub(super) fn work<H: Home>(
        &mut self,
        endpoint: &mut Endpoint<H>,
        root: &Root,
        journal: &mut Journal,
        now: Instant,
    ) -> Result<bool, Failure> {
        let mut worked = self.take_completions(endpoint, journal, now)?;
        worked |= self.read(endpoint, now);
        // The next response is made when the stack has all of the last one.
        if self.closed.is_none() && endpoint.outbox.waiting(self.id) == 0 {
            worked |= self.begin(endpoint, root, now);
        }
        Ok(worked)
    }

    /// What is to become of it: it ends when for longer than it may it has held pages, been silent, or
    /// not ended its side.
    pub(super) fn fate<H: Home>(
        &mut self,
        endpoint: &mut Endpoint<H>,
        patience: Patience,
        now: Instant,
    ) -> Fate {
        let state = endpoint.stack.state(self.id);
        let has_ended = matches!(state, None | Some(State::Closed));
        if has_ended || endpoint.outbox.held(now, self.id) > patience.hold {
            return Fate::Ends;
        }
        let is_done = self.entries.is_empty();
        if let Some(closed) = self.closed {
            let is_late = now.saturating_since(closed) > LINGER;
            return match state {
                Some(State::TimeWait) if is_done => Fate::Rests,
                _ if is_done && is_late => Fate::Ends,
                _ => Fate::Stays,
            };
        }
        if is_done && now.saturating_since(self.since) > patience.idle {
            if self.inbox.is_empty() {
                self.close(endpoint, now);
            } else {
                self.refuse(endpoint, Status::RequestTimeout, now);
            }
        }
        Fate::Stays
    }

    /// Ends it, whatever it is doing.
    pub(super) fn end<H: Home>(
        mut self,
        endpoint: &mut Endpoint<H>,
        journal: &mut Journal,
        now: Instant,
    ) -> Result<(), Failure> {
        for done in endpoint.outbox.remove(&mut endpoint.stack, now, self.id) {
            self.over(&done, journal, now)?;
        }
        Ok(())
    }

    fn take_completions<H: Home>(
        &mut self,
        endpoint: &mut Endpoint<H>,
        journal: &mut Journal,
        now: Instant,
    ) -> Result<bool, Failure> {
        let mut worked = false;
        while let Some(done) = endpoint.outbox.done(self.id) {
            worked = true;
            self.over(&done, journal, now)?;
        }
        Ok(worked)
    }

    /// A response is over.
    fn over(&mut self, done: &Done, journal: &mut Journal, now: Instant) -> Result<(), Failure> {
        self.since = now;
        if let Some(closed) = &mut self.closed {
            *closed = now;
        }
        let Some(mut entry) = self.entries.pop_front() else {
            return Ok(());
        };
        entry.delivered = done.delivered;
        journal.write(&entry, now)
    }

    /// Reads what has come, as much as one request may have.
    fn read<H: Home>(&mut self, endpoint: &mut Endpoint<H>, now: Instant) -> bool {
        if endpoint.stack.received(self.id) == 0 {
            return false;
        }
        if self.closed.is_some() {
            self.inbox.clear();
        }
        let before = self.inbox.len();
        self.inbox.resize(MAX_HEAD, 0);
        let place = self.inbox.get_mut(before..).unwrap_or_default();
        let count = endpoint.stack.receive(self.id, place).unwrap_or(0);
        self.inbox.truncate(before + count);
        // What follows the first byte of a request does not buy it more time.
        if count > 0 && before == 0 {
            self.since = now;
        }
        count > 0
    }

    /// Begins the response to the next request, if there is one.
    fn begin<H: Home>(&mut self, endpoint: &mut Endpoint<H>, root: &Root, now: Instant) -> bool {
        match http::parse(&self.inbox) {
            Parsed::Incomplete => {
                if endpoint.stack.peer_finished(self.id) {
                    self.close(endpoint, now);
                }
                false
            }
            Parsed::Bad(bad) => {
                let response = http::refuse(bad, SystemTime::now());
                let entry = Entry::new(self.peer, None, response.status, now);
                self.start(endpoint, response, entry, now);
                true
            }
            Parsed::Request(request, len) => {
                let found = root.find(&request);
                let mut response = http::respond(&request, found, SystemTime::now());
                if response.bytes.len() > LONGEST_HEAD {
                    // A long target in Location, percent by percent.
                    let bad = Bad {
                        status: Status::UriTooLong,
                        is_head: false,
                    };
                    response = http::refuse(bad, SystemTime::now());
                }
                let entry = Entry::new(self.peer, Some(&request), response.status, now);
                self.start(endpoint, response, entry, now);
                self.inbox.drain(..len);
                true
            }
        }
    }

    fn refuse<H: Home>(&mut self, endpoint: &mut Endpoint<H>, status: Status, now: Instant) {
        let bad = Bad {
            status,
            is_head: false,
        };
        let response = http::refuse(bad, SystemTime::now());
        let entry = Entry::new(self.peer, None, status, now);
        self.start(endpoint, response, entry, now);
    }

    /// Hands over a response: its head and the beginning of the file leave in one frame.
    fn start<H: Home>(
        &mut self,
        endpoint: &mut Endpoint<H>,
        response: Response,
        mut entry: Entry,
        now: Instant,
    ) {
        let mut options = SendOptions::default();
        options.copy = CopyRule::Never;
        let mut message = Message::new().options(options).text(response.bytes);
        if let Some(sent) = response.sent {
            message = message.file(sent.file, sent.range);
        }
        entry.bytes = message.len();
        endpoint.outbox.send(self.id, message);
        self.entries.push_back(entry);
        if response.closes {
            self.close(endpoint, now);
        }
    }

    fn close<H: Home>(&mut self, endpoint: &mut Endpoint<H>, now: Instant) {
        let Endpoint { outbox, stack, .. } = endpoint;
        outbox.close(stack, now, self.id);
        self.closed = Some(now);
    }
}
