//! The layout of ejabberd's contributed modules, for `ejabberdctl module_install`.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::{VERSION, anew, copy, home, staged};
use crate::{paths, run};

/// Packs it: the modules as source, since they want the headers of the ejabberd that they are for; the
/// library built, and its source too.
pub fn build() -> Result<PathBuf> {
    let (root, stage) = (paths::root(), staged()?);
    let build = home().join("contrib");
    anew(&build)?;
    let module = build.join("mod_dmuc");
    let parts = ["mod_dmuc.spec", "README.txt", "conf", "c_src"];
    copy(parts.map(|part| root.join("packaging/contrib").join(part)), &module)?;
    copy([root.join("LICENSE"), root.join("erlang/src")], &module)?;
    let library = format!("erlang/mod_dmuc-{VERSION}/priv");
    copy([stage.join(library)], &module)?;
    let native = module.join("c_src");
    copy([root.join("Cargo.lock")], &native)?;
    for part in ["core", "nif"] {
        let from = root.join("native").join(part);
        // The benchmarks are named in the manifest.
        let parts = ["Cargo.toml", "src", "benches"].map(|part| from.join(part));
        copy(parts.iter().filter(|path| path.exists()), &native.join("native").join(part))?;
    }
    fs::write(native.join("Cargo.toml"), manifest(&fs::read_to_string(root.join("Cargo.toml"))?)?)?;
    let system = format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH);
    let file = home().join(format!("mod_dmuc-{VERSION}-contrib-{system}.tar.gz"));
    let mut tar = Command::new("tar");
    tar.args(["--sort=name", "--owner=root:0", "--group=root:0"]);
    run::must(tar.arg("-czf").arg(&file).arg("-C").arg(&build).arg("mod_dmuc"))?;
    fs::remove_dir_all(build)?;
    Ok(file)
}

/// The workspace with those members only that are in the package.
fn manifest(text: &str) -> Result<String> {
    let members = "members = [\"native/core\", \"native/nif\"]";
    let line = text.lines().find(|line| line.starts_with("members = ")).context("no members")?;
    Ok(text.replacen(line, members, 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members() {
        let text = "[workspace]\nmembers = [\"a\", \"b\"]\ndefault-members = [\"a\"]\n";
        let expected = "[workspace]\nmembers = [\"native/core\", \"native/nif\"]\n\
                        default-members = [\"a\"]\n";
        assert_eq!(manifest(text).ok().as_deref(), Some(expected));
        assert!(manifest("[workspace]\n").is_err());
    }
}
