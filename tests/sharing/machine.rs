//! A NIC of any kind on its model, its driver, a sender on it, and the receiver.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use pagewire::drivers::{AnyNic, AnyRx, AnyTx, Config};
use pagewire::hal::{Granule, Nic, Phase, PoolLayout, RxQueue, TxPort};
use pagewire::tcp::{ConnectionError, ConnectionId, Stack, StackConfig, State, Thresholds};
use pagewire_models::wire::{Impaired, Impairment, pair};
use pagewire_models::{
    Device, Host, HostConfig, HostMemory, ModelHandle, ModelPlatform, Wire, e1000e, ixgbe, virtio,
};

use super::receiver::{PORT, Receiver};

pub(crate) const PAGE: usize = 4096;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    E1000e,
    Ixgbe,
    Virtio,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::E1000e, Self::Ixgbe, Self::Virtio];
}

/// How a machine is made.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) kind: Kind,
    pub(crate) seed: u64,
    pub(crate) connections: usize,
    /// Percent of the frames, either way.
    pub(crate) loss: f64,
    /// Slots of the copy pool.
    pub(crate) slots: usize,
    pub(crate) thresholds: Thresholds,
    pub(crate) pin_limit: usize,
    pub(crate) send_limit: usize,
    pub(crate) max_fragments: Option<u16>,
    pub(crate) checksum: bool,
}

impl Setup {
    pub(crate) fn new(kind: Kind, seed: u64) -> Self {
        Self {
            kind,
            seed,
            connections: 1,
            loss: 0.0,
            slots: 64,
            thresholds: Thresholds {
                owned: 0,
                watched: 0,
                live: 0,
            },
            pin_limit: usize::MAX,
            send_limit: StackConfig::default().send_limit,
            max_fragments: None,
            checksum: true,
        }
    }
}

type Tx = AnyTx<ModelPlatform>;

pub(crate) struct Machine {
    pub(crate) seed: u64,
    pub(crate) host: Host,
    model: ModelHandle<dyn Device>,
    nic: AnyNic<ModelPlatform>,
    rx: AnyRx<ModelPlatform>,
    pub(crate) stack: Stack<Tx, HostMemory>,
    pub(crate) receiver: Receiver,
    pub(crate) connections: Vec<ConnectionId>,
    quiet: u32,
}

fn attach(
    host: &Host,
    setup: &Setup,
    wire: Box<dyn Wire>,
) -> (ModelPlatform, ModelHandle<dyn Device>) {
    fn erased<D: Device + 'static>(
        attached: pagewire_models::host::Attached<D>,
    ) -> (ModelPlatform, ModelHandle<dyn Device>) {
        (attached.platform, attached.handle.erase())
    }
    let seed = setup.seed;
    match setup.kind {
        Kind::E1000e => {
            let config = e1000e::ModelConfig {
                seed,
                ..Default::default()
            };
            erased(host.attach(e1000e::E1000e82574::new(config, wire)))
        }
        Kind::Ixgbe => {
            let config = ixgbe::ModelConfig {
                seed,
                ..Default::default()
            };
            erased(host.attach(ixgbe::Ixgbe82599::new(config, wire)))
        }
        Kind::Virtio => {
            let config = virtio::ModelConfig {
                seed,
                ..Default::default()
            };
            erased(host.attach(virtio::VirtioNet::new(config, wire)))
        }
    }
}

impl Machine {
    pub(crate) fn new(setup: &Setup) -> Self {
        let seed = setup.seed;
        let granule = Granule::from_bytes(PAGE).unwrap();
        let host = Host::new(HostConfig { seed, granule });
        let (near, far) = pair();
        let loss = Impairment {
            loss: setup.loss / 100.0,
            ..Impairment::NONE
        };
        let near = Impaired::new(near, seed, loss, loss);
        let (platform, model) = attach(&host, setup, Box::new(near));
        let mut config = Config::default();
        config.max_fragments = setup.max_fragments;
        config.checksum_offload = setup.checksum;
        let mut nic =
            AnyNic::open(platform, &config).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        let (tx, rx) = nic.take_queues(0).unwrap();
        let layout = PoolLayout {
            small_len: 192,
            small_count: 256,
            large_len: 1514,
            large_count: 256,
            page: granule,
        };
        let port = TxPort::new(&mut nic, tx, &layout).unwrap();
        let config = StackConfig {
            mac: nic.mac_address(),
            address: Ipv4Addr::new(10, 0, 0, 1),
            secret: [seed as u8; 16],
            min_rto: Duration::from_millis(20),
            max_rto: Duration::from_secs(1),
            max_retries: 30,
            thresholds: setup.thresholds,
            pin_limit: setup.pin_limit,
            send_limit: setup.send_limit,
            ..StackConfig::default()
        };
        let mut stack = Stack::new(port, config).unwrap();
        if setup.slots > 0 {
            let pool = host.allocate(setup.slots * PAGE, PAGE).unwrap();
            stack.set_copy_pool(pool, granule).unwrap();
        }
        let mut machine = Self {
            seed,
            host,
            model,
            nic,
            rx,
            stack,
            receiver: Receiver::new(far, seed, setup.connections),
            connections: Vec::new(),
            quiet: 0,
        };
        machine.connect(setup.connections);
        machine
    }

    fn connect(&mut self, count: usize) {
        let up = |m: &mut Self| {
            matches!(m.nic.poll(m.host.now()), Ok(Phase::Running(_))) && m.nic.link().up
        };
        self.run_until("link", up);
        let remote = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 2), PORT);
        while self.connections.len() < count {
            let id = self.stack.connect(self.host.now(), remote, None).unwrap();
            let closed = |m: &Self| m.stack.state(id) == Some(State::Closed);
            self.run_until("open", |m| m.stack.is_established(id) || closed(m));
            if closed(self) {
                // Three ARP requests in a row can be lost.
                let error = self.stack.error(id);
                assert_eq!(
                    error,
                    Some(ConnectionError::Unreachable),
                    "seed {}",
                    self.seed
                );
                self.stack.remove(self.host.now(), id);
            } else {
                self.connections.push(id);
            }
        }
    }

    /// One round of everybody. Where nothing moves, time leaps.
    pub(crate) fn round(&mut self) {
        let now = self.host.now();
        let mut scratch = [0; 2048];
        let Self { rx, stack, .. } = self;
        let received = rx.receive(64, &mut |frame| {
            stack.input(now, frame.copy_to(&mut scratch), frame.checksum());
        });
        let posted = self.stack.port().counters().frames;
        let next = self
            .stack
            .poll(now)
            .unwrap_or_else(|e| panic!("seed {}: {e}", self.seed));
        let mut moved = received.unwrap() > 0;
        moved |= self.stack.port().counters().frames != posted;
        moved |= self.model.step();
        self.receiver.poll(now);
        moved |= !self.receiver.frames().is_empty();
        self.quiet = if moved { 0 } else { self.quiet + 1 };
        // The model holds things back for less than that many rounds.
        let leap = if self.quiet < 64 {
            Duration::from_micros(10)
        } else {
            let timer = next.map(|at| at.saturating_since(now));
            let events = [timer, self.receiver.next_event(now)];
            let next = events.into_iter().flatten().min();
            next.unwrap_or(Duration::from_millis(1))
                .clamp(Duration::from_micros(10), Duration::from_secs(1))
        };
        self.host.advance(leap);
    }

    pub(crate) fn rounds(&mut self, count: u32) {
        (0..count).for_each(|_| self.round());
    }

    pub(crate) fn run_until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        for _ in 0..200_000 {
            if done(self) {
                return;
            }
            self.round();
        }
        panic!("seed {}: never {what}", self.seed);
    }

    /// What the peer of a connection has.
    pub(crate) fn arrived(&self, connection: usize) -> &[u8] {
        let addresses = self.stack.addresses(self.connections[connection]);
        let port = addresses.unwrap().0.port();
        self.receiver.arrived.get(&port).map_or(&[], Vec::as_slice)
    }

    /// Nothing is lent, and the driver has done nothing that the device's specification forbids.
    pub(crate) fn assert_all_back(&mut self) {
        let seed = self.seed;
        // The last acknowledgement may have been lost.
        self.run_until("all back", |m| {
            let counters = m.stack.port().ledger().counters();
            m.stack.port().outstanding() == 0 && counters.loans == 0
        });
        let counters = self.stack.port().ledger().counters();
        assert_eq!(counters.pinned_pages, 0, "seed {seed}");
        if let Some(pool) = self.stack.copy_pool() {
            assert_eq!(pool.free_bytes(), pool.len(), "seed {seed}");
        }
        let violations = self.model.violations();
        assert!(violations.is_empty(), "seed {seed}: {violations:#?}");
    }
}
