//! The fuzz targets, by name.

use std::sync::OnceLock;

/// Gives the target of this name an input.
pub fn run(name: &str, bytes: &[u8]) {
    static TARGET: OnceLock<Option<durac_fuzz_bodies::Target>> = OnceLock::new();
    if let Some(target) = TARGET.get_or_init(|| durac_fuzz_bodies::target(name)) {
        (target.run)(bytes);
    }
}
