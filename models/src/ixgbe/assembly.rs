//! The frame that transmit descriptors are gathered into, and what becomes of it.

use super::bits::{VT_SHIFT, command, dctl, hlreg0, offset, offset::ring, option, statistic};
use super::descriptor::{Context, TxDescriptor};
use super::filter::tag_type;
use super::offload::{self, LONGEST_FRAME, Request};
use super::registers::Ring;
use super::segment::{self, Flags};
use super::work::Work;

/// Least bytes that software must supply (X550 datasheet 7.2.3.2.4; Linux ixgbe pads to it).
const SHORTEST: usize = 17;
/// Length to which TXPADEN pads; the frame check sequence makes it 64.
const PADDED: usize = 60;
/// Most bytes of one buffer (X550 datasheet 7.2.3.2.4).
const LONGEST_BUFFER: usize = 16 * 1024;
/// Most descriptors of a frame: this, less WTHRESH, less 2 (X550 datasheet 7.2.1.1). DPDK leaves
/// out the 2; whether the context counts is not said: here it does not.
const MOST_DESCRIPTORS: u32 = 40;
/// Most descriptors of the header that segmentation repeats (X550 datasheet).
const HEADER_DESCRIPTORS: usize = 4;
/// Most bytes of a request: PAYLEN has 18 bits, the header at most 512.
const LONGEST_REQUEST: usize = (1 << 18) - 1 + 512;

/// Bytes of a VLAN tag: its type, then priority and identifier.
const TAG: usize = 4;
/// It goes behind the two addresses.
const TAG_AT: usize = 12;

/// Where a descriptor came from, for reports.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) queue: usize,
    pub(super) index: u32,
}

impl Work<'_> {
    /// Reports what is wrong with a transmit descriptor.
    pub(super) fn report_transmit(&mut self, place: Place, raw: &[u8; 16], text: &str) {
        let Place { queue, index } = place;
        let content = u128::from_be_bytes(*raw);
        self.violations.report(format!(
            "transmit queue {queue}, descriptor {index} [{content:032x}]: {text}"
        ));
    }
}

/// The frame under way on a queue.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    /// Between the first descriptor of a frame and its EOP.
    pub(super) open: bool,
    buffer: Vec<u8>,
    segment: Vec<u8>,
    first: Option<TxDescriptor>,
    fragments: u32,
    /// Bytes after the fourth descriptor.
    head: usize,
    /// Something was wrong that makes the frame unfit to be sent.
    spoiled: bool,
}

impl Assembly {
    pub(super) fn abandon(&mut self) {
        self.open = false;
        self.first = None;
    }

    /// Takes a data descriptor; the frame is sent when it was the last one.
    pub(super) fn take(
        &mut self,
        descriptor: TxDescriptor,
        place: Place,
        contexts: &[Option<Context>; 2],
        work: &mut Work<'_>,
    ) {
        if !self.open {
            self.open = true;
            self.buffer.clear();
            self.first = Some(descriptor);
            self.fragments = 0;
            self.head = 0;
            self.spoiled = false;
        }
        if let Some(misuse) = descriptor.misuse() {
            work.report_transmit(place, &descriptor.raw, misuse);
        }
        // The first one counts (X550 datasheet 7.2.3.2.4); Linux sets the bit in all.
        if descriptor.has(command::VLE) && !self.first.is_some_and(|one| one.has(command::VLE)) {
            let text = "VLE, and not in the first descriptor of the frame: no tag is put on";
            work.report_transmit(place, &descriptor.raw, text);
        }
        self.fragments += 1;
        self.gather(&descriptor, place, work);
        if self.fragments as usize <= HEADER_DESCRIPTORS {
            self.head = self.buffer.len();
        }
        if descriptor.has(command::EOP) {
            self.open = false;
            self.finish(place, contexts, work);
        }
    }

    fn gather(&mut self, descriptor: &TxDescriptor, place: Place, work: &mut Work<'_>) {
        let len = descriptor.len();
        let fault = if len == 0 {
            "a descriptor without length inside a frame"
        } else if len > LONGEST_BUFFER {
            "DTALEN is more than 16 KiB"
        } else if self.buffer.len() + len > LONGEST_REQUEST {
            "the frame is longer than any request may be"
        } else if self.spoiled {
            return;
        } else {
            let read = work.bus.append(descriptor.address(), len, &mut self.buffer);
            if let Err(fault) = read {
                let text = format!("nothing to read at {:#x}", fault.address);
                work.report_transmit(place, &descriptor.raw, &text);
                self.spoiled = true;
            }
            return;
        };
        work.report_transmit(place, &descriptor.raw, fault);
        self.spoiled = true;
    }

    /// The frame is whole: judgement, offloads, wire.
    fn finish(&mut self, place: Place, contexts: &[Option<Context>; 2], work: &mut Work<'_>) {
        let Some(first) = self.first.take() else {
            return;
        };
        work.counters
            .count_request(self.fragments, self.buffer.len());
        let context = self.context(&first, place, contexts, work);
        let fits = self.is_sendable(&first, place, work);
        let Some(context) = context.filter(|_| fits && !self.spoiled) else {
            work.counters.frames_dropped += 1;
            return;
        };
        let request = Request {
            ip: first.wants(option::IXSM),
            transport: first.wants(option::TXSM),
            segment: first.has(command::TSE),
            tag: tag_len(&first),
        };
        let tagging = context.filter(|_| first.has(command::VLE));
        let tag = tagging.map(|context| self.tag(&context, &first, place, work));
        let Some(context) = context.filter(|_| request.needs_headers()) else {
            self.judge_length(&first, 0, place, work);
            send(&mut self.buffer, tag, place.queue, work);
            return;
        };
        let frame = &self.buffer;
        let rules = work.rules;
        let mut report = |text: &str| work.report_transmit(place, &first.raw, text);
        if !offload::judge(&context, request, frame, rules, &mut report) {
            work.counters.frames_dropped += 1;
            return;
        }
        let header = if request.segment {
            context.header_len()
        } else {
            0
        };
        self.judge_length(&first, header, place, work);
        if !request.segment {
            work.counters.checksums_inserted +=
                offload::insert(&context, request, &mut self.buffer);
            send(&mut self.buffer, tag, place.queue, work);
            return;
        }
        if self.head < header {
            let text = "the header that is to be repeated lies in more than four descriptors";
            work.report_transmit(place, &first.raw, text);
        }
        self.segment(&context, request, tag, place.queue, work);
    }

    /// The tag that goes on a frame: its type from DMATXCTL.VT, the rest from the context (X550
    /// datasheet 7.4.3.1). VT must be what VLNCTRL.VET is (82599 datasheet 8.2.3.9.2).
    fn tag(
        &self,
        context: &Context,
        first: &TxDescriptor,
        place: Place,
        work: &mut Work<'_>,
    ) -> [u8; TAG] {
        let kind = (work.registers.get(offset::DMATXCTL) >> VT_SHIFT) as u16;
        let expected = tag_type(work.registers);
        if kind != expected {
            let text = format!("VLE with DMATXCTL.VT {kind:#x}, and VLNCTRL.VET is {expected:#x}");
            work.report_transmit(place, &first.raw, &text);
        }
        let [a, b] = kind.to_be_bytes();
        let [c, d] = context.vlan.to_be_bytes();
        [a, b, c, d]
    }

    fn segment(
        &mut self,
        context: &Context,
        request: Request,
        tag: Option<[u8; TAG]>,
        queue: usize,
        work: &mut Work<'_>,
    ) {
        let low = work.registers.get(offset::DTXTCPFLGL);
        let high = work.registers.get(offset::DTXTCPFLGH);
        let payload = self.buffer.len() - context.header_len().min(self.buffer.len());
        work.counters.segmented += 1;
        work.counters.segmented_payload += payload as u64;
        let flags = Flags::new(low, high);
        segment::cut(context, flags, &self.buffer, &mut self.segment, |segment| {
            work.counters.segments_made += 1;
            work.counters.checksums_inserted += 1 + u64::from(request.ip);
            send(segment, tag, queue, work);
        });
    }

    /// The context that the frame needs: `Some(None)` if it needs none, `None` if it needs one
    /// that is not there.
    fn context(
        &self,
        first: &TxDescriptor,
        place: Place,
        contexts: &[Option<Context>; 2],
        work: &mut Work<'_>,
    ) -> Option<Option<Context>> {
        if !first.needs_context() {
            return Some(None);
        }
        match contexts.get(first.slot()) {
            // CC alone looks at it for things that are not modelled.
            Some(Some(context)) => Some(Some(*context)),
            Some(None) => {
                let text = "an offload, and there is no context in its slot";
                work.report_transmit(place, &first.raw, text);
                None
            }
            None => {
                let text = "IDX names a slot beyond the second one";
                work.report_transmit(place, &first.raw, text);
                None
            }
        }
    }

    /// Whether the frame can go out; if not, it has been reported.
    fn is_sendable(&self, first: &TxDescriptor, place: Place, work: &mut Work<'_>) -> bool {
        let at = Ring::Transmit(place.queue).base() + ring::CONTROL;
        let threshold = work.registers.get(at) >> dctl::WTHRESH_SHIFT & dctl::PTHRESH;
        let most = MOST_DESCRIPTORS.saturating_sub(threshold + 2);
        let segments = first.has(command::TSE);
        let fault = if self.fragments > most {
            format!(
                "a frame of {} descriptors; with WTHRESH {threshold} {most} are allowed",
                self.fragments
            )
        } else if !first.has(command::IFCS) {
            "IFCS is off in the first descriptor: a frame without a check sequence".into()
        } else if work.registers.get(offset::HLREG0) & hlreg0::TXCRCEN == 0 {
            "IFCS, and HLREG0.TXCRCEN is off".into()
        } else if !self.spoiled && self.buffer.len() < SHORTEST {
            "a frame of less than 17 bytes".into()
        } else if !segments && self.buffer.len() + tag_len(first) > LONGEST_FRAME {
            "a frame of more than 15.5 KiB without segmentation".into()
        } else {
            return true;
        };
        work.report_transmit(place, &first.raw, &fault);
        false
    }

    /// PAYLEN is what is behind a `header` of so many bytes; without segmentation everything.
    fn judge_length(&self, first: &TxDescriptor, header: usize, place: Place, work: &mut Work<'_>) {
        let expected = self.buffer.len() - header.min(self.buffer.len());
        if first.payload_len() != expected {
            let given = first.payload_len();
            let text = format!("PAYLEN is {given}, and the descriptors hold {expected} bytes");
            work.report_transmit(place, &first.raw, &text);
        }
    }
}

/// Bytes that the device adds to a frame for its tag.
fn tag_len(first: &TxDescriptor) -> usize {
    if first.has(command::VLE) { TAG } else { 0 }
}

/// Puts a frame on the wire, or back to the receiver: tag, padding, counters. That the MAC pads what
/// has its tag already, to 64 bytes with it, is assumed: HLREG0.TXPADEN says no more than 64 bytes.
fn send(frame: &mut Vec<u8>, tag: Option<[u8; TAG]>, queue: usize, work: &mut Work<'_>) {
    let control = work.registers.get(offset::HLREG0);
    if let Some(tag) = tag {
        let at = TAG_AT.min(frame.len());
        frame.splice(at..at, tag);
        work.counters.tags_inserted += 1;
    }
    if frame.len() < PADDED {
        if control & hlreg0::TXPADEN == 0 {
            work.violations.report(format!(
                "transmit queue {queue}: a frame of {} bytes, and HLREG0.TXPADEN is off: a runt",
                frame.len()
            ));
        } else {
            frame.resize(PADDED, 0);
        }
    }
    count(frame, queue, work);
    if control & hlreg0::LPBK != 0 {
        // The receiver has no room for more than these anyhow.
        if work.looped.len() < MOST_LOOPED {
            work.looped.push_back(frame.clone());
        } else {
            work.counters.frames_missed += 1;
        }
    } else {
        work.wire.transmit(frame, work.pace.now);
    }
}

/// Frames in loopback that the receiver has not taken yet: more are lost.
const MOST_LOOPED: usize = 1024;

/// Counts a frame that is sent. Octets include the check sequence.
fn count(frame: &[u8], queue: usize, work: &mut Work<'_>) {
    let len = frame.len();
    work.counters.frames_sent += 1;
    work.counters.bytes_sent += len as u64;
    let octets = len as u64 + 4;
    work.count_sent(queue, octets);
    let registers = &mut *work.registers;
    registers.count(statistic::TPT);
    registers.count(statistic::GPTC);
    registers.add(statistic::GOTC, octets);
    registers.count_size(statistic::PTC64, len + 4);
    match frame.get(..6) {
        Some([0xff, 0xff, 0xff, 0xff, 0xff, 0xff]) => registers.count(statistic::BPTC),
        Some([first, ..]) if first & 1 != 0 => registers.count(statistic::MPTC),
        _ => {}
    }
}
