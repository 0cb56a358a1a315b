//! The report as a picture: for each workload a bar for everybody, as a multiple of the best peer.
//!
//! ```text
//!   1to1-128   relay     ┌────────────────────────    8.00x   8.00 M/s
//!              sealbus   ███┆████████████             4.50x   4.50 M/s
//!              nats      ███┆                         1.00x   1.00 M/s
//!                           ┆ the best peer
//! ```
//!
//! It has a ground of its own, so that it reads on light and dark pages, and follows the reader's scheme where the page
//! lets it.

use crate::outcome::Quantity;
use crate::workload::{Kind, Workload};

use super::figures::{figure, times};
use super::results::{Entrant, LIMIT, OURS, Placement, Results, headline};
use super::table::title;

const WIDTH: f64 = 880.0;
/// Where the names of workloads begin, those of subjects end, and bars begin and end.
const NAME_X: f64 = 16.0;
const SUBJECT_X: f64 = 212.0;
const BAR_X: f64 = 220.0;
const BAR_END_X: f64 = 690.0;
/// Where multiples and figures end.
const MULTIPLE_X: f64 = 762.0;
const FIGURES_X: f64 = 864.0;
const BAR_HEIGHT: f64 = 12.0;
const LINE_HEIGHT: f64 = 16.0;
const GROUP_GAP: f64 = 12.0;
const HEAD_HEIGHT: f64 = 78.0;
const FOOT_HEIGHT: f64 = 26.0;

/// The longest multiple that is drawn, and the least that the longest bar stands for. The relay is ten times a broker in
/// some workloads: drawn in full, nothing else could be told apart.
const MULTIPLE_MAX: f64 = 6.0;
const MULTIPLE_MIN: f64 = 2.0;

const STYLE: &str = "\
  .ground { fill: #ffffff } text { fill: #1f2328; font: 12px system-ui, sans-serif } .title { font-size: 15px; font-weight: 600 }
  .quiet { fill: #59636e } .group { font-weight: 600 } .ours { fill: #1f6feb } .limit { fill: none; stroke: #8c959f; stroke-dasharray: 3 2 }
  .peer0 { fill: #bc7a1c } .peer1 { fill: #8250df } .peer2 { fill: #bf3989 } .peer3 { fill: #d886b4 }
  .mark { stroke: #59636e; stroke-dasharray: 2 3 } .note { fill: #59636e; stroke: #ffffff; stroke-width: 4; paint-order: stroke }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #0d1117 } text { fill: #e6edf3 } .quiet { fill: #9198a1 } .ours { fill: #4493f8 } .limit { stroke: #768390 }
    .peer0 { fill: #d29922 } .peer1 { fill: #a371f7 } .peer2 { fill: #db61a2 } .peer3 { fill: #8a4a6c } .mark { stroke: #9198a1 }
    .note { fill: #9198a1; stroke: #0d1117 }
  }
";

/// The chart of one placement.
#[must_use]
pub fn chart(results: &Results) -> String {
    let placement = results.placements().into_iter().next().unwrap_or(Placement::Unpinned);
    let groups: Vec<Group> = results
        .workloads(placement)
        .into_iter()
        .filter_map(|workload| group(results, placement, workload))
        .collect();
    let height = HEAD_HEIGHT + FOOT_HEIGHT + groups.iter().map(Group::height).sum::<f64>();
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" role=\"img\" aria-label=\"Sealbus beside other brokers\">\n<style>\n{STYLE}</style>\n\
         <rect class=\"ground\" width=\"{WIDTH}\" height=\"{height}\" rx=\"8\"/>\n"
    );
    svg.push_str(&text(
        NAME_X,
        26.0,
        "title",
        "start",
        "Sealbus, signed and verified, beside brokers that do neither",
    ));
    let subtitle = "Each bar: times as good as the best other broker in that workload, longer is better";
    svg.push_str(&text(NAME_X, 46.0, "quiet", "start", subtitle));
    let subtitle = format!("(latency by p99 and memory by connection, inverted). {}", title(placement));
    svg.push_str(&text(NAME_X, 62.0, "quiet", "start", &subtitle));
    let multiples = groups.iter().flat_map(|group| &group.bars).map(|bar| bar.multiple);
    let scale = Scale { multiple_max: multiples.fold(MULTIPLE_MIN, f64::max).min(MULTIPLE_MAX) };
    let mark_x = scale.x_of(1.0);
    svg.push_str(&format!(
        "<line class=\"mark\" x1=\"{mark_x:.1}\" x2=\"{mark_x:.1}\" y1=\"{HEAD_HEIGHT}\" y2=\"{:.1}\"/>\n",
        height - FOOT_HEIGHT
    ));
    let mut y = HEAD_HEIGHT;
    for group in &groups {
        svg.push_str(&group.draw(y, &scale));
        y += group.height();
    }
    let note = "dotted line: the best other broker.  relay: a yardstick, TLS in and out without a broker";
    svg.push_str(&text(NAME_X, height - 10.0, "quiet", "start", note));
    svg.push_str("</svg>\n");
    svg
}

/// The bars of one workload.
struct Group {
    name: &'static str,
    bars: Vec<Bar>,
}

struct Bar {
    name: String,
    class: &'static str,
    multiple: f64,
    figures: String,
    /// What stands behind it, where that differs.
    note: &'static str,
}

/// How long bars are.
struct Scale {
    /// What the longest bar stands for.
    multiple_max: f64,
}

impl Scale {
    fn x_of(&self, multiple: f64) -> f64 {
        BAR_X + multiple.clamp(0.0, self.multiple_max) / self.multiple_max * (BAR_END_X - BAR_X)
    }
}

impl Group {
    fn height(&self) -> f64 {
        self.bars.len() as f64 * LINE_HEIGHT + GROUP_GAP
    }

    fn draw(&self, top: f64, scale: &Scale) -> String {
        let mut svg = text(NAME_X, top + BAR_HEIGHT - 2.0, "group", "start", self.name);
        for (line, bar) in self.bars.iter().enumerate() {
            let y = top + line as f64 * LINE_HEIGHT;
            let baseline = y + BAR_HEIGHT - 2.0;
            let end = scale.x_of(bar.multiple);
            svg.push_str(&text(SUBJECT_X, baseline, "quiet", "end", &bar.name));
            svg.push_str(&format!(
                "<rect class=\"{}\" x=\"{BAR_X}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{BAR_HEIGHT}\" rx=\"2\"/>\n",
                bar.class,
                (end - BAR_X).max(1.0),
            ));
            let cut = if bar.multiple > scale.multiple_max { "\u{2026} " } else { "" };
            svg.push_str(&text(end + 8.0, baseline, "note", "start", bar.note));
            svg.push_str(&text(
                MULTIPLE_X,
                baseline,
                "label",
                "end",
                &format!("{cut}{}", times(bar.multiple)),
            ));
            svg.push_str(&text(FIGURES_X, baseline, "label", "end", &bar.figures));
        }
        svg
    }
}

/// Nothing when there is nobody to compare with: then the relay's figures are the measure, or Sealbus's own.
fn group(results: &Results, placement: Placement, workload: Workload) -> Option<Group> {
    let (quantity, better) = headline(workload.kind);
    let compared = results
        .best_peer(placement, workload, quantity, better)
        .map(|(_, median)| median)
        .or_else(|| results.median(placement, workload, LIMIT, quantity))
        .or_else(|| results.median(placement, workload, OURS, quantity))?;
    let mut peers = 0;
    let bars = results.entrants(placement, workload).into_iter().filter_map(|entrant| {
        let multiple = results.times_as_good(placement, workload, entrant, compared)?;
        let class = class(entrant, &mut peers);
        Some(Bar {
            name: entrant.to_string(),
            class,
            multiple,
            note: note(results, workload, entrant),
            figures: figures(results, placement, workload, entrant),
        })
    });
    let mut bars: Vec<Bar> = bars.collect();
    bars.sort_by(|a, b| b.multiple.total_cmp(&a.multiple));
    (!bars.is_empty()).then_some(Group { name: workload.name, bars })
}

fn class(entrant: Entrant, peers: &mut usize) -> &'static str {
    if !entrant.is_peer() {
        return if entrant.subject == OURS { "ours" } else { "limit" };
    }
    let class = ["peer0", "peer1", "peer2", "peer3"].get(*peers).copied().unwrap_or("peer3");
    *peers += 1;
    class
}

fn figures(results: &Results, placement: Placement, workload: Workload, entrant: Entrant) -> String {
    let median = |quantity: Quantity, unit: &str| {
        let range = results.range(placement, workload, entrant, quantity);
        range.map_or_else(String::new, |range| format!("{}{unit}", figure(quantity, range.median)))
    };
    match workload.kind {
        Kind::Spread(_) | Kind::Durable { .. } | Kind::Connects => median(Quantity::PerSecond, "/s"),
        Kind::Latency { .. } => median(Quantity::P99Us, " us"),
        Kind::Idle { .. } => median(Quantity::ConnectionKib, " KiB"),
    }
}

/// What an acknowledgement means: in the durable workloads the bars do not stand for the same.
fn note(results: &Results, workload: Workload, entrant: Entrant) -> &'static str {
    if !matches!(workload.kind, Kind::Durable { .. }) {
        return "";
    }
    let participant = results.participants.iter().find(|participant| participant.name == entrant.subject);
    let mut acknowledgements = participant.into_iter().flat_map(|participant| &participant.acknowledgements);
    acknowledgements.find(|(profile, _)| *profile == entrant.profile).map_or("", |(_, means)| means)
}

fn text(x: f64, y: f64, class: &str, anchor: &str, words: &str) -> String {
    if words.is_empty() {
        return String::new();
    }
    let words = words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    format!(
        "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" xml:space=\"preserve\">{words}</text>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::super::results::examples::{latency, rates};
    use super::*;

    fn example() -> Results {
        let mut results = rates(&[
            ("1to1-128", "nats", &[1_000_000]),
            ("1to1-128", "redis", &[500_000]),
            ("1to1-128", "relay", &[8_000_000]),
            ("1to1-128", "sealbus", &[4_000_000]),
            ("connects", "sealbus", &[900]),
        ]);
        latency(&mut results, "latency-1k", "nats", (90.0, 200.0));
        latency(&mut results, "latency-1k", "sealbus", (90.0, 400.0));
        results
    }

    /// Every element is closed in the order in which it was opened; text has no bare `<` or `&`.
    fn assert_well_formed(svg: &str) {
        let mut open = Vec::new();
        let mut rest = svg;
        while let Some((text, from)) = rest.split_once('<') {
            assert!(
                !text.replace("&amp;", "").replace("&lt;", "").replace("&gt;", "").contains('&'),
                "{text}"
            );
            let (tag, behind) = from.split_once('>').expect("a tag ends");
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
            let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap();
            if tag.starts_with('/') {
                assert_eq!(open.pop(), Some(name));
            } else if !tag.ends_with('/') {
                open.push(name);
            }
            rest = behind;
        }
        assert!(open.is_empty() && rest.trim().is_empty(), "{open:?} {rest:?}");
    }

    #[test]
    fn the_chart_is_well_formed_and_has_a_bar_for_everybody() {
        let svg = chart(&example());
        assert_well_formed(&svg);
        assert_eq!(svg.matches("rx=\"2\"").count(), 7);
        for words in [">4.00x<", ">4.00 M/s<", ">\u{2026} 8.00x<", ">400 us<"] {
            assert!(svg.contains(words), "{words} is in\n{svg}");
        }
        assert_eq!(svg.matches(">0.50x<").count(), 2, "redis, and a latency that is twice the best peer's");
    }

    #[test]
    fn bars_stay_within_the_picture() {
        let scale = Scale { multiple_max: 4.0 };
        assert!(scale.x_of(100.0) <= BAR_END_X && scale.x_of(-1.0) >= BAR_X);
        assert_well_formed(&chart(&Results::default()));
    }

    #[test]
    fn words_cannot_leave_their_element() {
        assert_well_formed(&text(1.0, 1.0, "a", "start", "a < b & c > d"));
    }
}
