//! The Debian packages: what packaging/debian says, built by debhelper.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{RELEASES, anew, copy, copyright};
use crate::debian::Built;
use crate::{paths, run};

/// Version of the packaging.
const REVISION: &str = "1";

/// Builds both packages for a release, as `version`, into `to`.
pub fn build(built: &Built, version: &str, to: &Path) -> Result<Vec<PathBuf>> {
    let number = RELEASES.iter().find(|(name, _)| *name == built.name);
    let (_, number) =
        number.with_context(|| format!("there are no packages for {}", built.name))?;
    // The packages of a release are older than those of the next, which replace them when the
    // system moves on.
    let full = format!("{version}-{REVISION}~deb{number}");
    anew(to)?;
    let tree = to.join(format!("build/dmuc-{version}"));
    lay_out(built, version, &tree)?;
    let debian = tree.join("debian");
    enter(&debian, &full, &built.name)?;
    substitute(built, &debian)?;
    let (succeeded, said) = run::quietly(
        Command::new("dpkg-buildpackage")
            .args(["--build=any", "--no-check-builddeps", "--no-pre-clean", "--no-sign"])
            .env("DEB_BUILD_OPTIONS", "terse")
            .current_dir(&tree),
    )?;
    if !succeeded {
        bail!("dpkg-buildpackage in {}: {}", tree.display(), said.join("\n"));
    }
    let mut packages = Vec::new();
    for entry in fs::read_dir(to.join("build"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            let target = to.join(path.file_name().context("a file without name")?);
            fs::rename(&path, &target)?;
            packages.push(target);
        }
    }
    packages.sort();
    fs::remove_dir_all(to.join("build"))?;
    Ok(packages)
}

/// The source tree: debian, what was staged, and what goes into the documentation.
fn lay_out(built: &Built, version: &str, tree: &Path) -> Result<()> {
    let root = paths::root();
    copy([root.join("packaging/debian"), root.join("CHANGELOG.md")], tree)?;
    let stage = tree.join("stage");
    copy(["prosody", "lua"].map(|part| built.stage.join(part)), &stage)?;
    let app = stage.join(format!("erlang/mod_dmuc-{version}"));
    let staged = built.stage.join(format!("erlang/mod_dmuc-{}", super::VERSION));
    copy(["ebin", "priv"].map(|part| staged.join(part)), &app)?;
    copyright::append(&tree.join("debian/copyright"))
}

/// Writes the entry of this version and release before the others.
fn enter(debian: &Path, full: &str, release: &str) -> Result<()> {
    let path = debian.join("changelog");
    let old = fs::read_to_string(&path)?;
    let signature = old.lines().find(|line| line.starts_with(" -- ")).context("no signature")?;
    let (who, when) = signature.split_once(">  ").context("a signature without date")?;
    // Later than what it is built from, and the same each time.
    let mut date = Command::new("date");
    date.args(["--utc", "--rfc-email", &format!("--date={when} 1 minute")]);
    let when = run::output(date.env("LC_ALL", "C"))?;
    let entry = format!(
        "dmuc ({full}) {release}; urgency=medium\n\n  * Built for {release}.\n\n{who}>  {when}"
    );
    Ok(fs::write(path, format!("{entry}\n{old}"))?)
}

/// What the packages need of the release's own.
fn substitute(built: &Built, debian: &Path) -> Result<()> {
    let ejabberd = upstream(&built.version("ejabberd")?);
    let (year, month) = ejabberd.split_once('.').context("a strange version of ejabberd")?;
    let month: u32 = month.split('.').next().unwrap_or_default().parse()?;
    let erlang = built.version("erlang-base")?;
    let erlang = erlang.split('.').next().unwrap_or_default();
    // The modules know the records of the headers that they were compiled with, which may be others
    // in any later version; and what one Erlang has compiled, no older one loads.
    let depends = format!(
        "ejabberd:Depends=ejabberd (>= {ejabberd}), ejabberd (<< {year}.{:02}~), erlang-base (>= {erlang})\n",
        month + 1
    );
    fs::write(debian.join("ejabberd-mod-dmuc.depends"), depends)?;
    let prosody = fs::read_to_string(built.root.join("usr/bin/prosody"))?;
    let first = prosody.lines().next().unwrap_or_default();
    let lua = first.rsplit(['/', ' ']).next().unwrap_or_default();
    if lua != "lua5.4" {
        bail!("{}'s Prosody runs on {first:?}, and the library is for lua5.4", built.name);
    }
    let depends = format!("prosody:Depends=prosody (>= 0.12), {lua}\n");
    Ok(fs::write(debian.join("prosody-mod-dmuc.depends"), depends)?)
}

/// A version without Debian's revision.
fn upstream(version: &str) -> String {
    let version = version.split_once(':').map_or(version, |(_, rest)| rest);
    version.rsplit_once('-').map_or(version, |(upstream, _)| upstream).to_owned()
}

/// Has Debian's own checker look at packages: warnings count as errors.
pub fn lint(packages: &[PathBuf]) -> Result<()> {
    let mut lintian = Command::new("lintian");
    lintian.args(["--fail-on=error,warning", "--allow-root", "--tag-display-limit=0"]);
    run::must(lintian.args(packages))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstream_versions() {
        assert_eq!(upstream("23.01-1"), "23.01");
        assert_eq!(upstream("1:25.2.3+dfsg-1+deb12u4"), "25.2.3+dfsg");
        assert_eq!(upstream("0.1.0"), "0.1.0");
    }
}
