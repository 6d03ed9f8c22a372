//! Sends frames from one NIC to another and back, both bound to vfio-pci and on one wire.
//!
//!     frames 0000:03:00.0 0000:04:00.0 [COUNT] [cdev|group]
//!
//! The payload is gathered from registered memory where it lies; each frame is compared byte by
//! byte where it arrives. Interrupts wake the program. Ends with a line `FRAMES-OK`, or with an
//! error and code 1.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pagewire_drivers::{AnyNic, AnyRx, AnyTx, Config};
use pagewire_hal::{
    Granule, Loan, Nic, Offload, Phase, PoolLayout, PortPair, Region, RegionId, RxQueue, TxPort,
    shut_down,
};
use pagewire_vfio::{Api, Memory, Options, PciAddress, VfioHandle, VfioPlatform};

/// Nothing takes so long, not even in a guest, whose clock can run faster than its devices.
const SOON: Duration = Duration::from_secs(300);
const ETHERNET: usize = 14;
/// The payload lies in registered memory of this length.
const REGION: usize = 1 << 20;

type Failure = Box<dyn Error>;

/// What the platform cannot say in an error goes to the log.
struct ToStderr;

impl log::Log for ToStderr {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        eprintln!("{}: {}", record.level(), record.args());
    }

    fn flush(&self) {}
}

fn main() {
    if log::set_logger(&ToStderr).is_ok() {
        log::set_max_level(log::LevelFilter::Debug);
    }
    if let Err(error) = run() {
        eprintln!("frames: {error}");
        std::process::exit(1);
    }
}

fn run() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [first, second, rest @ ..] = arguments.as_slice() else {
        return Err("usage: frames ADDRESS ADDRESS [COUNT] [cdev|group]".into());
    };
    let count = rest.first().map_or(Ok(1000), |count| count.parse())?;
    let api = rest.get(1).map(|api| api.parse()).transpose()?;
    let mut first = Station::open(first.parse()?, api)?;
    let mut second = Station::open(second.parse()?, api)?;
    first.wait_for_link()?;
    second.wait_for_link()?;
    send(&mut first, &mut second, count)?;
    send(&mut second, &mut first, count)?;
    first.close()?;
    second.close()?;
    println!("FRAMES-OK {count} frames each way");
    Ok(())
}

/// A NIC with its driver, and memory to send from.
struct Station {
    address: PciAddress,
    nic: AnyNic<VfioPlatform>,
    port: TxPort<AnyTx<VfioPlatform>, Memory>,
    rx: AnyRx<VfioPlatform>,
    handle: VfioHandle,
    payload: Vec<u8>,
    loan: Option<Loan>,
    region: RegionId,
    start: Instant,
    wakes: u32,
}

impl Station {
    fn open(address: PciAddress, api: Option<Api>) -> Result<Self, Failure> {
        let mut options = Options::default();
        options.api = api;
        let platform = VfioPlatform::open(address, &options)?;
        let handle = platform.handle();
        let mut nic = AnyNic::open(platform, &Config::default())?;
        let vectors = nic.enable_interrupts()?;
        let (tx, rx) = nic.take_queues(0).ok_or("no queues")?;
        let layout = PoolLayout {
            small_len: 256,
            small_count: 256,
            large_len: 2048,
            large_count: 16,
            page: Granule::from_bytes(4096).ok_or("no granule")?,
        };
        let mut port = TxPort::new(&mut nic, tx, &layout)?;
        let payload: Vec<u8> = (0..REGION).map(|i| (i * 7 + i / 251) as u8).collect();
        let region = Arc::new(handle.register(payload.clone())?);
        let region = port.ledger_mut().register(region as Arc<dyn Region>)?;
        let loan = port.ledger_mut().lend(region, 0, REGION)?;
        let fragments = port.max_fragments();
        println!(
            "{address}: {} ({}), {vectors} vectors, {fragments} fragments",
            nic.name(),
            nic.mac_address()
        );
        Ok(Self {
            address,
            nic,
            port,
            rx,
            handle,
            payload,
            loan: Some(loan),
            region,
            start: Instant::now(),
            wakes: 0,
        })
    }

    fn now(&self) -> pagewire_hal::Instant {
        pagewire_hal::Instant::from_nanos(self.start.elapsed().as_nanos() as u64)
    }

    fn wait_for_link(&mut self) -> Result<(), Failure> {
        let start = Instant::now();
        while !self.nic.link().up {
            if start.elapsed() > SOON {
                return Err(format!("{}: the link stays down", self.address).into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Posts frame `number` for `to`: a header from a buffer, the payload from a few places.
    fn post(&mut self, to: [u8; 6], number: usize) -> Result<Vec<u8>, Failure> {
        let mut frame = Vec::with_capacity(1514);
        frame.extend_from_slice(&to);
        frame.extend_from_slice(&self.nic.mac_address().0);
        // For local experiments (IEEE 802).
        frame.extend_from_slice(&[0x88, 0xb5]);
        let mut buffer = self.port.buffer(ETHERNET).ok_or("no buffer")?;
        let header = self.port.bytes_mut(&mut buffer).get_mut(..ETHERNET);
        header.ok_or("the buffer is short")?.copy_from_slice(&frame);
        let loan = self.loan.as_ref().ok_or("nothing is lent")?;
        let pieces = 1 + number % self.port.max_fragments().saturating_sub(1).clamp(1, 8);
        let mut builder = self.port.frame(buffer, ETHERNET);
        for piece in 0..pieces {
            let len = (46 + number * 13) % (1500 / pieces) + 46_usize.div_ceil(pieces);
            let len = len.min(1500 / pieces);
            // Some of them across the end of a page.
            let start = (number * 4099 + piece * 8191) % (REGION - len);
            builder.attach(loan, start, len);
            frame.extend_from_slice(self.payload.get(start..start + len).unwrap_or_default());
        }
        builder.post(Offload::default())?;
        Ok(frame)
    }

    /// Frames that have arrived with our own type, short ones without what was padded.
    fn received(&mut self, frames: &mut Vec<Vec<u8>>) -> Result<(), Failure> {
        self.rx.receive(64, &mut |frame| {
            let mut bytes = vec![0; frame.len()];
            frame.copy_to(&mut bytes);
            if bytes.get(12..14) == Some(&[0x88, 0xb5]) {
                frames.push(bytes);
            }
        })?;
        Ok(())
    }

    /// Sleeps until an interrupt, and takes note of it.
    fn sleep(&mut self) -> Result<(), Failure> {
        if !self.handle.wait_for_interrupt(SOON) {
            return Err(format!("{}: no interrupt", self.address).into());
        }
        self.wakes += 1;
        let _causes = self.nic.take_interrupts();
        Ok(())
    }

    fn close(mut self) -> Result<(), Failure> {
        let Phase::Running(_) = self.nic.poll(self.now())? else {
            return Err(format!("{}: does not run", self.address).into());
        };
        let statistics = self.nic.statistics();
        let start = self.start;
        let pair = PortPair {
            tx: &mut self.port,
            rx: &mut self.rx,
        };
        shut_down(&mut self.nic, &mut [pair], || {
            std::thread::sleep(Duration::from_millis(1));
            let since = start.elapsed();
            (since < SOON).then(|| pagewire_hal::Instant::from_nanos(since.as_nanos() as u64))
        })?;
        let ledger = self.port.ledger_mut();
        if let Some(loan) = self.loan.take() {
            ledger.give_back(loan);
        }
        ledger.release(self.region)?;
        println!(
            "{}: {} wakes, {} bytes locked, {statistics:?}",
            self.address,
            self.wakes,
            self.handle.locked_bytes()
        );
        Ok(())
    }
}

fn send(from: &mut Station, to: &mut Station, count: usize) -> Result<(), Failure> {
    const BURST: usize = 16;
    let target = to.nic.mac_address().0;
    let start = Instant::now();
    let mut got = Vec::new();
    for first in (0..count).step_by(BURST) {
        let numbers = first..count.min(first + BURST);
        let sent: Result<Vec<Vec<u8>>, Failure> =
            numbers.map(|number| from.post(target, number)).collect();
        let sent = sent?;
        from.port.doorbell();
        got.clear();
        while got.len() < sent.len() {
            let slept = to.sleep();
            to.received(&mut got)?;
            if let Err(error) = slept {
                let (got, sent) = (got.len(), sent.len());
                return Err(format!("{error}, {got} of {sent} frames have arrived").into());
            }
        }
        for (number, (sent, got)) in sent.iter().zip(&got).enumerate() {
            if !got.starts_with(sent) {
                return Err(format!("frame {} arrived with other bytes", first + number).into());
            }
        }
        let mut done = 0;
        while done < sent.len() {
            from.sleep()?;
            done += from.port.reclaim(&mut |_| {})?;
        }
    }
    println!(
        "{} to {}: {count} frames in {:.2} s, every byte as sent",
        from.address,
        to.address,
        start.elapsed().as_secs_f64()
    );
    Ok(())
}
