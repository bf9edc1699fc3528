//! Where a laboratory keeps its logs: kept after a failure, gone after a success.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

/// The directory of one run. Dropping it deletes it only after [`RunDir::succeeded`].
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    short: PathBuf,
    delete: AtomicBool,
}

impl RunDir {
    /// Makes `<runs>/<name>-<time>`, where `<runs>` is `$DMUC_RUNS` or `target/runs`.
    pub fn new(name: &str) -> Result<Self> {
        let runs =
            std::env::var_os("DMUC_RUNS").map_or_else(|| "target/runs".into(), PathBuf::from);
        let mut millis = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
        // Another process may begin a run at the same time: this directory says whose number it is.
        let short = loop {
            let short = std::env::temp_dir().join(format!("dmuc-{millis}"));
            match std::fs::create_dir(&short) {
                Ok(()) => break short,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => millis += 1,
                Err(error) => return Err(error).with_context(|| format!("cannot make {short:?}")),
            }
        };
        let path = std::path::absolute(runs.join(format!("{name}-{millis}")))?;
        std::fs::create_dir_all(&path).with_context(|| format!("cannot make {path:?}"))?;
        Ok(Self { path, short, delete: AtomicBool::new(false) })
    }

    /// Its path, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A directory whose path is short enough for sockets; always deleted.
    pub fn short(&self) -> &Path {
        &self.short
    }

    /// Makes a directory inside.
    pub fn make(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        std::fs::create_dir_all(&path).with_context(|| format!("cannot make {path:?}"))?;
        Ok(path)
    }

    /// Nothing here is needed any more.
    pub fn succeeded(&self) {
        self.delete.store(true, Ordering::Relaxed);
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        // What is left over does no harm, and there is nobody to tell.
        let _ = std::fs::remove_dir_all(&self.short);
        if self.delete.load(Ordering::Relaxed) {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}
