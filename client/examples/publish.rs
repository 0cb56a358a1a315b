//! Publishes the lines of standard input on a topic, and says how many were accepted.
//!
//! ```sh
//! cargo run --example publish -- localhost:7433 IDENTITY_DIR TRUST_FILE orders/eu/created < lines.txt
//! ```

use std::error::Error;
use std::io::BufRead as _;

use sealbus_client::{Identity, Trust};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [server, identity, trust, topic] = arguments.as_slice() else {
        return Err("usage: publish SERVER IDENTITY_DIR TRUST_FILE TOPIC".into());
    };
    let bus =
        sealbus_client::connect(server, Identity::from_dir(identity)?, Trust::from_file(trust)?).await?;
    let publisher = bus.publisher(topic).await?;
    let mut last = None;
    for line in std::io::stdin().lock().lines() {
        // Waits for room only; the receipts come in their own time.
        last = Some(publisher.enqueue_when_ready(line?).await?);
    }
    publisher.flush().await?;
    if let Some(receipt) = last {
        let receipt = receipt.await?;
        println!("accepted up to sequence {} ({})", receipt.sequence(), receipt.durability().as_str());
    }
    bus.close().await?;
    Ok(())
}
