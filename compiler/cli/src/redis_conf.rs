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
        let Some(name) = value(line, "include") else {
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
    let mut found = Vec::new();
    for line in text.lines() {
        let line = line.trim_start();
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        if word.eq_ignore_ascii_case(name) {
            let rest = rest.trim_start();
            let quote = rest.chars().next().filter(|c| ['"', '\''].contains(c));
            let end = |c: char| quote.map_or(c.is_whitespace(), |quote| c == quote);
            let rest = rest.trim_start_matches(|c| quote == Some(c));
            found.extend(rest.split(end).next().map(str::to_owned));
        }
    }
    found
}

/// The last of them, which counts.
pub fn value(text: &str, name: &str) -> Option<String> {
    values(text, name).pop()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::{read, value, values};
    use std::fs;

    #[test]
    fn the_last_value_counts() {
        let text = "# appendfsync no\nappendfsync everysec\nAppendFsync 'always' \ndir \"/var/lib/my redis\"\nport\n";
        assert_eq!(values(text, "appendfsync"), ["everysec", "always"]);
        assert_eq!(value(text, "dir").as_deref(), Some("/var/lib/my redis"));
        assert_eq!(value(text, "port").as_deref(), Some(""));
        assert_eq!(value(text, "appendonly"), None);
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
