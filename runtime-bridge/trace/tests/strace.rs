//! What strace wrote, and the events that come of it. Text in, text out.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use durac_trace::strace::Importer;
use durac_trace::{Header, Recorded, Source, Writer, read_all};

/// Imports `text`; files that end in `.aof` are logs. `events` is one event a line, as in a trace.
#[track_caller]
fn check(text: &str, events: &str) {
    let covers = |path: &std::path::Path| path.extension().is_some_and(|e| e == "aof");
    let importer = Importer::open(text.as_bytes(), covers).unwrap();
    let header = Header::new(Recorded { source: Source::Strace, ..Recorded::default() });
    let mut writer = Writer::new(Vec::new(), &header).unwrap();
    for event in importer {
        writer.event(&event.unwrap_or_else(|e| unreachable!("{e}"))).unwrap();
    }
    let (bytes, _) = writer.finish(0).unwrap();
    // Whatever is imported is a trace.
    read_all(bytes.as_slice()).unwrap_or_else(|e| unreachable!("{e}"));
    let text = String::from_utf8(bytes).unwrap();
    let lines = text.lines().filter(|line| line.starts_with("{\"t\""));
    let lines: Vec<&str> = lines.map(|line| line.trim_end_matches(',')).collect();
    let expected: Vec<&str> = events.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    assert_eq!(lines, expected);
}

#[test]
fn the_calls_of_a_log() {
    check(
        r#"100.000000 execve("/usr/bin/redis-server", ["redis-server"], 0x7ffd /* 9 vars */) = 0 <0.001000>
100.000100 openat(AT_FDCWD, "/etc/ld.so.cache", O_RDONLY|O_CLOEXEC) = 3 <0.000010>
100.000200 openat(AT_FDCWD, "/d/a.aof", O_WRONLY|O_CREAT|O_APPEND, 0644) = 7 <0.000050>
100.000300 write(7, "*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n"..., 54) = 54 <0.000009>
100.000400 fdatasync(7)            = 0 <0.000120>
100.000600 writev(7, [{iov_base="a", iov_len=1}, {iov_base="b", iov_len=1}], 2) = 2 <0.000001>
100.000700 pwrite64(7, "abc", 3, 0) = 3 <0.000001>
100.000800 fsync(7) = 0 <0.000100>
100.000950 ftruncate(7, 0) = 0 <0.000003>
100.001000 write(3, "not a log", 9) = 9 <0.000001>
100.001100 close(7) = 0 <0.000005>
100.001200 exit_group(0) = ?
100.001300 +++ exited with 0 +++
"#,
        r#"
        {"t":250000,"op":"open","path":"/d/a.aof"}
        {"t":309000,"op":"write","took":9000,"bytes":54,"verdict":"pass"}
        {"t":520000,"op":"sync","took":120000,"bytes":54,"covers":1}
        {"t":520000,"op":"fdatasync","took":120000,"verdict":"pass"}
        {"t":601000,"op":"write","took":1000,"bytes":2,"verdict":"pass"}
        {"t":701000,"op":"write","took":1000,"bytes":3,"verdict":"pass"}
        {"t":900000,"op":"sync","took":100000,"bytes":5,"covers":2}
        {"t":900000,"op":"fsync","took":100000,"verdict":"pass"}
        {"t":953000,"op":"write","took":3000,"verdict":"pass"}
        {"t":1105000,"op":"close","took":5000}
        "#,
    );
}

/// Other threads run between the beginning of a call and its end.
#[test]
fn calls_that_overlap() {
    check(
        r#"strace: Process 12 attached
[pid    11] 5.000000 openat(AT_FDCWD, "x.aof", O_RDWR|O_CREAT, 0644) = 4 <0.000100>
[pid    11] 5.001000 fdatasync(4 <unfinished ...>
[pid    12] 5.001100 write(4, "\") = 9 <0.000001>", 17 <unfinished ...>
[pid    11] 5.001300 --- SIGALRM {si_signo=SIGALRM, si_code=SI_KERNEL} ---
[pid    12] 5.001400 <... write resumed>) = 17 <0.000250>
[pid    11] 5.001500 <... fdatasync resumed>) = 0 <0.000490>
[pid    12] 5.001600 fdatasync(4 <unfinished ...>
[pid    12] 5.001700 <... fdatasync resumed>) = 0
[pid    12] 5.001800 fdatasync(4 <unfinished ...>
"#,
        r#"
        {"t":100000,"op":"open","path":"x.aof"}
        {"t":1350000,"op":"write","thread":1,"took":250000,"bytes":17,"verdict":"pass"}
        {"t":1490000,"op":"sync","took":490000,"covers":1}
        {"t":1490000,"op":"fdatasync","took":490000,"verdict":"pass"}
        {"t":1700000,"op":"sync","thread":1,"took":100000,"bytes":17,"covers":2}
        {"t":1700000,"op":"fdatasync","thread":1,"took":100000,"verdict":"pass"}
        "#,
    );
}

#[test]
fn errors() {
    check(
        r#"1.0 open("/a.aof", O_WRONLY) = -1 ENOENT (No such file or directory) <0.000001>
1.1 open("/a.aof", O_WRONLY) = 3 <0.000000>
1.2 write(3, "x", 1) = -1 ENOSPC (No space left on device) <0.000001>
1.3 fsync(3) = -1 EIO (Input/output error) (INJECTED) <0.000002>
1.4 fdatasync(3) = ? ERESTARTSYS (To be restarted if SA_RESTART is set) <0.000003>
1.5 fdatasync(3) = 0 <0.000004>
"#,
        r#"
        {"t":100000000,"op":"open","path":"/a.aof"}
        {"t":200001000,"op":"write","took":1000,"verdict":"pass","result":28}
        {"t":300002000,"op":"sync","took":2000,"covers":1,"result":5}
        {"t":300002000,"op":"fsync","took":2000,"verdict":"pass","result":5}
        {"t":500004000,"op":"sync","took":4000,"covers":2}
        {"t":500004000,"op":"fdatasync","took":4000,"verdict":"pass"}
        "#,
    );
}

/// Descriptors are followed, and with -y known from the start.
#[test]
fn descriptors() {
    check(
        r#"1.0 <... epoll_wait resumed>[], 128, 100) = 0 <0.1>
1.0 write(9</d/old.aof>, "x", 1) = 1 <0.000001>
1.1 openat(AT_FDCWD</d>, "new \"1\".aof", O_WRONLY|O_CREAT, 0644) = 5</d/new "1".aof> <0.000010>
1.2 dup(5</d/new "1".aof>) = 6</d/new "1".aof> <0.000001>
1.3 close(5</d/new "1".aof>) = 0 <0.000001>
1.4 fcntl(6</d/new "1".aof>, F_DUPFD_CLOEXEC, 100) = 100</d/new "1".aof> <0.000001>
1.5 fcntl(6</d/new "1".aof>, F_GETFL) = 0x8001 (flags O_WRONLY|O_LARGEFILE) <0.000001>
1.6 close(6</d/new "1".aof>) = 0 <0.000001>
1.7 fsync(100</d/new "1".aof>) = 0 <0.000001>
1.8 dup2(1</dev/null>, 100</d/new "1".aof>) = 100</dev/null> <0.000001>
1.9 write(3<socket:[17]>, "x", 1) = 1 <0.000001>
2.0 openat(AT_FDCWD</d>, "sync.aof", O_WRONLY|O_DSYNC) = 5</d/sync.aof> <0.000001>
"#,
        r#"
        {"t":0,"op":"open","path":"/d/old.aof"}
        {"t":1000,"op":"write","took":1000,"bytes":1,"verdict":"pass"}
        {"t":100010000,"op":"open","log":1,"path":"/d/new \"1\".aof"}
        {"t":700001000,"op":"sync","log":1,"took":1000,"covers":1}
        {"t":700001000,"op":"fsync","log":1,"took":1000,"verdict":"pass"}
        {"t":800001000,"op":"close","log":1,"took":1000}
        "#,
    );
}

/// A child's calls are not the application's; a thread's are.
#[test]
fn children_and_threads() {
    check(
        r#"1 1.0 open("/a.aof", O_WRONLY) = 3 <0.000000>
1 1.1 clone3({flags=CLONE_VM|CLONE_FS|CLONE_FILES|CLONE_THREAD, stack=0x7f}, 88) = 2 <0.000010>
2 1.2 write(3, "x", 1) = 1 <0.000001>
1 1.3 clone(child_stack=NULL, flags=CLONE_CHILD_CLEARTID|SIGCHLD <unfinished ...>
4 1.4 write(3, "child", 5) = 5 <0.000001>
1 1.5 <... clone resumed>, child_tidptr=0x7f) = 4 <0.200000>
4 1.6 close(3) = 0 <0.000001>
4 1.7 +++ exited with 0 +++
1 1.8 --- SIGCHLD {si_signo=SIGCHLD, si_pid=4} ---
1 1.9 wait4(-1, [{WIFEXITED(s) && WEXITSTATUS(s) == 0}], WNOHANG, NULL) = 4 <0.000001>
1 2.0 write(3, "yz", 2) = 2 <0.000001>
"#,
        r#"
        {"t":0,"op":"open","path":"/a.aof"}
        {"t":200001000,"op":"write","thread":1,"took":1000,"bytes":1,"verdict":"pass"}
        {"t":500000000,"op":"fork","took":200000000}
        {"t":900001000,"op":"reap","took":1000}
        {"t":1000001000,"op":"write","took":1000,"bytes":2,"verdict":"pass"}
        "#,
    );
}

/// The message about the first line of `text` that cannot be read.
fn refused(text: &str) -> String {
    let importer = match Importer::open(text.as_bytes(), |_| true) {
        Ok(importer) => importer,
        Err(error) => return error.to_string(),
    };
    let failed = importer.filter_map(Result::err).next();
    failed.map_or_else(|| "accepted".to_owned(), |error| error.to_string())
}

/// strace has let go of a process whose call had not returned: with Ctrl-C, the usual end.
#[test]
fn detached() {
    check(
        r#"17620 1795979020.000000 openat(AT_FDCWD, "x.aof", O_RDWR|O_CREAT, 0644) = 4 <0.000100>
17620 1795979020.001000 fdatasync(4) = 0 <0.000500>
17620 1795979020.002000 write(4, "a\n", 2 <unfinished ...>
17618 1795979020.002100 pause( <detached ...>
17620 1795979020.002200 <... write resumed>) = 2 <0.000200>
17620 1795979020.003000 fdatasync(4 <detached ...>
"#,
        r#"
        {"t":100000,"op":"open","path":"x.aof"}
        {"t":1500000,"op":"sync","took":500000,"covers":1}
        {"t":1500000,"op":"fdatasync","took":500000,"verdict":"pass"}
        {"t":2200000,"op":"write","took":200000,"bytes":2,"verdict":"pass"}
        "#,
    );
}

/// What other options of strace add to a line changes nothing.
#[test]
fn other_options() {
    let events = r#"
        {"t":50000,"op":"open","path":"/d/x.aof"}
        {"t":1015000,"op":"write","took":15000,"bytes":6,"verdict":"pass"}
        {"t":2400000,"op":"sync","took":400000,"bytes":6,"covers":1}
        {"t":2400000,"op":"fdatasync","took":400000,"verdict":"pass"}
        "#;
    for text in [
        // A short id is padded.
        r#"12    1795979020.000000 openat(AT_FDCWD, "/d/x.aof", O_WRONLY) = 3 <0.000050>
12    1795979020.001000 write(3, "a\n\1\377<x", 6) = 6 <0.000015>
12    1795979020.002000 fdatasync(3)    = 0 <0.000400>
"#,
        // -r beside -ttt.
        r#"16325 1795979020.000000 (+     0.000042) openat(AT_FDCWD, "/d/x.aof", O_WRONLY) = 3 <0.000050>
16325 1795979020.001000 (+     0.000074) write(3, "a", 6) = 6 <0.000015>
16325 1795979020.002000 (+     0.000038) fdatasync(3) = 0 <0.000400>
16325 1795979020.003000 (+     0.000175) +++ killed by SIGINT +++
"#,
        // -xx and -y.
        r#"16555 1795979020.000000 openat(AT_FDCWD, "\x2f\x64\x2f\x78\x2e\x61\x6f\x66", O_WRONLY) = 3<\x2f\x64\x2f\x78\x2e\x61\x6f\x66> <0.000050>
16555 1795979020.001000 write(3<\x2f\x64\x2f\x78\x2e\x61\x6f\x66>, "\x61\x0a\x01\xff\x3c\x78", 6) = 6 <0.000015>
16555 1795979020.002000 fdatasync(3<\x2f\x64\x2f\x78\x2e\x61\x6f\x66>) = 0 <0.000400>
"#,
        // --decode-pids=comm, -n and -i.
        r#"16743<redis server> 1795979020.000000 [ 257] [00007f99ce966011] openat(AT_FDCWD, "/d/x.aof", O_WRONLY) = 3 <0.000050>
16743<redis server> 1795979020.001000 [   1] [00007f99ce966350] write(3, "a", 6) = 6 <0.000015>
[pid 16743<redis server>] 1795979020.002000 [  75] [00007f99ce96cce0] fdatasync(3) = 0 <0.000400>
16743<redis server> 1795979020.003000 [  34] [????????????????] +++ killed by SIGINT +++
"#,
        // -k, and names of older systems.
        r#"16743 1795979020.000000 openat(AT_FDCWD, "/d/x.aof", O_WRONLY) = 3 <0.000050>
 > /usr/lib/x86_64-linux-gnu/libc.so.6(openat+0x10) [0xfece0]
16743 1795979020.001000 write(3, "a", 6) = 6 <0.000015>
 > /usr/lib/x86_64-linux-gnu/libc.so.6(write+0x10) [0xfece0]

16743 1795979020.001500 fcntl64(3, F_GETFL) = 0x8001 (flags O_WRONLY|O_LARGEFILE) <0.000001>
16743 1795979020.002000 fdatasync(3) = 0 <0.000400>
"#,
        // The halves of calls have numbers.
        r#"16743 1795979020.000000 openat(AT_FDCWD, "/d/x.aof", O_WRONLY <unfinished #1 ...>
16744 1795979020.000010 futex(0x7f, FUTEX_WAIT <unfinished #2 ...>
16743 1795979020.000050 <... openat resumed #1>) = 3 <0.000050>
16743 1795979020.001000 write(3, "a", 6) = 6 <0.000015>
16743 1795979020.002000 fdatasync(3) = 0 <0.000400>
16744 1795979020.003000 <... futex resumed #2>) = 0 <0.002990>
"#,
    ] {
        check(text, events);
    }
}

#[test]
fn names_of_other_systems() {
    check(
        r#"1 1.0 open("/a.aof", O_WRONLY) = 3 <0.000000>
1 1.1 fcntl64(3, F_DUPFD, 10) = 10 <0.000001>
1 1.2 ftruncate64(10, 0) = 0 <0.000003>
"#,
        r#"
        {"t":0,"op":"open","path":"/a.aof"}
        {"t":200003000,"op":"write","took":3000,"verdict":"pass"}
        "#,
    );
}

/// Times that are not absolute are never taken for such, and the message says which option is missing.
#[test]
fn missing_options() {
    let relative = "run strace with -ttt instead of -r";
    let absolute = "run strace with -ttt";
    for (text, says) in [
        ("16267      0.000041 openat(AT_FDCWD, \"x.aof\", O_WRONLY) = 3 <0.000059>\n", relative),
        ("16267      0.000044706 fdatasync(3) = 0 <0.000059>\n", relative),
        ("     0.000041 fdatasync(3) = 0 <0.000059>\n", relative),
        ("[pid 16267]      0.000041 fdatasync(3) = 0 <0.000059>\n", relative),
        ("12         0.000041 fdatasync(3) = 0 <0.000059>\n", relative),
        ("16377 19:03:30.113877 fdatasync(3) = 0 <0.000050>\n", absolute),
        ("19:03:30 fdatasync(3) = 0 <0.000050>\n", absolute),
        ("17259 1795979017 fdatasync(3) = 0 <0.000050>\n", absolute),
        ("17259 fdatasync(3) = 0 <0.000050>\n", absolute),
        ("fdatasync(3) = 0\n", absolute),
        ("1.0 open(\"/a.aof\", O_WRONLY) = 3\n", "run strace with -T"),
        ("1.0 open(\"/a.aof\", O_WRONLY) = 3 <0>\n", "run strace with -T"),
        ("OK\n", "with -o FILE"),
    ] {
        let message = refused(text);
        assert!(message.contains(says), "{text}: {message}");
        assert!(says != absolute || !message.contains("instead"), "{text}: {message}");
    }
}
