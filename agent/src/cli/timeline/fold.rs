//! Which opens a person wants to see one by one, and how the rest are counted.
//!
//! A view's judgement, not evidence: reads of installed software and of the system's own files are
//! folded unless they look like secrets; opens that found nothing are counted; many files of one
//! directory become one line. Nothing that wrote, was refused, or is in doubt is folded.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use agent_evidence::record::{FileFolded, Open};

use crate::cli::view;
use crate::export::ocsf::errno_name;

const ENOENT: u32 = 2;

/// Directories of installed software and of the system's own files.
const SYSTEM: [&str; 9] = ["/usr/", "/lib/", "/lib64/", "/bin/", "/sbin/", "/etc/", "/proc/", "/sys/", "/dev/"];

/// Directories inside a path that hold installed packages.
const PACKAGES: [&str; 5] = ["/lib/python3", "/site-packages/", "/dist-packages/", "/node_modules/", "/__pycache__/"];

/// Parts of a path that make a file worth a line of its own, outside of installed software.
const SENSITIVE: [&str; 17] = [
    "shadow",
    "sudoers",
    "/etc/ssh/",
    "/etc/kubernetes",
    "/etc/ssl/private",
    "secret",
    "token",
    "credential",
    "password",
    "/.ssh/",
    "/.aws/",
    "/.env",
    "id_rsa",
    "id_ed25519",
    ".pem",
    ".key",
    "/.kube/",
];

/// Directories of certificates that everybody is meant to read.
const PUBLIC: [&str; 3] = ["/etc/ssl/certs/", "/etc/pki/", "/etc/ca-certificates/"];

/// From so many folded reads on, where they lie is said too.
const PLACES_FROM: usize = 50;

/// Most names of files that were not found.
const NAMED_MAX: usize = 4;

/// More distinct files of one directory than this become one line.
const FILES_PER_DIRECTORY_MAX: usize = 8;

/// One open as the view needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Opened {
    /// The path, or what was asked for in quotes when it failed.
    shown: String,
    /// `read`, `write`, ...
    access: &'static str,
    /// Why it failed.
    errno: Option<u32>,
    /// Doubts about the path, empty when there are none.
    doubts: String,
    /// How many opens it stands for, when the log only counts them; then `shown` is their directory.
    counted: Option<u64>,
}

impl Opened {
    pub(super) fn of(open: &Open<'_>) -> Self {
        let errno = open.errno.filter(|&errno| errno != 0);
        let shown = match &open.path {
            Some(path) if errno.is_none() => view::value(path),
            _ => view::asked(open),
        };
        let unresolved = open.path.is_none() && errno.is_none();
        Self {
            shown,
            access: view::access(open),
            errno,
            doubts: if unresolved || !open.marks.is_empty() { view::doubts(open) } else { String::new() },
            counted: None,
        }
    }

    /// Opens that the log itself folded.
    pub(super) fn of_folded(folded: &FileFolded<'_>) -> Self {
        Self {
            shown: folded.directory.as_ref().map(view::value).unwrap_or_default(),
            access: "read",
            errno: None,
            doubts: String::new(),
            counted: Some(folded.count),
        }
    }

    /// The line for this open by itself.
    pub(super) fn line(&self) -> String {
        match self.errno {
            None if self.counted.is_some() => {
                format!("{:<9} {} in {}  (only counted)", self.access, files(self.times()), self.shown)
            }
            None => format!("{:<9} {}{}", self.access, self.shown, self.doubts),
            Some(errno) => format!("{:<9} {}  {}", format!("no {}", self.access), self.shown, errno_name(errno)),
        }
    }

    fn times(&self) -> usize {
        self.counted.map_or(1, |count| usize::try_from(count).unwrap_or(usize::MAX))
    }

    /// Whether it only read, and its path is in no doubt but that of a shared descriptor table, which
    /// every open of a program with threads has.
    fn is_plain_read(&self) -> bool {
        matches!(self.access, "read" | "list" | "look at")
            && self.errno.is_none()
            && (self.doubts.is_empty() || self.is_racy())
    }

    fn is_racy(&self) -> bool {
        self.doubts == view::RACY_ONLY
    }

    /// Whether a file that was not found is more than a program's search for its own parts.
    fn is_worth_naming(&self) -> bool {
        let asked = self.shown.trim_matches('"');
        let library = asked.ends_with(".so") || asked.contains(".so.") || asked.ends_with(".cfg");
        let own = SYSTEM.iter().chain(&PACKAGES).any(|part| asked.contains(part));
        is_sensitive(asked) || (asked.starts_with('/') && !library && !own)
    }

    fn fold(&self) -> Fold {
        if self.counted.is_some() {
            return Fold::System;
        }
        // A program without a terminal tries to open it and goes on.
        if self.errno == Some(ENOENT) || (self.errno.is_some() && self.shown == "\"/dev/tty\"") {
            return Fold::NotFound;
        }
        let scratch = self.shown.contains("/__pycache__/")
            || ["/dev/null", "/dev/tty"].contains(&self.shown.as_str())
            || self.shown.starts_with("/dev/pts/");
        if scratch && self.errno.is_none() {
            return Fold::System;
        }
        if !self.is_plain_read() {
            return Fold::Show;
        }
        let path = self.shown.as_str();
        let library = path.contains("/lib/") && (path.ends_with(".so") || path.contains(".so."));
        if library || PACKAGES.iter().any(|package| path.contains(package)) {
            return Fold::System;
        }
        let installed = ["/usr/", "/lib/", "/lib64/", "/bin/", "/sbin/"].iter().any(|dir| path.starts_with(dir));
        let foreign_memory = path.starts_with("/proc/") && ["/mem", "/environ"].iter().any(|end| path.ends_with(end));
        if foreign_memory || (!installed && is_sensitive(path)) {
            return Fold::Show;
        }
        if SYSTEM.iter().any(|dir| path.starts_with(dir)) { Fold::System } else { Fold::Show }
    }
}

fn is_sensitive(path: &str) -> bool {
    if PUBLIC.iter().any(|directory| path.starts_with(directory)) {
        return false;
    }
    let lower = path.to_lowercase();
    SENSITIVE.iter().any(|part| lower.contains(part))
}

enum Fold {
    Show,
    System,
    NotFound,
}

/// The opens of one program image, ready to print.
#[derive(Debug, Default)]
pub(super) struct Folded {
    /// What was left out, in words.
    pub(super) summary: Vec<String>,
    /// Lines to show, by the position of their first open among those given.
    pub(super) lines: BTreeMap<usize, String>,
}

/// Folds the opens of one image, given in order.
pub(super) fn fold<'a>(opens: impl Iterator<Item = &'a Opened>) -> Folded {
    let mut system: BTreeMap<&str, usize> = BTreeMap::new();
    let mut system_count = 0;
    let mut racy = 0;
    let mut not_found = 0;
    let mut named: Vec<&str> = Vec::new();
    // What is shown: first position and count per distinct open.
    let mut shown: Vec<(usize, &Opened, usize)> = Vec::new();
    let mut known: BTreeMap<(&str, &str, Option<u32>, &str), usize> = BTreeMap::new();
    for (position, open) in opens.enumerate() {
        match open.fold() {
            Fold::System => {
                let times = open.times();
                system_count += times;
                racy += usize::from(open.is_racy());
                *system.entry(top(&open.shown)).or_default() += times;
            }
            Fold::NotFound => {
                not_found += 1;
                if open.is_worth_naming() && !named.contains(&open.shown.as_str()) {
                    named.push(&open.shown);
                }
            }
            Fold::Show => {
                let key = (open.shown.as_str(), open.access, open.errno, open.doubts.as_str());
                match known.get(&key).and_then(|&at| shown.get_mut(at)) {
                    Some((_, _, count)) => *count += 1,
                    None => {
                        known.insert(key, shown.len());
                        shown.push((position, open, 1));
                    }
                }
            }
        }
    }
    let mut folded = Folded::default();
    if system_count > 0 {
        let mut places: Vec<(&str, usize)> = system.into_iter().collect();
        places.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        let most: Vec<String> = places.iter().take(3).map(|(place, count)| format!("{place} {count}")).collect();
        let more = if places.len() > 3 { ", ..." } else { "" };
        let places = if system_count >= PLACES_FROM { format!(" ({}{more})", most.join(", ")) } else { String::new() };
        let racy = if racy == 0 { String::new() } else { format!(", {racy} of them racy") };
        folded.summary.push(format!("read {} of the system and of packages{places}{racy}", files(system_count)));
    }
    if not_found > 0 {
        let more = if named.len() > NAMED_MAX { ", ..." } else { "" };
        named.truncate(NAMED_MAX);
        let names = if named.is_empty() { String::new() } else { format!(" ({}{more})", named.join(", ")) };
        folded.summary.push(format!("looked for {} in vain{names}", files(not_found)));
    }
    group(&shown, &mut folded.lines);
    folded
}

fn files(count: usize) -> String {
    if count == 1 { "1 file".to_owned() } else { format!("{count} files") }
}

/// Lines for what is shown, with many files of one directory on one line.
fn group(shown: &[(usize, &Opened, usize)], lines: &mut BTreeMap<usize, String>) {
    let mut directories: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for (_, open, _) in shown {
        *directories.entry(directory_of(open)).or_default() += 1;
    }
    let mut done: BTreeMap<(&str, &str), ()> = BTreeMap::new();
    for (position, open, count) in shown {
        let times = if *count > 1 { format!("  x{count}") } else { String::new() };
        let directory = directory_of(open);
        let files = directories.get(&directory).copied().unwrap_or_default();
        let foldable = open.errno.is_none() && open.doubts.is_empty() && !is_sensitive(&open.shown);
        if !foldable || files <= FILES_PER_DIRECTORY_MAX {
            lines.insert(*position, format!("{}{times}", open.line()));
        } else if done.insert(directory, ()).is_none() {
            let members: Vec<&&Opened> = shown
                .iter()
                .map(|(_, other, _)| other)
                .filter(|other| {
                    directory_of(other) == directory
                        && other.errno.is_none()
                        && other.doubts.is_empty()
                        && !is_sensitive(&other.shown)
                })
                .collect();
            let some: Vec<&str> = members.iter().take(3).map(|other| base(&other.shown)).collect();
            lines.insert(
                *position,
                format!("{:<9} {} files in {}/ ({}, ...)", open.access, members.len(), directory.1, some.join(", ")),
            );
        }
    }
}

fn directory_of(open: &Opened) -> (&str, &str) {
    (open.access, open.shown.rsplit_once('/').map_or("", |(directory, _)| directory))
}

fn base(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

/// The first two components of a path, or where its packages lie.
fn top(path: &str) -> &str {
    for package in PACKAGES {
        if let Some(at) = path.find(package)
            && !path.starts_with("/usr/")
        {
            let inside = at + package.len() - 1;
            let end = path.get(inside..).and_then(|rest| rest.find('/')).map_or(path.len(), |slash| inside + slash);
            return path.get(..end).unwrap_or(path);
        }
    }
    let mut slashes = path.match_indices('/').map(|(at, _)| at).skip(1);
    let first = slashes.next();
    match (first, slashes.next()) {
        (Some(_), Some(second)) if path.starts_with("/usr/") => path.get(..second).unwrap_or(path),
        (Some(first), _) => path.get(..first).unwrap_or(path),
        (None, _) => path,
    }
}
