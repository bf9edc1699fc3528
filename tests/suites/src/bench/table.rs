//! Rows for people: ratios first.

use super::fanout::Fanout;
use super::row::{Figures, Row};

/// Prints them.
pub fn show(rows: &[Row]) {
    println!("\nAs a part of what it is with a stanza for each recipient:\n");
    println!(
        "{:8} {:8} {:13} {:>5} {:9} {:7} | {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}",
        "primary",
        "replica",
        "case",
        "k",
        "residents",
        "",
        "stanzas",
        "bytes",
        "CPU prim",
        "CPU repl",
        "last p50",
        "last p99"
    );
    for row in rows {
        for (fanout, figures) in row.sides().filter(|(fanout, _)| *fanout != Fanout::Plain) {
            let ratios = figures.ratios(&row.plain).map(|ratio| format!(" {ratio:8.4}")).concat();
            println!("{} {fanout:7} |{ratios}", head(row));
        }
    }
    println!(
        "\nMedians, and least and most: CPU in µs per delivered copy, time to the last in ms\n"
    );
    println!(
        "{:55} {:>9} {:>11} {:>9} {:>9} {:>22} {:>22} {:>26} {:>9} {:>11}",
        "",
        "stanzas",
        "bytes",
        "per later",
        "delivered",
        "CPU primary",
        "CPU replica",
        "last",
        "last p99",
        "memory MB"
    );
    for row in rows {
        for (fanout, figures) in row.sides() {
            println!("{} {fanout:7} {}", head(row), line(figures));
        }
    }
}

fn head(row: &Row) -> String {
    format!("{:8} {:8} {:13} {:>5} {:9}", row.primary, row.replica, row.case, row.k, row.residents)
}

fn line(figures: &Figures) -> String {
    let f = figures;
    let spread = |n: usize, value: f64| {
        let (least, most) = f.spread[n];
        format!("{value:.1} ({least:.1}..{most:.1})")
    };
    let later = f.link_bytes_per_later_joiner.map_or("-".to_owned(), |bytes| bytes.to_string());
    format!(
        "{:>9} {:>11} {later:>9} {:>9} {:>22} {:>22} {:>26} {:>9.1} {:>5} {:>5}",
        f.link_stanzas,
        f.link_bytes,
        f.delivered,
        spread(0, f.primary_cpu_us_per_copy),
        spread(1, f.replica_cpu_us_per_copy),
        spread(2, f.last_p50_ms),
        f.last_p99_ms,
        f.primary_rss_bytes / 1_000_000,
        f.replica_rss_bytes / 1_000_000,
    )
}
