//! The cases, and their names.

use std::fmt;

use crate::frames::case::Kind;

/// How bytes get to the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bytes {
    /// From where the program has them.
    Owned,
    /// From the stack's copy pool: all are copied by `send`.
    Copied,
}

/// What leaves at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Size {
    /// Segments of an MTU of 1500: 1448 bytes, with timestamps.
    Mtu1500,
    /// The same, cut by the device.
    Tso,
    /// Segments of an MTU of 9000: 8948 bytes.
    Mtu9000,
}

impl Size {
    /// Longest packet in bytes.
    #[must_use]
    pub const fn mtu(self) -> u16 {
        match self {
            Self::Mtu1500 | Self::Tso => 1500,
            Self::Mtu9000 => 9000,
        }
    }

    /// Payload of a segment in bytes, with timestamps in its header.
    #[must_use]
    pub const fn payload(self) -> usize {
        self.mtu() as usize - 20 - 20 - 12
    }
}

/// Who sums the payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sums {
    /// The device.
    Device,
    /// The CPU.
    Cpu,
}

/// Where the payload is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Payload {
    /// In 64 KiB, over and over: in the cache.
    Hot,
    /// Anywhere in 128 MiB: in memory.
    Cold,
}

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Case {
    /// The driver.
    pub kind: Kind,
    /// How bytes get to the device.
    pub bytes: Bytes,
    /// What leaves at a time.
    pub size: Size,
    /// Who sums.
    pub sums: Sums,
    /// Connections, each with data to send.
    pub connections: usize,
    /// Segments that each has in flight.
    pub flight: usize,
    /// Segments that an ACK acknowledges: 2 is what RFC 9293 asks for (section 3.8.6.3), many are
    /// what receivers acknowledge that join segments before they look (GRO).
    pub per_ack: usize,
    /// Bytes of a slice that is handed to `send`, a call each.
    pub slice: usize,
    /// Where the payload is.
    pub payload: Payload,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = match self.bytes {
            Bytes::Owned => "owned",
            Bytes::Copied => "copied",
        };
        let size = match self.size {
            Size::Mtu1500 => "1500",
            Size::Tso => "tso",
            Size::Mtu9000 => "9000",
        };
        let sums = match self.sums {
            Sums::Device => "device",
            Sums::Cpu => "cpu",
        };
        let kind = self.kind.name();
        write!(f, "{kind}/{bytes}/{size}/{sums}/{}c", self.connections)?;
        let (flight, per_ack, slice) = (self.flight, self.per_ack, self.slice);
        write!(f, "/{flight}f/{per_ack}a/{slice}")?;
        match self.payload {
            Payload::Hot => Ok(()),
            Payload::Cold => f.write_str("/cold"),
        }
    }
}

impl Case {
    /// ACKs in a round: no more than what is in flight can have.
    #[must_use]
    pub fn acks(&self) -> usize {
        let most = if self.per_ack <= 8 { 16 } else { 4 };
        most.min(self.connections * self.flight / self.per_ack)
    }
}

/// The usual case of a driver.
const fn usual(kind: Kind) -> Case {
    Case {
        kind,
        bytes: Bytes::Owned,
        size: Size::Mtu1500,
        sums: Sums::Device,
        connections: 1,
        flight: 64,
        per_ack: 2,
        slice: 32 << 10,
        payload: Payload::Hot,
    }
}

/// With segmentation, and a receiver that acknowledges a request at a time.
const fn requests(case: Case) -> Case {
    Case {
        size: Size::Tso,
        flight: 720,
        per_ack: 45,
        ..case
    }
}

/// All cases.
fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    let ixgbe = usual(Kind::Ixgbe);
    for connections in [1, 1000] {
        for bytes in [Bytes::Owned, Bytes::Copied] {
            let case = Case {
                bytes,
                connections,
                // As many as a peer's window lets go before the pool is full.
                flight: if connections == 1 { 64 } else { 4 },
                slice: if connections == 1 || bytes == Bytes::Owned {
                    ixgbe.slice
                } else {
                    16 << 10
                },
                ..ixgbe
            };
            for sums in [Sums::Device, Sums::Cpu] {
                cases.push(Case { sums, ..case });
                let size = Size::Mtu9000;
                cases.push(Case { sums, size, ..case });
            }
            if connections == 1 || bytes == Bytes::Owned {
                cases.push(requests(case));
            }
        }
    }
    // What an ACK costs, with many in flight, by all of both.
    cases.push(Case { flight: 2, ..ixgbe });
    cases.push(Case { flight: 4, ..ixgbe });
    cases.push(Case {
        flight: 4000,
        ..ixgbe
    });
    let requests_ixgbe = requests(ixgbe);
    cases.push(Case {
        per_ack: 2,
        ..requests_ixgbe
    });
    // From which length on lending is cheaper than copying.
    for slice in [128, 256, 512, 1024, 2048, 4096] {
        for payload in [Payload::Hot, Payload::Cold] {
            for bytes in [Bytes::Owned, Bytes::Copied] {
                cases.push(Case {
                    slice,
                    bytes,
                    payload,
                    ..ixgbe
                });
            }
        }
    }
    for kind in [Kind::E1000e, Kind::SplitIndirect, Kind::PackedDirect] {
        cases.push(usual(kind));
        cases.push(requests(usual(kind)));
    }
    cases
}

/// All cases whose name contains one of `only` (all, if that is empty).
#[must_use]
pub fn selected(only: &[String]) -> Vec<Case> {
    let mut cases = all();
    cases.retain(|case| {
        let name = case.to_string();
        only.is_empty() || only.iter().any(|part| name.contains(part.as_str()))
    });
    cases
}

/// The cases of the guard: owned bytes, sums by the device, in slices of 32 KiB and of 512 bytes.
#[must_use]
pub fn guarded(only: &[String]) -> Vec<Case> {
    let mut cases = selected(only);
    cases.retain(|case| {
        let short = case.slice < 1448 && case.slice != 512;
        let plain = case.bytes == Bytes::Owned && case.sums == Sums::Device;
        plain && !short && case.slice != 2048 && case.payload == Payload::Hot
    });
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_cases_have_the_same_name() {
        let mut names: Vec<String> = all().iter().map(Case::to_string).collect();
        names.sort();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
