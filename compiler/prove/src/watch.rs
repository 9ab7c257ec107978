//! Who watches a proof while it is looked for, and can end it.
//!
//! Architecture invariant: the checker has no clock; whoever calls it has one.

/// Is told how far an exploration has got.
pub trait Watch: std::fmt::Debug {
    /// So many states were explored. With `false` the exploration ends, and what it has not shown is not
    /// proved.
    fn goes_on(&self, states: usize) -> bool;
}
