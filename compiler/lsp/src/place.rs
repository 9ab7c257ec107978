//! Between bytes and the lines and characters that editors count.

use durac_grammar::Span;
use lsp_types::{Position, Range};

/// What an editor counts in a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Bytes.
    Utf8,
    /// Units of UTF-16, which every editor knows.
    Utf16,
}

/// Where a byte of the text is; the end, if it is beyond.
pub fn position(text: &str, byte: usize, encoding: Encoding) -> Position {
    let byte = (0..=byte.min(text.len())).rev().find(|&b| text.is_char_boundary(b)).unwrap_or(0);
    let before = text.get(..byte).unwrap_or("");
    let line = before.bytes().filter(|&b| b == b'\n').count();
    let start = before.rfind('\n').map_or(0, |at| at + 1);
    let within = before.get(start..).unwrap_or("");
    let column = match encoding {
        Encoding::Utf8 => within.len(),
        Encoding::Utf16 => within.encode_utf16().count(),
    };
    Position::new(line as u32, column as u32)
}

/// The byte at a position; the end of the line, or of the text, if it is beyond.
pub fn byte(text: &str, position: Position, encoding: Encoding) -> usize {
    let mut start = 0;
    for _ in 0..position.line {
        match text.get(start..).and_then(|rest| rest.find('\n')) {
            Some(at) => start += at + 1,
            None => return text.len(),
        }
    }
    let line = text.get(start..).unwrap_or("").split('\n').next().unwrap_or("");
    let mut column = 0;
    for (at, c) in line.char_indices() {
        if column >= position.character {
            return start + at;
        }
        column += match encoding {
            Encoding::Utf8 => c.len_utf8() as u32,
            Encoding::Utf16 => c.len_utf16() as u32,
        };
    }
    start + line.len()
}

/// Where a span of the text is.
pub fn range(text: &str, span: Span, encoding: Encoding) -> Range {
    Range::new(
        position(text, span.start as usize, encoding),
        position(text, span.end as usize, encoding),
    )
}

#[cfg(test)]
mod tests {
    use super::{Encoding, byte, position};
    use lsp_types::Position;

    #[test]
    fn there_and_back() {
        let text = "// ä𝄞x\non fsync: skip\n\nend";
        for encoding in [Encoding::Utf8, Encoding::Utf16] {
            for at in (0..=text.len()).filter(|&at| text.is_char_boundary(at)) {
                assert_eq!(byte(text, position(text, at, encoding), encoding), at);
            }
        }
        assert_eq!(position(text, 10, Encoding::Utf16), Position::new(0, 7));
        assert_eq!(position(text, 10, Encoding::Utf8), Position::new(0, 10));
    }

    #[test]
    fn beyond_the_text() {
        let text = "a\nbc";
        let at = |line, character| byte(text, Position::new(line, character), Encoding::Utf16);
        assert_eq!((at(0, 9), at(1, 9), at(9, 0)), (1, 4, 4));
        assert_eq!(position(text, 99, Encoding::Utf16), Position::new(1, 2));
    }
}
