//! Builds the module and lays it out as both servers want it.
//!
//! ```text
//! target/stage/erlang/mod_dmuc-VERSION/ebin/*.beam       ERL_LIBS=target/stage/erlang
//! target/stage/erlang/mod_dmuc-VERSION/priv/lib/mod_dmuc.so
//! target/stage/prosody/mod_dmuc/mod_dmuc.lua             plugin_paths
//! target/stage/prosody/mod_http_dmuc/mod_http_dmuc.lua
//! target/stage/lua/5.4/dmuc_native.so                    package.cpath
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{debian, paths, run};

/// Builds everything; where it is.
pub fn run() -> Result<PathBuf> {
    let stage = paths::stage();
    build(&stage, None)?;
    Ok(stage)
}

/// Builds everything into `stage`, with the Erlang and ejabberd of the Debian release in `root` or
/// this machine's. The libraries are the same: they need no more than the oldest release has.
pub fn build(stage: &Path, root: Option<&Path>) -> Result<()> {
    let app = stage.join(format!("erlang/mod_dmuc-{}", env!("CARGO_PKG_VERSION")));
    libraries(stage, "release", &[])?;
    erlang(&app, root)?;
    prosody(&stage.join("prosody"))?;
    eprintln!("stage: {}", stage.display());
    Ok(())
}

/// Builds the libraries again with a feature that is for tests only, next to everything else of
/// the stage, into `stage-FEATURE` beside it. Once in a run: suites at the same time may use it.
pub fn variant(stage: &Path, feature: &str) -> Result<()> {
    static BUILT: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
    let variant = stage.with_file_name(format!("stage-{feature}"));
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    if built.contains(&variant) {
        return Ok(());
    }
    if variant.exists() {
        fs::remove_dir_all(&variant)?;
    }
    run::must(Command::new("cp").arg("-r").arg(stage).arg(&variant))?;
    libraries(&variant, "suites", &["--features", feature])?;
    built.push(variant);
    Ok(())
}

/// Builds the libraries and the Prosody module, which are the same for all releases.
pub fn release_libraries(stage: &Path) -> Result<()> {
    libraries(stage, "release", &[])?;
    prosody(&stage.join("prosody"))
}

fn libraries(stage: &Path, profile: &str, options: &[&str]) -> Result<()> {
    let app = format!("erlang/mod_dmuc-{}", env!("CARGO_PKG_VERSION"));
    let nif = library("dmuc-nif", profile, options)?;
    place(&nif, &stage.join(app).join("priv/lib/mod_dmuc.so"))?;
    let lua = library("dmuc-lua", profile, options)?;
    place(&lua, &stage.join("lua/5.4/dmuc_native.so"))
}

/// Builds a shared library; cargo says where it has put it.
fn library(package: &str, profile: &str, options: &[&str]) -> Result<PathBuf> {
    let arguments = [
        ["build", "--quiet", "--message-format=json-render-diagnostics"].as_slice(),
        &["--profile", profile, "--package", package],
        options,
    ]
    .concat();
    let messages = run::output(&mut run::cargo(&arguments))?;
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["reason"] == "compiler-artifact")
        .filter(|message| {
            let id = message["package_id"].as_str().unwrap_or_default();
            id.contains("/native/")
                && message["target"]["crate_types"].to_string().contains("cdylib")
        })
        .filter_map(|message| {
            let files = message["filenames"].as_array()?.clone();
            files.iter().filter_map(Value::as_str).find(|f| f.ends_with(".so")).map(PathBuf::from)
        })
        .next_back()
        .with_context(|| format!("{package} builds no shared library"))
}

/// Copies a file under a new name and renames it: a server may have the old one open.
fn place(from: &Path, to: &Path) -> Result<()> {
    let dir = to.parent().context("a file without directory")?;
    fs::create_dir_all(dir)?;
    let draft = to.with_extension("new");
    fs::copy(from, &draft).with_context(|| format!("cannot copy {from:?} to {draft:?}"))?;
    fs::rename(&draft, to).with_context(|| format!("cannot write {to:?}"))
}

/// Compiles the Erlang modules.
fn erlang(app: &Path, root: Option<&Path>) -> Result<()> {
    let ebin = app.join("ebin");
    fs::create_dir_all(&ebin)?;
    for entry in fs::read_dir(&ebin)? {
        fs::remove_file(entry?.path())?;
    }
    compile_erlang("src", &ebin, &[], root)?;
    for entry in fs::read_dir(paths::root().join("erlang/src"))? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(".app.src") {
            place(&path, &ebin.join(path.file_stem().context("a file without name")?))?;
        }
    }
    Ok(())
}

/// Runs `erlc` over all modules of a directory below `erlang`, with the headers of everything that
/// ejabberd brings; both of the Debian release in `root`, or this machine's.
pub fn compile_erlang(
    source: &str,
    ebin: &Path,
    options: &[&str],
    root: Option<&Path>,
) -> Result<()> {
    let ours = paths::root().join("erlang");
    let tool = |program: &str| match root {
        Some(root) => debian::inside(root, &ours, ebin, program),
        None => Command::new(program),
    };
    // Where these are for the compiler.
    let (erlang, output) =
        if root.is_some() { (Path::new("/srv"), Path::new("/mnt")) } else { (&*ours, ebin) };
    let dir = ours.join(source);
    let mut modules = Vec::new();
    for entry in fs::read_dir(&dir).with_context(|| format!("cannot read {dir:?}"))? {
        let name = PathBuf::from(entry?.file_name());
        if name.extension().is_some_and(|extension| extension == "erl") {
            modules.push(erlang.join(source).join(name));
        }
    }
    if modules.is_empty() {
        bail!("no Erlang module in {}", dir.display());
    }
    modules.sort();
    let libs = multiarch(root)?;
    // Debian spreads the libraries over several places; Erlang knows them all.
    let known = run::output(
        tool("erl")
            .args([
                "-noshell",
                "-eval",
                "[io:format(\"~ts~n\", [D]) || D <- code:get_path()], halt().",
            ])
            .env("ERL_LIBS", &libs),
    )?;
    let mut erlc = tool("erlc");
    erlc.env("ERL_LIBS", &libs).arg("+debug_info").args(options).arg("-o").arg(output);
    erlc.arg("-I").arg(erlang.join("src"));
    // ejabberd's logger.hrl has to win over Erlang's own.
    let (first, rest): (Vec<_>, Vec<_>) =
        known.lines().map(Path::new).partition(|path| path.starts_with(&libs));
    for path in first.into_iter().chain(rest) {
        let include = path.join("../include");
        if below(root, &include).is_dir() {
            erlc.arg("-I").arg(include);
        }
    }
    run::must(erlc.args(modules))
}

/// A path of the release in `root` as it is outside.
fn below(root: Option<&Path>, path: &Path) -> PathBuf {
    match root {
        Some(root) => root.join(path.strip_prefix("/").unwrap_or(path)),
        None => path.to_owned(),
    }
}

/// `/usr/lib/<triplet>`, where Debian keeps ejabberd; in the release in `root`, or this machine's.
pub fn multiarch(root: Option<&Path>) -> Result<PathBuf> {
    let lib = Path::new("/usr/lib");
    for entry in fs::read_dir(below(root, lib))? {
        let entry = entry?;
        let Ok(inside) = fs::read_dir(entry.path()) else { continue };
        let ours = |name: &str| name.starts_with("ejabberd-");
        if inside.flatten().any(|e| e.file_name().to_str().is_some_and(ours)) {
            return Ok(lib.join(entry.file_name()));
        }
    }
    bail!("ejabberd is not installed: cargo xtask setup")
}

/// Copies the Prosody modules with all their files.
fn prosody(to: &Path) -> Result<()> {
    for module in ["mod_dmuc", "mod_http_dmuc"] {
        let to = to.join(module);
        if to.exists() {
            fs::remove_dir_all(&to)?;
        }
        copy_lua(&paths::root().join("lua").join(module), &to)?;
    }
    Ok(())
}

fn copy_lua(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {from:?}"))? {
        let entry = entry?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            let tests = path.file_name().is_some_and(|name| name == "spec" || name == "test");
            if !tests {
                copy_lua(&path, &target)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "lua") {
            place(&path, &target)?;
        }
    }
    Ok(())
}
