//! A text whose object was proved before.

use crate::Options;
use durac_abi::Object;
use durac_grammar::{Diagnostic, FileId, Sources};

/// The object of a text, with the bounds and the certificate that the note of `proved` gives, and what was found in the text. None unless the text compiles to
/// exactly that: then what was proved of it is true of this.
///
/// Whoever can write `proved` can write other bounds into its note, and could have written anything instead of a
/// proof. Where it comes from is for the caller to check. The programs that run are those compiled here.
#[must_use]
pub fn recall(
    sources: &mut Sources,
    file: FileId,
    options: &Options<'_>,
    proved: &Object,
    bytes: &[u8],
) -> Option<(Object, Vec<Diagnostic>)> {
    let mut analysis = durac_core::analyse(sources, file, &options.analysis());
    if analysis.has_errors() {
        return None;
    }
    let policy = analysis.policy.as_mut()?;
    if !crate::set(policy, options.settings, sources).is_empty() {
        return None;
    }
    // The caller has verified `proved`; what is the same need not be verified again.
    let mut object = durac_core::compile(policy, sources, file, &options.analysis()).ok()?;
    object.meta.loss.clone_from(&proved.meta.loss);
    object.meta.certificate.clone_from(&proved.meta.certificate);
    (durac_bpf::write(&object).ok()? == bytes).then_some((object, analysis.diagnostics))
}
