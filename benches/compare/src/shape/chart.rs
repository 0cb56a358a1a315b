//! The shape as a picture: a small panel for each series, what a message costs the broker against the variable.
//!
//! ```text
//!   Topics                    both axes count in powers of ten, so that a straight line is a power:
//!   100 us |        o--o      level is constant, and the dotted line is linear
//!    10 us |     o
//!     1 us |  o
//!          '--------------
//!           1  100  10,000
//! ```
//!
//! It has a ground of its own, so that it reads on light and dark pages, and follows the reader's scheme where the page
//! lets it.

use std::fmt::Write as _;

use super::rows::{Remark, Row};
use super::series::Series;
use super::table::{each, figure, value};

const COLUMNS: usize = 3;
const WIDTH: f64 = 880.0;
const HEAD_HEIGHT: f64 = 66.0;
const PANEL_WIDTH: f64 = 288.0;
const PANEL_HEIGHT: f64 = 210.0;
/// The plot within its panel.
const PLOT_X: f64 = 54.0;
const PLOT_Y: f64 = 34.0;
const PLOT_WIDTH: f64 = 214.0;
const PLOT_HEIGHT: f64 = 136.0;

/// Powers of ten that an axis of costs has at least: what moves by a tenth must not look like a cliff.
const DECADES_MIN: f64 = 2.0;

const STYLE: &str = "\
  .ground { fill: #ffffff } text { fill: #1f2328; font: 12px system-ui, sans-serif } .title { font-size: 15px; font-weight: 600 }
  .group { font-weight: 600 } .quiet { fill: #59636e; font-size: 11px } .grid { stroke: #d1d9e0 } .linear { stroke: #8c959f; stroke-dasharray: 2 3 }
  .cost { fill: none; stroke: #1f6feb; stroke-width: 2 } .range { stroke: #1f6feb; stroke-width: 1 } .point { fill: #1f6feb } .marked { fill: #cf222e }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #0d1117 } text { fill: #e6edf3 } .quiet { fill: #9198a1 } .grid { stroke: #30363d } .linear { stroke: #768390 }
    .cost, .range { stroke: #4493f8 } .point { fill: #4493f8 } .marked { fill: #ff7b72 }
  }
";

/// The chart.
pub(super) fn chart(shape: &[(Series, Vec<Row>)]) -> String {
    let height = HEAD_HEIGHT + shape.len().div_ceil(COLUMNS) as f64 * PANEL_HEIGHT;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" role=\"img\" aria-label=\"The shape of cost\">\n<style>\n{STYLE}</style>\n\
         <rect class=\"ground\" width=\"{WIDTH}\" height=\"{height}\" rx=\"8\"/>\n"
    );
    svg.push_str(&text(16.0, 26.0, "title", "start", "The shape of cost: broker CPU for a message, in us"));
    let note = "Both axes in powers of ten: level is constant, the dotted line is linear. Bars: the range. Red: grows \
                faster than it must.";
    svg.push_str(&text(16.0, 46.0, "quiet", "start", note));
    for (index, (series, rows)) in shape.iter().enumerate() {
        let x = 8.0 + (index % COLUMNS) as f64 * PANEL_WIDTH;
        let y = HEAD_HEIGHT + (index / COLUMNS) as f64 * PANEL_HEIGHT;
        let _ = write!(svg, "<g transform=\"translate({x} {y})\">\n{}</g>\n", panel(*series, rows));
    }
    svg.push_str("</svg>\n");
    svg
}

/// Where figures are in a plot.
struct Scale {
    values: (f64, f64),
    costs: (f64, f64),
}

impl Scale {
    /// Room for all rows and their ranges, from one power of ten to another.
    fn of(rows: &[Row]) -> Option<Self> {
        let (first, last) = (rows.first()?, rows.last()?);
        let lowest = rows.iter().map(|row| row.cpu_us.lowest).fold(f64::INFINITY, f64::min);
        let highest = rows.iter().map(|row| row.cpu_us.highest).fold(0.0, f64::max);
        if !(lowest > 0.0 && highest.is_finite()) {
            return None;
        }
        let from = lowest.log10().floor();
        let to = highest.log10().ceil().max(from + DECADES_MIN);
        let decade = |value: u32| f64::from(value.max(1)).log10();
        let values = (decade(first.value), decade(last.value).max(decade(first.value) + 1.0));
        Some(Self { values, costs: (from, to) })
    }

    fn x_of(&self, value: u32) -> f64 {
        let (from, to) = self.values;
        PLOT_X + (f64::from(value.max(1)).log10() - from) / (to - from) * PLOT_WIDTH
    }

    fn y_of(&self, cost: f64) -> f64 {
        let (from, to) = self.costs;
        PLOT_Y + PLOT_HEIGHT - (cost.log10() - from) / (to - from) * PLOT_HEIGHT
    }

    /// As many times the first cost as the value is the first value, as far as the plot goes.
    fn linear(&self, first: &Row) -> String {
        let (x, y) = (self.x_of(first.value), self.y_of(first.cpu_us.median));
        let decades_right = (PLOT_X + PLOT_WIDTH - x) / PLOT_WIDTH * (self.values.1 - self.values.0);
        let decades_up = (y - PLOT_Y) / PLOT_HEIGHT * (self.costs.1 - self.costs.0);
        let decades = decades_right.min(decades_up);
        let end_x = x + decades / (self.values.1 - self.values.0) * PLOT_WIDTH;
        let end_y = y - decades / (self.costs.1 - self.costs.0) * PLOT_HEIGHT;
        format!("<line class=\"linear\" x1=\"{x:.1}\" y1=\"{y:.1}\" x2=\"{end_x:.1}\" y2=\"{end_y:.1}\"/>\n")
    }

    /// A line and a figure for each power of ten.
    fn grid(&self) -> String {
        let mut svg = String::new();
        let (from, to) = self.costs;
        let mut decade = from;
        while decade <= to {
            let cost = 10_f64.powf(decade);
            let y = self.y_of(cost);
            let end = PLOT_X + PLOT_WIDTH;
            let _ = writeln!(
                svg,
                "<line class=\"grid\" x1=\"{PLOT_X}\" x2=\"{end}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>"
            );
            let label = if cost < 0.1 { format!("{cost}") } else { figure_of_decade(cost) };
            svg.push_str(&text(PLOT_X - 6.0, y + 4.0, "quiet", "end", &label));
            decade += 1.0;
        }
        svg
    }
}

fn figure_of_decade(cost: f64) -> String {
    if cost < 1.0 { format!("{cost:.1}") } else { format!("{cost:.0}") }
}

fn panel(series: Series, rows: &[Row]) -> String {
    let mut svg = text(PLOT_X, 16.0, "group", "start", &format!("{series}, a {}", each(series)));
    let (Some(scale), Some(first)) = (Scale::of(rows), rows.first()) else { return svg };
    svg.push_str(&scale.grid());
    svg.push_str(&scale.linear(first));
    let points: Vec<String> = rows
        .iter()
        .map(|row| format!("{:.1},{:.1}", scale.x_of(row.value), scale.y_of(row.cpu_us.median)))
        .collect();
    let _ = writeln!(svg, "<polyline class=\"cost\" points=\"{}\"/>", points.join(" "));
    let last = rows.len().saturating_sub(1);
    for (index, row) in rows.iter().enumerate() {
        let (x, y) = (scale.x_of(row.value), scale.y_of(row.cpu_us.median));
        let (top, bottom) = (scale.y_of(row.cpu_us.highest), scale.y_of(row.cpu_us.lowest));
        let _ = writeln!(
            svg,
            "<line class=\"range\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{top:.1}\" y2=\"{bottom:.1}\"/>"
        );
        let _ = writeln!(svg, "<circle class=\"{}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\"/>", class(row));
        svg.push_str(&text(x, PLOT_Y + PLOT_HEIGHT + 16.0, "quiet", "middle", &short(series, row.value)));
        if index == 0 || index == last {
            let anchor = if index == 0 { "start" } else { "end" };
            svg.push_str(&text(x, top - 7.0, "label", anchor, &figure(row.cpu_us.median)));
        }
    }
    svg
}

const fn class(row: &Row) -> &'static str {
    match row.remark {
        Some(Remark::MoreThanConstant | Remark::MoreThanLinear) => "marked",
        Some(Remark::FewerInABatch | Remark::Unsure | Remark::ReloadMoreThanLinear) | None => "point",
    }
}

/// A value where there is little room for it.
fn short(series: Series, number: u32) -> String {
    let text = value(series, number);
    text.replace(",000", "k").replace(" KiB", "K").replace(" MiB", "M").replace(" B", "")
}

fn text(x: f64, y: f64, class: &str, anchor: &str, words: &str) -> String {
    let words = words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    format!("<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>\n")
}

#[cfg(test)]
mod tests {
    use super::super::rows::examples::sample;
    use super::super::rows::rows;
    use super::*;

    fn rows_of(series: Series, costs: &[f64]) -> Vec<Row> {
        let samples: Vec<_> =
            series.values().iter().zip(costs).map(|(value, cost)| (*value, sample(*cost, 9.0))).collect();
        rows(series, &samples)
    }

    #[test]
    fn there_is_a_panel_for_each_series_and_a_point_for_each_row() {
        let shape: Vec<_> =
            Series::ALL.into_iter().map(|series| (series, rows_of(series, &[1.0, 2.0, 3.0, 90.0]))).collect();
        let svg = chart(&shape);
        assert_eq!(svg.matches("<g ").count(), Series::ALL.len());
        assert_eq!(svg.matches("<circle ").count(), 4 * Series::ALL.len());
        for (opened, closed) in [("<svg ", "</svg>"), ("<g ", "</g>"), ("<text ", "</text>")] {
            assert_eq!(svg.matches(opened).count(), svg.matches(closed).count(), "{opened}");
        }
        assert!(svg.contains("prefers-color-scheme: dark") && svg.contains("class=\"marked\""), "{svg}");
    }

    #[test]
    fn everything_stays_within_its_plot() {
        let rows = rows_of(Series::Topics, &[0.15, 3.0, 40.0, 41.0, 42.0, 900.0]);
        let scale = Scale::of(&rows).unwrap();
        for row in &rows {
            let (x, y) = (scale.x_of(row.value), scale.y_of(row.cpu_us.median));
            assert!((PLOT_X..=PLOT_X + PLOT_WIDTH + 0.01).contains(&x), "{x}");
            assert!((PLOT_Y..=PLOT_Y + PLOT_HEIGHT).contains(&y), "{y}");
        }
        assert!(scale.y_of(900.0) < scale.y_of(0.15), "more is higher");
    }

    #[test]
    fn a_series_without_rows_or_with_one_is_no_failure() {
        for rows in [Vec::new(), rows_of(Series::Rules, &[1.0])] {
            let svg = chart(&[(Series::Rules, rows)]);
            assert!(svg.ends_with("</svg>\n") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }
}
