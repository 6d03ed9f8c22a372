//! The e1000e driver on the model of the 82574L.

use std::time::Duration;

use pagewire::e1000e::{self, Config};
use pagewire::hal::NicError;
use pagewire_models::Wire;
use pagewire_models::e1000e::{E1000e82574, Hostile, Lie, ModelConfig};

use super::intel;
use super::platform::WatchedPlatform;
use super::script::{Decisions, Script};
use super::subject::Subject;

/// See the [module](self).
#[derive(Debug)]
pub(crate) enum E1000e {}

impl Subject for E1000e {
    type Model = E1000e82574;
    type Nic = e1000e::E1000e<WatchedPlatform>;
    type Setup = Config;
    type Lie = Lie;
    type Hostile = Hostile;

    const LIES: &'static [Lie] = &Lie::ALL;
    // 67 words of the EEPROM at half a second each, and all other limits together.
    const LONGEST_OPEN: Duration = Duration::from_secs(40);
    // 500 ms for the device, 500 ms for the bus, 100 ms for the reset, and what lies between two
    // polls.
    const LONGEST_STOP: Duration = Duration::from_millis(1200);
    const HONEST: &'static [u8] = &[0, 0x24, 2, 0x80, 1];

    fn setup([flags, rings, mtu]: [u8; 3], _script: &mut Script<'_>) -> Config {
        let mut config = Config::default();
        config.tx_descriptors = 8 << (rings & 7).min(5);
        config.rx_descriptors = 8 << (rings >> 4 & 3);
        config.mtu = match mtu {
            0 => 68,
            1 => 576,
            2..0x60 => 1500,
            0x60..0x80 => 2034,
            0x80..0xa0 => 4000,
            0xa0..0xc0 => 9000,
            other => 68 + u16::from(other - 0xc0) * 144,
        };
        config.max_fragments = (rings & 8 != 0).then_some(1 + u16::from(mtu & 3));
        config.checksum_offload = flags & 0x04 == 0;
        config.generic_checksum = rings & 0x40 != 0;
        config.promiscuous = rings & 0x80 != 0;
        config
    }

    fn mtu(setup: &Config) -> u16 {
        setup.mtu
    }

    fn longest_received(setup: &Config) -> usize {
        let most = usize::from(setup.mtu) + 22;
        most.next_power_of_two().max(2048)
    }

    fn model(_setup: &Config, seed: u64, wire: Box<dyn Wire>) -> E1000e82574 {
        let config = ModelConfig {
            seed,
            ..ModelConfig::default()
        };
        E1000e82574::new(config, wire)
    }

    fn open(platform: WatchedPlatform, setup: &Config) -> Result<Self::Nic, NicError> {
        e1000e::E1000e::open(platform, setup)
    }

    fn is_truthful(lie: Lie) -> bool {
        intel::is_truthful(lie)
    }

    fn hostile(decisions: Decisions<'_>, lies: &[Lie]) -> Hostile {
        intel::hostile(decisions, lies)
    }

    fn be_hostile(model: &mut E1000e82574, hostile: Option<Hostile>) {
        model.be_hostile(hostile);
    }

    fn told(model: &E1000e82574, lie: Lie) -> u64 {
        model.lies_told().told(lie)
    }

    fn hold_completions(model: &mut E1000e82574, hold: bool) {
        model.hold_completions(hold);
    }

    fn may_restart_say(error: &NicError) -> bool {
        matches!(error, NicError::Removed | NicError::Timeout { .. })
    }
}
