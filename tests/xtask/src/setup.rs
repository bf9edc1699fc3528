//! The Debian packages that the tests use, and installing them without side effects.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::run;

/// Every package and what it is for.
const PACKAGES: &[(&str, &str)] = &[
    ("ejabberd", "one of the two servers"),
    ("prosody", "the other server"),
    ("lua-sec", "TLS in Prosody"),
    ("lua-unbound", "DNS in Prosody, as Debian recommends it"),
    ("erlang-dev", "headers of Erlang, to compile the ejabberd module"),
    ("lua5.4", "the Lua that Prosody runs on, to try the Lua library by itself"),
    ("lua-check", "the linter for Lua"),
    ("lua-busted", "runs the specs of the Lua module"),
    ("dnsmasq-base", "names for Prosody, which reads no /etc/hosts"),
    ("iproute2", "the loopback interface of the private network"),
    ("util-linux", "unshare and nsenter, the private network itself"),
    ("chromium", "draws dmuc's page"),
    ("gcc", "the linker, and the C in the TLS library of the tests"),
    ("g++", "libFuzzer, which is C++"),
    ("libc6-dev", "what the linker links"),
    ("mmdebstrap", "other Debian releases with other versions of the servers"),
    ("dpkg-dev", "builds the Debian packages"),
    ("debhelper", "what goes where in a Debian package"),
    ("lintian", "looks for mistakes in Debian packages"),
    ("luarocks", "builds the rock for Prosody"),
    ("liblua5.4-dev", "headers that luarocks wants to see, though it compiles nothing"),
];

/// What Debian's packages ask before they start a service.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Installs what is missing.
pub fn run() -> Result<()> {
    let missing: Vec<_> = PACKAGES.iter().filter(|(name, _)| !installed(name)).collect();
    if missing.is_empty() {
        eprintln!("setup: all {} packages are installed", PACKAGES.len());
        return Ok(());
    }
    eprintln!("setup: missing Debian packages:");
    for (name, reason) in &missing {
        eprintln!("  {name:14} {reason}");
    }
    if !run::exists("apt-get") {
        bail!("these are packages of Debian, and there is no apt-get here to install them with");
    }
    let names: Vec<&str> = missing.iter().map(|(name, _)| *name).collect();
    let policy = Policy::deny()?;
    let outcome = apt(&["update", "-q"]).and_then(|()| {
        apt(&[&["install", "-y", "-q", "--no-install-recommends"], names.as_slice()].concat())
    });
    policy.remove()?;
    outcome
}

fn installed(package: &str) -> bool {
    let status = Command::new("dpkg-query")
        .args(["--show", "--showformat=${db:Status-Status}", package])
        .stderr(Stdio::null())
        .output();
    status.is_ok_and(|out| out.stdout == b"installed")
}

fn apt(arguments: &[&str]) -> Result<()> {
    let all = [&["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"], arguments].concat();
    run::must(&mut root(&all))
}

/// A command with the rights of root.
fn root(arguments: &[&str]) -> Command {
    let (first, rest) =
        if is_root() { (arguments[0], &arguments[1..]) } else { ("sudo", arguments) };
    let mut command = Command::new(first);
    command.args(rest);
    command
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// Keeps the packages from starting their servers, which nobody asked for. An
/// administrator's own policy stays as it is.
struct Policy {
    ours: bool,
}

impl Policy {
    fn deny() -> Result<Self> {
        if Path::new(POLICY).exists() {
            return Ok(Self { ours: false });
        }
        let draft = std::env::temp_dir().join(format!("policy-rc.d-{}", std::process::id()));
        fs::write(&draft, "#!/bin/sh\nexit 101\n")?;
        fs::set_permissions(&draft, fs::Permissions::from_mode(0o755))?;
        let source = draft.to_str().context("an odd temporary directory")?;
        run::must(&mut root(&["install", "-m", "755", source, POLICY]))?;
        fs::remove_file(draft)?;
        Ok(Self { ours: true })
    }

    fn remove(self) -> Result<()> {
        match self.ours {
            true => run::must(&mut root(&["rm", "-f", POLICY])),
            false => Ok(()),
        }
    }
}
