//! The system calls, through libc's `syscall` and nothing else.
//!
//! `syscall` is variadic and imported from libc, so that a preloaded library can stand before it.
//! The layouts are those of `include/uapi/linux/bpf.h` and `perf_event.h`.

use crate::LoadError;
use durac_bpf::abi::Hook;
use durac_bpf::bpftime::{ATTACH_TYPE, PERF_TYPE_OVERRIDE, PROG_TYPE};
use durac_bpf::insn::Insn;
use durac_bpf::notify::KernelMap;
use durac_bpf::object::Map;
use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_LINK_CREATE: libc::c_long = 28;

/// `BPF_MAP_TYPE_ARRAY`
const MAP_TYPE_ARRAY: u32 = 2;
/// `BPF_F_MMAPABLE`: an array without it is refused when it is shared with the kernel.
const MAP_MMAPABLE: u32 = 1 << 10;
/// `PERF_FLAG_FD_CLOEXEC`
const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 8;
/// Any process.
const ANY_PROCESS: libc::pid_t = -1;

/// How the names of the programs begin.
pub(crate) const PROGRAM: &str = "durac_";

/// What the kernel asks for; BPFtime does not look at it.
const LICENSE: &CStr = c"Dual MIT/GPL";

/// A descriptor that is never closed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fd(i32);

impl Fd {
    pub(crate) fn number(self) -> i32 {
        self.0
    }
}

/// `union bpf_attr`, with room for every command used here; the rest is zero.
#[repr(C, align(8))]
struct BpfAttr([u8; 128]);

impl BpfAttr {
    fn new() -> Self {
        Self([0; 128])
    }

    /// Puts bytes at an offset.
    fn put(mut self, offset: usize, bytes: &[u8]) -> Self {
        if let Some(place) = self.0.get_mut(offset..offset + bytes.len()) {
            place.copy_from_slice(bytes);
        }
        self
    }

    fn word(self, offset: usize, value: u32) -> Self {
        self.put(offset, &value.to_ne_bytes())
    }

    fn long(self, offset: usize, value: u64) -> Self {
        self.put(offset, &value.to_ne_bytes())
    }

    /// A name of at most 15 characters.
    fn name(self, offset: usize, name: &str) -> Self {
        let name = name.as_bytes();
        self.put(offset, name.get(..15).unwrap_or(name))
    }
}

/// `struct perf_event_attr`, version 5.
#[repr(C)]
#[derive(Default)]
struct PerfEventAttr {
    kind: u32,
    size: u32,
    config: u64,
    sample: [u64; 3],
    flags: u64,
    wakeup: u32,
    breakpoint: u32,
    /// The path of the program.
    config1: u64,
    /// The offset in its file.
    config2: u64,
    rest: [u64; 5],
}

/// Makes the calls, and keeps what they made.
#[derive(Default)]
pub(crate) struct Calls {
    fds: Vec<Fd>,
}

impl Calls {
    /// Everything that was made, in order.
    pub(crate) fn into_fds(self) -> Vec<Fd> {
        self.fds
    }

    fn made(&mut self, result: libc::c_long, what: &dyn Fn() -> String) -> Result<Fd, LoadError> {
        // BPFtime answers some mistakes with a negative number of its own instead of -1.
        let fd = i32::try_from(result).ok().filter(|fd| *fd >= 0).map(Fd);
        let why = std::io::Error::last_os_error();
        let fd = fd.ok_or_else(|| LoadError::Call { what: what(), why })?;
        self.fds.push(fd);
        Ok(fd)
    }

    /// An array with the layout of `map`.
    pub(crate) fn create_map(&mut self, map: &Map) -> Result<Fd, LoadError> {
        let attr = BpfAttr::new()
            .word(0, MAP_TYPE_ARRAY)
            .word(4, size_of::<u32>() as u32)
            .word(8, map.value_size())
            .word(12, map.max_entries)
            .word(16, MAP_MMAPABLE)
            .name(28, &map.name);
        let result = bpf(BPF_MAP_CREATE, attr);
        self.made(result, &|| format!("the map `{}`", map.name))
    }

    /// A map of the kernel's programs.
    pub(crate) fn create_kernel_map(&mut self, map: &KernelMap) -> Result<Fd, LoadError> {
        let attr = BpfAttr::new()
            .word(0, map.kind)
            .word(4, map.key_size())
            .word(8, map.value_size())
            .word(12, map.max_entries)
            .word(16, map.flags)
            .name(28, map.name);
        let result = bpf(BPF_MAP_CREATE, attr);
        self.made(result, &|| format!("the map `{}`", map.name))
    }

    /// Sets the first entry of a map.
    pub(crate) fn update_map(
        &mut self,
        map: Fd,
        name: &str,
        values: &[u64],
    ) -> Result<(), LoadError> {
        let key = 0u32;
        let attr = BpfAttr::new()
            .word(0, map.0 as u32)
            .long(8, (&raw const key) as u64)
            .long(16, values.as_ptr() as u64);
        if bpf(BPF_MAP_UPDATE_ELEM, attr) < 0 {
            let why = std::io::Error::last_os_error();
            return Err(LoadError::Call { what: format!("the first values of `{name}`"), why });
        }
        Ok(())
    }

    /// A program.
    pub(crate) fn load_program(&mut self, hook: Hook, insns: &[Insn]) -> Result<Fd, LoadError> {
        let code: Vec<[u8; 8]> = insns.iter().map(|insn| insn.to_bytes()).collect();
        let attr = BpfAttr::new()
            .word(0, PROG_TYPE)
            .word(4, code.len() as u32)
            .long(8, code.as_ptr() as u64)
            .long(16, LICENSE.as_ptr() as u64)
            .name(48, &format!("{PROGRAM}{hook}"));
        let result = bpf(BPF_PROG_LOAD, attr);
        self.made(result, &|| format!("the program of `{hook}`"))
    }

    /// A probe that may skip the function at that offset of the file.
    pub(crate) fn open_probe(
        &mut self,
        target: &Path,
        offset: u64,
        symbol: &str,
    ) -> Result<Fd, LoadError> {
        let what = || format!("a probe at `{symbol}`");
        let path = CString::new(target.as_os_str().as_bytes())
            .map_err(|error| LoadError::Call { what: what(), why: error.into() })?;
        let mut attr = PerfEventAttr {
            kind: PERF_TYPE_OVERRIDE,
            size: size_of::<PerfEventAttr>() as u32,
            config1: path.as_ptr() as u64,
            config2: offset,
            ..PerfEventAttr::default()
        };
        // SAFETY: `attr`, which the kernel may write to, and the path it points to outlive the call;
        // the other arguments are numbers, each as wide as the call takes it.
        let result = unsafe {
            libc::syscall(
                libc::SYS_perf_event_open,
                &raw mut attr,
                ANY_PROCESS,
                0 as libc::c_int,
                -1 as libc::c_int,
                PERF_FLAG_FD_CLOEXEC,
            )
        };
        self.made(result, &what)
    }

    /// Attaches a program to a probe.
    pub(crate) fn link(&mut self, program: Fd, probe: Fd, symbol: &str) -> Result<Fd, LoadError> {
        let attr =
            BpfAttr::new().word(0, program.0 as u32).word(4, probe.0 as u32).word(8, ATTACH_TYPE);
        let result = bpf(BPF_LINK_CREATE, attr);
        self.made(result, &|| format!("the link to `{symbol}`"))
    }
}

/// The kernel may write into the attributes, so they are the call's own.
fn bpf(command: libc::c_long, mut attr: BpfAttr) -> libc::c_long {
    // SAFETY: `attr` is as large as said, and everything that it points to outlives the call.
    unsafe {
        libc::syscall(libc::SYS_bpf, command, &raw mut attr, size_of::<BpfAttr>() as libc::c_ulong)
    }
}

/// Whether another library than libc stands before `syscall`.
pub(crate) fn intercepted() -> bool {
    let ours = library_of(libc::syscall as *const libc::c_void);
    let libc = library_of(libc::getppid as *const libc::c_void);
    matches!((ours, libc), (Some(ours), Some(libc)) if ours != libc)
}

/// Load address of the library that a function stands in.
fn library_of(function: *const libc::c_void) -> Option<usize> {
    // SAFETY: the structure holds pointers and may be zero; `dladdr` fills it in.
    let mut info: libc::Dl_info = unsafe { std::mem::zeroed() };
    // SAFETY: any address may be asked for, and `info` is writable.
    let found = unsafe { libc::dladdr(function, &raw mut info) } != 0;
    found.then_some(info.dli_fbase as usize)
}
