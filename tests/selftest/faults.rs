//! Devices with a fault, and which test is to find it.

use pagewire_drivers::selftest::Test;

use crate::lab::Chip;

/// What is wrong with a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Bit `bit` of the register at `offset` of BAR 0 always reads 1.
    StuckBit { offset: u32, bit: u32 },
    /// The register at `offset` of BAR 0 is the one at `same`.
    Alias { offset: u32, same: u32 },
    /// The selection of features is never kept (virtio).
    Forgetful,
    /// A word of the EEPROM reads otherwise.
    EepromWord,
    /// MSI-X vector `vector` never fires.
    SilentVector(u16),
    /// The link does not follow the wire.
    LinkStaysUp,
    /// The register says that there is no link.
    NeverLink { offset: u32, bit: u32 },
    /// The bits that switch the loopback on do nothing.
    NoLoopback { offset: u32, bits: u32 },
    /// Of a frame only the first so many fragments are sent.
    FragmentsLost(usize),
    /// In frames of more fragments than this the second and the third are exchanged.
    FragmentsSwapped(usize),
    /// The IPv4 header checksum is left 0 in frames of this length.
    NoHeaderSum(usize),
    /// The transport checksum is wrong in frames of this length and protocol over this version.
    WrongSum {
        version: u8,
        protocol: u8,
        len: usize,
    },
    /// A received frame's checksums are never said to be wrong (e1000e, ixgbe).
    AllGood,
    /// Received checksums are never looked at (e1000e).
    NothingChecked,
    /// The third segment of a request has the number of the second.
    SequenceAgain,
    /// The last segment is not sent.
    LastSegmentLost,
    /// PSH is in every segment.
    PushEverywhere,
    /// The device reads what is not mapped for it.
    ReadsAll,
    /// The device writes what is not mapped for it.
    WritesAll,
    /// A reset that comes while frames are under way does not end.
    EndlessReset { control: u32, bit: u32, status: u32 },
    /// After a restart nothing is received.
    DeafAfterReset,
    /// After a restart nothing is sent.
    DumbAfterReset,
    /// Of so many frames sent one is lost.
    EveryNthLost(u32),
    /// Of so many frames received one is lost.
    EveryNthMissed(u32),
}

/// A faulty device, and what is to be found.
#[derive(Debug)]
pub struct Case {
    pub chip: Chip,
    pub fault: Fault,
    /// The test that must fail.
    pub test: Test,
    /// What it must say.
    pub words: &'static [&'static str],
    /// Others that may fail, as the fault touches what they do.
    pub also: &'static [Test],
    /// Whether the driver does not open such a device: no other test is run then.
    pub closes: bool,
}

const fn case(chip: Chip, fault: Fault, test: Test, words: &'static [&'static str]) -> Case {
    Case {
        chip,
        fault,
        test,
        words,
        also: &[],
        closes: false,
    }
}

const fn also(case: Case, also: &'static [Test]) -> Case {
    Case { also, ..case }
}

const fn closing(case: Case) -> Case {
    Case {
        closes: true,
        ..case
    }
}

use Chip::E1000e;
const KX4: Chip = Chip::KX4;
const SPLIT: Chip = Chip::SPLIT;
const PACKED: Chip = Chip::PACKED;

const TCP: u8 = 6;
const UDP: u8 = 17;

/// Bytes of the packets of the checksum test with 101 bytes of payload.
const TCP4: usize = 14 + 20 + 20 + 101;
const TCP6: usize = TCP4 + 20;
const UDP4: usize = 14 + 20 + 8 + 101;
const UDP6: usize = UDP4 + 20;

pub const CASES: &[Case] = &[
    case(
        E1000e,
        Fault::StuckBit {
            offset: 0x0170,
            bit: 3,
        },
        Test::Registers,
        &["FCTTV", "0x0170"],
    ),
    case(
        KX4,
        Fault::Alias {
            offset: 0x5214,
            same: 0x5210,
        },
        Test::Registers,
        &["MTA"],
    ),
    case(
        SPLIT,
        Fault::Forgetful,
        Test::Registers,
        &["feature_select"],
    ),
    closing(case(
        E1000e,
        Fault::EepromWord,
        Test::Eeprom,
        &["EEPROM", "0xbaba"],
    )),
    closing(case(
        KX4,
        Fault::EepromWord,
        Test::Eeprom,
        &["EEPROM", "0xbaba"],
    )),
    case(
        E1000e,
        Fault::SilentVector(1),
        Test::Interrupts,
        &["vector 1"],
    ),
    case(KX4, Fault::SilentVector(5), Test::Interrupts, &["vector 5"]),
    case(
        KX4,
        Fault::SilentVector(32),
        Test::Interrupts,
        &["vector 32"],
    ),
    case(
        SPLIT,
        Fault::SilentVector(0),
        Test::Interrupts,
        &["vector 0", "pair 0"],
    ),
    case(
        PACKED,
        Fault::SilentVector(2),
        Test::Interrupts,
        &["vector 2", "link"],
    ),
    case(E1000e, Fault::LinkStaysUp, Test::Link, &["stays up"]),
    case(KX4, Fault::LinkStaysUp, Test::Link, &["stays up"]),
    case(
        E1000e,
        Fault::NeverLink {
            offset: 0x0008,
            bit: 1,
        },
        Test::Link,
        &["not up"],
    ),
    case(
        E1000e,
        Fault::NoLoopback {
            offset: 0x0100,
            bits: 3 << 6,
        },
        Test::Loopback,
        &["did not arrive"],
    ),
    case(
        KX4,
        Fault::NoLoopback {
            offset: 0x4240,
            bits: 1 << 15,
        },
        Test::Loopback,
        &["did not arrive"],
    ),
    case(
        E1000e,
        Fault::FragmentsLost(5),
        Test::Gather,
        &["6 fragments", "bytes arrived"],
    ),
    case(
        KX4,
        Fault::FragmentsLost(25),
        Test::Gather,
        &["26 fragments"],
    ),
    case(
        E1000e,
        Fault::FragmentsSwapped(40),
        Test::Gather,
        &["41 fragments", "fragment 2"],
    ),
    case(
        SPLIT,
        Fault::FragmentsSwapped(100),
        Test::Gather,
        &["101 fragments", "arrived changed"],
    ),
    case(
        E1000e,
        Fault::NoHeaderSum(UDP4),
        Test::ChecksumTransmit,
        &["IPv4 header checksum 0x0000"],
    ),
    case(
        SPLIT,
        Fault::WrongSum {
            version: 4,
            protocol: TCP,
            len: TCP4,
        },
        Test::ChecksumTransmit,
        &["TCP checksum", "IPv4"],
    ),
    case(
        KX4,
        Fault::WrongSum {
            version: 6,
            protocol: UDP,
            len: UDP6,
        },
        Test::ChecksumTransmit,
        &["UDP checksum", "IPv6"],
    ),
    case(
        E1000e,
        Fault::WrongSum {
            version: 6,
            protocol: TCP,
            len: TCP6,
        },
        Test::ChecksumTransmit,
        &["TCP checksum", "IPv6"],
    ),
    case(
        KX4,
        Fault::WrongSum {
            version: 4,
            protocol: UDP,
            len: UDP4,
        },
        Test::ChecksumTransmit,
        &["UDP checksum", "IPv4"],
    ),
    case(
        E1000e,
        Fault::AllGood,
        Test::ChecksumReceive,
        &["calls it good", "wrong checksum"],
    ),
    case(
        KX4,
        Fault::AllGood,
        Test::ChecksumReceive,
        &["calls it good", "TCP over IPv4"],
    ),
    case(
        E1000e,
        Fault::NothingChecked,
        Test::ChecksumReceive,
        &["none of them good"],
    ),
    case(
        KX4,
        Fault::SequenceAgain,
        Test::Segmentation,
        &["sequence number", "segment 3"],
    ),
    case(
        SPLIT,
        Fault::LastSegmentLost,
        Test::Segmentation,
        &["segments arrived"],
    ),
    case(
        PACKED,
        Fault::PushEverywhere,
        Test::Segmentation,
        &["PSH", "segment 1"],
    ),
    case(
        E1000e,
        Fault::ReadsAll,
        Test::DmaRead,
        &["was sent", "DMA read"],
    ),
    case(
        KX4,
        Fault::ReadsAll,
        Test::DmaRead,
        &["was sent", "DMA read"],
    ),
    case(
        SPLIT,
        Fault::ReadsAll,
        Test::DmaRead,
        &["was sent", "DMA read"],
    ),
    case(
        E1000e,
        Fault::WritesAll,
        Test::DmaWrite,
        &["was written", "DMA write"],
    ),
    case(
        KX4,
        Fault::WritesAll,
        Test::DmaWrite,
        &["was written", "DMA write"],
    ),
    case(
        PACKED,
        Fault::WritesAll,
        Test::DmaWrite,
        &["was written", "DMA write"],
    ),
    case(
        E1000e,
        Fault::EndlessReset {
            control: 0x0000,
            bit: 2,
            status: 0x0008,
        },
        Test::Reset,
        &["does not stop"],
    ),
    case(
        KX4,
        Fault::EndlessReset {
            control: 0x0000,
            bit: 2,
            status: 0x0008,
        },
        Test::Reset,
        &["does not stop"],
    ),
    also(
        case(
            E1000e,
            Fault::DeafAfterReset,
            Test::Reset,
            &["did not receive", "after reset 1 of 3"],
        ),
        &[Test::DmaRead],
    ),
    also(
        case(
            SPLIT,
            Fault::DumbAfterReset,
            Test::Reset,
            &["did not arrive", "after reset 1 of 3"],
        ),
        &[Test::DmaRead],
    ),
    case(
        E1000e,
        Fault::EveryNthLost(500),
        Test::Throughput,
        &["4 of 2000", "first frame 500"],
    ),
    case(
        SPLIT,
        Fault::EveryNthMissed(700),
        Test::Throughput,
        &["2 of 2000", "from the peer"],
    ),
];
