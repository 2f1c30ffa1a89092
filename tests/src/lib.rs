//! Tests that cross crates, real guests included.
