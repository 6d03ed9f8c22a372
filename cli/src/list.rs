//! `pagewire list`: the NICs, and what can be done with them.

use pagewire::drivers::{KnownDevice, find, known};
use pagewire_vfio::bind::{
    Companion, Driver, Environment, Function, Interface, LOCKED_MEMORY, Link, Module, Network, Nic,
    System, Usage, Verdict, list,
};
use serde::Serialize;

use crate::error::Failure;
use crate::machine::{Common, DeviceFile, Reason, Remark};
use crate::model::Names;

/// Options of `pagewire list`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  pagewire list                      every NIC; needs no privileges
  pagewire list --json               the same for programs
  pagewire list --sysroot machine    of a made-up machine

For each NIC: its model, driver and interfaces, its IOMMU group and what shares it, whether it can be
bound and if not why, and whether Pagewire has a driver for it, with what that was tried on.
Routes and IPv6 addresses are read from /proc/net (route, if_inet6, ipv6_route), whose an IPv4
address is the kernel says (rtnetlink).

Exit status: 0, also if there is no NIC; 2 sysfs cannot be read.")]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
}

/// All of it, as JSON.
#[derive(Debug, Serialize)]
struct Report {
    machine: MachineReport,
    nics: Vec<NicReport>,
}

#[derive(Debug, Serialize)]
struct MachineReport {
    kernel: Option<String>,
    iommu: bool,
    /// `present`, `loadable`, `absent` or `unknown`.
    vfio_pci: &'static str,
    /// Whether we are root; null if that is not known.
    root: Option<bool>,
    /// Bytes that this process may lock; null without limit.
    locked_memory: Option<u64>,
}

#[derive(Debug, Serialize)]
struct NicReport {
    address: String,
    /// `8086:10d3`.
    ids: Option<String>,
    model: Option<String>,
    driver: Option<String>,
    interfaces: Vec<InterfaceReport>,
    iommu_group: Option<u32>,
    /// What else is in the group.
    group_shared_with: Vec<CompanionReport>,
    /// `alone`, `physical` or `virtual`.
    function: &'static str,
    virtual_functions: Option<u32>,
    virtual_function_of: Option<String>,
    /// How the kernel can reset it; null if it does not say.
    reset_methods: Option<Vec<String>>,
    /// Whether VFIO has it.
    bound: bool,
    device_files: Vec<DeviceFile>,
    /// Of one that is bound: whether it can be used as well; the notes say why not.
    can_be_bound: bool,
    refusals: Vec<Reason>,
    notes: Vec<Remark>,
    /// Pagewire's driver; null if there is none.
    pagewire: Option<Support>,
}

#[derive(Debug, Serialize)]
struct InterfaceReport {
    name: String,
    up: bool,
    /// `up`, `down` or `unknown`.
    link: &'static str,
    speed_mbps: Option<u32>,
    /// Its own addresses, and those of what is above it.
    addresses: Vec<String>,
    default_route: bool,
    /// Bridges, bonds and VLANs above it.
    above: Vec<String>,
}

#[derive(Debug, Serialize)]
struct CompanionReport {
    name: String,
    class: Option<String>,
    driver: Option<String>,
    /// `free`, `vfio`, `harmless` or `in use`.
    usage: &'static str,
}

#[derive(Debug, Serialize)]
struct Support {
    driver: &'static str,
    device: &'static str,
    /// On what it was tried; null if on nothing: then it is opened on request only.
    tried_on: Option<&'static str>,
}

/// Lists.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let system = args.common.machine()?;
    let nics = list(system.as_ref()).map_err(|error| {
        Failure::usage(format!(
            "cannot list /sys/bus/pci/devices: {error} (is sysfs mounted on /sys, and has the \
             machine PCI?)"
        ))
    })?;
    let report = Report::of(system.as_ref(), &nics);
    args.common.report(&report, || report.text())
}

impl Report {
    fn of(system: &dyn System, nics: &[Nic]) -> Self {
        let environment = Environment::read(system);
        let network = Network::read(system);
        let names = Names::read(system);
        let one = |nic| NicReport::of(system, nic, &environment, &network, &names);
        Self {
            nics: nics.iter().map(one).collect(),
            machine: MachineReport {
                iommu: environment.iommu,
                vfio_pci: match environment.vfio_pci {
                    Module::Present => "present",
                    Module::Loadable => "loadable",
                    Module::Absent => "absent",
                    Module::Unknown => "unknown",
                },
                root: environment.root,
                locked_memory: environment.locked_memory,
                kernel: environment.release,
            },
        }
    }

    fn text(&self) -> String {
        let mut lines = Vec::new();
        for nic in &self.nics {
            lines.extend(nic.lines());
            lines.push(String::new());
        }
        if self.nics.is_empty() {
            lines.push("There is no NIC on PCI (class 02).".into());
        }
        lines.push(self.machine.text());
        let mut mends: Vec<_> = self.nics.iter().flat_map(|nic| &nic.refusals).collect();
        mends.sort_by_key(|reason| reason.code());
        mends.dedup_by(|a, b| a.mend() == b.mend());
        let mends = mends
            .iter()
            .map(|reason| format!("  {}: {}", reason.code(), reason.mend()));
        let mends: Vec<_> = mends.collect();
        if !mends.is_empty() {
            lines.push("What helps:".into());
            lines.extend(mends);
        }
        lines.join("\n")
    }
}

impl MachineReport {
    fn text(&self) -> String {
        let mut parts = vec![
            format!(
                "Linux {}",
                self.kernel.as_deref().unwrap_or("of unknown release")
            ),
            format!("IOMMU {}", if self.iommu { "on" } else { "off or missing" }),
            format!("vfio-pci {}", self.vfio_pci),
        ];
        if self.root == Some(false) {
            parts.push("binding needs root".into());
            if let Some(bytes) = self.locked_memory.filter(|&bytes| bytes < LOCKED_MEMORY) {
                parts.push(format!("only {} KiB of memory may be locked", bytes >> 10));
            }
        }
        format!("This machine: {}.", parts.join(", "))
    }
}

impl NicReport {
    fn of(
        system: &dyn System,
        nic: &Nic,
        environment: &Environment,
        network: &Network,
        names: &Names,
    ) -> Self {
        let bound = nic.driver.is_vfio();
        let verdict = if bound {
            Verdict::of_bound(nic, environment, false)
        } else {
            Verdict::of(nic, environment, network)
        };
        let ids = nic.vendor.zip(nic.device);
        Self {
            address: nic.address.to_string(),
            ids: ids.map(|(vendor, device)| format!("{vendor:04x}:{device:04x}")),
            model: names.of(nic.vendor, nic.device),
            driver: match &nic.driver {
                Driver::Name(name) | Driver::Odd(name) => Some(name.clone()),
                Driver::None => None,
            },
            interfaces: nic.interfaces.iter().map(InterfaceReport::of).collect(),
            iommu_group: nic.group.number(),
            group_shared_with: nic.companions.iter().map(CompanionReport::of).collect(),
            function: match nic.function {
                Function::Alone => "alone",
                Function::Physical(_) => "physical",
                Function::Virtual(_) => "virtual",
            },
            virtual_functions: match nic.function {
                Function::Physical(number) => Some(number),
                Function::Alone | Function::Virtual(_) => None,
            },
            virtual_function_of: match nic.function {
                Function::Virtual(of) => of.map(|of| of.to_string()),
                Function::Alone | Function::Physical(_) => None,
            },
            reset_methods: nic.reset_methods.clone(),
            bound,
            device_files: DeviceFile::all(system, &nic.device_files(system)),
            can_be_bound: verdict.is_good(),
            refusals: verdict.refusals.iter().map(Reason::of).collect(),
            notes: verdict.notes.iter().map(Remark::of).collect(),
            pagewire: ids.and_then(|(vendor, device)| {
                let driver = find(vendor, device)?.name;
                Some(Support::of(driver, known(vendor, device)?))
            }),
        }
    }

    fn lines(&self) -> Vec<String> {
        let ids = self.ids.as_deref().unwrap_or("odd ids");
        let model = self
            .model
            .as_deref()
            .unwrap_or("a NIC that has no name here");
        let mut lines = vec![format!("{}  {model} ({ids})", self.address)];
        let mut row = |name: &str, value: String| lines.push(format!("  {name:<12} {value}"));
        row(
            "driver",
            self.driver.clone().unwrap_or_else(|| "none".into()),
        );
        for interface in &self.interfaces {
            row("interface", interface.text());
        }
        row("IOMMU group", self.group());
        match (&self.virtual_function_of, self.virtual_functions) {
            (Some(of), _) => row("function", format!("virtual, of {of}")),
            (None, Some(number)) if number > 0 => {
                row("function", format!("physical, with {number} virtual ones"));
            }
            _ => {}
        }
        if self.bound {
            row(
                "bound",
                format!(
                    "{}: {}",
                    if self.can_be_bound {
                        "yes"
                    } else {
                        "yes, of no use"
                    },
                    DeviceFile::text(&self.device_files)
                ),
            );
        } else if self.can_be_bound {
            row("can be bound", "yes".into());
        }
        for reason in &self.refusals {
            row("can be bound", format!("no: {}", reason.text()));
        }
        for note in &self.notes {
            row("note", note.text.clone());
        }
        row(
            "in Pagewire",
            match &self.pagewire {
                Some(support) => support.text(),
                None => "no driver".into(),
            },
        );
        lines
    }

    fn group(&self) -> String {
        let Some(number) = self.iommu_group else {
            return "none".into();
        };
        let with = &self.group_shared_with;
        if with.is_empty() {
            return format!("{number}, alone");
        }
        let with: Vec<_> = with.iter().map(CompanionReport::text).collect();
        format!("{number}, with {}", with.join(", "))
    }
}

impl InterfaceReport {
    fn of(interface: &Interface) -> Self {
        let all = interface.carries.iter();
        let (link, speed_mbps) = match interface.link {
            Link::Up(speed) => ("up", speed),
            Link::Down => ("down", None),
            Link::Unknown => ("unknown", None),
        };
        Self {
            name: interface.name.clone(),
            up: interface.up,
            link,
            speed_mbps,
            addresses: all
                .clone()
                .flat_map(|(_, carried)| {
                    let link_local = carried.link_local.iter().map(ToString::to_string);
                    let others = carried.addresses.iter().map(ToString::to_string);
                    others.chain(link_local)
                })
                .collect(),
            default_route: all.clone().any(|(_, carried)| carried.default_route),
            above: all.skip(1).map(|(name, _)| name.clone()).collect(),
        }
    }

    fn text(&self) -> String {
        let mut parts = vec![self.name.clone()];
        parts.push(if self.up { "up" } else { "down" }.into());
        match (self.link, self.speed_mbps) {
            ("up", Some(speed)) => parts.push(format!("link at {speed} Mb/s")),
            ("up", None) => parts.push("link".into()),
            ("down", _) => parts.push("no link".into()),
            _ => {}
        }
        if !self.above.is_empty() {
            parts.push(format!("below {}", self.above.join(", ")));
        }
        parts.extend(self.addresses.iter().cloned());
        if self.default_route {
            parts.push("default route".into());
        }
        parts.join(", ")
    }
}

impl CompanionReport {
    fn of(companion: &Companion) -> Self {
        Self {
            name: companion.name.clone(),
            class: companion.class.map(|class| format!("{:04x}", class >> 8)),
            driver: companion.driver.clone(),
            usage: match companion.usage {
                Usage::Free => "free",
                Usage::Vfio => "vfio",
                Usage::Harmless => "harmless",
                Usage::InUse => "in use",
            },
        }
    }

    fn text(&self) -> String {
        let class = self.class.as_deref().unwrap_or("unknown");
        let driver = self.driver.as_deref().unwrap_or("no driver");
        format!("{} (class {class}, {driver})", self.name)
    }
}

impl Support {
    fn of(driver: &'static str, known: &KnownDevice) -> Self {
        Self {
            driver,
            device: known.name,
            tried_on: known.tested_on,
        }
    }

    fn text(&self) -> String {
        match self.tried_on {
            Some(tried) => format!("driver {}, tried on: {tried}", self.driver),
            None => format!(
                "driver {}, tried on nothing: opened on request only",
                self.driver
            ),
        }
    }
}
