//! The certificate of an object: checked before the object is used, and shown.

use crate::named::Named;
use crate::output;
use anyhow::{Result, bail};
use durac_abi::Object;
use durac_certify::{Certified, Flaw, Refused, rules, smt};
use durac_driver::Compiled;
use serde::Serialize;
use std::fmt::Write;
use std::path::Path;

/// Refuses an object whose certificate does not hold. One without a certificate is used: what its note
/// states was proved by exploration when it was compiled.
pub fn check(object: &Object, path: &Path) -> Result<()> {
    match durac_certify::check(object) {
        Ok(_) | Err(Refused::None) => Ok(()),
        Err(why) => {
            let shown = path.display();
            Err(output::exit(1, format!("`{shown}` is rejected: {why}")))
        }
    }
}

/// What `durac check --certificate --format json` says.
#[derive(Debug, Serialize)]
pub struct Shown {
    /// The sync calls that a power loss loses at most, in terms of the parameters.
    bound: String,
    /// The same at the default parameters.
    syncs: u64,
    /// The invariant: one of these holds.
    invariant: Vec<String>,
    /// Conditions that were checked.
    conditions: usize,
}

/// The certificate, checked; none if there is none.
pub fn shown(object: &Object) -> Result<Option<Shown>> {
    let Some(certificate) = &object.meta.certificate else { return Ok(None) };
    let Certified { bound, syncs, conditions } = match durac_certify::check(object) {
        Ok(certified) => certified,
        // The compiler has checked it.
        Err(why) => bail!("this is a bug in durac: its own certificate is refused: {why}"),
    };
    let cells = certificate.cells.iter();
    let invariant = cells.map(|cell| durac_certify::cell(&object.meta, cell)).collect();
    Ok(Some(Shown { bound, syncs, invariant, conditions }))
}

/// The lines of `durac check --certificate`.
pub fn lines(object: &Object) -> Result<String> {
    let mut out = String::new();
    let Some(Shown { bound, invariant, conditions, .. }) = shown(object)? else {
        out.push_str("    certificate: none, every bound is proved by exploration\n");
        return Ok(out);
    };
    let _ = writeln!(out, "    certificate: on power_loss, at most {bound} in syncs");
    for (number, cell) in invariant.iter().enumerate() {
        let what = if number == 0 { "invariant" } else { "       or" };
        let _ = writeln!(out, "        {what}: {cell}");
    }
    let _ = writeln!(out, "        checked: {conditions} conditions");
    out.push_str("        not in it, proved by exploration: the call in progress, time, process_crash, errors\n");
    Ok(out)
}

/// The conditions, for a solver.
pub fn smt2(named: &Named, checked: &Compiled) -> Result<String> {
    let object = checked.proved.as_ref().map(|proved| &proved.object);
    let found = object.and_then(|object| Some((object, object.meta.certificate.as_ref()?)));
    let Some((object, certificate)) = found else {
        return Err(output::exit(
            1,
            format!("`{named}` has no certificate: its bounds are proved by exploration"),
        ));
    };
    let conditions = rules::conditions(object, certificate, Flaw::None)?;
    Ok(smt::script(&object.meta.policy, &conditions))
}
