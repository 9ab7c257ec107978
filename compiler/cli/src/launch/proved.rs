//! The object of a policy's text: proved before, or now.
//!
//! A start must not wait for a proof that was made at an earlier one ([`crate::cache`]). One that takes long says
//! so, and how to make it beforehand.

use crate::args::{Global, Launch};
use crate::cache::{Cache, Key, Place};
use crate::input::{self, Deployment, Input};
use crate::log::info as say;
use crate::output;
use anyhow::{Context, Result};
use durac_abi::{Object, Runtime};
use durac_driver::{Options, Proved};
use durac_grammar::Diagnostic;
use durac_workload::columns::counted;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// A proof that takes longer is told of.
const LONG: Duration = Duration::from_secs(1);
/// Between two lines about one proof.
const AGAIN: Duration = Duration::from_secs(5);

/// The proved object of a text that was read from `path`; `None`, reported, if the policy is wrong.
pub fn object(
    mut input: Input,
    path: &Path,
    settings: &[String],
    launch: &Launch,
    runtime: Runtime,
    global: &Global,
) -> Result<Option<Object>> {
    let place = if launch.no_cache { None } else { place(&input, settings, runtime) };
    let known = place.as_ref().and_then(|place| known(place, &mut input, settings, runtime));
    if let Some((object, found)) = known {
        input::report(&found, &input.sources, global);
        if launch.verbose {
            let shown = place.as_ref().map_or(path, Place::path).display();
            output::error(&format!("checked at an earlier start (`{shown}`): 0 states explored"));
        }
        return Ok(Some(object));
    }
    let (compiled, told) = while_telling(path, settings, || {
        let deployment = Deployment { runtime, ..Deployment::default() };
        input::compile_read(input, settings, deployment, true, global)
    });
    let Some(proved) = compiled?.and_then(|(_, _, compiled)| compiled.proved) else {
        return Ok(None);
    };
    let Proved { object, proof } = proved;
    if launch.verbose {
        output::error(&format!("checked now: {} explored", counted(proof.states as u64, "state")));
    }
    if let Some(place) = place {
        let bytes = durac_bpf::write(&object).context("cannot write the object")?;
        match place.write(&bytes) {
            Ok(()) if told => say("done, and kept for the next start"),
            Err(error) if launch.verbose => {
                let (shown, why) = (place.path().display(), output::reason(&error));
                output::error(&format!("cannot store `{shown}` in the cache: {why}"));
            }
            _ => {}
        }
    }
    Ok(Some(object))
}

fn place(input: &Input, settings: &[String], runtime: Runtime) -> Option<Place> {
    Cache::open()?.place(&Key {
        text: input.sources.text(input.file),
        name: input.sources.name(input.file),
        stem: &input.stem,
        settings,
        runtime,
    })
}

/// The object of an earlier start, if it is what the text compiles to, and what was found in the text.
fn known(
    place: &Place,
    input: &mut Input,
    settings: &[String],
    runtime: Runtime,
) -> Option<(Object, Vec<Diagnostic>)> {
    let bytes = place.read()?;
    let object = match durac_verify::admit(&bytes, runtime) {
        Ok(object) => object,
        Err(why) => {
            place.ignore(&why.to_string());
            return None;
        }
    };
    if let Err(why) = crate::certificate::check(&object, place.path()) {
        place.ignore(&format!("{why:#}"));
        return None;
    }
    let Input { sources, file, stem } = input;
    let options = Options { settings, must_run: true, runtime, ..Options::new(stem) };
    let recalled = durac_driver::recall(sources, *file, &options, &object, &bytes);
    if recalled.is_none() {
        place.ignore("it is not what the policy compiles to");
    }
    recalled
}

/// Does the work, with a line when it takes long. Also returns whether there was one.
fn while_telling<T>(path: &Path, settings: &[String], work: impl FnOnce() -> T) -> (T, bool) {
    let shown = path.display().to_string();
    let set: String = settings.iter().map(|set| format!(" --set {set}")).collect();
    let (working, ended) = mpsc::channel::<()>();
    let teller = thread::Builder::new().spawn(move || {
        let begun = Instant::now();
        let mut wait = LONG;
        while ended.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
            if wait == LONG {
                say(&format!(
                    "proving `{shown}` takes long; to start without: `durac compile {shown}{set} -o policy.o` once, \
                     then `durac run policy.o`"
                ));
            } else {
                say(&format!("still proving `{shown}` ({} s)", begun.elapsed().as_secs()));
            }
            wait = AGAIN;
        }
        wait == AGAIN
    });
    let done = work();
    drop(working);
    // It only prints, and does not panic. Where the user may start no thread there is none, and no line.
    (done, teller.is_ok_and(|teller| teller.join().unwrap_or(false)))
}
