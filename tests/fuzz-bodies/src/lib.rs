//! What must hold for any input at all: no panic, an end, and a few properties. The bodies of the
//! fuzz targets of `tests/fuzz`, which `cargo test` runs too, on the checked-in corpus and on
//! mutations of it.
//!
//! A body fails by panicking. What it does is bounded by the size of its input; longer inputs than
//! [`MOST`] are cut.

pub mod mutate;
mod objects;
pub mod seeds;
mod shared;
mod texts;
mod traces;

/// Bytes of an input that are looked at.
pub const MOST: usize = 64 << 10;

/// Something that takes input which somebody else wrote.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name: of the fuzz target and of the folder of its regressions.
    pub name: &'static str,
    /// The folder with its corpus; several targets share one.
    pub corpus: &'static str,
    /// Gives it an input. Panics if something does not hold.
    pub run: fn(&[u8]),
    /// Pieces of which good input is made.
    pub words: &'static [&'static str],
}

/// Every target.
pub const TARGETS: [Target; 13] = [
    Target { name: "parse", corpus: "text", run: texts::parse, words: texts::WORDS },
    Target { name: "format", corpus: "text", run: texts::format, words: texts::WORDS },
    Target { name: "compile", corpus: "text", run: texts::compile, words: texts::WORDS },
    Target { name: "words", corpus: "words", run: texts::words, words: texts::WORDS },
    Target { name: "elf", corpus: "elf", run: objects::elf, words: &[] },
    Target { name: "code", corpus: "code", run: objects::code, words: &[] },
    Target { name: "note", corpus: "note", run: objects::note, words: objects::WORDS },
    Target { name: "trace", corpus: "trace", run: traces::trace, words: traces::WORDS },
    Target { name: "strace", corpus: "strace", run: traces::strace, words: traces::STRACE_WORDS },
    Target { name: "replay", corpus: "trace", run: traces::replay, words: traces::WORDS },
    Target { name: "ring", corpus: "ring", run: shared::ring, words: &[] },
    Target { name: "page", corpus: "page", run: shared::page, words: &[] },
    Target {
        name: "environment",
        corpus: "environment",
        run: shared::environment,
        words: shared::WORDS,
    },
];

/// The target of this name.
#[must_use]
pub fn target(name: &str) -> Option<Target> {
    TARGETS.into_iter().find(|target| target.name == name)
}

/// The input as a text, cut to [`MOST`].
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(cut(bytes)).into_owned()
}

fn cut(bytes: &[u8]) -> &[u8] {
    bytes.get(..MOST).unwrap_or(bytes)
}
