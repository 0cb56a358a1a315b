//! Who is refused, and with which words.

use sealbus_client::{Code, Identity};

use crate::failure::Failure;

use super::ensure;
use super::stage::{BOARD, KIOSK, Stage};
use super::teller::Teller;

const NO_GRANT: &str = "that a service without a grant is refused";
const FOREIGN: &str = "that a foreign certificate is refused";

/// A certified service without a grant, and a certificate of a foreign authority.
pub(super) async fn tell(stage: &Stage, teller: &Teller) -> Result<(), Failure> {
    no_grant(stage, teller).await?;
    foreign(stage, teller).await
}

async fn no_grant(stage: &Stage, teller: &Teller) -> Result<(), Failure> {
    teller.chapter("A certificate alone opens nothing", "asking as the kiosk")?;
    let bus = stage.connect(KIOSK).await?;
    let publish = bus.publisher("flights/JFK/B6").await.map(drop);
    let publish = publish.err().ok_or_else(|| Failure::new(format!("show {NO_GRANT}"), "it may publish"))?;
    let subscribe = bus.subscribe("flights/#").await.map(drop);
    let subscribe =
        subscribe.err().ok_or_else(|| Failure::new(format!("show {NO_GRANT}"), "it may subscribe"))?;
    let denied = Some(Code::Denied);
    ensure(publish.code() == denied && subscribe.code() == denied, NO_GRANT, || {
        format!("refused for another reason: {publish}; {subscribe}")
    })?;
    ensure(publish.to_string().contains("kiosks-never-publish"), NO_GRANT, || {
        format!("the refusal does not name its rule: {publish}")
    })?;
    ensure(subscribe.to_string().contains("no rule allows it"), NO_GRANT, || {
        format!("the refusal does not say that no rule allows it: {subscribe}")
    })?;
    teller.say(&format!(
        "{} is let in, since our authority issued its certificate. It asks to publish on flights/JFK/B6, and then to \
         subscribe to flights/#:",
        bus.principal()
    ))?;
    teller.quote(&publish.to_string())?;
    teller.quote(&subscribe.to_string())?;
    teller.holds("Both refused: a denying rule is named, and without any rule the answer is no.")?;
    // A courtesy; everything was asked.
    let _ = bus.close().await;
    Ok(())
}

async fn foreign(stage: &Stage, teller: &Teller) -> Result<(), Failure> {
    teller.chapter("A certificate of somebody else's authority", "connecting with a forged certificate")?;
    let context = stage.context(BOARD)?;
    let (_, trust) = context.load()?;
    let folder = stage.forge_identity()?;
    let identity =
        Identity::from_dir(&folder).map_err(|error| Failure::new("read the forged identity", error))?;
    let connected = sealbus_client::connect(&context.server, identity, trust).await;
    let error = connected.err().ok_or_else(|| Failure::new(format!("show {FOREIGN}"), "it was let in"))?;
    ensure(matches!(error, sealbus_client::ConnectError::Tls { .. }), FOREIGN, || {
        format!("refused for another reason: {error}")
    })?;
    teller
        .say("Another authority issues a certificate for the board's own principal. Its holder connects:")?;
    teller.quote(&error.to_string())?;
    teller.holds("Refused in the TLS handshake, before a single frame was read.")
}
