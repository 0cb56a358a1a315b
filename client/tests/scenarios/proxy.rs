//! A wire that breaks: a TCP proxy that cuts each connection after some bytes.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::Mutex;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Starts a proxy. `lives` says for each connection in turn after how many bytes it is cut, both ways together;
/// connections beyond are not cut.
pub(crate) async fn start(to: SocketAddr, lives: Vec<usize>) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut lives = lives.into_iter();
        while let Ok((client, _)) = listener.accept().await {
            let life = lives.next().unwrap_or(usize::MAX);
            tokio::spawn(async move {
                let Ok(broker) = TcpStream::connect(to).await else { return };
                let life = Arc::new(Mutex::new(life));
                let (from_client, to_client) = client.into_split();
                let (from_broker, to_broker) = broker.into_split();
                // Both halves end when one does: dropping them closes the sockets.
                tokio::select! {
                    () = copy(from_client, to_broker, Arc::clone(&life)) => {}
                    () = copy(from_broker, to_client, life) => {}
                }
            });
        }
    });
    address
}

async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, life: Arc<Mutex<usize>>) {
    let mut buffer = vec![0; 8_192];
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else { return };
        let allowed = {
            let mut life = life.lock().unwrap();
            let allowed = read.min(*life);
            *life -= allowed;
            allowed
        };
        if to.write_all(&buffer[..allowed]).await.is_err() || allowed < read {
            return;
        }
    }
}
