mod common;
#[test]
fn dump() {
    for object in common::all() {
        std::fs::write(
            format!("/tmp/{}.o", object.meta.policy),
            durac_bpf::elf::write(&object).unwrap(),
        )
        .unwrap();
        print!("{}", durac_bpf::disasm::print_object(&object));
    }
}
