//! The path of a segment to the wire, in the steps of the sketch of 1997.
//!
//! | step of 1997 | here |
//! |---|---|
//! | 1. determine the route for the destination | `Stack::route` |
//! | 2. from that get the device it will go out on | [`Device`]: one port, one device |
//! | 3. see if the device can handle more than one buffer pointer for a frame | [`Device::gathers`] |
//! | 4a. the usual TCP algorithms determine how much we should | `Connection::how_much_may_go` |
//! | 4b. the page crossings must not exceed the pieces the device can handle minus one | [`page_budget`] |
//! | 4c. if not, go to 5 | [`transmit`] |
//! | 4d. mark the user pages, this pins them down | [`lend_and_attach_pieces`] |
//! | 4e. a small buffer for building the headers | [`header_buffer`] |
//! | 4f. attach the pointers to the user data | [`lend_and_attach_pieces`] |
//! | 4g. build the TCP header, let the device checksum or checksum the packet | [`Headers`], [`checksum`] |
//! | 4h. send it off | [`share`] |
//! | 5. else a traditional buffer, copy all the data and build the header in there | [`copy_all`] |
//!
//! A request for segmentation takes the same path. Where the last one had too many pieces it goes through
//! step 4b before ([`request_budget`]), as its length depends on that; it is never copied.
//!
//! Two steps are in another order than in 1997. Headers and checksum come before the pages are
//! attached, since a frame under construction borrows the whole port; the bytes cannot change
//! in between, they have been lent since `send` (rule 3). And a device without checksum offload
//! shares all the same (rule 5): the CPU then sums the program's pages in place.

use core::ops::Range;

use pagewire_hal::{
    Capabilities, ChecksumOffload, DmaMemory, FrameBuffer, FrameBuilder, FrameId, Ledger,
    LendError, Offload, PortError, PostError, Run, Runs, TxPort, TxQueue,
};

use crate::checksum::Sum;
use crate::headers::{Headers, NETWORK_END, Told, put_tcp_checksum};
use crate::plan::{Budget, Plan, Reason, Request, plan, request};
use crate::segmentation::Segmenting;
use crate::send_buffer::{Part, Parts};
use crate::stack_config::StackConfig;
use crate::stats::ConnectionStats;
use crate::wire::{ChecksumBy, EthernetHeader, Ipv4Header, TcpHeader};

/// What the device can do for a sender (step 2): computed once, the same for every frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Device {
    gathers: bool,
    /// It gathers and sums: nothing is against sharing but a frame that is too short, or too many
    /// pieces.
    shares: bool,
    max_fragments: usize,
    max_fragment_len: usize,
    min_frame_len: usize,
    share_min: usize,
    /// What the device is asked to do with a segment.
    offload: Offload,
    segmenting: Option<Segmenting>,
}

impl Device {
    pub(crate) fn new(
        capabilities: &Capabilities,
        max_fragments: usize,
        config: &StackConfig,
    ) -> Self {
        let offered = capabilities.tx_checksum;
        let transport = if offered.contains(ChecksumOffload::TCP_IPV4) {
            ChecksumOffload::TCP_IPV4
        } else {
            offered & ChecksumOffload::GENERIC
        };
        Self {
            gathers: capabilities.gathers(),
            shares: capabilities.gathers() && !transport.is_empty(),
            max_fragments,
            max_fragment_len: capabilities.max_fragment_len as usize,
            min_frame_len: capabilities.min_frame_len as usize,
            share_min: config.share_min,
            offload: offload(transport | offered & ChecksumOffload::IPV4_HEADER),
            segmenting: config
                .segmentation
                .then(|| Segmenting::new(capabilities))
                .flatten(),
        }
    }

    /// The device's segmentation, if it is to be used.
    #[inline]
    pub(crate) const fn segmenting(&self) -> Option<&Segmenting> {
        self.segmenting.as_ref()
    }

    /// Step 3: see if the device can handle more than one buffer pointer for a single frame.
    #[inline]
    pub(crate) const fn gathers(&self) -> bool {
        self.gathers
    }

    #[inline]
    const fn sums_tcp(&self) -> bool {
        self.offload.checksum.intersects(ChecksumOffload::TRANSPORT)
    }

    #[inline]
    const fn sums_ipv4(&self) -> bool {
        self.offload.checksum.contains(ChecksumOffload::IPV4_HEADER)
    }

    /// What the device is asked to do with a segment.
    #[inline]
    pub(crate) const fn offload(&self) -> &Offload {
        &self.offload
    }

    /// What it is asked to do with a request for segmentation, with a TCP header of so many bytes
    /// (at most 60) and segments with so many bytes of payload.
    pub(crate) const fn request_offload(&self, tcp_header_len: usize, segment_len: u16) -> Offload {
        Offload {
            l4_len: tcp_header_len as u8,
            segment_len,
            ..self.offload
        }
    }

    #[inline]
    fn budget(&self, header_len: usize) -> Budget {
        Budget {
            max_fragments: self.max_fragments,
            max_fragment_len: self.max_fragment_len,
            header_len,
            share_min: self.share_min,
        }
    }
}

/// The request for checksums of a segment whose headers are as `Headers` writes them.
const fn offload(checksum: ChecksumOffload) -> Offload {
    if checksum.is_empty() {
        return Offload::NONE;
    }
    Offload {
        checksum,
        l2_len: EthernetHeader::LEN as u8,
        l3_len: Ipv4Header::LEN as u16,
        checksum_offset: TcpHeader::CHECKSUM_OFFSET as u8,
        ..Offload::NONE
    }
}

/// A segment on its way out, or a request for segmentation: then the header is a template, whose
/// sequence number and identification are those of the first segment, and whose FIN and PSH the
/// device leaves to the last.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing<'a> {
    pub(crate) device: &'a Device,
    pub(crate) headers: &'a Headers,
    pub(crate) identification: u16,
    /// Where the payload is.
    pub(crate) payload: Parts<'a>,
    /// Bytes of payload.
    pub(crate) len: usize,
    /// What the device is asked to do. Who has it cut segments, asks [`request_budget`] before, or
    /// tries.
    pub(crate) offload: &'a Offload,
    /// Segments on the wire.
    pub(crate) segments: u32,
    /// Some of the payload may be copies in the pool.
    pub(crate) has_copies: bool,
}

impl Outgoing<'_> {
    /// What the headers tell of lengths: 0 in a template, where the device wants it so. `None` for
    /// what no packet can be as long as.
    #[inline]
    fn told(&self) -> Option<Told> {
        if self.offload.segment_len > 0
            && self.device.segmenting.is_some_and(|s| !s.seed_has_length())
        {
            return Some(Told { packet: 0, tcp: 0 });
        }
        let tcp = self.headers.tcp_len() + self.len;
        let packet = u16::try_from(Ipv4Header::LEN + tcp).ok()?;
        Some(Told {
            packet,
            tcp: packet - Ipv4Header::LEN as u16,
        })
    }
}

/// A segment that went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Posted {
    pub(crate) frame: FrameId,
    pub(crate) plan: Plan,
    /// Pieces of the frame, the header's included.
    pub(crate) fragments: usize,
}

/// Why a segment did not go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Blocked {
    /// No room in the ring, or no buffer: completions will make room.
    Full,
    /// The queue is down or refused the frame: only a reset helps.
    Refused,
    /// A request for segmentation has too many pieces.
    OverBudget,
}

impl From<PortError> for Blocked {
    fn from(error: PortError) -> Self {
        match error {
            PortError::Post(PostError::Full) => Self::Full,
            PortError::TooManyPieces => Self::OverBudget,
            _ => Self::Refused,
        }
    }
}

/// Sends one segment: decides, builds, posts. Nothing has happened if it fails. The device sees
/// it with the next doorbell.
#[inline(always)]
pub(crate) fn transmit<Q: TxQueue, M: DmaMemory>(
    port: &mut TxPort<Q, M>,
    out: &Outgoing<'_>,
    stats: &mut ConnectionStats,
) -> Result<Posted, Blocked> {
    let (plan, posted) = match decide(port.ledger(), out) {
        Plan::Share => match share(port, out, 0) {
            // What fits almost always is tried, and counted only if it does not.
            Err(PortError::TooManyPieces) if out.offload.segment_len == 0 => {
                let plan = page_budget(port.ledger(), out);
                (plan, follow(port, out, plan))
            }
            posted => (Plan::Share, posted),
        },
        plan => (plan, follow(port, out, plan)),
    };
    match posted {
        Ok((frame, fragments)) => {
            count(stats, out, plan);
            Ok(Posted {
                frame,
                plan,
                fragments,
            })
        }
        Err(error) => {
            let mut blocked = Blocked::from(error);
            // The plan has counted them: to try again changes nothing.
            if blocked == Blocked::OverBudget && out.offload.segment_len == 0 {
                blocked = Blocked::Refused;
            }
            match blocked {
                Blocked::Full => stats.ring_full += 1,
                Blocked::Refused => stats.refused_posts += 1,
                Blocked::OverBudget => {}
            }
            Err(blocked)
        }
    }
}

/// Whether there is anything against sharing but too many pieces.
#[inline(always)]
fn decide(ledger: &Ledger, out: &Outgoing<'_>) -> Plan {
    let too_short = out.headers.len() + out.len < out.device.min_frame_len;
    if out.device.shares && !too_short {
        Plan::Share
    } else {
        decide_otherwise(ledger, out, too_short)
    }
}

fn decide_otherwise(ledger: &Ledger, out: &Outgoing<'_>, too_short: bool) -> Plan {
    if !out.device.gathers() {
        Plan::Copy(Reason::NoGather)
    } else if too_short {
        Plan::Copy(Reason::TooShort)
    } else if must_be_summed_live(ledger, out) {
        Plan::Copy(Reason::Live)
    } else {
        // Counted before, as a frame that does not fit would be summed for nothing.
        page_budget(ledger, out)
    }
}

/// Steps 4d to 5, as planned.
fn follow<Q: TxQueue, M: DmaMemory>(
    port: &mut TxPort<Q, M>,
    out: &Outgoing<'_>,
    plan: Plan,
) -> Result<(FrameId, usize), PortError> {
    match plan {
        Plan::Share => share(port, out, 0),
        Plan::Rescue { prefix } => share(port, out, prefix),
        Plan::Copy(_) => copy_all(port, out),
    }
}

/// Whether the CPU would have to sum bytes that can change before the device reads them: then the
/// sum would be wrong, and they are copied and summed in one pass.
#[inline]
fn must_be_summed_live(ledger: &Ledger, out: &Outgoing<'_>) -> bool {
    ledger.has_live() && out.payload.clone().any(|part| ledger.is_live(part.loan))
}

/// Step 4b: see if the pieces of the payload do not exceed what the device can gather less the
/// header.
#[inline]
fn page_budget(ledger: &Ledger, out: &Outgoing<'_>) -> Plan {
    let budget = out.device.budget(out.headers.len());
    plan(&budget, PayloadRuns::new(ledger, out.payload.clone()))
}

/// Step 4b for a request for segmentation: how much of it fits.
#[inline]
pub(crate) fn request_budget(
    ledger: &Ledger,
    device: &Device,
    header_len: usize,
    payload: Parts<'_>,
    segment_len: u32,
) -> Request {
    let runs = PayloadRuns::new(ledger, payload);
    request(&device.budget(header_len), segment_len as usize, runs)
}

/// The payload as the device sees it. (Written out, as a chain of adapters was a fifth of the
/// time of a segment.)
#[derive(Clone, Debug)]
struct PayloadRuns<'a> {
    ledger: &'a Ledger,
    parts: Parts<'a>,
    part: Option<Runs<'a>>,
}

impl<'a> PayloadRuns<'a> {
    #[inline]
    const fn new(ledger: &'a Ledger, parts: Parts<'a>) -> Self {
        Self {
            ledger,
            parts,
            part: None,
        }
    }
}

impl Iterator for PayloadRuns<'_> {
    type Item = Run;

    #[inline]
    fn next(&mut self) -> Option<Run> {
        loop {
            if let Some(run) = self.part.as_mut().and_then(Runs::next) {
                return Some(run);
            }
            let Part {
                loan, start, len, ..
            } = self.parts.next()?;
            self.part = self.ledger.runs(loan, start, len).ok();
        }
    }
}

/// Steps 4d to 4h: the payload but for its first `prefix` bytes stays where it is.
#[inline(always)]
fn share<Q: TxQueue, M: DmaMemory>(
    port: &mut TxPort<Q, M>,
    out: &Outgoing<'_>,
    prefix: usize,
) -> Result<(FrameId, usize), PortError> {
    let len = out.headers.len() + prefix;
    let mut buffer = header_buffer(port, len)?;
    let (frame, ledger) = port.bytes_and_ledger(&mut buffer);
    if build(frame, ledger, out, prefix).is_none() {
        port.put_buffer(buffer);
        return Err(PortError::Lend(LendError::OutOfRange));
    }
    let mut frame = port.frame(buffer, len);
    lend_and_attach_pieces(&mut frame, out.payload.clone().skip_bytes(prefix));
    // Step 4h: send it off. The doorbell follows once per burst.
    let fragments = frame.fragments();
    Ok((frame.post(*out.offload)?, fragments))
}

/// Step 5: a traditional buffer; all the data is copied, the header built in there. What is
/// shorter than the device takes is padded with zeros, which no checksum notices.
fn copy_all<Q: TxQueue, M: DmaMemory>(
    port: &mut TxPort<Q, M>,
    out: &Outgoing<'_>,
) -> Result<(FrameId, usize), PortError> {
    let len = out.headers.len() + out.len;
    let padded = len.max(out.device.min_frame_len);
    let mut buffer = header_buffer(port, padded)?;
    let (frame, ledger) = port.bytes_and_ledger(&mut buffer);
    if build(frame, ledger, out, out.len).is_none() {
        port.put_buffer(buffer);
        return Err(PortError::Lend(LendError::OutOfRange));
    }
    if let Some(padding) = frame.get_mut(len..padded) {
        padding.fill(0);
    }
    let frame = port.frame(buffer, padded);
    let fragments = frame.fragments();
    Ok((frame.post(*out.offload)?, fragments))
}

/// Step 4e: a small buffer for the headers and what is copied behind them; a large one where
/// that is long, or where no small one is left.
#[inline]
fn header_buffer<Q: TxQueue, M: DmaMemory>(
    port: &mut TxPort<Q, M>,
    len: usize,
) -> Result<FrameBuffer, PortError> {
    port.buffer(len).ok_or(PortError::Post(PostError::Full))
}

/// Fills the buffer: headers, the first `copied` bytes of the payload, checksum. `None` if the
/// buffer is too short or the payload not there, which cannot be.
#[inline(always)]
fn build(frame: &mut [u8], ledger: &Ledger, out: &Outgoing<'_>, copied: usize) -> Option<()> {
    let told = out.told()?;
    let by = if out.device.sums_ipv4() {
        ChecksumBy::Device
    } else {
        ChecksumBy::Cpu
    };
    out.headers.write(frame, told, out.identification, by)?;
    let sum = out.headers.pseudo_header(told);
    let field = if out.device.sums_tcp() {
        if copied > 0 {
            let target = frame.get_mut(out.headers.len()..)?.get_mut(..copied)?;
            copy(ledger, out.payload.clone().take_bytes(copied), target)?;
        }
        sum
    } else {
        let (headers, target) = frame.split_at_mut_checked(out.headers.len())?;
        let tcp = headers.get(NETWORK_END..)?;
        checksum(ledger, out, sum, tcp, target.get_mut(..copied)?)?
    };
    put_tcp_checksum(frame, field)
}

/// Step 4g, second half: "if device can do the outgoing checksum then indicate […] else checksum
/// the packet". What is copied is summed in the same pass, what is shared is summed where it
/// lies. `tcp` is the header; returns the checksum.
#[inline]
fn checksum(
    ledger: &Ledger,
    out: &Outgoing<'_>,
    pseudo_header: u16,
    tcp: &[u8],
    mut target: &mut [u8],
) -> Option<u16> {
    let mut sum = Sum::default();
    sum.add_u16(pseudo_header);
    sum.add(tcp);
    let copied = target.len();
    for part in out.payload.clone().take_bytes(copied) {
        let (here, behind) = target.split_at_mut_checked(part.len)?;
        match bytes(ledger, &part) {
            Some(bytes) => {
                sum.copy(bytes, here);
            }
            // In two passes where they are live.
            None => {
                copy_part(ledger, &part, here)?;
                sum.add(here);
            }
        }
        target = behind;
    }
    for part in out.payload.clone().skip_bytes(copied) {
        sum.add(bytes(ledger, &part)?);
    }
    Some(sum.finish())
}

/// Copies `parts`, which are as long as `target`.
#[inline]
fn copy(ledger: &Ledger, parts: Parts<'_>, mut target: &mut [u8]) -> Option<()> {
    for part in parts {
        let (here, behind) = target.split_at_mut_checked(part.len)?;
        match bytes(ledger, &part) {
            Some(bytes) => here.copy_from_slice(bytes),
            None => copy_part(ledger, &part, here)?,
        }
        target = behind;
    }
    target.is_empty().then_some(())
}

/// Copies a part that is live.
#[cold]
fn copy_part(ledger: &Ledger, part: &Part<'_>, target: &mut [u8]) -> Option<()> {
    ledger.copy_lent(part.loan, part.start, target).ok()
}

/// The bytes of a part, where they lie; `None` if they are live.
#[inline]
fn bytes<'a>(ledger: &'a Ledger, part: &Part<'a>) -> Option<&'a [u8]> {
    let offset = part.start.checked_sub(part.loan.range().start)?;
    let all = ledger.bytes(part.loan).ok()?;
    all.get(offset..)?.get(..part.len)
}

/// Steps 4d and 4f: lends the pages to the device, which pins them until it has completed, and
/// attaches them behind the header. (With owned buffers there is nothing to mark copy-on-write:
/// the program cannot write.)
#[inline(always)]
fn lend_and_attach_pieces<Q: TxQueue, M: DmaMemory>(
    frame: &mut FrameBuilder<'_, Q, M>,
    parts: Parts<'_>,
) {
    for part in parts {
        frame.attach(part.loan, part.start, part.len);
    }
}

/// Takes note of what was posted.
#[inline(always)]
fn count(stats: &mut ConnectionStats, out: &Outgoing<'_>, plan: Plan) {
    let segments = u64::from(out.segments);
    let sums = &mut stats.checksums;
    if out.device.sums_tcp() {
        sums.tcp_device += segments;
    } else {
        sums.tcp_cpu += segments;
    }
    // Each segment of a request gets a header of its own, and the device sums it.
    if out.device.sums_ipv4() || out.offload.segment_len > 0 {
        sums.ipv4_device += segments;
    } else {
        sums.ipv4_cpu += segments;
    }
    if out.len == 0 {
        stats.control_segments += 1;
        return;
    }
    stats.data.add_segments(segments, out.len);
    if out.offload.segment_len > 0 {
        stats.segmented.requests += 1;
        stats.segmented.segments += segments;
        stats.segmented.bytes += out.len as u64;
    }
    match plan {
        Plan::Share => {
            let pool = pool_bytes(out, 0..out.len);
            stats.pool_bytes += pool;
            stats.shared_segments += if pool == 0 { segments } else { 0 };
            stats.shared_bytes += out.len as u64 - pool;
        }
        Plan::Rescue { prefix } => {
            let pool = pool_bytes(out, prefix..out.len);
            let shared = (out.len - prefix) as u64 - pool;
            stats.rescued.add(prefix);
            stats.pool_bytes += pool;
            stats.rescued_shared_bytes += shared;
            stats.shared_bytes += shared;
        }
        Plan::Copy(reason) => stats.copied.add(reason, out.len),
    }
}

/// Bytes of a range of the payload that are copies in the pool.
#[inline]
pub(crate) fn pool_bytes(out: &Outgoing<'_>, range: Range<usize>) -> u64 {
    if !out.has_copies {
        return 0;
    }
    let parts = out.payload.clone().take_bytes(range.end);
    let copies = parts.skip_bytes(range.start).filter(|part| part.copied);
    copies.map(|part| part.len as u64).sum()
}
