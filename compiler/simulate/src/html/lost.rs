//! Which calls of a timeline the worst crash takes.

use crate::report::{Lane, PolicyReport, TimelineEvent};

/// Indices into the timeline, in its order. As many as the crash takes, or those of them that the
/// timeline shows.
pub fn calls(policy: &PolicyReport) -> Vec<usize> {
    let Some(crash) = policy.loss.worst_instant.as_ref().map(|instant| instant.t_ns) else {
        return Vec::new();
    };
    let before = |event: &&TimelineEvent| event.end_ns <= crash;
    // One that ends in the same instant may end after the crash; the count below decides.
    let syncs = policy.timeline.iter().filter(|e| e.lane == Lane::Disk && e.end_ns < crash);
    let durable = syncs.map(|sync| sync.call).max().unwrap_or(0);
    let events = policy.timeline.iter().enumerate();
    let mut lost: Vec<(usize, u64)> = events
        .filter(|(_, event)| before(event) && event.lane == Lane::Application)
        // A call that failed was not acknowledged.
        .filter(|(_, event)| event.call > durable && !event.text.ends_with(" fails"))
        .map(|(at, event)| (at, event.call))
        .collect();
    // The sync that made earlier calls durable may have ended before the timeline begins.
    lost.sort_by_key(|(_, call)| std::cmp::Reverse(*call));
    lost.truncate(policy.loss.worst.syncs as usize);
    let mut lost: Vec<usize> = lost.into_iter().map(|(at, _)| at).collect();
    lost.sort_unstable();
    lost
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Instant, Loss, LossReport};

    fn event(start_ns: u64, end_ns: u64, lane: Lane, text: &str, call: u64) -> TimelineEvent {
        TimelineEvent { start_ns, end_ns, lane, text: text.to_owned(), call }
    }

    fn policy(syncs: f64, timeline: Vec<TimelineEvent>) -> PolicyReport {
        PolicyReport {
            loss: LossReport {
                worst: Loss { syncs, ..Loss::default() },
                worst_instant: Some(Instant { t_ns: 100, ..Instant::default() }),
                ..LossReport::default()
            },
            timeline,
            ..PolicyReport::default()
        }
    }

    #[test]
    fn acknowledged_before_and_not_synced() {
        let timeline = vec![
            event(0, 10, Lane::Application, "call 1 acknowledged", 1),
            event(5, 50, Lane::Disk, "background sync up to call 1", 1),
            event(10, 10, Lane::Application, "write 4 bytes", 0),
            event(20, 30, Lane::Application, "call 2 acknowledged", 2),
            event(40, 45, Lane::Application, "call 3 fails", 3),
            event(50, 120, Lane::Disk, "background sync up to call 3", 3),
            event(90, 100, Lane::Application, "call 4 acknowledged", 4),
            event(101, 110, Lane::Application, "call 5 acknowledged", 5),
        ];
        assert_eq!(calls(&policy(2.0, timeline)), [3, 6]);
    }

    #[test]
    fn no_more_than_were_counted() {
        let calls_only = |n: u64| event(n, n + 1, Lane::Application, "call acknowledged", n);
        let policy = policy(2.0, (1..=5).map(calls_only).collect());
        assert_eq!(calls(&policy), [3, 4]);
    }

    #[test]
    fn nothing_without_a_worst_crash() {
        let mut policy = policy(0.0, vec![event(0, 1, Lane::Application, "call 1", 1)]);
        policy.loss.worst_instant = None;
        assert!(calls(&policy).is_empty());
    }
}
