//! The virtio-net driver on its model.

use std::time::Duration;

use pagewire::hal::{MacAddress, NicError};
use pagewire::virtio::{Config, Features, VirtioNet};
use pagewire_models::Wire;
use pagewire_models::virtio::{Hostile, Lie, Lies, ModelConfig, Offers, VirtioNet as Model};

use super::platform::WatchedPlatform;
use super::script::{Decisions, Script};
use super::subject::Subject;

/// See the [module](self).
#[derive(Debug)]
pub(crate) enum Virtio {}

/// See [`Subject::is_truthful`].
const TRUTHFUL: [Lie; 25] = [
    Lie::NeedsReset,
    Lie::ResetNeverEnds,
    Lie::QueueResetNeverEnds,
    Lie::VectorRefused,
    Lie::GenerationUnsettled,
    Lie::MacNonsense,
    Lie::LinkFlap,
    Lie::Stall,
    Lie::UsedLost,
    Lie::LengthTooLong,
    Lie::LengthTooShort,
    Lie::EventNonsense,
    Lie::BuffersZero,
    Lie::BuffersMany,
    Lie::GsoTypeUnknown,
    Lie::GsoSizeNonsense,
    Lie::ChecksumPlace,
    Lie::HeaderLength,
    Lie::HeaderFlags,
    Lie::HeaderRandom,
    Lie::AnswerMissing,
    Lie::AnswerGarbage,
    Lie::CommandLost,
    Lie::InterruptAtRandom,
    Lie::InterruptLost,
];

/// Lies of where structures, registers and doorbells are.
const MOVES: [Lie; 9] = [
    Lie::CapabilityLoop,
    Lie::CapabilityMissing,
    Lie::CapabilityBar,
    Lie::CapabilityOffset,
    Lie::CapabilityLength,
    Lie::CapabilityNonsense,
    Lie::CapabilityShort,
    Lie::NotifyMultiplier,
    Lie::NotifyOffset,
];

/// Driver and device.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) config: Config,
    pub(crate) model: ModelConfig,
    pub(crate) eager: bool,
}

/// What the device offers, a bit of `choice` each; what that requires is offered with it.
fn offers(packed: bool, choice: u16) -> Offers {
    let bit = |at: u32| choice >> at & 1 == 0;
    let mut offers = Offers::all();
    offers.packed = packed;
    offers.indirect = bit(0);
    offers.event_index = bit(1);
    offers.in_order = !bit(2);
    offers.checksum = bit(3);
    offers.tso4 = bit(3);
    offers.tso6 = bit(3);
    offers.guest_checksum = bit(4);
    offers.guest_tso4 = bit(4) && bit(5);
    offers.guest_tso6 = bit(4) && bit(5);
    offers.merge_buffers = bit(6);
    offers.control_queue = bit(7);
    offers.control_receive = bit(7);
    offers.control_mac = bit(7);
    offers.multiqueue = bit(7) && bit(8);
    offers.mtu = bit(9);
    offers.mac = bit(10);
    offers.status = bit(11);
    offers.ring_reset = bit(12);
    offers
}

impl Subject for Virtio {
    type Model = Model;
    type Nic = VirtioNet<WatchedPlatform>;
    type Setup = Setup;
    type Lie = Lie;
    type Hostile = Hostile;

    const LIES: &'static [Lie] = &Lie::ALL;
    // A second for the reset, a second for the answer to a command, and what lies between.
    const LONGEST_OPEN: Duration = Duration::from_secs(4);
    // 100 ms for the queues, a second for the reset, half a second for the bus, and what lies
    // between two polls.
    const LONGEST_STOP: Duration = Duration::from_millis(1700);
    const HONEST: &'static [u8] = &[0, 0x24, 2, 0x80, 1];

    /// The flag 4 is for packed rings. Two more bytes are what the device does not offer.
    fn setup([flags, rings, mtu]: [u8; 3], script: &mut Script<'_>) -> Setup {
        let choice = script.half();
        let packed = flags & 0x04 != 0;
        let mut config = Config::default();
        config.tx_descriptors = 8 << (rings & 7);
        config.rx_descriptors = 4 << (rings >> 4 & 3);
        if rings & 7 == 7 {
            config.tx_descriptors = 1 << (rings >> 4 & 3);
        }
        config.mtu = match mtu {
            0..0x80 => 1500,
            0x80..0xa0 => 4000,
            0xa0..0xc0 => 9000,
            other => 576 + u16::from(other - 0xc0) * 132,
        };
        config.max_fragments = (rings & 8 != 0).then_some(1 + u16::from(mtu & 3));
        config.queue_pairs = 1 + u16::from(rings >> 6 & 1) * 2;
        config.promiscuous = rings & 0x80 != 0;
        config.features = Features::all();
        let model = ModelConfig {
            offers: offers(packed, choice),
            mtu: config.mtu,
            pairs: 3,
            ..ModelConfig::default()
        };
        config.mac_address = (!model.offers.mac).then_some(MacAddress(model.mac));
        Setup {
            config,
            model,
            eager: choice & 0x8000 != 0,
        }
    }

    fn mtu(setup: &Setup) -> u16 {
        setup.config.mtu
    }

    /// What the largest packet of all makes, with a VLAN tag.
    fn longest_received(_setup: &Setup) -> usize {
        65_535 + 18
    }

    fn is_eager(setup: &Setup) -> bool {
        setup.eager
    }

    fn model(setup: &Setup, seed: u64, wire: Box<dyn Wire>) -> Model {
        let config = ModelConfig {
            seed,
            ..setup.model.clone()
        };
        Model::new(config, wire)
    }

    fn open(platform: WatchedPlatform, setup: &Setup) -> Result<Self::Nic, NicError> {
        VirtioNet::open(platform, &setup.config)
    }

    fn is_truthful(lie: Lie) -> bool {
        TRUTHFUL.contains(&lie)
    }

    fn moves_registers(lie: Lie) -> bool {
        MOVES.contains(&lie)
    }

    fn hostile(decisions: Decisions<'_>, lies: &[Lie]) -> Hostile {
        let hostile = match decisions {
            Decisions::Script(bytes) => Hostile::from_bytes(bytes),
            Decisions::Seed { seed, gap } => Hostile::from_seed(seed).with_gap(gap),
        };
        hostile.with_lies(lies.iter().copied().fold(Lies::none(), Lies::with))
    }

    fn be_hostile(model: &mut Model, hostile: Option<Hostile>) {
        model.be_hostile(hostile);
    }

    fn told(model: &Model, lie: Lie) -> u64 {
        model.lies_told().told(lie)
    }

    fn hold_completions(model: &mut Model, hold: bool) {
        model.hold_completions(hold);
    }

    /// It may fail after the start, when the control queue does not answer.
    fn may_open_leak(setup: &Setup, _error: &NicError) -> bool {
        setup.config.queue_pairs > 1
    }

    fn may_restart_say(error: &NicError) -> bool {
        matches!(
            error,
            NicError::Removed | NicError::Timeout { .. } | NicError::NotOffered { .. }
        )
    }
}
