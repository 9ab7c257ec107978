//! The helpers as machine code calls them.
//!
//! A panic must not unwind into machine code: it ends here.

use crate::call::with_current;
use crate::maps::MapArea;
use durac_abi::Helper;
use durac_jit::{HelperCode, entry};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Every helper, as the JIT compiler takes them.
pub const ALL: &[(Helper, HelperCode)] =
    &[(Helper::MapLookup, map_lookup), (Helper::Request, request), (Helper::Await, await_distance)];

entry!(map_lookup => map_lookup_body);
entry!(request => request_body);
entry!(await_distance => await_body);

unsafe extern "C" fn map_lookup_body(map: u64, key: u64) -> u64 {
    // SAFETY: the verifier has proved that the first argument is a map's address, put into the
    // code by the loader, and the second points to four readable bytes of the stack.
    let (map, key) = unsafe { (&*(map as *const MapArea), (key as *const u32).read_unaligned()) };
    match crate::call::parameters(map) {
        Some(values) if key == 0 => values as u64,
        _ => map.lookup(key) as u64,
    }
}

unsafe extern "C" fn request_body() -> u64 {
    catch_unwind(|| with_current(|current| current.request())).unwrap_or(0)
}

unsafe extern "C" fn await_body(distance: u64) -> u64 {
    let body = AssertUnwindSafe(|| with_current(|current| current.await_distance(distance)));
    catch_unwind(body).unwrap_or(0)
}
