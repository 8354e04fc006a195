//! From a decoded kernel event to the body of its record: nothing is looked up, nothing is guessed.
//!
//! Pure. Facts go to the body's members, what the workload could have written goes to its `claims`; every flag of
//! the kernel side that limits what was observed becomes a mark.

#![forbid(unsafe_code)]
