//! What replies depend on, against a slow reference that has whole requests and whole replies.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test fails by panicking")]

use durac_engine::keys::{Changes, KeyHash, Named, hash};
use durac_engine::requests::Dialogue;
use durac_engine::resp::Reader;
use durac_support::Random;
use std::collections::{BTreeSet, VecDeque};

fn command(arguments: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", arguments.len()).into_bytes();
    for argument in arguments {
        bytes.extend(format!("${}\r\n", argument.len()).into_bytes());
        bytes.extend_from_slice(argument);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

fn words(text: &str) -> Vec<u8> {
    command(&text.split(' ').map(str::as_bytes).collect::<Vec<_>>())
}

/// Whether the reply is free to go while these keys, and no others, are dirty.
fn is_free(dialogue: &Dialogue, reply: &[u8], dirty: &[&str]) -> bool {
    let dirty: BTreeSet<KeyHash> = dirty.iter().map(|key| hash(key.as_bytes())).collect();
    let mut next = dialogue.next();
    next.push(reply);
    dialogue.depends_only_on(next, |key| !dirty.contains(&key))
}

fn after(requests: &[&str]) -> Dialogue {
    let mut dialogue = Dialogue::new();
    requests.iter().for_each(|request| dialogue.was_read(&words(request)));
    dialogue
}

#[test]
fn a_read_depends_on_its_keys() {
    for (request, on, not_on) in [
        ("GET a", &["a"][..], &["GET", "b"][..]),
        ("get a", &["a"], &["b"]),
        ("HGET a f", &["a"], &["f"]),
        ("ZRANGE a 0 -1", &["a"], &["0", "-1"]),
        ("MGET a b c", &["a", "b", "c"], &["d", "MGET"]),
        ("EXISTS a a", &["a"], &["b"]),
        ("SINTER a b", &["a", "b"], &["c"]),
    ] {
        let dialogue = after(&[request]);
        assert!(is_free(&dialogue, b"$1\r\nx\r\n", &[]), "{request}");
        assert!(is_free(&dialogue, b"$1\r\nx\r\n", not_on), "{request}");
        for key in on {
            assert!(!is_free(&dialogue, b"$1\r\nx\r\n", &[key]), "{request}: {key}");
        }
    }
}

#[test]
fn what_is_no_read_depends_on_everything() {
    for request in [
        "SET a 1",
        "INCR a",
        "PING",
        "MULTI",
        "EXEC",
        "DBSIZE",
        "KEYS a",
        "SORT a",
        "GET",
        "CLIENT ID",
        "HELLO 3",
        "CONFIG GET save",
        "XREAD STREAMS a 0",
        "BLPOP a 0",
    ] {
        let mut dialogue = after(&[request]);
        assert!(!is_free(&dialogue, b"+OK\r\n", &[]), "{request}");
        // The next one is told apart again.
        dialogue.was_written(b"+OK\r\n");
        dialogue.was_read(&words("GET a"));
        assert!(is_free(&dialogue, b"$-1\r\n", &[]), "{request}");
    }
}

#[test]
fn what_is_not_known_ends_it() {
    for request in [
        "SUBSCRIBE a",
        "PSUBSCRIBE *",
        "SSUBSCRIBE a",
        "MONITOR",
        "EVAL x 0",
        "EVALSHA x 0",
        "FCALL x 0",
        "PSYNC ? -1",
        "SYNC",
        "REPLCONF x",
        "CLIENT REPLY OFF",
        "CLIENT REPLY SKIP",
        "CLIENT TRACKING ON",
        "CLIENT",
        "QUIT",
        "RESET",
        "DEBUG SLEEP 0",
        "MODULE LIST",
        "GETX a",
        "A-NAME-THAT-IS-LONGER-THAN-ANY-OTHER a",
    ] {
        let mut dialogue = after(&[request]);
        assert!(dialogue.is_lost(), "{request}");
        dialogue.was_read(&words("GET a"));
        assert!(!is_free(&dialogue, b"$-1\r\n", &[]), "{request}");
    }
    for bytes in [
        &b"GET a\r\n"[..],
        b"\r\n",
        b"*0\r\n",
        b"*-1\r\n",
        b"\x16\x03\x01",
        b"#note\r\n",
        b"*1\r\n:1\r\n",
    ] {
        let mut dialogue = Dialogue::new();
        dialogue.was_read(bytes);
        assert!(dialogue.is_lost(), "{}", bytes.escape_ascii());
    }
}

#[test]
fn a_reply_that_nobody_has_asked_for_ends_it() {
    let mut dialogue = Dialogue::new();
    assert!(!is_free(&dialogue, b"-ERR max number of clients reached\r\n", &[]));
    dialogue.was_written(b"-ERR");
    assert!(dialogue.is_lost());
    for push in [
        &b">2\r\n$1\r\na\r\n$1\r\nb\r\n"[..],
        b"|1\r\n+a\r\n+b\r\n",
        b"junk",
        b"$x\r\n",
        b"$-2\r\n",
        b"+a\rb",
    ] {
        let mut dialogue = after(&["GET a", "GET a"]);
        assert!(!is_free(&dialogue, push, &[]), "{}", push.escape_ascii());
        dialogue.was_written(push);
        assert!(dialogue.is_lost(), "{}", push.escape_ascii());
    }
}

#[test]
fn a_part_of_a_reply_belongs_to_it() {
    let mut dialogue = after(&["GET a", "GET b"]);
    assert!(is_free(&dialogue, b"$5\r\nhe", &["b"]));
    dialogue.was_written(b"$5\r\nhe");
    assert!(!is_free(&dialogue, b"ll", &["a"]));
    assert!(is_free(&dialogue, b"llo\r\n", &["b"]));
    assert!(!is_free(&dialogue, b"llo\r\n$", &["b"]));
    dialogue.was_written(b"llo\r\n$-1\r\n");
    assert!(!dialogue.is_lost());
    dialogue.was_written(b"$");
    assert!(dialogue.is_lost());
}

#[test]
fn a_client_that_asks_for_too_much_is_not_read_any_more() {
    let mut dialogue = Dialogue::new();
    let get = words("GET a");
    for _ in 0..16_384 {
        dialogue.was_read(&get);
    }
    assert!(!dialogue.is_lost());
    dialogue.was_read(&get);
    assert!(dialogue.is_lost());
    // One request for as many is one that may read everything.
    let keys = vec![&b"k"[..]; 20_000];
    let mut dialogue = Dialogue::new();
    dialogue.was_read(&command(&[&[&b"MGET"[..]], &keys[..]].concat()));
    assert!(!dialogue.is_lost() && !is_free(&dialogue, b"*0\r\n", &[]));
}

/// A reply of some type, of the second protocol or the third.
fn reply(random: &mut Random, depth: u64) -> Vec<u8> {
    let text =
        |random: &mut Random| vec![b"ab:$*\n"[random.below(6) as usize]; random.below(9) as usize];
    match random.below(if depth == 0 { 6 } else { 9 }) {
        0 => b"+OK\r\n".to_vec(),
        1 => b"-ERR no\r\n".to_vec(),
        2 => b":-12\r\n".to_vec(),
        3 => b"$-1\r\n".to_vec(),
        4 => b"_\r\n".to_vec(),
        5 => {
            let text = text(random);
            [format!("${}\r\n", text.len()).into_bytes(), text, b"\r\n".to_vec()].concat()
        }
        6 => b"*-1\r\n".to_vec(),
        kind => {
            let count = random.below(4);
            let (sign, elements) = if kind == 7 { ('*', count) } else { ('%', 2 * count) };
            let mut bytes = format!("{sign}{count}\r\n").into_bytes();
            (0..elements).for_each(|_| bytes.extend(reply(random, depth - 1)));
            bytes
        }
    }
}

#[test]
fn random_dialogues() {
    for seed in 0..2_000 {
        let mut random = Random(seed * 1_000_003);
        let mut dialogue = Dialogue::new();
        // What is asked, as keys, or nothing for all; and the bytes that are not written of its reply.
        let mut asked: VecDeque<(Option<Vec<String>>, Vec<u8>)> = VecDeque::new();
        let mut unread = Vec::new();
        for _ in 0..60 {
            if random.below(2) == 0 {
                let keys: Vec<String> =
                    (0..=random.below(3)).map(|_| format!("key{}", random.below(5))).collect();
                let (request, reads) = match random.below(3) {
                    0 => (format!("GET {}", keys[0]), Some(vec![keys[0].clone()])),
                    1 => (format!("MGET {}", keys.join(" ")), Some(keys)),
                    _ => (format!("SET {} 1", keys[0]), None),
                };
                unread.extend(words(&request));
                asked.push_back((reads, reply(&mut random, 3)));
                // A request is answered only when all of it is read.
                while random.below(8) != 0 && !unread.is_empty() {
                    let some = 1 + random.below(unread.len() as u64) as usize;
                    dialogue.was_read(&unread.drain(..some).collect::<Vec<u8>>());
                }
                if !unread.is_empty() {
                    dialogue.was_read(&std::mem::take(&mut unread));
                }
                continue;
            }
            let ready: usize = asked.iter().map(|(_, bytes)| bytes.len()).sum();
            if ready == 0 {
                continue;
            }
            let mut left = 1 + random.below(ready as u64) as usize;
            let (mut bytes, mut needs) = (Vec::new(), Some(BTreeSet::new()));
            while left > 0 {
                let (reads, rest) = asked.front_mut().unwrap();
                let some = left.min(rest.len());
                bytes.extend(rest.drain(..some));
                left -= some;
                match (&mut needs, reads) {
                    (Some(needs), Some(keys)) => needs.extend(keys.iter().cloned()),
                    _ => needs = None,
                }
                if rest.is_empty() {
                    asked.pop_front();
                }
            }
            let cut = random.below(bytes.len() as u64 + 1) as usize;
            let mut next = dialogue.next();
            next.push(&bytes[..cut]);
            next.push(&bytes[cut..]);
            for dirty in 0..6 {
                let dirty = format!("key{dirty}");
                let free = dialogue.depends_only_on(next, |key| key != hash(dirty.as_bytes()));
                let expected = needs.as_ref().is_some_and(|needs| !needs.contains(&dirty));
                assert_eq!(free, expected, "seed {seed}: {dirty}, {}", bytes.escape_ascii());
            }
            dialogue.was_written(&bytes[..cut]);
            dialogue.was_written(&bytes[cut..]);
            assert!(!dialogue.is_lost(), "seed {seed}");
        }
    }
}

#[derive(Default)]
struct Found {
    keys: BTreeSet<KeyHash>,
    every: bool,
}

impl Changes for Found {
    fn key(&mut self, key: KeyHash) {
        self.keys.insert(key);
    }

    fn every_key(&mut self) {
        self.every = true;
    }
}

#[test]
fn a_log_names_every_argument_but_the_name() {
    let long = "k".repeat(300);
    for (text, every) in [
        ("SET a 1".to_owned(), false),
        ("set a 1 PXAT 5".to_owned(), false),
        ("RENAME a b".to_owned(), false),
        (format!("DEL a {long}"), false),
        ("SELECT 0".to_owned(), false),
        ("FLUSHALL".to_owned(), true),
        ("SWAPDB 0 1".to_owned(), true),
        ("EVAL x 0".to_owned(), true),
        ("FUNCTION LOAD x".to_owned(), true),
        ("bf.add a b".to_owned(), true),
    ] {
        let bytes = words(&text);
        for cut in 0..bytes.len() {
            let (mut reader, mut named) = (Reader::of_log(), Named::NEW);
            let mut found = Found::default();
            for part in [&bytes[..cut], &bytes[cut..]] {
                reader.feed(part, &mut named.telling(&mut found));
            }
            assert!(reader.is_between(), "{text}");
            let expected: BTreeSet<KeyHash> =
                text.split(' ').skip(1).map(|argument| hash(argument.as_bytes())).collect();
            assert_eq!((found.keys, found.every), (expected, every), "{text}, cut at {cut}");
        }
    }
}

/// What a client can make the agent keep is bounded, and given back once it is answered.
#[test]
fn memory_is_bounded_and_given_back() {
    let keys: Vec<String> = (0..12_000).map(|key| format!("k{key}")).collect();
    let many: Vec<&[u8]> =
        std::iter::once("MGET").chain(keys.iter().map(String::as_str)).map(str::as_bytes).collect();
    let mut dialogue = Dialogue::new();
    let mut most = 0;
    for _ in 0..3 {
        dialogue.was_read(&command(&many));
        most = most.max(dialogue.room());
        assert!(dialogue.room() >= many.len() - 1);
        dialogue.was_written(format!("*{}\r\n", keys.len()).as_bytes());
        dialogue.was_written("$-1\r\n".repeat(keys.len()).as_bytes());
        assert!(!dialogue.is_lost());
        assert!(dialogue.room() <= 128, "{}", dialogue.room());
    }
    // A key more or less than fits, and a client that never waits for an answer.
    let mut flood = Dialogue::new();
    while !flood.is_lost() {
        flood.was_read(&command(&many));
        most = most.max(flood.room());
    }
    assert!(most <= 49_152, "{most}");
    assert!(flood.room() <= 128);
}

/// What need not be looked at of a reply does not matter: with it or without, the same is known.
#[test]
fn strings_can_be_skipped() {
    let dialogue = after(&["GET a", "GET b", "MGET a b"]);
    let replies = b"$10\r\n$-1\r\n*9\r\n\r\n$0\r\n\r\n*2\r\n$3\r\nxyz\r\n$-1\r\n";
    for cut in 0..=replies.len() {
        for step in 1..=replies.len() {
            let bytes = &replies[..cut];
            let (mut read, mut skipped) = (dialogue.next(), dialogue.next());
            read.push(bytes);
            let mut at = 0;
            while at < cut {
                let skips = usize::try_from(skipped.unread()).unwrap().min(cut - at);
                skipped.skip(skips as u64);
                at += skips;
                let end = cut.min(at + step);
                skipped.push(&bytes[at..end]);
                at = end;
            }
            for dirty in ["a", "b", "c"] {
                let is_clean = |key| key != hash(dirty.as_bytes());
                let [first, second] =
                    [read, skipped].map(|next| dialogue.depends_only_on(next, is_clean));
                assert_eq!(first, second, "{cut} in steps of {step}, {dirty}");
            }
        }
    }
}
