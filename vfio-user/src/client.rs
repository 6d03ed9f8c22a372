//! The client's end of a connection.

use std::fmt;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

use crate::message::{
    self, ACTION_TRIGGER, Access, DATA_EVENTFD, DATA_NONE, DEVICE_PCI, HEADER, Header,
    IRQ_AUTOMASKED, LONGEST, MOST_DATA, REGION_READABLE, REGION_WRITABLE, SetIrqs, Version,
    command, flag, size,
};
use crate::{DmaMap, IrqInfo, PCI_IRQS, PCI_REGIONS, RegionInfo};

const CAPABILITIES: &str =
    "{\"capabilities\":{\"max_msg_fds\":1,\"max_data_xfer_size\":1048576}}\0";
/// File descriptors that go with one message where a server does not say how many.
const LEAST_FDS: usize = 1;

/// Why a device behind a socket could not be had or used.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ClientError {
    /// There is no such socket, or nobody listens.
    NoServer {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        errno: Errno,
    },
    /// The server has a client already.
    InUse,
    /// The server has gone.
    Gone,
    /// The server does not answer in time.
    Silent,
    /// The server refuses.
    Refused {
        /// What it was asked to do.
        doing: &'static str,
        /// Its error number.
        errno: Errno,
    },
    /// The server says what it must not.
    Nonsense(&'static str),
    /// A system call failed.
    System(Errno),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoServer { path, errno } => write!(
                f,
                "no vfio-user server listens at {} ({errno}): start one first, `pagewire model` say",
                path.display()
            ),
            Self::InUse => write!(
                f,
                "the vfio-user server has a client already: only one can drive the device"
            ),
            Self::Gone => write!(f, "the vfio-user server has gone: start it and try again"),
            Self::Silent => write!(f, "the vfio-user server does not answer"),
            Self::Refused { doing, errno } => {
                write!(f, "the vfio-user server refuses to {doing}: {errno}")
            }
            Self::Nonsense(what) => {
                write!(f, "the vfio-user server says what it must not: {what}")
            }
            Self::System(errno) => write!(f, "the socket of the vfio-user server fails: {errno}"),
        }
    }
}

impl std::error::Error for ClientError {}

/// A connection with the server of a PCI device.
///
/// Each call waits for the server's reply. After the first error of the connection itself (all but
/// [`ClientError::Refused`]) it is over, and every further call fails with [`ClientError::Gone`].
#[derive(Debug)]
pub struct Client {
    socket: OwnedFd,
    next: u16,
    most_fds: usize,
    is_over: bool,
    reply: Vec<u8>,
}

impl Client {
    /// Connects to the server at `path`, and agrees with it on the version. The server has
    /// `patience` for each reply.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn connect(path: &Path, patience: Duration) -> Result<Self, ClientError> {
        let no_server = |errno| ClientError::NoServer {
            path: path.to_owned(),
            errno,
        };
        let flags = SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
            .map_err(ClientError::System)?;
        for timeout in [Timeout::Recv, Timeout::Send] {
            set_socket_timeout(&socket, timeout, Some(patience)).map_err(ClientError::System)?;
        }
        let address = SocketAddrUnix::new(path).map_err(no_server)?;
        rustix::net::connect(&socket, &address).map_err(|errno| match errno {
            Errno::AGAIN => ClientError::Silent,
            errno => no_server(errno),
        })?;
        let mut client = Self {
            socket,
            next: 0,
            most_fds: LEAST_FDS,
            is_over: false,
            reply: Vec::new(),
        };
        client.agree()?;
        Ok(client)
    }

    fn agree(&mut self) -> Result<(), ClientError> {
        let ours = Version { major: 0, minor: 1 };
        let parts = [ours.as_bytes(), CAPABILITIES.as_bytes()];
        let said = self.request(command::VERSION, "talk", &parts, &[]);
        let said = match said {
            Err(ClientError::Refused {
                errno: Errno::BUSY, ..
            }) => return Err(ClientError::InUse),
            other => other?,
        };
        let Ok((version, text)) = Version::read_from_prefix(said) else {
            return Err(self.nonsense("a version without a number"));
        };
        if version.major != 0 {
            return Err(self.nonsense("a version of the protocol that we do not speak"));
        }
        let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
        self.most_fds = most_fds(text).clamp(LEAST_FDS, message::MOST_FDS);
        let info: message::Info = self.ask(
            command::GET_INFO,
            "describe the device",
            &message::Info {
                argsz: size::<message::Info>(),
                ..message::Info::new_zeroed()
            },
        )?;
        if info.flags & DEVICE_PCI == 0 {
            return Err(self.nonsense("the device is none of PCI"));
        }
        if info.regions < PCI_REGIONS - 1 || info.irqs < PCI_IRQS - 2 {
            return Err(self.nonsense("a PCI device with less than one has"));
        }
        Ok(())
    }

    /// What there is of region `index`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn region(&mut self, index: u32) -> Result<RegionInfo, ClientError> {
        let question = message::Region {
            argsz: size::<message::Region>(),
            index,
            ..message::Region::new_zeroed()
        };
        let region: message::Region =
            self.ask(command::GET_REGION_INFO, "describe a region", &question)?;
        Ok(RegionInfo {
            len: region.size,
            readable: region.flags & REGION_READABLE != 0,
            writable: region.flags & REGION_WRITABLE != 0,
        })
    }

    /// What there is of interrupts of kind `index`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn irqs(&mut self, index: u32) -> Result<IrqInfo, ClientError> {
        let question = message::Irq {
            argsz: size::<message::Irq>(),
            index,
            ..message::Irq::new_zeroed()
        };
        let irq: message::Irq =
            self.ask(command::GET_IRQ_INFO, "describe its interrupts", &question)?;
        Ok(IrqInfo {
            count: irq.count,
            automasked: irq.flags & IRQ_AUTOMASKED != 0,
        })
    }

    /// Fills `data` from `region`, from `offset` on.
    ///
    /// # Errors
    /// [`ClientError`]; `data` is then as it was.
    pub fn read(&mut self, region: u32, offset: u64, data: &mut [u8]) -> Result<(), ClientError> {
        let access = access(region, offset, data)?;
        let said = self.request(
            command::REGION_READ,
            "read a register",
            &[access.as_bytes()],
            &[],
        )?;
        let read = said.get(size_of::<Access>()..).unwrap_or_default();
        if read.len() != data.len() {
            return Err(self.nonsense("a read of another length"));
        }
        data.copy_from_slice(read);
        Ok(())
    }

    /// Writes `data` to `region`, from `offset` on; on return it has reached the device.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn write(&mut self, region: u32, offset: u64, data: &[u8]) -> Result<(), ClientError> {
        let access = access(region, offset, data)?;
        let parts = [access.as_bytes(), data];
        self.request(command::REGION_WRITE, "write a register", &parts, &[])?;
        Ok(())
    }

    /// Makes memory of `file` reachable for the device.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn map(&mut self, map: DmaMap, file: BorrowedFd<'_>) -> Result<(), ClientError> {
        let mut flags = 0;
        if map.readable {
            flags |= message::MAP_READ;
        }
        if map.writable {
            flags |= message::MAP_WRITE;
        }
        let request = message::DmaMap {
            argsz: size::<message::DmaMap>(),
            flags,
            offset: map.offset,
            address: map.address,
            size: map.len,
        };
        let parts = [request.as_bytes()];
        self.request(command::DMA_MAP, "map memory", &parts, &[file])?;
        Ok(())
    }

    /// Makes it unreachable again.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn unmap(&mut self, address: u64, len: u64) -> Result<(), ClientError> {
        let request = message::DmaUnmap {
            argsz: size::<message::DmaUnmap>(),
            flags: 0,
            address,
            size: len,
        };
        let parts = [request.as_bytes()];
        self.request(command::DMA_UNMAP, "unmap memory", &parts, &[])?;
        Ok(())
    }

    /// Lets the first interrupts of kind `index` signal these eventfds, and no others anything.
    /// None at all turns them off.
    ///
    /// # Errors
    /// [`ClientError`]; some may then be connected.
    pub fn connect_irqs(
        &mut self,
        index: u32,
        eventfds: &[BorrowedFd<'_>],
    ) -> Result<(), ClientError> {
        let off = set_irqs(DATA_NONE, index, 0, 0);
        let doing = "set up interrupts";
        self.request(command::SET_IRQS, doing, &[off.as_bytes()], &[])?;
        let mut start = 0;
        for part in eventfds.chunks(self.most_fds) {
            let count = part.len() as u32;
            let on = set_irqs(DATA_EVENTFD, index, start, count);
            self.request(command::SET_IRQS, doing, &[on.as_bytes()], part)?;
            start += count;
        }
        Ok(())
    }

    /// Lets the server signal interrupt `number` of kind `index` as if the device had.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn trigger(&mut self, index: u32, number: u32) -> Result<(), ClientError> {
        let set = set_irqs(DATA_NONE, index, number, 1);
        let doing = "trigger an interrupt";
        self.request(command::SET_IRQS, doing, &[set.as_bytes()], &[])?;
        Ok(())
    }

    /// Resets the device.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn reset(&mut self) -> Result<(), ClientError> {
        self.request(command::RESET, "reset the device", &[], &[])?;
        Ok(())
    }

    /// Ends the connection: the server sees it at once, and every further call fails.
    pub fn hang_up(&mut self) {
        self.is_over = true;
        // It may have gone already.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
    }

    /// Whether the connection is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    fn nonsense(&mut self, what: &'static str) -> ClientError {
        self.is_over = true;
        ClientError::Nonsense(what)
    }

    /// A request of one layout and a reply of the same.
    fn ask<T: FromBytes + IntoBytes + Immutable>(
        &mut self,
        command: u16,
        doing: &'static str,
        question: &T,
    ) -> Result<T, ClientError> {
        let said = self.request(command, doing, &[question.as_bytes()], &[])?;
        match T::read_from_prefix(said) {
            Ok((answer, _)) => Ok(answer),
            Err(_) => Err(self.nonsense("a reply that is too short")),
        }
    }

    /// Sends a command and returns what follows the header of the reply.
    fn request(
        &mut self,
        command: u16,
        doing: &'static str,
        parts: &[&[u8]],
        fds: &[BorrowedFd<'_>],
    ) -> Result<&[u8], ClientError> {
        if self.is_over {
            return Err(ClientError::Gone);
        }
        let exchanged = self.exchange(command, parts, fds);
        let header = exchanged.inspect_err(|_| self.is_over = true)?;
        if header.flags & flag::ERROR != 0 {
            let errno = Errno::from_raw_os_error(header.error.clamp(1, 4095) as i32);
            return Err(ClientError::Refused { doing, errno });
        }
        Ok(&self.reply)
    }

    fn exchange(
        &mut self,
        command: u16,
        parts: &[&[u8]],
        fds: &[BorrowedFd<'_>],
    ) -> Result<Header, ClientError> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        let header = Header {
            id,
            command,
            size: (HEADER + len) as u32,
            flags: 0,
            error: 0,
        };
        let mut bytes = Vec::with_capacity(HEADER + len);
        bytes.extend_from_slice(header.as_bytes());
        parts.iter().for_each(|part| bytes.extend_from_slice(part));
        match self.send(&bytes, fds) {
            // It may have said why before it hung up.
            Err(ClientError::Gone) => self.receive(command, id).map_err(|_| ClientError::Gone),
            sent => {
                sent?;
                self.receive(command, id)
            }
        }
    }

    fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), ClientError> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(message::MOST_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(ClientError::System(Errno::TOOMANYREFS));
        }
        let mut sent = 0;
        while let Some(rest) = bytes.get(sent..).filter(|rest| !rest.is_empty()) {
            let parts = [IoSlice::new(rest)];
            let flags = SendFlags::NOSIGNAL;
            match rustix::net::sendmsg(&self.socket, &parts, &mut control, flags) {
                Ok(len) => sent += len,
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(said(errno)),
            }
            // The files have left with the first bytes.
            control.clear();
        }
        Ok(())
    }

    /// Receives the reply to a command into `reply`, without its header.
    fn receive(&mut self, command: u16, id: u16) -> Result<Header, ClientError> {
        let mut bytes = [0; HEADER];
        receive_exact(&self.socket, &mut bytes)?;
        let header = Header::read_from_bytes(&bytes)
            .map_err(|_| ClientError::Nonsense("a reply without a header"))?;
        if header.flags & flag::TYPE != flag::REPLY {
            return Err(ClientError::Nonsense("a command where a reply was due"));
        }
        if (header.command, header.id) != (command, id) {
            return Err(ClientError::Nonsense("a reply to something else"));
        }
        let len = (header.size as usize).checked_sub(HEADER);
        let len = len.filter(|len| *len <= LONGEST);
        let len = len.ok_or(ClientError::Nonsense("a reply of impossible length"))?;
        self.reply.resize(len, 0);
        receive_exact(&self.socket, &mut self.reply)?;
        Ok(header)
    }
}

/// The number behind `max_msg_fds` in the server's JSON, the one thing there that matters here; 0
/// if there is none.
fn most_fds(text: &[u8]) -> usize {
    const NAME: &str = "\"max_msg_fds\"";
    let text = String::from_utf8_lossy(text);
    let behind = text.split_once(NAME).map(|(_, behind)| behind.trim_start());
    let number = behind.and_then(|behind| behind.strip_prefix(':'));
    let number = number.unwrap_or_default().trim_start();
    let end = number
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(number.len());
    number.get(..end).unwrap_or_default().parse().unwrap_or(0)
}

fn access(region: u32, offset: u64, data: &[u8]) -> Result<Access, ClientError> {
    if data.len() > MOST_DATA {
        return Err(ClientError::System(Errno::INVAL));
    }
    Ok(Access {
        offset,
        region,
        count: data.len() as u32,
    })
}

fn set_irqs(data: u32, index: u32, start: u32, count: u32) -> SetIrqs {
    SetIrqs {
        argsz: size::<SetIrqs>(),
        flags: ACTION_TRIGGER | data,
        index,
        start,
        count,
    }
}

/// What an error of the socket says of the server.
fn said(errno: Errno) -> ClientError {
    match errno {
        Errno::PIPE | Errno::CONNRESET => ClientError::Gone,
        Errno::AGAIN => ClientError::Silent,
        errno => ClientError::System(errno),
    }
}

/// Fills `bytes`. Files that come along are not wanted, and closed by the system, as there is no
/// room for them.
fn receive_exact(socket: &OwnedFd, bytes: &mut [u8]) -> Result<(), ClientError> {
    let mut filled = 0;
    while let Some(room) = bytes.get_mut(filled..).filter(|room| !room.is_empty()) {
        let mut none = RecvAncillaryBuffer::default();
        let mut parts = [IoSliceMut::new(room)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        match rustix::net::recvmsg(socket, &mut parts, &mut none, flags) {
            Ok(message) if message.bytes == 0 => return Err(ClientError::Gone),
            Ok(message) => filled += message.bytes,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(said(errno)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_files_is_found_in_the_json() {
        let found = |text: &str| most_fds(text.as_bytes());
        assert_eq!(found("{\"capabilities\":{\"max_msg_fds\":8,\"x\":1}}"), 8);
        assert_eq!(found("{ \"capabilities\" : { \"max_msg_fds\" : 16 } }"), 16);
        for text in [
            "",
            "{}",
            "\"max_msg_fds\"",
            "\"max_msg_fds\":-1",
            "\"max_msg_fds\":\"8\"",
        ] {
            assert_eq!(found(text), 0, "{text}");
        }
        assert_eq!(found("\"max_msg_fds\":99999999999999999999999"), 0);
    }
}
