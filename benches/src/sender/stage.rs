//! A stack with its connections, and one round of it.

use std::sync::Arc;
use std::time::Duration;

use pagewire_hal::{Granule, Instant, Nic, Region, RegionId, RxChecksum, TxPort, TxQueue, Verdict};
use pagewire_tcp::isn::IsnGenerator;
use pagewire_tcp::{
    ConnectionId, CopyRule, SendOptions, Slice, Stack, StackConfig, StackError, Thresholds,
};

use super::case::{Bytes, Case, Payload, Size};
use super::peer::{OUR_IP, OUR_MAC, Peer, arp_reply, local, remote};
use crate::frames::Device;
use crate::frames::meter::Meter;
use crate::frames::open::RING;
use crate::platform::NotedMemory;

/// Our first port.
const FIRST_PORT: u16 = 2000;
/// Bytes of the copy pool.
const POOL: usize = 64 << 20;
/// Between two rounds.
const ROUND: Duration = Duration::from_micros(40);

/// What a device says of a frame that it has checked.
const VOUCHED: RxChecksum = RxChecksum {
    ipv4_header: Verdict::Good,
    transport: Verdict::Good,
};

struct Client {
    id: ConnectionId,
    peer: Peer,
    /// Bytes handed to `send` and not let go by the window yet.
    waiting: usize,
    /// Bytes in flight while the window is filled, and bytes sent so far.
    flight: usize,
    sent: usize,
}

/// A stack and the peers of its connections.
pub struct Stage<Q: TxQueue> {
    stack: Stack<Q, NotedMemory>,
    case: Case,
    options: SendOptions,
    regions: Vec<RegionId>,
    region_len: usize,
    /// The next slice.
    next: usize,
    random: fastrand::Rng,
    clients: Vec<Client>,
    /// The client whose turn it is.
    turn: usize,
    now: Instant,
    /// Segments that must have been sent.
    expected: u64,
}

/// What a round needs, made before it.
#[derive(Default)]
struct Round {
    acks: Vec<Vec<u8>>,
    calls: Vec<(ConnectionId, Slice)>,
    ids: Vec<ConnectionId>,
}

fn text<E: std::fmt::Display>(error: E) -> String {
    error.to_string()
}

impl<Q: TxQueue> Stage<Q> {
    /// Opens the connections of a case on `queue`, and fills their windows.
    ///
    /// # Errors
    /// What went wrong, for the user.
    pub fn new<N: Nic<Memory = NotedMemory>, D: Device>(
        case: &Case,
        nic: &mut N,
        queue: Q,
        device: &mut D,
        regions: &[Arc<dyn Region>],
    ) -> Result<Self, String> {
        let page = Granule::from_bytes(4096).unwrap_or(Granule::CONTIGUOUS);
        let config = StackConfig {
            mac: OUR_MAC,
            address: OUR_IP,
            mtu: case.size.mtu(),
            send_limit: 64 << 20,
            // So long as a case says: what is owned is lent, however short.
            thresholds: Thresholds {
                owned: 0,
                watched: 0,
                live: 0,
            },
            segmentation: case.size == Size::Tso,
            copy_limit: Some(POOL / case.connections),
            ..StackConfig::default()
        };
        let layout = config.pool_layout(queue.capabilities(), RING.into(), page);
        let small = nic.allocate(
            layout.small_len.next_multiple_of(64) * layout.small_count,
            64,
        );
        let large = nic.allocate(
            layout.large_len.next_multiple_of(64) * layout.large_count,
            64,
        );
        let (small, large) = (small.map_err(text)?, large.map_err(text)?);
        let port = TxPort::with_memory(queue, &layout, small, large).map_err(text)?;
        let mut stack = Stack::new(port, config).map_err(|error: StackError| error.to_string())?;
        let region_len = regions.first().map_or(0, |region| region.len());
        let regions = regions
            .iter()
            .map(|region| stack.register(Arc::clone(region)));
        let regions = regions.collect::<Result<Vec<_>, _>>().map_err(text)?;
        let copy = match case.bytes {
            Bytes::Owned => CopyRule::Never,
            Bytes::Copied => {
                let pool = nic.allocate(POOL, page.bytes()).map_err(text)?;
                stack.set_copy_pool(pool, page).map_err(text)?;
                CopyRule::Always
            }
        };
        let mut options = SendOptions::default();
        options.copy = copy;
        let mut stage = Self {
            stack,
            case: *case,
            options,
            regions,
            region_len,
            next: 0,
            random: fastrand::Rng::with_seed(0x5eed),
            clients: Vec::new(),
            turn: 0,
            now: Instant::from_nanos(1),
            expected: 0,
        };
        stage.connect(device)?;
        stage.fill(device)?;
        Ok(stage)
    }

    /// Bytes of the heap that are the bench's own.
    #[must_use]
    pub fn own_bytes(&self) -> usize {
        self.clients.capacity() * size_of::<Client>()
    }

    fn connect<D: Device>(&mut self, device: &mut D) -> Result<(), String> {
        let isn = IsnGenerator::new([0; 16]);
        for number in 0..self.case.connections {
            let port = FIRST_PORT + number as u16;
            let id = self
                .stack
                .connect(self.now, remote(), Some(port))
                .map_err(text)?;
            // Nobody reads the SYN: the generator tells its number.
            let first = isn.isn(self.now, local(port), remote()).add(1);
            let window = self.case.flight * self.case.size.payload();
            let peer = Peer::new(port, first, window);
            self.clients.push(Client {
                id,
                peer,
                waiting: 0,
                flight: 0,
                sent: 0,
            });
        }
        self.poll(device)?;
        self.stack.input(self.now, &arp_reply(), VOUCHED);
        for _ in 0..=self.clients.len() / 64 {
            self.poll(device)?;
        }
        for client in &self.clients {
            let syn = client.peer.syn(self.case.size.mtu() - 40);
            self.stack.input(self.now, &syn, VOUCHED);
        }
        for _ in 0..=self.clients.len() / 64 {
            self.poll(device)?;
        }
        if self
            .clients
            .iter()
            .all(|client| self.stack.is_established(client.id))
        {
            Ok(())
        } else {
            Err("a connection was not opened".into())
        }
    }

    /// Lets each window be filled: the congestion window grows by what is acknowledged.
    fn fill<D: Device>(&mut self, device: &mut D) -> Result<(), String> {
        let (wanted, slack) = (self.window(), self.slack());
        for _ in 0..10_000 {
            for index in 0..self.clients.len() {
                self.supply(index, wanted + self.case.size.payload());
                let client = &mut self.clients[index];
                if client.flight > 0 && client.flight < wanted {
                    let more = client.flight.min(2 * self.case.size.payload());
                    client.flight -= more;
                    let ack = client.peer.ack(more);
                    self.stack.input(self.now, &ack, VOUCHED);
                }
            }
            self.poll(device)?;
            self.drain();
            let mut full = true;
            for client in &mut self.clients {
                let stats = self.stack.connection_stats(client.id);
                let all = stats.map_or(0, |stats| stats.data.bytes as usize);
                let new = all - std::mem::replace(&mut client.sent, all);
                client.flight += new;
                client.waiting -= new;
                // A request waits until it is worth its while.
                full &= client.flight + slack >= wanted;
            }
            if full {
                self.expected = self.segments()?;
                return Ok(());
            }
        }
        Err("the windows were not filled".into())
    }

    /// Bytes that may not have gone yet, as a request waits for more.
    fn slack(&self) -> usize {
        match self.case.size {
            Size::Tso => 45 * self.case.size.payload(),
            Size::Mtu1500 | Size::Mtu9000 => 0,
        }
    }

    /// Bytes of whole segments that a peer's window has room for.
    fn window(&self) -> usize {
        self.case.flight * self.case.size.payload()
    }

    /// Segments posted by all connections.
    fn segments(&self) -> Result<u64, String> {
        let one = |client: &Client| self.stack.connection_stats(client.id);
        let all: Option<u64> = self
            .clients
            .iter()
            .map(|client| one(client).map(|stats| stats.data.segments))
            .sum();
        all.ok_or_else(|| "a connection is gone".into())
    }

    fn next_slice(&mut self) -> Slice {
        let len = self.case.slice;
        let per_region = self.region_len / len;
        let index = match self.case.payload {
            Payload::Hot => self.next % (per_region * self.regions.len()),
            // In no order that the processor could foresee.
            Payload::Cold => self.random.usize(..per_region * self.regions.len()),
        };
        self.next += 1;
        Slice {
            region: self.regions[index / per_region],
            start: index % per_region * len,
            len,
        }
    }

    /// Hands `send` so much that at least `len` bytes wait.
    fn supply(&mut self, index: usize, len: usize) {
        while self.clients[index].waiting < len {
            let mut slice = self.next_slice();
            let client = &self.clients[index];
            if client.waiting + client.sent == 0 {
                // So that not all connections hand in their next slices at a time.
                slice.len -= slice.len / 16 * (index % 16);
            }
            let id = client.id;
            let sent = self
                .stack
                .send_with(self.now, id, &[slice], 0, &self.options);
            self.clients[index].waiting += sent.unwrap_or(0);
            if sent != Ok(slice.len) {
                return;
            }
        }
    }

    fn drain(&mut self) {
        for client in &self.clients {
            while self.stack.completion(self.now, client.id).is_some() {}
        }
    }

    fn poll<D: Device>(&mut self, device: &mut D) -> Result<(), String> {
        self.now = self.now + ROUND;
        self.stack
            .poll(self.now)
            .map_err(|error| format!("{error:?}"))?;
        device.complete();
        self.stack
            .port_mut()
            .reclaim(&mut |_| {})
            .map_err(|error| format!("{error:?}"))?;
        Ok(())
    }

    /// What the next round needs: ACKs of the connections in turn, as one connection does not have
    /// so much in flight that all could be of it.
    fn prepare(&mut self) -> Round {
        let mut round = Round::default();
        let more = self.case.per_ack * self.case.size.payload();
        for _ in 0..self.case.acks() {
            let index = self.turn;
            self.turn = (self.turn + 1) % self.clients.len();
            let client = &mut self.clients[index];
            round.acks.push(client.peer.ack(more));
            if !round.ids.contains(&client.id) {
                round.ids.push(client.id);
            }
            // As much again as is let go, and more than a request may look ahead for.
            let ahead = match self.case.size {
                Size::Tso => more + 2 * 65536,
                Size::Mtu1500 | Size::Mtu9000 => more + self.case.size.payload() + 1,
            };
            while self.clients[index].waiting < ahead {
                let slice = self.next_slice();
                let client = &mut self.clients[index];
                client.waiting += slice.len;
                round.calls.push((client.id, slice));
            }
            self.clients[index].waiting -= more;
        }
        round
    }

    /// One round.
    ///
    /// # Errors
    /// What went wrong, for the user.
    pub fn round<D: Device>(
        &mut self,
        device: &mut D,
        meter: &mut impl Meter,
    ) -> Result<(), String> {
        let Round { acks, calls, ids } = self.prepare();
        self.now = self.now + ROUND;
        meter.begin();
        measured_ack(&mut self.stack, self.now, &acks);
        meter.end("ack");
        meter.begin();
        measured_completion(&mut self.stack, self.now, &ids);
        meter.end("completion");
        meter.begin();
        let taken = measured_send(&mut self.stack, self.now, &calls, &self.options);
        meter.end("send");
        let wanted: usize = calls.iter().map(|(_, slice)| slice.len).sum();
        if taken != wanted {
            return Err(format!("send took {taken} of {wanted} bytes"));
        }
        meter.begin();
        let polled = measured_poll(&mut self.stack, self.now);
        meter.end("poll");
        device.complete();
        meter.begin();
        let reclaimed = measured_reclaim(&mut self.stack);
        meter.end("reclaim");
        self.expected += (acks.len() * self.case.per_ack) as u64;
        if polled && reclaimed {
            Ok(())
        } else {
            Err("the queue is down".into())
        }
    }

    /// Whether all went that should have.
    ///
    /// # Errors
    /// What did not, for the user.
    pub fn check(&self) -> Result<(), String> {
        let sent = self.segments()?;
        let slack = self.slack() / self.case.size.payload() * self.clients.len();
        if sent.abs_diff(self.expected) <= slack as u64 {
            return Ok(());
        }
        let expected = self.expected;
        Err(format!(
            "{sent} segments were sent, and should be {expected}"
        ))
    }
}

#[inline(never)]
fn measured_ack<Q: TxQueue>(stack: &mut Stack<Q, NotedMemory>, now: Instant, acks: &[Vec<u8>]) {
    for ack in acks {
        stack.input(now, ack, VOUCHED);
    }
}

#[inline(never)]
fn measured_completion<Q: TxQueue>(
    stack: &mut Stack<Q, NotedMemory>,
    now: Instant,
    ids: &[ConnectionId],
) {
    for id in ids {
        while stack.completion(now, *id).is_some() {}
    }
}

#[inline(never)]
fn measured_send<Q: TxQueue>(
    stack: &mut Stack<Q, NotedMemory>,
    now: Instant,
    calls: &[(ConnectionId, Slice)],
    options: &SendOptions,
) -> usize {
    let mut sum = 0;
    for (id, slice) in calls {
        let taken = stack.send_with(now, *id, core::slice::from_ref(slice), 0, options);
        sum += taken.unwrap_or(0);
    }
    sum
}

#[inline(never)]
fn measured_poll<Q: TxQueue>(stack: &mut Stack<Q, NotedMemory>, now: Instant) -> bool {
    stack.poll(now).is_ok()
}

#[inline(never)]
fn measured_reclaim<Q: TxQueue>(stack: &mut Stack<Q, NotedMemory>) -> bool {
    stack.port_mut().reclaim(&mut |_| {}).is_ok()
}
