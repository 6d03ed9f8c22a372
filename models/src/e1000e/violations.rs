//! What the driver did that the specification forbids.

/// Texts kept until somebody asks; later ones are only counted.
const MOST_KEPT: usize = 256;

/// The reports, oldest first.
#[derive(Debug, Default)]
pub(super) struct Violations {
    kept: Vec<String>,
    unsaid: u64,
    silence: Silence,
}

/// Whether reports mean anything: what a driver does that was lied to is no offence.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Silence {
    #[default]
    None,
    /// The device is hostile.
    Hostile,
    /// It was, and there was no reset since.
    UntilReset,
}

impl Violations {
    /// The device is hostile from now on.
    pub(super) fn mute(&mut self) {
        self.silence = Silence::Hostile;
    }

    /// The device is hostile no more.
    pub(super) fn unmute(&mut self) {
        if self.silence == Silence::Hostile {
            self.silence = Silence::UntilReset;
        }
    }

    /// The device is being reset.
    pub(super) fn note_reset(&mut self) {
        if self.silence == Silence::UntilReset {
            self.silence = Silence::None;
        }
    }

    pub(super) fn report(&mut self, text: String) {
        if self.silence != Silence::None {
            return;
        }
        log::warn!("82574L: {text}");
        if self.kept.len() < MOST_KEPT {
            self.kept.push(text);
        } else {
            self.unsaid += 1;
        }
    }

    pub(super) fn take(&mut self) -> Vec<String> {
        let mut taken = core::mem::take(&mut self.kept);
        if self.unsaid > 0 {
            taken.push(format!("and {} more", core::mem::take(&mut self.unsaid)));
        }
        taken
    }
}
