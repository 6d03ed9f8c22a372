//! What is measured: ways to get bytes to a device, each against a way to copy them.

use serde::Serialize;

/// Payload of a frame of 1,514 bytes with TCP timestamps.
pub(super) const FRAME: usize = 1448;
/// What a device that segments takes at a time.
pub(super) const REQUEST: usize = 64 * 1024;

/// Where the program has its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Memory {
    /// In a region that nobody writes.
    Owned,
    /// In a buffer of a protector, in small pages.
    Protected,
    /// In one of a protector that serves faults by SIGBUS.
    Signalled,
    /// In one in huge pages.
    Huge,
    /// In the page cache.
    File,
}

/// How they get to the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    /// Copied, frame by frame, behind headers, and nothing else.
    Memcpy,
    /// Copied to the sender's pool by the call, and lent from there.
    Copy,
    /// Lent.
    Share,
    /// Mapped, lent and unmapped.
    MapAndShare,
}

/// What the program does between two sends: it writes a byte of each page, so that the cost is that
/// of the page and not of writing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rewrite {
    /// Nothing.
    Never,
    /// By `Buffer::bytes_mut`: cleared at once.
    ByValue,
    /// The same, but only the first page.
    OnePage,
    /// By pointer, page after page: some of them fault.
    ByPointer,
    /// By pointer, before the peer has acknowledged: the old bytes move to memory of the stack, and
    /// there are the same faults.
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
    /// The way to copy that the sender would take instead; none if it is one.
    pub(super) against: Option<&'static str>,
    /// The least that copying can cost.
    pub(super) floor: Option<&'static str>,
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
            Self::Rewritten => "Checksum by the device, written between sends",
            Self::Summed => "Checksum by the CPU",
            Self::Other => "Requests of 64 KiB (TSO), and a file that is mapped for each send",
        }
    }
}

impl Case {
    pub(super) fn group(&self) -> Group {
        if self.sums {
            Group::Summed
        } else if self.rewrite != Rewrite::Never {
            Group::Rewritten
        } else if self.unit == REQUEST || self.way == Way::MapAndShare {
            Group::Other
        } else {
            Group::Kept
        }
    }

    /// Whether it wants a userfaultfd.
    pub(super) fn protects(&self) -> bool {
        matches!(
            self.memory,
            Memory::Protected | Memory::Signalled | Memory::Huge
        )
    }
}

/// The case of a name.
#[cfg(test)]
pub(super) fn named(name: &str) -> Option<&'static Case> {
    CASES.iter().find(|case| case.name == name)
}

const MEMCPY: Case = Case {
    name: "memcpy",
    about: "each frame copied behind its header in hot memory, without any books: the least there is",
    memory: Memory::Owned,
    way: Way::Memcpy,
    rewrite: Rewrite::Never,
    sums: false,
    unit: FRAME,
    against: None,
    floor: None,
};

const COPY: Case = Case {
    name: "copy",
    about: "copied by the call to the sender's pool, which is hot, and lent from there",
    way: Way::Copy,
    ..MEMCPY
};

const OWNED: Case = Case {
    name: "owned",
    about: "memory that cannot change: a loan for the connection, one for each frame; plain counts",
    way: Way::Share,
    against: Some(COPY.name),
    floor: Some(MEMCPY.name),
    ..MEMCPY
};

const COPY_WATCHED: Case = Case {
    name: "copy-watched",
    about: "as copy, of memory of a protector",
    memory: Memory::Protected,
    ..COPY
};

const STILL: Case = Case {
    name: "protected",
    about: "write-protect, pages that are protected still, as nobody has written: counts under a lock",
    memory: Memory::Protected,
    against: Some(COPY_WATCHED.name),
    ..OWNED
};

const COPY_WRITTEN: Case = Case {
    name: "copy-written",
    about: "as copy-watched; the program writes a byte of each page before",
    rewrite: Rewrite::ByValue,
    ..COPY_WATCHED
};

const BY_VALUE: Case = Case {
    name: "protected-value",
    about: "write-protect, written by value before each send: calls to clear and one to protect",
    rewrite: Rewrite::ByValue,
    against: Some(COPY_WRITTEN.name),
    ..STILL
};

const MEMCPY_SUM: Case = Case {
    name: "memcpy-sum",
    about: "as memcpy; each frame is summed in the same pass",
    sums: true,
    ..MEMCPY
};

const SUMMED: Option<&str> = Some(MEMCPY_SUM.name);

/// All of them.
pub(super) const CASES: [Case; 24] = [
    MEMCPY,
    COPY,
    OWNED,
    Case {
        name: "copy-file",
        about: "a file in the page cache, read(2) to the pool, and lent from there",
        memory: Memory::File,
        ..COPY
    },
    Case {
        name: "live",
        about: "a live file that is mapped once; loans as owned",
        memory: Memory::File,
        against: Some("copy-file"),
        ..OWNED
    },
    COPY_WATCHED,
    STILL,
    Case {
        name: "huge",
        about: "as protected, in pages of 2 MiB",
        memory: Memory::Huge,
        ..STILL
    },
    COPY_WRITTEN,
    Case {
        name: "protected-page",
        about: "write-protect, one page of the buffer written by value before each send",
        rewrite: Rewrite::OnePage,
        ..BY_VALUE
    },
    BY_VALUE,
    Case {
        name: "protected-pointer",
        about: "as protected-value, written by pointer, page after page: faults, which a thread serves",
        rewrite: Rewrite::ByPointer,
        ..BY_VALUE
    },
    Case {
        name: "signal-pointer",
        about: "the same, but who writes serves himself, by SIGBUS",
        memory: Memory::Signalled,
        rewrite: Rewrite::ByPointer,
        ..BY_VALUE
    },
    Case {
        name: "protected-in-flight",
        about: "as protected-pointer, while in flight: the bytes are moved to the pool as well",
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
    MEMCPY_SUM,
    Case {
        name: "owned-sum",
        about: "as owned; each frame is summed where it lies",
        sums: true,
        against: SUMMED,
        floor: SUMMED,
        ..OWNED
    },
    Case {
        name: "protected-sum",
        about: "as protected; each frame is summed where it lies",
        sums: true,
        against: SUMMED,
        floor: SUMMED,
        ..STILL
    },
    Case {
        name: "protected-value-sum",
        about: "as protected-value; each frame is summed where it lies",
        sums: true,
        against: SUMMED,
        floor: SUMMED,
        ..BY_VALUE
    },
    Case {
        name: "memcpy-requests",
        about: "as memcpy, in requests of 64 KiB",
        unit: REQUEST,
        ..MEMCPY
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
        floor: Some("memcpy-requests"),
        ..OWNED
    },
    Case {
        name: "live-map",
        about: "a live file that is mapped, populated and unmapped for each send",
        memory: Memory::File,
        way: Way::MapAndShare,
        against: Some("copy-file"),
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
            let copies = matches!(case.way, Way::Memcpy | Way::Copy);
            assert_eq!(case.against.is_none(), copies, "{}", case.name);
            for other in [case.against, case.floor].into_iter().flatten() {
                let other = named(other).unwrap();
                assert_eq!(
                    (other.sums, other.unit == REQUEST),
                    (case.sums, case.unit == REQUEST)
                );
                assert!(other.against.is_none(), "{}", case.name);
            }
        }
    }
}
