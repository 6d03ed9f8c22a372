//! What the crate virtio-drivers spends on a frame, on a fake device: `peer time` by the clock, `peer count`
//! for callgrind, which collects in the functions `measured_…` alone and dumps after `case_over`. A line
//! of JSON for each case; "count" says how many frames callgrind has seen instead of a time.

mod device;

use std::time::{Duration, Instant};

use device::{Device, Identity, RING};
use virtio_drivers::queue::VirtQueue;

type Queue = VirtQueue<Identity, RING>;

/// The queue that transmits (virtio 1.2, 5.1.2).
const TRANSMIT: u16 = 1;
/// virtio's own header, which lies before the frame's in the same buffer.
const VIRTIO_HEADER: usize = 12;
const HEADER: usize = 66;
const PAYLOAD: usize = 1448;
const PAGE: usize = 4096;
const PAGES: usize = 256;
/// Frames in the table, those that are counted, those in a run by the clock, and runs.
const FRAMES: usize = 256;
const COUNTED: usize = 4 * FRAMES;
const TIMED: usize = 16 * FRAMES;
const RUNS: usize = 15;
const SHAPES: [usize; 6] = [0, 1, 2, 3, 4, 16];
/// Frames until the device does them: it is notified of each.
const BURST: usize = 32;

type Frame<'m> = Vec<&'m [u8]>;

/// A frame of a header and so many fragments, or of one buffer of random length.
fn draw<'m>(fragments: usize, memory: &'m [u8], random: &mut fastrand::Rng) -> Frame<'m> {
    let piece = |len: usize, random: &mut fastrand::Rng| {
        let start = random.usize(..PAGES) * PAGE + random.usize(..=PAGE - len);
        &memory[start..start + len]
    };
    let first = match fragments {
        0 => random.usize(HEADER..=HEADER + PAYLOAD),
        _ => HEADER,
    };
    let mut frame = vec![piece(VIRTIO_HEADER + first, random)];
    let mut left = PAYLOAD;
    for others in (0..fragments).rev() {
        let len = match others {
            0 => left,
            _ => random
                .usize(1..=2 * left / (others + 1) - 1)
                .min(left - others),
        };
        left -= len;
        frame.push(piece(len, random));
    }
    frame
}

/// As `VirtIONetRaw::transmit_begin` does it, whose frames have one buffer.
#[unsafe(no_mangle)]
#[inline(never)]
extern "Rust" fn measured_enqueue(
    queue: &mut Queue,
    device: &mut Device,
    frames: &[Frame<'_>],
    tokens: &mut [u16; BURST],
) -> bool {
    for (frame, token) in frames.iter().zip(tokens) {
        // SAFETY: the bytes are never written, and live longer than the queue.
        match unsafe { queue.add(frame, &mut []) } {
            Ok(added) => *token = added,
            Err(_) => return false,
        }
        if queue.should_notify() {
            virtio_drivers::transport::Transport::notify(device, TRANSMIT);
        }
    }
    true
}

/// As `VirtIONetRaw::transmit_complete` does it.
#[unsafe(no_mangle)]
#[inline(never)]
extern "Rust" fn measured_reclaim(
    queue: &mut Queue,
    frames: &[Frame<'_>],
    tokens: &[u16; BURST],
) -> bool {
    for (frame, token) in frames.iter().zip(tokens) {
        // SAFETY: they are the buffers that were added and got this token.
        if unsafe { queue.pop_used(*token, frame, &mut []) }.is_err() {
            return false;
        }
    }
    true
}

/// Tells callgrind that a case is over.
#[unsafe(no_mangle)]
#[inline(never)]
extern "Rust" fn case_over() {
    std::hint::black_box(());
}

/// What looking at the clock costs by itself.
fn clock_cost() -> Duration {
    let mut looks: Vec<Duration> = (0..10_000).map(|_| Instant::now().elapsed()).collect();
    looks.sort_unstable();
    looks[looks.len() / 2]
}

/// Sends frames of a table, in bursts, and says how long what is measured took.
fn send(
    queue: &mut Queue,
    device: &mut Device,
    table: &[Frame<'_>],
    count: usize,
    look: Duration,
) -> Duration {
    let mut tokens = [0; BURST];
    let mut sum = Duration::ZERO;
    for first in (0..count).step_by(BURST) {
        let first = first % FRAMES;
        let frames = &table[first..first + BURST];
        let begun = Instant::now();
        let taken = measured_enqueue(queue, device, frames, &mut tokens);
        sum += begun.elapsed().saturating_sub(look);
        device.complete();
        let begun = Instant::now();
        let done = measured_reclaim(queue, frames, &tokens);
        sum += begun.elapsed().saturating_sub(look);
        assert!(taken && done, "the queue has refused a frame");
    }
    sum
}

fn main() {
    let counting = match std::env::args().nth(1).as_deref() {
        Some("count") => true,
        Some("time") => false,
        _ => {
            eprintln!("peer: say \"time\" or \"count\"");
            std::process::exit(2);
        }
    };
    let memory: Box<[u8]> = vec![0; PAGES * PAGE].into();
    let look = clock_cost();
    for (name, indirect) in [("direct", false), ("indirect", true)] {
        for fragments in SHAPES {
            let mut random = fastrand::Rng::with_seed(0x5eed);
            let table: Vec<Frame<'_>> = (0..FRAMES)
                .map(|_| draw(fragments, &memory, &mut random))
                .collect();
            let mut device = Device::new();
            let queue = Queue::new(&mut device, TRANSMIT, indirect, false);
            let mut queue = Box::new(queue.expect("a queue"));
            send(&mut queue, &mut device, &table, 4 * RING, look);
            let shape = match fragments {
                0 => "1".to_owned(),
                more => format!("h+{more}"),
            };
            let kind = format!("virtio-split-{name}");
            print!(
                "{{\"case\": \"{kind}/virtio-drivers/{shape}/plain/{BURST}\", \"device\": \"{kind}\", \
                 \"layer\": \"virtio-drivers\", \"fragments\": {fragments}, \"asked\": \"plain\", \
                 \"burst\": {BURST}, "
            );
            if counting {
                case_over();
                send(&mut queue, &mut device, &table, COUNTED, look);
                case_over();
                println!("\"frames\": {COUNTED}}}");
                continue;
            }
            let mut runs: Vec<f64> = (0..RUNS)
                .map(|_| send(&mut queue, &mut device, &table, TIMED, look).as_nanos() as f64)
                .collect();
            runs.sort_unstable_by(f64::total_cmp);
            println!("\"nanoseconds\": {:.2}}}", runs[RUNS / 2] / TIMED as f64);
        }
    }
}
