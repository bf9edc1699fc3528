//! Servers of other Debian releases than this machine's, and the module built for them.
//!
//! ```text
//! target/debian/trixie/root       the release, as far as the servers need it
//! target/debian/trixie/recipe     how it was made; another recipe makes it anew
//! target/debian/trixie/stage      like target/stage, compiled by the release's own Erlang
//! ```

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::{namespace, package, paths, run, stage};

/// What a release's root holds besides what every Debian has.
const PACKAGES: &str = "ejabberd,prosody,lua-sec,lua-unbound,erlang-dev,luarocks";

/// What makes it smaller; and testing may be older than it says it may get.
const OPTIONS: &[&str] = &[
    "--variant=essential",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    "--aptopt=Acquire::Check-Valid-Until \"false\"",
];

/// The keys that releases are signed with; each release's are in the one before it, too.
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// apt's own downloader, which knows this machine's proxy and mirror.
const HELPER: &str = "/usr/lib/apt/apt-helper";

/// Which releases the servers are of, by code name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Releases {
    primary: String,
    replica: String,
}

impl FromStr for Releases {
    type Err = anyhow::Error;

    fn from_str(names: &str) -> Result<Self> {
        let (primary, replica) = names.split_once(',').unwrap_or((names, names));
        for name in [primary, replica] {
            if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_lowercase()) {
                bail!("{name:?} is no code name of a Debian release");
            }
        }
        Ok(Self { primary: primary.to_owned(), replica: replica.to_owned() })
    }
}

impl std::fmt::Display for Releases {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.primary)?;
        if self.replica != self.primary { write!(f, ",{}", self.replica) } else { Ok(()) }
    }
}

/// Where the servers of one end and the module for them are.
#[derive(Clone, Debug)]
pub struct Place {
    root: Option<PathBuf>,
    stage: PathBuf,
}

/// Both ends.
#[derive(Clone, Debug)]
pub struct Places {
    /// What the output calls them; this machine's release has no name.
    pub label: Option<String>,
    primary: Place,
    replica: Place,
}

impl Places {
    /// This machine's own packages.
    pub fn host() -> Result<Self> {
        let place = Place { root: None, stage: stage::run()? };
        Ok(Self { label: None, primary: place.clone(), replica: place })
    }

    /// What `--debian` asks for, or this machine's own.
    pub fn of(releases: Option<&Releases>) -> Result<Self> {
        let Some(releases) = releases else { return Self::host() };
        let primary = place(&releases.primary)?;
        let replica = match releases.replica == releases.primary {
            true => primary.clone(),
            false => place(&releases.replica)?,
        };
        Ok(Self { label: Some(releases.to_string()), primary, replica })
    }

    /// Code names of the releases to try packages on, each once.
    pub fn names(&self) -> Result<Vec<String>> {
        let Some(label) = &self.label else { return Ok(vec![package::usual(&own()?)?]) };
        Ok(label.split(',').map(str::to_owned).collect())
    }

    /// The stages, each once.
    pub fn stages(&self) -> Vec<&Path> {
        let mut stages = vec![self.primary.stage.as_path(), &self.replica.stage];
        stages.dedup();
        stages
    }

    /// Tells the test kit where everything is: `$DMUC_STAGE` is the primary's, `$DMUC_DEBIAN` is
    /// `root:stage,root:stage` of primary and replica, with no root for this machine's.
    pub fn tell<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let text = |place: &Place| {
            let root = place.root.as_deref().unwrap_or(Path::new(""));
            format!("{}:{}", root.display(), place.stage.display())
        };
        command
            .env("DMUC_STAGE", &self.primary.stage)
            .env("DMUC_DEBIAN", format!("{},{}", text(&self.primary), text(&self.replica)))
    }
}

/// The servers of a release and the module for them, made if need be.
fn place(name: &str) -> Result<Place> {
    if name == own()? {
        return Ok(Place { root: None, stage: stage::run()? });
    }
    let root = root(name)?;
    let stage = home(name).join("stage");
    stage::build(&stage, Some(&root))?;
    Ok(Place { root: Some(root), stage })
}

/// A release with the module built for it in its own root, also where it is this machine's.
pub struct Built {
    /// Its code name.
    pub name: String,
    /// The release, as far as the servers need it.
    pub root: PathBuf,
    /// The module.
    pub stage: PathBuf,
}

impl Built {
    /// The version of a package that the release has.
    pub fn version(&self, package: &str) -> Result<String> {
        let status = self.root.join("var/lib/dpkg");
        let mut query = Command::new("dpkg-query");
        query.arg("--admindir").arg(status).args(["--show", "--showformat=${Version}", package]);
        run::output(&mut query)
    }
}

/// A release, made if need be, and the module built for it into `stage`.
pub fn built(name: &str, stage: PathBuf) -> Result<Built> {
    let root = root(name)?;
    stage::build(&stage, Some(&root))?;
    Ok(Built { name: name.to_owned(), root, stage })
}

/// The code name of this machine's release.
fn own() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release").context("which system is this?")?;
    let name = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    Ok(name.context("this system has no code name")?.trim_matches('"').to_owned())
}

/// Whether it is this machine's release.
pub fn is_own(name: &str) -> bool {
    own().is_ok_and(|own| own == name)
}

fn home(name: &str) -> PathBuf {
    paths::target().join("debian").join(name)
}

/// Whether the release is here or can be fetched; no mirror carries all of them for ever.
pub fn available(name: &str) -> bool {
    home(name).join("recipe").exists() || mirror().is_ok_and(|mirror| carries(&mirror, name))
}

fn carries(mirror: &str, name: &str) -> bool {
    let draft = std::env::temp_dir().join(format!("dmuc-release-{}", std::process::id()));
    let status = Command::new(HELPER)
        .args(["download-file", &format!("{mirror}dists/{name}/InRelease")])
        .arg(&draft)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    // It may not be there; nobody needs it either way.
    let _ = fs::remove_file(draft);
    status.is_ok_and(|status| status.success())
}

/// Where this machine gets Debian from.
fn mirror() -> Result<String> {
    let own = own()?;
    let format = "$(RELEASE) $(ORIGIN) $(REPO_URI)";
    let printed = run::output(Command::new("apt-get").args([
        "indextargets",
        "--format",
        format,
        "Created-By: Packages",
        "Component: main",
    ]))?;
    let sources: Vec<Vec<&str>> = printed
        .lines()
        .map(|line| line.split(' ').collect())
        .filter(|l: &Vec<_>| l.len() == 3)
        .collect();
    let ours = sources.iter().find(|source| source[0] == own);
    let debian = || sources.iter().find(|source| source[1] == "Debian");
    let source = ours.or_else(debian).context("apt knows no source of Debian's packages")?;
    Ok(source[2].to_owned())
}

/// The root of a release, made if it is not there or was made in another way.
fn root(name: &str) -> Result<PathBuf> {
    let home = home(name);
    fs::create_dir_all(&home)?;
    // Two runs at a time make it once.
    let lock = File::create(home.join("lock"))?;
    lock.lock()?;
    let (root, stamp) = (home.join("root"), home.join("recipe"));
    let recipe = format!("{PACKAGES}\n{}\n", OPTIONS.join("\n"));
    if fs::read_to_string(&stamp).is_ok_and(|made| made == recipe) {
        eprintln!("debian: {name}: {}, from {}", versions(&root)?, root.display());
        return Ok(root);
    }
    let mirror = mirror()?;
    if !carries(&mirror, name) {
        bail!("{mirror}, where this machine gets Debian from, has no {name}");
    }
    eprintln!("debian: {name}: installing {PACKAGES} from {mirror} into {}", root.display());
    let begin = Instant::now();
    for old in [&stamp, &root] {
        remove(old)?;
    }
    let draft = home.join("draft");
    remove(&draft)?;
    install(name, &mirror, &draft)?;
    fs::rename(&draft, &root)?;
    fs::write(&stamp, recipe)?;
    eprintln!("debian: {name}: {} ({} s)", versions(&root)?, begin.elapsed().as_secs());
    Ok(root)
}

fn remove(path: &Path) -> Result<()> {
    let removed = match path.is_dir() {
        true => fs::remove_dir_all(path),
        false if path.exists() => fs::remove_file(path),
        false => Ok(()),
    };
    removed.with_context(|| format!("cannot remove {}", path.display()))
}

fn install(name: &str, mirror: &str, root: &Path) -> Result<()> {
    let source = format!("deb [signed-by={KEYS}] {mirror} {name} main");
    let mut mmdebstrap = Command::new("mmdebstrap");
    mmdebstrap.arg("--quiet").args(OPTIONS).arg(format!("--include={PACKAGES}")).arg(name);
    if namespace::is_root() {
        return run::must(mmdebstrap.arg(root).arg(source));
    }
    // Its files would belong to users who are nobody in the tests' namespace.
    let archive = root.with_extension("tar");
    run::must(mmdebstrap.arg(&archive).arg(source))?;
    fs::create_dir_all(root)?;
    run::must(
        Command::new("tar").args(["--exclude=./dev/*", "-xf"]).arg(&archive).arg("-C").arg(root),
    )?;
    Ok(fs::remove_file(archive)?)
}

/// Which versions of the servers a root holds.
fn versions(root: &Path) -> Result<String> {
    let printed = run::output(
        Command::new("dpkg-query").arg("--admindir").arg(root.join("var/lib/dpkg")).args([
            "--show",
            "--showformat=${Package} ${Version}, ",
            "ejabberd",
            "prosody",
        ]),
    )?;
    Ok(printed.trim_end_matches(", ").to_owned())
}

/// Runs a program of the release on directories that it finds at `/srv` and `/mnt`.
const INSIDE: &str = r#"
root=$1; shift
for path in /proc /dev; do mount --rbind "$path" "$root$path" || exit; done
mount --bind "$1" "$root/srv" && mount --bind "$2" "$root/mnt" || exit
shift 2
exec chroot "$root" "$@"
"#;

/// A program of the release in `root`, which finds the two directories at `/srv` and `/mnt`.
pub fn inside(root: &Path, srv: &Path, mnt: &Path, program: &str) -> Command {
    let mut command = Command::new("unshare");
    if !namespace::is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command
        .args(["--mount", "--propagation", "private", "--", "sh", "-c", INSIDE, "sh"])
        .args([root, srv, mnt])
        .arg(program)
        .current_dir("/");
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_release_or_two() {
        let read = |text: &str| text.parse::<Releases>().ok().map(|r| (r.to_string(), r.primary));
        let both = |text: &str, primary: &str| Some((text.to_owned(), primary.to_owned()));
        assert_eq!(read("trixie"), both("trixie", "trixie"));
        assert_eq!(read("forky,trixie"), both("forky,trixie", "forky"));
        assert_eq!(read("trixie,trixie"), both("trixie", "trixie"));
        for wrong in ["", "a,", ",a", "a,b,c", "../x", "-x"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
