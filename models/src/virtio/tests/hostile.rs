//! The device that lies: it does lie, reaches no more than it may, and can be honest again.

use super::super::{Hostile, ModelConfig};
use super::rig::*;

/// Traffic that believes nothing; memory outside of rings and receive buffers stays as it was.
fn run(rig: &mut Rig, rounds: usize) {
    for round in 0..rounds {
        // Rings of its own: what was used is not looked at.
        for queue in 0..2 {
            if !rig.rings[queue].fits(1) {
                let size = rig.rings[queue].size;
                rig.renew(queue as u16, size);
            }
        }
        rig.memory.put(PAYLOAD + 12, &[round as u8; 60]);
        rig.push(1, &[(PAYLOAD, 72, false)], false);
        rig.deliver(&[round as u8; 60]);
        rig.push(0, &[(BUFFERS + 0x1000 * (round % 64), 1600, true)], false);
        rig.steps(3);
    }
}

#[test]
fn it_lies_in_every_way_and_stays_in_bounds() {
    let mut all = [0; 7];
    for seed in 0..60 {
        let features = LEAST | if seed % 2 == 0 { 0 } else { PACKED };
        let config = ModelConfig {
            seed,
            ..ModelConfig::default()
        };
        let mut rig = Rig::warm(config, features, 64);
        rig.device
            .be_hostile(Some(Hostile::from_seed(seed).with_gap(2)));
        rig.memory.bytes[0xc000..PAYLOAD].fill(0x77);
        for _ in 0..20 {
            run(&mut rig, 2);
            for offset in [0x14, 0x15] {
                rig.read(offset, 1);
            }
        }
        let told = rig.device.lies_told();
        let counts = [
            told.registers,
            told.ids,
            told.lengths,
            told.repeats,
            told.omissions,
            told.scribbles,
            told.headers,
        ];
        for (sum, count) in all.iter_mut().zip(counts) {
            *sum += count;
        }
        let rest = &rig.memory.bytes[0xc000..PAYLOAD];
        assert!(rest.iter().all(|byte| *byte == 0x77), "seed {seed}");
        rig.expect_clean();
        // Honest again: after a reset everything works.
        rig.device.be_hostile(None);
        assert!(rig.device.is_honest());
        rig.lanes.lock().unwrap().coming.clear();
        assert!(rig.negotiate(features), "seed {seed}");
        // Not before: what was used is written until the reset has finished.
        rig.memory.bytes[..0xc000].fill(0);
        rig.enable_all(64);
        rig.set_status(15);
        let before = rig.sent().len();
        rig.send([0; 12], &[9; 60]);
        rig.wait(1);
        assert_eq!(rig.sent().len(), before + 1, "seed {seed}");
        rig.expect_clean();
        rig.set_status(1);
        rig.expect_violation("overwritten");
    }
    assert!(all.iter().all(|count| *count > 0), "{all:?}");
}

#[test]
fn a_script_ends() {
    let mut rig = Rig::warm(plain(), LEAST, 64);
    rig.device.be_hostile(Some(Hostile::from_bytes([])));
    assert!(rig.device.is_honest());
    run(&mut rig, 20);
    assert_eq!(rig.device.lies_told(), super::super::LiesTold::default());
    // Gaps of 0; a lie about the length of a used buffer.
    let script = [0, 0, 0, 1, 5, 5, 5, 5];
    rig.device.be_hostile(Some(Hostile::from_bytes(script)));
    assert!(!rig.device.is_honest());
    for _ in 0..10 {
        rig.send([0; 12], &[9; 60]);
        rig.steps(2);
    }
    assert!(rig.device.is_honest());
    assert_ne!(rig.device.lies_told(), super::super::LiesTold::default());
}
