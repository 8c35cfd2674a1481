//! An HTTP/1.1 upgrade to WebSocket, and then lengths and messages. The frames are not RFC 6455's: to everything between
//! the two ends they are bytes after a 101.

use std::{io, time::Duration};

use tokio::io::AsyncWriteExt;

use super::{
    payload::{MAX_ANSWER, MAX_PAYLOAD},
    request::{Problem, Request},
    server::Server,
    wire::{Duplex, Wire, broken, read_frame, read_line, wire, write_frame},
};

/// The key and what accepts it, from RFC 6455 section 1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The most header fields that a head may have.
const MAX_FIELDS: usize = 64;

/// Upgrades a new connection to `authority`.
pub(super) async fn open(
    stream: impl Duplex + 'static,
    authority: &str,
    request: &Request,
) -> Result<Wire, Problem> {
    let mut wire = wire(stream);
    let head = format!(
        "GET /ws/{} HTTP/1.1\r\nhost: {authority}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: {KEY}\r\n\r\n",
        request.id
    );
    wire.write_all(head.as_bytes()).await?;
    wire.flush().await?;
    let (status, fields) = read_head(&mut wire).await?;
    if !status.starts_with("HTTP/1.1 101") {
        return Err(Problem::Failed(format!("no upgrade: {status}")));
    }
    if field(&fields, "sec-websocket-accept") != Some(ACCEPT) || field(&fields, "upgrade").is_none() {
        return Err(Problem::Wrong(format!("upgraded with {fields:?}")));
    }
    Ok(wire)
}

/// Asks once, on a connection that is upgraded.
pub(super) async fn ask(wire: &mut Wire, request: &Request, last: bool) -> Result<(), Problem> {
    write_frame(wire, &request.payload).await?;
    request.verify(&read_frame(wire, MAX_ANSWER).await?)?;
    if last {
        // It is answered, whatever becomes of the connection.
        drop(wire.shutdown().await);
    }
    Ok(())
}

/// Upgrades, and answers until the client ends.
pub(super) async fn serve(server: &Server, wire: &mut Wire, idle: Duration) -> io::Result<()> {
    let (asked, fields) = server.in_time(read_head(wire)).await?;
    if !asked.starts_with("GET /ws/") || field(&fields, "sec-websocket-key") != Some(KEY) {
        wire.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await?;
        return Err(broken(format!("no upgrade asked for: {asked}")));
    }
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-accept: {ACCEPT}\r\n\r\n"
    );
    wire.write_all(head.as_bytes()).await?;
    wire.flush().await?;
    let mut first = true;
    while server.another(wire, first, idle).await? {
        first = false;
        server.in_time(answer(server, wire)).await?;
    }
    wire.shutdown().await
}

async fn answer(server: &Server, wire: &mut Wire) -> io::Result<()> {
    let payload = read_frame(wire, MAX_PAYLOAD).await?;
    write_frame(wire, &server.received(&payload)?).await
}

/// The first line, and the fields with their names in lower case.
async fn read_head(wire: &mut Wire) -> io::Result<(String, Vec<(String, String)>)> {
    let first = read_line(wire).await?;
    let mut fields = Vec::new();
    while fields.len() < MAX_FIELDS {
        let line = read_line(wire).await?;
        if line.is_empty() {
            return Ok((first, fields));
        }
        let (name, value) = line.split_once(':').ok_or_else(|| broken(format!("no field: {line:?}")))?;
        fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    Err(broken(format!("more than {MAX_FIELDS} fields")))
}

fn field<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    fields.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
}
