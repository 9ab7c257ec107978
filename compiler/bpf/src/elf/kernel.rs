//! The types of the kernel's programs, as whoever loads them hands them to the kernel.

use super::function_names;
use crate::btf;
use crate::object::Object;

/// What `BPF_BTF_LOAD` and `BPF_PROG_LOAD` want to know of the types.
#[derive(Clone, Debug)]
pub struct KernelTypes {
    /// The section `.BTF`.
    pub btf: Vec<u8>,
    /// For each of [`Object::kernel`], its `struct bpf_func_info` and its `struct bpf_core_relo`s.
    pub programs: Vec<ProgramTypes>,
}

/// The types of one program.
#[derive(Clone, Debug)]
pub struct ProgramTypes {
    /// One `struct bpf_func_info`.
    pub function: Vec<u8>,
    /// Any number of `struct bpf_core_relo`.
    pub fields: Vec<u8>,
}

/// Size of a `struct bpf_func_info`, bytes.
pub const FUNC_INFO_SIZE: u32 = btf::FUNC_INFO;
/// Size of a `struct bpf_core_relo`, bytes.
pub const CORE_RELO_SIZE: u32 = btf::CORE_RELO;

/// The types of the kernel's programs, the same as in the file.
#[must_use]
pub fn kernel_types(object: &Object) -> KernelTypes {
    let sections = btf::encode(object, &function_names(object));
    let programs = sections.kernel.into_iter();
    let programs = programs.map(|(function, fields)| ProgramTypes { function, fields }).collect();
    KernelTypes { btf: sections.btf, programs }
}
