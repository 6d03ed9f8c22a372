//! What a frame costs through `AnyNic` and through the driver itself: instructions, counted by
//! valgrind's callgrind in `post` and `reclaim` alone. On the models; the doorbell is left out,
//! as that is the model's work here.
//!
//! ```text
//! cargo build -p pagewire-drivers --release --example any_cost
//! for nic in e1000e any-e1000e ixgbe any-ixgbe virtio any-virtio; do
//!     valgrind --tool=callgrind --callgrind-out-file=/dev/null \
//!         '--toggle-collect=*measured*' target/release/examples/any_cost $nic
//! done
//! ```
//!
//! The program prints the number of frames, callgrind the instructions ("Collected").

use std::error::Error;
use std::hint::black_box;
use std::time::Duration;

use pagewire_drivers::{AnyNic, Config};
use pagewire_e1000e::E1000e;
use pagewire_hal::{DmaMemory, Fragment, Nic, NicError, Offload, Phase, Token, TxFrame, TxQueue};
use pagewire_ixgbe::Ixgbe;
use pagewire_models::host::Attached;
use pagewire_models::wire::{PairEnd, pair};
use pagewire_models::{Device, Host, HostConfig, ModelPlatform, Wire, e1000e, ixgbe, virtio};
use pagewire_virtio::VirtioNet;

/// Frames between two doorbells.
const BATCH: u32 = 32;
const BATCHES: u32 = 256;
/// Pieces of a frame: a header and two pages.
const PIECES: [u32; 3] = [66, 900, 548];

fn main() -> Result<(), Box<dyn Error>> {
    let nic = std::env::args().nth(1).unwrap_or_default();
    let host = Host::new(HostConfig::default());
    let (near, far) = pair();
    let config = Config::default();
    match nic.as_str() {
        "e1000e" => run(intel(&host, near), far, |at| {
            E1000e::open(at, &config.for_e1000e())
        }),
        "any-e1000e" => run(intel(&host, near), far, |at| AnyNic::open(at, &config)),
        "ixgbe" => run(ten_gigabit(&host, near), far, |at| {
            Ixgbe::open(at, &config.for_ixgbe())
        }),
        "any-ixgbe" => run(ten_gigabit(&host, near), far, |at| {
            AnyNic::open(at, &config)
        }),
        "virtio" => run(paravirtual(&host, near), far, |at| {
            VirtioNet::open(at, &config.for_virtio())
        }),
        "any-virtio" => run(paravirtual(&host, near), far, |at| {
            AnyNic::open(at, &config)
        }),
        _ => Err("one of e1000e, any-e1000e, ixgbe, any-ixgbe, virtio, any-virtio".into()),
    }
}

fn intel(host: &Host, wire: PairEnd) -> Attached<e1000e::E1000e82574> {
    let config = e1000e::ModelConfig {
        latitude: e1000e::Latitude::none(),
        ..Default::default()
    };
    host.attach(e1000e::E1000e82574::new(config, Box::new(wire)))
}

fn ten_gigabit(host: &Host, wire: PairEnd) -> Attached<ixgbe::Ixgbe82599> {
    let config = ixgbe::ModelConfig {
        latitude: ixgbe::Latitude::none(),
        ..Default::default()
    };
    host.attach(ixgbe::Ixgbe82599::new(config, Box::new(wire)))
}

fn paravirtual(host: &Host, wire: PairEnd) -> Attached<virtio::VirtioNet> {
    let config = virtio::ModelConfig {
        latitude: virtio::Latitude::none(),
        ..Default::default()
    };
    host.attach(virtio::VirtioNet::new(config, Box::new(wire)))
}

/// Sends [`BATCHES`] of [`BATCH`] frames.
fn run<D: Device, N: Nic>(
    device: Attached<D>,
    mut far: PairEnd,
    open: impl FnOnce(ModelPlatform) -> Result<N, NicError>,
) -> Result<(), Box<dyn Error>> {
    let handle = device.handle;
    let host = handle.host().clone();
    let step = || {
        handle.step();
        host.advance(Duration::from_micros(10));
    };
    let mut nic = open(device.platform)?;
    while !matches!(nic.poll(host.now())?, Phase::Running(link) if link.up) {
        step();
    }
    let (mut tx, _rx) = nic.take_queues(0).ok_or("no queues")?;
    let memory = nic.allocate(4096, 4096)?;
    let head_room = u64::from(nic.capabilities().head_room);
    let mut at = head_room;
    let fragments = PIECES.map(|len| {
        let address = memory.address().offset(at);
        at += u64::from(len);
        Fragment { address, len }
    });
    // SAFETY: the head room ends well inside the memory.
    let first = unsafe { memory.pointer().byte_add(head_room as usize) };
    let frame = TxFrame {
        fragments: &fragments,
        offload: Offload::NONE,
        first: Some(first),
    };
    let (mut sent, mut back, mut arrived) = (0, 0, 0);
    let mut received = Vec::new();
    for _ in 0..BATCHES {
        // SAFETY: the memory is neither changed nor freed below.
        sent += unsafe { post_measured(&mut tx, &frame)? };
        tx.doorbell();
        while arrived < sent {
            step();
            while far.receive(&mut received, host.now()) {
                arrived += 1;
            }
        }
        // What was sent is then reported as done.
        (0..100).for_each(|_| step());
        while back < sent {
            let count = reclaim_measured(&mut tx)?;
            if count == 0 {
                return Err("the device does not report what it has sent".into());
            }
            back += count;
        }
    }
    println!("{}: {back} frames", nic.name());
    // The device may reach it for as long as the program runs.
    std::mem::forget(memory);
    Ok(())
}

/// # Safety
/// As for [`TxQueue::post`].
#[inline(never)]
unsafe fn post_measured<Q: TxQueue>(
    queue: &mut Q,
    frame: &TxFrame<'_>,
) -> Result<usize, Box<dyn Error>> {
    for number in 0..BATCH {
        // SAFETY: the caller vouches for the memory.
        unsafe { queue.post(black_box(frame), Token(number)) }?;
    }
    Ok(BATCH as usize)
}

#[inline(never)]
fn reclaim_measured<Q: TxQueue>(queue: &mut Q) -> Result<usize, Box<dyn Error>> {
    Ok(queue.reclaim(&mut |token| {
        black_box(token);
    })?)
}
