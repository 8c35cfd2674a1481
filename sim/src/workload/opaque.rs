//! A protocol that nobody knows: a length, whether this is the end, and a payload; back come a length and an answer.

use std::io;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};

use super::{
    payload::{MAX_ANSWER, MAX_PAYLOAD},
    request::{Problem, Request},
    server::Server,
    wire::{Wire, read_exactly, read_frame, write_frame},
};

/// Asks once. On a connection that is used no more, the client may end its direction before it has the answer, and then
/// reads until the server ends the other.
pub(super) async fn ask(wire: &mut Wire, request: &Request, last: bool) -> Result<(), Problem> {
    let ends = last && request.half_close;
    let mut head = (request.payload.len() as u32).to_be_bytes().to_vec();
    head.push(u8::from(ends));
    wire.write_all(&head).await?;
    wire.write_all(&request.payload).await?;
    wire.flush().await?;
    if ends {
        wire.shutdown().await?;
    }
    request.verify(&read_frame(wire, MAX_ANSWER).await?)?;
    if ends && !wire.fill_buf().await?.is_empty() {
        return Err(Problem::Wrong("bytes after the answer".into()));
    }
    if last && !ends {
        // It is answered, whatever becomes of the connection.
        drop(wire.shutdown().await);
    }
    Ok(())
}

/// Answers until the client ends.
pub(super) async fn serve(server: &Server, wire: &mut Wire, idle: std::time::Duration) -> io::Result<()> {
    let mut first = true;
    while server.another(wire, first, idle).await? {
        first = false;
        if server.in_time(answer(server, wire)).await? {
            break;
        }
    }
    wire.shutdown().await
}

/// Answers one operation. True when it was the last.
async fn answer(server: &Server, wire: &mut Wire) -> io::Result<bool> {
    let len = wire.read_u32().await? as usize;
    let ends = wire.read_u8().await? != 0;
    let payload = read_exactly(wire, len, MAX_PAYLOAD).await?;
    let mut answer = server.received(&payload)?;
    if ends && !wire.fill_buf().await?.is_empty() {
        answer = b"bytes after the end".to_vec();
    }
    write_frame(wire, &answer).await?;
    Ok(ends)
}
