//! What is measured: ways to get bytes to a device, each against a way to copy them.

use serde::Serialize;

/// Payload of a frame of 1,514 bytes with TCP timestamps.
pub(super) const FRAME: usize = 1448;
/// What a device that segments takes at a time.
pub(super) const REQUEST: usize = 64 * 1024;

/// Where the program has its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Memory {
    /// Anywhere.
    Plain,
    /// In a region that nobody writes.
    Owned,
    /// In a buffer of a protector, in small pages.
    Protected,
    /// In one in huge pages.
    Huge,
    /// In the page cache.
    File,
}

/// How they get to the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    /// Copied to registered memory.
    Copy,
    /// Copied there by `read`.
    Read,
    /// Shared.
    Share,
    /// Mapped, shared and unmapped.
    MapAndShare,
}

/// What the program does between two sends: it writes a byte of each page, so that the cost is that
/// of the page and not of writing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rewrite {
    /// Nothing.
    Never,
    /// By `Buffer::bytes_mut`: one call for all pages.
    ByValue,
    /// By pointer: a fault for each page.
    ByPointer,
    /// By pointer, before the peer has acknowledged: the old bytes move to memory of the stack, and
    /// there is a fault for each page.
    InFlight,
}

/// One of the things that are measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    /// As it is called in tables.
    pub(super) name: &'static str,
    /// What it is, in a line.
    pub(super) about: &'static str,
    pub(super) memory: Memory,
    pub(super) way: Way,
    pub(super) rewrite: Rewrite,
    /// Whether the CPU sums the bytes too.
    pub(super) sums: bool,
    /// Bytes of a frame or request.
    pub(super) unit: usize,
    /// The way to copy that it is compared to; none if it is one.
    pub(super) against: Option<&'static str>,
}

/// A table of the report.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Group {
    /// The device sums, the program does not write.
    Kept,
    /// The device sums, the program writes between sends.
    Rewritten,
    /// The CPU sums.
    Summed,
    /// Requests of 64 KiB for a device that segments; files.
    Other,
}

impl Group {
    pub(super) const ALL: [Self; 4] = [Self::Kept, Self::Rewritten, Self::Summed, Self::Other];

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Kept => "Checksum by the device, not written between sends",
            Self::Rewritten => "Checksum by the device, every page written between sends",
            Self::Summed => "Checksum by the CPU",
            Self::Other => "Requests of 64 KiB (TSO), and files",
        }
    }
}

impl Case {
    pub(super) fn group(&self) -> Group {
        if self.sums {
            Group::Summed
        } else if self.rewrite != Rewrite::Never {
            Group::Rewritten
        } else if self.unit == REQUEST || matches!(self.way, Way::Read | Way::MapAndShare) {
            Group::Other
        } else {
            Group::Kept
        }
    }

    /// Whether it wants a userfaultfd.
    pub(super) fn protects(&self) -> bool {
        matches!(self.memory, Memory::Protected | Memory::Huge)
    }
}

/// The case of a name.
#[cfg(test)]
pub(super) fn named(name: &str) -> Option<&'static Case> {
    CASES.iter().find(|case| case.name == name)
}

const COPY: Case = Case {
    name: "copy",
    about: "each frame copied behind its header, in memory that is hot",
    memory: Memory::Plain,
    way: Way::Copy,
    rewrite: Rewrite::Never,
    sums: false,
    unit: FRAME,
    against: None,
};

const OWNED: Case = Case {
    name: "owned",
    about: "a loan for the connection, one for each frame, its pieces looked up; plain counts",
    memory: Memory::Owned,
    way: Way::Share,
    against: Some(COPY.name),
    ..COPY
};

const STILL: Case = Case {
    name: "protected",
    about: "write-protect, pages that are protected still: counts under a lock, and loans as owned",
    memory: Memory::Protected,
    ..OWNED
};

const BY_VALUE: Case = Case {
    name: "protected-value",
    about: "write-protect, written by value before each send: a call to clear and one to protect",
    rewrite: Rewrite::ByValue,
    against: Some("copy-written"),
    ..STILL
};

/// All of them. A case is measured after that which it is compared to.
pub(super) const CASES: [Case; 19] = [
    COPY,
    OWNED,
    Case {
        name: "live",
        about: "a live file that is mapped once, then loans as owned",
        memory: Memory::File,
        ..OWNED
    },
    STILL,
    Case {
        name: "huge",
        about: "as protected, in pages of 2 MiB",
        memory: Memory::Huge,
        ..STILL
    },
    Case {
        name: "copy-written",
        about: "as copy; the program writes a byte of each page before",
        rewrite: Rewrite::ByValue,
        ..COPY
    },
    BY_VALUE,
    Case {
        name: "protected-pointer",
        about: "the same, written by pointer: a fault for each page, which a thread serves",
        rewrite: Rewrite::ByPointer,
        ..BY_VALUE
    },
    Case {
        name: "protected-in-flight",
        about: "written by pointer while in flight (policy copy): the bytes are moved as well",
        rewrite: Rewrite::InFlight,
        ..BY_VALUE
    },
    Case {
        name: "huge-value",
        about: "as protected-value, in pages of 2 MiB",
        memory: Memory::Huge,
        ..BY_VALUE
    },
    Case {
        name: "huge-pointer",
        about: "as protected-pointer, in pages of 2 MiB",
        memory: Memory::Huge,
        rewrite: Rewrite::ByPointer,
        ..BY_VALUE
    },
    Case {
        name: "copy-sum",
        about: "as copy; each frame is summed in the same pass",
        sums: true,
        ..COPY
    },
    Case {
        name: "owned-sum",
        about: "as owned; each frame is summed where it lies",
        sums: true,
        against: Some("copy-sum"),
        ..OWNED
    },
    Case {
        name: "protected-sum",
        about: "as protected; each frame is summed where it lies",
        sums: true,
        against: Some("copy-sum"),
        ..STILL
    },
    Case {
        name: "protected-value-sum",
        about: "as protected-value; each frame is summed where it lies",
        sums: true,
        against: Some("copy-sum"),
        ..BY_VALUE
    },
    Case {
        name: "copy-requests",
        about: "as copy, in requests of 64 KiB",
        unit: REQUEST,
        ..COPY
    },
    Case {
        name: "owned-requests",
        about: "as owned, in requests of 64 KiB",
        unit: REQUEST,
        against: Some("copy-requests"),
        ..OWNED
    },
    Case {
        name: "read",
        about: "a file in the page cache, read(2) into hot memory, 64 KiB at a time",
        memory: Memory::File,
        way: Way::Read,
        unit: REQUEST,
        ..COPY
    },
    Case {
        name: "live-map",
        about: "a live file that is mapped, populated and unmapped for each send",
        memory: Memory::File,
        way: Way::MapAndShare,
        against: Some("read"),
        ..OWNED
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compared_is_there_and_is_a_copy_of_the_same_kind() {
        for (index, case) in CASES.iter().enumerate() {
            assert!(
                CASES
                    .iter()
                    .skip(index + 1)
                    .all(|other| other.name != case.name)
            );
            let Some(against) = case.against else {
                assert!(matches!(case.way, Way::Copy | Way::Read), "{}", case.name);
                continue;
            };
            let against = named(against).unwrap();
            assert_eq!(against.sums, case.sums, "{}", case.name);
            assert!(against.against.is_none(), "{}", case.name);
        }
    }
}
