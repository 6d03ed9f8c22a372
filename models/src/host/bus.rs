//! What a device does to memory: the bus master's side.

use crate::{Bus, DmaFault};

use super::Machine;
use super::access;
use super::iommu::Kind;

/// Texts kept of violations that nobody has asked for; later ones are only counted.
const MOST_VIOLATIONS: usize = 256;

/// What a device has read and written, in bytes, and how often it failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Counters {
    /// Payload fetched ([`Bus::append`]) from registered regions: what was sent without a copy.
    pub region_bytes: u64,
    /// Payload fetched ([`Bus::append`]) from memory that the driver allocated.
    pub memory_bytes: u64,
    /// Bytes read otherwise ([`Bus::read`]): descriptors.
    pub read_bytes: u64,
    /// Bytes written: received frames and write-backs.
    pub written_bytes: u64,
    /// Accesses outside every mapping, or writes to what is mapped for reading.
    pub faults: u64,
    /// Interrupts raised, also those that nobody had turned on.
    pub interrupts: u64,
}

/// The state of a device's side of the bus that outlives a step.
#[derive(Debug, Default)]
pub(crate) struct BusState {
    pub(crate) counters: Counters,
    violations: Vec<String>,
    unsaid: u64,
    pending: Vec<bool>,
}

impl BusState {
    /// Takes note of what must not happen.
    pub(crate) fn violation(&mut self, text: String) {
        log::warn!("violation: {text}");
        if self.violations.len() < MOST_VIOLATIONS {
            self.violations.push(text);
        } else {
            self.unsaid += 1;
        }
    }

    pub(crate) fn take_violations(&mut self) -> Vec<String> {
        let mut taken = std::mem::take(&mut self.violations);
        if self.unsaid > 0 {
            taken.push(format!("and {} more", std::mem::take(&mut self.unsaid)));
        }
        taken
    }

    /// Sets up `vectors` interrupt vectors, none of which has fired.
    pub(crate) fn set_vectors(&mut self, vectors: u16) {
        self.pending.clear();
        self.pending.resize(usize::from(vectors), false);
    }

    pub(crate) fn take_interrupt(&mut self, vector: u16) -> bool {
        self.pending
            .get_mut(usize::from(vector))
            .is_some_and(std::mem::take)
    }

    pub(crate) fn fault(&mut self, fault: DmaFault, address: u64, len: usize) -> DmaFault {
        self.counters.faults += 1;
        let what = if fault.write { "write" } else { "read" };
        let DmaFault { address: at, .. } = fault;
        self.violation(format!(
            "DMA {what} of {len} bytes at {address:#x}: nothing to {what} at {at:#x}"
        ));
        fault
    }
}

/// A device's access to the host, for the time of one step.
pub(crate) struct HostBus<'a> {
    pub(crate) machine: &'a Machine,
    pub(crate) state: &'a mut BusState,
}

impl Bus for HostBus<'_> {
    #[inline]
    fn read(&mut self, address: u64, target: &mut [u8]) -> Result<(), DmaFault> {
        if target.is_empty() {
            return Ok(());
        }
        let iommu = self.machine.iommu();
        let reach = iommu
            .resolve(address, target.len(), false)
            .map_err(|fault| self.state.fault(fault, address, target.len()))?;
        match reach.kind {
            Kind::Region if iommu.special().read(reach.pointer, target) => {}
            // SAFETY: `resolve` found `target.len()` bytes, which stay as long as the IOMMU is
            // borrowed; those of a region do not change while the driver lends them.
            Kind::Region => unsafe { access::copy(reach.pointer, target) },
            // SAFETY: as above; memory of the driver can also be written.
            Kind::Memory => unsafe { access::load(reach.pointer, target) },
        }
        self.state.counters.read_bytes += target.len() as u64;
        Ok(())
    }

    #[inline]
    fn append(&mut self, address: u64, len: usize, frame: &mut Vec<u8>) -> Result<(), DmaFault> {
        if len == 0 {
            return Ok(());
        }
        let iommu = self.machine.iommu();
        let reach = iommu
            .resolve(address, len, false)
            .map_err(|fault| self.state.fault(fault, address, len))?;
        if !iommu.special().append(reach.pointer, len, frame) {
            // SAFETY: `resolve` found `len` readable bytes, which stay as long as the IOMMU is
            // borrowed.
            unsafe { access::append(reach.pointer, len, frame) };
        }
        match reach.kind {
            Kind::Region => self.state.counters.region_bytes += len as u64,
            Kind::Memory => self.state.counters.memory_bytes += len as u64,
        }
        Ok(())
    }

    #[inline]
    fn write(&mut self, address: u64, source: &[u8]) -> Result<(), DmaFault> {
        if source.is_empty() {
            return Ok(());
        }
        let iommu = self.machine.iommu();
        let reach = iommu
            .resolve(address, source.len(), true)
            .map_err(|fault| self.state.fault(fault, address, source.len()))?;
        // SAFETY: `resolve` found `source.len()` writable bytes, which stay as long as the IOMMU
        // is borrowed.
        unsafe { access::store(reach.pointer, source) };
        self.state.counters.written_bytes += source.len() as u64;
        Ok(())
    }

    fn interrupt(&mut self, vector: u16) {
        self.state.counters.interrupts += 1;
        if let Some(pending) = self.state.pending.get_mut(usize::from(vector)) {
            *pending = true;
        }
    }
}
