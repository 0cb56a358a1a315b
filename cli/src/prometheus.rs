//! The text format that Prometheus and its kin scrape: families of samples, each with its help and its type.
//!
//! ```text
//!   # HELP sealbus_consumer_lag_messages Messages that are not settled.
//!   # TYPE sealbus_consumer_lag_messages gauge
//!   sealbus_consumer_lag_messages{stream="orders",consumer="billing"} 17
//! ```

use std::fmt::Write as _;

/// Whether a number only grows while the process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
}

/// A text of families, in the order in which they were added.
#[derive(Debug, Default)]
pub(crate) struct Exposition {
    text: String,
}

/// A sample's labels and its value.
pub(crate) type Sample<'s> = (Vec<(&'static str, &'s str)>, f64);

impl Exposition {
    /// Adds a family with one sample that has no labels.
    pub(crate) fn single(&mut self, name: &str, kind: Kind, help: &str, value: f64) {
        self.family(name, kind, help, [(Vec::new(), value)]);
    }

    /// Adds a family. Without samples it is left out: a help for nothing helps nobody.
    pub(crate) fn family<'s>(
        &mut self,
        name: &str,
        kind: Kind,
        help: &str,
        samples: impl IntoIterator<Item = Sample<'s>>,
    ) {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return;
        }
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        let text = &mut self.text;
        let _ = writeln!(text, "# HELP {name} {}", escaped(help, Quotes::Kept));
        let _ = writeln!(text, "# TYPE {name} {kind}");
        for (labels, value) in samples {
            let labels: Vec<String> = labels
                .iter()
                .map(|(label, value)| format!("{label}=\"{}\"", escaped(value, Quotes::Escaped)))
                .collect();
            let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            let _ = writeln!(text, "{name}{labels} {value}");
        }
    }

    /// The text.
    pub(crate) fn into_text(self) -> String {
        self.text
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quotes {
    Kept,
    Escaped,
}

fn escaped(text: &str, quotes: Quotes) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if quotes == Quotes::Escaped => out.push_str("\\\""),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_family_has_its_help_its_type_and_its_samples() {
        let mut exposition = Exposition::default();
        exposition.single("a_total", Kind::Counter, "All \"a\".\nReally.", 27_004.0);
        exposition.family(
            "b",
            Kind::Gauge,
            "Some b.",
            [(vec![("stream", "x\"y\\z\n"), ("consumer", "c")], 1.5), (vec![], 0.0)],
        );
        exposition.family("c", Kind::Gauge, "No c.", []);
        assert_eq!(
            exposition.into_text(),
            "# HELP a_total All \"a\".\\nReally.\n# TYPE a_total counter\na_total 27004\n\
             # HELP b Some b.\n# TYPE b gauge\nb{stream=\"x\\\"y\\\\z\\n\",consumer=\"c\"} 1.5\nb 0\n"
        );
    }
}
