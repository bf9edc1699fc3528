//! A process that a laboratory started, and what can be done to it.

use std::fs::OpenOptions;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// A child process; dropping it kills it, with the processes that it started: the script of a package
/// leaves the server in a process of its own.
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
            .process_group(0)
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
        self.kill_group();
        Ok(self.child.kill().await?)
    }

    fn kill_group(&self) {
        // Of one that has ended and been waited for, the number may be another's by now.
        if self.child.id().is_some() {
            // Whoever has ended meanwhile need not be killed.
            let _ = killpg(Pid::from_raw(self.pid.cast_signed()), Signal::SIGKILL);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill_group();
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What a script has started ends with it, as an ejabberd that `ejabberdctl` has started.
    #[tokio::test]
    async fn nothing_is_left() -> Result<()> {
        let log = std::env::temp_dir().join(format!("dmuc-process-{}", std::process::id()));
        for dropped in [false, true] {
            let mut script = Command::new("sh");
            script.args(["-c", "sleep 100 & echo $!; wait"]);
            let mut process = Process::spawn(script, &log)?;
            let child = loop {
                let said = std::fs::read_to_string(&log)?;
                match said.strip_suffix('\n') {
                    Some(number) => break Pid::from_raw(number.parse()?),
                    None => tokio::task::yield_now().await,
                }
            };
            kill(child, None)?;
            if !dropped {
                process.kill().await?;
            }
            drop(process);
            std::fs::remove_file(&log)?;
            // Whoever takes in orphans need not do so at once.
            let gone = || {
                let status = std::fs::read_to_string(format!("/proc/{child}/stat"));
                status.map_or(true, |status| status.contains(") Z "))
            };
            timeout(Duration::from_secs(10), async {
                while !gone() {
                    tokio::task::yield_now().await;
                }
            })
            .await?;
        }
        Ok(())
    }
}
