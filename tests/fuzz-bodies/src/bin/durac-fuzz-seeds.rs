//! Writes everything that a fuzz target begins from into a folder, a file each; and the pieces of good
//! input as a dictionary of libFuzzer's beside it.

use durac_fuzz_bodies::{seeds, target};
use std::error::Error;
use std::path::Path;
use std::{env, fs};

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = env::args().skip(1).collect();
    let [name, folder, dictionary] = words.as_slice() else {
        return Err("durac-fuzz-seeds TARGET FOLDER DICTIONARY".into());
    };
    let target = target(name).ok_or("no such target")?;
    fs::create_dir_all(folder)?;
    for (index, bytes) in seeds::of(target)?.iter().enumerate() {
        fs::write(Path::new(folder).join(format!("seed-{index}")), bytes)?;
    }
    let quoted = |word: &&str| {
        let bytes: String = word.bytes().map(|b| format!("\\x{b:02x}")).collect();
        format!("\"{bytes}\"\n")
    };
    fs::write(dictionary, target.words.iter().map(quoted).collect::<String>())?;
    Ok(())
}
