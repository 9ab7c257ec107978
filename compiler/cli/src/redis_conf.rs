//! A redis.conf, as much of it as a policy depends on.

use crate::output;
use std::fs;
use std::path::Path;

/// The text of a configuration. Comments may be in any encoding.
pub fn text(path: &Path) -> Result<String, String> {
    let read = fs::read(path).map_err(|error| output::reason(&error))?;
    Ok(String::from_utf8_lossy(&read).into_owned())
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
mod tests {
    use super::{value, values};

    #[test]
    fn the_last_value_counts() {
        let text = "# appendfsync no\nappendfsync everysec\nAppendFsync 'always' \ndir \"/var/lib/my redis\"\nport\n";
        assert_eq!(values(text, "appendfsync"), ["everysec", "always"]);
        assert_eq!(value(text, "dir").as_deref(), Some("/var/lib/my redis"));
        assert_eq!(value(text, "port").as_deref(), Some(""));
        assert_eq!(value(text, "appendonly"), None);
    }
}
