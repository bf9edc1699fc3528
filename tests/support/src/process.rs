//! A process that a laboratory started, and what can be done to it.

use std::fs::OpenOptions;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// A child process; dropping it kills it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pid: u32,
}

impl Process {
    /// Starts `command` with its output appended to `log`.
    pub fn spawn(mut command: Command, log: &Path) -> Result<Self> {
        let output = OpenOptions::new().create(true).append(true).open(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        let pid = child.id().context("the process ended at once")?;
        Ok(Self { child, pid })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.pid.cast_signed()), signal)
            .with_context(|| format!("cannot send {signal} to process {}", self.pid))
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits for its end.
    pub async fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        Ok(timeout(limit, self.child.wait())
            .await
            .map_err(|_| anyhow!("process {} still runs after {limit:?}", self.pid))??)
    }

    /// Kills it without a chance to tidy up.
    pub async fn kill(&mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }
}

/// Runs a command to its end and gives back what it printed; fails if it does.
pub async fn output(mut command: Command, input: &str, limit: Duration) -> Result<String> {
    use tokio::io::AsyncWriteExt;
    let run = async {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        let mut stdin = child.stdin.take().context("no standard input")?;
        stdin.write_all(input.as_bytes()).await?;
        drop(stdin);
        let done = child.wait_with_output().await?;
        let printed = String::from_utf8_lossy(&done.stdout).into_owned();
        if done.status.success() {
            Ok(printed)
        } else {
            Err(anyhow!("{}: {printed}{}", done.status, String::from_utf8_lossy(&done.stderr)))
        }
    };
    timeout(limit, run).await.map_err(|_| anyhow!("no answer after {limit:?}"))?
}
