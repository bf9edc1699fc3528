//! Rows for people: ratios first.

use super::row::{Figures, Row};

/// Prints them.
pub fn show(rows: &[Row]) {
    println!("\nWith dmuc, as a part of what it is without:\n");
    println!(
        "{:8} {:8} {:13} {:>5} {:9} | {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}",
        "primary",
        "replica",
        "case",
        "k",
        "residents",
        "stanzas",
        "bytes",
        "CPU prim",
        "CPU repl",
        "last p50",
        "last p99"
    );
    for row in rows {
        let (p, d) = (&row.plain, &row.dmuc);
        let ratios = [
            (p.link_stanzas as f64, d.link_stanzas as f64),
            (p.link_bytes as f64, d.link_bytes as f64),
            (p.primary_cpu_us_per_copy, d.primary_cpu_us_per_copy),
            (p.replica_cpu_us_per_copy, d.replica_cpu_us_per_copy),
            (p.last_p50_ms, d.last_p50_ms),
            (p.last_p99_ms, d.last_p99_ms),
        ];
        let ratios: String = ratios.map(|(plain, dmuc)| format!(" {:8.4}", dmuc / plain)).concat();
        println!("{} |{ratios}", head(row));
    }
    println!(
        "\nMedians, and least and most: CPU in µs per delivered copy, time to the last in ms\n"
    );
    println!(
        "{:53} {:>9} {:>11} {:>9} {:>9} {:>22} {:>22} {:>26} {:>9} {:>11}",
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
        for (name, figures) in [("plain", &row.plain), ("dmuc", &row.dmuc)] {
            println!("{} {name:5} {}", head(row), line(figures));
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
