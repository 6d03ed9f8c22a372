//! The device that lies.

use super::super::{Hostile, Lie, Lies};
use super::rig::*;
use crate::Device;

/// A life: registers polled, frames sent and received, resets.
fn live(rig: &mut Rig, rounds: u32) {
    let mut frame = pattern(300, 1);
    frame[..6].copy_from_slice(&MAC);
    for round in 0..rounds {
        for at in [
            0x0000, 0x0008, 0x42a4, 0x0800, 0x6028, 0x1028, 0x6010, 0x1010, 0x4074, 0x1_0010,
            0x1_0014, 0x2f00, 0x8d04, 0x1_0140,
        ] {
            rig.read(at);
        }
        for at in [0, 4, 0x34, 0x40, 0x70, 0xa0, 0xa8] {
            rig.device.config_read(at);
        }
        if rig.next + 4 < ENTRIES {
            rig.post(&frame, &[40, 100], 0, 0, frame.len());
            rig.doorbell();
        }
        rig.deliver(&frame);
        rig.steps(5);
        if round % 16 == 15 {
            rig.set(0x0000, 1 << 2);
            rig.steps(10);
            rig.write(0x0000, 1 << 26);
            rig.steps(10);
            rig.next = 0;
        }
    }
}

#[test]
fn every_lie_is_told_sooner_or_later() {
    for lie in Lie::ALL {
        let mut told = false;
        for seed in 0..30 {
            let mut rig = Rig::wild(seed);
            rig.give(0, 40);
            rig.write(0x0900, 0x8180);
            rig.write(0x0880, 3);
            rig.write(0x0810, 0xffff);
            let hostile = Hostile::from_seed(seed).with_lies(Lies::only(lie));
            // What needs an access that is rare is told with no gap only.
            let gap = if seed % 2 == 0 { 2 } else { 0 };
            rig.device.be_hostile(Some(hostile.with_gap(gap)));
            live(&mut rig, 24);
            told |= rig.device.lies_told().told(lie) > 0;
            assert_eq!(
                rig.device.lies_told().total(),
                rig.device.lies_told().told(lie),
                "seed {seed}: no other lie than {lie:?}"
            );
            if told {
                break;
            }
        }
        assert!(told, "never told in 30 seeds: {lie:?}");
    }
}

#[test]
fn all_lies_at_once_do_no_harm_to_the_model() {
    for seed in 0..100 {
        let mut rig = Rig::wild(seed);
        rig.give(0, 40);
        // A removal may be for ever, and then there is nothing more to tell.
        let lies = Lies::all().without(Lie::Removal);
        let hostile = Hostile::from_seed(seed).with_lies(lies);
        rig.device.be_hostile(Some(hostile.with_gap(1)));
        live(&mut rig, 60);
        assert!(rig.device.lies_told().total() > 20, "seed {seed}");
        assert!(!rig.device.is_honest(), "seed {seed}");
        rig.expect_clean();
    }
}

#[test]
fn a_device_that_has_become_honest_works_after_a_reset() {
    for seed in 0..20 {
        let mut rig = Rig::wild(seed);
        rig.device.be_hostile(Some(Hostile::from_seed(seed)));
        live(&mut rig, 30);
        rig.device.be_hostile(None);
        rig.write(0x0000, 1 << 2);
        rig.steps(100);
        rig.initialise();
        rig.start_receive(0);
        rig.start_receiver();
        rig.start_transmit(0, 0);
        rig.until("link", |rig| rig.read(0x42a4) & 1 << 30 != 0);
        rig.lanes.lock().unwrap().sent.clear();
        rig.memory.bytes[TX_RING..TX_RING + 1024].fill(0);
        let frame = pattern(80, 1);
        rig.send(&frame);
        assert_eq!(rig.sent(), [frame], "seed {seed}");
        rig.expect_clean();
    }
}

#[test]
fn an_empty_script_is_honest() {
    let mut rig = Rig::wild(1);
    rig.device.be_hostile(Some(Hostile::from_bytes(Vec::new())));
    rig.give(0, 8);
    rig.send(&pattern(80, 1));
    assert!(rig.device.is_honest());
    assert_eq!(rig.device.lies_told().total(), 0);
}
