//! File name patterns: `*` is any text without `/`, `?` one character that is not `/`, `**/` any number of folders, `**` any
//! text.

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

/// What is behind a star of the pattern, and the text from there on.
type Star<'p, 't> = (&'p [u8], &'t [u8]);

/// Goes back only to the last star of each kind, so the time is at most the product of the lengths, times the text's.
fn matches_bytes(mut pattern: &[u8], mut text: &[u8]) -> bool {
    // The last `*`, and the last `**`: what is behind them, and from where in the text.
    let (mut star, mut folders): (Option<Star<'_, '_>>, Option<(Star<'_, '_>, bool)>) =
        (None, None);
    loop {
        match (pattern, text) {
            ([], []) => return true,
            ([b'*', b'*', rest @ ..], _) => {
                // `**/` is any number of folders, none included.
                let whole = rest.strip_prefix(b"/");
                pattern = whole.unwrap_or(rest);
                (star, folders) = (None, Some(((pattern, text), whole.is_some())));
                continue;
            }
            ([b'*', rest @ ..], _) => {
                star = Some((rest, text));
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
        // A star takes one character more, `**` one character or one folder.
        match (star, folders) {
            (Some((rest, [first, more @ ..])), _) if *first != b'/' => {
                star = Some((rest, more));
                (pattern, text) = (rest, more);
            }
            (_, Some(((rest, from), whole))) => {
                let taken =
                    if whole { from.iter().position(|byte| *byte == b'/') } else { Some(0) };
                let Some(more) = taken.and_then(|last| from.get(last + 1..)) else { return false };
                (star, folders) = (None, Some(((rest, more), whole)));
                (pattern, text) = (rest, more);
            }
            _ => return false,
        }
    }
}
