//! Held replies and a real cluster: three masters, and a replica of the first. Which messages of a node's bus are held.

use super::replicas::{frees_replicas, held_back, until_online};
use super::{Client, Held, external_synchrony, lines};
use crate::common::{agent, count, poll};
use durac_abi::Object;
use std::path::Path;

const OPTIONS: [&str; 10] = [
    "--cluster-enabled",
    "yes",
    "--cluster-port",
    "{free}",
    // Longer than a sync is held.
    "--cluster-node-timeout",
    "60000",
    "--cluster-replica-validity-factor",
    "0",
    "--repl-diskless-sync-delay",
    "0",
];
const MASTERS: usize = 3;
const SLOTS: usize = 16384;

/// The masters, and behind them the replica of the first.
struct Cluster {
    nodes: Vec<Held>,
}

/// The line that says what a node is.
fn own_line(client: &mut Client) -> Option<String> {
    let nodes = client.ask("CLUSTER NODES").ok()?;
    nodes.lines().find(|line| line.contains("myself")).map(str::to_owned)
}

impl Cluster {
    fn form(object: &Object) -> Self {
        Self::form_with(object, &agent(), None)
    }

    fn form_with(object: &Object, agent: &Path, fault: Option<&str>) -> Self {
        let start = |_| Held::start_with(object, agent, &OPTIONS, fault);
        let cluster = Self { nodes: (0..=MASTERS).map(start).collect() };
        let mut clients: Vec<Client> = cluster.nodes.iter().map(Held::client).collect();
        for (index, client) in clients.iter_mut().enumerate() {
            let epoch = format!("CLUSTER SET-CONFIG-EPOCH {}", index + 1);
            assert_eq!(client.ask(&epoch).unwrap(), "+OK\r\n");
            if index < MASTERS {
                let [first, last] = [index, index + 1].map(|part| part * SLOTS / MASTERS);
                let slots = format!("CLUSTER ADDSLOTSRANGE {first} {}", last - 1);
                assert_eq!(client.ask(&slots).unwrap(), "+OK\r\n");
            }
        }
        for node in &cluster.nodes[1..] {
            // `<id> <ip>:<port>@<port of the bus> …`
            let line = own_line(&mut node.client()).unwrap();
            let bus = line.split(['@', ',', ' ']).nth(2).unwrap();
            let meet = format!("CLUSTER MEET 127.0.0.1 {} {bus}", node.port);
            assert_eq!(clients[0].ask(&meet).unwrap(), "+OK\r\n");
        }
        cluster.until_whole();
        let first = own_line(&mut clients[0]).unwrap();
        let follow = format!("CLUSTER REPLICATE {}", first.split(' ').next().unwrap());
        assert_eq!(clients[MASTERS].ask(&follow).unwrap(), "+OK\r\n");
        until_online(&cluster.nodes[0], 1);
        // The others know it too.
        for client in &mut clients {
            poll("a replica that all know", || {
                client.ask("CLUSTER NODES").ok()?.contains("slave").then_some(())
            });
        }
        cluster
    }

    /// Waits until every node knows all others, and who has which slots.
    fn until_whole(&self) {
        for node in &self.nodes {
            let mut client = node.client();
            poll("a whole cluster", || {
                let info = client.ask("CLUSTER INFO").ok()?;
                let whole = ["cluster_state:ok\r\n", "cluster_known_nodes:4\r\n"];
                whole.iter().all(|line| info.contains(line)).then_some(())
            });
        }
    }

    /// A key that this node serves.
    fn key(&self, node: usize) -> String {
        let mut client = self.nodes[node].client();
        let mut keys = (0..1000).map(|n| format!("k{n}"));
        keys.find(|key| client.ask(&format!("GET {key}")).unwrap() == "$-1\r\n").unwrap()
    }

    /// On the disk of this node a sync takes long from now on, so that a thread syncs and the event loop goes on.
    fn slow_down(&self, node: usize) {
        self.nodes[node].place.touch("slow");
        let (mut client, key) = (self.nodes[node].client(), self.key(node));
        for n in 0..100 {
            assert_eq!(client.ask(&format!("SET {key} {n}")).unwrap(), "+OK\r\n");
        }
    }

    /// Ends all, and looks what was sent.
    fn checked(&mut self) {
        for node in &mut self.nodes {
            node.checked();
        }
    }
}

fn is_master(client: &mut Client) -> Option<()> {
    client.ask("INFO replication").ok()?.contains("role:master").then_some(())
}

#[test]
fn the_bus_of_a_cluster_waits_for_the_disk_if_the_target_says_so() {
    let mut cluster = Cluster::form(&external_synchrony());
    let keys: Vec<String> = (0..MASTERS).map(|node| cluster.key(node)).collect();
    cluster.slow_down(1);
    let mut writer = held_back(&cluster.nodes[1], &format!("SET {} value", keys[1]));
    // Its answers to the other nodes: no client but the writer waits.
    let status = cluster.nodes[1].place.status();
    poll("messages that are held", || {
        (status.page().snapshot().held_connections > 1).then_some(())
    });
    assert!(writer.is_silent());
    // The disk of one node is nobody else's.
    for node in [0, 2] {
        let set = format!("SET {} value", keys[node]);
        assert_eq!(cluster.nodes[node].client().ask(&set).unwrap(), "+OK\r\n");
    }
    cluster.nodes[1].go_on();
    assert_eq!(writer.receive().unwrap(), "+OK\r\n");
    cluster.until_whole();
    cluster.checked();
    for node in &cluster.nodes {
        assert_eq!(node.file("ahead"), "");
    }
}

/// While a node's sync takes long, a reply waits and messages on the bus do not.
fn the_bus_goes_on(cluster: &Cluster) {
    let key = cluster.key(1);
    cluster.slow_down(1);
    let node = &cluster.nodes[1];
    let mut writer = held_back(node, &format!("SET {key} value"));
    let _ = std::fs::remove_file(node.place.path("ahead"));
    // It has no replica: what is sent early is its answers to the other nodes.
    poll("a message on the bus", || {
        (count(&lines(&node.file("ahead")), "sent with") > 0).then_some(())
    });
    assert!(writer.is_silent());
    node.go_on();
    assert_eq!(writer.receive().unwrap(), "+OK\r\n");
}

#[test]
fn the_bus_of_a_cluster_goes_on_if_it_does_not() {
    let mut cluster = Cluster::form(&frees_replicas());
    the_bus_goes_on(&cluster);
    cluster.until_whole();
    cluster.checked();
}

/// A replica takes over because it is asked to, and then the other way round, because its master is dead.
#[test]
fn a_failover_of_a_cluster_lets_nothing_go_early() {
    for object in [external_synchrony(), frees_replicas()] {
        let mut cluster = Cluster::form(&object);
        let key = cluster.key(0);
        let [mut first, mut second] = [0, MASTERS].map(|node| cluster.nodes[node].client());
        for n in 0..100 {
            assert_eq!(first.ask(&format!("SET {{{key}}}{n} {n}")).unwrap(), "+OK\r\n");
        }
        assert_eq!(second.ask("CLUSTER FAILOVER").unwrap(), "+OK\r\n");
        poll("a failover", || is_master(&mut second));
        poll("a master that follows", || {
            let info = first.ask("INFO replication").ok()?;
            ["role:slave", "master_link_status:up"]
                .iter()
                .all(|text| info.contains(text))
                .then_some(())
        });
        let set = format!("SET {{{key}}}100 100");
        poll("the slots of the new master", || {
            (second.ask(&set).unwrap() == "+OK\r\n").then_some(())
        });
        assert!(second.ask("WAIT 1 300000").unwrap().starts_with(':'));
        for node in &cluster.nodes {
            let shorter = "CONFIG SET cluster-node-timeout 1000";
            assert_eq!(node.client().ask(shorter).unwrap(), "+OK\r\n");
        }
        let mut dead = cluster.nodes.pop().unwrap();
        dead.server.as_mut().unwrap().kill().unwrap();
        poll("an election", || is_master(&mut first));
        for n in 0..=100 {
            let value = n.to_string();
            let wanted = format!("${}\r\n{value}\r\n", value.len());
            poll("the slots of the elected", || {
                (first.ask(&format!("GET {{{key}}}{n}")).unwrap() == wanted).then_some(())
            });
        }
        assert_eq!(dead.file("violation"), "");
        cluster.checked();
    }
}

/// An agent that lets the bus go what the target says is held is found.
#[test]
fn the_witness_finds_an_agent_that_lets_the_bus_go() {
    let faulty = durac_tests::faulty_agent().unwrap();
    let cluster = Cluster::form_with(&external_synchrony(), &faulty, Some("replicas"));
    the_bus_goes_on(&cluster);
}
