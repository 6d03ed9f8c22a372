//! The document.

use std::fmt::Write as _;

use super::plot::SHAPES;
use super::rows::Figures;

/// The bounds that are aimed at, for a header and one fragment and a header and four.
const BOUNDS: [(&str, &str, f64, f64); 4] = [
    ("ixgbe", "ixgbe/dpdk-full", 175.0, 330.0),
    ("e1000e", "e1000e/dpdk-full", 175.0, 330.0),
    (
        "virtio-split-indirect",
        "virtio-split-indirect/dpdk",
        200.0,
        360.0,
    ),
    (
        "virtio-packed-indirect",
        "virtio-packed-direct/dpdk",
        190.0,
        350.0,
    ),
];

const DRIVERS: [&str; 6] = [
    "ixgbe",
    "e1000e",
    "virtio-split-direct",
    "virtio-split-indirect",
    "virtio-packed-direct",
    "virtio-packed-indirect",
];

pub(super) fn document(figures: &Figures, picture: &str) -> String {
    let mut text = String::from(include_str!("head.md"));
    frames(&mut text, figures, picture);
    sender(&mut text, figures);
    copy(&mut text, figures);
    memory(&mut text, figures);
    kernel(&mut text, figures);
    text.push_str(include_str!("tail.md"));
    text
}

/// A line; a `String` takes everything.
fn line(text: &mut String, what: std::fmt::Arguments<'_>) {
    let _ = text.write_fmt(what);
    text.push('\n');
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "–".into(), |value| format!("{value:.digits$}"))
}

fn frames(text: &mut String, figures: &Figures, picture: &str) {
    if !figures.has("frames") {
        return;
    }
    text.push_str("\n## Instructions per frame\n\nBurst of 32, IPv4 and TCP checksum by the device (virtio: TCP).\n\n");
    text.push_str("| device | layer | 1 segment | header + 1 | + 2 | + 3 | + 4 | + 16 |\n");
    text.push_str("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n");
    for driver in DRIVERS {
        for layer in ["raw", "port"] {
            let mut row = format!("| {driver} | {layer} |");
            for shape in SHAPES.map(|(shape, _)| shape).into_iter().chain(["h+16"]) {
                let case = format!("{driver}/{layer}/{shape}/checksum/32");
                let _ = write!(
                    row,
                    " {} |",
                    number(figures.get("frames", &case, "total"), 0)
                );
            }
            line(text, format_args!("{row}"));
        }
    }
    line(
        text,
        format_args!("\n![Instructions per frame against fragments]({picture})"),
    );
    text.push_str("\n### Against the aim, and against DPDK\n\n");
    text.push_str("Header + 1 and header + 4, through the safe layer. Times are of one run, as ratios to DPDK's full path.\n\n");
    text.push_str("| device | instructions | aim | DPDK | time, to DPDK's |\n| --- | ---: | ---: | ---: | ---: |\n");
    for (driver, peer, one, four) in BOUNDS {
        let ours = |shape: &str| {
            let case = format!("{driver}/port/{shape}/checksum/32");
            number(figures.get("frames", &case, "total"), 0)
        };
        let theirs = |shape: &str, what: &str, digits| {
            let case = format!("{peer}/{shape}/checksum/32");
            number(figures.get("compare", &case, what), digits)
        };
        let (peer_cost, ratio) = ("instructions.peer", "nanoseconds.ratio");
        line(
            text,
            format_args!(
                "| {driver} | {} / {} | {one} / {four} | {} / {} | {} / {} |",
                ours("h+1"),
                ours("h+4"),
                theirs("h+1", peer_cost, 0),
                theirs("h+4", peer_cost, 0),
                theirs("h+1", ratio, 2),
                theirs("h+4", ratio, 2),
            ),
        );
    }
    text.push_str(include_str!("frames.md"));
}

fn sender(text: &mut String, figures: &Figures) {
    if !figures.has("sender") && !figures.has("sender-time") {
        return;
    }
    text.push_str(include_str!("sender.md"));
    text.push_str("| case | instructions | ns | of an ACK | ns | s/GB |\n| --- | ---: | ---: | ---: | ---: | ---: |\n");
    let file = if figures.has("sender") {
        "sender"
    } else {
        "sender-time"
    };
    for case in figures.cases(file).filter(|case| !case.ends_with("/cold")) {
        let counted = |what| number(figures.get("sender", case, what), 0);
        let timed = |what, digits| number(figures.get("sender-time", case, what), digits);
        line(
            text,
            format_args!(
                "| {case} | {} | {} | {} | {} | {} |",
                counted("total"),
                timed("total", 1),
                counted("ack"),
                timed("ack", 1),
                timed("seconds_per_gigabyte", 4),
            ),
        );
    }
}

fn copy(text: &mut String, figures: &Figures) {
    if !figures.has("copy-time") {
        return;
    }
    text.push_str("\n## Copying and summing\n\nNanoseconds: `memcpy`, the same and then a sum, both in one pass, and sums alone; `-portable` is without vectors.\n\n| case | ns |\n| --- | ---: |\n");
    for case in figures.cases("copy-time") {
        line(
            text,
            format_args!(
                "| {case} | {} |",
                number(figures.get("copy-time", case, "cost"), 1)
            ),
        );
    }
}

fn memory(text: &mut String, figures: &Figures) {
    if !figures.has("memory") {
        return;
    }
    let one = |what| figures.get("memory", "", what);
    let hundredths = one("segment_hundredths").map(|value| value / 100.0);
    text.push_str("\n## Memory\n\n");
    line(
        text,
        format_args!(
            "A connection takes {} bytes with two segments in flight and {} with 64 (with what lists keep in \
         reserve), a segment in flight more {}. Rings of 1,024 descriptors each way, in bytes:\n",
            number(one("connection.0"), 0),
            number(one("connection.1"), 0),
            number(hundredths, 0),
        ),
    );
    text.push_str("| driver | for the device, receive buffers included | the driver's own | a port's buffers |\n| --- | ---: | ---: | ---: |\n");
    for driver in DRIVERS {
        let part = |what| number(figures.get("memory", driver, what), 0);
        line(
            text,
            format_args!(
                "| {driver} | {} | {} | {} |",
                part("device"),
                part("slots"),
                part("port")
            ),
        );
    }
}

fn kernel(text: &mut String, figures: &Figures) {
    if figures.has("veth") {
        text.push_str("\n## Linux over veth\n\nCPU seconds per GB of the sending process, 64 KiB a call unless named; the receiver's work is in it (`benches/peers/README.md`).\n\n| case | user | system |\n| --- | ---: | ---: |\n");
        for case in figures.cases("veth") {
            let part = |what| number(figures.get("veth", case, what), 3);
            line(
                text,
                format_args!(
                    "| {case} | {} | {} |",
                    part("user_seconds_per_gb"),
                    part("system_seconds_per_gb")
                ),
            );
        }
    }
    if figures.has("guest") {
        text.push_str("\n## Linux's sender and ours on one NIC\n\nIn a guest of QEMU, on its e1000e, instructions per MiB: driver, interrupts and the receiving of ACKs included. Ours has no TSO there. Not run by `benches/run`: the figures are of the last `benches/peers/guest/run`.\n\n| case | program | kernel | both |\n| --- | ---: | ---: | ---: |\n");
        for case in figures.cases("guest") {
            let part = |what| number(figures.get("guest", case, what), 0);
            line(
                text,
                format_args!(
                    "| {case} | {} | {} | {} |",
                    part("user"),
                    part("kernel"),
                    part("instructions")
                ),
            );
        }
    }
}
