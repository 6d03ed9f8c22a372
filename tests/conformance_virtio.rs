//! The conformance suite on the virtio-net driver over the model of the device, which takes every
//! freedom that the specification leaves it, by seed: one test for each format of the rings, and
//! everything else as the seed has it.
//!
//! `PAGEWIRE_FULL=yes` runs 1,000 seeds of each instead of 12. `PAGEWIRE_SEED=n` runs that one, and
//! `PAGEWIRE_CHECK=name` only the checks whose name contains that.

#![allow(clippy::unwrap_used, reason = "a panic is the failure")]

#[path = "common/far.rs"]
mod far;
#[path = "conformance_virtio/listener.rs"]
mod listener;

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use far::Far;
use listener::{Listener, Seen};
use pagewire::hal::{Granule, Instant, MacAddress, Region};
use pagewire::virtio::{Config, Features, VirtioNet};
use pagewire_conformance::{Bench, FarEnd, Options, run};
use pagewire_models::virtio::{Latitude, ModelConfig, Offers, VirtioNet as Model};
use pagewire_models::wire::pair;
use pagewire_models::{Host, HostConfig, HostMemory, ModelHandle, ModelPlatform};

/// The sizes of rings: the least, the specification's greatest, and what is common.
const RINGS: [u16; 6] = [256, 1, 64, 32_768, 2, 1024];
/// Larger receive rings would be of a few hundred megabytes, with buffers for 9,000 bytes.
const MOST_LARGE_BUFFERS: u16 = 1024;

/// The driver on its model.
struct ModelBench {
    config: Config,
    granule: Granule,
    /// The device; its seed is another one for each check.
    model_config: ModelConfig,
    /// The device works inside each register write.
    eager: bool,
    /// The devices do nothing, and time goes on.
    stalled: bool,
    host: Host,
    model: ModelHandle<Listener>,
    seen: Seen,
    far: Far,
    second: Option<(ModelHandle<Listener>, Far)>,
}

/// A device in a slot of `host`.
struct Plugged {
    model: ModelHandle<Listener>,
    seen: Seen,
    far: Far,
    platform: ModelPlatform,
}

fn plug_in(host: &Host, config: &ModelConfig) -> Plugged {
    let (near, end) = pair();
    let plug = end.plug();
    let (listener, seen) = Listener::new(Model::new(config.clone(), Box::new(near)));
    let attached = host.attach(listener);
    Plugged {
        model: attached.handle,
        seen,
        far: Far { end, plug },
        platform: attached.platform,
    }
}

impl ModelBench {
    fn with_seed(&self, seed: u64) -> ModelConfig {
        ModelConfig {
            seed,
            ..self.model_config.clone()
        }
    }
}

impl Bench for ModelBench {
    type Nic = VirtioNet<ModelPlatform>;
    type Memory = HostMemory;

    fn open(&mut self, seed: u64) -> Result<Self::Nic, String> {
        // A machine of its own for each check: what one has left behind does not disturb another.
        self.host = Host::new(HostConfig {
            seed,
            granule: self.granule,
        });
        let plugged = plug_in(&self.host, &self.with_seed(seed));
        plugged.model.be_eager(self.eager);
        (self.model, self.seen, self.far) = (plugged.model, plugged.seen, plugged.far);
        (self.second, self.stalled) = (None, false);
        VirtioNet::open(plugged.platform, &self.config).map_err(|error| error.to_string())
    }

    fn far_end(&mut self) -> &mut dyn FarEnd {
        &mut self.far
    }

    fn advance(&mut self, duration: Duration) {
        if self.stalled {
            self.host.advance(duration);
            return;
        }
        let end = self.host.now() + duration;
        // In large steps where nobody looks for long.
        let step = (duration / 256).max(Duration::from_micros(10));
        loop {
            self.model.step();
            if let Some((second, _)) = &self.second {
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
        let plugged = plug_in(&self.host, &self.with_seed(seed));
        self.second = Some((plugged.model, plugged.far));
        let opened = VirtioNet::open(plugged.platform, &self.config);
        Some(opened.map_err(|error| error.to_string()))
    }

    fn keeps_groups(&self) -> Option<bool> {
        Some(self.config.all_multicast)
    }

    fn longest_frame(&self) -> Option<u32> {
        Some(u32::from(self.config.mtu) + 14)
    }

    fn link_speed(&self) -> Option<u32> {
        // SPEED_DUPLEX is not negotiated.
        None
    }

    fn stall(&mut self, stall: bool) -> bool {
        self.stalled = stall;
        self.model.be_eager(self.eager && !stall);
        true
    }

    fn never_quiet(&mut self) -> bool {
        self.model
            .with_device(|device| device.inner.never_quiet(true));
        true
    }

    fn needs_reset(&mut self) -> bool {
        self.model.with_device(|device| device.inner.need_reset());
        true
    }

    fn remove(&mut self) -> bool {
        self.model.remove();
        true
    }

    fn sees_frames_at_once(&self) -> bool {
        true
    }

    fn is_promiscuous(&self) -> bool {
        self.config.promiscuous
    }

    fn set_link(&mut self, up: bool) -> bool {
        // Without STATUS a driver cannot know, and the model sends and receives nothing.
        self.far.plug.set(up || !self.model_config.offers.status);
        self.model_config.offers.status
    }

    fn hold_completions(&mut self, hold: bool) -> bool {
        self.model
            .with_device(|device| device.inner.hold_completions(hold));
        true
    }

    fn doorbells(&mut self) -> Option<u64> {
        Some(self.seen.doorbells())
    }

    fn waives_doorbells(&self) -> bool {
        self.model_config.latitude.polls_awhile
    }

    /// What the specification only advises is expected of this driver as well.
    fn complaints(&mut self) -> Vec<String> {
        let mut said = self.model.violations();
        let advice = |device: &mut Listener| device.inner.take_advice();
        said.extend(self.model.with_device(advice));
        said
    }
}

/// Which format the rings have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Format {
    Split,
    Packed,
}

/// What the device offers: each bit by itself, and none without what it requires.
fn offers(format: Format, seed: u64, random: &mut fastrand::Rng) -> Offers {
    let mut offers = Offers::all();
    // Each with each size of the ring.
    offers.indirect = (seed / RINGS.len() as u64).is_multiple_of(2);
    offers.packed = format == Format::Packed;
    offers.event_index = random.bool();
    offers.in_order = random.u8(..3) == 0;
    offers.checksum = random.u8(..4) > 0;
    offers.tso4 = offers.checksum && random.u8(..4) > 0;
    offers.tso6 = offers.checksum && random.u8(..4) > 0;
    offers.guest_checksum = random.u8(..4) > 0;
    offers.guest_tso4 = offers.guest_checksum && random.bool();
    offers.guest_tso6 = offers.guest_checksum && random.bool();
    offers.merge_buffers = random.bool();
    offers.mac = random.u8(..4) > 0;
    offers.status = random.u8(..4) > 0;
    offers.mtu = random.u8(..4) > 0;
    offers.control_queue = random.u8(..4) > 0;
    offers.control_receive = offers.control_queue && random.bool();
    offers.control_mac = offers.control_queue && random.bool();
    offers.multiqueue = offers.control_queue && random.bool();
    offers.access_platform = random.bool();
    offers.order_platform = random.bool();
    offers.ring_reset = random.bool();
    offers
}

/// The device, the driver's configuration and the granule for a seed.
fn bench(format: Format, seed: u64) -> ModelBench {
    let mut random = fastrand::Rng::with_seed(seed << 1 | u64::from(format == Format::Packed));
    let mut config = Config::default();
    config.mtu = if random.bool() { 1500 } else { 9000 };
    config.tx_descriptors = RINGS[seed as usize % RINGS.len()];
    config.rx_descriptors = RINGS[random.usize(..RINGS.len())];
    if config.mtu > 1500 {
        config.rx_descriptors = config.rx_descriptors.min(MOST_LARGE_BUFFERS);
    }
    config.queue_pairs = random.u16(1..=4);
    config.all_multicast = random.bool();
    config.features = Features::all();
    let mut model_config = ModelConfig {
        offers: offers(format, seed, &mut random),
        mtu: config.mtu,
        queue_size: 32_768,
        ..ModelConfig::default()
    };
    if format == Format::Split && random.bool() {
        // It could be packed.
        model_config.offers.packed = true;
        config.features.remove(Features::RING_PACKED);
    }
    if !model_config.offers.mac {
        config.mac_address = Some(MacAddress(model_config.mac));
    }
    if random.u8(..8) == 0 {
        model_config.latitude = Latitude::none();
    }
    if random.u8(..8) == 0 {
        model_config.latitude.polls_awhile = false;
    }
    let granules = [4096, 1 << 14, 1 << 16, 2 << 20, 0];
    let granule = Granule::from_bytes(granules[random.usize(..granules.len())]);
    let granule = granule.unwrap_or(Granule::CONTIGUOUS);
    let host = Host::new(HostConfig { seed, granule });
    let plugged = plug_in(&host, &model_config);
    ModelBench {
        config,
        granule,
        model_config,
        eager: random.u8(..5) < 2,
        stalled: false,
        host,
        model: plugged.model,
        seen: plugged.seen,
        far: plugged.far,
        second: None,
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

fn the_suite_passes(format: Format, seed: u64) {
    let mut options = Options::default();
    options.seed = seed;
    options.only = std::env::var("PAGEWIRE_CHECK").ok();
    let mut bench = bench(format, seed);
    let name = format!(
        "{format:?}, PAGEWIRE_SEED={seed}: {:?}, eager: {}, {:?}",
        bench.config, bench.eager, bench.model_config
    );
    let report = run(&mut bench, &options);
    println!("{name}\n{report}");
    assert!(!report.checks.is_empty(), "no check of this name");
    let failed: Vec<_> = report.failures().map(|check| check.name).collect();
    assert!(failed.is_empty(), "{name}: {failed:?}\n{report}");
}

/// Runs this test for one seed in a process of its own. What is leaked on purpose, the rings and
/// buffers of devices that do not become quiet, goes with it: of a thousand seeds some 20 GB.
fn passes_alone(test: &str, seed: u64) -> bool {
    let output = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env("PAGEWIRE_SEED", seed.to_string())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let last = said.lines().rfind(|line| line.contains(" passed, "));
    println!("seed {seed}: {}", last.unwrap_or("no report"));
    if !output.status.success() {
        println!("{said}\n{}", String::from_utf8_lossy(&output.stderr));
    }
    output.status.success()
}

fn the_suite_passes_on_every_seed(test: &str, format: Format) {
    if let Some(seed) = number("PAGEWIRE_SEED") {
        return the_suite_passes(format, seed);
    }
    let full = std::env::var("PAGEWIRE_FULL").is_ok_and(|value| value == "yes");
    let mut failed = Vec::new();
    for seed in 0..if full { 1000 } else { 12 } {
        if !passes_alone(test, seed) {
            failed.push(seed);
        }
        assert!(failed.len() < 5, "{format:?}, PAGEWIRE_SEED={failed:?}");
    }
    assert!(failed.is_empty(), "{format:?}, PAGEWIRE_SEED={failed:?}");
}

#[test]
fn split() {
    the_suite_passes_on_every_seed("split", Format::Split);
}

#[test]
fn packed() {
    the_suite_passes_on_every_seed("packed", Format::Packed);
}

/// The suite opens devices that work; this one does not want the driver's features.
#[test]
fn a_device_that_refuses_the_features_is_not_driven() {
    for format in [Format::Split, Format::Packed] {
        let mut bench = bench(format, 0);
        bench.model_config.refuse_features = true;
        let error = bench.open(0).expect_err("the features were refused");
        assert!(error.contains("FEATURES_OK"), "{format:?}: {error}");
        assert_eq!(bench.complaints(), [""; 0], "{format:?}");
    }
}
