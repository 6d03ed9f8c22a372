//! Link, reset, release.

use pagewire_hal::{Nic, NicError, Phase, QueuePair, Token, TxQueue};

use super::Session;
use crate::Bench;
use crate::verdict::{Verdict, ensure, failed};

/// How often the far end is looked at for what was sent before a reset.
const LOOKS: usize = 25;

impl<B: Bench> Session<'_, B> {
    /// Waits until the link is up, or down.
    pub(crate) fn wait_for_link(&mut self, up: bool) -> Verdict {
        let done = self.wait(|session| Ok(session.nic.link().up == up))?;
        let state = if up { "up" } else { "down" };
        ensure!(
            done,
            "`link` reports the carrier as it is now; is the PHY awake and set up?",
            "the link is not {state} after {:?}",
            self.options.patience
        );
        Ok(())
    }

    /// Stops the device.
    pub(crate) fn quiesce(&mut self) -> Verdict {
        const MEND: &str = "`begin_reset`, then `poll` until `Phase::Quiet`: bus mastering off \
                            and nothing pending";
        self.nic.begin_reset(self.bench.now());
        let quiet = self.wait(|session| {
            let now = session.bench.now();
            match session.nic.poll(now) {
                Ok(Phase::Quiet) => Ok(true),
                Ok(Phase::Stopping) => Ok(false),
                other => Err(failed(MEND, format!("`poll` in a reset said {other:?}"))),
            }
        })?;
        ensure!(
            quiet,
            MEND,
            "the device is not quiet after {:?}",
            self.options.patience
        );
        self.let_arrive()
    }

    /// What a device has sent before it was quiet may still be on its way, where the far end is
    /// another process. Nothing is sent meanwhile, so that a frame that comes later was sent later.
    fn let_arrive(&mut self) -> Verdict {
        if !self.bench.sees_frames_at_once() {
            for _ in 0..LOOKS {
                if self.expected.is_empty() {
                    break;
                }
                self.settle();
                self.collect()?;
            }
        }
        Ok(())
    }

    /// `restart` or `release` of a device that is quiet: every token that is out comes back,
    /// exactly once. The pairs are lent in any order. Returns those of other pairs than the first,
    /// each with the pair's number, of those that were taken.
    fn take_all_back(&mut self, start_again: bool) -> Verdict<Vec<(usize, Token)>> {
        let call = if start_again { "restart" } else { "release" };
        let mut tokens = Vec::new();
        let count = 1 + self.others.len();
        let first = self.random.within(0, count - 1);
        let mut pairs = vec![QueuePair {
            tx: &mut self.tx,
            rx: &mut self.rx,
        }];
        let others = self.others.iter_mut();
        pairs.extend(others.map(|(tx, rx)| QueuePair { tx, rx }));
        pairs.rotate_left(first);
        let mut released = |position: u16, token: Token| tokens.push((position, token));
        let result = if start_again {
            self.nic.restart(&mut pairs, &mut released)
        } else {
            self.nic.release(&mut pairs, &mut released)
        };
        result.map_err(|error| {
            let what = format!("`{call}` of a quiet device failed: {error}");
            failed(
                "a quiet device with all its queues can be restarted and released",
                what,
            )
        })?;
        let mut foreign = Vec::new();
        for (position, token) in tokens {
            let position = usize::from(position);
            ensure!(
                position < count,
                "the index is the position of the queue pair in the slice",
                "`{call}` handed back a token of position {position}, of {count} pairs"
            );
            let pair = (position + first) % count;
            if pair == 0 {
                self.take_back(token)?;
            } else {
                foreign.push((pair, token));
            }
        }
        let (out, left) = (self.tx.outstanding(), self.outstanding());
        ensure!(
            out == 0 && left == 0,
            "after a reset no frame is out: every token comes back exactly once (rule 6)",
            "after `{call}` {left} tokens have not come back, and `outstanding` is {out}"
        );
        Ok(foreign)
    }

    /// The same where frames are out on the first pair alone.
    fn take_back_own(&mut self, start_again: bool) -> Verdict {
        let foreign = self.take_all_back(start_again)?;
        ensure!(
            foreign.is_empty(),
            "the index is the position of the queue pair in the slice",
            "only one pair had frames out, and others handed back (pair, token): {foreign:?}"
        );
        Ok(())
    }

    /// A whole reset. Frames that were out may be lost.
    pub(crate) fn reset(&mut self) -> Verdict {
        self.lossy = true;
        self.quiesce()?;
        self.take_back_own(true)?;
        self.after_reset()
    }

    /// The same while frames are out on other pairs: their tokens, each with its pair's number. What
    /// of them was on the wire is appended to `sent`.
    pub(crate) fn reset_with_others(
        &mut self,
        sent: &mut Vec<Vec<u8>>,
    ) -> Verdict<Vec<(usize, Token)>> {
        self.lossy = true;
        self.quiesce()?;
        let foreign = self.take_all_back(true)?;
        sent.extend(std::iter::from_fn(|| self.bench.far_end().take()));
        self.after_reset()?;
        Ok(foreign)
    }

    /// `release` of a device that has been released: there is nothing left to hand back.
    pub(crate) fn release_again(&mut self) -> Verdict {
        self.take_back_own(false)
    }

    /// The device has failed: it cannot be released, and what it has is leaked.
    pub(crate) fn abandon(&mut self) {
        self.closed = true;
    }

    /// Starts again after a release; `false` if the driver does not.
    pub(crate) fn restart_released(&mut self) -> Verdict<bool> {
        let mut again = 0;
        let mut released = |_: u16, _: Token| again += 1;
        let mut pairs = vec![QueuePair {
            tx: &mut self.tx,
            rx: &mut self.rx,
        }];
        let others = self.others.iter_mut();
        pairs.extend(others.map(|(tx, rx)| QueuePair { tx, rx }));
        let result = self.nic.restart(&mut pairs, &mut released);
        ensure!(
            again == 0,
            "each token comes back exactly once (rule 6): what `release` has handed back is gone \
             from the ring",
            "`restart` handed back {again} tokens after `release` had handed back all"
        );
        match result {
            Ok(()) => {
                self.closed = false;
                self.after_reset()?;
                Ok(true)
            }
            Err(NicError::WrongPhase) => Ok(false),
            Err(error) => {
                let what = format!("`restart` after `release` failed: {error}");
                Err(failed(
                    "a released device is quiet, and can be started again",
                    what,
                ))
            }
        }
    }

    /// `restart` or `release` as it is, with the queues or without, of which an error is
    /// expected.
    pub(crate) fn try_reset_call(
        &mut self,
        start_again: bool,
        with_queues: bool,
    ) -> Result<(), NicError> {
        let mut pair = [QueuePair {
            tx: &mut self.tx,
            rx: &mut self.rx,
        }];
        let pairs = if with_queues { &mut pair[..] } else { &mut [] };
        // A token that comes back all the same stays in the books: `outstanding` tells.
        let mut none = |_: u16, _: Token| {};
        if start_again {
            self.nic.restart(pairs, &mut none)
        } else {
            self.nic.release(pairs, &mut none)
        }
    }

    fn after_reset(&mut self) -> Verdict {
        self.collect()?;
        // What is not on the wire by now will never be.
        self.expected.clear();
        self.unseen = self.number;
        self.wait_for_link(true)?;
        self.settle();
        self.forget_lost()
    }

    /// The end of a time in which frames may be lost: those that are missing are forgotten.
    pub(crate) fn forget_lost(&mut self) -> Verdict {
        self.collect()?;
        self.expected.clear();
        self.unseen = self.number;
        self.lossy = false;
        Ok(())
    }

    /// Stops and releases the device.
    pub(crate) fn release(&mut self) -> Verdict {
        self.lossy = true;
        self.quiesce()?;
        self.take_back_own(false)?;
        self.collect()?;
        self.closed = true;
        Ok(())
    }

    /// The end of a check: the device is released, if it was not.
    pub(crate) fn close(&mut self) -> Verdict {
        if self.closed { Ok(()) } else { self.release() }
    }
}
