//! What the TPM says, as entries of the log: the attestation key, anchors, steps of the counter, and what is wrong with it.
//!
//! Owns the order of things between the log and the TPM. The pipeline asks and goes on; the answer comes back as an input.
//! At most one attestation is under way, so that each can name the one before it.
//!
//! # The counter, as a crash story
//! 1. `intent` with the next value is appended, and durable before the TPM hears of it. A crash before the step leaves the
//!    counter where it was: the next start goes on from there.
//! 2. The counter is stepped and certified. A crash from here until the entry is durable leaves the counter one ahead of the
//!    log, at the value of the intent: the next start has it certified as it stands and says `late`.
//! 3. `step` with the certification. Any other distance between counter and log is a gap that neither explains.
//!
//! # The epoch
//! A log that is opened beside a TPM begins its epoch when the counter has been stepped for it, so that the `epoch` entry
//! names a value that nobody can have twice; [`EPOCH_WAIT`] after the start, or after the TPM has first answered, it begins
//! without one. It never waits for an attestation of
//! its own: the first anchor over a tree with its entry binds it to the attestation key.

use std::ops::ControlFlow;
use std::path::PathBuf;

use agent_evidence::attest::key::Ak;
use agent_evidence::attest::statement::{AnchorStatement, CounterStatement, NO_ATTESTATION, attestation_digest};
use agent_evidence::attest::tpm::{Attest, Attested, Name};
use agent_evidence::record::{
    Anchor, AnchorCause, AttestationKey, Blob, Body, BootTime, Bytes, Condition, CounterOp, Digest, EntryIndex,
    EpochNumber, Kind, List, NvCounter, Pcr, RootHash, Subject, Text, TreeSize, Voucher, decode,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::error::PipelineError;
use super::handle::Reply;
use super::recorder::Recorder;
use crate::config::OnCounterGap;
use crate::log::{Log, LogError, Now, kind_of};
use crate::session::protocol::{Anchored, SessionError, TpmStatus};
use crate::sign::tpm::KeySlot;
use crate::tpm::schedule::{Act, Nonce, Pace, Schedule};
use crate::tpm::worker::{Answer, Begun, Order, Worker};
use crate::tpm::{AkFrom, CounterFacts, Identity, TpmError, Trouble};

/// Longest time an epoch waits after a start for the TPM to answer, and then as long for the counter, ns: a discrete TPM needs
/// one to two seconds for both. A sealed log key comes with the first answer, however late that is.
const EPOCH_WAIT: u64 = 5_000_000_000;
/// Entries of the log's end that are looked through at once at a start: 2 MB, a few milliseconds.
const SEARCH_STEP: u64 = 4_096;
/// Entries looked through for the last step of the counter once the last anchor is found: it may never have been stepped.
const SEARCH_MAX: u64 = 1 << 21;
/// Milliseconds of the TPM's clock in which steps are counted.
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// What is handed over to use a TPM.
pub struct TpmParts {
    /// The thread that waits for it.
    pub worker: Worker,
    /// Where it is, in words.
    pub place: String,
    /// How often it is asked.
    pub pace: Pace,
    /// Handle of the counter.
    pub nv_index: u32,
    /// What a counter gap means.
    pub on_counter_gap: OnCounterGap,
    /// Where the log's key goes, if it is sealed.
    pub slot: Option<KeySlot>,
    /// Time between two readings of the logs of what was measured, in nanoseconds; 0: they are not kept.
    pub measured_ns: u64,
    /// The directory of keys, to name in errors.
    pub keys: PathBuf,
    /// Who vouches for the attestation key, as installed on this host.
    pub vouched: Option<VouchedKey>,
}

/// Certificates of the attestation key. What they are worth is for a verifier to say.
pub struct VouchedKey {
    /// Name of the key that they are for; they are not shown with another.
    pub name: Vec<u8>,
    /// Who vouches: the agent's claim.
    pub voucher: Voucher,
    /// The key's certificate and those above, DER.
    pub certificates: Vec<Vec<u8>>,
    /// The endorsement key's, as the authority followed them, DER; none: those that the TPM holds are shown.
    pub ek_certificates: Vec<Vec<u8>>,
}

/// See the module.
pub(super) struct Attestation {
    parts: TpmParts,
    schedule: Schedule,
    chain: Chain,
    /// What a look backwards over the log has found, while it is not at its end.
    search: Option<Search>,
    under_way: UnderWay,
    identity: Option<Identity>,
    ak: Option<Ak>,
    /// Until when an epoch waits for the counter.
    epoch_by: BootTime,
    /// The trouble that the log knows of.
    told: Option<Trouble>,
    counter_told: Option<Trouble>,
    detail: Option<String>,
    last_anchor: Option<BootTime>,
    /// The longest that handing over an order took, ns: all that the pipeline ever spends on the TPM.
    order_ns_max: u64,
    askers: Vec<(u64, Asker)>,
    next_ticket: u64,
    /// Anchors with somebody who waits until a checkpoint covers them.
    unsealed: Vec<(EntryIndex, [u8; 32], Asker)>,
}

type Asker = Reply<Result<Anchored, SessionError>>;

/// Where the attestations of this log stand.
#[derive(Debug, Default)]
struct Chain {
    previous: [u8; 32],
    next_anchor: u64,
    /// Qualified name of the AK whose attestations the log holds last, or which it announced last.
    signer: Option<Vec<u8>>,
    /// The counter's last certified value.
    certified: Option<u64>,
    /// An intent after it.
    intent: Option<u64>,
    /// The value of the last step of this run: what an epoch that begins now names.
    stepped: Option<u64>,
    /// Attested clocks of steps, oldest first.
    steps: Vec<u64>,
}

/// What the TPM is busy with.
#[derive(Debug)]
enum UnderWay {
    Nothing,
    Beginning,
    /// An intent that is not durable yet.
    Intent {
        entry: EntryIndex,
        to: u64,
    },
    Stepping {
        to: u64,
        qualifying: [u8; 32],
    },
    Late {
        value: u64,
        qualifying: [u8; 32],
        clock: u64,
    },
    Quoting(Box<Quoting>),
}

#[derive(Debug)]
struct Quoting {
    number: u64,
    cause: AnchorCause,
    epoch: EpochNumber,
    size: TreeSize,
    root: RootHash,
    qualifying: [u8; 32],
    nonce: Option<Nonce>,
}

impl Attestation {
    pub(super) fn new(parts: TpmParts, now: BootTime) -> Self {
        let schedule = Schedule::new(parts.pace, now);
        Self {
            parts,
            schedule,
            chain: Chain::default(),
            search: None,
            under_way: UnderWay::Nothing,
            identity: None,
            ak: None,
            epoch_by: BootTime(now.0.saturating_add(EPOCH_WAIT)),
            told: None,
            counter_told: None,
            detail: None,
            last_anchor: None,
            order_ns_max: 0,
            askers: Vec::new(),
            next_ticket: 0,
            unsealed: Vec::new(),
        }
    }

    /// Whether something waits for a commit.
    pub(super) fn wants_commit(&self) -> bool {
        matches!(self.under_way, UnderWay::Intent { .. })
    }

    /// Whether a stop has nothing more to wait for.
    pub(super) fn is_done(&self, now: BootTime) -> bool {
        let is_idle = matches!(self.under_way, UnderWay::Nothing) || self.schedule.trouble() == Some(Trouble::Slow);
        let has_more = self.schedule.is_wanted() || self.schedule.is_step_due(now);
        is_idle && !self.schedule.is_starting() && (!self.schedule.is_ready() || !has_more)
    }

    fn epoch_waits(&self, now: BootTime) -> bool {
        let counter_comes = self.search.is_some()
            || !matches!(self.under_way, UnderWay::Nothing)
            || !self.schedule.is_begun()
            || self.schedule.is_step_due(now);
        now < self.epoch_by && self.chain.stepped.is_none() && counter_comes
    }
}

impl Recorder {
    /// Notes an occasion for an anchor over everything appended so far.
    pub(super) fn want_anchor(&mut self, cause: AnchorCause) {
        let size = self.log.size();
        if let Some(attest) = &mut self.attest {
            attest.schedule.want(cause, size);
        }
    }

    /// Wants the last step and the last anchor of this run.
    pub(super) fn attest_stop(&mut self, now: BootTime) {
        self.want_anchor(AnchorCause::Stop);
        if let Some(attest) = &mut self.attest
            && attest.schedule.has_counter()
        {
            attest.schedule.step_soon(now);
        }
    }

    /// Whether a stop has nothing more to wait for.
    pub(super) fn attest_is_done(&self, now: BootTime) -> bool {
        self.attest.as_ref().is_none_or(|attest| attest.is_done(now))
    }

    /// Does what is due between the log and the TPM. Nothing here waits.
    pub(super) fn attend_tpm(&mut self, now: BootTime) -> Result<(), PipelineError> {
        let Some(mut attest) = self.attest.take() else { return Ok(()) };
        let outcome = self.attend(&mut attest, now);
        self.attest = Some(attest);
        outcome
    }

    fn attend(&mut self, attest: &mut Attestation, now: BootTime) -> Result<(), PipelineError> {
        if let Some(search) = attest.search.take() {
            self.search(attest, search)?;
        }
        if attest.schedule.is_slow(now) {
            self.tell_trouble(attest, Trouble::Slow, "it has not answered for 30 s; capture goes on".to_owned())?;
        }
        if let UnderWay::Intent { entry, to } = attest.under_way
            && self.log.durable_size().0 > entry.0
        {
            let qualifying = self.counter_statement(attest, CounterOp::Step, to);
            attest.under_way = UnderWay::Stepping { to, qualifying };
            self.order(attest, Order::Step { index: attest.parts.nv_index, to, qualifying }, now)?;
        }
        if self.log.epoch().is_none() && self.log.has_log_key() && !attest.epoch_waits(now) {
            self.log.begin_epoch(Now { wall: self.clock.wall(), boot: now }, attest.chain.stepped)?;
        }
        if attest.search.is_some() {
            // What is attested next is not known yet.
            return Ok(());
        }
        let sealed = self.log.anchorable().map(|(checkpoint, _)| checkpoint.size);
        match attest.schedule.next(now, sealed) {
            None => {}
            Some(Act::Begin) => {
                attest.under_way = UnderWay::Beginning;
                let unseal = attest.parts.slot.as_ref().is_some_and(|slot| !slot.is_filled());
                let counter = (attest.parts.pace.steps_per_day_max > 0).then_some(attest.parts.nv_index);
                self.order(attest, Order::Begin { unseal, counter }, now)?;
            }
            Some(Act::Step) => {
                let to = attest.chain.certified.unwrap_or_default().saturating_add(1);
                let body = counter_body(attest.parts.nv_index, CounterOp::Intent, to);
                let entry = self.append_now(None, None, Body::NvCounter(body))?;
                attest.chain.intent = Some(to);
                attest.under_way = UnderWay::Intent { entry, to };
            }
            Some(Act::Capped) => {
                let value = attest.chain.certified.unwrap_or_default();
                tracing::warn!(
                    value,
                    "the counter is not stepped: the day's cap is reached (tpm.counter_steps_per_day_max)"
                );
                self.append_now(
                    None,
                    None,
                    Body::NvCounter(counter_body(attest.parts.nv_index, CounterOp::Capped, value)),
                )?;
            }
            Some(Act::Anchor { cause, nonce }) => self.quote(attest, cause, nonce, now)?,
        }
        Ok(())
    }

    fn order(&mut self, attest: &mut Attestation, order: Order, now: BootTime) -> Result<(), PipelineError> {
        let begin = self.clock.boot();
        let is_taken = attest.parts.worker.order(order);
        let end = self.clock.boot();
        attest.order_ns_max = attest.order_ns_max.max(end.0.saturating_sub(begin.0));
        if is_taken {
            attest.schedule.ordered(end);
            return Ok(());
        }
        self.tpm_failed(attest, Trouble::Slow, "its thread is gone or takes no order".to_owned(), now)
    }

    fn quote(
        &mut self,
        attest: &mut Attestation,
        cause: AnchorCause,
        nonce: Option<Nonce>,
        now: BootTime,
    ) -> Result<(), PipelineError> {
        // The schedule gives anchors only when there is a checkpoint to quote.
        let Some((checkpoint, epoch)) = self.log.anchorable() else { return Ok(()) };
        let statement = AnchorStatement {
            checkpoint,
            epoch,
            number: attest.chain.next_anchor,
            previous: attest.chain.previous,
            nonce: nonce.as_ref().map(|nonce| nonce.bytes.as_slice()),
        };
        let qualifying = statement.digest();
        attest.under_way = UnderWay::Quoting(Box::new(Quoting {
            number: attest.chain.next_anchor,
            cause,
            epoch,
            size: checkpoint.size,
            root: checkpoint.root,
            qualifying,
            nonce,
        }));
        self.order(attest, Order::Quote { qualifying }, now)
    }

    fn counter_statement(&self, attest: &Attestation, op: CounterOp, value: u64) -> [u8; 32] {
        let previous = attest.chain.previous;
        let origin = self.log.origin();
        CounterStatement { origin, op, index: attest.parts.nv_index, value, previous }.digest()
    }

    /// Takes what the TPM answered.
    pub(super) fn tpm_answered(&mut self, outcome: Result<Answer, TpmError>) -> Result<(), PipelineError> {
        let Some(mut attest) = self.attest.take() else { return Ok(()) };
        let outcome = self.answered(&mut attest, outcome);
        self.attest = Some(attest);
        outcome
    }

    fn answered(&mut self, attest: &mut Attestation, outcome: Result<Answer, TpmError>) -> Result<(), PipelineError> {
        let now = self.clock.boot();
        attest.schedule.answered(now);
        let under_way = std::mem::replace(&mut attest.under_way, UnderWay::Nothing);
        let answer = match outcome {
            Ok(answer) => answer,
            Err(TpmError::Reset) => {
                attest.schedule.reset(now);
                refuse(attest, under_way, "the TPM was reset; ask again");
                return Ok(());
            }
            Err(error) => {
                let detail = text_of(&error);
                refuse(attest, under_way, &detail);
                return self.tpm_failed(attest, error.trouble(), detail, now);
            }
        };
        match (answer, under_way) {
            (Answer::Begun(begun), UnderWay::Beginning) => self.begun(attest, *begun, now),
            (Answer::Quoted(quote), UnderWay::Quoting(quoting)) => self.anchored(attest, &quote, *quoting, now),
            (Answer::Certified(certified), UnderWay::Stepping { to, qualifying }) => {
                self.counted(attest, CounterOp::Step, to, qualifying, &certified, now)
            }
            (Answer::Certified(certified), UnderWay::Late { value, qualifying, clock }) => {
                self.counted(attest, CounterOp::Late, value, qualifying, &certified, now)?;
                if attest.schedule.is_busy() {
                    return Ok(());
                }
                // The interval before was closed; this run's own step is still due.
                attest.schedule.begun(now, true, clock, attest.chain.steps.clone());
                attest.schedule.step_soon(now);
                Ok(())
            }
            (_, under_way) => {
                refuse(attest, under_way, "the TPM answered another question");
                self.tpm_failed(attest, Trouble::Refused, "it answered another question".to_owned(), now)
            }
        }
    }

    fn tpm_failed(
        &mut self,
        attest: &mut Attestation,
        trouble: Trouble,
        detail: String,
        now: BootTime,
    ) -> Result<(), PipelineError> {
        attest.under_way = UnderWay::Nothing;
        let is_new = attest.schedule.failed(now, trouble).is_some();
        for nonce in attest.schedule.take_nonces() {
            answer_asker(attest, nonce.ticket, &detail);
        }
        if is_new { self.tell_trouble(attest, trouble, detail) } else { Ok(()) }
    }

    fn tell_trouble(
        &mut self,
        attest: &mut Attestation,
        trouble: Trouble,
        detail: String,
    ) -> Result<(), PipelineError> {
        tracing::error!(state = trouble.as_str(), detail, "the TPM is not as it should be; capture goes on");
        attest.told = Some(trouble);
        self.tpm_condition(false, trouble.as_str(), Some(&detail))?;
        attest.detail = Some(detail);
        Ok(())
    }

    fn tell_ready(&mut self, attest: &mut Attestation) -> Result<(), PipelineError> {
        attest.detail = None;
        if attest.told.take().is_some() {
            tracing::info!("the TPM is as it should be again");
            self.tpm_condition(true, "ready", None)?;
        }
        Ok(())
    }

    /// Says in the log how the TPM, or what it needs, is.
    pub(super) fn tpm_condition(&mut self, ok: bool, state: &str, detail: Option<&str>) -> Result<(), PipelineError> {
        let condition = Condition {
            subject: Subject::Tpm,
            ok,
            state: Text::new(state.as_bytes()),
            detail: detail.map(|detail| Text::new(detail.as_bytes())),
        };
        self.append_now(None, None, Body::Condition(condition)).map(drop)
    }

    /// The TPM is open: announces its key, sees where the counter stands, and has the log signed if its key was sealed.
    fn begun(&mut self, attest: &mut Attestation, begun: Begun, now: BootTime) -> Result<(), PipelineError> {
        let Begun { identity, seed, counter, clock } = begun;
        let name = Name::parse(&identity.ak_qualified_name);
        let ak = name.ok().and_then(|name| Ak::parse(&identity.ak_public, name).ok());
        let Some(ak) = ak else {
            let detail = "the attestation key that the TPM made is not one of this format".to_owned();
            return self.tpm_failed(attest, Trouble::Refused, detail, now);
        };
        let is_known = attest.chain.signer.as_deref() == Some(identity.ak_qualified_name.as_slice());
        // Certificates may have come since; they are repeated at each start rather than looked for in a long log.
        let is_shown = attest.parts.vouched.is_none() || attest.identity.is_some();
        if !is_known || !is_shown {
            self.announce(attest, &identity, is_known)?;
        }
        attest.ak = Some(ak);
        if attest.identity.replace(identity).is_none() {
            // However long the TPM took, its counter has not been asked yet. Only once, lest a TPM that comes and goes puts
            // the epoch off for ever.
            attest.epoch_by = BootTime(now.0.saturating_add(EPOCH_WAIT));
        }
        match (seed, &attest.parts.slot) {
            (Some(Ok(seed)), Some(slot)) => {
                if let Err(error) = slot.fill(&seed, &attest.parts.keys) {
                    return self.tpm_failed(attest, Trouble::KeyLost, text_of(&error), now);
                }
            }
            (Some(Err(error)), _) => return self.tpm_failed(attest, error.trouble(), text_of(&error), now),
            _ => {}
        }
        let counter = match counter {
            Some(Ok(facts)) => Some(facts),
            Some(Err(error)) => {
                let trouble = error.trouble();
                if attest.counter_told != Some(trouble) {
                    attest.counter_told = Some(trouble);
                    let detail = text_of(&error);
                    tracing::error!(state = trouble.as_str(), detail, "the TPM's counter cannot be used");
                    self.tpm_condition(false, trouble.as_str(), Some(&detail))?;
                }
                None
            }
            None => None,
        };
        let Some(facts) = counter else {
            attest.schedule.begun(now, false, clock.clock, attest.chain.steps.clone());
            return Ok(());
        };
        if self.reconcile(attest, &facts)? {
            let qualifying = self.counter_statement(attest, CounterOp::Late, facts.value);
            attest.under_way = UnderWay::Late { value: facts.value, qualifying, clock: clock.clock };
            return self.order(attest, Order::Certify { index: facts.index, qualifying }, now);
        }
        attest.schedule.begun(now, true, clock.clock, attest.chain.steps.clone());
        Ok(())
    }

    fn announce(&mut self, attest: &mut Attestation, identity: &Identity, is_known: bool) -> Result<(), PipelineError> {
        if attest.chain.signer.is_some() && !is_known {
            let why = match identity.ak_from {
                AkFrom::Cleared => "the TPM was cleared",
                AkFrom::OtherTpm => "the TPM is another one",
                AkFrom::New => "the key's file was gone",
                AkFrom::Blob => "the key's file is another one",
            };
            tracing::warn!(why, "the attestation key is another one than before");
            self.tpm_condition(true, "new_key", Some(why))?;
            // The counter of before is in another TPM, or was cleared with it.
            attest.chain.steps.clear();
        }
        let vouched = attest.parts.vouched.as_ref().filter(|vouched| vouched.name == identity.ak_name);
        let followed = vouched.map(|vouched| &vouched.ek_certificates).filter(|chain| !chain.is_empty());
        let ek_certificates = self.keep_certificates(followed.unwrap_or(&identity.ek_certificates))?;
        let (voucher, certificates) = match vouched {
            Some(vouched) => (vouched.voucher, self.keep_certificates(&vouched.certificates)?),
            None => (Voucher::Nobody, Vec::new()),
        };
        let key = AttestationKey {
            public: Bytes::new(identity.ak_public.as_slice()),
            name: Bytes::new(identity.ak_name.as_slice()),
            qualified_name: Bytes::new(identity.ak_qualified_name.as_slice()),
            voucher,
            certificates: List::from(certificates),
            ek_certificates: List::from(ek_certificates),
            tpm: Text::new(identity.tpm.as_bytes()),
        };
        self.append_now(None, None, Body::AttestationKey(key))?;
        attest.chain.signer = Some(identity.ak_qualified_name.clone());
        Ok(())
    }

    /// Keeps certificates beside the log. On a full disk they stay out, and the key is announced without them.
    fn keep_certificates(&mut self, certificates: &[Vec<u8>]) -> Result<Vec<Blob>, PipelineError> {
        let mut blobs = Vec::new();
        for certificate in certificates {
            match self.log.store_blob(certificate) {
                Ok(blob) => blobs.push(blob),
                Err(LogError::Full(_)) => {
                    tracing::warn!("no room for a certificate beside the log");
                    return Ok(Vec::new());
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(blobs)
    }

    /// Sees whether the counter stands where the log says. `true` when it was stepped by a run that could not say so.
    fn reconcile(&mut self, attest: &mut Attestation, facts: &CounterFacts) -> Result<bool, PipelineError> {
        let Chain { certified, intent, .. } = attest.chain;
        let before = intent.map(|intent| intent.saturating_sub(1)).or(certified);
        let stands = before.is_none_or(|before| before == facts.value);
        if !facts.made && intent == Some(facts.value) {
            return Ok(true);
        }
        if facts.made && before.is_some() || !stands {
            let expected = before.unwrap_or_default();
            let what =
                if facts.made { "it was gone and was made anew" } else { "something else stepped or replaced it" };
            let detail = format!("the counter stands at {}, the log says {expected}: {what}", facts.value);
            tracing::error!("{detail}");
            self.tpm_condition(false, Trouble::CounterMoved.as_str(), Some(&detail))?;
            if attest.parts.on_counter_gap == OnCounterGap::Halt {
                let _durable = self.log.commit()?;
                return Err(PipelineError::CounterGap(detail));
            }
            self.tpm_condition(true, "counter_ready", Some("counted on from where it stands"))?;
        } else if attest.counter_told.take().is_some() {
            self.tpm_condition(true, "counter_ready", None)?;
        }
        attest.counter_told = None;
        attest.chain.certified = Some(facts.value);
        attest.chain.intent = None;
        Ok(false)
    }

    /// Checks what the TPM signed as a verifier will, so that nothing is written that does not hold.
    fn checked(
        &self,
        attest: &Attestation,
        bytes: &[u8],
        signature: &[u8],
        qualifying: &[u8; 32],
    ) -> Result<Attest, String> {
        let ak = attest.ak.as_ref().ok_or("no attestation key is known")?;
        let read = ak.verify(bytes, signature).map_err(|error| text_of(&error))?;
        if read.extra_data == qualifying { Ok(read) } else { Err("it signed another statement".to_owned()) }
    }

    fn anchored(
        &mut self,
        attest: &mut Attestation,
        quote: &crate::tpm::Quote,
        quoting: Quoting,
        now: BootTime,
    ) -> Result<(), PipelineError> {
        if let Err(why) = self.checked(attest, &quote.attest, &quote.signature, &quoting.qualifying) {
            let detail = format!("its quote does not hold: {why}");
            if let Some(nonce) = quoting.nonce {
                answer_asker(attest, nonce.ticket, &detail);
            }
            return self.tpm_failed(attest, Trouble::Refused, detail, now);
        }
        self.tell_ready(attest)?;
        let pcrs: Vec<Pcr> =
            quote.pcrs.iter().map(|(index, value)| Pcr { index: *index, value: Digest(*value) }).collect();
        let anchor = Anchor {
            number: quoting.number,
            cause: quoting.cause,
            epoch: quoting.epoch,
            size: quoting.size,
            root: quoting.root,
            previous: Digest(attest.chain.previous),
            nonce: quoting.nonce.as_ref().map(|nonce| Bytes::new(nonce.bytes.as_slice())),
            attest: Bytes::new(quote.attest.as_slice()),
            sig: Bytes::new(quote.signature.as_slice()),
            pcrs: List::from(pcrs),
        };
        let entry = self.append_now(None, None, Body::Anchor(anchor))?;
        attest.chain.previous = attestation_digest(&quote.attest);
        attest.chain.next_anchor = quoting.number.saturating_add(1);
        attest.last_anchor = Some(now);
        attest.schedule.anchored();
        if let Some(nonce) = quoting.nonce
            && let Some(at) = attest.askers.iter().position(|(ticket, _)| *ticket == nonce.ticket)
        {
            let (_, asker) = attest.askers.swap_remove(at);
            attest.unsealed.push((entry, quoting.qualifying, asker));
        }
        Ok(())
    }

    fn counted(
        &mut self,
        attest: &mut Attestation,
        op: CounterOp,
        value: u64,
        qualifying: [u8; 32],
        certified: &crate::tpm::Certified,
        now: BootTime,
    ) -> Result<(), PipelineError> {
        let read = match self.checked(attest, &certified.attest, &certified.signature, &qualifying) {
            Ok(read) => read,
            Err(why) => {
                let detail = format!("its certification of the counter does not hold: {why}");
                return self.tpm_failed(attest, Trouble::Refused, detail, now);
            }
        };
        let Attested::Nv { name, contents, .. } = &read.attested else {
            let detail = "it certified something else than the counter".to_owned();
            return self.tpm_failed(attest, Trouble::Refused, detail, now);
        };
        if contents.as_slice() != value.to_be_bytes() {
            let detail = format!("the counter was certified with another value than {value}");
            return self.tpm_failed(attest, Trouble::CounterMoved, detail, now);
        }
        self.tell_ready(attest)?;
        let body = NvCounter {
            op,
            index: attest.parts.nv_index,
            name: Some(Bytes::new(name.as_bytes())),
            value,
            previous: Some(Digest(attest.chain.previous)),
            attest: Some(Bytes::new(certified.attest.as_slice())),
            sig: Some(Bytes::new(certified.signature.as_slice())),
        };
        self.append_now(None, None, Body::NvCounter(body))?;
        let clock = read.clock_info.clock;
        attest.chain.previous = attestation_digest(&certified.attest);
        attest.chain.certified = Some(value);
        attest.chain.intent = None;
        attest.chain.steps.push(clock);
        if op == CounterOp::Step {
            attest.chain.stepped = Some(value);
        }
        attest.schedule.stepped(now, clock);
        attest.chain.steps = attest.schedule.step_clocks();
        Ok(())
    }

    /// Somebody wants an anchor. Answered when a checkpoint covers it.
    pub(super) fn ask_anchor(&mut self, nonce: Vec<u8>, asker: Asker) {
        let size = self.log.size();
        let Some(attest) = &mut self.attest else {
            let why = "there is no TPM: nothing can be anchored (tpm.device)".to_owned();
            drop(asker.send(Err(SessionError::Unavailable { why })));
            return;
        };
        if let Some(trouble) = attest.schedule.trouble() {
            let detail = attest.detail.clone().unwrap_or_default();
            let why = format!("the TPM is {}: {detail}", trouble.as_str());
            drop(asker.send(Err(SessionError::Unavailable { why })));
            return;
        }
        let ticket = attest.next_ticket;
        let nonce = Nonce { ticket, bytes: nonce };
        if attest.schedule.ask(nonce, size) {
            attest.next_ticket = ticket.wrapping_add(1);
            attest.askers.push((ticket, asker));
        } else {
            let why = "too many wait for anchors; try again".to_owned();
            drop(asker.send(Err(SessionError::Unavailable { why })));
        }
    }

    /// Answers those whose anchors the newest checkpoint covers.
    pub(super) fn give_anchors(&mut self) -> Result<(), PipelineError> {
        let sealed = self.log.sealed_size();
        let Some(attest) = &mut self.attest else { return Ok(()) };
        if attest.unsealed.is_empty() {
            return Ok(());
        }
        let (covered, rest) =
            std::mem::take(&mut attest.unsealed).into_iter().partition(|(entry, _, _)| entry.0 < sealed.0);
        attest.unsealed = rest;
        let public = attest.identity.as_ref().map(|identity| STANDARD.encode(&identity.ak_public)).unwrap_or_default();
        for (index, qualifying, asker) in covered {
            let mut line = Vec::new();
            self.log.entries_from(index, |_, entry| {
                line = entry.to_vec();
                ControlFlow::Break(())
            })?;
            let anchored = Anchored {
                index: index.0,
                entry: String::from_utf8_lossy(&line).into_owned(),
                attestation_key: public.clone(),
                qualifying: hex(&qualifying),
            };
            drop(asker.send(Ok(anchored)));
        }
        Ok(())
    }

    pub(super) fn tpm_status(&mut self) -> Option<TpmStatus> {
        let now = self.clock.boot();
        let attest = self.attest.as_mut()?;
        let state = match (attest.schedule.trouble().or(attest.counter_told), attest.schedule.is_ready()) {
            (Some(trouble), _) => trouble.as_str(),
            (None, true) => "ready",
            (None, false) => "starting",
        };
        Some(TpmStatus {
            device: attest.parts.place.clone(),
            state: state.to_owned(),
            detail: attest.detail.clone(),
            tpm: attest.identity.as_ref().map(|identity| identity.tpm.clone()),
            attestation_key: attest.identity.as_ref().map(|identity| hex(&identity.ak_name)),
            anchor_age_ns: attest.last_anchor.map(|at| now.0.saturating_sub(at.0)),
            anchors: attest.chain.next_anchor,
            counter: attest.schedule.has_counter().then_some(attest.chain.certified).flatten(),
            steps_today: attest.schedule.steps_in_last_day(now) as u64,
            steps_per_day_max: attest.parts.pace.steps_per_day_max,
            operations_last_hour: attest.schedule.acts_in_last_hour(now),
            busy_ns_last_hour: attest.schedule.busy_in_last_hour(now),
            order_ns_max: attest.order_ns_max,
        })
    }

    /// Begins to look for where the attestations of this log stand. The log is the only memory of them, and may be long: it is
    /// read backwards in steps, and nothing is asked of the TPM before that is done.
    pub(super) fn resume_attestation(&mut self) {
        let before = self.log.size();
        if let Some(attest) = &mut self.attest {
            attest.search = Some(Search { before, tail: AttestTail::default() });
        }
    }

    /// Looks a step further back.
    fn search(&mut self, attest: &mut Attestation, search: Search) -> Result<(), PipelineError> {
        let Search { before, mut tail } = search;
        let from = before.0.saturating_sub(SEARCH_STEP);
        // Entries come in order and are wanted the other way round: few are kept.
        let mut found = Vec::new();
        self.log.entries_from(EntryIndex(from), |index, entry| {
            if index.0 >= before.0 {
                return ControlFlow::Break(());
            }
            if AttestTail::is_of_interest(entry) {
                found.push((index, entry.to_vec()));
            }
            ControlFlow::Continue(())
        })?;
        let mut is_done = from == 0;
        for (index, entry) in found.into_iter().rev() {
            if tail.look(index, &entry).is_break() {
                is_done = true;
                break;
            }
        }
        if is_done || tail.is_far(from) {
            attest.chain = tail.chain();
        } else {
            attest.search = Some(Search { before: TreeSize(from), tail });
        }
        Ok(())
    }
}

/// Where the counter of a log stands that no daemon has open.
#[derive(Debug)]
pub(crate) struct Standing {
    /// Digest of the newest attestation.
    pub(crate) previous: [u8; 32],
    /// The value that was certified last.
    pub(crate) certified: u64,
    /// Qualified name of the key that signs.
    pub(crate) signer: Vec<u8>,
}

/// Looks where the counter of a log stands. `None`: it never was certified, or the end of the last run leaves it between two
/// values, which a daemon has to settle.
pub(crate) fn standing(log: &mut Log) -> Result<Option<Standing>, LogError> {
    let mut tail = AttestTail::default();
    log.entries_back(|index, entry| match AttestTail::is_of_interest(entry) {
        true => tail.look(index, entry),
        false => ControlFlow::Continue(()),
    })?;
    Ok(match tail.chain() {
        Chain { previous, signer: Some(signer), certified: Some(certified), intent: None, .. } => {
            Some(Standing { previous, certified, signer })
        }
        _ => None,
    })
}

/// A look backwards over the log.
#[derive(Debug)]
struct Search {
    /// Everything from here on was looked at.
    before: TreeSize,
    tail: AttestTail,
}

/// What a pass backwards over the log has found so far.
#[derive(Debug, Default)]
struct AttestTail {
    /// The newest attestation: its digest and its clock.
    newest: Option<([u8; 32], u64)>,
    /// Qualified name of the key of the newest attestation, or of a younger announcement.
    signer: Option<Vec<u8>>,
    anchor: Option<u64>,
    certified: Option<u64>,
    intent: Option<u64>,
    /// Newest first.
    steps: Vec<u64>,
    steps_done: bool,
    /// Index of the newest anchor.
    anchor_at: u64,
}

impl AttestTail {
    fn is_of_interest(entry: &[u8]) -> bool {
        let of_interest = [Kind::Anchor, Kind::NvCounter, Kind::Epoch, Kind::AttestationKey];
        kind_of(entry).is_some_and(|kind| of_interest.contains(&kind))
    }

    /// Whether it is not worth to look further back than here for steps of the counter.
    fn is_far(&self, from: u64) -> bool {
        self.anchor.is_some() && self.anchor_at.saturating_sub(from) > SEARCH_MAX
    }

    fn look(&mut self, index: EntryIndex, entry: &[u8]) -> ControlFlow<()> {
        if let Ok(record) = decode(entry) {
            match record.body() {
                Body::Anchor(anchor) => {
                    if self.anchor.is_none() {
                        self.anchor = Some(anchor.number);
                        self.anchor_at = index.0;
                    }
                    self.attestation(anchor.attest.as_bytes());
                }
                Body::Epoch(epoch) => {
                    if let Some(attest) = &epoch.attest {
                        self.attestation(attest.as_bytes());
                    }
                }
                Body::NvCounter(counter) => self.counter(counter),
                Body::AttestationKey(key) => {
                    self.signer.get_or_insert_with(|| key.qualified_name.as_bytes().to_vec());
                    // Steps under an earlier key are another TPM's, or of before a clear.
                    self.steps_done = true;
                }
                _ => {}
            }
        }
        let whole = self.anchor.is_some() && self.certified.is_some() && self.steps_done;
        if whole { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn counter(&mut self, counter: &NvCounter<'_>) {
        match counter.op {
            CounterOp::Intent => {
                if self.certified.is_none() {
                    self.intent.get_or_insert(counter.value);
                }
            }
            CounterOp::Step | CounterOp::Late => {
                self.certified.get_or_insert(counter.value);
                if let Some(clock) = counter.attest.as_ref().and_then(|attest| self.attestation(attest.as_bytes()))
                    && !self.steps_done
                {
                    self.steps.push(clock);
                }
            }
            CounterOp::Capped => {}
        }
    }

    /// Takes an attestation; its clock.
    fn attestation(&mut self, bytes: &[u8]) -> Option<u64> {
        let read = Attest::parse(bytes).ok();
        let clock = read.as_ref().map(|read| read.clock_info.clock);
        if let Some(read) = read {
            self.signer.get_or_insert_with(|| read.qualified_signer.as_bytes().to_vec());
        }
        let (_, newest) = self.newest.get_or_insert_with(|| (attestation_digest(bytes), clock.unwrap_or_default()));
        if clock.is_some_and(|clock| clock.saturating_add(DAY_MS) <= *newest) {
            self.steps_done = true;
        }
        clock
    }

    fn chain(self) -> Chain {
        Chain {
            previous: self.newest.map_or(NO_ATTESTATION, |(digest, _)| digest),
            next_anchor: self.anchor.map_or(0, |number| number.saturating_add(1)),
            signer: self.signer,
            certified: self.certified,
            intent: self.intent,
            stepped: None,
            steps: self.steps.into_iter().rev().collect(),
        }
    }
}

fn counter_body(index: u32, op: CounterOp, value: u64) -> NvCounter<'static> {
    NvCounter { op, index, name: None, value, previous: None, attest: None, sig: None }
}

/// Tells the one who waits for what was under way that it will not come.
fn refuse(attest: &mut Attestation, under_way: UnderWay, why: &str) {
    if let UnderWay::Quoting(quoting) = under_way
        && let Some(nonce) = quoting.nonce
    {
        answer_asker(attest, nonce.ticket, why);
    }
}

fn answer_asker(attest: &mut Attestation, ticket: u64, why: &str) {
    if let Some(at) = attest.askers.iter().position(|(known, _)| *known == ticket) {
        let (_, asker) = attest.askers.swap_remove(at);
        drop(asker.send(Err(SessionError::Unavailable { why: why.to_owned() })));
    }
}

/// An error and what caused it, in one line.
pub(super) fn text_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        // Some show their cause themselves.
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
