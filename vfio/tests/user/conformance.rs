//! The conformance suite on each driver and the model of its device, over a socket.

use std::time::Duration;

use pagewire_conformance::{Options, run};
use pagewire_e1000e::E1000e;
use pagewire_ixgbe::Ixgbe;
use pagewire_models::e1000e::{self, E1000e82574};
use pagewire_models::ixgbe::{self, Ixgbe82599};
use pagewire_models::{Wire, virtio};
use pagewire_vfio::user::VfioUserPlatform;
use pagewire_virtio::VirtioNet;

use crate::bench::{Subject, UserBench};

pub(crate) struct Intel82574;
pub(crate) struct Intel82599;
pub(crate) struct Virtio;

impl Subject for Intel82574 {
    type Model = E1000e82574;
    type Nic = E1000e<VfioUserPlatform>;
    const SPEED: Option<u32> = Some(1000);

    fn model(seed: u64, wire: Box<dyn Wire>) -> E1000e82574 {
        let config = e1000e::ModelConfig {
            seed,
            ..Default::default()
        };
        E1000e82574::new(config, wire)
    }

    fn open(platform: VfioUserPlatform) -> Result<Self::Nic, String> {
        E1000e::open(platform, &Default::default()).map_err(|error| error.to_string())
    }

    fn hold(model: &mut E1000e82574, hold: bool) {
        model.hold_completions(hold);
    }

    fn never_quiet(model: &mut E1000e82574) {
        model.never_quiet(true);
    }

    fn remove(model: &mut E1000e82574) {
        model.remove();
    }

    fn need_reset(_model: &mut E1000e82574) -> bool {
        false
    }

    fn hash_key() -> Option<Vec<u8>> {
        None
    }
}

impl Subject for Intel82599 {
    type Model = Ixgbe82599;
    type Nic = Ixgbe<VfioUserPlatform>;
    const SPEED: Option<u32> = Some(10_000);

    fn model(seed: u64, wire: Box<dyn Wire>) -> Ixgbe82599 {
        let config = ixgbe::ModelConfig {
            seed,
            ..Default::default()
        };
        Ixgbe82599::new(config, wire)
    }

    fn open(platform: VfioUserPlatform) -> Result<Self::Nic, String> {
        Ixgbe::open(platform, &config()).map_err(|error| error.to_string())
    }

    fn hold(model: &mut Ixgbe82599, hold: bool) {
        model.hold_completions(hold);
    }

    fn never_quiet(model: &mut Ixgbe82599) {
        model.never_quiet(true);
    }

    fn remove(model: &mut Ixgbe82599) {
        model.remove();
    }

    fn need_reset(_model: &mut Ixgbe82599) -> bool {
        false
    }

    fn hash_key() -> Option<Vec<u8>> {
        Some(config().rss_key.bytes().to_vec())
    }
}

/// Two pairs of queues.
fn config() -> pagewire_ixgbe::Config {
    let mut config = pagewire_ixgbe::Config::default();
    config.queue_pairs = 2;
    config
}

impl Subject for Virtio {
    type Model = virtio::VirtioNet;
    type Nic = VirtioNet<VfioUserPlatform>;
    // SPEED_DUPLEX is not negotiated.
    const SPEED: Option<u32> = None;

    fn model(seed: u64, wire: Box<dyn Wire>) -> virtio::VirtioNet {
        let mut config = virtio::ModelConfig {
            seed,
            ..Default::default()
        };
        // Each format of the rings by turns.
        config.offers.packed = seed % 2 == 1;
        virtio::VirtioNet::new(config, wire)
    }

    fn open(platform: VfioUserPlatform) -> Result<Self::Nic, String> {
        let mut config = pagewire_virtio::Config::default();
        config.features |= pagewire_virtio::Features::RING_PACKED;
        VirtioNet::open(platform, &config).map_err(|error| error.to_string())
    }

    fn hold(model: &mut virtio::VirtioNet, hold: bool) {
        model.hold_completions(hold);
    }

    fn never_quiet(model: &mut virtio::VirtioNet) {
        model.never_quiet(true);
    }

    fn remove(model: &mut virtio::VirtioNet) {
        model.remove();
    }

    fn need_reset(model: &mut virtio::VirtioNet) -> bool {
        model.need_reset();
        true
    }

    fn hash_key() -> Option<Vec<u8>> {
        None
    }
}

fn run_suite<S: Subject>(name: &str) {
    let asked = std::env::var("PAGEWIRE_SEED").map(|seed| seed.parse().unwrap());
    let seeds: Vec<u64> = asked.map_or(vec![0, 1], |seed| vec![seed]);
    for seed in seeds {
        let mut options = Options::default();
        options.seed = seed;
        options.only = std::env::var("PAGEWIRE_CHECK").ok();
        // The server is another thread, with its own turn on the processor.
        options.patience = Duration::from_secs(30);
        options.settle = Duration::from_millis(25);
        let report = run(&mut UserBench::<S>::new(), &options);
        println!("{name} over vfio-user\n{report}");
        assert!(!report.checks.is_empty(), "no check of this name");
        assert_eq!(
            report.failures().count(),
            0,
            "{name}, seed {seed}\n{report}"
        );
    }
}

#[test]
fn the_suite_passes_on_e1000e() {
    run_suite::<Intel82574>("e1000e");
}

#[test]
fn the_suite_passes_on_ixgbe() {
    run_suite::<Intel82599>("ixgbe");
}

#[test]
fn the_suite_passes_on_virtio() {
    run_suite::<Virtio>("virtio");
}
