//! `durac explain`: the page of a diagnostic code.

use crate::Outcome;
use crate::args::Global;
use crate::output;
use anyhow::Result;
use clap::Args as ClapArgs;
use durac_grammar::Code;

/// Arguments of `durac explain`.
#[derive(Debug, ClapArgs)]
pub struct Explain {
    /// A diagnostic code, for example E0301
    #[arg(value_name = "CODE")]
    code: String,
}

/// The pages of `docs/errors`, by code.
const PAGES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/pages.rs"));

/// Prints the page.
pub fn run(args: &Explain, global: &Global) -> Result<Outcome> {
    let Some(code) = Code::parse(&args.code) else {
        let codes: Vec<_> = Code::ALL.iter().map(|c| c.text()).collect();
        let near = durac_grammar::suggest::nearest(&args.code, codes.iter().copied());
        let hint = near.map_or_else(
            || "see `durac list codes`".to_owned(),
            |near| format!("did you mean {near}?"),
        );
        return Err(output::exit(1, format!("unknown code `{}`: {hint}", args.code)));
    };
    let page = PAGES.iter().find(|(name, _)| *name == code.text()).map_or("", |(_, text)| text);
    if global.is_json() {
        global.document.put(&serde_json::json!({
            "code": code.text(),
            "severity": code.severity().text(),
            "summary": code.summary(),
            "page": page,
        }))?;
        return Ok(Outcome::Fine);
    }
    output::stdout(page.as_bytes())?;
    Ok(Outcome::Fine)
}
