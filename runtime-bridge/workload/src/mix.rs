//! `GET` beside `SET`, as workloads A and B of YCSB mix them: keys by a Zipf distribution, each client
//! reads or writes at random and waits for its answer.

use crate::bench::Load;
use crate::error::{Error, Result, Trying};
use crate::redis::Redis;
use crate::report::Measured;
use crate::resp::{Client, Reply};
use crate::stats::percentile;
use crate::sys;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use rand_distr::{Distribution as _, Zipf};
use std::time::{Duration, Instant};

/// How much more often a key is asked for than the next: YCSB's constant.
const SKEW: f64 = 0.99;
/// Bytes of a value, as redis-benchmark has them.
const VALUE: &[u8] = b"xxx";
/// A server that answers nobody for so long has hung.
const WITHIN: Duration = Duration::from_secs(60);
/// Between two looks for an interruption.
const LOOK: Duration = Duration::from_millis(200);

/// A client that waits for its answers.
struct Asking {
    client: Client,
    since: Instant,
}

/// Measures `requests` commands, of which `reads` in a hundred are `GET`.
///
/// # Errors
/// If the server is gone, hangs or refuses a command; if the user interrupts.
pub fn mix(redis: &Redis, load: Load, requests: u64, keyspace: u64, reads: u8) -> Result<Measured> {
    let what = || "drive redis-server".to_owned();
    let keys = Zipf::new(keyspace.max(1) as f64, SKEW);
    let keys = keys.map_err(|error| Error::Config(format!("keyspace {keyspace}: {error}")))?;
    let mut random = SmallRng::seed_from_u64(requests);
    let mut poll = Poll::new().trying(what)?;
    let mut asking = Vec::new();
    for at in 0..load.clients as usize {
        let client = redis.client()?;
        let fd = client.as_raw_fd();
        let readable = Interest::READABLE;
        poll.registry().register(&mut SourceFd(&fd), Token(at), readable).trying(what)?;
        asking.push(Asking { client, since: Instant::now() });
    }
    let mut ask = |one: &mut Asking| {
        for _ in 0..load.pipeline {
            let key = format!("key:{:012}", keys.sample(&mut random) as u64);
            if random.random_range(0..100) < reads {
                one.client.queue(&[b"GET", key.as_bytes()]);
            } else {
                one.client.queue(&[b"SET", key.as_bytes(), VALUE]);
            }
        }
        one.since = Instant::now();
        one.client.flush()
    };
    let started = Instant::now();
    let batches = requests.div_ceil(u64::from(load.pipeline)).max(1);
    let mut left = batches;
    for one in &mut asking {
        if left > 0 {
            ask(one)?;
            left -= 1;
        }
    }
    let mut took = Vec::new();
    let mut events = Events::with_capacity(asking.len());
    let mut heard = Instant::now();
    while (took.len() as u64) < batches {
        if sys::interrupted() {
            return Err(Error::Interrupted);
        }
        match poll.poll(&mut events, Some(LOOK)) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            polled => polled.trying(what)?,
        }
        if heard.elapsed() > WITHIN {
            return Err(Error::Late { what: "an answer of redis-server".into(), within: WITHIN });
        }
        for event in &events {
            let Some(one) = asking.get_mut(event.token().0) else { continue };
            for _ in 0..load.pipeline {
                if let Reply::Error(text) = one.client.receive()? {
                    return Err(Error::Refused(text));
                }
            }
            heard = Instant::now();
            took.push(u64::try_from(one.since.elapsed().as_nanos()).unwrap_or(u64::MAX));
            if left > 0 {
                ask(one)?;
                left -= 1;
            }
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    took.sort_unstable();
    let ms = |share: f64| percentile(&took, share) as f64 / 1e6;
    Ok(Measured {
        rps: (batches * u64::from(load.pipeline)) as f64 / seconds,
        p50_ms: ms(0.5),
        p99_ms: ms(0.99),
        max_ms: ms(1.0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::{RedisConfig, Stop};

    #[test]
    fn drives_a_real_server() {
        let redis = Redis::start(RedisConfig::new("everysec")).unwrap();
        let load = Load { clients: 5, pipeline: 2 };
        let measured = mix(&redis, load, 2001, 1000, 50).unwrap();
        assert!(measured.rps > 0.0 && measured.p50_ms <= measured.max_ms, "{measured:?}");
        let mut client = redis.client().unwrap();
        let stats = client.text(&["INFO", "commandstats"]).unwrap();
        let calls = |command: &str| -> u64 {
            let (_, rest) = stats.split_once(&format!("cmdstat_{command}:calls=")).unwrap();
            rest.split(',').next().unwrap().parse().unwrap()
        };
        assert_eq!(calls("get") + calls("set"), 2002);
        assert!((800..1200).contains(&calls("get")), "{stats}");
        // Few keys are asked for often.
        let keys = client.integer(&["DBSIZE"]).unwrap();
        assert!((100..700).contains(&keys), "{keys}");
    }

    #[test]
    fn only_reads_and_a_server_that_is_gone() {
        let mut redis = Redis::start(RedisConfig::new("no")).unwrap();
        let load = Load { clients: 1, pipeline: 1 };
        mix(&redis, load, 10, 10, 100).unwrap();
        assert_eq!(redis.client().unwrap().integer(&["DBSIZE"]).unwrap(), 0);
        redis.stop(Stop::Kill).unwrap();
        assert!(mix(&redis, load, 10, 10, 50).is_err());
    }
}
