//! A transmit queue without a device, for tests of what sits above a queue.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use pagewire_hal::{
    Capabilities, ChecksumOffload, DomainId, Fragment, FrameError, Offload, PostError, QueueError,
    Token, TxFrame, TxQueue,
};

use crate::checksum::sum;
use crate::host::{BusState, Counters, Host, HostBus, lock};
use crate::{Bus, DmaFault};

/// What the queue writes into the head room, as a driver would its own header.
const HEAD_ROOM_FILL: u8 = 0xa5;

/// A [`TxQueue`] that reads frames through the IOMMU of a [`Host`], as a device would, and
/// completes them when its [`FakeHandle`] says so.
///
/// A frame is read when the doorbell rings, and again when it completes: bytes that have changed
/// meanwhile, or are no longer mapped, are a violation.
#[derive(Debug)]
pub struct FakeTx {
    host: Host,
    capabilities: Capabilities,
    ring_len: usize,
    /// Fragments of frames posted and not handed back.
    used: usize,
    outstanding: usize,
    shared: Arc<Mutex<Shared>>,
}

/// Controls a [`FakeTx`] and sees what it has sent. A clone is for the same queue.
#[derive(Clone, Debug)]
pub struct FakeHandle {
    host: Host,
    shared: Arc<Mutex<Shared>>,
}

/// A frame as it went onto the wire.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SentFrame {
    /// Its bytes, checksums filled in, not padded.
    pub bytes: Vec<u8>,
    /// Fragments in which it was posted.
    pub fragments: usize,
    /// The token with which it was posted.
    pub token: Token,
}

/// A frame that has not completed.
#[derive(Debug)]
struct Held {
    token: Token,
    fragments: Vec<Fragment>,
    offload: Offload,
    /// What was gathered when the doorbell rang, before checksums; `None` before that, or if the
    /// gathering failed.
    gathered: Option<Vec<u8>>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Frames that the device has seen.
    rung: VecDeque<Held>,
    /// Frames posted since the last doorbell.
    posted: VecDeque<Held>,
    /// Completed, not yet handed back: the token and the number of fragments.
    done: VecDeque<(Token, usize)>,
    sent: Vec<SentFrame>,
    bus: BusState,
    down: bool,
    doorbells: u64,
}

impl FakeTx {
    /// A queue with room for `ring_len` fragments that reads the memory of `host`.
    ///
    /// `capabilities` are what it reports, except that it does no segmentation and reports no
    /// frame of more than `ring_len` fragments.
    #[must_use]
    pub fn new(host: &Host, capabilities: Capabilities, ring_len: usize) -> (Self, FakeHandle) {
        let shared = Arc::new(Mutex::new(Shared::default()));
        let mut capabilities = capabilities;
        capabilities.segmentation = None;
        let most = u16::try_from(ring_len).unwrap_or(u16::MAX);
        capabilities.max_fragments = capabilities.max_fragments.min(most);
        let queue = Self {
            host: host.clone(),
            capabilities,
            ring_len,
            used: 0,
            outstanding: 0,
            shared: Arc::clone(&shared),
        };
        let handle = FakeHandle {
            host: host.clone(),
            shared,
        };
        (queue, handle)
    }

    /// Writes the head room, as the driver of a device that needs one does.
    ///
    /// # Safety
    /// As [`TxQueue::post`] says of [`TxFrame::first`].
    unsafe fn fill_head_room(&self, frame: &TxFrame<'_>) -> Result<(), FrameError> {
        let len = usize::from(self.capabilities.head_room);
        if len == 0 {
            return Ok(());
        }
        let first = frame.first.ok_or(FrameError::NoHeadRoom)?;
        // SAFETY: the caller promises that `len` bytes before `first` are there.
        let start = unsafe { first.sub(len) };
        // SAFETY: the caller promises that they can be written and are used by nobody else.
        unsafe { start.write_bytes(HEAD_ROOM_FILL, len) };
        Ok(())
    }
}

// SAFETY: the fragments of a frame are read at the doorbell and once more when the handle
// completes it, both times before its token enters `done`, from where alone tokens are handed
// back, each once, as it moves from `posted` to `rung` to `done`. No other address is read, and
// the host never changes its domain.
unsafe impl TxQueue for FakeTx {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn domain(&self) -> DomainId {
        self.host.domain()
    }

    unsafe fn post(&mut self, frame: &TxFrame<'_>, token: Token) -> Result<(), PostError> {
        let mut shared = lock(&self.shared);
        if shared.down {
            return Err(PostError::Down);
        }
        frame
            .check(&self.capabilities)
            .map_err(PostError::Refused)?;
        if !self.has_room(frame.fragments.len()) {
            return Err(PostError::Full);
        }
        // SAFETY: the caller makes the same promise.
        unsafe { self.fill_head_room(frame) }.map_err(PostError::Refused)?;
        self.used += frame.fragments.len();
        self.outstanding += 1;
        shared.posted.push_back(Held {
            token,
            fragments: frame.fragments.to_vec(),
            offload: frame.offload,
            gathered: None,
        });
        Ok(())
    }

    fn doorbell(&mut self) {
        let mut shared = lock(&self.shared);
        if !shared.posted.is_empty() && !shared.down {
            shared.doorbells += 1;
            shared.ring(&self.host);
        }
    }

    fn reclaim(&mut self, done: &mut impl FnMut(Token)) -> Result<usize, QueueError> {
        let mut count = 0;
        loop {
            let mut shared = lock(&self.shared);
            if shared.down {
                return Err(QueueError::Down);
            }
            let Some((token, fragments)) = shared.done.pop_front() else {
                return Ok(count);
            };
            drop(shared);
            self.used = self.used.saturating_sub(fragments);
            self.outstanding = self.outstanding.saturating_sub(1);
            count += 1;
            done(token);
        }
    }

    fn has_room(&self, fragments: usize) -> bool {
        self.used + fragments <= self.ring_len
    }

    fn outstanding(&self) -> usize {
        self.outstanding
    }
}

impl FakeHandle {
    /// The frames sent since this was last asked, in the order in which they were posted.
    #[must_use]
    pub fn take_frames(&self) -> Vec<SentFrame> {
        std::mem::take(&mut lock(&self.shared).sent)
    }

    /// Completes the oldest `n` frames that the device has seen, or all if there are fewer, and
    /// returns how many it were. The queue hands them back with its next reclaim.
    pub fn complete(&self, n: usize) -> usize {
        let mut shared = lock(&self.shared);
        let count = n.min(shared.rung.len());
        for _ in 0..count {
            shared.complete_at(0, &self.host);
        }
        count
    }

    /// Completes all frames that the device has seen, oldest first; returns how many.
    pub fn complete_all(&self) -> usize {
        self.complete(usize::MAX)
    }

    /// Completes all frames that the device has seen, in an order drawn from `seed`, as a virtio
    /// device may; returns how many.
    pub fn complete_shuffled(&self, seed: u64) -> usize {
        self.complete_some_shuffled(seed, usize::MAX)
    }

    /// Completes `n` frames that the device has seen, or all if there are fewer, each drawn from
    /// `seed`; returns how many.
    pub fn complete_some_shuffled(&self, seed: u64, n: usize) -> usize {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut shared = lock(&self.shared);
        let count = n.min(shared.rung.len());
        for _ in 0..count {
            let index = rng.usize(0..shared.rung.len());
            shared.complete_at(index, &self.host);
        }
        count
    }

    /// Stops the device as a reset does: frames not yet seen are never sent, all tokens that are
    /// out are handed back by the next reclaim, and the queue is up again.
    pub fn reset_all(&self) {
        let mut shared = lock(&self.shared);
        let mut held = std::mem::take(&mut shared.rung);
        held.append(&mut std::mem::take(&mut shared.posted));
        let tokens = held
            .into_iter()
            .map(|frame| (frame.token, frame.fragments.len()));
        shared.done.extend(tokens);
        shared.down = false;
    }

    /// Takes the queue down, as an error of the device does, or up again: while it is down it
    /// takes no frame, sends none and hands none back.
    pub fn set_down(&self, down: bool) {
        lock(&self.shared).down = down;
    }

    /// Frames that the device has seen and not completed.
    #[must_use]
    pub fn pending(&self) -> usize {
        lock(&self.shared).rung.len()
    }

    /// Doorbells that announced something new.
    #[must_use]
    pub fn doorbells(&self) -> u64 {
        lock(&self.shared).doorbells
    }

    /// What the layer above did that it must not, since this was last asked: fragments that are
    /// not mapped, bytes that changed while the device had them, checksum fields not prepared.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        lock(&self.shared).bus.take_violations()
    }

    /// What the device has read, of each frame the bytes when the doorbell rang.
    #[must_use]
    pub fn counters(&self) -> Counters {
        lock(&self.shared).bus.counters
    }
}

impl Shared {
    /// Sends what has been posted.
    fn ring(&mut self, host: &Host) {
        while let Some(mut held) = self.posted.pop_front() {
            if let Ok(bytes) = gather(host, &mut self.bus, &held.fragments) {
                let mut frame = bytes.clone();
                insert_checksums(&mut frame, &held.offload, &mut self.bus);
                self.sent.push(SentFrame {
                    bytes: frame,
                    fragments: held.fragments.len(),
                    token: held.token,
                });
                held.gathered = Some(bytes);
            }
            self.rung.push_back(held);
        }
    }

    fn complete_at(&mut self, index: usize, host: &Host) {
        let Some(held) = self.rung.remove(index) else {
            return;
        };
        if let Some(before) = &held.gathered {
            // Of this second look only the faults are counted.
            let counters = self.bus.counters;
            let now = gather(host, &mut self.bus, &held.fragments);
            let faults = self.bus.counters.faults;
            self.bus.counters = Counters { faults, ..counters };
            if now.is_ok_and(|now| now != *before) {
                let token = held.token.0;
                self.bus.violation(format!(
                    "bytes of the frame with token {token} changed before it completed"
                ));
            }
        }
        self.done.push_back((held.token, held.fragments.len()));
    }
}

fn gather(host: &Host, state: &mut BusState, fragments: &[Fragment]) -> Result<Vec<u8>, DmaFault> {
    let mut bus = HostBus {
        machine: host.machine(),
        state,
    };
    let mut frame = Vec::new();
    for fragment in fragments {
        bus.append(fragment.address.0, fragment.len as usize, &mut frame)?;
    }
    Ok(frame)
}

/// Does what [`Offload`] says of checksums. Its layout has been checked against the frame.
fn insert_checksums(frame: &mut [u8], offload: &Offload, bus: &mut BusState) {
    let network = usize::from(offload.l2_len);
    let transport = network + usize::from(offload.l3_len);
    if offload.checksum.contains(ChecksumOffload::IPV4_HEADER) {
        let header = frame.get(network..transport).unwrap_or_default();
        if header.get(10..12) != Some(&[0, 0]) {
            bus.violation("the IPv4 header checksum to fill in is not zero".to_owned());
        }
        let checksum = !sum(header);
        put(frame, network + 10, checksum);
    }
    if offload.checksum.intersects(ChecksumOffload::TRANSPORT) {
        let mut checksum = !sum(frame.get(transport..).unwrap_or_default());
        // Zero would say that there is no checksum (RFC 768).
        let udp = ChecksumOffload::UDP_IPV4 | ChecksumOffload::UDP_IPV6;
        if checksum == 0 && offload.checksum.intersects(udp) {
            checksum = 0xffff;
        }
        let offset = usize::from(offload.transport_checksum_offset());
        put(frame, transport + offset, checksum);
    }
}

fn put(frame: &mut [u8], offset: usize, checksum: u16) {
    if let Some(field) = frame.get_mut(offset..offset + 2) {
        field.copy_from_slice(&checksum.to_be_bytes());
    }
}
