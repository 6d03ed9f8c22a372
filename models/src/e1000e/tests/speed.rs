//! How fast the model sends. A measurement, not a test of time.

use std::time::Instant;

use super::super::Latitude;
use super::rig::*;

/// Sends frames of 1514 bytes in three fragments with both checksums, and returns gigabytes a
/// second.
fn measure(latitude: Latitude, frames: u64) -> f64 {
    let mut rig = Rig::warm(1, latitude);
    rig.lanes.lock().unwrap().deaf = true;
    let mut frame = ip_frame(4, 6, &[0x5a; 1460]);
    seed_checksum(&mut frame, false);
    let place = rig.put(PAYLOAD, &frame);
    let start = Instant::now();
    let mut sent = 0;
    while sent < frames {
        let mut last = 0;
        for _ in 0..7 {
            rig.push(tcp_context());
            rig.push(data(place, 54, IFCS, IXSM | TXSM));
            rig.push(data(place + 54, 1000, IFCS, 0));
            last = rig.push(data(place + 1054, 460, LAST, 0));
        }
        sent += 7;
        rig.doorbell();
        rig.until_done(last);
    }
    rig.expect_clean();
    assert_eq!(rig.device.counters().frames_sent, sent);
    sent as f64 * 1514.0 / start.elapsed().as_secs_f64() / 1e9
}

/// Says how fast the model is: worth reading alone, with `--release -- --nocapture`. What it checks
/// is that all frames went.
#[test]
fn gigabytes_a_second() {
    for (name, latitude) in [
        ("no latitude", Latitude::none()),
        ("all latitudes", Latitude::default()),
    ] {
        let speed = measure(latitude, 20_000);
        println!("{name}: {speed:.2} GB/s");
        assert!(speed > 0.0);
    }
}
