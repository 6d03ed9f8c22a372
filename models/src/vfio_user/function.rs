//! A device model as a vfio-user device: its regions, interrupts and memory.

use std::os::fd::OwnedFd;
use std::time;

use pagewire_hal::Instant;
use pagewire_vfio_user::{
    Backend, CONFIG_REGION, DmaMap, DmaUnmap, Errno, INTX, IrqInfo, IrqSet, MSIX, RegionInfo,
};

use super::config::{self, Config};
use super::irqs::Irqs;
use super::memory::{Kind, Memory};
use crate::host::{BusState, Counters};
use crate::{Bus, Device, DmaFault};

/// BARs of a PCI function.
const BARS: u32 = 6;

/// A device, and what its client has given it.
pub(super) struct Function<D> {
    pub(super) device: D,
    /// Configuration space as the device had it at first.
    initial: Config,
    memory: Memory,
    msix: Irqs,
    intx: Irqs,
    bus: BusState,
    start: time::Instant,
}

impl<D: Device> Function<D> {
    pub(super) fn new(mut device: D) -> Self {
        let initial = Config::read(&mut device);
        Self {
            msix: Irqs::new(device.vectors()),
            intx: Irqs::new(u16::from(initial.has_pin())),
            initial,
            device,
            memory: Memory::default(),
            bus: BusState::default(),
            start: time::Instant::now(),
        }
    }

    fn now(&self) -> Instant {
        let nanos = self.start.elapsed().as_nanos();
        Instant::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Lets the device do what is due; whether it did anything.
    pub(super) fn step(&mut self) -> bool {
        let now = self.now();
        let mut bus = ClientBus {
            memory: &self.memory,
            msix: &mut self.msix,
            state: &mut self.bus,
        };
        let worked = self.device.step(&mut bus, now);
        if self.device.interrupt_pin() {
            self.intx.assert_pin();
        }
        worked
    }

    /// The client has gone: all as it was before it came.
    pub(super) fn forget_client(&mut self) {
        config::reset(&mut self.device, self.start.elapsed());
        self.initial.restore(&mut self.device);
        self.memory.unmap(DmaUnmap::All);
        self.msix.forget();
        self.intx.forget();
    }

    pub(super) fn take_violations(&mut self) -> Vec<String> {
        let mut all = self.device.take_violations();
        all.append(&mut self.bus.take_violations());
        all
    }

    pub(super) fn counters(&self) -> Counters {
        self.bus.counters
    }

    fn bar_len(&self, region: u32) -> Option<u32> {
        let index = u8::try_from(region).ok().filter(|_| region < BARS)?;
        self.device.bar_len(index)
    }

    /// Splits an access to a BAR into those that the device has: of 1, 2 or 4 bytes.
    fn access(
        &mut self,
        bar: u8,
        offset: u64,
        len: usize,
        mut with: impl FnMut(&mut D, u32, usize, u32, Instant) -> bool,
    ) -> Result<(), Errno> {
        let now = self.now();
        // A BAR is shorter than 4 GiB.
        let offset = u32::try_from(offset).map_err(|_| Errno::INVAL)?;
        let width = if len >= 4 { 4 } else { len as u32 };
        let aligned =
            width > 0 && offset.is_multiple_of(width) && (len as u32).is_multiple_of(width);
        if !aligned || width == 3 {
            let text = format!("{len} bytes accessed at {offset:#x} of BAR {bar}");
            self.bus.violation(text);
            return Err(Errno::INVAL);
        }
        for done in (0..len).step_by(width as usize) {
            let at = offset + done as u32;
            if !with(&mut self.device, at, done, width, now) {
                let bits = 8 * width;
                let text = format!("{bits}-bit register accessed at {at:#x} of BAR {bar}");
                self.bus.violation(text);
                return Err(Errno::INVAL);
            }
        }
        Ok(())
    }
}

impl<D: Device> Backend for Function<D> {
    fn region(&self, index: u32) -> RegionInfo {
        let len = match index {
            CONFIG_REGION => self.initial.len(),
            bar => self.bar_len(bar).map_or(0, u64::from),
        };
        RegionInfo {
            len,
            readable: len > 0,
            writable: len > 0,
        }
    }

    fn irqs(&self, index: u32) -> IrqInfo {
        let count = match index {
            INTX => u32::from(self.initial.has_pin()),
            MSIX => u32::from(self.device.vectors()),
            _ => 0,
        };
        IrqInfo {
            count,
            automasked: index == INTX,
        }
    }

    fn read(&mut self, region: u32, offset: u64, data: &mut [u8]) -> Result<(), Errno> {
        if region == CONFIG_REGION {
            config::read(&mut self.device, offset, data);
            return Ok(());
        }
        let bar = u8::try_from(region).map_err(|_| Errno::INVAL)?;
        self.access(bar, offset, data.len(), |device, at, done, width, now| {
            let value = if width == 4 {
                device.read(bar, at, now)
            } else {
                let Some(value) = device.read_narrow(bar, at, width, now) else {
                    return false;
                };
                u32::from(value)
            };
            let bytes = value.to_le_bytes();
            let place = data.get_mut(done..done + width as usize);
            place
                .zip(bytes.get(..width as usize))
                .map(|(place, bytes)| place.copy_from_slice(bytes))
                .is_some()
        })
    }

    fn write(&mut self, region: u32, offset: u64, data: &[u8]) -> Result<(), Errno> {
        if region == CONFIG_REGION {
            config::write(&mut self.device, offset, data);
            return Ok(());
        }
        let bar = u8::try_from(region).map_err(|_| Errno::INVAL)?;
        self.access(bar, offset, data.len(), |device, at, done, width, now| {
            let Some(part) = data.get(done..done + width as usize) else {
                return false;
            };
            let mut bytes = [0; 4];
            bytes
                .iter_mut()
                .zip(part)
                .for_each(|(to, from)| *to = *from);
            let value = u32::from_le_bytes(bytes);
            if width == 4 {
                device.write(bar, at, value, now);
                return true;
            }
            device.write_narrow(bar, at, width, value as u16, now)
        })
    }

    fn map(&mut self, map: DmaMap, file: Option<OwnedFd>) -> Result<(), Errno> {
        self.memory.map(map, file)
    }

    fn unmap(&mut self, unmap: DmaUnmap) -> Result<(), Errno> {
        self.memory.unmap(unmap);
        Ok(())
    }

    fn set_irqs(&mut self, index: u32, start: u32, count: u32, set: IrqSet) -> Result<(), Errno> {
        match index {
            INTX => self.intx.set(start, count, set),
            MSIX => {
                self.msix.set(start, count, set)?;
                // As Linux's vfio-pci: MSI-X is on as long as anybody listens.
                config::set_msix(&mut self.device, self.msix.is_connected());
                Ok(())
            }
            // There are none of the others, so these are no interrupts.
            _ => Ok(()),
        }
    }

    fn reset(&mut self) -> Result<(), Errno> {
        config::reset(&mut self.device, self.start.elapsed());
        Ok(())
    }
}

/// What the device reaches, for the time of one step.
struct ClientBus<'a> {
    memory: &'a Memory,
    msix: &'a mut Irqs,
    state: &'a mut BusState,
}

impl Bus for ClientBus<'_> {
    fn read(&mut self, address: u64, target: &mut [u8]) -> Result<(), DmaFault> {
        if target.is_empty() {
            return Ok(());
        }
        self.memory
            .read(address, target)
            .map_err(|fault| self.state.fault(fault, address, target.len()))?;
        self.state.counters.read_bytes += target.len() as u64;
        Ok(())
    }

    fn append(&mut self, address: u64, len: usize, frame: &mut Vec<u8>) -> Result<(), DmaFault> {
        if len == 0 {
            return Ok(());
        }
        let before = frame.len();
        frame.resize(before + len, 0);
        let target = frame.get_mut(before..).unwrap_or_default();
        let kind = self
            .memory
            .read(address, target)
            .map_err(|fault| self.state.fault(fault, address, len))?;
        match kind {
            Kind::Region => self.state.counters.region_bytes += len as u64,
            Kind::Memory => self.state.counters.memory_bytes += len as u64,
        }
        Ok(())
    }

    fn write(&mut self, address: u64, source: &[u8]) -> Result<(), DmaFault> {
        if source.is_empty() {
            return Ok(());
        }
        self.memory
            .write(address, source)
            .map_err(|fault| self.state.fault(fault, address, source.len()))?;
        self.state.counters.written_bytes += source.len() as u64;
        Ok(())
    }

    fn interrupt(&mut self, vector: u16) {
        self.state.counters.interrupts += 1;
        self.msix.signal(vector);
    }
}
