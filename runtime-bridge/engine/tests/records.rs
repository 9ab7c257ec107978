//! The counter of updates against a slow reference that needs the whole log at once.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test fails by panicking")]

use durac_abi::Records;
use durac_engine::records::Counter;

/// What a replay finds, by the rules of `docs/loss.md`: all complete updates, and those before an open
/// transaction; none if the bytes do not follow the format.
fn reference(log: &[u8]) -> Option<(u64, u64)> {
    let (mut at, mut updates, mut settled, mut open) = (0, 0, 0, false);
    while at < log.len() {
        let Some(line) = line(log, at) else { return unfinished(&log[at..], (updates, settled)) };
        if log[at] == b'#' {
            if line.len() + 1 > 127 {
                return None;
            }
            at += line.len() + 1;
            continue;
        }
        let count = number(line, b'*')?;
        if count == 0 || count > i32::MAX as u64 {
            return None;
        }
        let mut next = at + line.len() + 1;
        let mut name = None;
        for _ in 0..count {
            let Some(text) = self::line(log, next) else {
                return unfinished_argument(&log[next..], (updates, settled));
            };
            let length = number(text, b'$').filter(|length| *length <= i64::MAX as u64)?;
            next += text.len() + 1;
            let end = (next as u64).checked_add(length).and_then(|end| usize::try_from(end).ok());
            let Some(value) = end.and_then(|end| log.get(next..end)) else {
                return Some((updates, settled));
            };
            next += value.len();
            match log.get(next..).unwrap_or_default() {
                [b'\r', b'\n', ..] => next += 2,
                [] | [b'\r'] => return Some((updates, settled)),
                _ => return None,
            }
            name.get_or_insert_with(|| value.to_ascii_uppercase());
        }
        match name.as_deref() {
            Some(b"SELECT") => {}
            Some(b"MULTI") if open => return None,
            Some(b"MULTI") => open = true,
            Some(b"EXEC") if !open => return None,
            Some(b"EXEC") => open = false,
            _ => updates += 1,
        }
        if !open {
            settled = updates;
        }
        at = next;
    }
    Some((updates, settled))
}

/// The line that begins there, without its `\n`.
fn line(log: &[u8], at: usize) -> Option<&[u8]> {
    let rest = &log[at..];
    rest.iter().position(|byte| *byte == b'\n').map(|end| &rest[..end])
}

fn number(line: &[u8], sign: u8) -> Option<u64> {
    let digits = line.strip_prefix(&[sign])?.strip_suffix(b"\r")?;
    let all = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| all)?.parse().ok()
}

/// The log ends in a line: whether that can still become a command or a note.
fn unfinished(rest: &[u8], counts: (u64, u64)) -> Option<(u64, u64)> {
    match rest {
        [b'#', ..] => (rest.len() <= 126).then_some(counts),
        _ => begins(rest, b'*', i32::MAX as u64).then_some(counts),
    }
}

fn unfinished_argument(rest: &[u8], counts: (u64, u64)) -> Option<(u64, u64)> {
    begins(rest, b'$', i64::MAX as u64).then_some(counts)
}

/// Whether it is the beginning of `sign`, digits, `\r\n`.
fn begins(rest: &[u8], sign: u8, most: u64) -> bool {
    let Some((first, rest)) = rest.split_first() else { return true };
    let digits = rest.strip_suffix(b"\r").unwrap_or(rest);
    let text = std::str::from_utf8(digits).unwrap_or("x");
    let fits = text.parse::<u64>().is_ok_and(|number| number <= most);
    let ended = rest.ends_with(b"\r");
    // No command has 0 arguments.
    let zero = sign == b'*' && ended && text.bytes().all(|byte| byte == b'0');
    *first == sign
        && (digits.is_empty() && !ended
            || fits && !zero && text.bytes().all(|b| b.is_ascii_digit()))
}

fn counted(records: Records, pieces: &[&[u8]]) -> Option<(u64, u64)> {
    let mut counter = Counter::new(records);
    pieces.iter().for_each(|piece| counter.feed(piece));
    (!counter.is_lost()).then(|| (counter.updates(), counter.settled()))
}

fn command(arguments: &[&[u8]]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", arguments.len()).into_bytes();
    for argument in arguments {
        out.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        out.extend_from_slice(argument);
        out.extend_from_slice(b"\r\n");
    }
    out
}

fn log(commands: &[&[&[u8]]]) -> Vec<u8> {
    commands.iter().flat_map(|arguments| command(arguments)).collect()
}

/// Random numbers, always the same.
struct Random(u64);

impl Random {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }

    /// A log with values that look like commands, notes and transactions.
    fn log(&mut self) -> Vec<u8> {
        let values: [&[u8]; 8] = [
            b"",
            b"\r\n",
            b"*1\r\n$4\r\nEXEC\r\n",
            b"$3\r\n",
            b"#TS:1\r\n",
            b"\0\xff\n",
            b"MULTI",
            b"a",
        ];
        let names: [&[u8]; 7] =
            [b"SET", b"set", b"SELECT", b"DEL", b"SELECTED", b"EXE", b"flushall"];
        let mut out = Vec::new();
        let mut open = false;
        for _ in 0..self.below(12) {
            match self.below(8) {
                0 => out.extend_from_slice(b"#TS:1700000000\r\n"),
                1 if !open => {
                    out.extend(command(&[b"MULTI"]));
                    open = true;
                }
                2 if open => {
                    out.extend(command(&[b"exec"]));
                    open = false;
                }
                _ => {
                    let mut arguments = vec![names[self.below(7) as usize]];
                    (0..self.below(4)).for_each(|_| arguments.push(values[self.below(8) as usize]));
                    out.extend(command(&arguments));
                }
            }
        }
        out
    }
}

#[test]
fn commands_are_counted_and_what_changes_nothing_is_not() {
    let text = log(&[
        &[b"SELECT", b"0"],
        &[b"SET", b"a", b"1"],
        &[b"select", b"1"],
        &[b"DEL", b"a"],
        &[b"SET", b"b", b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n"],
    ]);
    assert_eq!(counted(Records::Resp, &[&text]), Some((3, 3)));
}

#[test]
fn a_transaction_is_settled_with_its_end() {
    let begun = log(&[&[b"SET", b"a", b"1"], &[b"MULTI"], &[b"SET", b"b", b"2"], &[b"INCR", b"c"]]);
    assert_eq!(counted(Records::Resp, &[&begun]), Some((3, 1)));
    assert_eq!(counted(Records::Resp, &[&begun, &command(&[b"EXEC"])]), Some((3, 3)));
}

#[test]
fn what_does_not_follow_the_format_ends_the_count() {
    let nested = log(&[&[b"MULTI"], &[b"MULTI"]]);
    let wrong: [&[u8]; 16] = [
        b"SET a 1\r\n",
        b"REDIS0011",
        b"\0",
        b"*0\r\n",
        b"*-1\r\n",
        b"*1\n",
        b"*1\r$",
        b"*x\r\n",
        b"*\r\n",
        b"*1\r\n+OK\r\n",
        b"*1\r\n$-1\r\n",
        b"*1\r\n$1\r\nab\r\n",
        b"*1\r\n$1\r\na\n",
        b"*2147483648\r",
        b"*1\r\n$4\r\nEXEC\r\n",
        &nested,
    ];
    for text in wrong {
        assert_eq!(counted(Records::Resp, &[text]), None, "{:?}", text.escape_ascii().to_string());
        // Nothing that follows brings it back.
        assert_eq!(counted(Records::Resp, &[text, &command(&[b"SET", b"a", b"1"])]), None);
    }
    let note = |length: usize| [b"#".as_slice(), &vec![b'x'; length - 2], b"\n"].concat();
    assert_eq!(counted(Records::Resp, &[&note(127)]), Some((0, 0)));
    assert_eq!(counted(Records::Resp, &[&note(128)]), None);
    assert_eq!(counted(Records::Resp, &[b"#TS:1700000000\r\n"]), Some((0, 0)));
}

#[test]
fn it_agrees_with_the_reference_however_the_bytes_are_cut() {
    let mut random = Random(7);
    for _ in 0..300 {
        let text = random.log();
        let expected = reference(&text);
        assert!(expected.is_some(), "{}", text.escape_ascii());
        assert_eq!(counted(Records::Resp, &[&text]), expected);
        for cut in 0..=text.len() {
            let (a, b) = text.split_at(cut);
            assert_eq!(counted(Records::Resp, &[a]), reference(a), "{}", a.escape_ascii());
            assert_eq!(
                counted(Records::Resp, &[a, b]),
                expected,
                "{} | {}",
                a.escape_ascii(),
                b.escape_ascii()
            );
        }
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(counted(Records::Resp, &bytes), expected);
    }
}

#[test]
fn it_agrees_with_the_reference_when_a_byte_is_wrong() {
    let mut random = Random(11);
    let mut lost = 0;
    for _ in 0..20_000 {
        let mut text = random.log();
        if text.is_empty() {
            continue;
        }
        let at = random.below(text.len() as u64) as usize;
        match random.below(3) {
            0 => text[at] = b"*$#\r\n0a\xff9"[random.below(9) as usize],
            1 => _ = text.remove(at),
            _ => text.insert(at, b"*$#\r\n0a\xff9"[random.below(9) as usize]),
        }
        let expected = reference(&text);
        lost += u32::from(expected.is_none());
        assert_eq!(counted(Records::Resp, &[&text]), expected, "{}", text.escape_ascii());
    }
    assert!(lost > 5_000, "{lost}");
}

#[test]
fn lines_are_counted_by_their_ends() {
    assert_eq!(counted(Records::Line, &[b"a\nb", b"c\n\n", b"d"]), Some((3, 3)));
    assert_eq!(counted(Records::None, &[b"a\n"]), None);
}
