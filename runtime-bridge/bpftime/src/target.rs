//! The program whose functions are hooked: where a function is in its file, and whether BPFtime can
//! hook it.

use object::read::elf::{FileHeader as _, ProgramHeader as _, Sym as _};
use object::{Endianness, elf};
use std::path::{Path, PathBuf};

/// Bytes at the beginning of a function that BPFtime's patch may replace. Frida's far jump on
/// x86-64 takes 14, and whole instructions are moved.
pub const PATCH: u64 = 16;

type Header = elf::FileHeader64<Endianness>;

/// Why a function cannot be hooked.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// The file cannot be read.
    #[error("cannot read the target `{path}`: {why}")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        why: std::io::Error,
    },
    /// It is not a program for this machine.
    #[error("the target `{path}` is not a 64-bit x86 program")]
    NoProgram {
        /// The file.
        path: String,
    },
    /// Nothing can be preloaded into it.
    #[error(
        "the target `{path}` is statically linked: BPFtime's agent cannot be preloaded into it"
    )]
    Static {
        /// The file.
        path: String,
    },
    /// The function is not there.
    #[error("the target `{path}` has no function `{symbol}`{}", hint(symbol))]
    Missing {
        /// The file.
        path: String,
        /// The function.
        symbol: String,
    },
    /// The compiler may have changed how the function is called.
    #[error(
        "the function `{symbol}` of `{path}` is not exported: the compiler may have inlined it or \
         changed how it is called, and a hook on it can crash; give it \
         `__attribute__((noipa, visibility(\"default\")))` and link with `-rdynamic`"
    )]
    NotExported {
        /// The file.
        path: String,
        /// The function.
        symbol: String,
    },
    /// The patch would run into what follows.
    #[error(
        "the function `{symbol}` of `{path}` has {size} bytes, and the patch takes up to {PATCH}: \
         BPFtime would abort the target"
    )]
    Short {
        /// The file.
        path: String,
        /// The function.
        symbol: String,
        /// Its size.
        size: u64,
    },
    /// BPFtime takes the offset in the file for the distance from the load address.
    #[error(
        "the function `{symbol}` of `{path}` is at {offset:#x} of the file and at {address:#x} in \
         memory: BPFtime would patch another place; link with `-z noseparate-code` or another linker"
    )]
    Moved {
        /// The file.
        path: String,
        /// The function.
        symbol: String,
        /// Where it is in the file.
        offset: u64,
        /// Where it is from the load address.
        address: u64,
    },
}

/// What to use instead.
fn hint(symbol: &str) -> &'static str {
    match symbol.starts_with("durac_aof_") {
        true => {
            ": it is not the server with durac's patch, which `runtime-bridge/redis/build.sh` builds"
        }
        false => "",
    }
}

/// A program file.
pub struct TargetBinary {
    path: PathBuf,
    /// As it was named, for messages.
    named: String,
    bytes: Vec<u8>,
}

impl TargetBinary {
    /// Reads the file.
    ///
    /// # Errors
    /// When BPFtime's agent cannot be preloaded into it.
    pub fn open(path: &Path) -> Result<Self, TargetError> {
        let shown = path.display().to_string();
        let named = shown.clone();
        let unreadable = |why| TargetError::Unreadable { path: named.clone(), why };
        let path = std::fs::canonicalize(path).map_err(unreadable)?;
        let bytes = std::fs::read(&path).map_err(unreadable)?;
        let target = Self { path, named: shown, bytes };
        let path = target.shown();
        let Some(header) = target.header() else { return Err(TargetError::NoProgram { path }) };
        let headers = header.program_headers(Endianness::Little, target.bytes.as_slice());
        let is_dynamic = headers.is_ok_and(|headers| {
            headers.iter().any(|h| h.p_type(Endianness::Little) == elf::PT_DYNAMIC)
        });
        if is_dynamic { Ok(target) } else { Err(TargetError::Static { path }) }
    }

    /// Its canonical path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Offset in the file of a function that BPFtime can hook.
    ///
    /// # Errors
    /// Why it cannot be hooked.
    pub fn function(&self, symbol: &str) -> Result<u64, TargetError> {
        let (path, name) = (self.shown(), symbol.to_owned());
        let Some((address, size)) = self.symbol(symbol, elf::SHT_DYNSYM) else {
            return Err(match self.symbol(symbol, elf::SHT_SYMTAB) {
                Some(_) => TargetError::NotExported { path, symbol: name },
                None => TargetError::Missing { path, symbol: name },
            });
        };
        if size < PATCH {
            return Err(TargetError::Short { path, symbol: name, size });
        }
        let Some((offset, address)) = self.place(address) else {
            return Err(TargetError::Missing { path, symbol: name });
        };
        if offset != address {
            return Err(TargetError::Moved { path, symbol: name, offset, address });
        }
        Ok(offset)
    }

    fn shown(&self) -> String {
        self.named.clone()
    }

    fn header(&self) -> Option<&Header> {
        let header = Header::parse(self.bytes.as_slice()).ok()?;
        let kind = header.e_type(Endianness::Little);
        let good = header.endian().ok()? == Endianness::Little
            && header.e_machine(Endianness::Little) == elf::EM_X86_64
            && (kind == elf::ET_EXEC || kind == elf::ET_DYN);
        good.then_some(header)
    }

    /// Address and size of a function that the file defines, by one of its symbol tables.
    fn symbol(&self, name: &str, table: elf::SectionType) -> Option<(u64, u64)> {
        const LE: Endianness = Endianness::Little;
        let bytes = self.bytes.as_slice();
        let sections = self.header()?.sections(LE, bytes).ok()?;
        let symbols = sections.symbols(LE, bytes, table).ok()?;
        symbols.iter().find_map(|symbol| {
            let named = symbols.symbol_name(LE, symbol).ok()? == name.as_bytes();
            let defined = symbol.st_type() == elf::STT_FUNC && !symbol.is_undefined(LE);
            (named && defined).then(|| (symbol.st_value(LE), symbol.st_size(LE)))
        })
    }

    /// Offset in the file, and distance from the load address.
    fn place(&self, address: u64) -> Option<(u64, u64)> {
        const LE: Endianness = Endianness::Little;
        let headers = self.header()?.program_headers(LE, self.bytes.as_slice()).ok()?;
        let loads = || headers.iter().filter(|h| h.p_type(LE) == elf::PT_LOAD);
        let base = loads().map(|h| h.p_vaddr(LE)).min()? & !0xfff;
        let segment = loads().find(|h| {
            address.checked_sub(h.p_vaddr(LE)).is_some_and(|inside| inside < h.p_filesz(LE))
        })?;
        let offset = address - segment.p_vaddr(LE) + segment.p_offset(LE);
        Some((offset, address.checked_sub(base)?))
    }
}
