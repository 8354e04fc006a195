//! The life of the daemon on one page: check, open the log, arm the kernel side, serve, drain.
//!
//! What is built here is owned here; the pieces know each other only by what is handed to them. Nothing is bound or
//! armed before the configuration and the host have been looked at, and what was armed is let go of in the reverse
//! order.

use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Weak};
use std::time::Duration;

use agent_common::stats::family;
use agent_evidence::checkpoint::{Checkpoint, CheckpointError};
use agent_evidence::cosignature::WitnessKey;
use agent_evidence::record::{
    self, Class, CommitRules, Digest, Id128, KeyTier, Nanoseconds, Predecessor, RuleError, SuccessionCause, Text,
};
use sha2::{Digest as _, Sha256};
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{Cold, Config, Family, OnFault, WitnessConfig};
use crate::enroll::host;
use crate::export::ocsf_file::{OcsfFileSink, Running, SinkError};
use crate::export::sealed::SealedLog;
use crate::log::succession::{self, Ended, SuccessionError};
use crate::log::{Birth, Limits, Log, LogError, Now, Packing, Recovery};
use crate::pipeline::cgroupfs::CgroupError;
use crate::pipeline::handle::{AskSinks, COMMANDS_MAX};
use crate::pipeline::retention::{DAY_NS, RetentionSettings};
use crate::pipeline::storage::{StorageSettings, class_bit};
use crate::pipeline::{
    Clock, FoldRoot, Parts, Pipeline, PipelineError, PipelineHandle, SessionCgroups, Settings, TpmParts, VouchedKey,
};
use crate::probe::{Probe, ProbeConfig, ProbeError, cgroup2_root};
use crate::session::authorization::RunAuthorization;
use crate::session::control::{self, ControlError};
use crate::sign::software::SoftwareKey;
use crate::sign::tpm::{KeySlot, SealedKey};
use crate::sign::{SignError, Signer, prepare_keys};
use crate::stopped::Stopped;
use crate::telemetry::notify::Notifier;
use crate::tpm::schedule::Pace;
use crate::tpm::worker::Worker;
use crate::tpm::{Device, Place, TpmError};
use crate::witness::client::WitnessUrl;
use crate::witness::submit::{Asked, Submitter};

/// Longest time that a start waits for a TPM that it cannot do without: a new log's key is to be sealed in it, or
/// configuration requires it. A discrete TPM needs one to three seconds.
const TPM_WAIT: Duration = Duration::from_secs(60);
/// Longest host name part of an origin made by ourselves, in bytes.
const ORIGIN_HOST_BYTES_MAX: usize = 63;

/// Why the daemon does not run, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// Not root.
    #[error("the daemon must run as root: it loads eBPF programs and moves processes between cgroups")]
    NotRoot,
    /// Built without the eBPF object.
    #[error("this binary carries no eBPF object: build it with `cargo xtask build`")]
    NoObject,
    /// Configuration names a group that does not exist.
    #[error("access.reader_group: there is no group {0:?} in /etc/group")]
    NoGroup(String),
    /// Configuration asks for another origin than the log has.
    #[error(
        "log.origin is {asked:?}, the log in {state} is {has:?}: an origin cannot be changed; use another state directory"
    )]
    OtherOrigin {
        /// What is configured.
        asked: String,
        /// What the log has.
        has: String,
        /// Where.
        state: PathBuf,
    },
    /// The checkpoint in the state directory cannot be read.
    #[error("the checkpoint in {path} cannot be read: {source}")]
    Checkpoint {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: CheckpointError,
    },
    /// A file or directory could not be used.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A rule that names no value.
    #[error("privacy.commit: {0}")]
    Privacy(#[from] RuleError),
    /// The log key.
    #[error("{0}")]
    Sign(#[from] SignError),
    /// The log.
    #[error("{0}")]
    Log(#[from] LogError),
    /// A log could not be put aside.
    #[error("{0}")]
    Succession(#[from] SuccessionError),
    /// The kernel side.
    #[error("{0}")]
    Probe(#[from] ProbeError),
    /// The session cgroups.
    #[error("{error}: {}", .error.source)]
    Cgroup {
        /// What was tried.
        error: CgroupError,
    },
    /// The control socket.
    #[error("{0}")]
    Control(#[from] ControlError),
    /// A sink.
    #[error("export.ocsf_file: {0}")]
    Sink(#[from] SinkError),
    /// Configuration requires a TPM.
    #[error("tpm.required: {why}")]
    TpmRequired {
        /// What there is instead.
        why: String,
    },
    /// The log's key needs a TPM that configuration forbids.
    #[error("tpm.device is \"none\", but the log key in {0} is sealed in a TPM: name the device")]
    KeyNeedsTpm(PathBuf),
    /// The TPM, where a command cannot do without.
    #[error("{0}")]
    Tpm(#[from] TpmError),
    /// The TPM has not answered.
    #[error("the TPM has not answered for {} s", TPM_WAIT.as_secs())]
    TpmSlow,
    /// The pipeline.
    #[error("{0}")]
    Pipeline(#[from] PipelineError),
    /// The pipeline's thread panicked: a fault of this program.
    #[error("the pipeline stopped unexpectedly; what was durable stays so: start the daemon again")]
    Panicked,
    /// No randomness.
    #[error("no randomness: {0}")]
    Random(getrandom::Error),
}

impl AppError {
    /// The exit code that tells an operator what kind of trouble it is: 64 configuration, 69 the host lacks
    /// something, 70 the evidence is in danger.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NoGroup(_) | Self::OtherOrigin { .. } | Self::KeyNeedsTpm(_) => 64,
            Self::TpmRequired { .. } | Self::Tpm(_) | Self::TpmSlow => 69,
            Self::NotRoot
            | Self::NoObject
            | Self::Probe(_)
            | Self::Cgroup { .. }
            | Self::Control(_)
            | Self::Sink(_)
            | Self::Io { .. }
            | Self::Random(_) => 69,
            // Nothing is in doubt, and nothing was begun: there is no room to begin.
            Self::Log(LogError::Locked | LogError::NotCreated | LogError::State { .. } | LogError::Full(_)) => 69,
            Self::Succession(SuccessionError::Locked | SuccessionError::State(_)) => 69,
            Self::Succession(_) => 70,
            Self::Log(_) | Self::Checkpoint { .. } | Self::Pipeline(_) | Self::Panicked => 70,
            Self::Sign(SignError::Random(_) | SignError::Unavailable { .. } | SignError::Tpm(_)) => 69,
            Self::Privacy(_) => 64,
            Self::Sign(_) => 70,
        }
    }
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> AppError {
    let path = path.to_owned();
    move |source| AppError::Io { what, path, source }
}

/// Runs the daemon until SIGTERM or SIGINT, or until it must stop by itself.
///
/// # Errors
/// [`AppError`]; its [`AppError::exit_code`] is the process's.
pub async fn run_daemon(config: Config) -> Result<(), AppError> {
    if !rustix::process::geteuid().is_root() {
        return Err(AppError::NotRoot);
    }
    let object = object().ok_or(AppError::NoObject)?;
    let reader_gid = config.access.reader_group.as_deref().map(group_id).transpose()?;
    prepare_state(&config.paths.state, reader_gid)?;
    let clock = Clock;
    // Before anything is made below them. Files of the log are made in `tmp` and renamed, with the group they got there.
    for shared in [config.paths.log(), config.paths.state.join("tmp")] {
        share_log(&shared, reader_gid)?;
    }
    let place = Place::of(&config.tpm.device);
    if config.tpm.required {
        require_tpm(&config, place.as_ref())?;
    }
    let Opened { log, recovery, slot } = open_log(&config, place.as_ref(), clock)?;
    tracing::info!(origin = log.origin(), entries = log.size().0, tier = log.key_tier().as_str(), "log open");
    tracing::warn!("tier {}: {}", log.key_tier().as_str(), log.key_place());

    let listener = control::bind(&config.paths.control_socket())?;
    let sink = match &config.export.ocsf_file.path {
        None => None,
        Some(path) => {
            let sink = OcsfFileSink::open(config.paths.log(), &config.paths.cursors(), path.clone())?;
            Some(Arc::new(Running::start(sink).map_err(io_error("start the sink for", path))?))
        }
    };
    let probe = Probe::arm(&ProbeConfig {
        object: object.to_vec(),
        pin_root: config.paths.bpf_pins.clone(),
        agent_tgid: std::process::id(),
        tier: config.capture.tier,
    })?;
    let cgroup_mount = match &config.paths.cgroup_root {
        Some(root) => root.clone(),
        None => cgroup2_root()?,
    };
    let session_cgroups = SessionCgroups::prepare(&cgroup_mount, &config.paths.cgroup_name)
        .map_err(|error| AppError::Cgroup { error })?;

    let (queue, inputs) = sync_channel(COMMANDS_MAX);
    let sinks: Weak<Running> = sink.as_ref().map_or_else(Weak::new, Arc::downgrade);
    let sinks: AskSinks = Arc::new(move || sinks.upgrade().map(|running| running.status()).into_iter().collect());
    let handle = PipelineHandle::new(queue, Arc::clone(&sinks), SealedLog::new(config.paths.log()));
    let tpm = match place.or_else(|| slot.as_ref().map(|_| Place::usual())) {
        None => None,
        Some(place) => Some(use_tpm(&config, place, slot, &handle)?),
    };
    let settings = settings(&config, log.origin(), tpm.is_some())?;
    let parts = Parts { settings, log, probe, inputs, cgroup_mount, session_cgroups, sinks, recovery, tpm };
    let (ready, is_ready) = tokio::sync::oneshot::channel();
    let (ended, mut has_ended) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new()
        .name("pipeline".to_owned())
        .spawn(move || {
            let outcome = Pipeline::begin(parts).and_then(|pipeline| {
                // Nobody waits any more when the daemon is already stopping.
                let _: Result<(), ()> = ready.send(());
                pipeline.run()
            });
            let _: Result<(), ()> = ended.send(());
            outcome
        })
        .map_err(io_error("start the thread of", Path::new("pipeline")))?;

    let notifier = Notifier::from_environment();
    let mut terminate = signal(SignalKind::terminate()).map_err(io_error("wait for", Path::new("SIGTERM")))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(io_error("wait for", Path::new("SIGINT")))?;
    let mut submitter = None;
    if is_ready.await.is_ok() {
        submitter = ask_witnesses(&config, &handle);
        tracing::info!(socket = %config.paths.control_socket().display(), "armed");
        notifier.ready("armed");
        let authorization = RunAuthorization::new(config.run.clone(), reader_gid);
        let stop = async {
            tokio::select! {
                _ = terminate.recv() => tracing::info!("SIGTERM: draining"),
                _ = interrupt.recv() => tracing::info!("SIGINT: draining"),
                _ = &mut has_ended => {}
            }
        };
        control::serve(listener, handle.clone(), authorization, stop).await;
    }
    notifier.stopping();
    // Before the pipeline: it holds a sender of the pipeline's queue.
    if let Some(submitter) = submitter {
        submitter.stop();
    }
    // The queue's last sender must go, and the request must arrive: both wait for the pipeline, not for a client.
    let outcome = tokio::task::spawn_blocking(move || {
        handle.shut_down();
        drop(handle);
        thread.join()
    })
    .await;
    let removed = std::fs::remove_file(config.paths.control_socket());
    if let Err(error) = removed {
        tracing::debug!(%error, "the control socket was gone already");
    }
    if let Some(sink) = sink.and_then(Arc::into_inner) {
        sink.stop();
    }
    match outcome {
        Ok(Ok(outcome)) => Ok(outcome?),
        Ok(Err(_)) | Err(_) => Err(AppError::Panicked),
    }
}

/// Starts to ask the configured witnesses.
fn ask_witnesses(config: &Config, pipeline: &PipelineHandle) -> Option<Submitter> {
    let mut asked = Vec::new();
    for WitnessConfig { vkey, url, interval_s } in &config.witnesses {
        // A configuration that exists has passed these checks.
        if let (Ok(key), Ok(url)) = (WitnessKey::parse(vkey), WitnessUrl::parse(url)) {
            asked.push(Asked { key, url, interval: Duration::from_secs(*interval_s) });
        }
    }
    if asked.is_empty() {
        return None;
    }
    match Submitter::start(config.paths.log(), asked, pipeline.clone()) {
        Ok(submitter) => Some(submitter),
        // The log goes on: what no witness has seen stays `not proved`.
        Err(error) => {
            tracing::error!(%error, "cannot start the thread that asks witnesses; nobody is asked");
            None
        }
    }
}

/// Runs something that waits for the TPM on a thread of its own, and gives up after [`TPM_WAIT`]. The thread may hang on.
pub(crate) fn with_tpm<T: Send + 'static>(
    run: impl FnOnce() -> Result<T, SignError> + Send + 'static,
) -> Result<T, AppError> {
    let (done, outcome) = sync_channel(1);
    std::thread::Builder::new()
        .name("tpm-start".to_owned())
        // Nobody listens any more when it took too long.
        .spawn(move || drop(done.send(run())))
        .map_err(io_error("start the thread of", Path::new("tpm")))?;
    match outcome.recv_timeout(TPM_WAIT) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(SignError::Tpm(error))) => Err(AppError::Tpm(error)),
        Ok(Err(error)) => Err(AppError::Sign(error)),
        Err(_elapsed) => Err(AppError::TpmSlow),
    }
}

/// Ends a start that configuration wants to end when no TPM works.
fn require_tpm(config: &Config, place: Option<&Place>) -> Result<(), AppError> {
    let Some(place) = place.cloned() else {
        return Err(AppError::TpmRequired { why: "there is none (tpm.device)".to_owned() });
    };
    let keys = config.paths.keys();
    prepare_keys(&keys)?;
    with_tpm(move || Ok(Device::open(&place, &keys).map(drop)?))
        .map_err(|error| AppError::TpmRequired { why: error.to_string() })
}

/// Starts the thread that waits for the TPM. Nothing is asked of it yet.
fn use_tpm(
    config: &Config,
    place: Place,
    slot: Option<KeySlot>,
    pipeline: &PipelineHandle,
) -> Result<TpmParts, AppError> {
    let keys = config.paths.keys();
    prepare_keys(&keys)?;
    let seconds = |seconds: u64| seconds.saturating_mul(1_000_000_000);
    Ok(TpmParts {
        place: place.to_string(),
        worker: Worker::start(place, keys.clone(), pipeline.tpm_answers())
            .map_err(io_error("start the thread of", Path::new("tpm")))?,
        pace: Pace {
            anchor_ns: seconds(config.tpm.anchor_seconds),
            between_ns: seconds(config.tpm.anchor_spacing_seconds),
            counter_ns: seconds(config.tpm.counter_seconds),
            steps_per_day_max: config.tpm.counter_steps_per_day_max,
        },
        nv_index: config.tpm.nv_index,
        on_counter_gap: config.tpm.on_counter_gap,
        slot,
        measured_ns: seconds(config.tpm.measured_seconds),
        vouched: vouched(&keys),
        keys,
    })
}

/// The eBPF object that this binary carries, if it was built with one.
#[must_use]
pub fn object() -> Option<&'static [u8]> {
    #[cfg(ebpf_object)]
    return Some(include_bytes!(env!("AFFIANT_EBPF_OBJECT")));
    #[cfg(not(ebpf_object))]
    None
}

/// An open log.
struct Opened {
    log: Log,
    /// What was found; none for a log that was just created.
    recovery: Option<Recovery>,
    /// Where its key goes, if it is sealed in a TPM.
    slot: Option<KeySlot>,
}

/// Who vouches for the attestation key, as installed. A file that cannot be used costs a tier, never capture.
fn vouched(keys: &Path) -> Option<VouchedKey> {
    host::vouched(keys).unwrap_or_else(|error| {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "the installed certificate cannot be used, and nobody vouches for the attestation key: install it again"
        );
        None
    })
}

/// Whether the key that is vouched for is the one that is on the disk.
fn is_present(keys: &Path, vouched: &VouchedKey) -> bool {
    host::is_present(keys, vouched).unwrap_or_else(|error| {
        tracing::error!(error = &error as &dyn std::error::Error, "the attestation key's file cannot be read");
        false
    })
}

/// The key of an existing log: the sealed one if there is its blob, else the one on disk.
pub(crate) fn stored_key(keys: &Path) -> Result<(Box<dyn Signer>, Option<KeySlot>), AppError> {
    match SealedKey::load(keys)? {
        Some(key) => {
            // A claim: what the certificate is worth, a verifier says. It may be no higher than a site's word.
            let is_vouched = vouched(keys).is_some_and(|vouched| is_present(keys, &vouched));
            let key = if is_vouched { key.claiming(KeyTier::T1) } else { key };
            let slot = key.slot();
            Ok((Box::new(key), Some(slot)))
        }
        None => Ok((Box::new(SoftwareKey::load(keys)?), None)),
    }
}

/// The key of a new log: sealed if there is a TPM that works, else on disk. Which of the two is for ever.
fn new_key(config: &Config, place: Option<&Place>) -> Result<(Box<dyn Signer>, Option<KeySlot>), AppError> {
    let keys = config.paths.keys();
    if let Some(place) = place.cloned() {
        prepare_keys(&keys)?;
        let below = keys.clone();
        match with_tpm(move || SealedKey::create(&below, &Device::open(&place, &below)?)) {
            Ok(key) => {
                let slot = key.slot();
                return Ok((Box::new(key), Some(slot)));
            }
            Err(error @ AppError::Sign(_)) => return Err(error),
            Err(error) if config.tpm.required => return Err(AppError::TpmRequired { why: error.to_string() }),
            Err(error) => tracing::error!(
                error = &error as &dyn std::error::Error,
                "NO TPM: the new log's key will be a software key for as long as the log lives"
            ),
        }
    }
    // A key without a log is what a creation that was interrupted leaves: nothing was signed with it that anyone
    // has seen.
    let key = match SoftwareKey::load(&keys) {
        Err(SignError::Missing(_)) => SoftwareKey::create(&keys)?,
        other => other?,
    };
    Ok((Box::new(key), None))
}

/// Opens the log, or creates it when the state directory holds none. Beside a TPM a log is opened without an epoch, which
/// begins when the TPM has answered.
fn open_log(config: &Config, place: Option<&Place>, clock: Clock) -> Result<Opened, AppError> {
    let state = &config.paths.state;
    let keys = config.paths.keys();
    let limits = Limits {
        commit_interval: Nanoseconds(config.log.commit_ms * 1_000_000),
        seal_interval: Nanoseconds(config.log.seal_ms * 1_000_000),
        epoch_length: Nanoseconds(config.log.epoch_s * 1_000_000_000),
        packing: (config.log.cold == Cold::Packed).then(|| Packing {
            hot_entries: config.log.cold_after,
            level: config.log.cold_level,
            ..Packing::default()
        }),
        reserve_bytes: config.storage.reserve_mib << 20,
        ..Limits::default()
    };
    let now = Now { wall: clock.wall(), boot: clock.boot() };
    let mut ended = succession::resume(state)?;
    if let Some(has) = stored_origin(state)? {
        if ended.take().is_some() {
            // The successor had been made when an earlier start was interrupted.
            succession::finish(state)?;
        }
        if let Some(asked) = config.log.origin.as_ref().filter(|asked| !continues(&has, asked)) {
            return Err(AppError::OtherOrigin { asked: asked.clone(), has, state: state.clone() });
        }
        let (key, slot) = stored_key(&keys)?;
        if slot.is_some() && config.tpm.device == "none" {
            return Err(AppError::KeyNeedsTpm(Device::log_key_path(&keys)));
        }
        let opened = if slot.is_some() || place.is_some() {
            Log::open_unsigned(state, limits, &has, key)
        } else {
            Log::open(state, limits, &has, key, now)
        };
        match opened {
            Ok((mut log, recovery)) => {
                log.commit_values(commit_rules(config)?);
                return Ok(Opened { log, recovery: Some(recovery), slot });
            }
            Err(LogError::Fault(fault)) if config.log.on_fault == OnFault::Succeed => {
                tracing::error!(error = &fault as &dyn std::error::Error, "the stored log contradicts itself");
                ended = Some(succession::freeze(state, SuccessionCause::Fault)?);
            }
            Err(error) => return Err(error.into()),
        }
    }
    let origin = match (&config.log.origin, &ended) {
        (Some(origin), Some(ended)) => successor_of(origin, &ended.origin),
        (Some(origin), None) => origin.clone(),
        (None, _) => made_origin()?,
    };
    let (key, slot) = new_key(config, place)?;
    let boot_id = boot_id()?;
    let kernel = kernel_release();
    let birth = Birth {
        boot_id: Text::new(boot_id.as_bytes()),
        kernel: Text::new(kernel.as_bytes()),
        machine: std::fs::read("/etc/machine-id").ok().map(|id| Digest(Sha256::digest(&id).into())),
        predecessor: ended.as_ref().map(|ended| Predecessor {
            origin: Text::new(ended.origin.as_bytes()),
            size: ended.size,
            root: ended.root,
            cause: ended.why,
        }),
    };
    let mut log = Log::create(state, limits, &origin, key, &birth, now)?;
    log.commit_values(commit_rules(config)?);
    if let Some(ended) = &ended {
        succession::finish(state)?;
        tracing::warn!(
            origin,
            predecessor = ended.origin,
            entries = ended.size.0,
            frozen = ended.directory,
            "began a successor: it needs a trust file of its own"
        );
    } else {
        tracing::info!(origin, "created a new log");
    }
    Ok(Opened { log, recovery: None, slot })
}

/// Whether a log of this origin is the configured one or continues it: `/` and a number follow.
fn continues(has: &str, configured: &str) -> bool {
    has.strip_prefix(configured).is_some_and(|rest| {
        rest.is_empty() || rest.strip_prefix('/').is_some_and(|number| number.parse::<u32>().is_ok())
    })
}

/// The origin after `ended` under a configured one: `/2`, `/3` and so on.
fn successor_of(configured: &str, ended: &str) -> String {
    let number = ended.strip_prefix(configured).and_then(|rest| rest.strip_prefix('/')?.parse::<u32>().ok());
    format!("{configured}/{}", number.unwrap_or(1).saturating_add(1))
}

/// Seals the log of a stopped daemon and puts it aside; the next start begins a successor.
///
/// # Errors
/// There is no log, a daemon owns it, or it contradicts itself.
pub fn freeze(config: &Config) -> Result<Ended, AppError> {
    let state = &config.paths.state;
    if let Some(ended) = succession::resume(state)? {
        return Ok(ended);
    }
    let (stopped, unsigned) = Stopped::open(config)?.ok_or(LogError::NotCreated)?;
    match unsigned {
        None => {}
        // It will never be signed again: what is not signed yet is put aside as it is.
        Some(AppError::Tpm(error @ TpmError::KeyLost { .. })) => {
            tracing::error!(error = &error as &dyn std::error::Error);
        }
        Some(error) => return Err(error),
    }
    stopped.end(Vec::new())?;
    Ok(succession::freeze(state, SuccessionCause::Operator)?)
}

/// Which values are committed. The configuration was checked, so that this fails only when the check has a hole.
fn commit_rules(config: &Config) -> Result<CommitRules, AppError> {
    Ok(CommitRules::parse(config.privacy.commit.iter().map(String::as_str))?)
}

/// The origin of the log that the state directory holds.
pub(crate) fn stored_origin(state: &Path) -> Result<Option<String>, AppError> {
    for name in ["head", "log/checkpoint"] {
        let path = state.join(name);
        match std::fs::read(&path) {
            Ok(note) => {
                let (checkpoint, _) =
                    Checkpoint::parse(&note).map_err(|source| AppError::Checkpoint { path, source })?;
                return Ok(Some(checkpoint.origin.as_str().to_owned()));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(AppError::Io { what: "read", path, source }),
        }
    }
    Ok(None)
}

/// `affiant.local/<host name>-<8 random hexadecimal digits>`: two hosts of one name do not share an origin.
fn made_origin() -> Result<String, AppError> {
    let mut random = [0_u8; 4];
    getrandom::fill(&mut random).map_err(AppError::Random)?;
    let host: String = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '.' { c } else { '-' })
        .take(ORIGIN_HOST_BYTES_MAX)
        .collect();
    Ok(format!("affiant.local/{host}-{:08x}", u32::from_be_bytes(random)))
}

fn settings(config: &Config, origin: &str, has_tpm: bool) -> Result<Settings, AppError> {
    let mut run = [0_u8; 16];
    getrandom::fill(&mut run).map_err(AppError::Random)?;
    let milliseconds = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    let effective = config.to_toml().unwrap_or_default();
    let families =
        if config.capture.files { family::FILE } else { 0 } | if config.capture.network { family::NETWORK } else { 0 };
    Ok(Settings {
        run: Id128(run),
        boot_id: boot_id()?,
        agent_digest: own_digest()?,
        config_digest: Sha256::digest(effective.as_bytes()).into(),
        commit_ms: milliseconds(config.log.commit_ms),
        seal_ms: milliseconds(config.log.seal_ms),
        heartbeat_ms: milliseconds(config.heartbeat.interval_s.saturating_mul(1_000)),
        anchor_ms: has_tpm.then(|| milliseconds(config.tpm.anchor_seconds.saturating_mul(1_000))),
        counter_ms: (has_tpm && config.tpm.counter_steps_per_day_max > 0)
            .then(|| milliseconds(config.tpm.counter_seconds.saturating_mul(1_000))),
        containers: config.capture.containers,
        units: config.capture.units.clone(),
        families,
        fold: fold_roots(config),
        identity_default: config.run.identity_default.clone(),
        sessions_max: config.run.sessions_max,
        trust_domain: trust_domain(origin),
        keep_pins: config.capture.keep_on_stop,
        retention: RetentionSettings {
            max_age: (config.log.retention.max_age_days > 0)
                .then(|| Nanoseconds(config.log.retention.max_age_days.saturating_mul(DAY_NS))),
            max_bytes: (config.log.retention.max_mib > 0).then_some(config.log.retention.max_mib << 20),
            min_entries: config.log.retention.min_entries,
            wait_for_sinks: config.log.retention.wait_for_sinks,
            directory: config.paths.log(),
        },
        storage: StorageSettings {
            low_bytes: config.storage.low_mib << 20,
            reserve_bytes: config.storage.reserve_mib << 20,
            drop_when_low: config.storage.drop.iter().fold(0, |sum, family| sum | class_bit(class_of(*family))),
        },
    })
}

/// The directories whose files' plain reads are only counted, as they are now. On an overlay nothing at this tier tells
/// what came with the image from what was written since, so nothing is folded there.
fn fold_roots(config: &Config) -> Vec<FoldRoot> {
    const OVERLAYFS_MAGIC: u64 = 0x794c_7630;
    // The digest of the names of a directory can be guessed, which a commitment to a path is there to prevent.
    if config.privacy.commit.iter().any(|rule| matches!(rule.as_str(), "open.path" | "*.path")) {
        return Vec::new();
    }
    let mut roots: Vec<FoldRoot> = Vec::new();
    for directory in &config.capture.fold {
        let seen = std::fs::canonicalize(directory).and_then(|path| {
            let device = std::fs::metadata(&path)?.dev();
            Ok((rustix::fs::statfs(&path)?.f_type, path, device))
        });
        match seen {
            Ok((kind, path, _)) if u64::try_from(kind) == Ok(OVERLAYFS_MAGIC) => {
                tracing::info!(path = %path.display(), "on an overlay: every read below it is recorded");
            }
            Ok((_, path, device)) => {
                let device = record::Device { major: rustix::fs::major(device), minor: rustix::fs::minor(device) };
                let root = FoldRoot { path: path.into_os_string().into_vec(), device };
                if root.path != b"/" && !roots.contains(&root) {
                    roots.push(root);
                }
            }
            // A name that not every distribution has.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(path = %directory.display(), %error, "every read below it is recorded");
            }
        }
    }
    roots
}

fn class_of(family: Family) -> Class {
    match family {
        Family::Process => Class::Process,
        Family::Network => Class::Network,
        Family::File => Class::File,
    }
}

/// The origin's last segment is this host's name in it: letters, digits, `-` and `.` are what a SPIFFE trust domain
/// may hold, in lower case.
fn trust_domain(origin: &str) -> String {
    let last = origin.rsplit('/').next().unwrap_or(origin);
    last.chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '.') { c.to_ascii_lowercase() } else { '-' })
        .collect()
}

fn boot_id() -> Result<String, AppError> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    Ok(std::fs::read_to_string(path).map_err(io_error("read", path))?.trim().to_owned())
}

fn kernel_release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// SHA-256 of the running executable, read through the kernel's own link, so that a file put in its place since
/// does not count.
fn own_digest() -> Result<[u8; 32], AppError> {
    let path = Path::new("/proc/self/exe");
    let mut file = std::fs::File::open(path).map_err(io_error("open", path))?;
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = io::Read::read(&mut file, &mut buffer).map_err(io_error("read", path))?;
        if read == 0 {
            return Ok(digest.finalize().into());
        }
        digest.update(buffer.get(..read).unwrap_or_default());
    }
}

/// The state directory: root's alone, except that a reader group may pass through it to `log/`.
fn prepare_state(state: &Path, reader_gid: Option<u32>) -> Result<(), AppError> {
    std::fs::create_dir_all(state).map_err(io_error("make the state directory", state))?;
    let mode = if reader_gid.is_some() { 0o710 } else { 0o700 };
    std::fs::set_permissions(state, std::fs::Permissions::from_mode(mode))
        .map_err(io_error("set the mode of", state))?;
    chown(state, Some(0), Some(reader_gid.unwrap_or(0))).map_err(io_error("set the owner of", state))
}

/// The log directory, made if absent: what is made below it later takes its group (set-group-id), and the directory's
/// mode decides who gets that far.
fn share_log(log: &Path, reader_gid: Option<u32>) -> Result<(), AppError> {
    match std::fs::create_dir(log) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(io_error("make", log)(error)),
        _ => {}
    }
    let mode = if reader_gid.is_some() { 0o2750 } else { 0o700 };
    chown(log, Some(0), Some(reader_gid.unwrap_or(0))).map_err(io_error("set the owner of", log))?;
    std::fs::set_permissions(log, std::fs::Permissions::from_mode(mode)).map_err(io_error("set the mode of", log))
}

/// The id of a group by `/etc/group`. Groups from elsewhere (LDAP) can be given by number.
fn group_id(name: &str) -> Result<u32, AppError> {
    if let Ok(id) = name.parse() {
        return Ok(id);
    }
    let path = Path::new("/etc/group");
    let groups = std::fs::read_to_string(path).map_err(io_error("read", path))?;
    groups
        .lines()
        .find_map(|line| {
            let mut fields = line.split(':');
            (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
        })
        .ok_or_else(|| AppError::NoGroup(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trust_domain_is_the_hosts_part_of_the_origin() {
        assert_eq!(trust_domain("affiant.local/Box_1-00ff"), "box-1-00ff");
        assert_eq!(trust_domain("log.example.org"), "log.example.org");
    }

    #[test]
    fn evidence_faults_and_missing_features_have_their_own_codes() {
        assert_eq!(AppError::NotRoot.exit_code(), 69);
        assert_eq!(AppError::NoGroup("x".to_owned()).exit_code(), 64);
        assert_eq!(AppError::Pipeline(PipelineError::DiskFull).exit_code(), 70);
        assert_eq!(AppError::Log(LogError::Locked).exit_code(), 69);
        assert_eq!(AppError::Log(LogError::Full(None)).exit_code(), 69);
    }
}
