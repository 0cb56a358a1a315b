//! The shape as lines of JSON: the machine, every measurement, the rows.

use serde_json::{Value, json};

use crate::report::Machine;

use super::rows::{Row, Sample};
use super::series::Series;

/// The lines, each ended.
pub(super) fn lines(
    samples: &[(Series, u32, Sample)],
    rows: &[(Series, Vec<Row>)],
    machine: &Machine,
    repetitions: u32,
    seconds: f64,
) -> String {
    let mut values = vec![json!({
        "type": "shape",
        "machine": machine,
        "repetitions": repetitions,
        "seconds": seconds,
    })];
    values.extend(samples.iter().map(|(series, value, sample)| {
        json!({ "type": "sample", "series": series, "value": value, "sample": sample })
    }));
    for (series, rows) in rows {
        values.extend(rows.iter().map(|row| row_of(*series, row)));
    }
    values.iter().map(|value| format!("{value}\n")).collect()
}

fn row_of(series: Series, row: &Row) -> Value {
    json!({ "type": "row", "series": series, "row": row })
}

#[cfg(test)]
mod tests {
    use super::super::rows::examples::sample;
    use super::super::rows::rows;
    use super::*;

    #[test]
    fn every_line_is_json_and_says_what_it_is() {
        let machine = Machine {
            processor: String::new(),
            cores: 2,
            kernel: String::new(),
            file_system: String::new(),
            congestion_control: String::new(),
        };
        let samples = [(10, sample(1.0, 9.0)), (100, sample(3.0, 9.0))];
        let measured: Vec<_> =
            samples.iter().map(|(value, sample)| (Series::Rules, *value, *sample)).collect();
        let text = lines(&measured, &[(Series::Rules, rows(Series::Rules, &samples))], &machine, 1, 2.0);
        let values: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let types: Vec<&str> = values.iter().filter_map(|value| value["type"].as_str()).collect();
        assert_eq!(types, ["shape", "sample", "sample", "row", "row"]);
        assert_eq!(values[2]["sample"]["cpu_us"], 3.0);
        assert_eq!((values[4]["row"]["growth"].as_f64(), &values[4]["series"]), (Some(3.0), &"rules".into()));
        assert_eq!(values[4]["row"]["remark"], "more-than-constant");
    }
}
