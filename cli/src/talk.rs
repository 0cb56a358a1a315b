//! What a connection goes through, told on stderr while a command runs.

use sealbus_client::{Event, Events};
use tokio::task::JoinHandle;

use crate::text::visible;

/// Tells of the events that a person wants to know, until the bus ends or the task is aborted. Lag, gaps and
/// rejections are not among them: the command that receives tells those in their place.
pub(crate) fn follow(mut events: Events) -> JoinHandle<()> {
    tokio::spawn(async move {
        // The first connection needs no words: the command is about to do what it was asked for.
        let mut was_disconnected = false;
        while let Some(event) = events.next().await {
            was_disconnected |= matches!(event, Event::Disconnected { .. });
            match sentence(&event) {
                Some(_) if matches!(event, Event::Connected { .. }) && !was_disconnected => {}
                Some(sentence) => eprintln!("{}", visible(&sentence)),
                None => {}
            }
        }
    })
}

fn sentence(event: &Event) -> Option<String> {
    match event {
        Event::Connected { session, generation } => {
            Some(format!("connected: session {session}, policy generation {generation}"))
        }
        Event::Disconnected { reason } => Some(format!("disconnected: {reason}")),
        // Each attempt would be a line; the first says enough until it succeeds.
        Event::Reconnecting { attempt: 1, .. } => Some("reconnecting".to_owned()),
        Event::PolicyChanged { generation, version, .. } => {
            Some(format!("policy version {version} is in force, generation {generation}"))
        }
        Event::Draining { deadline_ms } => Some(format!("the broker shuts down within {deadline_ms} ms")),
        Event::Narrowed { filter } => {
            Some(format!("the subscription to {filter} is narrowed: the policy grants only some of it"))
        }
        Event::NewIncarnation { because, .. } => {
            Some(format!("publishing goes on as a new incarnation: {because}"))
        }
        Event::Lost { topic, from, to } => {
            Some(format!("whether messages {from} to {to} on {topic} were accepted cannot be known"))
        }
        Event::SettleRefused { refusal } => {
            Some(format!("acknowledgements were refused, their messages come again: {refusal}"))
        }
        Event::CheckpointInconsistent { stream, older, newer } => Some(format!(
            "the history of {stream} is not the one that was seen before; keep both checkpoints: {} and {}",
            older.escape_debug(),
            newer.escape_debug()
        )),
        Event::IdentityReloaded => Some("the certificate was read anew".to_owned()),
        Event::EventsLost { count } => Some(format!("{count} events were not told")),
        _ => None,
    }
}
