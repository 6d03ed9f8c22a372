//! `pagewire unbind`: a NIC goes back to its kernel driver.

use pagewire_vfio::bind::{DeviceName, Unbound};
use serde::Serialize;

use crate::error::Failure;
use crate::machine::{Common, watch_for_ctrl_c};

/// Options of `pagewire unbind`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  sudo pagewire unbind 0000:03:00.0                     to the driver that it had
  pagewire unbind 0000:03:00.0 --sysroot machine --json on a made-up machine

`bind` remembered the driver; its module is loaded if it has gone. Where nothing is remembered (the
device was bound by something else) the kernel chooses by the device's ids. A device that another
driver has is left to it. A device that a process has open is refused: the kernel would wait for it
without end. Also finishes a `bind` that was killed.

Exit status: 0 given back, or it was not bound; 1 a step failed, and it is said where the device is;
2 refused, and nothing was changed; 130 interrupted, and it is bound as before.")]
pub(crate) struct Args {
    /// The NIC: its PCI address (0000:03:00.0, or 03:00.0); it has no interface while it is bound
    #[arg(value_name = "DEVICE")]
    device: DeviceName,
    #[command(flatten)]
    common: Common,
}

/// What was done, as JSON.
#[derive(Debug, Serialize)]
struct Report {
    address: String,
    driver: Option<String>,
    changed: bool,
    /// Whether the driver that it had was known; if not, the kernel chose.
    remembered: bool,
    steps: Vec<String>,
}

/// Unbinds.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let interrupted = watch_for_ctrl_c()?;
    let mut system = args.common.machine()?;
    let unbound = pagewire_vfio::bind::unbind(system.as_mut(), &args.device, &interrupted)
        .map_err(|problem| args.common.failed(&problem))?;
    let report = Report::of(&unbound);
    args.common.report(&report, || report.text())
}

impl Report {
    fn of(unbound: &Unbound) -> Self {
        Self {
            address: unbound.address.to_string(),
            driver: unbound.driver.clone(),
            changed: unbound.changed,
            remembered: unbound.remembered,
            steps: unbound.steps.iter().map(ToString::to_string).collect(),
        }
    }

    fn text(&self) -> String {
        let Self { address, .. } = self;
        let mut lines = vec![match (&self.driver, self.changed, self.remembered) {
            (Some(driver), false, _) => {
                format!("{address} is not bound to vfio-pci: {driver} has it; nothing was changed")
            }
            (Some(driver), true, true) => format!("{address} is back with {driver}"),
            (Some(driver), true, false) => {
                format!("{address} is with {driver}, by the kernel's choice")
            }
            (None, _, true) => format!("{address} has no driver, as before it was bound"),
            (None, _, false) => {
                format!("{address} has no driver: it had none, and the kernel knows none for it")
            }
        }];
        lines.extend(self.steps.iter().map(|step| format!("  done: {step}")));
        lines.join("\n")
    }
}
