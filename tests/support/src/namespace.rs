//! The private network, mount and process namespace that a laboratory runs in.
//!
//! The test binary does not enter it by itself: whoever starts it (`cargo xtask`) wraps
//! it with [`enter`]. Inside, every server has a loopback address of its own and uses
//! the standard ports, and nothing can reach or be reached from the outside. The process
//! namespace sees to it that no server outlives the test binary, however that ends.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

/// Set inside the namespace, so that a laboratory refuses to start outside of one.
pub const MARK: &str = "DMUC_NAMESPACE";

/// A command that runs `program` in a fresh namespace; add arguments and environment as
/// to any other command. Without root rights a user namespace gives the needed ones.
pub fn enter(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("unshare");
    if !is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command
        .args(["--net", "--mount", "--propagation", "private"])
        .args(["--pid", "--fork", "--kill-child", "--mount-proc"])
        // The shell stays as process 1: it takes in orphans, and its end ends them all.
        .args(["--", "sh", "-c", "ip link set lo up && \"$@\"; exit $?", "sh"])
        .arg(program)
        .env(MARK, "1");
    command
}

/// Fails, with advice, when this process was not started through [`enter`].
pub fn check() -> Result<()> {
    if std::env::var_os(MARK).is_none() {
        bail!("servers are started only in a private namespace: run this through `cargo xtask`");
    }
    if !Path::new("/proc/self/ns/net").exists() {
        bail!("this system has no network namespaces");
    }
    Ok(())
}

/// Whether this process has the rights to make namespaces directly.
pub fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}
