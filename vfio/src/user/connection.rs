//! The connection with a server: configuration space, registers, memory.

use std::ops::RangeInclusive;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pagewire_hal::Registers;
use pagewire_vfio_user::{CONFIG_REGION, Client, ClientError, DmaMap};
use rustix::io::Errno;

use crate::iommu::{Access, Api, Iommu, Source};
use crate::space::lock;

/// The addresses that memory is mapped at: what a page table of three levels reaches, without the
/// window of interrupt messages on a PC. A server takes any.
const USABLE: [RangeInclusive<u64>; 2] = [0..=0xfedf_ffff, 0xfef0_0000..=0x7f_ffff_ffff];

/// The connection, which the registers and the mappings share.
#[derive(Debug)]
pub(super) struct Connection {
    client: Mutex<Client>,
    /// Whether it was said that it is over.
    is_reported: AtomicBool,
}

/// The device, until the last of its owners has gone; then the server is hung up on, even if there
/// are regions left.
#[derive(Debug)]
pub(super) struct Device {
    connection: Arc<Connection>,
}

impl Drop for Device {
    fn drop(&mut self) {
        lock(&self.connection.client).hang_up();
    }
}

impl Device {
    pub(super) fn connect(path: &Path, patience: Duration) -> Result<Self, ClientError> {
        let client = Client::connect(path, patience)?;
        Ok(Self {
            connection: Arc::new(Connection {
                client: Mutex::new(client),
                is_reported: AtomicBool::new(false),
            }),
        })
    }

    pub(super) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Reads a word of configuration space; all ones where there is nothing, or no server.
    pub(super) fn read_config(&self, offset: u16) -> u32 {
        let mut word = [0xff; 4];
        if offset.is_multiple_of(4) {
            self.connection
                .read(CONFIG_REGION, offset.into(), &mut word);
        }
        u32::from_le_bytes(word)
    }

    pub(super) fn write_config(&self, offset: u16, value: u32) {
        if offset.is_multiple_of(4) {
            let value = value.to_le_bytes();
            self.connection.write(CONFIG_REGION, offset.into(), &value);
        }
    }
}

impl Connection {
    pub(super) fn with<T>(
        &self,
        f: impl FnOnce(&mut Client) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let mut client = lock(&self.client);
        f(&mut client).inspect_err(|error| self.report(error))
    }

    /// Whether the server has gone.
    pub(super) fn is_over(&self) -> bool {
        lock(&self.client).is_over()
    }

    /// Into the log: what a driver sees of it is all ones. That the connection is over is said
    /// once.
    fn report(&self, error: &ClientError) {
        match error {
            ClientError::Refused { .. } => log::warn!("{error}"),
            _ if !self.is_reported.swap(true, Ordering::Relaxed) => log::error!("{error}"),
            _ => {}
        }
    }

    /// Fills `data`, or leaves it as it is.
    fn read(&self, region: u32, offset: u64, data: &mut [u8]) {
        let _ = self.with(|client| client.read(region, offset, data));
    }

    fn write(&self, region: u32, offset: u64, data: &[u8]) {
        let _ = self.with(|client| client.write(region, offset, data));
    }
}

/// The server's idea of our memory.
#[derive(Debug)]
pub(super) struct RemoteMemory {
    connection: Arc<Connection>,
    page: u64,
}

impl RemoteMemory {
    pub(super) fn new(connection: &Arc<Connection>) -> Self {
        Self {
            connection: Arc::clone(connection),
            page: rustix::param::page_size() as u64,
        }
    }
}

impl Iommu for RemoteMemory {
    fn api(&self) -> Option<Api> {
        None
    }

    fn wants_files(&self) -> bool {
        true
    }

    fn usable(&self) -> Vec<RangeInclusive<u64>> {
        USABLE.to_vec()
    }

    fn page(&self) -> u64 {
        self.page
    }

    unsafe fn map(
        &self,
        memory: Source<'_>,
        len: u64,
        iova: u64,
        access: Access,
    ) -> Result<(), Errno> {
        let file = memory.file.ok_or(Errno::BADF)?;
        // The last page may reach beyond the file's end: there is nothing to map.
        let there = u64::try_from(rustix::fs::fstat(file)?.st_size).unwrap_or(0);
        let map = DmaMap {
            address: iova,
            len: len.min(there),
            offset: 0,
            readable: true,
            writable: access == Access::ReadWrite,
        };
        let mapped = self.connection.with(|client| client.map(map, file));
        mapped.map_err(|error| errno_of(&error))
    }

    fn unmap(&self, iova: u64, len: u64) -> Result<(), Errno> {
        let unmapped = lock(&self.connection.client).unmap(iova, len);
        match unmapped {
            // A server that has gone, or that still writes although it was hung up on, has the
            // file, whose memory is never used for anything else. Nobody needs to hear of it: what
            // outlives the device is unmapped when that has been hung up on.
            Ok(()) | Err(ClientError::Gone | ClientError::Silent) => Ok(()),
            Err(error) => {
                self.connection.report(&error);
                Err(errno_of(&error))
            }
        }
    }

    fn reset_owners(&self) -> Vec<BorrowedFd<'_>> {
        Vec::new()
    }
}

/// What of an error fits into a number.
pub(super) fn errno_of(error: &ClientError) -> Errno {
    match error {
        ClientError::Refused { errno, .. } | ClientError::System(errno) => *errno,
        ClientError::InUse => Errno::BUSY,
        _ => Errno::NODEV,
    }
}

/// One memory BAR of a device behind a vfio-user socket: each access is a message and its reply,
/// some 20 µs. Reads of a device whose server has gone are all ones.
#[derive(Clone, Debug)]
pub struct VfioUserRegisters {
    device: Arc<Device>,
    bar: u8,
    len: u32,
}

impl VfioUserRegisters {
    pub(super) fn new(device: &Arc<Device>, bar: u8, len: u64) -> Self {
        Self {
            device: Arc::clone(device),
            bar,
            len: u32::try_from(len).unwrap_or(u32::MAX),
        }
    }

    /// Whether there is a register of `width` bytes.
    fn has(&self, offset: u32, width: u32) -> bool {
        let end = offset.checked_add(width);
        offset.is_multiple_of(width) && end.is_some_and(|end| end <= self.len)
    }

    fn load<const N: usize>(&self, offset: u32) -> [u8; N] {
        let mut data = [0xff; N];
        if self.has(offset, N as u32) {
            let connection = &self.device.connection;
            connection.read(self.bar.into(), offset.into(), &mut data);
        }
        data
    }

    fn store(&self, offset: u32, data: &[u8]) {
        if self.has(offset, data.len() as u32) {
            let connection = &self.device.connection;
            connection.write(self.bar.into(), offset.into(), data);
        }
    }
}

impl Registers for VfioUserRegisters {
    fn read(&self, offset: u32) -> u32 {
        u32::from_le_bytes(self.load(offset))
    }

    unsafe fn write(&self, offset: u32, value: u32) {
        self.store(offset, &value.to_le_bytes());
    }

    fn read16(&self, offset: u32) -> u16 {
        u16::from_le_bytes(self.load(offset))
    }

    unsafe fn write16(&self, offset: u32, value: u16) {
        self.store(offset, &value.to_le_bytes());
    }

    fn read8(&self, offset: u32) -> u8 {
        u8::from_le_bytes(self.load(offset))
    }

    unsafe fn write8(&self, offset: u32, value: u8) {
        self.store(offset, &value.to_le_bytes());
    }
}
