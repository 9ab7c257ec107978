//! TEMP
use durac_grammar::{Diagnostic, Sources};
#[derive(Clone, Copy)]
pub enum Format { Human, Short, Json }
pub fn render(diags: &[Diagnostic], _s: &Sources, _f: Format, _c: bool) -> String { format!("{diags:#?}\n") }
