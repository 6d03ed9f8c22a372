//! A program that sends over TCP, a peer that answers, and the device in between.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, Weak};
use std::time::Duration;

use pagewire::hal::{MacAddress, Nic, PortPair, Region, RegionId, RxQueue, TxPort};
use pagewire::tcp::{ConnectionId, Slice, Stack, StackConfig};
use pagewire_models::{HostRegion, Wire};

use super::books::PATTERN;
use super::platform::WatchedMemory;
use super::raw::layout;
use super::rig::{Machine, PORTS_MEMORY, Rx, Stopped};
use super::script::Script;
use super::subject::Subject;

const OUR_IP: [u8; 4] = [10, 0, 0, 1];
const PEER_IP: [u8; 4] = [10, 0, 0, 2];
const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
const LISTENER: u16 = 7;
/// Most connections that the program opens.
const MOST_CONNECTIONS: usize = 8;

type TheStack<S> = Stack<<<S as Subject>::Nic as Nic>::Tx, WatchedMemory>;

struct Program<S: Subject> {
    machine: Machine<S>,
    nic: S::Nic,
    rx: Rx<S>,
    stack: TheStack<S>,
    connections: Vec<ConnectionId>,
    regions: Vec<(RegionId, Weak<HostRegion<&'static [u8]>>)>,
    mac: MacAddress,
}

/// Plays a script with a TCP on the port, and drops everything.
pub(crate) fn play<S: Subject>(
    mut machine: Machine<S>,
    mut nic: S::Nic,
    script: &mut Script<'_>,
) -> Machine<S> {
    let Some((tx, rx)) = nic.take_queues(0) else {
        panic!("no queues");
    };
    let mac = nic.mac_address();
    let config = StackConfig {
        mac,
        address: Ipv4Addr::from(OUR_IP),
        mtu: S::mtu(&machine.plan.setup),
        secret: [3; 16],
        time_wait: Duration::from_secs(1),
        ..StackConfig::default()
    };
    let port = TxPort::new(&mut nic, tx, &layout());
    let stack = match port.map(|port| Stack::new(port, config)) {
        Ok(Ok(stack)) => stack,
        Ok(Err(error)) => {
            machine.note(&error);
            return leave(machine);
        }
        Err(error) => {
            machine.note(&error);
            return leave(machine);
        }
    };
    let mut program = Program {
        machine,
        nic,
        rx,
        stack,
        connections: Vec::new(),
        regions: Vec::new(),
        mac,
    };
    program.begin();
    while !script.is_over() {
        program.turn(script);
        program.check();
    }
    program.finish()
}

fn leave<S: Subject>(machine: Machine<S>) -> Machine<S> {
    machine.watch.free_all();
    machine
}

impl<S: Subject> Program<S> {
    fn begin(&mut self) {
        let bytes: &'static [u8] = &PATTERN;
        for len in [1, 700, 9000, bytes.len()] {
            let host = self.machine.watch.host.clone();
            let part = bytes.get(..len).unwrap_or(bytes);
            let Ok(region) = host.register(part) else {
                continue;
            };
            let weak = Arc::downgrade(&region);
            let id = self.stack.register(region as Arc<dyn Region>).unwrap();
            self.regions.push((id, weak));
        }
        self.stack.listen(LISTENER).unwrap();
        self.connect(80);
        self.settle(20);
    }

    fn connect(&mut self, port: u16) {
        if self.connections.len() >= MOST_CONNECTIONS {
            return;
        }
        let now = self.machine.watch.host.now();
        let remote = SocketAddrV4::new(PEER_IP.into(), port);
        if let Ok(id) = self.stack.connect(now, remote, None) {
            self.connections.push(id);
        }
    }

    fn chosen(&self, script: &mut Script<'_>) -> Option<ConnectionId> {
        let index = script.below(self.connections.len().max(1));
        self.connections.get(index).copied()
    }

    fn turn(&mut self, script: &mut Script<'_>) {
        let now = self.machine.watch.host.now();
        match script.below(16) {
            0 => self.connect(1 + u16::from(script.byte())),
            1..=3 => self.send(script),
            4 => {
                if let Some(id) = self.chosen(script) {
                    self.stack.close(now, id);
                }
            }
            5 => {
                if let Some(id) = self.chosen(script) {
                    self.stack.abort(now, id);
                }
            }
            6 => {
                if let Some(id) = self.chosen(script) {
                    self.stack.remove(now, id);
                    self.connections.retain(|kept| *kept != id);
                }
            }
            7 => self.look(script),
            8 => {
                let time = Duration::from_millis(1 << script.below(12));
                self.machine.watch.run(2, time);
                self.poll();
            }
            9 => self.reset(),
            10 => {
                let result = self.nic.poll(now);
                if let Err(error) = result {
                    self.machine.note(&error);
                }
            }
            11 => {
                let frame: Vec<u8> = (0..script.byte()).map(|_| script.byte()).collect();
                let mut frame = [&self.mac.0[..], &PEER_MAC, &[8, 0], &frame].concat();
                self.machine.far.transmit(&mut frame, now);
            }
            12 => self.dial(script.byte()),
            _ => self.settle(1 + usize::from(script.byte() & 31)),
        }
    }

    fn send(&mut self, script: &mut Script<'_>) {
        let Some(id) = self.chosen(script) else {
            return;
        };
        let region = self.regions[script.below(self.regions.len())].0;
        let slice = Slice {
            region,
            start: usize::from(script.half()) % 1000,
            len: usize::from(script.half()) % 20_000,
        };
        // Beyond the region, or on a connection that is closed: an error, and no loan.
        if let Err(error) = self.stack.send(id, &[slice, slice], 1) {
            self.machine.note(&error);
        }
    }

    fn look(&mut self, script: &mut Script<'_>) {
        let now = self.machine.watch.host.now();
        let mut buffer = [0; 2000];
        if let Some(id) = self.chosen(script) {
            while self.stack.completion(now, id).is_some() {}
            let _ = self.stack.receive(id, &mut buffer);
            let _ = (self.stack.error(id), self.stack.state(id));
        }
        while let Some(id) = self.stack.accept(LISTENER) {
            self.connections.push(id);
        }
        let _ = self.stack.stats();
        self.nic.statistics();
        self.nic.link();
        self.nic.take_interrupts();
    }

    /// What arrives goes to the stack, and what the stack has goes out.
    fn poll(&mut self) {
        let now = self.machine.watch.host.now();
        let Self { rx, stack, .. } = self;
        let mut buffer = [0; 1 << 14];
        let received = rx.receive(64, &mut |frame| {
            let checksum = frame.checksum();
            stack.input(now, frame.copy_to(&mut buffer), checksum);
        });
        let polled = stack.poll(now);
        for result in [received.map(|_| ()), polled.map(|_| ())] {
            if let Err(error) = result {
                self.machine.note(&error);
            }
        }
    }

    /// Some turns of the world: the device works, the peer answers.
    fn settle(&mut self, turns: usize) {
        for _ in 0..turns {
            self.poll();
            self.machine.watch.run(20, Duration::from_micros(20));
            for frame in self.machine.check_wire() {
                let Some(mut answer) = answer(&frame) else {
                    continue;
                };
                let now = self.machine.watch.host.now();
                self.machine.far.transmit(&mut answer, now);
            }
        }
    }

    /// The peer connects to our listener.
    fn dial(&mut self, port: u8) {
        let tuple = [0x40, port, 0, LISTENER as u8];
        let mut frame = segment(&self.mac.0, tuple, 77, 0, 2);
        let now = self.machine.watch.host.now();
        self.machine.far.transmit(&mut frame, now);
        self.settle(3);
    }

    fn reset(&mut self) {
        if self.machine.stop(&mut self.nic) != Stopped::Quiet {
            return;
        }
        let pair = PortPair {
            tx: self.stack.port_mut(),
            rx: &mut self.rx,
        };
        let restarted = pagewire::hal::restart(&mut self.nic, &mut [pair]);
        match restarted {
            Ok(()) => assert_eq!(self.stack.port().outstanding(), 0, "after a reset"),
            Err(error) => {
                self.machine.note(&error);
                assert!(S::may_restart_say(&error), "restart said {error:?}");
            }
        }
    }

    fn check(&mut self) {
        let port = self.stack.port();
        let counters = port.ledger().counters();
        assert_eq!(counters.strays, 0, "loans of nobody");
        assert_eq!(counters.pinned_pages == 0, counters.loans == 0, "pages");
        assert_eq!(port.counters().stray_tokens, 0, "tokens that were not out");
        let there = |(_, region): &(_, Weak<_>)| region.strong_count() == 1;
        assert!(self.regions.iter().all(there), "a region was freed early");
        self.machine.check_wire();
        self.machine.check_bus();
    }

    /// Removes the connections, stops the device if it is to be, and drops all.
    fn finish(mut self) -> Machine<S> {
        let mut released = false;
        if self.machine.plan.end.release && self.machine.stop(&mut self.nic) == Stopped::Quiet {
            let pair = PortPair {
                tx: self.stack.port_mut(),
                rx: &mut self.rx,
            };
            let result = pagewire::hal::release(&mut self.nic, &mut [pair]);
            assert_eq!(result, Ok(()), "a quiet device is released");
            released = true;
        }
        let now = self.machine.watch.host.now();
        while let Some(id) = self.stack.accept(LISTENER) {
            self.connections.push(id);
        }
        for id in std::mem::take(&mut self.connections) {
            self.stack.remove(now, id);
        }
        self.stack.unlisten(now, LISTENER);
        let _ = self.stack.poll(now);
        for (id, _) in &self.regions {
            assert_eq!(self.stack.release_region(*id), Ok(()));
        }
        while self.stack.take_released().is_some() {}
        let out = self.stack.port().outstanding();
        let loans = self.stack.port().ledger().counters().loans;
        if released {
            assert_eq!((out, loans), (0, 0), "after a release");
        }
        let machine = self.machine;
        drop((self.stack, self.rx, self.nic));
        let drivers = if released { 0 } else { machine.drivers_memory };
        let ports = if out == 0 { 0 } else { PORTS_MEMORY };
        assert_eq!(machine.watch.live(), drivers + ports, "memory that leaks");
        if loans == 0 {
            let gone = |(_, region): &(_, Weak<_>)| region.strong_count() == 0;
            assert!(self.regions.iter().all(gone), "a region leaks");
        }
        machine.watch.run(100, Duration::from_micros(20));
        machine.check_bus();
        machine.watch.free_all();
        machine
    }
}

/// What a peer says that believes everything: ARP, SYN, data.
fn answer(frame: &[u8]) -> Option<Vec<u8>> {
    let ours = frame.get(6..12)?;
    if frame.get(12..14)? == [8, 6] {
        if frame.get(20..22)? != [0, 1] {
            return None;
        }
        let sender = frame.get(22..32)?;
        let wanted = frame.get(38..42)?;
        let start = frame.get(12..20)?;
        return Some([ours, &PEER_MAC, start, &[0, 2], &PEER_MAC, wanted, sender].concat());
    }
    let packet = frame.get(14..)?;
    if packet.first()? != &0x45 || packet.get(9)? != &6 {
        return None;
    }
    let total = usize::from(u16::from_be_bytes(packet.get(2..4)?.try_into().ok()?));
    let tcp = packet.get(20..total)?;
    let word = |at| Some(u32::from_be_bytes(tcp.get(at..at + 4)?.try_into().ok()?));
    let (seq, ack) = (word(4)?, word(8)?);
    let flags = tcp.get(13)?;
    let header = usize::from(tcp.get(12)? >> 4) * 4;
    let payload = tcp.len().checked_sub(header)? as u32;
    let [a, b, c, d, ..] = *tcp else { return None };
    let tuple = [c, d, a, b];
    let own = if ack == 0 { 500 } else { ack };
    let counted = payload + u32::from(flags & 3 != 0);
    if flags & 4 != 0 || counted == 0 {
        return None;
    }
    let answer = if flags & 0x12 == 2 { 0x12 } else { 0x10 };
    Some(segment(ours, tuple, own, seq.wrapping_add(counted), answer))
}

/// A segment without data from the peer; `tuple` is the two ports.
fn segment(to: &[u8], tuple: [u8; 4], seq: u32, ack: u32, flags: u8) -> Vec<u8> {
    let mut tcp = tuple.to_vec();
    tcp.extend_from_slice(&seq.to_be_bytes());
    tcp.extend_from_slice(&ack.to_be_bytes());
    tcp.extend_from_slice(&[0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    let pseudo = [&PEER_IP[..], &OUR_IP, &[0, 6, 0, 20], &tcp].concat();
    tcp[16..18].copy_from_slice(&checksum(&pseudo));
    let mut ip = vec![0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0];
    ip.extend_from_slice(&PEER_IP);
    ip.extend_from_slice(&OUR_IP);
    let sum = checksum(&ip);
    ip[10..12].copy_from_slice(&sum);
    [to, &PEER_MAC, &[8, 0], &ip, &tcp].concat()
}

/// The complement of the ones' complement sum of an even number of bytes (RFC 1071).
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.as_chunks::<2>().0.iter();
    let mut sum: u32 = words.map(|pair| u32::from(u16::from_be_bytes(*pair))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}
