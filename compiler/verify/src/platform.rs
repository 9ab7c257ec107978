//! Our platform, as PREVAIL asks for it: a kind of program for each runtime, with its context and its
//! helpers, and arrays.

use durac_bpf::Object;
use durac_bpf::abi::{CONTEXT_SIZE, Helper, Runtime};
use durac_bpf::bpftime::REGISTERS_SIZE;
use prevail::elf_loader::UnmarshalError;
use prevail::linux::linux_platform::conformance_groups::{BASE32, BASE64, DIVMUL32, DIVMUL64};
use prevail::linux::spec_prototypes::HelperPrototype;
use prevail::platform::EbpfPlatform;
use prevail::spec::config::EbpfVerifierOptions;
use prevail::spec::ebpf_base::{EbpfArgumentType, EbpfCtxDescriptor, EbpfReturnType};
use prevail::spec::type_descriptors::{
    EbpfMapDescriptor, EbpfMapType, EbpfMapValueType, EbpfProgramType, ProgramInfo,
};

/// `BPF_MAP_TYPE_ARRAY` (`include/uapi/linux/bpf.h`).
const ARRAY: u32 = 2;
/// `BPF_MAP_TYPE_HASH`
const HASH: u32 = 1;

/// The context holds numbers only: there is no packet in it.
static CONTEXT: EbpfCtxDescriptor =
    EbpfCtxDescriptor { size: CONTEXT_SIZE as i32, data: -1, end: -1, meta: -1 };

/// So do the registers.
static REGISTERS: EbpfCtxDescriptor =
    EbpfCtxDescriptor { size: REGISTERS_SIZE as i32, data: -1, end: -1, meta: -1 };

const fn prototype(
    name: &'static str,
    return_type: EbpfReturnType,
    first: EbpfArgumentType,
    second: EbpfArgumentType,
) -> HelperPrototype {
    const NONE: EbpfArgumentType = EbpfArgumentType::DontCare;
    HelperPrototype {
        name,
        return_type,
        argument_type: [first, second, NONE, NONE, NONE],
        reallocate_packet: false,
        ctx_descriptor: None,
        unsupported: false,
        might_sleep: false,
        zero_args_mask: 0,
        allowed_map_types: 0,
    }
}

static MAP_LOOKUP: HelperPrototype = prototype(
    "bpf_map_lookup_elem",
    EbpfReturnType::PtrToMapValueOrNull,
    EbpfArgumentType::PtrToMap,
    EbpfArgumentType::PtrToMapKey,
);
static MAP_UPDATE: HelperPrototype = HelperPrototype {
    argument_type: [
        EbpfArgumentType::PtrToMap,
        EbpfArgumentType::PtrToMapKey,
        EbpfArgumentType::PtrToMapValue,
        EbpfArgumentType::Anything,
        EbpfArgumentType::DontCare,
    ],
    ..prototype(
        "bpf_map_update_elem",
        EbpfReturnType::Integer,
        EbpfArgumentType::DontCare,
        EbpfArgumentType::DontCare,
    )
};
static RING: HelperPrototype = prototype(
    "io_uring",
    EbpfReturnType::Integer,
    EbpfArgumentType::DontCare,
    EbpfArgumentType::DontCare,
);
static RING_SYNC: HelperPrototype = prototype(
    "io_uring_submit_fsync",
    EbpfReturnType::Integer,
    EbpfArgumentType::Anything,
    EbpfArgumentType::DontCare,
);
static CLOCK: HelperPrototype = prototype(
    "bpf_ktime_get_ns",
    EbpfReturnType::Integer,
    EbpfArgumentType::DontCare,
    EbpfArgumentType::DontCare,
);
static PROCESS: HelperPrototype = prototype(
    "bpf_get_current_pid_tgid",
    EbpfReturnType::Integer,
    EbpfArgumentType::DontCare,
    EbpfArgumentType::DontCare,
);
static OVERRIDE: HelperPrototype = prototype(
    "bpf_override_return",
    EbpfReturnType::Integer,
    EbpfArgumentType::PtrToCtx,
    EbpfArgumentType::Anything,
);
static REQUEST: HelperPrototype = prototype(
    "durac_request",
    EbpfReturnType::Integer,
    EbpfArgumentType::DontCare,
    EbpfArgumentType::DontCare,
);
static AWAIT: HelperPrototype = prototype(
    "durac_await",
    EbpfReturnType::Integer,
    EbpfArgumentType::Anything,
    EbpfArgumentType::DontCare,
);
/// Stands for every helper that does not exist.
static UNSUPPORTED: HelperPrototype = prototype(
    "unknown",
    EbpfReturnType::Unsupported,
    EbpfArgumentType::Unsupported,
    EbpfArgumentType::Unsupported,
);

/// The platform, with the maps of one object.
pub(crate) struct Platform {
    runtime: Runtime,
    maps: Vec<EbpfMapDescriptor>,
}

impl Platform {
    /// The platform for the programs of an object.
    pub(crate) fn new(object: &Object) -> Self {
        let maps = (0u32..).zip(object.seen_maps()).map(|(index, map)| EbpfMapDescriptor {
            original_fd: map_fd(index),
            map_type: map.kind,
            key_size: 4,
            value_size: map.value_size,
            max_entries: map.max_entries,
            inner_map_fd: 0,
            name: map.name.to_owned(),
            is_inner_map_template: false,
        });
        Self { runtime: object.meta.runtime, maps: maps.collect() }
    }

    /// What PREVAIL wants to know of a program besides its code.
    pub(crate) fn program_info(&self) -> ProgramInfo {
        ProgramInfo {
            map_descriptors: self.maps.clone(),
            program_type: program_type(self.runtime),
            supported_conformance_groups: self.supported_conformance_groups(),
            ..ProgramInfo::default()
        }
    }
}

/// The number that stands for a map in the code; 0 is none.
pub(crate) fn map_fd(index: u32) -> i32 {
    index as i32 + 1
}

fn program_type(runtime: Runtime) -> EbpfProgramType {
    EbpfProgramType {
        name: "durac".to_owned(),
        ctx_descriptor: Some(match runtime {
            Runtime::Agent => &CONTEXT,
            Runtime::Bpftime => &REGISTERS,
        }),
        platform_specific_data: 0,
        section_prefixes: Vec::new(),
        is_privileged: false,
        is_sleepable: false,
    }
}

impl EbpfPlatform for Platform {
    fn get_program_type(&self, _section: &str, _path: &str) -> EbpfProgramType {
        program_type(self.runtime)
    }

    fn get_helper_prototype(&self, number: i32) -> &HelperPrototype {
        self.try_get_helper_prototype(number).unwrap_or(&UNSUPPORTED)
    }

    fn try_get_helper_prototype(&self, number: i32) -> Option<&HelperPrototype> {
        Some(match Helper::of(self.runtime, number)? {
            Helper::MapLookup => &MAP_LOOKUP,
            Helper::MapUpdate => &MAP_UPDATE,
            Helper::RingInit | Helper::RingWait | Helper::RingSubmit => &RING,
            Helper::RingSync => &RING_SYNC,
            Helper::Clock => &CLOCK,
            Helper::Process => &PROCESS,
            Helper::Override => &OVERRIDE,
            Helper::Request => &REQUEST,
            Helper::Await => &AWAIT,
        })
    }

    fn is_helper_usable(&self, number: i32) -> bool {
        Helper::of(self.runtime, number).is_some()
    }

    fn map_record_size(&self) -> usize {
        0
    }

    // Maps come from the object, never from a section.
    fn parse_maps_section(
        &mut self,
        _descriptors: &mut Vec<EbpfMapDescriptor>,
        _data: &[u8],
        _record_size: usize,
        _count: usize,
        _options: &EbpfVerifierOptions,
    ) {
    }

    fn resolve_inner_map_references(
        &self,
        _descriptors: &mut Vec<EbpfMapDescriptor>,
    ) -> Result<(), UnmarshalError> {
        Ok(())
    }

    fn get_map_descriptor(&self, map_fd: i32) -> Option<&EbpfMapDescriptor> {
        self.maps.iter().find(|map| map.original_fd == map_fd)
    }

    fn get_map_type(&self, number: u32) -> EbpfMapType {
        let is_array = number == ARRAY;
        EbpfMapType {
            platform_specific_type: number,
            name: match number {
                ARRAY => "array",
                HASH => "hash",
                _ => "unknown",
            }
            .to_owned(),
            is_array,
            value_type: EbpfMapValueType::Any,
        }
    }

    fn supported_conformance_groups(&self) -> u32 {
        BASE32 | BASE64 | DIVMUL32 | DIVMUL64
    }
}
