//! `durac-append-log DIR [--sync always|everysec|no] [--records N] [--size BYTES] [--every N]
//! [--threads N]`: appends records to a log, syncs it, and prints the result as JSON.
//! `durac-append-log serve DIR PORT`: the built-in application of the crash tests.

use durac_workload::append_log::{Options, run};
use durac_workload::append_server::serve;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    if let [command, dir, port] = args.as_slice()
        && command == "serve"
        && let Some(port) = port.to_str().and_then(|port| port.parse().ok())
    {
        if let Err(error) = serve(Path::new(dir), port) {
            eprintln!("durac-append-log: {error}");
        }
        return ExitCode::from(2);
    }
    let options = match Options::parse(args) {
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
