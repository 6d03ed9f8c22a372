//! One connection: requests come in, responses go out, one after the other.

use std::collections::VecDeque;
use std::net::SocketAddrV4;
use std::time::{Duration, SystemTime};

use pagewire::hal::{Instant, RegionId};
use pagewire::tcp::{ConnectionId, CopyRule, Outcome, SendOptions, Slice, State};
use pagewire_cli::http::{self, Bad, MAX_HEAD, Parsed, Response, Root, Status};

use super::journal::{Entry, Journal};
use crate::endpoint::{Claims, Endpoint, FileStream, Home, NoRoom, TEXT};
use crate::error::Failure;

/// How long a client may take to end its side after we have ended ours. What it still sends until
/// then is read and dropped: a reset would take our last bytes from it (RFC 9112 section 9.6).
const LINGER: Duration = Duration::from_secs(5);

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
    job: Option<Job>,
    /// Calls of `send` that are not over, in their order.
    calls: VecDeque<Call>,
    /// Responses that are accepted whole, and of which not all has arrived.
    entries: VecDeque<Entry>,
    claims: Claims,
    /// When the last response had arrived, or the first byte of the next request had come.
    since: Instant,
    /// Since when our side has ended.
    closed: Option<Instant>,
}

/// A response that is not accepted whole.
struct Job {
    text: RegionId,
    text_len: usize,
    /// Bytes of the text that are accepted.
    accepted: usize,
    file: Option<FileStream>,
    entry: Entry,
    closes: bool,
}

/// A call of `send`.
struct Call {
    bytes: usize,
    /// What is used up with it.
    ends: [Option<RegionId>; 2],
    /// The response ends with it.
    is_last: bool,
}

impl Client {
    pub(super) fn new(id: ConnectionId, peer: SocketAddrV4, now: Instant) -> Self {
        Self {
            id,
            peer,
            inbox: Vec::new(),
            job: None,
            calls: VecDeque::new(),
            entries: VecDeque::new(),
            claims: Claims::default(),
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
        while self.closed.is_none() {
            if self.job.is_none() && !self.begin(endpoint, root, now) {
                break;
            }
            if !self.send(endpoint, now) {
                break;
            }
            worked = true;
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
        if has_ended || self.claims.age(now) > patience.hold {
            return Fate::Ends;
        }
        let is_done = self.calls.is_empty();
        if let Some(closed) = self.closed {
            let is_late = now.saturating_since(closed) > LINGER;
            return match state {
                Some(State::TimeWait) if is_done => Fate::Rests,
                _ if is_done && is_late => Fate::Ends,
                _ => Fate::Stays,
            };
        }
        if is_done && self.job.is_none() && now.saturating_since(self.since) > patience.idle {
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
        endpoint.stack.abort(now, self.id);
        self.take_completions(endpoint, journal, now)?;
        endpoint.stack.remove(now, self.id);
        endpoint.give_up_all(&mut self.claims);
        let unfinished = self.job.take().map(|job| job.entry);
        for entry in self.entries.drain(..).chain(unfinished) {
            journal.write(&entry, now)?;
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
        while let Some(completion) = endpoint.stack.completion(now, self.id) {
            worked = true;
            let Some(call) = self.calls.pop_front() else {
                break;
            };
            let entry = match self.entries.front_mut() {
                Some(entry) => Some(entry),
                None => self.job.as_mut().map(|job| &mut job.entry),
            };
            if let Some(entry) = entry.filter(|_| completion.outcome == Outcome::Delivered) {
                entry.delivered += call.bytes as u64;
            }
            for region in call.ends.into_iter().flatten() {
                endpoint.give_up(region, &mut self.claims);
            }
            if call.is_last
                && let Some(entry) = self.entries.pop_front()
            {
                journal.write(&entry, now)?;
            }
            self.since = now;
        }
        Ok(worked)
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

    /// Begins the response to the next request, if there is one, and if there is room for it.
    fn begin<H: Home>(&mut self, endpoint: &mut Endpoint<H>, root: &Root, now: Instant) -> bool {
        if !endpoint.has_room_for_text() {
            return false;
        }
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
                self.start(endpoint, response, entry)
            }
            Parsed::Request(request, len) => {
                let found = root.find(&request);
                let mut response = http::respond(&request, found, SystemTime::now());
                if response.bytes.len() > TEXT {
                    // A long target in Location, percent by percent.
                    let bad = Bad {
                        status: Status::UriTooLong,
                        is_head: false,
                    };
                    response = http::refuse(bad, SystemTime::now());
                }
                let entry = Entry::new(self.peer, Some(&request), response.status, now);
                let started = self.start(endpoint, response, entry);
                if started {
                    self.inbox.drain(..len);
                }
                started
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
        if !self.start(endpoint, response, entry) {
            self.close(endpoint, now);
        }
    }

    fn start<H: Home>(
        &mut self,
        endpoint: &mut Endpoint<H>,
        response: Response,
        mut entry: Entry,
    ) -> bool {
        let Some(text) = endpoint.put_text(&response.bytes, &mut self.claims) else {
            return false;
        };
        let text_len = response.bytes.len();
        let range = response.sent.as_ref().map(|sent| sent.range.clone());
        let content = range.map_or(0, |range| range.end.saturating_sub(range.start));
        entry.bytes = text_len as u64 + content;
        self.job = Some(Job {
            text,
            text_len,
            accepted: 0,
            file: response
                .sent
                .map(|sent| FileStream::new(sent.file, sent.range)),
            entry,
            closes: response.closes,
        });
        true
    }

    /// Hands the next bytes of the response to the stack: its head and the beginning of the file in
    /// one call, so that they leave in one frame. Whether any were accepted.
    fn send<H: Home>(&mut self, endpoint: &mut Endpoint<H>, now: Instant) -> bool {
        let Some(job) = &mut self.job else {
            return false;
        };
        if endpoint.stack.send_room(self.id) == 0 {
            return false;
        }
        let head = Slice {
            region: job.text,
            start: job.accepted,
            len: job.text_len.saturating_sub(job.accepted),
        };
        let mut slices = [head, Slice { len: 0, ..head }];
        if let Some(file) = &mut job.file {
            match file.slice(endpoint, &mut self.claims) {
                Ok(slice) => slices[1] = slice,
                Err(NoRoom::Now) => return false,
                Err(NoRoom::Ever(why)) => {
                    log::warn!("{}: a file cannot be sent: {why}", self.peer);
                    endpoint.stack.abort(now, self.id);
                    return false;
                }
            }
        }
        let mut options = SendOptions::default();
        options.copy = CopyRule::Never;
        let accepted = endpoint.stack.send_with(now, self.id, &slices, 0, &options);
        let accepted = match accepted {
            Ok(0) => return false,
            Ok(accepted) => accepted,
            Err(error) => {
                // It has ended meanwhile, as a rule.
                log::debug!("{}: {error}", self.peer);
                endpoint.stack.abort(now, self.id);
                return false;
            }
        };
        self.claims.begin(job.text, now);
        let of_head = accepted.min(head.len);
        job.accepted += of_head;
        let mut ends = [None, None];
        if head.len > 0 && job.accepted == job.text_len {
            ends[0] = Some(job.text);
        }
        if let Some(file) = &mut job.file {
            ends[1] = file.advance(accepted - of_head);
        }
        let is_last =
            job.accepted == job.text_len && job.file.as_ref().is_none_or(FileStream::is_done);
        self.calls.push_back(Call {
            bytes: accepted,
            ends,
            is_last,
        });
        if is_last && let Some(job) = self.job.take() {
            self.entries.push_back(job.entry);
            if job.closes {
                self.close(endpoint, now);
            }
        }
        true
    }

    fn close<H: Home>(&mut self, endpoint: &mut Endpoint<H>, now: Instant) {
        endpoint.stack.close(now, self.id);
        self.closed = Some(now);
    }
}
