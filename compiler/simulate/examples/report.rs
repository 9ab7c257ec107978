//! Writes the page of the sample report to standard output:
//! `cargo run -p durac-simulate --example report > report.html`.

#[path = "../tests/sample/mod.rs"]
mod sample;

fn main() {
    print!("{}", durac_simulate::html::page(&sample::report()));
}
