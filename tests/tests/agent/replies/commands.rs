//! The lists of `durac_engine::keys` against the command table of the Redis that is here, and against what it answers.

use super::{Client, Held, external_synchrony};
use crate::common::agent;
use durac_engine::keys::{Asks, Changes, KeyHash, Named};
use durac_engine::requests::Dialogue;
use durac_engine::resp::Reader;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A reply.
#[derive(Debug)]
enum Value {
    Text(String),
    Number(i64),
    Many(Vec<Value>),
    Nothing,
}

impl Value {
    fn text(&self) -> &str {
        match self {
            Value::Text(text) => text,
            other => panic!("{other:?}"),
        }
    }

    fn number(&self) -> i64 {
        match self {
            Value::Number(number) => *number,
            other => panic!("{other:?}"),
        }
    }

    fn many(&self) -> &[Value] {
        match self {
            Value::Many(all) => all,
            other => panic!("{other:?}"),
        }
    }

    fn texts(&self) -> Vec<&str> {
        self.many().iter().map(Value::text).collect()
    }

    /// Of a map, what this name has.
    fn get(&self, name: &str) -> &Value {
        let mut pairs = self.many().chunks(2);
        &pairs.find(|pair| pair[0].text() == name).unwrap_or_else(|| panic!("{name}"))[1]
    }

    /// Reads one from there, and keeps its bytes.
    fn read(from: &mut impl BufRead, bytes: &mut Vec<u8>) -> std::io::Result<Self> {
        let before = bytes.len();
        if from.read_until(b'\n', bytes)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let line = String::from_utf8_lossy(&bytes[before..]).trim_end().to_owned();
        let (kind, rest) = line.split_at(1);
        let count = || rest.parse::<i64>().unwrap();
        Ok(match kind {
            "$" | "=" | "!" if count() >= 0 => {
                let length = count() as usize;
                let begin = bytes.len();
                bytes.resize(begin + length + 2, 0);
                from.read_exact(&mut bytes[begin..])?;
                Value::Text(String::from_utf8_lossy(&bytes[begin..begin + length]).into_owned())
            }
            "*" | "~" | "%" if count() >= 0 => {
                let number = count() * if kind == "%" { 2 } else { 1 };
                let all = (0..number).map(|_| Self::read(from, bytes));
                Value::Many(all.collect::<std::io::Result<_>>()?)
            }
            ":" => Value::Number(count()),
            "$" | "*" | "_" => Value::Nothing,
            "+" | "-" | "," | "#" | "(" => Value::Text(line),
            _ => panic!("{line}"),
        })
    }
}

/// What a log's command changes.
#[derive(Default)]
struct Found {
    keys: usize,
    every: bool,
}

impl Changes for Found {
    fn key(&mut self, _: KeyHash) {
        self.keys += 1;
    }

    fn every_key(&mut self) {
        self.every = true;
    }
}

fn request(words: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n{word}\r\n", word.len()).into_bytes());
    }
    bytes
}

/// Whether a command of this name in the log is taken to change its arguments only.
fn changes_what_it_names(name: &str) -> bool {
    let (mut found, mut named) = (Found::default(), Named::NEW);
    Reader::of_log().feed(&request(&[name, "key", "value"]), &mut named.telling(&mut found));
    assert_eq!(found.keys, 2, "every argument counts");
    !found.every
}

/// A connection, and what was asked there.
struct Asking(BufReader<TcpStream>);

impl Asking {
    fn of(client: Client) -> Self {
        let stream = client.0.unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Self(BufReader::new(stream))
    }

    fn ask(&mut self, words: &[&str]) -> (Value, Vec<u8>) {
        self.0.get_mut().write_all(&request(words)).unwrap();
        let mut bytes = Vec::new();
        (Value::read(&mut self.0, &mut bytes).unwrap(), bytes)
    }
}

/// A server that is asked about itself: its syncs are as usual.
fn server() -> Held {
    Held::start(&external_synchrony(), &agent(), &[])
}

/// A command as the server's table has it.
struct Command {
    name: String,
    /// Arguments, the name included; at least so many if it is negative.
    arity: i64,
    flags: Vec<String>,
    /// First key, last key, step.
    keys: [i64; 3],
    /// What says where the keys are: what is done with them, and whether the place is known.
    specs: Vec<(Vec<String>, bool)>,
    subcommands: Vec<String>,
}

impl Command {
    fn is(&self, flag: &str) -> bool {
        self.flags.iter().any(|has| has == flag)
    }

    fn of(value: &Value) -> Self {
        let owned = |texts: Vec<&str>| texts.into_iter().map(str::to_owned).collect();
        // A status is read with its `+`.
        let flags = |value: &Value| -> Vec<String> {
            owned(value.texts().iter().map(|flag| flag.trim_start_matches('+')).collect())
        };
        let fields = value.many();
        let specs = |value: &Value| -> Vec<(Vec<String>, bool)> {
            let known = |spec: &Value, part| spec.get(part).get("type").text() != "unknown";
            let spec = |spec: &Value| {
                (flags(spec.get("flags")), known(spec, "begin_search") && known(spec, "find_keys"))
            };
            value.many().iter().map(spec).collect()
        };
        let subcommand = |value: &Value| {
            let name = value.many()[0].text();
            name.split_once('|').map_or(name, |(_, name)| name).to_uppercase()
        };
        Self {
            name: fields[0].text().to_uppercase(),
            arity: fields[1].number(),
            flags: flags(&fields[2]),
            keys: [3, 4, 5].map(|field| fields[field].number()),
            // Redis 7 and later say it.
            specs: fields.get(8).map_or(vec![], specs),
            subcommands: fields
                .get(9)
                .map_or(vec![], |all| all.many().iter().map(subcommand).collect()),
        }
    }

    fn all(held: &Held) -> Vec<Self> {
        let (table, _) = Asking::of(held.client()).ask(&["COMMAND"]);
        let all: Vec<Self> = table.many().iter().map(Self::of).collect();
        assert!(all.len() > 150, "{}", all.len());
        all
    }
}

/// What is wrong with what is believed of a command that has these flags and keys; none if nothing is.
fn wrong(command: &Command, asks: Asks, changes: bool) -> Option<&'static str> {
    let is_read = command.is("readonly")
        && !["write", "pubsub", "blocking", "movablekeys"].iter().any(|flag| command.is(flag));
    let reads = |flags: &[String]| flags.iter().all(|flag| flag != "OW" && flag != "RW");
    let all_read = command.specs.iter().all(|(flags, known)| *known && reads(flags));
    match asks {
        Asks::First | Asks::All if !is_read || !all_read => return Some("is no plain read"),
        Asks::First if command.keys != [1, 1, 1] => return Some("reads other keys, too"),
        Asks::All if command.keys != [1, -1, 1] => return Some("reads other arguments, too"),
        Asks::First | Asks::All if command.specs.len() > 1 => return Some("has other keys, too"),
        _ => {}
    }
    // `SORT` names its `STORE` among its arguments; the table says `unknown` as it may stand anywhere.
    let changes_unnamed = || {
        let writes = |(flags, known): &(Vec<String>, bool)| !known && !reads(flags);
        command.specs.iter().any(writes) && command.name != "SORT"
    };
    // Containers (`XGROUP`) have theirs in their subcommands.
    let has_keys =
        command.keys[0] > 0 || !command.subcommands.is_empty() || command.is("movablekeys");
    match changes {
        true if changes_unnamed() => {
            Some("changes keys of which the table cannot say where they are")
        }
        true if !has_keys => Some("has no keys"),
        _ => None,
    }
}

#[test]
fn the_lists_agree_with_the_servers_command_table() {
    let held = server();
    let all = Command::all(&held);
    let (mut reads, mut writes) = (0, 0);
    for command in &all {
        let asks = Asks::of(Some(command.name.as_bytes()));
        // `SELECT` and the marks of a transaction change nothing.
        let marks = ["SELECT", "MULTI", "EXEC"].contains(&&*command.name);
        let changes = changes_what_it_names(&command.name) && !marks;
        assert_eq!(wrong(command, asks, changes), None, "{}", command.name);
        reads += u64::from(matches!(asks, Asks::First | Asks::All));
        writes += u64::from(changes && command.is("write"));
    }
    println!("{} commands: {reads} reads of what they name, {writes} changes", all.len());
    assert!(reads > 50 && writes > 70, "{reads} {writes}");
    // Mistakes in the lists would be found.
    let named = |name: &str| all.iter().find(|command| command.name == name).unwrap();
    for (name, asks, changes) in [
        ("SET", Asks::First, false),
        ("GETDEL", Asks::First, false),
        ("DBSIZE", Asks::First, false),
        ("SORT_RO", Asks::First, false),
        ("LCS", Asks::First, false),
        ("XREAD", Asks::First, false),
        ("SINTERCARD", Asks::All, false),
        ("GET", Asks::All, false),
        ("FLUSHALL", Asks::Everything, true),
        ("SWAPDB", Asks::Everything, true),
    ] {
        assert!(wrong(named(name), asks, changes).is_some(), "{name}");
    }
}

/// Every request of which one reply is expected gets one, and the dialogue follows it.
#[test]
fn requests_get_one_reply_each() {
    let held = server();
    let mut asked = 0;
    for command in &Command::all(&held) {
        let asks = Asks::of(Some(command.name.as_bytes()));
        if asks == Asks::Unknown {
            continue;
        }
        let plain = vec!["x"; usize::try_from(command.arity.abs() - 1).unwrap()];
        let subcommand = |name: &String| -> Vec<String> { vec![name.clone(), "x".into()] };
        let mut tails: Vec<Vec<String>> = vec![plain.iter().map(|word| (*word).into()).collect()];
        tails.extend(command.subcommands.iter().map(subcommand));
        tails.extend(command.subcommands.iter().map(|name| vec![name.clone()]));
        for (tail, version) in tails.iter().flat_map(|tail| [(tail, "2"), (tail, "3")]) {
            let words: Vec<&str> =
                [&*command.name].into_iter().chain(tail.iter().map(String::as_str)).collect();
            let argument = words.get(1).map(|word| word.to_uppercase());
            let argument = argument.as_deref().map(str::as_bytes);
            if asks == Asks::Client && Asks::of_client_command(argument) == Asks::Unknown {
                continue;
            }
            let mut client = Asking::of(held.client());
            let mut dialogue = Dialogue::new();
            let all = [&["HELLO", version][..], &words, &["ECHO", "marker"], &["GET", "none"]];
            for (at, words) in all.into_iter().enumerate() {
                dialogue.was_read(&request(words));
                assert!(!dialogue.is_lost(), "{words:?}");
                let (reply, bytes) = client.ask(words);
                let mut next = dialogue.next();
                next.push(&bytes);
                let is_clean = dialogue.depends_only_on(next, |_| true);
                dialogue.was_written(&bytes);
                assert!(!dialogue.is_lost(), "{words:?} RESP{version}: {reply:?}");
                let is = |text: &str| matches!(&reply, Value::Text(reply) if reply == text);
                match at {
                    2 => assert!(
                        is("marker") || is("+QUEUED") && command.name == "MULTI",
                        "after {:?}: {reply:?}",
                        command.name
                    ),
                    3 => assert!(is_clean, "after {:?}: {reply:?}", command.name),
                    _ => {}
                }
            }
            asked += 1;
        }
    }
    println!("{asked} requests");
    assert!(asked > 400, "{asked}");
}
