//! The lies.

use std::hash::{DefaultHasher, Hasher};

use super::super::{Hostile, Latitude, Lie, LieCounters, Lies, ModelConfig};
use super::rig::*;
use crate::Device;

/// CTRL_VQ, CTRL_RX, MRG_RXBUF, GUEST_CSUM, RING_RESET.
const FEATURES: u64 = LEAST | RING_RESET | 1 << 17 | 1 << 18 | 1 << 15 | 1 << 1;
const SIZE: u16 = 32;

/// A driver without eyes: it does the same whatever the device answers, and keeps all it sees.
struct Blind {
    rig: Rig,
    features: u64,
    seen: Vec<u64>,
}

impl Blind {
    /// Doorbells are where it presumes them to be.
    fn new(latitude: Latitude, features: u64) -> Self {
        let config = ModelConfig {
            latitude: Latitude {
                scattered_doorbells: false,
                ..latitude
            },
            ..ModelConfig::default()
        };
        Self {
            rig: Rig::warm(config, features, SIZE),
            features,
            seen: Vec::new(),
        }
    }

    fn lied_to(latitude: Latitude, features: u64, hostile: Hostile) -> Self {
        let mut blind = Self::new(latitude, features);
        blind.rig.device.be_hostile(Some(hostile));
        blind
    }

    /// Rings, receive buffers, answers.
    fn see_memory(&mut self) {
        let mut hasher = DefaultHasher::new();
        let (answers, buffers) = (PAYLOAD + 0x8000, BUFFERS);
        for (start, len) in [(0, 0xc000), (answers, 0x800), (buffers, 0x4000)] {
            hasher.write(&self.rig.memory.bytes[start..start + len]);
        }
        self.seen.push(hasher.finish());
    }

    fn poll(&mut self) {
        for at in (0..0xf0).step_by(4).filter(|at| *at != 0xb8) {
            let value = self.rig.device.config_read(at);
            self.seen.push(value.into());
        }
        for at in [
            0x10, 0x12, 0x18, 0x1a, 0x1c, 0x1e, 0x3a, 0x2006, 0x2008, 0x200a,
        ] {
            let value = self.rig.read(at, 2);
            self.seen.push(value.into());
        }
        for at in [0x14, 0x15, 0x2000, 0x2001, 0x2005] {
            let value = self.rig.read(at, 1);
            self.seen.push(value.into());
        }
        self.rig.write(0, 4, 1);
        let value = self.rig.read(4, 4);
        self.seen.push(value.into());
    }

    /// The way up, as if all were well.
    fn initialise(&mut self) {
        let rig = &mut self.rig;
        rig.device.config_write(4, 6);
        rig.device.config_write(0xe0, 1 << 31);
        rig.set_status(0);
        rig.steps(5);
        rig.memory.bytes[..0x4_0000].fill(0);
        rig.set_status(1);
        rig.set_status(3);
        for select in 0..2 {
            rig.write(8, 4, select);
            rig.write(12, 4, (self.features >> (32 * select)) as u32);
        }
        rig.set_status(11);
        rig.write(0x10, 2, 0);
        for index in 0..3 {
            rig.renew(index, SIZE);
            rig.enable(index);
        }
        rig.presume_doorbells();
        rig.set_status(15);
    }

    /// Frames both ways and commands.
    fn traffic(&mut self) {
        for index in 0..6u8 {
            let rig = &mut self.rig;
            rig.push(
                0,
                &[(BUFFERS + usize::from(index) * 0x800, 0x800, true)],
                false,
            );
            let place = PAYLOAD + usize::from(index) * 0x800;
            rig.memory.put(place, &[0; 12]);
            rig.memory.put(place + 12, &[index; 100]);
            rig.push(1, &[(place, 112, false)], false);
            let command = PAYLOAD + 0x8000 + usize::from(index) * 0x100;
            rig.memory.put(command, &[0, 0, 1, 0xee]);
            rig.push(2, &[(command, 3, false), (command + 3, 1, true)], false);
            rig.deliver(&[index; 100]);
            rig.steps(4);
            self.poll();
            self.see_memory();
            let interrupts = self.rig.take_interrupts();
            self.seen.extend(interrupts.into_iter().map(u64::from));
        }
    }

    fn live(&mut self, rounds: usize) -> Vec<u64> {
        for _ in 0..rounds {
            self.traffic();
            self.rig.write(0x16, 2, 1);
            self.rig.write(0x3a, 2, 1);
            self.poll();
            self.rig.set_status(0);
            for _ in 0..5 {
                self.rig.step();
                self.poll();
            }
            self.see_memory();
            self.initialise();
        }
        std::mem::take(&mut self.seen)
    }

    fn told(&self) -> LieCounters {
        self.rig.device.lies_told().clone()
    }
}

/// What a lie needs beside [`FEATURES`].
fn needs(lie: Lie) -> u64 {
    match lie {
        Lie::OrderBroken => IN_ORDER,
        Lie::FlagsFlipped => PACKED,
        _ => 0,
    }
}

#[test]
fn every_lie_is_told_and_seen_in_both_ring_formats() {
    for ring in [0, PACKED] {
        for lie in Lie::ALL {
            let features = FEATURES | ring | needs(lie);
            let honest = Blind::new(Latitude::default(), features).live(3);
            let mut seen = false;
            for seed in 0..10 {
                let hostile = Hostile::from_seed(seed)
                    .with_lies(Lies::only(lie))
                    .with_gap(seed as u32 % 3);
                let mut blind = Blind::lied_to(Latitude::default(), features, hostile);
                let differs = blind.live(3) != honest;
                let told = blind.told();
                assert_eq!(told.total(), told.told(lie), "{lie:?}, seed {seed}");
                assert!(
                    !differs || told.total() > 0,
                    "{lie:?}, seed {seed}: not counted"
                );
                blind.rig.expect_clean();
                seen |= differs;
            }
            assert!(seen, "{lie:?}: nothing to be seen with seeds 0 to 9");
        }
    }
}

#[test]
fn all_lies_are_told_by_one_device() {
    for seed in 0..4 {
        let ring = if seed % 2 == 0 { 0 } else { PACKED };
        // A removal or a stall may last for ever, and a driver that does not look whether its
        // writes arrive is soon left without rings.
        let mut lies = Lies::all()
            .without(Lie::Removal)
            .without(Lie::Stall)
            .without(Lie::WriteLost);
        if ring == 0 {
            lies = lies.without(Lie::FlagsFlipped);
        }
        let hostile = Hostile::from_seed(seed).with_lies(lies).with_gap(1);
        let features = FEATURES | ring | IN_ORDER;
        let mut blind = Blind::lied_to(Latitude::default(), features, hostile);
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
    let mut random = fastrand::Rng::with_seed(seed);
    (0..len).map(|_| random.u8(..0x40)).collect()
}

#[test]
fn the_same_seed_tells_the_same_lies() {
    let run = |hostile| {
        let mut blind = Blind::lied_to(Latitude::default(), FEATURES, hostile);
        (blind.live(4), blind.told())
    };
    for seed in 0..6 {
        let first = run(Hostile::from_seed(seed));
        let again = run(Hostile::from_seed(seed));
        assert!(first == again, "seed {seed}: unequal");
        let other = run(Hostile::from_seed(seed + 100));
        assert!(first != other, "seeds {seed} and {}: alike", seed + 100);
        let script = noise(seed, 2000);
        let scripted = Hostile::from_bytes(script).with_lies(Lies::all().without(Lie::Removal));
        let first = run(scripted.clone());
        let again = run(scripted);
        assert!(first == again, "script {seed}: unequal");
        assert!(first.1.total() > 10, "script {seed}: {:?}", first.1);
    }
}

#[test]
fn without_lies_it_is_honest() {
    for seed in 0..4 {
        let honest = Blind::new(Latitude::default(), FEATURES).live(3);
        for hostile in [
            Hostile::from_bytes(Vec::new()),
            Hostile::from_seed(seed).with_lies(Lies::none()),
        ] {
            let mut blind = Blind::lied_to(Latitude::default(), FEATURES, hostile);
            assert!(blind.live(3) == honest, "seed {seed}");
            assert_eq!(blind.told().total(), 0, "seed {seed}");
        }
    }
}

/// Brings a device up and uses it, believing what it says.
fn works(rig: &mut Rig, features: u64) {
    let seed = rig.seed;
    rig.lanes.lock().unwrap().coming.clear();
    rig.device.config_write(4, 6);
    assert!(rig.negotiate(features), "seed {seed}");
    rig.memory.bytes.fill(0);
    rig.enable_all(SIZE);
    rig.set_status(15);
    let before = rig.sent().len();
    rig.send([0; 12], &[9; 60]);
    rig.wait(1);
    assert_eq!(rig.sent().len(), before + 1, "seed {seed}");
    rig.push(0, &[(BUFFERS, 0x800, true)], false);
    rig.deliver(&[8; 60]);
    assert_eq!(rig.wait(0)[0].1, 72, "seed {seed}");
    rig.expect_clean();
}

#[test]
fn a_script_that_ends_leaves_an_honest_device() {
    for seed in 0..40 {
        let len = 8 + seed as usize * 5;
        let ring = if seed % 2 == 0 { 0 } else { PACKED };
        let hostile = Hostile::from_bytes(noise(seed, len));
        let mut blind = Blind::lied_to(Latitude::none(), FEATURES | ring, hostile);
        blind.live(2);
        for _ in 0..100_000 {
            if blind.rig.device.is_honest() {
                break;
            }
            blind.rig.step();
        }
        assert!(blind.rig.device.is_honest(), "script {seed}");
        let told = blind.told();
        assert!(told.total() > 0, "script {seed}");
        works(&mut blind.rig, FEATURES | ring);
        assert_eq!(blind.told(), told, "script {seed}");
    }
}

#[test]
fn a_device_can_be_turned_and_turned_back() {
    for seed in 0..10 {
        let mut blind = Blind::new(Latitude::default(), FEATURES);
        let hostile = Hostile::from_seed(seed).with_gap(3);
        blind.rig.device.be_hostile(Some(hostile.clone()));
        blind.live(2);
        blind.rig.device.be_hostile(None);
        assert!(blind.rig.device.is_honest());
        let told = blind.told();
        assert!(told.total() > 0, "seed {seed}");
        // What the driver gets wrong now is the lies' fault still, until a reset.
        blind.rig.set_status(1);
        blind.rig.expect_clean();
        works(&mut blind.rig, FEATURES);
        blind.rig.set_status(1);
        blind.rig.expect_violation("overwritten");
        assert_eq!(blind.told(), told, "seed {seed}: honest now");
        blind.rig.device.be_hostile(Some(hostile));
        blind.live(1);
        assert!(blind.told().total() > told.total(), "seed {seed}");
    }
}

#[test]
fn a_device_that_is_gone_or_stalled_does_nothing() {
    for lie in [Lie::Removal, Lie::Stall] {
        // It lasts for 2^10 accesses and steps, and then it is back as it was.
        let hostile = Hostile::from_bytes([0, 0, 10]).with_lies(Lies::only(lie));
        let mut blind = Blind::lied_to(Latitude::none(), FEATURES, hostile);
        let rig = &mut blind.rig;
        rig.step();
        let gone = lie == Lie::Removal;
        assert_eq!(rig.status() == u8::MAX, gone, "{lie:?}");
        assert_eq!(rig.device.config_read(0) == u32::MAX, gone, "{lie:?}");
        rig.send([0; 12], &[7; 60]);
        rig.steps(5);
        assert!(rig.sent().is_empty(), "{lie:?}");
        assert!(!rig.device.is_honest(), "{lie:?}");
        rig.steps(1 << 10);
        assert!(rig.device.is_honest(), "{lie:?}");
        assert_eq!(rig.status(), 15, "{lie:?}");
        rig.doorbell(1);
        rig.wait(1);
        assert_eq!(rig.sent().len(), 1, "{lie:?}");
    }
}

#[test]
fn a_reset_that_is_feigned_leaves_the_device_at_work() {
    let hostile = Hostile::from_seed(3)
        .with_lies(Lies::only(Lie::ResetClearsNothing))
        .with_gap(0);
    let mut blind = Blind::lied_to(Latitude::none(), FEATURES, hostile);
    let rig = &mut blind.rig;
    rig.step();
    rig.set_status(0);
    assert_eq!(rig.status(), 0);
    rig.deliver(&[5; 60]);
    rig.push(0, &[(BUFFERS, 0x800, true)], false);
    rig.step();
    assert_eq!(rig.memory.bytes[BUFFERS + 12], 5, "written after the reset");
    rig.device.be_hostile(None);
    works(rig, FEATURES);
}

#[test]
fn a_write_outside_of_memory_is_no_matter() {
    let mut told = LieCounters::default();
    for seed in 0..20 {
        let lies = Lies::only(Lie::WildWrite).with(Lie::WriteWhileQuiet);
        let hostile = Hostile::from_seed(seed).with_lies(lies).with_gap(0);
        let mut blind = Blind::lied_to(Latitude::none(), FEATURES, hostile);
        blind.live(2);
        told = blind.told();
        assert!(told.told(Lie::WildWrite) > 0, "seed {seed}");
    }
    assert!(told.told(Lie::WriteWhileQuiet) > 0, "{told:?}");
}
