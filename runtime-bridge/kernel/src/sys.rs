//! The system call `bpf`, and the few of its commands that are needed.
//!
//! Source of the layouts: `union bpf_attr` in `include/uapi/linux/bpf.h`.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const MAP_CREATE: libc::c_int = 0;
const PROG_LOAD: libc::c_int = 5;
const RAW_TRACEPOINT_OPEN: libc::c_int = 17;
const BTF_LOAD: libc::c_int = 18;

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

/// The start of `union bpf_attr` for `BPF_MAP_CREATE`.
#[repr(C)]
#[derive(Default)]
struct MapCreate {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    name: [u8; 16],
}

/// The same for `BPF_BTF_LOAD`.
#[repr(C)]
#[derive(Default)]
struct BtfLoad {
    btf: u64,
    log_buf: u64,
    btf_size: u32,
    log_size: u32,
    log_level: u32,
    log_true_size: u32,
}

/// The same for `BPF_PROG_LOAD`.
#[repr(C)]
#[derive(Default)]
struct ProgLoad {
    kind: u32,
    insn_count: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    ifindex: u32,
    expected_attach_type: u32,
    btf_fd: u32,
    func_info_size: u32,
    func_info: u64,
    func_info_count: u32,
    line_info_size: u32,
    line_info: u64,
    line_info_count: u32,
    attach_btf_id: u32,
    attach_fd: u32,
    core_relo_count: u32,
    fd_array: u64,
    core_relos: u64,
    core_relo_size: u32,
    log_true_size: u32,
}

/// The same for `BPF_RAW_TRACEPOINT_OPEN`.
#[repr(C)]
#[derive(Default)]
struct RawTracepoint {
    name: u64,
    prog_fd: u32,
    pad: u32,
}

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

/// Calls `bpf`; the answer is a new descriptor.
fn bpf<A>(command: libc::c_int, attr: &mut A) -> io::Result<OwnedFd> {
    let attr: *mut A = attr;
    // SAFETY: the kernel reads `size_of::<A>()` bytes there, and what they point to; the callers keep
    // that alive. It writes to the log, whose memory nobody else looks at meanwhile, and to the attributes
    // themselves (`log_true_size`, since Linux 6.4), which are ours alone; never beyond that size.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, attr, size_of::<A>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made it, close-on-exec, for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) })
}

/// A name as the kernel keeps it.
fn short(name: &str) -> [u8; 16] {
    let mut out = [0; 16];
    for (to, from) in out.iter_mut().take(15).zip(name.bytes()) {
        *to = from;
    }
    out
}

/// Makes a map.
pub fn map_create(map: &durac_bpf::notify::KernelMap) -> io::Result<OwnedFd> {
    let mut attr = MapCreate {
        kind: map.kind,
        key_size: map.key_size(),
        value_size: map.value_size(),
        max_entries: map.max_entries,
        flags: map.flags,
        name: short(map.name),
        ..MapCreate::default()
    };
    bpf(MAP_CREATE, &mut attr)
}

/// Loads types.
pub fn btf_load(btf: &[u8]) -> io::Result<OwnedFd> {
    let mut attr =
        BtfLoad { btf: btf.as_ptr() as u64, btf_size: btf.len() as u32, ..BtfLoad::default() };
    bpf(BTF_LOAD, &mut attr)
}

/// Loads a program: the kernel's verifier judges it. With the error comes the last line it said.
pub fn prog_load(program: &Program<'_>) -> Result<OwnedFd, (io::Error, String)> {
    let mut attr = ProgLoad {
        kind: program.kind,
        insn_count: (program.code.len() / 8) as u32,
        insns: program.code.as_ptr() as u64,
        license: program.license.as_ptr() as u64,
        name: short(program.name),
        expected_attach_type: program.attach_type,
        btf_fd: program.btf.as_raw_fd() as u32,
        func_info_size: durac_bpf::elf::FUNC_INFO_SIZE,
        func_info: program.function.as_ptr() as u64,
        func_info_count: 1,
        attach_btf_id: program.attach_id,
        core_relos: program.fields.as_ptr() as u64,
        core_relo_size: durac_bpf::elf::CORE_RELO_SIZE,
        core_relo_count: program.fields.len() as u32 / durac_bpf::elf::CORE_RELO_SIZE,
        ..ProgLoad::default()
    };
    match bpf(PROG_LOAD, &mut attr) {
        Ok(fd) => Ok(fd),
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => Err((error, String::new())),
        Err(_) => {
            // Once more, to hear why.
            let mut log = vec![0u8; LOG_SIZE];
            attr.log_buf = log.as_mut_ptr() as u64;
            attr.log_size = LOG_SIZE as u32;
            attr.log_level = 1;
            bpf(PROG_LOAD, &mut attr).map_err(|error| (error, last_words(&log)))
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
    let mut attr = RawTracepoint {
        name: name.map_or(0, |name| name.as_ptr() as u64),
        prog_fd: program.as_raw_fd() as u32,
        pad: 0,
    };
    bpf(RAW_TRACEPOINT_OPEN, &mut attr)
}
