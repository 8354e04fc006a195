//! Who acted: from the cgroup id the kernel gives with every event to a workload.
//!
//! `cgroup_path` reads what a cgroup's path says about its owner (pure), `index` holds the live cgroup tree.
//! What this module does not do: it never reads a workload's environment, `/proc/PID/cgroup` or `comm`, since a
//! workload can arrange what those say. Attribution cannot fail: it yields [`Owner::Unknown`] with a reason.

pub mod cgroup_path;
pub mod index;

pub use cgroup_path::{Owner, Runtime, parse};
pub use index::{CgroupIndex, IndexError, Node};
