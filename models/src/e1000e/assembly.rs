//! Transmit descriptors, and the frame that they are gathered into.

use super::bits::{command, offset, popts, statistic, tctl};
use super::offload::{self, Context};
use super::parse::Headers;
use super::registers::RegisterFile;
use super::work::Work;

/// Least bytes that software must supply (Linux e1000e: with TCTL.PSP the hardware wants 17; the
/// 8254x SDM 3.3.3 asks for 48 of older devices).
const SHORTEST: usize = 17;
/// Length to which PSP pads; the frame check sequence makes it 64.
const PADDED: usize = 60;
/// More fragments than this are lost with `Latitude::drop_many_fragments`.
const MANY_FRAGMENTS: u32 = 64;

/// The formats of a transmit descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Format {
    Legacy,
    Context,
    Data,
    /// DEXT with an unknown DTYP.
    Unknown,
}

/// A transmit descriptor as it was fetched.
#[derive(Clone, Copy, Debug)]
pub(super) struct TxDescriptor {
    pub(super) raw: [u8; 16],
    pub(super) format: Format,
    pub(super) command: u8,
    /// The byte of STA and, above it, reserved or extended command bits.
    pub(super) status: u8,
    /// POPTS, or CSS of a legacy descriptor.
    options: u8,
}

impl TxDescriptor {
    pub(super) fn parse(raw: [u8; 16]) -> Self {
        let [.., kind, command, status, options, _, _] = raw;
        let format = match (command & command::DEXT != 0, kind >> 4) {
            (false, _) => Format::Legacy,
            (true, 0) => Format::Context,
            (true, 1) => Format::Data,
            (true, _) => Format::Unknown,
        };
        Self {
            raw,
            format,
            command,
            status,
            options,
        }
    }

    pub(super) fn has(&self, bit: u8) -> bool {
        self.command & bit != 0
    }

    fn address(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.raw;
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }

    /// Bytes of the buffer: 16 bits in a legacy descriptor, 20 in a data descriptor.
    fn len(&self) -> usize {
        let [.., low, middle, high, _, _, _, _, _] = self.raw;
        let high = match self.format {
            Format::Data => u32::from(high & 0xf) << 16,
            _ => 0,
        };
        (u32::from(low) | u32::from(middle) << 8 | high) as usize
    }

    /// CSO of a legacy descriptor.
    fn checksum_offset(&self) -> u8 {
        let [.., cso, _, _, _, _, _] = self.raw;
        cso
    }

    /// What a reserved field says that it must not.
    fn misuse(&self) -> Option<&'static str> {
        if self.status != 0 {
            Some("its status (or a reserved bit beside it) is not zero: DD would never be seen")
        } else if self.has(command::RESERVED) {
            Some("a reserved command bit is set")
        } else if self.format == Format::Data && self.options & popts::RESERVED != 0 {
            Some("a reserved bit of POPTS is set")
        } else {
            None
        }
    }
}

/// Where a descriptor came from, for reports.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) queue: usize,
    pub(super) index: u32,
}

impl Work<'_> {
    /// Reports `text` about the transmit descriptor at `place`.
    #[cold]
    pub(super) fn report_transmit(&mut self, place: Place, raw: &[u8; 16], text: &str) {
        let Place { queue, index } = place;
        let content = u128::from_be_bytes(*raw);
        self.violations.report(format!(
            "transmit queue {queue}, descriptor {index} [{content:032x}]: {text}"
        ));
    }
}

/// The frame that is being gathered.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    /// Some descriptors of the frame were handled, and not yet the last.
    pub(super) open: bool,
    buffer: Vec<u8>,
    fragments: u32,
    first: Option<TxDescriptor>,
    /// It will not be sent.
    spoiled: bool,
}

impl Assembly {
    /// Gives the frame up; the buffer stays for the next one.
    pub(super) fn abandon(&mut self) {
        self.open = false;
    }

    /// Gathers what `descriptor` (legacy or data) names, and sends the frame if it is the last.
    pub(super) fn take(
        &mut self,
        descriptor: TxDescriptor,
        place: Place,
        context: Option<Context>,
        work: &mut Work<'_>,
    ) {
        if let Some(misuse) = descriptor.misuse() {
            work.report_transmit(place, &descriptor.raw, misuse);
        }
        if self.open {
            self.compare(&descriptor, place, work);
        } else {
            self.open = true;
            self.buffer.clear();
            self.fragments = 0;
            self.spoiled = false;
            self.first = Some(descriptor);
        }
        self.fragments += 1;
        self.gather(&descriptor, place, work);
        if descriptor.has(command::EOP) {
            self.open = false;
            self.finish(&descriptor, place, context, work);
        }
    }

    /// All descriptors of a frame are of one format and agree on segmentation.
    fn compare(&mut self, descriptor: &TxDescriptor, place: Place, work: &mut Work<'_>) {
        let Some(first) = self.first else { return };
        if descriptor.format != first.format {
            let text = "legacy and data descriptors are mixed in one frame";
            work.report_transmit(place, &descriptor.raw, text);
        } else if descriptor.format == Format::Data
            && descriptor.has(command::TSE) != first.has(command::TSE)
        {
            let text = "TSE differs within one frame";
            work.report_transmit(place, &descriptor.raw, text);
        }
    }

    fn gather(&mut self, descriptor: &TxDescriptor, place: Place, work: &mut Work<'_>) {
        let (address, len) = (descriptor.address(), descriptor.len());
        if len == 0 || address == 0 {
            let text = "a null descriptor (no length, or no address) inside a frame";
            work.report_transmit(place, &descriptor.raw, text);
            return;
        }
        if self.spoiled {
            return;
        }
        let limit = RegisterFile::transmit_limit(work.registers.get(offset::PBA));
        if self.buffer.len() + len > limit {
            let text = format!("the frame does not fit the transmit FIFO: more than {limit} bytes");
            work.report_transmit(place, &descriptor.raw, &text);
            self.spoiled = true;
        } else if let Err(fault) = work.bus.append(address, len, &mut self.buffer) {
            let text = format!("nothing to read at {:#x}", fault.address);
            work.report_transmit(place, &descriptor.raw, &text);
            self.spoiled = true;
        }
    }

    /// The last descriptor is `last`: checksums, padding, wire, statistics.
    fn finish(
        &mut self,
        last: &TxDescriptor,
        place: Place,
        context: Option<Context>,
        work: &mut Work<'_>,
    ) {
        work.counters.count_fragments(self.fragments);
        let Some(first) = self.first else { return };
        if self.spoiled || !self.is_sendable(&first, last, place, work) {
            work.counters.frames_dropped += 1;
            return;
        }
        let qemu = work.latitude.qemu;
        if qemu.drops_cut_headers && Headers::parse(&self.buffer).is_none() {
            work.counters.frames_dropped += 1;
            work.counters.frames_with_cut_headers += 1;
            return;
        }
        let options = if qemu.options_of_last_descriptor {
            last.options
        } else {
            first.options
        };
        match first.format {
            Format::Data if options & (popts::IXSM | popts::TXSM) != 0 => {
                self.offload(&first, options, place, context, work);
            }
            Format::Legacy if last.has(command::IC) && !qemu.no_legacy_checksum => {
                self.offload_legacy(&first, last, place, work)
            }
            _ => {}
        }
        if self.buffer.len() < PADDED {
            if work.registers.get(offset::TCTL) & tctl::PSP == 0 {
                let text = "a frame of less than 60 bytes, and TCTL.PSP is off: a runt";
                work.report_transmit(place, &last.raw, text);
            } else if !qemu.no_padding {
                self.buffer.resize(PADDED, 0);
            }
        }
        count(&self.buffer, work);
        work.send(&mut self.buffer);
    }

    /// Whether the frame goes on the wire; if not, it has been reported, where it is a fault.
    fn is_sendable(
        &self,
        first: &TxDescriptor,
        last: &TxDescriptor,
        place: Place,
        work: &mut Work<'_>,
    ) -> bool {
        if work.latitude.drop_many_fragments && self.fragments > MANY_FRAGMENTS {
            work.counters.frames_of_too_many_fragments += 1;
            return false;
        }
        let fault = if first.format == Format::Data && first.has(command::TSE) {
            "TSO is not modelled"
        } else if !last.has(command::IFCS) {
            "IFCS is off in the last descriptor: a frame without a check sequence"
        } else if self.buffer.len() < SHORTEST {
            "a frame of less than 17 bytes"
        } else {
            return true;
        };
        work.report_transmit(place, &last.raw, fault);
        false
    }

    fn offload(
        &mut self,
        first: &TxDescriptor,
        options: u8,
        place: Place,
        context: Option<Context>,
        work: &mut Work<'_>,
    ) {
        let Some(context) = context else {
            let text = "a checksum is asked for, and there was no context since the reset";
            work.report_transmit(place, &first.raw, text);
            return;
        };
        if context.segments() {
            let text = "a checksum is asked for, and the last context is one for segmentation";
            work.report_transmit(place, &first.raw, text);
        }
        let by_protocol = work.latitude.qemu.checksums_by_protocol;
        let mut report = |text: &str| work.report_transmit(place, &first.raw, text);
        let inserted = if by_protocol {
            // The context is judged all the same, on a frame that nobody will see.
            context.insert(options, &mut self.buffer.clone(), &mut report);
            Headers::parse(&self.buffer).map_or(0, |h| h.insert(options, &mut self.buffer))
        } else {
            context.insert(options, &mut self.buffer, &mut report)
        };
        work.counters.checksums_inserted += inserted;
    }

    /// CSS counts in the first descriptor, CSO in the last (82583V datasheet 7.2.9.1.3).
    fn offload_legacy(
        &mut self,
        first: &TxDescriptor,
        last: &TxDescriptor,
        place: Place,
        work: &mut Work<'_>,
    ) {
        let mut report = |text: &str| work.report_transmit(place, &last.raw, text);
        let offset = last.checksum_offset();
        let done = offload::insert_legacy(first.options, offset, &mut self.buffer, &mut report);
        work.counters.checksums_inserted += u64::from(done);
    }
}

/// Counts a frame that is sent. Octets include the check sequence.
fn count(frame: &[u8], work: &mut Work<'_>) {
    let len = frame.len();
    work.counters.frames_sent += 1;
    work.counters.bytes_sent += len as u64;
    let octets = len as u64 + 4;
    let statistics = &mut *work.statistics;
    statistics.count(statistic::TPT);
    statistics.count(statistic::GPTC);
    statistics.add(statistic::TOT, octets);
    statistics.add(statistic::GOTC, octets);
    statistics.count_size(statistic::PTC64, len + 4);
    match frame.get(..6) {
        Some([0xff, 0xff, 0xff, 0xff, 0xff, 0xff]) => statistics.count(statistic::BPTC),
        Some([first, ..]) if first & 1 != 0 => statistics.count(statistic::MPTC),
        _ => {}
    }
}
