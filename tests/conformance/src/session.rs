//! A device that has been opened for one check, and the books that the suite keeps on it: what
//! was posted, what must appear on the wire, which tokens are out.

mod lifecycle;
mod receive;
mod solo;
mod transmit;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use pagewire_hal::{Capabilities, DmaBuffer, Nic, Region, TxQueue};

use crate::random::Random;
use crate::verdict::{Verdict, ensure, failed};
use crate::{Bench, Options};

pub(crate) use receive::Received;
pub(crate) use solo::Solo;
pub(crate) use transmit::Piece;

/// The transmit queue of a bench's NIC.
pub(crate) type Tx<B> = <<B as Bench>::Nic as Nic>::Tx;
/// Its receive queue.
pub(crate) type Rx<B> = <<B as Bench>::Nic as Nic>::Rx;
type Buffer<B> = DmaBuffer<<B as Bench>::Memory>;

/// Station addresses of the far end and of a third party, locally administered.
pub(crate) const FAR_MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 2];
pub(crate) const OTHER_MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 0x77];
/// Bytes of an Ethernet header.
pub(crate) const ETHERNET: usize = 14;
/// Least bytes on a wire, without frame check sequence.
pub(crate) const SHORTEST: usize = 60;
/// Bytes of the region that fragments are taken from: enough for a jumbo frame in tiny pieces
/// that all lie on pages of their own.
const REGION_LEN: usize = 1 << 20;

/// A frame that is out.
struct Posted<B: Bench> {
    /// The buffers that it names; they come back with its token.
    buffers: Vec<Buffer<B>>,
    number: u64,
}

/// A frame that must appear on the wire.
struct Expected {
    number: u64,
    bytes: Vec<u8>,
    /// The last one of what was posted with one token.
    last: bool,
}

/// What the far end has seen, to be compared with the device's statistics.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) tx_frames: u64,
    pub(crate) tx_bytes: u64,
    pub(crate) rx_frames: u64,
    pub(crate) rx_bytes: u64,
}

/// See the [module](self).
pub(crate) struct Session<'b, B: Bench> {
    pub(crate) bench: &'b mut B,
    pub(crate) options: &'b Options,
    pub(crate) random: Random,
    pub(crate) nic: B::Nic,
    pub(crate) capabilities: Capabilities,
    pub(crate) mac: [u8; 6],
    pub(crate) tx: Tx<B>,
    pub(crate) rx: Rx<B>,
    /// Further pairs that were taken out, on which nothing is out.
    pub(crate) others: Vec<(Tx<B>, Rx<B>)>,
    /// Memory of the program, and a copy of its bytes.
    region: Arc<dyn Region>,
    pub(crate) bytes: Vec<u8>,
    vacant: Vec<Buffer<B>>,
    out: HashMap<u32, Posted<B>>,
    expected: VecDeque<Expected>,
    /// Frames posted so far, and the first that the far end has not seen.
    number: u64,
    unseen: u64,
    /// Frames may be lost: the link went down, or a reset.
    pub(crate) lossy: bool,
    /// A frame that is not padded is a failure.
    pub(crate) must_pad: bool,
    pub(crate) seen: Seen,
    /// What received frames are copied to first.
    scratch: Vec<u8>,
    closed: bool,
}

impl<'b, B: Bench> Session<'b, B> {
    /// Opens the device and waits for its link.
    pub(crate) fn open(bench: &'b mut B, options: &'b Options, seed: u64) -> Verdict<Self> {
        let mut random = Random::new(seed);
        let opening = "a device that was released, or that a failed check left behind, can be \
                       opened";
        let mut nic = bench.open(random.next()).map_err(|e| failed(opening, e))?;
        let capabilities = *nic.capabilities();
        let mac = nic.mac_address().0;
        let (tx, rx) = nic.take_queues(0).ok_or_else(|| {
            let what = "queue pair 0 of a device that was just opened cannot be taken".to_owned();
            failed("`take_queues(0)` yields the first pair once", what)
        })?;
        // No byte is zero, so that none is taken for padding.
        let bytes = random.bytes(REGION_LEN);
        let mapping = "the bench maps regions for the device that it has opened";
        let region = bench
            .region(bytes.clone())
            .map_err(|e| failed(mapping, e))?;
        ensure!(
            region.domain() == tx.domain() && region.len() == bytes.len(),
            mapping,
            "the region is of another domain or length"
        );
        let mut session = Self {
            bench,
            options,
            random,
            nic,
            capabilities,
            mac,
            tx,
            rx,
            others: Vec::new(),
            region,
            bytes,
            vacant: Vec::new(),
            out: HashMap::new(),
            expected: VecDeque::new(),
            number: 0,
            unseen: 0,
            lossy: false,
            must_pad: false,
            seen: Seen::default(),
            scratch: Vec::new(),
            closed: false,
        };
        // A check that failed may have left it down.
        session.bench.set_link(true);
        session.wait_for_link(true)?;
        Ok(session)
    }

    /// Takes all pairs of queues: a device that has several may put a received frame into any.
    pub(crate) fn take_all(&mut self) -> Verdict {
        for index in 1..self.capabilities.queue_pairs {
            let Some(pair) = self.nic.take_queues(index) else {
                let what = format!("queue pair {index} cannot be taken");
                return Err(failed("`take_queues` yields each pair once", what));
            };
            self.others.push(pair);
        }
        Ok(())
    }

    /// What the driver calls itself.
    pub(crate) fn name(&self) -> &'static str {
        self.nic.name()
    }

    /// The longest frame, in bytes.
    pub(crate) fn longest(&self) -> usize {
        self.capabilities.max_frame_len as usize
    }

    /// The shortest frame, in bytes, an Ethernet header at least.
    pub(crate) fn shortest(&self) -> usize {
        (self.capabilities.min_frame_len as usize).max(ETHERNET)
    }

    /// The longest fragment, in bytes: no longer than what it can be a part of, whatever number
    /// stands for "no limit".
    pub(crate) fn longest_fragment(&self) -> usize {
        let request = self.capabilities.segmentation.map_or(0, |limits| {
            limits.max_payload_len as usize + usize::from(limits.max_header_len)
        });
        let whole = self.longest().max(request);
        (self.capabilities.max_fragment_len as usize).clamp(1, whole)
    }

    /// Frames posted whose token is out.
    pub(crate) fn outstanding(&self) -> usize {
        self.out.len()
    }

    /// Lets time go on until `done` says so; `false` if patience has run out.
    pub(crate) fn wait(&mut self, done: impl FnMut(&mut Self) -> Verdict<bool>) -> Verdict<bool> {
        self.wait_for(self.options.patience, done)
    }

    /// The same with less patience.
    pub(crate) fn wait_for(
        &mut self,
        patience: Duration,
        mut done: impl FnMut(&mut Self) -> Verdict<bool>,
    ) -> Verdict<bool> {
        let mut waited = Duration::ZERO;
        // Often at first, more seldom the longer it takes.
        let mut step = self.options.step;
        loop {
            if done(self)? {
                return Ok(true);
            }
            if waited >= patience {
                return Ok(false);
            }
            self.bench.advance(step);
            waited += step;
            step = step.max(waited / 16);
        }
    }

    /// Lets time go on for a while in which nothing is waited for.
    pub(crate) fn settle(&mut self) {
        self.bench.advance(self.options.settle);
    }

    /// A start in the region where `len` bytes are one run for the device, and no zeros follow;
    /// `None` if there is none so long.
    pub(crate) fn run_of(&mut self, len: usize) -> Option<usize> {
        let last = self.bytes.len().checked_sub(len)?;
        (0..64).find_map(|_| {
            let start = self.random.within(0, last);
            let first = self.region.translation().runs(start, len).next()?;
            (first.len == len).then_some(start)
        })
    }

    /// A start in the region such that byte `before` of what begins there is the first of a page
    /// of the program.
    pub(crate) fn start_before_page(&mut self, before: usize) -> usize {
        let page = self.bench.page_len().max(1);
        let base = self.region.base().as_ptr().addr();
        let first = base.next_multiple_of(page) - base;
        let pages = (self.bytes.len() - first) / page;
        let skipped = before.div_ceil(page);
        let chosen = self.random.within(skipped, (pages / 2).max(skipped));
        (first + chosen * page).saturating_sub(before)
    }
}

impl<B: Bench> Drop for Session<'_, B> {
    /// What the device may still read is leaked, never freed.
    fn drop(&mut self) {
        if self.out.is_empty() {
            return;
        }
        for (_, posted) in self.out.drain() {
            std::mem::forget(posted.buffers);
        }
        std::mem::forget(Arc::clone(&self.region));
    }
}
