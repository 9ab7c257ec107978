//! The types of the kernel's programs, as whoever loads them hands them to the kernel.

use super::ReadError;
use super::read::section;
use crate::btf::read::Types;
use crate::object::Object;

/// What `BPF_BTF_LOAD` and `BPF_PROG_LOAD` want to know of the types.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelTypes {
    /// The section `.BTF`.
    pub btf: Vec<u8>,
    /// For each of [`Object::kernel`], its `struct bpf_func_info` and its `struct bpf_core_relo`s.
    pub programs: Vec<ProgramTypes>,
}

/// The types of one program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramTypes {
    /// One `struct bpf_func_info`.
    pub function: Vec<u8>,
    /// Any number of `struct bpf_core_relo`.
    pub fields: Vec<u8>,
}

/// The types of the kernel's programs in the file that `object` was read from; empty if it has none.
///
/// # Errors
/// When the file has no types, or none for one of the programs.
pub fn kernel_types(bytes: &[u8], object: &Object) -> Result<KernelTypes, ReadError> {
    if object.kernel.is_empty() {
        return Ok(KernelTypes::default());
    }
    let (btf, ext) = (section(bytes, ".BTF")?, section(bytes, ".BTF.ext")?);
    let types = Types::parse(btf)?;
    let (functions, fields) = (types.functions(ext)?, types.field_records(ext)?);
    let of = |section: &'static str| {
        let of_section =
            |(name, records): &(&str, &[u8])| (*name == section).then(|| records.to_vec());
        let function = functions.iter().find_map(of_section);
        let function = function.ok_or(ReadError::Code { section })?;
        let fields = fields.iter().find_map(of_section).unwrap_or_default();
        Ok(ProgramTypes { function, fields })
    };
    let programs = object.kernel.iter().map(|program| of(program.section));
    let programs = programs.collect::<Result<_, ReadError>>()?;
    Ok(KernelTypes { btf: btf.to_vec(), programs })
}
