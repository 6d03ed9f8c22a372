//! The frame that transmit descriptors are gathered into, and what becomes of it.

use super::bits::{command, ctrl, offset, popts, statistic, tctl};
use super::offload::{self, Context};
use super::parse::Headers;
use super::registers::RegisterFile;
use super::segment::Request;
use super::tx_descriptor::{Format, TxDescriptor};
use super::work::Work;

/// Least bytes that software must supply (Linux e1000e: with TCTL.PSP the hardware wants 17; the
/// 8254x SDM 3.3.3 asks for 48 of older devices).
const SHORTEST: usize = 17;
/// Length to which PSP pads; the frame check sequence makes it 64.
const PADDED: usize = 60;
/// More fragments than this are lost with `Latitude::drop_many_fragments`.
const MANY_FRAGMENTS: u32 = 64;
/// Most bytes of a request for segmentation: HDRLEN has 8 bits, PAYLEN 20.
const LONGEST_REQUEST: usize = u8::MAX as usize + (1 << 20) - 1;
/// Where the VLAN tag goes.
const TAG: usize = 12;

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
    /// A segment of it.
    segment: Vec<u8>,
    /// Where descriptors end, as far as headers may go.
    ends: Vec<usize>,
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
            self.ends.clear();
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
        // A request for segmentation may be longer than the FIFO (82583V datasheet 7.2.9.4).
        let limit = if self.first.is_some_and(|first| first.segments()) {
            LONGEST_REQUEST
        } else {
            RegisterFile::transmit_limit(work.registers.get(offset::PBA))
        };
        if self.buffer.len() + len > limit {
            let text = format!("the frame does not fit the transmit FIFO: more than {limit} bytes");
            work.report_transmit(place, &descriptor.raw, &text);
            self.spoiled = true;
        } else if let Err(fault) = work.bus.append(address, len, &mut self.buffer) {
            let text = format!("nothing to read at {:#x}", fault.address);
            work.report_transmit(place, &descriptor.raw, &text);
            self.spoiled = true;
        } else if self.buffer.len() <= usize::from(u8::MAX) {
            self.ends.push(self.buffer.len());
        }
    }

    /// The last descriptor is `last`: checksums or segmentation, VLAN tag, wire.
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
        // VLE is the first one's with TSE, else the last one's (8254x SDM 3.3.7.1).
        let tagged = if first.segments() { &first } else { last };
        let departure = Departure {
            tag: tag(tagged, place, work),
            place,
            raw: last.raw,
        };
        if first.segments() {
            self.segment(&first, options, context, departure, work);
            return;
        }
        match first.format {
            Format::Data if options & (popts::IXSM | popts::TXSM) != 0 => {
                self.offload(&first, options, place, context, work);
            }
            Format::Legacy if last.has(command::IC) && !qemu.no_legacy_checksum => {
                self.offload_legacy(&first, last, place, work)
            }
            _ => {}
        }
        departure.send(&mut self.buffer, work);
    }

    /// Sends a request for segmentation, or says why not.
    fn segment(
        &mut self,
        first: &TxDescriptor,
        options: u8,
        context: Option<Context>,
        departure: Departure,
        work: &mut Work<'_>,
    ) {
        let raw = &first.raw;
        let judged = match &context {
            None => Err("TSE, and there was no context since the reset"),
            Some(context) if !context.segments() => {
                Err("TSE, and the last context is not one for segmentation")
            }
            Some(context) => Ok(Request {
                context,
                options,
                frame: &self.buffer,
                ends: &self.ends,
                limit: RegisterFile::transmit_limit(work.registers.get(offset::PBA)),
            }),
        };
        let mut report = |text: &str| work.report_transmit(departure.place, raw, text);
        let request = judged.map_err(&mut report);
        let Some(request) = request.ok().filter(|request| request.judge(&mut report)) else {
            work.counters.frames_dropped += 1;
            work.statistics.count(statistic::TSCTFC);
            return;
        };
        work.counters.segmented += 1;
        work.statistics.count(statistic::TSCTC);
        request.cut(&mut self.segment, |segment, checksums| {
            work.counters.segments_made += 1;
            work.counters.checksums_inserted += checksums;
            departure.send(segment, work);
        });
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
        let fault = if first.segments() && !first.has(command::IFCS) {
            "TSE, and IFCS is off in the first descriptor: frames without a check sequence"
        } else if !first.segments() && !last.has(command::IFCS) {
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

/// How a frame leaves.
#[derive(Clone, Copy, Debug)]
struct Departure {
    /// The VLAN tag to put on.
    tag: Option<[u8; 4]>,
    /// The last descriptor, for reports.
    place: Place,
    raw: [u8; 16],
}

impl Departure {
    /// VLAN tag, padding, wire, statistics. (The tag counts for the padding: the 8254x SDM pads to
    /// 64 bytes, which is the least that may be on the wire.)
    fn send(&self, frame: &mut Vec<u8>, work: &mut Work<'_>) {
        if let Some(tag) = self.tag
            && frame.len() >= TAG
        {
            frame.splice(TAG..TAG, tag);
            work.counters.tags_inserted += 1;
        }
        if frame.len() < PADDED {
            if work.registers.get(offset::TCTL) & tctl::PSP == 0 {
                let text = "a frame of less than 60 bytes, and TCTL.PSP is off: a runt";
                work.report_transmit(self.place, &self.raw, text);
            } else if !work.latitude.qemu.no_padding {
                frame.resize(PADDED, 0);
            }
        }
        count(frame, work);
        work.send(frame);
    }
}

/// The VLAN tag that a descriptor asks for: VET, and what it says itself. It must be allowed by
/// CTRL.VME (82583V datasheet 7.5.2.1).
fn tag(descriptor: &TxDescriptor, place: Place, work: &mut Work<'_>) -> Option<[u8; 4]> {
    if !descriptor.has(command::VLE) {
        return None;
    }
    if work.registers.get(offset::CTRL) & ctrl::VME == 0 {
        let text = "VLE, and CTRL.VME is off: no tag is put on";
        work.report_transmit(place, &descriptor.raw, text);
        return None;
    }
    let [k0, k1] = (work.registers.get(offset::VET) as u16).to_be_bytes();
    let [t0, t1] = descriptor.tag;
    Some([k0, k1, t0, t1])
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
