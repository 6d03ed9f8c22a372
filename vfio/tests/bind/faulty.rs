//! A made-up machine on which things fail, change and end while we work.

use std::cell::Cell;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use pagewire_vfio::bind::{Played, System};
use rustix::io::Errno;

/// When a change of the machine fails.
pub enum Fail {
    Never,
    /// The change of this number, once, with this error.
    Once(usize, Errno),
    /// From this one on, everything: as if the process had been killed.
    From(usize),
    /// Every write to a path that ends so.
    Path(&'static str, Errno),
    /// Changes of owners, for files that begin so.
    Owner(&'static str, Errno),
}

/// What is called before each call.
pub type Watch<'a> = Box<dyn Fn(usize, &str) + 'a>;

/// Wraps a made-up machine. `watch` is called with the number and path of each call, reads as
/// well, before it is done.
pub struct Faulty<'a> {
    pub inner: Played,
    pub fail: Fail,
    pub watch: Watch<'a>,
    /// Calls so far.
    pub calls: Cell<usize>,
    /// Changes so far.
    pub changes: usize,
    /// Modules that were asked for.
    pub modules: Vec<String>,
}

impl<'a> Faulty<'a> {
    pub fn new(root: &Path) -> Self {
        Self {
            inner: Played::new(root).unwrap(),
            fail: Fail::Never,
            watch: Box::new(|_, _| {}),
            calls: Cell::new(0),
            changes: 0,
            modules: Vec::new(),
        }
    }

    pub fn failing(root: &Path, fail: Fail) -> Self {
        Self {
            fail,
            ..Self::new(root)
        }
    }

    pub fn watched(root: &Path, watch: impl Fn(usize, &str) + 'a) -> Self {
        Self {
            watch: Box::new(watch),
            ..Self::new(root)
        }
    }

    fn see(&self, path: &str) {
        let number = self.calls.get();
        self.calls.set(number + 1);
        (self.watch)(number, path);
    }

    fn change(&mut self, path: &str) -> io::Result<()> {
        self.see(path);
        let number = self.changes;
        self.changes += 1;
        match self.fail {
            Fail::Once(at, error) if at == number => Err(error.into()),
            Fail::From(at) if number >= at => Err(Errno::IO.into()),
            Fail::Path(end, error) if path.ends_with(end) => Err(error.into()),
            _ => Ok(()),
        }
    }
}

impl System for Faulty<'_> {
    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        self.see(path);
        self.inner.read(path)
    }

    fn link(&self, path: &str) -> io::Result<PathBuf> {
        self.see(path);
        self.inner.link(path)
    }

    fn names(&self, path: &str) -> io::Result<Vec<String>> {
        self.see(path);
        self.inner.names(path)
    }

    fn owner(&self, path: &str) -> io::Result<u32> {
        self.see(path);
        self.inner.owner(path)
    }

    fn ipv4_addresses(&self) -> io::Result<Vec<(String, Ipv4Addr)>> {
        self.see("ipv4_addresses");
        self.inner.ipv4_addresses()
    }

    fn write(&mut self, path: &str, text: &str) -> io::Result<()> {
        self.change(path)?;
        self.inner.write(path, text)
    }

    fn save(&mut self, path: &str, text: &str) -> io::Result<()> {
        self.change(path)?;
        self.inner.save(path, text)
    }

    fn remove(&mut self, path: &str) -> io::Result<()> {
        self.change(path)?;
        self.inner.remove(path)
    }

    fn set_owner(&mut self, path: &str, user: u32) -> io::Result<()> {
        self.change(path)?;
        if let Fail::Owner(begin, error) = self.fail
            && path.starts_with(begin)
            && user != 0
        {
            return Err(error.into());
        }
        self.inner.set_owner(path, user)
    }

    fn load_module(&mut self, name: &str) -> io::Result<()> {
        self.modules.push(name.into());
        self.change(name)?;
        self.inner.load_module(name)
    }

    fn lock(&mut self, path: &str) -> io::Result<()> {
        self.inner.lock(path)
    }

    fn pause(&mut self) {}
}
