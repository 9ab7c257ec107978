//! The library that is preloaded into an application: `libdurac_preload.so`.
//!
//! It holds what makes the agent ([`durac_agent`]) part of a program: the functions that interpose
//! the C library's ([`entries`]), and the constructor and destructor. All logic is the agent's.
//!
//! Architecture invariant: nothing here decides anything. An entry passes its arguments on.

#![warn(missing_docs)]

mod alloc;
pub mod entries;

/// The dynamic linker calls it when the library is loaded.
#[used]
#[unsafe(link_section = ".init_array")]
static INIT: extern "C" fn() = init;

/// `exit` calls it after the functions that the application registered.
#[used]
#[unsafe(link_section = ".fini_array")]
static FINI: extern "C" fn() = fini;

extern "C" fn init() {
    durac_agent::start();
}

extern "C" fn fini() {
    durac_agent::end();
}
