//! Something between client and server that counts connections and spoils what they carry.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use conduit_net::{Io, Net};

/// What it does.
#[derive(Clone, Copy)]
pub(super) enum Spoil {
    Nothing,
    /// Changes a byte of the first payload that a client sends on each connection.
    Requests,
    /// Changes a byte of the first answer on each connection.
    Answers,
    /// Ends each connection when the server has said so many bytes.
    Cut {
        after: usize,
    },
}

/// How many connections there have been.
pub(super) struct Connections(Arc<AtomicUsize>);

impl Connections {
    pub(super) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// Listens for connections to `server`.
pub(super) async fn relay(net: Net, server: SocketAddr, spoil: Spoil) -> (SocketAddr, Connections) {
    let mut listener = net.bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let addr = listener.local_addr();
    let count = Arc::new(AtomicUsize::new(0));
    let connections = Connections(count.clone());
    tokio::spawn(async move {
        loop {
            let client = listener.accept().await.unwrap().io;
            count.fetch_add(1, Ordering::Relaxed);
            let net = net.clone();
            tokio::spawn(async move { between(client, net.connect(server).await.unwrap(), spoil).await });
        }
    });
    (addr, connections)
}

async fn between(client: Io, server: Io, spoil: Spoil) {
    let (from_client, to_client) = tokio::io::split(client);
    let (from_server, to_server) = tokio::io::split(server);
    let (requests, answers) = match spoil {
        Spoil::Requests => (true, false),
        Spoil::Answers => (false, true),
        Spoil::Nothing | Spoil::Cut { .. } => (false, false),
    };
    let limit = if let Spoil::Cut { after } = spoil { after } else { usize::MAX };
    let asking = copy(from_client, to_server, requests, usize::MAX);
    let answering = copy(from_server, to_client, answers, limit);
    tokio::pin!(asking, answering);
    // A direction that ends in order leaves the other open.
    tokio::select! {
        whole = &mut asking => if whole { answering.await; },
        whole = &mut answering => if whole { asking.await; },
    }
}

/// Copies until the end, or `limit`. True when it was the end.
async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    change: bool,
    limit: usize,
) -> bool {
    let (mut left, mut run, mut changed) = (limit, 0, !change);
    let mut buffer = vec![0; 8192];
    while let Ok(len) = from.read(&mut buffer).await {
        if len == 0 {
            drop(to.shutdown().await);
            return true;
        }
        let piece = &mut buffer[..len.min(left)];
        for byte in piece.iter_mut() {
            // Only payloads have so many bytes in a row that are no text.
            run = if *byte >= 0x80 { run + 1 } else { 0 };
            if run == 16 && !changed {
                (*byte, changed) = (*byte ^ 1, true);
            }
        }
        if to.write_all(piece).await.is_err() {
            return false;
        }
        left -= piece.len();
        if left == 0 {
            return false;
        }
    }
    false
}
