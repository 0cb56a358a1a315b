//! What a broker holds in memory, alone and with connections that are subscribed and silent.

use std::time::Duration;

use crate::conversation::{Conversation as _, Talk};
use crate::failure::Failure;
use crate::outcome::Memory;

use super::timing::Timing;

/// How long a broker has to come to rest before its memory is looked at.
const REST: Duration = Duration::from_millis(500);

pub(super) async fn measure<T: Talk>(talk: &T, connections: u32, timing: &Timing) -> Result<Memory, Failure> {
    tokio::time::sleep(REST).await;
    let alone_bytes = timing.usage()?.resident_bytes;
    let mut held = Vec::new();
    for index in 0..connections {
        let mut conversation = talk.connect().await?;
        conversation.subscribe(&format!("load/{index}")).await?;
        held.push(conversation);
    }
    tokio::time::sleep(REST).await;
    let loaded_bytes = timing.usage()?.resident_bytes;
    drop(held);
    Ok(Memory { alone_bytes, loaded_bytes, connections })
}
