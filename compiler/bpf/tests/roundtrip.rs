//! Writing and reading objects: the same bytes each time, the same object back.

use crate::common;
use durac_abi::elf;

#[test]
fn reading_gives_back_what_was_written() {
    for mut object in common::all() {
        let bytes = durac_bpf::write(&object).unwrap();
        assert_eq!(bytes, durac_bpf::write(&object).unwrap(), "written twice");
        let read = elf::read(&bytes).unwrap();
        // In the file, members are C identifiers.
        for field in object.maps.iter_mut().flat_map(|map| &mut map.fields) {
            *field = field.replace('.', "_");
        }
        assert_eq!(read, object);
        assert_eq!(durac_bpf::write(&read).unwrap(), bytes, "written after reading");
    }
}
