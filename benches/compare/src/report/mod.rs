//! What the run has found, told: a table, the floors, lines of JSON, a chart.

mod chart;
mod columns;
mod figures;
mod floors;
mod json;
mod machine;
mod results;
mod table;

pub use chart::chart;
pub(crate) use columns::Columns;
pub(crate) use figures::{grouped, rate};
pub use floors::{Judged, Verdict, judge};
pub use json::lines;
pub use machine::Machine;
pub use results::{Absent, Entrant, Measurement, Participant, Placement, Results};
pub use table::report;
