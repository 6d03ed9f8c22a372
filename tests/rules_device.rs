//! The rules of the design that the driver and the HAL's safe layer must hold without a TCP on
//! top: 4, 6 (the device's half) and 7. Each test names its rule; those of rule 8 are in
//! `rules_capabilities.rs`.
// A test may panic: that is how it fails.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::frames::{config, post, region};
use common::{Lab, granule};
use pagewire::e1000e::E1000e;
use pagewire::hal::{
    Fragment, FrameError, Granule, Instant, LendError, Nic, NicError, Offload, Phase, PortError,
    PostError, RxQueue, Token, TxFrame, TxPort, TxQueue,
};
use pagewire_models::e1000e::{E1000e82574, ModelConfig};
use pagewire_models::wire::pair;
use pagewire_models::{Bus, Device, Host, HostConfig};

#[test]
fn rule_4_a_gather_frame_is_all_or_nothing() {
    for seed in 0..20 {
        let (mut lab, mut port) = Lab::with_port(seed, Granule::CONTIGUOUS, &config(16));
        let (region, id) = region(&lab.host, &mut port, 1 << 16);
        let loan = port.ledger_mut().lend(id, 0, 1 << 16).unwrap();
        // 16 descriptors less the gap of 2: a frame of 5 fragments fits twice, not a third time.
        let pieces = [(0, 300), (5000, 300), (10_000, 300), (15_000, 300)];
        post(&mut port, &loan, &pieces).unwrap();
        post(&mut port, &loan, &pieces).unwrap();
        let before = (
            port.ledger().counters().loans,
            port.vacant_buffers(),
            port.outstanding(),
        );
        for _ in 0..3 {
            let third = post(&mut port, &loan, &pieces);
            assert_eq!(third, Err(PortError::Post(PostError::Full)), "seed {seed}");
        }
        let after = (
            port.ledger().counters().loans,
            port.vacant_buffers(),
            port.outstanding(),
        );
        assert_eq!(
            before, after,
            "seed {seed}: a refused frame left something behind"
        );
        // What fits beside them still goes.
        post(&mut port, &loan, &pieces[..2]).unwrap();
        port.doorbell();
        lab.run(400);
        let frames = lab.arrived();
        assert_eq!(frames.len(), 3, "seed {seed}");
        for (frame, count) in frames.iter().zip([4, 4, 2]) {
            let expected: Vec<u8> = pieces[..count]
                .iter()
                .flat_map(|(start, len)| region.bytes()[*start..start + len].to_vec())
                .collect();
            assert_eq!(&frame[14..], expected, "seed {seed}");
        }
        port.reclaim(&mut |_| {}).unwrap();
        assert_eq!(port.outstanding(), 0, "seed {seed}");
        port.ledger_mut().give_back(loan);
        lab.assert_clean();
    }
}

#[test]
fn rule_4_zero_length_fragments_are_refused() {
    let (lab, mut tx) = Lab::new(1, granule(4096), &config(16));
    let memory = lab.host.allocate(64, 64).unwrap();
    let address = pagewire::hal::DmaMemory::address(&memory);
    let fragments = [Fragment { address, len: 60 }, Fragment { address, len: 0 }];
    let frame = TxFrame {
        fragments: &fragments,
        offload: Offload::NONE,
        first: None,
    };
    // SAFETY: a frame that is refused is never read.
    let refused = unsafe { tx.post(&frame, Token(0)) };
    assert_eq!(
        refused,
        Err(PostError::Refused(FrameError::EmptyFragment { index: 1 }))
    );
    assert_eq!(tx.outstanding(), 0);

    let (lab, mut port) = Lab::with_port(1, granule(4096), &config(16));
    let (_region, id) = region(&lab.host, &mut port, 4096);
    let loan = port.ledger_mut().lend(id, 0, 4096).unwrap();
    let refused = post(&mut port, &loan, &[(0, 100), (100, 0)]);
    assert_eq!(refused, Err(PortError::Lend(LendError::Empty)));
    assert_eq!(port.ledger().counters().loans, 1);
    port.ledger_mut().give_back(loan);
}

#[test]
fn rule_6_a_reset_in_flight_gives_each_page_back_once() {
    for seed in 0..20 {
        let (mut lab, mut port) = Lab::with_port(seed, granule(4096), &config(64));
        let (region, id) = region(&lab.host, &mut port, 1 << 16);
        let loan = port.ledger_mut().lend(id, 0, 1 << 16).unwrap();
        for round in 0..5 {
            lab.model
                .with_device(|device| device.hold_completions(true));
            for frame in 0..10 {
                post(
                    &mut port,
                    &loan,
                    &[(frame * 4096, 700), (frame * 4096 + 2000, 700)],
                )
                .unwrap();
                if frame % 3 == 0 {
                    port.doorbell();
                }
            }
            lab.run(round * 7);
            assert_eq!(port.reclaim(&mut |_| {}), Ok(0), "seed {seed}");
            assert_eq!(port.outstanding(), 10, "seed {seed}");
            lab.model
                .with_device(|device| device.hold_completions(false));
            lab.reset(&mut port);
            assert_eq!(port.outstanding(), 0, "seed {seed} round {round}");
            assert_eq!(port.counters().stray_tokens, 0, "seed {seed} round {round}");
            assert_eq!(
                port.ledger().counters().loans,
                1,
                "seed {seed} round {round}"
            );
            // And it works again.
            lab.run(2000);
            lab.arrived();
            post(&mut port, &loan, &[(0, 1000)]).unwrap();
            port.doorbell();
            lab.run(400);
            assert_eq!(lab.arrived().len(), 1, "seed {seed} round {round}");
            assert_eq!(
                port.reclaim(&mut |_| {}),
                Ok(1),
                "seed {seed} round {round}"
            );
        }
        port.ledger_mut().give_back(loan);
        assert_eq!(port.ledger().counters().pinned_pages, 0);
        port.ledger_mut().release(id).unwrap();
        let (_, back) = port.ledger_mut().take_released().unwrap();
        drop(back);
        assert!(
            Arc::into_inner(region).is_some(),
            "seed {seed}: somebody still holds it"
        );
        lab.assert_clean();
    }
}

#[test]
fn rule_6_what_never_becomes_quiet_is_leaked_and_reported() {
    let (mut lab, mut port) = Lab::with_port(3, granule(4096), &config(64));
    let (region, id) = region(&lab.host, &mut port, 4096);
    let loan = port.ledger_mut().lend(id, 0, 4096).unwrap();
    lab.model.with_device(|device| {
        device.hold_completions(true);
        device.never_quiet(true);
    });
    post(&mut port, &loan, &[(0, 700)]).unwrap();
    port.doorbell();
    lab.run(10);
    lab.nic.begin_reset(lab.host.now());
    let mut last = Ok(Phase::Stopping);
    for _ in 0..100_000 {
        last = lab.nic.poll(lab.host.now());
        if last != Ok(Phase::Stopping) {
            break;
        }
        lab.run(1);
    }
    assert!(
        matches!(last, Err(NicError::NotQuiet) | Ok(Phase::Failed)),
        "{last:?}"
    );
    let pair = pagewire::hal::PortPair {
        tx: &mut port,
        rx: &mut lab.rx,
    };
    let refused = pagewire::hal::release(&mut lab.nic, &mut [pair]);
    assert_eq!(refused, Err(NicError::WrongPhase));
    port.ledger_mut().give_back(loan);
    let weak = Arc::downgrade(&region);
    drop(region);
    drop(port);
    assert!(
        weak.upgrade().is_some(),
        "freed under a device that may still read it"
    );
}

/// A device that is what it claims to be until it scribbles over its rings.
struct Liar {
    inner: E1000e82574,
    random: fastrand::Rng,
    bases: [u64; 2],
    lies: bool,
}

impl Device for Liar {
    fn config_read(&mut self, offset: u16) -> u32 {
        self.inner.config_read(offset)
    }

    fn config_write(&mut self, offset: u16, value: u32) {
        self.inner.config_write(offset, value);
    }

    fn bar_len(&self, index: u8) -> Option<u32> {
        self.inner.bar_len(index)
    }

    fn read(&mut self, bar: u8, offset: u32, now: Instant) -> u32 {
        self.inner.read(bar, offset, now)
    }

    fn write(&mut self, bar: u8, offset: u32, value: u32, now: Instant) {
        match offset {
            0x2800 => self.bases[0] = self.bases[0] >> 32 << 32 | u64::from(value),
            0x2804 => self.bases[0] = self.bases[0] & 0xffff_ffff | u64::from(value) << 32,
            0x3800 => self.bases[1] = self.bases[1] >> 32 << 32 | u64::from(value),
            0x3804 => self.bases[1] = self.bases[1] & 0xffff_ffff | u64::from(value) << 32,
            _ => {}
        }
        self.inner.write(bar, offset, value, now);
    }

    fn vectors(&self) -> u16 {
        self.inner.vectors()
    }

    fn step(&mut self, bus: &mut dyn Bus, now: Instant) -> bool {
        let worked = self.inner.step(bus, now);
        if self.lies {
            let base = self.bases[self.random.usize(..2)];
            let mut bytes = vec![0; self.random.usize(1..64)];
            self.random.fill(&mut bytes);
            let at = self.random.u64(..64 * 16 - 64);
            // A liar does not care whether it hits.
            let _ = bus.write(base + at, &bytes);
        }
        worked
    }

    fn take_violations(&mut self) -> Vec<String> {
        self.inner.take_violations()
    }
}

#[test]
fn rule_7_a_device_that_scribbles_over_its_rings_is_survived() {
    for seed in 0..200 {
        let host = Host::new(HostConfig {
            seed,
            granule: granule(4096),
        });
        let (near, mut far) = pair();
        let model = ModelConfig {
            seed,
            ..ModelConfig::default()
        };
        let inner = E1000e82574::new(model, Box::new(near));
        let random = fastrand::Rng::with_seed(seed);
        let attached = host.attach(Liar {
            inner,
            random,
            bases: [0; 2],
            lies: false,
        });
        let mut nic = E1000e::open(attached.platform, &config(64)).unwrap();
        let (tx, mut rx) = nic.take_queues(0).unwrap();
        let mut port = TxPort::new(&mut nic, tx, &common::layout()).unwrap();
        let (_region, id) = region(&host, &mut port, 1 << 16);
        let loan = port.ledger_mut().lend(id, 0, 1 << 16).unwrap();
        attached.handle.with_device(|device| device.lies = true);
        let mut posted = 0;
        let mut done = 0;
        let mut scratch = vec![0; 16 << 10];
        for round in 0..300usize {
            if port.vacant_buffers().0 > 0
                && post(
                    &mut port,
                    &loan,
                    &[(round * 64, 500), (round * 64 + 9000, 500)],
                )
                .is_ok()
            {
                posted += 1;
            }
            port.doorbell();
            pagewire_models::Wire::transmit(&mut far, &mut vec![0x55; 60 + round], host.now());
            attached.handle.step();
            host.advance(Duration::from_micros(10));
            // Errors are what is expected here; what is not: a panic, or a token too many.
            let _ = port.reclaim(&mut |_| done += 1);
            let _ = rx.receive(64, &mut |frame| {
                frame.copy_to(&mut scratch);
            });
        }
        assert!(done <= posted, "seed {seed}: {done} of {posted}");
        assert_eq!(port.counters().stray_tokens, 0, "seed {seed}");
        assert_eq!(port.outstanding(), posted - done, "seed {seed}");
        port.ledger_mut().give_back(loan);
    }
}

#[test]
fn rule_7_a_device_that_is_pulled_out_is_an_error() {
    for seed in 0..50 {
        let (mut lab, mut port) = Lab::with_port(seed, granule(4096), &config(64));
        let (_region, id) = region(&lab.host, &mut port, 1 << 16);
        let loan = port.ledger_mut().lend(id, 0, 1 << 16).unwrap();
        for round in 0..20 {
            if round == seed as usize % 20 {
                lab.model.remove();
            }
            let _ = post(&mut port, &loan, &[(round * 100, 700)]);
            port.doorbell();
            lab.run(3);
            let _ = port.reclaim(&mut |_| {});
            let _ = lab.rx.receive(64, &mut |_| {});
        }
        assert_eq!(
            lab.nic.poll(lab.host.now()),
            Err(NicError::Removed),
            "seed {seed}"
        );
        assert!(!lab.quiesce(), "seed {seed}");
        assert!(!lab.nic.link().up, "seed {seed}");
        port.ledger_mut().give_back(loan);
    }
}
