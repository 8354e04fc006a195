//! A log on a web server: any that serves the files of a tiles directory will do. Behind the feature `http`.
//!
//! Nothing that a server says is trusted: what it serves is verified as if it lay in a directory. TLS, where the address asks
//! for it, keeps others from reading along, and proves nothing about the log. Every answer has a limit in size and time, and
//! an answer that is neither the file nor "there is none" ends the verification. So does more than a total
//! that whoever asks can choose.

use std::env;
use std::fs;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ureq::http::StatusCode;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};
use ureq::{Agent, Body};

use crate::verify::{Source, SourceError};

/// Most redirections followed for one file.
const REDIRECTS_MAX: u32 = 3;

/// Longest head of an answer, in bytes.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// Largest file of certificates read, in bytes.
const CERTIFICATES_BYTES_MAX: u64 = 16 << 20;

/// Where systems keep the authorities that they trust; the first that is there counts, after `SSL_CERT_FILE`.
const AUTHORITIES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// What a server may take: time and room.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// To take a connection.
    pub connect: Duration,
    /// For one file, from the request to the last byte.
    pub file: Duration,
    /// Most bytes taken from the server in all, from the first file to the last: each file has a limit, how many a server
    /// says that there are has none.
    pub bytes_max: u64,
}

/// Most bytes taken from a server, if nothing else is asked for: a log of more than 100,000,000 entries.
pub const DOWNLOAD_BYTES_MAX: u64 = 64 << 30;

impl Default for Patience {
    fn default() -> Self {
        Self { connect: Duration::from_secs(10), file: Duration::from_secs(60), bytes_max: DOWNLOAD_BYTES_MAX }
    }
}

/// Why an address cannot be read from.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// Not an address of a log.
    #[error("{address:?} is not the address of a log: {reason}")]
    Address {
        /// The address.
        address: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The system's authorities could not be read.
    #[error("cannot read the certificates of authorities in {path}")]
    Authorities {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// Whether this names a web server and not a path.
#[must_use]
pub fn is_address(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

/// A log on a web server.
#[derive(Debug, Clone)]
pub struct WebServer {
    agent: Agent,
    base: String,
    /// Bytes that may still be taken, of so many.
    left: u64,
    bytes_max: u64,
}

impl WebServer {
    /// The log at this address: `http://` or `https://`, without query or fragment. Nothing is asked of the server yet.
    ///
    /// # Errors
    /// [`HttpError`].
    pub fn open(address: &str, patience: Patience) -> Result<Self, HttpError> {
        let wrong = |reason| HttpError::Address { address: address.chars().take(256).collect(), reason };
        if !is_address(address) {
            return Err(wrong("it begins neither with http:// nor with https://"));
        }
        if address.contains(['?', '#', '@']) || address.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(wrong("it has a query, a fragment, a user or white space"));
        }
        let config = Agent::config_builder()
            .tls_config(tls(address.starts_with("https://"))?)
            .http_status_as_error(false)
            .max_redirects(REDIRECTS_MAX)
            .max_redirects_will_error(true)
            .max_response_header_size(HEAD_BYTES_MAX)
            .timeout_connect(Some(patience.connect))
            .timeout_global(Some(patience.file))
            .user_agent(concat!("affiant-verify/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Self {
            agent: config.new_agent(),
            base: address.trim_end_matches('/').to_owned(),
            left: patience.bytes_max,
            bytes_max: patience.bytes_max,
        })
    }

    /// The evidence bundle at this very address.
    ///
    /// # Errors
    /// [`SourceError`].
    pub fn bundle(&self) -> Result<impl Read, SourceError> {
        let failed = |reason: &str| SourceError { path: self.base.clone(), reason: reason.to_owned() };
        let body = self.get(&self.base)?.ok_or_else(|| failed("the server has no such file"))?;
        // One more than may be taken, so that the count is what ends it, with a sentence of its own.
        let reader = body.into_with_config().limit(self.left.saturating_add(1)).reader();
        Ok(Counted { reader, left: self.left, bytes_max: self.bytes_max })
    }

    /// What the server has at an address; nothing when it says that there is nothing.
    fn get(&self, address: &str) -> Result<Option<Body>, SourceError> {
        let failed = |reason: String| SourceError { path: address.to_owned(), reason };
        let answer = self.agent.get(address).call().map_err(|error| failed(error.to_string()))?;
        match answer.status() {
            StatusCode::OK => Ok(Some(answer.into_body())),
            StatusCode::NOT_FOUND | StatusCode::GONE => Ok(None),
            other => Err(failed(format!("the server answers {other}"))),
        }
    }
}

impl Source for WebServer {
    fn read(&mut self, path: &str, bytes_max: usize) -> Result<Option<Vec<u8>>, SourceError> {
        let address = format!("{}/{}", self.base, escaped(path));
        let Some(body) = self.get(&address)? else { return Ok(None) };
        let failed = |reason: String| SourceError { path: address.clone(), reason };
        let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).min(self.left);
        let expected = body.content_length();
        let mut bytes = Vec::new();
        let mut reader = body.into_with_config().limit(limit.saturating_add(1)).reader().take(limit.saturating_add(1));
        reader.read_to_end(&mut bytes).map_err(|error| failed(error.to_string()))?;
        if bytes.len() > bytes_max {
            return Err(failed(format!("longer than {bytes_max} bytes")));
        }
        self.left = self.left.checked_sub(bytes.len() as u64).ok_or_else(|| failed(too_much(self.bytes_max)))?;
        if expected.is_some_and(|expected| expected != bytes.len() as u64) {
            return Err(failed(format!("{} bytes came, {expected:?} were announced", bytes.len())));
        }
        Ok(Some(bytes))
    }
}

/// What is said when the total is reached.
fn too_much(bytes_max: u64) -> String {
    format!(
        "more than {bytes_max} bytes in all were taken from this server: ask for more with --max-download-mib, or copy the log"
    )
}

/// The body of an answer, up to what may be taken.
struct Counted<R> {
    reader: R,
    left: u64,
    bytes_max: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.left = self
            .left
            .checked_sub(read as u64)
            .ok_or_else(|| io::Error::new(io::ErrorKind::FileTooLarge, too_much(self.bytes_max)))?;
        Ok(read)
    }
}

/// A path of the log as a part of an address.
fn escaped(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' | b'~' => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

fn tls(needed: bool) -> Result<TlsConfig, HttpError> {
    let authorities = if needed { authorities()? } else { Vec::new() };
    Ok(TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(Arc::new(rustls_graviola::default_provider()))
        .root_certs(RootCerts::new_with_certs(&authorities))
        .build())
}

/// The authorities that this system trusts.
#[expect(clippy::disallowed_methods, reason = "SSL_CERT_FILE is where every TLS library looks first")]
fn authorities() -> Result<Vec<Certificate<'static>>, HttpError> {
    let named = env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let known = || AUTHORITIES.iter().map(PathBuf::from).find(|path| path.exists());
    let path = named.or_else(known).unwrap_or_else(|| PathBuf::from("SSL_CERT_FILE"));
    let failed = |source| HttpError::Authorities { path: path.clone(), source };
    let mut pem = Vec::new();
    fs::File::open(&path).and_then(|file| file.take(CERTIFICATES_BYTES_MAX).read_to_end(&mut pem)).map_err(failed)?;
    let found: Vec<_> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if found.is_empty() {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidData, "no certificate in it")));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_address_of_a_directory_is_taken() {
        for address in ["ftp://a/", "http://a/?x", "http://a/#x", "http://u@a/", "http://a/ b", "/var/lib"] {
            assert!(
                matches!(WebServer::open(address, Patience::default()), Err(HttpError::Address { .. })),
                "{address}"
            );
        }
        assert_eq!(WebServer::open("http://a/log//", Patience::default()).unwrap().base, "http://a/log");
    }

    #[test]
    fn what_a_path_may_hold_beyond_letters_is_escaped() {
        assert_eq!(escaped("tile/0/x001/234.p/7"), "tile/0/x001/234.p/7");
        assert_eq!(escaped("a b%ü?"), "a%20b%25%C3%BC%3F");
    }
}
