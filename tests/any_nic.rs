//! `AnyNic` on the models: the driver is found by the PCI ids, and the conformance suite sees no
//! difference from the driver itself.

#![allow(clippy::unwrap_used, reason = "a panic is the failure")]

#[path = "common/far.rs"]
mod far;

use std::sync::Arc;
use std::time::Duration;

use far::Far;
use pagewire::drivers::{AnyNic, Config, Driver, MAX_QUEUE_PAIRS};
use pagewire::hal::{
    DmaMemory, Fragment, Granule, Instant, Nic, NicError, Offload, Phase, QueuePair, Region, Token,
    TxFrame, TxQueue,
};
use pagewire_conformance::{Bench, FarEnd, Options, Outcome, run};
use pagewire_models::wire::{PairEnd, pair};
use pagewire_models::{
    Bus, Device, Host, HostConfig, HostMemory, ModelHandle, ModelPlatform, e1000e, ixgbe, virtio,
};

/// What is in the slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    E1000e,
    Ixgbe,
    Virtio,
}

impl Kind {
    const ALL: [Self; 3] = [Self::E1000e, Self::Ixgbe, Self::Virtio];
}

/// A device of one of the models: from here on it is a [`Device`] whose ids tell what it is.
fn device(kind: Kind, seed: u64, wire: PairEnd) -> Box<dyn Device> {
    match kind {
        Kind::E1000e => {
            let config = e1000e::ModelConfig {
                seed,
                ..Default::default()
            };
            Box::new(e1000e::E1000e82574::new(config, Box::new(wire)))
        }
        Kind::Ixgbe => {
            let config = ixgbe::ModelConfig {
                seed,
                ..Default::default()
            };
            Box::new(ixgbe::Ixgbe82599::new(config, Box::new(wire)))
        }
        Kind::Virtio => {
            let config = virtio::ModelConfig {
                seed,
                ..Default::default()
            };
            Box::new(virtio::VirtioNet::new(config, Box::new(wire)))
        }
    }
}

/// A device, whose ids may be others than its own.
struct Labelled {
    inner: Box<dyn Device>,
    /// Vendor and device id in the place of the device's, if any.
    ids: Option<u32>,
}

impl Device for Labelled {
    fn config_read(&mut self, offset: u16) -> u32 {
        let value = self.inner.config_read(offset);
        self.ids.filter(|_| offset == 0).unwrap_or(value)
    }

    fn config_write(&mut self, offset: u16, value: u32) {
        self.inner.config_write(offset, value);
    }

    fn bar_len(&self, index: u8) -> Option<u32> {
        self.inner.bar_len(index)
    }

    fn read(&mut self, bar: u8, offset: u32, now: Instant) -> u32 {
        self.inner.read(bar, offset, now)
    }

    fn write(&mut self, bar: u8, offset: u32, value: u32, now: Instant) {
        self.inner.write(bar, offset, value, now);
    }

    fn read_narrow(&mut self, bar: u8, offset: u32, width: u32, now: Instant) -> Option<u16> {
        self.inner.read_narrow(bar, offset, width, now)
    }

    fn write_narrow(&mut self, bar: u8, offset: u32, width: u32, value: u16, now: Instant) -> bool {
        self.inner.write_narrow(bar, offset, width, value, now)
    }

    fn is_doorbell(&self, bar: u8, offset: u32) -> bool {
        self.inner.is_doorbell(bar, offset)
    }

    fn vectors(&self) -> u16 {
        self.inner.vectors()
    }

    fn step(&mut self, bus: &mut dyn Bus, now: Instant) -> bool {
        self.inner.step(bus, now)
    }

    fn take_violations(&mut self) -> Vec<String> {
        self.inner.take_violations()
    }
}

/// A device in a slot of a machine.
struct Slot {
    model: ModelHandle<Labelled>,
    far: Far,
    platform: ModelPlatform,
}

fn plug_in(host: &Host, kind: Kind, seed: u64, ids: Option<u32>) -> Slot {
    let (near, end) = pair();
    let plug = end.plug();
    let inner = device(kind, seed, near);
    let attached = host.attach(Labelled { inner, ids });
    Slot {
        model: attached.handle,
        far: Far { end, plug },
        platform: attached.platform,
    }
}

fn machine(seed: u64, granule: Granule) -> Host {
    Host::new(HostConfig { seed, granule })
}

/// Whichever driver, on its model.
struct AnyBench {
    kind: Kind,
    config: Config,
    granule: Granule,
    host: Host,
    model: ModelHandle<Labelled>,
    far: Far,
    second: Option<ModelHandle<Labelled>>,
    second_far: Option<Far>,
}

impl AnyBench {
    fn new(kind: Kind, seed: u64, granule: Granule) -> Self {
        let mut config = Config::default();
        config.tx_descriptors = if seed.is_multiple_of(2) { 256 } else { 16 };
        config.rx_descriptors = 64;
        config.queue_pairs = 1 + seed as u16 % 3;
        config.all_multicast = seed.is_multiple_of(3);
        let host = machine(seed, granule);
        let slot = plug_in(&host, kind, seed, None);
        Self {
            kind,
            config,
            granule,
            host,
            model: slot.model,
            far: slot.far,
            second: None,
            second_far: None,
        }
    }
}

impl Bench for AnyBench {
    type Nic = AnyNic<ModelPlatform>;
    type Memory = HostMemory;

    fn open(&mut self, seed: u64) -> Result<Self::Nic, String> {
        // A machine of its own for each check: what one has left behind does not disturb another.
        self.host = machine(seed, self.granule);
        let slot = plug_in(&self.host, self.kind, seed, None);
        (self.model, self.far) = (slot.model, slot.far);
        (self.second, self.second_far) = (None, None);
        AnyNic::open(slot.platform, &self.config).map_err(|error| error.to_string())
    }

    fn far_end(&mut self) -> &mut dyn FarEnd {
        &mut self.far
    }

    fn advance(&mut self, duration: Duration) {
        let end = self.host.now() + duration;
        // In large steps where nobody looks for long.
        let step = (duration / 256).max(Duration::from_micros(10));
        loop {
            self.model.step();
            if let Some(second) = &self.second {
                second.step();
            }
            let left = end.saturating_since(self.host.now());
            if left.is_zero() {
                return;
            }
            self.host.advance(step.min(left));
        }
    }

    fn now(&self) -> Instant {
        self.host.now()
    }

    fn region(&mut self, bytes: Vec<u8>) -> Result<Arc<dyn Region>, String> {
        let region = self.host.register(bytes);
        Ok(region.map_err(|error| error.to_string())?)
    }

    fn open_second(&mut self, seed: u64) -> Option<Result<Self::Nic, String>> {
        // The other type: its queues must be refused as those of a stranger.
        let kind = match (self.kind, seed.is_multiple_of(2)) {
            (kind, true) => kind,
            (Kind::E1000e, false) => Kind::Ixgbe,
            (Kind::Ixgbe, false) => Kind::Virtio,
            (Kind::Virtio, false) => Kind::E1000e,
        };
        let slot = plug_in(&self.host, kind, seed, None);
        (self.second, self.second_far) = (Some(slot.model), Some(slot.far));
        Some(AnyNic::open(slot.platform, &self.config).map_err(|error| error.to_string()))
    }

    fn keeps_groups(&self) -> Option<bool> {
        Some(self.config.all_multicast)
    }

    fn longest_frame(&self) -> Option<u32> {
        Some(u32::from(self.config.mtu) + 14)
    }

    fn remove(&mut self) -> bool {
        self.model.remove();
        true
    }

    fn sees_frames_at_once(&self) -> bool {
        true
    }

    fn set_link(&mut self, up: bool) -> bool {
        self.far.plug.set(up);
        true
    }

    fn complaints(&mut self) -> Vec<String> {
        self.model.violations()
    }
}

fn the_suite_passes_on(kind: Kind, name: &str) {
    for seed in [0, 1, 2] {
        let granule = [4096, 1 << 16, 0][seed as usize];
        let granule = Granule::from_bytes(granule).unwrap_or(Granule::CONTIGUOUS);
        let mut options = Options::default();
        options.seed = seed;
        options.only = std::env::var("PAGEWIRE_CHECK").ok();
        let report = run(&mut AnyBench::new(kind, seed, granule), &options);
        assert!(report.failures().next().is_none(), "seed {seed}\n{report}");
        let ran = |check: &&pagewire_conformance::CheckReport| check.outcome == Outcome::Passed;
        let ran = report.checks.iter().filter(ran).count();
        assert!(ran > 0, "seed {seed}: nothing was checked\n{report}");
        assert_eq!(report.nic, name, "seed {seed}");
        println!("{report}");
    }
}

#[test]
fn the_suite_sees_the_82574l() {
    the_suite_passes_on(Kind::E1000e, "e1000e 82574L");
}

#[test]
fn the_suite_sees_the_82599() {
    the_suite_passes_on(Kind::Ixgbe, "ixgbe 82599 KX4");
}

#[test]
fn the_suite_sees_virtio() {
    the_suite_passes_on(Kind::Virtio, "virtio-net");
}

fn open(kind: Kind, ids: Option<u32>, config: &Config) -> Result<AnyNic<ModelPlatform>, NicError> {
    let host = machine(1, Granule::CONTIGUOUS);
    AnyNic::open(plug_in(&host, kind, 1, ids).platform, config)
}

#[test]
fn the_ids_choose_the_driver() {
    let nic = open(Kind::E1000e, None, &Config::default()).unwrap();
    assert_eq!(nic.driver(), Driver::E1000e);
    assert!(nic.as_e1000e().is_some() && nic.as_virtio().is_none());
    assert_eq!(nic.describe().to_string(), "e1000e 82574L");

    let nic = open(Kind::Ixgbe, None, &Config::default()).unwrap();
    assert_eq!(nic.driver(), Driver::Ixgbe);
    assert!(nic.as_ixgbe().is_some() && nic.as_e1000e().is_none());
    assert_eq!(nic.describe().to_string(), "ixgbe 82599 KX4");

    let nic = open(Kind::Virtio, None, &Config::default()).unwrap();
    assert_eq!(nic.driver(), Driver::Virtio);
    assert!(nic.as_e1000e().is_none() && nic.as_ixgbe().is_none());
    let features = nic.as_virtio().unwrap().features();
    assert_eq!(
        nic.describe().to_string(),
        format!("virtio-net: {features}")
    );
    assert!(features.to_string().contains("csum"), "{features}");
}

#[test]
fn an_unknown_device_is_refused_by_its_ids() {
    // Intel's 82540EM, QEMU's "e1000", is another chip.
    let refused = open(Kind::E1000e, Some(0x100e_8086), &Config::default());
    let error = refused.unwrap_err();
    let expected = NicError::UnknownDevice {
        vendor: 0x8086,
        device: 0x100e,
    };
    assert_eq!(error, expected);
    assert!(error.to_string().contains("8086:100e"), "{error}");
    // virtio-blk: the vendor alone says nothing.
    let refused = open(Kind::Virtio, Some(0x1042_1af4), &Config::default());
    assert!(matches!(
        refused.unwrap_err(),
        NicError::UnknownDevice { device: 0x1042, .. }
    ));
    let refused = open(Kind::E1000e, Some(u32::MAX), &Config::default());
    assert_eq!(refused.unwrap_err(), NicError::Removed);
}

#[test]
fn an_untested_device_is_opened_on_request_only() {
    // The 82574LA: the model is the 82574L's, which is near enough to see who decides.
    let mut config = Config::default();
    let refused = open(Kind::E1000e, Some(0x10f6_8086), &config).unwrap_err();
    assert!(matches!(refused, NicError::Untested { device: 0x10f6, .. }));
    config.e1000e.allow_untested = true;
    let nic = open(Kind::E1000e, Some(0x10f6_8086), &config).unwrap();
    assert_eq!(nic.name(), "e1000e 82574LA");
    // Another 82599: what was said for the other driver does not count.
    let refused = open(Kind::Ixgbe, Some(0x10f9_8086), &config).unwrap_err();
    assert!(matches!(refused, NicError::Untested { device: 0x10f9, .. }));
    config.ixgbe.allow_untested = true;
    let nic = open(Kind::Ixgbe, Some(0x10f9_8086), &config).unwrap();
    assert_eq!(nic.name(), "ixgbe 82599 CX4");
}

#[test]
fn each_driver_judges_its_own_configuration() {
    for kind in Kind::ALL {
        let mut config = Config::default();
        config.tx_descriptors = 24;
        let refused = open(kind, None, &config).unwrap_err();
        assert!(matches!(refused, NicError::Config { .. }), "{kind:?}");
        let mut config = Config::default();
        config.queue_pairs = 17;
        let refused = open(kind, None, &config).unwrap_err();
        assert!(matches!(refused, NicError::Config { .. }), "{kind:?}");
        let mut config = Config::default();
        config.checksum_offload = false;
        let nic = open(kind, None, &config).unwrap();
        let can = nic.capabilities();
        assert!(can.tx_checksum.is_empty(), "{kind:?}: {can:?}");
        assert!(can.segmentation.is_none(), "{kind:?}: {can:?}");
    }
}

/// Stops `nic`, the device of `model`.
fn quiesce(host: &Host, model: &ModelHandle<Labelled>, nic: &mut AnyNic<ModelPlatform>) {
    nic.begin_reset(host.now());
    for _ in 0..100_000 {
        if nic.poll(host.now()).unwrap() == Phase::Quiet {
            return;
        }
        model.step();
        host.advance(Duration::from_micros(10));
    }
    panic!("the device did not become quiet");
}

/// Pairs of another driver, and mixed pairs, are refused before anything happens.
#[test]
fn strange_queue_pairs_are_refused() {
    pairs_of_a_stranger_are_refused(Kind::E1000e);
    pairs_of_a_stranger_are_refused(Kind::Virtio);
}

fn pairs_of_a_stranger_are_refused(other: Kind) {
    let host = machine(7, Granule::CONTIGUOUS);
    let kinds = [Kind::Ixgbe, other];
    let slots = kinds.map(|kind| plug_in(&host, kind, 7, None));
    let models = slots.each_ref().map(|slot| slot.model.clone());
    let mut nics = slots.map(|slot| AnyNic::open(slot.platform, &Config::default()).unwrap());
    let mut taken = nics.each_mut().map(|nic| nic.take_queues(0).unwrap());
    for (model, nic) in models.iter().zip(&mut nics) {
        quiesce(&host, model, nic);
    }
    let [(tx, rx), (other_tx, other_rx)] = &mut taken;
    let none = &mut |_, _| panic!("a token came from nowhere");
    let [nic, other] = &mut nics;
    let mut pairs = [QueuePair { tx: other_tx, rx }];
    for refused in [
        nic.restart(&mut pairs, none),
        other.release(&mut pairs, none),
    ] {
        assert!(
            matches!(refused, Err(NicError::Config { .. })),
            "a mixed pair"
        );
    }
    let [QueuePair { tx: other_tx, rx }] = pairs;
    let mut pairs = [QueuePair {
        tx: other_tx,
        rx: other_rx,
    }];
    let refused = nic.restart(&mut pairs, none);
    assert!(
        matches!(refused, Err(NicError::Config { .. })),
        "a stranger"
    );
    // Nothing was changed by that: both go on.
    other.restart(&mut pairs, none).unwrap();
    let mut pairs = [QueuePair { tx, rx }];
    assert_eq!(
        nic.restart(&mut [], none),
        Err(NicError::QueueMissing { index: 0 })
    );
    nic.restart(&mut pairs, none).unwrap();
    for nic in &mut nics {
        assert!(matches!(nic.poll(host.now()), Ok(Phase::Running(_))));
    }
}

/// As many pairs as there can be go through a reset together.
#[test]
fn sixteen_pairs_are_reset() {
    let host = machine(5, Granule::CONTIGUOUS);
    let slot = plug_in(&host, Kind::Ixgbe, 5, None);
    let mut config = Config::default();
    config.queue_pairs = MAX_QUEUE_PAIRS;
    let mut nic = AnyNic::open(slot.platform, &config).unwrap();
    assert_eq!(nic.capabilities().queue_pairs, 16);
    let mut taken: Vec<_> = (0..16).map(|i| nic.take_queues(i).unwrap()).collect();
    assert!(nic.take_queues(16).is_none());
    quiesce(&host, &slot.model, &mut nic);
    let pair = |(tx, rx)| QueuePair { tx, rx };
    let mut pairs: Vec<_> = taken.iter_mut().map(|(tx, rx)| pair((tx, rx))).collect();
    let none = &mut |_, _| panic!("a token came from nowhere");
    let short = nic.restart(&mut pairs[1..], none);
    assert_eq!(short, Err(NicError::QueueMissing { index: 0 }));
    nic.restart(&mut pairs, none).unwrap();
    assert!(matches!(nic.poll(host.now()), Ok(Phase::Running(_))));
}

/// A reset of several pairs, in an order of the caller's: each token comes back with the position
/// of its queue.
#[test]
fn tokens_come_back_with_the_position_of_their_queue() {
    tokens_come_back_in_place(Kind::Ixgbe);
    tokens_come_back_in_place(Kind::Virtio);
}

fn tokens_come_back_in_place(kind: Kind) {
    let host = machine(3, Granule::CONTIGUOUS);
    let slot = plug_in(&host, kind, 3, None);
    let mut config = Config::default();
    config.queue_pairs = 3;
    let mut nic = AnyNic::open(slot.platform, &config).unwrap();
    assert_eq!(nic.capabilities().queue_pairs, 3);
    let mut taken = [2, 0, 1].map(|index| nic.take_queues(index).unwrap());
    let memory = nic.allocate(2048, 64).unwrap();
    let head_room = u64::from(nic.capabilities().head_room);
    let fragments = [Fragment {
        address: memory.address().offset(head_room),
        len: 64,
    }];
    // SAFETY: the head room ends well inside the memory.
    let first = unsafe { memory.pointer().byte_add(head_room as usize) };
    let frame = TxFrame {
        fragments: &fragments,
        offload: Offload::NONE,
        first: Some(first),
    };
    // Without a doorbell: the device does not know of them, so all come back.
    let posted = [
        (0, Token(70)),
        (1, Token(71)),
        (1, Token(72)),
        (2, Token(73)),
    ];
    for (position, token) in posted {
        let (tx, _) = &mut taken[usize::from(position)];
        // SAFETY: the memory outlives the reset, and nobody changes it.
        unsafe { tx.post(&frame, token) }.unwrap();
    }
    for release in [false, true] {
        quiesce(&host, &slot.model, &mut nic);
        let mut pairs = taken.each_mut().map(|(tx, rx)| QueuePair { tx, rx });
        let mut back = Vec::new();
        let released = &mut |position, token| back.push((position, token));
        if release {
            nic.release(&mut pairs, released).unwrap();
            assert_eq!(back, [], "what was back comes back again");
        } else {
            nic.restart(&mut pairs, released).unwrap();
            back.sort_unstable_by_key(|(_, Token(number))| *number);
            assert_eq!(back, posted);
        }
    }
}
