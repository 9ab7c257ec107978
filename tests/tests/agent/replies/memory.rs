//! Held replies and memory: clients that do not read, and clients that read slowly.

use super::{Client, Held, external_synchrony};
use crate::common::{agent, poll};
use std::io::Read;
use std::time::Duration;

/// The most that the server and the agent have beside the buffers of clients, kB: 64 MiB may be held.
const MOST: u64 = 150_000;

/// How many clients there are; more in a long run.
fn clients() -> usize {
    if std::env::var_os("DURAC_REPLIES").is_some() { 1000 } else { 200 }
}

/// Resident memory beside what the server counts for its clients, and what that is, kB.
fn memory(held: &Held, client: &mut Client) -> (u64, u64) {
    let pid = held.server.as_ref().unwrap().id();
    let info = client.ask("INFO memory").unwrap();
    let clients = info.lines().find_map(|l| l.strip_prefix("mem_clients_normal:")).unwrap();
    let clients = clients.parse::<u64>().unwrap() / 1024;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    let all: u64 = line.trim().split(' ').next().unwrap().parse().unwrap();
    (all.saturating_sub(clients), clients)
}

/// Waits until little is used beside the buffers of clients, which the server counts now and then.
fn little_beside_clients(held: &Held, client: &mut Client) {
    let (beside, clients) = poll("little memory beside clients", || {
        let seen = memory(held, client);
        (seen.0 < MOST).then_some(seen)
    });
    println!("{beside} kB beside {clients} kB of clients");
}

#[test]
fn clients_that_do_not_read_cost_little_memory() {
    let mut held = Held::start(&external_synchrony(), &agent(), &[]);
    let mut writer = held.client();
    assert_eq!(writer.ask("SETRANGE big 99999 x").unwrap(), ":100000\r\n");
    let clients = clients();
    let rounds = 2000 / clients;
    let mut idle: Vec<Client> = (0..clients).map(|_| held.client()).collect();
    for n in 0..rounds {
        for client in &mut idle {
            client.send("GET big");
        }
        assert_eq!(writer.ask(&format!("SET k {n}")).unwrap(), "+OK\r\n");
    }
    // 200 MB of replies: those that no client reads are in Redis' own buffers, which count against its
    // limits, and not in the agent's beside what the sockets take.
    little_beside_clients(&held, &mut writer);
    // Who reads at last gets everything.
    let mut reader = idle.pop().unwrap();
    let mut left = rounds * (100_000 + "$100000\r\n\r\n".len());
    let mut bytes = vec![0; 1 << 16];
    while left > 0 {
        let stream = reader.0.as_mut().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(300))).unwrap();
        let read = stream.read(&mut bytes).unwrap();
        assert!(read > 0, "{left} bytes are missing");
        left -= read;
    }
    drop((idle, reader));
    held.checked();
}

/// Each reads a part of what it is sent, in each of many rounds.
#[test]
fn memory_is_flat_with_clients_that_read_slowly() {
    const ROUNDS: usize = 40;
    const SIZE: usize = 20_000;
    const PART: usize = SIZE / 10 * 9;
    let mut held = Held::start(&external_synchrony(), &agent(), &[]);
    let mut writer = held.client();
    let set = format!("SETRANGE big {} x", SIZE - 1);
    assert_eq!(writer.ask(&set).unwrap(), format!(":{SIZE}\r\n"));
    let mut slow: Vec<Client> = (0..clients()).map(|_| held.client()).collect();
    for client in &slow {
        let stream = client.0.as_ref().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(300))).unwrap();
    }
    let mut bytes = vec![0; PART];
    for round in 0..ROUNDS {
        for client in &mut slow {
            client.send("GET big");
        }
        assert_eq!(writer.ask(&format!("SET k {round}")).unwrap(), "+OK\r\n");
        for client in &mut slow {
            client.0.as_mut().unwrap().read_exact(&mut bytes).unwrap();
        }
        if round % (ROUNDS / 8) == 0 {
            little_beside_clients(&held, &mut writer);
        }
    }
    let mut rest = vec![0; ROUNDS * (SIZE + format!("${SIZE}\r\n\r\n").len() - PART)];
    for client in &mut slow {
        client.0.as_mut().unwrap().read_exact(&mut rest).unwrap();
    }
    drop(slow);
    held.checked();
}
