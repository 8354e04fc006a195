//! The log's side of witnessing: asks each witness to cosign the newest checkpoint, keeps what it cosigned beside the log,
//! and has every answer that says something recorded.
//!
//! A thread of its own, so that no witness, however slow, makes anything else wait. Nothing queues up: what is submitted is
//! always the newest checkpoint, and where a witness stands is what is kept of it, `witness/<hex>/checkpoint` in the log's
//! directory, replaced durably. An answer is believed only as far as its signature holds. For hosts without a network the
//! same exchange goes by files: [`export`] and [`import`].

use std::path::{Path, PathBuf};
use std::time::Duration;

use agent_evidence::checkpoint::{Checkpoint, CheckpointError};
use agent_evidence::command::{CommandError, Directory};
use agent_evidence::cosignature::{CosignatureError, WitnessKey};
use agent_evidence::note::{NOTE_BYTES_MAX, Note, SignatureLine};
use agent_evidence::prove::{ProveError, consistency};
use agent_evidence::record::{RootHash, TreeSize, WallTime, WitnessOutcome};
use agent_evidence::verify::{Source as _, SourceError};
use agent_evidence::witness::{AddCheckpoint, Answer, stored_path};
use tokio::sync::oneshot;

use super::client::{ClientError, WitnessUrl, post};
use super::keeper::KeepError;
use super::{ensure_directory, replace};
use crate::pipeline::PipelineHandle;

/// Longest pause after failures.
const PAUSE_MAX: Duration = Duration::from_secs(15 * 60);
/// Shortest pause after a failure.
const PAUSE_MIN: Duration = Duration::from_secs(5);

/// Why a checkpoint could not be submitted, or an answer not be used.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The log's directory.
    #[error("{}", .0.in_full())]
    Directory(#[from] CommandError),
    /// A file of the log.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// There is nothing to submit.
    #[error("there is no checkpoint yet")]
    NoCheckpoint,
    /// The log's checkpoint is none.
    #[error("the log's checkpoint cannot be used")]
    Checkpoint(#[from] CheckpointError),
    /// What is kept of a witness is damaged, or cannot be replaced.
    #[error("cannot use what is kept of the witness")]
    Kept(#[from] KeepError),
    /// No consistency proof.
    #[error("cannot prove that the log continues what the witness cosigned")]
    Prove(#[from] ProveError),
    /// No answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The answer's cosignature does not hold.
    #[error("the answer is not a cosignature of the configured key")]
    Cosignature(#[from] CosignatureError),
    /// The answer has no line of the configured key.
    #[error("the answer has no cosignature by {name}: is the configured verifier key the witness's?")]
    NotSigned {
        /// Name of the key.
        name: String,
    },
    /// A file of cosignatures that is none.
    #[error("{path} holds no cosignature on a checkpoint that this log has: {why}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: &'static str,
    },
}

/// A witness to ask.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Its key.
    pub key: WitnessKey,
    /// Where it is.
    pub url: WitnessUrl,
    /// How often it is asked.
    pub interval: Duration,
}

/// What there is to record of an exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// What the witness answered.
    pub outcome: WitnessOutcome,
    /// Name of its key.
    pub name: String,
    /// Size of the checkpoint.
    pub size: TreeSize,
    /// Its root hash.
    pub root: RootHash,
    /// When it cosigned, as it says.
    pub time: Option<WallTime>,
    /// The cosignature.
    pub line: Option<String>,
    /// Why it did not.
    pub detail: Option<String>,
}

impl Said {
    fn new(outcome: WitnessOutcome, key: &WitnessKey, checkpoint: &Checkpoint) -> Self {
        Self {
            outcome,
            name: key.name().as_str().to_owned(),
            size: checkpoint.size,
            root: checkpoint.root,
            time: None,
            line: None,
            detail: None,
        }
    }

    fn because(self, detail: String) -> Self {
        Self { detail: Some(detail), ..self }
    }

    /// Whether it says the same as an earlier one, of whatever checkpoint.
    fn repeats(&self, earlier: &Self) -> bool {
        self.outcome == earlier.outcome && self.name == earlier.name && self.detail == earlier.detail
    }
}

/// The log's newest checkpoint.
fn newest(log: &mut Directory) -> Result<(Checkpoint, Note), SubmitError> {
    let bytes = log.read("checkpoint", NOTE_BYTES_MAX)?.ok_or(SubmitError::NoCheckpoint)?;
    Ok(Checkpoint::parse(&bytes)?)
}

/// The size that a witness cosigned last, as far as is known here.
fn cosigned_size(directory: &Path, key: &WitnessKey) -> Result<TreeSize, SubmitError> {
    let kept = super::keeper::read_checkpoint(&directory.join(stored_path(key.name())))?;
    Ok(kept.map_or(TreeSize(0), |(checkpoint, _)| checkpoint.size))
}

/// Asks a witness to cosign the newest checkpoint. Nothing to say when it has cosigned it already.
///
/// # Errors
/// [`SubmitError`] when nothing came of it that would be worth a record.
pub async fn submit(directory: &Path, key: &WitnessKey, url: &WitnessUrl) -> Result<Option<Said>, SubmitError> {
    let mut log = Directory::open(directory)?;
    let (checkpoint, note) = newest(&mut log)?;
    let mut old = cosigned_size(directory, key)?;
    if old == checkpoint.size {
        return Ok(None);
    }
    // The second time with the size that the witness itself named.
    for _ in 0..2 {
        if old > checkpoint.size {
            let said = Said::new(WitnessOutcome::Conflict, key, &checkpoint);
            return Ok(Some(
                said.because(format!("it cosigned {} entries, this log has {}", old.0, checkpoint.size.0)),
            ));
        }
        let proof = consistency(&mut log, old, checkpoint.size)?;
        let request = AddCheckpoint { old, proof, checkpoint: checkpoint.clone(), note: note.clone() };
        match post(url, request.to_text()).await? {
            Answer::Cosigned(lines) => return keep(directory, key, &checkpoint, note, lines).map(Some),
            Answer::Stale { known } => old = known,
            Answer::Conflict { detail } => {
                return Ok(Some(Said::new(WitnessOutcome::Conflict, key, &checkpoint).because(detail)));
            }
            Answer::Refused { status, detail } => {
                let said = Said::new(WitnessOutcome::Refused, key, &checkpoint);
                return Ok(Some(said.because(format!("{status}: {detail}"))));
            }
            other => {
                let said = Said::new(WitnessOutcome::Refused, key, &checkpoint);
                return Ok(Some(said.because(format!("an answer that is not understood: {other:?}"))));
            }
        }
    }
    let said = Said::new(WitnessOutcome::Refused, key, &checkpoint);
    Ok(Some(said.because(format!("409: it names {} as the size that it knows, and refuses that too", old.0))))
}

/// Keeps a checkpoint with the cosignatures of a witness, once they are found to hold.
fn keep(
    directory: &Path,
    key: &WitnessKey,
    checkpoint: &Checkpoint,
    mut note: Note,
    lines: Vec<SignatureLine>,
) -> Result<Said, SubmitError> {
    let name = key.name().as_str().to_owned();
    let own = |line: &SignatureLine| line.name == *key.name() && line.id == key.id();
    // Cosignatures of unknown keys are ignored, and old ones of this key replaced.
    note.signatures.retain(|line| !own(line));
    note.signatures.extend(lines.into_iter().filter(own));
    let cosignature = key.cosigned(&note)?.ok_or(SubmitError::NotSigned { name })?;
    let path = directory.join(stored_path(key.name()));
    let written = path.parent().map_or(Ok(()), |parent| {
        parent.parent().map_or(Ok(()), ensure_directory).and_then(|()| ensure_directory(parent))
    });
    written.and_then(|()| replace(&path, note.to_text().as_bytes())).map_err(|source| KeepError::Io {
        what: "replace",
        path,
        source,
    })?;
    let line = note.signatures.iter().rev().find(|line| own(line)).map(ToString::to_string);
    let time = WallTime(cosignature.timestamp.saturating_mul(1_000_000_000));
    Ok(Said { time: Some(time), line, ..Said::new(WitnessOutcome::Cosigned, key, checkpoint) })
}

/// Most witnesses whose cosigned checkpoints are copied.
const COPIED_MAX: usize = 256;

/// Copies what witnesses cosigned beside a copy of the log that covers `size` entries, and gives how many. What covers more
/// is left out: a reader would take the copy for a log that was cut.
///
/// # Errors
/// [`SubmitError::Kept`] when a copy cannot be written. What cannot be read is left out, as a verifier would.
pub fn copy_cosigned(from: &Path, to: &Path, size: TreeSize) -> Result<usize, SubmitError> {
    let mut source = Directory::open(from)?;
    let Ok(names) = std::fs::read_dir(from.join("witness")) else { return Ok(0) };
    let mut copied = 0;
    for name in names.filter_map(|name| name.ok()?.file_name().into_string().ok()).take(COPIED_MAX) {
        let path = format!("witness/{name}/checkpoint");
        let Some(bytes) = source.read(&path, NOTE_BYTES_MAX).ok().flatten() else { continue };
        if !Checkpoint::parse(&bytes).is_ok_and(|(checkpoint, _)| checkpoint.size <= size) {
            continue;
        }
        let path = to.join(path);
        ensure_directory(&to.join("witness"))
            .and_then(|()| ensure_directory(&to.join("witness").join(&name)))
            .and_then(|()| replace(&path, &bytes))
            .map_err(|source| KeepError::Io { what: "copy to", path, source })?;
        copied += 1;
    }
    Ok(copied)
}

/// The request for a witness that is reached by files: that the newest checkpoint continues `old`, the size that the
/// witness knows (what is kept here of it, if not named).
///
/// # Errors
/// [`SubmitError`].
pub fn export(directory: &Path, key: Option<&WitnessKey>, old: Option<TreeSize>) -> Result<String, SubmitError> {
    let mut log = Directory::open(directory)?;
    let (checkpoint, note) = newest(&mut log)?;
    let old = match (old, key) {
        (Some(old), _) => old,
        (None, Some(key)) => cosigned_size(directory, key)?,
        (None, None) => TreeSize(0),
    };
    let proof = consistency(&mut log, old, checkpoint.size)?;
    Ok(AddCheckpoint { old, proof, checkpoint, note }.to_text())
}

/// Keeps what a witness cosigned, from a file with the cosigned checkpoint. The log must have that root at that size.
///
/// # Errors
/// [`SubmitError`].
pub fn import(directory: &Path, key: &WitnessKey, path: &Path, bytes: &[u8]) -> Result<Said, SubmitError> {
    let wrong = |why| SubmitError::File { path: path.to_owned(), why };
    let (checkpoint, note) = Checkpoint::parse(bytes)?;
    let mut log = Directory::open(directory)?;
    let (current, _) = newest(&mut log)?;
    if checkpoint.origin != current.origin {
        return Err(wrong("it is of another log"));
    }
    if checkpoint.size > current.size {
        return Err(wrong("it covers more entries than the log has: the log was cut or rolled back"));
    }
    if agent_evidence::prove::root(&mut log, checkpoint.size, current.size)? != checkpoint.root {
        return Err(wrong("the log has another root hash at that size: two histories"));
    }
    if checkpoint.size < cosigned_size(directory, key)? {
        return Err(wrong("a newer one by the same witness is kept already"));
    }
    let lines = note.signatures.clone();
    keep(directory, key, &checkpoint, note, lines)
}

/// The thread that asks. Dropping it ends it without waiting; [`Submitter::stop`] waits.
pub struct Submitter {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Submitter {
    /// Starts to ask these witnesses about the log in `directory`.
    ///
    /// # Errors
    /// No thread or runtime can be had.
    pub fn start(directory: PathBuf, witnesses: Vec<Asked>, pipeline: PipelineHandle) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("witnesses".to_owned()).spawn(move || {
            runtime.block_on(async move {
                let asking = witnesses.into_iter().map(|asked| ask(&directory, asked, &pipeline));
                tokio::select! {
                    _ = stopped => {}
                    () = all(asking) => {}
                }
            });
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }

    /// Ends it; a request on its way is given up.
    pub fn stop(mut self) {
        if let Some(stop) = self.stop.take() {
            // An error says that the thread has ended already.
            let _ended: Result<(), ()> = stop.send(());
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that asks witnesses panicked");
        }
    }
}

/// Runs futures side by side on this thread; they never end.
async fn all<F: Future<Output = ()>>(futures: impl Iterator<Item = F>) {
    let mut futures: Vec<_> = futures.map(Box::pin).collect();
    std::future::poll_fn(|context| {
        for future in &mut futures {
            let _pending = future.as_mut().poll(context);
        }
        std::task::Poll::Pending
    })
    .await
}

/// Asks one witness for ever.
async fn ask(directory: &Path, asked: Asked, pipeline: &PipelineHandle) {
    let Asked { key, url, interval } = asked;
    let name = key.name().as_str().to_owned();
    let mut recorded: Option<Said> = None;
    let mut failures = 0_u32;
    loop {
        let pause = match submit(directory, &key, &url).await {
            Ok(said) => {
                let good = said.as_ref().is_none_or(|said| said.outcome == WitnessOutcome::Cosigned);
                if let Some(said) = said {
                    tracing::info!(
                        witness = name,
                        size = said.size.0,
                        outcome = said.outcome.as_str(),
                        detail = said.detail,
                        "witness"
                    );
                    // Cosignatures are each worth a record; a refusal once, however often it is repeated.
                    let new = good || !recorded.as_ref().is_some_and(|earlier| said.repeats(earlier));
                    if new && let Err(error) = pipeline.witness_said(said.clone()).await {
                        tracing::warn!(witness = name, %error, "what a witness said could not be recorded");
                    } else {
                        recorded = Some(said);
                    }
                }
                failures = if good { 0 } else { failures.saturating_add(1) };
                interval
            }
            Err(error) => {
                failures = failures.saturating_add(1);
                let cause = std::error::Error::source(&error).map(tracing::field::display);
                tracing::warn!(witness = name, %error, cause, failures, "no cosignature");
                PAUSE_MIN
            }
        };
        tokio::time::sleep(backed_off(pause, failures)).await;
    }
}

/// The pause after so many failures in a row: doubled for each, up to a quarter of an hour.
fn backed_off(pause: Duration, failures: u32) -> Duration {
    if failures == 0 {
        return pause;
    }
    pause.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1).min(16))).min(PAUSE_MAX.max(pause))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;

    use agent_evidence::fixture::Builder;
    use agent_evidence::note::VerifierKey;
    use agent_evidence::tree::TILE_WIDTH;
    use agent_evidence::verify::{Claim, Options, Outcome};

    use super::*;
    use crate::witness::keeper::{Keeper, SigningWitness};
    use crate::witness::server;

    /// A log of so many more entries than the shortest, in a directory.
    fn write(at: &Path, more: u64, fork: bool) -> Builder {
        let mut log = Builder::new().unwrap();
        if fork {
            log.append(Builder::armed());
        }
        for _ in 0..more {
            log.append(Builder::workload());
        }
        for (path, bytes) in log.files().unwrap().0 {
            let path = at.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        log
    }

    /// A real witness on a port of this machine.
    async fn witness(at: &Path, log: &VerifierKey) -> (WitnessKey, WitnessUrl, SocketAddr) {
        let signing = SigningWitness::create(&at.join("key"), "witness.example/w1").unwrap();
        let keeper = Keeper::open(&at.join("state"), signing, vec![log.clone()]).unwrap();
        let key = keeper.verifier();
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(server::serve(listener, keeper, Arc::new(|| 1_800_000_000), std::future::pending()));
        (key, WitnessUrl::parse(&format!("http://{address}/")).unwrap(), address)
    }

    #[tokio::test]
    async fn a_growing_log_is_cosigned_and_verifies_as_witnessed() {
        let at = tempfile::tempdir().unwrap();
        let log_at = at.path().join("log");
        let log = write(&log_at, 3, false);
        let (key, url, _) = witness(at.path(), &log.trust().unwrap().log_key).await;
        let said = submit(&log_at, &key, &url).await.unwrap().unwrap();
        assert_eq!((said.outcome, said.time), (WitnessOutcome::Cosigned, Some(WallTime(1_800_000_000_000_000_000))));
        assert_eq!(submit(&log_at, &key, &url).await.unwrap(), None, "nothing new");
        // Further than one tile.
        let log = write(&log_at, 2 * TILE_WIDTH as u64, false);
        submit(&log_at, &key, &url).await.unwrap().unwrap();
        let mut trust = log.trust().unwrap();
        trust.believe(&format!("witness w {key}\nquorum w\n")).unwrap();
        let report =
            agent_evidence::verify::verify(&mut Directory::open(&log_at).unwrap(), Some(&trust), Options::default());
        let report = report.unwrap();
        let size = log.checkpoint().unwrap().size;
        assert_eq!(report.witnessed.as_ref().map(|witnessed| witnessed.size), Some(size));
        let claim = report.claims.iter().find(|claim| claim.claim == Claim::NonEquivocation).unwrap();
        assert!(matches!(&claim.outcome, Outcome::Proved(how) if how.contains("(w)")), "{report}");
        // What was kept is lost: the witness says itself where it stands.
        std::fs::remove_dir_all(log_at.join("witness")).unwrap();
        let said = submit(&log_at, &key, &url).await.unwrap().unwrap();
        assert_eq!(said.outcome, WitnessOutcome::Cosigned);
    }

    #[tokio::test]
    async fn of_two_histories_of_one_log_the_second_is_refused_whoever_shows_it() {
        let at = tempfile::tempdir().unwrap();
        let (first, second) = (at.path().join("first"), at.path().join("second"));
        let log = write(&first, 5, false);
        write(&second, 9, true);
        let (key, url, address) = witness(at.path(), &log.trust().unwrap().log_key).await;
        let said = submit(&first, &key, &url).await.unwrap().unwrap();
        assert_eq!(said.outcome, WitnessOutcome::Cosigned);
        // The second history, by the book: 409 with the size, then 422.
        let said = submit(&second, &key, &url).await.unwrap().unwrap();
        assert_eq!(said.outcome, WitnessOutcome::Conflict);
        assert!(said.detail.unwrap().contains("does not continue"));
        assert!(!second.join("witness").exists(), "nothing to keep");
        // A shorter one: the witness knows more entries than it has.
        let third = at.path().join("third");
        write(&third, 1, true);
        let said = submit(&third, &key, &url).await.unwrap().unwrap();
        assert_eq!(said.outcome, WitnessOutcome::Conflict);
        assert!(said.detail.unwrap().contains("this log has"));
        // A monitor sees what was cosigned: the first history.
        let shown =
            get(address, &format!("/{}", agent_evidence::witness::checkpoint_path(&log.checkpoint().unwrap().origin)))
                .await;
        assert!(shown.starts_with("HTTP/1.1 200 OK"), "{shown}");
        assert!(shown.contains(&log.checkpoint().unwrap().text()));
        assert!(get(address, "/add-checkpoint").await.starts_with("HTTP/1.1 405"));
        assert!(get(address, "/../key").await.starts_with("HTTP/1.1 404"));
    }

    async fn get(address: SocketAddr, path: &str) -> String {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: w\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn an_unknown_log_is_refused_and_nobody_there_is_no_answer() {
        let at = tempfile::tempdir().unwrap();
        let log_at = at.path().join("log");
        write(&log_at, 3, false);
        let (key, url, _) = witness(at.path(), &crate::witness::keeper::tests::log_key()).await;
        let said = submit(&log_at, &key, &url).await.unwrap().unwrap();
        assert_eq!(said.outcome, WitnessOutcome::Refused);
        assert!(said.detail.unwrap().starts_with("404: "));
        // Bound and never listening, so that nothing else gets the port meanwhile.
        let nobody = tokio::net::TcpSocket::new_v4().unwrap();
        nobody.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let url = WitnessUrl::parse(&format!("http://{}", nobody.local_addr().unwrap())).unwrap();
        assert!(matches!(submit(&log_at, &key, &url).await, Err(SubmitError::Client(ClientError::Connect { .. }))));
    }

    #[test]
    fn a_host_without_a_network_is_witnessed_by_files() {
        let at = tempfile::tempdir().unwrap();
        let log_at = at.path().join("log");
        let log = write(&log_at, 3, false);
        let signing = SigningWitness::create(&at.path().join("key"), "witness.example/w1").unwrap();
        let mut keeper = Keeper::open(&at.path().join("state"), signing, vec![log.trust().unwrap().log_key]).unwrap();
        let key = keeper.verifier();
        for more in [3, 300] {
            write(&log_at, more, false);
            let request = export(&log_at, Some(&key), None).unwrap();
            let request = AddCheckpoint::parse(request.as_bytes()).unwrap();
            let line = keeper.add(&request, 5).unwrap();
            let mut note = request.note;
            note.signatures.push(line);
            // The log goes on while the file is on its way.
            write(&log_at, more + 2, false);
            let said = import(&log_at, &key, Path::new("x"), note.to_text().as_bytes()).unwrap();
            assert_eq!((said.outcome, said.size), (WitnessOutcome::Cosigned, request.checkpoint.size));
            let forked = at.path().join("forked");
            write(&forked, more + 2, true);
            let copy = at.path().join(format!("copy-{more}"));
            std::fs::create_dir(&copy).unwrap();
            let size = request.checkpoint.size;
            assert_eq!(copy_cosigned(&log_at, &copy, TreeSize(size.0 - 1)).unwrap(), 0, "newer than the copy");
            assert_eq!(copy_cosigned(&log_at, &copy, size).unwrap(), 1);
            assert!(copy.join(stored_path(key.name())).is_file());
            let refused = import(&forked, &key, Path::new("x"), note.to_text().as_bytes());
            assert!(matches!(refused, Err(SubmitError::File { why, .. }) if why.contains("two histories")));
        }
    }

    #[test]
    fn pauses_grow_and_have_an_end() {
        let minute = Duration::from_secs(60);
        assert_eq!(backed_off(minute, 0), minute);
        assert_eq!(backed_off(PAUSE_MIN, 1), PAUSE_MIN);
        assert_eq!(backed_off(PAUSE_MIN, 3), PAUSE_MIN * 4);
        assert_eq!(backed_off(PAUSE_MIN, u32::MAX), PAUSE_MAX);
        assert_eq!(backed_off(PAUSE_MAX * 2, 9), PAUSE_MAX * 2);
    }

    #[test]
    fn only_plain_http_addresses_are_taken() {
        for good in ["http://w.example", "http://w.example:8080/prefix/", "http://[::1]:80/"] {
            assert!(WitnessUrl::parse(good).is_ok(), "{good}");
        }
        for bad in ["https://w.example", "w.example", "http://", "http://a@w.example", "http://w.example/?q", "ftp://w"]
        {
            assert!(matches!(WitnessUrl::parse(bad), Err(ClientError::Url { .. })), "{bad}");
        }
    }
}
