//! The seams inside this room: a device model, the bus it sits on, the wire it is plugged into.

use pagewire_hal::Instant;

/// A device model: registers and configuration space, and work done in [`step`](Self::step).
///
/// Register accesses only change the model's own state. Memory is read and written, interrupts
/// are raised and frames move in `step` alone, which whoever runs the simulation calls.
pub trait Device: Send {
    /// Reads configuration space at `offset`, a multiple of 4; all ones where there is nothing.
    fn config_read(&mut self, offset: u16) -> u32;
    /// Writes configuration space at `offset`, a multiple of 4.
    fn config_write(&mut self, offset: u16, value: u32);
    /// Length in bytes of memory BAR `index`; `None` if there is none.
    fn bar_len(&self, index: u8) -> Option<u32>;
    /// Reads the 32-bit register at `offset` of memory BAR `bar`.
    fn read(&mut self, bar: u8, offset: u32, now: Instant) -> u32;
    /// Writes the 32-bit register at `offset` of memory BAR `bar`.
    fn write(&mut self, bar: u8, offset: u32, value: u32, now: Instant);
    /// Reads the register of `width` bytes, 1 or 2, at `offset` of memory BAR `bar`; `None`
    /// where the device has no registers of that width, which is then a violation.
    fn read_narrow(&mut self, bar: u8, offset: u32, width: u32, now: Instant) -> Option<u16> {
        let _ = (bar, offset, width, now);
        None
    }
    /// Writes the register of `width` bytes, 1 or 2, at `offset` of memory BAR `bar`; `false`
    /// where the device has no registers of that width, which is then a violation.
    fn write_narrow(&mut self, bar: u8, offset: u32, width: u32, value: u16, now: Instant) -> bool {
        let _ = (bar, offset, width, value, now);
        false
    }
    /// Whether a write to the register at `offset` of memory BAR `bar` tells the device to look
    /// at a ring. Descriptors that no barrier has published before are then a violation.
    fn is_doorbell(&self, bar: u8, offset: u32) -> bool {
        let _ = (bar, offset);
        false
    }
    /// MSI-X vectors that the device has; 0 if none.
    fn vectors(&self) -> u16;
    /// Whether the device asserts its interrupt pin (INTx), which it does as long as there is a
    /// cause and MSI-X is off; `false` where the pin is not modelled.
    fn interrupt_pin(&self) -> bool {
        false
    }
    /// Does what is due: fetches descriptors, moves frames, writes back, interrupts. Returns
    /// whether anything was done.
    fn step(&mut self, bus: &mut dyn Bus, now: Instant) -> bool;
    /// What the driver did that the specification forbids, in words, since this was last asked.
    fn take_violations(&mut self) -> Vec<String>;
}

impl<D: Device + ?Sized> Device for Box<D> {
    fn config_read(&mut self, offset: u16) -> u32 {
        (**self).config_read(offset)
    }

    fn config_write(&mut self, offset: u16, value: u32) {
        (**self).config_write(offset, value);
    }

    fn bar_len(&self, index: u8) -> Option<u32> {
        (**self).bar_len(index)
    }

    fn read(&mut self, bar: u8, offset: u32, now: Instant) -> u32 {
        (**self).read(bar, offset, now)
    }

    fn write(&mut self, bar: u8, offset: u32, value: u32, now: Instant) {
        (**self).write(bar, offset, value, now);
    }

    fn read_narrow(&mut self, bar: u8, offset: u32, width: u32, now: Instant) -> Option<u16> {
        (**self).read_narrow(bar, offset, width, now)
    }

    fn write_narrow(&mut self, bar: u8, offset: u32, width: u32, value: u16, now: Instant) -> bool {
        (**self).write_narrow(bar, offset, width, value, now)
    }

    fn is_doorbell(&self, bar: u8, offset: u32) -> bool {
        (**self).is_doorbell(bar, offset)
    }

    fn vectors(&self) -> u16 {
        (**self).vectors()
    }

    fn interrupt_pin(&self) -> bool {
        (**self).interrupt_pin()
    }

    fn step(&mut self, bus: &mut dyn Bus, now: Instant) -> bool {
        (**self).step(bus, now)
    }

    fn take_violations(&mut self) -> Vec<String> {
        (**self).take_violations()
    }
}

/// What a device model reaches: memory through the IOMMU, and its interrupt vectors.
pub trait Bus {
    /// Fills `target` from memory.
    ///
    /// # Errors
    /// [`DmaFault`] if any byte is outside every mapping; `target` is then of no use.
    fn read(&mut self, address: u64, target: &mut [u8]) -> Result<(), DmaFault>;
    /// Appends `len` bytes of memory to `frame`: the payload path, counted by
    /// the host as fetched from a region or from driver memory.
    ///
    /// # Errors
    /// [`DmaFault`] if any byte is outside every mapping; `frame` may then hold a part.
    fn append(&mut self, address: u64, len: usize, frame: &mut Vec<u8>) -> Result<(), DmaFault>;
    /// Writes `source` to memory.
    ///
    /// # Errors
    /// [`DmaFault`] if any byte is outside every mapping or in memory mapped for reading only;
    /// nothing is then written.
    fn write(&mut self, address: u64, source: &[u8]) -> Result<(), DmaFault>;
    /// Fires MSI-X vector `vector`.
    fn interrupt(&mut self, vector: u16);
}

/// A device address that is not mapped, or not for writing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DmaFault {
    /// The first address that could not be reached.
    pub address: u64,
    /// Whether the access was a write.
    pub write: bool,
}

/// One end of a wire. Frames run from the Ethernet destination address to the last byte before
/// the frame check sequence.
pub trait Wire: Send {
    /// Puts a frame on the wire. The wire may take the buffer's memory and leave another one:
    /// its content afterwards is arbitrary.
    fn transmit(&mut self, frame: &mut Vec<u8>, now: Instant);
    /// Takes the next frame that has arrived by `now` into `frame` (whose content and memory
    /// are replaced); `false`, and `frame` arbitrary, if there is none.
    fn receive(&mut self, frame: &mut Vec<u8>, now: Instant) -> bool;
    /// Whether there is a carrier.
    fn carrier(&self) -> bool {
        true
    }
    /// How often the wire had no room for a frame, so far: where it has several other ends, once for
    /// each that had none.
    fn lost(&self) -> u64 {
        0
    }
}

impl Wire for Box<dyn Wire> {
    fn transmit(&mut self, frame: &mut Vec<u8>, now: Instant) {
        (**self).transmit(frame, now);
    }

    fn receive(&mut self, frame: &mut Vec<u8>, now: Instant) -> bool {
        (**self).receive(frame, now)
    }

    fn carrier(&self) -> bool {
        (**self).carrier()
    }

    fn lost(&self) -> u64 {
        (**self).lost()
    }
}
