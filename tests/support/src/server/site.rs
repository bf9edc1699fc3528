//! Where a server lives: its address, its files, and the mounts that it sees.

use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tokio::process::Command;

/// Mounts the server's view of names and, for another release, what it needs from this
/// machine; then becomes the server, so that the process id stays the same.
const ENTER: &str = r#"
set -e
root=$1 dir=$2 short=$3 stage=$4 owner=$5; shift 5
if [ -n "$owner" ]; then
    for path in /proc /dev; do
        mount --rbind "$path" "$root$path"
    done
elif [ -n "$root" ]; then
    # What is above the directories of one run, which would otherwise pile up in the root.
    for path in /proc /dev "${short%/*}" "${dir%/*/*}" ${stage:+"$stage"}; do
        mkdir -p "$root$path"
        mount --rbind "$path" "$root$path"
    done
fi
for file in hosts resolv.conf; do
    [ -e "$root/etc/$file" ] || : > "$root/etc/$file"
    mount --bind "$dir/$file" "$root/etc/$file"
done
if [ -n "$owner" ]; then
    # As much of the unit's sandbox as needs no systemd: ProtectSystem=full, PrivateTmp=true.
    for path in /usr /etc; do
        mount --rbind "$root$path" "$root$path"
        mount -o remount,bind,ro "$root$path"
    done
    mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
    chroot "$root" install -d -o "$owner" -g "$owner" "/run/$owner"
    exec chroot --userspec="$owner:$owner" "$root" "$@"
fi
if [ -n "$root" ]; then exec chroot "$root" "$@"; else exec "$@"; fi
"#;

/// The place of one server in the laboratory.
#[derive(Clone, Debug)]
pub struct Site {
    /// The loopback address that it listens on and connects from.
    pub address: Ipv4Addr,
    /// A name for its Erlang node or socket that no other server of the process has.
    pub label: String,
    /// The same for all nodes of a cluster, and no other server's.
    pub cluster: String,
    /// Its configuration, data and logs.
    pub dir: PathBuf,
    /// A directory with a short path, for sockets.
    pub short: PathBuf,
    /// The root of its Debian release, if that is not this machine's.
    pub sysroot: Option<PathBuf>,
    /// Where dmuc has been built.
    pub stage: Option<PathBuf>,
    /// The user and the name that the server's package has given it, if it is started as that does.
    pub owner: Option<&'static str>,
}

impl Site {
    /// A command that becomes `program` inside the server's own mounts.
    pub fn enter(&self, program: &str) -> Command {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "private", "--", "sh", "-c", ENTER, "sh"])
            .arg(self.sysroot.as_deref().unwrap_or(Path::new("")))
            .args([&self.dir, &self.short])
            .arg(self.stage.as_deref().unwrap_or(Path::new("")))
            .arg(self.owner.unwrap_or_default())
            .arg(program)
            .current_dir(&self.dir);
        if self.sysroot.is_some() {
            command.current_dir("/");
        }
        if let Some(owner) = self.owner {
            command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("USER", owner);
            command.env("HOME", self.state(""));
        }
        command
    }

    /// Where the server has a file of its configuration.
    pub fn conf(&self, name: &str) -> PathBuf {
        self.own("/etc", name)
    }

    /// Where it has a file of its data.
    pub fn state(&self, name: &str) -> PathBuf {
        self.own("/var/lib", name)
    }

    /// Where it has a log file.
    pub fn log(&self, name: &str) -> PathBuf {
        self.own("/var/log", name)
    }

    fn own(&self, parent: &str, name: &str) -> PathBuf {
        match self.owner {
            Some(owner) => Path::new(parent).join(owner).join(name),
            None => self.dir.join(name),
        }
    }

    /// Where a file of the server's is for us.
    pub fn outside(&self, path: &Path) -> PathBuf {
        match (&self.sysroot, self.owner) {
            (Some(root), Some(_)) => root.join(path.strip_prefix("/").unwrap_or(path)),
            _ => path.to_owned(),
        }
    }

    /// Puts a file from our directory where the server has its configuration, for it to read.
    pub fn hand_over(&self, name: &str) -> Result<()> {
        let Some(_) = self.owner else { return Ok(()) };
        let to = self.outside(&self.conf(name));
        std::fs::copy(self.dir.join(name), &to).with_context(|| format!("cannot write {to:?}"))?;
        let state = std::fs::metadata(self.outside(&self.state("")))?;
        Ok(std::os::unix::fs::chown(to, None, Some(state.gid()))?)
    }

    /// A command that runs `program` next to the running server `pid`, in its mounts.
    pub fn beside(&self, pid: u32, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg("--mount").arg("--target").arg(pid.to_string()).arg("--");
        if let Some(root) = &self.sysroot {
            command.arg("chroot").arg(root);
        }
        command.arg(program);
        command
    }

    /// The one directory below the release's root that matches `parent/prefix*`.
    pub fn find(&self, parent: &str, prefix: &str) -> Result<PathBuf> {
        let root = self.sysroot.as_deref().unwrap_or(Path::new("/"));
        let inside = Path::new(parent);
        let real = root.join(inside.strip_prefix("/").unwrap_or(inside));
        for entry in std::fs::read_dir(&real).with_context(|| format!("cannot read {real:?}"))? {
            let name = entry?.file_name();
            if name.to_string_lossy().starts_with(prefix) {
                return Ok(inside.join(name));
            }
        }
        anyhow::bail!("nothing named {prefix}* in {real:?}")
    }

    /// `/usr/lib/<triplet>` of the release, where Debian keeps what depends on the machine.
    pub fn multiarch(&self) -> Result<PathBuf> {
        let linux = format!("{}-linux-", std::env::consts::ARCH);
        let linux = match std::env::consts::ARCH {
            "x86" => "i386-linux-",
            "arm" => "arm-linux-",
            _ => linux.as_str(),
        };
        self.find("/usr/lib", linux)
    }
}
