//! Captures in pcap's classic format, and the bytes of the TCP connections in them. IPv4, on Ethernet or as Linux captures
//! every interface at once; there a packet is seen several times, which the sequence numbers undo.

use std::{collections::BTreeMap, net::Ipv4Addr};

/// One end of a connection.
pub type End = (Ipv4Addr, u16);

/// One direction of a connection of which the capture has the beginning.
#[derive(Debug, Default)]
struct Side {
    first: Option<u32>,
    segments: BTreeMap<u32, Vec<u8>>,
}

/// What crossed in a capture.
#[derive(Debug, Default)]
pub struct Capture {
    sides: BTreeMap<(End, End), Side>,
    opened: Vec<(End, End)>,
    packets: Vec<(End, End, Vec<u8>)>,
}

/// What the bytes of a direction are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Content {
    /// There are none.
    Nothing,
    /// TLS records from the first to the last.
    Tls,
    /// Something else.
    Plain,
}

impl Capture {
    /// Reads a capture; what was cut off at its end is left out.
    ///
    /// # Errors
    /// It is none of ours.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        let magic = bytes.get(..4).ok_or("the capture is empty")?;
        let is_little = match magic {
            [0xd4, 0xc3, 0xb2, 0xa1] | [0x4d, 0x3c, 0xb2, 0xa1] => true,
            [0xa1, 0xb2, 0xc3, 0xd4] | [0xa1, 0xb2, 0x3c, 0x4d] => false,
            other => return Err(format!("not a classic pcap file: it begins with {other:02x?}")),
        };
        let number = |at: usize| {
            let bytes: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
            Some(if is_little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
        };
        let link = number(20).ok_or("the capture has no header")?;
        let mut capture = Self::default();
        let mut at = 24;
        while let Some(length) = number(at + 8) {
            let end = at + 16 + length as usize;
            let Some(frame) = bytes.get(at + 16..end) else { break };
            if let Some(packet) = network_layer(link, frame)? {
                capture.add(packet);
            }
            at = end;
        }
        Ok(capture)
    }

    fn add(&mut self, packet: &[u8]) {
        let Some(Segment { from, to, sequence, is_open, payload }) = Segment::read(packet) else { return };
        let side = self.sides.entry((from, to)).or_default();
        if is_open.is_some() && side.first.is_none() {
            side.first = Some(sequence.wrapping_add(1));
            if is_open == Some(true) {
                self.opened.push((from, to));
            }
        }
        if !payload.is_empty() {
            if let Some(first) = side.first {
                side.segments.insert(sequence.wrapping_sub(first), payload.to_vec());
            }
            self.packets.push((from, to, payload.to_vec()));
        }
    }

    /// The connections that were opened while the capture ran, from whom to whom.
    pub fn opened(&self) -> &[(End, End)] {
        &self.opened
    }

    /// What both directions of a connection carried, the client's first.
    pub fn content(&self, client: End, server: End) -> [Content; 2] {
        [(client, server), (server, client)]
            .map(|side| self.sides.get(&side).map_or(Content::Nothing, Side::content))
    }

    /// What the packets between these two addresses carried, of whatever connection.
    pub fn between(&self, one: Ipv4Addr, other: Ipv4Addr) -> impl Iterator<Item = &[u8]> {
        let is_between = move |(from, to, _): &&(End, End, Vec<u8>)| {
            (from.0 == one && to.0 == other) || (from.0 == other && to.0 == one)
        };
        self.packets.iter().filter(is_between).map(|(_, _, payload)| payload.as_slice())
    }
}

/// Whether `text` is within `payload`.
pub fn holds(payload: &[u8], text: &[u8]) -> bool {
    payload.windows(text.len()).any(|window| window == text)
}

impl Side {
    /// Judges up to the first byte that the capture missed.
    fn content(&self) -> Content {
        let mut bytes: Vec<u8> = Vec::new();
        for (offset, payload) in &self.segments {
            let Some(overlap) = bytes.len().checked_sub(*offset as usize) else { break };
            if let Some(new) = payload.get(overlap..) {
                bytes.extend_from_slice(new);
            }
        }
        content(&bytes)
    }
}

/// What bytes are, the last record perhaps cut off.
fn content(mut bytes: &[u8]) -> Content {
    if bytes.is_empty() {
        return Content::Nothing;
    }
    while let [kind, rest @ ..] = bytes {
        if !(20..=23).contains(kind) || rest.first().is_some_and(|major| *major != 3) {
            return Content::Plain;
        }
        let [_, _, high, low, ..] = rest else { break };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        // RFC 8446, section 5.2: a record's fragment has at most 2^14 + 256 bytes.
        if length > 16_384 + 256 {
            return Content::Plain;
        }
        bytes = rest.get(4 + length..).unwrap_or_default();
    }
    Content::Tls
}

/// What follows the header of the link; none when it is no IPv4.
fn network_layer(link: u32, frame: &[u8]) -> Result<Option<&[u8]>, String> {
    // LINKTYPE_ETHERNET, LINKTYPE_LINUX_SLL and LINKTYPE_LINUX_SLL2: where the protocol is, and where the packet begins.
    let (protocol, packet) = match link {
        1 => (12, 14),
        113 => (14, 16),
        276 => (0, 20),
        other => return Err(format!("link type {other} of the capture is neither Ethernet nor Linux's own")),
    };
    let is_ipv4 = frame.get(protocol..protocol + 2) == Some(&[0x08, 0x00]);
    Ok(frame.get(packet..).filter(|_| is_ipv4))
}

/// One TCP segment.
struct Segment<'p> {
    from: End,
    to: End,
    sequence: u32,
    /// Of a SYN: whether it is the client's.
    is_open: Option<bool>,
    payload: &'p [u8],
}

impl<'p> Segment<'p> {
    fn read(packet: &'p [u8]) -> Option<Self> {
        const TCP: u8 = 6;
        let two = |bytes: &[u8], at: usize| Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        let header = usize::from(packet.first()? & 0x0f) * 4;
        // Ethernet pads what is short.
        let packet = packet.get(..usize::from(two(packet, 2)?))?;
        if packet[9] != TCP || header < 20 {
            return None;
        }
        let address = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?));
        let tcp = packet.get(header..)?;
        let flags = *tcp.get(13)?;
        let is_syn = flags & 0x02 != 0;
        Some(Self {
            from: (address(12)?, two(tcp, 0)?),
            to: (address(16)?, two(tcp, 2)?),
            sequence: u32::from_be_bytes(tcp.get(4..8)?.try_into().ok()?),
            is_open: is_syn.then_some(flags & 0x10 == 0),
            payload: tcp.get(usize::from(tcp.get(12)? >> 4) * 4..)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: End = (Ipv4Addr::new(10, 0, 0, 1), 4000);
    const SERVER: End = (Ipv4Addr::new(10, 0, 0, 2), 80);
    const SYN: u8 = 0x02;
    const ACK: u8 = 0x10;

    fn frame((from, to): (End, End), sequence: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut tcp = [from.1.to_be_bytes(), to.1.to_be_bytes()].concat();
        tcp.extend(sequence.to_be_bytes());
        tcp.extend([0, 0, 0, 0, 5 << 4, flags, 0, 0, 0, 0, 0, 0]);
        tcp.extend(payload);
        let length = u16::try_from(20 + tcp.len()).unwrap().to_be_bytes();
        let mut frame = vec![0; 12];
        frame.extend([8, 0, 0x45, 0, length[0], length[1], 0, 0, 0, 0, 64, 6, 0, 0]);
        frame.extend(from.0.octets().iter().chain(&to.0.octets()));
        frame.extend(tcp);
        frame
    }

    fn capture(frames: &[Vec<u8>]) -> Capture {
        let mut file = 0xa1b2_c3d4_u32.to_le_bytes().to_vec();
        file.extend([0; 16]);
        file.extend(1_u32.to_le_bytes());
        for frame in frames {
            let length = u32::try_from(frame.len()).unwrap().to_le_bytes();
            file.extend([[0; 4], [0; 4], length, length].concat());
            file.extend(frame);
        }
        Capture::read(&file).unwrap()
    }

    #[test]
    fn records_out_of_order_and_seen_twice_are_tls() {
        let (out, back) = ((CLIENT, SERVER), (SERVER, CLIENT));
        let whole = capture(&[
            frame(out, u32::MAX, SYN, b""),
            frame(back, 7, SYN | ACK, b""),
            frame(out, 5, ACK, &[23, 3, 3, 0, 1, 9]),
            frame(out, 0, ACK, &[22, 3, 1, 0, 0]),
            frame(out, 0, ACK, &[22, 3, 1, 0, 0]),
            frame(back, 8, ACK, &[22, 3]),
        ]);
        assert_eq!(whole.opened(), [out]);
        assert_eq!(whole.content(CLIENT, SERVER), [Content::Tls, Content::Tls]);
    }

    #[test]
    fn what_is_no_record_is_plain_even_behind_one() {
        let out = (CLIENT, SERVER);
        let of = |payload: &[u8]| {
            let capture = capture(&[frame(out, 1, SYN, b""), frame(out, 2, ACK, payload)]);
            assert_eq!(capture.between(SERVER.0, CLIENT.0).filter(|sent| holds(sent, payload)).count(), 1);
            capture.content(CLIENT, SERVER)
        };
        assert_eq!(of(b"GET / HTTP/1.1\r\n"), [Content::Plain, Content::Nothing]);
        assert_eq!(of(b"\x17\x03\x03\x00\x01xGET"), [Content::Plain, Content::Nothing]);
    }

    #[test]
    fn what_is_no_capture_is_refused() {
        for (bytes, reason) in [(&b""[..], "empty"), (b"hello", "not a classic pcap file")] {
            assert!(Capture::read(bytes).unwrap_err().contains(reason));
        }
    }
}
