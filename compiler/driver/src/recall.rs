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
    object.meta.holds_replies = proved.meta.holds_replies;
    object.meta.certificate.clone_from(&proved.meta.certificate);
    (durac_bpf::write(&object).ok()? == bytes).then_some((object, analysis.diagnostics))
}

#[cfg(test)]
mod tests {
    use super::recall;
    use crate::Options;
    use durac_grammar::Sources;

    /// What a proof says of a policy is all in its object, whatever kind of policy it is.
    #[test]
    fn every_ready_policy_is_recalled() {
        for ready in durac_stdlib::POLICIES {
            let mut sources = Sources::new();
            let file = sources.add(ready.name, ready.text);
            let options = Options::new(ready.name);
            let Some(proved) = crate::compile(&mut sources, file, &options).proved else {
                panic!("{} does not compile", ready.name);
            };
            let Ok(bytes) = durac_bpf::write(&proved.object) else { panic!("{}", ready.name) };
            let mut sources = Sources::new();
            let file = sources.add(ready.name, ready.text);
            let recalled = recall(&mut sources, file, &options, &proved.object, &bytes);
            assert!(recalled.is_some(), "{} is proved anew at each start", ready.name);
        }
    }
}
