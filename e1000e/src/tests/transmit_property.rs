//! Random sequences of post, doorbell, complete and reclaim: tokens come back exactly once and
//! in order, and no descriptor of a frame that has not completed is written again.

use std::collections::VecDeque;
use std::vec::Vec;

use pagewire_hal::{ChecksumOffload, Nic, Offload, PostError, TxQueue};
use proptest::prelude::*;

use super::{open_with, post};
use crate::desc::TxDescriptor;
use crate::fake::{Fake, Play};
use crate::{Config, E1000eTx};

#[derive(Clone, Debug)]
enum Action {
    Post { fragments: usize, checksum: bool },
    Doorbell,
    Complete(u32),
    Reclaim,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => (1usize..8, any::<bool>())
            .prop_map(|(fragments, checksum)| Action::Post { fragments, checksum }),
        2 => Just(Action::Doorbell),
        2 => (1u32..12).prop_map(Action::Complete),
        2 => Just(Action::Reclaim),
    ]
}

/// A frame that has been posted and has not come back: its token, where it begins, and its
/// descriptors less what a report and its answer may change.
struct Posted {
    token: u32,
    first: u32,
    descriptors: Vec<TxDescriptor>,
}

fn without_report(descriptor: TxDescriptor) -> TxDescriptor {
    descriptor.reporting().marked_done()
}

fn snapshot(tx: &E1000eTx<Fake>, first: u32, len: u32) -> Vec<TxDescriptor> {
    (first..first + len)
        .map(|index| without_report(tx.descriptor(index)))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    // On failure proptest prints the seed and the shortest sequence.
    #[test]
    fn rule_6_tokens_come_back_once_in_order_and_nothing_live_is_overwritten(
        log2_len in 3u32..6,
        actions in prop::collection::vec(action(), 1..200),
    ) {
        let config = Config {
            tx_descriptors: 1 << log2_len,
            ..Config::default()
        };
        let ring_len = 1u32 << log2_len;
        let (fake, nic, mut tx, _rx) = open_with(&config);
        let most = usize::from(nic.capabilities().max_fragments);
        let mut posted: VecDeque<Posted> = VecDeque::new();
        let mut next_token = 0;
        let mut next_index = 0;
        // Whether the last frame asked for the checksum: then its context is there.
        let mut has_context = false;
        for action in &actions {
            match *action {
                Action::Post { fragments, checksum } => {
                    let fragments = fragments.min(most);
                    let mut offload = Offload::NONE;
                    if checksum {
                        offload.checksum = ChecksumOffload::UDP_IPV4;
                        offload.l2_len = 14;
                        offload.l3_len = 20;
                    }
                    let len = fragments as u32 + u32::from(checksum && !has_context);
                    let used: u32 = posted.iter().map(|p| p.descriptors.len() as u32).sum();
                    let expected = if used + len <= ring_len - 2 {
                        Ok(())
                    } else {
                        Err(PostError::Full)
                    };
                    prop_assert_eq!(post(&mut tx, fragments, offload, next_token), expected);
                    if expected.is_ok() {
                        posted.push_back(Posted {
                            token: next_token,
                            first: next_index,
                            descriptors: snapshot(&tx, next_index, len),
                        });
                        has_context = checksum;
                        next_token += 1;
                        next_index = (next_index + len) % ring_len;
                    }
                }
                Action::Doorbell => {
                    tx.doorbell();
                    prop_assert_eq!(fake.tail(), next_index);
                }
                Action::Complete(count) => {
                    fake.complete(count);
                }
                Action::Reclaim => {
                    let mut back = Vec::new();
                    let count = tx.reclaim(&mut |token| back.push(token.0));
                    prop_assert_eq!(count, Ok(back.len()));
                    for token in back {
                        let frame = posted.pop_front();
                        prop_assert_eq!(frame.map(|f| f.token), Some(token));
                    }
                    // What came back has been passed by the head: nothing between the oldest
                    // frame that is still out and the tail is free for the device's taking.
                    let head = fake.head();
                    let oldest = posted.front().map_or(next_index, |f| f.first);
                    let behind = head.wrapping_sub(oldest) % ring_len;
                    let out = next_index.wrapping_sub(oldest) % ring_len;
                    prop_assert!(behind <= out, "head {head}, oldest {oldest}, next {next_index}");
                }
            }
            prop_assert_eq!(tx.outstanding(), posted.len());
            for frame in &posted {
                let len = frame.descriptors.len() as u32;
                let now = snapshot(&tx, frame.first, len);
                prop_assert_eq!(&now, &frame.descriptors, "frame {}", frame.token);
            }
        }
        // Everything comes back in the end, without later traffic.
        tx.doorbell();
        fake.complete(u32::MAX);
        let mut back = Vec::new();
        tx.reclaim(&mut |token| back.push(token.0)).expect("the queue is in order");
        prop_assert_eq!(back, posted.iter().map(|f| f.token).collect::<Vec<_>>());
        prop_assert_eq!(tx.outstanding(), 0);
    }
}
