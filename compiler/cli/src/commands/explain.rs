//! `durac explain`: the page of a diagnostic code.

use crate::Outcome;
use crate::args::Explain;
use crate::output;
use anyhow::Result;
use durac_grammar::Code;

/// The pages of `docs/errors`, by code.
const PAGES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/pages.rs"));

/// Prints the page.
pub fn run(args: &Explain) -> Result<Outcome> {
    let Some(code) = Code::parse(&args.code) else {
        let codes: Vec<_> = Code::ALL.iter().map(|c| c.text()).collect();
        let near = durac_compiler::names::nearest(&args.code, codes.iter().copied());
        let hint = near.map_or_else(
            || "`durac list codes` shows them".to_owned(),
            |near| format!("did you mean {near}?"),
        );
        return Err(output::exit(1, format!("there is no code `{}`: {hint}", args.code)));
    };
    let page = PAGES.iter().find(|(name, _)| *name == code.text()).map_or("", |(_, text)| text);
    output::stdout(page.as_bytes())?;
    Ok(Outcome::Fine)
}
