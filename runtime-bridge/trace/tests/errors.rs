//! Every error that a reader can make of a text, with its place. Text in, text out: a case is a
//! text and the message.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use durac_trace::strace::Importer;
use durac_trace::{Reader, TraceError, read_all};
use std::io::{self, Read};

/// A small trace.
const GOOD: &str = r#"{"format":"durac-trace","version":1,"recorded":{"source":"made","cores":2},"events":[
{"t":10,"op":"open","path":"/a.incr.aof"},
{"t":40,"op":"write","took":9,"bytes":30,"verdict":"pass"},
{"t":60,"op":"fdatasync","took":15,"verdict":"pass"},
{"t":70,"op":"close"}
],"end":{"events":4,"dropped":0}}
"#;

fn error(bytes: &[u8]) -> TraceError {
    match read_all(bytes) {
        Ok(_) => panic!("it is read without an error: {}", String::from_utf8_lossy(bytes)),
        Err(error) => error,
    }
}

#[track_caller]
fn check(text: impl AsRef<[u8]>, message: &str) {
    assert_eq!(error(text.as_ref()).to_string(), message);
}

/// [`GOOD`] with one place changed.
#[track_caller]
fn changed(from: &str, to: &str, message: &str) {
    assert!(GOOD.contains(from), "{from}");
    check(GOOD.replacen(from, to, 1), message);
}

#[test]
fn the_good_one_is_good() {
    assert_eq!(read_all(GOOD.as_bytes()).unwrap().1.len(), 4);
}

#[test]
fn a_write_of_more_than_a_system_call_writes() {
    let at_most = GOOD.replacen("\"bytes\":30", "\"bytes\":2147479552", 1);
    assert_eq!(read_all(at_most.as_bytes()).unwrap().1[1].bytes, 2_147_479_552);
    changed(
        "\"bytes\":30",
        "\"bytes\":2147479553",
        "3:31: one write of 2147479553 bytes: a system call writes 2147479552 at most",
    );
}

#[test]
fn foreign_files() {
    const MAKE: &str = "`durac record -o FILE -- CMD` makes a trace";
    check("", &format!("1:1: not a trace: this file is empty; {MAKE}"));
    check(" \n\n", &format!("1:1: not a trace: this file is empty; {MAKE}"));
    check(
        b"\x7fELF\x02\x01\x01",
        "1:1: not a trace: this is an ELF file, perhaps a policy's object; `durac record` makes traces",
    );
    check(
        b"\x1f\x8b\x08",
        "1:1: not a trace: this is compressed; decompress it with gzip -d or zstd -d",
    );
    check(
        r#"{"traceEvents":[]}"#,
        r#"1:1: not a trace: this is JSON of another kind; a trace begins with {"format":"durac-trace""#,
    );
    check("on fdatasync: defer\n", &format!("1:1: not a trace: this is not JSON; {MAKE}"));
    check("[1,2]", &format!("1:1: not a trace: this is not JSON; {MAKE}"));
    let strace = "1:1: not a trace: this looks like the output of strace; \
                  `durac record --from-strace FILE -o OUT` imports it";
    check("1795516113.687562 fdatasync(4) = 0 <0.000017>\n", strace);
    check("[pid  7] 1795516113.687562 fdatasync(4 <unfinished ...>\n", strace);
    check("12 1795516113.687562 +++ exited with 0 +++\n", strace);
}

#[test]
fn headers() {
    changed(
        "durac-trace",
        "durac-trade",
        "1:11: unknown format of a trace `durac-trade`; did you mean `durac-trace`?",
    );
    changed(
        "\"version\":1",
        "\"version\":2",
        "1:35: version 2 of the format; this durac reads version 1",
    );
    changed(
        "\"version\":1",
        "\"version\":\"1\"",
        "1:35: expected a whole number from 0 on, found a string",
    );
    changed("\"made\"", "\"mode\"", "1:58: unknown source `mode`; did you mean `made`?");
    changed("\"cores\"", "\"core\"", "1:65: unknown field `core`; did you mean `cores`?");
    changed("\"source\":\"made\",", "", "1:48: `recorded` without the field `source`");
    changed(
        "\"recorded\":{\"source\":\"made\",\"cores\":2},",
        "",
        "1:37: expected the field `recorded`, found `events`: a trace has format, version, recorded, \
         events and end in this order",
    );
    // As other tools sort it.
    check(
        r#"{"end":{"events":0,"dropped":0},"events":[],"format":"durac-trace"}"#,
        "1:2: expected the field `format`, found `end`: a trace has format, version, recorded, \
         events and end in this order",
    );
}

#[test]
fn fields() {
    changed("\"bytes\"", "\"byte\"", "3:31: unknown field `byte`; did you mean `bytes`?");
    changed("\"bytes\"", "\"colour\"", "3:31: unknown field `colour`");
    changed("\"bytes\":30", "\"took\":30", "3:31: duplicate field `took`");
    changed("\"write\"", "\"wrote\"", "3:14: unknown operation `wrote`; did you mean `write`?");
    changed("\"pass\"", "\"passed\"", "3:52: unknown verdict `passed`; did you mean `pass`?");
    changed("\"t\":40,", "", "3:1: an event without the field `t`");
    changed("\"op\":\"write\",", "", "3:1: an event without the field `op`");
    changed("30", "-30", "3:39: expected a whole number from 0 on, found a negative number");
    changed("30", "3.5", "3:39: expected a whole number from 0 on, found a fraction");
    changed("30", "3e5", "3:39: expected a whole number from 0 on, found a fraction");
    changed(
        "30",
        "030",
        "3:39: expected a whole number from 0 on, found a number that begins with 0",
    );
    changed("30", "null", "3:39: expected a whole number from 0 on, found `null`");
    changed(
        "30",
        "99999999999999999999",
        "3:39: the number is too large: at most 18446744073709551615",
    );
    changed("\"bytes\":30", "\"log\":1048576", "3:37: the number is too large: at most 1048575");
    changed(
        "\"bytes\":30",
        "\"result\":2147483648",
        "3:40: the number is too large: at most 2147483647",
    );
    changed("\"bytes\":30", "\"background\":1", "3:44: expected `true` or `false`, found a number");
    changed("\"bytes\":30", "\"background\":tree", "3:46: expected `true` or `false`, found `e`");
}

#[test]
fn sense() {
    changed(
        "\"t\":60",
        "\"t\":39",
        "4:6: `t` goes back from 40 to 39: events are in the order in which they ended",
    );
    changed(
        "\"took\":15",
        "\"took\":61",
        "4:33: `took` is 61, more than the 60 ns from the beginning of the trace to the end of this event",
    );
    changed("\"took\":9", "\"log\":1", "3:28: `write` of log 1, which is not open");
    changed(
        "{\"t\":10,\"op\":\"open\",\"path\":\"/a.incr.aof\"},\n",
        "",
        "2:1: `write` of log 0, which is not open",
    );
    changed("\"write\"", "\"close\"", "4:1: `fdatasync` of log 0, which is no longer open");
    changed("\"write\"", "\"open\"", "3:1: log 0 was opened before: each log has its own number");
    changed(
        "\"events\":4",
        "\"events\":5",
        "6:19: `end` counts 5 events, but there are 4: some were removed or added",
    );
    // Two lines that an editor has swapped.
    let lines: Vec<&str> = GOOD.lines().collect();
    let [head, open, write, sync, rest @ ..] = lines.as_slice() else { panic!() };
    let swapped = [&[*head, *open, *sync, *write], rest].concat().join("\n");
    check(swapped, "4:6: `t` goes back from 60 to 40: events are in the order in which they ended");
}

#[test]
fn layout() {
    changed("},\n{\"t\":60", "}\n{\"t\":60", "4:1: expected `,` or `]`, found an object");
    changed("\"t\":60,", "\"t\":60", "4:8: expected `,` or `}`, found a string");
    changed("\"t\":60", "\"t\" 60", "4:6: expected `:`, found a number");
    changed("\"t\":60", "t:60", "4:2: expected the name of a field, found `true` or `false`");
    changed("{\"t\":60", "[{\"t\":60", "4:1: expected an event, found a list");
    changed("{\"t\":70,\"op\":\"close\"}\n", "", "5:1: expected an event, found `]`");
    changed(
        "],\"end\"",
        "],\"and\"",
        "6:3: expected the field `end`, found `and`: a trace has format, version, recorded, events and end in this order",
    );
    changed(",\"dropped\":0", "", "6:9: `end` without the field `dropped`");
    changed("0}}\n", "0}}\n{", "7:1: expected the end of the file, found an object");
    changed("0}}\n", "0}}}\n", "6:34: expected the end of the file, found `}`");
    changed("0}}\n", "0},\"more\":1}\n", "6:33: expected `}`, found `,`");
    changed("/a.incr", "/a\n.incr", "2:31: a line break or other control character in a string");
    changed("/a.incr", "/a\\x.incr", "2:31: an unknown escape in a string");
    changed("/a.incr", "/a\\ud83e.incr", "2:31: half of a surrogate pair in a string");
    // A column is a character, not a byte.
    changed("/a.incr.aof\"", "/ü🦀.aof\" 1", "2:38: expected `,` or `}`, found a number");
    let text = GOOD.replacen("/a.incr.aof\"", "/ü🦀.aof\" 1", 1);
    assert_eq!(error(text.as_bytes()).byte, text.find("\" 1").unwrap() as u64 + 2);
    let mut bytes = GOOD.as_bytes().to_vec();
    let at = GOOD.find("/a.incr").unwrap();
    bytes.splice(at..=at, [0xff]);
    check(bytes, "2:29: bytes that are not UTF-8 in a string");
}

/// Wherever it is cut off, that is what the error says.
#[test]
fn cut_off_anywhere() {
    let after = [
        ("{\"format\":\"durac-trace\",\"vers", "1:30: stops before the first event"),
        ("events\":[\n", "2:1: stops before the first event"),
        ("/a.incr", "2:36: stops before the first event"),
        ("\"took\":9", "3:30: stops after event 1"),
        ("\"t\":70,\"op\":\"close\"}", "5:22: stops after event 4"),
        ("],\"end\"", "6:8: stops after event 4"),
        ("\"dropped\":0}", "6:33: stops after event 4"),
    ];
    for (end, message) in after {
        let at = GOOD.find(end).unwrap() + end.len();
        check(
            GOOD.get(..at).unwrap(),
            &format!("{message}: the file was cut off, or is still being written"),
        );
    }
    for at in 40..GOOD.trim_end().len() {
        let message = error(GOOD.get(..at).unwrap().as_bytes()).to_string();
        assert!(message.contains(": stops "), "cut at {at}: {message}");
    }
}

/// Nothing that is in a file makes the reader panic.
#[test]
fn any_byte_anywhere() {
    for at in 0..GOOD.len() {
        for byte in [0, b' ', b'"', b'\\', b'{', b'}', b',', b'9', b'-', 0x80, 0xff] {
            let mut bytes = GOOD.as_bytes().to_vec();
            bytes.splice(at..=at, [byte]);
            drop(read_all(bytes.as_slice()));
            bytes.remove(at);
            drop(read_all(bytes.as_slice()));
        }
    }
}

#[test]
fn what_the_system_says() {
    #[derive(Debug)]
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the disk is gone"))
        }
    }
    let error = Reader::open(GOOD.as_bytes().chain(Broken)).unwrap_err();
    assert_eq!(error.message(), "cannot be read: the disk is gone");
    let lines: Vec<&str> = GOOD.split_inclusive('\n').collect();
    let [head, open, write, ..] = lines.as_slice() else { panic!() };
    let long = [*head, *open, &write.repeat(100)].concat();
    let error = read_all(long.as_bytes().chain(Broken)).unwrap_err();
    assert_eq!(error.to_string(), "103:1: cannot be read: the disk is gone");
}

/// After an error there is nothing more, whatever follows.
#[test]
fn one_error_is_the_last() {
    let text = GOOD.replacen("\"write\"", "\"wrote\"", 1);
    let mut reader = Reader::open(text.as_bytes()).unwrap();
    assert!(reader.next().unwrap().is_ok());
    assert!(reader.next().unwrap().is_err());
    assert!(reader.next().is_none() && reader.end().is_none());
}

#[track_caller]
fn strace(text: &str, message: &str) {
    let read = || Importer::open(text.as_bytes(), |_| true)?.collect::<Result<Vec<_>, _>>();
    match read() {
        Ok(events) => panic!("it is read without an error: {events:?}"),
        Err(error) => assert_eq!(error.to_string(), message),
    }
}

#[test]
fn strace_lines() {
    strace("", "1:1: the file is empty");
    strace("strace: Process 7 attached\n", "2:1: the file is empty");
    strace(
        GOOD,
        "1:1: no line of strace: keep its output apart from the application's with -o FILE",
    );
    let no_time = "no time in seconds since 1970: run strace with -ttt";
    strace("fsync(3) = 0 <0.000100>\n", &format!("1:1: {no_time}"));
    strace("7  12:30:01.123456 fsync(3) = 0 <0.000100>\n", &format!("1:4: {no_time}"));
    strace("[pid 7] fsync(3) = 0 <0.000100>\n", &format!("1:9: {no_time}"));
    strace("[pid 7 100.5 fsync(3) = 0\n", "1:6: `[pid` without its `]`");
    strace("[pid x] 100.5 fsync(3) = 0\n", "1:6: a thread's id is a number");
    strace("7 100.5 hello\n", "1:9: expected a call, as in `fdatasync(7) = 0 <0.000123>`");
    strace("7 100.5 fsync(3)\n", "1:9: a call without its result, as in `… = 0 <0.000123>`");
    strace("7 100.5 <... fsync\n", "1:9: `<...` without its `resumed>`");
    strace("7 100.5 fsync(x) = 0 <0.1>\n", "1:9: `fsync` of no descriptor");
    strace("7 100.5 openat(AT_FDCWD) = 3 <0.1>\n", "1:9: `openat` of no path");
    let open = "7 100.5 open(\"/a\", O_WRONLY) = 3 <0.000001>\n";
    strace(
        &format!("{open}7 100.6 fsync(3) = 0\n"),
        "2:9: no duration behind the call: run strace with -T",
    );
    strace(&format!("{open}7 100.6 fsync(3) = -1 EWHAT (?) <0.1>\n"), "2:9: unknown error `EWHAT`");
    strace(&format!("{open}7 100.6 fsync(3) = yes <0.1>\n"), "2:9: invalid result of a call `yes`");
    strace(
        &format!("{open}7 100.6 fsync(3) = 0 <0.0001"),
        "2:9: no duration behind the call: run strace with -T; the file was cut off here",
    );
    strace(
        &format!(
            "{open}7 100.6 fsync(3 <unfinished ...>\n7 100.7 <... fsync resumed>) = what <0.1>\n"
        ),
        "3:28: invalid result of a call `what`",
    );
}
