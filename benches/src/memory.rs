//! What connections and queues take of memory.

use std::fmt::Write as _;
use std::sync::Arc;

use pagewire_hal::{Nic, Region};
use serde::Serialize;

use crate::frames::Device;
use crate::frames::case::Kind;
use crate::frames::open::{Opening, RING, Visitor, open, open_with};
use crate::platform::{Allocated, NotedMemory};
use crate::sender::case::{Bytes, Case, Payload, Size, Sums};
use crate::sender::stage::Stage;

/// Says how many bytes of the heap are in use.
pub type Gauge = fn() -> usize;

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Memory {
    /// Bytes for each connection more, between 1,000 and 2,000 of them with 2 and with 64 segments in
    /// flight, with all that a list keeps in reserve.
    pub connection: [usize; 2],
    /// Bytes for each segment more in flight on one connection, between 64 and 4,000, in hundredths.
    pub segment_hundredths: usize,
    /// Of each driver.
    pub queues: Vec<Queues>,
}

/// A pair of queues with rings of [`RING`] descriptors, and a port.
#[derive(Clone, Debug, Serialize)]
pub struct Queues {
    /// The driver.
    pub driver: &'static str,
    /// Bytes that the device reaches: both rings, and the buffers that frames are received in.
    pub device: usize,
    /// Bytes for what the driver remembers of descriptors.
    pub slots: usize,
    /// Bytes of the port's buffers, for headers and for frames that are copied.
    pub port: usize,
}

struct Stacked {
    case: Case,
    gauge: Gauge,
}

/// Bytes of the heap that a stack takes, and of memory that its port has for the device.
impl Visitor for Stacked {
    type Output = (usize, usize);

    fn visit<N: Nic<Memory = NotedMemory>, D: Device>(
        self,
        mut nic: N,
        mut device: D,
        regions: Vec<Arc<dyn Region>>,
    ) -> Result<(usize, usize), String> {
        let (tx, _rx) = nic.take_queues(0).ok_or("there are no queues")?;
        let (heap, memory) = ((self.gauge)(), Allocated::now());
        let stage = Stage::new(&self.case, &mut nic, tx, &mut device, &regions)?;
        let heap = (self.gauge)().saturating_sub(heap + stage.own_bytes());
        Ok((heap, memory.since().device))
    }
}

fn stacked(
    kind: Kind,
    connections: usize,
    flight: usize,
    gauge: Gauge,
) -> Result<(usize, usize), String> {
    let case = Case {
        kind,
        bytes: Bytes::Owned,
        size: Size::Mtu1500,
        sums: Sums::Device,
        connections,
        flight,
        per_ack: 2,
        slice: 32 << 10,
        payload: Payload::Hot,
    };
    let opening = Opening {
        regions: 1,
        region_len: 64 << 10,
        ..Opening::default()
    };
    open_with(kind, &opening, Stacked { case, gauge })
}

struct Opened(Allocated);

impl Visitor for Opened {
    type Output = Allocated;

    fn visit<N: Nic<Memory = NotedMemory>, D: Device>(
        self,
        _: N,
        _: D,
        _: Vec<Arc<dyn Region>>,
    ) -> Result<Allocated, String> {
        Ok(self.0.since())
    }
}

/// Measures all, by what `gauge` says.
///
/// # Errors
/// What went wrong, for the user.
pub fn measure(gauge: Gauge) -> Result<Memory, String> {
    let of = |connections, flight| {
        stacked(Kind::Ixgbe, connections, flight, gauge).map(|(heap, _)| heap)
    };
    let per_connection =
        |flight| Ok::<_, String>((of(2000, flight)?.saturating_sub(of(1000, flight)?)) / 1000);
    let flights = of(1, 4000)?.saturating_sub(of(1, 64)?);
    let mut queues = Vec::new();
    for kind in [
        Kind::Ixgbe,
        Kind::E1000e,
        Kind::SplitDirect,
        Kind::SplitIndirect,
        Kind::PackedDirect,
        Kind::PackedIndirect,
    ] {
        let Allocated { device, slots } = open(kind, Opened(Allocated::now()))?;
        let (_, port) = stacked(kind, 1, 64, gauge)?;
        queues.push(Queues {
            driver: kind.name(),
            device,
            slots,
            port,
        });
    }
    Ok(Memory {
        connection: [per_connection(2)?, per_connection(64)?],
        segment_hundredths: flights * 100 / (4000 - 64),
        queues,
    })
}

impl Memory {
    /// As a table.
    #[must_use]
    pub fn table(&self) -> String {
        let [few, many] = self.connection;
        let mut text = format!(
            "bytes of memory\n\n\
             a connection, established, 2 segments in flight   {few:>10}\n\
             the same, 64 in flight                            {many:>10}\n\
             a segment in flight more                          {:>10}.{:02}\n\n\
             a pair of queues of {RING} descriptors\n\
             {:<24}{:>14}{:>14}{:>14}\n",
            self.segment_hundredths / 100,
            self.segment_hundredths % 100,
            "driver",
            "device's",
            "driver's",
            "a port's"
        );
        for queues in &self.queues {
            let Queues {
                driver,
                device,
                slots,
                port,
            } = queues;
            // A String takes everything.
            let _ = writeln!(text, "{driver:<24}{device:>14}{slots:>14}{port:>14}");
        }
        text
    }
}
