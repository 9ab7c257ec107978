//! File name patterns: `*` is any text without `/`, `?` one character that is not `/`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Whether `path` matches one of `files` and none of `except`.
#[must_use]
pub fn covers(files: &[String], except: &[String], path: &Path) -> bool {
    let any = |globs: &[String]| globs.iter().any(|glob| matches(glob, path));
    any(files) && !any(except)
}

/// Whether `path` matches: its last component, or the whole of it if the pattern has a `/`.
#[must_use]
pub fn matches(pattern: &str, path: &Path) -> bool {
    let text = if pattern.contains('/') {
        path.as_os_str()
    } else {
        path.file_name().unwrap_or(OsStr::new(""))
    };
    matches_bytes(pattern.as_bytes(), text.as_bytes())
}

/// Goes back only to the last star, so the time is at most the product of the lengths.
fn matches_bytes(mut pattern: &[u8], mut text: &[u8]) -> bool {
    let mut back: Option<(&[u8], &[u8])> = None;
    loop {
        match (pattern, text) {
            ([], []) => return true,
            ([b'*', rest @ ..], _) => {
                back = Some((rest, text));
                pattern = rest;
                continue;
            }
            ([p, pattern_rest @ ..], [t, text_rest @ ..])
                if p == t || (*p == b'?' && *t != b'/') =>
            {
                (pattern, text) = (pattern_rest, text_rest);
                continue;
            }
            _ => {}
        }
        // The star takes one character more.
        match back {
            Some((rest, [first, more @ ..])) if *first != b'/' => {
                back = Some((rest, more));
                (pattern, text) = (rest, more);
            }
            _ => return false,
        }
    }
}
