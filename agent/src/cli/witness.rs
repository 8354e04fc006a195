//! `affiant witness`: a small witness for a site, and the exchange with one by files.
#![forbid(unsafe_code)]

use std::fs::{self, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use agent_evidence::checkpoint::Checkpoint;
use agent_evidence::cosignature::WitnessKey;
use agent_evidence::note::VerifierKey;
use agent_evidence::record::TreeSize;
use agent_evidence::witness::{AddCheckpoint, REQUEST_BYTES_MAX};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::cli::args::{WitnessCommand, WitnessServe};
use crate::cli::clock;
use crate::cli::exit::{self, Exit};
use crate::cli::output::{Lines as _, Output, complain};
use crate::session::client::{Client, ClientError};
use crate::session::protocol::{Reply, Request, SessionError};
use crate::witness::keeper::{KeepError, Keeper, SigningWitness};
use crate::witness::server;
use crate::witness::submit::{self, SubmitError};

/// Does what was asked on the witness's or the log's side.
///
/// # Errors
/// Usage (64), input that cannot be used (65), a place that cannot be (69), and evidence of a fault (70).
pub fn witness(
    log: &Path,
    state: Option<&Path>,
    socket: Option<&Path>,
    command: &WitnessCommand,
    out: &mut Output,
) -> Result<u8, Exit> {
    match command {
        WitnessCommand::Init { name, key } => {
            let made = SigningWitness::create(key, name).map_err(|error| keep_exit(&error))?;
            out.line(&made.verifier().to_string())?;
        }
        WitnessCommand::ExportRequest { output, vkey, old } => {
            let key = vkey.as_deref().map(witness_key).transpose()?;
            let request = submit::export(log, key.as_ref(), old.map(TreeSize)).map_err(|error| submit_exit(&error))?;
            put(output.as_deref(), request.as_bytes(), out)?;
        }
        WitnessCommand::Cosign { file, output, keeper } => {
            let bytes = read(file)?;
            let request = AddCheckpoint::parse(&bytes)
                .map_err(|error| Exit::new(exit::DATA, format!("{} is no request: {error}", file.display())))?;
            let mut keeper = open(keeper, state)?;
            let line = keeper.add(&request, clock::now_ns() / 1_000_000_000).map_err(|error| keep_exit(&error))?;
            let mut note = request.note;
            note.signatures.push(line);
            put(output.as_deref(), note.to_text().as_bytes(), out)?;
        }
        WitnessCommand::Import { file, vkey } => {
            let key = witness_key(vkey)?;
            let bytes = read(file)?;
            let (checkpoint, _) = Checkpoint::parse(&bytes).map_err(|error| submit_exit(&error.into()))?;
            if !told(socket, vkey, &bytes)? {
                submit::import(log, &key, file, &bytes).map_err(|error| submit_exit(&error))?;
                complain(
                    "no daemon runs: it is kept and proves what it proves, and the log gets no `witness` entry for it",
                );
            }
            out.line(&format!("{} cosigned {} entries", key.name().as_str(), checkpoint.size.0))?;
        }
    }
    Ok(0)
}

/// Has the running daemon check, keep and record a cosigned checkpoint; whether one runs.
fn told(socket: Option<&Path>, vkey: &str, bytes: &[u8]) -> Result<bool, Exit> {
    let mut client = match socket.map(Client::connect) {
        Some(Ok(client)) => client,
        None | Some(Err(ClientError::NoDaemon { .. })) => return Ok(false),
        Some(Err(error)) => return Err(error.into()),
    };
    let note = String::from_utf8_lossy(bytes).into_owned();
    match client.ask(&Request::ImportWitness { vkey: vkey.to_owned(), note }) {
        Ok(Reply::Done {}) => Ok(true),
        Ok(_) => Err(ClientError::Mismatch.into()),
        // What is wrong is wrong with the file.
        Err(ClientError::Failed(error @ SessionError::BadRequest { .. })) => Err(Exit::new(exit::DATA, error)),
        Err(error) => Err(error.into()),
    }
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// The key, state or address cannot be used.
pub fn serve(wish: &WitnessServe, state: Option<&Path>) -> Result<u8, Exit> {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new("info"))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let keeper = open(wish, state)?;
    let unavailable =
        |what: &str, error: std::io::Error| Exit::new(exit::UNAVAILABLE, format!("cannot {what}: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| unavailable("start the runtime", error))?;
    runtime.block_on(async {
        let listen = wish.listen.as_str();
        let listener = tokio::net::TcpListener::bind(listen)
            .await
            .map_err(|error| unavailable(&format!("listen on {listen}"), error))?;
        let address = listener.local_addr().map_err(|error| unavailable("find the address", error))?;
        let mut terminate = signal(SignalKind::terminate()).map_err(|error| unavailable("wait for SIGTERM", error))?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| unavailable("wait for SIGINT", error))?;
        complain(&format!("witness {} listens on http://{address}/", keeper.verifier()));
        let stop = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        server::serve(listener, keeper, Arc::new(|| clock::now_ns() / 1_000_000_000), stop).await;
        Ok(0)
    })
}

fn open(wish: &WitnessServe, state: Option<&Path>) -> Result<Keeper, Exit> {
    // The agent's own state directory is no default: a witness of the host's own log on the host proves nothing.
    let state =
        state.ok_or_else(|| Exit::new(exit::USAGE, "witness: name with --state where it keeps what it cosigned"))?;
    let logs: Result<Vec<VerifierKey>, Exit> = wish
        .logs
        .iter()
        .map(|log| VerifierKey::parse(log).map_err(|error| Exit::new(exit::USAGE, format!("--log: {error}"))))
        .collect();
    let key = SigningWitness::load(&wish.key).map_err(|error| keep_exit(&error))?;
    Keeper::open(state, key, logs?).map_err(|error| keep_exit(&error))
}

fn witness_key(vkey: &str) -> Result<WitnessKey, Exit> {
    WitnessKey::parse(vkey).map_err(|error| Exit::new(exit::USAGE, format!("--vkey: {error}")))
}

fn keep_exit(error: &KeepError) -> Exit {
    let code = match error {
        KeepError::Refused(_) => exit::REFUSED,
        KeepError::Name(_) => exit::USAGE,
        KeepError::Key { .. } => exit::DATA,
        KeepError::Io { .. } | KeepError::Locked(_) | KeepError::Random(_) => exit::UNAVAILABLE,
        KeepError::Memory { .. } | KeepError::Poisoned | KeepError::Cosign(_) => exit::SOFTWARE,
    };
    Exit::in_full(code, error)
}

fn submit_exit(error: &SubmitError) -> Exit {
    let code = match error {
        SubmitError::Directory(_) | SubmitError::NoCheckpoint | SubmitError::Kept(_) => exit::UNAVAILABLE,
        _ => exit::DATA,
    };
    Exit::in_full(code, error)
}

fn read(path: &Path) -> Result<Vec<u8>, Exit> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(REQUEST_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    let done = fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes));
    done.map_err(|error| Exit::new(exit::DATA, format!("cannot read {}: {error}", path.display())))?;
    Ok(bytes)
}

/// Into a new file, or to standard output.
fn put(path: Option<&Path>, bytes: &[u8], out: &mut Output) -> Result<(), Exit> {
    let Some(path) = path else { return out.bytes(bytes) };
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(path)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
    written.map_err(|error| Exit::new(exit::USAGE, format!("cannot write {}: {error}", path.display())))
}
