//! Random trees.

pub mod trees;

pub use durac_support::Random;
