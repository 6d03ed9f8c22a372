//! A NIC of any driver: the control part.

use core::fmt;
use core::net::SocketAddr;

use pagewire_e1000e::E1000e;
use pagewire_hal::{
    Capabilities, Causes, DomainId, Instant, LinkState, MacAddress, Nic, NicError, Phase, Platform,
    QueuePair, Statistics, Token, pci,
};
use pagewire_ixgbe::Ixgbe;
use pagewire_virtio::VirtioNet;

use crate::pairs::{own_pair, with_own_pairs};
use crate::queues::each;
use crate::{AnyRx, AnyTx, Config, Description, Driver, find};

/// A NIC whose driver was chosen by its PCI ids.
///
/// Everything is as the driver inside has it. A program may look inside, or take the driver out
/// by a `match` before it takes the queues.
#[non_exhaustive]
#[allow(
    clippy::large_enum_variant,
    reason = "there is one for each device, and it must not need an allocator"
)]
pub enum AnyNic<P: Platform> {
    /// An 82574L or one of its relatives.
    E1000e(E1000e<P>),
    /// An 82599 or X540.
    Ixgbe(Ixgbe<P>),
    /// A virtio network device.
    Virtio(VirtioNet<P>),
}

impl<P: Platform> AnyNic<P> {
    /// Reads the PCI ids of the device behind `platform` and opens it with the driver for them.
    ///
    /// # Errors
    /// [`NicError::UnknownDevice`] if there is no driver for the device
    /// ([`KnownIds`](crate::KnownIds) lists those that there are for);
    /// [`NicError::Removed`] if nobody answers; else what the driver says, among it
    /// [`NicError::Config`] for a configuration that is out of range, [`NicError::Untested`]
    /// and, for a virtio device that is legacy only, [`NicError::NotOffered`].
    pub fn open(platform: P, config: &Config) -> Result<Self, NicError> {
        config.check()?;
        let (vendor, device) = pci::identity(&platform);
        if vendor == u16::MAX {
            return Err(NicError::Removed);
        }
        let info = find(vendor, device).ok_or(NicError::UnknownDevice { vendor, device })?;
        Ok(match info.driver {
            Driver::E1000e => Self::E1000e(E1000e::open(platform, &config.for_e1000e())?),
            Driver::Ixgbe => Self::Ixgbe(Ixgbe::open(platform, &config.for_ixgbe())?),
            Driver::Virtio => Self::Virtio(VirtioNet::open(platform, &config.for_virtio())?),
        })
    }

    /// Which driver it is.
    #[must_use]
    pub const fn driver(&self) -> Driver {
        match self {
            Self::E1000e(_) => Driver::E1000e,
            Self::Ixgbe(_) => Driver::Ixgbe,
            Self::Virtio(_) => Driver::Virtio,
        }
    }

    /// The driver of the 82574L, if it is that.
    #[must_use]
    pub const fn as_e1000e(&self) -> Option<&E1000e<P>> {
        match self {
            Self::E1000e(nic) => Some(nic),
            _ => None,
        }
    }

    /// The driver of 82599 and X540, if it is that.
    #[must_use]
    pub const fn as_ixgbe(&self) -> Option<&Ixgbe<P>> {
        match self {
            Self::Ixgbe(nic) => Some(nic),
            _ => None,
        }
    }

    /// The driver of virtio-net, if it is that.
    #[must_use]
    pub const fn as_virtio(&self) -> Option<&VirtioNet<P>> {
        match self {
            Self::Virtio(nic) => Some(nic),
            _ => None,
        }
    }

    /// The receive queue that a TCP segment from `source` to `destination` comes to, both of one
    /// address family; `None` where the device decides: virtio-net brings what it receives of a
    /// flow to the pair of queues that the flow was last sent on (virtio 1.3, "Automatic receive
    /// steering in multiqueue mode").
    #[must_use]
    pub fn receive_queue(&self, source: SocketAddr, destination: SocketAddr) -> Option<u16> {
        match self {
            Self::E1000e(_) => Some(0),
            Self::Ixgbe(nic) => Some(nic.receive_queue(source, destination)),
            Self::Virtio(_) => None,
        }
    }

    /// Lets what is transmitted come back from the MAC, while nothing leaves and the link is forced;
    /// or ends that. A reset ends it as well. For self-tests.
    ///
    /// # Errors
    /// [`NicError::NotOffered`] for virtio-net, which has no such thing.
    pub fn set_loopback(&mut self, on: bool) -> Result<(), NicError> {
        match self {
            Self::E1000e(nic) => nic.set_loopback(on),
            Self::Ixgbe(nic) => nic.set_loopback(on),
            Self::Virtio(_) => {
                return Err(NicError::NotOffered {
                    what: "loopback of its own",
                });
            }
        }
        Ok(())
    }

    /// Makes an MSI-X vector fire without a cause of its own. Nothing happens if there is no such
    /// vector, or interrupts are off. For self-tests.
    ///
    /// # Errors
    /// [`NicError::NotOffered`] for virtio-net, which has no such thing.
    pub fn fire_vector(&mut self, vector: u16) -> Result<(), NicError> {
        match self {
            Self::E1000e(nic) => nic.fire_vector(vector),
            Self::Ixgbe(nic) => nic.fire_vector(vector),
            Self::Virtio(_) => {
                return Err(NicError::NotOffered {
                    what: "register that sets an interrupt cause",
                });
            }
        }
        Ok(())
    }

    /// The device's name, and what was negotiated with it where that is done.
    #[must_use]
    pub fn describe(&self) -> Description {
        Description {
            name: self.name(),
            features: self.as_virtio().map(VirtioNet::features),
        }
    }
}

impl<P: Platform> fmt::Debug for AnyNic<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        each!(self, in AnyNic, nic => nic.fmt(f))
    }
}

/// Calls a method of the driver inside with the pairs that are its own.
macro_rules! with_own_queues {
    ($value:expr, $queues:expr, $own:ident, $pairs:ident => $work:expr) => {
        match $value {
            AnyNic::E1000e($own) => with_own_pairs($queues, own_pair!(E1000e), |$pairs| $work),
            AnyNic::Ixgbe($own) => with_own_pairs($queues, own_pair!(Ixgbe), |$pairs| $work),
            AnyNic::Virtio($own) => with_own_pairs($queues, own_pair!(Virtio), |$pairs| $work),
        }
    };
}

// SAFETY: every call goes to the driver inside, which keeps the promise. `restart` and `release`
// hand it all pairs, each at its position, or none: so positions and queues are as the driver has
// them. Pairs of another driver are refused before it is called.
unsafe impl<P: Platform> Nic for AnyNic<P> {
    type Tx = AnyTx<P>;
    type Rx = AnyRx<P>;
    type Memory = P::Memory;

    fn name(&self) -> &'static str {
        each!(self, in AnyNic, nic => nic.name())
    }

    fn capabilities(&self) -> &Capabilities {
        each!(self, in AnyNic, nic => nic.capabilities())
    }

    fn mac_address(&self) -> MacAddress {
        each!(self, in AnyNic, nic => nic.mac_address())
    }

    fn domain(&self) -> DomainId {
        each!(self, in AnyNic, nic => nic.domain())
    }

    fn allocate(&mut self, len: usize, align: usize) -> Result<Self::Memory, NicError> {
        each!(self, in AnyNic, nic => nic.allocate(len, align))
    }

    fn take_queues(&mut self, index: u16) -> Option<(Self::Tx, Self::Rx)> {
        match self {
            Self::E1000e(nic) => {
                let (tx, rx) = nic.take_queues(index)?;
                Some((AnyTx::E1000e(tx), AnyRx::E1000e(rx)))
            }
            Self::Ixgbe(nic) => {
                let (tx, rx) = nic.take_queues(index)?;
                Some((AnyTx::Ixgbe(tx), AnyRx::Ixgbe(rx)))
            }
            Self::Virtio(nic) => {
                let (tx, rx) = nic.take_queues(index)?;
                Some((AnyTx::Virtio(tx), AnyRx::Virtio(rx)))
            }
        }
    }

    fn link(&mut self) -> LinkState {
        each!(self, in AnyNic, nic => nic.link())
    }

    fn statistics(&mut self) -> Statistics {
        each!(self, in AnyNic, nic => nic.statistics())
    }

    fn enable_interrupts(&mut self) -> Result<u16, NicError> {
        each!(self, in AnyNic, nic => nic.enable_interrupts())
    }

    fn take_interrupts(&mut self) -> Causes {
        each!(self, in AnyNic, nic => nic.take_interrupts())
    }

    fn poll(&mut self, now: Instant) -> Result<Phase, NicError> {
        each!(self, in AnyNic, nic => nic.poll(now))
    }

    fn begin_reset(&mut self, now: Instant) {
        each!(self, in AnyNic, nic => nic.begin_reset(now));
    }

    fn restart(
        &mut self,
        queues: &mut [QueuePair<'_, Self::Tx, Self::Rx>],
        released: &mut dyn FnMut(u16, Token),
    ) -> Result<(), NicError> {
        with_own_queues!(self, queues, nic, pairs => nic.restart(pairs, released))
    }

    fn release(
        &mut self,
        queues: &mut [QueuePair<'_, Self::Tx, Self::Rx>],
        released: &mut dyn FnMut(u16, Token),
    ) -> Result<(), NicError> {
        with_own_queues!(self, queues, nic, pairs => nic.release(pairs, released))
    }
}
