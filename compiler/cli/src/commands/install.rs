//! `durac install`: puts the program and what belongs to it where other programs look for it.
//!
//! A package is made with it, too (`--root`), so that there is one list of what durac consists of.

use crate::args::Global;
use crate::commands::lsp::SERVER;
use crate::launch::AGENT;
use crate::{Outcome, examples, launch, output};
use anyhow::{Context, Result};
use clap::Args as ClapArgs;
use clap_complete::Shell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Install durac with its agent, manual pages and completions
///
/// Nothing of it changes how anything runs: a database has a policy only once it is started under one. What is not
/// beside durac is built from its source first, so that a durac of `cargo install` has an agent.
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Examples:\n  durac install\n  durac install --source ~/src/durac\n  durac install --prefix /usr --root package --agent \
                  target/release/libdurac_preload.so"
)]
pub struct Install {
    /// Where to install [default: where durac is, if that is the folder `bin` of something else than /usr; else
    /// /usr/local]
    #[arg(long, value_name = "DIR")]
    prefix: Option<PathBuf>,
    /// Write everything below this folder, as a package is made
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// The agent library [default: beside durac, or in ../lib/durac, or built]
    #[arg(long, value_name = "PATH")]
    agent: Option<PathBuf>,
    /// Build the agent from durac's source in this folder, with cargo [default: the current folder, if the source is
    /// there and no agent is beside durac]
    #[arg(long, value_name = "DIR", conflicts_with = "agent")]
    source: Option<PathBuf>,
    /// Print what would be written, and write nothing
    #[arg(long)]
    dry_run: bool,
}

/// What belongs beside the agent: the library of the crash tests' disk, the application of `--app builtin`, the language server.
const BESIDE: [(&str, u32); 3] =
    [("libdurac_disk_sync.so", 0o644), ("durac-append-log", 0o755), (SERVER, 0o755)];

/// A file that is to be written.
struct File {
    /// Below the prefix.
    path: PathBuf,
    bytes: Vec<u8>,
    mode: u32,
}

/// Writes every file, or says which.
pub fn run(args: &Install, global: &Global) -> Result<Outcome> {
    let durac = std::env::current_exe().context("cannot find durac itself")?;
    let prefix = args.prefix.clone().unwrap_or_else(|| own_prefix(&durac));
    if !prefix.is_absolute() {
        let shown = prefix.display();
        return Err(output::exit(1, format!("--prefix must be an absolute path, not `{shown}`")));
    }
    if prefix.to_string_lossy().contains(char::is_control) {
        return Err(output::exit(1, "--prefix has a control character, which no unit can name"));
    }
    // Every `durac run` would refuse it.
    if let Err(why) = launch::preload(&prefix.join("lib/durac").join(AGENT), None) {
        return Err(output::exit(1, format!("--prefix cannot be used: {why}")));
    }
    let base = match &args.root {
        Some(root) => root.join(prefix.strip_prefix("/").unwrap_or(&prefix)),
        None => prefix.clone(),
    };
    if !args.dry_run {
        // Before anything is built.
        let folder = base.join("bin");
        output::make_folder(&folder)?;
        output::check_writable(&folder.join("durac"))?;
    }
    let files = files(args, &durac, &prefix)?;
    let mut written = Vec::new();
    for file in &files {
        let path = base.join(&file.path);
        if !args.dry_run {
            if let Some(folder) = path.parent() {
                output::make_folder(folder)?;
            }
            output::write_for_all(&path, &file.bytes, file.mode)?;
        }
        written.push(path.display().to_string());
    }
    global.document.put(&serde_json::json!({ "dry_run": args.dry_run, "files": written }))?;
    if !global.is_json() {
        output::print(&(written.join("\n") + "\n"))?;
    }
    Ok(Outcome::Fine)
}

/// The prefix of this program: `/home/me/.cargo` of `/home/me/.cargo/bin/durac`. What is in /usr belongs to packages.
fn own_prefix(durac: &Path) -> PathBuf {
    let bin = durac.parent().filter(|folder| folder.ends_with("bin"));
    let prefix = bin.and_then(Path::parent).filter(|prefix| *prefix != Path::new("/usr"));
    prefix.filter(|prefix| prefix.parent().is_some()).map_or("/usr/local".into(), Path::to_owned)
}

/// The agent: as named, as it is beside durac, or built.
fn agent(args: &Install) -> Result<PathBuf> {
    let source = match (&args.source, launch::agent(args.agent.as_deref())) {
        (None, Ok(agent)) => return Ok(agent),
        (None, Err(why)) if args.agent.is_some() || source_version(Path::new(".")).is_none() => {
            return Err(why);
        }
        (Some(source), _) => source.clone(),
        (None, Err(_)) => PathBuf::from("."),
    };
    build(&source)
}

/// The version of durac whose source is in this folder.
fn source_version(folder: &Path) -> Option<String> {
    let text = fs::read_to_string(folder.join("Cargo.toml")).ok()?;
    let is_durac = folder.join("runtime-bridge/preload/Cargo.toml").is_file();
    let line = text.lines().find_map(|line| line.strip_prefix("version = "))?;
    is_durac.then(|| line.trim().trim_matches('"').to_owned())
}

/// Builds the agent and what crash tests need. Returns the agent's file.
fn build(source: &Path) -> Result<PathBuf> {
    let (shown, own) = (source.display(), env!("CARGO_PKG_VERSION"));
    match source_version(source) {
        Some(version) if version == own => {}
        Some(version) => {
            let why =
                format!("`{shown}` is the source of durac {version}, and this is durac {own}");
            return Err(output::exit(1, why));
        }
        None => return Err(output::exit(1, format!("`{shown}` has no source of durac"))),
    }
    let source = fs::canonicalize(source).with_context(|| format!("cannot find `{shown}`"))?;
    let target = source.join("target");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo
        .current_dir(&source)
        .args(["build", "--release", "--locked", "--target-dir"])
        .arg(&target);
    cargo.args([
        "-p",
        "durac-preload",
        "-p",
        "durac-disk-sync",
        "-p",
        "durac-workload",
        "-p",
        "durac-lsp",
    ]);
    // Its output is progress.
    let ended = cargo.stdin(Stdio::null()).stdout(Stdio::null()).status().map_err(|why| {
        output::exit(2, format!("cannot build the agent: cargo: {}", output::reason(&why)))
    })?;
    if !ended.success() {
        return Err(output::exit(2, format!("cannot build the agent: cargo: {ended}")));
    }
    Ok(target.join("release").join(AGENT))
}

fn files(args: &Install, durac: &Path, prefix: &Path) -> Result<Vec<File>> {
    let agent = agent(args)?;
    launch::check_agent(&agent)?;
    let mut files = vec![copy(durac, "bin/durac", 0o755)?];
    files.push(copy(&agent, &format!("lib/durac/{AGENT}"), 0o644)?);
    for (name, mode) in BESIDE {
        let beside = agent.with_file_name(name);
        if beside.is_file() {
            files.push(copy(&beside, &format!("lib/durac/{name}"), mode)?);
        }
    }
    manual_pages(&mut files)?;
    completions(&mut files);
    for text in durac_stdlib::POLICIES {
        files.push(plain(format!("share/durac/policies/{}.dur", text.name), text.text));
    }
    for text in durac_stdlib::TARGETS {
        files.push(plain(format!("share/durac/targets/{}.dur", text.name), text.text));
    }
    let agent = prefix.join("lib/durac").join(AGENT);
    files.push(plain("share/doc/durac/examples/durac.conf".to_owned(), &drop_in(&agent)));
    Ok(files)
}

fn plain(path: String, text: &str) -> File {
    File { path: path.into(), bytes: text.as_bytes().to_owned(), mode: 0o644 }
}

fn copy(from: &Path, path: &str, mode: u32) -> Result<File> {
    let bytes = fs::read(from).with_context(|| format!("cannot read `{}`", from.display()))?;
    Ok(File { path: path.into(), bytes, mode })
}

/// `durac(1)` and a page for each command.
fn manual_pages(files: &mut Vec<File>) -> Result<()> {
    let mut whole = examples::command().disable_help_subcommand(true);
    whole.build();
    let hidden = |command: &clap::Command| command.is_hide_set();
    let commands: Vec<_> = whole.get_subcommands().filter(|c| !hidden(c)).cloned().collect();
    let mut page = |name: &str, command: clap::Command| -> Result<()> {
        let mut bytes = Vec::new();
        let last = command.get_positionals().find(|arg| arg.is_last_set()).cloned();
        clap_mangen::Man::new(command).render(&mut bytes).context("cannot write a manual page")?;
        if let Some(last) = last {
            bytes = with_dashes(&String::from_utf8_lossy(&bytes), &last).into_bytes();
        }
        files.push(File { path: format!("share/man/man1/{name}.1").into(), bytes, mode: 0o644 });
        Ok(())
    };
    page("durac", whole.clone())?;
    for command in commands {
        let name = format!("durac-{}", command.get_name());
        page(&name, command)?;
    }
    Ok(())
}

/// A manual page whose synopsis has `--` before the last argument, which needs it.
fn with_dashes(page: &str, last: &clap::Arg) -> String {
    let name = last.get_value_names().and_then(<[_]>::first).map_or("", |name| name.as_str());
    let mut lines: Vec<String> = page.lines().map(str::to_owned).collect();
    let at = lines.iter().position(|line| line == ".SH SYNOPSIS").map(|title| title + 1);
    if let Some(line) = at.and_then(|at| lines.get_mut(at)) {
        let required =
            line.replace(&format!("<\\fI{name}\\fR>"), &format!("\\-\\- <\\fI{name}\\fR>..."));
        *line =
            required.replace(&format!("[\\fI{name}\\fR]"), &format!("[\\-\\- \\fI{name}\\fR...]"));
    }
    lines.join("\n") + "\n"
}

/// Where each shell looks for the completions of a package.
fn completions(files: &mut Vec<File>) {
    for (shell, path) in [
        (Shell::Bash, "share/bash-completion/completions/durac"),
        (Shell::Zsh, "share/zsh/vendor-completions/_durac"),
        (Shell::Fish, "share/fish/vendor_completions.d/durac.fish"),
    ] {
        let mut bytes = Vec::new();
        clap_complete::generate(shell, &mut examples::command(), "durac", &mut bytes);
        files.push(File { path: path.into(), bytes, mode: 0o644 });
    }
}

/// A drop-in to read, where systemd does not look.
fn drop_in(agent: &Path) -> String {
    format!(
        "# What `durac enable UNIT POLICY` writes to /etc/systemd/system/UNIT.service.d/durac.conf, after it has tried it\n\
         # under the unit's restrictions. This copy has no effect.\n\
         [Service]\n\
         Environment=LD_PRELOAD={}\n\
         Environment={}=/etc/durac/UNIT.o\n\
         # Where the unit has NoExecPaths=:\n\
         ExecPaths={}\n",
        agent.display(),
        durac_abi::ENV_OBJECT,
        agent.parent().unwrap_or(Path::new("/")).display()
    )
}

#[cfg(test)]
mod tests {
    use super::{manual_pages, own_prefix, source_version};
    use std::path::Path;

    #[test]
    fn a_command_has_dashes_before_it_in_its_manual_page() {
        let mut files = Vec::new();
        assert!(manual_pages(&mut files).is_ok());
        let synopsis = |name: &str| {
            let page = files.iter().find(|file| file.path.ends_with(name));
            let text = page.map(|page| String::from_utf8_lossy(&page.bytes).into_owned());
            let text = text.unwrap_or_default();
            text.split_once(".SH SYNOPSIS\n")
                .and_then(|(_, rest)| Some(rest.lines().next()?.to_owned()))
        };
        for (name, end) in [
            ("durac-run.1", r"<\fIFILE\fR> \-\- <\fICMD\fR>..."),
            ("durac-record.1", r"[\-\- \fICMD\fR...]"),
            ("durac-load.1", r"<\fIOBJECT\fR> [\-\- \fICOMMAND\fR...]"),
            ("durac-crashtest.1", r"<\fIFILE\fR> [\-\- \fICOMMAND\fR...]"),
        ] {
            let line = synopsis(name).unwrap_or_default();
            assert!(line.trim_end().ends_with(end), "{name}: {line}");
        }
    }

    #[test]
    fn a_program_is_installed_where_it_is() {
        for (durac, prefix) in [
            ("/home/me/.cargo/bin/durac", "/home/me/.cargo"),
            ("/usr/local/bin/durac", "/usr/local"),
            ("/opt/durac/bin/durac", "/opt/durac"),
            // A package's, one of the system, one that was just built.
            ("/usr/bin/durac", "/usr/local"),
            ("/bin/durac", "/usr/local"),
            ("/src/target/release/durac", "/usr/local"),
        ] {
            assert_eq!(own_prefix(Path::new(durac)), Path::new(prefix), "{durac}");
        }
    }

    #[test]
    fn the_source_is_known_by_its_version() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        assert_eq!(source_version(&root).as_deref(), Some(env!("CARGO_PKG_VERSION")));
        assert_eq!(source_version(Path::new(env!("CARGO_MANIFEST_DIR"))), None);
        assert_eq!(source_version(Path::new("/")), None);
    }
}
