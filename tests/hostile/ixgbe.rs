//! The ixgbe driver on the model of the 82599 and X540.

use std::time::Duration;

use pagewire::hal::{MacAddress, NicError};
use pagewire::ixgbe::{self, Config, RssKey};
use pagewire_models::Wire;
use pagewire_models::ixgbe::{DeviceId, Hostile, Ixgbe82599, Lie, ModelConfig, Module};

use super::intel;
use super::platform::WatchedPlatform;
use super::script::{Decisions, Script};
use super::subject::Subject;

/// See the [module](self).
#[derive(Debug)]
pub(crate) enum Ixgbe {}

/// Driver and device.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) config: Config,
    pub(crate) device: DeviceId,
    /// What is in the cage, if the device has one.
    pub(crate) module: Module,
    pub(crate) eager: bool,
}

impl Subject for Ixgbe {
    type Model = Ixgbe82599;
    type Nic = ixgbe::Ixgbe<WatchedPlatform>;
    type Setup = Setup;
    type Lie = Lie;
    type Hostile = Hostile;

    const LIES: &'static [Lie] = &Lie::ALL;
    // What the driver's documentation says.
    const LONGEST_OPEN: Duration = Duration::from_secs(90);
    // 80 ms for the device, 500 ms for the bus, a second for the X540's PHY, 50 or 100 ms for the
    // first of two resets, 500 ms for the second, 80 ms for the device again, and what lies
    // between two polls.
    const LONGEST_STOP: Duration = Duration::from_millis(2500);
    const HONEST: &'static [u8] = &[0, 0x24, 2, 0x80, 1];

    /// Two more bytes are the device, the pairs of queues, and what else is not usual.
    fn setup([flags, rings, mtu]: [u8; 3], script: &mut Script<'_>) -> Setup {
        let choice = script.half();
        let mut config = Config::default();
        config.tx_descriptors = 8 << (rings & 7).min(5);
        config.rx_descriptors = 8 << (rings >> 4 & 3);
        config.mtu = match mtu {
            0 => 576,
            1 => 1501,
            2..0x60 => 1500,
            0x60..0x80 => 2034,
            0x80..0xa0 => 4000,
            0xa0..0xc0 => 9000,
            other => 576 + u16::from(other - 0xc0) * 144,
        };
        config.max_fragments = (rings & 8 != 0).then_some(1 + u16::from(mtu & 3));
        config.checksum_offload = flags & 0x04 == 0;
        config.segmentation = rings & 0x40 == 0;
        config.promiscuous = rings & 0x80 != 0;
        config.queue_pairs = [1, 1, 1, 1, 2, 3, 4, 16][usize::from(choice & 7)];
        config.rss_key = match choice >> 3 & 3 {
            0 | 1 => RssKey::Standard,
            2 => RssKey::Symmetric,
            _ => RssKey::Custom([choice as u8; 40]),
        };
        config.mac_address = (choice & 0x20 != 0).then_some(MacAddress([2, 0, 0, 0, 0, 7]));
        config.interrupt_interval = (choice >> 6 & 1) * 50;
        config.allow_untested = true;
        let device = match choice >> 8 & 15 {
            0..8 => DeviceId::Kx4,
            8..10 => DeviceId::Xaui,
            10 | 11 => DeviceId::Sfp,
            _ => DeviceId::X540T,
        };
        let module = match choice >> 12 & 7 {
            0 => Module::None,
            1 => Module::Gigabit,
            2..4 => Module::Cable,
            _ => Module::ShortReach,
        };
        Setup {
            config,
            device,
            module,
            eager: choice & 0x8000 != 0,
        }
    }

    fn mtu(setup: &Setup) -> u16 {
        setup.config.mtu
    }

    fn longest_received(setup: &Setup) -> usize {
        let most = usize::from(setup.config.mtu) + 22;
        most.next_power_of_two().max(2048)
    }

    fn is_eager(setup: &Setup) -> bool {
        setup.eager
    }

    fn model(setup: &Setup, seed: u64, wire: Box<dyn Wire>) -> Ixgbe82599 {
        let config = ModelConfig {
            seed,
            device: setup.device,
            module: setup.module,
            ..ModelConfig::default()
        };
        Ixgbe82599::new(config, wire)
    }

    fn open(platform: WatchedPlatform, setup: &Setup) -> Result<Self::Nic, NicError> {
        ixgbe::Ixgbe::open(platform, &setup.config)
    }

    fn is_truthful(lie: Lie) -> bool {
        intel::is_truthful(lie)
    }

    fn hostile(decisions: Decisions<'_>, lies: &[Lie]) -> Hostile {
        intel::hostile(decisions, lies)
    }

    fn be_hostile(model: &mut Ixgbe82599, hostile: Option<Hostile>) {
        model.be_hostile(hostile);
    }

    fn told(model: &Ixgbe82599, lie: Lie) -> u64 {
        model.lies_told().told(lie)
    }

    fn hold_completions(model: &mut Ixgbe82599, hold: bool) {
        model.hold_completions(hold);
    }

    /// It may fail after the device was told of the queues, when one does not switch itself on, or
    /// when it is gone by then.
    fn may_open_leak(_setup: &Setup, error: &NicError) -> bool {
        match error {
            NicError::Timeout { what, .. } => what.contains("queue"),
            error => *error == NicError::Removed,
        }
    }

    fn may_restart_say(error: &NicError) -> bool {
        matches!(error, NicError::Removed | NicError::Timeout { .. })
    }
}
