//! The program that counts the syncs of BPFtime's programs ([`durac_abi::notify::count`]), attached at the
//! best place that this kernel allows, with a map that somebody else has made.
//!
//! Nothing that is opened here is closed: this runs under BPFtime's system-call server, which takes a number
//! that is closed for one of its own. So what has to be read is read first ([`Attachments::find`]).

use crate::attach::{Failure, LICENSE, absent, code, in_first_namespace};
use crate::btf::{BtfKind, Kernel};
use crate::sys;
use durac_abi::Object;
use durac_abi::elf::KernelTypes;
use durac_abi::notify::{Attach, count};
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// Name of the programs: one that does not begin as those that BPFtime runs by itself.
const NAME: &str = "count_syncs";

/// Where the program could be attached, by the types of the running kernel.
#[derive(Debug)]
pub struct Attachments(Vec<(Attach, Option<u32>)>);

impl Attachments {
    /// Looks for them.
    ///
    /// # Errors
    /// The kernel numbers processes otherwise than they see it, or shows no types.
    pub fn find() -> Result<Self, Failure> {
        in_first_namespace()?;
        let types = Kernel::read().map_err(|_| absent("types (/sys/kernel/btf/vmlinux)".into()))?;
        let of = |place| match place {
            Attach::Function => types.find(BtfKind::Function, "vfs_fsync_range"),
            _ => types.find(BtfKind::Typedef, "btf_trace_ext4_sync_file_exit"),
        };
        Ok(Self(count::ATTACHMENTS.into_iter().map(|place| (place, of(place))).collect()))
    }
}

/// The program, running as long as this process.
#[derive(Debug)]
pub struct Counter {
    /// Where it is attached.
    pub attach: Attach,
    /// Why it is at no better place.
    pub refused: Vec<(Attach, Failure)>,
    /// What keeps it attached.
    pub link: RawFd,
    _open: ManuallyDrop<Vec<OwnedFd>>,
}

/// Loads and attaches the object's program at the best place that works.
///
/// # Errors
/// Why none works: one failure for each place, best place first.
pub fn attach(
    object: &Object,
    types: &KernelTypes,
    places: &Attachments,
    map: RawFd,
) -> Result<Counter, Vec<(Attach, Failure)>> {
    let mut refused = Vec::new();
    let mut open = ManuallyDrop::new(Vec::new());
    for (place, id) in &places.0 {
        match attach_at(object, types, *place, *id, map, &mut open) {
            Ok(link) => return Ok(Counter { attach: *place, refused, link, _open: open }),
            Err(failure) => refused.push((*place, failure)),
        }
    }
    Err(refused)
}

fn attach_at(
    object: &Object,
    types: &KernelTypes,
    place: Attach,
    id: Option<u32>,
    map: RawFd,
    open: &mut Vec<OwnedFd>,
) -> Result<RawFd, Failure> {
    let section = count::section(place);
    let mut programs = object.kernel.iter().zip(&types.programs);
    let (program, of) = programs.find(|(p, _)| p.section == section).ok_or(Failure::NotWanted)?;
    let id = id.ok_or_else(|| absent(section.to_owned()))?;
    let setup = |why| Failure::Setup { what: "the types", why };
    let btf = sys::btf_load(&types.btf).map_err(setup)?;
    let loaded = sys::prog_load(&sys::Program {
        kind: sys::TRACING,
        attach_type: match place {
            Attach::Function => sys::TRACE_FEXIT,
            _ => sys::TRACE_RAW_TP,
        },
        attach_id: id,
        code: &code(program, &[map])?,
        name: NAME,
        btf: &btf,
        function: &of.function,
        fields: &of.fields,
        license: LICENSE,
    });
    open.push(btf);
    let loaded = loaded.map_err(|(why, said)| Failure::Load { section, why, said })?;
    let link = sys::attach(None, &loaded);
    open.push(loaded);
    let link = link.map_err(|why| Failure::Attach { section, why })?;
    let number = link.as_raw_fd();
    open.push(link);
    Ok(number)
}
