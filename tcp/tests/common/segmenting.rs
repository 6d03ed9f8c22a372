//! A transmit queue without a device that also cuts requests for segmentation into segments, by
//! the book, and complains of templates that are not as the HAL's `Offload` asks.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard};

use pagewire_hal::{
    Capabilities, ChecksumOffload, DomainId, Offload, PostError, QueueError, Token, TxFrame,
    TxQueue,
};
use pagewire_models::fake::{FakeHandle, FakeTx, SentFrame};
use pagewire_models::host::Host;

use super::segment::{FIN, PSH, SYN, pseudo, sum, u16_of, u32_of};

/// A request as it was posted.
#[derive(Clone, Debug)]
pub(crate) struct RequestSeen {
    pub(crate) payload: usize,
    pub(crate) segments: usize,
    pub(crate) fragments: usize,
}

#[derive(Debug, Default)]
struct Shared {
    /// Requests posted and not yet seen by the device.
    posted: HashMap<u32, Offload>,
    sent: Vec<SentFrame>,
    requests: Vec<RequestSeen>,
    violations: Vec<String>,
}

/// A [`FakeTx`] whose capabilities may offer segmentation.
#[derive(Debug)]
pub(crate) struct SegmentingTx {
    inner: FakeTx,
    inner_handle: FakeHandle,
    capabilities: Capabilities,
    shared: Arc<Mutex<Shared>>,
}

/// Controls a [`SegmentingTx`]; what it does not do itself the handle of the queue inside does.
#[derive(Clone, Debug)]
pub(crate) struct SegmentingHandle {
    inner: FakeHandle,
    shared: Arc<Mutex<Shared>>,
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap()
}

impl SegmentingTx {
    pub(crate) fn new(
        host: &Host,
        mut capabilities: Capabilities,
        ring_len: usize,
    ) -> (Self, SegmentingHandle) {
        let mut raw = capabilities;
        if let Some(limits) = capabilities.segmentation {
            // The queue inside takes a request for a long frame of which nothing is asked.
            raw.max_frame_len = raw
                .max_frame_len
                .max(limits.max_payload_len + u32::from(limits.max_header_len));
        }
        let (inner, handle) = FakeTx::new(host, raw, ring_len);
        capabilities.max_fragments = inner.capabilities().max_fragments;
        let shared = Arc::new(Mutex::new(Shared::default()));
        let queue = Self {
            inner,
            inner_handle: handle.clone(),
            capabilities,
            shared: Arc::clone(&shared),
        };
        let handle = SegmentingHandle {
            inner: handle,
            shared,
        };
        (queue, handle)
    }
}

// SAFETY: the queue inside keeps the promises; it is handed the same fragments and tokens.
unsafe impl TxQueue for SegmentingTx {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn domain(&self) -> DomainId {
        self.inner.domain()
    }

    unsafe fn post(&mut self, frame: &TxFrame<'_>, token: Token) -> Result<(), PostError> {
        frame
            .check(&self.capabilities)
            .map_err(PostError::Refused)?;
        let request = frame.offload.segment_len > 0;
        let offload = if request {
            Offload::NONE
        } else {
            frame.offload
        };
        let inner = TxFrame { offload, ..*frame };
        // SAFETY: the caller makes the same promise.
        unsafe { self.inner.post(&inner, token) }?;
        if request {
            lock(&self.shared).posted.insert(token.0, frame.offload);
        }
        Ok(())
    }

    fn doorbell(&mut self) {
        self.inner.doorbell();
        let mut shared = lock(&self.shared);
        for frame in self.inner_handle.take_frames() {
            match shared.posted.remove(&frame.token.0) {
                Some(offload) => shared.cut(&frame, &offload, &self.capabilities),
                None => shared.sent.push(frame),
            }
        }
    }

    fn reclaim(&mut self, done: &mut impl FnMut(Token)) -> Result<usize, QueueError> {
        self.inner.reclaim(done)
    }

    fn has_room(&self, fragments: usize) -> bool {
        self.inner.has_room(fragments)
    }

    fn outstanding(&self) -> usize {
        self.inner.outstanding()
    }
}

impl Deref for SegmentingHandle {
    type Target = FakeHandle;

    fn deref(&self) -> &FakeHandle {
        &self.inner
    }
}

impl SegmentingHandle {
    /// The frames on the wire since this was last asked, requests cut into their segments. Each
    /// tells the number of fragments of what was posted.
    pub(crate) fn take_frames(&self) -> Vec<SentFrame> {
        std::mem::take(&mut lock(&self.shared).sent)
    }

    /// The requests posted since this was last asked.
    pub(crate) fn take_requests(&self) -> Vec<RequestSeen> {
        std::mem::take(&mut lock(&self.shared).requests)
    }

    pub(crate) fn violations(&self) -> Vec<String> {
        let mut all = self.inner.violations();
        all.append(&mut lock(&self.shared).violations);
        all
    }
}

fn put_u16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

impl Shared {
    fn demand(&mut self, holds: bool, what: &str) {
        if !holds {
            self.violations.push(format!("request: {what}"));
        }
    }

    /// What a device expects of a template, by the docs of `Offload` and `Segmentation`.
    fn check_template(&mut self, frame: &[u8], offload: &Offload, capabilities: &Capabilities) {
        let (l2, l3) = (usize::from(offload.l2_len), usize::from(offload.l3_len));
        let ip = &frame[l2..];
        let tcp = &ip[l3..];
        let limits = capabilities.segmentation.unwrap();
        let by_device = offload.checksum.contains(ChecksumOffload::IPV4_HEADER);
        let offered = capabilities
            .tx_checksum
            .contains(ChecksumOffload::IPV4_HEADER);
        self.demand(by_device == offered, "IPV4_HEADER where it is offered");
        self.demand(
            usize::from(offload.l4_len) == usize::from(tcp[12] >> 4) * 4,
            "length of the TCP header",
        );
        let told = usize::from(u16_of(ip, 2));
        let (ip_len, tcp_len) = if limits.seed_has_length {
            (ip.len(), tcp.len())
        } else {
            (0, 0)
        };
        self.demand(told == ip_len, "length field of the IPv4 header");
        let seed = sum(&[], pseudo(&ip[12..16], &ip[16..20], tcp_len));
        self.demand(u16_of(tcp, 16) == seed, "seed of the TCP checksum");
        if by_device {
            self.demand(u16_of(ip, 10) == 0, "sum of the IPv4 header left out");
        } else {
            self.demand(sum(&ip[..l3], 0) == 0xffff, "sum of the IPv4 header");
        }
        self.demand(tcp[13] & SYN == 0, "no SYN");
    }

    /// One frame per segment: sequence number and identification count on, FIN and PSH are the
    /// last one's, lengths and sums are its own.
    fn cut(&mut self, request: &SentFrame, offload: &Offload, capabilities: &Capabilities) {
        self.check_template(&request.bytes, offload, capabilities);
        let (l2, l3) = (usize::from(offload.l2_len), usize::from(offload.l3_len));
        let header_len = l2 + l3 + usize::from(offload.l4_len);
        let (template, payload) = request.bytes.split_at(header_len);
        let count = payload.len().div_ceil(usize::from(offload.segment_len));
        self.demand(count > 1, "more than one segment");
        for (index, part) in payload.chunks(usize::from(offload.segment_len)).enumerate() {
            let mut bytes = [template, part].concat();
            let ip = &mut bytes[l2..];
            let ip_len = ip.len();
            put_u16(ip, 2, ip_len as u16);
            put_u16(ip, 4, u16_of(ip, 4).wrapping_add(index as u16));
            put_u16(ip, 10, 0);
            let header_sum = !sum(&ip[..l3], 0);
            put_u16(ip, 10, header_sum);
            let (network, tcp) = ip.split_at_mut(l3);
            let offset = index as u32 * u32::from(offload.segment_len);
            let seq = u32_of(tcp, 4).wrapping_add(offset);
            tcp[4..8].copy_from_slice(&seq.to_be_bytes());
            if index + 1 < count {
                tcp[13] &= !(FIN | PSH);
            }
            put_u16(tcp, 16, 0);
            let start = pseudo(&network[12..16], &network[16..20], tcp.len());
            let tcp_sum = !sum(tcp, start);
            put_u16(tcp, 16, tcp_sum);
            self.sent.push(SentFrame {
                bytes,
                fragments: request.fragments,
                token: request.token,
            });
        }
        self.requests.push(RequestSeen {
            payload: payload.len(),
            segments: count,
            fragments: request.fragments,
        });
    }
}
