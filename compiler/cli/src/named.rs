//! A policy as every command line names it: `window`, `my.dur`, `window:n=16`, `my.dur:n=16,wait=50ms`, `-`; and
//! `--set n=16` beside it.

use clap::Args as ClapArgs;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

/// What stands where a command takes a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    text: OsString,
    path: PathBuf,
    own: Vec<String>,
}

impl Named {
    /// The file, the ready policy or `-`, without parameters.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its parameters, and then those of `--set`.
    pub fn settings(&self, set: &Settings) -> Vec<String> {
        self.own.iter().chain(&set.set).cloned().collect()
    }

    /// Whether parameters are given with it.
    pub fn has_settings(&self) -> bool {
        !self.own.is_empty()
    }
}

/// As it was written.
impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text.to_string_lossy())
    }
}

impl From<OsString> for Named {
    fn from(text: OsString) -> Self {
        let split = text.to_str().and_then(parts);
        let (path, own) = match split {
            Some((path, settings)) => {
                let settings = settings.split(',').filter(|s| !s.is_empty());
                (PathBuf::from(path), settings.map(str::to_owned).collect())
            }
            None => (PathBuf::from(&text), Vec::new()),
        };
        Self { text, path, own }
    }
}

impl From<&str> for Named {
    fn from(text: &str) -> Self {
        Self::from(OsString::from(text))
    }
}

/// Name and parameters. A name can hold a `:`: what exists is a name, and parameters have a `=` and no `/`.
fn parts(text: &str) -> Option<(&str, &str)> {
    let names = |name: &str| {
        name == "-" || durac_stdlib::policy(name).is_some() || Path::new(name).is_file()
    };
    if Path::new(text).exists() {
        return None;
    }
    let at = || text.rmatch_indices(':').filter_map(|(at, _)| text.split_at_checked(at));
    let all = || at().map(|(name, rest)| (name, rest.strip_prefix(':').unwrap_or(rest)));
    all().find(|(name, _)| names(name)).or_else(|| {
        all().find(|(name, rest)| !name.is_empty() && rest.contains('=') && !rest.contains('/'))
    })
}

/// `--set`, of every command that takes a policy.
#[derive(Clone, Debug, Default, ClapArgs)]
pub struct Settings {
    /// Set a parameter of the policy, as `FILE:NAME=VALUE` does; can be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub set: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::{Named, Settings};

    #[test]
    fn a_name_and_its_parameters() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        for name in ["a.dur", "b:n=1.dur"] {
            std::fs::write(path(name), "").unwrap();
        }
        let (a, b) = (path("a.dur"), path("b:n=1.dur"));
        for (text, name, settings) in [
            ("window".to_owned(), "window", &[][..]),
            ("window:n=16".to_owned(), "window", &["n=16"]),
            ("window:n=16,m=50ms,".to_owned(), "window", &["n=16", "m=50ms"]),
            // No value: a finding about `n`, and not about a file.
            ("window:n".to_owned(), "window", &["n"]),
            ("window:".to_owned(), "window", &[]),
            ("-:n=1".to_owned(), "-", &["n=1"]),
            (a.clone(), &a, &[]),
            (format!("{a}:n=1"), &a, &["n=1"]),
            (b.clone(), &b, &[]),
            (format!("{b}:n=2"), &b, &["n=2"]),
            // Missing files keep their names.
            ("no.dur:n=1".to_owned(), "no.dur", &["n=1"]),
            ("c:/no.dur".to_owned(), "c:/no.dur", &[]),
            (":n=1".to_owned(), ":n=1", &[]),
            ("nowhere:dur".to_owned(), "nowhere:dur", &[]),
        ] {
            let named = Named::from(text.as_str());
            assert_eq!(named.path().to_str(), Some(name), "{text}");
            assert_eq!(named.settings(&Settings::default()), settings, "{text}");
            assert_eq!(named.to_string(), text);
        }
        let set = Settings { set: vec!["m=2".to_owned()] };
        assert_eq!(Named::from("window:n=1").settings(&set), ["n=1", "m=2"]);
    }
}
