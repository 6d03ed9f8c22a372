//! `pagewire demo` with a NIC that another process plays: `pagewire model`, at its vfio-user socket.

#![allow(clippy::unwrap_used, reason = "a panic is the failure of the test")]

mod common;

use std::process::{Child, Command, Stdio};

use common::{await_serving, copied, demo, number, pagewire};

/// The process, which ends with the value.
struct Model(Child);

impl Model {
    fn start(nic: &str, folder: &std::path::Path) -> Self {
        let (socket, wire) = (folder.join("nic.sock"), folder.join("wire"));
        std::fs::create_dir(&wire).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_pagewire"))
            .args(["model", nic, "--wire", &format!("pair:{}", wire.display())])
            .arg("--socket")
            .arg(&socket)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        await_serving(&mut child);
        Self(child)
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn a_file_goes_through_a_nic_in_another_process() {
    for nic in ["e1000e", "ixgbe", "virtio,packed=on"] {
        let folder = tempfile::tempdir().unwrap();
        let _model = Model::start(nic, folder.path());
        let folder = folder.path().display();
        // Twice: the first client leaves the device as the second wants to find it.
        for size in ["1M", "8M"] {
            let report = demo(&format!(
                "--device vfio-user:{folder}/nic.sock --wire pair:{folder}/wire --size {size}"
            ));
            assert_eq!(copied(&report), 0, "{report}");
            assert!(number(&report, "/bytes/shared") >= 1 << 20, "{report}");
            assert!(
                report["nic"].as_str().unwrap().ends_with("by vfio-user"),
                "{report}"
            );
        }
    }
}

#[test]
fn what_is_missing_is_said_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let device = format!("vfio-user:{}/nic.sock", folder.path().display());
    let wire = format!("pair:{}", folder.path().display());
    for (words, why) in [
        (&["--device", &device][..], "--wire pair:DIR"),
        (&["--device", &device, "--wire", "none"], "pair:DIR"),
        (
            &["--device", &device, "--peer", "linux"],
            "--peer-interface",
        ),
        (&["--wire", &wire], "--device vfio-user:SOCKET"),
        (&["--device", &device, "--wire", &wire], "nic.sock"),
    ] {
        let output = pagewire(&[&["demo", "--size", "1M"], words].concat());
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {errors}");
        assert!(errors.contains(why), "{words:?}: {errors}");
        let one_line = errors.trim().lines().count() == 1;
        assert!(
            one_line || errors.starts_with("error: invalid value"),
            "{errors}"
        );
    }
}
