//! The command that deals with a message: payload on stdin, everything else in its environment.
//!
//! The command line is what the operator wrote, and the same for every message. Whoever publishes decides about bytes
//! on stdin and values of variables, and about nothing that a shell reads as a command.

use std::io::{self, Write as _};
use std::process::{Command, ExitStatus, Stdio};

use sealbus_client::Message;

use crate::failure::Failure;
use crate::text::rfc3339_ms;

/// Runs one command for each message.
pub(super) struct Handler {
    command: String,
    consumer: String,
}

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Handled {
    /// The command ended with 0.
    Done,
    /// It did not; in words.
    Failed(String),
}

impl Handler {
    pub(super) fn new(command: &str, consumer: &str) -> Self {
        Self { command: command.to_owned(), consumer: consumer.to_owned() }
    }

    /// Runs the command to its end. It is not cut short when this is dropped.
    pub(super) async fn handle(&self, message: &Message) -> Result<Handled, Failure> {
        let mut command = Command::new("sh");
        command.arg("-c").arg(&self.command).envs(variables(message, &self.consumer)).stdin(Stdio::piped());
        let payload = message.payload_bytes();
        let ended = tokio::task::spawn_blocking(move || run(&mut command, &payload)).await;
        let failed = |error: &dyn std::fmt::Display| {
            Failure::new(format!("run the command {} with sh", self.command), error)
        };
        ended.map_err(|error| failed(&error))?.map(handled).map_err(|error| failed(&error))
    }
}

fn run(command: &mut Command, payload: &[u8]) -> io::Result<ExitStatus> {
    let mut child = command.spawn()?;
    let mut stdin = child.stdin.take().expect("stdin was asked to be a pipe");
    // A command need not read what it is given: the pipe is broken then, and its exit code counts all the same.
    let _ = stdin.write_all(payload);
    drop(stdin);
    child.wait()
}

fn handled(status: ExitStatus) -> Handled {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(0), _) => Handled::Done,
        (Some(code), _) => Handled::Failed(format!("ended with {code}")),
        (None, Some(signal)) => Handled::Failed(format!("was ended by signal {signal}")),
        (None, None) => Handled::Failed("ended".to_owned()),
    }
}

/// What the command is told beside the payload. A variable cannot hold a NUL: topics and principals have none, and a
/// key that has one is left out like one that is no text.
fn variables(message: &Message, consumer: &str) -> Vec<(&'static str, String)> {
    let mut variables = vec![
        ("SEALBUS_CONSUMER", consumer.to_owned()),
        ("SEALBUS_TOPIC", message.topic().to_string()),
        ("SEALBUS_PRODUCER", message.producer().to_string()),
        ("SEALBUS_SEQUENCE", message.sequence().to_string()),
        ("SEALBUS_DELIVERIES", message.deliveries().to_string()),
    ];
    variables.extend(message.stream().map(|stream| ("SEALBUS_STREAM", stream.to_string())));
    variables.extend(message.offset().map(|offset| ("SEALBUS_OFFSET", offset.to_string())));
    variables.extend(message.appended_ms().map(|appended_ms| ("SEALBUS_STORED", rfc3339_ms(appended_ms))));
    let key = std::str::from_utf8(message.key()).ok().filter(|key| !key.is_empty() && !key.contains('\0'));
    variables.extend(key.map(|key| ("SEALBUS_KEY", key.to_owned())));
    variables
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    #[test]
    fn only_exit_code_0_is_done() {
        assert_eq!(handled(ExitStatus::from_raw(0)), Handled::Done);
        assert_eq!(handled(ExitStatus::from_raw(3 << 8)), Handled::Failed("ended with 3".to_owned()));
        assert_eq!(handled(ExitStatus::from_raw(9)), Handled::Failed("was ended by signal 9".to_owned()));
    }
}
