//! The stack: one port, one address, its connections.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BinaryHeap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::fmt;
use core::net::{Ipv4Addr, SocketAddrV4};
use core::time::Duration;

use pagewire_hal::{
    CopyPool, DmaMemory, Instant, LendError, MacAddress, Region, RegionId, TxPort, TxQueue,
};

use crate::connection::{Connection, ConnectionError, Endpoints, State};
use crate::isn::{IsnGenerator, Purpose};
use crate::neighbour::Neighbours;
use crate::route::RouteTable;
use crate::share::{Held, Shares};
use crate::stack_config::{ConnectError, Limits, SendError, StackConfig, StackError};
use crate::stats::{ConnectionStats, StackStats};
use crate::transmit::Device;
use crate::wire::TcpHeader;

/// First port that is given to connections that do not ask for one (RFC 6335 section 6).
const FIRST_EPHEMERAL: u16 = 49152;
/// How many there are.
const EPHEMERAL_PORTS: u16 = u16::MAX - FIRST_EPHEMERAL + 1;
/// RSTs that wait for the next poll; more are not sent.
const MAX_WAITING_RESETS: usize = 64;

/// Names a connection of one stack; never names another one later.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct ConnectionId {
    pub(crate) index: u32,
    generation: u64,
}

/// A place for a connection.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) generation: u64,
    pub(crate) connection: Option<Box<Connection>>,
}

/// Connections that a listener has and the program has not accepted.
#[derive(Debug, Default)]
pub(crate) struct Listener {
    /// Established, in order.
    pub(crate) ready: VecDeque<ConnectionId>,
    /// Half-open and established.
    pub(crate) waiting: usize,
}

/// A four-tuple without the address of the stack: remote address, remote port, local port.
#[inline]
pub(crate) fn key(remote: SocketAddrV4, local_port: u16) -> u64 {
    u64::from(remote.ip().to_bits()) << 32 | u64::from(remote.port()) << 16 | u64::from(local_port)
}

/// An RST that is to be sent.
#[derive(Debug)]
pub(crate) struct PendingReset {
    pub(crate) header: TcpHeader,
    pub(crate) destination: Ipv4Addr,
    /// Where the segment came from that is answered; `None`: ARP is asked.
    pub(crate) mac: Option<MacAddress>,
}

/// A TCP over IPv4 on one transmit port. It does no input or output by itself, and has no clock:
/// received frames and the time are arguments.
///
/// Call [`input`](Self::input) for each received frame and [`poll`](Self::poll) afterwards, at
/// the time that the last `poll` named, and after completions. The program's calls take effect
/// with the next `poll`.
///
/// Dropped, it gives back all loans of its connections, without a word to the peers; call
/// [`abort`](Self::abort) and `poll` before to tell them. What the device still reads stays in
/// the port, which leaks it.
pub struct Stack<Q: TxQueue, M: DmaMemory> {
    pub(crate) port: TxPort<Q, M>,
    pub(crate) config: StackConfig,
    pub(crate) limits: Limits,
    pub(crate) device: Device,
    pub(crate) routes: RouteTable,
    pub(crate) neighbours: Neighbours,
    pub(crate) isn: IsnGenerator,
    pub(crate) places: Vec<Place>,
    vacant: Vec<u32>,
    pub(crate) tuples: BTreeMap<u64, u32>,
    pub(crate) listeners: BTreeMap<u16, Listener>,
    /// Connections that may have something to send.
    pub(crate) ready: VecDeque<u32>,
    /// Those of them that wait for completions.
    pub(crate) stalled: VecDeque<u32>,
    /// Connections with acknowledged frames in the ring.
    pub(crate) draining: VecDeque<u32>,
    /// Connections that wait for ARP.
    pub(crate) awaiting: Vec<u32>,
    /// Due times, of which some are out of date: those that differ from the connection's
    /// `scheduled`.
    pub(crate) timers: BinaryHeap<Reverse<(Instant, u32)>>,
    pub(crate) resets: VecDeque<PendingReset>,
    pub(crate) identification: u16,
    next_port: u16,
    /// For bytes that are copied instead of lent.
    pub(crate) pool: Option<CopyPool<M>>,
    /// What connections hold of it.
    pub(crate) shares: Shares,
    /// What somebody waits to write to: kept for its room.
    pub(crate) wanted: Vec<(RegionId, core::ops::Range<usize>)>,
    /// Counters of connections that are gone are in `connections`.
    pub(crate) stats: StackStats,
}

impl<Q: TxQueue, M: DmaMemory> fmt::Debug for Stack<Q, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stack")
            .field("address", &self.config.address)
            .field("connections", &self.tuples.len())
            .finish_non_exhaustive()
    }
}

impl<Q: TxQueue, M: DmaMemory> Stack<Q, M> {
    /// A stack on `port`.
    ///
    /// # Errors
    /// [`StackError`].
    pub fn new(mut port: TxPort<Q, M>, config: StackConfig) -> Result<Self, StackError> {
        let mut routes =
            RouteTable::new(config.address, config.prefix_len).map_err(StackError::Route)?;
        if let Some(gateway) = config.gateway {
            routes
                .add(Ipv4Addr::UNSPECIFIED, 0, gateway)
                .map_err(StackError::Route)?;
        }
        if config.max_rto < config.min_rto.max(Duration::from_millis(1)) {
            return Err(StackError::Timeouts);
        }
        let max_fragments = port.max_fragments();
        let limits = Limits::new(&config, port.capabilities(), max_fragments)?;
        // All segments can be copied, or a connection could stand still for ever.
        let len = limits.max_frame_len();
        let Some(buffer) = port.buffer(len) else {
            return Err(StackError::BuffersTooSmall { len });
        };
        port.put_buffer(buffer);
        Ok(Self {
            device: Device::new(port.capabilities(), max_fragments, &config),
            limits,
            routes,
            neighbours: Neighbours::new(),
            isn: IsnGenerator::new(config.secret),
            port,
            config,
            places: Vec::new(),
            vacant: Vec::new(),
            tuples: BTreeMap::new(),
            listeners: BTreeMap::new(),
            ready: VecDeque::new(),
            stalled: VecDeque::new(),
            draining: VecDeque::new(),
            awaiting: Vec::new(),
            timers: BinaryHeap::new(),
            resets: VecDeque::new(),
            identification: 0,
            next_port: 0,
            pool: None,
            shares: Shares::default(),
            wanted: Vec::new(),
            stats: StackStats::default(),
        })
    }

    /// The port, with the books and counters.
    #[must_use]
    pub const fn port(&self) -> &TxPort<Q, M> {
        &self.port
    }

    /// The port, for a reset of the device: frames that were in the ring are then simply not in
    /// flight any more, and are sent again like any that were lost. Not for putting another port
    /// in its place: its books know none of the loans, and every connection stands still.
    pub const fn port_mut(&mut self) -> &mut TxPort<Q, M> {
        &mut self.port
    }

    /// The routes.
    #[must_use]
    pub const fn routes(&self) -> &RouteTable {
        &self.routes
    }

    /// The routes, to add some. Open connections keep their next hop.
    pub const fn routes_mut(&mut self) -> &mut RouteTable {
        &mut self.routes
    }

    /// Takes a share of a region, so that ranges of it can be sent.
    ///
    /// # Errors
    /// [`Ledger::register`](pagewire_hal::Ledger::register).
    pub fn register(&mut self, region: Arc<dyn Region>) -> Result<RegionId, LendError> {
        self.port.ledger_mut().register(region)
    }

    /// Releases a region: no more of it can be sent, and when the last byte that is lent has come
    /// back, [`take_released`](Self::take_released) hands it out.
    ///
    /// # Errors
    /// [`LendError::UnknownRegion`].
    pub fn release_region(&mut self, id: RegionId) -> Result<(), LendError> {
        self.port.ledger_mut().release(id)
    }

    /// The next region that was released and is lent no more.
    pub fn take_released(&mut self) -> Option<(RegionId, Arc<dyn Region>)> {
        self.port.ledger_mut().take_released()
    }

    /// Step 1 of the path of 1997: determine the route for the destination. Done once per
    /// connection: "we usually have this handy already at this point".
    pub(crate) fn route(&self, destination: Ipv4Addr) -> Option<Ipv4Addr> {
        self.routes.next_hop(destination)
    }

    /// Opens a connection to `remote`, from `local_port` or one that is free.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub fn connect(
        &mut self,
        now: Instant,
        remote: SocketAddrV4,
        local_port: Option<u16>,
    ) -> Result<ConnectionId, ConnectError> {
        if remote.port() == 0 || local_port == Some(0) {
            return Err(ConnectError::BadPort);
        }
        let next_hop = self.route(*remote.ip()).ok_or(ConnectError::NoRoute)?;
        let local_port = match local_port {
            Some(port) if self.tuples.contains_key(&key(remote, port)) => {
                return Err(ConnectError::PortInUse);
            }
            Some(port) => port,
            None => self.ephemeral_port(remote)?,
        };
        let endpoints = self.endpoints(now, remote, local_port, next_hop);
        let connection = Connection::new(endpoints, State::SynSent, &self.config);
        let id = self.insert(connection).ok_or(ConnectError::TooMany)?;
        self.enqueue(id.index);
        Ok(id)
    }

    /// A free port for a destination: by a keyed hash of it, so that a stranger cannot guess, and
    /// a counter, so that ports are used again late (RFC 6056 section 3.3.3).
    fn ephemeral_port(&mut self, remote: SocketAddrV4) -> Result<u16, ConnectError> {
        let local = SocketAddrV4::new(self.config.address, 0);
        let offset = self.isn.hash(Purpose::EphemeralPort, local, remote) as u16;
        for _ in 0..EPHEMERAL_PORTS {
            let port = FIRST_EPHEMERAL + offset.wrapping_add(self.next_port) % EPHEMERAL_PORTS;
            self.next_port = self.next_port.wrapping_add(1);
            if !self.tuples.contains_key(&key(remote, port)) && !self.listeners.contains_key(&port)
            {
                return Ok(port);
            }
        }
        Err(ConnectError::PortInUse)
    }

    pub(crate) fn endpoints(
        &self,
        now: Instant,
        remote: SocketAddrV4,
        local_port: u16,
        next_hop: Ipv4Addr,
    ) -> Endpoints {
        let local = SocketAddrV4::new(self.config.address, local_port);
        Endpoints {
            local,
            remote,
            next_hop,
            iss: self.isn.isn(now, local, remote),
            timestamp_offset: self.isn.hash(Purpose::TimestampOffset, local, remote) as u32,
        }
    }

    pub(crate) fn insert(&mut self, connection: Connection) -> Option<ConnectionId> {
        let endpoints = connection.endpoints;
        let index = match self.vacant.pop() {
            Some(index) => index,
            None => {
                let index = u32::try_from(self.places.len()).ok()?;
                self.places.push(Place {
                    generation: 0,
                    connection: None,
                });
                index
            }
        };
        let place = self.places.get_mut(index as usize)?;
        place.connection = Some(Box::new(connection));
        self.tuples
            .insert(key(endpoints.remote, endpoints.local.port()), index);
        Some(ConnectionId {
            index,
            generation: place.generation,
        })
    }

    /// Accepts connections to `port` from now on, up to the backlog of the configuration.
    ///
    /// # Errors
    /// [`ConnectError::BadPort`], [`ConnectError::PortInUse`].
    pub fn listen(&mut self, port: u16) -> Result<(), ConnectError> {
        if port == 0 {
            return Err(ConnectError::BadPort);
        }
        if self.listeners.contains_key(&port) {
            return Err(ConnectError::PortInUse);
        }
        self.listeners.insert(port, Listener::default());
        Ok(())
    }

    /// The next connection to `port` that is established.
    pub fn accept(&mut self, port: u16) -> Option<ConnectionId> {
        let listener = self.listeners.get_mut(&port)?;
        let id = listener.ready.pop_front()?;
        listener.waiting = listener.waiting.saturating_sub(1);
        if let Some(connection) = self.at(id.index) {
            connection.pending = false;
        }
        Some(id)
    }

    /// Ends what [`listen`](Self::listen) began: connections to `port` that were not accepted are
    /// aborted, the others stay.
    pub fn unlisten(&mut self, now: Instant, port: u16) {
        if self.listeners.remove(&port).is_none() {
            return;
        }
        for index in 0..self.places.len() as u32 {
            let waits = self
                .at(index)
                .is_some_and(|c| c.pending && c.endpoints.local.port() == port);
            if let Some(id) = self.id_of(index).filter(|_| waits) {
                self.remove(now, id);
            }
        }
    }

    /// Bytes that [`send`](Self::send) would accept now, of what need not be copied (see
    /// [`set_copy_pool`](Self::set_copy_pool)); 0 for a connection that takes none.
    #[must_use]
    pub fn send_room(&self, id: ConnectionId) -> usize {
        self.get(id)
            .filter(|connection| connection.accepts_data())
            .map_or(0, |c| self.config.send_limit.saturating_sub(c.buffer.len()))
    }

    /// Moves bytes that the peer has sent to `target`, and returns how many. 0 means that none is
    /// there now, or, if [`peer_finished`](Self::peer_finished), that none will come.
    ///
    /// # Errors
    /// [`SendError::UnknownConnection`]; [`SendError::Closed`] if the connection has ended by an
    /// error and nothing is left to read.
    pub fn receive(&mut self, id: ConnectionId, target: &mut [u8]) -> Result<usize, SendError> {
        let connection = find(&mut self.places, id).ok_or(SendError::UnknownConnection)?;
        let count = connection.receive.read(target);
        if count == 0 && connection.error.is_some() && !target.is_empty() {
            return Err(SendError::Closed);
        }
        if count > 0 {
            self.enqueue(id.index);
        }
        Ok(count)
    }

    /// Bytes that [`receive`](Self::receive) could move now.
    #[must_use]
    pub fn received(&self, id: ConnectionId) -> usize {
        self.get(id).map_or(0, |c| c.receive.len())
    }

    /// Whether the peer has sent its last byte and all before it has arrived.
    #[must_use]
    pub fn peer_finished(&self, id: ConnectionId) -> bool {
        self.get(id).is_some_and(|c| c.receive.finished())
    }

    /// Ends the sending direction: a FIN follows the data accepted so far. A connection whose
    /// handshake has only begun is given up. What the peer still sends is to be read, or its
    /// window closes and its FIN never comes; [`abort`](Self::abort) is for a program that has
    /// lost interest.
    pub fn close(&mut self, now: Instant, id: ConnectionId) {
        let Some(connection) = find(&mut self.places, id) else {
            return;
        };
        connection.closing = true;
        if connection.state == State::SynSent && connection.buffer.len() == 0 {
            connection.end(now, &mut self.port, None);
        }
        self.enqueue(id.index);
        self.after_change(id.index);
    }

    /// Ends a connection at once, with an RST at the next poll. All its loans go back; calls of
    /// `send` that were not acknowledged complete as aborted.
    pub fn abort(&mut self, now: Instant, id: ConnectionId) {
        let Some(connection) = find(&mut self.places, id) else {
            return;
        };
        if connection.state == State::Closed {
            return;
        }
        let header = connection.reset_header();
        let destination = *connection.endpoints.remote.ip();
        connection.end(now, &mut self.port, Some(ConnectionError::Aborted));
        if let Some(header) = header {
            self.owe_reset(PendingReset {
                header,
                destination,
                mac: None,
            });
        }
        self.after_change(id.index);
    }

    /// Aborts a connection if it is not over, and forgets it with all that was received.
    pub fn remove(&mut self, now: Instant, id: ConnectionId) {
        if find(&mut self.places, id).is_some() {
            self.abort(now, id);
            self.forget(id.index);
        }
    }

    /// Adds an RST to those that wait, if there are not too many.
    pub(crate) fn owe_reset(&mut self, reset: PendingReset) {
        if self.resets.len() < MAX_WAITING_RESETS {
            self.resets.push_back(reset);
        } else {
            self.stats.replies_lost += 1;
        }
    }

    /// Takes a connection out of its place.
    pub(crate) fn forget(&mut self, index: u32) {
        let Some(place) = self.places.get_mut(index as usize) else {
            return;
        };
        if let Some(mut connection) = place.connection.take() {
            self.shares.note(&mut connection.noted, Held::default());
            place.generation = place.generation.wrapping_add(1);
            self.stats.connections.join(&connection.stats);
            self.vacant.push(index);
            self.unbind(&connection, index);
        }
    }

    /// Frees the four-tuple of a connection that is over.
    pub(crate) fn unbind(&mut self, connection: &Connection, index: u32) {
        let Endpoints { local, remote, .. } = connection.endpoints;
        let key = key(remote, local.port());
        if self.tuples.get(&key) == Some(&index) {
            self.tuples.remove(&key);
        }
    }

    /// The state; `None` if the connection was removed.
    #[must_use]
    pub fn state(&self, id: ConnectionId) -> Option<State> {
        self.get(id).map(|c| c.state)
    }

    /// Whether the handshake is done and the connection is not over.
    #[must_use]
    pub fn is_established(&self, id: ConnectionId) -> bool {
        self.get(id).is_some_and(Connection::is_synchronised)
    }

    /// Why the connection has ended before its time; `None` if it has not.
    #[must_use]
    pub fn error(&self, id: ConnectionId) -> Option<ConnectionError> {
        self.get(id)?.error
    }

    /// The addresses of a connection: ours, the peer's.
    #[must_use]
    pub fn addresses(&self, id: ConnectionId) -> Option<(SocketAddrV4, SocketAddrV4)> {
        self.get(id)
            .map(|c| (c.endpoints.local, c.endpoints.remote))
    }

    /// What a connection has counted.
    #[must_use]
    pub fn connection_stats(&self, id: ConnectionId) -> Option<&ConnectionStats> {
        self.get(id).map(|c| &c.stats)
    }

    /// What all of it has counted; adds up all connections.
    #[must_use]
    pub fn stats(&self) -> StackStats {
        let mut stats = self.stats.clone();
        for connection in self.places.iter().filter_map(|p| p.connection.as_ref()) {
            stats.connections.join(&connection.stats);
        }
        stats
    }

    #[inline]
    pub(crate) fn at(&mut self, index: u32) -> Option<&mut Connection> {
        self.places
            .get_mut(index as usize)?
            .connection
            .as_deref_mut()
    }

    pub(crate) fn id_of(&self, index: u32) -> Option<ConnectionId> {
        let generation = self.places.get(index as usize)?.generation;
        Some(ConnectionId { index, generation })
    }

    pub(crate) fn get(&self, id: ConnectionId) -> Option<&Connection> {
        self.places
            .get(id.index as usize)
            .filter(|place| place.generation == id.generation)?
            .connection
            .as_deref()
    }
}

/// The connection of an id. Not a method, as the port is often needed beside it.
#[inline]
pub(crate) fn find(places: &mut [Place], id: ConnectionId) -> Option<&mut Connection> {
    places
        .get_mut(id.index as usize)
        .filter(|place| place.generation == id.generation)?
        .connection
        .as_deref_mut()
}

impl<Q: TxQueue, M: DmaMemory> Drop for Stack<Q, M> {
    fn drop(&mut self) {
        for place in &mut self.places {
            if let Some(mut connection) = place.connection.take() {
                connection.end(Instant::ZERO, &mut self.port, None);
            }
        }
    }
}
