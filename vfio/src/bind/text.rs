//! Reading sysfs and /proc: their words, numbers and links, where anything may be missing or odd.

use std::io;
use std::path::Path;

use super::system::System;

/// A file with one word or line; `None` if it is missing, empty or cannot be read (a carrier file
/// says EINVAL while its interface is down).
pub(super) fn line(system: &dyn System, path: &str) -> Option<String> {
    let bytes = system.read(path).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    (!text.is_empty()).then(|| text.to_owned())
}

/// A file with a number in hexadecimal, with or without `0x`.
pub(super) fn hexadecimal(system: &dyn System, path: &str) -> Option<u32> {
    let text = line(system, path)?;
    u32::from_str_radix(text.strip_prefix("0x").unwrap_or(&text), 16).ok()
}

/// The last part of a link's target: the name of a driver, a module, a group.
pub(super) enum Target {
    /// This.
    Name(String),
    /// There is no such link.
    None,
    /// It cannot be read, or its target is no name that the kernel gives.
    Odd(String),
}

impl Target {
    pub(super) fn of(system: &dyn System, path: &str) -> Self {
        match system.link(path) {
            Ok(target) => match target.file_name().and_then(|name| name.to_str()) {
                Some(name) if is_kernel_name(name) => Self::Name(name.into()),
                _ => Self::Odd(target.to_string_lossy().escape_debug().to_string()),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::None,
            Err(error) => Self::Odd(error.to_string()),
        }
    }

    pub(super) fn name(self) -> Option<String> {
        match self {
            Self::Name(name) => Some(name),
            Self::None | Self::Odd(_) => None,
        }
    }
}

/// What may become a part of a path, or an argument of modprobe: visible ASCII without a slash,
/// not `.` or `..`, no option.
pub(super) fn is_kernel_name(name: &str) -> bool {
    let usual = |byte: u8| (byte.is_ascii_graphic() || byte == b' ') && byte != b'/';
    (1..64).contains(&name.len()) && name.bytes().all(usual) && !name.starts_with(['.', '-', ' '])
}

/// The names in a folder; none where there is no folder. A folder that is there and cannot be read is
/// an error, in words: what it would have shown must not pass for absent.
pub(super) fn names_or_none(system: &dyn System, folder: &str) -> Result<Vec<String>, String> {
    match system.names(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other.map_err(|error| format!("{folder} ({error})")),
    }
}

/// Whether a path is there, be it a link that leads nowhere.
pub(super) fn exists(system: &dyn System, path: &str) -> bool {
    system.owner(path).is_ok()
}

/// The parts of a path, for a search from its end.
pub(super) fn parts(path: &Path) -> Vec<String> {
    path.iter()
        .map(|part| part.to_string_lossy().into_owned())
        .collect()
}
