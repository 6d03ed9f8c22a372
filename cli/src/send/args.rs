//! The options of `pagewire send`.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use pagewire::tcp::CopyRule;

use crate::endpoint::{Link, parse_bytes, parse_seconds};

/// Options of `pagewire send`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  sudo pagewire send movie.mkv --to 10.0.0.1:9000 --from 10.0.0.2 --wire tap:pagewire0
      to `nc -l 10.0.0.1 9000 > copy` on this machine, by an 82599 in software; before, make the
      interface: `ip tuntap add pagewire0 mode tap && ip addr add 10.0.0.1/24 dev pagewire0 && ip
      link set pagewire0 up`
  pagewire send a b c --to 192.168.7.1:9000 --from 192.168.7.2 --device 0000:03:00.0
      one behind the other, by a NIC of this machine, bound with `pagewire bind`
  sudo pagewire send movie.mkv --to 10.0.0.1:9000 --from 10.0.0.2 --wire tap:pagewire0 --explain
      says which way the bytes went, why, in how many pieces, and how long pages were held

Files are not read, but mapped and lent to the NIC where they are (policy \"live file\"): who writes to a
file while it is sent changes what is sent. Only what the system does not let be locked in memory is read
and copied, which --explain tells.

Exit status: 0 all has arrived, 1 it has not, 2 it could not start, 130 interrupted.")]
pub(crate) struct Args {
    /// Files to send, one behind the other on one connection
    #[arg(value_name = "FILE", required = true)]
    pub(super) files: Vec<PathBuf>,
    /// Where to
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(super) to: SocketAddrV4,
    /// The own address, which no interface of this machine has
    #[arg(long, value_name = "ADDRESS")]
    pub(super) from: Ipv4Addr,
    #[command(flatten)]
    pub(super) link: Link,
    /// Which bytes are copied instead of lent
    #[arg(long, value_enum, value_name = "WHICH", default_value_t = Copying::Short)]
    pub(super) copy: Copying,
    /// How many bytes in a row are too short to be lent (`--copy short`): what `pagewire bench sharing`
    /// calls the threshold of live files on this machine
    #[arg(long, value_name = "BYTES")]
    pub(super) share_min: Option<usize>,
    /// Bytes of files that may be locked in memory at a time (k, M, G)
    #[arg(long, value_name = "BYTES", default_value = "8M", value_parser = parse_bytes)]
    pub(super) limit: u64,
    /// Seconds that the receiver may take nothing
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = parse_seconds)]
    pub(super) timeout: Duration,
    /// Say of each file which way its bytes went, why, in how many pieces, and how long pages were
    /// held
    #[arg(long)]
    pub(super) explain: bool,
    /// Print the report as one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

/// Which bytes are copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum Copying {
    /// Those where lending costs more
    Short,
    /// Only what cannot be lent
    Never,
    /// All, for comparison: then the file is read
    All,
}

impl Copying {
    pub(super) const fn rule(self) -> CopyRule {
        match self {
            Self::Short => CopyRule::BelowThreshold,
            Self::Never => CopyRule::Never,
            Self::All => CopyRule::Always,
        }
    }
}
