//! The loop of the server.

use std::net::SocketAddrV4;
use std::time::Duration;

use pagewire::hal::Instant;
use pagewire::tcp::{ConnectionId, State};
use pagewire_cli::http::Root;

use super::Args;
use super::client::{Client, Fate, Patience};
use super::journal::Journal;
use crate::endpoint::{Budget, Endpoint, Home};
use crate::error::Failure;

/// How often connections are looked at for what they may not do.
const WATCH: Duration = Duration::from_millis(50);

/// Everything that takes part.
pub(super) struct Server<H: Home> {
    endpoint: Endpoint<H>,
    root: Root,
    listen: SocketAddrV4,
    most: usize,
    clients: Vec<Client>,
    turn: usize,
    /// Those that wait for late segments alone: they count no more.
    resting: Vec<ConnectionId>,
    patience: Patience,
    journal: Journal,
    watched: Instant,
}

impl<H: Home> Server<H> {
    pub(super) fn new(args: &Args, root: Root) -> Result<Self, Failure> {
        let link = args.link.at(*args.listen.ip())?;
        let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let budget = Budget {
            connection: bytes(args.limit),
            total: bytes(args.total_limit),
            connections: usize::from(args.connections),
            // One that is being sent for each connection, and one that has not arrived.
            buffers: 2 * usize::from(args.connections),
            share_min: None,
        };
        let mut endpoint = Endpoint::<H>::open(&link, budget)?;
        let port = args.listen.port();
        let listening = endpoint.stack.listen(port);
        listening.map_err(|error| Failure::usage(format!("--listen {}: {error}", args.listen)))?;
        let journal = Journal {
            json: args.json,
            ..Journal::default()
        };
        let url = match port {
            80 => format!("http://{}/", args.listen.ip()),
            _ => format!("http://{}/", args.listen),
        };
        use pagewire::hal::Nic;
        let about = endpoint.home.about(&link, endpoint.nic.name());
        journal.begin(&url, &about, link.hint())?;
        Ok(Self {
            watched: endpoint.home.now(),
            endpoint,
            root,
            listen: args.listen,
            most: budget.connections,
            clients: Vec::new(),
            turn: 0,
            resting: Vec::new(),
            patience: Patience {
                hold: args.hold_timeout,
                idle: args.idle_timeout,
            },
            journal,
        })
    }

    /// Serves until `stop` says so.
    pub(super) fn run(&mut self, stop: &dyn Fn() -> bool) -> Result<(), Failure> {
        while !stop() {
            let now = self.endpoint.home.now();
            let mut worked = self.endpoint.receive(now)?;
            worked |= self.accept(now);
            worked |= self.serve(now)?;
            let (active, timer) = self.endpoint.work(now)?;
            worked |= active;
            if now.saturating_since(self.watched) >= WATCH {
                self.watched = now;
                self.watch(now)?;
            }
            if !worked {
                self.endpoint.sleep(now, timer);
            }
        }
        Ok(())
    }

    /// Each connection in turn, another one first each time: what there is too little of goes round.
    fn serve(&mut self, now: Instant) -> Result<bool, Failure> {
        self.turn = self.turn.wrapping_add(1);
        let mut worked = false;
        let turn = self.turn.checked_rem(self.clients.len()).unwrap_or(0);
        let (later, first) = self.clients.split_at_mut(turn);
        for client in first.iter_mut().chain(later) {
            worked |= client.work(&mut self.endpoint, &self.root, &mut self.journal, now)?;
        }
        Ok(worked)
    }

    fn accept(&mut self, now: Instant) -> bool {
        let mut worked = false;
        while self.clients.len() < self.most {
            let stack = &mut self.endpoint.stack;
            let Some(id) = stack.accept(self.listen.port()) else {
                break;
            };
            let Some((_, peer)) = stack.addresses(id) else {
                continue;
            };
            self.clients.push(Client::new(id, peer, now));
            self.journal.totals.connections += 1;
            worked = true;
        }
        worked
    }

    /// Ends connections that are over, and those that do what they may not.
    fn watch(&mut self, now: Instant) -> Result<(), Failure> {
        let mut index = 0;
        while let Some(client) = self.clients.get_mut(index) {
            match client.fate(&mut self.endpoint, self.patience, now) {
                Fate::Stays => index += 1,
                Fate::Rests => self.resting.push(self.clients.swap_remove(index).id),
                Fate::Ends => {
                    let client = self.clients.swap_remove(index);
                    client.end(&mut self.endpoint, &mut self.journal, now)?;
                }
            }
        }
        let Endpoint { outbox, stack, .. } = &mut self.endpoint;
        self.resting.retain(|id| {
            let rests = stack.state(*id) == Some(State::TimeWait);
            if !rests {
                // All that it had to tell is told.
                outbox.remove(stack, now, *id);
            }
            rests
        });
        Ok(())
    }

    /// Ends all connections, waits until no page is lent, and stops the device.
    pub(super) fn end(&mut self) -> Result<(), Failure> {
        let now = self.endpoint.home.now();
        self.endpoint.stack.unlisten(now, self.listen.port());
        for client in std::mem::take(&mut self.clients) {
            client.end(&mut self.endpoint, &mut self.journal, now)?;
        }
        let Endpoint { outbox, stack, .. } = &mut self.endpoint;
        for id in self.resting.drain(..) {
            outbox.remove(stack, now, id);
        }
        debug_assert_eq!(outbox.connections(), 0, "no connection is forgotten");
        let ended = self.endpoint.end();
        self.report();
        self.journal.end()?;
        ended
    }

    fn report(&mut self) {
        let stats = self.endpoint.stack.stats().connections;
        let files = self.endpoint.outbox.counters();
        let totals = &mut self.journal.totals;
        // What was copied was lent from where it had been copied to. If something was, whatever was
        // sent again may have been of that.
        let mut from_copies = files.copied;
        if files.copied > 0 {
            from_copies += stats.fast_retransmits.bytes + stats.timeout_retransmits.bytes;
        }
        let from_copies = from_copies.min(stats.shared_bytes);
        totals.shared_bytes = stats.shared_bytes - from_copies;
        totals.copied_bytes = stats.copied.total().bytes + stats.rescued.bytes + from_copies;
        totals.most_locked_bytes = files.most_mapped as u64;
    }
}
