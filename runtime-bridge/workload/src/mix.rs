//! `GET` beside `SET`, as workloads A and B of YCSB mix them: keys by a Zipf distribution, each client
//! reads or writes at random and waits for the reply.

use crate::bench::Load;
use crate::error::{Error, Result, Trying};
use crate::redis::Redis;
use crate::report::{Measured, Writes};
use crate::resp::{Client, Reply};
use crate::stats::percentile;
use crate::sys::{self, Readable};
use crate::zipf::Zipf;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use std::time::{Duration, Instant};

/// Exponent of the distribution: YCSB's constant.
const SKEW: f64 = 0.99;
/// Bytes of a value, as redis-benchmark has them.
const VALUE: &[u8] = b"xxx";
/// A server without a reply for this long is considered hung.
const WITHIN: Duration = Duration::from_secs(60);
/// How often to look for an interruption.
const LOOK: Duration = Duration::from_millis(200);

/// What a client asks for.
#[derive(Clone, Copy)]
enum Does {
    /// Reads so many percent of the time, and else writes.
    Both(u8),
    Reads,
    Writes,
}

/// A client that waits for its replies.
struct Asking {
    client: Client,
    does: Does,
    since: Instant,
}

/// Clients at work.
struct Driver<'a> {
    redis: &'a Redis,
    keys: Zipf,
    random: SmallRng,
    pipeline: u32,
    readable: Readable,
    asking: Vec<Asking>,
}

fn what() -> String {
    "drive redis-server".to_owned()
}

impl<'a> Driver<'a> {
    fn new(
        redis: &'a Redis,
        clients: u32,
        pipeline: u32,
        keyspace: u64,
        seed: u64,
    ) -> Result<Self> {
        Ok(Self {
            redis,
            keys: Zipf::new(keyspace.max(1), SKEW),
            random: SmallRng::seed_from_u64(seed),
            pipeline,
            readable: Readable::new(clients as usize).trying(what)?,
            asking: Vec::new(),
        })
    }

    fn add(&mut self, count: u32, does: Does) -> Result<()> {
        for _ in 0..count {
            let client = self.redis.client()?;
            self.readable.add(&client, self.asking.len()).trying(what)?;
            self.asking.push(Asking { client, does, since: Instant::now() });
        }
        Ok(())
    }

    fn ask(&mut self, at: usize) -> Result<()> {
        let Some(one) = self.asking.get_mut(at) else { return Ok(()) };
        for _ in 0..self.pipeline {
            let key = format!("key:{:012}", self.keys.sample(&mut self.random));
            let reads = match one.does {
                Does::Both(share) => self.random.random_range(0..100) < share,
                Does::Reads => true,
                Does::Writes => false,
            };
            if reads {
                one.client.queue(&[b"GET", key.as_bytes()]);
            } else {
                one.client.queue(&[b"SET", key.as_bytes(), VALUE]);
            }
        }
        one.since = Instant::now();
        one.client.flush()
    }

    /// Drives until so many batches were answered, not counting those of writers beside readers. Returns how long they took, and those of
    /// the writers.
    fn drive(&mut self, batches: u64) -> Result<(Vec<u64>, Vec<u64>)> {
        let mut left = batches;
        for at in 0..self.asking.len() {
            let writes = self.asking.get(at).is_some_and(|one| matches!(one.does, Does::Writes));
            if writes || left > 0 {
                self.ask(at)?;
                left -= u64::from(!writes);
            }
        }
        let (mut took, mut beside) = (Vec::new(), Vec::new());
        let mut heard = Instant::now();
        while (took.len() as u64) < batches {
            if sys::interrupted() {
                return Err(Error::Interrupted);
            }
            let ready: Vec<usize> = self.readable.wait(Some(LOOK)).trying(what)?.collect();
            if heard.elapsed() > WITHIN {
                return Err(Error::Late {
                    what: "an answer of redis-server".into(),
                    within: WITHIN,
                });
            }
            for at in ready {
                let Some(one) = self.asking.get_mut(at) else { continue };
                for _ in 0..self.pipeline {
                    if let Reply::Error(text) = one.client.receive()? {
                        return Err(Error::Refused(text));
                    }
                }
                heard = Instant::now();
                let time = u64::try_from(one.since.elapsed().as_nanos()).unwrap_or(u64::MAX);
                let writes = matches!(one.does, Does::Writes);
                if writes {
                    beside.push(time)
                } else {
                    took.push(time)
                }
                if writes || left > 0 {
                    self.ask(at)?;
                    left -= u64::from(!writes);
                }
            }
        }
        Ok((took, beside))
    }
}

/// Measures `requests` commands, of which `reads` percent are `GET`.
///
/// # Errors
/// If the server is gone, hangs or refuses a command; if the user interrupts.
pub fn mix(redis: &Redis, load: Load, requests: u64, keyspace: u64, reads: u8) -> Result<Measured> {
    let mut driver = Driver::new(redis, load.clients, load.pipeline, keyspace, requests)?;
    driver.add(load.clients, Does::Both(reads))?;
    measure(&mut driver, requests)
}

/// Measures `requests` `GET`s of the load's clients, while `writers` others `SET`.
///
/// # Errors
/// As [`mix`].
pub fn beside(
    redis: &Redis,
    load: Load,
    requests: u64,
    keyspace: u64,
    writers: u32,
) -> Result<Measured> {
    let all = load.clients + writers;
    let mut driver = Driver::new(redis, all, load.pipeline, keyspace, requests)?;
    driver.add(load.clients, Does::Reads)?;
    driver.add(writers, Does::Writes)?;
    measure(&mut driver, requests)
}

fn measure(driver: &mut Driver<'_>, requests: u64) -> Result<Measured> {
    let pipeline = u64::from(driver.pipeline);
    let batches = requests.div_ceil(pipeline).max(1);
    let started = Instant::now();
    let (mut took, mut beside) = driver.drive(batches)?;
    let seconds = started.elapsed().as_secs_f64();
    took.sort_unstable();
    beside.sort_unstable();
    let ms = |took: &[u64], share: f64| percentile(took, share) as f64 / 1e6;
    let writes = (!beside.is_empty()).then(|| Writes {
        per_second: (beside.len() as u64 * pipeline) as f64 / seconds,
        median_ms: ms(&beside, 0.5),
        slow_ms: ms(&beside, 0.99),
    });
    Ok(Measured {
        rps: (batches * pipeline) as f64 / seconds,
        p50_ms: ms(&took, 0.5),
        p99_ms: ms(&took, 0.99),
        max_ms: ms(&took, 1.0),
        writes,
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
        // Few keys are used often.
        let keys = client.integer(&["DBSIZE"]).unwrap();
        assert!((100..700).contains(&keys), "{keys}");
    }

    #[test]
    fn reads_and_writes_of_different_clients() {
        let redis = Redis::start(RedisConfig::new("everysec")).unwrap();
        let load = Load { clients: 3, pipeline: 1 };
        let measured = beside(&redis, load, 500, 100, 2).unwrap();
        let writes = measured.writes.unwrap();
        assert!(writes.per_second > 0.0 && writes.median_ms <= writes.slow_ms, "{measured:?}");
        assert!(redis.client().unwrap().integer(&["DBSIZE"]).unwrap() > 0);
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
