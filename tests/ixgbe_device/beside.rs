//! Queues that go on while the device is reset: they may be on other threads.

use pagewire::hal::{Offload, PostError, RxQueue, TxQueue};

use crate::lab::Lab;
use crate::{model, pairs, pattern};

#[test]
fn what_is_posted_and_rung_while_the_device_is_stopped_comes_back_and_is_not_sent() {
    for seed in 0..8 {
        let mut lab = Lab::new(model(seed), &pairs(2));
        let fragment = lab.fragment(&pattern(200));
        for round in 0..3 {
            let mut posted = [0, 0];
            let back = lab.reset_beside(|lab| {
                for (pair, posted) in posted.iter_mut().enumerate() {
                    match lab.post(pair, &[fragment], Offload::NONE, *posted) {
                        Ok(()) => *posted += 1,
                        Err(error) => assert_eq!(error, PostError::Full),
                    }
                    let (tx, rx) = &mut lab.pairs[pair];
                    tx.doorbell();
                    rx.receive(4, &mut |_| {}).unwrap();
                }
            });
            let what = format!("seed {seed}, round {round}");
            for (pair, posted) in posted.into_iter().enumerate() {
                let own = back.iter().filter(|(at, _)| usize::from(*at) == pair);
                assert!(own.map(|(_, token)| *token).eq(0..posted), "{what}");
                assert!(posted > 0, "{what}");
            }
            lab.run(100);
            assert!(lab.arrived().is_empty(), "{what}");
            for pair in 0..2 {
                let bytes = [pair as u8; 77];
                let fragment = lab.fragment(&bytes);
                assert_eq!(lab.post(pair, &[fragment], Offload::NONE, 9), Ok(()));
                assert_eq!(lab.finish(pair), [9], "{what}");
                assert_eq!(lab.arrived(), [bytes.to_vec()], "{what}, pair {pair}");
                let frame = pattern(100);
                assert_eq!(lab.receive(&frame).1[6..], frame[6..], "{what}");
            }
        }
        lab.assert_clean();
    }
}
