//! Parameters that are set from outside: `window:n=16`, `--set n=16`.

use durac_core::hir::Policy;
use durac_core::set;
use durac_grammar::diag::Label;
use durac_grammar::{Code, Diagnostic, Sources, Span};

/// What the text of an assignment is called where a diagnostic shows it.
const PLACE: &str = "<command line>";

/// Sets parameters of a policy, given as `name=value`. Returns what is wrong; what is right is set.
#[must_use]
pub fn set(policy: &mut Policy, settings: &[String], sources: &mut Sources) -> Vec<Diagnostic> {
    let mut found = each(settings, sources, |assignment| set::set(policy, assignment));
    for (diagnostic, param) in &mut found {
        let param = param.and_then(|param| policy.params.get(param));
        diagnostic.secondary.extend(
            param.map(|param| Label { span: param.name.span, text: "declared here".to_owned() }),
        );
    }
    found.into_iter().map(|(diagnostic, _)| diagnostic).collect()
}

/// Makes assignments, each as `one` does it; whatever takes assignments is told with the same words. Returns what is
/// wrong, with the parameter that it is about.
pub fn each(
    settings: &[String],
    sources: &mut Sources,
    mut one: impl FnMut(&str) -> Result<(), set::Wrong>,
) -> Vec<(Diagnostic, Option<usize>)> {
    let mut found = Vec::new();
    let mut known: Vec<&str> = Vec::new();
    for assignment in settings {
        let name = assignment.split('=').next().unwrap_or_default().trim();
        let wrong = match one(assignment) {
            Ok(()) if known.contains(&name) => set::Wrong {
                message: format!("`{name}` is set twice"),
                label: "set before",
                help: Some("leave one of them out".to_owned()),
                at: 0..assignment.len(),
                meant: None,
                param: None,
            },
            Ok(()) => {
                known.push(name);
                continue;
            }
            Err(wrong) => wrong,
        };
        found.push(diagnostic(wrong, assignment, sources));
    }
    found
}

fn diagnostic(
    wrong: set::Wrong,
    assignment: &str,
    sources: &mut Sources,
) -> (Diagnostic, Option<usize>) {
    let file = sources.add(PLACE, assignment);
    let at = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
    let span = Span::new(file, at(wrong.at.start), at(wrong.at.end));
    let mut diagnostic = Diagnostic::new(Code::BadSetting, wrong.message, span, wrong.label);
    diagnostic.help = wrong.help;
    if let Some(meant) = wrong.meant {
        diagnostic = diagnostic.perhaps(span, meant);
    }
    (diagnostic, wrong.param)
}
