//! Frames on their way out.

use std::ptr::NonNull;
use std::sync::Arc;

use pagewire_hal::{
    DmaMemory, Fragment, Granule, Loan, Nic, Offload, PoolLayout, Region, Token, TxFrame, TxPort,
    TxQueue,
};

use super::Device;
use super::draw::{Drawn, FRAMES, REGIONS};
use super::meter::Meter;
use crate::platform::NotedMemory;

/// Buffers of the port, and what it counts pages in.
const LAYOUT: PoolLayout = PoolLayout {
    small_len: 128,
    small_count: 256,
    large_len: 2048,
    large_count: 256,
    page: match Granule::from_bytes(4096) {
        Some(granule) => granule,
        None => Granule::CONTIGUOUS,
    },
};

/// Why a burst did not go as it must.
const REFUSED: &str = "the queue did not take a frame";
const LOST: &str = "a frame was not handed back";

/// Sends bursts of frames through one layer.
pub trait Transmit {
    /// Takes frames `first` and following of the table that are `burst`, rings, and has them done.
    ///
    /// # Errors
    /// What went wrong.
    fn round(
        &mut self,
        frames: std::ops::Range<usize>,
        device: &mut impl Device,
        meter: &mut impl Meter,
    ) -> Result<(), &'static str>;
}

/// A frame for the raw queue.
#[derive(Debug)]
struct RawFrame {
    fragments: Box<[Fragment]>,
    offload: Offload,
    first: Option<NonNull<u8>>,
}

/// The driver's queue.
pub struct Raw<'q, Q> {
    queue: &'q mut Q,
    frames: Vec<RawFrame>,
}

/// Where frames of the raw layer have their first bytes: more than head room and the longest frame.
const RAW_STRIDE: usize = 2048;

impl<'q, Q: TxQueue> Raw<'q, Q> {
    /// Memory for the first fragments of [`FRAMES`] frames.
    ///
    /// # Errors
    /// What the platform said.
    pub fn headers<N: Nic<Memory = NotedMemory>>(nic: &mut N) -> Result<NotedMemory, String> {
        let memory = nic.allocate(FRAMES * RAW_STRIDE, 64);
        memory.map_err(|error| error.to_string())
    }

    /// Translates the frames of a table.
    #[must_use]
    pub fn new(
        queue: &'q mut Q,
        headers: &NotedMemory,
        drawn: &[Drawn],
        regions: &[Arc<dyn Region>],
    ) -> Self {
        let head_room = usize::from(queue.capabilities().head_room);
        let frame = |(index, drawn): (usize, &Drawn)| {
            let at = index * RAW_STRIDE + head_room;
            let mut fragments = vec![Fragment {
                address: headers.address().offset(at as u64),
                len: drawn.header_len as u32,
            }];
            for piece in &drawn.pieces {
                let runs = regions[piece.region]
                    .translation()
                    .runs(piece.start, piece.len);
                fragments.extend(runs.map(|run| Fragment {
                    address: run.address,
                    len: run.len as u32,
                }));
            }
            RawFrame {
                fragments: fragments.into_boxed_slice(),
                offload: drawn.offload,
                // SAFETY: the memory has so many bytes.
                first: Some(unsafe { headers.pointer().add(at) }),
            }
        };
        Self {
            frames: drawn.iter().enumerate().map(frame).collect(),
            queue,
        }
    }
}

#[inline(never)]
fn measured_enqueue_raw<Q: TxQueue>(queue: &mut Q, frames: &[RawFrame]) -> bool {
    for (index, frame) in frames.iter().enumerate() {
        let frame = TxFrame {
            fragments: &frame.fragments,
            offload: frame.offload,
            first: frame.first,
        };
        // SAFETY: no device reads the fragments, which are in memory that is never freed.
        let posted = unsafe { queue.post(&frame, Token(index as u32)) };
        if posted.is_err() {
            return false;
        }
    }
    queue.doorbell();
    true
}

#[inline(never)]
fn measured_reclaim_raw<Q: TxQueue>(queue: &mut Q, sum: &mut u64) -> usize {
    let done = queue.reclaim(&mut |Token(token)| *sum += u64::from(token));
    done.unwrap_or(0)
}

impl<Q: TxQueue> Transmit for Raw<'_, Q> {
    fn round(
        &mut self,
        frames: std::ops::Range<usize>,
        device: &mut impl Device,
        meter: &mut impl Meter,
    ) -> Result<(), &'static str> {
        let count = frames.len();
        let frames = self.frames.get(frames).unwrap_or_default();
        let mut sum = 0;
        meter.begin();
        let taken = measured_enqueue_raw(self.queue, frames);
        meter.end("enqueue_raw");
        if !taken {
            return Err(REFUSED);
        }
        device.complete();
        meter.begin();
        let done = measured_reclaim_raw(self.queue, &mut sum);
        meter.end("reclaim_raw");
        if done != count || sum != (count * (count - 1) / 2) as u64 {
            return Err(LOST);
        }
        Ok(())
    }
}

/// The safe layer, with loans of whole regions as a connection has them.
pub struct Port<Q: TxQueue> {
    port: TxPort<Q, NotedMemory>,
    loans: [Loan; REGIONS],
}

impl<Q: TxQueue> Port<Q> {
    /// A port on `queue`, with loans of `regions`.
    ///
    /// # Errors
    /// What the port, its platform or its ledger said.
    pub fn new<N>(nic: &mut N, queue: Q, regions: &[Arc<dyn Region>]) -> Result<Self, String>
    where
        N: Nic<Tx = Q, Memory = NotedMemory>,
    {
        let port = TxPort::new(nic, queue, &LAYOUT);
        let mut port = port.map_err(|error| error.to_string())?;
        let lend = |region: &Arc<dyn Region>| {
            let ledger = port.ledger_mut();
            let id = ledger.register(Arc::clone(region))?;
            ledger.lend(id, 0, region.len())
        };
        let loans = regions.iter().map(lend).collect::<Result<Vec<_>, _>>();
        let loans = loans.map_err(|error| error.to_string())?;
        let loans = loans.try_into();
        let loans = loans.map_err(|_| format!("there are not {REGIONS} regions"))?;
        Ok(Self { port, loans })
    }

    /// With the frames of a table.
    pub fn with<'p>(&'p mut self, frames: &'p [Drawn]) -> PortRun<'p, Q> {
        PortRun { port: self, frames }
    }
}

/// A [`Port`] and frames for it.
pub struct PortRun<'p, Q: TxQueue> {
    port: &'p mut Port<Q>,
    frames: &'p [Drawn],
}

#[inline(never)]
fn measured_enqueue_port<Q: TxQueue>(
    port: &mut TxPort<Q, NotedMemory>,
    loans: &[Loan; REGIONS],
    frames: &[Drawn],
) -> bool {
    for drawn in frames {
        let Some(buffer) = port.buffer(drawn.header_len) else {
            return false;
        };
        let mut frame = port.frame(buffer, drawn.header_len);
        for piece in &drawn.pieces {
            frame.attach(&loans[piece.region % REGIONS], piece.start, piece.len);
        }
        if frame.post(drawn.offload).is_err() {
            return false;
        }
    }
    port.doorbell();
    true
}

#[inline(never)]
fn measured_reclaim_port<Q: TxQueue>(port: &mut TxPort<Q, NotedMemory>) -> usize {
    port.reclaim(&mut |_| {}).unwrap_or(0)
}

impl<Q: TxQueue> Transmit for PortRun<'_, Q> {
    fn round(
        &mut self,
        frames: std::ops::Range<usize>,
        device: &mut impl Device,
        meter: &mut impl Meter,
    ) -> Result<(), &'static str> {
        let count = frames.len();
        let frames = self.frames.get(frames).unwrap_or_default();
        let Port { port, loans } = &mut *self.port;
        meter.begin();
        let taken = measured_enqueue_port(port, loans, frames);
        meter.end("enqueue_port");
        if !taken {
            return Err(REFUSED);
        }
        device.complete();
        meter.begin();
        let done = measured_reclaim_port(port);
        meter.end("reclaim_port");
        if done == count { Ok(()) } else { Err(LOST) }
    }
}
