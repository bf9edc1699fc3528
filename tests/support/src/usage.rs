//! What a process uses of the machine, from `/proc`.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Add;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// Time on a processor and memory of a process and all its descendants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Time that their living threads have spent on a processor, in user and system mode.
    pub cpu: Duration,
    /// Resident memory in bytes.
    pub rss: u64,
}

impl Usage {
    /// Of this process and its descendants.
    pub fn of(pid: u32) -> Result<Self> {
        let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for (child, parent) in parents()? {
            children.entry(parent).or_default().push(child);
        }
        let mut sum = one(pid).with_context(|| format!("process {pid} is gone"))?;
        let mut below = children.remove(&pid).unwrap_or_default();
        while let Some(child) = below.pop() {
            // One that has ended meanwhile counts no more.
            sum = sum + one(child).unwrap_or_default();
            below.extend(children.remove(&child).unwrap_or_default());
        }
        ensure!(!sum.cpu.is_zero(), "this kernel does not say what threads have spent (schedstat)");
        Ok(sum)
    }
}

impl Add for Usage {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { cpu: self.cpu + other.cpu, rss: self.rss + other.rss }
    }
}

/// Every process and its parent.
fn parents() -> Result<Vec<(u32, u32)>> {
    let pids = fs::read_dir("/proc")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    Ok(pids.filter_map(|pid| Some((pid, parent(pid)?))).collect())
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

/// The scheduler's own account of each thread is in nanoseconds; `stat` has hundredths of a second,
/// which is longer than what a small broadcast takes.
fn one(pid: u32) -> Option<Usage> {
    let mut cpu = Duration::ZERO;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        let spent = fs::read_to_string(thread.ok()?.path().join("schedstat")).unwrap_or_default();
        let spent = spent.split_whitespace().next().and_then(|ns| ns.parse().ok());
        cpu += Duration::from_nanos(spent.unwrap_or_default());
    }
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: u64 = rss.and_then(|rss| rss.split_whitespace().next()?.parse().ok())?;
    Some(Usage { cpu, rss: kib * 1024 })
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;
    use std::time::Instant;

    use super::*;

    #[test]
    fn work_shows() {
        let own = || Usage::of(std::process::id()).expect("this process runs").cpu;
        let before = own();
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_millis(200) {
            black_box(begin);
        }
        // Whoever else is on this machine takes his part.
        assert!(own() - before >= Duration::from_millis(20), "{before:?} {:?}", own());
    }
}
