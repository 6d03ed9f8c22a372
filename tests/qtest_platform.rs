//! The platform over QEMU's devices, without a driver: registers, BARs, interrupts, and the end of
//! QEMU. Needs QEMU, see `qtest_e1000e.rs`.
#![cfg(target_os = "linux")]
// A test may panic: that is how it fails.
#![allow(clippy::unwrap_used)]

mod qtest;

use std::time::{Duration, Instant as RealInstant};

use pagewire::hal::{Platform, Registers};
use pagewire_models::qtest::Qtest;
use qtest::{SOON, options};

#[test]
fn registers_are_reached_inside_their_bar_alone() {
    let Some(options) = options() else { return };
    let mut qtest = Qtest::start(&options).unwrap();
    let mut platform = qtest.take_platform().unwrap();
    assert!(qtest.take_platform().is_none());
    assert_eq!(platform.read_config(0), 0x10d3_8086);
    assert_eq!(platform.read_config(2), u32::MAX);
    assert_eq!(platform.read_config(0x100), u32::MAX);
    let registers = platform.map_bar(0).unwrap();
    // STATUS; the BAR has 128 KiB (82574L).
    assert_ne!(registers.read(8), u32::MAX);
    for outside in [6, 9, 0x2_0000, u32::MAX - 3] {
        assert_eq!(registers.read(outside), u32::MAX, "{outside:#x}");
    }
    // BAR 2 is in I/O space, BAR 5 is not there, and there are 6.
    for index in [2, 5, 6, 255] {
        assert!(platform.map_bar(index).is_err(), "BAR {index}");
    }
    assert_eq!(platform.enable_interrupts(u16::MAX), Ok(5));
    assert_eq!(platform.enable_interrupts(0), Ok(0));
    drop(qtest);
    assert_eq!(registers.read(8), u32::MAX);
    assert_eq!(platform.read_config(0), u32::MAX);
    assert!(platform.enable_interrupts(1).is_err());
    assert!(platform.allocate(64, 64).is_ok());
}

#[test]
fn a_virtio_device_has_its_bars_and_interrupts() {
    let Some(mut options) = options() else { return };
    options.device = "virtio-net-pci,disable-legacy=on".into();
    let mut qtest = Qtest::start(&options).unwrap();
    let mut platform = qtest.take_platform().unwrap();
    assert_eq!(platform.read_config(0), 0x1041_1af4);
    // A BAR of 64 bits takes the place of two.
    let registers = platform.map_bar(4).unwrap();
    assert!(platform.map_bar(5).is_err());
    // The common configuration is at its beginning: the second word is the device's features.
    assert!(![0, u32::MAX].contains(&registers.read(4)));
    assert!(platform.enable_interrupts(2).unwrap() == 2);
}

/// Set in the environment of the program that is killed in the next test.
const ORPHAN: &str = "PAGEWIRE_TEST_ORPHAN";

#[test]
fn qemu_ends_with_the_program() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    let Some(options) = options() else { return };
    if std::env::var_os(ORPHAN).is_some() {
        let qtest = Qtest::start(&options).unwrap();
        println!("\nqemu {}", qtest.process_id());
        std::thread::sleep(SOON);
        return;
    }
    let folder = std::env::temp_dir().join(format!("pagewire-orphan-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let mut program = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "qemu_ends_with_the_program", "--nocapture"])
        .env(ORPHAN, "yes")
        // What a killed program cannot remove goes with this folder.
        .env("TMPDIR", &folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(program.stdout.take().unwrap()).lines();
    let qemu = lines.find_map(|line| Some(line.unwrap().strip_prefix("qemu ")?.to_owned()));
    let qemu = std::path::PathBuf::from(format!("/proc/{}/exe", qemu.unwrap()));
    assert!(qemu.read_link().is_ok(), "QEMU runs");
    program.kill().unwrap();
    program.wait().unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    let start = RealInstant::now();
    // Of a process that has ended, but that nobody has waited for, the link cannot be read.
    while qemu.read_link().is_ok() {
        assert!(start.elapsed() < SOON, "QEMU goes on without the program");
        std::thread::sleep(Duration::from_millis(1));
    }
}
