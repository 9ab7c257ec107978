//! A small mutator: a seed decides everything.

/// splitmix64.
#[derive(Clone, Copy, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`; 0 if `n` is.
    pub fn below(&mut self, n: usize) -> usize {
        (self.number() % (n.max(1) as u64)) as usize
    }

    fn of<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> Option<&'a T> {
        from.get(self.below(from.len())).copied()
    }
}

/// Bytes that are often at the edge of something.
const EDGES: [u8; 8] = [0, 1, 0x7f, 0x80, 0xfe, 0xff, b'0', b'9'];

/// An input made of those in `corpus`, with a few things changed.
#[must_use]
pub fn mutated(random: &mut Random, corpus: &[Vec<u8>], words: &[&str]) -> Vec<u8> {
    let pick = |random: &mut Random| corpus.get(random.below(corpus.len()));
    let mut bytes = pick(random).cloned().unwrap_or_default();
    for _ in 0..=random.below(6) {
        let at = random.below(bytes.len() + 1);
        let length = random.below((bytes.len() - at).min(64) + 1);
        match random.below(8) {
            0 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
            1 => {
                let edge = EDGES.get(random.below(EDGES.len())).copied().unwrap_or(0);
                bytes.get_mut(at..at + length.min(8)).unwrap_or_default().fill(edge);
            }
            2 => drop(bytes.drain(at..at + length)),
            3 => {
                let piece = bytes.get(at..at + length).unwrap_or_default().repeat(random.below(9));
                bytes.splice(at..at, piece);
            }
            4 => {
                let to = random.below(bytes.len() + 1);
                let piece = bytes.get(at..at + length).unwrap_or_default().to_vec();
                bytes.splice(to..to, piece);
            }
            5 | 6 => {
                let word = random.of(words).unwrap_or("\0");
                let length = if random.below(2) == 0 { 0 } else { length.min(word.len()) };
                bytes.splice(at..at + length, word.bytes());
            }
            _ => {
                let other = pick(random).map(Vec::as_slice).unwrap_or_default();
                let from = random.below(other.len() + 1);
                bytes.truncate(at);
                bytes.extend(other.get(from..).unwrap_or_default());
            }
        }
    }
    bytes.truncate(crate::MOST);
    bytes
}
