//! Which NICs there are, and how user space gets one: binding to vfio-pci, and back.
//!
//! [`list`] shows what sysfs and /proc say of every NIC, [`Verdict`] whether it can be bound and
//! why not, [`bind()`] and [`unbind`] change its driver. All of it is plain data; nothing is
//! printed.
//!
//! # What is promised
//! - **All or nothing.** A bind that fails half-way, or that is interrupted, gives the device back
//!   to the driver that it had, with the `driver_override` that it had. What a killed process left
//!   behind is finished by the next `bind` or taken back by the next [`unbind`].
//! - **No cut connection by accident.** An interface that is up with addresses or a default route,
//!   its own or those of a bridge, bond or VLAN above it, is refused, and so is one that is up below
//!   anything at all, unless told otherwise. (A macvlan or ipvlan that was moved into another
//!   network namespace is not seen: the kernel shows it there only.)
//! - **Nothing that the kernel will not open.** A device that shares its IOMMU group with one in
//!   use is refused, and so is one without an IOMMU: it could write all memory.
//!
//! # On what
//! Everything goes through [`System`]: [`Machine`] is the machine that we run on, [`Played`] a
//! made-up tree in a folder, with a kernel that is played.

mod binding;
mod change;
mod environment;
mod group;
mod holders;
mod interface;
mod memory;
mod name;
mod network;
mod nic;
mod outcome;
mod played;
mod refusal;
mod rtnetlink;
mod system;
mod text;
mod unbinding;
mod users;
mod verdict;

pub use binding::{BindOptions, bind};
pub use environment::{Environment, Module};
pub use group::{Companion, IommuGroup, Usage};
pub use holders::Holder;
pub use interface::{Interface, Link};
pub use name::{DeviceName, NameError};
pub use network::{Carried, Network};
pub use nic::{Driver, Function, Missing, Nic, Override, find, list};
pub use outcome::{Action, After, Bound, Problem, Reason, Step, Unbound};
pub use played::Played;
pub use refusal::Refusal;
pub use system::{Machine, System};
pub use unbinding::unbind;
pub use users::User;
pub use verdict::{LOCKED_MEMORY, Note, Verdict};
