//! Returns of `epoll_wait`: where an event loop gathers what is ready.

use crate::errno::{self, Kept};
use crate::fault_injection::{Fault, injects};
use crate::policy;
use crate::real;
use crate::{clock, guard, readable, replies, signals, table};
use durac_abi::{Context, Hook, Reading, Verdict};
use durac_engine::gather::{MOST, Turns};
use libc::{c_int, epoll_event, sigset_t, timespec};
use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

thread_local! {
    static TURNS: RefCell<Turns> = const { RefCell::new(Turns::new()) };
}

/// The calling thread has synced a log.
pub(super) fn synced() {
    if policy::get().is_some_and(|policy| policy.program(Hook::Turn).is_some()) {
        // Borrowed, a signal's handler syncs inside a turn that looks: that one counts.
        let _ = TURNS.try_with(|turns| turns.try_borrow_mut().map(|mut turns| turns.synced()));
    }
}

/// A wait of an event loop begins. Returns what is ready, if it need not sleep; `wait` sleeps.
///
/// What comes before the sleep may sync, which is a part of the wait to the application: a signal whose handler runs there
/// ends the wait, as one does that finds the loop asleep. It is never restarted.
#[inline]
fn turn(
    epoll: c_int,
    events: *mut epoll_event,
    most: c_int,
    sleeps: bool,
    wait: impl FnOnce() -> c_int,
) -> c_int {
    if !sleeps || !replies::may_hold() {
        return returned(epoll, events, most, wait());
    }
    let probe = |found| match (usize::try_from(found), usize::try_from(most)) {
        (Ok(found @ 1..), Ok(most)) if found >= most => -1,
        (Ok(found @ 1..), Ok(most)) => look(epoll, events, found, most) as c_int,
        // SAFETY: the caller's arguments; it does not wait.
        _ => unsafe { real::EPOLL_WAIT.get()(epoll, events, most, 0) },
    };
    let handlers = signals::begun();
    let ready = before_sleep(probe).unwrap_or_else(|| {
        let ready = if signals::begun() == handlers {
            wait()
        } else {
            errno::set(libc::EINTR);
            -1
        };
        woke();
        ready
    });
    returned(epoll, events, most, ready)
}

/// Before an event loop sleeps whose replies may be held.
#[inline(never)]
fn before_sleep(probe: impl FnMut(c_int) -> c_int) -> Option<c_int> {
    let registry = table::registry().filter(|registry| registry.is_ours())?;
    let kept = Kept::now();
    let ready = guard::run(|| registry.replies.before_sleep(registry, probe));
    drop(kept);
    ready.flatten()
}

fn woke() {
    if let Some(registry) = table::registry() {
        registry.replies.woke();
    }
}

/// A wait of an event loop has returned.
#[inline]
fn returned(epoll: c_int, events: *mut epoll_event, most: c_int, ready: c_int) -> c_int {
    crate::control::look_in_turn();
    crate::attention::look(crate::table::Entry::Other);
    if ready <= 0 || table::registry().is_none() {
        return ready;
    }
    let Some(policy) = policy::get() else { return ready };
    let found = gathered(epoll, events, most, ready);
    if policy.rules.holds_replies
        && !injects(Fault::LateWrites)
        && let Ok(count) = usize::try_from(found)
    {
        // SAFETY: the system has filled that number of the application's events.
        let events = unsafe { std::slice::from_raw_parts_mut(events, count) };
        writable_first(events, (!REPORTS_ONCE.load(Ordering::Acquire)).then(draw));
    }
    found
}

/// What is only to be written comes first, then what is to be written and read. An event loop serves them in this order
/// and writes its log behind all of them. So a connection whose socket was full is written to before a request
/// of this turn is read: it cannot be sent what that request has put into its output (`MONITOR`, `PUBLISH`, a blocking
/// pop), of which the log knows nothing yet. The system promises no order.
///
/// Of several that are to be written and read, only one is read in this turn, if the system reports the others
/// again: the one that `drawn` says.
fn writable_first(events: &mut [epoll_event], drawn: Option<u64>) {
    const WRITES: u32 = (libc::EPOLLOUT | libc::EPOLLWRNORM | libc::EPOLLWRBAND) as u32;
    // Whoever hears of these can be sent nothing any more.
    const GONE: u32 = (libc::EPOLLERR | libc::EPOLLHUP) as u32;
    let is_both = |found: u32| found & WRITES != 0 && found & !WRITES != 0 && found & GONE == 0;
    if let Some(drawn) = drawn {
        let boths = events.iter().filter(|event| is_both(event.events)).count().max(1);
        let read = (drawn % boths as u64) as usize;
        let boths = events.iter_mut().filter(|event| is_both(event.events)).enumerate();
        for (_, event) in boths.filter(|(index, _)| *index != read) {
            event.events &= WRITES;
        }
    }
    let mut rest = events;
    let kinds: [fn(u32) -> bool; 2] = [
        |found| found & WRITES != 0 && found & !WRITES == 0,
        |found| found & WRITES != 0 && found & GONE == 0,
    ];
    for is_next in kinds {
        let mut first = 0;
        for index in 0..rest.len() {
            if rest.get(index).is_some_and(|event| is_next(event.events)) {
                rest.swap(first, index);
                first += 1;
            }
        }
        rest = rest.get_mut(first..).unwrap_or_default();
    }
}

/// A number for [`writable_first`]. The system may report the same descriptors in the same order in each turn, or some of them in
/// each second one: none of those waits for ever if it is drawn which is read.
fn draw() -> u64 {
    static STATE: AtomicU64 = AtomicU64::new(0x9e37_79b9_7f4a_7c15);
    // Marsaglia, "Xorshift RNGs" (2003): never 0. Two threads may draw the same number.
    let mut state = STATE.load(Ordering::Relaxed);
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    STATE.store(state, Ordering::Relaxed);
    state >> 16
}

/// Something is reported once only (`EPOLLET`, `EPOLLONESHOT`), or may be: nothing of what is ready may be left out.
static REPORTS_ONCE: AtomicBool = AtomicBool::new(false);

/// With which `epoll` this descriptor is registered is not seen, nor how.
pub(super) fn registers_unseen(fd: c_int) {
    REPORTS_ONCE.store(true, Ordering::Release);
    replies::epolls::added_unseen(fd);
}

/// The same of a call by number, whose result is not seen. It can take out what is there.
pub(super) fn registers_by_number(epoll: c_int, what: c_int, fd: c_int) {
    match what {
        libc::EPOLL_CTL_DEL => drop(replies::epolls::removed(epoll, fd, || 0)),
        _ => registers_unseen(fd),
    }
}

/// Hook of `epoll_ctl`.
///
/// # Safety
/// As the real function.
#[inline]
pub unsafe fn epoll_ctl(epoll: c_int, what: c_int, fd: c_int, event: *mut epoll_event) -> c_int {
    if !REPORTS_ONCE.load(Ordering::Relaxed)
        && what != libc::EPOLL_CTL_DEL
        && readable::all(event.cast(), size_of::<epoll_event>())
    {
        const ONCE: u32 = (libc::EPOLLET | libc::EPOLLONESHOT) as u32;
        // SAFETY: it can be read, and nothing says that it is aligned.
        if unsafe { event.read_unaligned() }.events & ONCE != 0 {
            REPORTS_ONCE.store(true, Ordering::Release);
        }
    }
    // SAFETY: the caller's arguments, which it vouches for.
    let real = || unsafe { real::EPOLL_CTL.get()(epoll, what, fd, event) };
    if table::is_other(fd) {
        return real();
    }
    if what == libc::EPOLL_CTL_DEL {
        return replies::epolls::removed(epoll, fd, real);
    }
    let result = real();
    if result == 0 && what == libc::EPOLL_CTL_ADD {
        replies::epolls::added(epoll, fd);
    }
    result
}

#[inline(never)]
fn gathered(epoll: c_int, events: *mut epoll_event, most: c_int, ready: c_int) -> c_int {
    let Some(policy) = policy::get() else { return ready };
    let Some(program) = policy.program(Hook::Turn) else { return ready };
    let (Ok(count), Ok(most)) = (usize::try_from(ready), usize::try_from(most)) else {
        return ready;
    };
    let kept = Kept::now();
    // SAFETY: the system has filled that number of the application's events.
    let of = |count| unsafe { std::slice::from_raw_parts_mut(events, count) };
    let found = TURNS.try_with(|turns| {
        // A signal's handler that waits too, inside this function: it takes what is ready.
        let Ok(mut turns) = turns.try_borrow_mut() else { return count };
        let mut found = count;
        if let Some(target) = turns.target(count).map(|target| target.min(most))
            && target > count
        {
            let child = policy.reads(Reading::ChildActive) && crate::children::any();
            let ready = count as u64;
            let mut context = Context { child_active: child.into(), ready, ..Context::default() };
            // SAFETY: the context lives until the program has ended; a program of a turn calls no helper that
            // works on a call.
            if let Verdict::Gather(within) = unsafe { program.run(&raw mut context) } {
                let until = clock::now() + u64::from(within);
                // One more look when the time is over: on a busy machine the thread may not have run until then.
                let mut over = false;
                while found < target && !over {
                    over = clock::now() >= until;
                    found = look(epoll, events, found, most);
                }
                turns.looked(target, found);
            }
        }
        turns.serves(of(found).iter().map(|event| event.u64));
        found
    });
    drop(kept);
    found.unwrap_or(count) as c_int
}

/// Looks for what is ready now, and merges it with the first `found` events. Nothing that the system reports is
/// lost: a descriptor that reports an edge, or is armed for one event, does so only once.
fn look(epoll: c_int, events: *mut epoll_event, found: usize, most: usize) -> usize {
    let mut more = [epoll_event { events: 0, u64: 0 }; MOST];
    // Each of them may be new.
    let room = MOST.min(most - found);
    if room == 0 {
        return found;
    }
    // SAFETY: the array has room for so many events.
    let ready = unsafe { real::EPOLL_WAIT.get()(epoll, more.as_mut_ptr(), room as c_int, 0) };
    let mut all = found;
    for event in more.iter().take(usize::try_from(ready).unwrap_or(0)) {
        // SAFETY: the first `all` are filled, by the system or below.
        let known = unsafe { std::slice::from_raw_parts_mut(events, all) };
        let data = event.u64;
        match known.iter_mut().find(|known| known.u64 == data) {
            Some(known) => known.events |= event.events,
            None => {
                // SAFETY: fewer than `most` are filled: each event of `more` adds one at most.
                unsafe { events.add(all).write(*event) };
                all += 1;
            }
        }
    }
    all
}

/// Hook of `epoll_wait`.
///
/// # Safety
/// As the real function.
#[inline]
pub unsafe fn epoll_wait(
    epoll: c_int,
    events: *mut epoll_event,
    most: c_int,
    timeout: c_int,
) -> c_int {
    // SAFETY: the caller's arguments, which it vouches for.
    let wait = || unsafe { real::EPOLL_WAIT.get()(epoll, events, most, timeout) };
    turn(epoll, events, most, timeout != 0, wait)
}

/// Hook of `epoll_pwait`.
///
/// # Safety
/// As the real function.
#[inline]
pub unsafe fn epoll_pwait(
    epoll: c_int,
    events: *mut epoll_event,
    most: c_int,
    timeout: c_int,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: the caller's arguments, which it vouches for.
    let wait = || unsafe { real::EPOLL_PWAIT.get()(epoll, events, most, timeout, mask) };
    turn(epoll, events, most, timeout != 0, wait)
}

/// Hook of `epoll_pwait2`.
///
/// # Safety
/// As the real function.
#[inline]
pub unsafe fn epoll_pwait2(
    epoll: c_int,
    events: *mut epoll_event,
    most: c_int,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: the caller's arguments, which it vouches for.
    let wait = || unsafe { real::EPOLL_PWAIT2.get()(epoll, events, most, timeout, mask) };
    turn(epoll, events, most, replies::may_hold() && sleeps_for(timeout), wait)
}

/// Whether a wait with this limit can sleep.
fn sleeps_for(timeout: *const timespec) -> bool {
    if !readable::all(timeout.cast(), size_of::<timespec>()) {
        return true;
    }
    // SAFETY: it can be read, and any bytes are two numbers; nothing says that it is aligned.
    let limit = unsafe { timeout.read_unaligned() };
    limit.tv_sec != 0 || limit.tv_nsec != 0
}

#[cfg(test)]
mod tests {
    use super::{draw, writable_first};
    use libc::{EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, epoll_event};

    fn order(kinds: &[i32], drawn: Option<u64>) -> Vec<(i32, u64)> {
        let event =
            |(at, kind): (usize, &i32)| epoll_event { events: *kind as u32, u64: at as u64 };
        let mut events: Vec<epoll_event> = kinds.iter().enumerate().map(event).collect();
        writable_first(&mut events, drawn);
        events.iter().map(|event| (event.events as i32, event.u64)).collect()
    }

    #[test]
    fn what_is_to_be_written_comes_before_what_is_to_be_read() {
        let (read, write, both) = (EPOLLIN, EPOLLOUT, EPOLLIN | EPOLLOUT);
        assert_eq!(order(&[read, both, write], None), [(write, 2), (both, 1), (read, 0)]);
        assert_eq!(order(&[write, write], Some(7)), [(write, 0), (write, 1)]);
        let found = order(&[read, both, both], Some(2));
        assert_eq!(found, [(write, 2), (both, 1), (read, 0)]);
        let found = order(&[read, both, both], Some(1));
        assert_eq!(found, [(write, 1), (both, 2), (read, 0)]);
        let gone = EPOLLIN | EPOLLERR | EPOLLHUP;
        assert_eq!(order(&[], Some(0)), []);
        // Every order of five: nothing is lost but what comes again, and nobody is written to after one is read.
        let kinds = [read, write, both, gone, gone | EPOLLOUT];
        for code in 0..5_usize.pow(5) {
            let picked = [0, 1, 2, 3, 4].map(|at| kinds[code / 5_usize.pow(at) % 5]);
            for drawn in [None, Some(0), Some(1), Some(2), Some(3), Some(4)] {
                let again = drawn.is_some();
                let found = order(&picked, drawn);
                let mut numbers: Vec<u64> = found.iter().map(|(_, number)| *number).collect();
                numbers.sort_unstable();
                assert_eq!(numbers, [0, 1, 2, 3, 4]);
                let boths = |all: &[i32]| all.iter().filter(|kind| **kind == both).count();
                let left: Vec<i32> = found.iter().map(|(kind, _)| *kind).collect();
                let before = boths(&picked);
                assert_eq!(boths(&left), if again { before.min(1) } else { before });
                for (kind, number) in &found {
                    let was = picked[*number as usize];
                    assert!(*kind == was || again && (was, *kind) == (both, write));
                }
                let rank = |kind: i32| match kind {
                    _ if kind == write => 0,
                    _ if kind == both => 1,
                    _ => 2,
                };
                assert!(found.is_sorted_by_key(|(kind, _)| rank(*kind)), "{found:?}");
            }
        }
    }

    /// Whatever the system reports, and in whatever order: of those that are in every turn, and of those in every second or third.
    #[test]
    fn each_of_those_to_be_written_and_read_is_read_some_time() {
        let both = EPOLLIN | EPOLLOUT;
        for turns in [
            &[&[0, 1][..]][..],
            &[&[0, 1, 2, 3]],
            &[&[0, 1], &[2, 3]],
            &[&[0, 1], &[1, 2], &[2, 0]],
        ] {
            let mut read = [0; 4];
            for turn in turns.iter().cycle().take(3000) {
                let found = order(&vec![both; turn.len()], Some(draw()));
                let kept: Vec<u64> =
                    found.iter().filter(|(kind, _)| *kind == both).map(|(_, at)| *at).collect();
                assert_eq!(kept.len(), 1);
                read[turn[kept[0] as usize]] += 1;
            }
            let all = turns.iter().flat_map(|turn| turn.iter());
            assert!(all.clone().all(|number| read[*number] > 200), "{read:?}");
        }
    }
}
