//! The supervisor with one deliberate mistake (`tests/faulty/supervisor`): for each there is a test of this program that
//! fails with it, and with the message that says what is wrong.

use crate::common::{
    LATENCY, SLOW, Supervised, append, idle, loses_nothing, pending, poll, unsynced, window,
    with_fault,
};
use crate::{deaths, loss, order, reload, unsynced, upgrade, upgrade_odd, writes};
use anyhow::{Context, Result, ensure};
use durac_tests::{heavy, run_durac, show};

/// A mistake, a test, and what the test says.
struct Row {
    fault: &'static str,
    test: fn() -> Result<()>,
    says: &'static str,
}

const fn row(fault: &'static str, test: fn() -> Result<()>, says: &'static str) -> Row {
    Row { fault, test, says }
}

/// The calls from this one on are ordered.
fn ordered_from(first: &str) -> Result<()> {
    let _turn = heavy()?;
    let calls: Vec<String> =
        order::ordered().into_iter().skip_while(|call| call != first).collect();
    order::are_ordered(&calls, true)
}

fn bound() -> Result<()> {
    // What a cut finds deferred is chance.
    loss::three_at_most(30)
}

fn background_error() -> Result<()> {
    // Which sync fails is chance: one in the background, or one that a call makes.
    (0..10).try_for_each(|_| deaths::is_returned_to_every_process("300"))
}

fn unsynced_programs() -> Result<()> {
    let program = crate::common::unsynced(&["-static"])?;
    let program = program.display().to_string();
    writes::is_synced(&[&program, "lines", "make", "@a.log", "1", "20"], 20)
}

const TABLE: &[Row] = &[
    row(
        "keeper-leaves",
        deaths::the_command_outlives_a_supervisor_that_is_killed,
        "Function not implemented",
    ),
    row(
        "keeper-forgets",
        deaths::what_was_deferred_is_synced_when_the_supervisor_dies,
        "lines are lost",
    ),
    row("uncounted", bound, "lost under a bound of 3"),
    row("no-wait", bound, "lost under a bound of 3"),
    row("swallowed", background_error, "exit status: 0"),
    row("told-once", deaths::a_failed_sync_stays_an_error, "fine"),
    row("despite-error", order::a_call_behind_a_log_that_fails_is_not_made, "link: fine"),
    row(
        "no-drain-at-stop",
        deaths::a_supervisor_that_is_told_to_stop_leaves_nothing_behind,
        "19 lines are lost",
    ),
    row("hasty-change", reload::the_new_bound_holds_at_once, " lost under "),
    row("hasty-change", reload::nothing_is_behind_when_the_new_policy_comes, "19 lines are lost"),
    row("hasty-change", upgrade::nothing_is_behind_when_another_takes_over, "19 lines are lost"),
    row("old-rules", || reload::has_the_new_deadline(None), "lines are lost"),
    row("no-order", || ordered_from("rename"), "deferred after rename"),
    row("no-order", || ordered_from("32:sync"), "deferred after 32:sync"),
    row("no-order-of-lengths", || ordered_from("truncate"), "deferred after truncate"),
    row("no-order-of-lengths", || ordered_from("32:ftruncate64"), "deferred after 32:ftruncate64"),
    row("no-order-of-opens", || ordered_from("creat"), "deferred after creat"),
    row("no-order-of-ends", || ordered_from("exit"), "deferred after exit"),
    row("own-order", || ordered_from("process:rename"), "deferred after process:rename"),
    row("only-64", || ordered_from("32:rename"), "deferred after 32:rename"),
    row("no-barrier", || ordered_from("again"), "deferred after again"),
    row(
        "no-protection",
        loss::a_protected_file_is_not_written_while_the_log_is_behind,
        "the page came before the log",
    ),
    row(
        "one-name",
        loss::a_protected_file_is_not_written_while_the_log_is_behind,
        "by its other name",
    ),
    row(
        "no-beginning",
        loss::the_new_beginning_of_a_ring_is_durable_when_it_is_acknowledged,
        "9 9",
    ),
    row(
        "no-durable-writes",
        loss::a_write_that_is_durable_by_itself_comes_after_the_log,
        "19 lines lost",
    ),
    row("unseen-maps", writes::a_log_that_is_mapped_turns_a_policy_about_writes_off, "map: "),
    row(
        "remembered",
        order::a_descriptor_that_leads_to_another_file_by_now,
        "the other file is not synced",
    ),
    row("stale-thread", order::is_told_from_its_heir, "counts as a log"),
    row("two-places", writes::two_calls_meet_a_log, "1\\n"),
    row("looked-up-once", unsynced_programs, "0 0"),
    row("no-switches", upgrade::a_policy_that_is_off_stays_off, "is_off"),
    row(
        "no-errors",
        upgrade_odd::an_error_is_known_to_the_program_that_takes_over,
        "policy `passes` → policy `passes`",
    ),
    row(
        "no-keeper-meanwhile",
        upgrade::a_program_that_dies_of_it_leaves_the_command_to_the_keeper,
        "Function not implemented",
    ),
    row(
        "by-path",
        upgrade_odd::a_program_that_is_replaced_while_it_is_tried,
        "another program took over",
    ),
];

/// Rows of the table from one to another: each is found.
fn are_found(rows: &[Row]) -> Result<()> {
    let mut missed = Vec::new();
    for Row { fault, test, says } in rows {
        println!("{fault}");
        match with_fault(fault, test) {
            Ok(()) => missed.push(format!("{fault}: not found ({says})")),
            Err(why) if format!("{why:#}").contains(says) => {}
            Err(why) => missed.push(format!("{fault}: not `{says}`, but: {why:#}")),
        }
    }
    ensure!(missed.is_empty(), "{}", missed.join("\n"));
    Ok(())
}

#[test]
fn each_mistake_is_found() -> Result<()> {
    are_found(TABLE)
}

/// The same program without a mistake.
#[test]
fn the_supervisor_of_these_tests_is_right_without_one() -> Result<()> {
    with_fault("none", || {
        ordered_from("32:rename")?;
        loss::three_at_most(1)?;
        deaths::the_command_outlives_a_supervisor_that_is_killed()
    })?;
    with_fault("slow-place", writes::two_calls_meet_a_log)?;
    with_fault("slow-open", unsynced::a_log_that_is_replaced_while_it_is_opened)?;
    with_fault("slow-open", unsynced::a_log_that_is_moved_while_it_is_opened)?;
    with_fault("slow-look", order::is_told_from_its_heir)
}

/// A bug of the supervisor in one call: that call is made, and the policy can still be exchanged.
#[test]
fn a_panic_in_a_call_is_not_waited_for() -> Result<()> {
    let _turn = heavy()?;
    let mut run = with_fault("panic-in-program", || append(&window(8), LATENCY, "1000"))?;
    run.until(200)?;
    ensure!(run.stderr().contains("panicked"), "{}", run.stderr());
    let folder = tempfile::TempDir::new()?;
    let object = crate::common::object(&window(3), folder.path())?;
    let pid = run.supervisor()?.0.to_string();
    let ended = run_durac(["reload".into(), object.into_os_string(), pid.into()])?;
    ensure!(ended.status.success(), "{}", show(&ended));
    let status = run.end()?;
    ensure!(status.success() && run.acknowledged.len() == 4000, "{status}: {}", run.stderr());
    loses_nothing(run)
}

/// Nor does the log lose more than its bound, whatever the call had begun.
#[test]
fn the_bound_holds_with_panics() -> Result<()> {
    let _turn = heavy()?;
    for after in [20, 40, 60, 80, 100] {
        let mut run = with_fault("panic-in-program", || append(&window(3), SLOW, "100000"))?;
        run.until(after)?;
        ensure!(run.stderr().contains("panicked"), "{}", run.stderr());
        let lost = run.lose_power("a.log")?.len();
        ensure!(lost <= 3, "{lost} lost under a bound of 3");
    }
    Ok(())
}

/// What the system has said of that sync is not known: it counts as failed.
#[test]
fn a_panic_in_a_sync_is_an_error_of_the_log() -> Result<()> {
    let _turn = heavy()?;
    let mut run = with_fault("panic-in-sync", || append(&window(8), LATENCY, "100000"))?;
    let status = run.end()?;
    ensure!(
        status.code() == Some(2) && run.stderr().contains("panicked"),
        "{status}: {}",
        run.stderr()
    );
    let told = run.stderr().matches("fdatasync: Input/output error").count();
    ensure!(told == 4, "{told} of 4 processes were told: {}", run.stderr());
    Ok(())
}

/// A program that syncs four lines, and a fifth when it is told to.
const FIFTH: &str = "import os, sys, time
fd = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY | os.O_APPEND)
def sync(): os.write(fd, b'x\\n'), os.fdatasync(fd), os.write(1, b'fine\\n')
for _ in range(4): sync()
while not os.path.exists(sys.argv[2]): time.sleep(0.01)
try: sync()
except OSError: os.write(1, b'told\\n')
";

/// The system returns an error of a file once: the call of the command, made again, would succeed.
#[test]
fn a_panic_in_a_sync_that_fails_is_no_success() -> Result<()> {
    let _turn = heavy()?;
    let policy = "policy passes\ntarget posix.log\non fdatasync: pass\n";
    let words = ["python3", "-c", FIFTH, "@a.log", "@go"];
    let mut run = with_fault("panic-in-sync", || Supervised::start(policy, LATENCY, &words))?;
    run.until(4)?;
    run.fail_sync_of("a.log");
    std::fs::write(run.disk.join("go"), "")?;
    let status = run.end()?;
    ensure!(run.stderr().contains("panicked"), "{}", run.stderr());
    let last = run.acknowledged.last().map(String::as_str);
    ensure!(last == Some("told\n"), "{status}: {:?}: {}", run.acknowledged, run.stderr());
    Ok(())
}

/// What is deferred has a deadline, though nobody calls any more, and the thread that would sync it cannot.
#[test]
fn a_panic_in_the_background_leaves_nothing_behind() -> Result<()> {
    let _turn = heavy()?;
    let policy = "policy lazy\ntarget posix.log\non fdatasync: skip\nflush within 1s\n";
    let run = with_fault("panic-in-syncer", || idle(policy, LATENCY))?;
    let (supervisor, _) = run.supervisor()?;
    poll("the deadline", || pending(supervisor).ok().filter(|pending| *pending == 0))?;
    ensure!(run.stderr().contains("panicked"), "{}", run.stderr());
    loses_nothing(run)
}

/// A file that the command has made is found, though the first searches for it end by a panic.
#[test]
fn a_panic_in_a_search_is_not_the_last_one() -> Result<()> {
    let program = unsynced(&["-static"])?;
    let words = [program.to_str().context("a path")?, "lines", "make", "@a.log", "1", "20"];
    with_fault("panic-in-search", || writes::is_synced(&words, 20))
}
