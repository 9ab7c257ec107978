//! Syncs that take long.

use durac_engine::{Flight, Slow, Time};

const SECOND: Time = 1_000_000_000;

fn flight(id: u64, since: Time) -> Flight {
    let (covers, bytes, stages) = (0, 0, 0);
    Flight {
        id,
        covers,
        bytes,
        stages,
        updates: 0,
        full: false,
        background: true,
        since,
        wanted: since,
    }
}

#[test]
fn each_is_counted_once_and_few_are_told() {
    let mut slow = Slow::default();
    let mut told = Vec::new();
    for (id, since, now) in [(3, 0, 0), (3, 0, 1), (3, 0, 2), (4, 2, 4), (5, 4, 4), (6, 4, 15)] {
        let took = slow.look(&flight(id, since * SECOND), now * SECOND);
        told.extend(took.map(|took| (id, took.as_secs())));
    }
    assert_eq!((slow.count, told), (3, vec![(3, 1), (6, 11)]));
}
