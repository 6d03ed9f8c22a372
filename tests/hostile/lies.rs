//! A driver on a device that tells one lie.

use std::time::Duration;

use pagewire::hal::NicError;

use crate::hostile::{Decisions, Machine, Offloaded, Plan, Raw, Subject};

/// A plan for a device that tells this lie whenever it can.
pub(crate) fn only<S: Subject>(lie: S::Lie, seed: u64) -> Plan<S> {
    let mut plan = Plan::honest();
    plan.set_lies(Decisions::Seed { seed, gap: 0 }, &[lie]);
    plan.seed = seed;
    plan
}

/// A plan for a device that tells this lie for as long as a script can: 2^15 accesses and steps.
pub(crate) fn lasting<S: Subject>(lie: S::Lie, seed: u64) -> Plan<S> {
    let mut plan = Plan::honest();
    // No opportunity passes, the one lie that is allowed, the longest time.
    plan.set_lies(Decisions::Script(&[0, 0, 15].repeat(64)), &[lie]);
    plan.seed = seed;
    plan
}

/// A driver that was opened on an honest device, which lies from now on. The link is up.
pub(crate) fn start<S: Subject>(plan: &Plan<S>) -> Raw<S> {
    let mut raw = Raw::open(plan);
    raw.run(3000, 10);
    raw.machine.set_hostile(true);
    raw
}

/// Opens a driver on a device that lies from the start, and has worked for a while.
pub(crate) fn open<S: Subject>(plan: &Plan<S>) -> Result<S::Nic, NicError> {
    let (mut machine, platform) = Machine::new(plan);
    machine.set_hostile(true);
    machine.watch.run(5, Duration::from_micros(10));
    let opened = machine.open(platform);
    machine.check_bus();
    opened
}

/// How often the device has told a lie.
pub(crate) fn told<S: Subject>(raw: &Raw<S>, lie: S::Lie) -> u64 {
    raw.machine.told(lie)
}

/// Posts frames of a header and two pieces of a region each.
pub(crate) fn post<S: Subject>(raw: &mut Raw<S>, count: usize) {
    let region = raw.register(100, 9000);
    for _ in 0..count {
        let pieces = [(region, 5, 300), (region, 4000, 200)];
        raw.post(14, &pieces, Offloaded::Nothing).unwrap();
    }
    raw.port.doorbell();
}
