//! The language server: what an editor asks about a policy while it is written.
//!
//! Stage: text as typed → [`Document`] → answers; the proof runs in a thread beside it, and its bound appears
//! when it is found.
//!
//! Architecture invariant: it decides nothing about the language. Findings, bounds and layout are those of
//! `durac check` and `durac fmt`; this crate only says where they go.

mod complete;
mod document;
mod edit;
mod hover;
mod place;
mod prove;
mod server;
mod uses;
mod words;

pub use document::Document;
pub use place::Encoding;
pub use server::serve;
