//! What a call does, in words.

use super::check::{Does, errno_name};
use durac_core::unit::{Unit, show};
use durac_engine::Time;

/// As a test writes it.
pub(super) fn word(does: Does) -> String {
    match does {
        Does::Passes => "passed".to_owned(),
        Does::Defers => "deferred".to_owned(),
        Does::Skips => "skipped".to_owned(),
        Does::Stages => "staged".to_owned(),
        Does::Holds => "held".to_owned(),
        Does::Gathers => "gathers".to_owned(),
        Does::Waits => "waits".to_owned(),
        Does::Fails(errno) => format!("fails {}", errno_name(errno)),
    }
}

/// In a sentence about the call.
pub(super) fn found(does: Does) -> String {
    match does {
        Does::Waits | Does::Gathers => word(does),
        Does::Fails(errno) => format!("fails with {}", errno_name(errno)),
        other => format!("is {}", word(other)),
    }
}

pub(super) fn label(does: Does) -> String {
    match does {
        Does::Passes => "it ran as the application made it".to_owned(),
        Does::Defers => "it reported success and left the sync to the background".to_owned(),
        Does::Skips => "it reported success and did nothing".to_owned(),
        Does::Stages => "its bytes were copied".to_owned(),
        Does::Holds => {
            "its bytes were copied, and are sent when what was written before is durable".to_owned()
        }
        Does::Gathers => "it looks for more ready descriptors".to_owned(),
        Does::Waits => "it has not returned".to_owned(),
        Does::Fails(errno) => format!("it returned {}", errno_name(errno)),
    }
}

/// In the timeline.
pub(super) fn done(does: Does) -> String {
    match does {
        Does::Fails(errno) => format!("returns {}", errno_name(errno)),
        other => word(other),
    }
}

/// A time as a test writes it.
pub(super) fn time(time: Time) -> String {
    match time {
        0 => "0ms".to_owned(),
        time => show(time, Unit::Duration),
    }
}
