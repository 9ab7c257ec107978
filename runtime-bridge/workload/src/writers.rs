//! Writers that remember what the server acknowledged.
//!
//! Writer `w` sets the keys `w:0`, `w:1`, … in order. What it remembers is only how far it came:
//! every key below that was acknowledged, and the log of a correct server holds a prefix of them.

use crate::error::{Error, Result};
use crate::resp::{Client, Reply};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

/// Keys per command when the data is read back.
const BATCH: u64 = 500;
/// A writer remembers when it read its last replies, this many.
const ANSWERS: usize = 4096;

/// How much is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Writers, each with a connection of its own.
    pub clients: u32,
    /// Requests that a writer sends before it reads the answers.
    pub pipeline: u32,
    /// Requests of one writer; it stops earlier when it is told to or the server is gone.
    pub requests: u64,
}

/// Writers at work.
#[derive(Debug)]
pub struct Writers {
    stop: Arc<AtomicBool>,
    acknowledged: Vec<Arc<AtomicU64>>,
    threads: Vec<JoinHandle<Ended>>,
    from: u32,
}

/// What a writer leaves: its last replies, with their numbers, and why it ended early.
type Ended = (VecDeque<(Instant, u64)>, Option<Error>);

/// When a writer read an answer that acknowledged a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// When.
    pub at: Instant,
    /// The key.
    pub key: String,
}

/// What was acknowledged.
#[derive(Debug)]
pub struct Acknowledged {
    /// Name of the first writer; the others count on from it.
    pub from: u32,
    /// Number of acknowledged keys of each writer.
    pub counts: Vec<u64>,
    /// Why writers ended early, if any did: the server was gone, or refused.
    pub errors: Vec<Error>,
    /// The last replies to each writer.
    pub last: Vec<Answer>,
}

impl Writers {
    /// Starts writers against the server on `port`, named from `from` on.
    #[must_use]
    pub fn start(port: u16, load: Load, from: u32) -> Self {
        Self::begin(port, load, from, false)
    }

    /// The same of writers that also read what the next one writes, and count what they have seen of it among what
    /// that one was told.
    #[must_use]
    pub fn start_reading(port: u16, load: Load, from: u32) -> Self {
        Self::begin(port, load, from, true)
    }

    fn begin(port: u16, load: Load, from: u32, reads: bool) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged: Vec<_> = (0..load.clients).map(|_| Arc::default()).collect();
        let others = acknowledged.iter().cycle().skip(1);
        let threads = (from..)
            .zip(acknowledged.iter().zip(others))
            .map(|(writer, (count, other))| {
                let (stop, count, other) =
                    (Arc::clone(&stop), Arc::clone(count), Arc::clone(other));
                let next = if writer + 1 < from + load.clients { writer + 1 } else { from };
                std::thread::spawn(move || {
                    let mut last = VecDeque::new();
                    let seen = reads.then_some((next, &*other));
                    let error = write(port, load, writer, &stop, (&count, seen), &mut last).err();
                    (last, error)
                })
            })
            .collect();
        Self { stop, acknowledged, threads, from }
    }

    /// Number of requests acknowledged so far, over all writers.
    #[must_use]
    pub fn so_far(&self) -> u64 {
        self.acknowledged.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Whether every writer has ended.
    #[must_use]
    pub fn are_done(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Waits until every writer has ended: its requests are written, or the server is gone.
    #[must_use]
    pub fn join(self) -> Acknowledged {
        let lost = || Error::Config("a writer panicked".into());
        let (mut errors, mut last) = (Vec::new(), Vec::new());
        for (writer, thread) in (self.from..).zip(self.threads) {
            let (answers, error) =
                thread.join().unwrap_or_else(|_| (VecDeque::new(), Some(lost())));
            errors.extend(error);
            last.extend(answers.into_iter().map(|(at, n)| Answer { at, key: key(writer, n) }));
        }
        let counts = self.acknowledged.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        Acknowledged { from: self.from, counts, errors, last }
    }

    /// Tells the writers to end after the replies they wait for, and waits for them.
    #[must_use]
    pub fn stop(self) -> Acknowledged {
        self.stop.store(true, Ordering::Relaxed);
        self.join()
    }
}

impl Acknowledged {
    /// Number of acknowledged requests.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The acknowledged keys that the server does not have, or has with another value.
    ///
    /// # Errors
    /// If the server does not answer.
    pub fn missing(&self, client: &mut Client) -> Result<Vec<String>> {
        let mut missing = Vec::new();
        for (writer, &count) in (self.from..).zip(&self.counts) {
            for begin in (0..count).step_by(BATCH as usize) {
                let numbers = begin..count.min(begin + BATCH);
                let mut command = vec!["MGET".to_owned()];
                command.extend(numbers.clone().map(|number| key(writer, number)));
                let reply = client.command(&command)?;
                let Reply::Array(values) = reply else {
                    return Err(Error::Protocol(format!("{reply:?}")));
                };
                for (number, value) in numbers.zip(values) {
                    if value != Reply::Bulk(Some(number.to_string().into_bytes())) {
                        missing.push(key(writer, number));
                    }
                }
            }
        }
        Ok(missing)
    }
}

fn key(writer: u32, number: u64) -> String {
    format!("{writer}:{number}")
}

/// Bytes of the command that writes a key, as Redis puts it into its log.
pub(crate) fn bytes_of(key: &str) -> u64 {
    let number = key.split(':').next_back().unwrap_or_default();
    let words = ["SET", key, number];
    // `$`, the length, the word, and two line ends; before them `*3` and one.
    let length = |word: &str| word.len() + word.len().to_string().len() + 5;
    4 + words.into_iter().map(length).sum::<usize>() as u64
}

fn write(
    port: u16,
    load: Load,
    writer: u32,
    stop: &AtomicBool,
    (count, seen): (&AtomicU64, Option<(u32, &AtomicU64)>),
    last: &mut VecDeque<(Instant, u64)>,
) -> Result<()> {
    let mut client = Client::connect(port)?;
    let mut next = 0;
    while next < load.requests && !stop.load(Ordering::Relaxed) {
        let end = load.requests.min(next + u64::from(load.pipeline.max(1)));
        let batch = next..end;
        for number in batch.clone() {
            client.queue(&["SET".to_owned(), key(writer, number), number.to_string()]);
        }
        // The first key of the other that it was not told of.
        let looks = seen.map(|(other, told)| (other, told, told.load(Ordering::Relaxed)));
        if let Some((other, _, number)) = looks {
            client.queue(&["GET".to_owned(), key(other, number)]);
        }
        client.flush()?;
        let mut loading = false;
        for number in batch {
            match client.receive()? {
                // A server that reads its data back refuses for a while. What it accepts of the
                // same batch afterwards is sent again too: only a prefix counts.
                Reply::Error(text) if text.starts_with("LOADING") => loading = true,
                Reply::Status(ok) if ok == "OK" && !loading => {
                    next = number + 1;
                    count.fetch_max(next, Ordering::Relaxed);
                    if last.len() >= ANSWERS {
                        last.pop_front();
                    }
                    last.push_back((Instant::now(), number));
                }
                Reply::Status(_) if loading => {}
                Reply::Error(text) => return Err(Error::Refused(text)),
                reply => return Err(Error::Protocol(format!("{reply:?}"))),
            }
        }
        if let Some((_, told, number)) = looks
            && let Reply::Bulk(Some(_)) = client.receive()?
        {
            told.fetch_max(number + 1, Ordering::Relaxed);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::{Redis, RedisConfig, Stop};

    #[test]
    fn a_command_has_so_many_bytes() {
        assert_eq!(bytes_of("0:7"), "*3\r\n$3\r\nSET\r\n$3\r\n0:7\r\n$1\r\n7\r\n".len() as u64);
        let long = "*3\r\n$3\r\nSET\r\n$12\r\n3:1234567890\r\n$10\r\n1234567890\r\n";
        assert_eq!(bytes_of("3:1234567890"), long.len() as u64);
    }

    #[test]
    fn what_is_acknowledged_is_there_and_what_is_gone_is_missed() {
        let mut redis = Redis::start(RedisConfig::new("always")).unwrap();
        let load = Load { clients: 3, pipeline: 4, requests: 602 };
        let acknowledged = Writers::start(redis.port(), load, 7).join();
        assert_eq!(acknowledged.counts, [602; 3]);
        redis.stop(Stop::Kill).unwrap();
        redis.launch().unwrap();
        let mut client = redis.client().unwrap();
        assert_eq!(acknowledged.missing(&mut client).unwrap(), Vec::<String>::new());
        client.command(&["SET", "8:600", "other"]).unwrap();
        client.command(&["DEL", "9:1"]).unwrap();
        assert_eq!(acknowledged.missing(&mut client).unwrap(), ["8:600", "9:1"]);
    }

    #[test]
    fn writers_end_when_the_server_does() {
        let mut redis = Redis::start(RedisConfig::new("no")).unwrap();
        let load = Load { clients: 2, pipeline: 1, requests: u64::MAX };
        let writers = Writers::start(redis.port(), load, 0);
        while writers.so_far() < 100 {
            std::thread::yield_now();
        }
        assert!(!writers.are_done());
        redis.stop(Stop::Kill).unwrap();
        let acknowledged = writers.join();
        assert_eq!(acknowledged.errors.len(), 2);
        assert!(acknowledged.total() >= 100);
    }

    #[test]
    fn what_is_seen_counts_as_told() {
        let redis = Redis::start(RedisConfig::new("no")).unwrap();
        let mut client = redis.client().unwrap();
        for number in 0..40 {
            client.command(&["SET".to_owned(), key(3, number), number.to_string()]).unwrap();
        }
        let load = Load { clients: 1, pipeline: 1, requests: 20 };
        let (count, told) = (AtomicU64::new(0), AtomicU64::new(0));
        let (stop, mut last) = (AtomicBool::new(false), VecDeque::new());
        write(redis.port(), load, 4, &stop, (&count, Some((3, &told))), &mut last).unwrap();
        assert_eq!((count.into_inner(), told.into_inner()), (20, 20));
        let acknowledged = Writers::start_reading(redis.port(), load, 3).join();
        assert_eq!(acknowledged.missing(&mut client).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn writers_end_when_told() {
        let redis = Redis::start(RedisConfig::new("no")).unwrap();
        let load = Load { clients: 2, pipeline: 1, requests: u64::MAX };
        let acknowledged = Writers::start(redis.port(), load, 0).stop();
        assert!(acknowledged.errors.is_empty());
    }
}
