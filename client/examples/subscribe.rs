//! Prints what is published on the topics of a filter, and who proved to have published it.
//!
//! ```sh
//! cargo run --example subscribe -- localhost:7433 IDENTITY_DIR TRUST_FILE 'orders/#'
//! ```

use std::error::Error;

use sealbus_client::{DeliveryError, Identity, Trust};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [server, identity, trust, filter] = arguments.as_slice() else {
        return Err("usage: subscribe SERVER IDENTITY_DIR TRUST_FILE FILTER".into());
    };
    let bus =
        sealbus_client::connect(server, Identity::from_dir(identity)?, Trust::from_file(trust)?).await?;
    let mut subscription = bus.subscribe(filter).await?;
    while let Some(next) = subscription.next().await {
        match next {
            Ok(message) => println!(
                "{} {} {}: {}",
                message.topic(),
                message.producer(),
                message.sequence(),
                String::from_utf8_lossy(message.payload())
            ),
            Err(DeliveryError::Closed(reason)) => return Err(reason.to_string().into()),
            // Lag, gaps and refused batches are said where they happen, and the stream goes on.
            Err(error) => eprintln!("{error}"),
        }
    }
    Ok(())
}
