//! Returns of `epoll_wait`: where an event loop gathers what is ready.

use crate::errno::Kept;
use crate::fault_injection::{Fault, injects};
use crate::policy;
use crate::real;
use crate::{clock, guard, replies, table};
use durac_abi::{Context, Hook, Reading, Verdict};
use durac_engine::gather::{MOST, Turns};
use libc::{c_int, epoll_event, sigset_t, timespec};
use std::cell::RefCell;

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
    let ready = before_sleep(probe).unwrap_or_else(|| {
        let ready = wait();
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
        writable_first(unsafe { std::slice::from_raw_parts_mut(events, count) });
    }
    found
}

/// What is only to be written comes first, then what is to be written and read. An event loop serves them in this order
/// and writes its log behind all of them. So a connection whose socket was full is written to before a request
/// of this turn is read: it cannot be sent what that request has put into its output (`MONITOR`, `PUBLISH`, a blocking
/// pop), of which the log knows nothing yet. The system promises no order.
fn writable_first(events: &mut [epoll_event]) {
    // Of an error or a hang-up, event loops are told as of both.
    const OTHERS: u32 = !(libc::EPOLLOUT | libc::EPOLLWRNORM | libc::EPOLLWRBAND) as u32;
    const WRITES: u32 = (libc::EPOLLOUT | libc::EPOLLERR | libc::EPOLLHUP) as u32;
    let mut first = 0;
    let kinds: [fn(u32) -> bool; 2] =
        [|found| found & WRITES != 0 && found & OTHERS == 0, |found| found & WRITES != 0];
    for is_next in kinds {
        for index in first..events.len() {
            if events.get(index).is_some_and(|event| is_next(event.events)) {
                events.swap(first, index);
                first += 1;
            }
        }
    }
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
                while found < target && clock::now() < until {
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
    turn(epoll, events, most, true, wait)
}

#[cfg(test)]
mod tests {
    use super::writable_first;
    use libc::{EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, epoll_event};

    fn order(kinds: &[i32]) -> Vec<(i32, u64)> {
        let event =
            |(at, kind): (usize, &i32)| epoll_event { events: *kind as u32, u64: at as u64 };
        let mut events: Vec<epoll_event> = kinds.iter().enumerate().map(event).collect();
        writable_first(&mut events);
        events.iter().map(|event| (event.events as i32, event.u64)).collect()
    }

    #[test]
    fn what_is_to_be_written_comes_before_what_is_to_be_read() {
        let (read, write, both) = (EPOLLIN, EPOLLOUT, EPOLLIN | EPOLLOUT);
        assert_eq!(order(&[read, both, write]), [(write, 2), (both, 1), (read, 0)]);
        assert_eq!(order(&[write, write]), [(write, 0), (write, 1)]);
        let gone = EPOLLIN | EPOLLERR | EPOLLHUP;
        assert_eq!(order(&[read, gone]), [(gone, 1), (read, 0)]);
        assert_eq!(order(&[]), []);
        // Every order of four: nothing is lost, and no one that only writes is behind another.
        let kinds = [read, write, both, gone];
        for code in 0..4_usize.pow(4) {
            let picked = [0, 1, 2, 3].map(|at| kinds[code / 4_usize.pow(at) % 4]);
            let found = order(&picked);
            let mut numbers: Vec<u64> = found.iter().map(|(_, number)| *number).collect();
            assert!(found.iter().all(|(kind, number)| picked[*number as usize] == *kind));
            numbers.sort_unstable();
            assert_eq!(numbers, [0, 1, 2, 3]);
            let rank = |kind: i32| match kind {
                EPOLLOUT => 0,
                EPOLLIN => 2,
                _ => 1,
            };
            assert!(found.is_sorted_by_key(|(kind, _)| rank(*kind)), "{found:?}");
        }
    }
}
