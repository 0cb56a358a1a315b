//! From nothing to a session that serves: dial, HELLO, WELCOME, within one deadline.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _};
use sealbus_protocol::batch::produce::ProducerContext;
use sealbus_protocol::frame::{Hello, Welcome};
use sealbus_protocol::keys::SIGNATURE_LEN;
use sealbus_protocol::limits::FRAME_BYTES_MAX;
use sealbus_protocol::proof::{self, Exporter};
use sealbus_protocol::session::{ClientEvent, ClientSession, MINOR, SessionError};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::clock::{self, Ticker};
use crate::error::ConnectError;
use crate::identity::Identity;

use super::dial::{Dial, failed};
use super::keys::Keys;

/// What every attempt of one incarnation has in common.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) keys: Arc<Keys>,
    pub(super) context: ProducerContext,
    pub(super) agent: String,
    pub(super) connect_timeout: Duration,
    pub(super) ticker: Ticker,
}

/// A session that serves.
pub(super) struct Established<T> {
    pub(super) transport: T,
    pub(super) session: ClientSession,
    pub(super) welcome: Box<Welcome>,
}

/// Makes one attempt, as this identity.
pub(super) async fn establish<D: Dial>(
    dialer: &D,
    identity: &Identity,
    plan: &Plan,
) -> Result<Established<D::Transport>, ConnectError> {
    let attempt = async {
        let binding = plan.keys.bind(identity)?;
        let mut link = dialer.dial(identity).await?;
        let mut session = ClientSession::new_at(plan.ticker.tick());
        session.hello(&plan.hello(binding, &link.exporter));
        let welcome = greet(&mut link.transport, &mut session, plan, dialer.server()).await?;
        if welcome.principal != plan.keys.principal {
            let (ours, found) = (plan.keys.principal.clone(), welcome.principal);
            return Err(ConnectError::Principal { ours, found });
        }
        Ok(Established { transport: link.transport, session, welcome })
    };
    timeout(plan.connect_timeout, attempt).await.unwrap_or_else(|_| {
        let after_ms = clock::milliseconds(plan.connect_timeout);
        Err(ConnectError::Timeout { server: dialer.server().to_owned(), after_ms })
    })
}

impl Plan {
    /// HELLO, proven on this very connection.
    fn hello(&self, binding: bytes::Bytes, exporter: &Exporter) -> Hello {
        let mut hello = Hello {
            bus_id: self.context.bus_id,
            minor_min: MINOR,
            minor_max: MINOR,
            instance_kind: self.keys.instance_kind,
            features: 0,
            frame_bytes_max: u32::try_from(FRAME_BYTES_MAX).expect("a frame is a little over a megabyte"),
            instance_id: self.context.instance_id,
            started_ms: self.context.started_ms,
            incarnation_id: self.context.incarnation_id,
            kid: self.context.kid,
            binding,
            agent: self.agent.clone(),
            proof: [0; SIGNATURE_LEN],
        };
        hello.proof = proof::sign(&self.keys.signing_key, exporter, &hello.bus_id, &hello.fields());
        hello
    }
}

/// Sends HELLO and awaits WELCOME.
async fn greet<T: AsyncRead + AsyncWrite + Unpin>(
    transport: &mut T,
    session: &mut ClientSession,
    plan: &Plan,
    server: &str,
) -> Result<Box<Welcome>, ConnectError> {
    // A broker that refuses our certificate closes at once. Then the write fails, and why can still be read.
    let written = write_out(transport, session).await;
    loop {
        match session.poll_event().map_err(ConnectError::Protocol)? {
            Some(ClientEvent::Welcome(welcome)) => return Ok(welcome),
            Some(ClientEvent::Failed(refusal)) => return Err(ConnectError::Refused(refusal)),
            Some(_) => {
                let kind = sealbus_protocol::frame::FrameType::Welcome;
                return Err(ConnectError::Protocol(SessionError::Unexpected { kind, awaited: "WELCOME" }));
            }
            None => {}
        }
        let space_len = session.space_len();
        let read = transport.read_buf(&mut session.space().limit(space_len)).await;
        match (read, &written) {
            (Ok(0), Ok(())) => {
                let error = io::Error::new(io::ErrorKind::UnexpectedEof, "closed before the session began");
                return Err(failed(server.to_owned(), error));
            }
            (Ok(0), Err(error)) => {
                return Err(failed(server.to_owned(), io::Error::new(error.kind(), error.to_string())));
            }
            (Ok(_), _) => session.handle_input_at(plan.ticker.tick()),
            (Err(error), _) => return Err(failed(server.to_owned(), error)),
        }
    }
}

async fn write_out<T: AsyncWrite + Unpin>(transport: &mut T, session: &mut ClientSession) -> io::Result<()> {
    while session.outgoing().has_remaining() {
        transport.write_buf(session.outgoing()).await?;
    }
    transport.flush().await
}
