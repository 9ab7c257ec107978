//! What the words of the language mean, in a sentence. The tables are those of docs/language.md.

/// Meaning of a reserved word or of another fixed word.
pub fn meaning(word: &str) -> Option<&'static str> {
    WORDS.iter().find(|(known, _)| *known == word).map(|(_, text)| *text)
}

/// Words that begin an item, with the text that completes them.
pub const ITEMS: &[(&str, &str)] = &[
    ("policy", "policy "),
    ("target", "target "),
    ("param", "param n: syncs = 64 in 1..=4096"),
    ("state", "state slow: bool = false"),
    ("guarantee", "guarantee loss <= 8 syncs on power_loss"),
    ("assume", "assume sync <= 10ms"),
    ("on", "on "),
    ("flush", "flush within 50ms"),
    ("use", "use kernel notify"),
    ("test", "test \"\" {\n    write\n    fdatasync\n}"),
];

/// Words that begin a statement and are no verdict.
pub const STATEMENTS: &[&str] = &["await", "commit", "if", "unless", "every"];

/// What can follow `await`.
pub const WAITS: &[&str] = &["previous", "all", "pending < "];

const WORDS: &[(&str, &str)] = &[
    ("policy", "name of the policy"),
    ("target", "which files, which hooks, and what a policy may do there"),
    ("param", "a number that can be set from outside; bounds hold for the whole range"),
    ("state", "a value kept between calls, one for each log"),
    ("guarantee", "a bound to prove, on `power_loss` or on `process_crash`"),
    ("assume", "how long a sync takes at most on this disk, so that a bound in time can be proved"),
    ("on", "what to do when the application calls this function on the log"),
    (
        "flush",
        "deadline: an acknowledged sync is started early enough, even if the application goes idle",
    ),
    ("use", "`use kernel notify`: the kernel counts the log's syncs, whoever makes them"),
    ("test", "a test of the policy; `durac test` runs it"),
    ("pass", "run the call as the application made it"),
    ("defer", "report success now, sync in the background"),
    ("skip", "report success, do nothing"),
    ("stage", "for a write: copy its bytes, report success, write them later, in order"),
    ("fail", "fail the call with this error"),
    (
        "hold",
        "`hold until durable`: send the reply when everything that was written to the logs before is durable",
    ),
    ("gather", "look so long for more ready connections before the event loop goes on"),
    (
        "await",
        "wait: `previous`, for every earlier sync call; `all`, for this one, too; `pending < n`, until fewer than n are not durable",
    ),
    ("previous", "every earlier sync call"),
    ("all", "every earlier sync call, and this one"),
    ("commit", "write and sync what is staged, in the background"),
    ("if", "run the body if the condition holds"),
    ("unless", "run the body unless the condition holds"),
    ("every", "run the body once in each period: a duration, or a number of calls"),
    ("power_loss", "the machine stops: what was not synced is gone"),
    ("process_crash", "the process ends: what it has written stays, what it has staged is gone"),
];

#[cfg(test)]
mod tests {
    use super::{ITEMS, STATEMENTS, meaning};
    use durac_core::target::Action;

    #[test]
    fn every_word_that_is_offered_has_a_meaning() {
        let actions = Action::ALL.iter().map(|action| action.text());
        let offered = ITEMS.iter().map(|(word, _)| *word).chain(STATEMENTS.iter().copied());
        for word in offered.chain(actions) {
            assert!(meaning(word).is_some(), "{word}");
        }
    }
}
