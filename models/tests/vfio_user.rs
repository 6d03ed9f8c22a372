//! Models behind a socket, seen by a client that knows registers and no driver.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a panic is the failure")]

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use pagewire_models::vfio_user::{Running, Server};
use pagewire_models::{Device, e1000e, ixgbe, virtio, wire};
use pagewire_vfio_user::{CONFIG_REGION, Client, ClientError, DmaMap, INTX, MSIX};
use rustix::event::EventfdFlags;
use rustix::fs::MemfdFlags;

const PATIENCE: Duration = Duration::from_secs(20);

/// One of the three models.
fn model(kind: usize) -> Box<dyn Device> {
    let wire = Box::new(wire::pair().0);
    match kind {
        0 => Box::new(e1000e::E1000e82574::new(
            e1000e::ModelConfig::default(),
            wire,
        )),
        1 => Box::new(ixgbe::Ixgbe82599::new(ixgbe::ModelConfig::default(), wire)),
        _ => Box::new(virtio::VirtioNet::new(virtio::ModelConfig::default(), wire)),
    }
}

fn serve(kind: usize, path: &Path) -> Running<Box<dyn Device>> {
    let server = Server::bind(path, model(kind), Vec::new()).unwrap();
    server.spawn().unwrap()
}

/// Connects, also while the server still sees off the client before.
fn connect(path: &Path) -> Client {
    loop {
        match Client::connect(path, PATIENCE) {
            Err(ClientError::InUse) => std::thread::yield_now(),
            other => return other.unwrap(),
        }
    }
}

fn word(client: &mut Client, region: u32, offset: u64) -> u32 {
    let mut bytes = [0; 4];
    client.read(region, offset, &mut bytes).unwrap();
    u32::from_le_bytes(bytes)
}

fn memfd(len: u64) -> OwnedFd {
    let file = rustix::fs::memfd_create("pagewire-test", MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&file, len).unwrap();
    file
}

#[test]
fn regions_and_interrupts_are_those_of_the_device() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("device");
    for (kind, id, config, vectors) in [
        (0, 0x10d3_8086, 4096, 5),
        (1, 0x10f7_8086, 4096, 64),
        (2, 0x1041_1af4, 256, 0),
    ] {
        let server = serve(kind, &path);
        let mut client = connect(&path);
        assert_eq!(word(&mut client, CONFIG_REGION, 0), id);
        assert_eq!(client.region(CONFIG_REGION).unwrap().len, config);
        for bar in 0..6 {
            let len = server.with_device(|device| device.bar_len(bar as u8));
            assert_eq!(client.region(bar).unwrap().len, len.map_or(0, u64::from));
        }
        let there = client.irqs(MSIX).unwrap().count;
        assert_eq!(
            there,
            server.with_device(|device| u32::from(device.vectors()))
        );
        assert!(there == vectors || vectors == 0 && there > 0);
        // Intel's have a pin; virtio's model has none.
        assert_eq!(client.irqs(INTX).unwrap().count, u32::from(kind < 2));
        // Bytes of configuration space, across words.
        let mut bytes = [0; 3];
        client.read(CONFIG_REGION, 1, &mut bytes).unwrap();
        assert_eq!(bytes, id.to_le_bytes()[1..]);
    }
    assert!(!path.exists());
}

#[test]
fn registers_have_the_widths_that_they_have() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("device");
    let server = serve(2, &path);
    let mut client = connect(&path);
    // The status of virtio, in its common configuration: 8 bits.
    client.write(4, 20, &[1]).unwrap();
    let mut byte = [0];
    client.read(4, 20, &mut byte).unwrap();
    assert_eq!(byte, [1]);
    // Ended by a reset.
    client.reset().unwrap();
    client.read(4, 20, &mut byte).unwrap();
    assert_eq!(byte, [0]);
    assert_eq!(server.violations(), Vec::<String>::new());
    assert!(client.read(4, 2, &mut [0; 4]).is_err());
    assert!(client.read(4, 0, &mut [0; 3]).is_err());
    assert_eq!(server.violations().len(), 2);
    drop(client);
    drop(server);
    let server = serve(0, &path);
    let mut client = connect(&path);
    // Intel's registers have 32 bits; two of them may be read at once.
    let mut both = [0; 8];
    client.read(0, 0x2800, &mut both).unwrap();
    assert_eq!(both[..4], word(&mut client, 0, 0x2800).to_le_bytes());
    assert!(client.read(0, 8, &mut [0; 2]).is_err());
    let violations = server.violations();
    assert_eq!(violations.len(), 1, "{violations:?}");
}

#[test]
fn the_next_client_finds_the_device_as_the_first_did() {
    const COMMAND: u64 = 4;
    const INTERRUPT_LINE: u64 = 0x3c;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("device");
    let file = memfd(1 << 20);
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
    let eventfd = rustix::event::eventfd(0, flags).unwrap();
    for kind in 0..3 {
        let server = serve(kind, &path);
        let mut first = None;
        for _ in 0..3 {
            let mut client = connect(&path);
            let found: Vec<u32> = (0..64)
                .map(|at| word(&mut client, CONFIG_REGION, 4 * at))
                .collect();
            assert_eq!(*first.get_or_insert(found.clone()), found);
            client
                .write(CONFIG_REGION, INTERRUPT_LINE, &[0x77])
                .unwrap();
            client.write(CONFIG_REGION, COMMAND, &[6, 0]).unwrap();
            let map = DmaMap {
                address: 0x10_0000,
                len: 1 << 20,
                offset: 0,
                readable: true,
                writable: true,
            };
            client.map(map, file.as_fd()).unwrap();
            assert!(client.map(map, file.as_fd()).is_err());
            client.connect_irqs(MSIX, &[eventfd.as_fd()]).unwrap();
            client.trigger(MSIX, 0).unwrap();
            assert!(rustix::io::read(&eventfd, &mut [0; 8]).is_ok());
            // A second client meanwhile is told so, and the first goes on.
            assert_eq!(
                Client::connect(&path, PATIENCE).map(drop),
                Err(ClientError::InUse)
            );
            assert_eq!(word(&mut client, CONFIG_REGION, COMMAND) & 7, 6);
        }
        assert_eq!(server.violations(), Vec::<String>::new());
    }
}

#[test]
fn whatever_a_client_writes_the_server_lives() {
    for kind in 0..3 {
        for seed in 0..30 {
            let mut random = fastrand::Rng::with_seed(seed);
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("device");
            let server = serve(kind, &path);
            let file = memfd(1 << 20);
            let mut client = connect(&path);
            for _ in 0..8 {
                let map = DmaMap {
                    address: random.u64(0..64) << 12,
                    len: random.u64(1..64) << 12,
                    offset: random.u64(0..64) << 12,
                    readable: random.bool(),
                    writable: random.bool(),
                };
                let _ = client.map(map, file.as_fd());
            }
            for _ in 0..600 {
                let region = random.u32(0..9);
                let len = client.region(region).unwrap().len;
                let offset = random.u64(0..=len) & !3;
                let mut data = random.u64(..).to_le_bytes();
                if random.bool() {
                    // An address that is mapped, or an index that is in range.
                    data = (random.u64(..) & 0xf_ffff).to_le_bytes();
                }
                let width = [1, 2, 4, 8, 3][random.usize(0..5)];
                let _ = client.write(region, offset, &data[..width]);
                let _ = client.read(region, offset, &mut data[..width]);
                match random.u8(0..40) {
                    0 => client.reset().unwrap(),
                    1 => client.unmap(random.u64(0..64) << 12, 1 << 14).unwrap(),
                    2 => rustix::fs::ftruncate(&file, random.u64(0..1 << 20)).unwrap(),
                    _ => {}
                }
            }
            assert!(!client.is_over(), "kind {kind}, seed {seed}");
            drop(client);
            let mut next = connect(&path);
            assert_ne!(word(&mut next, CONFIG_REGION, 0), u32::MAX, "seed {seed}");
            drop(server);
        }
    }
}
