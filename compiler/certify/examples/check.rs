//! Checks the certificates of object files, without anything else of durac, and says how long that takes.
//!
//!     cargo run --release -p durac-certify --example check -- window.o batch.o

use durac_abi::elf;
use durac_certify::{Refused, check};
use std::process::ExitCode;
use std::time::Instant;

/// How often each is checked.
const TIMES: u32 = 200;

fn main() -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for path in std::env::args().skip(1) {
        let object = match std::fs::read(&path).map(|bytes| elf::read(&bytes)) {
            Ok(Ok(object)) => object,
            Ok(Err(why)) => {
                println!("{path}: {why}");
                code = ExitCode::FAILURE;
                continue;
            }
            Err(why) => {
                println!("{path}: {why}");
                code = ExitCode::FAILURE;
                continue;
            }
        };
        let checked = check(&object);
        let begin = Instant::now();
        for _ in 0..TIMES {
            assert_eq!(check(&object), checked);
        }
        let time = begin.elapsed() / TIMES;
        match checked {
            Ok(shown) => {
                println!(
                    "{path}: at most {} syncs, {} conditions, {time:.1?}",
                    shown.bound, shown.conditions
                );
            }
            Err(why) => {
                println!("{path}: {why}");
                code = if why == Refused::None { code } else { ExitCode::FAILURE };
            }
        }
    }
    code
}
