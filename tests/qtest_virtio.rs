//! The virtio-net driver on QEMU's own virtio-net, without a guest: what the conformance suite
//! (`conformance_qtest_virtio.rs`) cannot ask.
//!
//! Needs QEMU, see `qtest_e1000e.rs`. Where Linux is behind the device it also needs root: without
//! it those tests pass with a line that says so; where the environment has `CI`, they fail.
#![cfg(target_os = "linux")]
// A test may panic: that is how it fails.
#![allow(clippy::unwrap_used)]

#[path = "qtest/bridge.rs"]
mod bridge;
mod common;
#[path = "qtest/namespace.rs"]
mod namespace;
mod qtest;

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::{Duration, Instant as RealInstant};

use common::packets::{Kind, sum};
use pagewire::hal::{
    ChecksumOffload, Loan, MacAddress, Nic, NicError, Offload, Phase, PortPair, Region, RxQueue,
    TxPort, Verdict,
};
use pagewire::virtio::{Config, Features, VirtioNet, VirtioRx, VirtioTx};
use pagewire_models::Wire;
use pagewire_models::qtest::{
    Netdev, Qtest, QtestMemory, QtestPlatform, TapQueues, VirtioInterface, VirtioOptions,
};
use pagewire_models::wire::open_vnet_tap;

use bridge::{bridge, bridge_to, can_bridge};
use qtest::{MAC, SOON};

type Port = TxPort<VirtioTx<QtestPlatform>, QtestMemory>;

const TCP: Kind = Kind {
    ipv6: false,
    tcp: true,
    options: 0,
};
/// The kernel's station; frames of [`Kind`] come from it.
const KERNEL: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];

/// QEMU with a virtio-net device as `text` says it, of station address [`MAC`].
fn qemu(text: &str, tap: Option<TapQueues>) -> Option<Qtest> {
    let mut options = qtest::options()?;
    let mut device: VirtioOptions = text.parse().unwrap();
    device.mac = device.mac.or(Some(MAC));
    options.device = device.to_string();
    if let Some(queues) = tap {
        options.netdev = Netdev::Tap(queues);
    }
    Some(Qtest::start(&options).unwrap())
}

/// A driver that takes all that it can.
fn all() -> Config {
    let mut config = Config::default();
    config.features = Features::all();
    config
}

fn open(qtest: &mut Qtest, config: &Config) -> Result<VirtioNet<QtestPlatform>, NicError> {
    VirtioNet::open(qtest.take_platform().unwrap(), config)
}

/// The driver on QEMU's device.
struct Bench {
    nic: VirtioNet<QtestPlatform>,
    port: Port,
    rx: VirtioRx<QtestPlatform>,
    // Last: QEMU ends when the test does.
    qtest: Qtest,
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = RealInstant::now();
    while !done() {
        assert!(start.elapsed() < SOON, "{what}: not after {SOON:?}");
        std::thread::sleep(Duration::from_micros(100));
    }
}

impl Bench {
    fn start(text: &str, tap: Option<TapQueues>, config: &Config) -> Option<Self> {
        let mut qtest = qemu(text, tap)?;
        let mut nic = open(&mut qtest, config).unwrap();
        let (tx, rx) = nic.take_queues(0).unwrap();
        let port = TxPort::new(&mut nic, tx, &common::layout()).unwrap();
        Some(Self {
            nic,
            port,
            rx,
            qtest,
        })
    }

    fn register(&mut self, bytes: Vec<u8>) -> Loan {
        let len = bytes.len();
        let region = self.qtest.register(bytes).unwrap() as Arc<dyn Region>;
        let id = self.port.ledger_mut().register(region).unwrap();
        self.port.ledger_mut().lend(id, 0, len).unwrap()
    }

    /// Sends `header` from a buffer, and `loan` behind it.
    fn send(&mut self, header: &[u8], loan: Option<(&Loan, usize)>, offload: Offload) {
        let mut buffer = self.port.buffer(header.len()).unwrap();
        self.port.bytes_mut(&mut buffer)[..header.len()].copy_from_slice(header);
        let mut builder = self.port.frame(buffer, header.len());
        if let Some((loan, len)) = loan {
            builder.attach(loan, 0, len);
        }
        builder.post(offload).unwrap();
        self.port.doorbell();
        until("the frame completes", || {
            self.port.reclaim(&mut |_| {}).unwrap() == 1
        });
    }

    fn received(&mut self) -> Vec<u8> {
        self.received_with_verdict().0
    }

    /// The next received frame, and what is said of its transport checksum.
    fn received_with_verdict(&mut self) -> (Vec<u8>, Verdict) {
        let mut got = None;
        until("a frame is received", || {
            let taken = self.rx.receive(1, &mut |frame| {
                let mut bytes = vec![0; frame.len()];
                frame.copy_to(&mut bytes);
                got = Some((bytes, frame.checksum().transport));
            });
            taken.unwrap() == 1
        });
        got.unwrap()
    }

    fn finish(mut self) {
        self.nic.begin_reset(self.qtest.now());
        until("the device is quiet", || {
            self.nic.poll(self.qtest.now()).unwrap() == Phase::Quiet
        });
        let pair = PortPair {
            tx: &mut self.port,
            rx: &mut self.rx,
        };
        pagewire::hal::release(&mut self.nic, &mut [pair]).unwrap();
        assert_eq!(self.port.outstanding(), 0);
    }
}

#[test]
fn a_legacy_device_is_refused_in_words_and_a_transitional_one_opens() {
    let Some(mut legacy) = qemu("interface=legacy", None) else {
        return;
    };
    let error = open(&mut legacy, &all()).unwrap_err().to_string();
    assert!(error.contains("a legacy device"), "{error}");
    let Some(bench) = Bench::start("interface=transitional", None, &all()) else {
        return;
    };
    assert!(bench.nic.name().contains("transitional"));
    assert!(bench.nic.features().contains(Features::VERSION_1));
    bench.finish();
}

#[test]
fn what_is_negotiated_is_what_device_and_driver_share() {
    let usual = Features::VERSION_1 | Features::MAC | Features::STATUS;
    let rings = Features::INDIRECT_DESC | Features::EVENT_IDX;
    let optional = Features::all() - Features::GUEST_HDRLEN - Features::ORDER_PLATFORM;
    for (text, driver, has, has_not) in [
        ("", optional, usual | rings, Features::CSUM | Features::MTU),
        (
            "packed=on",
            optional,
            usual | rings | Features::RING_PACKED,
            Features::IN_ORDER,
        ),
        ("packed=on", usual, usual, rings | Features::RING_PACKED),
        (
            "event_idx=off,status=off",
            optional,
            Features::MAC,
            Features::EVENT_IDX | Features::STATUS,
        ),
        (
            "in_order=on,indirect_desc=off",
            optional,
            Features::IN_ORDER,
            Features::INDIRECT_DESC,
        ),
        // Whatever the driver was told: it is not a matter of choice.
        ("iommu_platform=on", usual, Features::ACCESS_PLATFORM, rings),
        (
            "host_mtu=2000",
            optional,
            Features::MTU,
            Features::RING_PACKED,
        ),
    ] {
        let mut config = all();
        config.features = driver;
        let Some(mut qtest) = qemu(text, None) else {
            return;
        };
        let nic = open(&mut qtest, &config).unwrap();
        let found = nic.features();
        assert!(found.contains(has), "{text}: {found}");
        assert!(!found.intersects(has_not), "{text}: {found}");
        // In words, as the log and `list` have it.
        let shown = found.to_string();
        assert_eq!(
            shown.contains("ring_packed"),
            found.contains(Features::RING_PACKED)
        );
        assert!(shown.contains("version_1"), "{shown}");
    }
}

#[test]
fn the_offloads_of_a_tap_reach_the_driver() {
    if qtest::options().is_none() || !can_bridge() {
        return;
    }
    let offloads =
        Features::CSUM | Features::GUEST_CSUM | Features::HOST_TSO4 | Features::HOST_TSO6;
    for (text, has) in [
        ("", offloads),
        ("host_tso6=off", offloads - Features::HOST_TSO6),
        ("guest_csum=off", offloads - Features::GUEST_CSUM),
        // QEMU offers no segmentation without the checksum, and no driver takes it.
        ("csum=off", Features::GUEST_CSUM),
    ] {
        let (queues, _far) = bridge(1).unwrap();
        let mut qtest = qemu(text, Some(queues.into())).unwrap();
        assert!(qtest.take_wire().is_none());
        let nic = open(&mut qtest, &all()).unwrap();
        assert_eq!(nic.features() & offloads, has, "{text}");
        let limits = nic.capabilities().segmentation;
        assert_eq!(
            limits.is_some_and(|l| l.ipv4),
            has.contains(Features::HOST_TSO4),
            "{text}"
        );
        assert_eq!(
            limits.is_some_and(|l| l.ipv6),
            has.contains(Features::HOST_TSO6),
            "{text}"
        );
    }
}

#[test]
fn station_address_mtu_and_link_are_the_devices() {
    let mut config = all();
    config.mtu = 9000;
    let mac = MacAddress([2, 0, 0, 0xab, 0xcd, 0xef]);
    let text = format!("mac={mac},host_mtu=3000");
    let Some(mut bench) = Bench::start(&text, None, &config) else {
        return;
    };
    assert_eq!(bench.nic.mac_address(), mac);
    assert_eq!(bench.nic.capabilities().max_frame_len, 3014);
    assert!(bench.nic.link().up);
    let mut wire = bench.qtest.take_wire().unwrap();
    for up in [false, true, false, true] {
        bench.qtest.set_link(up).unwrap();
        until("the link follows", || bench.nic.link().up == up);
        assert_eq!(wire.carrier(), up);
    }
    let frame = TCP.frame(&[7; 100]);
    bench.send(&frame, None, Offload::NONE);
    let mut arrived = Vec::new();
    assert!(wire.wait(SOON) && wire.receive(&mut arrived, bench.qtest.now()));
    assert_eq!(arrived, frame);
    bench.finish();
}

#[test]
fn rings_are_as_long_as_both_allow() {
    for (text, tx, rx, fragments) in [
        // A frame has as many fragments as the ring has descriptors, at most.
        ("rx_queue_size=1024", 64, 1024, 64),
        ("", 1024, 1024, 256),
        ("packed=on", 2, 2, 2),
        ("packed=on", 256, 1, 256),
    ] {
        let mut config = all();
        (config.tx_descriptors, config.rx_descriptors) = (tx, rx);
        let Some(mut bench) = Bench::start(text, None, &config) else {
            return;
        };
        assert_eq!(bench.port.max_fragments(), fragments, "{text}");
        let mut wire = bench.qtest.take_wire().unwrap();
        let mut frame = Vec::new();
        // Several times around a short ring.
        for round in 0..20 {
            let sent = TCP.frame(&[round; 100]);
            bench.send(&sent, None, Offload::NONE);
            assert!(wire.wait(SOON) && wire.receive(&mut frame, bench.qtest.now()));
            assert_eq!(frame, sent, "{text}");
            wire.transmit(&mut frame, bench.qtest.now());
            assert_eq!(bench.received(), sent, "{text}");
        }
        bench.finish();
    }
}

#[test]
fn qemu_names_the_option_that_it_does_not_take() {
    let Some(mut options) = qtest::options() else {
        return;
    };
    let mut device = VirtioOptions::default();
    device.tx_queue_size = 512;
    options.device = device.to_string();
    let error = Qtest::start(&options).unwrap_err().to_string();
    assert!(error.contains("tx_queue_size"), "{error}");
    device.tx_queue_size = 256;
    device.interface = VirtioInterface::Modern;
    device.rx_queue_size = 1024;
    options.device = device.to_string();
    assert!(Qtest::start(&options).unwrap().is_running());
}

#[test]
fn a_device_that_goes_away_is_removed() {
    for text in ["", "packed=on"] {
        let Some(mut bench) = Bench::start(text, None, &all()) else {
            return;
        };
        bench.qtest.kill();
        assert!(!bench.nic.link().up);
        let now = bench.qtest.now();
        assert!(matches!(bench.nic.poll(now), Err(NicError::Removed)));
        assert!(matches!(bench.nic.poll(now), Ok(Phase::Failed)));
        // What is posted now stays: nobody says that the device has let go of it.
        let mut buffer = bench.port.buffer(60).unwrap();
        bench.port.bytes_mut(&mut buffer)[..60].fill(1);
        if bench.port.frame(buffer, 60).post(Offload::NONE).is_ok() {
            bench.port.doorbell();
        }
        assert_eq!(bench.port.reclaim(&mut |_| {}).unwrap_or(0), 0);
        assert_eq!(bench.rx.receive(8, &mut |_| {}).unwrap_or(0), 0);
    }
}

/// The kernel behind a TAP at 10.0.0.2, whose program takes `len` bytes at port 8081; at the end
/// the bytes, and the frames that have come out of the TAP.
type Server = JoinHandle<io::Result<(Vec<u8>, u64)>>;

fn server(len: usize) -> io::Result<(OwnedFd, Server)> {
    let (sender, receiver) = channel();
    let thread = namespace::in_a_namespace(move || {
        let tap = open_vnet_tap("device")?;
        namespace::ip(
            "link set device address 52:54:00:00:00:01 mtu 1500 up\n\
             address add 10.0.0.2/24 dev device\n\
             neigh add 10.0.0.1 lladdr 52:54:00:00:00:02 dev device\n",
        )?;
        let listener = TcpListener::bind((Ipv4Addr::new(10, 0, 0, 2), 8081))?;
        let _ = sender.send(tap);
        let (mut stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(SOON))?;
        let mut bytes = vec![0; len];
        stream.read_exact(&mut bytes)?;
        Ok((bytes, frames_from("device")?))
    });
    match receiver.recv() {
        Ok(tap) => Ok((tap, thread)),
        Err(_) => {
            let ended = thread.join().unwrap();
            Err(ended.err().unwrap_or_else(|| io::Error::other("no TAP")))
        }
    }
}

/// Frames that the kernel has taken from an interface of this thread's namespace.
fn frames_from(interface: &str) -> io::Result<u64> {
    let table = std::fs::read_to_string("/proc/thread-self/net/dev")?;
    let line = table
        .lines()
        .find_map(|line| line.trim().strip_prefix(&format!("{interface}:")));
    let count = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    count.ok_or_else(|| io::Error::other("no such interface"))
}

/// A TCP header of a connection from 10.0.0.1, with what is before it; the checksum is the sum of
/// the pseudo-header for `len` bytes of payload.
fn tcp(flags: u8, sequence: u32, acknowledged: u32, len: usize) -> Vec<u8> {
    let mut header = TCP.seeded(&vec![0; len]);
    let ip = TCP.frame(&vec![0; len]);
    // The device does not fill in the checksum of IPv4.
    header[14..34].copy_from_slice(&ip[14..34]);
    header.truncate(TCP.header_len());
    header[..6].copy_from_slice(&KERNEL);
    header[6..12].copy_from_slice(&MAC.0);
    header[38..42].copy_from_slice(&sequence.to_be_bytes());
    header[42..46].copy_from_slice(&acknowledged.to_be_bytes());
    header[47] = flags;
    header
}

/// A connection made by hand, and 60,000 bytes in one frame that the device is to segment: the
/// kernel takes them as one, with the checksum that nobody has computed.
#[test]
fn the_kernels_tcp_gets_a_frame_of_60000_bytes() {
    const LEN: usize = 60_000;
    if qtest::options().is_none() || !can_bridge() {
        return;
    }
    for text in [
        "",
        "packed=on",
        "indirect_desc=off,event_idx=off,mrg_rxbuf=off",
    ] {
        let (tap, server) = server(LEN).unwrap();
        let mut bench = Bench::start(text, Some(tap.into()), &all()).unwrap();
        let mut payload = vec![0; LEN];
        fastrand::Rng::with_seed(60).fill(&mut payload);
        let loan = bench.register(payload.clone());
        let mut offload = Offload {
            checksum: ChecksumOffload::TCP_IPV4,
            l2_len: 14,
            l3_len: 20,
            ..Offload::NONE
        };
        let mut syn = tcp(0x02, 1, 0, 0);
        syn.resize(60, 0);
        bench.send(&syn, None, offload);
        let answer = bench.received();
        assert_eq!(answer[..14], syn_answer_header(), "{text}: {answer:02x?}");
        assert_eq!(answer[47], 0x12, "{text}: SYN and ACK");
        assert_eq!(answer[42..46], 2u32.to_be_bytes(), "{text}");
        // The kernel has left its checksum to us: the driver has completed it.
        let total = usize::from(u16::from_be_bytes([answer[16], answer[17]]));
        let segment = &answer[34..14 + total];
        let mut summed = answer[26..34].to_vec();
        summed.extend([0, 6, 0, segment.len() as u8]);
        summed.extend(segment);
        assert_eq!(sum(&summed), 0xffff, "{text}: {answer:02x?}");
        let sequence = u32::from_be_bytes(answer[38..42].try_into().unwrap());
        let header = tcp(0x18, 2, sequence.wrapping_add(1), LEN);
        offload.l4_len = 20;
        offload.segment_len = 1460;
        bench.send(&header, Some((&loan, LEN)), offload);
        let (bytes, frames) = server.join().unwrap().unwrap();
        assert!(bytes == payload, "{text}: other bytes");
        assert_eq!(frames, 2, "{text}: SYN and data");
        bench.port.ledger_mut().give_back(loan);
        bench.finish();
    }
}

/// To us from the kernel, IPv4.
fn syn_answer_header() -> [u8; 14] {
    let mut header = [0; 14];
    header[..6].copy_from_slice(&MAC.0);
    header[6..12].copy_from_slice(&KERNEL);
    header[12..].copy_from_slice(&[8, 0]);
    header
}

/// Both pairs of queues receive, as Linux spreads connections over them, and both send.
#[test]
fn two_pairs_of_queues_receive_and_send() {
    const FLOWS: u16 = 64;
    if qtest::options().is_none() || !can_bridge() {
        return;
    }
    for text in ["queue_pairs=2", "queue_pairs=2,packed=on"] {
        let (queues, mut far) = bridge(2).unwrap();
        let mut config = all();
        config.queue_pairs = 2;
        let mut bench = Bench::start(text, Some(queues.into()), &config).unwrap();
        assert!(
            bench
                .nic
                .features()
                .contains(Features::MQ | Features::CTRL_VQ)
        );
        assert_eq!(bench.nic.capabilities().queue_pairs, 2);
        let (tx, mut rx) = bench.nic.take_queues(1).unwrap();
        let mut port = TxPort::new(&mut bench.nic, tx, &common::layout()).unwrap();
        let now = bench.qtest.now();
        let flow = |number: u16| {
            let mut frame = TCP.frame(&[0; 20]);
            frame[34..36].copy_from_slice(&number.to_be_bytes());
            frame
        };
        for number in 0..FLOWS {
            far.transmit(&mut flow(number), now);
        }
        let mut counts = [0, 0];
        let mut seen = Vec::new();
        until("all flows are received", || {
            for (queue, count) in [&mut bench.rx, &mut rx].into_iter().zip(&mut counts) {
                *count += queue
                    .receive(8, &mut |frame| {
                        let mut bytes = vec![0; frame.len()];
                        frame.copy_to(&mut bytes);
                        seen.push(bytes);
                    })
                    .unwrap();
            }
            seen.len() == usize::from(FLOWS)
        });
        assert!(counts.iter().all(|count| *count > 0), "{text}: {counts:?}");
        seen.sort_unstable();
        let mut sent: Vec<_> = (0..FLOWS).map(flow).collect();
        sent.sort_unstable();
        assert!(seen == sent, "{text}: other frames");
        for (port, number) in [(&mut bench.port, 1), (&mut port, 2)] {
            let frame = flow(number);
            let mut buffer = port.buffer(frame.len()).unwrap();
            port.bytes_mut(&mut buffer)[..frame.len()].copy_from_slice(&frame);
            port.frame(buffer, frame.len()).post(Offload::NONE).unwrap();
            port.doorbell();
            until("the frame completes", || {
                port.reclaim(&mut |_| {}).unwrap() == 1
            });
            let mut arrived = Vec::new();
            until("the frame arrives", || far.receive(&mut arrived, now));
            assert_eq!(arrived, frame, "{text}");
        }
        drop((port, rx));
    }
}

/// A TCP packet of 30,000 bytes of payload comes from Linux in one piece, as if from another guest
/// on the bridge: whole if the driver takes such, in segments if not. Either way the bytes are
/// those that were sent, and the checksums hold.
#[test]
fn what_linux_has_joined_is_received_whole_or_in_segments() {
    const LEN: usize = 30_000;
    const SEGMENT: u16 = 1460;
    if qtest::options().is_none() || !can_bridge() {
        return;
    }
    let joined = Features::GUEST_TSO4 | Features::GUEST_TSO6;
    for (text, features, frames) in [
        ("", Features::all(), 1),
        ("packed=on", Features::all(), 1),
        ("guest_tso4=off", Features::all(), 21),
        ("", Features::all() - joined, 21),
        ("mrg_rxbuf=off", Features::all() - joined, 21),
    ] {
        let (queues, far) = bridge_to(1, open_vnet_tap).unwrap();
        let mut far = File::from(far);
        let mut config = all();
        config.features = features;
        let mut bench = Bench::start(text, Some(queues.into()), &config).unwrap();
        let longest = bench.nic.capabilities().max_receive_len();
        assert_eq!(
            longest > 1514,
            features.contains(Features::GUEST_TSO6),
            "{text}"
        );
        let mut payload = vec![0; LEN];
        fastrand::Rng::with_seed(30).fill(&mut payload);
        let mut packet = TCP.seeded(&payload);
        packet[14..34].copy_from_slice(&TCP.frame(&payload)[14..34]);
        // The header as Linux has it in `virtio_net.h`: NEEDS_CSUM, TCPV4, the length of the
        // headers, that of a segment, where the checksum begins and where it is.
        let mut bytes = vec![1, 1];
        for field in [54, SEGMENT, 34, 16] {
            bytes.extend(field.to_le_bytes());
        }
        bytes.extend(&packet);
        assert_eq!(far.write(&bytes).unwrap(), bytes.len());
        let mut got = Vec::new();
        for frame in 0..frames {
            let (bytes, verdict) = bench.received_with_verdict();
            // Joined or not, whatever the verdict: Linux or the driver has made the checksum.
            let segment = &bytes[34..];
            let mut summed = bytes[26..34].to_vec();
            summed.extend([0, 6]);
            summed.extend((segment.len() as u16).to_be_bytes());
            summed.extend(segment);
            let right = sum(&summed) == 0xffff;
            assert!(right, "{text}: frame {frame}, {verdict:?}");
            got.extend_from_slice(&bytes[54..]);
        }
        assert!(got == payload, "{text}: {} bytes, or others", got.len());
        bench.finish();
    }
}
