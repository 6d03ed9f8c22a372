//! What a driver did that the specification forbids: the list that every model keeps.

use std::marker::PhantomData;

/// Texts kept until somebody asks; later ones are only counted.
const MOST_KEPT: usize = 256;

/// A model that reports, by name.
pub(crate) trait Reporter {
    /// What stands before its reports in the log.
    const NAME: &'static str;
}

/// The reports about a driver, oldest first.
#[derive(Debug)]
pub(crate) struct Violations<R> {
    kept: Vec<String>,
    unsaid: u64,
    silence: Silence,
    reporter: PhantomData<R>,
}

/// Whether reports mean anything: what a driver does that was lied to is no offence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Silence {
    None,
    /// The device is hostile.
    Hostile,
    /// It was, and there was no reset since.
    UntilReset,
}

impl<R> Default for Violations<R> {
    /// None.
    fn default() -> Self {
        Self {
            kept: Vec::new(),
            unsaid: 0,
            silence: Silence::None,
            reporter: PhantomData,
        }
    }
}

impl<R: Reporter> Violations<R> {
    /// The device is hostile from now on.
    pub(crate) fn mute(&mut self) {
        self.silence = Silence::Hostile;
    }

    /// The device is hostile no more.
    pub(crate) fn unmute(&mut self) {
        if self.silence == Silence::Hostile {
            self.silence = Silence::UntilReset;
        }
    }

    /// The device is being reset.
    pub(crate) fn note_reset(&mut self) {
        if self.silence == Silence::UntilReset {
            self.silence = Silence::None;
        }
    }

    /// Adds a report, unless there is silence.
    pub(crate) fn report(&mut self, text: String) {
        if self.silence != Silence::None {
            return;
        }
        log::warn!("{}: {text}", R::NAME);
        if self.kept.len() < MOST_KEPT {
            self.kept.push(text);
        } else {
            self.unsaid += 1;
        }
    }

    /// What was reported since this was last asked.
    pub(crate) fn take(&mut self) -> Vec<String> {
        let mut taken = core::mem::take(&mut self.kept);
        if self.unsaid > 0 {
            taken.push(format!("and {} more", core::mem::take(&mut self.unsaid)));
        }
        taken
    }
}
