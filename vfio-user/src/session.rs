//! The server's end of a connection.

use std::fmt;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendFlags,
};
use zerocopy::{FromBytes, IntoBytes};

use crate::message::{
    self, ACTION_MASK, ACTION_TRIGGER, ACTION_UNMASK, Access, DATA_BOOL, DATA_EVENTFD, DATA_NONE,
    DEVICE_PCI, DEVICE_RESET, HEADER, Header, IRQ_AUTOMASKED, IRQ_EVENTFD, IRQ_MASKABLE,
    IRQ_NORESIZE, LONGEST, MOST_DATA, MOST_FDS, REGION_READABLE, REGION_WRITABLE, SetIrqs, Version,
    command, flag, size,
};
use crate::{IrqInfo, PCI_IRQS, PCI_REGIONS, RegionInfo};

/// Bytes that are asked for at once: many register accesses, one long message in parts.
const CHUNK: usize = 64 * 1024;
/// What the server can do: as many file descriptors as QEMU passes at once, and the
/// specification's length of an access.
const CAPABILITIES: &str =
    "{\"capabilities\":{\"max_msg_fds\":8,\"max_data_xfer_size\":1048576}}\0";

/// A device, as a client sees it. Every value comes from the client, and none is believed: an
/// error number is the answer to what cannot be.
pub trait Backend {
    /// What there is of region `index`, which is less than [`PCI_REGIONS`].
    fn region(&self, index: u32) -> RegionInfo;
    /// What there is of interrupts of kind `index`, which is less than [`PCI_IRQS`].
    fn irqs(&self, index: u32) -> IrqInfo;
    /// Fills `data` from `region`, from `offset` on. The bytes lie inside the region.
    ///
    /// # Errors
    /// The error number for the client.
    fn read(&mut self, region: u32, offset: u64, data: &mut [u8]) -> Result<(), Errno>;
    /// Writes `data` to `region`, from `offset` on. The bytes lie inside the region.
    ///
    /// # Errors
    /// The error number for the client, which it does not see if the write was posted.
    fn write(&mut self, region: u32, offset: u64, data: &[u8]) -> Result<(), Errno>;
    /// Makes memory of the client reachable for the device; without a file it is not, and only
    /// the addresses are taken.
    ///
    /// # Errors
    /// The error number for the client.
    fn map(&mut self, map: DmaMap, file: Option<OwnedFd>) -> Result<(), Errno>;
    /// Makes it unreachable again. Memory that was never mapped is none to the client, so that is
    /// no error.
    ///
    /// # Errors
    /// The error number for the client.
    fn unmap(&mut self, unmap: DmaUnmap) -> Result<(), Errno>;
    /// Sets up interrupts of kind `index`: those from `start` on, `count` of them, which all are
    /// among those that [`irqs`](Self::irqs) has told of.
    ///
    /// # Errors
    /// The error number for the client.
    fn set_irqs(&mut self, index: u32, start: u32, count: u32, set: IrqSet) -> Result<(), Errno>;
    /// Resets the device.
    ///
    /// # Errors
    /// The error number for the client.
    fn reset(&mut self) -> Result<(), Errno>;
}

/// Memory of the client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DmaMap {
    /// Where the device finds it.
    pub address: u64,
    /// Bytes, at least 1; the last one's address is one of 64 bits.
    pub len: u64,
    /// Where it is in the file.
    pub offset: u64,
    /// Whether the device may read it.
    pub readable: bool,
    /// Whether the device may write it.
    pub writable: bool,
}

/// Which memory the device has to lose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DmaUnmap {
    /// What lies at these addresses, of which the last is one of 64 bits.
    Range {
        /// The first.
        address: u64,
        /// How many.
        len: u64,
    },
    /// All.
    All,
}

/// What becomes of interrupts.
#[derive(Debug)]
pub enum IrqSet {
    /// Each signals its eventfd from now on, or none (as many as there are interrupts).
    Connect(Vec<Option<OwnedFd>>),
    /// None signals anything any more; if there were none in the command, none of its kind.
    Disconnect,
    /// They are signalled now, as if the device had; of several those that are true.
    Trigger(Vec<bool>),
    /// They are held back.
    Mask,
    /// They are held back no longer.
    Unmask,
    /// Whenever this eventfd becomes readable they are held back no longer.
    UnmaskBy(Option<OwnedFd>),
}

/// Why a connection is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SessionError {
    /// The client has gone.
    Closed,
    /// The client sends what is no message.
    Nonsense(&'static str),
    /// A system call failed.
    System(Errno),
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => write!(f, "the client has gone"),
            Self::Nonsense(what) => write!(f, "the client sends what is no message: {what}"),
            Self::System(errno) => write!(f, "the socket fails: {errno}"),
        }
    }
}

impl std::error::Error for SessionError {}

/// A connection with a client. Never blocks: poll its file descriptor, for reading, and for
/// writing as well while [`wants_to_write`](Self::wants_to_write).
#[derive(Debug)]
pub struct Session {
    socket: OwnedFd,
    /// What has arrived; `used` bytes of it have been handled, `filled` are there.
    buffer: Vec<u8>,
    used: usize,
    filled: usize,
    /// Of the message that the last byte is in.
    fds: Vec<OwnedFd>,
    /// Replies, of which `sent` bytes have left.
    out: Vec<u8>,
    sent: usize,
}

impl AsFd for Session {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Session {
    /// A connection over `socket`, which must not block.
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            buffer: vec![0; CHUNK],
            used: 0,
            filled: 0,
            fds: Vec::new(),
            out: Vec::new(),
            sent: 0,
        }
    }

    /// Whether there are replies that the client has not taken yet. Nothing more is read from it
    /// until it has.
    #[must_use]
    pub fn wants_to_write(&self) -> bool {
        self.sent < self.out.len()
    }

    /// Handles the messages that have arrived, and says whether there were any.
    ///
    /// # Errors
    /// [`SessionError`]: the connection is over.
    pub fn handle(&mut self, backend: &mut dyn Backend) -> Result<bool, SessionError> {
        self.flush()?;
        if self.wants_to_write() {
            return Ok(false);
        }
        let mut handled = self.handle_received(backend)?;
        if !handled && self.fill()? {
            handled = self.handle_received(backend)?;
        }
        self.flush()?;
        Ok(handled)
    }

    /// Handles what has been received, or as much of it as has short replies.
    fn handle_received(&mut self, backend: &mut dyn Backend) -> Result<bool, SessionError> {
        let mut handled = false;
        while self.out.len() <= MOST_DATA
            && let Some((header, end)) = self.next_message()?
        {
            // File descriptors come with the first byte of what they were sent with, and nothing
            // behind it is received in the same call: so they are of the message at the end.
            let fds = if end == self.filled {
                std::mem::take(&mut self.fds)
            } else {
                Vec::new()
            };
            let body = self.buffer.get(self.used + HEADER..end).unwrap_or_default();
            answer(backend, &header, body, fds, &mut self.out);
            self.used = end;
            handled = true;
        }
        Ok(handled)
    }

    /// The next message, if it is there as a whole, and where it ends.
    fn next_message(&self) -> Result<Option<(Header, usize)>, SessionError> {
        let there = self.buffer.get(self.used..self.filled).unwrap_or_default();
        let Ok((header, _)) = Header::read_from_prefix(there) else {
            return Ok(None);
        };
        let size = header.size as usize;
        if size < HEADER {
            return Err(SessionError::Nonsense("shorter than its header"));
        }
        if size > LONGEST {
            return Err(SessionError::Nonsense("longer than was agreed"));
        }
        Ok((size <= there.len()).then_some((header, self.used + size)))
    }

    /// Receives once; whether anything has come.
    fn fill(&mut self) -> Result<bool, SessionError> {
        self.buffer.copy_within(self.used..self.filled, 0);
        self.filled -= self.used;
        self.used = 0;
        let wanted = (self.filled + CHUNK).next_multiple_of(CHUNK);
        if self.buffer.len() < wanted && self.filled + CHUNK / 2 > self.buffer.len() {
            self.buffer.resize(wanted, 0);
        }
        let room = self.buffer.get_mut(self.filled..).unwrap_or_default();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::net::recvmsg(
            &self.socket,
            &mut [IoSliceMut::new(room)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
        );
        let len = match received {
            Ok(message) => message.bytes,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(false),
            Err(Errno::CONNRESET) => return Err(SessionError::Closed),
            Err(errno) => return Err(SessionError::System(errno)),
        };
        for passed in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = passed {
                self.fds.extend(fds);
            }
        }
        if self.fds.len() > MOST_FDS {
            return Err(SessionError::Nonsense("more files than fit a message"));
        }
        if len == 0 {
            return Err(SessionError::Closed);
        }
        self.filled += len;
        Ok(true)
    }

    /// Sends what the client takes.
    fn flush(&mut self) -> Result<(), SessionError> {
        while let Some(rest) = self.out.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match send(&self.socket, rest) {
                Ok(len) => self.sent += len,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(SessionError::Closed),
                Err(errno) => return Err(SessionError::System(errno)),
            }
        }
        self.out.clear();
        self.sent = 0;
        Ok(())
    }

    /// Tells a client that this is not for it, without having heard it, and hangs up.
    pub(crate) fn refuse(socket: &OwnedFd, errno: Errno) {
        let header = Header {
            // Of the first message of both clients that are known.
            id: 0,
            command: command::VERSION,
            size: size::<Header>(),
            flags: flag::REPLY | flag::ERROR,
            error: errno.raw_os_error() as u32,
        };
        // If the client does not take it, it learns from the end of the connection.
        let _ = send(socket, header.as_bytes());
    }
}

/// Sends without blocking, and without a signal if nobody receives.
fn send(socket: &OwnedFd, bytes: &[u8]) -> Result<usize, Errno> {
    rustix::net::sendmsg(
        socket,
        &[IoSlice::new(bytes)],
        &mut SendAncillaryBuffer::default(),
        SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
    )
}

/// Does what a message says, and appends the reply to `out`.
fn answer(
    backend: &mut dyn Backend,
    header: &Header,
    body: &[u8],
    fds: Vec<OwnedFd>,
    out: &mut Vec<u8>,
) {
    if header.flags & flag::TYPE != 0 {
        // A reply, to nothing.
        return;
    }
    let start = out.len();
    out.extend_from_slice(&[0; HEADER]);
    let done = perform(backend, header.command, body, fds, out);
    let mut reply = Header {
        flags: flag::REPLY,
        error: 0,
        ..*header
    };
    if let Err(errno) = done {
        log::debug!("command {} is refused: {errno}", header.command);
        out.truncate(start + HEADER);
        reply.flags |= flag::ERROR;
        reply.error = errno.raw_os_error() as u32;
    }
    if header.flags & flag::NO_REPLY != 0 {
        out.truncate(start);
        return;
    }
    reply.size = (out.len() - start) as u32;
    if let Some(place) = out.get_mut(start..start + HEADER) {
        place.copy_from_slice(reply.as_bytes());
    }
}

/// The beginning of a body.
fn part<T: FromBytes>(body: &[u8]) -> Result<(T, &[u8]), Errno> {
    T::read_from_prefix(body).map_err(|_| Errno::INVAL)
}

/// Does what a command says, and appends what follows the header of the reply.
fn perform(
    backend: &mut dyn Backend,
    command: u16,
    body: &[u8],
    mut fds: Vec<OwnedFd>,
    out: &mut Vec<u8>,
) -> Result<(), Errno> {
    match command {
        command::VERSION => version(body, out)?,
        command::DMA_MAP => {
            let (map, _): (message::DmaMap, _) = part(body)?;
            if fds.len() > 1 {
                return Err(Errno::INVAL);
            }
            backend.map(dma_map(&map)?, fds.pop())?;
        }
        command::DMA_UNMAP => {
            let (unmap, _): (message::DmaUnmap, _) = part(body)?;
            backend.unmap(dma_unmap(&unmap)?)?;
            out.extend_from_slice(unmap.as_bytes());
        }
        command::GET_INFO => {
            let info = message::Info {
                argsz: size::<message::Info>(),
                flags: DEVICE_PCI | DEVICE_RESET,
                regions: PCI_REGIONS,
                irqs: PCI_IRQS,
            };
            out.extend_from_slice(info.as_bytes());
        }
        command::GET_REGION_INFO => {
            let (asked, _): (message::Region, _) = part(body)?;
            out.extend_from_slice(region_info(backend, asked.index)?.as_bytes());
        }
        command::GET_IRQ_INFO => {
            let (asked, _): (message::Irq, _) = part(body)?;
            out.extend_from_slice(irq_info(backend, asked.index)?.as_bytes());
        }
        command::SET_IRQS => {
            let (set, data): (SetIrqs, _) = part(body)?;
            set_irqs(backend, &set, data, fds)?;
        }
        command::REGION_READ => {
            let (access, _): (Access, _) = part(body)?;
            let count = inside(backend, &access)?;
            out.extend_from_slice(access.as_bytes());
            let start = out.len();
            out.resize(start + count, 0);
            let data = out.get_mut(start..).unwrap_or_default();
            backend.read(access.region, access.offset, data)?;
        }
        command::REGION_WRITE => {
            let (access, data): (Access, _) = part(body)?;
            let count = inside(backend, &access)?;
            let data = data.get(..count).ok_or(Errno::INVAL)?;
            backend.write(access.region, access.offset, data)?;
            out.extend_from_slice(access.as_bytes());
        }
        command::RESET => backend.reset()?,
        _ => return Err(Errno::OPNOTSUPP),
    }
    Ok(())
}

fn version(body: &[u8], out: &mut Vec<u8>) -> Result<(), Errno> {
    let (client, _): (Version, _) = part(body)?;
    if client.major != 0 {
        return Err(Errno::OPNOTSUPP);
    }
    // The server names the version that both know; there are 0.0 (QEMU) and 0.1.
    let both = Version {
        major: 0,
        minor: client.minor.min(1),
    };
    out.extend_from_slice(both.as_bytes());
    out.extend_from_slice(CAPABILITIES.as_bytes());
    Ok(())
}

fn dma_map(map: &message::DmaMap) -> Result<DmaMap, Errno> {
    let last = map.size.checked_sub(1).ok_or(Errno::INVAL)?;
    if map.address.checked_add(last).is_none() || map.offset.checked_add(map.size).is_none() {
        return Err(Errno::INVAL);
    }
    Ok(DmaMap {
        address: map.address,
        len: map.size,
        offset: map.offset,
        readable: map.flags & message::MAP_READ != 0,
        writable: map.flags & message::MAP_WRITE != 0,
    })
}

fn dma_unmap(unmap: &message::DmaUnmap) -> Result<DmaUnmap, Errno> {
    if unmap.flags & message::UNMAP_ALL != 0 {
        return Ok(DmaUnmap::All);
    }
    let (address, len) = (unmap.address, unmap.size);
    let last = len.checked_sub(1).ok_or(Errno::INVAL)?;
    if address.checked_add(last).is_none() {
        return Err(Errno::INVAL);
    }
    Ok(DmaUnmap::Range { address, len })
}

fn region_info(backend: &dyn Backend, index: u32) -> Result<message::Region, Errno> {
    if index >= PCI_REGIONS {
        return Err(Errno::INVAL);
    }
    let region = backend.region(index);
    let mut flags = 0;
    if region.readable {
        flags |= REGION_READABLE;
    }
    if region.writable {
        flags |= REGION_WRITABLE;
    }
    Ok(message::Region {
        argsz: size::<message::Region>(),
        flags,
        index,
        capabilities: 0,
        size: region.len,
        offset: 0,
    })
}

fn irq_info(backend: &dyn Backend, index: u32) -> Result<message::Irq, Errno> {
    if index >= PCI_IRQS {
        return Err(Errno::INVAL);
    }
    let irqs = backend.irqs(index);
    let flags = match irqs {
        IrqInfo { count: 0, .. } => 0,
        IrqInfo {
            automasked: true, ..
        } => IRQ_EVENTFD | IRQ_MASKABLE | IRQ_AUTOMASKED,
        IrqInfo { .. } => IRQ_EVENTFD | IRQ_NORESIZE,
    };
    Ok(message::Irq {
        argsz: size::<message::Irq>(),
        flags,
        index,
        count: irqs.count,
    })
}

/// The bytes of an access, if they lie in the region and are not too many.
fn inside(backend: &dyn Backend, access: &Access) -> Result<usize, Errno> {
    if access.region >= PCI_REGIONS || access.count as usize > MOST_DATA {
        return Err(Errno::INVAL);
    }
    let len = backend.region(access.region).len;
    let end = access.offset.checked_add(u64::from(access.count));
    match end {
        Some(end) if end <= len => Ok(access.count as usize),
        _ => Err(Errno::INVAL),
    }
}

fn set_irqs(
    backend: &mut dyn Backend,
    set: &SetIrqs,
    data: &[u8],
    mut fds: Vec<OwnedFd>,
) -> Result<(), Errno> {
    let SetIrqs {
        flags,
        index,
        start,
        count,
        ..
    } = *set;
    if index >= PCI_IRQS {
        return Err(Errno::INVAL);
    }
    let there = backend.irqs(index).count;
    if start.checked_add(count).is_none_or(|end| end > there) {
        return Err(Errno::INVAL);
    }
    let action = flags & (ACTION_MASK | ACTION_UNMASK | ACTION_TRIGGER);
    let kind = flags & (DATA_NONE | DATA_BOOL | DATA_EVENTFD);
    let set = match (action, kind) {
        (ACTION_TRIGGER, DATA_EVENTFD) => {
            if fds.len() > count as usize {
                return Err(Errno::INVAL);
            }
            // Fewer files than interrupts: QEMU sends none at all for those that signal nothing.
            let mut all: Vec<_> = fds.into_iter().map(Some).collect();
            all.resize_with(count as usize, || None);
            IrqSet::Connect(all)
        }
        (ACTION_TRIGGER, DATA_NONE) if count == 0 => IrqSet::Disconnect,
        (ACTION_TRIGGER, DATA_NONE) => IrqSet::Trigger(vec![true; count as usize]),
        (ACTION_TRIGGER, DATA_BOOL) => {
            let data = data.get(..count as usize).ok_or(Errno::INVAL)?;
            IrqSet::Trigger(data.iter().map(|byte| *byte != 0).collect())
        }
        (ACTION_MASK, DATA_NONE) => IrqSet::Mask,
        (ACTION_UNMASK, DATA_NONE) => IrqSet::Unmask,
        (ACTION_UNMASK, DATA_EVENTFD) => IrqSet::UnmaskBy(fds.pop()),
        _ => return Err(Errno::OPNOTSUPP),
    };
    backend.set_irqs(index, start, count, set)
}
