//! One run of `redis-benchmark`.

use crate::bench::Load;
use crate::child;
use crate::error::{Error, Result};
use crate::redis::Redis;
use crate::report::Measured;
use std::path::{Path, PathBuf};
use std::time::Duration;

const REDIS: &str = "redis-benchmark";
const VALKEY: &str = "valkey-benchmark";
/// Redis' benchmark, and the one of its fork; both print the same.
const BENCHMARKS: [&str; 2] = [REDIS, VALKEY];

/// A run that takes longer has hung: this is for at most a few million requests.
const WITHIN: Duration = Duration::from_secs(600);

/// Measures `SET`s of 3 bytes to random keys of `keyspace`, as the case study does
/// (`redis-benchmark -t set`).
///
/// # Errors
/// If no benchmark is there, or it fails, or prints something else than version 7 does; if the
/// server ends.
pub fn redis_benchmark(
    redis: &Redis,
    load: Load,
    requests: u64,
    keyspace: u64,
) -> Result<Measured> {
    let mut command = child::command(&[], &program(redis.config.program.as_deref())?);
    for (option, value) in [
        ("-p", u64::from(redis.port())),
        ("-c", u64::from(load.clients)),
        ("-P", u64::from(load.pipeline)),
        ("-n", requests),
        ("-r", keyspace),
    ] {
        command.args([option, &value.to_string()]);
    }
    command.args(["-h", "127.0.0.1", "-t", "set", "--csv"]);
    // Without a server it would try to connect forever.
    let output = child::output_while(command, WITHIN, || redis.is_running())?;
    parse(&output).ok_or_else(|| Error::Protocol(format!("redis-benchmark printed {output:?}")))
}

/// The benchmark that comes with the server: the one beside it, whatever it is called there, else
/// the one on `PATH`.
fn program(server: Option<&Path>) -> Result<PathBuf> {
    let beside = |name: &&str| server?.parent().map(|folder| folder.join(name));
    let is_there = |path: &PathBuf| child::program(path).is_ok();
    match BENCHMARKS.iter().filter_map(beside).find(is_there) {
        Some(path) => Ok(path),
        None => child::which(REDIS).or_else(|error| child::which(VALKEY).map_err(|_| error)),
    }
}

/// Reads the CSV of redis-benchmark 7: a line of titles, then one line per test.
fn parse(csv: &str) -> Option<Measured> {
    let mut lines = csv.lines().map(fields).skip_while(|f| !f.contains(&"rps"));
    let titles = lines.next()?;
    let values = lines.next()?;
    let number = |title: &str| -> Option<f64> {
        let column = titles.iter().position(|t| *t == title)?;
        values.get(column)?.parse().ok()
    };
    Some(Measured {
        rps: number("rps")?,
        p50_ms: number("p50_latency_ms")?,
        p99_ms: number("p99_latency_ms")?,
        max_ms: number("max_latency_ms")?,
        writes: None,
    })
}

fn fields(line: &str) -> Vec<&str> {
    line.split(',').map(|field| field.trim().trim_matches('"')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::{RedisConfig, Stop};

    const CSV: &str = "\"test\",\"rps\",\"avg_latency_ms\",\"min_latency_ms\",\"p50_latency_ms\",\
        \"p95_latency_ms\",\"p99_latency_ms\",\"max_latency_ms\"\n\
        \"SET\",\"40404.04\",\"0.083\",\"0.016\",\"0.079\",\"0.135\",\"0.191\",\"3.807\"\n";

    #[test]
    fn the_csv_of_version_7() {
        let expected =
            Measured { rps: 40404.04, p50_ms: 0.079, p99_ms: 0.191, max_ms: 3.807, writes: None };
        assert_eq!(parse(CSV), Some(expected));
        assert_eq!(parse(&format!("WARNING: no config\n{CSV}")), Some(expected));
    }

    #[test]
    fn other_text_is_no_measurement() {
        assert_eq!(parse(""), None);
        assert_eq!(parse("\"test\",\"rps\"\n\"SET\",\"1\"\n"), None);
        assert_eq!(parse(&CSV.replace("40404.04", "fast")), None);
    }

    #[test]
    fn the_benchmark_beside_the_server() {
        let dir = tempfile::tempdir().unwrap();
        let server = dir.path().join("valkey-server");
        assert_eq!(program(Some(&server)).unwrap(), child::which(REDIS).unwrap());
        assert_eq!(program(None).unwrap(), child::which(REDIS).unwrap());
        let own = dir.path().join(VALKEY);
        std::os::unix::fs::symlink(child::which(REDIS).unwrap(), &own).unwrap();
        assert_eq!(program(Some(&server)).unwrap(), own);
    }

    #[test]
    fn drives_a_real_server() {
        let redis = Redis::start(RedisConfig::new("everysec")).unwrap();
        let load = Load { clients: 5, pipeline: 2 };
        let measured = redis_benchmark(&redis, load, 2000, 1_000_000).unwrap();
        assert!(measured.rps > 0.0, "{measured:?}");
        let keys = redis.client().unwrap().integer(&["DBSIZE"]).unwrap();
        assert!((1900..=2000).contains(&keys), "{keys}");
    }

    #[test]
    fn a_server_that_is_gone_is_an_error() {
        let mut redis = Redis::start(RedisConfig::new("no")).unwrap();
        redis.stop(Stop::Kill).unwrap();
        assert!(redis_benchmark(&redis, Load { clients: 1, pipeline: 1 }, 10, 10).is_err());
    }
}
