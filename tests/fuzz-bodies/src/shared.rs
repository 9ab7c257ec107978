//! Memory that other processes write: the ring of a recording, the status page; and the agent's
//! environment.

use crate::{cut, text};
use durac_agent::environment::{self, Inherited};
use durac_agent::maps::MapArea;
use durac_core::set::{Known, find};
use durac_core::unit::{Unit, show};
use durac_shm::Taker;
use durac_shm::ring::Ring;
use durac_shm::status::{
    self, Amounts, Head, LogNumbers, ParamStatus, Snapshot, Status, StatusPage,
};
use durac_trace::{Event, Header, Op, Recorded, Source, Verdict, Writer, read_all};
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Pieces of the environment.
pub const WORDS: &[&str] = &[
    "700:701,702",
    ":",
    ",",
    "-1",
    "2147483647",
    "2147483648",
    "off",
    "thread",
    "io_uring",
    "map_type:\t2\n",
    "value_size:\t128\n",
    "max_entries:\t257\n",
    "\n",
    "\0",
    " ",
];

/// Places of the ring that is spoilt.
const PLACES: u64 = 8;
/// When its recording began, and when it is read.
const BEGAN: u64 = 1_000_000_000;
/// Words of the ring's head that mean something, by their byte in the file (`durac_shm::ring`).
const HEAD: [u64; 8] = [0, 8, 16, 24, 32, 40, 64, 128];
/// Where its places begin, and the bytes of one.
const FIRST: u64 = 4096;
const PLACE: usize = 80;
/// Bytes of an input that are one state of the ring.
const STATE: usize = HEAD.len() * 8 + PLACES as usize * PLACE;

/// A file of this process, in the folder for temporary files.
fn place(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("durac-fuzz-{}-{name}", std::process::id()))
}

/// Something shared, made once; each input has it alone.
struct Shared<T> {
    value: T,
    file: File,
}

type Held<T> = OnceLock<Option<Mutex<Shared<T>>>>;

fn shared<T: 'static>(
    held: &'static Held<T>,
    make: impl FnOnce() -> io::Result<Shared<T>>,
) -> Option<std::sync::MutexGuard<'static, Shared<T>>> {
    let made = held.get_or_init(|| {
        let made = make();
        assert!(made.is_ok(), "no shared memory: {:?}", made.err());
        made.ok().map(Mutex::new)
    });
    Some(made.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner))
}

/// A ring, and its file, which has no name any more.
fn new_ring() -> io::Result<Shared<Ring>> {
    let path = place("ring");
    let value = Ring::create(&path, PLACES, BEGAN)?;
    let file = OpenOptions::new().read(true).write(true).open(&path)?;
    fs::remove_file(&path)?;
    Ok(Shared { value, file })
}

/// The ring as an input is made of it.
fn state(file: &File) -> io::Result<Vec<u8>> {
    let mut state = vec![0; STATE];
    let (head, places) = state.split_at_mut(HEAD.len() * 8);
    for (word, at) in head.chunks_mut(8).zip(HEAD) {
        file.read_exact_at(word, at)?;
    }
    file.read_exact_at(places, FIRST)?;
    Ok(state)
}

fn spoil(file: &File, state: &[u8]) -> io::Result<()> {
    for (word, at) in state.chunks(8).zip(HEAD) {
        file.write_all_at(word, at)?;
    }
    file.write_all_at(state.get(HEAD.len() * 8..).unwrap_or_default(), FIRST)
}

/// Good rings.
///
/// # Errors
/// If there is no memory for them.
pub fn rings() -> io::Result<Vec<Vec<u8>>> {
    let Shared { value: ring, file } = new_ring()?;
    let mut states = vec![state(&file)?];
    let log = |op| Event { op, t: BEGAN + 50, took: 9, ..Event::default() };
    for event in [
        Event { path: "/d/appendonly.aof".into(), ..log(Op::Open) },
        Event { bytes: 30, verdict: Verdict::Stage, ..log(Op::Write) },
        Event { result: 5, wait: 3, verdict: Verdict::Defer, ..log(Op::Fdatasync) },
        Event { covers: 1, background: true, ..log(Op::Sync) },
        Event { path: "/p".repeat(200), log: 1, ..log(Op::Open) },
    ] {
        ring.push(&event);
        states.push(state(&file)?);
    }
    // Several states, one after the other.
    states.push(states.concat());
    Ok(states)
}

/// Any bytes as what stands in the ring of a recording, one state after the other: what is taken out of it
/// is a trace, and neither its reader nor a producer stays for ever.
pub fn ring(bytes: &[u8]) {
    static RING: Held<Ring> = OnceLock::new();
    let Some(held) = shared(&RING, new_ring) else { return };
    let ring = held.value;
    let bytes = cut(bytes);
    let header = Header::new(Recorded { source: Source::Agent, ..Recorded::default() });
    let Ok(mut writer) = Writer::new(Vec::new(), &header) else { return };
    let mut write = |event: &Event| assert!(writer.event(event).is_ok());
    let (mut taker, mut now) = (Taker::new(ring), BEGAN);
    for state in bytes.chunks(STATE) {
        assert!(spoil(&held.file, state).is_ok());
        now += 1_100_000_000;
        taker.take(|| now, &mut write);
        ring.push(&Event { t: now, path: "/d/x.aof".into(), op: Op::Open, ..Event::default() });
        taker.take(|| now, &mut write);
    }
    let missing = taker.end(|| now, &mut write);
    let written = writer.finish(missing.dropped).map(|(bytes, _)| bytes);
    let read = written.as_deref().map(|bytes| read_all(bytes).map(|_| ()));
    assert!(matches!(read, Ok(Ok(()))), "{read:?}");
    is_no_file(bytes, FIRST as usize, |path| Ring::open(path).is_ok());
}

/// A file with these bytes, of which there are fewer than it needs, is refused.
fn is_no_file(bytes: &[u8], needs: usize, opens: impl FnOnce(&Path) -> bool) {
    if bytes.len() >= needs {
        return;
    }
    let path = place(&format!("file-{needs}"));
    assert!(fs::write(&path, bytes).is_ok());
    let opened = opens(&path);
    let _ = fs::remove_file(&path);
    assert!(!opened, "a file of {} bytes was mapped", bytes.len());
}

const SIZE: usize = size_of::<StatusPage>();

fn new_page() -> io::Result<Shared<(&'static StatusPage, &'static MapArea)>> {
    let path = place("page");
    let page = status::create(Some(&path), 0)?.page;
    let file = OpenOptions::new().read(true).write(true).open(&path)?;
    fs::remove_file(&path)?;
    let params = MapArea::leak(&[4, 7], 1, vec![(1, 64), (0, u64::MAX)]);
    params.follow(page);
    Ok(Shared { value: (page, params), file })
}

/// Good pages.
///
/// # Errors
/// If there is no memory for them.
pub fn pages() -> io::Result<Vec<Vec<u8>>> {
    let Shared { value: (page, _), file } = new_page()?;
    let read = || {
        let mut bytes = vec![0; SIZE];
        file.read_exact_at(&mut bytes, 0).map(|()| bytes)
    };
    let mut pages = vec![read()?];
    let head = Head {
        pid: 1,
        since: 7,
        policy: "window",
        target: "redis.aof",
        object: 0x0011_2233_4455_6677,
        loss: "at most n syncs (64 by default) and 50ms",
        bound: Amounts { syncs: Some(64), ..Amounts::default() },
        is_off: false,
    };
    page.publish_head(&head, &[]);
    pages.push(read()?);
    let units = ["syncs", "duration", "bytes", "bool", ""].into_iter().enumerate();
    let params = units.map(|(index, unit)| {
        let (name, unit) = (format!("n{index}"), unit.into());
        ParamStatus { name, unit, value: 9, default: 64, min: 1, max: 64 }
    });
    page.publish_policy(&head, &params.collect::<Vec<_>>());
    pages.push(read()?);
    for index in [0, 63] {
        page.publish_file(index, "/d/appendonly.aof", (7, 8));
        page.publish_log(
            index,
            LogNumbers { acknowledged: 9, durable: 5, ..LogNumbers::default() },
        );
        pages.push(read()?);
    }
    Ok(pages)
}

/// Any bytes as a status page: as `durac top` and `durac set` read it, and the agent its parameters.
pub fn page(bytes: &[u8]) {
    static PAGE: Held<(&'static StatusPage, &'static MapArea)> = OnceLock::new();
    let Some(held) = shared(&PAGE, new_page) else { return };
    let (page, params) = held.value;
    let bytes = cut(bytes);
    let mut whole = bytes.to_vec();
    whole.resize(SIZE, 0);
    assert!(held.file.write_all_at(&whole, 0).is_ok());
    show_page(page, &page.snapshot());
    let word = params.lookup(0).cast::<u64>();
    // SAFETY: the area has one entry of two words, which this thread has alone.
    let (first, _) = unsafe { (word.read(), word.add(1).read()) };
    assert!((1..=64).contains(&first), "{first} is no value of the parameter");
    is_no_file(bytes, SIZE, |path| Status::open(path).is_ok());
}

/// What is shown and set of a page.
fn show_page(page: &StatusPage, seen: &Snapshot) {
    let unit = |param: &ParamStatus| Unit::parse(&param.unit).unwrap_or(Unit::Unknown);
    let known = |param: &ParamStatus| Known {
        name: param.name.clone(),
        unit: unit(param),
        range: (param.min, param.max),
    };
    let all: Vec<Known> = seen.params.iter().map(known).collect();
    for param in &seen.params {
        assert!(!param.name.is_empty() && !show(param.value, unit(param)).is_empty());
        for value in ["0", "9", "5ms", "true", "18446744073709551615"] {
            let found = find(&seen.policy, all.clone(), &format!("{}={value}", param.name));
            let Ok((index, value)) = found else { continue };
            let Some(chosen) = seen.params.get(index) else { continue };
            let set = page.set_param(&chosen.name, value);
            assert!(set.is_some_and(|set| chosen.min <= set && set <= chosen.max), "{set:?}");
        }
    }
    for log in &seen.logs {
        assert!(log.numbers.pending() <= log.numbers.acknowledged);
        assert!(log.path.chars().count() <= 128);
    }
}

/// Any bytes as a variable of the agent's, and as a text of `/proc` about what it names.
pub fn environment(bytes: &[u8]) {
    let named = OsStr::from_bytes(cut(bytes));
    if let Some(inherited) = environment::inherited(named) {
        let Inherited { map, links } = &inherited;
        assert!(*map >= 0 && links.len() <= 16 && links.iter().all(|&fd| fd >= 0));
        let links: Vec<String> = links.iter().map(i32::to_string).collect();
        let again = format!("{map}:{}", links.join(","));
        assert_eq!(environment::inherited(OsStr::new(&again)), Some(inherited));
    }
    match environment::engine(named) {
        Ok(engine) => assert_eq!(named, engine.name()),
        Err(name) => assert_eq!(name, named.to_string_lossy()),
    }
    let info = text(bytes);
    for name in ["map_type", "value_size", "max_entries", ""] {
        if let Some(number) = environment::number(&info, name) {
            assert!(info.contains(&number.to_string()));
        }
    }
}
