//! What goes wrong with queues and devices.

use core::fmt;
use core::time::Duration;

use crate::{FrameError, MacAddress, PlatformError};

/// Why a frame was not posted. The ring is as before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PostError {
    /// No room now; there will be after completions.
    Full,
    /// The frame can never be posted on this device.
    Refused(FrameError),
    /// The queue has failed or the device is stopped: reset it.
    Down,
}

impl fmt::Display for PostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => write!(f, "the transmit ring is full"),
            Self::Refused(why) => write!(f, "the frame cannot be posted: {why}"),
            Self::Down => write!(f, "the transmit queue is down: reset the device"),
        }
    }
}

impl core::error::Error for PostError {}

/// What a device did that it must not. The queue is down until a reset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum QueueError {
    /// Registers read all ones: the device has been removed.
    Removed,
    /// It named a descriptor that was not outstanding.
    BadIndex {
        /// The index as written by the device.
        index: u32,
    },
    /// It wrote a length beyond the buffer.
    BadLength {
        /// The length as written by the device, in bytes.
        len: u32,
    },
    /// The device is stopped or an earlier error stopped the queue.
    Down,
}

impl fmt::Display for QueueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Removed => write!(f, "the device is gone (its registers read all ones)"),
            Self::BadIndex { index } => write!(
                f,
                "the device named descriptor {index}, which it did not have"
            ),
            Self::BadLength { len } => write!(
                f,
                "the device wrote a length of {len} bytes, beyond the buffer"
            ),
            Self::Down => write!(f, "the queue is down: reset the device"),
        }
    }
}

impl core::error::Error for QueueError {}

/// What went wrong with a device as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum NicError {
    /// The platform could not do what the driver asked for.
    Platform(PlatformError),
    /// This driver does not know the PCI device.
    UnknownDevice {
        /// PCI vendor id.
        vendor: u16,
        /// PCI device id.
        device: u16,
    },
    /// The driver knows the device, but nobody has tried it: open it on request only.
    Untested {
        /// PCI device id.
        device: u16,
        /// Its name.
        name: &'static str,
    },
    /// A value of the configuration is out of its range.
    Config {
        /// Which, and what the range is.
        what: &'static str,
    },
    /// The device did not do something in time.
    Timeout {
        /// What was waited for.
        what: &'static str,
        /// How long.
        after: Duration,
    },
    /// The EEPROM's words do not sum to what they must.
    EepromChecksum {
        /// The sum found.
        found: u16,
        /// The sum that it must be.
        expected: u16,
    },
    /// The station address in the device is not one.
    BadMacAddress(MacAddress),
    /// The device does not have this.
    NotOffered {
        /// What was asked for.
        what: &'static str,
    },
    /// Registers read all ones: the device has been removed.
    Removed,
    /// The device does not stop reaching memory; what it was lent is leaked.
    NotQuiet,
    /// The call does not fit the phase of the reset.
    WrongPhase,
    /// A queue pair that was taken out is not among those handed in.
    QueueMissing {
        /// Its number.
        index: u16,
    },
}

impl From<PlatformError> for NicError {
    fn from(error: PlatformError) -> Self {
        Self::Platform(error)
    }
}

impl fmt::Display for NicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Platform(error) => write!(f, "{error}"),
            Self::UnknownDevice { vendor, device } => {
                write!(f, "no driver for PCI device {vendor:04x}:{device:04x}")
            }
            Self::Untested { device, name } => write!(
                f,
                "{name} (device id {device:04x}) is untested; set `allow_untested` to open it all the same"
            ),
            Self::Config { what } => write!(f, "configuration: {what}"),
            Self::Timeout { what, after } => write!(f, "{what} did not happen within {after:?}"),
            Self::EepromChecksum { found, expected } => {
                write!(
                    f,
                    "the EEPROM sums to {found:#06x} instead of {expected:#06x}"
                )
            }
            Self::BadMacAddress(mac) => write!(f, "{mac} is no station address"),
            Self::NotOffered { what } => write!(f, "the device has no {what}"),
            Self::Removed => write!(f, "the device is gone (its registers read all ones)"),
            Self::NotQuiet => write!(
                f,
                "the device does not stop reaching memory; the memory it was lent is leaked"
            ),
            Self::WrongPhase => write!(f, "not in this phase of a reset"),
            Self::QueueMissing { index } => write!(f, "queue pair {index} was not handed in"),
        }
    }
}

impl core::error::Error for NicError {}
