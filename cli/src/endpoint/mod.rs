//! A NIC with a TCP on it, in real time: what `serve` and `send` stand on.

mod args;
mod home;
mod model;
mod vfio;

use std::time::Duration;

use pagewire::drivers::{AnyNic, AnyRx, AnyTx, Config};
use pagewire::hal::{
    Granule, Instant, Nic, NicError, Phase, Platform, PortPair, QueueError, RxQueue, TxPort,
};
use pagewire::outbox::{BUFFER, Limits, Outbox};
use pagewire::tcp::{Stack, StackConfig, Thresholds};

pub(crate) use args::{Link, parse_bytes, parse_seconds};
pub(crate) use home::Home;
pub(crate) use model::ModelHome;
pub(crate) use vfio::VfioHome;

use crate::device::DeviceName;
use crate::error::Failure;

/// Descriptors in each ring.
const DESCRIPTORS: u16 = 1024;
/// Frames that may be in the ring.
const FRAMES: usize = 1024;
/// Received frames handled in one round.
const RECEIVE_BUDGET: usize = 256;
/// How often the device's health is looked at.
const HEALTH: Duration = Duration::from_millis(50);
/// How long a NIC may make no progress, if it goes on by itself afterwards.
const HUNG: Duration = Duration::from_secs(10);
/// The longest sleep: signals are looked at that often, if they do not end it.
const LONGEST: Duration = Duration::from_millis(100);
/// Two NICs take some seconds to agree on a speed.
const LINK: Duration = Duration::from_secs(20);
/// How long the end may take: resets are sent, and pages come back.
const LONGEST_END: Duration = Duration::from_secs(2);
/// The page of this machine.
const PAGE: usize = 4096;

pub(crate) type StackOn<H> = Stack<AnyTx<<H as Home>::Platform>, MemoryOf<H>>;
pub(crate) type MemoryOf<H> = <<H as Home>::Platform as Platform>::Memory;

/// Bytes of files that may be mapped for the device, and so locked in memory, and who shares them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    /// For one connection; also what it may have accepted and not acknowledged.
    pub(crate) connection: usize,
    /// For all of them.
    pub(crate) total: usize,
    /// Connections at a time.
    pub(crate) connections: usize,
    /// Buffers of a page, for texts and for what is copied.
    pub(crate) buffers: usize,
    /// Fewer in a row are copied, where short ones are; the sender's own threshold if there is none.
    pub(crate) share_min: Option<usize>,
}

/// The NIC, its driver and the TCP on it.
pub(crate) struct Endpoint<H: Home> {
    pub(crate) stack: StackOn<H>,
    /// What is to be sent: texts and files.
    pub(crate) outbox: Outbox<MemoryOf<H>>,
    pub(crate) nic: AnyNic<H::Platform>,
    rx: AnyRx<H::Platform>,
    scratch: Vec<u8>,
    looked: Instant,
    hung_since: Option<Instant>,
    // Last: the device goes when nobody uses it any more.
    pub(crate) home: H,
}

impl<H: Home> Endpoint<H> {
    /// Opens the device.
    pub(crate) fn open(link: &Link, budget: Budget) -> Result<Self, Failure> {
        let name = &link.device;
        let failed = |error: NicError| Failure::failed(format!("{name}: {error}"));
        let (mut home, platform) = H::build(link)?;
        let mut nic = AnyNic::open(platform, &driver_config(link)).map_err(failed)?;
        let Some((tx, rx)) = nic.take_queues(0) else {
            return Err(Failure::failed(format!("{name} has no queue")));
        };
        let config = stack_config(link, budget, &nic);
        let page = Granule::from_bytes(PAGE).unwrap_or(Granule::CONTIGUOUS);
        let pool = config.pool_layout(nic.capabilities(), FRAMES, page);
        let port = TxPort::new(&mut nic, tx, &pool).map_err(failed)?;
        let stack = Stack::new(port, config)
            .map_err(|error| Failure::usage(format!("the sender: {error}")))?;
        let scratch = vec![0; nic.capabilities().max_receive_len() as usize];
        let limits = Limits {
            connection: budget.connection,
            total: budget.total,
            connections: budget.connections,
            ..Limits::default()
        };
        let mut outbox = Outbox::new(home.mapper(), limits);
        for _ in 0..budget.buffers {
            let memory = nic.allocate(BUFFER, PAGE).map_err(|error| {
                Failure::usage(format!("no memory for what is copied: {error}"))
            })?;
            outbox.add_buffer(memory);
        }
        home.start_clock();
        let looked = home.now();
        Ok(Self {
            stack,
            outbox,
            nic,
            rx,
            scratch,
            looked,
            hung_since: None,
            home,
        })
    }

    /// Makes room for bytes that are copied because they are few.
    pub(crate) fn prepare_copies(&mut self, bytes: usize) -> Result<(), Failure> {
        let failed = |error: &dyn std::fmt::Display| {
            Failure::usage(format!("no memory for what is copied: {error}"))
        };
        let memory = self.nic.allocate(bytes, PAGE);
        let memory = memory.map_err(|error| failed(&error))?;
        let slot = Granule::from_bytes(PAGE).unwrap_or(Granule::CONTIGUOUS);
        let pool = self.stack.set_copy_pool(memory, slot);
        pool.map_err(|error| failed(&error))
    }

    /// Waits until the NIC sees a link; a NIC in software has one at once, or soon.
    pub(crate) fn await_link(
        &mut self,
        name: &DeviceName,
        stop: &dyn Fn() -> bool,
    ) -> Result<(), Failure> {
        let begin = std::time::Instant::now();
        loop {
            self.home.step();
            let phase = self.nic.poll(self.home.now());
            phase.map_err(|error| Failure::failed(format!("{name}: {error}")))?;
            if self.nic.link().up {
                return Ok(());
            }
            if stop() {
                return Err(Failure::interrupted());
            }
            if begin.elapsed() > LINK {
                return Err(Failure::usage(format!(
                    "{name} sees no link after {} s. Is there a cable in it?",
                    LINK.as_secs()
                )));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Takes what has been received; whether there was anything.
    pub(crate) fn receive(&mut self, now: Instant) -> Result<bool, Failure> {
        // What has come while nobody looked is there before time is judged by it.
        self.home.step();
        let Self {
            stack, rx, scratch, ..
        } = self;
        let received = rx.receive(RECEIVE_BUDGET, &mut |frame| {
            let checksum = frame.checksum();
            stack.input(now, frame.copy_to(scratch), checksum);
        });
        Ok(received.map_err(nic_failed)? > 0)
    }

    /// Hands over what waits, and lets TCP and the device work. Whether anything was done, and when to come again.
    pub(crate) fn work(&mut self, now: Instant) -> Result<(bool, Option<Instant>), Failure> {
        let handed_over = self.outbox.poll(&mut self.stack, now);
        let posted = self.stack.port().counters().frames;
        let timer = self.stack.poll(now).map_err(nic_failed)?;
        // What the device has done the stack has found out just now.
        let mut worked = handed_over | self.outbox.poll(&mut self.stack, now);
        worked |= self.stack.port().counters().frames != posted;
        worked |= self.home.step();
        if now.saturating_since(self.looked) >= HEALTH {
            self.looked = now;
            self.look_at_health(now)?;
        }
        Ok((worked, timer))
    }

    fn look_at_health(&mut self, now: Instant) -> Result<(), Failure> {
        let phase = self.nic.poll(now);
        if !matches!(phase, Ok(Phase::Hung)) {
            self.hung_since = None;
        }
        match phase {
            Ok(Phase::Running(_)) => Ok(()),
            // It may be that this process had no turn on a busy machine.
            Ok(Phase::Hung) => {
                let since = *self.hung_since.get_or_insert(now);
                if now.saturating_since(since) < HUNG {
                    return Ok(());
                }
                Err(Failure::failed("the NIC makes no progress"))
            }
            Ok(phase) => Err(Failure::failed(format!("the NIC is {phase:?}"))),
            Err(error) => Err(Failure::failed(format!("the NIC: {error}"))),
        }
    }

    /// Sleeps until a frame arrives or a signal does, at most until `timer`.
    pub(crate) fn sleep(&self, now: Instant, timer: Option<Instant>) {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let longest = self.home.longest_sleep().min(LONGEST);
        let due = timer.map_or(longest, |timer| timer.saturating_since(now));
        let timeout = Timespec::try_from(due.min(longest));
        let mut fds: Vec<_> = self
            .home
            .readable()
            .iter()
            .map(|fd| PollFd::new(fd, PollFlags::IN))
            .collect();
        // A signal ends the sleep early, which is what is wanted.
        let _ = poll(&mut fds, timeout.ok().as_ref());
    }

    /// Lets what is on its way go out, for a while, stops the device, and takes everything back.
    pub(crate) fn end(&mut self) -> Result<(), Failure> {
        let mut now = self.home.now();
        let end = now + LONGEST_END;
        loop {
            let (active, timer) = self.work(now)?;
            let is_quiet = self.stack.port().outstanding() == 0 && !active;
            if is_quiet || now > end {
                break;
            }
            self.sleep(now, timer);
            now = self.home.now();
        }
        let stopped = self.shut_down();
        self.outbox.poll(&mut self.stack, now);
        stopped.map_err(|error| Failure::failed(format!("the NIC could not be stopped: {error}")))
    }

    fn shut_down(&mut self) -> Result<(), NicError> {
        let Self {
            stack,
            nic,
            rx,
            home,
            ..
        } = self;
        let mut pairs = [PortPair {
            tx: stack.port_mut(),
            rx,
        }];
        pagewire::hal::shut_down(nic, &mut pairs, || {
            if !home.step() {
                std::thread::sleep(Duration::from_micros(100));
            }
            Some(home.now())
        })
    }
}

fn nic_failed(error: QueueError) -> Failure {
    Failure::failed(format!("the NIC: {error}"))
}

fn driver_config(link: &Link) -> Config {
    let mut config = Config::default();
    config.tx_descriptors = DESCRIPTORS;
    config.rx_descriptors = DESCRIPTORS;
    config.mtu = link.mtu;
    config.checksum_offload = !link.no_checksum;
    link.device.configure(&mut config);
    config
}

fn stack_config(link: &Link, budget: Budget, nic: &impl Nic) -> StackConfig {
    let mut thresholds = Thresholds::default();
    if let Some(least) = budget.share_min {
        thresholds.live = least;
    }
    let mut secret = [0; 16];
    fastrand::Rng::new().fill(&mut secret);
    StackConfig {
        mac: nic.mac_address(),
        address: link.address,
        prefix_len: link.prefix_len,
        gateway: link.gateway,
        mtu: link.mtu,
        // What is handed in at a time is as long as it can be; nothing better comes by waiting.
        nagle: false,
        send_limit: budget.connection,
        thresholds,
        backlog: 128,
        secret,
        ..StackConfig::default()
    }
}
