//! The rock for `prosodyctl install`.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::{VERSION, anew, copy, home, only, staged};
use crate::{paths, run};

/// Packs it, with the library built.
pub fn build() -> Result<PathBuf> {
    let stage = staged()?;
    let build = home().join("rock");
    anew(&build)?;
    let parts = ["prosody/mod_dmuc", "prosody/mod_http_dmuc", "lua/5.4/dmuc_native.so"];
    copy(parts.map(|part| stage.join(part)), &build)?;
    let mut modules = String::new();
    let mut names = fs::read_dir(build.join("mod_dmuc"))?.collect::<std::io::Result<Vec<_>>>()?;
    names.sort_by_key(std::fs::DirEntry::file_name);
    for entry in names {
        // Prosody looks for `module:require "part"` under both names, a rock can have one only.
        let file = entry.file_name().into_string().ok().context("a strange name")?;
        if let Some(part) = file.strip_suffix(".lib.lua") {
            writeln!(modules, "\t\t\t[\"mod_dmuc.{part}\"] = \"mod_dmuc/{file}\",")?;
        }
    }
    let spec = fs::read_to_string(paths::root().join("packaging/rock/mod_dmuc.rockspec"))?;
    let spec = spec.replace("@VERSION@", VERSION).replace("@MODULES@", modules.trim_end());
    let name = format!("mod_dmuc-{VERSION}-1.rockspec");
    fs::write(build.join(&name), spec)?;
    let mut luarocks = Command::new("luarocks");
    luarocks.args(["--lua-version=5.4", "make", "--pack-binary-rock", "--deps-mode=none"]);
    run::must(luarocks.arg(name).current_dir(&build).stdout(Stdio::null()))?;
    let rock = only(&build, ".rock")?;
    let file = home().join(rock.file_name().context("a rock without name")?);
    fs::rename(rock, &file)?;
    fs::remove_dir_all(build)?;
    Ok(file)
}
