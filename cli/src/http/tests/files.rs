//! What is found in a directory, and what is not.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::super::Root;
use super::*;

/// A directory with something of everything, and a secret beside it.
struct Place {
    all: tempfile::TempDir,
    root: Root,
}

impl Place {
    fn new() -> Self {
        let all = tempfile::tempdir().unwrap();
        let site = all.path().join("site");
        fs::create_dir_all(site.join("with/deeper")).unwrap();
        fs::create_dir_all(site.join("without")).unwrap();
        fs::write(all.path().join("secret"), "secret").unwrap();
        fs::write(site.join("index.html"), "first").unwrap();
        fs::write(site.join("a b.txt"), "text").unwrap();
        fs::write(site.join("noname"), "").unwrap();
        fs::write(site.join("with/index.html"), "index").unwrap();
        Self {
            root: Root::open(&site).unwrap(),
            all,
        }
    }

    fn site(&self) -> std::path::PathBuf {
        self.all.path().join("site")
    }

    fn find(&self, target: &str) -> Found {
        self.root.find(&request(&format!(
            "GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"
        )))
    }

    fn len(&self, target: &str) -> Option<u64> {
        match self.find(target) {
            Found::Document(document) => Some(document.len),
            _ => None,
        }
    }
}

#[test]
fn files_and_directories() {
    let place = Place::new();
    assert_eq!(place.len("/"), Some(5));
    assert_eq!(place.len("/index.html?x=1"), Some(5));
    assert_eq!(place.len("/a%20b.txt"), Some(4));
    assert_eq!(place.len("/noname"), Some(0));
    assert_eq!(place.len("/with/"), Some(5));
    assert_eq!(place.len("//with//.//"), Some(5));
    for nothing in [
        "/x",
        "/with/x",
        "/without/",
        "/with/deeper/",
        "/noname/",
        "/noname/x",
    ] {
        assert!(matches!(place.find(nothing), Found::Nothing), "{nothing}");
    }
    for (target, place_to_go) in [("/with", "/with/"), ("/without?q", "/without/?q")] {
        match place.find(target) {
            Found::Elsewhere(to) => assert_eq!(to, place_to_go),
            other => panic!("{target}: {other:?}"),
        }
    }
    let long = format!("/{}", "x".repeat(5000));
    assert!(matches!(place.find(&long), Found::Nothing));
}

#[test]
fn rfc_9110_8_3_media_types() {
    let place = Place::new();
    for (target, expected) in [
        ("/", "text/html"),
        ("/a%20b.txt", "text/plain"),
        ("/noname", "application/octet-stream"),
    ] {
        let Found::Document(document) = place.find(target) else {
            panic!("{target}")
        };
        assert_eq!(document.media_type, expected);
    }
    for (name, expected) in [
        ("p.png", "image/png"),
        ("s.css", "text/css"),
        ("x.svg", "image/svg+xml"),
    ] {
        fs::write(place.site().join(name), "x").unwrap();
        let Found::Document(document) = place.find(&format!("/{name}")) else {
            panic!("{name}")
        };
        assert_eq!(document.media_type, expected);
    }
}

#[test]
fn nothing_leads_out_of_the_directory() {
    let place = Place::new();
    let link = |to: &Path, name: &str| symlink(to, place.site().join(name)).unwrap();
    let secret = place.all.path().join("secret");
    assert!(secret.exists());
    link(&secret, "absolute");
    link(Path::new("../secret"), "relative");
    link(Path::new(".."), "up");
    link(Path::new("/"), "everything");
    link(Path::new("/proc/self/root"), "magic");
    link(&place.site().join("index.html"), "absolute-inside");
    link(Path::new("loop"), "loop");
    link(Path::new("with/../index.html"), "inside");
    link(Path::new("with"), "with-link");
    for out in [
        "/absolute",
        "/relative",
        "/up/secret",
        "/everything/etc/passwd",
        "/magic/etc/passwd",
        "/absolute-inside",
        "/loop",
    ] {
        assert!(matches!(place.find(out), Found::Nothing), "{out}");
    }
    assert_eq!(place.len("/inside"), Some(5));
    assert_eq!(place.len("/with-link/"), Some(5));
    for bad in [
        "/../secret",
        "/%2e%2e/secret",
        "/with/../../secret",
        "/..%2fsecret",
        "/%00",
    ] {
        let text = format!("GET {bad} HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(status_of(&text), Some(Status::BadRequest), "{bad}");
    }
}

#[test]
fn only_regular_files_are_served() {
    let place = Place::new();
    let fifo = place.site().join("fifo");
    let mode = rustix::fs::Mode::from(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(place.site().join("socket")).unwrap();
    // Does not wait for somebody who writes.
    assert!(matches!(place.find("/fifo"), Found::Nothing));
    assert!(matches!(place.find("/socket"), Found::Nothing));
    let closed = place.site().join("noname");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    // Root may read everything.
    let may = fs::File::open(&closed).is_ok();
    assert_eq!(matches!(place.find("/noname"), Found::Forbidden), !may);
}

#[test]
fn what_was_found_is_answered() {
    let status = |found| {
        let response = respond(&get(""), found, at(NOW));
        check(&response, false);
        response
    };
    assert_eq!(status(Found::Nothing).status, Status::NotFound);
    assert_eq!(status(Found::Forbidden).status, Status::Forbidden);
    assert_eq!(status(Found::Busy).status, Status::Unavailable);
    let moved = status(Found::Elsewhere("/a/".into()));
    assert_eq!(moved.status, Status::MovedPermanently);
    assert_eq!(field(&moved, "Location"), Some("/a/"));
}

#[test]
fn a_root_is_a_directory() {
    let place = Place::new();
    for bad in ["none", "index.html"] {
        assert!(Root::open(&place.site().join(bad)).is_err(), "{bad}");
    }
    // It is held by a descriptor: another directory of the same name is another one.
    fs::rename(place.site(), place.all.path().join("moved")).unwrap();
    fs::create_dir(place.site()).unwrap();
    assert_eq!(place.len("/"), Some(5));
}
