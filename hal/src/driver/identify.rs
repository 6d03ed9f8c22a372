//! Which device is behind a platform.

use crate::{NicError, Platform, pci};

/// The device behind `platform`, if `supported` knows its vendor and device id.
///
/// # Errors
/// [`NicError::Removed`], [`NicError::UnknownDevice`].
pub fn identify<P: Platform, I>(
    platform: &P,
    supported: impl FnOnce(u16, u16) -> Option<I>,
) -> Result<I, NicError> {
    let (vendor, device) = pci::identity(platform);
    if vendor == u16::MAX {
        return Err(NicError::Removed);
    }
    supported(vendor, device).ok_or(NicError::UnknownDevice { vendor, device })
}
