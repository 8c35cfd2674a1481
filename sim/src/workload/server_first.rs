//! A protocol in which the server speaks first, as mail and databases do. The client is silent until it was greeted.

use std::{io, time::Duration};

use tokio::io::AsyncWriteExt;

use super::{
    payload::{MAX_ANSWER, MAX_PAYLOAD},
    request::{Problem, Request},
    server::Server,
    wire::{Wire, broken, read_exactly, read_line, wire},
};

/// Waits for the greeting on a new connection.
pub(super) async fn open(stream: impl super::wire::Duplex + 'static) -> Result<Wire, Problem> {
    let mut wire = wire(stream);
    let greeting = read_line(&mut wire).await?;
    match greeting.starts_with("220 ") {
        true => Ok(wire),
        false => Err(Problem::Wrong(format!("greeted with {greeting:?}"))),
    }
}

/// Asks once, on a connection that has greeted.
pub(super) async fn ask(wire: &mut Wire, request: &Request, last: bool) -> Result<(), Problem> {
    wire.write_all(format!("SEND {} {}\r\n", request.id, request.payload.len()).as_bytes()).await?;
    wire.write_all(&request.payload).await?;
    wire.flush().await?;
    let line = read_line(wire).await?;
    let len = line.strip_prefix("250 ").and_then(|len| len.parse().ok());
    let len = len.ok_or_else(|| Problem::Wrong(format!("answered with {line:?}")))?;
    request.verify(&read_exactly(wire, len, MAX_ANSWER).await?)?;
    if last {
        // It is answered, whatever becomes of the connection.
        drop(wire.shutdown().await);
    }
    Ok(())
}

/// Greets, and answers until the client ends.
pub(super) async fn serve(server: &Server, wire: &mut Wire, idle: Duration) -> io::Result<()> {
    tokio::time::sleep(server.options.greeting_delay).await;
    wire.write_all(format!("220 {}\r\n", server.identity.workload).as_bytes()).await?;
    wire.flush().await?;
    let mut first = true;
    while server.another(wire, first, idle).await? {
        first = false;
        server.in_time(answer(server, wire)).await?;
    }
    wire.shutdown().await
}

async fn answer(server: &Server, wire: &mut Wire) -> io::Result<()> {
    let line = read_line(wire).await?;
    let len = line.strip_prefix("SEND op-").and_then(|rest| rest.split(' ').nth(1)?.parse().ok());
    let len = len.ok_or_else(|| broken(format!("asked with {line:?}")))?;
    let payload = read_exactly(wire, len, MAX_PAYLOAD).await?;
    let answer = server.received(&payload)?;
    wire.write_all(format!("250 {}\r\n", answer.len()).as_bytes()).await?;
    wire.write_all(&answer).await?;
    wire.flush().await
}
