//! smoltcp on any [`Nic`]: its [`phy::Device`] over the HAL.
//!
//! [`PhyDevice::new`] takes a NIC that a driver has opened. smoltcp copies: a frame that it
//! writes is one buffer, so nothing is gathered and nothing shared; who wants that uses
//! `pagewire-tcp`. What it gets from the device here are checksums and segmentation.
//!
//! # Doorbells
//! smoltcp does not say when it has sent its last frame for now, so the device itself, as a
//! [`phy::Device`], rings the doorbell for every frame: none is ever left behind. For one doorbell
//! per burst, lend smoltcp a [`Burst`]: it rings when it goes.
//!
//! ```
//! use pagewire_drivers::smoltcp::PhyDevice;
//! use pagewire_hal::Nic;
//! use smoltcp::iface::{Interface, SocketSet};
//! use smoltcp::time::Instant;
//!
//! fn work<N: Nic>(device: &mut PhyDevice<N>, interface: &mut Interface, sockets: &mut SocketSet) {
//!     interface.poll(Instant::ZERO, &mut device.burst(), sockets);
//! }
//! ```
//!
//! smoltcp answers a frame before it takes the next one. So nothing is received while the
//! transmit ring or its buffers are full: frames wait in the device, and poll again when it has
//! transmitted.
//!
//! # What smoltcp is told
//! | smoltcp's field | becomes | when the NIC |
//! |---|---|---|
//! | `max_transmission_unit` | [`max_frame_len`](pagewire_hal::Capabilities::max_frame_len) | always (both count the Ethernet header); less if its gather list holds less |
//! | `checksum.ipv4` | no transmit / no receive | inserts / verifies `IPV4_HEADER` |
//! | `checksum.tcp` | no transmit | inserts `TCP_IPV4`, `TCP_IPV6` or `GENERIC` |
//! | | no receive | verifies `TCP_IPV4` or `TCP_IPV6` |
//! | `checksum.udp` | no transmit / no receive | inserts / verifies `UDP_IPV4` or `UDP_IPV6` |
//! | `checksum.icmpv4`, `icmpv6` | both by smoltcp | never |
//! | `segmentation.tcpv4` | headers and payload of one request, 64 KiB at most | segments IPv4 and inserts its checksums |
//! | `segmentation.tcpv6` | none: smoltcp 0.14.0 drops what it would have segmented over IPv6 | never |
//! | `max_burst_size` | [`Config::max_burst`] | always |
//!
//! smoltcp has one switch for a protocol over IPv4 and IPv6. Where a NIC does only one of the
//! two, the adapter sums the other. It also sums what a device cannot: a UDP datagram shorter
//! than its packet, a received frame of which the device says nothing. A frame that the device
//! finds wrong is dropped; nothing unverified is passed on as verified.
//!
//! A checksum field that is not zero is left alone: a raw socket's own. One that is zero is
//! filled in, also where a raw socket meant "none".
//!
//! IP fragments are dropped unless [`Config::fragments`] says otherwise.
//!
//! # When something breaks
//! [`PhyDevice::fault`] says what a queue has seen; [`PhyDevice::poll`] is [`Nic::poll`]. After a
//! reset, [`PhyDevice::restart`] goes on. To end, [`PhyDevice::shut_down`]: dropped without it, a
//! device goes on as it was, and the memory that it knows leaks.

mod checksum;
mod config;
mod mapping;
mod packet;
mod receive;
mod transmit;

use core::fmt;

use ::smoltcp::phy::{self, DeviceCapabilities};
use ::smoltcp::time::Instant as SmoltcpInstant;
use ::smoltcp::wire::EthernetAddress;
use pagewire_hal::{Instant, Nic, NicError, Phase, PortPair, QueueError, TxPort};

pub use config::Config;
pub use receive::RxToken;
pub use transmit::TxToken;

use mapping::Mapping;
use receive::Receive;
use transmit::Transmit;

/// The shortest MTU with which IPv4 works (RFC 791: every host takes 576 bytes), and the
/// Ethernet header. smoltcp computes with less and underflows.
const SHORTEST_MAX_FRAME: usize = 576 + packet::ETHERNET_HEADER;

/// What was done and what was dropped. Counts from the beginning, across resets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Counters {
    /// Frames posted.
    pub transmitted: u64,
    /// Frames that could not be posted: too long, or the queue is down.
    pub transmit_lost: u64,
    /// Fragments of IP packets not sent, see [`Config::fragments`].
    pub transmit_fragments: u64,
    /// TCP and UDP checksums that the device was asked to insert; segmented frames apart.
    pub device_checksums: u64,
    /// TCP and UDP checksums that smoltcp left out and that were summed here.
    pub cpu_checksums: u64,
    /// Frames handed to smoltcp.
    pub received: u64,
    /// Frames dropped because a checksum is wrong.
    pub bad_checksums: u64,
    /// Frames dropped because IP lengths contradict each other, or an IPv6 route has not ended.
    pub malformed: u64,
    /// Received fragments dropped, see [`Config::fragments`].
    pub receive_fragments: u64,
    /// Received frames longer than the NIC said that they would be.
    pub too_long: u64,
    /// TCP and UDP checksums that the device has found right.
    pub device_verified: u64,
    /// TCP and UDP checksums of which the device said nothing, and that were summed here.
    pub cpu_verified: u64,
}

/// The first error of a queue since the last reset.
#[derive(Clone, Copy, Debug, Default)]
struct Fault(Option<QueueError>);

impl Fault {
    fn note(&mut self, error: QueueError) {
        if self.0.is_none() {
            log::warn!("{error}");
            self.0 = Some(error);
        }
    }
}

/// A NIC as smoltcp knows one. It uses queue pair 0.
pub struct PhyDevice<N: Nic> {
    nic: N,
    transmit: Transmit<N>,
    receive: Receive<N::Rx>,
}

impl<N: Nic> fmt::Debug for PhyDevice<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PhyDevice")
            .field("nic", &self.nic.name())
            .field("mapping", &self.transmit.mapping)
            .field("counters", &self.transmit.counters)
            .field("fault", &self.transmit.fault)
            .finish_non_exhaustive()
    }
}

impl<N: Nic> PhyDevice<N> {
    /// Puts `nic`, which runs, under smoltcp.
    ///
    /// # Errors
    /// [`NicError::Config`] if a value of `config` is out of its range, the NIC's frames are too
    /// short for IP, or its queue pair 0 was taken already; or what the platform said when asked
    /// for memory. The NIC goes on as it was and its rings leak then, as when any is dropped.
    pub fn new(mut nic: N, config: &Config) -> Result<Self, NicError> {
        config.check()?;
        let mapping = Mapping::new(nic.capabilities(), config);
        if mapping.frame_len < SHORTEST_MAX_FRAME {
            return Err(NicError::Config {
                what: "smoltcp needs frames of 590 bytes at least",
            });
        }
        let (tx, rx) = nic.take_queues(0).ok_or(NicError::Config {
            what: "queue pair 0 of the NIC was taken already",
        })?;
        let transmit = Transmit::new(&mut nic, tx, mapping, config)?;
        let receive = Receive::new(rx, &mapping, usize::from(config.receive_batch));
        Ok(Self {
            nic,
            transmit,
            receive,
        })
    }

    /// A view of the device for one call of smoltcp's `poll`: frames are posted, and the
    /// doorbell rings once, when the view is dropped.
    pub fn burst(&mut self) -> Burst<'_, N> {
        Burst { device: self }
    }

    /// The station address, for smoltcp's interface.
    #[must_use]
    pub fn ethernet_address(&self) -> EthernetAddress {
        EthernetAddress(self.nic.mac_address().0)
    }

    /// What was done and what was dropped.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.transmit.counters
    }

    /// What a queue has seen that it must not. Nothing is sent or received until a reset.
    #[must_use]
    pub const fn fault(&self) -> Option<QueueError> {
        self.transmit.fault.0
    }

    /// The control part, for the link, interrupts, statistics and
    /// [`begin_reset`](Nic::begin_reset).
    pub const fn nic_mut(&mut self) -> &mut N {
        &mut self.nic
    }

    /// The port that transmits, to look at.
    #[must_use]
    pub const fn port(&self) -> &TxPort<N::Tx, N::Memory> {
        &self.transmit.port
    }

    /// Frames that the device may still read. Takes back those that have completed.
    pub fn outstanding(&mut self) -> usize {
        if let Err(error) = self.transmit.reclaim() {
            self.transmit.fault.note(error);
        }
        self.transmit.port.outstanding()
    }

    /// Watches the device and goes on with a reset, see [`Nic::poll`]: to be called a few times
    /// a second.
    ///
    /// # Errors
    /// As there.
    pub fn poll(&mut self, now: Instant) -> Result<Phase, NicError> {
        self.nic.poll(now)
    }

    /// Ends a reset: in [`Phase::Quiet`], starts the device again. Frames that were under way
    /// are lost, maybe after they were sent.
    ///
    /// # Errors
    /// As [`Nic::restart`].
    pub fn restart(&mut self) -> Result<(), NicError> {
        pagewire_hal::restart(
            &mut self.nic,
            &mut [pair(&mut self.transmit, &mut self.receive)],
        )?;
        self.transmit.fault = Fault::default();
        Ok(())
    }

    /// Ends a reset the other way: in [`Phase::Quiet`], takes back what the device was lent and
    /// leaves it stopped.
    ///
    /// # Errors
    /// As [`Nic::release`].
    pub fn release(&mut self) -> Result<(), NicError> {
        pagewire_hal::release(
            &mut self.nic,
            &mut [pair(&mut self.transmit, &mut self.receive)],
        )
    }

    /// Stops the device and takes back what it was lent: dropping it then frees all memory.
    /// `now` tells the time whenever it is called; it may sleep a little, or let a model work.
    ///
    /// # Errors
    /// As [`Nic::poll`] and [`Nic::release`]; [`NicError::WrongPhase`] from a NIC that does not
    /// begin to stop.
    pub fn shut_down(&mut self, mut now: impl FnMut() -> Instant) -> Result<(), NicError> {
        self.nic.begin_reset(now());
        loop {
            match self.nic.poll(now())? {
                Phase::Quiet => return self.release(),
                Phase::Stopping => {}
                Phase::Failed => return Err(NicError::NotQuiet),
                _ => return Err(NicError::WrongPhase),
            }
        }
    }

    /// The NIC, the port and the receive queue, for another use. Frames that were received and
    /// not handed to smoltcp are lost.
    #[must_use]
    pub fn into_parts(self) -> (N, TxPort<N::Tx, N::Memory>, N::Rx) {
        (self.nic, self.transmit.port, self.receive.queue)
    }

    fn receive_tokens(&mut self, rings: bool) -> Option<(RxToken<'_>, TxToken<'_, N>)> {
        let Self {
            transmit, receive, ..
        } = self;
        // smoltcp answers a frame before it takes the next: no frame without room for that.
        if !transmit.make_room() {
            return None;
        }
        match receive.next_frame(&mut transmit.counters) {
            Ok(Some(frame)) => {
                let frame = frame.judge(&transmit.mapping, &mut transmit.counters);
                Some((frame, TxToken::new(transmit, rings)))
            }
            Ok(None) => None,
            Err(error) => {
                transmit.fault.note(error);
                None
            }
        }
    }

    fn transmit_token(&mut self, rings: bool) -> Option<TxToken<'_, N>> {
        let has_room = self.transmit.make_room();
        has_room.then(|| TxToken::new(&mut self.transmit, rings))
    }
}

fn pair<'a, N: Nic>(
    transmit: &'a mut Transmit<N>,
    receive: &'a mut Receive<N::Rx>,
) -> PortPair<'a, N> {
    PortPair {
        tx: &mut transmit.port,
        rx: &mut receive.queue,
    }
}

/// Every frame is handed to the device at once. See [`burst`](PhyDevice::burst).
impl<N: Nic> phy::Device for PhyDevice<N> {
    type RxToken<'a>
        = RxToken<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = TxToken<'a, N>
    where
        Self: 'a;

    fn receive(&mut self, _: SmoltcpInstant) -> Option<(RxToken<'_>, TxToken<'_, N>)> {
        self.receive_tokens(true)
    }

    fn transmit(&mut self, _: SmoltcpInstant) -> Option<TxToken<'_, N>> {
        self.transmit_token(true)
    }

    fn capabilities(&self) -> DeviceCapabilities {
        self.transmit.mapping.device_capabilities()
    }
}

/// A device for one call of smoltcp's `poll`, see [`PhyDevice::burst`]. Frames are handed to the
/// device when it is dropped, or earlier, when there is no room for more. If it is forgotten
/// (`mem::forget`), they wait for the next frame or burst.
#[derive(Debug)]
pub struct Burst<'b, N: Nic> {
    device: &'b mut PhyDevice<N>,
}

impl<N: Nic> phy::Device for Burst<'_, N> {
    type RxToken<'a>
        = RxToken<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = TxToken<'a, N>
    where
        Self: 'a;

    fn receive(&mut self, _: SmoltcpInstant) -> Option<(RxToken<'_>, TxToken<'_, N>)> {
        self.device.receive_tokens(false)
    }

    fn transmit(&mut self, _: SmoltcpInstant) -> Option<TxToken<'_, N>> {
        self.device.transmit_token(false)
    }

    fn capabilities(&self) -> DeviceCapabilities {
        self.device.transmit.mapping.device_capabilities()
    }
}

impl<N: Nic> Drop for Burst<'_, N> {
    fn drop(&mut self) {
        self.device.transmit.port.doorbell();
    }
}
