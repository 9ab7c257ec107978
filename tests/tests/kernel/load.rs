//! The real programs in the real kernel.

use crate::common::{PLACES, loaded, object, types};
use durac_abi::notify::Attach;
use durac_kernel::{Failure, load, load_at};

#[test]
fn the_kernels_verifier_takes_the_programs_and_a_sync_is_counted() {
    for attach in PLACES {
        let notify = loaded(attach);
        assert_eq!((notify.attach, notify.links().count()), (attach, 2));
    }
}

/// On a kernel that allows it, it runs; else the kernel says EPERM and the loader goes on.
#[test]
fn the_function_is_tried_first() {
    match load_at(&object(), &types(), Attach::Function) {
        Ok(notify) => assert_eq!(notify.attach, Attach::Function),
        Err(Failure::Load { why, .. } | Failure::Attach { why, .. }) => {
            assert_eq!(why.raw_os_error(), Some(libc::EPERM), "{why}");
            let notify = load(&object(), &types()).unwrap_or_else(|why| panic!("{why:?}"));
            assert_eq!(notify.attach, Attach::Ext4);
            assert_eq!(notify.refused.len(), 1);
        }
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn an_object_without_kernel_programs_loads_none() {
    let mut object = object();
    object.kernel.clear();
    let why = load(&object, &types()).map(|_| ()).unwrap_err();
    assert!(why.iter().all(|(_, failure)| matches!(failure, Failure::NotWanted)), "{why:?}");
}

/// What the verifier refuses is an error in words, not a half-loaded policy.
#[test]
fn a_damaged_program_is_refused_by_the_kernel() {
    let mut object = object();
    for program in &mut object.kernel {
        program.insns.pop();
    }
    for attach in PLACES {
        match load_at(&object, &types(), attach).map(|_| ()) {
            Err(Failure::Load { said, .. }) => assert!(!said.is_empty()),
            other => panic!("{other:?}"),
        }
    }
}
