//! Both ends of the socket: against each other, against the crate `vfio_user`, and against a
//! peer that means no good.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a panic is the failure")]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use pagewire_vfio_user::{
    Backend, BindError, CONFIG_REGION, Client, ClientError, DmaMap, DmaUnmap, Errno, INTX, IrqInfo,
    IrqSet, Listener, MSIX, RegionInfo, SessionError,
};
use rustix::event::{EventfdFlags, PollFd, PollFlags};
use rustix::fs::MemfdFlags;

const PATIENCE: Duration = Duration::from_secs(20);
const VECTORS: u32 = 20;

/// What a test device remembers.
#[derive(Default)]
struct State {
    config: Vec<u8>,
    bar: Vec<u8>,
    maps: Vec<(DmaMap, Option<File>)>,
    eventfds: Vec<Option<OwnedFd>>,
    resets: u32,
}

/// A device of one BAR and twenty vectors.
#[derive(Clone, Default)]
struct Device(Arc<Mutex<State>>);

impl Device {
    fn new() -> Self {
        let state = State {
            config: (0..=255).collect(),
            bar: vec![0; 0x10_0000 + 64],
            ..State::default()
        };
        Self(Arc::new(Mutex::new(state)))
    }
}

impl Backend for Device {
    fn region(&self, index: u32) -> RegionInfo {
        let state = self.0.lock().unwrap();
        let len = match index {
            0 => state.bar.len() as u64,
            CONFIG_REGION => 256,
            _ => 0,
        };
        RegionInfo {
            len,
            readable: true,
            writable: true,
        }
    }

    fn irqs(&self, index: u32) -> IrqInfo {
        IrqInfo {
            count: match index {
                INTX => 1,
                MSIX => VECTORS,
                _ => 0,
            },
            automasked: index == INTX,
        }
    }

    fn read(&mut self, region: u32, offset: u64, data: &mut [u8]) -> Result<(), Errno> {
        let state = self.0.lock().unwrap();
        let bytes = if region == 0 {
            &state.bar
        } else {
            &state.config
        };
        data.copy_from_slice(&bytes[offset as usize..offset as usize + data.len()]);
        Ok(())
    }

    fn write(&mut self, region: u32, offset: u64, data: &[u8]) -> Result<(), Errno> {
        let mut state = self.0.lock().unwrap();
        if region != 0 {
            return Err(Errno::ROFS);
        }
        state.bar[offset as usize..offset as usize + data.len()].copy_from_slice(data);
        Ok(())
    }

    fn map(&mut self, map: DmaMap, file: Option<OwnedFd>) -> Result<(), Errno> {
        if map.len > 1 << 40 {
            return Err(Errno::NOSPC);
        }
        let file = file.map(File::from);
        self.0.lock().unwrap().maps.push((map, file));
        Ok(())
    }

    fn unmap(&mut self, unmap: DmaUnmap) -> Result<(), Errno> {
        let maps = &mut self.0.lock().unwrap().maps;
        match unmap {
            DmaUnmap::All => maps.clear(),
            DmaUnmap::Range { address, .. } => maps.retain(|(map, _)| map.address != address),
        }
        Ok(())
    }

    fn set_irqs(&mut self, index: u32, start: u32, count: u32, set: IrqSet) -> Result<(), Errno> {
        let eventfds = &mut self.0.lock().unwrap().eventfds;
        match set {
            IrqSet::Connect(new) => {
                assert_eq!(new.len(), count as usize, "of kind {index}");
                eventfds.resize_with(VECTORS as usize, || None);
                for (place, new) in eventfds.iter_mut().skip(start as usize).zip(new) {
                    *place = new;
                }
            }
            IrqSet::Disconnect => eventfds.clear(),
            IrqSet::Trigger(which) => {
                let chosen = eventfds.iter().skip(start as usize).zip(which);
                for (eventfd, _) in chosen.filter(|(_, wanted)| *wanted) {
                    let eventfd = eventfd.as_ref().ok_or(Errno::INVAL)?;
                    rustix::io::write(eventfd, &1_u64.to_ne_bytes()).unwrap();
                }
            }
            IrqSet::Mask | IrqSet::Unmask | IrqSet::UnmaskBy(_) => {}
        }
        Ok(())
    }

    fn reset(&mut self) -> Result<(), Errno> {
        self.0.lock().unwrap().resets += 1;
        Ok(())
    }
}

/// A place for a socket.
fn place() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("device");
    (directory, path)
}

/// Serves clients until one has been served to its end; how that was.
fn serve(path: &Path, mut device: Device) -> JoinHandle<SessionError> {
    let listener = Listener::bind(path).unwrap();
    std::thread::spawn(move || {
        let wait = |file: &dyn AsFd, flags| {
            let file = file.as_fd();
            rustix::event::poll(&mut [PollFd::from_borrowed_fd(file, flags)], None).unwrap();
        };
        wait(&listener, PollFlags::IN);
        let mut session = listener.accept().unwrap().unwrap();
        loop {
            let mut flags = PollFlags::IN;
            flags.set(PollFlags::OUT, session.wants_to_write());
            wait(&session, flags);
            if let Err(error) = session.handle(&mut device) {
                return error;
            }
        }
    })
}

fn memfd(len: u64) -> OwnedFd {
    let file = rustix::fs::memfd_create("pagewire-test", MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&file, len).unwrap();
    file
}

fn eventfds(count: u32) -> Vec<OwnedFd> {
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
    let eventfd = |_| rustix::event::eventfd(0, flags).unwrap();
    (0..count).map(eventfd).collect()
}

fn fired(eventfd: &OwnedFd) -> bool {
    rustix::io::read(eventfd, &mut [0; 8]).is_ok()
}

/// What one client does with a device.
fn exercise(client: &mut Client, device: &Device) {
    assert_eq!(client.region(0).unwrap().len, 0x10_0040);
    assert_eq!(client.region(1).unwrap().len, 0);
    assert_eq!(client.irqs(MSIX).unwrap().count, VECTORS);
    let mut word = [0; 4];
    client.read(CONFIG_REGION, 0x40, &mut word).unwrap();
    assert_eq!(word, [0x40, 0x41, 0x42, 0x43]);
    // As long as it may be.
    let long: Vec<u8> = (0..1 << 20).map(|i| (i * 3) as u8).collect();
    client.write(0, 64, &long).unwrap();
    let mut back = vec![0; 1 << 20];
    client.read(0, 64, &mut back).unwrap();
    assert!(back == long);
    let file = memfd(8192);
    rustix::io::pwrite(&file, b"shared", 4096).unwrap();
    let map = DmaMap {
        address: 0x7000,
        len: 4096,
        offset: 4096,
        readable: true,
        writable: true,
    };
    client.map(map, file.as_fd()).unwrap();
    {
        let state = device.0.lock().unwrap();
        let (mapped, file) = state.maps.first().unwrap();
        assert_eq!(*mapped, map);
        let mut bytes = [0; 6];
        rustix::io::pread(file.as_ref().unwrap(), &mut bytes, 4096).unwrap();
        assert_eq!(&bytes, b"shared");
    }
    client.unmap(0x7000, 4096).unwrap();
    assert!(device.0.lock().unwrap().maps.is_empty());
    let eventfds = eventfds(VECTORS);
    let borrowed: Vec<_> = eventfds.iter().map(AsFd::as_fd).collect();
    client.connect_irqs(MSIX, &borrowed).unwrap();
    client.trigger(MSIX, 17).unwrap();
    let which: Vec<_> = eventfds.iter().map(fired).collect();
    assert_eq!(which.iter().position(|fired| *fired), Some(17));
    client.connect_irqs(MSIX, &[]).unwrap();
    assert!(device.0.lock().unwrap().eventfds.is_empty());
    client.reset().unwrap();
    assert_eq!(device.0.lock().unwrap().resets, 1);
}

#[test]
fn our_client_and_our_server() {
    let (_directory, path) = place();
    let device = Device::new();
    let server = serve(&path, device.clone());
    let mut client = Client::connect(&path, PATIENCE).unwrap();
    exercise(&mut client, &device);
    // A refusal is one, and the connection goes on.
    let refused = client.write(CONFIG_REGION, 0, &[1]);
    let doing = "write a register";
    assert_eq!(
        refused,
        Err(ClientError::Refused {
            doing,
            errno: Errno::ROFS
        })
    );
    assert!(client.read(0, 0x10_003e, &mut [0; 4]).is_err());
    assert!(client.read(0, u64::MAX, &mut [0; 4]).is_err());
    assert!(client.read(9, 0, &mut [0; 4]).is_err());
    assert!(client.region(9).is_err());
    let eventfds = eventfds(VECTORS + 1);
    let borrowed: Vec<_> = eventfds.iter().map(AsFd::as_fd).collect();
    assert!(client.connect_irqs(MSIX, &borrowed).is_err());
    assert!(!client.is_over());
    client.read(0, 0, &mut [0; 4]).unwrap();
    drop(client);
    assert_eq!(server.join().unwrap(), SessionError::Closed);
    assert!(!path.exists());
}

#[test]
fn the_crates_client_and_our_server() {
    let (_directory, path) = place();
    let device = Device::new();
    let server = serve(&path, device.clone());
    let mut client = vfio_user::Client::new(&path).unwrap();
    assert_eq!(client.region(0).unwrap().size, 0x10_0040);
    assert_eq!(client.region(CONFIG_REGION).unwrap().size, 256);
    let irqs = client.get_irq_info(MSIX).unwrap();
    assert_eq!(irqs.count, VECTORS);
    client
        .region_write(0, 8, &[1, 2, 3, 4, 5, 6, 7, 8])
        .unwrap();
    let mut back = [0; 4];
    client.region_read(0, 10, &mut back).unwrap();
    assert_eq!(back, [3, 4, 5, 6]);
    let file = memfd(4096);
    client.dma_map(0, 0x1000, 4096, file.as_raw_fd()).unwrap();
    assert_eq!(device.0.lock().unwrap().maps.len(), 1);
    client.dma_unmap(0x1000, 4096).unwrap();
    assert!(device.0.lock().unwrap().maps.is_empty());
    let eventfds = eventfds(VECTORS);
    let raw: Vec<_> = eventfds.iter().map(AsRawFd::as_raw_fd).collect();
    // Eventfds, to be triggered; all twenty in one message.
    client.set_irqs(MSIX, 4 | 32, 0, VECTORS, &raw).unwrap();
    client.set_irqs(MSIX, 1 | 32, 3, 1, &[]).unwrap();
    assert!(fired(&eventfds[3]));
    client.reset().unwrap();
    assert_eq!(device.0.lock().unwrap().resets, 1);
    // It says the contrary of what the server says.
    assert!(!client.resettable());
    drop(client);
    assert_eq!(server.join().unwrap(), SessionError::Closed);
}

/// Our device behind the crate's server.
struct Theirs(Device);

impl vfio_user::ServerBackend for Theirs {
    fn region_read(&mut self, region: u32, at: u64, data: &mut [u8]) -> std::io::Result<()> {
        Ok(Backend::read(&mut self.0, region, at, data)?)
    }

    fn region_write(&mut self, region: u32, at: u64, data: &[u8]) -> std::io::Result<()> {
        Ok(Backend::write(&mut self.0, region, at, data)?)
    }

    fn dma_map(
        &mut self,
        flags: vfio_user::DmaMapFlags,
        offset: u64,
        address: u64,
        len: u64,
        file: Option<File>,
    ) -> std::io::Result<()> {
        let map = DmaMap {
            address,
            len,
            offset,
            readable: flags.contains(vfio_user::DmaMapFlags::READ),
            writable: flags.contains(vfio_user::DmaMapFlags::WRITE),
        };
        Ok(Backend::map(&mut self.0, map, file.map(OwnedFd::from))?)
    }

    fn dma_unmap(
        &mut self,
        _flags: vfio_user::DmaUnmapFlags,
        address: u64,
        len: u64,
    ) -> std::io::Result<()> {
        Ok(Backend::unmap(
            &mut self.0,
            DmaUnmap::Range { address, len },
        )?)
    }

    fn reset(&mut self) -> std::io::Result<()> {
        Ok(Backend::reset(&mut self.0)?)
    }

    fn set_irqs(
        &mut self,
        index: u32,
        flags: u32,
        start: u32,
        count: u32,
        fds: Vec<File>,
    ) -> std::io::Result<()> {
        let set = match (flags & 7, count) {
            (4, _) => IrqSet::Connect(fds.into_iter().map(|fd| Some(fd.into())).collect()),
            (_, 0) => IrqSet::Disconnect,
            _ => IrqSet::Trigger(vec![true; count as usize]),
        };
        Ok(Backend::set_irqs(&mut self.0, index, start, count, set)?)
    }
}

#[test]
fn our_client_and_the_crates_server() {
    let (_directory, path) = place();
    let device = Device::new();
    let mut irqs = Vec::new();
    for index in 0..5 {
        let IrqInfo { count, .. } = device.irqs(index);
        let flags = 1;
        irqs.push(vfio_user::IrqInfo {
            index,
            flags,
            count,
        });
    }
    let region = |index| {
        let RegionInfo { len, .. } = device.region(index);
        let mut region = vfio_user::ServerRegion {
            region_info: Default::default(),
            sparse_areas: Vec::new(),
            mmap_fd: None,
        };
        let info = &mut region.region_info;
        (info.argsz, info.index, info.size, info.flags) = (32, index, len, 3);
        region
    };
    let regions = (0..9).map(region).collect();
    let server = vfio_user::Server::new(&path, true, irqs, regions).unwrap();
    let mut theirs = Theirs(device.clone());
    let server = std::thread::spawn(move || server.run(&mut theirs).unwrap());
    let mut client = Client::connect(&path, PATIENCE).unwrap();
    exercise(&mut client, &device);
    // What the server cannot do is an error here, not an endless wait.
    let error = client.write(CONFIG_REGION, 0, &[1]).unwrap_err();
    assert!(matches!(error, ClientError::Refused { .. }), "{error}");
    drop(client);
    server.join().unwrap();
}

#[test]
fn a_second_client_is_told_that_there_is_one() {
    let (_directory, path) = place();
    let listener = Listener::bind(&path).unwrap();
    let second = path.clone();
    let second = std::thread::spawn(move || Client::connect(&second, PATIENCE).map(drop));
    let file = listener.as_fd();
    rustix::event::poll(&mut [PollFd::from_borrowed_fd(file, PollFlags::IN)], None).unwrap();
    assert!(listener.refuse().unwrap());
    assert_eq!(second.join().unwrap(), Err(ClientError::InUse));
    assert_eq!(listener.refuse(), Ok(false));
}

#[test]
fn a_socket_is_replaced_only_if_nobody_listens() {
    let (_directory, path) = place();
    let absent = Client::connect(&path, PATIENCE).unwrap_err();
    assert!(
        absent.to_string().contains("no vfio-user server listens"),
        "{absent}"
    );
    let listener = Listener::bind(&path).unwrap();
    let second = Listener::bind(&path).unwrap_err();
    assert_eq!(second, BindError::InUse(path.clone()));
    // As SIGKILL leaves it: the file is there, and nobody listens.
    let old = path.with_extension("old");
    std::fs::hard_link(&path, &old).unwrap();
    drop(listener);
    assert!(!path.exists());
    std::fs::rename(&old, &path).unwrap();
    assert!(matches!(
        Client::connect(&path, PATIENCE),
        Err(ClientError::NoServer { .. })
    ));
    let listener = Listener::bind(&path).unwrap();
    // What somebody else has put there since is not removed.
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "mine").unwrap();
    drop(listener);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    let error = Listener::bind(&path).unwrap_err();
    assert_eq!(error, BindError::NoSocket(path.clone()));
    let nowhere = path.with_file_name("no").join("such");
    let error = Listener::bind(&nowhere).unwrap_err().to_string();
    assert!(error.contains("does its directory exist?"), "{error}");
}

/// A well-formed message of a client.
fn message(random: &mut fastrand::Rng) -> Vec<u8> {
    let command: u16 = random.u16(0..16);
    let mut body: Vec<u8> = (0..random.usize(0..64)).map(|_| random.u8(..)).collect();
    if random.bool() {
        // Small numbers are more often in range.
        body.iter_mut()
            .filter(|_| fastrand::bool())
            .for_each(|b| *b = 0);
    }
    let size = match random.u8(0..12) {
        0 => random.u32(..),
        1 => random.u32(0..40),
        _ => 16 + body.len() as u32,
    };
    let flags = if random.u8(0..8) == 0 {
        random.u32(..)
    } else {
        0
    };
    let mut all = Vec::new();
    all.extend(random.u16(..).to_ne_bytes());
    all.extend(command.to_ne_bytes());
    all.extend(size.to_ne_bytes());
    all.extend(flags.to_ne_bytes());
    all.extend([0; 4]);
    all.extend(body);
    all
}

#[test]
fn a_client_that_means_no_good_gets_errors_or_is_hung_up_on() {
    for seed in 0..400 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (_directory, path) = place();
        let server = serve(&path, Device::new());
        let mut stream = UnixStream::connect(&path).unwrap();
        let mut reader = stream.try_clone().unwrap();
        let replies = std::thread::spawn(move || {
            let mut replies = Vec::new();
            // An end by reset is one, too.
            let _ = reader.read_to_end(&mut replies);
            replies.len()
        });
        for _ in 0..random.usize(1..40) {
            let message = message(&mut random);
            // In parts, too.
            let cut = random.usize(0..=message.len());
            let (first, second) = message.split_at(cut);
            if stream
                .write_all(first)
                .and_then(|()| stream.write_all(second))
                .is_err()
            {
                break;
            }
        }
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let end = server.join();
        assert!(end.is_ok(), "seed {seed}: the server has panicked");
        replies.join().unwrap();
    }
}

#[test]
fn a_server_that_means_no_good_gets_an_error() {
    for seed in 0..400 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (_directory, path) = place();
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = [0; 4096];
            while let Ok(len) = stream.read(&mut asked) {
                if len < 16 {
                    break;
                }
                // A reply to this, with something wrong in it or behind it.
                let mut reply = asked[..16].to_vec();
                reply[8] = 1;
                let mut body: Vec<u8> = (0..random.usize(0..80)).map(|_| random.u8(..)).collect();
                if random.u8(0..4) > 0 {
                    // A PCI device of many regions.
                    body.fill(if asked[2] == 1 { 0 } else { 11 });
                }
                let size = if random.u8(0..8) == 0 {
                    random.u32(..)
                } else {
                    16 + body.len() as u32
                };
                reply[4..8].copy_from_slice(&size.to_ne_bytes());
                if random.u8(0..6) == 0 {
                    let place = random.usize(0..reply.len());
                    reply[place] = random.u8(..);
                }
                reply.extend(body);
                if stream.write_all(&reply).is_err() || random.u8(0..12) == 0 {
                    break;
                }
            }
        });
        let patience = Duration::from_millis(50);
        if let Ok(mut client) = Client::connect(&path, patience) {
            for _ in 0..20 {
                let mut data = [0x77; 8];
                if client.read(0, 0, &mut data).is_err() {
                    assert_eq!(data, [0x77; 8], "seed {seed}");
                }
                let _ = client.region(3);
                let _ = client.irqs(2);
                let _ = client.reset();
            }
            if client.is_over() {
                assert_eq!(client.reset(), Err(ClientError::Gone));
            }
        }
        server.join().unwrap();
    }
}
