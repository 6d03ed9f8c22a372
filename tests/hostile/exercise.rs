//! One run, from opening to dropping.

use std::collections::BTreeSet;
use std::time::Duration;

use pagewire::hal::Nic;

use super::raw::Raw;
use super::rig::{Machine, Stopped};
use super::script::{Plan, Script};
use super::stack;
use super::subject::Subject;

/// What a run has seen.
pub(crate) struct Outcome {
    pub(crate) opened: bool,
    /// How often each lie was told, in the order of [`Subject::LIES`].
    pub(crate) lies: Vec<u64>,
    /// What errors have said.
    pub(crate) errors: BTreeSet<String>,
    /// Frames on the wire.
    pub(crate) sent: u64,
    /// Frames received.
    pub(crate) received: u64,
    /// Frames that a reset has taken back.
    pub(crate) taken_back: u64,
}

/// Plays `input`. Panics if anything is not as it must be; whatever the device does, that is the
/// driver's fault, the port's, or the model's.
pub(crate) fn exercise<S: Subject>(input: &[u8]) -> Outcome {
    let (plan, mut script) = Plan::<S>::parse(input);
    play(&plan, &mut script)
}

/// Plays a script by a plan.
pub(crate) fn play<S: Subject>(plan: &Plan<S>, script: &mut Script<'_>) -> Outcome {
    let (mut machine, platform) = Machine::new(plan);
    machine.set_hostile(plan.hostile_at_open);
    let opened = machine.open(platform);
    machine.check_bus();
    let (mut received, mut taken_back) = (0, 0);
    let is_open = opened.is_ok();
    if let Ok(nic) = opened {
        if !plan.hostile_at_open {
            if plan.settles {
                machine.watch.run(600, Duration::from_micros(10));
            }
            machine.set_hostile(true);
        }
        if plan.tcp {
            machine = stack::play(machine, nic, script);
        } else if plan.take_queues {
            let Some(mut raw) = Raw::new(machine, nic) else {
                panic!("no queues");
            };
            raw.play(script);
            if plan.end.recover {
                raw.recover();
            }
            if plan.end.release && raw.machine.stop(&mut raw.nic) == Stopped::Quiet {
                assert_eq!(raw.release(), Ok(()), "a quiet device is released");
            }
            (received, taken_back) = (raw.delivered, raw.books.taken_back);
            machine = raw.finish();
        } else {
            machine = without_queues(machine, nic);
        }
    }
    Outcome {
        opened: is_open,
        lies: S::LIES.iter().map(|lie| machine.told(*lie)).collect(),
        errors: machine.errors,
        sent: machine.sent,
        received,
        taken_back,
    }
}

/// Nobody takes the queues.
fn without_queues<S: Subject>(mut machine: Machine<S>, mut nic: S::Nic) -> Machine<S> {
    let mut kept = machine.drivers_memory;
    if machine.plan.end.recover && machine.stop(&mut nic) == Stopped::Quiet {
        let restarted = nic.restart(&mut [], &mut |_, _| panic!("a token from nowhere"));
        if let Err(error) = restarted {
            machine.note(&error);
        }
    }
    if machine.plan.end.release && machine.stop(&mut nic) == Stopped::Quiet {
        let released = nic.release(&mut [], &mut |_, _| panic!("a token from nowhere"));
        assert_eq!(released, Ok(()));
        kept = 0;
    }
    drop(nic);
    assert_eq!(machine.watch.live(), kept, "memory that leaks");
    machine.check_bus();
    machine.watch.free_all();
    machine
}
