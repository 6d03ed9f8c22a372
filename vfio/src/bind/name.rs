//! Devices as users name them: by PCI address or network interface.

use std::fmt;
use std::str::FromStr;

use crate::{ParseAddressError, PciAddress};

/// A device as a user names it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum DeviceName {
    /// By its place.
    Address(PciAddress),
    /// By its network interface, as long as it has one.
    Interface(String),
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Interface(name) => f.write_str(name),
        }
    }
}

impl FromStr for DeviceName {
    type Err = NameError;

    /// What has a colon is an address: Linux lets no interface have one in its name.
    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.contains(':') {
            return text.parse().map(Self::Address).map_err(NameError::Address);
        }
        if is_interface_name(text) {
            Ok(Self::Interface(text.into()))
        } else {
            Err(NameError::NotAName(text.into()))
        }
    }
}

/// Whether Linux would let an interface have that name (`dev_valid_name`): 1 to 15 bytes, no
/// slash, colon or white space, and neither `.` nor `..`. We want printable ASCII as well.
pub(super) fn is_interface_name(text: &str) -> bool {
    let usual = |byte: u8| byte.is_ascii_graphic() && byte != b'/' && byte != b':';
    (1..16).contains(&text.len()) && text.bytes().all(usual) && text != "." && text != ".."
}

/// A name that no device can have. Its `Display` shows how names look.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NameError {
    /// It has a colon and is no PCI address.
    Address(ParseAddressError),
    /// It is neither an address nor the name of an interface.
    NotAName(String),
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(error) => error.fmt(f),
            Self::NotAName(text) => write!(
                f,
                "\"{}\" is neither a PCI address, such as 0000:03:00.0, nor the name of a network \
                 interface, such as eth1",
                text.escape_debug()
            ),
        }
    }
}

impl std::error::Error for NameError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let name = |text: &str| text.parse::<DeviceName>();
        assert!(matches!(name("03:00.0"), Ok(DeviceName::Address(_))));
        for good in ["eth0", "enp3s0f1", "eth0.100", "a"] {
            assert!(matches!(name(good), Ok(DeviceName::Interface(_))), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "two words",
            "sixteen_letters_",
            "é",
            "model:e1000e",
        ] {
            assert!(name(bad).is_err(), "{bad}");
        }
        // What a terminal would obey is shown, not sent.
        let error = name("\u{1b}[2J:").unwrap_err().to_string();
        assert!(!error.contains('\u{1b}'), "{error}");
    }
}
