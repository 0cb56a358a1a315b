//! `sealbus demo`: the promises of the bus, one after the other, on real data and over real TLS.
//!
//! Each chapter does something, checks its numbers, and tells it. A chapter that does not find what it says ends the
//! demo with exit code 1. The broker is the real one, in this process, and in one of its own where it is killed; the
//! network is 127.0.0.1.
//!
//! Read `stage` for what is set up, then the chapters in their order: `flow`, `refusals`, `takeover`, `withdrawal`,
//! `record`, `killed`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::failure::{Failure, Verdict};

mod flights;
mod flow;
mod killed;
mod record;
mod refusals;
mod stage;
mod takeover;
mod tap;
mod teller;
mod withdrawal;

use stage::Stage;
use teller::Teller;

/// Tells the whole story.
pub(crate) async fn run(keep: Option<&Path>) -> Result<Verdict, Failure> {
    let start = Instant::now();
    let temporary = tempfile::tempdir().map_err(|error| Failure::new("make a temporary folder", error))?;
    let folder: PathBuf = keep.map_or_else(|| temporary.path().join("bus"), Path::to_owned);
    let flights = flights::all()?;
    let teller = Teller::new();
    teller.title(&format!("Sealbus on {} departures from New York, 1 January 2013", flights.len()))?;

    let stage = Stage::set(&folder, temporary.path(), &teller).await?;
    let captured = flow::tell(&stage, &flights, &teller).await?;
    refusals::tell(&stage, &teller).await?;
    takeover::tell(&stage, &captured, flights.len(), &teller).await?;
    withdrawal::tell(&stage, &flights, &teller).await?;
    record::tell(&stage, &teller).await?;
    let closed = stage.strike().await?;
    killed::tell(&closed, &flights, &teller).await?;

    teller.end(&format!("Every step did what it says. {:.1} s.", start.elapsed().as_secs_f64()))?;
    match keep {
        Some(folder) => stage::invite(folder, &teller)?,
        None => teller.say("sealbus demo --keep DIR leaves the bus there, with commands to explore it.")?,
    }
    Ok(Verdict::Done)
}

/// Goes on only when something holds that the demo is about to say.
fn ensure(holds: bool, chapter: &str, found: impl FnOnce() -> String) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(Failure::new(format!("show {chapter}"), found())) }
}
