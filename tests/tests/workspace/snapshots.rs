//! Snapshots that a reviewer reads: a larger one is blessed unread.

use super::{files, root};
use std::path::Path;

/// Bytes of the largest snapshot.
const MAX_SIZE: u64 = 10_000;

/// The snapshots below `folder` that are too large, and how many there are.
fn too_large(folder: &Path) -> (Vec<String>, usize) {
    let (mut large, mut count) = (Vec::new(), 0);
    files("snap", folder, folder, &mut |snapshot, _| {
        count += 1;
        let size = snapshot.metadata().unwrap().len();
        if size > MAX_SIZE {
            large.push(format!("{}: {size} bytes", snapshot.display()));
        }
    });
    (large, count)
}

#[test]
fn no_snapshot_is_too_large_to_read() {
    let (large, count) = too_large(root());
    assert!(large.is_empty(), "{}", large.join("\n"));
    assert!(count > 20, "only {count} snapshots were found");
}

#[test]
fn a_large_snapshot_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let inner = dir.path().join("snapshots");
    std::fs::create_dir(&inner).unwrap();
    std::fs::write(inner.join("small.snap"), vec![b'x'; 10_000]).unwrap();
    assert_eq!(too_large(dir.path()), (vec![], 1));
    let large = inner.join("large.snap");
    std::fs::write(&large, vec![b'x'; 10_001]).unwrap();
    std::fs::write(inner.join("large.snap.new"), vec![b'x'; 10_001]).unwrap();
    assert_eq!(too_large(dir.path()), (vec![format!("{}: 10001 bytes", large.display())], 2));
}
