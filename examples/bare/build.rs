//! Links the image as a machine without an operating system needs it, and makes the file that is
//! linked into it.

#[path = "src/content.rs"]
mod content;

use std::path::PathBuf;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    for file in ["build.rs", "link.ld", "src/boot.s", "src/content.rs"] {
        println!("cargo:rerun-if-changed={file}");
    }
    let folder = |name| env::var_os(name).map(PathBuf::from).unwrap_or_default();
    let script = folder("CARGO_MANIFEST_DIR").join("link.ld");
    let arguments = [
        "-nostartfiles",
        "-nostdlib",
        "-nodefaultlibs",
        "-static",
        "-no-pie",
        "-Wl,--build-id=none",
        "-Wl,-z,noexecstack",
        "-Wl,-z,max-page-size=4096",
        &format!("-Wl,-T,{}", script.display()),
    ];
    for argument in arguments {
        println!("cargo:rustc-link-arg-bin=pagewire-bare={argument}");
    }
    fs::write(folder("OUT_DIR").join("file"), stored())
}

/// The file as it lies in the image: whole pages, out of order.
fn stored() -> Vec<u8> {
    let mut bytes = vec![0; content::PAGES * content::PAGE];
    for page in 0..content::PAGES {
        let start = content::slot(page) * content::PAGE;
        let target = &mut bytes[start..start + content::PAGE];
        content::fill(page, target);
    }
    bytes
}
