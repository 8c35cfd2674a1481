//! The bytes of an operation and of its answer. Both follow from the operation's name, so that either end can tell every
//! lost, doubled, moved or changed byte, and both show the name everywhere, so that a sniffer sees it in the clear.

use crate::history::OpId;

/// The longest payload of an operation, in bytes.
pub const MAX_PAYLOAD: usize = 64 * 1024;

/// From one marker to the next in a payload; in an answer the marker comes on top of it.
const STRIDE: usize = 512;

/// The longest marker: two numbers of 16 bits and one of 32.
const MAX_MARKER: usize = "op-65535-65535-4294967295.".len();

/// The longest answer, in bytes.
pub(super) const MAX_ANSWER: usize =
    MAX_PAYLOAD + (MAX_PAYLOAD / STRIDE + 1) * MAX_MARKER + "re: \n".len() + MAX_MARKER + 8;

/// What `op` sends: its marker, pseudo-random bytes, and the marker again every 512 bytes. At least the first marker is
/// there, however small `len` is.
pub fn payload(op: OpId, len: usize) -> Vec<u8> {
    let marker = op.to_string().into_bytes();
    let mut noise = Noise::new(op);
    let mut bytes: Vec<u8> = (0..len.max(marker.len())).map(|_| noise.next()).collect();
    for at in (0..bytes.len()).step_by(STRIDE) {
        if let Some(slot) = bytes.get_mut(at..at + marker.len()) {
            slot.copy_from_slice(&marker);
        }
    }
    bytes
}

/// What a server answers to `op` when `payload` arrived: the operation's name and the length, then the payload turned
/// around and altered piece by piece with a marker before each, so that no echo and no other payload's answer equals it.
pub fn answer(op: OpId, payload: &[u8]) -> Vec<u8> {
    let marker = op.to_string();
    let mut bytes = format!("re:{marker} {}\n", payload.len()).into_bytes();
    for piece in payload.chunks(STRIDE) {
        bytes.extend_from_slice(marker.as_bytes());
        bytes.extend(piece.iter().rev().map(|byte| byte ^ 0x5a));
    }
    bytes
}

/// How `got` differs from what it must be; none when it does not.
pub(super) fn difference(got: &[u8], expected: &[u8]) -> Option<String> {
    if got == expected {
        return None;
    }
    let at = got.iter().zip(expected).take_while(|(got, expected)| got == expected).count();
    let of = OpId::find(got).map_or_else(|| "nobody".to_owned(), |op| op.to_string());
    Some(format!("{} bytes for {} expected, from byte {at} on different, of {of}", got.len(), expected.len()))
}

/// SplitMix64 (Steele, Lea and Flood, 2014), seeded by a name. The top bit is always set: such bytes never look like a
/// marker, a line or the start of a protocol.
struct Noise {
    state: u64,
    left: u64,
    bits: u64,
}

impl Noise {
    fn new(op: OpId) -> Self {
        let name = u64::from(op.client) << 48 | u64::from(op.stream) << 32 | u64::from(op.number);
        Self { state: name, left: 0, bits: 0 }
    }

    fn next(&mut self) -> u8 {
        if self.left == 0 {
            self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = self.state;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            self.bits = mixed ^ (mixed >> 31);
            self.left = 8;
        }
        self.left -= 1;
        let byte = self.bits as u8 | 0x80;
        self.bits >>= 8;
        byte
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OP: OpId = OpId { client: 65535, stream: 0, number: 4_294_967_295 };

    fn gaps(bytes: &[u8]) -> usize {
        let marker = OP.to_string();
        let mut starts: Vec<usize> =
            (0..bytes.len()).filter(|at| bytes[*at..].starts_with(marker.as_bytes())).collect();
        starts.push(bytes.len());
        starts.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap()
    }

    #[test]
    fn markers_are_never_further_apart_than_a_sniffer_looks() {
        for len in [0, 30, 511, 513, 530, 5000, MAX_PAYLOAD] {
            let sent = payload(OP, len);
            assert!(sent.starts_with(OP.to_string().as_bytes()));
            assert!(gaps(&sent) <= 600, "{}", gaps(&sent));
            let back = answer(OP, &sent);
            assert!(gaps(&back) <= 600, "{}", gaps(&back));
            assert!(back.len() <= MAX_ANSWER);
            assert!(OpId::find_all(&sent).chain(OpId::find_all(&back)).all(|found| found == OP));
        }
    }

    #[test]
    fn markers_are_found_wherever_they_stand() {
        let ids = [OP, OpId { client: 1, stream: 2, number: 3 }, OpId { client: 1, stream: 2, number: 34 }];
        let mut bytes = b"op-op-1-2-x.op-1-2-3-4.".to_vec();
        for id in ids {
            bytes.extend_from_slice(format!("/{id}").as_bytes());
        }
        assert_eq!(OpId::find_all(&bytes).collect::<Vec<_>>(), ids);
        assert_eq!(OpId::find(b"op-1-2-3"), None);
    }

    #[test]
    fn every_operation_has_bytes_of_its_own_and_a_longer_one_begins_as_a_shorter_one() {
        let other = OpId { number: 0, ..OP };
        assert_ne!(payload(OP, 100)[40..], payload(other, 100)[40..]);
        assert_eq!(payload(OP, 2000)[..1000], payload(OP, 1000));
        assert_ne!(answer(OP, &payload(OP, 100)), answer(other, &payload(OP, 100)));
    }
}
