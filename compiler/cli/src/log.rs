//! Lines that `durac run` and `durac record` print beside a command, and where the agent's go: `--log`, else `DURAC_LOG`.

use crate::output;
use anyhow::{Context, Result};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::OnceLock;

/// What `--log` names beside the path of a file.
const WORDS: [&[u8]; 4] = [b"stderr", b"syslog", b"journal", b"quiet"];
/// What `--log` says, if it is there.
static OPTION: OnceLock<OsString> = OnceLock::new();

/// Takes what `--log` says; without it the environment counts.
pub fn begin(option: Option<&OsStr>) {
    if let Some(value) = option {
        // A process runs one command.
        let _ = OPTION.set(value.to_owned());
    }
}

/// Whether only errors are wanted.
pub fn is_quiet() -> bool {
    let value = OPTION.get().cloned().or_else(|| std::env::var_os(durac_abi::ENV_LOG));
    value.is_some_and(|value| durac_abi::is_quiet(&value))
}

/// Prints a line unless only errors are wanted.
pub fn info(text: &str) {
    if !is_quiet() {
        output::error(text);
    }
}

/// The value of `--log` as the agent takes it: words with commas between them, of which a path is the last. That starts at
/// the root, for a server changes its directory.
pub fn for_agent(value: &OsStr) -> Result<OsString> {
    let mut whole = Vec::new();
    let mut rest = value.as_bytes();
    loop {
        let end = rest.iter().position(|byte| *byte == b',').unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if WORDS.contains(&word) {
            whole.extend_from_slice(word);
        } else if word.iter().any(|byte| b"/.".contains(byte)) {
            let path = std::path::absolute(OsStr::from_bytes(rest));
            whole.extend_from_slice(
                path.context("cannot find the working folder")?.as_os_str().as_bytes(),
            );
            break;
        } else {
            let word = durac_grammar::render::printable(&String::from_utf8_lossy(word));
            let help = "expected `quiet`, `stderr`, `syslog`, `journal` or the path of a file";
            return Err(output::exit(1, format!("invalid place for a log `{word}`: {help}")));
        }
        let Some(more) = after.get(1..) else { break };
        whole.push(b',');
        rest = more;
    }
    Ok(OsString::from_vec(whole))
}

/// The value of `--log` as the supervisor takes it, whose lines have no other place than standard error.
pub fn for_supervisor(value: &OsStr) -> Result<()> {
    match value
        .as_bytes()
        .split(|byte| *byte == b',')
        .all(|word| [&b"stderr"[..], b"quiet"].contains(&word))
    {
        true => Ok(()),
        false => Err(output::exit(1, "the supervisor's log is `stderr` or `quiet`")),
    }
}

/// Where the supervisor's log goes: as `--log` says, else as `DURAC_LOG` does as far as it can. What it cannot is told.
pub fn of_supervisor(option: Option<&OsStr>) -> Result<Option<OsString>> {
    if let Some(value) = option {
        return for_supervisor(value).map(|()| Some(value.to_owned()));
    }
    let value = std::env::var_os(durac_abi::ENV_LOG).filter(|value| !value.is_empty());
    let Some(value) = value else { return Ok(None) };
    let Err(why) = for_supervisor(&value) else { return Ok(None) };
    let shown = durac_grammar::render::printable(&value.to_string_lossy());
    let text = format!("{}=`{shown}`: {why}, not another place", durac_abi::ENV_LOG);
    match for_agent(&value) {
        Ok(_) => info(&text),
        // It is known to nobody: perhaps `quiet` is not what was meant, either.
        Err(_) => output::error(&text),
    }
    Ok(Some(if durac_abi::is_quiet(&value) { "quiet" } else { "stderr" }.into()))
}

#[cfg(test)]
mod tests {
    use super::{for_agent, for_supervisor};
    use std::ffi::OsStr;

    #[test]
    fn places_are_words_and_a_path() {
        let here = std::env::current_dir().unwrap();
        let path = |name: &str| here.join(name).to_str().unwrap().to_owned();
        for (value, taken) in [
            ("quiet", Some("quiet".to_owned())),
            ("quiet,syslog", Some("quiet,syslog".to_owned())),
            ("journal,quiet", Some("journal,quiet".to_owned())),
            ("quiet,/var/log/a,b", Some("quiet,/var/log/a,b".to_owned())),
            ("quiet,a.log", Some(format!("quiet,{}", path("a.log")))),
            ("a.log", Some(path("a.log"))),
            ("", None),
            ("quiet,", None),
            ("sylog", None),
            ("quiet,sylog", None),
            ("quie,/var/log/a", None),
            ("quiet,quie,a.log", None),
        ] {
            let given = for_agent(OsStr::new(value)).ok();
            assert_eq!(given.as_deref(), taken.as_deref().map(OsStr::new), "{value}");
        }
        for (value, fine) in
            [("quiet", true), ("stderr,quiet", true), ("syslog", false), ("", false)]
        {
            assert_eq!(for_supervisor(OsStr::new(value)).is_ok(), fine, "{value}");
        }
    }
}
