//! `durac install`: puts the program and what belongs to it where other programs look for it.
//!
//! A package is made with it, too (`--root`), so that there is one list of what durac consists of.

use crate::args::{Format, Global};
use crate::commands::lsp::SERVER;
use crate::{Outcome, examples, launch, output};
use anyhow::{Context, Result};
use clap::Args as ClapArgs;
use clap_complete::Shell;
use std::fs;
use std::path::{Path, PathBuf};

/// Install durac with its agent, manual pages and completions
///
/// Nothing of it changes how anything runs: a database has a policy only once it is started under one.
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Examples:\n  durac install\n  durac install --prefix /usr --root package --agent \
                  target/release/libdurac_preload.so"
)]
pub struct Install {
    /// Where to install
    #[arg(long, value_name = "DIR", default_value = "/usr/local")]
    prefix: PathBuf,
    /// Write everything below this folder, as a package is made
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// The agent library [default: beside durac, or in ../lib/durac]
    #[arg(long, value_name = "PATH")]
    agent: Option<PathBuf>,
    /// Print what would be written, and write nothing
    #[arg(long)]
    dry_run: bool,
}

/// The library that crash tests preload behind the agent.
const DISK_SYNC: &str = "libdurac_disk_sync.so";

/// A file that is to be written.
struct File {
    /// Below the prefix.
    path: PathBuf,
    bytes: Vec<u8>,
    mode: u32,
}

/// Writes every file, or says which.
pub fn run(args: &Install, global: &Global) -> Result<Outcome> {
    if !args.prefix.is_absolute() {
        let shown = args.prefix.display();
        return Err(output::exit(1, format!("--prefix must be an absolute path, not `{shown}`")));
    }
    let files = files(args)?;
    let base = match &args.root {
        Some(root) => root.join(args.prefix.strip_prefix("/").unwrap_or(&args.prefix)),
        None => args.prefix.clone(),
    };
    let mut written = Vec::new();
    for file in &files {
        let path = base.join(&file.path);
        if !args.dry_run {
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder).map_err(|why| cannot(folder, &why))?;
            }
            output::write_atomically(&path, &file.bytes, file.mode)?;
        }
        written.push(path.display().to_string());
    }
    let text = match global.format {
        Format::Json => {
            let report =
                serde_json::json!({ "version": 1, "dry_run": args.dry_run, "files": written });
            serde_json::to_string_pretty(&report).context("cannot write")? + "\n"
        }
        Format::Human | Format::Short => written.join("\n") + "\n",
    };
    output::stdout(text.as_bytes())?;
    Ok(Outcome::Fine)
}

fn cannot(path: &Path, why: &std::io::Error) -> anyhow::Error {
    output::exit(2, format!("cannot make `{}`: {}", path.display(), output::reason(why)))
}

fn files(args: &Install) -> Result<Vec<File>> {
    let durac = std::env::current_exe().context("cannot find durac itself")?;
    let agent = launch::agent(args.agent.as_deref())?;
    let mut files = vec![copy(&durac, "bin/durac", 0o755)?];
    files.push(copy(&agent, "lib/durac/libdurac_preload.so", 0o644)?);
    for (name, mode) in [(DISK_SYNC, 0o644), (SERVER, 0o755)] {
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
    let agent = args.prefix.join("lib/durac/libdurac_preload.so");
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
        clap_mangen::Man::new(command).render(&mut bytes).context("cannot write a manual page")?;
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
