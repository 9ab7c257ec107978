//! `durac-append-log DIR [--sync always|everysec|no] [--records N] [--size BYTES] [--every N]
//! [--threads N]`: appends records to a log, syncs it, and prints the result as JSON.

use durac_workload::append_log::{Options, run};
use std::process::ExitCode;

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args_os().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("durac-append-log: {error}");
            return ExitCode::from(1);
        }
    };
    let printed = run(&options)
        .map_err(|error| error.to_string())
        .and_then(|measured| serde_json::to_string(&measured).map_err(|error| error.to_string()));
    match printed {
        Ok(json) => {
            println!("{json}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("durac-append-log: {error}");
            ExitCode::from(2)
        }
    }
}
