//! Links without start files and without any library.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let arguments = [
        "-nostartfiles",
        "-nostdlib",
        "-nodefaultlibs",
        "-static",
        "-no-pie",
        "-Wl,--build-id=none",
    ];
    for argument in arguments {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
}
