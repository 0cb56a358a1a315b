//! The audit log of it all.

use std::time::{Duration, Instant};

use sealbus_client::Bus;

use crate::audit_line::AuditLine;
use crate::bus_folder::OPERATOR;
use crate::command::audit::Log;
use crate::failure::Failure;
use crate::table::Table;
use crate::text::rfc3339_ms;

use super::ensure;
use super::stage::Stage;
use super::teller::Teller;

const CHAPTER: &str = "that all of it is in the audit log";

/// Sessions and refusals are on the disk within a second; a machine may be busy.
const DURABLE_TIMEOUT: Duration = Duration::from_secs(5);

/// Events that the story made, and how many lines of each are shown.
const SHOWN: [(&str, usize); 7] = [
    ("broker-started", 1),
    ("policy-reloaded", 2),
    ("opened", 1),
    ("subscribed", 2),
    ("denied", 2),
    ("handshake-failed", 1),
    ("admin-done", 1),
];

/// Characters of a cell; the log has the rest.
const CELL_CHARACTERS_MAX: usize = 46;

/// Reads the log as the operator, checks that the story is in it, and shows the telling lines.
pub(super) async fn tell(stage: &Stage, teller: &Teller) -> Result<(), Failure> {
    teller.chapter("The audit log of it all", "reading the audit log")?;
    let operator = stage.connect(OPERATOR).await?;
    let lines = read(&operator, stage).await?;
    let mut shown: Vec<&AuditLine> =
        SHOWN.iter().flat_map(|(event, count)| of(&lines, event).take(*count)).collect();
    shown.sort_by_key(|line| line.seq);
    let mut table = Table::new(["seq", "time", "event", "who", "what", "why"]);
    for line in shown {
        let time = rfc3339_ms(line.time_ms);
        let time = time.split_once('T').map_or(time.as_str(), |(_, time)| time.trim_end_matches('Z'));
        let who = line.who.rsplit('/').next().unwrap_or_default();
        table.row([&line.seq.to_string(), time, &line.event, who, &cut(&line.what), &cut(&line.why)]);
    }
    teller.table(&table.render())?;
    let gaps = lines.iter().zip(0_u64..).filter(|(line, seq)| line.seq != *seq).count();
    ensure(gaps == 0, CHAPTER, || "the lines are not numbered without a gap".to_owned())?;
    teller.holds(&format!(
        "{} lines, numbered without a gap, written before changes took effect and within a second of everything else. \
         None holds a payload or a key.",
        lines.len()
    ))?;
    // A courtesy; everything was read.
    let _ = operator.close().await;
    Ok(())
}

/// The log, once everything is in it that the story made.
async fn read(operator: &Bus, stage: &Stage) -> Result<Vec<AuditLine>, Failure> {
    let server = stage.address().to_string();
    let log = Log { bus: operator, server: &server };
    let deadline = Instant::now() + DURABLE_TIMEOUT;
    let (mut from, mut lines) = (0, Vec::new());
    loop {
        for line in log.read_from(&mut from).await? {
            let parsed = AuditLine::parse(&line);
            lines.push(
                parsed
                    .ok_or_else(|| Failure::new(format!("show {CHAPTER}"), format!("not a line: {line}")))?,
            );
        }
        let missing: Vec<&str> = SHOWN
            .iter()
            .filter(|(event, count)| of(&lines, event).take(*count).count() < *count)
            .map(|(event, _)| *event)
            .collect();
        if missing.is_empty() {
            return Ok(lines);
        }
        ensure(Instant::now() < deadline, CHAPTER, || {
            format!("there are too few lines of {}", missing.join(", "))
        })?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn of<'l>(lines: &'l [AuditLine], event: &'l str) -> impl Iterator<Item = &'l AuditLine> {
    lines.iter().filter(move |line| line.event == event)
}

fn cut(cell: &str) -> String {
    match cell.char_indices().nth(CELL_CHARACTERS_MAX) {
        Some((end, _)) => format!("{}…", cell.get(..end).unwrap_or_default()),
        None => cell.to_owned(),
    }
}
