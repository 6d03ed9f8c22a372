//! An interface of this machine as a peer: a packet socket, which sends and hears whole frames.
//!
//! Sources: packet(7), netdevice(7), Linux `include/uapi/linux/ethtool.h`.

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use pagewire::drivers::selftest::Peer;
use pagewire::hal::MacAddress;

use crate::error::Failure;

/// `ethtool.h`: whether received segments are joined (GRO); read and written.
const ETHTOOL_GGRO: u32 = 0x2b;
const ETHTOOL_SGRO: u32 = 0x2c;
/// Bytes of frames that wait for us: the default holds a hundred or so.
const BUFFER: libc::c_int = 4 << 20;
/// The longest frame: joined segments, should GRO not be off.
const LONGEST: usize = 1 << 16;
/// How long the interface's own queue may be full.
const PATIENCE: Duration = Duration::from_secs(1);

/// An interface that hears all frames and joins none, for the time of the value.
pub(super) struct PacketSocket {
    name: String,
    socket: OwnedFd,
    mac: MacAddress,
    /// What is put back at the end.
    was_up: bool,
    joined: bool,
    buffer: Vec<u8>,
}

/// A request of ethtool with one number (`struct ethtool_value`).
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

impl PacketSocket {
    /// Sets the interface up and listens to it.
    pub(super) fn open(name: &str) -> Result<Self, Failure> {
        Self::try_open(name).map_err(|error| {
            let hint = match error.raw_os_error() {
                Some(libc::ENODEV) => "; `ip link` shows the interfaces that there are",
                Some(libc::EPERM | libc::EACCES) => {
                    "; it needs root (CAP_NET_RAW and CAP_NET_ADMIN)"
                }
                _ => "",
            };
            Failure::usage(format!("--peer {name}: {error}{hint}"))
        })
    }

    fn try_open(name: &str) -> io::Result<Self> {
        let protocol = (libc::ETH_P_ALL as u16).to_be();
        let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: socket(2) takes three numbers.
        let socket = check(unsafe { libc::socket(libc::AF_PACKET, kind, protocol.into()) })?;
        // SAFETY: the file was just opened and is nobody else's.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        let mut this = Self {
            name: name.to_owned(),
            socket,
            mac: MacAddress([0; 6]),
            was_up: true,
            joined: false,
            buffer: vec![0; LONGEST],
        };
        let index = this.index()?;
        this.mac = this.ask_mac()?;
        this.was_up = this.flags()? & libc::IFF_UP as i16 != 0;
        if !this.was_up {
            this.set_up(true)?;
        }
        this.joined = this.gro(None).unwrap_or(0) != 0;
        if this.joined {
            this.gro(Some(0))?;
        }
        this.hear_all(index)?;
        this.bind(index, protocol)?;
        Ok(this)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// A request about the interface (netdevice(7)) with its name filled in.
    fn request(&self) -> io::Result<libc::ifreq> {
        let bytes = self.name.as_bytes();
        if bytes.is_empty() || bytes.len() >= libc::IFNAMSIZ || bytes.contains(&0) {
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        }
        // SAFETY: a structure of numbers, for which zeros are values.
        let mut request: libc::ifreq = unsafe { zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(bytes) {
            *to = *from as libc::c_char;
        }
        Ok(request)
    }

    fn ask(&self, what: libc::c_ulong, request: &mut libc::ifreq) -> io::Result<()> {
        // SAFETY: all requests of this file take a `struct ifreq`, and what that points to (ethtool)
        // lives longer than the call.
        let result = unsafe { libc::ioctl(self.socket.as_raw_fd(), what as _, request) };
        check(result).map(drop)
    }

    fn index(&self) -> io::Result<i32> {
        let mut request = self.request()?;
        self.ask(libc::SIOCGIFINDEX, &mut request)?;
        // SAFETY: this request fills in this field.
        Ok(unsafe { request.ifr_ifru.ifru_ifindex })
    }

    fn ask_mac(&self) -> io::Result<MacAddress> {
        let mut request = self.request()?;
        self.ask(libc::SIOCGIFHWADDR, &mut request)?;
        // SAFETY: this request fills in this field.
        let address = unsafe { request.ifr_ifru.ifru_hwaddr };
        if address.sa_family != libc::ARPHRD_ETHER {
            return Err(io::Error::other("it is no Ethernet interface"));
        }
        let mut bytes = [0; 6];
        for (to, from) in bytes.iter_mut().zip(address.sa_data) {
            *to = from as u8;
        }
        Ok(MacAddress(bytes))
    }

    fn flags(&self) -> io::Result<i16> {
        let mut request = self.request()?;
        self.ask(libc::SIOCGIFFLAGS, &mut request)?;
        // SAFETY: this request fills in this field.
        Ok(unsafe { request.ifr_ifru.ifru_flags })
    }

    fn set_up(&self, up: bool) -> io::Result<()> {
        let flags = self.flags()?;
        let bit = libc::IFF_UP as i16;
        let mut request = self.request()?;
        request.ifr_ifru.ifru_flags = if up { flags | bit } else { flags & !bit };
        self.ask(libc::SIOCSIFFLAGS, &mut request)
    }

    /// Whether received segments are joined, or sets it.
    fn gro(&self, set: Option<u32>) -> io::Result<u32> {
        let mut value = EthtoolValue {
            command: if set.is_some() {
                ETHTOOL_SGRO
            } else {
                ETHTOOL_GGRO
            },
            data: set.unwrap_or(0),
        };
        let mut request = self.request()?;
        request.ifr_ifru.ifru_data = (&raw mut value).cast();
        self.ask(libc::SIOCETHTOOL, &mut request)?;
        Ok(value.data)
    }

    /// Hears frames for others as well, as long as the socket is open, and not what it sends.
    fn hear_all(&self, index: i32) -> io::Result<()> {
        let membership = libc::packet_mreq {
            mr_ifindex: index,
            mr_type: libc::PACKET_MR_PROMISC as u16,
            mr_alen: 0,
            mr_address: [0; 8],
        };
        self.option(libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &membership)?;
        self.option(
            libc::SOL_PACKET,
            libc::PACKET_IGNORE_OUTGOING,
            &1 as &libc::c_int,
        )?;
        // More than the limit of the system needs root, as the socket does.
        self.option(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &BUFFER)
    }

    fn option<T>(&self, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
        let len = size_of::<T>() as libc::socklen_t;
        let value = (&raw const *value).cast();
        // SAFETY: `value` points to `len` bytes.
        let result = unsafe { libc::setsockopt(self.socket.as_raw_fd(), level, name, value, len) };
        check(result).map(drop)
    }

    fn bind(&self, index: i32, protocol: u16) -> io::Result<()> {
        // SAFETY: a structure of numbers, for which zeros are values.
        let mut address: libc::sockaddr_ll = unsafe { zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol;
        address.sll_ifindex = index;
        let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        let address = (&raw const address).cast();
        // SAFETY: `address` points to `len` bytes of an address.
        check(unsafe { libc::bind(self.socket.as_raw_fd(), address, len) }).map(drop)
    }

    fn put_back(&self) -> io::Result<()> {
        if self.joined {
            self.gro(Some(1))?;
        }
        if !self.was_up {
            self.set_up(false)?;
        }
        Ok(())
    }
}

impl Drop for PacketSocket {
    fn drop(&mut self) {
        if let Err(error) = self.put_back() {
            log::error!("the interface {} is not as it was: {error}", self.name);
        }
    }
}

impl Peer for PacketSocket {
    fn mac_address(&self) -> MacAddress {
        self.mac
    }

    fn send(&mut self, frame: &[u8]) -> Result<(), String> {
        let start = Instant::now();
        loop {
            let (bytes, len) = (frame.as_ptr().cast(), frame.len());
            // SAFETY: `bytes` points to `len` bytes.
            let sent = unsafe { libc::send(self.socket.as_raw_fd(), bytes, len, 0) };
            if sent >= 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            let full = matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ENOBUFS));
            if !full || start.elapsed() > PATIENCE {
                return Err(format!("{} does not send: {error}", self.name));
            }
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    fn receive(&mut self, frame: &mut Vec<u8>) -> Result<bool, String> {
        let (bytes, len) = (self.buffer.as_mut_ptr().cast(), self.buffer.len());
        // SAFETY: `bytes` points to `len` bytes that are ours to write.
        let got = unsafe { libc::recv(self.socket.as_raw_fd(), bytes, len, 0) };
        let Ok(got) = usize::try_from(got) else {
            let error = io::Error::last_os_error();
            return match error.raw_os_error() {
                Some(libc::EAGAIN | libc::EINTR) => Ok(false),
                _ => Err(format!("{} does not receive: {error}", self.name)),
            };
        };
        frame.clear();
        frame.extend_from_slice(self.buffer.get(..got).unwrap_or_default());
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::PacketSocket;

    #[test]
    fn names_that_are_none_are_refused() {
        for name in ["", "an-interface-name-too-long", "no-such-if0"] {
            let error = PacketSocket::open(name).err().unwrap();
            assert_eq!(error.status(), 2);
            assert!(error.to_string().contains("--peer"), "{error}");
        }
    }
}
