//! The conformance suite on the virtio-net driver over the model of the device, which takes every
//! freedom that the specification leaves it, by seed: split and packed rings, and features as the
//! seed has it.
//!
//! `PAGEWIRE_FULL=yes` runs 1,000 seeds instead of 24. `PAGEWIRE_SEED=n` runs that one, and
//! `PAGEWIRE_CHECK=name` only the checks whose name contains that.

#![allow(clippy::unwrap_used, reason = "a panic is the failure")]

#[path = "common/far.rs"]
mod far;

use std::sync::Arc;
use std::time::Duration;

use far::Far;
use pagewire::hal::{Granule, Instant, Region};
use pagewire::virtio::{Config, Features, VirtioNet};
use pagewire_conformance::{Bench, FarEnd, Options, run};
use pagewire_models::virtio::{ModelConfig, Offers, VirtioNet as Model};
use pagewire_models::wire::pair;
use pagewire_models::{Host, HostConfig, HostMemory, ModelHandle, ModelPlatform};

/// The driver on its model.
struct ModelBench {
    config: Config,
    offers: Offers,
    host: Host,
    model: ModelHandle<Model>,
    far: Far,
    second: Option<(ModelHandle<Model>, Far)>,
    eager: bool,
    granule: Granule,
    queue_size: u16,
}

fn plug_in(host: &Host, bench: &Shape) -> (ModelHandle<Model>, Far, ModelPlatform) {
    let (near, end) = pair();
    let plug = end.plug();
    let model = ModelConfig {
        seed: bench.seed,
        offers: bench.offers,
        mtu: bench.mtu,
        queue_size: bench.queue_size,
        ..ModelConfig::default()
    };
    let attached = host.attach(Model::new(model, Box::new(near)));
    (attached.handle, Far { end, plug }, attached.platform)
}

/// What a device is made from.
struct Shape {
    seed: u64,
    offers: Offers,
    mtu: u16,
    queue_size: u16,
}

impl ModelBench {
    fn shape(&self, seed: u64) -> Shape {
        Shape {
            seed,
            offers: self.offers,
            mtu: self.config.mtu,
            queue_size: self.queue_size,
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
        let (model, far, platform) = plug_in(&self.host, &self.shape(seed));
        model.be_eager(self.eager);
        (self.model, self.far, self.second) = (model, far, None);
        VirtioNet::open(platform, &self.config).map_err(|error| error.to_string())
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
        let (model, far, platform) = plug_in(&self.host, &self.shape(seed));
        self.second = Some((model, far));
        Some(VirtioNet::open(platform, &self.config).map_err(|error| error.to_string()))
    }

    fn keeps_groups(&self) -> Option<bool> {
        Some(self.config.all_multicast)
    }

    fn never_quiet(&mut self) -> bool {
        self.model.with_device(|device| device.never_quiet(true));
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
        self.far.plug.set(up);
        true
    }

    fn hold_completions(&mut self, hold: bool) -> bool {
        self.model
            .with_device(|device| device.hold_completions(hold));
        true
    }

    fn complaints(&mut self) -> Vec<String> {
        self.model.violations()
    }
}

/// The device, the driver's configuration and the granule for a seed.
fn bench(seed: u64) -> ModelBench {
    let mut config = Config::default();
    config.mtu = if seed.is_multiple_of(3) { 9000 } else { 1500 };
    let ring = [256, 64, 16, 128, 32];
    config.tx_descriptors = ring[(seed / 2) as usize % ring.len()];
    config.rx_descriptors = ring[(seed / 3) as usize % ring.len()];
    config.all_multicast = seed % 4 < 2;
    if seed % 2 == 1 {
        config.features = Features::all();
    }
    let mut offers = Offers::all();
    // Each alone and some together, not in step with the rest.
    offers.indirect = seed % 5 != 1;
    offers.event_index = seed % 7 != 2;
    offers.in_order = seed % 3 == 1;
    offers.tso4 = seed % 5 != 3;
    offers.tso6 = seed % 7 != 4;
    let granules = [4096, 1 << 14, 1 << 16, 2 << 20, 0];
    let granule = Granule::from_bytes(granules[(seed / 2 + seed / 10) as usize % granules.len()]);
    let granule = granule.unwrap_or(Granule::CONTIGUOUS);
    let host = Host::new(HostConfig { seed, granule });
    let shape = Shape {
        seed,
        offers,
        mtu: config.mtu,
        queue_size: 256,
    };
    let (model, far, _) = plug_in(&host, &shape);
    ModelBench {
        config,
        offers,
        host,
        model,
        far,
        second: None,
        eager: seed % 5 < 2,
        granule,
        queue_size: shape.queue_size,
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
fn the_suite_passes_on_every_seed() {
    let full = std::env::var("PAGEWIRE_FULL").is_ok_and(|value| value == "yes");
    let seeds = match number("PAGEWIRE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..if full { 1000 } else { 24 },
    };
    let mut failures = Vec::new();
    for seed in seeds {
        let mut options = Options::default();
        options.seed = seed;
        options.only = std::env::var("PAGEWIRE_CHECK").ok();
        let report = run(&mut bench(seed), &options);
        println!("{report}");
        assert!(
            !report.checks.is_empty(),
            "seed {seed}: no check of this name"
        );
        let failed: Vec<_> = report.failures().map(|check| check.name).collect();
        if !failed.is_empty() {
            failures.push(format!("PAGEWIRE_SEED={seed}: {failed:?}\n{report}"));
        }
        assert!(failures.len() < 5, "{}", failures.join("\n\n"));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}
