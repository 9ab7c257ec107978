//! Mistakes made on purpose, so that the crash test can show that it finds them.
//!
//! Only a build with the feature `wrong` can make them, and only if the environment names one;
//! `tests/wrong` is such a build. Nothing of this is in any other.

/// A mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// The syncer reports its sync as complete before it has made it.
    Early,
    /// What is staged is not copied.
    Copy,
}

/// Whether this mistake is to be made.
#[cfg(feature = "wrong")]
pub fn makes(mistake: Mistake) -> bool {
    chosen() == Some(mistake)
}

/// Whether this mistake is to be made: never.
#[cfg(not(feature = "wrong"))]
pub const fn makes(_: Mistake) -> bool {
    false
}

/// Says what this build is.
#[cfg(feature = "wrong")]
pub fn say() {
    crate::note::error(&match chosen() {
        Some(mistake) => {
            format!("THIS AGENT IS WRONG ON PURPOSE ({mistake:?}): it loses data; only for tests")
        }
        None => "this agent can be wrong on purpose: only for tests".to_owned(),
    });
}

/// Says what this build is.
#[cfg(not(feature = "wrong"))]
pub const fn say() {}

#[cfg(feature = "wrong")]
fn chosen() -> Option<Mistake> {
    static CHOSEN: std::sync::OnceLock<Option<Mistake>> = std::sync::OnceLock::new();
    *CHOSEN.get_or_init(|| match std::env::var("DURAC_WRONG").as_deref() {
        Ok("early") => Some(Mistake::Early),
        Ok("copy") => Some(Mistake::Copy),
        _ => None,
    })
}
