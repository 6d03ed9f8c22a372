//! The tests by name, and what can come of them.

use alloc::string::String;
use core::fmt;
use core::time::Duration;

/// A self-test.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Test {
    /// Registers hold what is written, and behave as the specification has it.
    Registers,
    /// The checksum of the EEPROM.
    Eeprom,
    /// The link is up, and follows the wire.
    Link,
    /// Each interrupt vector fires.
    Interrupts,
    /// Frames come back through the MAC.
    Loopback,
    /// Frames of one fragment to as many as are advertised.
    Gather,
    /// Each checksum that the device offers to insert.
    ChecksumTransmit,
    /// What the device says of the checksums that it receives.
    ChecksumReceive,
    /// TCP segmentation by the device.
    Segmentation,
    /// The device does not read memory that is not mapped for it.
    DmaRead,
    /// The device does not write memory that is not mapped for it.
    DmaWrite,
    /// The device can be reset at any time, and works as before.
    Reset,
    /// How much the device moves, without a loss.
    Throughput,
}

impl Test {
    /// All of them, in the order in which they are run: what later ones rely on comes first.
    pub const ALL: [Self; 13] = [
        Self::Registers,
        Self::Eeprom,
        Self::Link,
        Self::Interrupts,
        Self::Loopback,
        Self::Gather,
        Self::ChecksumTransmit,
        Self::ChecksumReceive,
        Self::Segmentation,
        Self::DmaRead,
        Self::DmaWrite,
        Self::Reset,
        Self::Throughput,
    ];

    /// Its name, which stays the same from version to version.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Registers => "registers",
            Self::Eeprom => "eeprom",
            Self::Link => "link",
            Self::Interrupts => "interrupts",
            Self::Loopback => "loopback",
            Self::Gather => "gather",
            Self::ChecksumTransmit => "checksum-transmit",
            Self::ChecksumReceive => "checksum-receive",
            Self::Segmentation => "segmentation",
            Self::DmaRead => "dma-read",
            Self::DmaWrite => "dma-write",
            Self::Reset => "reset",
            Self::Throughput => "throughput",
        }
    }

    /// What is tested, in a line.
    #[must_use]
    pub const fn description(self) -> &'static str {
        match self {
            Self::Registers => {
                "registers hold what is written, or behave as the specification has it"
            }
            Self::Eeprom => "the checksum of the EEPROM is right",
            Self::Link => "the link is up, and goes down and up with the wire",
            Self::Interrupts => "every MSI-X vector fires",
            Self::Loopback => "frames come back through the MAC, byte by byte",
            Self::Gather => "frames of 1 to the most fragments arrive byte by byte",
            Self::ChecksumTransmit => "every checksum that the device offers to insert is right",
            Self::ChecksumReceive => "good and wrong checksums of received frames are told apart",
            Self::Segmentation => "TCP segments cut by the device are right, in headers and bytes",
            Self::DmaRead => "memory that is not mapped for the device cannot be sent",
            Self::DmaWrite => "memory that is not mapped for the device is not written",
            Self::Reset => "a reset in flight ends, gives everything back, and all works again",
            Self::Throughput => "what the device moves in a second, without a loss",
        }
    }

    /// The test of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|test| test.name() == name)
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a test found wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// What is wrong.
    pub what: String,
    /// Where: a register, a vector, a frame.
    pub place: String,
    /// How to go on.
    pub advice: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (at: {})", self.what, self.place)
    }
}

/// What came of a test.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// As it must be; what was seen.
    Passed(String),
    /// Something is wrong.
    Failed(Fault),
    /// It could not be run; why.
    NotRun(String),
}

/// A test and what came of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// Which test.
    pub test: Test,
    /// What came of it.
    pub outcome: Outcome,
    /// How long it took, by the clock of the station.
    pub duration: Duration,
}

/// What happens while tests run.
#[derive(Debug)]
pub enum Event<'a> {
    /// A test begins.
    Begins(Test),
    /// A test has ended.
    Ended(&'a Report),
}

/// Why a test does not go on.
#[derive(Debug)]
pub(super) enum Stop {
    /// Something is wrong.
    Fault(Fault),
    /// It cannot be run.
    NotRun(String),
    /// The device does not open.
    Closed(String),
}

/// A test's end: what was seen, or why it stopped.
pub(super) type Checked = Result<String, Stop>;

/// Something is wrong.
pub(super) fn fault<T>(
    what: impl Into<String>,
    place: impl Into<String>,
    advice: impl Into<String>,
) -> Result<T, Stop> {
    Err(Stop::Fault(Fault {
        what: what.into(),
        place: place.into(),
        advice: advice.into(),
    }))
}

/// It cannot be run.
pub(super) fn not_run<T>(why: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::NotRun(why.into()))
}
