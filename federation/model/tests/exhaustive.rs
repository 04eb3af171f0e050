//! Small instances, in every interleaving that there is: the production machines as the transitions of a model checker.
//!
//! Each has a check that fails: without the rule, the checker finds the way to what the rule prevents.

#[path = "exhaustive/collection.rs"]
mod collection;
#[path = "exhaustive/fencing.rs"]
mod fencing;
#[path = "exhaustive/memory.rs"]
mod memory;
#[path = "exhaustive/mirror.rs"]
mod mirror;

use std::fmt::Debug;
use std::hash::{Hash, Hasher};

/// A state that is known by how it prints: the production machines have no reason to be compared.
#[derive(Clone, Debug)]
struct Printed<T>(T);

impl<T: Debug> PartialEq for Printed<T> {
    fn eq(&self, other: &Self) -> bool {
        format!("{:?}", self.0) == format!("{:?}", other.0)
    }
}

impl<T: Debug> Hash for Printed<T> {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        format!("{:?}", self.0).hash(hasher);
    }
}
