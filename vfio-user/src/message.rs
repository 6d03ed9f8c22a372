//! Layouts of the messages, each behind a [`Header`].

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of a [`Header`].
pub(crate) const HEADER: usize = size_of::<Header>();
/// Bytes of data that one access to a region may have: what the specification takes for agreed
/// where nobody has said otherwise.
pub(crate) const MOST_DATA: usize = 1 << 20;
/// Bytes of the longest message.
pub(crate) const LONGEST: usize = MOST_DATA + 4096;
/// File descriptors that Linux passes with one message at most (`SCM_MAX_FD`).
pub(crate) const MOST_FDS: usize = 253;

/// Commands of the specification that are used here.
pub(crate) mod command {
    pub(crate) const VERSION: u16 = 1;
    pub(crate) const DMA_MAP: u16 = 2;
    pub(crate) const DMA_UNMAP: u16 = 3;
    pub(crate) const GET_INFO: u16 = 4;
    pub(crate) const GET_REGION_INFO: u16 = 5;
    pub(crate) const GET_IRQ_INFO: u16 = 7;
    pub(crate) const SET_IRQS: u16 = 8;
    pub(crate) const REGION_READ: u16 = 9;
    pub(crate) const REGION_WRITE: u16 = 10;
    pub(crate) const RESET: u16 = 13;
}

/// Flags of a header.
pub(crate) mod flag {
    /// A command has 0 here.
    pub(crate) const TYPE: u32 = 0xf;
    pub(crate) const REPLY: u32 = 1;
    pub(crate) const NO_REPLY: u32 = 1 << 4;
    pub(crate) const ERROR: u32 = 1 << 5;
}

/// Of a device.
pub(crate) const DEVICE_RESET: u32 = 1 << 0;
pub(crate) const DEVICE_PCI: u32 = 1 << 1;
/// Of a region.
pub(crate) const REGION_READABLE: u32 = 1 << 0;
pub(crate) const REGION_WRITABLE: u32 = 1 << 1;
/// Of the interrupts of a kind.
pub(crate) const IRQ_EVENTFD: u32 = 1 << 0;
pub(crate) const IRQ_MASKABLE: u32 = 1 << 1;
pub(crate) const IRQ_AUTOMASKED: u32 = 1 << 2;
pub(crate) const IRQ_NORESIZE: u32 = 1 << 3;
/// Of a [`SetIrqs`]: what comes with it, and what it is for.
pub(crate) const DATA_NONE: u32 = 1 << 0;
pub(crate) const DATA_BOOL: u32 = 1 << 1;
pub(crate) const DATA_EVENTFD: u32 = 1 << 2;
pub(crate) const ACTION_MASK: u32 = 1 << 3;
pub(crate) const ACTION_UNMASK: u32 = 1 << 4;
pub(crate) const ACTION_TRIGGER: u32 = 1 << 5;
/// Of a [`DmaMap`].
pub(crate) const MAP_READ: u32 = 1 << 0;
pub(crate) const MAP_WRITE: u32 = 1 << 1;
/// Of a [`DmaUnmap`].
pub(crate) const UNMAP_ALL: u32 = 1 << 2;

/// What every message begins with.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Header {
    /// Of a command, which its reply repeats.
    pub(crate) id: u16,
    pub(crate) command: u16,
    /// Bytes of the message with its header.
    pub(crate) size: u32,
    pub(crate) flags: u32,
    /// An error number, if the flags say so.
    pub(crate) error: u32,
}

/// Followed by JSON that ends with a NUL.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Version {
    pub(crate) major: u16,
    pub(crate) minor: u16,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct DmaMap {
    pub(crate) argsz: u32,
    pub(crate) flags: u32,
    /// In the file.
    pub(crate) offset: u64,
    pub(crate) address: u64,
    pub(crate) size: u64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct DmaUnmap {
    pub(crate) argsz: u32,
    pub(crate) flags: u32,
    pub(crate) address: u64,
    pub(crate) size: u64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Info {
    pub(crate) argsz: u32,
    pub(crate) flags: u32,
    pub(crate) regions: u32,
    pub(crate) irqs: u32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Region {
    pub(crate) argsz: u32,
    pub(crate) flags: u32,
    pub(crate) index: u32,
    /// Where capabilities begin that follow; 0 for none.
    pub(crate) capabilities: u32,
    pub(crate) size: u64,
    /// In the file that comes with the reply, if there is one.
    pub(crate) offset: u64,
}

/// A read of a region, or a write, whose data follow.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Access {
    pub(crate) offset: u64,
    pub(crate) region: u32,
    pub(crate) count: u32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Irq {
    pub(crate) argsz: u32,
    pub(crate) flags: u32,
    pub(crate) index: u32,
    pub(crate) count: u32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct SetIrqs {
    pub(crate) argsz: u32,
    pub(crate) flags: u32,
    pub(crate) index: u32,
    pub(crate) start: u32,
    pub(crate) count: u32,
}

const _: () = {
    assert!(size_of::<Header>() == 16);
    assert!(size_of::<Version>() == 4);
    assert!(size_of::<DmaMap>() == 32);
    assert!(size_of::<DmaUnmap>() == 24);
    assert!(size_of::<Info>() == 16);
    assert!(size_of::<Region>() == 32);
    assert!(size_of::<Access>() == 16);
    assert!(size_of::<Irq>() == 16);
    assert!(size_of::<SetIrqs>() == 20);
};

/// The size of a part of a message, for a field of it.
pub(crate) const fn size<T>() -> u32 {
    size_of::<T>() as u32
}
