//! The lies.

use std::hash::{DefaultHasher, Hasher};

use super::super::pace::Random;
use super::super::{Hostile, Latitude, Lie, LieCounters, Lies};
use super::rig::*;
use crate::Device;

/// Registers that a driver polls: CTRL, STATUS, EECD, EERD, MDIC, ICR, EEMNGCTL, EXTCNF_CTRL, RDH,
/// RDT, TDH, TDT, GPRC, SWSM.
const POLLED: [u32; 14] = [
    0x0000, 0x0008, 0x0010, 0x0014, 0x0020, 0x00c0, 0x1010, 0x0f00, 0x2810, 0x2818, 0x3810, 0x3818,
    0x4074, 0x5b50,
];
/// Words of configuration space that a driver reads.
const CONFIGURATION: [u16; 8] = [0x00, 0x04, 0x34, 0xc8, 0xe0, 0xe8, 0xa0, 0xa4];

/// A driver without eyes: it does the same whatever the device answers, and keeps all it sees.
struct Blind {
    rig: Rig,
    seen: Vec<u64>,
}

impl Blind {
    fn new(latitude: Latitude) -> Self {
        Self {
            rig: Rig::warm(0, latitude),
            seen: Vec::new(),
        }
    }

    /// One that is lied to.
    fn lied_to(latitude: Latitude, hostile: Hostile) -> Self {
        let mut blind = Self::new(latitude);
        blind.rig.device.be_hostile(Some(hostile));
        blind
    }

    fn see_memory(&mut self, range: std::ops::Range<usize>) {
        let mut hasher = DefaultHasher::new();
        hasher.write(&self.rig.memory.bytes[range]);
        self.seen.push(hasher.finish());
    }

    fn poll(&mut self) {
        self.rig.write(0x0014, 0x3 << 2 | 1);
        self.rig.write(0x0020, 1 << 16 | 1 << 21 | 2 << 26);
        for at in POLLED {
            let value = self.rig.read(at);
            self.seen.push(u64::from(value));
        }
        for at in CONFIGURATION {
            let value = self.rig.device.config_read(at);
            self.seen.push(u64::from(value));
        }
    }

    /// Enables interrupts and both units, sends, receives, and watches.
    fn round(&mut self) {
        self.rig.write(0x00e4, 0x000a_0908);
        self.rig.write(0x00d0, 0x0150_0000);
        self.rig.start_transmit();
        self.rig.start_receive(0);
        self.rig.give(8);
        for index in 0..6u8 {
            let place = PAYLOAD + usize::from(index) * 0x800;
            let address = self.rig.put(place, &[index; 100]);
            self.rig.push(legacy(address, 100, LAST, 0, 0));
            self.rig.doorbell();
            let mut frame = MAC.to_vec();
            frame.resize(100, index);
            self.rig.deliver(&frame);
            self.watch();
        }
        self.see_memory(BUFFERS..BUFFERS + 8 * BUFFER);
    }

    fn watch(&mut self) {
        self.rig.steps(2);
        self.poll();
        self.see_memory(TX_RING..RX_RING + 0x200);
        let interrupts = self.rig.take_interrupts();
        self.seen.extend(interrupts.into_iter().map(u64::from));
    }

    /// Resets, and looks away for some steps.
    fn reset(&mut self) {
        self.rig.write(0x0000, 1 << 26);
        for _ in 0..10 {
            self.rig.step();
            self.poll();
        }
        self.see_memory(TX_RING..BUFFERS + 8 * BUFFER);
        let command = self.rig.device.config_read(4);
        self.seen.push(u64::from(command));
        self.rig.device.config_write(4, 0x0010_0006);
        self.rig.device.config_write(0xa0, 1 << 31);
        self.rig.write(0x0000, 1 << 6);
        self.rig.steps(2);
    }

    fn live(&mut self, rounds: usize) -> Vec<u64> {
        for _ in 0..rounds {
            self.round();
            self.reset();
        }
        self.see_memory(0..self.rig.memory.bytes.len());
        std::mem::take(&mut self.seen)
    }

    fn told(&self) -> LieCounters {
        self.rig.device.lies_told().clone()
    }
}

#[test]
fn every_lie_is_told_and_seen() {
    let honest = Blind::new(Latitude::default()).live(4);
    for lie in Lie::ALL {
        let mut seen = false;
        for seed in 0..20 {
            let hostile = Hostile::from_seed(seed)
                .with_lies(Lies::only(lie))
                .with_gap(seed as u32 % 3);
            let mut blind = Blind::lied_to(Latitude::default(), hostile);
            let differs = blind.live(4) != honest;
            let told = blind.told();
            assert_eq!(told.total(), told.told(lie), "{lie:?}, seed {seed}");
            assert!(
                !differs || told.total() > 0,
                "{lie:?}, seed {seed}: not counted"
            );
            seen |= differs;
        }
        assert!(seen, "{lie:?}: nothing to be seen with seeds 0 to 19");
    }
}

#[test]
fn all_lies_are_told_by_one_device() {
    for seed in 0..4 {
        // A removal may last for ever, and a driver that does not look whether its writes arrive
        // is soon left without rings.
        let lies = Lies::all().without(Lie::Removal).without(Lie::WriteLost);
        let hostile = Hostile::from_seed(seed).with_lies(lies).with_gap(6);
        let mut blind = Blind::lied_to(Latitude::default(), hostile);
        blind.live(200);
        let told = blind.told();
        for lie in lies.iter() {
            assert!(told.told(lie) > 0, "seed {seed}: {lie:?} not in {told:?}");
        }
        assert!(!blind.rig.device.is_honest(), "seed {seed}");
        blind.rig.expect_clean();
    }
}

/// A script that is all noise.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    (0..len).map(|_| random.next() as u8 & 0x3f).collect()
}

#[test]
fn the_same_seed_tells_the_same_lies() {
    let run = |hostile| {
        let mut blind = Blind::lied_to(Latitude::default(), hostile);
        (blind.live(6), blind.told())
    };
    for seed in 0..6 {
        let first = run(Hostile::from_seed(seed));
        assert!(
            first == run(Hostile::from_seed(seed)),
            "seed {seed}: unequal"
        );
        assert!(
            first != run(Hostile::from_seed(seed + 100)),
            "seeds {seed} and {}: alike",
            seed + 100
        );
        let script = noise(seed, 2000);
        let first = run(Hostile::from_bytes(script.clone()));
        assert!(
            first == run(Hostile::from_bytes(script)),
            "script {seed}: unequal"
        );
        assert!(first.1.total() > 10, "script {seed}: {:?}", first.1);
    }
}

#[test]
fn without_lies_it_is_honest() {
    for seed in 0..4 {
        let honest = Blind::new(Latitude::default()).live(3);
        for hostile in [
            Hostile::from_bytes(Vec::new()),
            Hostile::from_seed(seed).with_lies(Lies::none()),
        ] {
            let mut blind = Blind::lied_to(Latitude::default(), hostile);
            assert!(blind.live(3) == honest, "seed {seed}");
            assert_eq!(blind.told().total(), 0, "seed {seed}");
        }
    }
}

/// Brings a device to where another one is that was never lied to: memory and registers are new.
fn start_afresh(blind: &mut Blind) -> Vec<u64> {
    blind.seen.clear();
    blind.rig.memory.bytes.fill(0);
    blind.rig.take_interrupts();
    blind.rig.lanes.lock().unwrap().coming.clear();
    blind.rig.write(0x0000, 1 << 26);
    blind.rig.initialise();
    blind.rig.steps(4);
    // BMSR shows a lost link once, and the reset of the MAC is not that of the PHY.
    blind.poll();
    blind.seen.clear();
    blind.live(2)
}

#[test]
fn a_script_that_ends_leaves_an_honest_device() {
    let mut blind = Blind::new(Latitude::none());
    blind.live(1);
    let honest = start_afresh(&mut blind);
    for seed in 0..40 {
        let len = 8 + seed as usize * 5;
        let hostile = Hostile::from_bytes(noise(seed, len));
        let mut blind = Blind::lied_to(Latitude::none(), hostile);
        blind.live(1);
        for _ in 0..100_000 {
            if blind.rig.device.is_honest() {
                break;
            }
            blind.rig.step();
        }
        assert!(blind.rig.device.is_honest(), "script {seed}");
        let told = blind.told();
        assert!(told.total() > 0, "script {seed}");
        let after = start_afresh(&mut blind);
        assert!(after == honest, "script {seed}: not honest after {told:?}");
        assert_eq!(blind.told(), told, "script {seed}");
    }
}

#[test]
fn a_device_can_be_turned_and_turned_back() {
    for seed in 0..10 {
        let mut blind = Blind::new(Latitude::default());
        let hostile = Hostile::from_seed(seed).with_gap(3);
        blind.rig.device.be_hostile(Some(hostile.clone()));
        blind.live(2);
        blind.rig.device.be_hostile(None);
        let told = blind.told();
        assert!(told.total() > 0, "seed {seed}");
        blind.rig.expect_clean();
        // The last reset ends; what the driver gets wrong now is the lies' fault still.
        blind.rig.steps(2000);
        blind.rig.write(0x3818, 0x7777);
        blind.rig.expect_clean();
        blind.rig.initialise();
        blind.rig.prepare_transmit();
        blind.rig.write(0x0400, 1 << 1 | 1 << 3);
        blind.rig.write(0x3818, 0x7777);
        blind.rig.expect_violation("in a ring of");
        assert_eq!(blind.told(), told, "seed {seed}: honest now");
        blind.rig.device.be_hostile(Some(hostile));
        blind.live(1);
        assert!(blind.told().total() > told.total(), "seed {seed}");
    }
}

#[test]
fn a_device_that_is_gone_does_nothing() {
    let hostile = Hostile::from_bytes([0, 0, 10]).with_lies(Lies::only(Lie::Removal));
    let mut blind = Blind::lied_to(Latitude::none(), hostile);
    let rig = &mut blind.rig;
    assert_eq!(rig.read(0x0008), u32::MAX);
    assert_eq!(rig.device.config_read(0), u32::MAX);
    rig.device.config_write(4, 0);
    let address = rig.put(PAYLOAD, &[7; 100]);
    let index = rig.push(legacy(address, 100, LAST, 0, 0));
    rig.doorbell();
    rig.steps(5);
    assert!(rig.sent().is_empty() && !rig.is_done(index));
    assert!(!rig.device.is_honest());
    // It lasts for 2^10 accesses and steps, and then it is back as it was.
    rig.steps(1 << 10);
    assert!(rig.device.is_honest());
    assert_eq!(rig.device.config_read(4) & 4, 4);
    assert_ne!(rig.read(0x0008), u32::MAX);
    rig.doorbell();
    rig.until_done(index);
}

#[test]
fn a_write_outside_of_memory_is_no_matter() {
    for seed in 0..50 {
        let lies = Lies::only(Lie::WildWrite).with(Lie::ScribbleBuffer);
        let hostile = Hostile::from_seed(seed).with_lies(lies).with_gap(0);
        let mut blind = Blind::lied_to(Latitude::none(), hostile);
        // What a system unmaps when the driver is gone.
        blind.rig.memory.hole = BUFFERS..BUFFERS + 8 * BUFFER;
        blind.live(2);
        let told = blind.told();
        assert!(told.told(Lie::WildWrite) > 0, "seed {seed}");
        assert!(told.told(Lie::ScribbleBuffer) > 0, "seed {seed}");
    }
}
