//! The platform that PREVAIL verifies for: one kind of program for each runtime, with the context and
//! the helpers of its backend, and the maps of one object.

use durac_abi::btf::MAP_TYPE_ARRAY;
use durac_abi::notify::MAP_TYPE_HASH;
use durac_abi::{Helper, Object, Parameter, Returns, Runtime, Signature};
use prevail::elf_loader::UnmarshalError;
use prevail::linux::linux_platform::conformance_groups::{BASE32, BASE64, DIVMUL32, DIVMUL64};
use prevail::linux::spec_prototypes::HelperPrototype;
use prevail::platform::EbpfPlatform;
use prevail::spec::config::EbpfVerifierOptions;
use prevail::spec::ebpf_base::{EbpfArgumentType, EbpfCtxDescriptor, EbpfReturnType};
use prevail::spec::type_descriptors::{
    EbpfMapDescriptor, EbpfMapType, EbpfMapValueType, EbpfProgramType, ProgramInfo,
};
use std::sync::LazyLock;

/// The context of each runtime. It holds numbers only: there is no packet in it.
static CONTEXTS: LazyLock<[EbpfCtxDescriptor; Runtime::COUNT]> = LazyLock::new(|| {
    Runtime::ALL.map(|runtime| {
        let size = runtime.backend().context().size() as i32;
        EbpfCtxDescriptor { size, data: -1, end: -1, meta: -1 }
    })
});

/// The helpers, in the order of [`Helper::ALL`].
static PROTOTYPES: LazyLock<[HelperPrototype; Helper::COUNT]> =
    LazyLock::new(|| Helper::ALL.map(prototype));

/// Stands for every helper that does not exist.
static UNSUPPORTED: HelperPrototype = HelperPrototype {
    name: "unknown",
    return_type: EbpfReturnType::Unsupported,
    argument_type: [EbpfArgumentType::Unsupported; 5],
    reallocate_packet: false,
    ctx_descriptor: None,
    unsupported: false,
    might_sleep: false,
    zero_args_mask: 0,
    allowed_map_types: 0,
};

/// A helper's signature, as PREVAIL writes it.
fn prototype(helper: Helper) -> HelperPrototype {
    let Signature { parameters, result } = helper.signature();
    let mut argument_type = [EbpfArgumentType::DontCare; 5];
    for (argument, parameter) in argument_type.iter_mut().zip(parameters) {
        *argument = match parameter {
            Parameter::Map => EbpfArgumentType::PtrToMap,
            Parameter::Key => EbpfArgumentType::PtrToMapKey,
            Parameter::Value => EbpfArgumentType::PtrToMapValue,
            Parameter::Context => EbpfArgumentType::PtrToCtx,
            Parameter::Number => EbpfArgumentType::Anything,
        };
    }
    let return_type = match result {
        Returns::Number => EbpfReturnType::Integer,
        Returns::ValueOrNull => EbpfReturnType::PtrToMapValueOrNull,
    };
    HelperPrototype { name: helper.name(), argument_type, return_type, ..UNSUPPORTED }
}

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
        ctx_descriptor: CONTEXTS.get(runtime as usize),
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
        let helper = self.runtime.backend().helper(number)?;
        PROTOTYPES.get(Helper::ALL.iter().position(|other| *other == helper)?)
    }

    fn is_helper_usable(&self, number: i32) -> bool {
        self.runtime.backend().helper(number).is_some()
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
        let is_array = number == MAP_TYPE_ARRAY;
        EbpfMapType {
            platform_specific_type: number,
            name: match number {
                MAP_TYPE_ARRAY => "array",
                MAP_TYPE_HASH => "hash",
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
