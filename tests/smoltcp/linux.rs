//! Linux at the other end: the kernel's TCP, UDP and ping, over a TAP, with the driver on its
//! model or on QEMU's device. The kernel counts what arrives with a wrong checksum.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::thread::JoinHandle;
use std::time::{Duration, Instant as RealInstant};

use pagewire::e1000e::{Config as DriverConfig, E1000e};
use pagewire::hal::{Granule, Instant, Nic};
use pagewire_drivers::smoltcp::{Config, PhyDevice};
use pagewire_models::e1000e::{E1000e82574, ModelConfig};
use pagewire_models::qtest::Qtest;
use pagewire_models::wire::Tap;
use pagewire_models::{Host, HostConfig, Wire};
use rustix::net::{AddressFamily, SocketType, ipproto, socket};

use super::namespace::{KERNEL, Namespace};
use super::qtest::{SOON, options};
use super::server::{ADDRESSES, PORT, Server};
use super::strict;

/// The servers' addresses.
fn servers() -> [IpAddr; 2] {
    ADDRESSES.map(IpAddr::from)
}

/// A namespace with a TAP; `None`, and a line that says why, without the rights for it. In CI
/// that is a failure.
fn namespace() -> Option<(Namespace, Tap)> {
    match Namespace::with_tap() {
        Ok(made) => Some(made),
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "{error}");
            eprintln!("skipped: {error}");
            None
        }
    }
}

/// What the kernel has counted of wrong checksums in the network namespace of this thread.
fn checksum_errors() -> u64 {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/thread-self/net/{name}"));
    let mut errors = 0;
    let mut counters = 0;
    // Pairs of lines: names, numbers.
    for file in ["snmp", "netstat"] {
        let text = read(file).unwrap();
        let lines: Vec<_> = text.lines().collect();
        for pair in lines.chunks(2) {
            let names = pair[0].split_whitespace();
            for (name, value) in names.zip(pair[1].split_whitespace()) {
                if name == "InCsumErrors" || name == "InHdrErrors" {
                    counters += 1;
                    errors += value.parse::<u64>().unwrap();
                }
            }
        }
    }
    for line in read("snmp6").unwrap().lines() {
        if line.contains("InCsumErrors") || line.contains("InHdrErrors") {
            counters += 1;
            let value = line.split_whitespace().nth(1).unwrap();
            errors += value.parse::<u64>().unwrap();
        }
    }
    assert!(counters >= 6, "the kernel has other names: {counters}");
    errors
}

fn stream(server: IpAddr, len: usize) -> io::Result<()> {
    let mut sent = vec![0; len];
    fastrand::Rng::with_seed(len as u64).fill(&mut sent);
    let mut stream = TcpStream::connect_timeout(&SocketAddr::new(server, PORT), SOON)?;
    stream.set_read_timeout(Some(SOON))?;
    let (mut writer, bytes) = (stream.try_clone()?, sent.clone());
    let sender = std::thread::spawn(move || {
        writer.write_all(&bytes)?;
        writer.shutdown(Shutdown::Write)
    });
    let mut received = Vec::new();
    stream.read_to_end(&mut received)?;
    sender.join().unwrap()?;
    assert!(received == sent, "{server}: other bytes");
    Ok(())
}

/// Sends `bytes` and waits for an answer of which the last bytes are the same; a few times.
fn exchange(socket: &UdpSocket, to: SocketAddr, bytes: &[u8], echo: &[u8]) -> io::Result<()> {
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    let mut answer = vec![0; 10_000];
    for _ in 0..20 {
        socket.send_to(bytes, to)?;
        while let Ok((len, _)) = socket.recv_from(&mut answer) {
            if answer[..len].ends_with(echo) {
                return Ok(());
            }
        }
    }
    Err(io::Error::other(format!(
        "{to} does not answer {} bytes",
        bytes.len()
    )))
}

fn datagrams(server: IpAddr, lens: &[usize]) -> io::Result<()> {
    let any = match server {
        IpAddr::V4(_) => "0.0.0.0:0",
        IpAddr::V6(_) => "[::]:0",
    };
    let socket = UdpSocket::bind(any)?;
    for (index, len) in lens.iter().enumerate() {
        let bytes: Vec<u8> = (0..*len).map(|i| (i * 7 + index) as u8).collect();
        exchange(&socket, SocketAddr::new(server, PORT), &bytes, &bytes)?;
    }
    Ok(())
}

fn ping(server: Ipv4Addr, len: usize) -> io::Result<()> {
    let raw = socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::ICMP))?;
    // Any socket will do for a UdpSocket: it is the calls that are wanted.
    let socket = UdpSocket::from(raw);
    let mut request = vec![8, 0, 0, 0, 0x12, 0x34, 0, 1];
    request.extend((0..len).map(|i| i as u8));
    let sum = !strict::sum(&request);
    strict::put(&mut request, 2, sum);
    exchange(
        &socket,
        SocketAddr::new(server.into(), 0),
        &request,
        &request[4..],
    )
}

/// What the kernel's programs do; returns the number of wrong checksums.
fn client(lens: &[usize]) -> io::Result<u64> {
    for server in servers() {
        stream(server, 1 << 20)?;
        datagrams(server, lens)?;
        if let IpAddr::V4(server) = server {
            [0, 1, 56, 1472]
                .iter()
                .try_for_each(|len| ping(server, *len))?;
        }
    }
    // Two at once.
    let [one, other] = servers();
    let thread = std::thread::spawn(move || stream(one, 300_001));
    stream(other, 300_001)?;
    thread.join().unwrap()?;
    Ok(checksum_errors())
}

fn lens() -> Vec<usize> {
    let mut lens = vec![0, 1, 2, 3, 1451, 1452];
    let mut random = fastrand::Rng::with_seed(77);
    lens.extend((0..60).map(|_| random.usize(..1453)));
    lens
}

/// Serves until the kernel's programs have what they want. `work` lets the device work, and
/// tells the time and whether there was anything to do.
fn serve<N: Nic>(
    device: &mut PhyDevice<N>,
    client: JoinHandle<io::Result<io::Result<u64>>>,
    mut work: impl FnMut() -> (Instant, bool),
) -> u64 {
    let mut server = Server::new(device);
    let start = RealInstant::now();
    let mut watched = RealInstant::now();
    while !client.is_finished() {
        assert!(
            start.elapsed() < 6 * SOON,
            "nothing comes any more: {device:?}"
        );
        let (now, mut busy) = work();
        busy |= server.poll(device, now);
        assert_eq!(device.fault(), None);
        if watched.elapsed() > Duration::from_millis(200) {
            watched = RealInstant::now();
            device.poll(now).unwrap();
        }
        if !busy {
            std::thread::sleep(Duration::from_micros(100));
        }
    }
    client.join().unwrap().unwrap().unwrap()
}

fn on_the_model(
    driver: &DriverConfig,
    config: &Config,
    client: impl FnOnce() -> io::Result<u64> + Send + 'static,
) {
    let Some((namespace, tap)) = namespace() else {
        return;
    };
    let host = Host::new(HostConfig {
        seed: 3,
        granule: Granule::from_bytes(4096).unwrap(),
    });
    let attached = host.attach(E1000e82574::new(ModelConfig::default(), Box::new(tap)));
    let nic = E1000e::open(attached.platform, driver).unwrap();
    let mut device = PhyDevice::new(nic, config).unwrap();
    let client = namespace.spawn(client);
    let (model, base, start) = (attached.handle, host.now(), RealInstant::now());
    let errors = serve(&mut device, client, || {
        host.set_now(base + start.elapsed());
        (host.now(), model.step())
    });
    let counters = device.counters();
    assert_eq!(errors, 0, "wrong checksums; {counters:?}");
    assert_eq!(counters.device_checksums > 0, driver.checksum_offload);
    assert_eq!(counters.device_verified > 0, !config.fragments);
    assert_eq!((counters.transmit_lost, counters.bad_checksums), (0, 0));
    device
        .shut_down(|| {
            model.step();
            host.advance(Duration::from_micros(10));
            host.now()
        })
        .unwrap();
    assert_eq!(device.outstanding(), 0);
    assert_eq!(model.violations(), Vec::<String>::new());
}

#[test]
fn linux_over_a_tap_finds_every_checksum_right() {
    on_the_model(&DriverConfig::default(), &Config::default(), || {
        client(&lens())
    });
}

#[test]
fn linux_over_a_tap_without_offload() {
    let mut driver = DriverConfig::default();
    driver.checksum_offload = false;
    on_the_model(&driver, &Config::default(), || client(&lens()));
}

#[test]
fn linux_over_a_tap_with_fragments() {
    let mut config = Config::default();
    config.fragments = true;
    on_the_model(&DriverConfig::default(), &config, || client(&lens()));
    // smoltcp sends no fragments over IPv6.
    let long = [1473, 2000, 2961, 5000, 8000];
    on_the_model(&DriverConfig::default(), &config, move || {
        stream(servers()[0], 1000)?;
        datagrams(servers()[0], &long)?;
        Ok(checksum_errors())
    });
}

#[test]
fn linux_and_qemus_e1000e() {
    let Some((namespace, mut tap)) = namespace() else {
        return;
    };
    let Some(options) = options() else { return };
    let mut qtest = Qtest::start(&options).unwrap();
    let nic = E1000e::open(qtest.take_platform().unwrap(), &DriverConfig::default()).unwrap();
    let mut device = PhyDevice::new(nic, &Config::default()).unwrap();
    let mut wire = qtest.take_wire().unwrap();
    let client = namespace.spawn(|| client(&lens()));
    let mut frame = Vec::new();
    let errors = serve(&mut device, client, || {
        let now = qtest.now();
        let mut busy = false;
        while tap.receive(&mut frame, now) {
            wire.transmit(&mut frame, now);
            busy = true;
        }
        while wire.receive(&mut frame, now) {
            tap.transmit(&mut frame, now);
            busy = true;
        }
        (now, busy)
    });
    let counters = device.counters();
    assert_eq!(errors, 0, "wrong checksums; {counters:?}");
    assert!(counters.device_checksums > 0 && counters.device_verified > 0);
    assert_eq!((counters.transmit_lost, counters.bad_checksums), (0, 0));
    device.shut_down(|| qtest.now()).unwrap();
    assert_eq!(device.outstanding(), 0);
}

/// The judge is judged: a wrong checksum is counted by the kernel.
#[test]
fn linux_counts_wrong_checksums() {
    let Some((namespace, mut tap)) = namespace() else {
        return;
    };
    let count = || namespace.spawn(checksum_errors).join().unwrap().unwrap();
    assert_eq!(count(), 0);
    let mut frame = super::common::packets::Kind {
        ipv6: false,
        tcp: false,
        options: 0,
    }
    .frame(&[1; 40]);
    frame[..6].fill(0xff);
    frame[30..34].copy_from_slice(&KERNEL.octets());
    frame[26..30].copy_from_slice(&[10, 77, 0, 1]);
    strict::put(&mut frame, 24, 0);
    let sum = !strict::sum(&frame[14..34]);
    strict::put(&mut frame, 24, sum);
    let right = strict::word(&frame, 40);
    strict::put(&mut frame, 40, right ^ 0x0101);
    let start = RealInstant::now();
    while count() == 0 {
        assert!(
            start.elapsed() < SOON,
            "the kernel counts no wrong checksum"
        );
        tap.transmit(&mut frame, Instant::ZERO);
    }
}
