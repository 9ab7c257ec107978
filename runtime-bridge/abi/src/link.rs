//! Puts the addresses of maps into a program.

use crate::insn::Insn;
use crate::object::Reloc;

/// `BPF_PSEUDO_MAP_FD` (`include/uapi/linux/bpf.h`): source register of a `lddw` whose immediate is a
/// map's descriptor.
pub const PSEUDO_MAP_FD: u8 = 1;

/// How a program names a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapRef {
    /// By a descriptor; whoever loads the program puts the address in its place.
    Descriptor(i32),
    /// By its address.
    Address(u64),
}

/// Why a program cannot be linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// A relocation names a map that does not exist.
    #[error("the relocation at slot {slot} names no map")]
    Map {
        /// Its slot.
        slot: u32,
    },
    /// A relocation is not at a whole `lddw`.
    #[error("the relocation at slot {slot} lies outside the program")]
    Outside {
        /// Its slot.
        slot: u32,
    },
}

/// The instructions with the maps in them; `map` gives a map by its index.
///
/// # Errors
/// When a relocation lies outside the program, or `map` does not know its map.
pub fn link(
    insns: &[Insn],
    relocs: &[Reloc],
    map: impl Fn(u32) -> Option<MapRef>,
) -> Result<Vec<Insn>, LinkError> {
    let mut insns = insns.to_vec();
    for reloc in relocs {
        let slot = reloc.slot;
        let found = map(reloc.map).ok_or(LinkError::Map { slot })?;
        let first = slot as usize;
        let Some([low, high]) = insns.get_mut(first..first.saturating_add(2)) else {
            return Err(LinkError::Outside { slot });
        };
        (low.src, low.imm, high.imm) = match found {
            MapRef::Descriptor(fd) => (PSEUDO_MAP_FD, fd, 0),
            MapRef::Address(address) => (0, address as u32 as i32, (address >> 32) as i32),
        };
    }
    Ok(insns)
}
