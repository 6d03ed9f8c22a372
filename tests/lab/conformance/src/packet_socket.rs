//! A network interface of the kernel as the far end of a wire, frame by frame (Linux, `packet(7)`).

use std::ffi::CString;
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use pagewire_conformance::FarEnd;

/// Frames that wait to be taken or sent, in bytes: a burst beyond any ring.
const BUFFER: libc::c_int = 64 << 20;
/// Longer than any frame or segment.
const LONGEST: usize = 70_000;
/// Frames that every driver of Linux sends as they are.
const SHORTEST: usize = 17;
/// An Ethernet header.
const ETHERNET: usize = 14;
/// "ethtool -K gro" (Linux, `ethtool.h`): whether the kernel joins segments that it has received.
const ETHTOOL_SGRO: u32 = 0x2c;
/// What an interface does beside, to be read and set.
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETHTOOL_SFLAGS: u32 = 0x26;
/// Of that: it takes VLAN tags out of frames.
const ETH_FLAG_RXVLAN: u32 = 1 << 8;

/// All that arrives at an interface, and what is sent there.
#[derive(Debug)]
pub(crate) struct PacketSocket {
    socket: Socket,
    buffer: Vec<u8>,
    /// The longest frame that the interface takes, in bytes.
    longest: usize,
    /// Takes nothing, but is there: to the last of those who want a frame Linux hands it later than
    /// to the others, and frames that only packet sockets want after those that IP wants as well
    /// (`__netif_receive_skb_list_core`). The socket that was opened first is the last.
    _last: Socket,
}

#[derive(Debug)]
struct Socket(OwnedFd);

/// Of the commands of ethtool, those with one value.
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

impl PacketSocket {
    /// Opens the interface, which is up, and sees to it that frames come as they were on the wire.
    /// Needs root (CAP_NET_RAW, CAP_NET_ADMIN).
    pub(crate) fn open(interface: &str) -> io::Result<Self> {
        let last = Socket::new()?;
        let index = Socket::index_of(interface)?;
        last.refuse_all()?;
        last.bind(index)?;
        let socket = Socket::new()?;
        socket.leave_as_it_was(interface)?;
        // The kernel takes a VLAN tag out of a frame and tells it beside.
        socket.set(libc::SOL_PACKET, libc::PACKET_AUXDATA, &1_i32)?;
        socket.set(libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, &1_i32)?;
        // Into the NIC's ring at once, or lost: a queue before it may change the order.
        socket.set(libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, &1_i32)?;
        socket.set(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &BUFFER)?;
        socket.set(libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &BUFFER)?;
        // SAFETY: all zeros are a value of this plain structure.
        let mut promiscuous: libc::packet_mreq = unsafe { zeroed() };
        promiscuous.mr_ifindex = index;
        promiscuous.mr_type = libc::PACKET_MR_PROMISC as u16;
        socket.set(libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &promiscuous)?;
        socket.bind(index)?;
        Ok(Self {
            longest: socket.mtu(interface)? + ETHERNET,
            socket,
            buffer: vec![0; LONGEST],
            _last: last,
        })
    }

    /// The next frame's length in the buffer, and the tag that was taken out of it.
    fn receive(&mut self) -> io::Result<(usize, Option<Tag>)> {
        let mut vector = libc::iovec {
            iov_base: self.buffer.as_mut_ptr().cast(),
            iov_len: self.buffer.len(),
        };
        // As aligned as a control message wants to be.
        let mut control = [0_u64; 16];
        // SAFETY: all zeros are a value of this plain structure.
        let mut message: libc::msghdr = unsafe { zeroed() };
        message.msg_iov = &mut vector;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control);
        // SAFETY: the buffers are writable for their lengths during the call.
        let len = unsafe { libc::recvmsg(self.socket.fd(), &mut message, 0) };
        let len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
        Ok((len.min(self.buffer.len()), Tag::of(&message)))
    }
}

impl Socket {
    fn new() -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: takes numbers only. With protocol 0 nothing arrives before it is bound.
        let socket = check(unsafe { libc::socket(libc::AF_PACKET, kind, 0) })?;
        // SAFETY: it was just made, and nobody else has it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(socket) }))
    }

    fn fd(&self) -> libc::c_int {
        self.0.as_raw_fd()
    }

    fn set<T>(&self, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
        let len = size_of::<T>() as libc::socklen_t;
        let value = std::ptr::from_ref(value).cast();
        // SAFETY: the value is readable for its length during the call.
        check(unsafe { libc::setsockopt(self.fd(), level, name, value, len) })?;
        Ok(())
    }

    /// Lets no frame in (a filter of one instruction: return 0).
    fn refuse_all(&self) -> io::Result<()> {
        let mut filter = libc::sock_filter {
            code: (libc::BPF_RET | libc::BPF_K) as u16,
            jt: 0,
            jf: 0,
            k: 0,
        };
        let program = libc::sock_fprog {
            len: 1,
            filter: &mut filter,
        };
        self.set(libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
    }

    fn index_of(interface: &str) -> io::Result<libc::c_int> {
        let name = CString::new(interface)?;
        // SAFETY: the name ends in a zero and is read during the call only.
        match unsafe { libc::if_nametoindex(name.as_ptr()) } {
            0 => Err(io::Error::last_os_error()),
            index => Ok(index.cast_signed()),
        }
    }

    /// A request of `netdevice(7)` about this interface.
    fn about(interface: &str) -> io::Result<libc::ifreq> {
        // SAFETY: all zeros are a value of this plain structure.
        let mut request: libc::ifreq = unsafe { zeroed() };
        if interface.len() >= request.ifr_name.len() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
            *to = from.cast_signed();
        }
        Ok(request)
    }

    /// Bytes behind the Ethernet header that the interface takes.
    fn mtu(&self, interface: &str) -> io::Result<usize> {
        let mut request = Self::about(interface)?;
        // SAFETY: the structure lives during the call, which fills in a number.
        check(unsafe { libc::ioctl(self.fd(), libc::SIOCGIFMTU, &mut request) })?;
        // SAFETY: the call has filled in this member.
        let mtu = unsafe { request.ifr_ifru.ifru_mtu };
        usize::try_from(mtu).map_err(|_| io::ErrorKind::InvalidData.into())
    }

    /// Joined segments are not what was on the wire, and neither is a short frame whose VLAN tag the NIC
    /// has taken out: Linux's ixgbe pads it once more.
    fn leave_as_it_was(&self, interface: &str) -> io::Result<()> {
        self.ethtool(interface, ETHTOOL_SGRO, 0)?;
        let flags = self.ethtool(interface, ETHTOOL_GFLAGS, 0)?;
        if flags & ETH_FLAG_RXVLAN != 0 {
            self.ethtool(interface, ETHTOOL_SFLAGS, flags & !ETH_FLAG_RXVLAN)?;
        }
        Ok(())
    }

    /// A command of ethtool with one value; returns what the kernel has made of that.
    fn ethtool(&self, interface: &str, command: u32, data: u32) -> io::Result<u32> {
        let mut value = EthtoolValue { command, data };
        let mut request = Self::about(interface)?;
        request.ifr_ifru.ifru_data = std::ptr::from_mut(&mut value).cast();
        // SAFETY: both structures live during the call, and the command reads or writes one value.
        check(unsafe { libc::ioctl(self.fd(), libc::SIOCETHTOOL, &mut request) })?;
        Ok(value.data)
    }

    fn bind(&self, index: libc::c_int) -> io::Result<()> {
        // SAFETY: all zeros are a value of this plain structure.
        let mut address: libc::sockaddr_ll = unsafe { zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        address.sll_ifindex = index;
        let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        let address = std::ptr::from_ref(&address).cast();
        // SAFETY: the address is readable for its length during the call.
        check(unsafe { libc::bind(self.fd(), address, len) })?;
        Ok(())
    }
}

/// A VLAN tag: its type and its contents.
#[derive(Clone, Copy, Debug)]
struct Tag {
    kind: u16,
    contents: u16,
}

impl Tag {
    fn of(message: &libc::msghdr) -> Option<Self> {
        // SAFETY: the kernel has filled in the message, whose control buffer is alive.
        let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
        while !header.is_null() {
            // SAFETY: not null, so in the control buffer, which is as aligned as the header wants.
            let found = unsafe { &*header };
            if (found.cmsg_level, found.cmsg_type) == (libc::SOL_PACKET, libc::PACKET_AUXDATA) {
                // SAFETY: the header is one of this message.
                let data = unsafe { libc::CMSG_DATA(header) }.cast::<libc::tpacket_auxdata>();
                // SAFETY: a header of this kind is followed by this structure, perhaps not aligned.
                let auxdata = unsafe { data.read_unaligned() };
                let valid = auxdata.tp_status & libc::TP_STATUS_VLAN_VALID != 0;
                return valid.then_some(Self {
                    kind: auxdata.tp_vlan_tpid,
                    contents: auxdata.tp_vlan_tci,
                });
            }
            // SAFETY: as for the first.
            header = unsafe { libc::CMSG_NXTHDR(message, header) };
        }
        None
    }
}

impl FarEnd for PacketSocket {
    fn send(&mut self, frame: &[u8]) {
        // Linux's e1000e would pad it to that.
        if frame.len() < SHORTEST {
            return;
        }
        // What is too long for the interface is refused, and so lost.
        // SAFETY: the frame is readable for its length during the call.
        unsafe { libc::send(self.socket.fd(), frame.as_ptr().cast(), frame.len(), 0) };
    }

    fn longest(&self) -> usize {
        self.longest
    }

    fn take(&mut self) -> Option<Vec<u8>> {
        let (len, tag) = self.receive().ok()?;
        let mut frame = self.buffer[..len].to_vec();
        if let Some(tag) = tag
            && len >= 12
        {
            let bytes = [tag.kind.to_be_bytes(), tag.contents.to_be_bytes()].concat();
            frame.splice(12..12, bytes);
        }
        Some(frame)
    }
}
