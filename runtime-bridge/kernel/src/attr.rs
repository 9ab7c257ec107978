//! The system call `bpf` and `union bpf_attr`, for the kernel and for BPFtime's server, which answers the
//! same calls.
//!
//! Source of the layouts and numbers: `include/uapi/linux/bpf.h`.

/// `BPF_MAP_CREATE`
pub const MAP_CREATE: libc::c_int = 0;
/// `BPF_MAP_LOOKUP_ELEM`
pub const MAP_LOOKUP: libc::c_int = 1;
/// `BPF_MAP_UPDATE_ELEM`
pub const MAP_UPDATE: libc::c_int = 2;
/// `BPF_PROG_LOAD`
pub const PROG_LOAD: libc::c_int = 5;
/// `BPF_OBJ_PIN`
pub const OBJ_PIN: libc::c_int = 6;
/// `BPF_OBJ_GET_INFO_BY_FD`
pub const OBJ_INFO: libc::c_int = 15;
/// `BPF_RAW_TRACEPOINT_OPEN`
pub const RAW_TRACEPOINT_OPEN: libc::c_int = 17;
/// `BPF_BTF_LOAD`
pub const BTF_LOAD: libc::c_int = 18;
/// `BPF_LINK_CREATE`
pub const LINK_CREATE: libc::c_int = 28;

/// `MAX_ERRNO` (`include/linux/err.h`)
const MAX_ERRNO: i32 = 4095;

/// `union bpf_attr`, as far as it is used here; what a command does not set is zero.
#[repr(C)]
pub union Attr {
    map_create: MapCreate,
    map_update: MapUpdate,
    obj_pin: ObjPin,
    obj_info: ObjInfo,
    prog_load: ProgLoad,
    raw_tracepoint: RawTracepoint,
    btf_load: BtfLoad,
    link_create: LinkCreate,
    all: [u64; 18],
}

macro_rules! command {
    ($(#[$about:meta])* $name:ident as $field:ident { $($member:ident: $type:ty,)+ }) => {
        $(#[$about])*
        #[repr(C)]
        #[derive(Clone, Copy, Default)]
        #[expect(missing_docs, reason = "the members are the header's")]
        pub struct $name {
            $(pub $member: $type,)+
        }

        impl From<$name> for Attr {
            fn from($field: $name) -> Self {
                let mut attr = Attr { all: [0; 18] };
                attr.$field = $field;
                attr
            }
        }
    };
}

command!(
    /// For [`MAP_CREATE`].
    MapCreate as map_create {
        kind: u32, key_size: u32, value_size: u32, max_entries: u32, flags: u32, inner_map_fd: u32,
        numa_node: u32, name: [u8; 16],
    }
);
command!(
    /// For [`MAP_LOOKUP`] and [`MAP_UPDATE`].
    MapUpdate as map_update { map_fd: u32, pad: u32, key: u64, value: u64, flags: u64, }
);
command!(
    /// For [`OBJ_PIN`].
    ObjPin as obj_pin { pathname: u64, bpf_fd: u32, file_flags: u32, }
);
command!(
    /// For [`OBJ_INFO`].
    ObjInfo as obj_info { bpf_fd: u32, info_len: u32, info: u64, }
);
command!(
    /// For [`BTF_LOAD`].
    BtfLoad as btf_load {
        btf: u64, log_buf: u64, btf_size: u32, log_size: u32, log_level: u32, log_true_size: u32,
    }
);
command!(
    /// For [`PROG_LOAD`].
    ProgLoad as prog_load {
        kind: u32, insn_count: u32, insns: u64, license: u64, log_level: u32, log_size: u32,
        log_buf: u64, kernel_version: u32, flags: u32, name: [u8; 16], ifindex: u32,
        expected_attach_type: u32, btf_fd: u32, func_info_size: u32, func_info: u64,
        func_info_count: u32, line_info_size: u32, line_info: u64, line_info_count: u32,
        attach_btf_id: u32, attach_fd: u32, core_relo_count: u32, fd_array: u64, core_relos: u64,
        core_relo_size: u32, log_true_size: u32,
    }
);
command!(
    /// For [`RAW_TRACEPOINT_OPEN`].
    RawTracepoint as raw_tracepoint { name: u64, prog_fd: u32, pad: u32, }
);
command!(
    /// For [`LINK_CREATE`].
    LinkCreate as link_create { prog_fd: u32, target_fd: u32, attach_type: u32, flags: u32, }
);

impl From<&durac_abi::notify::KernelMap> for MapCreate {
    fn from(map: &durac_abi::notify::KernelMap) -> Self {
        Self {
            kind: map.kind,
            key_size: map.key_size(),
            value_size: map.value_size(),
            max_entries: map.max_entries,
            flags: map.flags,
            name: name(map.name),
            ..Self::default()
        }
    }
}

/// A name as the kernel keeps it: at most 15 characters.
#[must_use]
pub fn name(name: &str) -> [u8; 16] {
    let mut out = [0; 16];
    for (to, from) in out.iter_mut().take(15).zip(name.bytes()) {
        *to = from;
    }
    out
}

/// Calls `bpf` through libc's `syscall`, which a preloaded library can replace; gives what it returned.
///
/// # Safety
/// What the attributes point to is alive, and as large as the command takes it.
pub unsafe fn bpf(command: libc::c_int, attr: impl Into<Attr>) -> libc::c_long {
    let mut attr = attr.into();
    // SAFETY: the kernel reads that many bytes there, and may write to them (`log_true_size`, since
    // Linux 6.4): they are the call's own. The caller vouches for what they point to.
    unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut attr, size_of::<Attr>()) }
}

/// Why a call failed, from what it returned: BPFtime's server returns some errors as a negative number, without
/// errno, which is then 0 or that of an earlier call.
#[must_use]
pub fn error(result: libc::c_long) -> std::io::Error {
    let errno = i32::try_from(result).ok().and_then(i32::checked_neg);
    match errno {
        Some(errno) if (2..=MAX_ERRNO).contains(&errno) => std::io::Error::from_raw_os_error(errno),
        _ => {
            let last = std::io::Error::last_os_error();
            if last.raw_os_error() == Some(0) {
                std::io::Error::other("no reason given")
            } else {
                last
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    /// Offsets of the header, Linux 6.4.
    #[test]
    fn layouts() {
        assert_eq!(offset_of!(MapCreate, name), 28);
        assert_eq!(offset_of!(MapUpdate, value), 16);
        assert_eq!(offset_of!(ProgLoad, name), 48);
        assert_eq!(offset_of!(ProgLoad, attach_btf_id), 108);
        assert_eq!(offset_of!(ProgLoad, log_true_size), 140);
        assert_eq!(offset_of!(LinkCreate, attach_type), 8);
        assert_eq!(size_of::<Attr>(), 144);
    }
}
