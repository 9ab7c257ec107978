//! The system calls, through libc's `syscall` and nothing else.
//!
//! `syscall` is variadic and imported from libc, so that a preloaded library can replace it. `bpf` and its
//! attributes are `durac-kernel`'s; `struct perf_event_attr` is that of `include/uapi/linux/perf_event.h`.

use crate::LoadError;
use durac_abi::Hook;
use durac_abi::bpftime::{ATTACH_TYPE, PERF_TYPE_OVERRIDE, PROG_TYPE};
use durac_abi::btf::{MAP_MMAPABLE, MAP_TYPE_ARRAY};
use durac_abi::insn::Insn;
use durac_abi::notify::KernelMap;
use durac_abi::object::Map;
use durac_kernel::attr::{self, LinkCreate, MapCreate, MapUpdate, ObjInfo, ObjPin, ProgLoad};
use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::AtomicU64;

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

/// Attempts of a call whose place is taken: BPFtime takes the number of a new descriptor for the place, and each
/// attempt has another.
const ATTEMPTS: usize = 16;

/// Makes the calls, and keeps what they made.
#[derive(Default)]
pub(crate) struct Calls {
    /// Programs, probes and links: what a target attaches.
    attached: Vec<Fd>,
}

impl Calls {
    /// What a target attaches, in the order it was made.
    pub(crate) fn attached(&self) -> &[Fd] {
        &self.attached
    }

    /// Makes a call until its place is free.
    fn make(call: impl Fn() -> libc::c_long, what: &dyn Fn() -> String) -> Result<Fd, LoadError> {
        let mut attempts = 0;
        loop {
            // SAFETY: errno is this thread's.
            unsafe { *libc::__errno_location() = 0 };
            let result = call();
            if let Some(fd) = i32::try_from(result).ok().filter(|fd| *fd >= 0) {
                return Ok(Fd(fd));
            }
            let why = attr::error(result);
            attempts += 1;
            if why.raw_os_error() != Some(libc::EEXIST) || attempts == ATTEMPTS {
                return Err(LoadError::Call { what: what(), why });
            }
        }
    }

    fn attaches(&mut self, fd: Fd) -> Fd {
        self.attached.push(fd);
        fd
    }

    /// An array with the layout of `map`.
    pub(crate) fn create_map(&mut self, map: &Map) -> Result<Fd, LoadError> {
        self.create(
            MapCreate {
                kind: MAP_TYPE_ARRAY,
                key_size: size_of::<u32>() as u32,
                value_size: map.value_size(),
                max_entries: map.max_entries,
                // An array without it is refused when it is shared with the kernel.
                flags: MAP_MMAPABLE,
                name: attr::name(&map.name),
                ..MapCreate::default()
            },
            &map.name,
        )
    }

    /// A map of the kernel's programs.
    pub(crate) fn create_kernel_map(&mut self, map: &KernelMap) -> Result<Fd, LoadError> {
        self.create(MapCreate::from(map), map.name)
    }

    fn create(&mut self, map: MapCreate, name: &str) -> Result<Fd, LoadError> {
        // SAFETY: the attributes hold no pointer.
        Self::make(|| unsafe { attr::bpf(attr::MAP_CREATE, map) }, &|| format!("the map `{name}`"))
    }

    /// The first entry of a map, as it is now.
    pub(crate) fn look_up(map: Fd, values: &mut [u64]) -> std::io::Result<()> {
        let key = 0u32;
        let lookup = MapUpdate {
            map_fd: map.0 as u32,
            key: (&raw const key) as u64,
            value: values.as_mut_ptr() as u64,
            ..MapUpdate::default()
        };
        // SAFETY: key and values outlive the call; the map's value is as large as `values`.
        let result = unsafe { attr::bpf(attr::MAP_LOOKUP, lookup) };
        if result < 0 { Err(attr::error(result)) } else { Ok(()) }
    }

    /// The first entry of an array in memory that the programs share; never unmapped.
    pub(crate) fn map(
        map: Fd,
        name: &str,
        words: usize,
    ) -> Result<&'static [AtomicU64], LoadError> {
        let size = words * size_of::<AtomicU64>();
        // SAFETY: a new mapping of a map with that size.
        let at = unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(std::ptr::null_mut(), size, access, libc::MAP_SHARED, map.0, 0)
        };
        if at == libc::MAP_FAILED {
            let why = std::io::Error::last_os_error();
            return Err(LoadError::Call { what: format!("to show the map `{name}`"), why });
        }
        // SAFETY: BPFtime's memory and the kernel's pages are aligned, and stay until this process ends; the
        // words are numbers, and whoever else writes them writes whole words.
        Ok(unsafe { std::slice::from_raw_parts(at.cast::<AtomicU64>(), words) })
    }

    /// The kernel's number of a map.
    pub(crate) fn kernel_id(map: Fd) -> std::io::Result<u32> {
        id_of(map.0)
    }

    /// Pins what a descriptor of the kernel stands for.
    pub(crate) fn pin(number: i32, path: &CStr) -> std::io::Result<()> {
        let pin =
            ObjPin { pathname: path.as_ptr() as u64, bpf_fd: number as u32, ..ObjPin::default() };
        // SAFETY: the path outlives the call.
        let result = unsafe { attr::bpf(attr::OBJ_PIN, pin) };
        if result < 0 { Err(attr::error(result)) } else { Ok(()) }
    }

    /// Sets the first entry of a map.
    pub(crate) fn update_map(
        &mut self,
        map: Fd,
        name: &str,
        values: &[u64],
    ) -> Result<(), LoadError> {
        let key = 0u32;
        let update = MapUpdate {
            map_fd: map.0 as u32,
            key: (&raw const key) as u64,
            value: values.as_ptr() as u64,
            ..MapUpdate::default()
        };
        // SAFETY: key and values outlive the call; the map's value is as large as `values`.
        let result = unsafe { attr::bpf(attr::MAP_UPDATE, update) };
        if result < 0 {
            let why = attr::error(result);
            return Err(LoadError::Call { what: format!("the first values of `{name}`"), why });
        }
        Ok(())
    }

    /// A program.
    pub(crate) fn load_program(&mut self, hook: Hook, insns: &[Insn]) -> Result<Fd, LoadError> {
        let code: Vec<[u8; 8]> = insns.iter().map(|insn| insn.to_bytes()).collect();
        let load = ProgLoad {
            kind: PROG_TYPE,
            insn_count: code.len() as u32,
            insns: code.as_ptr() as u64,
            license: LICENSE.as_ptr() as u64,
            name: attr::name(&format!("{PROGRAM}{hook}")),
            ..ProgLoad::default()
        };
        // SAFETY: code and licence outlive the call.
        let call = || unsafe { attr::bpf(attr::PROG_LOAD, load) };
        Ok(self.attaches(Self::make(call, &|| format!("the program of `{hook}`"))?))
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
        let place = &raw mut attr;
        // SAFETY: `attr`, which the kernel may write to, and the path it points to outlive the call;
        // the other arguments are numbers, each as wide as the call takes it.
        let call = || unsafe {
            libc::syscall(
                libc::SYS_perf_event_open,
                place,
                ANY_PROCESS,
                0 as libc::c_int,
                -1 as libc::c_int,
                PERF_FLAG_FD_CLOEXEC,
            )
        };
        Ok(self.attaches(Self::make(call, &what)?))
    }

    /// Attaches a program to a probe.
    pub(crate) fn link(&mut self, program: Fd, probe: Fd, symbol: &str) -> Result<Fd, LoadError> {
        let link = LinkCreate {
            prog_fd: program.0 as u32,
            target_fd: probe.0 as u32,
            attach_type: ATTACH_TYPE,
            ..LinkCreate::default()
        };
        // SAFETY: the attributes hold no pointer.
        let call = || unsafe { attr::bpf(attr::LINK_CREATE, link) };
        Ok(self.attaches(Self::make(call, &|| format!("the link to `{symbol}`"))?))
    }
}

/// The kernel's number of a map, from the kernel itself or through BPFtime's server.
pub(crate) fn id_of(map: i32) -> std::io::Result<u32> {
    // `struct bpf_map_info`: type, id, …
    let mut about = [0u32; 32];
    let info = ObjInfo {
        bpf_fd: map as u32,
        info_len: size_of_val(&about) as u32,
        info: about.as_mut_ptr() as u64,
    };
    // SAFETY: the kernel writes at most that many bytes there.
    let result = unsafe { attr::bpf(attr::OBJ_INFO, info) };
    let [_, id, ..] = about;
    if result < 0 { Err(attr::error(result)) } else { Ok(id) }
}

/// Whether another library than libc provides `syscall`.
#[must_use]
pub fn intercepted() -> bool {
    let ours = library_of(libc::syscall as *const libc::c_void);
    let libc = library_of(libc::getppid as *const libc::c_void);
    matches!((ours, libc), (Some(ours), Some(libc)) if ours != libc)
}

/// Load address of the library that holds a function.
fn library_of(function: *const libc::c_void) -> Option<usize> {
    // SAFETY: the structure holds pointers and may be zero; `dladdr` fills it in.
    let mut info: libc::Dl_info = unsafe { std::mem::zeroed() };
    // SAFETY: any address may be asked for, and `info` is writable.
    let found = unsafe { libc::dladdr(function, &raw mut info) } != 0;
    found.then_some(info.dli_fbase as usize)
}
