//! What the loader asks of the kernel, and the few numbers it takes.

use crate::attr::{self, BtfLoad, MapCreate, ProgLoad, RawTracepoint};
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// `BPF_PROG_TYPE_RAW_TRACEPOINT`
pub const RAW_TRACEPOINT: u32 = 17;
/// `BPF_PROG_TYPE_TRACING`
pub const TRACING: u32 = 26;
/// `BPF_TRACE_RAW_TP`
pub const TRACE_RAW_TP: u32 = 23;
/// `BPF_TRACE_FENTRY`
pub const TRACE_FENTRY: u32 = 24;
/// `BPF_TRACE_FEXIT`
pub const TRACE_FEXIT: u32 = 25;

/// Room for what the verifier says when it refuses a program.
const LOG_SIZE: usize = 1 << 20;

/// A program as the kernel wants it.
pub struct Program<'a> {
    /// `BPF_PROG_TYPE_*`
    pub kind: u32,
    /// `BPF_TRACE_*`; 0 for a raw tracepoint.
    pub attach_type: u32,
    /// The kernel's type that it is attached to; 0 for a raw tracepoint.
    pub attach_id: u32,
    /// The instructions.
    pub code: &'a [u8],
    /// At most 15 characters.
    pub name: &'a str,
    /// The types of the object.
    pub btf: &'a OwnedFd,
    /// A `struct bpf_func_info`.
    pub function: &'a [u8],
    /// Any number of `struct bpf_core_relo`.
    pub fields: &'a [u8],
    /// One of the texts the kernel knows.
    pub license: &'a CStr,
}

/// A new descriptor, from what [`attr::bpf`] returned.
fn descriptor(result: libc::c_long) -> io::Result<OwnedFd> {
    if result < 0 {
        return Err(attr::error(result));
    }
    // SAFETY: the kernel has just made it, close-on-exec, for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(result as libc::c_int) })
}

/// Makes a map.
pub fn map_create(map: &durac_abi::notify::KernelMap) -> io::Result<OwnedFd> {
    // SAFETY: the attributes hold no pointer.
    descriptor(unsafe { attr::bpf(attr::MAP_CREATE, MapCreate::from(map)) })
}

/// Loads types.
pub fn btf_load(btf: &[u8]) -> io::Result<OwnedFd> {
    let load =
        BtfLoad { btf: btf.as_ptr() as u64, btf_size: btf.len() as u32, ..BtfLoad::default() };
    // SAFETY: the types have that size and outlive the call.
    descriptor(unsafe { attr::bpf(attr::BTF_LOAD, load) })
}

/// Loads a program: the kernel's verifier judges it. With the error comes the last line it said.
pub fn prog_load(program: &Program<'_>) -> Result<OwnedFd, (io::Error, String)> {
    let mut load = ProgLoad {
        kind: program.kind,
        insn_count: (program.code.len() / 8) as u32,
        insns: program.code.as_ptr() as u64,
        license: program.license.as_ptr() as u64,
        name: attr::name(program.name),
        expected_attach_type: program.attach_type,
        btf_fd: program.btf.as_raw_fd() as u32,
        func_info_size: durac_abi::btf::FUNC_INFO,
        func_info: program.function.as_ptr() as u64,
        func_info_count: 1,
        attach_btf_id: program.attach_id,
        core_relos: program.fields.as_ptr() as u64,
        core_relo_size: durac_abi::btf::CORE_RELO,
        core_relo_count: program.fields.len() as u32 / durac_abi::btf::CORE_RELO,
        ..ProgLoad::default()
    };
    // SAFETY: code, types and licence outlive the call, and have the sizes that are said.
    match descriptor(unsafe { attr::bpf(attr::PROG_LOAD, load) }) {
        Ok(fd) => Ok(fd),
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => Err((error, String::new())),
        Err(_) => {
            // Once more, to hear why.
            let mut log = vec![0u8; LOG_SIZE];
            load.log_buf = log.as_mut_ptr() as u64;
            load.log_size = LOG_SIZE as u32;
            load.log_level = 1;
            // SAFETY: as before; the log has the size that is said, and nobody else looks at it meanwhile.
            descriptor(unsafe { attr::bpf(attr::PROG_LOAD, load) })
                .map_err(|error| (error, last_words(&log)))
        }
    }
}

/// The last line of the verifier's log that says something of the program.
fn last_words(log: &[u8]) -> String {
    let text = log.split(|byte| *byte == 0).next().unwrap_or_default();
    let text = String::from_utf8_lossy(text);
    let mut lines = text.lines().rev().map(str::trim).filter(|line| !line.is_empty());
    lines.find(|line| !line.starts_with("processed ")).unwrap_or_default().to_owned()
}

/// Attaches a program: a raw tracepoint by its name, one with a type where its type says. It stays
/// attached while the answer is open anywhere.
pub fn attach(name: Option<&CStr>, program: &OwnedFd) -> io::Result<OwnedFd> {
    let open = RawTracepoint {
        name: name.map_or(0, |name| name.as_ptr() as u64),
        prog_fd: program.as_raw_fd() as u32,
        pad: 0,
    };
    // SAFETY: the name is a C string that outlives the call.
    descriptor(unsafe { attr::bpf(attr::RAW_TRACEPOINT_OPEN, open) })
}
