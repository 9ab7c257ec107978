//! Imports what strace wrote.

/// Whether a text begins as strace's output with `-ttt` does.
#[must_use]
pub fn looks_like(text: &[u8]) -> bool {
    let line = text.split(|&b| b == b'\n').next().unwrap_or_default();
    let mut words = line.split(|b| b" []".contains(b)).filter(|w| !w.is_empty() && *w != b"pid");
    let number = |w: &[u8]| w.first().is_some_and(u8::is_ascii_digit);
    let call = words.by_ref().find(|w| !number(w)).unwrap_or_default();
    number(line.trim_ascii_start().strip_prefix(b"[pid ").unwrap_or(line).trim_ascii_start())
        && call.first().is_some_and(u8::is_ascii_lowercase)
        && call.contains(&b'(')
}
