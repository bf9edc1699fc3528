//! Running other programs.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, bail};

use crate::paths;

/// `cargo`, the same one that runs us, at the root of the workspace.
pub fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(paths::root());
    command
}

/// Runs a command that must succeed.
pub fn must(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
    if !status.success() {
        bail!("{}: {status}", name(command));
    }
    Ok(())
}

/// Runs a command that must succeed and gives back what it printed.
pub fn output(command: &mut Command) -> Result<String> {
    let done = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    if !done.status.success() {
        bail!("{}: {}", name(command), done.status);
    }
    Ok(String::from_utf8(done.stdout)?)
}

/// The beginning of a command line, enough to know it by.
fn name(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args()).take(5);
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Runs a command, shows what it prints, and gives that back with whether it succeeded.
pub fn tee(command: &mut Command) -> Result<(bool, Vec<String>)> {
    tee_as(command, str::to_owned)
}

/// The same, with each line of its standard output shown in another way.
pub fn tee_as(
    command: &mut Command,
    shown: impl Fn(&str) -> String,
) -> Result<(bool, Vec<String>)> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {command:?}"))?;
    let errors = child.stderr.take().context("no standard error")?;
    let errors = thread::spawn(move || show(errors, |line| eprintln!("{line}")));
    let output = child.stdout.take().context("no standard output")?;
    let mut lines = show(output, |line| println!("{}", shown(line)));
    lines.extend(errors.join().unwrap_or_default());
    Ok((child.wait()?.success(), lines))
}

fn show(from: impl Read, print: impl Fn(&str)) -> Vec<String> {
    let mut lines = Vec::new();
    for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).into_owned();
        print(&line);
        lines.push(line);
    }
    lines
}

/// Runs a command and gives back, without showing it, what it says on its standard error, with whether
/// it succeeded.
pub fn quietly(command: &mut Command) -> Result<(bool, Vec<String>)> {
    let done = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    let text = String::from_utf8_lossy(&done.stderr);
    Ok((done.status.success(), text.lines().map(str::to_owned).collect()))
}

/// Whether a program is installed.
pub fn exists(program: impl AsRef<OsStr>) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program.as_ref()).is_file())
}
