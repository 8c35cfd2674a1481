//! HTTP/2 frame by frame (RFC 9113 section 4.1), for ends that do what no library does.

use super::Client;

/// What a client says first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// `content-type: application/grpc`, by HPACK's static table.
const GRPC: &[u8] = b"\x5f\x10application/grpc";

/// One end of a connection, which answers nothing by itself.
pub(crate) struct Frames(Client);

#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frames {
    /// Opens as a client.
    pub(crate) async fn client(mut client: Client) -> Self {
        client.send(PREFACE).await;
        let mut frames = Self(client);
        frames.send(SETTINGS, 0, 0, &[]).await;
        frames
    }

    /// Opens as a server.
    pub(crate) async fn server(mut client: Client) -> Self {
        client.expect(PREFACE).await;
        let mut frames = Self(client);
        frames.send(SETTINGS, 0, 0, &[]).await;
        frames.send(SETTINGS, ACK, 0, &[]).await;
        frames
    }

    /// Asks `web` for `/`.
    pub(crate) async fn get(&mut self, stream: u32) {
        self.request(stream, b"\x82\x86\x84\x41\x03web").await;
    }

    /// The same as a call of gRPC.
    pub(crate) async fn call(&mut self, stream: u32) {
        self.request(stream, &[b"\x83\x86\x84\x41\x03web", GRPC].concat()).await;
    }

    /// Sends a whole request with these fields.
    pub(crate) async fn request(&mut self, stream: u32, fields: &[u8]) {
        self.send(HEADERS, END_STREAM | END_HEADERS, stream, fields).await;
    }

    /// Answers with 200 and nothing else.
    pub(crate) async fn respond(&mut self, stream: u32) {
        self.request(stream, b"\x88").await;
    }

    /// Says that no stream after `last` was looked at, and that nothing is wrong.
    pub(crate) async fn go_away(&mut self, last: u32) {
        self.send(GOAWAY, 0, 0, &[last.to_be_bytes(), [0; 4]].concat()).await;
    }

    pub(crate) async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        self.0.send([&head, payload].concat()).await;
    }

    /// The next frame of this kind.
    pub(crate) async fn next(&mut self, kind: u8) -> Frame {
        loop {
            let head = self.0.receive(9).await;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            let payload = self.0.receive(length as usize).await;
            if head[3] == kind {
                return Frame { stream, payload };
            }
        }
    }

    /// The next reset: of which stream, and why.
    pub(crate) async fn reset(&mut self) -> (u32, h2::Reason) {
        let Frame { stream, payload, .. } = self.next(RST_STREAM).await;
        (stream, u32::from_be_bytes(payload.try_into().unwrap()).into())
    }

    /// Reads to the end.
    pub(crate) async fn rest(mut self) {
        drop(self.0.rest().await);
    }
}
