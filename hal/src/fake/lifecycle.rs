//! Tests of a driver's life, for any driver that opens a [`Fake`]: stopping with frames in flight,
//! restart, release, hang detection, what happens on drop. [`lifecycle_tests`](crate::lifecycle_tests)
//! makes them tests of the driver.
//!
//! For drivers whose device does not touch the first fragment of a frame, and that need three pieces
//! of memory: two rings and the receive buffers.

use core::time::Duration;
use std::vec::Vec;

use super::{Fake, FakeDevice};
use crate::{
    DeviceAddress, Fragment, Instant, Nic, NicError, Offload, Phase, PostError, QueueError,
    QueuePair, RxQueue, Token, TxFrame, TxQueue,
};

/// Bus mastering, in the command register.
const BUS_MASTER: u32 = 1 << 2;

/// A driver to be tested.
///
/// # Safety
/// Its device is a [`Fake`] that reads no fragment of a frame.
pub unsafe trait Subject: FakeDevice {
    /// The driver.
    type Nic: Nic<Tx: Send, Rx: Send>;
    /// The resets that do not end, as a fault.
    const ENDLESS_RESET: Self::Fault;
    /// Requests of the device that do not end, as a fault.
    const STUCK_MASTER: Self::Fault;
    /// Milliseconds that a reset takes at least, and that it may take.
    const RESET_MILLIS: [u64; 2];
    /// Milliseconds for which a device that does not become quiet is waited for at least.
    const PATIENCE_MILLIS: u64;
    /// Index of the descriptor that reports for the first of 32 frames of one fragment.
    const FIRST_REPORT: u32;

    /// Opens the device as the driver does by default.
    ///
    /// # Errors
    /// What the driver says.
    fn open(fake: Fake<Self>) -> Result<Self::Nic, NicError>;

    /// Completes up to so many descriptors of the first transmit queue, and says how many.
    fn complete(fake: &Fake<Self>, count: u32) -> u32;

    /// The tail of the first transmit queue.
    fn tail(fake: &Fake<Self>) -> u32;

    /// Delivers a good frame of 60 bytes to the first receive queue.
    fn deliver(fake: &Fake<Self>) -> bool;

    /// Marks a descriptor of the transmit queue as done.
    fn mark_done(tx: &mut <Self::Nic as Nic>::Tx, index: u32);

    /// Lets the device's counter of frames sent read this next.
    fn count_sent(fake: &Fake<Self>, frames: u32);

    /// How often the device was reset.
    fn resets(fake: &Fake<Self>) -> usize;
}

type Tx<S> = <<S as Subject>::Nic as Nic>::Tx;
type Rx<S> = <<S as Subject>::Nic as Nic>::Rx;
/// An open device with its queues taken.
pub type Opened<S> = (Fake<S>, <S as Subject>::Nic, Tx<S>, Rx<S>);

/// Opens a new device and takes its queues.
#[must_use]
pub fn open<S: Subject>() -> Opened<S> {
    let fake = Fake::new();
    let mut nic = S::open(fake.clone()).expect("the fake opens");
    let (tx, rx) = nic.take_queues(0).expect("the pair is there");
    (fake, nic, tx, rx)
}

/// `count` fragments of 100 bytes. The fake never reads them.
#[must_use]
pub fn fragments(count: usize) -> Vec<Fragment> {
    (0..count as u64)
        .map(|n| Fragment {
            address: DeviceAddress(0xAA_0000_0000 + 0x1000 * n),
            len: 100,
        })
        .collect()
}

/// Posts a frame of `count` fragments that exist nowhere.
///
/// # Errors
/// What the queue says.
pub fn post<S: Subject>(
    tx: &mut Tx<S>,
    count: usize,
    offload: Offload,
    token: u32,
) -> Result<(), PostError> {
    post_list::<S>(tx, &fragments(count), offload, token)
}

/// Posts a frame of fragments that exist nowhere.
///
/// # Errors
/// What the queue says.
pub fn post_list<S: Subject>(
    tx: &mut Tx<S>,
    fragments: &[Fragment],
    offload: Offload,
    token: u32,
) -> Result<(), PostError> {
    let frame = TxFrame {
        fragments,
        offload,
        first: None,
    };
    // SAFETY: the fake device reads no fragment.
    unsafe { tx.post(&frame, Token(token)) }
}

fn post_one<S: Subject>(tx: &mut Tx<S>, token: u32) {
    assert_eq!(post::<S>(tx, 1, Offload::NONE, token), Ok(()));
}

/// Reclaims and returns the tokens.
pub fn reclaim<Q: TxQueue>(tx: &mut Q) -> Vec<u32> {
    let mut tokens = Vec::new();
    let count = tx.reclaim(&mut |token| tokens.push(token.0));
    assert_eq!(count, Ok(tokens.len()));
    tokens
}

/// A time in milliseconds.
#[must_use]
pub fn at(millis: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(millis)
}

/// Goes through a reset to quiet, at one poll every 5 ms.
pub fn make_quiet<N: Nic>(nic: &mut N) {
    nic.begin_reset(at(0));
    for step in 0..20 {
        match nic.poll(at(5 * step)) {
            Ok(Phase::Stopping) => {}
            Ok(Phase::Quiet) => return,
            other => panic!("{other:?} at step {step}"),
        }
    }
    panic!("not quiet after 100 ms");
}

/// Whether the device works.
#[must_use]
pub fn is_running(phase: Result<Phase, NicError>) -> bool {
    matches!(phase, Ok(Phase::Running(_)))
}

/// What a restart or release says, and the tokens that come back with their positions.
pub type Ended = (Result<(), NicError>, Vec<(u16, u32)>);

/// Restarts the device with this pair.
pub fn restart<N: Nic>(nic: &mut N, tx: &mut N::Tx, rx: &mut N::Rx) -> Ended {
    let mut tokens = Vec::new();
    let result = nic.restart(&mut [QueuePair { tx, rx }], &mut |position, token| {
        tokens.push((position, token.0));
    });
    (result, tokens)
}

/// Releases the device with this pair.
pub fn release<N: Nic>(nic: &mut N, tx: &mut N::Tx, rx: &mut N::Rx) -> Ended {
    let mut tokens = Vec::new();
    let result = nic.release(&mut [QueuePair { tx, rx }], &mut |position, token| {
        tokens.push((position, token.0));
    });
    (result, tokens)
}

fn is_bus_master<S: Subject>(fake: &Fake<S>) -> bool {
    fake.device().config[1] & BUS_MASTER != 0
}

/// See its name, as of all that follow.
pub fn rule_6_a_reset_hands_back_each_token_once_and_in_order<S: Subject>() {
    let (fake, mut nic, mut tx, mut rx) = open::<S>();
    for token in 0..6 {
        assert_eq!(post::<S>(&mut tx, 2, Offload::NONE, token), Ok(()));
        if token < 4 {
            tx.doorbell();
        }
    }
    S::complete(&fake, 4);
    assert_eq!(reclaim(&mut tx), [0, 1]);
    S::complete(&fake, 2);
    make_quiet(&mut nic);
    assert!(!is_bus_master(&fake));
    let (result, tokens) = restart(&mut nic, &mut tx, &mut rx);
    assert_eq!(result, Ok(()));
    assert_eq!(tokens, [(0, 2), (0, 3), (0, 4), (0, 5)]);
    assert_eq!(tx.outstanding(), 0);
    assert!(is_bus_master(&fake));
    assert!(is_running(nic.poll(at(1000))));
    // All of it works again, from index 0 on.
    for token in 10..13 {
        assert_eq!(post::<S>(&mut tx, 3, Offload::NONE, token), Ok(()));
    }
    tx.doorbell();
    assert_eq!(S::tail(&fake), 9);
    S::complete(&fake, 9);
    assert_eq!(reclaim(&mut tx), [10, 11, 12]);
    assert!(S::deliver(&fake));
    assert_eq!(
        rx.receive(1, &mut |frame| assert_eq!(frame.len(), 60)),
        Ok(1)
    );
}

/// And the reset takes as long as it must.
pub fn the_steps_to_quiet_are_taken_in_order_and_none_waits<S: Subject>() {
    let (fake, mut nic, mut tx, mut rx) = open::<S>();
    fake.break_with(S::STUCK_MASTER);
    let resets = S::resets(&fake);
    nic.begin_reset(at(0));
    assert_eq!(nic.poll(at(1)), Ok(Phase::Stopping));
    assert!(is_bus_master(&fake), "not before the device is done");
    fake.repair();
    fake.break_with(S::STUCK_PENDING);
    assert_eq!(nic.poll(at(2)), Ok(Phase::Stopping));
    assert!(!is_bus_master(&fake));
    assert_eq!(S::resets(&fake), resets, "not before the bus is done");
    fake.repair();
    assert_eq!(nic.poll(at(3)), Ok(Phase::Stopping));
    assert_eq!(S::resets(&fake), resets + 1);
    let [least, _] = S::RESET_MILLIS;
    let early = nic.poll(at(3 + least - 1));
    assert_eq!(early, Ok(Phase::Stopping), "{least} ms have not passed");
    let (result, tokens) = restart(&mut nic, &mut tx, &mut rx);
    assert_eq!(result, Err(NicError::WrongPhase));
    assert!(tokens.is_empty());
    assert_eq!(nic.poll(at(3 + least)), Ok(Phase::Quiet));
    assert_eq!(nic.poll(at(3 + least + 1)), Ok(Phase::Quiet));
}

/// Neither tokens nor memory come back.
pub fn rule_6_a_device_that_does_not_become_quiet_keeps_what_it_was_lent<S: Subject>() {
    for fault in [S::STUCK_MASTER, S::STUCK_PENDING] {
        let (fake, mut nic, mut tx, mut rx) = open::<S>();
        post_one::<S>(&mut tx, 0);
        tx.doorbell();
        fake.break_with(fault);
        nic.begin_reset(at(0));
        assert_eq!(nic.poll(at(1)), Ok(Phase::Stopping), "{fault:?}");
        assert_eq!(
            nic.poll(at(S::PATIENCE_MILLIS)),
            Ok(Phase::Stopping),
            "{fault:?}"
        );
        let mut polls = (1..100).map(|n| nic.poll(at(S::PATIENCE_MILLIS + 20 * n)));
        let last = polls.find(|phase| *phase != Ok(Phase::Stopping));
        assert_eq!(last, Some(Err(NicError::NotQuiet)), "{fault:?}");
        assert_eq!(nic.poll(at(9000)), Ok(Phase::Failed), "{fault:?}");
        let (result, tokens) = release(&mut nic, &mut tx, &mut rx);
        assert_eq!(result, Err(NicError::WrongPhase), "{fault:?}");
        assert!(tokens.is_empty(), "{fault:?}");
        let mapped = fake.mapped();
        drop((tx, rx, nic));
        assert_eq!(fake.mapped(), mapped, "{fault:?}: leaked, not freed");
    }
}

/// Nobody may have asked for seconds.
pub fn a_device_that_was_done_is_quiet_however_late_one_asks<S: Subject>() {
    let (fake, mut nic, mut tx, mut rx) = open::<S>();
    nic.begin_reset(at(0));
    assert_eq!(nic.poll(at(10_000)), Ok(Phase::Stopping));
    assert_eq!(nic.poll(at(20_000)), Ok(Phase::Quiet));
    assert_eq!(restart(&mut nic, &mut tx, &mut rx).0, Ok(()));
    assert_eq!(S::tail(&fake), 0);
}

/// It reaches no memory.
pub fn a_reset_that_does_not_end_can_be_released_but_not_restarted<S: Subject>() {
    let (fake, mut nic, mut tx, mut rx) = open::<S>();
    post_one::<S>(&mut tx, 5);
    tx.doorbell();
    fake.break_with(S::ENDLESS_RESET);
    nic.begin_reset(at(0));
    let [_, most] = S::RESET_MILLIS;
    assert_eq!(nic.poll(at(1)), Ok(Phase::Stopping));
    assert_eq!(nic.poll(at(most)), Ok(Phase::Stopping));
    assert_eq!(nic.poll(at(1 + most)), Ok(Phase::Quiet));
    let (result, tokens) = restart(&mut nic, &mut tx, &mut rx);
    assert!(matches!(result, Err(NicError::Timeout { .. })));
    assert!(tokens.is_empty());
    let ended = release(&mut nic, &mut tx, &mut rx);
    assert_eq!(ended, (Ok(()), [(0, 5)].into()));
}

/// And can be called again.
pub fn release_stops_the_queues_and_lets_their_memory_go<S: Subject>() {
    let (fake, mut nic, mut tx, mut rx) = open::<S>();
    for token in 0..3 {
        post_one::<S>(&mut tx, token);
    }
    make_quiet(&mut nic);
    let (result, tokens) = release(&mut nic, &mut tx, &mut rx);
    assert_eq!(result, Ok(()));
    assert_eq!(tokens, [(0, 0), (0, 1), (0, 2)]);
    assert!(!is_bus_master(&fake));
    let refused = post::<S>(&mut tx, 1, Offload::NONE, 9);
    assert_eq!(refused, Err(PostError::Down));
    assert_eq!(tx.reclaim(&mut |_| {}), Err(QueueError::Down));
    assert_eq!(rx.receive(1, &mut |_| {}), Err(QueueError::Down));
    // A second time there is nothing left to give back; and it can still be started.
    assert_eq!(release(&mut nic, &mut tx, &mut rx), (Ok(()), Vec::new()));
    assert_eq!(restart(&mut nic, &mut tx, &mut rx), (Ok(()), Vec::new()));
    post_one::<S>(&mut tx, 9);
    make_quiet(&mut nic);
    assert_eq!(release(&mut nic, &mut tx, &mut rx).1, [(0, 9)]);
    assert_eq!(fake.mapped(), 3);
    drop((tx, rx, nic));
    assert_eq!(fake.mapped(), 0);
}

/// They are nobody else's affair.
pub fn queues_that_were_not_taken_are_reset_with_the_device<S: Subject>() {
    let fake = Fake::new();
    let mut nic = S::open(fake.clone()).expect("opens");
    make_quiet(&mut nic);
    assert_eq!(nic.restart(&mut [], &mut |_, _| {}), Ok(()));
    assert!(is_running(nic.poll(at(1000))));
    make_quiet(&mut nic);
    assert_eq!(nic.release(&mut [], &mut |_, _| {}), Ok(()));
    drop(nic);
    assert_eq!(fake.mapped(), 0);
}

/// None, another's, or halves of two are refused before anything is handed back.
pub fn the_right_pair_must_be_handed_in<S: Subject>() {
    let (_fake, mut nic, mut tx, mut rx) = open::<S>();
    let (_other_fake, mut other, mut other_tx, mut other_rx) = open::<S>();
    post_one::<S>(&mut tx, 1);
    post_one::<S>(&mut other_tx, 2);
    make_quiet(&mut nic);
    make_quiet(&mut other);
    let missing = nic.restart(&mut [], &mut |_, _| panic!("a token"));
    assert_eq!(missing, Err(NicError::QueueMissing { index: 0 }));
    let (alien, tokens) = restart(&mut nic, &mut other_tx, &mut other_rx);
    assert!(matches!(alien, Err(NicError::Config { .. })));
    assert!(tokens.is_empty());
    let (mixed, tokens) = restart(&mut nic, &mut tx, &mut other_rx);
    assert!(matches!(mixed, Err(NicError::Config { .. })));
    assert!(tokens.is_empty());
    let mut both = [
        QueuePair {
            tx: &mut other_tx,
            rx: &mut other_rx,
        },
        QueuePair {
            tx: &mut tx,
            rx: &mut rx,
        },
    ];
    let result = nic.release(&mut both, &mut |_, _| panic!("a token"));
    assert!(matches!(result, Err(NicError::Config { .. })));
    let ended = restart(&mut nic, &mut tx, &mut rx);
    assert_eq!(ended, (Ok(()), [(0, 1)].into()));
    let ended = restart(&mut other, &mut other_tx, &mut other_rx);
    assert_eq!(ended, (Ok(()), [(0, 2)].into()));
}

/// Freed memory comes back as another device's.
pub fn queues_at_the_addresses_of_earlier_ones_are_not_taken_for_them<S: Subject>() {
    let (fake, mut nic, ..) = open::<S>();
    let mut other = S::open(Fake::successor_of(&fake)).expect("opens");
    let (mut tx, mut rx) = other.take_queues(0).expect("a pair");
    post_one::<S>(&mut tx, 1);
    make_quiet(&mut nic);
    let (alien, tokens) = restart(&mut nic, &mut tx, &mut rx);
    assert!(matches!(alien, Err(NicError::Config { .. })));
    assert!(tokens.is_empty());
}

/// The device may still reach it.
pub fn rule_6_drop_without_release_leaks<S: Subject>() {
    let (fake, nic, tx, rx) = open::<S>();
    assert_eq!(fake.mapped(), 3);
    drop((nic, tx, rx));
    assert_eq!(fake.mapped(), 3);
    assert_eq!(fake.device().freed, 0);
    // Also when the queues never left.
    let fake = Fake::new();
    drop(S::open(fake.clone()).expect("opens"));
    assert_eq!(fake.mapped(), 3);
}

/// Whoever posts does not know of the reset.
pub fn frames_posted_while_the_device_stops_come_back_as_well<S: Subject>() {
    let (_fake, mut nic, mut tx, mut rx) = open::<S>();
    nic.begin_reset(at(0));
    post_one::<S>(&mut tx, 0);
    tx.doorbell();
    assert_eq!(nic.poll(at(1)), Ok(Phase::Stopping));
    let [least, _] = S::RESET_MILLIS;
    assert_eq!(nic.poll(at(10 + least)), Ok(Phase::Quiet));
    post_one::<S>(&mut tx, 1);
    assert_eq!(restart(&mut nic, &mut tx, &mut rx).1, [(0, 0), (0, 1)]);
}

/// Down by a mark on a frame that the device was not told of.
pub fn a_failed_queue_works_again_after_a_reset<S: Subject>() {
    let (_fake, mut nic, mut tx, mut rx) = open::<S>();
    for token in 0..32 {
        post_one::<S>(&mut tx, token);
    }
    let index = S::FIRST_REPORT;
    S::mark_done(&mut tx, index);
    let failed = tx.reclaim(&mut |_| {});
    assert_eq!(failed, Err(QueueError::BadIndex { index }));
    make_quiet(&mut nic);
    let (result, tokens) = restart(&mut nic, &mut tx, &mut rx);
    assert_eq!(result, Ok(()));
    assert_eq!(tokens.len(), 32);
    post_one::<S>(&mut tx, 0);
}

/// By two looks, half a second apart.
pub fn a_transmitter_without_progress_is_hung_and_one_with_progress_is_not<S: Subject>() {
    let (fake, mut nic, mut tx, _rx) = open::<S>();
    assert!(is_running(nic.poll(at(0))));
    assert!(is_running(nic.poll(at(10_000))), "nothing to do is no hang");
    assert_eq!(post::<S>(&mut tx, 4, Offload::NONE, 0), Ok(()));
    assert!(is_running(nic.poll(at(20_000))), "no doorbell, no work");
    tx.doorbell();
    assert!(is_running(nic.poll(at(30_000))), "the first look");
    assert!(is_running(nic.poll(at(30_499))), "too early to say");
    assert_eq!(nic.poll(at(30_500)), Ok(Phase::Hung));
    S::complete(&fake, 1);
    assert!(is_running(nic.poll(at(31_000))), "the head has moved");
    assert_eq!(nic.poll(at(32_000)), Ok(Phase::Hung));
    // The head is where it was, but the device has sent frames: it has gone round.
    S::count_sent(&fake, 17);
    assert!(is_running(nic.poll(at(33_000))));
    S::complete(&fake, 10);
    assert!(is_running(nic.poll(at(34_000))));
    assert!(is_running(nic.poll(at(44_000))));
}

/// Afterwards it has failed.
pub fn a_removal_during_a_reset_is_said_once<S: Subject>() {
    let (fake, mut nic, _tx, _rx) = open::<S>();
    nic.begin_reset(at(0));
    fake.break_with(S::REMOVED);
    assert_eq!(nic.poll(at(1)), Err(NicError::Removed));
    assert_eq!(nic.poll(at(2)), Ok(Phase::Failed));
}

/// Makes the functions of [`lifecycle`](crate::fake::lifecycle) tests of a
/// [`Subject`](crate::fake::lifecycle::Subject).
#[macro_export]
macro_rules! lifecycle_tests {
    ($subject:ty) => {
        $crate::lifecycle_tests!($subject:
            rule_6_a_reset_hands_back_each_token_once_and_in_order,
            the_steps_to_quiet_are_taken_in_order_and_none_waits,
            rule_6_a_device_that_does_not_become_quiet_keeps_what_it_was_lent,
            a_device_that_was_done_is_quiet_however_late_one_asks,
            a_reset_that_does_not_end_can_be_released_but_not_restarted,
            release_stops_the_queues_and_lets_their_memory_go,
            queues_that_were_not_taken_are_reset_with_the_device,
            the_right_pair_must_be_handed_in,
            queues_at_the_addresses_of_earlier_ones_are_not_taken_for_them,
            rule_6_drop_without_release_leaks,
            frames_posted_while_the_device_stops_come_back_as_well,
            a_failed_queue_works_again_after_a_reset,
            a_transmitter_without_progress_is_hung_and_one_with_progress_is_not,
            a_removal_during_a_reset_is_said_once,
        );
    };
    ($subject:ty: $($test:ident,)*) => {
        $(
            #[test]
            fn $test() {
                $crate::fake::lifecycle::$test::<$subject>();
            }
        )*
    };
}
