//! The command line as clap builds it, with two examples for each command.

use crate::args::Args;
use clap::{Command, CommandFactory};

/// Examples of the commands that do not give their own.
const EXAMPLES: &[(&str, [&str; 2])] = &[
    ("check", ["durac check window", "durac check my.dur --fix"]),
    ("compare", ["durac compare window:n=8 delayed_fsync", "durac compare"]),
    ("compile", ["durac compile window -o window.o", "durac compile my.dur --emit asm"]),
    (
        "run",
        [
            "durac run window --set n=16 -- redis-server --appendonly yes --appendfsync always",
            "durac run window.o -- redis-server /etc/redis/redis.conf",
        ],
    ),
    (
        "load",
        [
            "durac load policy.o --target /usr/bin/redis-server -- redis-server redis.conf",
            "durac load policy.o --target /usr/bin/redis-server --ready-file /run/durac.ready",
        ],
    ),
    (
        "record",
        [
            "durac record -o trace.json -- redis-server --appendonly yes --appendfsync always",
            "durac record -o trace.json --from-strace strace.txt",
        ],
    ),
    (
        "simulate",
        [
            "durac simulate trace.json",
            "durac simulate trace.json -p window:n=8 -p my.dur --html page.html",
        ],
    ),
    ("lsp", ["durac lsp", "durac lsp --stdio"]),
    ("fmt", ["durac fmt policies/*.dur", "durac fmt --check my.dur"]),
    ("explain", ["durac explain E0501", "durac explain W0110"]),
    ("list", ["durac list", "durac list --show window"]),
    ("bench", ["durac bench", "durac bench window:n=64 my.dur -c 50"]),
    ("top", ["durac top", "durac top 4711 --count 1"]),
    ("set", ["durac set n=16", "durac set n=16 --pid 4711"]),
    (
        "crashtest",
        ["durac crashtest window", "durac crashtest my.dur --trials 500 --json report.json"],
    ),
];

/// The command line.
pub fn command() -> Command {
    Args::command().mut_subcommands(|command| {
        match EXAMPLES.iter().find(|(name, _)| *name == command.get_name()) {
            Some((_, [first, second])) => {
                command.after_help(format!("Examples:\n  {first}\n  {second}"))
            }
            None => command,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::command;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn each_command_begins_with_a_sentence_and_has_two_examples_that_parse() {
        let mut wrong = Vec::new();
        for sub in command().get_subcommands().filter(|sub| !sub.is_hide_set()) {
            let name = sub.get_name();
            if name == "help" {
                continue;
            }
            let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
            let begins = about.chars().next().is_some_and(char::is_uppercase);
            if !begins || about.ends_with('.') || about.contains('\n') || about.len() > 100 {
                wrong.push(format!("{name}: {about:?} is not one plain sentence without a stop"));
            }
            let after = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
            let after = after.strip_prefix("Examples:\n").unwrap_or_default().to_owned();
            let examples: Vec<&str> =
                after.lines().map(str::trim).filter(|line| line.starts_with("durac ")).collect();
            if examples.len() < 2 {
                wrong.push(format!("{name}: {} examples", examples.len()));
            }
            for example in examples {
                let words = example.split(" > ").next().unwrap_or_default().split_whitespace();
                if let Err(error) = command().try_get_matches_from(words) {
                    wrong.push(format!("{example}: {error}"));
                }
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}
