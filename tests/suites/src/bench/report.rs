//! Rows in the documentation: a section of docs/benchmarks.md, with pictures, made from a kept file.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::fanout::Fanout;
use super::plot;
use super::row::Row;

/// The page with the sections, from the root of the workspace.
const PAGE: &str = "docs/benchmarks.md";

/// Where each section has a directory: `rows.json`, `about.txt`, pictures.
const KEPT: &str = "docs/benchmarks";

/// Keeps the rows, says how they were made, and writes the section anew.
pub fn keep(name: &str, rows: &[Row]) -> Result<()> {
    let directory = Path::new(KEPT).join(name);
    fs::create_dir_all(&directory)?;
    fs::write(directory.join("rows.json"), serde_json::to_string_pretty(rows)? + "\n")?;
    fs::write(directory.join("about.txt"), about(rows)?)?;
    rewrite(name)
}

/// Writes the section anew from the rows that were kept.
pub fn rewrite(name: &str) -> Result<()> {
    let directory = Path::new(KEPT).join(name);
    let read = |file: &str| {
        let path = directory.join(file);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let rows: Vec<Row> = serde_json::from_str(&read("rows.json")?)?;
    let mut section = read("about.txt")?;
    for file in plot::draw(&rows, &directory)? {
        let case = file.trim_end_matches(".svg");
        write!(section, "\n### Case `{case}`\n\n![Ratios]({}/{file})\n\n", relative(name))?;
        section += &tables(rows.iter().filter(|row| row.case == case));
    }
    let page = fs::read_to_string(PAGE).with_context(|| format!("cannot read {PAGE}"))?;
    fs::write(PAGE, replaced(&page, name, &section)?)?;
    Ok(())
}

/// The directory of a section, as the page sees it.
fn relative(name: &str) -> String {
    format!("benchmarks/{name}")
}

/// The page with this section between its marks.
fn replaced(page: &str, name: &str, section: &str) -> Result<String> {
    let (begin, end) = (format!("<!-- bench {name} -->\n"), format!("<!-- end {name} -->\n"));
    let Some((before, rest)) = page.split_once(&begin) else {
        bail!("{PAGE} has no line {begin:?} to write after");
    };
    let (_, after) = rest.split_once(&end).with_context(|| format!("{PAGE} has no {end:?}"))?;
    Ok(format!("{before}{begin}\n{section}\n{end}{after}"))
}

/// When, with what and on what.
fn about(rows: &[Row]) -> Result<String> {
    let date = Command::new("date").args(["-u", "+%F"]).output().context("date")?;
    let date = String::from_utf8(date.stdout)?;
    let words: Vec<String> = std::env::args().skip(1).collect();
    let mut servers: Vec<String> = rows
        .iter()
        .flat_map(|row| {
            [(&row.primary, &row.primary_version), (&row.replica, &row.replica_version)]
        })
        .map(|(name, version)| format!("{name} {version}"))
        .collect();
    servers.sort();
    servers.dedup();
    let line = |file: &str, name: &str| -> String {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map_or("", |(_, value)| value).trim().to_owned()
    };
    let memory = line("/proc/meminfo", "MemTotal");
    let kilobytes: u64 = memory.split(' ').next().and_then(|kb| kb.parse().ok()).unwrap_or(0);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: Vec<&str> = load.split(' ').take(3).collect();
    Ok(format!(
        "`cargo xtask {}`, {}, {}, {} cores of {}, {} GB; load at the end {}.\n",
        words.join(" "),
        date.trim(),
        servers.join(", "),
        std::thread::available_parallelism()?,
        line("/proc/cpuinfo", "model name"),
        kilobytes / 1_000_000,
        load.join(" "),
    ))
}

/// Ratios first.
fn tables<'a>(rows: impl Iterator<Item = &'a Row> + Clone) -> String {
    let mut text = String::from(
        "| Primary | Replica | k | | Stanzas | Bytes | CPU primary | CPU replica | Last, p50 | Last, p99 |\n\
         |---|---|--:|---|--:|--:|--:|--:|--:|--:|\n",
    );
    for row in rows.clone() {
        for (fanout, figures) in row.sides().filter(|(fanout, _)| *fanout != Fanout::Plain) {
            let ratios = figures.ratios(&row.plain).map(|ratio| format!(" {} |", short(ratio)));
            text += &format!("{} {fanout} |{}\n", head(row), ratios.concat());
        }
    }
    text += "\n| Primary | Replica | k | | Delivered | Stanzas | kB | µs primary | µs replica | ms p50 | ms p99 | MB primary | MB replica |\n\
             |---|---|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n";
    for row in rows {
        for (fanout, f) in row.sides() {
            text += &format!(
                "{} {fanout} | {} | {} | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} | {} | {} |\n",
                head(row),
                f.delivered,
                f.link_stanzas,
                f.link_bytes as f64 / 1000.0,
                f.primary_cpu_us_per_copy,
                f.replica_cpu_us_per_copy,
                f.last_p50_ms,
                f.last_p99_ms,
                f.primary_rss_bytes / 1_000_000,
                f.replica_rss_bytes / 1_000_000,
            );
        }
    }
    text
}

fn head(row: &Row) -> String {
    format!("| {} | {} | {} |", row.primary, row.replica, row.k)
}

/// Two digits that count.
fn short(ratio: f64) -> String {
    match ratio {
        ratio if ratio >= 0.1 => format!("{ratio:.2}"),
        ratio if ratio >= 0.01 => format!("{ratio:.3}"),
        ratio => format!("{ratio:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_takes_the_place_of_the_old_one() {
        let page = "a\n<!-- bench x -->\nold\n<!-- end x -->\nb\n";
        let once = replaced(page, "x", "new\n").expect("has marks");
        assert_eq!(once, "a\n<!-- bench x -->\n\nnew\n\n<!-- end x -->\nb\n");
        assert_eq!(replaced(&once, "x", "new\n").expect("has them still"), once);
        assert!(replaced(page, "y", "new\n").is_err());
    }
}
