//! The log of a stopped daemon, for last words: that it ends here, that the agent is taken off the host.
//!
//! Owns the order in which such words become evidence: the counter is stepped for the epoch that says them, as at every start
//! beside a TPM, and all of it is sealed. Where the key or the counter cannot be had, the words are durable, and not signed.

use std::path::PathBuf;

use agent_evidence::attest::key::Ak;
use agent_evidence::attest::statement::CounterStatement;
use agent_evidence::attest::tpm::{Attested, Name};
use agent_evidence::record::{Body, Bytes, CounterOp, Digest, Draft, NvCounter};

use crate::app::{AppError, stored_key, stored_origin, with_tpm};
use crate::config::Config;
use crate::log::{Limits, Log, Now, Recovery};
use crate::pipeline::{Clock, Standing, standing};
use crate::sign::SignError;
use crate::sign::tpm::KeySlot;
use crate::tpm::{Device, Place, TpmError};

/// The log of a stopped daemon, for last words. As long as there is one no daemon starts on it.
pub struct Stopped {
    log: Log,
    recovery: Recovery,
    now: Now,
    /// The counter that an epoch of this log names, if it has one.
    counter: Option<Counter>,
}

/// A log's counter, and where it is.
struct Counter {
    place: Place,
    keys: PathBuf,
    index: u32,
    standing: Standing,
}

impl Stopped {
    /// Opens it, and says why it cannot be signed if it cannot; `None` when the state directory has no log.
    ///
    /// # Errors
    /// A daemon owns it, or it contradicts itself.
    pub fn open(config: &Config) -> Result<Option<(Self, Option<AppError>)>, AppError> {
        let state = &config.paths.state;
        let Some(has) = stored_origin(state)? else { return Ok(None) };
        let keys = config.paths.keys();
        let (key, slot) = stored_key(&keys)?;
        let now = Now { wall: Clock.wall(), boot: Clock.boot() };
        let (mut log, recovery) = Log::open_unsigned(state, Limits::default(), &has, key)?;
        let unsigned = slot.and_then(|slot| unseal(config, slot).err());
        let place = Place::of(&config.tpm.device).filter(|_| config.tpm.counter_steps_per_day_max > 0);
        let counter = match place {
            Some(place) => {
                standing(&mut log)?.map(|standing| Counter { place, keys, index: config.tpm.nv_index, standing })
            }
            None => None,
        };
        Ok(Some((Self { log, recovery, now, counter }, unsigned)))
    }

    /// Appends what was recovered and these, and seals them if the key is there. Durable when it returns.
    ///
    /// # Errors
    /// The log.
    pub fn end(self, bodies: Vec<Body<'_>>) -> Result<(), AppError> {
        let Self { mut log, recovery, now, counter } = self;
        if log.has_log_key() {
            let stepped = match counter.map(|counter| step(&mut log, now, counter)).transpose() {
                // As a daemon that has waited for its TPM in vain: the epoch begins, and a verifier says that it is not counted.
                Err(error @ (AppError::Tpm(_) | AppError::TpmSlow)) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "the counter cannot be stepped");
                    None
                }
                other => other?,
            };
            log.begin_epoch(now, stepped)?;
        }
        let recovered = Body::Recovered(recovery.record());
        for body in std::iter::once(recovered).chain(bodies) {
            log.append(&draft(now, body))?;
        }
        let _durable = log.commit()?;
        if log.epoch().is_some() {
            log.seal(now)?;
        }
        Ok(())
    }
}

fn draft(now: Now, body: Body<'_>) -> Draft<'_> {
    let Now { wall, boot } = now;
    Draft { wall, boot, kernel: None, process: None, workload: None, session: None, verdict: None, body }
}

/// Steps the counter for the epoch that is about to begin, in the order of a daemon: the intent is durable before the TPM
/// hears of it. Where this ends in between, the next start settles it.
fn step(log: &mut Log, now: Now, counter: Counter) -> Result<u64, AppError> {
    let Counter { place, keys, index, standing: Standing { previous, certified, signer } } = counter;
    let to = certified.saturating_add(1);
    let body = |op| NvCounter { op, index, name: None, value: to, previous: None, attest: None, sig: None };
    log.append(&draft(now, Body::NvCounter(body(CounterOp::Intent))))?;
    let _durable = log.commit()?;
    let op = CounterOp::Step;
    let qualifying = CounterStatement { origin: log.origin(), op, index, value: to, previous }.digest();
    let (signed, name) = with_tpm(move || {
        let device = Device::open(&place, &keys)?;
        let identity = device.identity();
        let refused = |what: &str| TpmError::Library { step: "certify the counter", what: what.to_owned() };
        if identity.ak_qualified_name != signer {
            return Err(refused("the attestation key is another one than the log's").into());
        }
        device.step_counter(index, to)?;
        let signed = device.certify_counter(index, &qualifying)?;
        // As a verifier will: nothing is written that does not hold.
        let name = Name::parse(&identity.ak_qualified_name).ok();
        let ak = name.and_then(|name| Ak::parse(&identity.ak_public, name).ok());
        let read = ak.and_then(|ak| ak.verify(&signed.attest, &signed.signature).ok());
        match read.filter(|read| read.extra_data == qualifying).map(|read| read.attested) {
            Some(Attested::Nv { name, contents, .. }) if contents == to.to_be_bytes() => {
                Ok((signed, name.as_bytes().to_vec()))
            }
            _ => Err(refused("what it signed does not hold").into()),
        }
    })?;
    log.append(&draft(
        now,
        Body::NvCounter(NvCounter {
            name: Some(Bytes::new(&name)),
            previous: Some(Digest(previous)),
            attest: Some(Bytes::new(&signed.attest)),
            sig: Some(Bytes::new(&signed.signature)),
            ..body(op)
        }),
    ))?;
    Ok(to)
}

/// Has the TPM unseal the key of a stopped daemon's log.
fn unseal(config: &Config, slot: KeySlot) -> Result<(), AppError> {
    let keys = config.paths.keys();
    let place = Place::of(&config.tpm.device).ok_or_else(|| AppError::KeyNeedsTpm(Device::log_key_path(&keys)))?;
    with_tpm(move || {
        let seed = Device::open(&place, &keys)?.unseal_log_key()?;
        let seed = seed.ok_or_else(|| SignError::Missing(Device::log_key_path(&keys)))?;
        slot.fill(&seed, &keys)
    })
}
