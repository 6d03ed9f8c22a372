//! The cases, and their names.

use std::fmt;

/// A driver on one kind of device.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// Intel 82599.
    Ixgbe,
    /// Intel 82574L.
    E1000e,
    /// virtio-net, split rings.
    SplitDirect,
    /// The same with indirect descriptors.
    SplitIndirect,
    /// virtio-net, packed rings.
    PackedDirect,
    /// The same with indirect descriptors.
    PackedIndirect,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Ixgbe,
        Self::E1000e,
        Self::SplitDirect,
        Self::SplitIndirect,
        Self::PackedDirect,
        Self::PackedIndirect,
    ];

    /// As in the names of cases.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ixgbe => "ixgbe",
            Self::E1000e => "e1000e",
            Self::SplitDirect => "virtio-split-direct",
            Self::SplitIndirect => "virtio-split-indirect",
            Self::PackedDirect => "virtio-packed-direct",
            Self::PackedIndirect => "virtio-packed-indirect",
        }
    }
}

/// Through which layer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Layer {
    /// The driver's queue, with fragments that were translated before.
    Raw,
    /// `TxPort`: a buffer taken and put back, a loan taken and given back for each fragment, all
    /// checks.
    Port,
    /// The driver's receive queue.
    Receive,
}

impl Layer {
    /// As in the names of cases.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Port => "port",
            Self::Receive => "receive",
        }
    }
}

/// What is asked of the device for each frame.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Asked {
    /// Nothing.
    Nothing,
    /// The IPv4 and the TCP checksum, as far as they are offered, of packets with equal headers.
    Same,
    /// One of four kinds of checksums and headers, drawn for each frame.
    Changing,
}

impl Asked {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Nothing, Self::Same, Self::Changing];

    /// As in the names of cases.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "plain",
            Self::Same => "checksum",
            Self::Changing => "changing",
        }
    }
}

/// Fragments behind the header; none: one segment with all bytes.
pub const SHAPES: [usize; 6] = [0, 1, 2, 3, 4, 16];

/// Frames between two doorbells.
pub const BURSTS: [usize; 2] = [1, 32];

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Case {
    /// The driver.
    pub kind: Kind,
    /// The layer.
    pub layer: Layer,
    /// Fragments behind the header.
    pub fragments: usize,
    /// What is asked for.
    pub asked: Asked,
    /// Frames between two doorbells.
    pub burst: usize,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, layer, burst) = (self.kind.name(), self.layer.name(), self.burst);
        if self.layer == Layer::Receive {
            return write!(f, "{kind}/{layer}/{burst}");
        }
        let shape = shape_name(self.fragments);
        write!(f, "{kind}/{layer}/{shape}/{}/{burst}", self.asked.name())
    }
}

/// As in the names of cases.
#[must_use]
pub fn shape_name(fragments: usize) -> String {
    match fragments {
        0 => "1".into(),
        more => format!("h+{more}"),
    }
}

/// All cases whose name contains one of `only` (all, if that is empty), by driver and layer.
#[must_use]
pub fn selected(only: &[String]) -> Vec<Case> {
    let mut cases = Vec::new();
    for kind in Kind::ALL {
        for layer in [Layer::Raw, Layer::Port] {
            for asked in Asked::ALL {
                for burst in BURSTS {
                    cases.extend(SHAPES.map(|fragments| Case {
                        kind,
                        layer,
                        fragments,
                        asked,
                        burst,
                    }));
                }
            }
        }
        cases.extend(BURSTS.map(|burst| Case {
            kind,
            layer: Layer::Receive,
            fragments: 0,
            asked: Asked::Nothing,
            burst,
        }));
    }
    cases.retain(|case| {
        let name = case.to_string();
        only.is_empty() || only.iter().any(|part| name.contains(part.as_str()))
    });
    cases
}

/// Cases of the guard that have one of `only` in their name (all, if that is empty).
#[must_use]
pub fn guarded(only: &[String]) -> Vec<Case> {
    let mut cases = selected(only);
    cases.retain(|case| match (case.layer, case.asked, case.burst) {
        (Layer::Receive, _, _) => true,
        (Layer::Port, Asked::Nothing, 32) => case.fragments == 0,
        (Layer::Port, Asked::Same, 32) => matches!(case.fragments, 1 | 4),
        (Layer::Port, Asked::Same, 1) | (Layer::Raw | Layer::Port, Asked::Changing, 32) => {
            case.fragments == 1
        }
        _ => false,
    });
    cases
}
