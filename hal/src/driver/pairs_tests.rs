use std::vec::Vec;

use super::*;

/// The halves of a pair are their names.
type Named = Pairs<QueueId, QueueId, 4>;

impl TransmitHalf for QueueId {
    fn id(&self) -> QueueId {
        *self
    }

    /// Each has one token: its number.
    unsafe fn drain(&mut self, released: &mut dyn FnMut(Token)) {
        released(Token(u32::from(self.pair)));
    }

    unsafe fn set_quiet(&mut self) {}
}

impl ReceiveHalf for QueueId {
    fn id(&self) -> QueueId {
        *self
    }

    fn stop(&mut self) {}

    unsafe fn set_quiet(&mut self) {}
}

fn named(count: u16) -> Named {
    Named::new(count, |id| Ok((id, id))).expect("making a name does not fail")
}

fn lend(taken: &mut [(QueueId, QueueId)]) -> Vec<QueuePair<'_, QueueId, QueueId>> {
    taken
        .iter_mut()
        .map(|(tx, rx)| QueuePair { tx, rx })
        .collect()
}

#[test]
fn each_pair_is_taken_once() {
    let mut pairs = named(2);
    assert_eq!(pairs.take(1).map(|(tx, _)| tx.pair()), Some(1));
    assert_eq!(pairs.take(1), None);
    assert_eq!(pairs.take(2), None, "there is none");
    assert_eq!(pairs.take(4), None, "nor place for one");
}

#[test]
fn what_was_taken_must_be_lent_and_nothing_else() {
    let mut pairs = named(3);
    assert_eq!(pairs.check(&[]), Ok(()));
    let mut taken = [2, 0].map(|index| pairs.take(index).expect("it is there"));
    let missing = |index| Err(NicError::QueueMissing { index });
    assert_eq!(pairs.check(&[]), missing(0));
    assert_eq!(pairs.check(&lend(&mut taken[..1])), missing(0));
    assert_eq!(pairs.check(&lend(&mut taken[1..])), missing(2));
    assert_eq!(pairs.check(&lend(&mut taken)), Ok(()), "in any order");

    let is_refused = |pairs: &Named, lent: &mut [(QueueId, QueueId)]| {
        matches!(pairs.check(&lend(lent)), Err(NicError::Config { .. }))
    };
    let other = named(1).take(0).expect("it is there");
    assert!(is_refused(&pairs, &mut [taken[0], taken[1], other]));
    let [(a, b), (c, d)] = taken;
    assert!(is_refused(&pairs, &mut [(a, d), (c, b)]), "mixed halves");
}

#[test]
fn every_pair_is_visited_wherever_it_is() {
    let mut pairs = named(3);
    let mut taken = [2, 0].map(|index| pairs.take(index).expect("it is there"));
    let mut seen = Vec::new();
    pairs.each(&mut lend(&mut taken), |position, tx, _| {
        seen.push((position, tx.pair()));
    });
    assert_eq!(seen, [(0, 1), (0, 2), (1, 0)]);

    let mut visited = 0;
    let result = pairs.try_each(&mut lend(&mut taken), |tx, _| {
        visited += 1;
        if tx.pair() == 2 {
            return Err(NicError::Removed);
        }
        Ok(())
    });
    assert_eq!((result, visited), (Err(NicError::Removed), 2));
}

#[test]
fn tokens_come_with_the_position_of_their_queue() {
    let mut pairs = named(3);
    let mut taken = [2, 0].map(|index| pairs.take(index).expect("it is there"));
    let mut tokens = Vec::new();
    // SAFETY: there is no device.
    unsafe {
        pairs.drain(&mut lend(&mut taken), &mut |position, token| {
            tokens.push((position, token.0));
        });
    }
    assert_eq!(tokens, [(0, 1), (0, 2), (1, 0)]);
}

#[test]
fn a_pair_that_cannot_be_made_fails_them_all() {
    let made = Named::new(3, |id| match id.pair() {
        1 => Err(NicError::Removed),
        _ => Ok((id, id)),
    });
    assert_eq!(made.err(), Some(NicError::Removed));
}
