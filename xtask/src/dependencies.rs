//! The dependency rules of `cargo xtask check`, read from `cargo metadata`.
//!
//! `deny.toml` states the same rules for cargo-deny, which also knows advisories; this file needs nothing installed. It keeps
//! three promises: the verifier builds anywhere, what is hashed and signed goes through one implementation each, and every line
//! of code comes from the registry under a license we may ship.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::process::{answer, cargo};
use crate::workspace::Workspace;

/// What the verifier must never depend on, directly or not: it has to build and run on an auditor's machine.
const NOT_FOR_EVIDENCE: &[&str] = &["aya", "aya-obj", "tokio", "tss-esapi", "tss-esapi-sys"];
/// The two ways in which the verifier is built: small, and able to read from web servers.
const VERIFIER_FEATURES: &[&str] = &["cli", "cli,http"];
/// Besides everything that ends with `-sys`: what compiles or links C.
const C_PACKAGES: &[&str] = &["aws-lc-rs", "bindgen", "cc", "cmake", "openssl", "pkg-config", "ring", "vcpkg"];
/// Two versions of one of these in what ships would mean two implementations of what the evidence rests on. What only tests use
/// may have its own: an independent implementation to compare with is worth having because it shares nothing.
const ONE_VERSION: &[&str] = &[
    "crypto-bigint",
    "curve25519-dalek",
    "der",
    "digest",
    "ecdsa",
    "ed25519",
    "ed25519-dalek",
    "elliptic-curve",
    "p256",
    "sha2",
    "signature",
    "x509-cert",
];
/// The only source of code besides this repository.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";
/// Licenses that MIT OR Apache-2.0 code may be shipped with; an `OR` needs one of them, an `AND` all.
const LICENSES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];
/// What ships, with everything it leads to.
const SHIPPED: &[&str] = &["agent", "agent-evidence"];
/// Our own crate whose license adds the GPL, which the kernel asks of programs that call its GPL-only functions.
const EBPF_PACKAGE: &str = "agent-ebpf";

/// Every broken rule, one line each.
pub(crate) fn complaints(workspace: &Workspace) -> Result<Vec<String>> {
    let text = answer(cargo().current_dir(&workspace.root).args(["metadata", "--format-version", "1", "--locked"]))
        .context("cargo metadata failed: is Cargo.lock up to date?")?;
    let metadata: Value = serde_json::from_str(&text).context("cargo metadata is not JSON")?;
    let mut found = check(&metadata)?;
    // Metadata lists what features of features might bring; the tree is what is built.
    for features in VERIFIER_FEATURES {
        let mut tree = cargo();
        tree.current_dir(&workspace.root)
            .args(["tree", "--locked", "--package", "agent-evidence", "--edges", "normal,build", "--prefix", "none"])
            .args(["--no-default-features", "--features", features]);
        let tree = answer(&mut tree).context("cargo tree failed")?;
        found.extend(
            needs_c(&tree).map(|name| format!("affiant-verify with {features} needs a C library or compiler: {name}")),
        );
    }
    Ok(found)
}

/// Packages of a tree that link or compile C.
fn needs_c(tree: &str) -> impl Iterator<Item = &str> {
    let names = tree.lines().filter_map(|line| line.split(' ').next());
    let needs = |name: &&str| name.ends_with("-sys") || C_PACKAGES.contains(name);
    names.filter(needs).collect::<BTreeSet<_>>().into_iter()
}

fn check(metadata: &Value) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut identities: BTreeMap<&str, (&str, &str)> = BTreeMap::new();
    let mut names: BTreeMap<&str, &str> = BTreeMap::new();
    for package in list(metadata, "packages")? {
        let name = text(package, "name")?;
        let version = text(package, "version")?;
        names.insert(text(package, "id")?, name);
        identities.insert(text(package, "id")?, (name, version));
        let source = package.get("source").and_then(Value::as_str);
        if source.is_some_and(|source| source != REGISTRY) {
            found.push(format!("{name} {version} comes from {}", source.unwrap_or_default()));
        }
        let license = package.get("license").and_then(Value::as_str).unwrap_or_default();
        if name != EBPF_PACKAGE && !license_is_allowed(license) {
            found.push(format!("{name} {version} has license {license:?}, which is not on the list"));
        }
    }
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in SHIPPED {
        for id in reachable(metadata, &names, package)? {
            if let Some((name, version)) = identities.get(id) {
                versions.entry(name).or_default().insert(version);
            }
        }
    }
    for name in ONE_VERSION {
        if let Some(several) = versions.get(name).filter(|versions| versions.len() > 1) {
            let several: Vec<&str> = several.iter().copied().collect();
            found.push(format!("{name} is here in {} versions: {}", several.len(), several.join(", ")));
        }
    }
    for id in reachable(metadata, &names, "agent-evidence")? {
        if let Some(name) = names.get(id).filter(|name| NOT_FOR_EVIDENCE.contains(name)) {
            found.push(format!("agent-evidence depends on {name}"));
        }
    }
    Ok(found)
}

/// Ids of everything that a package's normal and build dependencies lead to.
fn reachable<'a>(metadata: &'a Value, names: &BTreeMap<&'a str, &'a str>, from: &str) -> Result<BTreeSet<&'a str>> {
    let resolve = metadata.get("resolve").context("cargo metadata has no resolve")?;
    let mut edges: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for node in list(resolve, "nodes")? {
        let mut targets = Vec::new();
        for dependency in list(node, "deps")? {
            let only_for_tests = list(dependency, "dep_kinds")?
                .iter()
                .all(|kind| kind.get("kind").and_then(Value::as_str) == Some("dev"));
            if !only_for_tests {
                targets.push(text(dependency, "pkg")?);
            }
        }
        edges.insert(text(node, "id")?, targets);
    }
    let mut open: Vec<&'a str> = names.iter().filter(|(_, name)| **name == from).map(|(id, _)| *id).collect();
    if open.is_empty() {
        bail!("there is no package {from}");
    }
    let mut seen = BTreeSet::new();
    while let Some(id) = open.pop() {
        if seen.insert(id) {
            open.extend(edges.get(id).into_iter().flatten());
        }
    }
    Ok(seen)
}

/// Understands the expressions the registry has: `A OR B`, `A AND B`, `A/B`, and parentheses around an `OR`.
fn license_is_allowed(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ");
    !expression.trim().is_empty()
        && split_outside_parentheses(&expression, " AND ").iter().all(|part| {
            let part = part.trim();
            let part = part.strip_prefix('(').and_then(|part| part.strip_suffix(')')).unwrap_or(part);
            part.split(" OR ").any(|license| LICENSES.contains(&license.trim()))
        })
}

fn split_outside_parentheses<'a>(text: &'a str, separator: &str) -> Vec<&'a str> {
    let mut parts = Vec::new();
    let mut depth = 0_usize;
    let mut start = 0;
    for (at, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 && at >= start && text.get(at..).is_some_and(|rest| rest.starts_with(separator)) {
            parts.push(text.get(start..at).unwrap_or_default());
            start = at + separator.len();
        }
    }
    parts.push(text.get(start..).unwrap_or_default());
    parts
}

fn list<'a>(value: &'a Value, key: &str) -> Result<&'a Vec<Value>> {
    value.get(key).and_then(Value::as_array).with_context(|| format!("cargo metadata has no list {key}"))
}

fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    value.get(key).and_then(Value::as_str).with_context(|| format!("cargo metadata has no text {key}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn package(name: &str, version: &str, source: Option<&str>, license: &str) -> Value {
        json!({ "id": format!("{name} {version}"), "name": name, "version": version, "source": source, "license": license })
    }

    fn node(id: &str, dependencies: &[(&str, Value)]) -> Value {
        let deps: Vec<Value> =
            dependencies.iter().map(|(id, kind)| json!({ "pkg": id, "dep_kinds": [{ "kind": kind }] })).collect();
        json!({ "id": id, "deps": deps })
    }

    #[test]
    fn each_broken_rule_is_named() {
        let metadata = json!({
            "packages": [
                package("agent", "0.1.0", None, "MIT OR Apache-2.0"),
                package("agent-evidence", "0.1.0", None, "MIT OR Apache-2.0"),
                package("middle", "1.0.0", Some(REGISTRY), "MIT"),
                package("tokio", "1.0.0", Some(REGISTRY), "MIT"),
                package("sha2", "0.10.0", Some(REGISTRY), "MIT"),
                package("sha2", "0.11.0", Some(REGISTRY), "MIT"),
                package("elsewhere", "1.0.0", Some("git+https://example.org/x"), "MIT"),
                package("copyleft", "1.0.0", Some(REGISTRY), "GPL-3.0-only"),
            ],
            "resolve": { "nodes": [
                node("agent 0.1.0", &[("agent-evidence 0.1.0", Value::Null), ("sha2 0.11.0", Value::Null)]),
                node("agent-evidence 0.1.0", &[("middle 1.0.0", Value::Null), ("sha2 0.10.0", Value::Null)]),
                node("middle 1.0.0", &[("tokio 1.0.0", Value::Null)]),
                node("tokio 1.0.0", &[]),
            ] },
        });
        assert_eq!(
            check(&metadata).unwrap(),
            [
                "elsewhere 1.0.0 comes from git+https://example.org/x",
                "copyleft 1.0.0 has license \"GPL-3.0-only\", which is not on the list",
                "sha2 is here in 2 versions: 0.10.0, 0.11.0",
                "agent-evidence depends on tokio",
            ]
        );
    }

    #[test]
    fn what_only_tests_use_is_not_a_dependency_of_the_verifier() {
        let metadata = json!({
            "packages": [
                package("agent", "0.1.0", None, "MIT OR Apache-2.0"),
                package("agent-evidence", "0.1.0", None, "MIT OR Apache-2.0"),
                package("tokio", "1.0.0", Some(REGISTRY), "MIT"),
                package("sha2", "0.10.0", Some(REGISTRY), "MIT"),
                package("sha2", "0.11.0", Some(REGISTRY), "MIT"),
            ],
            "resolve": { "nodes": [
                node("agent 0.1.0", &[("sha2 0.11.0", Value::Null)]),
                node("agent-evidence 0.1.0", &[("tokio 1.0.0", json!("dev")), ("sha2 0.10.0", json!("dev"))]),
                node("tokio 1.0.0", &[]),
            ] },
        });
        assert_eq!(check(&metadata).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn what_needs_c_is_told_by_its_name() {
        let tree =
            "agent-evidence v0.1.0 (/x)\ncc v1.0.0\nsha2 v0.11.0\nlibz-sys v1.1.0 (*)\ncc v1.0.0 (*)\naccess v1.0.0\n";
        assert_eq!(needs_c(tree).collect::<Vec<_>>(), ["cc", "libz-sys"]);
    }

    #[test]
    fn license_expressions_are_understood() {
        for allowed in [
            "MIT",
            "MIT/Apache-2.0",
            "GPL-2.0 OR MIT",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception",
        ] {
            assert!(license_is_allowed(allowed), "{allowed}");
        }
        for refused in ["", "GPL-3.0-only", "MIT AND GPL-3.0-only", "(MIT OR Apache-2.0) AND GPL-3.0-only"] {
            assert!(!license_is_allowed(refused), "{refused}");
        }
    }
}
