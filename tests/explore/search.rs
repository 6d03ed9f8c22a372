//! All orders of the actions of a small world, up to a depth.
//!
//! The objects under test cannot be cloned, so every order is replayed from the beginning. Breadth
//! first: a state is found by one of its shortest orders, with the most depth left behind it.
//!
//! **What is cut.** An order is not continued if the key of the state that it leads to was seen
//! before. The key is made from the oracle's books and from what the device sees (the tokens, in
//! the device's order), not from the objects under test. Two orders with the same key may go on
//! in the same ways and must give the same answers, by what the books say; but the objects may
//! differ in what the key does not show (free lists, generations, a count that is wrong already).
//! Therefore an order is cut only *after* it was played to each of the endings, which give back
//! and release everything: a count that is wrong by one releases too early or never there. What
//! could still be missed is a fault that needs two such orders, a hidden difference that no
//! ending shows and a special order behind it. So each world is also explored without a cut, to
//! a smaller depth, and the states found there must be the same.

use std::collections::{BTreeMap, HashSet};
use std::fmt::{Debug, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

/// An error unless two values are equal.
macro_rules! same {
    ($found:expr, $expected:expr, $($what:tt)+) => {{
        let (found, expected) = (&$found, &$expected);
        if found != expected {
            let what = format!($($what)+);
            return Err(format!("{what}: {found:?} instead of {expected:?}"));
        }
    }};
}
pub(crate) use same;

/// What is explored.
pub(crate) trait World: Sized {
    /// How a world is made.
    type Setup;
    /// One thing that somebody does. Its `Debug` text names it in a trace.
    type Action: Copy + Debug;
    /// Ways in which every order is played to its end.
    const ENDINGS: &'static [&'static str];

    /// The beginning of every order.
    fn new(setup: &Self::Setup) -> Self;
    /// What may be done now.
    fn enabled(&self) -> Vec<Self::Action>;
    /// Does it, and compares all that can be seen with the books.
    fn apply(&mut self, action: Self::Action) -> Result<(), String>;
    /// What tells this state from others.
    fn key(&self) -> Vec<u8>;
    /// Names what has come about, so that a test can say that it was not missed.
    fn events(&self) -> Vec<&'static str>;
    /// Plays to the end in a way of [`ENDINGS`](Self::ENDINGS), and compares. Returns the steps.
    fn finish(self, ending: usize) -> Result<u64, String>;
}

/// How far, and whether orders are cut.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) depth: usize,
    pub(crate) cut: bool,
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Explored {
    /// Orders played to an end.
    pub(crate) paths: u64,
    /// Actions done, replays and endings included.
    pub(crate) steps: u64,
    /// The keys of the states.
    pub(crate) states: HashSet<Vec<u8>>,
    /// New states by depth.
    pub(crate) by_depth: Vec<usize>,
    /// In how many orders each event came about.
    pub(crate) events: BTreeMap<&'static str, u64>,
}

/// An order that went wrong.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The actions, and the ending, separated by commas.
    pub(crate) trace: String,
    pub(crate) what: String,
}

fn text<A: Debug>(path: &[A], ending: Option<&str>) -> String {
    let mut text = String::new();
    for action in path {
        let _ = write!(text, "{action:?},");
    }
    text.push_str(ending.unwrap_or_default());
    text.trim_end_matches(',').to_owned()
}

/// Turns a panic of the code under test into an error.
fn guarded<T>(run: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|cause| {
        let what = cause
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| cause.downcast_ref::<&str>().copied());
        Err(format!("panic: {}", what.unwrap_or("of another type")))
    })
}

fn replay<W: World>(setup: &W::Setup, path: &[W::Action]) -> Result<W, String> {
    let mut world = W::new(setup);
    for action in path {
        world.apply(*action)?;
    }
    Ok(world)
}

/// The key of a state, and what may be done there.
type Found<W> = (Vec<u8>, Vec<<W as World>::Action>);

/// Plays one order to each ending; returns the state before them and what may follow.
fn play<W: World>(
    setup: &W::Setup,
    path: &[W::Action],
    explored: &mut Explored,
) -> Result<Found<W>, Failure> {
    let mut state = None;
    for (ending, name) in W::ENDINGS.iter().enumerate() {
        let played = guarded(|| {
            let world = replay::<W>(setup, path)?;
            let found = (world.key(), world.enabled());
            let events = world.events();
            Ok((world.finish(ending)?, found, events))
        });
        match played {
            Ok((steps, found, events)) => {
                for event in events.into_iter().filter(|_| ending == 0) {
                    *explored.events.entry(event).or_default() += 1;
                }
                explored.steps += path.len() as u64 + steps;
                explored.paths += 1;
                state = Some(found);
            }
            Err(what) => {
                // Fails without the ending too, if it did so before.
                let early = guarded(|| replay::<W>(setup, path)).is_err();
                let trace = text(path, (!early).then_some(*name));
                return Err(Failure { trace, what });
            }
        }
    }
    state.ok_or_else(|| Failure {
        trace: String::new(),
        what: "a world without endings".to_owned(),
    })
}

/// Explores all orders of up to `limits.depth` actions.
pub(crate) fn explore<W: World>(setup: &W::Setup, limits: Limits) -> Result<Explored, Failure> {
    let mut explored = Explored::default();
    let (key, actions) = play::<W>(setup, &[], &mut explored)?;
    explored.states.insert(key);
    explored.by_depth.push(1);
    let mut frontier = vec![(Vec::new(), actions)];
    for depth in 1..=limits.depth {
        let mut next = Vec::new();
        let mut fresh = 0;
        for (path, actions) in frontier {
            for action in actions {
                let mut longer = path.clone();
                longer.push(action);
                let (key, actions) = play::<W>(setup, &longer, &mut explored)?;
                let new = explored.states.insert(key);
                fresh += usize::from(new);
                if (new || !limits.cut) && depth < limits.depth {
                    next.push((longer, actions));
                }
            }
        }
        explored.by_depth.push(fresh);
        frontier = next;
    }
    Ok(explored)
}

/// Plays the order that a trace names.
pub(crate) fn retrace<W: World>(setup: &W::Setup, trace: &str) -> Result<(), String> {
    let mut world = W::new(setup);
    for name in trace.split(',').filter(|name| !name.is_empty()) {
        if let Some(ending) = W::ENDINGS.iter().position(|ending| *ending == name) {
            return world.finish(ending).map(|_| ());
        }
        let enabled = world.enabled();
        let action = enabled.iter().find(|a| format!("{a:?}") == name);
        let action = *action.ok_or_else(|| format!("{name} is none of {enabled:?}"))?;
        world.apply(action)?;
        println!("{name}: as it should be");
    }
    Ok(())
}

/// Whether the long versions are asked for.
pub(crate) fn full() -> bool {
    std::env::var("PAGEWIRE_FULL").is_ok_and(|value| value == "yes")
}

/// Explores, tells what was found, and panics with a trace that replays what went wrong. With
/// `PAGEWIRE_TRACE="name:A,B,C"` only that order is played.
pub(crate) fn run<W: World>(name: &str, setup: &W::Setup, limits: Limits) -> Option<Explored> {
    if let Ok(asked) = std::env::var("PAGEWIRE_TRACE") {
        if let Some(trace) = asked.strip_prefix(name).and_then(|t| t.strip_prefix(':')) {
            let outcome = retrace::<W>(setup, trace);
            assert_eq!(outcome, Ok(()), "{asked}");
        }
        return None;
    }
    let begin = Instant::now();
    match explore::<W>(setup, limits) {
        Ok(explored) => {
            println!(
                "{name}: depth {}, {} states, {} orders played to an end, {} steps, {:.1} s{}; \
                 new states by depth: {:?}; {:?}",
                limits.depth,
                explored.states.len(),
                explored.paths,
                explored.steps,
                begin.elapsed().as_secs_f64(),
                if limits.cut { "" } else { " (nothing cut)" },
                explored.by_depth,
                explored.events,
            );
            Some(explored)
        }
        Err(Failure { trace, what }) => panic!("PAGEWIRE_TRACE=\"{name}:{trace}\": {what}"),
    }
}

/// That each of `events` came about: else the depth is too small, or an action does nothing.
pub(crate) fn came_about(explored: Option<Explored>, events: &[&str]) {
    // There is none if another order was asked for.
    if let Some(explored) = explored {
        for event in events {
            let seen = explored.events.contains_key(event);
            assert!(seen, "{event:?} is not among {:?}", explored.events);
        }
    }
}

/// That cutting loses no state: without it the same ones are found.
pub(crate) fn cutting_loses_nothing<W: World>(name: &str, setup: &W::Setup, depth: usize) {
    let cut = run::<W>(name, setup, Limits { depth, cut: true });
    let all = run::<W>(name, setup, Limits { depth, cut: false });
    if let (Some(cut), Some(all)) = (cut, all) {
        assert_eq!(cut.by_depth, all.by_depth, "{name}");
        assert!(cut.states == all.states, "{name}: other states");
    }
}
