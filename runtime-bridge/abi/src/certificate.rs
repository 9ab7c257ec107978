//! The certificate in an object's note: an invariant of a log under the policy, and the bound that it implies.
//!
//! It is data that anybody may have written. `durac-certify` checks it against the object's programs; nothing
//! else reads it.

use serde::{Deserialize, Serialize};

/// An invariant, and what it bounds: the sync calls that are acknowledged and not durable, which a power loss takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// The bound: the greatest of these, in terms of the parameters that the newest acknowledged call saw.
    pub bound: Vec<Form>,
    /// The invariant: at every moment one of these cells holds, and with it each of its forms is at least 0.
    pub cells: Vec<Vec<Form>>,
}

/// `constant + lost factor × lost + Σ factor × state + Σ factor × parameter`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Form {
    /// The constant.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub constant: i64,
    /// The factor of the sync calls that are acknowledged and not durable.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lost: i64,
    /// The factors of the state variables, in the order of the note.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub state: Vec<i64>,
    /// The factors of the parameters, in the order of the note.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub params: Vec<i64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}
