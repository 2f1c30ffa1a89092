//! What the tests and benches that cross crates share.
