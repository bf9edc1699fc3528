//! What one server believes about names.
//!
//! Every server has a view of its own, because the wire to another server stands between
//! the two: for the one it *is* the other. ejabberd resolves addresses through the C
//! library and so through `/etc/hosts`; it asks a name server only for SRV records.
//! Prosody reads no `/etc/hosts` and asks a name server for everything. So a view is both:
//! a hosts file, and a dnsmasq that serves the same file and knows nothing else.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::Result;
use nix::sys::signal::Signal;
use tokio::process::Command;

use crate::process::Process;

/// The names that one server can resolve.
#[derive(Debug)]
pub struct View {
    dir: PathBuf,
    dnsmasq: Process,
}

impl View {
    /// Starts a name server on `address` that keeps its files in `dir`.
    pub fn start(
        dir: &Path,
        address: Ipv4Addr,
        names: &BTreeMap<String, Ipv4Addr>,
    ) -> Result<Self> {
        write(dir, names)?;
        std::fs::write(dir.join("resolv.conf"), format!("nameserver {address}\n"))?;
        let mut command = Command::new("dnsmasq");
        command
            // In the foreground and, what it would refuse in a user namespace, as who it is.
            .args(["--no-daemon", "--conf-file=/dev/null"])
            .args(["--no-resolv", "--no-hosts", "--bind-interfaces", "--local=/test/"])
            .args(["--local-ttl=1", "--log-facility=-", "--pid-file="])
            .arg(format!("--listen-address={address}"))
            .arg(format!("--addn-hosts={}", dir.join("hosts").display()));
        let dnsmasq = Process::spawn(command, &dir.join("dnsmasq.log"))?;
        Ok(Self { dir: dir.to_owned(), dnsmasq })
    }

    /// Replaces all names.
    pub fn set(&self, names: &BTreeMap<String, Ipv4Addr>) -> Result<()> {
        write(&self.dir, names)?;
        self.dnsmasq.signal(Signal::SIGHUP)
    }
}

/// Writes the hosts file in place: servers have it mounted, so it must stay the same file.
fn write(dir: &Path, names: &BTreeMap<String, Ipv4Addr>) -> Result<()> {
    let mut hosts = String::from("127.0.0.1 localhost\n");
    for (name, address) in names {
        writeln!(hosts, "{address} {name}")?;
    }
    Ok(std::fs::write(dir.join("hosts"), hosts)?)
}
