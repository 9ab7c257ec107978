//! Text for people, shared by every command that prints a table: columns as wide as their widest cell,
//! lines of a width, grouped numbers.

/// How the cells of a column are aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Text.
    Left,
    /// Figures.
    Right,
}

/// The rows, a line each, two blanks between columns. The last of `aligns` is that of all further
/// columns.
#[must_use]
pub fn columns<R: AsRef<[String]>>(aligns: &[Align], rows: &[R]) -> String {
    let count = rows.iter().map(|row| row.as_ref().len()).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.as_ref().get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, &width)) in row.as_ref().iter().zip(&widths).enumerate() {
            let gap = if column == 0 { "" } else { "  " };
            let align = aligns.get(column).or(aligns.last());
            line.push_str(&match align {
                Some(Align::Right) => format!("{gap}{cell:>width$}"),
                _ => format!("{gap}{cell:width$}"),
            });
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// `text` in lines of at most `width` characters, broken at blanks. A longer word has a line of its
/// own.
#[must_use]
pub fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// `12,345`: a whole number with a comma between thousands.
#[must_use]
pub fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 sync`, `2 syncs`.
#[must_use]
pub fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::Align::{Left, Right};
    use super::{columns, counted, grouped, wrapped};

    #[test]
    fn thousands() {
        assert_eq!(grouped(0.4), "0");
        assert_eq!(grouped(999.0), "999");
        assert_eq!(grouped(1_234_567.0), "1,234,567");
    }

    #[test]
    fn numbers_and_nouns_agree() {
        assert_eq!([0, 1, 2].map(|n| counted(n, "sync")), ["0 syncs", "1 sync", "2 syncs"]);
    }

    #[test]
    fn cells_are_aligned() {
        let rows = [["name", "µs", "note"], ["a", "12345", ""]].map(|row| row.map(str::to_owned));
        assert_eq!(columns(&[Left, Right, Left], &rows), "name     µs  note\na     12345\n");
        assert_eq!(columns(&[Right], &rows[..1]), "name  µs  note\n");
        assert_eq!(columns::<[String; 1]>(&[], &[]), "");
    }

    #[test]
    fn lines_are_broken_at_blanks() {
        assert_eq!(wrapped("one two  three", 7), ["one two", "three"]);
        assert_eq!(wrapped("supercalifragilistic x", 5), ["supercalifragilistic", "x"]);
        assert!(wrapped("", 5).is_empty());
    }
}
