//! The shape as text, in Markdown that reads well unrendered.

use crate::report::{Columns, Machine, grouped, rate};

use super::rows::{Range, Row};
use super::series::{Allowed, Series};

const KIB: f64 = 1_024.0;

/// All series, each with a table.
pub(super) fn report(
    shape: &[(Series, Vec<Row>)],
    machine: &Machine,
    repetitions: u32,
    seconds: f64,
) -> String {
    let mut text = String::new();
    for (series, rows) in shape {
        let expected = match series.allowed() {
            Allowed::Constant => "should cost the same in every row",
            Allowed::Linear => "may cost as many times as much as the value grows",
        };
        text.push_str(&format!("## {}\n\n{}", series.title(), table(*series, rows)));
        text.push_str(&format!("\nA {} {expected}.\n\n", each(*series)));
    }
    text.push_str(&format!(
        "Everything else at the baseline: 1 publisher, 1 subscriber, 1 topic, 128 B, 10 rules. CPU is the broker's, user \
         and system; growth is\nagainst the first row. Medians, ranges in brackets.\n{}, {} cores, Linux {}, TCP with {}. \
         repetitions: {repetitions}, windows of {seconds} s.\n",
        machine.processor, machine.cores, machine.kernel, machine.congestion_control,
    ));
    let lost: u64 = shape.iter().flat_map(|(_, rows)| rows).map(|row| row.lost).sum();
    if lost > 0 {
        text.push_str("LOST: so many messages were sent and never came.\n");
    }
    text
}

/// What CPU is counted for.
pub(super) const fn each(series: Series) -> &'static str {
    match series {
        Series::Subscribers => "delivery",
        Series::Topics | Series::Rules | Series::Connections | Series::Size | Series::Batch => "message",
    }
}

fn table(series: Series, rows: &[Row]) -> String {
    let rate_head = match each(series) {
        "delivery" => "deliveries/s",
        _ => "messages/s",
    };
    let cpu_head = format!("CPU us a {}", each(series));
    let mut heads = vec![series.name().to_owned()];
    heads.extend(own_heads(series).iter().map(|head| (*head).to_owned()));
    heads.extend([rate_head, &cpu_head, "growth", "in a batch", "broker MiB"].map(str::to_owned));
    heads.push("remark".to_owned());
    let mut columns = Columns::new(0, heads);
    for row in rows {
        let mut cells = vec![value(series, row.value)];
        cells.extend(own_cells(series, row));
        cells.extend([
            bracketed(row.deliveries_per_second, rate),
            bracketed(row.cpu_us, figure),
            format!("{}x", figure(row.growth)),
            figure(row.messages_per_batch.median),
            figure(row.resident_bytes.median / KIB / KIB),
            remark(row),
        ]);
        columns.row(cells);
    }
    columns.render()
}

fn remark(row: &Row) -> String {
    let said = row.remark.map(|remark| remark.words().to_owned());
    let lost = (row.lost > 0).then(|| format!("LOST {}", grouped(row.lost as f64)));
    said.into_iter().chain(lost).collect::<Vec<_>>().join(", ")
}

/// What only this series has.
const fn own_heads(series: Series) -> &'static [&'static str] {
    match series {
        Series::Topics => &["sessions", "principals"],
        Series::Rules => &["start ms", "reload ms"],
        Series::Connections => &["KiB each", "reload ms"],
        Series::Subscribers | Series::Size | Series::Batch => &[],
    }
}

fn own_cells(series: Series, row: &Row) -> Vec<String> {
    match series {
        Series::Topics => {
            let scene = series.scene(row.value);
            vec![scene.publishing_sessions().to_string(), scene.publishing_principals().to_string()]
        }
        Series::Rules => vec![figure(row.start_ms.median), figure(row.reload_ms.median)],
        Series::Connections => {
            let each = row.bytes_per_connection.map(|bytes| figure(bytes.median / KIB));
            vec![each.unwrap_or_else(|| "-".to_owned()), figure(row.reload_ms.median)]
        }
        Series::Subscribers | Series::Size | Series::Batch => Vec::new(),
    }
}

/// A value of the variable: bytes with their unit, numbers with commas.
pub(super) fn value(series: Series, value: u32) -> String {
    match series {
        Series::Size | Series::Batch => match value {
            1_048_576.. => format!("{} MiB", value / 1_048_576),
            1_024.. => format!("{} KiB", value / 1_024),
            _ => format!("{value} B"),
        },
        Series::Topics | Series::Subscribers | Series::Rules | Series::Connections => {
            grouped(f64::from(value))
        }
    }
}

/// Three digits that count, and no more.
pub(super) fn figure(figure: f64) -> String {
    match figure {
        figure if figure >= 99.95 => grouped(figure),
        figure if figure >= 9.995 => format!("{figure:.1}"),
        figure if figure >= 0.9995 => format!("{figure:.2}"),
        figure => format!("{figure:.3}"),
    }
}

/// The median, and the range when there was more than one measurement.
fn bracketed(range: Range, text: impl Fn(f64) -> String) -> String {
    let Range { median, lowest, highest } = range;
    if lowest < highest {
        format!("{} ({} - {})", text(median), text(lowest), text(highest))
    } else {
        text(median)
    }
}

#[cfg(test)]
mod tests {
    use super::super::rows::examples::sample;
    use super::super::rows::rows;
    use super::*;

    fn machine() -> Machine {
        Machine {
            processor: "a processor".to_owned(),
            cores: 2,
            kernel: "6".to_owned(),
            file_system: "ext4".to_owned(),
            congestion_control: "cubic".to_owned(),
        }
    }

    #[test]
    fn figures_have_three_digits_that_count() {
        for (number, expected) in
            [(0.1524, "0.152"), (1.0, "1.00"), (9.999, "10.0"), (12.34, "12.3"), (4_096.0, "4,096")]
        {
            assert_eq!(figure(number), expected);
        }
    }

    #[test]
    fn values_have_their_unit() {
        assert_eq!(value(Series::Topics, 100_000), "100,000");
        assert_eq!(value(Series::Size, 16), "16 B");
        assert_eq!(value(Series::Size, 65_536), "64 KiB");
        assert_eq!(value(Series::Batch, 1_048_576), "1 MiB");
    }

    #[test]
    fn rows_have_a_cell_for_each_head_and_growth_is_marked() {
        for series in Series::ALL {
            let values = series.values();
            let samples: Vec<_> = values
                .iter()
                .enumerate()
                .map(|(at, value)| (*value, sample(20_f64.powi(at as i32), 9.0)))
                .collect();
            let text = table(series, &rows(series, &samples));
            let cells: Vec<usize> = text.lines().map(|line| line.matches('|').count()).collect();
            assert!(cells.windows(2).all(|pair| pair[0] == pair[1]), "{text}");
            assert_eq!(text.lines().count(), values.len() + 2);
            assert!(text.contains("MORE THAN"), "{text}");
        }
    }

    #[test]
    fn the_report_says_how_it_was_measured_and_what_was_lost() {
        let mut samples = [(1, sample(0.2, 900.0)), (100_000, sample(40.0, 1.0))];
        let shape = |samples: &[_]| [(Series::Topics, rows(Series::Topics, samples))];
        let text = report(&shape(&samples), &machine(), 3, 2.0);
        for words in
            ["| 100,000 |      100 |         10 |", "fewer in a batch", "repetitions: 3", "a processor"]
        {
            assert!(text.contains(words), "{words} is in\n{text}");
        }
        assert!(!text.contains("LOST"));
        samples[1].1.lost = 1_234;
        assert!(report(&shape(&samples), &machine(), 3, 2.0).contains("LOST 1,234 |"));
    }
}
