//! Which keys a log's commands change, and which keys a client's request reads.
//!
//! Stage: the commands of a log → what they name ([`Named`]); the name of a request → what its reply depends on
//! ([`Asks`]).
//!
//! Of the log nothing is believed but this: a command whose name is in `CHANGES` changes no key that is not one of its
//! arguments. So every argument counts as a key, and any other command as one that changes every key. Of a request: one
//! whose name is in `FIRST` or `ALL` reads no key but its first argument, or its arguments. The lists
//! are those of Redis and Valkey up to version 9 (`src/commands/*.json` in their sources, the fields `key_specs`
//! and `reply_schema`).
//!
//! Architecture invariant: no I/O, no allocation, no panic.

use crate::resp::{Name, Sink};

/// A number for the bytes of a key. Different keys may have the same: they are then taken for one.
pub type KeyHash = u64;

/// Bytes of a key that its number depends on; those behind count by their length.
const HASHED: usize = 64;
/// The longest name in the lists below.
pub(crate) const LONGEST_NAME: usize = 20;

/// Makes the number of a key from its bytes, which may come in pieces: FNV-1a.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hasher {
    hash: u64,
    len: u64,
}

impl Hasher {
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    pub(crate) const NEW: Self = Self { hash: 0xcbf2_9ce4_8422_2325, len: 0 };

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let room = HASHED.saturating_sub(usize::try_from(self.len).unwrap_or(HASHED));
        for byte in bytes.iter().take(room) {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(Self::PRIME);
        }
        self.len = self.len.saturating_add(bytes.len() as u64);
    }

    pub(crate) fn end(self) -> KeyHash {
        let hash = (self.hash ^ self.len).wrapping_mul(Self::PRIME);
        hash ^ hash >> 32
    }
}

/// The number of a key.
#[must_use]
pub fn hash(key: &[u8]) -> KeyHash {
    let mut hasher = Hasher::NEW;
    hasher.push(key);
    hasher.end()
}

/// What a log changes.
pub trait Changes {
    /// The key of this number.
    fn key(&mut self, key: KeyHash);
    /// Every key.
    fn every_key(&mut self);
}

/// Finds what a log's commands change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    name: Name<LONGEST_NAME>,
    /// The name is complete.
    named: bool,
    hasher: Hasher,
}

impl Named {
    /// Before the first command.
    pub const NEW: Self = Self { name: Name::NONE, named: false, hasher: Hasher::NEW };

    /// Tells these what it finds.
    pub fn telling<'a, C: Changes>(&'a mut self, changes: &'a mut C) -> Telling<'a, C> {
        Telling { named: self, changes }
    }
}

/// A [`Named`], and who is told.
#[derive(Debug)]
pub struct Telling<'a, C> {
    named: &'a mut Named,
    changes: &'a mut C,
}

impl<C: Changes> Sink for Telling<'_, C> {
    fn begins(&mut self) {
        *self.named = Named::NEW;
    }

    fn bytes(&mut self, bytes: &[u8]) {
        if self.named.named {
            self.named.hasher.push(bytes);
        } else {
            self.named.name.push(bytes);
        }
    }

    fn argument_ended(&mut self) {
        if self.named.named {
            self.changes.key(self.named.hasher.end());
        } else if !self.named.name.get().is_some_and(changes_what_it_names) {
            self.changes.every_key();
        }
        self.named.named = true;
        self.named.hasher = Hasher::NEW;
    }

    fn command_ended(&mut self) -> bool {
        true
    }
}

fn changes_what_it_names(name: &[u8]) -> bool {
    matches!(name, b"SELECT" | b"MULTI" | b"EXEC") || is_in(&CHANGES, name)
}

fn is_in(list: &[&str], name: &[u8]) -> bool {
    list.binary_search_by(|known| known.as_bytes().cmp(name)).is_ok()
}

/// What the reply to a request depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// The key that is its first argument.
    First,
    /// The keys that are its arguments.
    All,
    /// Perhaps everything.
    Everything,
    /// Nothing is known of what is sent for it, or after it.
    Unknown,
    /// It is as its first argument says ([`Asks::of_client_command`]).
    Client,
}

impl Asks {
    /// Of the request of this name, in upper case; none if it is longer than any that is known.
    #[must_use]
    pub fn of(name: Option<&[u8]>) -> Self {
        match name {
            None => Asks::Unknown,
            Some(b"CLIENT") => Asks::Client,
            Some(name) if is_in(&FIRST, name) => Asks::First,
            Some(name) if is_in(&ALL, name) => Asks::All,
            Some(name) if is_in(&ONE_REPLY, name) || is_in(&CHANGES, name) => Asks::Everything,
            Some(_) => Asks::Unknown,
        }
    }

    /// Of a `CLIENT` request with this first argument.
    #[must_use]
    pub fn of_client_command(argument: Option<&[u8]>) -> Self {
        match argument {
            Some(
                b"GETNAME" | b"ID" | b"INFO" | b"LIST" | b"NO-EVICT" | b"NO-TOUCH" | b"SETINFO"
                | b"SETNAME",
            ) => Asks::Everything,
            _ => Asks::Unknown,
        }
    }
}

/// Commands that change no key but their arguments, in order. A request of them gets one reply.
const CHANGES: [&str; 105] = [
    "APPEND",
    "BITFIELD",
    "BITOP",
    "BLMOVE",
    "BLMPOP",
    "BLPOP",
    "BRPOP",
    "BRPOPLPUSH",
    "BZMPOP",
    "BZPOPMAX",
    "BZPOPMIN",
    "COPY",
    "DECR",
    "DECRBY",
    "DEL",
    "DELIFEQ",
    "EXPIRE",
    "EXPIREAT",
    "GEOADD",
    "GEORADIUS",
    "GEORADIUSBYMEMBER",
    "GEOSEARCHSTORE",
    "GETDEL",
    "GETEX",
    "GETSET",
    "HDEL",
    "HEXPIRE",
    "HEXPIREAT",
    "HGETDEL",
    "HGETEX",
    "HINCRBY",
    "HINCRBYFLOAT",
    "HMSET",
    "HPERSIST",
    "HPEXPIRE",
    "HPEXPIREAT",
    "HSET",
    "HSETEX",
    "HSETNX",
    "INCR",
    "INCRBY",
    "INCRBYFLOAT",
    "LINSERT",
    "LMOVE",
    "LMPOP",
    "LPOP",
    "LPUSH",
    "LPUSHX",
    "LREM",
    "LSET",
    "LTRIM",
    "MOVE",
    "MSET",
    "MSETNX",
    "PERSIST",
    "PEXPIRE",
    "PEXPIREAT",
    "PFADD",
    "PFCOUNT",
    "PFMERGE",
    "PSETEX",
    "RENAME",
    "RENAMENX",
    "RESTORE",
    "RESTORE-ASKING",
    "RPOP",
    "RPOPLPUSH",
    "RPUSH",
    "RPUSHX",
    "SADD",
    "SDIFFSTORE",
    "SET",
    "SETBIT",
    "SETEX",
    "SETNX",
    "SETRANGE",
    "SINTERSTORE",
    "SMOVE",
    "SORT",
    "SPOP",
    "SREM",
    "SUNIONSTORE",
    "UNLINK",
    "XACK",
    "XADD",
    "XAUTOCLAIM",
    "XCLAIM",
    "XDEL",
    "XGROUP",
    "XREADGROUP",
    "XSETID",
    "XTRIM",
    "ZADD",
    "ZDIFFSTORE",
    "ZINCRBY",
    "ZINTERSTORE",
    "ZMPOP",
    "ZPOPMAX",
    "ZPOPMIN",
    "ZRANGESTORE",
    "ZREM",
    "ZREMRANGEBYLEX",
    "ZREMRANGEBYRANK",
    "ZREMRANGEBYSCORE",
    "ZUNIONSTORE",
];

/// Requests that read the key which is their first argument, and nothing else, in order. They get one reply.
const FIRST: [&str; 62] = [
    "BITCOUNT",
    "BITFIELD_RO",
    "BITPOS",
    "DUMP",
    "EXPIRETIME",
    "GEODIST",
    "GEOHASH",
    "GEOPOS",
    "GEORADIUSBYMEMBER_RO",
    "GEORADIUS_RO",
    "GEOSEARCH",
    "GET",
    "GETBIT",
    "GETRANGE",
    "HEXISTS",
    "HEXPIRETIME",
    "HGET",
    "HGETALL",
    "HKEYS",
    "HLEN",
    "HMGET",
    "HPEXPIRETIME",
    "HPTTL",
    "HRANDFIELD",
    "HSCAN",
    "HSTRLEN",
    "HTTL",
    "HVALS",
    "LINDEX",
    "LLEN",
    "LPOS",
    "LRANGE",
    "PEXPIRETIME",
    "PTTL",
    "SCARD",
    "SISMEMBER",
    "SMEMBERS",
    "SMISMEMBER",
    "SRANDMEMBER",
    "SSCAN",
    "STRLEN",
    "SUBSTR",
    "TTL",
    "TYPE",
    "XLEN",
    "XRANGE",
    "XREVRANGE",
    "ZCARD",
    "ZCOUNT",
    "ZLEXCOUNT",
    "ZMSCORE",
    "ZRANDMEMBER",
    "ZRANGE",
    "ZRANGEBYLEX",
    "ZRANGEBYSCORE",
    "ZRANK",
    "ZREVRANGE",
    "ZREVRANGEBYLEX",
    "ZREVRANGEBYSCORE",
    "ZREVRANK",
    "ZSCAN",
    "ZSCORE",
];

/// Requests that read the keys which are their arguments, and nothing else, in order. They get one reply.
const ALL: [&str; 5] = ["EXISTS", "MGET", "SDIFF", "SINTER", "SUNION"];

/// Other requests that get one reply, in order.
const ONE_REPLY: [&str; 46] = [
    "ACL",
    "ASKING",
    "AUTH",
    "BGREWRITEAOF",
    "BGSAVE",
    "CLUSTER",
    "COMMAND",
    "CONFIG",
    "DBSIZE",
    "DISCARD",
    "ECHO",
    "EXEC",
    "FLUSHALL",
    "FLUSHDB",
    "HELLO",
    "INFO",
    "KEYS",
    "LASTSAVE",
    "LCS",
    "MULTI",
    "OBJECT",
    "PING",
    "PUBLISH",
    "RANDOMKEY",
    "READONLY",
    "READWRITE",
    "ROLE",
    "SAVE",
    "SCAN",
    "SELECT",
    "SINTERCARD",
    "SORT_RO",
    "SWAPDB",
    "TIME",
    "TOUCH",
    "UNWATCH",
    "WAIT",
    "WAITAOF",
    "WATCH",
    "XINFO",
    "XPENDING",
    "XREAD",
    "ZDIFF",
    "ZINTER",
    "ZINTERCARD",
    "ZUNION",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_are_in_order_and_no_name_is_twice() {
        let lists: [&[&str]; 4] = [&CHANGES, &FIRST, &ALL, &ONE_REPLY];
        for list in lists {
            assert!(list.is_sorted_by(|a, b| a < b), "{list:?}");
            assert!(list.iter().all(|name| name.len() <= LONGEST_NAME));
        }
        let mut all = lists.concat();
        all.sort_unstable();
        assert!(all.is_sorted_by(|a, b| a < b), "{all:?}");
    }

    #[test]
    fn a_key_in_pieces_has_the_number_of_the_whole() {
        let key: Vec<u8> = (0..200).collect();
        for cut in 0..key.len() {
            let mut hasher = Hasher::NEW;
            let (first, second) = key.split_at(cut);
            hasher.push(first);
            hasher.push(second);
            assert_eq!(hasher.end(), hash(&key));
        }
        assert_ne!(hash(b"a"), hash(b"b"));
        assert_ne!(hash(&key), hash(&key[..199]));
    }
}
