//! Where QEMU is.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

/// The name of the environment variable that names QEMU, or says `none`.
const VARIABLE: &str = "PAGEWIRE_QEMU";

/// Why there is no QEMU.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum QemuMissing {
    /// The environment says `PAGEWIRE_QEMU=none`.
    SwitchedOff,
    /// It has not been fetched.
    NotFetched,
}

impl fmt::Display for QemuMissing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SwitchedOff => write!(f, "{VARIABLE}=none: no QEMU is wanted"),
            Self::NotFetched => write!(
                f,
                "no QEMU: run tests/lab/get-qemu, or name a qemu-system-x86_64 (11.0 or newer) \
                 with {VARIABLE}"
            ),
        }
    }
}

impl std::error::Error for QemuMissing {}

/// Finds the QEMU to use: what the environment variable `PAGEWIRE_QEMU` names, else what
/// `tests/lab/get-qemu` has put into the user's cache.
///
/// # Errors
/// [`QemuMissing`]. Whether what the variable names can be run is not looked at.
pub fn find_qemu() -> Result<PathBuf, QemuMissing> {
    choose(
        env::var_os(VARIABLE),
        env::var_os("XDG_CACHE_HOME"),
        env::var_os("HOME"),
    )
}

fn choose(
    named: Option<OsString>,
    cache: Option<OsString>,
    home: Option<OsString>,
) -> Result<PathBuf, QemuMissing> {
    let is_set = |value: &OsString| !value.is_empty();
    match named.filter(is_set) {
        Some(named) if named == "none" => return Err(QemuMissing::SwitchedOff),
        Some(named) => return Ok(named.into()),
        None => {}
    }
    let cache = cache.filter(is_set).map(PathBuf::from);
    let home = home
        .filter(is_set)
        .map(|home| PathBuf::from(home).join(".cache"));
    let cache = cache.or(home).ok_or(QemuMissing::NotFetched)?;
    let qemu = cache.join("pagewire/qemu/bin/qemu-system-x86_64");
    if qemu.is_file() {
        Ok(qemu)
    } else {
        Err(QemuMissing::NotFetched)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_goes_before_the_cache() {
        let cache = tempfile::tempdir().unwrap();
        let bin = cache.path().join("pagewire/qemu/bin");
        let fetched = bin.join("qemu-system-x86_64");
        let path = || Some(cache.path().as_os_str().to_owned());
        assert_eq!(choose(None, path(), None), Err(QemuMissing::NotFetched));
        assert_eq!(choose(None, None, None), Err(QemuMissing::NotFetched));
        std::fs::create_dir_all(&bin).unwrap();
        std::fs::write(&fetched, "").unwrap();
        assert_eq!(choose(None, path(), None), Ok(fetched.clone()));
        assert_eq!(choose(Some("".into()), path(), None), Ok(fetched.clone()));
        assert_eq!(
            choose(Some("none".into()), path(), None),
            Err(QemuMissing::SwitchedOff)
        );
        assert_eq!(
            choose(Some("/q".into()), path(), None),
            Ok(PathBuf::from("/q"))
        );
        std::fs::rename(cache.path().join("pagewire"), cache.path().join(".cache")).unwrap();
        std::fs::create_dir_all(cache.path().join("home/.cache/pagewire")).unwrap();
        let home = cache.path().join("home");
        let there = home.join(".cache/pagewire/qemu");
        std::fs::rename(cache.path().join(".cache/qemu"), &there).unwrap();
        let expected = there.join("bin/qemu-system-x86_64");
        assert_eq!(choose(None, None, Some(home.into())), Ok(expected));
    }
}
