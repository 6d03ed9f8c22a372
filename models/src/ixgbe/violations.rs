//! What the driver did that the specification forbids.

use crate::violations::Reporter;

/// The reports of this model.
pub(super) type Violations = crate::violations::Violations<Model>;

/// The name of this model in the log.
#[derive(Debug)]
pub(super) enum Model {}

impl Reporter for Model {
    const NAME: &'static str = "82599";
}
