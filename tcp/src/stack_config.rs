//! What a stack is told at its start, what follows from it and the device, and what can go wrong.

use core::fmt;
use core::net::Ipv4Addr;
use core::time::Duration;

use pagewire_hal::{Capabilities, Granule, LendError, MacAddress, PoolLayout};

use crate::headers::HEADERS_ROOM;
use crate::lending::Thresholds;
use crate::route::RouteError;
use crate::wire::{EthernetHeader, Ipv4Header, TcpHeader};

/// The configuration of a [`Stack`](crate::Stack). [`Default`] has sensible values for all but
/// the addresses and the secret.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StackConfig {
    /// The station address: of the device, as a rule.
    pub mac: MacAddress,
    /// The IPv4 address.
    pub address: Ipv4Addr,
    /// Bits of the address that name the network of the link, at most 32.
    pub prefix_len: u8,
    /// Where packets to all other networks go; `None`: nowhere.
    pub gateway: Option<Ipv4Addr>,
    /// Longest IP packet in bytes, IP header included, Ethernet header excluded. What the device
    /// cannot send as one frame is taken off.
    pub mtu: u16,
    /// Random, known to nobody, another one after each start: sequence numbers, ports and
    /// timestamps are drawn from it. The default of zeros is for tests only.
    pub secret: [u8; 16],
    /// Shortest retransmission timeout. RFC 6298 asks for 1 s; Linux has 200 ms, as has the
    /// default.
    pub min_rto: Duration,
    /// Longest retransmission timeout, also of the persist timer; at least 60 s by RFC 6298. Not
    /// below `min_rto`, and at least 1 ms.
    pub max_rto: Duration,
    /// Timeouts (or zero-window probes) in a row without an answer after which a connection is
    /// given up.
    pub max_retries: u32,
    /// Whether small segments wait while something is in flight (Nagle's algorithm).
    pub nagle: bool,
    /// How long a connection stays in TIME-WAIT: twice the longest life of a segment.
    pub time_wait: Duration,
    /// Most bytes of a connection that are accepted and not acknowledged: a bound of what it
    /// pins.
    pub send_limit: usize,
    /// Most bytes of the program that a connection has lent at a time: slices beyond are copied, if
    /// the stack has a copy pool and the call does not want otherwise
    /// ([`CopyRule::Never`](crate::CopyRule::Never)).
    pub pin_limit: usize,
    /// Most bytes that a connection has in the copy pool at a time, if the stack has one: whole
    /// slots, until what they hold is acknowledged, and the first one whenever one is free. (So
    /// provide more slots than connections: as many whose peers are silent can take them all.)
    /// `None`: what is free in it divided by the connections that have some. Then one alone has up
    /// to a half, and *n* whose peers do not answer leave the (*n* + 1)th part to the others, as far
    /// as that is whole slots. Beyond, slices that are only short are lent if they may be, and
    /// others, also those that somebody waits to write to, not accepted yet.
    pub copy_limit: Option<usize>,
    /// Slices shorter than this are copied, if the stack has a copy pool.
    pub thresholds: Thresholds,
    /// Bytes that a connection keeps for the program to read: the largest window offered, at
    /// most 2^30.
    pub receive_window: usize,
    /// Fewest bytes of a segment that are worth sharing when its beginning has to be copied, see
    /// [`plan`](crate::plan).
    pub share_min: usize,
    /// Whether the device cuts long frames into segments, where it can (TSO): for comparison, or
    /// where segments are to leave one by one.
    pub segmentation: bool,
    /// Connections of one listener that are not accepted yet, half-open ones included.
    pub backlog: usize,
}

impl Default for StackConfig {
    fn default() -> Self {
        Self {
            mac: MacAddress([0; 6]),
            address: Ipv4Addr::UNSPECIFIED,
            prefix_len: 24,
            gateway: None,
            mtu: 1500,
            secret: [0; 16],
            min_rto: Duration::from_millis(200),
            max_rto: Duration::from_secs(60),
            max_retries: 8,
            nagle: true,
            time_wait: Duration::from_secs(60),
            send_limit: 4 << 20,
            pin_limit: usize::MAX,
            copy_limit: None,
            thresholds: Thresholds::default(),
            receive_window: 64 << 10,
            share_min: 512,
            segmentation: true,
            backlog: 16,
        }
    }
}

impl StackConfig {
    /// Buffers for a port of such a stack: a small one for each of `frames` frames in the ring,
    /// large ones for a quarter of them, or for all if the device does not gather. `page` is the
    /// page of the machine.
    #[must_use]
    pub fn pool_layout(
        &self,
        capabilities: &Capabilities,
        frames: usize,
        page: Granule,
    ) -> PoolLayout {
        let gathers = capabilities.gathers();
        PoolLayout {
            small_len: HEADERS_ROOM,
            small_count: if gathers { frames } else { 1 },
            large_len: usize::from(self.mtu) + EthernetHeader::LEN,
            large_count: if gathers {
                frames.div_ceil(4).max(1)
            } else {
                frames
            },
            page,
        }
    }
}

/// Longest headers of a frame: Ethernet, IPv4 without options, TCP with all its options.
const MAX_HEADERS: usize = EthernetHeader::LEN + Ipv4Header::LEN + TcpHeader::MAX_LEN;

/// The least payload that a segment must have room for.
const MIN_SEGMENT: usize = 128;

/// Lengths that follow from configuration and device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Longest frame that is sent in one piece, in bytes.
    max_frame_len: usize,
    /// What our MSS option says.
    mss: u16,
}

impl Limits {
    pub(crate) fn new(
        config: &StackConfig,
        capabilities: &Capabilities,
        max_fragments: usize,
    ) -> Result<Self, StackError> {
        let gatherable = max_fragments.saturating_mul(capabilities.max_fragment_len as usize);
        let max_frame_len = (usize::from(config.mtu) + EthernetHeader::LEN)
            .min(capabilities.max_frame_len as usize)
            .min(gatherable);
        if max_frame_len < MAX_HEADERS + MIN_SEGMENT {
            return Err(StackError::FrameTooShort { len: max_frame_len });
        }
        // What the peer may send is a matter of the link, not of what our frames can gather.
        let packet = (capabilities.max_frame_len as usize).saturating_sub(EthernetHeader::LEN);
        let packet = config.mtu.min(u16::try_from(packet).unwrap_or(u16::MAX));
        let mss = packet.saturating_sub((Ipv4Header::LEN + TcpHeader::LEN) as u16);
        Ok(Self { max_frame_len, mss })
    }

    /// Longest frame that is sent in one piece, in bytes.
    pub(crate) const fn max_frame_len(&self) -> usize {
        self.max_frame_len
    }

    /// Our MSS option: what the link carries less the headers without options (RFC 6691).
    pub(crate) const fn mss(&self) -> u16 {
        self.mss
    }

    /// Bytes behind a TCP header without options in the longest frame on the wire. A frame that
    /// the device segments is longer, its segments are not.
    pub(crate) fn segment_room(&self) -> u16 {
        let headers = EthernetHeader::LEN + Ipv4Header::LEN + TcpHeader::LEN;
        u16::try_from(self.max_frame_len.saturating_sub(headers)).unwrap_or(u16::MAX)
    }
}

/// Why a stack could not be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum StackError {
    /// The addresses do not fit together.
    Route(RouteError),
    /// Device and MTU allow frames of these many bytes only: too short for headers and some
    /// payload.
    FrameTooShort {
        /// Bytes.
        len: usize,
    },
    /// The port has no buffer for a frame of these many bytes, so copied segments could never go.
    BuffersTooSmall {
        /// Bytes.
        len: usize,
    },
    /// The longest retransmission timeout is shorter than the shortest, or than 1 ms.
    Timeouts,
}

impl fmt::Display for StackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Route(error) => write!(f, "{error}"),
            Self::FrameTooShort { len } => {
                write!(f, "frames of at most {len} bytes are too short for TCP")
            }
            Self::BuffersTooSmall { len } => {
                write!(f, "the port has no buffer for a frame of {len} bytes")
            }
            Self::Timeouts => {
                write!(f, "max_rto is at least 1 ms and not below min_rto")
            }
        }
    }
}

impl core::error::Error for StackError {}

/// Why a connection was not opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ConnectError {
    /// There is no route to the destination, or it is no single host.
    NoRoute,
    /// The four-tuple is in use, or no ephemeral port is left for the destination.
    PortInUse,
    /// Port 0 is none.
    BadPort,
    /// More connections than can be counted.
    TooMany,
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoRoute => "no route to the destination",
            Self::PortInUse => "the local port is in use",
            Self::BadPort => "port 0 is not one",
            Self::TooMany => "too many connections",
        })
    }
}

impl core::error::Error for ConnectError {}

/// Why nothing was accepted for sending, or nothing can be received.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SendError {
    /// No such connection: it was removed.
    UnknownConnection,
    /// It was closed by the program, or is over.
    Closed,
    /// A slice is not inside a registered region.
    Lend(LendError),
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownConnection => write!(f, "no such connection"),
            Self::Closed => write!(f, "the connection is closed"),
            Self::Lend(error) => write!(f, "{error}"),
        }
    }
}

impl core::error::Error for SendError {}
