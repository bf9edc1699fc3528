//! Rows as pictures: what a way to fan out costs, as a part of plain MUC, against the number of
//! remote occupants.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use plotters::coord::Shift;
use plotters::coord::combinators::BindKeyPoints;
use plotters::prelude::*;

use super::fanout::Fanout;
use super::row::Row;

/// What is drawn: the title, and which of [`super::row::Figures::ratios`].
const PANELS: [(&str, usize); 4] = [
    ("Bytes on the link", 1),
    ("Processor time of the primary", 2),
    ("Processor time of the replica", 3),
    ("Time to the last recipient, p99", 5),
];

/// Width and height in pixels.
const SIZE: (u32, u32) = (960, 760);

/// Of the pairings, in the order of their names.
const COLOURS: [RGBColor; 4] =
    [RGBColor(31, 119, 180), RGBColor(214, 39, 40), RGBColor(44, 160, 44), RGBColor(148, 103, 189)];

/// Ratios by remote occupants.
type Points = Vec<(f64, [f64; 6])>;

/// The points of each pairing and way to fan out.
type Lines = BTreeMap<(String, String), Points>;

/// Draws each case of the rows to `DIR/CASE.svg`; the files.
pub fn draw(rows: &[Row], directory: &Path) -> Result<Vec<String>> {
    std::fs::create_dir_all(directory)?;
    let mut cases: BTreeMap<&str, Lines> = BTreeMap::new();
    for row in rows {
        let pairing = format!("{}-{}", row.primary, row.replica);
        for (fanout, figures) in row.sides().filter(|(fanout, _)| *fanout != Fanout::Plain) {
            let lines = cases.entry(&row.case).or_default();
            let line = lines.entry((pairing.clone(), fanout.to_string())).or_default();
            line.push((row.k as f64, figures.ratios(&row.plain)));
        }
    }
    let mut files = Vec::new();
    for (case, mut lines) in cases {
        for points in lines.values_mut() {
            points.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        }
        let file = format!("{case}.svg");
        let path = directory.join(&file);
        picture(&lines, &path).with_context(|| format!("cannot draw {}", path.display()))?;
        files.push(file);
    }
    Ok(files)
}

fn picture(lines: &Lines, path: &Path) -> Result<()> {
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    for (n, (area, (title, ratio))) in root.split_evenly((2, 2)).iter().zip(PANELS).enumerate() {
        panel(area, title, ratio, lines, n == 0)?;
    }
    Ok(root.present()?)
}

fn panel(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    title: &str,
    ratio: usize,
    lines: &Lines,
    legend: bool,
) -> Result<()> {
    // A time of nothing has no ratio and no place on a logarithmic axis.
    let points = |line: &Points| -> Vec<(f64, f64)> {
        let points = line.iter().map(|(k, ratios)| (*k, ratios[ratio]));
        points.filter(|(_, y)| y.is_finite() && *y > 0.0).collect()
    };
    let all: Vec<(f64, f64)> = lines.values().flat_map(points).collect();
    let mut sizes: Vec<f64> = lines.values().flatten().map(|(k, _)| *k).collect();
    sizes.sort_by(f64::total_cmp);
    sizes.dedup();
    let (least_k, most_k) =
        (sizes.first().copied().unwrap_or(1.0), sizes.last().copied().unwrap_or(1.0));
    let ratios = || all.iter().map(|(_, y)| *y);
    // Marks are wanted at both ends, and half a decade at least between them.
    let (least, most) = (ratios().fold(0.4, f64::min), ratios().fold(1.0, f64::max));
    let marks = marks(least, most);
    let floor = marks.first().copied().unwrap_or(least);
    let top = marks.last().copied().unwrap_or(most);
    let x = (least_k / 1.5..most_k * 1.5).log_scale().with_key_points(sizes);
    let y = (floor..top * 1.1).log_scale().with_key_points(marks);
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 17))
        .margin(10)
        .x_label_area_size(36)
        .y_label_area_size(52)
        .build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .x_desc("remote occupants")
        .y_desc("part of plain MUC")
        .max_light_lines(0)
        .label_style(("sans-serif", 13))
        .x_label_formatter(&|k| k.to_string())
        .y_label_formatter(&|ratio| ratio.to_string())
        .draw()?;
    let (left, right) = (least_k / 1.5, most_k * 1.5);
    chart
        .draw_series(LineSeries::new([(left, 1.0), (right, 1.0)], BLACK.stroke_width(1)))?
        .label("plain MUC")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 22, y)], BLACK.stroke_width(1)));
    let mut pairings: Vec<&str> = lines.keys().map(|(pairing, _)| &**pairing).collect();
    pairings.dedup();
    for ((pairing, fanout), line) in lines {
        let place = pairings.iter().position(|other| other == pairing).unwrap_or(0);
        let colour = COLOURS[place % COLOURS.len()];
        let points = points(line);
        let style = colour.stroke_width(2);
        let dmuc = *fanout == Fanout::Dmuc.to_string();
        let series = match dmuc {
            true => chart.draw_series(LineSeries::new(points.clone(), style))?,
            false => chart.draw_series(DashedLineSeries::new(points.clone(), 6, 4, style))?,
        };
        series.label(format!("{pairing} {fanout}")).legend(move |(x, y)| {
            // As short as a dash where the line is dashed.
            let end = if dmuc { x + 22 } else { x + 8 };
            PathElement::new([(x, y), (end, y)], style)
        });
        chart.draw_series(points.into_iter().map(|at| Circle::new(at, 3, colour.filled())))?;
    }
    if legend {
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerLeft)
            .background_style(WHITE)
            .border_style(BLACK)
            .label_font(("sans-serif", 13))
            .draw()?;
    }
    Ok(())
}

/// Round numbers from below the least to above the most: 1, 2 and 5 of each decade, or powers of ten alone if
/// there are many decades.
fn marks(least: f64, most: f64) -> Vec<f64> {
    let decades = least.log10().floor() as i32..=most.log10().ceil() as i32;
    let steps: &[u8] = if decades.clone().count() > 4 { &[1] } else { &[1, 2, 5] };
    let all: Vec<f64> = decades
        .flat_map(|decade| steps.iter().map(move |step| format!("{step}e{decade}")))
        // As it is written, 0.1 and not a little beside it.
        .filter_map(|mark| mark.parse().ok())
        .collect();
    let first = all.iter().rposition(|mark| *mark <= least).unwrap_or(0);
    let last = all.iter().position(|mark| *mark >= most).unwrap_or(all.len() - 1);
    all[first..=last].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_scripts_read_can_be_drawn() {
        let side = |bytes: u64| {
            serde_json::json!({
                "link_stanzas": 10, "link_bytes": bytes, "link_xml_bytes": 90, "delivered": 10,
                "primary_cpu_us_per_copy": 3.0, "replica_cpu_us_per_copy": 4.0, "last_p50_ms": 1.0,
                "last_p99_ms": 0.0, "primary_rss_bytes": 1, "replica_rss_bytes": 1
            })
        };
        let row = |k: u64| {
            serde_json::json!({
                "primary": "ejabberd", "replica": "ejabberd", "primary_version": "1",
                "replica_version": "1", "case": "message", "k": k, "residents": "local", "spread": 1,
                "plain": side(1000), "xep0033": side(200), "dmuc": side(10)
            })
        };
        let rows: Vec<Row> =
            [1000, 2].map(|k| serde_json::from_value(row(k)).expect("a row")).into();
        let directory = std::env::temp_dir().join(format!("dmuc-plot-{}", std::process::id()));
        let files = draw(&rows, &directory).expect("can be drawn");
        let svg = std::fs::read_to_string(directory.join("message.svg")).expect("is there");
        std::fs::remove_dir_all(&directory).expect("can be removed");
        assert_eq!(files, ["message.svg"]);
        for text in ["<svg", "ejabberd-ejabberd xep0033", "ejabberd-ejabberd dmuc", PANELS[3].0] {
            assert!(svg.contains(text), "{text} is not in the picture");
        }
        assert_eq!(svg.matches("<circle").count(), 2 * 2 * 3, "times of nothing have no ratio");
    }

    #[test]
    fn an_axis_has_round_numbers_at_both_ends() {
        assert_eq!(marks(0.3, 1.0), [0.2, 0.5, 1.0]);
        assert_eq!(marks(0.05, 1.2), [0.05, 0.1, 0.2, 0.5, 1.0, 2.0]);
        assert_eq!(marks(0.00014, 1.0), [0.0001, 0.001, 0.01, 0.1, 1.0]);
    }
}
