//! The file rules of `cargo xtask check`: what no compiler looks at.
//!
//! Looks at the files Git tracks and at new ones it does not ignore, so that a complaint comes before the commit.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process::answer;
use crate::workspace::Workspace;

/// A file with more lines holds more than one thing.
const LINES_MAX: usize = 1_200;
/// Larger things do not belong into a repository that is cloned on every build, in bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// The only places for unsafe code (a prefix each); everywhere else the compiler is the proof.
const UNSAFE_HOMES: &[&str] = &["agent-ebpf/src/", "agent/src/sys/", "agent/src/sys.rs", "agent-common/src/pod.rs"];
/// Left by work that is not finished. Written in two halves, so that this list does not name itself.
const UNFINISHED: &[&str] =
    &[concat!("FIX", "ME"), concat!("todo", "!("), concat!("unimplemented", "!("), concat!("dbg", "!(")];
/// Paths of the machine something was written on. In two halves for the same reason.
const PRIVATE_PATHS: &[&str] = &[concat!("/work/", "main"), concat!("/work/", "shared"), concat!("/tmp/", "target-")];

/// Every broken rule, one line each.
pub(crate) fn complaints(workspace: &Workspace) -> Result<Vec<String>> {
    let listed = answer(Command::new("git").current_dir(&workspace.root).args([
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
    ]))
    .context("git ls-files failed: the file rules look at what Git tracks")?;
    let mut found = Vec::new();
    for name in listed.lines() {
        let path = workspace.root.join(name);
        let Ok(metadata) = fs::symlink_metadata(&path) else {
            continue; // removed, and the removal not committed yet
        };
        if !metadata.is_file() {
            continue;
        }
        if metadata.len() > FILE_BYTES_MAX {
            found.push(format!("{name}: {} bytes, at most {FILE_BYTES_MAX}", metadata.len()));
            continue;
        }
        // What is not text has no lines to look at.
        if let Ok(text) = fs::read_to_string(&path) {
            found.extend(file_complaints(name, &text));
        }
    }
    Ok(found)
}

fn file_complaints(name: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let extension = Path::new(name).extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let is_code = matches!(extension, "rs" | "py" | "sh");
    match extension {
        "rs" if !text.starts_with("//!") => {
            found.push(format!("{name}: does not begin with a //! header that says what the file owns"));
        }
        "py" if !python_has_docstring(text) => {
            found.push(format!("{name}: does not begin with a docstring that says what the file owns"));
        }
        _ => {}
    }
    if is_code && text.lines().count() > LINES_MAX {
        found.push(format!("{name}: {} lines, at most {LINES_MAX}: split it", text.lines().count()));
    }
    let may_be_unsafe = UNSAFE_HOMES.iter().any(|home| name.starts_with(home));
    for (number, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line)) {
        if is_code {
            for word in UNFINISHED {
                if line.contains(word) {
                    found.push(format!("{name}:{number}: {word}"));
                }
            }
        }
        for path in PRIVATE_PATHS {
            if line.contains(path) {
                found.push(format!("{name}:{number}: names {path}, a path of one machine"));
            }
        }
        if extension == "rs" && !may_be_unsafe && has_unsafe_code(line) {
            found.push(format!("{name}:{number}: unsafe outside {}", UNSAFE_HOMES.join(", ")));
        }
    }
    found
}

/// Whether a line opens unsafe code. Comments and attributes may name it.
fn has_unsafe_code(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    let opens =
        [concat!("uns", "afe {"), concat!("uns", "afe fn"), concat!("uns", "afe impl"), concat!("uns", "afe extern")];
    opens.iter().any(|form| code.contains(form))
}

/// After an optional line that names the interpreter.
fn python_has_docstring(text: &str) -> bool {
    let first = text.lines().find(|line| !line.starts_with("#!"));
    first.is_some_and(|line| line.starts_with("\"\"\"") || line.starts_with("r\"\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tidy_file_has_no_complaints() {
        assert_eq!(file_complaints("a/src/x.rs", "//! Owns x.\n\nfn x() {} // not unsafe {\n"), Vec::<String>::new());
        assert_eq!(file_complaints("a/x.py", "#!/usr/bin/env python3\n\"\"\"Owns x.\"\"\"\n"), Vec::<String>::new());
        assert_eq!(file_complaints("README.md", concat!("uns", "afe { words } in prose\n")), Vec::<String>::new());
    }

    #[test]
    fn each_broken_rule_names_file_and_line() {
        let text = format!("// no header\nlet x = {} y }};\n{}: later\n", concat!("uns", "afe {"), UNFINISHED[0]);
        assert_eq!(
            file_complaints("agent/src/x.rs", &text),
            [
                "agent/src/x.rs: does not begin with a //! header that says what the file owns".to_owned(),
                format!("agent/src/x.rs:2: unsafe outside {}", UNSAFE_HOMES.join(", ")),
                format!("agent/src/x.rs:3: {}", UNFINISHED[0]),
            ]
        );
        let text = format!("see {}main\n", PRIVATE_PATHS[0]);
        assert_eq!(
            file_complaints("docs/X.md", &text),
            [format!("docs/X.md:1: names {}, a path of one machine", PRIVATE_PATHS[0])]
        );
    }

    #[test]
    fn unsafe_code_is_at_home_in_its_homes_only() {
        let text = format!("//! Header.\n{} }}\n", concat!("uns", "afe {"));
        assert_eq!(file_complaints("agent/src/sys/mmap.rs", &text), Vec::<String>::new());
        assert_eq!(file_complaints("agent/src/log/mod.rs", &text).len(), 1);
    }

    #[test]
    fn a_file_that_is_too_long_is_named() {
        let text = format!("//! Header.\n{}", "\n".repeat(LINES_MAX));
        assert_eq!(
            file_complaints("a.rs", &text),
            [format!("a.rs: {} lines, at most {LINES_MAX}: split it", LINES_MAX + 1)]
        );
    }
}
