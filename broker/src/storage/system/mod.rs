//! The broker's own logs: what it must not forget besides the streams.

mod consumer;
mod cursor_record;
mod cursors;
mod dead;
mod frame;
pub mod keys;
pub mod policies;
pub mod producers;
mod queue;
mod writer;

pub use consumer::{
    ACK_WAIT_MS_DEFAULT, ACK_WAIT_MS_MIN, AskedSettings, BACKOFF_STEPS_MAX, CURSOR_COUNTS_MAX,
    CURSOR_RANGES_MAX, Conflict, ConsumerKey, ConsumerSettings, Cursor, CursorError, DeliveryCount,
    MAX_DELIVER_DEFAULT, MaxDeliver, SettingsError, UNACKNOWLEDGED_DEFAULT, UNACKNOWLEDGED_MAX, WAIT_MS_MAX,
};
pub use cursor_record::{CursorChange, CursorRecordError, KIND_CONSUMER, KIND_REMOVED, KeptConsumer};
pub use cursors::{CursorAppendError, CursorLog, CursorsError, RecoveredCursors, RefusedRecord};
pub use dead::{dead_letters_id, dead_letters_name};
pub use frame::{Completion, SystemError, SystemFrame, SystemLog};
pub use writer::{RecoveredSystem, SystemLogs, SystemOpenError};

#[cfg(test)]
mod tests;
