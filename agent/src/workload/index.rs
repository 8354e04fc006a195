//! The live cgroup tree: id to path, parent and owner, kept for a while after removal.
//!
//! Filled once from the cgroup2 mount, then by the kernel's `cgroup_mkdir` and `cgroup_rmdir` events, so that a
//! cgroup which lives for a few milliseconds still has its name when the events of its processes are read.
//! Bounded: at most [`CGROUPS_MAX`] cgroups, of which the removed ones go first and in order of removal.

use std::collections::{HashMap, VecDeque};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::cgroup_path::{Owner, parse};

/// Most cgroups held. A node with 250 pods has a few thousand; a node is about 300 bytes with its path.
pub const CGROUPS_MAX: usize = 65_536;
/// How many removed cgroups are remembered: events read late still find their owner.
pub const REMOVED_MAX: usize = 4_096;
/// Deepest directory the initial walk descends to.
const WALK_DEPTH_MAX: usize = super::cgroup_path::DEPTH_MAX;

/// Why the cgroup tree could not be read at start.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The mount could not be read.
    #[error("cannot read the cgroup2 directory {path}")]
    Read {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
}

/// One cgroup.
#[derive(Debug, Clone)]
pub struct Node {
    /// Path from the cgroup2 root, beginning with `/`.
    pub path: Vec<u8>,
    /// Who owns it by its path.
    pub owner: Owner,
    /// Whether the kernel has said that it is gone.
    pub removed: bool,
}

/// Every cgroup known, by id (the inode number of its directory).
#[derive(Debug, Default)]
pub struct CgroupIndex {
    nodes: HashMap<u64, Node>,
    removed: VecDeque<u64>,
    refused: u64,
}

impl CgroupIndex {
    /// Reads the tree below `mount`.
    ///
    /// # Errors
    /// [`IndexError::Read`] when `mount` itself cannot be read. A directory that goes away during the walk is
    /// not an error: its `cgroup_rmdir` event tells.
    pub fn walk(mount: &Path) -> Result<Self, IndexError> {
        let mut index = Self::default();
        let root = std::fs::metadata(mount).map_err(|source| IndexError::Read { path: mount.to_owned(), source })?;
        index.insert(root.ino(), b"/".to_vec());
        let mut pending = vec![(mount.to_owned(), Vec::new(), 0_usize)];
        while let Some((directory, path, depth)) = pending.pop() {
            let entries = match std::fs::read_dir(&directory) {
                Ok(entries) => entries,
                Err(source) if depth == 0 => return Err(IndexError::Read { path: directory, source }),
                Err(_) => continue,
            };
            for entry in entries.flatten() {
                if depth >= WALK_DEPTH_MAX || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    continue;
                }
                let Ok(metadata) = entry.metadata() else { continue };
                let mut child = path.clone();
                child.push(b'/');
                child.extend_from_slice(entry.file_name().as_bytes());
                index.insert(metadata.ino(), child.clone());
                pending.push((entry.path(), child, depth + 1));
            }
        }
        Ok(index)
    }

    /// Adds a cgroup, or replaces what was known of a reused id. Answers false when the index is full.
    pub fn insert(&mut self, id: u64, path: Vec<u8>) -> bool {
        if self.nodes.len() >= CGROUPS_MAX && !self.nodes.contains_key(&id) {
            match self.removed.pop_front() {
                Some(oldest) => {
                    self.nodes.remove(&oldest);
                }
                None => {
                    self.refused = self.refused.saturating_add(1);
                    return false;
                }
            }
        }
        let owner = parse(&path);
        self.removed.retain(|removed| *removed != id);
        self.nodes.insert(id, Node { path, owner, removed: false });
        true
    }

    /// Notes that the kernel removed a cgroup; it is still found until newer removals push it out.
    pub fn remove(&mut self, id: u64) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        if node.removed {
            return;
        }
        node.removed = true;
        self.removed.push_back(id);
        if self.removed.len() > REMOVED_MAX
            && let Some(oldest) = self.removed.pop_front()
        {
            self.nodes.remove(&oldest);
        }
    }

    /// What is known of a cgroup id.
    #[must_use]
    pub fn get(&self, id: u64) -> Option<&Node> {
        self.nodes.get(&id)
    }

    /// The live cgroups, in no order.
    pub fn live(&self) -> impl Iterator<Item = (u64, &Node)> {
        self.nodes.iter().filter(|(_, node)| !node.removed).map(|(id, node)| (*id, node))
    }

    /// How many cgroups could not be held, because [`CGROUPS_MAX`] live ones were known already.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_cgroup_is_found_until_newer_removals_push_it_out() {
        let mut index = CgroupIndex::default();
        for id in 0..=REMOVED_MAX as u64 {
            assert!(index.insert(id, format!("/c{id}").into_bytes()));
        }
        for id in 0..REMOVED_MAX as u64 {
            index.remove(id);
        }
        assert!(index.get(0).is_some_and(|node| node.removed));
        index.remove(REMOVED_MAX as u64);
        assert!(index.get(0).is_none());
        assert!(index.get(1).is_some());
    }

    #[test]
    fn a_reused_id_takes_the_new_path() {
        let mut index = CgroupIndex::default();
        index.insert(7, b"/system.slice/a.service".to_vec());
        index.remove(7);
        index.insert(7, b"/system.slice/b.service".to_vec());
        let node = index.get(7).expect("just inserted");
        assert!(!node.removed);
        assert_eq!(node.owner, Owner::Systemd { unit: "b.service".to_owned(), user: None });
    }

    #[test]
    fn a_full_index_refuses_and_counts_unless_a_removed_cgroup_can_go() {
        let mut index = CgroupIndex::default();
        for id in 0..CGROUPS_MAX as u64 {
            index.insert(id, b"/x".to_vec());
        }
        assert!(!index.insert(u64::MAX, b"/y".to_vec()));
        assert_eq!(index.refused(), 1);
        index.remove(3);
        assert!(index.insert(u64::MAX, b"/y".to_vec()));
        assert!(index.get(3).is_none());
    }

    #[test]
    fn the_walk_gives_every_directory_its_inode_number() {
        let root = std::env::temp_dir().join(format!("affiant-cgroup-walk-{}", std::process::id()));
        std::fs::create_dir_all(root.join("a/b")).expect("a temporary directory");
        let index = CgroupIndex::walk(&root).expect("the directory exists");
        let inner = std::fs::metadata(root.join("a/b")).expect("just made").ino();
        assert_eq!(index.get(inner).expect("walked").path, b"/a/b");
        assert_eq!(index.live().count(), 3);
        std::fs::remove_dir_all(&root).expect("cleans up");
    }
}
