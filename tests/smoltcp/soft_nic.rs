//! A NIC in software that does exactly what its capabilities say, however few or many they are:
//! checksums, segmentation, verdicts. It reads frames when the doorbell rings.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::VecDeque;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pagewire::hal::{
    Capabilities, Causes, ChecksumOffload, DeviceAddress, DmaMemory, DomainId, Fragment, Instant,
    LinkState, MacAddress, Nic, NicError, Offload, Phase, PostError, QueueError, QueuePair,
    RxCounters, RxFrame, RxQueue, Statistics, Token, TxFrame, TxQueue,
};
use pagewire_models::Wire;

use super::strict;

pub const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);

/// What NIC and test share.
#[derive(Default)]
pub struct Shared {
    pub sent: VecDeque<Vec<u8>>,
    pub arriving: VecDeque<Vec<u8>>,
    pub doorbells: u64,
    /// Requests that were segmented.
    pub segmented: u64,
    /// What the layer above did that it must not.
    pub violations: Vec<String>,
    /// Nothing completes while this is set.
    pub holds: bool,
    /// The queues report an error.
    pub down: bool,
    /// Bytes of DMA memory that are not freed.
    pub allocated: usize,
    /// Every so many frames the device says nothing of their checksums; 0: it always does.
    pub silent_every: u64,
    received: u64,
    posted: VecDeque<(Token, Vec<Fragment>, Offload)>,
    /// Frames not handed back, and their fragments.
    seen: VecDeque<(Token, usize)>,
    used: usize,
}

#[derive(Clone, Default)]
pub struct Handle(Arc<Mutex<Shared>>);

impl Handle {
    pub fn lock(&self) -> MutexGuard<'_, Shared> {
        // A test that fails here has something to say, and drops its device afterwards.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The far end of the wire.
impl Wire for Handle {
    fn transmit(&mut self, frame: &mut Vec<u8>, _: Instant) {
        self.lock().arriving.push_back(frame.clone());
    }

    fn receive(&mut self, frame: &mut Vec<u8>, _: Instant) -> bool {
        let sent = self.lock().sent.pop_front();
        sent.map(|sent| *frame = sent).is_some()
    }
}

pub struct SoftMemory {
    pointer: NonNull<u8>,
    layout: Layout,
    domain: DomainId,
    shared: Handle,
}

// SAFETY: the bytes are owned, and behind a raw pointer only.
unsafe impl Send for SoftMemory {}

// SAFETY: allocated zeroed, freed on drop; the device, which is code, reads at the same address.
unsafe impl DmaMemory for SoftMemory {
    fn pointer(&self) -> NonNull<u8> {
        self.pointer
    }

    fn address(&self) -> DeviceAddress {
        DeviceAddress(self.pointer.as_ptr().expose_provenance() as u64)
    }

    fn len(&self) -> usize {
        self.layout.size()
    }

    fn domain(&self) -> DomainId {
        self.domain
    }
}

impl Drop for SoftMemory {
    fn drop(&mut self) {
        self.shared.lock().allocated -= self.layout.size();
        // SAFETY: allocated with this layout, and not freed before.
        unsafe { dealloc(self.pointer.as_ptr(), self.layout) };
    }
}

pub struct SoftNic {
    capabilities: Capabilities,
    domain: DomainId,
    queues: Option<(SoftTx, SoftRx)>,
    shared: Handle,
    phase: Phase,
}

const UP: LinkState = LinkState {
    up: true,
    speed_mbps: 1000,
    full_duplex: true,
};

impl SoftNic {
    /// A NIC whose ring holds `ring_len` fragments.
    pub fn new(mut capabilities: Capabilities, ring_len: usize) -> (Self, Handle) {
        // Its addresses are the program's own.
        capabilities.dma_address_bits = 64;
        let shared = Handle::default();
        let domain = DomainId::new_unique();
        let tx = SoftTx {
            capabilities,
            domain,
            ring_len,
            outstanding: 0,
            shared: shared.clone(),
        };
        let rx = SoftRx {
            rx_checksum: capabilities.rx_checksum,
            shared: shared.clone(),
            counters: RxCounters::default(),
        };
        let nic = Self {
            capabilities,
            domain,
            queues: Some((tx, rx)),
            shared: shared.clone(),
            phase: Phase::Running(UP),
        };
        (nic, shared)
    }

    fn hand_back(
        &mut self,
        queues: &mut [QueuePair<'_, SoftTx, SoftRx>],
        released: &mut dyn FnMut(u16, Token),
    ) -> Result<(), NicError> {
        if self.phase != Phase::Quiet {
            return Err(NicError::WrongPhase);
        }
        let pair = queues
            .first_mut()
            .ok_or(NicError::QueueMissing { index: 0 })?;
        pair.tx.outstanding = 0;
        let mut shared = self.shared.lock();
        shared.used = 0;
        shared.down = false;
        let posted = std::mem::take(&mut shared.posted);
        let mut tokens: Vec<_> = posted.into_iter().map(|(token, ..)| token).collect();
        tokens.extend(shared.seen.drain(..).map(|(token, _)| token));
        drop(shared);
        tokens.into_iter().for_each(|token| released(0, token));
        Ok(())
    }
}

// SAFETY: `hand_back` is reached in the phase `Quiet` only, in which nothing is read: frames are
// read in `doorbell` alone, whole. There is one pair of queues, and one domain.
unsafe impl Nic for SoftNic {
    type Tx = SoftTx;
    type Rx = SoftRx;
    type Memory = SoftMemory;

    fn name(&self) -> &'static str {
        "a NIC in software"
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn mac_address(&self) -> MacAddress {
        MAC
    }

    fn domain(&self) -> DomainId {
        self.domain
    }

    fn allocate(&mut self, len: usize, align: usize) -> Result<SoftMemory, NicError> {
        let layout = Layout::from_size_align(len.max(1), align).unwrap();
        // SAFETY: the layout has at least one byte.
        let pointer = NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap();
        self.shared.lock().allocated += layout.size();
        Ok(SoftMemory {
            pointer,
            layout,
            domain: self.domain,
            shared: self.shared.clone(),
        })
    }

    fn take_queues(&mut self, _: u16) -> Option<(SoftTx, SoftRx)> {
        self.queues.take()
    }

    fn link(&mut self) -> LinkState {
        UP
    }

    fn statistics(&mut self) -> Statistics {
        Statistics::default()
    }

    fn enable_interrupts(&mut self) -> Result<u16, NicError> {
        Err(NicError::NotOffered { what: "MSI-X" })
    }

    fn take_interrupts(&mut self) -> Causes {
        Causes::empty()
    }

    fn poll(&mut self, _: Instant) -> Result<Phase, NicError> {
        if self.phase == Phase::Stopping {
            self.phase = Phase::Quiet;
            return Ok(Phase::Stopping);
        }
        Ok(self.phase)
    }

    fn begin_reset(&mut self, _: Instant) {
        if self.phase != Phase::Quiet {
            self.phase = Phase::Stopping;
        }
    }

    fn restart(
        &mut self,
        queues: &mut [QueuePair<'_, SoftTx, SoftRx>],
        released: &mut dyn FnMut(u16, Token),
    ) -> Result<(), NicError> {
        self.hand_back(queues, released)?;
        self.phase = Phase::Running(UP);
        Ok(())
    }

    fn release(
        &mut self,
        queues: &mut [QueuePair<'_, SoftTx, SoftRx>],
        released: &mut dyn FnMut(u16, Token),
    ) -> Result<(), NicError> {
        self.hand_back(queues, released)
    }
}

pub struct SoftTx {
    capabilities: Capabilities,
    domain: DomainId,
    ring_len: usize,
    outstanding: usize,
    shared: Handle,
}

// SAFETY: a token is handed back after the doorbell at which its frame was read, once, as it
// moves from `posted` to `seen` and out. Nothing else is read.
unsafe impl TxQueue for SoftTx {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn domain(&self) -> DomainId {
        self.domain
    }

    unsafe fn post(&mut self, frame: &TxFrame<'_>, token: Token) -> Result<(), PostError> {
        if self.shared.lock().down {
            return Err(PostError::Down);
        }
        if let Err(error) = frame.check(&self.capabilities) {
            // The adapter has been told the limits: it must not come to this.
            self.shared.lock().violations.push(error.to_string());
            return Err(PostError::Refused(error));
        }
        if !self.has_room(frame.fragments.len()) {
            self.shared
                .lock()
                .violations
                .push("posted without room".into());
            return Err(PostError::Full);
        }
        let mut shared = self.shared.lock();
        shared.used += frame.fragments.len();
        self.outstanding += 1;
        let fragments = frame.fragments.to_vec();
        shared.posted.push_back((token, fragments, frame.offload));
        Ok(())
    }

    fn doorbell(&mut self) {
        let mut shared = self.shared.lock();
        if shared.posted.is_empty() {
            return;
        }
        shared.doorbells += 1;
        while let Some((token, fragments, offload)) = shared.posted.pop_front() {
            let mut frame = Vec::new();
            for fragment in &fragments {
                let address = fragment.address.0 as usize;
                let pointer = std::ptr::with_exposed_provenance::<u8>(address);
                // SAFETY: `post` was promised that the fragment can be read until its token is
                // handed back, and the address is that of a `SoftMemory`.
                let bytes = unsafe { std::slice::from_raw_parts(pointer, fragment.len as usize) };
                frame.extend_from_slice(bytes);
            }
            emit(frame, &offload, &self.capabilities, &mut shared);
            shared.seen.push_back((token, fragments.len()));
        }
    }

    fn reclaim(&mut self, done: &mut impl FnMut(Token)) -> Result<usize, QueueError> {
        let mut shared = self.shared.lock();
        if shared.down {
            return Err(QueueError::Removed);
        }
        if shared.holds {
            return Ok(0);
        }
        let tokens: Vec<_> = shared.seen.drain(..).collect();
        shared.used -= tokens.iter().map(|(_, fragments)| fragments).sum::<usize>();
        drop(shared);
        self.outstanding -= tokens.len();
        tokens.iter().for_each(|(token, _)| done(*token));
        Ok(tokens.len())
    }

    fn has_room(&self, fragments: usize) -> bool {
        let fits = fragments <= usize::from(self.capabilities.max_fragments);
        fits && self.shared.lock().used + fragments <= self.ring_len
    }

    fn outstanding(&self) -> usize {
        self.outstanding
    }
}

/// Puts a frame on the wire as the offload request says.
fn emit(frame: Vec<u8>, offload: &Offload, limits: &Capabilities, shared: &mut Shared) {
    if offload.segment_len == 0 {
        let frame = insert(frame, offload, shared);
        shared.sent.push_back(frame);
        return;
    }
    shared.segmented += 1;
    let network = usize::from(offload.l2_len);
    let transport = network + usize::from(offload.l3_len);
    let header_len = transport + usize::from(offload.l4_len);
    let (header, payload) = frame.split_at(header_len);
    let size = usize::from(offload.segment_len);
    let last = payload.chunks(size).count() - 1;
    let seed_has_length = limits.segmentation.unwrap().seed_has_length;
    for (index, chunk) in payload.chunks(size).enumerate() {
        let mut segment = header.to_vec();
        let len = (usize::from(offload.l4_len) + chunk.len()) as u16;
        strict::add(&mut segment, network + 4, index as u16);
        strict::put(&mut segment, network + 2, offload.l3_len + len);
        let seq = strict::word32(header, transport + 4).wrapping_add((index * size) as u32);
        segment[transport + 4..transport + 8].copy_from_slice(&seq.to_be_bytes());
        if index != last {
            // FIN and PSH belong to the last one.
            segment[transport + 13] &= !0x09;
        }
        if seed_has_length {
            let whole = usize::from(offload.l4_len) + payload.len();
            strict::add(&mut segment, transport + 16, !(whole as u16));
        }
        strict::add(&mut segment, transport + 16, len);
        segment.extend_from_slice(chunk);
        let segment = insert(segment, offload, shared);
        shared.sent.push_back(segment);
    }
}

/// Fills in the checksums that were asked for.
fn insert(mut frame: Vec<u8>, offload: &Offload, shared: &mut Shared) -> Vec<u8> {
    let network = usize::from(offload.l2_len);
    let transport = network + usize::from(offload.l3_len);
    if offload.checksum.contains(ChecksumOffload::IPV4_HEADER) {
        if strict::word(&frame, network + 10) != 0 {
            let text = "an IPv4 header checksum to fill in is not zero";
            shared.violations.push(text.into());
        }
        let sum = !strict::sum(&frame[network..transport]);
        strict::put(&mut frame, network + 10, sum);
    }
    if offload.checksum.intersects(ChecksumOffload::TRANSPORT) {
        let at = transport + usize::from(offload.transport_checksum_offset());
        let mut sum = !strict::sum(&frame[transport..]);
        let udp = ChecksumOffload::UDP_IPV4 | ChecksumOffload::UDP_IPV6;
        if sum == 0 && offload.checksum.intersects(udp) {
            sum = 0xffff;
        }
        strict::put(&mut frame, at, sum);
    }
    frame
}

pub struct SoftRx {
    rx_checksum: ChecksumOffload,
    shared: Handle,
    counters: RxCounters,
}

impl RxQueue for SoftRx {
    fn receive(
        &mut self,
        budget: usize,
        deliver: &mut impl FnMut(RxFrame<'_>),
    ) -> Result<usize, QueueError> {
        for count in 0..budget {
            let mut shared = self.shared.lock();
            if shared.down {
                return Err(QueueError::Removed);
            }
            let Some(mut frame) = shared.arriving.pop_front() else {
                return Ok(count);
            };
            shared.received += 1;
            let number = shared.received;
            let silent = shared.silent_every != 0 && number.is_multiple_of(shared.silent_every);
            drop(shared);
            let verdict = if silent {
                Default::default()
            } else {
                strict::verdict(&frame, self.rx_checksum)
            };
            let pointer = NonNull::new(frame.as_mut_ptr()).unwrap();
            self.counters.delivered += 1;
            // SAFETY: the frame lives through the call, and nobody else has it.
            deliver(unsafe { RxFrame::new(pointer, frame.len(), verdict) });
        }
        Ok(budget)
    }

    fn counters(&self) -> RxCounters {
        self.counters
    }
}
