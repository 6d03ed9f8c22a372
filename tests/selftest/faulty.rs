//! Faults around a model: of its registers, of what it does to memory, of its wire.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use pagewire_hal::Instant;
use pagewire_models::wire::PairEnd;
use pagewire_models::{Bus, Device, DmaFault, Wire};

use crate::faults::Fault;

/// Intel's EEPROM read registers: of the 82574, of the 82599.
const EERD: [u32; 2] = [0x0014, 0x1_0014];
/// The word that is wrong.
const WRONG_WORD: u32 = 0x11;
/// PCI command: bus master.
const COMMAND: u16 = 4;
const BUS_MASTER: u32 = 1 << 2;

/// Memory that is not mapped, and where the device is told that it is.
type Unmapped = (u64, Arc<Mutex<Vec<u8>>>);

/// What the parts of a faulty device know of each other.
#[derive(Default)]
pub struct Shared {
    fault: Option<Fault>,
    pub stray: Mutex<Option<Unmapped>>,
    /// Times that bus mastering was switched on: the second is a restart.
    starts: AtomicU32,
    is_master: AtomicBool,
    sent: AtomicU32,
    received: AtomicU32,
    /// Fragments of the frame that is being gathered.
    fragments: AtomicU32,
    /// Start and length of its second fragment, and the length of its third.
    second_and_third: Mutex<Option<((usize, usize), usize)>>,
}

impl Shared {
    pub fn new(fault: Option<Fault>) -> Self {
        Self {
            fault,
            ..Self::default()
        }
    }

    fn has_restarted(&self) -> bool {
        self.starts.load(Ordering::Relaxed) > 1
    }
}

/// A model with a fault.
pub struct Faulty {
    inner: Box<dyn Device>,
    shared: Arc<Shared>,
    /// The word of the EEPROM that was asked for.
    word: u32,
    /// A doorbell was rung, and the device has not looked since.
    under_way: bool,
    stuck: bool,
    swap: Swap,
}

impl Faulty {
    pub fn new(inner: Box<dyn Device>, shared: Arc<Shared>) -> Self {
        Self {
            inner,
            shared,
            word: 0,
            under_way: false,
            stuck: false,
            swap: Swap::default(),
        }
    }
}

impl Device for Faulty {
    fn config_read(&mut self, offset: u16) -> u32 {
        self.inner.config_read(offset)
    }

    fn config_write(&mut self, offset: u16, value: u32) {
        if offset == COMMAND {
            let is = value & BUS_MASTER != 0;
            let was = self.shared.is_master.swap(is, Ordering::Relaxed);
            if is && !was {
                self.shared.starts.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.inner.config_write(offset, value);
    }

    fn bar_len(&self, index: u8) -> Option<u32> {
        self.inner.bar_len(index)
    }

    fn read(&mut self, bar: u8, offset: u32, now: Instant) -> u32 {
        let fault = self.shared.fault;
        let offset = match fault {
            Some(Fault::Alias { offset: at, same }) if bar == 0 && offset == at => same,
            _ => offset,
        };
        let value = self.inner.read(bar, offset, now);
        match fault {
            Some(Fault::StuckBit { offset: at, bit }) if bar == 0 && offset == at => {
                value | 1 << bit
            }
            Some(Fault::NeverLink { offset: at, bit }) if bar == 0 && offset == at => {
                value & !(1 << bit)
            }
            Some(Fault::EepromWord)
                if bar == 0 && EERD.contains(&offset) && self.word == WRONG_WORD =>
            {
                value ^ 1 << 24
            }
            // device_feature_select and driver_feature_select, where the model has the common
            // configuration.
            Some(Fault::Forgetful) if [0, 8].contains(&(offset & 0xfff)) => 0,
            Some(Fault::EndlessReset { status, .. }) if self.stuck && offset == status => {
                value | 1 << 19
            }
            _ => value,
        }
    }

    fn write(&mut self, bar: u8, offset: u32, value: u32, now: Instant) {
        let mut place = (offset, value);
        if bar == 0 && EERD.contains(&offset) {
            self.word = value >> 2 & 0x3fff;
        }
        self.under_way |= self.inner.is_doorbell(bar, offset);
        match self.shared.fault {
            Some(Fault::Alias { offset: at, same }) if bar == 0 && offset == at => place.0 = same,
            Some(Fault::NoLoopback { offset: at, bits }) if bar == 0 && offset == at => {
                place.1 = value & !bits;
            }
            Some(Fault::EndlessReset { control, bit, .. })
                if offset == control && value >> bit & 1 != 0 && self.under_way =>
            {
                self.stuck = true;
            }
            _ => {}
        }
        self.inner.write(bar, place.0, place.1, now);
    }

    fn read_narrow(&mut self, bar: u8, offset: u32, width: u32, now: Instant) -> Option<u16> {
        self.inner.read_narrow(bar, offset, width, now)
    }

    fn write_narrow(&mut self, bar: u8, offset: u32, width: u32, value: u16, now: Instant) -> bool {
        self.inner.write_narrow(bar, offset, width, value, now)
    }

    fn is_doorbell(&self, bar: u8, offset: u32) -> bool {
        self.inner.is_doorbell(bar, offset)
    }

    fn vectors(&self) -> u16 {
        self.inner.vectors()
    }

    fn step(&mut self, bus: &mut dyn Bus, now: Instant) -> bool {
        self.under_way = false;
        let mut bus = FaultyBus {
            inner: bus,
            shared: &self.shared,
            swap: &mut self.swap,
        };
        self.inner.step(&mut bus, now)
    }

    fn take_violations(&mut self) -> Vec<String> {
        self.inner.take_violations()
    }
}

/// Where the second fragment of the frame begins that is being gathered, and its length.
#[derive(Default)]
struct Swap {
    second: (usize, usize),
}

struct FaultyBus<'a> {
    inner: &'a mut dyn Bus,
    shared: &'a Shared,
    swap: &'a mut Swap,
}

impl FaultyBus<'_> {
    /// What lies at an address that is not mapped, if the fault lets the device reach it.
    fn unmapped<T>(
        &self,
        fault: Fault,
        address: u64,
        len: usize,
        with: impl FnOnce(&mut [u8]) -> T,
    ) -> Option<T> {
        if self.shared.fault != Some(fault) {
            return None;
        }
        let stray = self.shared.stray.lock().unwrap();
        let (base, bytes) = stray.as_ref()?;
        let start = usize::try_from(address.checked_sub(*base)?).ok()?;
        let mut bytes = bytes.lock().unwrap();
        Some(with(bytes.get_mut(start..start.checked_add(len)?)?))
    }
}

impl Bus for FaultyBus<'_> {
    fn read(&mut self, address: u64, target: &mut [u8]) -> Result<(), DmaFault> {
        let len = target.len();
        let found = self.unmapped(Fault::ReadsAll, address, len, |bytes| {
            target.copy_from_slice(bytes);
        });
        match found {
            Some(()) => Ok(()),
            None => self.inner.read(address, target),
        }
    }

    fn append(&mut self, address: u64, len: usize, frame: &mut Vec<u8>) -> Result<(), DmaFault> {
        let found = self.unmapped(Fault::ReadsAll, address, len, |bytes| {
            frame.extend_from_slice(bytes);
        });
        if found.is_some() {
            return Ok(());
        }
        if frame.is_empty() {
            self.shared.fragments.store(0, Ordering::Relaxed);
        }
        let number = self.shared.fragments.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(Fault::FragmentsLost(most)) = self.shared.fault
            && number as usize > most
        {
            return Ok(());
        }
        let start = frame.len();
        self.inner.append(address, len, frame)?;
        if let Some(Fault::FragmentsSwapped(_)) = self.shared.fault {
            match number {
                2 => self.swap.second = (start, len),
                3 => *self.shared.second_and_third.lock().unwrap() = Some((self.swap.second, len)),
                _ => {}
            }
        }
        Ok(())
    }

    fn write(&mut self, address: u64, source: &[u8]) -> Result<(), DmaFault> {
        let found = self.unmapped(Fault::WritesAll, address, source.len(), |bytes| {
            bytes.copy_from_slice(source);
        });
        if found.is_some() {
            return Ok(());
        }
        let mut changed = source.to_vec();
        match (self.shared.fault, &mut changed[..]) {
            // Legacy write-back: length, checksum, status, errors (TCPE and IPE), special.
            (Some(Fault::AllGood), [_, _, _, _, _, errors, _, _]) => *errors &= !0x60,
            // Advanced write-back: L4E and IPE of the 82599.
            (Some(Fault::AllGood), [_, _, _, _, _, _, _, _, _, _, _, high, _, _, _, _]) => {
                *high &= !0xc0;
            }
            // IXSM: the checksums were not looked at.
            (Some(Fault::NothingChecked), [_, _, _, _, status, _, _, _]) => *status |= 1 << 2,
            _ => {}
        }
        self.inner.write(address, &changed)
    }

    fn interrupt(&mut self, vector: u16) {
        if self.shared.fault != Some(Fault::SilentVector(vector)) {
            self.inner.interrupt(vector);
        }
    }
}

/// A wire with a fault: what the device does wrong to frames.
pub struct FaultyWire {
    inner: PairEnd,
    shared: Arc<Shared>,
    /// Number, flow and sequence number of the segment before.
    segment: (u32, Vec<u8>, [u8; 4]),
}

impl FaultyWire {
    pub fn new(inner: PairEnd, shared: Arc<Shared>) -> Self {
        Self {
            inner,
            shared,
            segment: Default::default(),
        }
    }

    /// Which segment of its flow a TCP frame is, from 1.
    fn number(&mut self, frame: &[u8], transport: usize) -> u32 {
        let flow = frame.get(transport..transport + 4).unwrap_or_default();
        if self.segment.1 != flow {
            self.segment = (0, flow.to_vec(), [0; 4]);
        }
        self.segment.0 += 1;
        self.segment.0
    }

    /// Changes a frame that the device sends; `false` if it is lost.
    fn spoil(&mut self, frame: &mut [u8]) -> bool {
        let Some(fault) = self.shared.fault else {
            return true;
        };
        let sent = self.shared.sent.fetch_add(1, Ordering::Relaxed) + 1;
        let fragments = self.shared.fragments.swap(0, Ordering::Relaxed) as usize;
        let version = match frame.get(12..14) {
            Some([0x08, 0x00]) => 4,
            Some([0x86, 0xdd]) => 6,
            _ => 0,
        };
        let (protocol, transport) = match version {
            4 => (frame.get(23).copied(), 34),
            6 => (frame.get(20).copied(), 54),
            _ => (None, 0),
        };
        match fault {
            Fault::FragmentsSwapped(more) if fragments > more => {
                let swap = self.shared.second_and_third.lock().unwrap().take();
                if let Some(((start, second), third)) = swap
                    && let Some(both) = frame.get_mut(start..start + second + third)
                {
                    both.rotate_left(second);
                }
            }
            Fault::NoHeaderSum(len) if version == 4 && frame.len() == len => {
                frame[24..26].fill(0);
            }
            Fault::WrongSum {
                version: of,
                protocol: by,
                len,
            } if version == of && protocol == Some(by) && frame.len() == len => {
                let at = transport + if by == 6 { 16 } else { 6 };
                frame[at + 1] ^= 0x21;
            }
            Fault::SequenceAgain | Fault::LastSegmentLost | Fault::PushEverywhere
                if protocol == Some(6) && frame.len() > transport + 600 =>
            {
                return self.spoil_segment(fault, frame, transport);
            }
            Fault::LastSegmentLost
                if protocol == Some(6) && self.is_segmented(frame, transport) =>
            {
                return false;
            }
            Fault::EveryNthLost(n) => return !sent.is_multiple_of(n),
            Fault::DumbAfterReset => return !self.shared.has_restarted(),
            _ => {}
        }
        true
    }

    /// Whether a frame belongs to a flow of which another one was long.
    fn is_segmented(&self, frame: &[u8], transport: usize) -> bool {
        frame.get(transport..transport + 4) == Some(&self.segment.1[..])
    }

    fn spoil_segment(&mut self, fault: Fault, frame: &mut [u8], transport: usize) -> bool {
        let number = self.number(frame, transport);
        let sum = transport + 16;
        let sequence: [u8; 4] = frame[transport + 4..transport + 8].try_into().unwrap();
        match fault {
            Fault::SequenceAgain if number == 3 => {
                let before = self.segment.2;
                frame[transport + 4..transport + 8].copy_from_slice(&before);
            }
            // The sum agrees with it.
            Fault::PushEverywhere if frame[transport + 13] & 8 == 0 => {
                frame[transport + 13] |= 8;
                let old = u16::from_be_bytes([frame[sum], frame[sum + 1]]);
                let new = match old.overflowing_sub(8) {
                    (new, true) => new - 1,
                    (new, false) => new,
                };
                frame[sum..sum + 2].copy_from_slice(&new.to_be_bytes());
            }
            _ => {}
        }
        self.segment.2 = sequence;
        true
    }
}

impl Wire for FaultyWire {
    fn transmit(&mut self, frame: &mut Vec<u8>, now: Instant) {
        if self.spoil(frame) {
            self.inner.transmit(frame, now);
        }
    }

    fn receive(&mut self, frame: &mut Vec<u8>, now: Instant) -> bool {
        while self.inner.receive(frame, now) {
            let received = self.shared.received.fetch_add(1, Ordering::Relaxed) + 1;
            let lost = match self.shared.fault {
                Some(Fault::EveryNthMissed(n)) => received.is_multiple_of(n),
                Some(Fault::DeafAfterReset) => self.shared.has_restarted(),
                _ => false,
            };
            if !lost {
                return true;
            }
        }
        false
    }

    fn carrier(&self) -> bool {
        self.shared.fault == Some(Fault::LinkStaysUp) || self.inner.carrier()
    }
}
