//! What the driver did that the specification forbids.

/// Texts kept until somebody asks; later ones are only counted.
const MOST_KEPT: usize = 256;

/// The reports, oldest first.
#[derive(Debug, Default)]
pub(super) struct Violations {
    kept: Vec<String>,
    unsaid: u64,
}

impl Violations {
    pub(super) fn report(&mut self, text: String) {
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
