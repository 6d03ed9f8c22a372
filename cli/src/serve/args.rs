//! The options of `pagewire serve`.

use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::time::Duration;

use crate::endpoint::{Link, parse_bytes, parse_seconds};

/// Options of `pagewire serve`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  sudo pagewire serve site --listen 10.0.0.2:80 --wire tap:pagewire0
      an 82599 in software on an interface of this machine: give that one an address of the same
      network, `ip addr add 10.0.0.1/24 dev pagewire0 && ip link set pagewire0 up`, and open
      http://10.0.0.2/
  pagewire serve site --listen 192.168.7.2:8080 --device 0000:03:00.0 --gateway 192.168.7.1
      a NIC of this machine, bound with `pagewire bind`
  pagewire serve site --listen 10.0.0.2:80 --wire tap:pagewire0 --json | jq .status
      a line for each request

GET and HEAD, one range of a file, If-Modified-Since and If-Range, keep-alive. A directory shows its
index.html. What symbolic links lead to outside of DIR is not served.

Files are not read, but mapped and lent to the NIC where they are (policy \"live file\"): who writes to a
file while it is sent changes what is sent. Only what cannot be locked in memory, by these limits or the
system's (ulimit -l), is read and copied, and counted as that.

It runs until Ctrl-C. Exit status: 1 the NIC failed, 2 it could not start, 130 ended by Ctrl-C.")]
pub(crate) struct Args {
    /// The directory whose files are served
    #[arg(value_name = "DIR")]
    pub(super) directory: PathBuf,
    /// The own address, which no interface of this machine has, and the port
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(super) listen: SocketAddrV4,
    #[command(flatten)]
    pub(super) link: Link,
    /// Connections at a time; others wait
    #[arg(long, value_name = "N", default_value_t = 256,
          value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(super) connections: u16,
    /// Bytes of files that one connection may have locked in memory (k, M, G)
    #[arg(long, value_name = "BYTES", default_value = "4M", value_parser = parse_bytes)]
    pub(super) limit: u64,
    /// Bytes of files that all connections may have locked in memory; a connection that finds no room in
    /// it gets copies
    #[arg(long, value_name = "BYTES", default_value = "64M", value_parser = parse_bytes)]
    pub(super) total_limit: u64,
    /// Seconds that a connection may hold a page; one that holds it longer is reset
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = parse_seconds)]
    pub(super) hold_timeout: Duration,
    /// Seconds that a connection may stay without a request, or take to say one
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = parse_seconds)]
    pub(super) idle_timeout: Duration,
    /// Print a JSON object for each request instead of a line, and one at start and end
    #[arg(long)]
    pub(super) json: bool,
}
