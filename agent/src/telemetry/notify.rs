//! Tells systemd that the daemon is ready, stopping, or how it is: the `sd_notify` protocol.
//!
//! One datagram of `KEY=value` lines to the socket that the service manager names in
//! `NOTIFY_SOCKET` (sd_notify(3)). Without one, nothing is sent and nothing is wrong.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Longest status text, in bytes; `systemctl status` shows one line.
const STATUS_SIZE_MAX: usize = 256;

/// The service manager, when there is one.
#[derive(Debug, Clone, Default)]
pub struct Notifier {
    socket: Option<OsString>,
}

impl Notifier {
    /// A notifier for the socket that the service manager named, if any.
    #[must_use]
    pub fn new(socket: Option<OsString>) -> Self {
        Self { socket }
    }

    /// Reads `NOTIFY_SOCKET`.
    #[must_use]
    pub fn from_environment() -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "the service manager names its socket in the environment and nowhere else"
        )]
        Self::new(std::env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty()))
    }

    /// Says that the daemon serves. Call it once everything is armed and the socket is bound.
    pub fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={}", one_line(status)));
    }

    /// Says how the daemon is, in one line.
    pub fn status(&self, status: &str) {
        self.tell(&format!("STATUS={}", one_line(status)));
    }

    /// Says that the daemon drains and seals.
    pub fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=draining and sealing");
    }

    /// A service manager that does not listen is not the daemon's problem: it is traced.
    fn tell(&self, message: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = send(socket, message)
        {
            tracing::warn!(%error, ?socket, "cannot notify the service manager");
        }
    }
}

fn send(socket: &OsString, message: &str) -> io::Result<()> {
    let name = socket.as_bytes();
    let address = match name.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(message.as_bytes(), &address)?;
    Ok(())
}

/// The text up to its first line break, and no longer than [`STATUS_SIZE_MAX`].
fn one_line(text: &str) -> &str {
    let line = text.lines().next().unwrap_or_default();
    let mut end = line.len().min(STATUS_SIZE_MAX);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    line.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(address: &SocketAddr, name: OsString, tell: impl FnOnce(&Notifier)) -> String {
        let socket = UnixDatagram::bind_addr(address).unwrap();
        tell(&Notifier::new(Some(name)));
        let mut bytes = [0; 512];
        let size = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..size].to_vec()).unwrap()
    }

    #[test]
    fn readiness_reaches_a_socket_in_the_file_system() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let address = SocketAddr::from_pathname(&path).unwrap();
        let message = received(&address, path.into_os_string(), |n| n.ready("tier T0\nREADY=0"));
        assert_eq!(message, "READY=1\nSTATUS=tier T0");
    }

    #[test]
    fn stopping_reaches_an_abstract_socket() {
        let name = format!("affiant-notify-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let message = received(&address, format!("@{name}").into(), Notifier::stopping);
        assert_eq!(message, "STOPPING=1\nSTATUS=draining and sealing");
    }

    #[test]
    fn without_a_service_manager_nothing_happens() {
        Notifier::new(None).ready("x");
        Notifier::new(Some("/nonexistent/socket".into())).ready("x");
    }
}
