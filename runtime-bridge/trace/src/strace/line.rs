//! One line of strace.

/// A line that cannot be read: at which byte, and why.
#[derive(Debug, PartialEq, Eq)]
pub struct Failed {
    /// The byte in the line, from 0.
    pub at: usize,
    /// Why.
    pub message: String,
}

/// A line.
#[derive(Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// The thread's id; 0 if strace did not say.
    pub thread: u32,
    /// When it was written: for a call, when that began. Nanoseconds since 1970.
    pub time: u64,
    /// What it says.
    pub kind: Kind<'a>,
}

/// What a line says.
#[derive(Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    /// A call that has ended.
    Call {
        /// Its text.
        text: &'a str,
        /// Position in the line.
        at: usize,
    },
    /// A call has begun; its end is in a later line, or was not seen.
    Unfinished(&'a str),
    /// A call has ended that had begun in an earlier line.
    Resumed {
        /// What was left of its text.
        rest: &'a str,
        /// Position in the line.
        at: usize,
    },
    /// A signal came, or the thread has ended.
    Gone,
}

/// Reads a line; none if it is only about strace.
pub fn parse(text: &str) -> Result<Option<Line<'_>>, Failed> {
    // With -k, the stack follows a call.
    if text.trim().is_empty() || text.starts_with("strace: ") || text.starts_with(" > ") {
        return Ok(None);
    }
    let at = |rest: &str| text.len() - rest.len();
    let (thread, rest) = thread_id(text)?;
    // strace pads what is not a time since 1970.
    let padded = rest.starts_with(' ');
    let rest = rest.trim_start();
    let (word, after) = rest.split_once(' ').unwrap_or((rest, ""));
    let Some(time) = seconds(word) else {
        return Err(failed(at(rest), no_time(word)));
    };
    if padded {
        return Err(failed(at(rest), RELATIVE));
    }
    let rest = details(after.trim_start());
    let kind = if rest.starts_with("+++ ") || rest.starts_with("--- ") {
        Kind::Gone
    } else if let Some(resumed) = rest.strip_prefix("<... ") {
        // Newer versions of strace number the halves of a call: `<... fdatasync resumed #3>`.
        let end = resumed.split_once(" resumed").and_then(|(_, end)| end.split_once('>'));
        let Some((_, end)) = end.filter(|(number, _)| is_number_of_half(number)) else {
            return Err(failed(at(rest), "`<...` without its `resumed>`"));
        };
        Kind::Resumed { rest: end, at: at(end) }
    } else if let Some(begun) = unfinished(rest) {
        Kind::Unfinished(begun)
    } else if is_call(rest) {
        Kind::Call { text: rest, at: at(rest) }
    } else {
        return Err(failed(at(rest), "expected a call, as in `fdatasync(7) = 0 <0.000123>`"));
    };
    // A signal during a call does not end it.
    if rest.starts_with("--- ") {
        return Ok(None);
    }
    Ok(Some(Line { thread, time, kind }))
}

/// A time that counts from the previous line orders nothing: the lines of threads are not in order.
pub const RELATIVE: &str =
    "the time counts from the previous line: run strace with -ttt instead of -r";

/// The thread's id at the beginning of a line, 0 if there is none, and what follows the space behind it.
/// With `--decode-pids=comm`, the thread's name follows the id: `12<redis-server>`.
fn thread_id(text: &str) -> Result<(u32, &str), Failed> {
    const NO_NUMBER: &str = "a thread's id is a number";
    if let Some(inside) = text.strip_prefix("[pid ") {
        let Some((pid, after)) = inside.split_once(']') else {
            return Err(failed(5, "`[pid` without its `]`"));
        };
        let pid = pid.trim().split('<').next().unwrap_or("");
        let id = number(pid).ok_or_else(|| failed(5, NO_NUMBER))?;
        return Ok((id, after.strip_prefix(' ').unwrap_or(after)));
    }
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (id, mut after) = text.split_at_checked(digits).unwrap_or(("", text));
    if let Some((_, behind)) = after.strip_prefix('<').and_then(|name| name.split_once("> ")) {
        after = behind;
    } else if let Some(behind) = after.strip_prefix(' ') {
        after = behind;
    } else {
        return Ok((0, text));
    }
    if id.is_empty() {
        return Ok((0, text));
    }
    // An id is padded to five places.
    for _ in digits..5 {
        after = after.strip_prefix(' ').unwrap_or(after);
    }
    Ok((number(id).ok_or_else(|| failed(0, NO_NUMBER))?, after))
}

/// What follows the time, without what -r, -n and -i put before the call: `(+     0.000042)`, the number of the
/// system call and the instruction pointer, in brackets.
fn details(mut rest: &str) -> &str {
    if let Some((_, after)) = rest.strip_prefix("(+").and_then(|since| since.split_once(')')) {
        rest = after.trim_start();
    }
    while let Some((_, after)) = rest.strip_prefix('[').and_then(|inside| inside.split_once(']')) {
        rest = after.trim_start();
    }
    rest
}

/// The text of a call that goes on in a later line, or was never seen to end: strace let go of the thread.
fn unfinished(text: &str) -> Option<&str> {
    let inside = text.strip_suffix(" ...>")?;
    let (begun, word) = inside.rsplit_once('<')?;
    let number = word.strip_prefix("unfinished").or_else(|| word.strip_prefix("detached"))?;
    is_number_of_half(number).then(|| begun.trim_end())
}

/// Whether a text is empty or ` #N`.
fn is_number_of_half(text: &str) -> bool {
    text.is_empty()
        || text.strip_prefix(" #").is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()))
}

/// Whether a text begins as strace's output does.
#[must_use]
pub fn looks_like(text: &[u8]) -> bool {
    let line = text.split(|&b| b == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    if line.starts_with("strace: ") {
        return true;
    }
    match parse(line.trim_end()) {
        Ok(line) => line.is_some(),
        Err(failed) => failed.message == RELATIVE,
    }
}

fn no_time(word: &str) -> &'static str {
    let digit = word.starts_with(|c: char| c.is_ascii_digit());
    // The time of day, whole seconds, or none at all.
    let other = digit && word.bytes().all(|b| b.is_ascii_digit() || b == b':' || b == b'.');
    if other || is_call(word) || word.starts_with("+++") || word.starts_with("---") {
        "no time in seconds since 1970: run strace with -ttt"
    } else {
        "no line of strace: keep its output apart from the application's with -o FILE"
    }
}

fn is_call(text: &str) -> bool {
    let name = text.split('(').next().unwrap_or("");
    text.len() > name.len()
        && !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

fn failed(at: usize, message: &str) -> Failed {
    Failed { at, message: message.to_owned() }
}

fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

/// Seconds with a fraction of up to nine digits, in nanoseconds.
fn seconds(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.')?;
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let scale = 10u64.pow(9 - fraction.len() as u32);
    number::<u64>(whole)?.checked_mul(1_000_000_000)?.checked_add(number::<u64>(fraction)? * scale)
}

/// A call that has ended: `name(arguments) = value <took>`.
#[derive(Debug)]
pub struct Call<'a> {
    /// Name of the system call.
    pub name: &'a str,
    /// Its thread.
    pub thread: u32,
    /// When it began.
    pub since: u64,
    /// How long it took, if strace said that.
    pub took: Option<u64>,
    arguments: &'a str,
    /// What follows ` = `, without the duration.
    value: &'a str,
}

/// What a call returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Returned {
    /// A number from 0 on.
    Value(u64),
    /// It failed with this errno.
    Error(i32),
    /// It did not return: the thread was killed, or the call begins again.
    Nothing,
}

impl<'a> Call<'a> {
    /// A call that has not returned, by its text so far.
    pub fn begun(text: &'a str, thread: u32, since: u64) -> Self {
        let (name, arguments) = text.split_once('(').unwrap_or((text, ""));
        Self { name, thread, since, took: Some(0), arguments, value: "?" }
    }

    /// Takes the text of a call to pieces.
    pub fn parse(text: &'a str, thread: u32, since: u64) -> Result<Self, String> {
        let (name, rest) = text.split_once('(').unwrap_or((text, ""));
        let whole = rest.rsplit_once(" = ").map(|(a, v)| (a.trim_end(), v));
        let Some((arguments, value)) = whole.and_then(|(a, v)| Some((a.strip_suffix(')')?, v)))
        else {
            return Err("a call without its result, as in `… = 0 <0.000123>`".to_owned());
        };
        let (value, took) = match value.strip_suffix('>').and_then(|v| v.rsplit_once(" <")) {
            Some((value, took)) if seconds(took).is_some() => (value, seconds(took)),
            _ => (value, None),
        };
        Ok(Self { name, thread, since, took, arguments, value: value.trim() })
    }

    /// How long it took.
    pub fn took(&self) -> Result<u64, String> {
        self.took.ok_or_else(|| "no duration behind the call: run strace with -T".to_owned())
    }

    /// What it returned.
    pub fn returned(&self) -> Result<Returned, String> {
        let (word, rest) = self.value.split_once(' ').unwrap_or((self.value, ""));
        // With -y, the file follows a descriptor.
        let word = word.split('<').next().unwrap_or(word);
        if word == "?" {
            return Ok(Returned::Nothing);
        }
        if word == "-1" {
            let name = rest.split(' ').next().unwrap_or("");
            return errno(name)
                .map(Returned::Error)
                .ok_or_else(|| format!("unknown error `{name}`"));
        }
        let value = match word.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).ok(),
            None => number(word),
        };
        let bad = || format!("invalid result of a call `{word}`");
        value.map(Returned::Value).ok_or_else(bad)
    }

    /// The descriptor that is its first argument, and the file that strace named with it.
    pub fn descriptor(&self) -> Result<(i32, Option<String>), String> {
        let end =
            self.arguments.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.arguments.len());
        let (digits, rest) = self.arguments.split_at_checked(end).unwrap_or(("", ""));
        let Some(fd) = number(digits) else {
            return Err(format!("`{}` of no descriptor", self.name));
        };
        Ok((fd, annotation(rest)))
    }

    /// Whether its arguments contain a word like `O_WRONLY`.
    pub fn has_flag(&self, flag: &str) -> bool {
        let plain = self.arguments.rsplit('"').next().unwrap_or("");
        plain.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|word| word == flag)
    }

    /// The path that it opened.
    pub fn path(&self) -> Result<String, String> {
        let digits = self.value.trim_start_matches(|c: char| c.is_ascii_digit());
        if let Some(path) = annotation(digits) {
            return Ok(path);
        }
        let quoted = self.arguments.split_once('"').and_then(|(_, rest)| rest.rsplit_once('"'));
        let path = quoted.map(|(path, _)| unescape(path));
        path.ok_or_else(|| format!("`{}` of no path", self.name))
    }
}

/// The file in `</path>` at the beginning of `text`.
fn annotation(text: &str) -> Option<String> {
    let (path, _) = text.strip_prefix('<')?.split_once('>')?;
    path.starts_with('/').then(|| unescape(path))
}

/// A string as strace writes it, with C's escapes.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes().peekable();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        match rest.next() {
            Some(b'n') => bytes.push(b'\n'),
            Some(b't') => bytes.push(b'\t'),
            Some(b'r') => bytes.push(b'\r'),
            Some(b'v') => bytes.push(0x0b),
            Some(b'f') => bytes.push(0x0c),
            // With -x and -xx.
            Some(b'x') => {
                let mut value = 0;
                for _ in 0..2 {
                    let digit = rest.peek().and_then(|&b| char::from(b).to_digit(16));
                    let Some(digit) = digit else { break };
                    rest.next();
                    value = value * 16 + digit;
                }
                bytes.push(value as u8);
            }
            Some(digit @ b'0'..=b'7') => {
                let mut value = u32::from(digit - b'0');
                for _ in 0..2 {
                    let Some(digit) = rest.next_if(|b| matches!(b, b'0'..=b'7')) else { break };
                    value = value * 8 + u32::from(digit - b'0');
                }
                bytes.push(value as u8);
            }
            Some(other) => bytes.push(other),
            None => {}
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The number of an error, from `<asm-generic/errno.h>`. What interrupts a call is EINTR.
fn errno(name: &str) -> Option<i32> {
    Some(match name {
        "EPERM" => libc::EPERM,
        "ENOENT" => libc::ENOENT,
        "EINTR" | "ERESTARTSYS" | "ERESTARTNOINTR" | "ERESTARTNOHAND" => libc::EINTR,
        "EIO" => libc::EIO,
        "ENXIO" => libc::ENXIO,
        "EBADF" => libc::EBADF,
        "ECHILD" => libc::ECHILD,
        "EAGAIN" => libc::EAGAIN,
        "ENOMEM" => libc::ENOMEM,
        "EACCES" => libc::EACCES,
        "EFAULT" => libc::EFAULT,
        "EBUSY" => libc::EBUSY,
        "EEXIST" => libc::EEXIST,
        "EXDEV" => libc::EXDEV,
        "ENODEV" => libc::ENODEV,
        "ENOTDIR" => libc::ENOTDIR,
        "EISDIR" => libc::EISDIR,
        "EINVAL" => libc::EINVAL,
        "ENFILE" => libc::ENFILE,
        "EMFILE" => libc::EMFILE,
        "ENOTTY" => libc::ENOTTY,
        "ETXTBSY" => libc::ETXTBSY,
        "EFBIG" => libc::EFBIG,
        "ENOSPC" => libc::ENOSPC,
        "ESPIPE" => libc::ESPIPE,
        "EROFS" => libc::EROFS,
        "EMLINK" => libc::EMLINK,
        "EPIPE" => libc::EPIPE,
        "ENAMETOOLONG" => libc::ENAMETOOLONG,
        "ENOSYS" => libc::ENOSYS,
        "ELOOP" => libc::ELOOP,
        "EOVERFLOW" => libc::EOVERFLOW,
        "EOPNOTSUPP" => libc::EOPNOTSUPP,
        "EDQUOT" => libc::EDQUOT,
        "ESTALE" => libc::ESTALE,
        "ECONNRESET" => libc::ECONNRESET,
        _ => return None,
    })
}
