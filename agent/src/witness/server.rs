//! A witness behind HTTP: `POST /add-checkpoint` and, for monitors, `GET /<hex SHA-256 of an origin>/checkpoint`.
//!
//! Everybody may ask; nothing but a checkpoint that a known log signed has an effect. Bounded: connections, bytes of a
//! request, and the time one may take.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use agent_evidence::witness::{ADD_CHECKPOINT, AddCheckpoint, REQUEST_BYTES_MAX, Refusal, cosigned_body};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::keeper::{KeepError, Keeper};

/// Most connections at once; further ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 64;
/// Longest time for the head of a request, and for its body.
const READ_TIME_MAX: Duration = Duration::from_secs(10);
/// Longest life of a connection: an idle one must not keep its place.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(120);

/// Where the witness gets the time: seconds since 1970.
pub type Now = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Serves until `stop` is done.
pub async fn serve(listener: TcpListener, keeper: Keeper, now: Now, stop: impl Future<Output = ()>) {
    let keeper = Arc::new(Mutex::new(keeper));
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut stop = std::pin::pin!(stop);
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors: what is open ends by itself in a while.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (keeper, now) = (Arc::clone(&keeper), Arc::clone(&now));
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(Arc::clone(&keeper), Arc::clone(&now), peer, request));
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(READ_TIME_MAX)
                .serve_connection(TokioIo::new(stream), service);
            if let Ok(Err(error)) = tokio::time::timeout(CONNECTION_TIME_MAX, connection).await {
                tracing::debug!(%peer, %error, "connection ended");
            }
            drop(place);
        });
    }
}

type Answer = Response<Full<Bytes>>;

async fn answer(
    keeper: Arc<Mutex<Keeper>>,
    now: Now,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Result<Answer, std::convert::Infallible> {
    let path = request.uri().path().trim_start_matches('/').to_owned();
    Ok(match (request.method(), path == ADD_CHECKPOINT) {
        (&Method::POST, true) => {
            let body = Limited::new(request.into_body(), REQUEST_BYTES_MAX).collect();
            match tokio::time::timeout(READ_TIME_MAX, body).await {
                Ok(Ok(body)) => add(keeper, now, peer, body.to_bytes()).await,
                Ok(Err(error)) => plain(StatusCode::BAD_REQUEST, &format!("cannot read the request: {error}\n")),
                Err(_late) => plain(StatusCode::REQUEST_TIMEOUT, "the request took too long\n"),
            }
        }
        (&Method::GET, false) => {
            let shown = keeper.lock().unwrap_or_else(PoisonError::into_inner).shown(&path);
            match shown {
                Ok(Some(bytes)) => Response::new(Full::new(Bytes::from(bytes))),
                Ok(None) => plain(StatusCode::NOT_FOUND, "nothing is here\n"),
                Err(error) => fault(&error),
            }
        }
        (_, true) => plain(StatusCode::METHOD_NOT_ALLOWED, "POST a checkpoint here (C2SP tlog-witness)\n"),
        (_, false) => plain(StatusCode::NOT_FOUND, "nothing is here\n"),
    })
}

async fn add(keeper: Arc<Mutex<Keeper>>, now: Now, peer: SocketAddr, body: Bytes) -> Answer {
    let request = match AddCheckpoint::parse(&body) {
        Ok(request) => request,
        Err(error) => return refused(&Refusal::Malformed(error)),
    };
    let (origin, size) = (request.checkpoint.origin.as_str().to_owned(), request.checkpoint.size.0);
    // Judging and remembering are one step, with an fsync in it: off the runtime's thread, one request at a time. A panic of
    // another request leaves the keeper as it was or poisoned by itself.
    let kept = tokio::task::spawn_blocking(move || {
        let mut keeper = keeper.lock().unwrap_or_else(PoisonError::into_inner);
        keeper.add(&request, now())
    });
    match kept.await {
        Ok(Ok(line)) => {
            tracing::info!(%peer, origin, size, "cosigned");
            Response::new(Full::new(Bytes::from(cosigned_body(&[line]))))
        }
        Ok(Err(KeepError::Refused(refusal))) => {
            if refusal.is_conflict() {
                tracing::error!(%peer, origin, size, %refusal, "THE LOG SIGNED TWO HISTORIES; the request is kept");
            } else {
                tracing::info!(%peer, %refusal, "refused");
            }
            refused(&refusal)
        }
        Ok(Err(error)) => fault(&error),
        Err(_panicked) => plain(StatusCode::INTERNAL_SERVER_ERROR, "the witness failed\n"),
    }
}

fn refused(refusal: &Refusal) -> Answer {
    let (kind, body) = refusal.answer();
    let status = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    with_type(status, kind, &body)
}

fn fault(error: &KeepError) -> Answer {
    tracing::error!(%error, cause = std::error::Error::source(error).map(tracing::field::display), "cannot work");
    plain(StatusCode::INTERNAL_SERVER_ERROR, "the witness cannot work; its operator's log says why\n")
}

fn plain(status: StatusCode, body: &str) -> Answer {
    with_type(status, "text/plain; charset=utf-8", body)
}

fn with_type(status: StatusCode, kind: &'static str, body: &str) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body.to_owned())));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}
