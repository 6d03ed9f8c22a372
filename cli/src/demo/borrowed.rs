//! An interface of this machine that the receiver has for a while: the far end of a real cable.

use std::fmt::Display;

use pagewire_vfio::bind::{Interface, Machine, Network, Note, Refusal, System, Verdict};

use super::namespace::Namespace;
use crate::error::Failure;

/// An interface in another network namespace than its own, into which it goes back, without an
/// address, when the value is dropped.
///
/// When the process dies before, its namespace ends with the last process in it, and Linux gives
/// interfaces of hardware back to the first namespace of the system.
#[derive(Debug)]
pub(super) struct Borrowed {
    name: String,
    home: Namespace,
    away: Namespace,
    mtu: i32,
    was_up: bool,
}

/// Whether the interface can be had without cutting a connection.
pub(super) fn check(name: &str) -> Result<(), Failure> {
    check_on(&Machine::new(), name)
}

fn check_on(system: &dyn System, name: &str) -> Result<(), Failure> {
    let network = Network::read(system);
    let Some(interface) = Interface::named(system, name, &network) else {
        return Err(refused(
            name,
            "there is none of this name; `pagewire list` and `ip link` show those that there are",
        ));
    };
    let verdict = Verdict::of_interface(&interface, &network);
    if let Some(refusal) = verdict.refusals.first() {
        let all: Vec<_> = verdict.refusals.iter().map(ToString::to_string).collect();
        let why = format!("{}; {}", all.join("; "), way_out(name, refusal));
        return Err(refused(name, why));
    }
    // Its addresses would be lost, and whoever is above it would lose it.
    if let Some((above, _)) = interface.carries.get(1) {
        let why = format!("it is below {above}; take it out (ip link set {name} nomaster)");
        return Err(refused(name, why));
    }
    let lost = |note: &&Note| matches!(note, Note::DownWithAddress { .. });
    if let Some(note) = verdict.notes.iter().find(lost) {
        let why = format!("{note}; {}", free(name));
        return Err(refused(name, why));
    }
    Ok(())
}

/// How the user gets it out of use.
fn way_out(name: &str, refusal: &Refusal) -> String {
    match refusal {
        Refusal::HasAddress { of, .. } | Refusal::DefaultRoute { of, .. } if of != name => {
            format!("name another, or take it out of {of} (ip link set {name} nomaster)")
        }
        _ => free(name),
    }
}

fn free(name: &str) -> String {
    format!(
        "name another, or free it first if nothing needs it (ip addr flush dev {name}; ip link set \
         {name} down)"
    )
}

fn refused(name: &str, why: impl Display) -> Failure {
    Failure::usage(format!("--peer-interface {name}: {why}"))
}

impl Borrowed {
    /// Moves the calling thread into a new network namespace, and the interface after it.
    pub(super) fn take(name: &str) -> Result<Self, Failure> {
        check(name)?;
        Self::move_away(name)
    }

    fn move_away(name: &str) -> Result<Self, Failure> {
        let cannot = |what: &'static str| {
            move |error| {
                refused(
                    name,
                    format!(
                        "cannot {what}: {error} (it needs root, that is CAP_SYS_ADMIN and \
                         CAP_NET_ADMIN)"
                    ),
                )
            }
        };
        let home = Namespace::current().map_err(cannot("look at its network namespace"))?;
        let mtu = home.mtu(name).map_err(cannot("ask for its MTU"))?;
        let was_up = home.is_up(name).map_err(cannot("ask whether it is up"))?;
        let away = Namespace::enter_new().map_err(cannot("make a network namespace"))?;
        home.give(name, &away)
            .map_err(cannot("move it into a network namespace"))?;
        Ok(Self {
            name: name.to_owned(),
            home,
            away,
            mtu,
            was_up,
        })
    }

    /// The namespace that it is in now.
    pub(super) fn namespace(&self) -> &Namespace {
        &self.away
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is up and sees a link.
    pub(super) fn has_link(&self) -> bool {
        self.away.has_link(&self.name).unwrap_or(false)
    }

    fn give_back(&self) -> std::io::Result<()> {
        let Self { name, home, .. } = self;
        if self.away.mtu(name)? != self.mtu {
            self.away.set_mtu(name, self.mtu)?;
        }
        self.away.give(name, home)?;
        if self.was_up {
            home.set_up(name, true)?;
        }
        Ok(())
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if let Err(error) = self.give_back() {
            // The kernel gives it back when its namespace ends, which is soon.
            log::error!("the interface {} cannot be given back: {error}", self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    use pagewire_vfio::bind::Played;

    use super::*;

    /// A made-up machine with eth1 (up or down), and what /proc says of its network.
    fn verdict(up: bool, above: Option<&str>, files: &[(&str, &str)]) -> String {
        let root = tempfile::tempdir().unwrap();
        let file = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).unwrap();
            std::fs::write(path, text).unwrap();
        };
        std::fs::create_dir_all(root.path().join("sys/bus/pci/devices")).unwrap();
        file(
            "sys/class/net/eth1/flags",
            if up { "0x1003\n" } else { "0x1002\n" },
        );
        if let Some(above) = above {
            file(&format!("sys/class/net/{above}/flags"), "0x1003\n");
            file(&format!("sys/class/net/eth1/upper_{above}"), "");
        }
        file("proc/net/route", "");
        file("proc/net/fib_trie", "");
        files.iter().for_each(|(path, text)| file(path, text));
        let system = Played::new(root.path()).unwrap();
        let verdict = check_on(&system, "eth1");
        assert!(check_on(&system, "eth9").is_err());
        verdict.map_or_else(|failure| failure.to_string(), |()| "free".into())
    }

    const ADDRESS: (&str, &str) = (
        "proc/net/if_inet6",
        "20010db8000000000000000000000005 02 40 00 80 eth1\n",
    );

    #[test]
    fn an_interface_that_something_needs_is_refused() {
        assert_eq!(verdict(false, None, &[]), "free");
        assert_eq!(verdict(true, None, &[]), "free");
        for (text, way_out) in [
            (verdict(true, None, &[ADDRESS]), "ip link set eth1 down"),
            (verdict(false, None, &[ADDRESS]), "ip addr flush dev eth1"),
            (
                verdict(false, Some("br0"), &[]),
                "ip link set eth1 nomaster",
            ),
            (
                verdict(
                    true,
                    Some("br0"),
                    &[(ADDRESS.0, &ADDRESS.1.replace("eth1", "br0"))],
                ),
                "ip link set eth1 nomaster",
            ),
        ] {
            assert!(text.starts_with("--peer-interface eth1: "), "{text}");
            assert!(text.contains(way_out), "{text}");
        }
    }

    /// In a thread of its own, as it moves into another network namespace.
    #[test]
    fn an_interface_comes_back_as_it_was_and_without_an_address() {
        if !rustix::process::geteuid().is_root() {
            assert!(std::env::var_os("CI").is_none(), "CI must be root");
            eprintln!("skipped: it needs root");
            return;
        }
        let tried = std::thread::spawn(|| {
            let ip = |words: &str| {
                let output = Command::new("ip").args(words.split(' ')).output().unwrap();
                assert!(output.status.success(), "ip {words}: {output:?}");
                String::from_utf8(output.stdout).unwrap()
            };
            let home = Namespace::enter_new().unwrap();
            ip("link add pw0 mtu 1400 type veth peer name pw1");
            ip("link set pw1 up");
            for up in [true, false] {
                home.set_up("pw0", up).unwrap();
                let borrowed = Borrowed::move_away("pw0").unwrap();
                assert!(home.mtu("pw0").is_err(), "it is away");
                let address = (std::net::Ipv4Addr::new(10, 77, 0, 2), 24);
                let away = borrowed.namespace();
                away.configure("pw0", address, 1500).unwrap();
                assert!(ip("addr show dev pw0").contains("inet 10.77.0.2/24"));
                // At once, whichever way it is.
                for link in [false, true] {
                    home.set_up("pw1", link).unwrap();
                    assert_eq!(borrowed.has_link(), link);
                }
                drop(borrowed);
                assert_eq!(home.is_up("pw0").ok(), Some(up));
                assert_eq!(home.mtu("pw0").ok(), Some(1400));
                // Back where it was, this thread is not: the child is started in its namespace.
                rustix::thread::move_into_link_name_space(
                    std::os::fd::AsFd::as_fd(home.file()),
                    Some(rustix::thread::LinkNameSpaceType::Network),
                )
                .unwrap();
                assert!(!ip("addr show dev pw0").contains("10.77.0.2"));
            }
        });
        tried.join().unwrap();
    }
}
