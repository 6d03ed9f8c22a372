//! What the kernel answers in structures of variable length, read from plain bytes: regions of a
//! device with their capabilities, and who is hit by a reset of the bus.
//!
//! The kernel is trusted with our memory anyway, but an offset that leads astray is an error here
//! and no more. (Layouts: Linux `include/uapi/linux/vfio.h`.)
//!
//! What the crate `pci-driver` reads for the group API, the usable addresses of the container above
//! all, it takes from the kernel's answer by code of its own: that is not checked here.

use std::mem::offset_of;

use vfio_bindings::bindings::vfio::{
    VFIO_REGION_INFO_CAP_SPARSE_MMAP, VFIO_REGION_INFO_FLAG_CAPS, VFIO_REGION_INFO_FLAG_MMAP,
    vfio_info_cap_header, vfio_pci_dependent_device, vfio_pci_hot_reset_info, vfio_region_info,
    vfio_region_info_cap_sparse_mmap, vfio_region_sparse_mmap_area,
};

use crate::PciAddress;

/// Most capabilities in a chain: Linux has five kinds. A chain that is longer is a ring.
const MOST_CAPABILITIES: usize = 64;

/// Bytes of a region, from `offset` on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Area {
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

/// One region of a device: a BAR, or configuration space.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Region {
    /// Bytes; 0 if there is no such region.
    pub(crate) len: u64,
    /// Where it begins in the device's file.
    pub(crate) offset: u64,
    /// What of it can be mapped, ascending, without overlap.
    pub(crate) mappable: Vec<Area>,
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let field = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_ne_bytes(*field))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*field))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let field = bytes.get(at..)?.first_chunk()?;
    Some(u64::from_ne_bytes(*field))
}

/// Reads a `vfio_region_info` with its capabilities; mappings have whole pages of `page` bytes (a
/// power of two). An error says what is wrong.
pub(crate) fn region(bytes: &[u8], page: u64) -> Result<Region, &'static str> {
    let short = "a region's description is too short";
    let flags = u32_at(bytes, offset_of!(vfio_region_info, flags)).ok_or(short)?;
    let len = u64_at(bytes, offset_of!(vfio_region_info, size)).ok_or(short)?;
    let offset = u64_at(bytes, offset_of!(vfio_region_info, offset)).ok_or(short)?;
    // So that nothing inside can overflow.
    if offset
        .checked_add(len)
        .is_none_or(|end| end > i64::MAX as u64)
    {
        return Err("a region reaches beyond the end of its file");
    }
    let areas = if flags & VFIO_REGION_INFO_FLAG_MMAP == 0 {
        Vec::new()
    } else if flags & VFIO_REGION_INFO_FLAG_CAPS == 0 {
        vec![Area { offset: 0, len }]
    } else {
        sparse(bytes)?.unwrap_or_else(|| vec![Area { offset: 0, len }])
    };
    Ok(Region {
        len,
        offset,
        mappable: whole_pages(areas, len, page)?,
    })
}

/// The areas of the sparse capability, if the chain has one.
fn sparse(bytes: &[u8]) -> Result<Option<Vec<Area>>, &'static str> {
    let astray = "a capability lies outside its region's description";
    let first = u32_at(bytes, offset_of!(vfio_region_info, cap_offset)).ok_or(astray)?;
    let mut at = first as usize;
    for _ in 0..MOST_CAPABILITIES {
        if at == 0 {
            return Ok(None);
        }
        // Before lies the description itself.
        if at < size_of::<vfio_region_info>() {
            return Err(astray);
        }
        let capability = bytes.get(at..).ok_or(astray)?;
        let id = u16_at(capability, offset_of!(vfio_info_cap_header, id)).ok_or(astray)?;
        if u32::from(id) == VFIO_REGION_INFO_CAP_SPARSE_MMAP {
            return areas(capability).ok_or(astray).map(Some);
        }
        let next = u32_at(capability, offset_of!(vfio_info_cap_header, next));
        at = next.ok_or(astray)? as usize;
    }
    Err("a region's capabilities have no end")
}

fn areas(capability: &[u8]) -> Option<Vec<Area>> {
    let count = u32_at(
        capability,
        offset_of!(vfio_region_info_cap_sparse_mmap, nr_areas),
    )?;
    let list = capability.get(size_of::<vfio_region_info_cap_sparse_mmap>()..)?;
    let bytes = size_of::<vfio_region_sparse_mmap_area>().checked_mul(count as usize)?;
    let areas = list.get(..bytes)?;
    let one = |area: &[u8]| {
        Some(Area {
            offset: u64_at(area, offset_of!(vfio_region_sparse_mmap_area, offset))?,
            len: u64_at(area, offset_of!(vfio_region_sparse_mmap_area, size))?,
        })
    };
    let size = size_of::<vfio_region_sparse_mmap_area>();
    areas.chunks_exact(size).map(one).collect()
}

/// The whole pages of each area; empty ones are left out.
fn whole_pages(mut areas: Vec<Area>, len: u64, page: u64) -> Result<Vec<Area>, &'static str> {
    let mask = page - 1;
    areas.sort_unstable();
    let mut end_before = 0;
    let mut whole = Vec::new();
    for Area { offset, len: bytes } in areas {
        let end = offset.checked_add(bytes).filter(|end| *end <= len);
        let end = end.ok_or("an area reaches beyond the end of its region")?;
        if offset < end_before {
            return Err("two areas of a region overlap");
        }
        end_before = end;
        let first = (offset + mask) & !mask;
        let behind = end & !mask;
        if first < behind {
            whole.push(Area {
                offset: first,
                len: behind - first,
            });
        }
    }
    Ok(whole)
}

/// A function that is hit by a reset of the bus.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Hit {
    pub(crate) address: PciAddress,
    /// The IOMMU group, or for a device that an iommufd owns 0 if it is ours, −1 if not.
    pub(crate) owner: u32,
}

/// Reads a `vfio_pci_hot_reset_info`.
pub(crate) fn hit_by_reset(bytes: &[u8]) -> Result<Vec<Hit>, &'static str> {
    let short = "the list of functions hit by a reset is too short";
    let count = u32_at(bytes, offset_of!(vfio_pci_hot_reset_info, count)).ok_or(short)?;
    let list = bytes
        .get(size_of::<vfio_pci_hot_reset_info>()..)
        .ok_or(short)?;
    let size = size_of::<vfio_pci_dependent_device>();
    let length = size.checked_mul(count as usize).ok_or(short)?;
    let list = list.get(..length).ok_or(short)?;
    let one = |device: &[u8]| {
        let devfn = *device.get(offset_of!(vfio_pci_dependent_device, devfn))?;
        let domain = u16_at(device, offset_of!(vfio_pci_dependent_device, segment))?;
        Some(Hit {
            owner: u32_at(device, 0)?,
            address: PciAddress {
                domain: u32::from(domain),
                bus: *device.get(offset_of!(vfio_pci_dependent_device, bus))?,
                device: devfn >> 3,
                function: devfn & 7,
            },
        })
    };
    let all: Option<Vec<Hit>> = list.chunks_exact(size).map(one).collect();
    all.ok_or(short)
}

#[cfg(test)]
#[path = "answers_tests.rs"]
mod tests;
