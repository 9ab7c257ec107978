//! What an error number says of the data, and how often a call is made again.

use durac_engine::{Again, Completion, Tries, completion, is_transient};

const MS: u64 = 1_000_000;
const EINTR: i32 = 4;
const EBADF: i32 = 9;
const EAGAIN: i32 = 11;
const EBUSY: i32 = 16;
const EINVAL: i32 = 22;

#[test]
fn only_success_on_the_logs_own_file_makes_durable() {
    assert_eq!(completion(Ok(()), true), Completion::Durable);
    assert_eq!(completion(Ok(()), false), Completion::Nothing);
}

#[test]
fn an_error_says_nothing_only_if_it_asks_to_try_again_or_the_file_was_another() {
    for errno in 1..4096 {
        let transient = [EINTR, EAGAIN, EBUSY, 114, 115].contains(&errno);
        assert_eq!(is_transient(errno), transient, "{errno}");
        let proved = if transient { Completion::Nothing } else { Completion::Failed(errno) };
        assert_eq!(completion(Err(errno), true), proved, "{errno}");
        let elsewhere = if [EBADF, EINVAL].contains(&errno) { Completion::Nothing } else { proved };
        assert_eq!(completion(Err(errno), false), elsewhere, "{errno}");
    }
}

#[test]
fn a_call_is_repeated_for_two_seconds_and_its_caller_then_gets_the_error() {
    for errno in [EINTR, EAGAIN, EBUSY] {
        let (mut tries, mut now, mut at_once) = (Tries::default(), 7 * MS, 0);
        let begun = now;
        loop {
            match tries.again(errno, || now) {
                Again::AtOnce => at_once += 1,
                Again::Later => now += Tries::PAUSE,
                Again::Never => break,
            }
        }
        assert_eq!(at_once, if errno == EINTR { 100 } else { 0 }, "{errno}");
        assert_eq!((now - begun) / MS, 2001, "{errno}");
        // Progress begins anew.
        tries.reset();
        assert_ne!(tries.again(errno, || now), Again::Never);
    }
    assert_eq!(Tries::default().again(5, || unreachable!()), Again::Never);
}
