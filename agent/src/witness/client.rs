//! One HTTP request to a witness: POST, one answer, within a time and a size.

use std::io;
use std::time::Duration;

use agent_evidence::witness::{ADD_CHECKPOINT, ANSWER_BYTES_MAX, Answer};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Longest time for one request, connecting included.
const TIME_MAX: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Not an address that can be asked.
    #[error(
        "{url:?} is not the address of a witness: expected http://HOST[:PORT][/PREFIX] (https: put a TLS proxy in between)"
    )]
    Url {
        /// What was configured.
        url: String,
    },
    /// Nobody is there.
    #[error("cannot connect to {authority}: {source}")]
    Connect {
        /// Host and port.
        authority: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// What came is not HTTP, or broke off.
    #[error("no answer: {0}")]
    Http(#[from] hyper::Error),
    /// The answer is too large, or broke off.
    #[error("no whole answer: {0}")]
    Body(String),
    /// No answer in time.
    #[error("no answer within {} seconds", TIME_MAX.as_secs())]
    Late,
}

/// The submission prefix of a witness.
#[derive(Debug, Clone)]
pub struct WitnessUrl {
    authority: String,
    /// Host and port to connect to.
    address: (String, u16),
    path: String,
}

impl WitnessUrl {
    /// Reads `http://HOST[:PORT][/PREFIX]`.
    ///
    /// # Errors
    /// [`ClientError::Url`].
    pub fn parse(url: &str) -> Result<Self, ClientError> {
        let refused = || ClientError::Url { url: url.to_owned() };
        let uri: Uri = url.parse().map_err(|_malformed| refused())?;
        let (Some("http"), Some(authority), None) = (uri.scheme_str(), uri.authority(), uri.query()) else {
            return Err(refused());
        };
        if authority.as_str().contains('@') {
            return Err(refused());
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self {
            authority: authority.as_str().to_owned(),
            address: (host, authority.port_u16().unwrap_or(80)),
            path: format!("{}/{ADD_CHECKPOINT}", uri.path().trim_end_matches('/')),
        })
    }
}

/// Posts a request and gives the answer. Nothing in it is verified.
///
/// # Errors
/// [`ClientError`] when there is no whole answer.
pub async fn post(url: &WitnessUrl, body: String) -> Result<Answer, ClientError> {
    tokio::time::timeout(TIME_MAX, exchange(url, body)).await.map_err(|_late| ClientError::Late)?
}

async fn exchange(url: &WitnessUrl, body: String) -> Result<Answer, ClientError> {
    let (host, port) = (url.address.0.as_str(), url.address.1);
    let stream = TcpStream::connect((host, port))
        .await
        .map_err(|source| ClientError::Connect { authority: url.authority.clone(), source })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let mut request = Request::new(Full::new(Bytes::from(body)));
    *request.method_mut() = hyper::Method::POST;
    let malformed = || ClientError::Url { url: url.authority.clone() };
    *request.uri_mut() = url.path.parse().map_err(|_malformed| malformed())?;
    let host = HeaderValue::from_str(&url.authority).map_err(|_malformed| malformed())?;
    request.headers_mut().insert(HOST, host);
    let answered = async move {
        let answer = sender.send_request(request).await?;
        let status = answer.status().as_u16();
        let kind = answer.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).map(str::to_owned);
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| ClientError::Body(error.to_string()))?.to_bytes();
        Ok(Answer::read(status, kind.as_deref(), &body))
    };
    // The connection must be driven beside the request; it may end first, when the answer is already whole.
    let mut answered = std::pin::pin!(answered);
    tokio::select! {
        answer = &mut answered => answer,
        ended = connection => match ended {
            Ok(()) => answered.await,
            Err(error) => Err(error.into()),
        },
    }
}
