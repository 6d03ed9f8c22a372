//! What the examples share: the e1000e driver on a model of the 82574L, under smoltcp, its wire
//! a TAP in a network namespace of its own.
#![allow(dead_code, unreachable_pub, missing_docs)]

pub mod namespace;

use std::error::Error;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant as RealInstant};

use pagewire::e1000e::{Config, E1000e};
use pagewire::hal::{Granule, Instant};
use pagewire_drivers::smoltcp::PhyDevice;
use pagewire_models::e1000e::{E1000e82574, ModelConfig};
use pagewire_models::{Host, HostConfig, ModelHandle, ModelPlatform};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use smoltcp::iface::{Config as InterfaceConfig, Interface, SocketSet};
use smoltcp::socket::tcp;
use smoltcp::time::Instant as SmoltcpInstant;
use smoltcp::wire::{HardwareAddress, IpCidr, Ipv4Address};

use namespace::{LONGEST_PACKET, Namespace};

/// The address of the NIC; that of the kernel is [`namespace::KERNEL`].
pub const ADDRESS: Ipv4Address = Ipv4Address::new(10, 77, 0, 1);

/// The longest sleep: a model has no interrupt that would wake us, its timers are polled.
const NAP: Duration = Duration::from_millis(1);

/// A NIC under smoltcp, and the kernel at the other end of its wire.
pub struct Machine {
    pub namespace: Namespace,
    pub device: PhyDevice<E1000e<ModelPlatform>>,
    interface: Interface,
    model: ModelHandle<E1000e82574>,
    host: Host,
    base: Instant,
    start: RealInstant,
    readable: OwnedFd,
}

impl Machine {
    pub fn start() -> Result<Self, Box<dyn Error>> {
        let (namespace, tap) = Namespace::with_tap()?;
        let readable = tap.as_fd().try_clone_to_owned()?;
        let host = Host::new(HostConfig {
            seed: 1,
            granule: Granule::CONTIGUOUS,
        });
        let attached = host.attach(E1000e82574::new(ModelConfig::default(), Box::new(tap)));
        let mut config = Config::default();
        config.mtu = LONGEST_PACKET;
        let nic = E1000e::open(attached.platform, &config)?;
        // From here on it is like any NIC.
        let mut device = PhyDevice::new(nic, &Default::default())?;
        let address = HardwareAddress::Ethernet(device.ethernet_address());
        let config = InterfaceConfig::new(address);
        let mut interface = Interface::new(config, &mut device, SmoltcpInstant::ZERO);
        interface.update_ip_addrs(|addresses| {
            // There is room for the first.
            let _ = addresses.push(IpCidr::new(ADDRESS.into(), 24));
        });
        Ok(Self {
            namespace,
            device,
            interface,
            model: attached.handle,
            base: host.now(),
            host,
            start: RealInstant::now(),
            readable,
        })
    }

    /// Lets everybody work; sleeps if there is nothing to do.
    pub fn poll(&mut self, sockets: &mut SocketSet<'_>) -> Result<(), Box<dyn Error>> {
        let now = self.base + self.start.elapsed();
        self.host.set_now(now);
        let mut busy = self.model.step();
        let time = SmoltcpInstant::from_micros_const((now.as_nanos() / 1000) as i64);
        let before = self.device.counters();
        self.interface.poll(time, &mut self.device.burst(), sockets);
        busy |= self.device.counters() != before;
        if let Some(fault) = self.device.fault() {
            return Err(fault.into());
        }
        if !busy {
            self.device.poll(now)?;
            let mut fds = [PollFd::new(&self.readable, PollFlags::IN)];
            // A signal ends the sleep early, which is what is wanted.
            let _ = poll(&mut fds, Timespec::try_from(NAP).ok().as_ref());
        }
        Ok(())
    }

    /// Stops the device; it gives back all that it was lent.
    pub fn shut_down(&mut self) -> Result<(), Box<dyn Error>> {
        let Self {
            device,
            model,
            host,
            ..
        } = self;
        device.shut_down(|| {
            model.step();
            host.advance(Duration::from_micros(10));
            host.now()
        })?;
        Ok(())
    }
}

/// Has the socket listen whenever it is free. One in TIME-WAIT is: the example has few sockets,
/// and old segments do no harm here.
pub fn listen(socket: &mut tcp::Socket<'_>, port: u16) -> Result<(), Box<dyn Error>> {
    if socket.state() == tcp::State::TimeWait {
        socket.abort();
    }
    if !socket.is_open() {
        socket.listen(port)?;
    }
    Ok(())
}

/// Whether the example was asked to try itself and end.
pub fn wants_self_test() -> bool {
    std::env::args().any(|argument| argument == "--self-test")
}
