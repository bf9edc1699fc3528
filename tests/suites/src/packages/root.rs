//! A Debian of the suite's own, copied from that of the release.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// What servers write, and what dpkg and ldconfig leave of every package there ever was.
const NOT_LOOKED_AT: &[&str] = &[
    "./dev",
    "./proc",
    "./run",
    "./sys",
    "./tmp",
    "./mnt",
    "./etc/hosts",
    "./etc/resolv.conf",
    "./etc/ejabberd/*.pem",
    "./etc/prosody/*.pem",
    "./var/cache",
    "./var/log",
    "./var/lib/ejabberd",
    "./var/lib/prosody",
    "./var/lib/dpkg/*-old",
    "./var/lib/dpkg/triggers",
    "./var/lib/dpkg/lock*",
];

/// What makes the releases' roots smaller, and would keep the packages' documentation away.
const EXCLUSIONS: &str = "etc/dpkg/dpkg.cfg.d/99mmdebstrap";

/// Runs a program of the root, which finds a directory at `/mnt`.
const INSIDE: &str = r#"
root=$1 dir=$2; shift 2
for path in /proc /dev; do mount --rbind "$path" "$root$path" || exit; done
mount --bind "$dir" "$root/mnt" && exec chroot "$root" sh -c 'cd /mnt && exec "$@"' sh "$@"
"#;

/// The root of a Debian. It stays after a failure, with the servers' logs.
pub struct Root {
    path: PathBuf,
}

impl Root {
    /// Copies one.
    pub fn copy(from: &Path, name: &str) -> Result<Self> {
        let runs = std::env::var_os("DMUC_RUNS").context("no DMUC_RUNS")?;
        let path = Path::new(&runs).join(format!("packages-{name}-root"));
        std::fs::create_dir_all(&runs)?;
        run(Command::new("rm").args(["-rf", "--one-file-system"]).arg(&path))?;
        run(Command::new("cp").args(["-a", "--reflink=auto"]).arg(from).arg(&path))?;
        let root = Self { path };
        let exclusions = root.path.join(EXCLUSIONS);
        if exclusions.exists() {
            std::fs::remove_file(exclusions)?;
        }
        Ok(root)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes it.
    pub fn delete(self) -> Result<()> {
        Ok(std::fs::remove_dir_all(self.path)?)
    }

    /// Has its dpkg do something; `.` among the names stands for all packages in the directory.
    pub async fn dpkg(&self, what: &str, dir: &Path, names: &[&str]) -> Result<()> {
        let mut arguments = vec![what.to_owned()];
        for name in names {
            if *name == "." {
                for entry in std::fs::read_dir(dir)? {
                    arguments.push(entry?.file_name().to_string_lossy().into_owned());
                }
            } else {
                arguments.push((*name).to_owned());
            }
        }
        let mut command = tokio::process::Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "--", "sh", "-ec", INSIDE, "sh"]);
        command.args([&self.path, dir]).arg("dpkg").args(arguments);
        command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C.UTF-8");
        printed(&format!("{command:?}"), command.output().await?).map(drop)
    }

    /// Every file with its mode and owner, apart from what servers write.
    pub fn files(&self) -> Result<BTreeSet<String>> {
        let mut find = Command::new("find");
        find.arg(".").arg("-xdev");
        for path in NOT_LOOKED_AT {
            find.args(["-path", path, "-prune", "-o"]);
        }
        // A directory's time and size tell of what was there for a while.
        find.args(["-printf", "%p %M %U:%G %l\\n"]).current_dir(&self.path);
        Ok(run(&mut find)?.lines().map(str::to_owned).collect())
    }

    /// Fails unless the files are those of an earlier [`Root::files`], and dpkg knows no more of the
    /// packages.
    pub fn is_as(&self, before: &BTreeSet<String>) -> Result<()> {
        let after = self.files()?;
        let differ: Vec<&String> = before.symmetric_difference(&after).collect();
        ensure!(differ.is_empty(), "not as before: {differ:#?}");
        let status = std::fs::read_to_string(self.path.join("var/lib/dpkg/status"))?;
        ensure!(!status.contains("mod-dmuc"), "dpkg still knows the packages");
        Ok(())
    }

    /// Unpacks an archive into a directory, as files of a user's.
    pub fn unpack(&self, archive: &Path, dir: &str, user: &str) -> Result<()> {
        let to = self.path.join(dir);
        std::fs::create_dir_all(&to)?;
        run(Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(&to))?;
        let top = dir.split('/').take(4).collect::<Vec<_>>().join("/");
        run(Command::new("chroot").arg(&self.path).args(["chown", "-R", &format!("{user}:"), &top]))
            .map(drop)
    }

    /// Copies a file of its own to another place.
    pub fn copy_inside(&self, from: &str, to: &str) -> Result<()> {
        std::fs::copy(self.path.join(from), self.path.join(to))
            .with_context(|| format!("cannot copy {from} to {to}"))
            .map(drop)
    }

    /// Removes a file.
    pub fn remove(&self, file: &str) -> Result<()> {
        Ok(std::fs::remove_file(self.path.join(file))?)
    }

    /// Takes a file in; where it is inside.
    pub fn take(&self, file: &Path) -> Result<String> {
        let name = file.file_name().context("a file without name")?.to_string_lossy();
        std::fs::copy(file, self.path.join("srv").join(&*name))?;
        Ok(format!("/srv/{name}"))
    }

    /// The number of one of its users.
    pub fn uid(&self, user: &str) -> Result<u32> {
        let users = std::fs::read_to_string(self.path.join("etc/passwd"))?;
        let line = users.lines().find(|line| line.starts_with(&format!("{user}:")));
        Ok(line.and_then(|line| line.split(':').nth(2)).context("no such user")?.parse()?)
    }

    /// Whose the processes are that have mapped a file whose name ends so.
    pub fn owners_mapping(&self, file: &str) -> Result<Vec<u32>> {
        let mut owners = BTreeSet::new();
        for entry in std::fs::read_dir("/proc")? {
            let process = entry?.path();
            // It may have ended.
            let maps = std::fs::read_to_string(process.join("maps")).unwrap_or_default();
            if maps.lines().any(|line| line.ends_with(file)) {
                owners.insert(std::fs::metadata(process)?.uid());
            }
        }
        Ok(owners.into_iter().collect())
    }

    /// Where the release's ejabberd comes with an AppArmor profile, it allows to map the library.
    pub fn profile_allows(&self, library: &str) -> Result<()> {
        let Ok(profile) =
            std::fs::read_to_string(self.path.join("etc/apparmor.d/usr.sbin.ejabberdctl"))
        else {
            return Ok(());
        };
        let Some(rest) = library.strip_prefix("usr/lib/erlang/lib/") else { return Ok(()) };
        ensure!(rest.ends_with(".so"), "{rest}");
        let rule = |line: &str| {
            let mut words = line.split_whitespace();
            words.next() == Some("/usr/lib/erlang/lib/**.so")
                && words.next().is_some_and(|mode| mode.contains('m'))
        };
        ensure!(profile.lines().any(rule), "AppArmor does not let ejabberd map {library}");
        Ok(())
    }
}

/// Runs a program that must succeed; what it printed.
fn run(command: &mut Command) -> Result<String> {
    let done = command.output().with_context(|| format!("cannot run {command:?}"))?;
    printed(&format!("{command:?}"), done)
}

fn printed(command: &str, done: std::process::Output) -> Result<String> {
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        bail!("{command}: {}: {}{said}", done.status, String::from_utf8_lossy(&done.stdout));
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}
