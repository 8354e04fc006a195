//! What a cgroup path says about its owner: session, container, pod, systemd unit or the host itself.
//!
//! Pure: a byte string in, an [`Owner`] out. Paths come from the kernel (`cgroup_mkdir`, the cgroup2 mount) and
//! are relative to the cgroup2 root. The *names* in them are chosen by whoever made the directory: a process
//! that may create cgroups may also name one `docker-<id>.scope`. So an owner from a path is recorded with
//! `how = cgroup path`; only sessions, which the daemon itself opens, are established by more than a name.

#![forbid(unsafe_code)]

/// Longest path that is parsed, in bytes. The kernel's own limit is `PATH_MAX` (4096); longer is unknown.
pub const PATH_BYTES_MAX: usize = 4096;
/// Deepest path that is parsed. The kernel allows more; no runtime nests this deep.
pub const DEPTH_MAX: usize = 64;
/// A container id as every runtime in use writes it: 64 lower-case hex digits.
const CONTAINER_ID_LEN: usize = 64;

/// The container runtime that a scope name points to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Runtime {
    /// `cri-containerd-<id>.scope`, or `<slice>:cri-containerd:<id>`.
    Containerd,
    /// `crio-<id>.scope` or `crio-<id>`.
    Crio,
    /// `docker-<id>.scope` or `/docker/<id>`.
    Docker,
    /// `libpod-<id>.scope`.
    Podman,
    /// A bare 64-hex name: the cgroupfs driver names no runtime.
    Unnamed,
}

impl Runtime {
    /// The name used in workload ids.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Containerd => "containerd",
            Self::Crio => "cri-o",
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Unnamed => "unnamed",
        }
    }
}

/// Who a cgroup belongs to, as its path shows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Owner {
    /// A container, and the pod around it when the path names one.
    Container {
        /// Which runtime's naming it follows.
        runtime: Runtime,
        /// 64 lower-case hex digits.
        id: String,
        /// The pod UID, dashes restored.
        pod_uid: Option<String>,
    },
    /// A pod's own cgroup, between the slice and its containers.
    Pod {
        /// The pod UID, dashes restored.
        pod_uid: String,
    },
    /// A systemd service, scope, socket or mount unit.
    Systemd {
        /// Unit name, for instance `nginx.service`.
        unit: String,
        /// The user id, when the unit runs below `user-<uid>.slice`.
        user: Option<u32>,
    },
    /// The root, a slice, or a directory no convention names: the host's own processes.
    Host,
    /// The path cannot be read.
    Unknown {
        /// Why, for the record.
        reason: &'static str,
    },
}

/// Reads the owner from `path`, relative to the cgroup2 root and beginning with `/`.
///
/// The deepest component that names an owner wins, so that a container inside a systemd unit is a container,
/// and a runtime's helper directories below a container (crun's `container`, systemd's `init.scope` inside
/// one) stay the container's.
#[must_use]
pub fn parse(path: &[u8]) -> Owner {
    if path.len() > PATH_BYTES_MAX {
        return Owner::Unknown { reason: "cgroup path longer than 4096 bytes" };
    }
    let Ok(text) = std::str::from_utf8(path) else {
        return Owner::Unknown { reason: "cgroup path is not UTF-8" };
    };
    if !text.starts_with('/') {
        return Owner::Unknown { reason: "cgroup path is not absolute" };
    }
    let mut pod_uid = None;
    let mut user = None;
    let mut container: Option<(Runtime, String)> = None;
    let mut unit: Option<&str> = None;
    let mut previous = "";
    for (depth, component) in text.split('/').skip(1).enumerate() {
        if depth >= DEPTH_MAX {
            return Owner::Unknown { reason: "cgroup path deeper than 64 levels" };
        }
        if component.is_empty() {
            continue;
        }
        if let Some(uid) = pod(component) {
            pod_uid = Some(uid);
        } else if let Some(found) = container_of(component, previous) {
            // The innermost container of nested runtimes: the act happened in it.
            container = Some(found);
        } else if container.is_none() {
            if let Some(uid) = component.strip_prefix("user-").and_then(|rest| rest.strip_suffix(".slice")) {
                user = uid.parse().ok();
            } else if is_unit(component) {
                unit = Some(component);
            }
        }
        previous = component;
    }
    if let Some((runtime, id)) = container {
        return Owner::Container { runtime, id, pod_uid };
    }
    if let Some(pod_uid) = pod_uid {
        return Owner::Pod { pod_uid };
    }
    match unit {
        Some(unit) => Owner::Systemd { unit: unit.to_owned(), user },
        None => Owner::Host,
    }
}

/// The pod UID that a component names: `kubepods-burstable-pod<uid>.slice`, `kubepods-pod<uid>.slice`, `pod<uid>`.
fn pod(component: &str) -> Option<String> {
    let raw = match component.strip_suffix(".slice") {
        // The systemd driver writes the whole chain of slices into each name, and `_` for the UID's dashes.
        Some(slice) => slice.strip_prefix("kubepods")?.rsplit_once("-pod")?.1,
        None => component.strip_prefix("pod")?,
    };
    let uid: String = raw.chars().map(|c| if c == '_' { '-' } else { c }).collect();
    is_pod_uid(&uid).then_some(uid)
}

/// A UUID with dashes, or the 32 hex digits of a static pod's configuration hash.
fn is_pod_uid(uid: &str) -> bool {
    let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    match uid.len() {
        36 => uid.char_indices().all(|(i, c)| if matches!(i, 8 | 13 | 18 | 23) { c == '-' } else { hex(c) }),
        32 => uid.chars().all(hex),
        _ => false,
    }
}

fn container_of(component: &str, previous: &str) -> Option<(Runtime, String)> {
    let named = |runtime, id: &str| is_container_id(id).then(|| (runtime, id.to_owned()));
    if let Some(scope) = component.strip_suffix(".scope") {
        for (prefix, runtime) in [
            ("cri-containerd-", Runtime::Containerd),
            ("crio-", Runtime::Crio),
            ("docker-", Runtime::Docker),
            ("libpod-", Runtime::Podman),
        ] {
            if let Some(id) = scope.strip_prefix(prefix) {
                return named(runtime, id);
            }
        }
        return None;
    }
    if let Some((_, id)) = component.rsplit_once(":cri-containerd:") {
        return named(Runtime::Containerd, id);
    }
    if let Some(id) = component.strip_prefix("crio-") {
        return named(Runtime::Crio, id);
    }
    if let Some(id) = component.strip_prefix("libpod-") {
        return named(Runtime::Podman, id);
    }
    // The cgroupfs drivers write the bare id; only Docker puts a directory of its own name above it.
    named(if previous == "docker" { Runtime::Docker } else { Runtime::Unnamed }, component)
}

fn is_container_id(id: &str) -> bool {
    id.len() == CONTAINER_ID_LEN && id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn is_unit(component: &str) -> bool {
    [".service", ".scope", ".socket", ".mount", ".swap"].iter().any(|suffix| component.ends_with(suffix))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const UID: &str = "f4e05f7b-8e5a-4f4c-9d2f-0a1b2c3d4e5f";

    fn container(runtime: Runtime, pod_uid: Option<&str>) -> Owner {
        Owner::Container { runtime, id: ID.to_owned(), pod_uid: pod_uid.map(str::to_owned) }
    }

    #[track_caller]
    fn check(path: &str, expected: &Owner) {
        assert_eq!(&parse(path.as_bytes()), expected, "{path}");
    }

    #[test]
    fn paths_of_every_runtime_and_driver_name_the_container() {
        let under = UID.replace('-', "_");
        check(
            &format!(
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{under}.slice/cri-containerd-{ID}.scope"
            ),
            &container(Runtime::Containerd, Some(UID)),
        );
        check(
            &format!("/kubepods.slice/kubepods-pod{under}.slice/crio-{ID}.scope"),
            &container(Runtime::Crio, Some(UID)),
        );
        check(
            &format!("/kubepods.slice/kubepods-pod{under}.slice/crio-{ID}.scope/container"),
            &container(Runtime::Crio, Some(UID)),
        );
        check(&format!("/kubepods/besteffort/pod{UID}/{ID}"), &container(Runtime::Unnamed, Some(UID)));
        check(&format!("/system.slice/docker-{ID}.scope"), &container(Runtime::Docker, None));
        check(&format!("/docker/{ID}"), &container(Runtime::Docker, None));
        check(&format!("/machine.slice/libpod-{ID}.scope/container"), &container(Runtime::Podman, None));
        check(
            &format!("/system.slice/kubepods-besteffort-pod{under}.slice:cri-containerd:{ID}"),
            &container(Runtime::Containerd, None),
        );
        check(&format!("/docker/{ID}/init.scope"), &container(Runtime::Docker, None));
    }

    #[test]
    fn pods_units_and_the_host_are_told_apart() {
        check(&format!("/kubepods/burstable/pod{UID}"), &Owner::Pod { pod_uid: UID.to_owned() });
        check(
            "/kubepods/pod0123456789abcdef0123456789abcdef",
            &Owner::Pod { pod_uid: "0123456789abcdef0123456789abcdef".to_owned() },
        );
        check("/system.slice/nginx.service", &Owner::Systemd { unit: "nginx.service".to_owned(), user: None });
        check(
            "/user.slice/user-1000.slice/user@1000.service/app.slice/jupyter.service",
            &Owner::Systemd { unit: "jupyter.service".to_owned(), user: Some(1000) },
        );
        check(
            "/user.slice/user-1000.slice/session-2.scope",
            &Owner::Systemd { unit: "session-2.scope".to_owned(), user: Some(1000) },
        );
        check("/", &Owner::Host);
        check("/system.slice", &Owner::Host);
        check("/something/else", &Owner::Host);
    }

    #[test]
    fn names_that_only_resemble_a_container_are_not_one() {
        check("/system.slice/docker-0123.scope", &Owner::Systemd { unit: "docker-0123.scope".to_owned(), user: None });
        check(&format!("/docker/{}", ID.to_uppercase()), &Owner::Host);
        check("/kubepods/podnot-a-uid", &Owner::Host);
    }

    #[test]
    fn paths_that_cannot_be_read_are_unknown_with_the_reason() {
        assert_eq!(parse(b"/a\xff"), Owner::Unknown { reason: "cgroup path is not UTF-8" });
        assert_eq!(parse(b"a/b"), Owner::Unknown { reason: "cgroup path is not absolute" });
        assert_eq!(parse(&[b'/'; PATH_BYTES_MAX + 1]), Owner::Unknown { reason: "cgroup path longer than 4096 bytes" });
        assert_eq!(
            parse("/a".repeat(DEPTH_MAX + 1).as_bytes()),
            Owner::Unknown { reason: "cgroup path deeper than 64 levels" }
        );
    }
}
