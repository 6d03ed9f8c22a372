//! Waiting for the link of a real cable.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pagewire::hal::Nic;

use super::machine::Machine;
use super::world::World;
use crate::device::DeviceName;
use crate::error::Failure;

/// Two NICs take some seconds to agree on a speed, 10GBASE-T more than others.
const LONGEST: Duration = Duration::from_secs(20);
/// After so long the user is told what is waited for.
const SILENT: Duration = Duration::from_secs(2);
const INTERVAL: Duration = Duration::from_millis(20);

impl<M: Machine> World<M> {
    /// Waits until both ends of the cable see a link.
    pub(crate) fn await_link(
        &mut self,
        name: &DeviceName,
        interface: &str,
        stop: &AtomicBool,
    ) -> Result<(), Failure> {
        let start = Instant::now();
        let mut told = false;
        loop {
            let now = self.now();
            let phase = self.nic.poll(now);
            phase.map_err(|error| Failure::failed(format!("{name}: {error}")))?;
            let (near, far) = (self.nic.link().up, self.peer.has_link());
            if near && far {
                return Ok(());
            }
            if stop.load(Ordering::Relaxed) {
                return Err(Failure::interrupted());
            }
            if start.elapsed() > LONGEST {
                let name = name.to_string();
                return Err(Failure::usage(no_link((&name, near), (interface, far))));
            }
            if start.elapsed() > SILENT && !told {
                told = true;
                // Nobody may be reading.
                let _ = writeln!(
                    std::io::stderr(),
                    "pagewire: waiting for a link between {name} and {interface}, {} s at most",
                    LONGEST.as_secs()
                );
            }
            std::thread::sleep(INTERVAL);
        }
    }
}

/// Who of the two sees no link.
fn no_link((name, near): (&str, bool), (interface, far): (&str, bool)) -> String {
    let seconds = LONGEST.as_secs();
    let who = match (near, far) {
        (false, false) => format!("neither {name} nor {interface} sees one"),
        (false, true) => format!("{interface} sees one, {name} does not"),
        (true, _) => format!("{name} sees one, {interface} does not"),
    };
    format!("no link after {seconds} s: {who}. Is there a cable from {name} to {interface}?")
}

#[cfg(test)]
mod tests {
    use super::no_link;

    #[test]
    fn who_sees_no_link_is_said() {
        let text = |near, far| no_link(("0000:03:00.0", near), ("eth1", far));
        assert!(text(false, false).contains("neither 0000:03:00.0 nor eth1"));
        assert!(text(true, false).contains("0000:03:00.0 sees one, eth1 does not"));
        assert!(text(false, true).contains("eth1 sees one, 0000:03:00.0 does not"));
    }
}
