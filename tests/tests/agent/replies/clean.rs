//! Replies that need not wait: reads of keys that nothing which is not durable names, of a real Redis.

use super::{Client, Held, requests};
use crate::common::{agent, objects, poll};
use durac_abi::insn::{Cond, Insn, Reg, Size};
use durac_abi::{Hook, Object, Reading, Records, Verdict};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// `on fdatasync: defer; on reply { if reply.clean { pass } hold until durable }`
fn clean_reads() -> Object {
    let mut object = objects::defer();
    object.meta.reads = vec![Reading::ReplyClean];
    object.meta.records = Records::Resp;
    object.programs.push(objects::assemble(Hook::Reply, |asm| {
        let hold = asm.label();
        asm.push(Insn::ldx(Size::Dw, Reg::R2, Reg::R1, Reading::ReplyClean.offset()));
        asm.jump_if_imm(Cond::Eq, Reg::R2, 0, hold);
        objects::verdict(asm, Verdict::Pass);
        asm.bind(hold);
        objects::verdict(asm, Verdict::Hold);
    }));
    object
}

/// A server on a slow disk: a thread syncs, and the event loop goes on.
fn start(options: &[&str]) -> Held {
    slowed(Held::start(&clean_reads(), &agent(), options))
}

fn slowed(held: Held) -> Held {
    held.place.touch("slow");
    let mut writer = Speaker::new(&held);
    for _ in 0..50 {
        assert_eq!(writer.ask("SET x 1"), "+OK");
    }
    held
}

/// A client that speaks the protocol.
pub struct Speaker(pub BufReader<TcpStream>);

impl Speaker {
    pub fn new(held: &Held) -> Self {
        let stream = held.client().0.unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(300))).unwrap();
        Self(BufReader::new(stream))
    }

    pub fn send(&mut self, commands: &[&str]) {
        let mut bytes = Vec::new();
        for command in commands {
            let words: Vec<&str> = command.split(' ').collect();
            bytes.extend(format!("*{}\r\n", words.len()).into_bytes());
            for word in words {
                bytes.extend(format!("${}\r\n{word}\r\n", word.len()).into_bytes());
            }
        }
        self.0.get_mut().write_all(&bytes).unwrap();
    }

    /// A reply of one line or one string; its text.
    fn receive(&mut self) -> String {
        let line = |reader: &mut BufReader<TcpStream>| {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            line.trim_end().to_owned()
        };
        let first = line(&mut self.0);
        match first.split_at_checked(1) {
            Some(("$", "-1")) => "nil".to_owned(),
            Some(("$", length)) => {
                let mut bytes = vec![0; length.parse::<usize>().unwrap() + 2];
                self.0.read_exact(&mut bytes).unwrap();
                String::from_utf8(bytes).unwrap().trim_end().to_owned()
            }
            Some(("*", count)) => {
                let all = (0..count.parse().unwrap()).map(|_| self.receive());
                all.collect::<Vec<_>>().join(" ")
            }
            _ => first,
        }
    }

    pub fn ask(&mut self, command: &str) -> String {
        self.send(&[command]);
        self.receive()
    }

    fn is_silent(&mut self) -> bool {
        assert!(self.0.buffer().is_empty());
        let stream = self.0.get_ref().try_clone().unwrap();
        let silent = Client(Some(stream)).is_silent();
        self.0.get_ref().set_read_timeout(Some(Duration::from_secs(300))).unwrap();
        silent
    }
}

/// Syncs are held, and this client's write waits for one.
fn hold_one(held: &Held, writer: &mut Speaker, write: &str) {
    let _ = std::fs::remove_file(held.place.path("held"));
    held.hold();
    writer.send(&[write]);
    held.until_held();
    assert!(writer.is_silent(), "{write}");
}

#[test]
fn reads_of_clean_keys_do_not_wait() {
    let held = start(&[]);
    let [mut writer, mut reader] = [(); 2].map(|()| Speaker::new(&held));
    for key in ["a", "b", "c"] {
        assert_eq!(writer.ask(&format!("SET {key} old")), "+OK");
    }
    hold_one(&held, &mut writer, "SET a new");
    for (read, reply) in [
        ("GET b", "old"),
        ("MGET b c", "old old"),
        ("EXISTS b c none", ":2"),
        ("GET none", "nil"),
        ("STRLEN c", ":3"),
    ] {
        assert_eq!(reader.ask(read), reply, "{read}");
    }
    // Several at once.
    reader.send(&["GET b", "GET c", "GET b"]);
    assert_eq!([(); 3].map(|()| reader.receive()), ["old", "old", "old"]);
    for read in ["GET a", "MGET b a", "EXISTS a", "DBSIZE", "KEYS *", "PING", "RANDOMKEY"] {
        let mut other = Speaker::new(&held);
        other.send(&[read]);
        assert!(other.is_silent(), "{read}");
    }
    // One that is behind one that waits.
    let mut both = Speaker::new(&held);
    both.send(&["GET a", "GET b"]);
    assert!(both.is_silent());
    let mut behind = Speaker::new(&held);
    behind.send(&["GET a"]);
    assert!(behind.is_silent());
    behind.send(&["GET b"]);
    assert!(behind.is_silent());
    held.go_on();
    assert_eq!(writer.receive(), "+OK");
    assert_eq!([both.receive(), both.receive()], ["new", "old"]);
    assert_eq!([behind.receive(), behind.receive()], ["new", "old"]);
    assert_eq!(reader.ask("GET a"), "new");
}

/// What changes keys that it does not name, or more than one.
#[test]
fn what_a_write_changes_is_not_clean() {
    for (write, dirty, clean) in [
        ("DEL a", &["GET a"][..], &["GET b"][..]),
        ("RENAME a b", &["GET a", "GET b"], &["GET c"]),
        ("MSET a 1 b 2", &["GET a", "GET b"], &["GET c"]),
        ("EVAL return(redis.call('set','a','x')) 0", &["GET a"], &["GET b"]),
        ("SUNIONSTORE a s", &["EXISTS a", "SMEMBERS s"], &["GET b"]),
        ("FLUSHALL", &["GET a", "GET b", "GET none"], &[]),
        ("SWAPDB 0 1", &["GET a", "GET b", "GET none"], &[]),
        ("EXPIRE a 1000", &["TTL a", "GET a"], &["TTL b"]),
    ] {
        let held = start(&[]);
        let mut writer = Speaker::new(&held);
        writer.send(&["MSET a 1 b 2 c 3", "SADD s 1"]);
        assert_eq!([writer.receive(), writer.receive()], ["+OK", ":1"]);
        hold_one(&held, &mut writer, write);
        for read in dirty {
            let mut reader = Speaker::new(&held);
            reader.send(&[read]);
            assert!(reader.is_silent(), "{write}: {read}");
        }
        for read in clean {
            let mut reader = Speaker::new(&held);
            reader.ask(read);
        }
        held.go_on();
        writer.receive();
    }
}

/// Clients of which the agent does not know what their replies depend on.
#[test]
fn what_is_not_understood_waits() {
    for before in [
        &["SUBSCRIBE news"][..],
        &["CLIENT TRACKING ON"],
        &["EVAL return(1) 0"],
        &["MULTI", "EVAL return(1) 0", "EXEC"],
        &["CLIENT REPLY SKIP"],
        &["HELLO 3", "SUBSCRIBE news"],
    ] {
        let held = start(&[]);
        let [mut writer, mut odd, mut plain] = [(); 3].map(|()| Speaker::new(&held));
        writer.ask("SET b old");
        odd.send(before);
        hold_one(&held, &mut writer, "SET a new");
        // What came of that does not matter.
        while !odd.is_silent() {
            let _ = odd.0.get_mut().read(&mut [0; 4096]).unwrap();
        }
        odd.send(&["GET b"]);
        assert!(odd.is_silent(), "{before:?}");
        assert_eq!(plain.ask("GET b"), "old");
        held.go_on();
        assert_eq!(writer.receive(), "+OK");
    }
    // An inline command.
    let held = start(&[]);
    let (mut writer, mut inline) = (Speaker::new(&held), held.client());
    writer.ask("SET b old");
    hold_one(&held, &mut writer, "SET a new");
    inline.send("GET b");
    assert!(inline.is_silent());
    held.go_on();
    assert_eq!(inline.receive().unwrap(), "$3\r\nold\r\n");
}

/// What common clients say first does not end it, nor does a snapshot, a rewrite, or another file.
#[test]
fn reads_stay_clean() {
    let held = start(&[]);
    let [mut writer, mut reader] = [(); 2].map(|()| Speaker::new(&held));
    for hello in ["CLIENT SETNAME x", "CLIENT ID", "SELECT 0", "PING", "COMMAND COUNT"] {
        reader.ask(hello);
    }
    writer.ask("SET b old");
    for change in ["PING", "BGREWRITEAOF", "BGSAVE"] {
        writer.ask(change);
        poll("the end of the child", || {
            let info = held.client().ask("INFO persistence").unwrap();
            let ends = ["aof_rewrite_in_progress:0", "rdb_bgsave_in_progress:0"];
            ends.iter().all(|end| info.contains(end)).then_some(())
        });
        hold_one(&held, &mut writer, "SET a new");
        assert_eq!(reader.ask("GET b"), "old", "after {change}");
        held.go_on();
        assert_eq!(writer.receive(), "+OK");
    }
}

const KEYS: usize = 64;
const READERS: usize = 4;

/// Writers raise the version of each key, readers read any keys, and syncs are held again and again: while they are,
/// no reader sees a version whose writer has no reply yet. Returns how many reads were answered meanwhile, and how
/// many of them told too much.
fn reads_while_syncs_are_held(held: &Held, pipeline: usize) -> (u64, u64) {
    let mut writers: Vec<Speaker> = (0..4).map(|_| Speaker::new(held)).collect();
    let mut durable = vec![0_u64; KEYS];
    for key in 0..KEYS {
        assert_eq!(writers[0].ask(&format!("SET key{key} 0")), "+OK");
    }
    let many: u64 = requests(6_000).parse().unwrap();
    let (mut reads, mut early) = (0, 0);
    let mut round = 0;
    while reads < many {
        round += 1;
        // Writes that nobody holds, then some that wait.
        for (number, writer) in writers.iter_mut().enumerate() {
            let key = (round * 7 + number * 16) % KEYS;
            durable[key] += 1;
            assert_eq!(writer.ask(&format!("SET key{key} {}", durable[key])), "+OK");
        }
        let _ = std::fs::remove_file(held.place.path("held"));
        held.hold();
        let next: Vec<usize> =
            (0..writers.len()).map(|number| (round * 5 + number * 16 + 3) % KEYS).collect();
        for (writer, key) in writers.iter_mut().zip(&next) {
            writer.send(&[&format!("SET key{key} {}", durable[*key] + 1)]);
        }
        held.until_held();
        let answers: Vec<(u64, u64)> = std::thread::scope(|scope| {
            let durable = &durable;
            let readers = (0..READERS).map(|reader| {
                scope.spawn(move || {
                    let mut client = Speaker::new(held);
                    let (mut reads, mut early, mut at) = (0, 0, reader * 11 + round);
                    // Until one asks for a key that is not durable: its replies wait.
                    for _ in 0..200 {
                        let keys: Vec<usize> = (0..pipeline)
                            .map(|_| {
                                at = (at * 5 + 3) % 1021;
                                at % KEYS
                            })
                            .collect();
                        let gets: Vec<String> =
                            keys.iter().map(|key| format!("GET key{key}")).collect();
                        client.send(&gets.iter().map(String::as_str).collect::<Vec<_>>());
                        client
                            .0
                            .get_ref()
                            .set_read_timeout(Some(Duration::from_millis(30)))
                            .unwrap();
                        if client.0.fill_buf().is_err() {
                            return (reads, early);
                        }
                        client
                            .0
                            .get_ref()
                            .set_read_timeout(Some(Duration::from_millis(30)))
                            .unwrap();
                        for key in keys {
                            // A pipeline's first replies may be all that comes.
                            if client.0.buffer().is_empty() && client.0.fill_buf().is_err() {
                                return (reads, early);
                            }
                            reads += 1;
                            let version: u64 = client.receive().parse().unwrap();
                            early += u64::from(version != durable[key]);
                        }
                    }
                    (reads, early)
                })
            });
            readers.collect::<Vec<_>>().into_iter().map(|reader| reader.join().unwrap()).collect()
        });
        for (more, wrong) in answers {
            reads += more;
            early += wrong;
        }
        held.go_on();
        for (writer, key) in writers.iter_mut().zip(next) {
            assert_eq!(writer.receive(), "+OK");
            durable[key] += 1;
        }
        if early > 0 {
            break;
        }
    }
    (reads, early)
}

#[test]
fn no_read_tells_what_is_not_durable() {
    for (options, pipeline) in
        [(&[][..], 1), (&[], 16), (&["--io-threads", "4", "--io-threads-do-reads", "yes"], 3)]
    {
        let held = start(options);
        let (reads, early) = reads_while_syncs_are_held(&held, pipeline);
        println!("{options:?}, pipelines of {pipeline}: {reads} reads, {early} too early");
        assert_eq!(early, 0, "{options:?}, pipelines of {pipeline}");
    }
}

/// The tests above see what they claim to see.
#[test]
fn agents_that_do_not_know_what_is_dirty_are_found() {
    let faulty = durac_tests::faulty_agent().unwrap();
    for fault in ["clean", "nameless"] {
        let held = slowed(Held::start_with(&clean_reads(), &faulty, &[], Some(fault)));
        let (reads, early) = reads_while_syncs_are_held(&held, 1);
        println!("{fault}: {reads} reads, {early} too early");
        assert!(early > 0, "{fault}");
    }
}
