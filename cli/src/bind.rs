//! `pagewire bind`: a NIC goes from its kernel driver to user space.

use pagewire::drivers::known;
use pagewire_vfio::bind::{BindOptions, Bound, DeviceName, Network, Nic, Problem, System, User};
use serde::Serialize;

use crate::error::Failure;
use crate::machine::{Common, DeviceFile, Remark, command, watch_for_ctrl_c};

/// Options of `pagewire bind`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  pagewire list                                    which NICs there are, and which can be bound
  sudo pagewire bind 0000:03:00.0                  by its PCI address
  sudo pagewire bind eth1 --user $USER             by its interface; you may open it then
  sudo pagewire bind eth1 --force                  although it is up, with an address
  pagewire bind 03:00.0 --sysroot machine --json   on a made-up machine

Its interface goes away, and with it every connection through it. What is refused: an interface
that is up with an address (a link-local one that Linux gave it does not count), or that carries
the default route, itself or below a bridge, bond or VLAN, or that is up below anything else, such
as Open vSwitch (--force overrides); a device without an
IOMMU, or in an IOMMU group with one that the kernel uses (nothing overrides). If a step fails, or
on Ctrl-C, the device goes back to the driver it had. That driver is remembered in /run/pagewire
until `pagewire unbind`, or a reboot, which undoes the binding as well.

Exit status: 0 bound, or it was already; 1 a step failed, and the device was put back; 2 refused, and
nothing was changed; 130 interrupted, and the device was put back.")]
pub(crate) struct Args {
    /// The NIC: its PCI address (0000:03:00.0, or 03:00.0) or its interface (eth1)
    #[arg(value_name = "DEVICE")]
    device: DeviceName,
    /// Bind it although its interface is in use: every connection through it is cut
    #[arg(long)]
    force: bool,
    /// Give its device files to this user, by name or number [default: root keeps them]
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    #[command(flatten)]
    common: Common,
}

/// What was done, as JSON.
#[derive(Debug, Serialize)]
struct Report {
    address: String,
    driver: &'static str,
    changed: bool,
    /// The driver that it had; null if it had none, or if that is not known.
    previous_driver: Option<String>,
    iommu_group: Option<u32>,
    device_files: Vec<DeviceFile>,
    /// Pagewire's own driver for it.
    pagewire_driver: Option<&'static str>,
    steps: Vec<String>,
    notes: Vec<Remark>,
}

/// Binds.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let interrupted = watch_for_ctrl_c()?;
    let mut system = args.common.machine()?;
    let options = options(system.as_ref(), args).map_err(|problem| args.common.failed(&problem))?;
    let bound = pagewire_vfio::bind::bind(system.as_mut(), &args.device, &options, &interrupted)
        .map_err(|problem| args.common.failed(&problem))?;
    let report = Report::of(system.as_ref(), &bound);
    args.common.report(&report, || report.text(args))
}

fn options(system: &dyn System, args: &Args) -> Result<BindOptions, Problem> {
    let find =
        |name: &String| User::find(system, name).ok_or_else(|| Problem::NoSuchUser(name.clone()));
    Ok(BindOptions {
        force: args.force,
        user: args.user.as_ref().map(find).transpose()?,
    })
}

impl Report {
    fn of(system: &dyn System, bound: &Bound) -> Self {
        let nic = Nic::read(system, bound.address, &Network::default());
        let ids = nic.and_then(|nic| Some((nic.vendor?, nic.device?)));
        Self {
            address: bound.address.to_string(),
            driver: "vfio-pci",
            changed: bound.changed,
            previous_driver: bound.previous.clone(),
            iommu_group: bound.group.number(),
            device_files: DeviceFile::all(system, &bound.files),
            pagewire_driver: ids.and_then(|(vendor, device)| Some(known(vendor, device)?.name)),
            steps: bound.steps.iter().map(ToString::to_string).collect(),
            notes: bound.notes.iter().map(Remark::of).collect(),
        }
    }

    fn text(&self, args: &Args) -> String {
        let Self { address, .. } = self;
        let mut lines = vec![match (&self.previous_driver, self.changed) {
            (Some(driver), true) => format!("{address} is bound to vfio-pci; it had {driver}"),
            (None, true) => format!("{address} is bound to vfio-pci"),
            (_, false) => format!("{address} was bound to vfio-pci already; nothing was changed"),
        }];
        lines.extend(self.steps.iter().map(|step| format!("  done: {step}")));
        lines.push(format!(
            "  device files: {}",
            DeviceFile::text(&self.device_files)
        ));
        if self.device_files.iter().all(|file| file.owner == Some(0)) {
            lines.push("  only root can open it: --user USER gives it to somebody else".into());
        }
        lines.push(match self.pagewire_driver {
            Some(name) => format!("  Pagewire drives it as {name}"),
            None => "  Pagewire has no driver for it; other programs may".into(),
        });
        lines.extend(
            self.notes
                .iter()
                .map(|note| format!("  note: {}", note.text)),
        );
        let back = command(&args.common, &format!("unbind {address}"));
        lines.push(format!("  back again: {back}"));
        lines.join("\n")
    }
}
