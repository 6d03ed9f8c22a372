//! What a device turned out to be, for people.

use core::fmt;

use pagewire_virtio::Features;

/// What was opened. Its `Display` names the device and, where driver and device have negotiated,
/// what they agreed on: `virtio-net: csum mac …`, or `e1000e 82574L`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Description {
    /// The driver's name and the device's.
    pub name: &'static str,
    /// What was negotiated; `None` for a device that does not negotiate.
    pub features: Option<Features>,
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        match self.features {
            Some(features) => write!(f, ": {features}"),
            None => Ok(()),
        }
    }
}
