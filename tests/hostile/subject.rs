//! What differs between the drivers that are tried here: how one is opened, on which model, which
//! lies that tells, and how long things may take.

use std::fmt::Debug;
use std::time::Duration;

use pagewire::hal::{Nic, NicError};
use pagewire_models::{Device, Wire};

use super::platform::{WatchedMemory, WatchedPlatform};
use super::script::{Decisions, Script};

/// A driver and the model that it is tried on.
pub(crate) trait Subject: Sized + 'static {
    type Model: Device + 'static;
    type Nic: Nic<Memory = WatchedMemory> + Debug;
    /// How the driver is opened, and what the device is made from.
    type Setup: Clone + Debug;
    type Lie: Copy + Eq + Debug + 'static;
    type Hostile: Clone + Debug;

    /// Every lie.
    const LIES: &'static [Self::Lie];
    /// The longest that `open` may take, on the machine's clock.
    const LONGEST_OPEN: Duration;
    /// The longest that a reset may take from `begin_reset` to its end.
    const LONGEST_STOP: Duration;
    /// Bytes that are a plan for an honest device with usual settings.
    const HONEST: &'static [u8];

    /// A setup from three bytes, the flags, rings and MTU of [`Plan`](super::Plan), and what else
    /// it needs.
    fn setup(bytes: [u8; 3], script: &mut Script<'_>) -> Self::Setup;

    /// The longest packet that the driver is opened for, in bytes.
    fn mtu(setup: &Self::Setup) -> u16;

    /// The longest frame in bytes that may be received, whatever the device says.
    fn longest_received(setup: &Self::Setup) -> usize;

    /// Whether the device works inside each write to a register.
    fn is_eager(_setup: &Self::Setup) -> bool {
        false
    }

    fn model(setup: &Self::Setup, seed: u64, wire: Box<dyn Wire>) -> Self::Model;

    fn open(platform: WatchedPlatform, setup: &Self::Setup) -> Result<Self::Nic, NicError>;

    /// Lies that leave the device's word of what it has finished, and what registers and
    /// capabilities the driver writes by, as they are: with these alone, memory that the device
    /// still reads must stay, and what goes out must be what was posted.
    fn is_truthful(lie: Self::Lie) -> bool;

    /// Lies that excuse accesses to registers that are not there.
    fn moves_registers(_lie: Self::Lie) -> bool {
        false
    }

    fn hostile(decisions: Decisions<'_>, lies: &[Self::Lie]) -> Self::Hostile;

    fn be_hostile(model: &mut Self::Model, hostile: Option<Self::Hostile>);

    /// How often a lie was told.
    fn told(model: &Self::Model, lie: Self::Lie) -> u64;

    fn hold_completions(model: &mut Self::Model, hold: bool);

    /// Whether memory may be kept by an attempt to open that failed, as the device did not become
    /// quiet after it was told of that memory.
    fn may_open_leak(_setup: &Self::Setup, _error: &NicError) -> bool {
        false
    }

    /// Whether `restart` may say so after a reset.
    fn may_restart_say(error: &NicError) -> bool;
}
