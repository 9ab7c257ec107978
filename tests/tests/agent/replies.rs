//! Held replies: a real Redis between two witnesses (`c/gate.c`), one that sees what the application does and
//! one that sees what is sent and what is synced. The second checks each byte that is sent.

mod clean;
mod cluster;
mod commands;
mod kinds;
mod loops;
mod memory;
mod order;
mod replicas;
mod shares;

use crate::common::{Place, agent, count, objects, poll, witness_of};
use durac_abi::{Hook, Object, Verdict};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// `on fdatasync: defer; on reply: hold until durable`
fn external_synchrony() -> Object {
    let mut object = objects::defer();
    object
        .programs
        .push(objects::assemble(Hook::Reply, |asm| objects::verdict(asm, Verdict::Hold)));
    object
}

/// `on fdatasync: await pending < n; defer; on reply: hold until durable`
fn window(n: i32) -> Object {
    let mut object = objects::window(n);
    object
        .programs
        .push(objects::assemble(Hook::Reply, |asm| objects::verdict(asm, Verdict::Hold)));
    object
}

/// How many requests a benchmark makes: `DURAC_REPLIES` of a long run, or few.
fn requests(few: u32) -> String {
    let many = std::env::var("DURAC_REPLIES").ok().and_then(|many| many.parse().ok());
    many.unwrap_or(few).to_string()
}

/// A port that nobody has now.
fn free_port() -> u16 {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    free.local_addr().unwrap().port()
}

/// A Redis between the witnesses.
struct Held {
    place: Place,
    port: u16,
    server: Option<Child>,
}

impl Held {
    fn start(object: &Object, agent: &Path, options: &[&str]) -> Self {
        Self::start_with(object, agent, options, None)
    }

    fn start_with(object: &Object, agent: &Path, options: &[&str], fault: Option<&str>) -> Self {
        let libraries: [PathBuf; 3] = [
            witness_of("gate.c", "gate_outer.so", &["-DOUTER", "-pthread"]),
            agent.to_owned(),
            witness_of("gate.c", "gate_inner.so", &["-pthread"]),
        ];
        let all: Vec<String> = libraries.iter().map(|l| l.display().to_string()).collect();
        let place = Place::new(object).env("LD_PRELOAD", &all.join(" ")).with_status();
        let place = match fault {
            Some(fault) => place.env("DURAC_FAULT", fault),
            None => place,
        };
        let mut held = Self { place, port: 0, server: None };
        held.serve(options);
        held
    }

    /// Each `{free}` of the options is another port that nobody has.
    fn serve(&mut self, options: &[&str]) {
        // Somebody else may take the port before the server does.
        for _ in 0..5 {
            self.port = free_port();
            let options = options.iter().map(|option| match *option {
                "{free}" => free_port().to_string(),
                option => option.to_owned(),
            });
            let mut server = self
                .place
                .command("redis-server")
                .args(["--port", &self.port.to_string(), "--save", "", "--logfile", "redis.out"])
                .args(["--appendonly", "yes", "--appendfsync", "always"])
                .args(["--auto-aof-rewrite-percentage", "0", "--unixsocket", "sock"])
                .args(options)
                .stdout(Stdio::null())
                .stderr(std::fs::File::create(self.place.path("stderr")).unwrap())
                .spawn()
                .unwrap();
            let up = poll("an answer", || match server.try_wait().unwrap() {
                Some(_) => Some(false),
                None => (self.client().ask("PING").ok()? == "+PONG\r\n").then_some(true),
            });
            self.server = Some(server);
            if up {
                return;
            }
        }
        panic!("{}", self.file("redis.out"));
    }

    fn client(&self) -> Client {
        Client(TcpStream::connect(("127.0.0.1", self.port)).ok())
    }

    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.place.path(name)).unwrap_or_default()
    }

    /// Syncs of the log do not begin from now on.
    fn hold(&self) {
        self.place.touch("hold");
    }

    fn go_on(&self) {
        std::fs::remove_file(self.place.path("hold")).unwrap();
    }

    /// Waits until a sync is held.
    fn until_held(&self) {
        poll("a held sync", || (!self.file("held").is_empty()).then_some(()));
    }

    fn benchmark(&self, arguments: &[&str]) {
        let status = Command::new("redis-benchmark")
            .args(["-p", &self.port.to_string(), "-q"])
            .args(arguments)
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// Ends the server, and says how many replies were checked, and how many had to wait.
    fn checked(&mut self) -> (u64, u64) {
        let _ = self.client().ask("SHUTDOWN NOSAVE");
        self.checked_at_end()
    }

    /// The same of a server that ends.
    fn checked_at_end(&mut self) -> (u64, u64) {
        let mut server = self.server.take().unwrap();
        let status = poll("end of the server", || server.try_wait().unwrap());
        assert!(status.success(), "{status:?} {}", self.file("redis.out"));
        assert_eq!(self.file("violation"), "", "{}", self.file("redis.out"));
        let text = self.file("gate");
        let mut numbers = text.lines().last().unwrap().split(' ').map(|n| n.parse().unwrap());
        (numbers.next().unwrap(), numbers.next().unwrap())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            // The test has failed, or is done with it.
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

/// A client that speaks inline commands.
struct Client(Option<TcpStream>);

impl Client {
    fn send(&mut self, command: &str) {
        self.0.as_mut().unwrap().write_all(format!("{command}\r\n").as_bytes()).unwrap();
    }

    fn ask(&mut self, command: &str) -> std::io::Result<String> {
        let Some(stream) = &mut self.0 else { return Err(ErrorKind::NotConnected.into()) };
        stream.write_all(format!("{command}\r\n").as_bytes())?;
        self.receive()
    }

    /// What has come, at least a byte; nothing at the end.
    fn receive(&mut self) -> std::io::Result<String> {
        let stream = self.0.as_mut().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(300)))?;
        let mut bytes = vec![0; 1 << 16];
        let read = stream.read(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes[..read]).into_owned())
    }

    /// What comes until the connection is closed.
    fn rest(&mut self) -> String {
        let stream = self.0.as_mut().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(300))).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    /// Whether nothing comes for a while.
    fn is_silent(&mut self) -> bool {
        let stream = self.0.as_mut().unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let read = stream.read(&mut [0]);
        read.is_err_and(|error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
    }
}

#[test]
fn not_a_byte_is_sent_before_its_sync() {
    for (object, options) in [
        (external_synchrony(), &[][..]),
        (window(4), &[]),
        (external_synchrony(), &["--io-threads", "4", "--io-threads-do-reads", "yes"]),
    ] {
        let mut held = Held::start(&object, &agent(), options);
        held.benchmark(&["-t", "set,get,lpush", "-c", "20", "-n", "1000", "-r", "1000"]);
        let many = requests(12_000);
        held.benchmark(&["-t", "set,get", "-c", "50", "-P", "16", "-n", &many, "-r", "100000"]);
        // Long enough for each way to sync and to send.
        held.benchmark(&["-t", "set", "-c", "30", "-n", &requests(5000), "-r", "100000"]);
        // Of a slow sync each reply waits.
        held.place.touch("slow");
        held.benchmark(&["-c", "5", "-n", "500", "eval", "return redis.call('incr','x')", "0"]);
        let (checked, waited) = held.checked();
        println!("{}, {options:?}: {checked} {waited}", object.meta.policy);
        // A pipelined benchmark gets several replies in one write.
        assert!(checked > 5_000 && waited >= 500, "{checked} {waited}");
    }
}

#[test]
fn nobody_sees_anything_while_the_sync_is_held() {
    let mut held = Held::start(&external_synchrony(), &agent(), &[]);
    let mut clients: Vec<Client> = (0..8).map(|_| held.client()).collect();
    let [writer, reader, pings, subscriber, monitor, popper, script, late] = &mut clients[..]
    else {
        unreachable!()
    };
    assert_eq!(late.ask("PING").unwrap(), "+PONG\r\n");
    subscriber.ask("SUBSCRIBE news").unwrap();
    assert_eq!(monitor.ask("MONITOR").unwrap(), "+OK\r\n");
    popper.send("BLPOP list 0");
    poll("a blocked client", || {
        let info = late.ask("INFO clients").unwrap();
        info.contains("blocked_clients:1\r\n").then_some(())
    });
    held.hold();
    // The monitor has seen what came before.
    while !monitor.is_silent() {}
    writer.send("SET key value");
    held.until_held();
    reader.send("GET key");
    pings.send("PING");
    script.send(
        "EVAL \"redis.call('RPUSH','list','x') redis.call('PUBLISH','news','y') return 7\" 0",
    );
    for client in [writer, reader, pings, subscriber, monitor, popper, script] {
        assert!(client.is_silent());
    }
    held.go_on();
    let [writer, reader, pings, subscriber, monitor, popper, script, _] = &mut clients[..] else {
        unreachable!()
    };
    assert_eq!(writer.receive().unwrap(), "+OK\r\n");
    assert_eq!(reader.receive().unwrap(), "$5\r\nvalue\r\n");
    assert_eq!(pings.receive().unwrap(), "+PONG\r\n");
    assert!(subscriber.receive().unwrap().ends_with("news\r\n$1\r\ny\r\n"));
    assert!(monitor.receive().unwrap().contains("SET"));
    assert_eq!(popper.receive().unwrap(), "*2\r\n$4\r\nlist\r\n$1\r\nx\r\n");
    assert_eq!(script.receive().unwrap(), ":7\r\n");
    drop(clients);
    held.checked();
}

#[test]
fn after_a_failed_sync_nothing_is_sent_and_connections_are_closed() {
    let mut held = Held::start(&external_synchrony(), &agent(), &[]);
    let (mut writer, mut reader) = (held.client(), held.client());
    assert_eq!(writer.ask("SET before 1").unwrap(), "+OK\r\n");
    held.hold();
    writer.send("SET key value");
    held.until_held();
    reader.send("GET key");
    assert!(reader.is_silent());
    held.place.touch("fail");
    held.go_on();
    assert_eq!(writer.receive().unwrap_or_default(), "");
    assert_eq!(reader.receive().unwrap_or_default(), "");
    // Whoever asks now would see what is lost.
    assert_eq!(held.client().ask("GET key").unwrap_or_default(), "");
    assert_eq!(held.file("violation"), "");
    drop(held.server.take().map(|mut server| server.kill().and_then(|()| server.wait())));
}

#[test]
fn what_is_held_is_sent_before_a_close() {
    let mut held = Held::start(&external_synchrony(), &agent(), &[]);
    let mut client = held.client();
    held.hold();
    client.send("SET key value\r\nQUIT");
    held.until_held();
    // The application has closed it, and takes its number for the next.
    let mut next = held.client();
    next.send("PING");
    assert!(client.is_silent() && next.is_silent());
    held.go_on();
    assert_eq!(client.rest(), "+OK\r\n+OK\r\n");
    assert_eq!(next.receive().unwrap(), "+PONG\r\n");
    // The end of the server sends what is held too.
    let (mut last, mut ends) = (held.client(), held.client());
    assert_eq!(last.ask("PING").unwrap(), "+PONG\r\n");
    std::fs::remove_file(held.place.path("held")).unwrap();
    held.hold();
    last.send("SET last 1");
    held.until_held();
    ends.send("SHUTDOWN NOSAVE");
    assert!(last.is_silent());
    held.go_on();
    assert_eq!(last.rest(), "+OK\r\n");
    held.checked_at_end();
}

#[test]
fn a_reply_is_never_held_forever() {
    let rare: [&[&str]; 3] = [
        &["CONFIG SET appendfsync everysec"],
        &["CONFIG SET appendfsync no"],
        &["CONFIG SET no-appendfsync-on-rewrite yes", "BGREWRITEAOF"],
    ];
    for settings in rare {
        let mut held = Held::start(&external_synchrony(), &agent(), &[]);
        let mut client = held.client();
        for n in 0..2000 {
            assert_eq!(client.ask(&format!("SET k{n} {n}")).unwrap(), "+OK\r\n");
        }
        for setting in settings {
            client.ask(setting).unwrap();
        }
        for n in 0..500 {
            assert_eq!(client.ask(&format!("SET k{n} x")).unwrap(), "+OK\r\n");
        }
        // How many depends on who syncs, which is measured while it runs.
        let (_, waited) = held.checked();
        assert!(waited > 0, "none waited");
    }
}

/// Ciphertext is held as well as any other byte.
#[test]
fn replies_by_tls_are_held() {
    let keys = tempfile::tempdir().unwrap();
    let [key, certificate] = ["key.pem", "cert.pem"].map(|name| keys.path().join(name));
    let [key, certificate] = [&key, &certificate].map(|path| path.display().to_string());
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=x"])
        .args(["-keyout", &key, "-out", &certificate])
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let port = free_port().to_string();
    let tls = ["--tls-port", &port, "--tls-auth-clients", "no"];
    let files = ["--tls-cert-file", &certificate, "--tls-key-file", &key];
    let authority = ["--tls-ca-cert-file", &certificate];
    for (threads, pipeline) in [("1", "1"), ("4", "1"), ("4", "16")] {
        let options = [&tls[..], &files, &authority, &["--io-threads", threads]].concat();
        let mut held = Held::start(&external_synchrony(), &agent(), &options);
        let many = requests(3000);
        let status = Command::new("redis-benchmark")
            .args(["--tls", "--insecure", "-p", &port, "-q", "-t", "set,get", "-c", "10"])
            .args(["-P", pipeline, "-n", &many, "-r", "1000"])
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
        let (checked, waited) = held.checked();
        println!("TLS, io-threads {threads}, -P {pipeline}: {checked} {waited}");
        let writes = 2 * many.parse::<u64>().unwrap() / pipeline.parse::<u64>().unwrap();
        // How many wait depends on who syncs, which is measured while it runs.
        assert!(checked >= writes && waited > 0, "{checked} {waited}");
    }
}

/// What an administrator does to a server while replies are held.
#[test]
fn commands_that_stall_or_cut_do_not_let_go() {
    let options = ["--enable-debug-command", "yes"];
    let mut held = Held::start(&external_synchrony(), &agent(), &options);
    let mut clients: Vec<Client> = (0..6).map(|_| held.client()).collect();
    let [writer, victim, killer, sleeper, demotes, late] = &mut clients[..] else { unreachable!() };
    let id = victim.ask("CLIENT ID").unwrap();
    held.hold();
    writer.send("SET key value");
    held.until_held();
    victim.send("SET other value");
    killer.send(&format!("CLIENT KILL ID {}", id.trim().trim_start_matches(':')));
    sleeper.send("DEBUG SLEEP 0.2");
    demotes.send("REPLICAOF 127.0.0.1 1");
    for client in [&mut *writer, &mut *killer, &mut *sleeper, &mut *demotes] {
        assert!(client.is_silent());
    }
    held.go_on();
    assert_eq!(writer.receive().unwrap(), "+OK\r\n");
    assert_eq!(killer.receive().unwrap(), ":1\r\n");
    assert_eq!(sleeper.receive().unwrap(), "+OK\r\n");
    assert_eq!(demotes.receive().unwrap(), "+OK\r\n");
    // Killed before or after its reply.
    let last = victim.receive().unwrap_or_default();
    assert!(["", "+OK\r\n"].contains(&last.as_str()), "{last}");
    assert!(late.ask("SET key 2").unwrap().starts_with("-READONLY"));
    assert_eq!(late.ask("REPLICAOF NO ONE").unwrap(), "+OK\r\n");
    assert_eq!(late.ask("SET key 3").unwrap(), "+OK\r\n");
    drop(clients);
    held.checked();
}

/// A replica and its acknowledgements, and the other way in: a Unix socket.
#[test]
fn replicas_are_never_ahead_of_the_disk() {
    let mut held = Held::start(&external_synchrony(), &agent(), &[]);
    let port = held.port.to_string();
    let mut replica =
        Held::start(&external_synchrony(), &agent(), &["--replicaof", "127.0.0.1", &port]);
    let mut client = held.client();
    poll("a replica", || {
        client.ask("INFO replication").unwrap().contains("state=online").then_some(())
    });
    for n in 0..200 {
        assert_eq!(client.ask(&format!("SET k{n} {n}")).unwrap(), "+OK\r\n");
        if n % 50 == 0 {
            assert_eq!(client.ask("WAIT 1 30000").unwrap(), ":1\r\n");
        }
    }
    let mut unix = std::os::unix::net::UnixStream::connect(held.place.path("sock")).unwrap();
    unix.write_all(b"SET u 1\r\n").unwrap();
    let mut answer = [0; 5];
    unix.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"+OK\r\n");
    drop(unix);
    assert_eq!(client.ask("WAIT 1 30000").unwrap(), ":1\r\n");
    let (checked, _) = replica.checked();
    assert!(checked > 0);
    held.checked();
}

/// The witness finds agents that hold nothing, that let go one reply too early, and that believe a sync
/// before it is made.
#[test]
fn the_witness_finds_agents_that_let_go_too_early() {
    let faulty = durac_tests::faulty_agent().unwrap();
    for fault in ["hold", "release", "early"] {
        let mut held = Held::start_with(&external_synchrony(), &faulty, &[], Some(fault));
        held.benchmark(&["-t", "set", "-c", "10", "-n", "3000", "-r", "1000"]);
        drop(held.server.take().map(|mut server| server.kill().and_then(|()| server.wait())));
        assert!(count(&lines(&held.file("violation")), "sent with") > 0, "{fault}");
    }
    let mut held = Held::start_with(&external_synchrony(), &faulty, &[], None);
    held.benchmark(&["-t", "set", "-c", "10", "-n", "3000", "-r", "1000"]);
    held.checked();
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(String::from).collect()
}
