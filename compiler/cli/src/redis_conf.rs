//! A redis.conf, as much of it as a policy depends on.

use crate::output;
use std::fs;
use std::io;
use std::path::Path;

/// Files that one configuration may include, over all; Redis has no such limit, and ends with one that includes itself.
const MOST_FILES: usize = 64;

/// A configuration with the files that it includes.
#[derive(Debug, Default)]
pub struct Conf {
    /// Its lines, with those of an included file where it is included.
    pub text: String,
    /// What it includes and was not read, each with the reason.
    pub unread: Vec<String>,
}

/// The text of one file. Comments may be in any encoding.
pub fn text(path: &Path) -> io::Result<String> {
    // A pipe may never end.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    Ok(String::from_utf8_lossy(&fs::read(path)?).into_owned())
}

/// A file and what it includes. The file itself must be readable.
pub fn read(path: &Path) -> io::Result<Conf> {
    let mut conf = Conf::default();
    let own = text(path)?;
    add(&own, &mut conf, &mut vec![path.to_owned()], &mut 0);
    Ok(conf)
}

/// Adds the lines of a file. `open` are the files that are being read, from the outermost on.
fn add(text: &str, conf: &mut Conf, open: &mut Vec<std::path::PathBuf>, files: &mut usize) {
    for line in text.lines() {
        // A line that Redis refuses stays, to be told of.
        let Some(name) = value(line, "include").filter(|_| refused(line).is_empty()) else {
            conf.text.push_str(line);
            conf.text.push('\n');
            continue;
        };
        let path = Path::new(&name).to_owned();
        *files += 1;
        let found = if name.contains(['*', '?', '[']) {
            Err("it is a pattern".to_owned())
        } else if !path.is_absolute() {
            Err("its path depends on where Redis is started".to_owned())
        } else if open.contains(&path) {
            Err("it includes itself".to_owned())
        } else if *files > MOST_FILES {
            Err("there are too many".to_owned())
        } else {
            self::text(&path).map_err(|why| output::reason(&why))
        };
        match found {
            Ok(text) => {
                open.push(path);
                add(&text, conf, open, files);
                open.pop();
            }
            Err(why) => conf.unread.push(format!("`{name}` ({why})")),
        }
    }
}

/// The values that a configuration gives to a setting, one after the other; each may be quoted.
pub fn values(text: &str, name: &str) -> Vec<String> {
    let words = text.lines().map(|line| words(line).0);
    words
        .filter(|words| words.first().is_some_and(|word| word.eq_ignore_ascii_case(name)))
        .map(|words| words.into_iter().nth(1).unwrap_or_default())
        .collect()
}

/// Settings that take one value.
const SINGLE: [&str; 5] =
    ["appendonly", "appendfsync", "no-appendfsync-on-rewrite", "dir", "include"];

/// The lines with which Redis does not start, each with the reason: of all, those whose quotes are unbalanced; of the settings
/// that a policy depends on, those without exactly one value.
pub fn refused(text: &str) -> Vec<(String, &'static str)> {
    let mut found = Vec::new();
    for line in text.lines() {
        let (words, is_balanced) = words(line);
        let is_single = |word: &String| SINGLE.iter().any(|name| word.eq_ignore_ascii_case(name));
        let why = if !is_balanced {
            "unbalanced quotes"
        } else if words.len() != 2 && words.first().is_some_and(is_single) {
            "it takes one value"
        } else {
            continue;
        };
        found.push((line.trim().to_owned(), why));
    }
    found
}

/// The words of a line as Redis splits it (`sdssplitargs` in sds.c), none of a comment; and whether its quotes are balanced:
/// behind a closing one there is a space or nothing.
fn words(line: &str) -> (Vec<String>, bool) {
    let mut words = Vec::new();
    let mut rest = line.trim().chars().peekable();
    if rest.peek() == Some(&'#') {
        return (words, true);
    }
    let mut word = String::new();
    // The quote that is open.
    let mut quote = None;
    loop {
        match (rest.next(), quote) {
            (None, open) => {
                words.extend((!word.is_empty() || open.is_some()).then_some(word));
                return (words, open.is_none());
            }
            (Some('\\'), Some('"')) => word.extend(escaped(&mut rest)),
            (Some('\\'), Some(_)) if rest.peek() == Some(&'\'') => word.extend(rest.next()),
            (Some(c), Some(open)) if c == open => {
                quote = None;
                words.push(std::mem::take(&mut word));
                if rest.peek().is_some_and(|next| !next.is_whitespace()) {
                    return (words, false);
                }
            }
            (Some(c), Some(_)) => word.push(c),
            (Some(c @ ('"' | '\'')), None) => quote = Some(c),
            (Some(c), None) if c.is_whitespace() => {
                words.extend((!word.is_empty()).then(|| std::mem::take(&mut word)));
            }
            (Some(c), None) => word.push(c),
        }
    }
}

/// What stands for a character behind a backslash, within `"`.
fn escaped(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<char> {
    Some(match rest.next()? {
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'b' => '\u{8}',
        'a' => '\u{7}',
        'x' => {
            let digits: String = rest.clone().take(2).collect();
            let is_hex = digits.len() == 2 && digits.chars().all(|c| c.is_ascii_hexdigit());
            match u8::from_str_radix(&digits, 16).ok().filter(|_| is_hex) {
                Some(byte) => {
                    rest.next();
                    rest.next();
                    char::from(byte)
                }
                None => 'x',
            }
        }
        c => c,
    })
}

/// The last of them, which counts.
pub fn value(text: &str, name: &str) -> Option<String> {
    values(text, name).pop()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::{read, refused, value, values};
    use std::fs;

    #[test]
    fn the_last_value_counts() {
        let text = "# appendfsync no\nappendfsync everysec\nAppendFsync 'always' \ndir \"/var/lib/my redis\"\nport\n";
        assert_eq!(values(text, "appendfsync"), ["everysec", "always"]);
        assert_eq!(value(text, "dir").as_deref(), Some("/var/lib/my redis"));
        assert_eq!(value(text, "port").as_deref(), Some(""));
        assert_eq!(value(text, "appendonly"), None);
    }

    /// What Redis 7.0 says of each line.
    #[test]
    fn a_line_is_split_as_redis_does() {
        for (line, value) in [
            (r#"appendfsync "al\x77ays""#, "always"),
            (r#"appendfsync al"ways""#, "always"),
            ("appendfsync 'it\\'s'", "it's"),
            ("  # it is \"x", ""),
            ("save \"\"", ""),
        ] {
            assert_eq!(super::value(line, "appendfsync").unwrap_or_default(), value, "{line}");
            assert_eq!(refused(line), [], "{line}");
        }
        for line in [
            "appendfsync \"always",
            "appendfsync 'always",
            "appendfsync \"always\"x",
            "appendfsync always\"",
            "appendfsync \"always\\",
            "dir /tmp \"x",
            "save \"",
            "include \"/none",
        ] {
            assert_eq!(refused(line), [(line.to_owned(), "unbalanced quotes")]);
        }
        for line in ["appendfsync always # c", "AppendFsync always \"yes\"", "dir"] {
            assert_eq!(refused(line), [(line.to_owned(), "it takes one value")]);
        }
    }

    #[test]
    fn an_included_file_counts_where_it_is_included() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let (outer, inner, last) = (path("a.conf"), path("b.conf"), path("c.conf"));
        let include = |path: &std::path::Path| format!("include {}\n", path.display());
        fs::write(&last, "appendfsync no\n").unwrap();
        fs::write(&inner, format!("{}appendonly yes\n", include(&last))).unwrap();
        fs::write(&outer, format!("appendonly no\n{}appendfsync always\n", include(&inner)))
            .unwrap();
        let conf = read(&outer).unwrap();
        assert_eq!(values(&conf.text, "appendonly"), ["no", "yes"]);
        assert_eq!(values(&conf.text, "appendfsync"), ["no", "always"]);
        assert!(conf.unread.is_empty(), "{:?}", conf.unread);

        // What is not read is told of: missing, relative, a pattern, and a ring of files.
        let missing = path("missing.conf");
        let lines = [include(&missing), "include x.conf\ninclude /etc/*.conf\n".to_owned()];
        fs::write(&last, lines.concat() + &include(&outer)).unwrap();
        let unread = read(&outer).unwrap().unread;
        assert_eq!(unread.len(), 4, "{unread:?}");
        assert!(unread[0].contains("missing.conf"), "{unread:?}");
        assert!(read(&missing).is_err() && read(dir.path()).is_err());
    }
}
