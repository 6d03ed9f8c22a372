//! A program that uses the port itself.

use std::time::Duration;

use pagewire::hal::{
    ChecksumOffload, Granule, LendError, LinkState, Nic, NicError, Offload, PoolLayout, PortError,
    PostError, QueueError, RxQueue, TxQueue,
};
use pagewire_models::Wire;

use super::books::Books;
use super::pairs::{Pair, drop_in_order};
use super::rig::{Machine, PORTS_MEMORY, Port, Posted, Rx, SEGMENT_HEADER, Stopped};
use super::script::{Plan, Script};
use super::subject::Subject;

const SMALL: usize = 24;
const LARGE: usize = 8;
/// Bytes in a buffer for frames that are copied.
const LARGE_LEN: usize = 9014;
/// Most regions at once.
const MOST_REGIONS: usize = 24;

/// Which checksum a frame asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Offloaded {
    Nothing,
    /// Of TCP over IPv4 and of the IPv4 header.
    Tcp,
    /// Segments of TCP over IPv4 with so many bytes of payload each.
    Segments(u16),
    /// A request that may make no sense at all.
    Wild(Offload),
}

/// The driver, taken apart, with a port on its queue. Of several pairs of queues this is one, to
/// be exchanged for another by [`turn_to`](Self::turn_to).
pub(crate) struct Raw<S: Subject> {
    pub(crate) machine: Machine<S>,
    pub(crate) nic: S::Nic,
    pub(crate) port: Port<S>,
    pub(crate) rx: Rx<S>,
    pub(crate) books: Books,
    /// Since the last successful `release`.
    pub(crate) is_released: bool,
    pub(crate) delivered: u64,
    /// The pairs that are not worked with now.
    pub(crate) others: Vec<Pair<S>>,
    serial: u32,
    /// Who has sent the last frame to us.
    station: u8,
    buffer: Vec<u8>,
}

/// The layout of every port here.
pub(crate) fn layout() -> PoolLayout {
    PoolLayout {
        small_len: 192,
        small_count: SMALL,
        large_len: LARGE_LEN,
        large_count: LARGE,
        page: Granule::from_bytes(4096).unwrap(),
    }
}

impl<S: Subject> Raw<S> {
    /// The driver on an honest device, ready to go.
    pub(crate) fn open(plan: &Plan<S>) -> Self {
        let (mut machine, platform) = Machine::new(plan);
        let nic = machine.open(platform).unwrap();
        Self::new(machine, nic).unwrap()
    }

    /// On a device that has been opened; `None` if the machine has no memory for the port.
    pub(crate) fn new(machine: Machine<S>, mut nic: S::Nic) -> Option<Self> {
        let Pair { port, rx, .. } = Pair::<S>::take(&mut nic, 0)?;
        let pairs = if machine.plan.takes_one {
            1
        } else {
            nic.capabilities().queue_pairs
        };
        let others = (1..pairs).map_while(|index| Pair::take(&mut nic, index));
        let others: Vec<Pair<S>> = others.collect();
        assert!(nic.take_queues(u16::MAX).is_none());
        Some(Self {
            machine,
            nic,
            port,
            rx,
            books: Books::default(),
            is_released: false,
            delivered: 0,
            others,
            serial: 0,
            station: 0,
            buffer: vec![0; 1 << 17],
        })
    }

    /// Everything that can be checked at any time.
    pub(crate) fn check(&mut self) {
        self.for_each_pair(|raw| {
            raw.books.check(&mut raw.port, SMALL + LARGE);
            let queued = raw.port.queue().outstanding();
            assert_eq!(queued, raw.books.out.len(), "the queue's count");
            let counted = raw.rx.counters().delivered;
            assert_eq!(counted, raw.delivered, "frames delivered");
        });
        self.machine.check_wire();
        self.machine.check_bus();
    }

    pub(crate) fn run(&mut self, steps: u32, micros: u64) {
        let time = Duration::from_micros(micros);
        self.machine.watch.run(steps, time);
    }

    /// Registers a part of the pattern, and returns its number.
    pub(crate) fn register(&mut self, start: usize, len: usize) -> usize {
        let host = self.machine.watch.host.clone();
        self.books.register(&host, &mut self.port, start, len);
        self.books.regions.len() - 1
    }

    /// Posts a header and pieces: region, offset, length.
    pub(crate) fn post(
        &mut self,
        header: usize,
        pieces: &[(usize, usize, usize)],
        offload: Offloaded,
    ) -> Result<(), PortError> {
        let offered = self.nic.capabilities().tx_checksum;
        let Some(mut buffer) = self.port.buffer(header) else {
            return Err(PortError::Post(PostError::Full));
        };
        let serial = self.serial;
        let mut bytes = vec![0; header];
        fill_header(&mut bytes, serial, offload);
        self.port.bytes_mut(&mut buffer)[..header].copy_from_slice(&bytes);
        let mut frame = self.port.frame(buffer, header);
        let mut lent = Vec::new();
        for (index, start, len) in pieces.iter().copied() {
            let known = self.books.regions.get(index);
            let Some((known, loan)) = known.and_then(|k| Some((k, k.loan.as_ref()?))) else {
                continue;
            };
            frame.attach(loan, start, len);
            lent.push(index);
            bytes.extend_from_slice(known.bytes.get(start..start + len).unwrap_or_default());
        }
        let tcp = ChecksumOffload::IPV4_HEADER | ChecksumOffload::TCP_IPV4;
        let tcp = Offload {
            checksum: tcp & offered,
            l2_len: 14,
            l3_len: 20,
            ..Offload::NONE
        };
        let request = match offload {
            Offloaded::Nothing => Offload::NONE,
            Offloaded::Tcp => tcp,
            Offloaded::Segments(len) => Offload {
                l4_len: 20,
                segment_len: len,
                ..tcp
            },
            Offloaded::Wild(request) => request,
        };
        let id = frame.post(request)?;
        self.books.posted(id, lent);
        self.serial += 1;
        // What a wild request makes of a frame, nobody can say.
        self.machine.plan.truthful &= !matches!(offload, Offloaded::Wild(_));
        let segments = match offload {
            Offloaded::Segments(len) => Some((usize::from(len), 0)),
            _ => None,
        };
        self.machine
            .posted
            .insert(serial, Posted { bytes, segments });
        Ok(())
    }

    pub(crate) fn reclaim(&mut self) -> Result<usize, QueueError> {
        let books = &mut self.books;
        let mut count = 0;
        let result = self.port.reclaim(&mut |frame| {
            books.done(frame);
            count += 1;
        });
        self.books.completed += count as u64;
        if let Ok(said) = result {
            assert_eq!(said, count, "reclaim counts");
        }
        result
    }

    /// Receives and reads all of every frame. Returns the lengths.
    pub(crate) fn receive(&mut self, budget: usize) -> Result<Vec<usize>, QueueError> {
        let most = S::longest_received(&self.machine.plan.setup);
        let buffer = &mut self.buffer;
        let mut lens = Vec::new();
        let result = self.rx.receive(budget, &mut |frame| {
            assert!((14..=most).contains(&frame.len()), "{} bytes", frame.len());
            let copied = frame.copy_to(buffer);
            assert_eq!(copied.len(), frame.len());
            lens.push(frame.len());
        });
        self.delivered += lens.len() as u64;
        assert!(lens.len() <= budget, "beyond the budget");
        result.map(|count| {
            assert_eq!(count, lens.len(), "receive counts");
            lens
        })
    }

    /// Puts a frame of `len` bytes on the wire towards the device. With several pairs of queues it
    /// may be IPv4, from this station or that, so that it may come to any.
    pub(crate) fn deliver(&mut self, len: usize) {
        let mut frame = vec![0x5a; len.max(14)];
        frame[..6].copy_from_slice(&self.nic.mac_address().0);
        frame[12..14].copy_from_slice(&[0x88, 0xb5]);
        if !self.others.is_empty() && len >= 60 {
            self.station = self.station.wrapping_add(1);
            let [high, low] = ((len - 14) as u16).to_be_bytes();
            let mut header = [0x45, 0, high, low, 0, 1, 0x40, 0, 64, 253, 0, 0];
            header[10..12].copy_from_slice(&[self.station, 0]);
            frame[12..14].copy_from_slice(&[8, 0]);
            frame[14..26].copy_from_slice(&header);
            frame[26..34].copy_from_slice(&[10, 0, 1, self.station, 10, 0, 0, 1]);
        }
        self.machine
            .far
            .transmit(&mut frame, self.machine.watch.host.now());
    }

    /// The device is honest from now on, and has to work again after a reset.
    pub(crate) fn recover(&mut self) {
        self.machine.set_hostile(false);
        self.machine.far.plug().set(true);
        self.machine.hold_completions(false);
        if self.machine.stop(&mut self.nic) != Stopped::Quiet {
            return;
        }
        // It may have become quiet while the clock leapt, with the device's reset not yet done.
        self.run(100, 1000);
        let mut restarted = self.restart();
        self.check();
        if restarted.is_err() {
            // A lie of before may have left it other than a reset does: the attempt has begun
            // another one.
            self.run(100, 1000);
            restarted = self.restart();
            self.check();
        }
        if !self.machine.plan.truthful {
            return;
        }
        assert_eq!(restarted, Ok(()), "an honest device starts again");
        self.run(2000, 10);
        self.machine.check_wire();
        self.for_each_pair(Self::check_works);
        self.check();
    }

    /// One frame out and its completion, one in.
    fn check_works(&mut self) {
        let before = self.machine.sent;
        self.post(60, &[], Offloaded::Nothing).unwrap();
        self.port.doorbell();
        self.deliver(100);
        for _ in 0..200 {
            self.run(20, 10);
            self.machine.check_wire();
            if self.machine.sent > before && self.port.queue().outstanding() == 0 {
                break;
            }
            self.reclaim().unwrap();
        }
        assert_eq!(self.machine.sent, before + 1, "the frame after a reset");
        assert_eq!(self.books.out.len(), 0, "its completion");
        self.receive(16).unwrap();
    }

    /// Drops everything, and checks what leaks. Returns the machine.
    pub(crate) fn finish(mut self) -> Machine<S> {
        self.check();
        self.for_each_pair(|raw| {
            for index in 0..raw.books.regions.len() {
                if !raw.books.regions[index].released {
                    raw.books.release(&mut raw.port, index);
                }
            }
        });
        self.check();
        let mut ports = 0;
        self.for_each_pair(|raw| {
            let out = raw.books.out.len();
            ports += if out == 0 { 0 } else { PORTS_MEMORY };
            assert!(!raw.is_released || out == 0, "after a release");
        });
        let machine = self.machine;
        let drivers = if self.is_released {
            0
        } else {
            machine.drivers_memory
        };
        let (port, rx) = (self.port, self.rx);
        let books = drop_in_order(machine.plan.end.order, self.nic, port, rx, self.others);
        assert_eq!(machine.watch.live(), drivers + ports, "memory that leaks");
        self.books.check_dropped();
        books.iter().for_each(Books::check_dropped);
        // The device goes on, if nobody has stopped it.
        machine.watch.run(200, Duration::from_micros(20));
        machine.check_bus();
        machine.watch.free_all();
        machine
    }
}

/// An Ethernet header with the serial number in the destination, and the beginning of an IPv4
/// packet where that is asked for.
fn fill_header(bytes: &mut [u8], serial: u32, offload: Offloaded) {
    let is_tcp = matches!(offload, Offloaded::Tcp | Offloaded::Segments(_));
    let kind = if is_tcp {
        [8, 0, 0x45, 0]
    } else {
        [0x88, 0xb5, 0, 0]
    };
    let [a, b, c, d] = serial.to_be_bytes();
    let start = [2, 0, a, b, c, d, 2, 0, 0, 0, 0, 1];
    let tail = [5u8; 200];
    for (target, byte) in bytes.iter_mut().zip(start.iter().chain(&kind).chain(&tail)) {
        *target = *byte;
    }
    // The protocol, and 20 bytes of TCP header.
    for (at, value) in [(23, 6), (46, 0x50)] {
        if is_tcp && let Some(byte) = bytes.get_mut(at) {
            *byte = value;
        }
    }
}

impl<S: Subject> Raw<S> {
    /// Plays the program's script to its end.
    pub(crate) fn play(&mut self, script: &mut Script<'_>) {
        while !script.is_over() {
            let choice = usize::from(script.byte());
            // What does not count among the 24 says with which pair.
            let pair = (choice / 24).checked_rem(self.others.len() + 1);
            self.turn_to(pair.unwrap_or(0));
            match choice % 24 {
                0 if self.books.regions.len() < MOST_REGIONS => {
                    let start = usize::from(script.half()) % 4000;
                    self.register(start, 1 + usize::from(script.half()) % 16_000);
                }
                1 => {
                    let index = script.below(MOST_REGIONS);
                    self.books.release(&mut self.port, index);
                }
                0 | 2..=5 => self.play_post(script),
                6 => self.port.doorbell(),
                7 => {
                    let result = self.reclaim();
                    self.note(result);
                }
                8 => {
                    let result = self.receive(usize::from(script.byte()));
                    self.note(result);
                }
                9 => self.play_burst(script),
                10 => self.play_look(script),
                11..=13 => self.run(1 + u32::from(script.byte()), 10),
                14 => self.play_poll(script),
                15 | 16 => {
                    let len = usize::from(script.half()) % 9100;
                    (0..1 + script.below(8)).for_each(|_| self.deliver(len));
                }
                17 => self.nic.begin_reset(self.machine.watch.host.now()),
                18 => {
                    let result = self.restart();
                    self.note_reset(result);
                }
                19 => {
                    let result = self.release();
                    self.note_reset(result);
                }
                20 => self.play_reset(script),
                21 => self.play_world(script),
                22 => self.play_undone(script),
                _ => self.play_round(script),
            }
            self.check();
        }
    }

    fn note<T>(&mut self, result: Result<T, QueueError>) {
        if let Err(error) = result {
            self.machine.note(&error);
        }
    }

    fn note_reset(&mut self, result: Result<(), NicError>) {
        let Err(error) = result else { return };
        self.machine.note(&error);
        let named = error == NicError::WrongPhase || S::may_restart_say(&error);
        assert!(named, "a reset said {error:?}");
    }

    fn play_post(&mut self, script: &mut Script<'_>) {
        let choice = script.byte();
        let (header, offload) = match choice >> 4 {
            0..8 => (14 + usize::from(choice & 0x3f), Offloaded::Nothing),
            8..12 => (SEGMENT_HEADER, Offloaded::Tcp),
            12 if self.nic.capabilities().segmentation.is_some() => {
                let len = 1 + u16::from(choice & 15) * 100;
                (SEGMENT_HEADER, Offloaded::Segments(len))
            }
            12 => (SEGMENT_HEADER, Offloaded::Tcp),
            13 => (
                1 + usize::from(script.half()) % LARGE_LEN,
                Offloaded::Nothing,
            ),
            _ => {
                let wild = Offload {
                    checksum: ChecksumOffload::from_bits_truncate(script.byte()),
                    l2_len: script.byte(),
                    l3_len: script.half() & 0x1ff,
                    l4_len: script.byte(),
                    checksum_offset: script.byte(),
                    segment_len: 0,
                };
                (SEGMENT_HEADER, Offloaded::Wild(wild))
            }
        };
        let mut pieces = Vec::new();
        for _ in 0..script.below(12) {
            let index = script.below(self.books.regions.len().max(1));
            let Some(known) = self.books.regions.get(index) else {
                break;
            };
            let start = usize::from(script.half()) % known.bytes.len();
            let len = usize::from(script.byte()) << (script.byte() & 3);
            pieces.push((index, start, len.min(known.bytes.len() - start)));
        }
        let posted = self.post(header, &pieces, offload);
        if let Err(error) = posted {
            self.machine.note(&error);
        }
    }

    /// Many frames, one doorbell.
    fn play_burst(&mut self, script: &mut Script<'_>) {
        let first = self.books.regions.iter().position(|k| k.loan.is_some());
        for _ in 0..script.below(32) {
            let pieces: &[_] = match first {
                Some(index) => &[(index, 0, 1)],
                None => &[],
            };
            if let Err(error) = self.post(60, pieces, Offloaded::Nothing) {
                self.machine.note(&error);
                break;
            }
        }
        self.port.doorbell();
    }

    /// A round of what a program does all day.
    fn play_round(&mut self, script: &mut Script<'_>) {
        self.play_burst(script);
        self.deliver(200);
        self.run(40, 10);
        self.for_each_pair(|raw| {
            let result = raw.receive(64);
            raw.note(result);
            let result = raw.reclaim();
            raw.note(result);
        });
    }

    fn play_look(&mut self, script: &mut Script<'_>) {
        match script.below(4) {
            0 => {
                self.nic.statistics();
            }
            1 => {
                let LinkState { up, speed_mbps, .. } = self.nic.link();
                assert!(up || speed_mbps == 0, "a speed without a link");
            }
            2 => {
                self.nic.take_interrupts();
            }
            _ => {
                if let Err(error) = self.nic.enable_interrupts() {
                    self.machine.note(&error);
                }
            }
        }
    }

    fn play_poll(&mut self, script: &mut Script<'_>) {
        let time = Duration::from_micros(1 << script.below(21));
        self.machine.watch.run(1, time);
        if let Err(error) = self.nic.poll(self.machine.watch.host.now()) {
            self.machine.note(&error);
            let named = matches!(error, NicError::NotQuiet | NicError::Removed);
            assert!(named, "poll said {error:?}");
        }
    }

    fn play_reset(&mut self, script: &mut Script<'_>) {
        if self.machine.stop(&mut self.nic) == Stopped::Quiet {
            let result = if script.byte() & 1 == 0 {
                self.restart()
            } else {
                self.release()
            };
            self.note_reset(result);
        } else {
            let refused = self.restart();
            assert!(
                matches!(refused, Err(NicError::WrongPhase)),
                "{refused:?} of a device that is not quiet"
            );
        }
    }

    fn play_world(&mut self, script: &mut Script<'_>) {
        match script.below(8) {
            0 => self.machine.far.plug().set(false),
            1 => self.machine.far.plug().set(true),
            2 => self.machine.set_hostile(true),
            3 => self.machine.set_hostile(false),
            choice => self.machine.hold_completions(choice & 1 == 0),
        }
    }

    /// Begins frames and does not post them.
    fn play_undone(&mut self, script: &mut Script<'_>) {
        let len = usize::from(script.half()) % (LARGE_LEN + 2);
        let Some(buffer) = self.port.buffer(len) else {
            return;
        };
        if script.byte() & 1 == 0 {
            self.port.put_buffer(buffer);
            return;
        }
        let loan = self.books.regions.iter().find_map(|k| k.loan.as_ref());
        let mut frame = self.port.frame(buffer, len);
        let Some(loan) = loan else { return };
        frame.attach(loan, usize::from(script.half()), usize::from(script.byte()));
        if script.byte() & 1 == 0 {
            // Beyond the region, so that it must be refused.
            frame.attach(loan, loan.len(), 1);
            let refused = frame.post(Offload::NONE);
            let named = matches!(
                refused,
                Err(PortError::Lend(LendError::OutOfRange | LendError::Empty)
                    | PortError::TooManyPieces)
            );
            assert!(named, "{refused:?}");
        }
    }
}
