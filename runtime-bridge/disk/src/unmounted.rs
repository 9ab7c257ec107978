//! In place of the session, where nothing of FUSE is built.

use crate::mount::Shared;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// There is none.
#[derive(Debug)]
pub(crate) enum Served {}

impl Served {
    pub(crate) fn umount_and_join(self) -> io::Result<()> {
        match self {}
    }
}

pub(crate) fn serve(_: Arc<Shared>, _: &Path, _: &str) -> io::Result<Served> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "this program is built without FUSE"))
}
