//! A small mutator: a seed decides everything.

use durac_support::Random;

/// A number below `n`; 0 if `n` is.
fn below(random: &mut Random, n: usize) -> usize {
    random.below(n.max(1) as u64) as usize
}

/// Bytes that are often at the edge of something.
const EDGES: [u8; 8] = [0, 1, 0x7f, 0x80, 0xfe, 0xff, b'0', b'9'];

/// An input made of those in `corpus`, with a few things changed.
#[must_use]
pub fn mutated(random: &mut Random, corpus: &[Vec<u8>], words: &[&str]) -> Vec<u8> {
    let pick = |random: &mut Random| corpus.get(below(random, corpus.len()));
    let mut bytes = pick(random).cloned().unwrap_or_default();
    for _ in 0..=below(random, 6) {
        let at = below(random, bytes.len() + 1);
        let length = below(random, (bytes.len() - at).min(64) + 1);
        match below(random, 8) {
            0 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << below(random, 8);
                }
            }
            1 => {
                let edge = EDGES.get(below(random, EDGES.len())).copied().unwrap_or(0);
                bytes.get_mut(at..at + length.min(8)).unwrap_or_default().fill(edge);
            }
            2 => drop(bytes.drain(at..at + length)),
            3 => {
                let piece = bytes.get(at..at + length).unwrap_or_default().repeat(below(random, 9));
                bytes.splice(at..at, piece);
            }
            4 => {
                let to = below(random, bytes.len() + 1);
                let piece = bytes.get(at..at + length).unwrap_or_default().to_vec();
                bytes.splice(to..to, piece);
            }
            5 | 6 => {
                let word = words.get(below(random, words.len())).copied().unwrap_or("\0");
                let length = if below(random, 2) == 0 { 0 } else { length.min(word.len()) };
                bytes.splice(at..at + length, word.bytes());
            }
            _ => {
                let other = pick(random).map(Vec::as_slice).unwrap_or_default();
                let from = below(random, other.len() + 1);
                bytes.truncate(at);
                bytes.extend(other.get(from..).unwrap_or_default());
            }
        }
    }
    bytes.truncate(crate::MOST);
    bytes
}
