//! Certificates for people: `lost <= n`.

use durac_abi::certificate::{Certificate, Form};
use durac_abi::object::Meta;

/// The bound: one form, or the greatest of several.
#[must_use]
pub fn bound(meta: &Meta, certificate: &Certificate) -> String {
    let forms: Vec<String> = certificate.bound.iter().map(|form| value(meta, form)).collect();
    match forms.as_slice() {
        [one] => one.clone(),
        many => format!("the greatest of {}", many.join(", ")),
    }
}

/// A cell: its facts.
#[must_use]
pub fn cell(meta: &Meta, cell: &[Form]) -> String {
    cell.iter().map(|form| fact(meta, form)).collect::<Vec<_>>().join(" and ")
}

/// The factors of a form with their names.
fn terms<'a>(meta: &'a Meta, form: &Form) -> Vec<(i64, &'a str)> {
    let params = form.params.iter().copied().zip(meta.params.iter().map(|p| p.name.as_str()));
    let state = form.state.iter().copied().zip(meta.state.iter().map(|s| s.name.as_str()));
    let all = [(form.lost, "lost")].into_iter().chain(state).chain(params);
    all.filter(|(factor, _)| *factor != 0).collect()
}

fn value(meta: &Meta, form: &Form) -> String {
    let terms = terms(meta, form);
    let mut text = side(terms.iter().filter(|(factor, _)| *factor > 0), form.constant.max(0));
    for (factor, name) in terms.iter().filter(|(factor, _)| *factor < 0) {
        text.push_str(&format!(" - {}", term(*factor, name)));
    }
    if form.constant < 0 {
        text.push_str(&format!(" - {}", form.constant.unsigned_abs()));
    }
    text
}

/// `form >= 0`, with what is subtracted on the left.
fn fact(meta: &Meta, form: &Form) -> String {
    let terms = terms(meta, form);
    let left = side(terms.iter().filter(|(factor, _)| *factor < 0), form.constant.min(0));
    let right = side(terms.iter().filter(|(factor, _)| *factor > 0), form.constant.max(0));
    format!("{left} <= {right}")
}

fn side<'a>(terms: impl Iterator<Item = &'a (i64, &'a str)>, constant: i64) -> String {
    let mut parts: Vec<String> = terms.map(|(factor, name)| term(*factor, name)).collect();
    if constant != 0 || parts.is_empty() {
        parts.push(constant.unsigned_abs().to_string());
    }
    parts.join(" + ")
}

fn term(factor: i64, name: &str) -> String {
    match factor.unsigned_abs() {
        1 => name.to_owned(),
        many => format!("{many} {name}"),
    }
}
