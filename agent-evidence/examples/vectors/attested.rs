//! The cases of `tests/vectors` about a TPM: logs that it attests in order, and what somebody does who has the host, its keys, or
//! copies of its state, and perhaps the TPM too.

use agent_evidence::attest::cert::issue::{self, AuthorityKey, Lifetime};
use agent_evidence::attest::cert::x509::Certificate;
use agent_evidence::attest::cert::{CounterPin, Tie};
use agent_evidence::attest::key::Ak;
use agent_evidence::attest::tpm::public::RESTRICTED;
use agent_evidence::attest::tpm::{Attested, Name, NvPublic, OWNER};
use agent_evidence::bundle::{Manifest, Selected};
use agent_evidence::fixture::tpm::FixedTpm;
use agent_evidence::record::{Anchor, AnchorCause, Cadence, CounterOp, Epoch, EpochNumber, NvCounter};
use agent_evidence::trust::AttestationTrust;

use super::*;

/// Bytes with one bit changed in the last of them.
fn flipped(bytes: &Bytes<'_>) -> Bytes<'static> {
    let mut bytes = bytes.as_bytes().to_vec();
    if let Some(byte) = bytes.last_mut() {
        *byte ^= 1;
    }
    Bytes::owned(bytes)
}

/// A host with a TPM, and the log that it attests.
pub(super) struct Host {
    pub(super) log: Builder,
    pub(super) tpm: FixedTpm,
    boots: u8,
    seed: u8,
}

impl Host {
    /// 0 genesis, 1 epoch, 2 attestation key, 3 intent, 4 step, 5 armed, 6 anchor, 7 workload, 8 exit.
    fn new() -> Result<Self, BuildError> {
        Self::with_tpm(FixedTpm::new(0x51)?)
    }

    /// The same with these registers.
    pub(super) fn with_registers(pcrs: Vec<(u32, [u8; 32])>) -> Result<Self, BuildError> {
        let mut tpm = FixedTpm::new(0x51)?;
        tpm.pcrs = pcrs;
        Self::with_tpm(tpm)
    }

    fn with_tpm(tpm: FixedTpm) -> Result<Self, BuildError> {
        let log = Builder::new()?;
        let mut host = Self { log, tpm, boots: 1, seed: 20 };
        host.introduce();
        host.step();
        host.arm();
        host.anchor(AnchorCause::Start)?;
        host.log.append(Builder::workload());
        host.act();
        Ok(host)
    }

    fn introduce(&mut self) {
        let key = self.tpm.attestation_key();
        self.log.append(Body::AttestationKey(key));
    }

    fn append_counter(&mut self, counter: NvCounter<'_>) {
        self.log.append(Body::NvCounter(counter));
    }

    fn intend(&mut self) {
        let intent = self.tpm.intent();
        self.append_counter(intent);
    }

    fn step(&mut self) {
        self.intend();
        let step = self.tpm.step();
        self.log.append(step);
    }

    pub(super) fn arm(&mut self) {
        let boot = format!("00000000-0000-4000-8000-{:012}", self.boots);
        self.log.capture = Id128([0xc0 + self.boots; 16]);
        self.log.seqs.clear();
        if let Body::Armed(armed) = Builder::armed() {
            self.log.append(Body::Armed(Armed {
                capture_id: self.log.capture,
                boot_id: Text::from(boot),
                cadence: Cadence { anchor_ms: Some(2_000), counter_ms: Some(3_600_000), ..armed.cadence },
                ..armed
            }));
        }
    }

    fn act(&mut self) {
        self.log.event(exit(), Class::Process, None);
    }

    fn epoch_number(&self) -> EpochNumber {
        EpochNumber(self.log.epochs.saturating_sub(1))
    }

    fn quoted(&mut self, cause: AnchorCause) -> Result<Anchor<'static>, BuildError> {
        let checkpoint = self.log.checkpoint()?;
        Ok(self.tpm.anchor(cause, self.epoch_number(), &checkpoint, None))
    }

    fn append_anchor(&mut self, anchor: Anchor<'_>) {
        self.log.append(Body::Anchor(anchor));
    }

    pub(super) fn anchor(&mut self, cause: AnchorCause) -> Result<(), BuildError> {
        let anchor = self.quoted(cause)?;
        self.append_anchor(anchor);
        Ok(())
    }

    pub(super) fn heartbeat(&mut self) {
        let heartbeat = self.log.heartbeat(&[]);
        self.log.append(Body::Heartbeat(heartbeat));
    }

    pub(super) fn disarm(&mut self) {
        let disarmed = self.log.disarmed();
        self.log.append(Body::Disarmed(disarmed));
    }

    fn epoch(&mut self, how: Succession, counter: Option<u64>) -> Result<Epoch<'static>, BuildError> {
        self.seed += 1;
        Ok(self.log.counted_epoch(self.seed, how, counter)?)
    }

    fn stop(&mut self) -> Result<(), BuildError> {
        self.step();
        self.anchor(AnchorCause::Stop)?;
        self.disarm();
        Ok(())
    }

    /// What the agent does at its next start: a counted epoch, a run, an anchor.
    pub(super) fn start(&mut self) -> Result<(), BuildError> {
        self.step();
        let epoch = self.epoch(Succession::Orphan, Some(self.tpm.counter))?;
        self.log.append(Body::Epoch(epoch));
        self.arm();
        self.anchor(AnchorCause::Start)
    }

    /// The host is switched off and on; the TPM's clock loses what it had not saved.
    pub(super) fn reboot(&mut self) {
        self.boots += 1;
        self.tpm.reset();
        self.tpm.clock.clock -= 3_000;
    }

    /// An ordinary end.
    pub(super) fn end(mut self) -> Result<Self, BuildError> {
        self.log.wait(1_000);
        self.tpm.clock.clock += 1_000;
        self.heartbeat();
        self.anchor(AnchorCause::Interval)?;
        self.stop()?;
        Ok(self)
    }

    /// With this put in before the ordinary end.
    fn with(put: impl FnOnce(&mut Self) -> Result<(), BuildError>) -> Result<Self, BuildError> {
        let mut host = Self::new()?;
        put(&mut host)?;
        host.end()
    }

    /// What somebody pinned when the log was young.
    pub(super) fn trust(&self) -> Result<Trust, BuildError> {
        let tpm = FixedTpm::new(0x51)?;
        Ok(Trust {
            attestation: AttestationTrust {
                ak_names: vec![tpm.name()],
                counter_name: Some(tpm.nv.name()),
                counter_value: Some(8),
                reset_count: Some(5),
                largest_anchor_gap_seconds: Some(60),
                ..AttestationTrust::default()
            },
            ..self.log.trust()?
        })
    }
}

impl Cases {
    fn host(
        &mut self,
        name: &str,
        what: &'static str,
        host: &Host,
        findings: &[&'static str],
    ) -> Result<(), BuildError> {
        let trust = host.trust()?;
        self.add(name, what, host.log.files()?, Some(trust), findings)
    }
}

pub(super) fn attested(cases: &mut Cases) -> Result<(), BuildError> {
    in_order(cases)?;
    challenged_elsewhere(cases)?;
    keys(cases)?;
    attestations(cases)?;
    clocks(cases)?;
    counters(cases)?;
    copies(cases)?;
    bundles(cases)?;
    certified(cases)?;
    pins(cases)
}

/// An authority, and the certificate by which it ties a log's attestation key to the log, perhaps wrongly.
fn certificates(host: &Host, change: impl FnOnce(&mut Tie)) -> Result<(Certificate, Certificate), BuildError> {
    let key = AuthorityKey::from_random(&[0x61; 32]).ok_or_else(|| BuildError("no key".to_owned()))?;
    let lifetime = Lifetime { from: 1_700_000_000, until: 2_000_000_000 };
    let root = issue::authority(key.signing_key(), "Authority of the vectors", &[1; 16], lifetime)?;
    let known = host.log.trust()?;
    let (tpm, name) = (&host.tpm, host.tpm.qualified_name());
    let mut tie = Tie {
        origin: ORIGIN.to_owned(),
        log_key: known.log_key.key(),
        genesis: known.genesis,
        first_epoch_key: known.first_epoch_key,
        counter: Some(CounterPin { name: tpm.nv.name().as_bytes().to_vec(), value: 7 }),
        reset_count: 5,
        restart_count: 0,
        clock_ms: 60_000,
        ak_name: tpm.name().as_bytes().to_vec(),
        ek_name: FixedTpm::new(0x52)?.name().as_bytes().to_vec(),
        ek_certificate: None,
        request: Digest([6; 32]),
    };
    change(&mut tie);
    let ak = Ak::parse(&tpm.public.to_bytes(), name)?;
    let own = issue::attestation_key(key.signing_key(), &root, ak.point(), &tie, &[2; 16], lifetime)?;
    Ok((root, own))
}

/// Attestation keys for which an authority vouches.
fn certified(cases: &mut Cases) -> Result<(), BuildError> {
    // The certificate comes when the log is there already: the key is introduced again, with it.
    let host_with = |change: &dyn Fn(&mut Tie)| -> Result<(Host, String), BuildError> {
        let mut host = Host::new()?;
        let (root, own) = certificates(&host, change)?;
        let mut key = host.tpm.attestation_key();
        key.voucher = agent_evidence::record::Voucher::Site;
        key.certificates = vec![host.log.blob(own.der())].into();
        host.log.append(Body::AttestationKey(key));
        Ok((host.end()?, root.to_pem()))
    };
    let trusting = |host: &Host, minimum_tier, believe: &dyn Fn(&mut AttestationTrust)| {
        let mut trust = Trust { minimum_tier, ..host.trust()? };
        believe(&mut trust.attestation);
        Ok::<_, BuildError>(Some(trust))
    };
    let (host, root) = host_with(&|_| {})?;
    let site = |known: &mut AttestationTrust| known.site_roots = vec![root.clone()];
    let what = "nothing: the site's authority vouches for the attestation key, and T1 is required";
    cases.add("in_order_certified", what, host.log.files()?, trusting(&host, KeyTier::T1, &site)?, &[])?;
    let what = "the site's authority vouches for the attestation key, and T3 is required";
    let findings = ["tier_too_low"];
    cases.add("tier_too_low_site", what, host.log.files()?, trusting(&host, KeyTier::T3, &site)?, &findings)?;
    let what = "an authority vouches for the attestation key, which the trust file does not name";
    let nobody = trusting(&host, KeyTier::T1, &|_| {})?;
    cases.add("tier_too_low_no_root", what, host.log.files()?, nobody, &findings)?;
    let mut files = host.log.files()?;
    files.0.retain(|path, _| !path.starts_with("blob/"));
    let what = "the certificate of the attestation key is absent";
    cases.add("tier_too_low_absent", what, files, trusting(&host, KeyTier::T1, &site)?, &findings)?;
    let what = "the root of the site is no certificate";
    let text = trusting(&host, KeyTier::T1, &|known| known.site_roots = vec![root.clone()])?;
    cases.add("trust_root_malformed", what, host.log.files()?, text, &[])?;
    if let Some(case) = cases.0.last_mut() {
        case.trust = case.trust.take().map(|text| text.replace("END CERTIFICATE", "END CERTIFICAT"));
        case.exit = 2;
    }
    let (host, root) = host_with(&|tie| tie.origin = "affiant.example/another".to_owned())?;
    let site = |known: &mut AttestationTrust| known.site_roots = vec![root.clone()];
    let what = "the certificate of the attestation key is for another log";
    cases.add(
        "attack_certificate_of_another_log",
        what,
        host.log.files()?,
        trusting(&host, KeyTier::T1, &site)?,
        &findings,
    )?;
    let (host, root) = host_with(&|tie| tie.ek_certificate = Some(Digest([7; 32])))?;
    let independent = |known: &mut AttestationTrust| known.independent_roots = vec![root.clone()];
    let what = "nothing: an independent authority vouches for the attestation key, and for its TPM's vendor";
    cases.add(
        "in_order_certified_independent",
        what,
        host.log.files()?,
        trusting(&host, KeyTier::T3, &independent)?,
        &[],
    )
}

/// An evidence bundle of a session that a TPM attests.
fn bundles(cases: &mut Cases) -> Result<(), BuildError> {
    let session = |elsewhere: bool| -> Result<Host, BuildError> {
        let mut host = Host::new()?;
        host.step();
        host.heartbeat();
        let session = host.log.append(issued());
        host.anchor(AnchorCause::SessionStart)?;
        host.log.event(exit(), Class::Process, Some(session));
        let state = host.log.session(session);
        let revoked = Revoked {
            id: "s-1".into(),
            cause: RevokeCause::Exit,
            code: Some(0),
            signal: None,
            residual: None,
            acts: vec![KindCount { kind: agent_evidence::record::Kind::Exit, count: 1 }].into(),
            entries: state.number.0 + 1,
            hash: state.hash,
        };
        let draft = Draft { session: Some(session), ..host.log.draft(Body::Revoked(revoked)) };
        host.log.append_draft(&draft, |_| {});
        if elsewhere {
            let mut checkpoint = host.log.checkpoint()?;
            checkpoint.root = RootHash([9; 32]);
            let anchor = host.tpm.anchor(AnchorCause::SessionEnd, host.epoch_number(), &checkpoint, None);
            host.append_anchor(anchor);
        } else {
            host.anchor(AnchorCause::SessionEnd)?;
        }
        host.heartbeat();
        host.end()
    };
    let mut add = |name: &str, what, host: &Host, leave: Option<u64>, findings: &[&'static str]| {
        let Selected { sessions, mut disclosed, anchored, .. } = host.log.selected(&["s-1"]).map_err(BuildError)?;
        disclosed.retain(|entry| Some(entry.index.0) != leave);
        let mut heads = anchored;
        heads.push(TreeSize(host.log.entries.len() as u64 - 1));
        let mut trust = host.trust()?;
        trust.heads.clear();
        let bundle = host.log.bundle(&Manifest { sessions, heads }, &disclosed)?;
        cases.add(name, what, Files::default(), Some(trust), findings)?;
        if let Some(case) = cases.0.last_mut() {
            case.bundle = Some(bundle);
        }
        Ok::<_, BuildError>(())
    };
    let host = session(false)?;
    add("bundle_attested", "nothing: a session that a TPM attests", &host, None, &[])?;
    let what = "nothing that a rule forbids: without the attestation key nothing of the TPM is judged";
    add("bundle_attested_no_key", what, &host, Some(2), &[])?;
    let what = "an anchor in the bundle names another history";
    add("bundle_attested_elsewhere", what, &session(true)?, None, &["anchor_mismatch"])
}

/// A log in which one anchor carries a nonce, asked whether it answers.
fn challenged(cases: &mut Cases, host: &Host, nonce: &[u8]) -> Result<(), BuildError> {
    let mut add = |name: &str, what, challenge: &[u8], trust: Option<Trust>, findings: &[&'static str]| {
        cases.add(name, what, host.log.files()?, trust, findings)?;
        if let Some(case) = cases.0.last_mut() {
            case.challenge = Challenge::new(challenge).ok();
        }
        Ok::<_, BuildError>(())
    };
    let known = host.trust()?;
    add("challenge_answered", "nothing: an anchor carries the challenge", nonce, Some(known.clone()), &[])?;
    let what = "no anchor carries the challenge";
    add("challenge_unanswered", what, &[0x78; 20], Some(known.clone()), &["challenge_unanswered"])?;
    let what = "an anchor carries more than the challenge";
    add("challenge_unanswered_prefix", what, &nonce[..16], Some(known.clone()), &["challenge_unanswered"])?;
    let stranger = Trust { attestation: AttestationTrust::default(), ..known };
    let what = "an anchor carries the challenge, under a key that the trust file does not know";
    add("challenge_unbelieved", what, nonce, Some(stranger), &["challenge_unbelieved"])?;
    add("challenge_untrusting", "nothing is found without a trust file, and nobody is believed", nonce, None, &[])
}

/// The challenge is answered, but over the root of another history.
fn challenged_elsewhere(cases: &mut Cases) -> Result<(), BuildError> {
    let mut host = Host::new()?;
    let nonce = [0x79; 20];
    let mut checkpoint = host.log.checkpoint()?;
    checkpoint.root.0[0] ^= 1;
    let anchor = host.tpm.anchor(AnchorCause::Nonce, host.epoch_number(), &checkpoint, Some(&nonce));
    host.append_anchor(anchor);
    let host = host.end()?;
    cases.host(
        "challenge_elsewhere",
        "the challenge is answered over another history",
        &host,
        &["anchor_mismatch", "challenge_unanswered"],
    )?;
    if let Some(case) = cases.0.last_mut() {
        case.challenge = Challenge::new(&nonce).ok();
    }
    Ok(())
}

fn in_order(cases: &mut Cases) -> Result<(), BuildError> {
    let mut host = Host::new()?;
    let (nonce, checkpoint) = ([0x77; 20], host.log.checkpoint()?);
    let asked = host.tpm.anchor(AnchorCause::Nonce, host.epoch_number(), &checkpoint, Some(&nonce));
    host.append_anchor(asked);
    let epoch = host.epoch(Succession::Continued, Some(host.tpm.counter))?;
    host.log.append(Body::Epoch(epoch));
    host.anchor(AnchorCause::Interval)?;
    host.stop()?;
    host.reboot();
    host.start()?;
    host.act();
    let host = host.end()?;
    cases.host("in_order_attested", "nothing: a log of two boots that a TPM attests", &host, &[])?;
    challenged(cases, &host, &nonce)?;
    let mut trust = host.trust()?;
    trust.attestation.live_activated_aks = std::mem::take(&mut trust.attestation.ak_names);
    trust.minimum_tier = KeyTier::T3;
    let what = "nothing: whoever wrote the trust file activated the attestation key himself, and requires T3";
    cases.add("in_order_attested_live", what, host.log.files()?, Some(trust), &[])?;
    let mut trust = host.trust()?;
    trust.minimum_tier = KeyTier::T1;
    let what = "an attestation key that is pinned and for which nobody vouches is no TPM's";
    cases.add("tier_too_low_attested", what, host.log.files()?, Some(trust), &["tier_too_low"])?;
    let mut epoch_attested = Host::new()?;
    let mut epoch = epoch_attested.epoch(Succession::Continued, None)?;
    let statement = agent_evidence::epoch::EpochStatement::of(ORIGIN, &epoch).digest();
    let quote = epoch_attested.tpm.quote();
    let (attest, sig) = epoch_attested.tpm.attest(&statement, quote);
    (epoch.attest, epoch.sig_attest) = (Some(Bytes::owned(attest)), Some(Bytes::owned(sig)));
    epoch_attested.log.append(Body::Epoch(epoch));
    let what = "nothing: an epoch that carries an attestation of its own";
    cases.host("in_order_epoch_attested", what, &epoch_attested.end()?, &[])
}

fn keys(cases: &mut Cases) -> Result<(), BuildError> {
    let mut host = Host { log: Builder::new()?, tpm: FixedTpm::new(0x51)?, boots: 1, seed: 20 };
    host.tpm.public.attributes &= !RESTRICTED;
    host.introduce();
    host.step();
    host.arm();
    let mut trust = host.trust()?;
    trust.attestation = AttestationTrust::default();
    let what = "the attestation key is not restricted: it could sign a quote that no TPM made";
    cases.add("attack_key_unrestricted", what, host.log.files()?, Some(trust), &["attestation_key_wrong"])?;

    let mut host = Host { log: Builder::new()?, tpm: FixedTpm::new(0x51)?, boots: 1, seed: 20 };
    let mut key = host.tpm.attestation_key();
    key.name = flipped(&key.name);
    host.log.append(Body::AttestationKey(key));
    let mut trust = host.trust()?;
    trust.attestation = AttestationTrust::default();
    let what = "the attestation key has another name than its public area";
    cases.add("attestation_key_wrong_name", what, host.log.files()?, Some(trust), &["attestation_key_wrong"])?;

    let forger = FixedTpm::new(0x66)?;
    let host = Host::with(|host| {
        let mut anchor = host.quoted(AnchorCause::Interval)?;
        anchor.sig = Bytes::owned(forger.sign(anchor.attest.as_bytes()));
        host.append_anchor(anchor);
        Ok(())
    })?;
    cases.host(
        "attack_quote_forged",
        "a quote was made by a program and signed with its key",
        &host,
        &["attestation_forged"],
    )?;

    let host = Host::with(|host| {
        let place = host.tpm.parent.clone();
        // The same key as a primary key of the owner: its clock and reset count are not the TPM's own.
        host.tpm.parent = Name::parse(forger.name().as_bytes())?.qualified_in(OWNER);
        host.anchor(AnchorCause::Interval)?;
        host.tpm.parent = place;
        Ok(())
    })?;
    let what =
        "a quote was signed by a key of the owner hierarchy and not by the attestation key under the endorsement key";
    cases.host("attack_key_of_owner", what, &host, &["attestation_signer_wrong"])?;

    // Another TPM takes over, its clock and counts ahead of the first one's.
    let swapped = |known: bool| -> Result<(Host, Trust), BuildError> {
        let mut host = Host::new()?;
        host.stop()?;
        let (before, seed) = (host.tpm.clone(), 0x52);
        host.tpm = before.succeeded_by(FixedTpm::new(seed)?);
        host.tpm.clock = before.clock;
        host.boots += 1;
        host.tpm.reset();
        host.introduce();
        host.start()?;
        let host = host.end()?;
        let mut trust = host.trust()?;
        if known {
            trust.attestation.ak_names.push(FixedTpm::new(seed)?.name());
        }
        Ok((host, trust))
    };
    let (host, trust) = swapped(false)?;
    let what = "the log goes on under the attestation key of another TPM";
    let findings = ["attestation_key_changed", "ak_untrusted"];
    cases.add("attack_key_swapped", what, host.log.files()?, Some(trust), &findings)?;
    let (host, trust) = swapped(true)?;
    let what = "nothing: the log goes on under the attestation key of another TPM, which the trust file names too";
    cases.add("in_order_key_renewed", what, host.log.files()?, Some(trust), &[])?;

    let mut host = Host::new()?;
    host.stop()?;
    let before = host.tpm.clone();
    host.tpm = before.succeeded_by(FixedTpm::new(0x53)?);
    host.tpm.clock.clock = 500;
    host.tpm.clock.reset_count = 0;
    host.boots += 1;
    host.introduce();
    host.start()?;
    let host = host.end()?;
    let what = "the TPM was cleared: another attestation key, clock and counts from 0";
    cases.host("attack_tpm_cleared", what, &host, &["attestation_key_changed", "tpm_reset_back", "ak_untrusted"])?;

    let mut host = Host { log: Builder::new()?, tpm: FixedTpm::new(0x51)?, boots: 1, seed: 20 };
    host.arm();
    host.anchor(AnchorCause::Start)?;
    host.disarm();
    let mut trust = host.trust()?;
    trust.attestation = AttestationTrust::default();
    let what = "an anchor, and no attestation key before it";
    cases.add("attestation_key_missing", what, host.log.files()?, Some(trust), &["attestation_key_missing"])
}

fn attestations(cases: &mut Cases) -> Result<(), BuildError> {
    let host = Host::with(|host| {
        let old = host.quoted(AnchorCause::Interval)?;
        host.append_anchor(old.clone());
        host.act();
        let mut anchor = host.quoted(AnchorCause::Interval)?;
        (anchor.attest, anchor.sig) = (old.attest, old.sig);
        host.tpm.previous = agent_evidence::attest::statement::attestation_digest(anchor.attest.as_bytes());
        host.append_anchor(anchor);
        Ok(())
    })?;
    cases.host("attack_quote_replayed", "an old quote stands in a new anchor", &host, &["attestation_data_wrong"])?;

    let host = Host::with(|host| {
        let (nonce, mut anchor) = ([0x77; 32], host.quoted(AnchorCause::Nonce)?);
        let quote = host.tpm.quote();
        let (attest, sig) = host.tpm.attest(&nonce, quote);
        (anchor.nonce, anchor.attest, anchor.sig) =
            (Some(Bytes::owned(nonce.to_vec())), Bytes::owned(attest), Bytes::owned(sig));
        host.append_anchor(anchor);
        Ok(())
    })?;
    let what = "a quote is over a caller's nonce as it came, and not over the statement that holds it";
    cases.host("attack_nonce_raw", what, &host, &["attestation_data_wrong"])?;

    let host = Host::with(|host| {
        // Quoted, and its entry never written.
        host.quoted(AnchorCause::Interval)?;
        host.act();
        host.anchor(AnchorCause::Interval)
    })?;
    let what = "an anchor was removed, by whoever has the keys";
    cases.host("attack_anchor_removed", what, &host, &["anchor_number_wrong", "attestation_order_wrong"])?;

    let host = Host::with(|host| {
        let mut other = Host::new()?.log;
        other.entries.pop();
        other.append(exec("/usr/bin/true"));
        let checkpoint = other.checkpoint()?;
        let anchor = host.tpm.anchor(AnchorCause::Interval, host.epoch_number(), &checkpoint, None);
        host.append_anchor(anchor);
        Ok(())
    })?;
    let what = "a quote is over the checkpoint of another history";
    cases.host("attack_anchor_elsewhere", what, &host, &["anchor_mismatch"])?;

    let host = Host::with(|host| {
        let mut anchor = host.quoted(AnchorCause::Interval)?;
        if let List::Owned(pcrs) = &mut anchor.pcrs
            && let Some(row) = pcrs.last_mut()
        {
            row.value = Digest([0; 32]);
        }
        host.append_anchor(anchor);
        Ok(())
    })?;
    let what = "an anchor lists another value of a register than was quoted";
    cases.host("attack_register_dressed", what, &host, &["pcr_digest_wrong"])?;

    let wrong = |change: &dyn Fn(&mut Host) -> Result<Anchor<'static>, BuildError>| {
        Host::with(|host| {
            let anchor = change(host)?;
            host.append_anchor(anchor);
            Ok(())
        })
    };
    let host = wrong(&|host| {
        let mut checkpoint = host.log.checkpoint()?;
        checkpoint.size = TreeSize(checkpoint.size.0 + 1);
        Ok(host.tpm.anchor(AnchorCause::Interval, host.epoch_number(), &checkpoint, None))
    })?;
    // The one after it is over a smaller tree again only if the size was far off.
    cases.host(
        "anchor_wrong_size",
        "an anchor of a tree that holds it",
        &host,
        &["anchor_wrong", "anchor_mismatch"],
    )?;
    let host = wrong(&|host| {
        let checkpoint = host.log.checkpoint()?;
        Ok(host.tpm.anchor(AnchorCause::Interval, EpochNumber(1), &checkpoint, None))
    })?;
    cases.host("anchor_wrong_epoch", "an anchor of an epoch that was not yet", &host, &["anchor_wrong"])?;
    let host = wrong(&|host| {
        let checkpoint = host.log.checkpoint()?;
        Ok(host.tpm.anchor(AnchorCause::Nonce, host.epoch_number(), &checkpoint, Some(&[1; 15])))
    })?;
    cases.host("anchor_wrong_nonce", "an anchor with a short nonce", &host, &["anchor_wrong"])?;
    let host = wrong(&|host| {
        let mut anchor = host.quoted(AnchorCause::Interval)?;
        let mut bytes = anchor.attest.as_bytes().to_vec();
        bytes.push(0);
        (anchor.sig, anchor.attest) = (Bytes::owned(host.tpm.sign(&bytes)), Bytes::owned(bytes));
        host.tpm.previous = agent_evidence::attest::statement::attestation_digest(anchor.attest.as_bytes());
        Ok(anchor)
    })?;
    let what = "a byte follows an attestation that is signed with it";
    cases.host("attestation_malformed", what, &host, &["attestation_malformed"])?;
    let host = wrong(&|host| {
        let mut anchor = host.quoted(AnchorCause::Interval)?;
        let mut bytes = anchor.sig.as_bytes().to_vec();
        bytes.truncate(71);
        anchor.sig = Bytes::owned(bytes);
        Ok(anchor)
    })?;
    cases.host("attestation_malformed_signature", "a signature is cut off", &host, &["attestation_malformed"])?;
    let host = wrong(&|host| {
        let checkpoint = host.log.checkpoint()?;
        let mut tpm = host.tpm.clone();
        let mut anchor = tpm.anchor(AnchorCause::Interval, host.epoch_number(), &checkpoint, None);
        // The same statement, certified of an NV index and not with a quote.
        let statement = agent_evidence::attest::statement::AnchorStatement {
            checkpoint: &checkpoint,
            epoch: anchor.epoch,
            number: anchor.number,
            previous: anchor.previous.0,
            nonce: None,
        };
        let certified = Attested::Nv { name: host.tpm.nv.name(), offset: 0, contents: vec![0; 8] };
        let (attest, sig) = host.tpm.attest(&statement.digest(), certified);
        host.tpm.anchors += 1;
        (anchor.attest, anchor.sig) = (Bytes::owned(attest), Bytes::owned(sig));
        Ok(anchor)
    })?;
    let what = "an anchor is no quote";
    cases.host("attestation_malformed_sort", what, &host, &["attestation_malformed"])
}

fn clocks(cases: &mut Cases) -> Result<(), BuildError> {
    let host = Host::with(|host| {
        host.tpm.clock.clock -= 100;
        host.anchor(AnchorCause::Interval)
    })?;
    cases.host("attack_clock_back", "the TPM's clock goes back within a boot", &host, &["tpm_clock_back"])?;

    let over = |change: &dyn Fn(&mut Host)| -> Result<Host, BuildError> {
        let mut host = Host::new()?;
        host.stop()?;
        change(&mut host);
        host.start()?;
        host.end()
    };
    let host = over(&|host| {
        host.reboot();
        host.tpm.clock.clock -= 5_000;
    })?;
    let what = "the TPM's clock goes back over a boot by more than it can lose";
    cases.host("attack_clock_back_reset", what, &host, &["tpm_clock_back"])?;
    let host = over(&|host| {
        host.boots += 1;
        host.tpm.clock.reset_count -= 1;
    })?;
    let what = "quotes of an earlier boot stand in a later one";
    cases.host("attack_quote_other_boot", what, &host, &["tpm_reset_back"])?;
    let host = over(&|host| host.boots += 1)?;
    let what = "another kernel was booted without a reset of the TPM (kexec)";
    cases.host("attack_kexec", what, &host, &["boot_without_reset"])?;
    let host = over(&|host| {
        host.boots += 1;
        host.reboot();
        host.boots = 1;
    })?;
    let what = "the TPM was reset, and the agent says that the host did not boot";
    cases.host("attack_reset_unexplained", what, &host, &["tpm_reset_unexplained"])?;
    let host = Host::with(|host| {
        host.tpm.reset();
        host.anchor(AnchorCause::Interval)
    })?;
    let what = "the TPM was reset within a run";
    cases.host("tpm_reset_unexplained_run", what, &host, &["tpm_reset_unexplained"])?;

    let mut host = Host::new()?;
    host.tpm.clock.clock += 8_000;
    host.log.wait(8_000);
    let host = host.end()?;
    let what =
        "nothing that a rule forbids: no anchor for longer than declared, in which the keys could have been used";
    cases.host("attack_unanchored", what, &host, &[])?;
    let mut trust = host.trust()?;
    trust.attestation.largest_anchor_gap_seconds = Some(5);
    let what = "no anchor for longer than the trust file allows";
    cases.add("anchor_gap_too_long", what, host.log.files()?, Some(trust), &["anchor_gap_too_long"])
}

fn counters(cases: &mut Cases) -> Result<(), BuildError> {
    let host = Host::with(|host| {
        host.tpm.counter += 1;
        host.step();
        Ok(())
    })?;
    cases.host("attack_counter_burnt", "somebody else stepped the counter", &host, &["nv_counter_gap"])?;

    let host = Host::with(|host| {
        host.tpm.nv = NvPublic { attributes: NvPublic::COUNTER_ATTRIBUTES | 1 << 26, ..host.tpm.nv.clone() };
        host.step();
        host.tpm.nv = NvPublic::counter(host.tpm.nv.index);
        Ok(())
    })?;
    let what = "the counter was defined anew as one that jumps when power is lost";
    cases.host("attack_counter_redefined", what, &host, &["nv_counter_wrong"])?;

    let host = Host::with(|host| {
        let step = host.tpm.step();
        host.log.append(step);
        Ok(())
    })?;
    cases.host("nv_counter_wrong_intent", "a step without an intent", &host, &["nv_counter_wrong"])?;
    let host = Host::with(|host| {
        let mut intent = host.tpm.intent();
        intent.previous = Some(Digest([0; 32]));
        host.append_counter(intent);
        host.tpm.counter += 1;
        let mut step = host.tpm.certify(CounterOp::Step);
        step.index += 1;
        host.append_counter(step);
        Ok(())
    })?;
    let what = "an intent with a member that it cannot have, and a step of another index than was certified";
    let findings = ["nv_counter_wrong", "nv_counter_wrong", "attestation_data_wrong"];
    cases.host("nv_counter_wrong_members", what, &host, &findings)?;
    let host = Host::with(|host| {
        host.intend();
        host.tpm.counter += 2;
        let mut step = host.tpm.certify(CounterOp::Step);
        host.tpm.counter -= 1;
        let honest = host.tpm.certify(CounterOp::Step);
        // Everything of the right value but what the TPM certified.
        let statement = agent_evidence::attest::statement::CounterStatement {
            origin: ORIGIN,
            op: CounterOp::Step,
            index: step.index,
            value: honest.value,
            previous: step.previous.map_or([0; 32], |previous| previous.0),
        };
        let contents = step.value.to_be_bytes().to_vec();
        let attested = Attested::Nv { name: host.tpm.nv.name(), offset: 0, contents };
        let (attest, sig) = host.tpm.attest(&statement.digest(), attested);
        (step.value, step.attest, step.sig) = (honest.value, Some(Bytes::owned(attest)), Some(Bytes::owned(sig)));
        host.append_counter(step);
        Ok(())
    })?;
    let what = "the TPM certified another value than the entry says";
    cases.host("nv_counter_wrong_value", what, &host, &["nv_counter_wrong"])?;

    let mut host = Host::new()?;
    for _ in 0..3 {
        // Each start steps the counter, and the power goes before the stop.
        host.boots += 1;
        host.tpm.reset();
        host.start()?;
    }
    let capped = NvCounter { op: CounterOp::Capped, value: host.tpm.counter, ..host.tpm.intent() };
    host.append_counter(capped);
    host.boots += 1;
    host.tpm.reset();
    let epoch = host.epoch(Succession::Orphan, None)?;
    host.log.append(Body::Epoch(epoch));
    host.arm();
    host.anchor(AnchorCause::Start)?;
    host.disarm();
    let what = "the agent was made to start until the counter is not stepped any more";
    cases.host("attack_crash_loop", what, &host, &["nv_counter_capped", "epoch_uncounted"])?;

    let host = Host::with(|host| {
        let epoch = host.epoch(Succession::Orphan, None)?;
        host.log.append(Body::Epoch(epoch));
        Ok(())
    })?;
    let what = "an epoch that neither the one before nor the counter vouches for, begun with the log key alone";
    cases.host("attack_epoch_uncounted", what, &host, &["epoch_uncounted"])?;
    let mut host = Host::new()?;
    host.stop()?;
    let epoch = host.epoch(Succession::Orphan, Some(host.tpm.counter))?;
    host.log.append(Body::Epoch(epoch));
    let what = "an epoch that names the step with which the run before it ended, begun with the log key alone";
    cases.host("attack_epoch_step_used", what, &host, &["epoch_uncounted"])?;
    let host = Host::with(|host| {
        let epoch = host.epoch(Succession::Continued, Some(77))?;
        host.log.append(Body::Epoch(epoch));
        Ok(())
    })?;
    cases.host("epoch_wrong_counter", "an epoch with a value that the counter does not have", &host, &["epoch_wrong"])
}

/// What copies of the state directory, and of the TPM's state, can do.
fn copies(cases: &mut Cases) -> Result<(), BuildError> {
    // The state as it was after the first run's acts; what came then, with its steps, is gone.
    let mut host = Host::new()?;
    host.tpm.counter += 2;
    host.tpm.clock.clock += 500;
    host.boots += 1;
    host.tpm.reset();
    host.start()?;
    let host = host.end()?;
    let what = "the state directory was put back to an earlier time, and the counter is ahead of it";
    cases.host("attack_state_rolled_back", what, &host, &["nv_counter_gap"])?;

    let mut host = Host::new()?;
    host.intend();
    host.tpm.counter += 1;
    host.boots += 1;
    host.tpm.reset();
    let late = host.tpm.certify(CounterOp::Late);
    host.append_counter(late);
    let epoch = host.epoch(Succession::Orphan, Some(host.tpm.counter))?;
    host.log.append(Body::Epoch(epoch));
    host.arm();
    host.anchor(AnchorCause::Start)?;
    let host = host.end()?;
    let what = "a copy of the state from between an intent and its step was put back: a crash looks the same, and the time is not proved";
    cases.host("attack_snapshot_after_intent", what, &host, &[])?;

    // What the witness saw, and the host had, before both were put back.
    let seen = Host::with(|host| {
        host.act();
        host.act();
        host.anchor(AnchorCause::Interval)
    })?;
    let mut rolled = Host::new()?;
    rolled.log.append(Builder::workload());
    let rolled = rolled.end()?;
    let what = "the state directory and the TPM's state were put back together: nothing in the log shows it";
    cases.host("attack_state_and_tpm_rolled_back", what, &rolled, &[])?;
    let witness = FixedSigner::new("witness.example/w1", 41)?;
    let policy = format!("witness w1 {}\nquorum w1\n", witness.witness_key());
    let mut trust = rolled.trust()?;
    trust.believe(&policy)?;
    let mut files = rolled.log.files()?;
    files.0.extend([seen.log.cosigned(&witness, COSIGNED)?]);
    let what = "the same, and a witness saw what was there before";
    cases.add("attack_state_and_tpm_rolled_back_witnessed", what, files, Some(trust), &["log_truncated"])?;

    // A second log under the same keys and the same TPM, with a counter of its own.
    let beside = Host::with(|host| {
        host.log.append(Builder::workload());
        Ok(())
    })?;
    let what = "a second log beside the first, with the same keys and TPM: nothing in either shows it";
    let mut trust = beside.trust()?;
    cases.add("attack_two_logs", what, beside.log.files()?, Some(trust.clone()), &[])?;
    trust.believe(&policy)?;
    let mut files = beside.log.files()?;
    let mut first = Host::new()?;
    first.act();
    files.0.extend([first.log.cosigned(&witness, COSIGNED)?]);
    let what = "the same, and a witness saw the first";
    cases.add("attack_two_logs_witnessed", what, files, Some(trust), &["split_view"])
}

fn pins(cases: &mut Cases) -> Result<(), BuildError> {
    let host = Host::new()?.end()?;
    let mut add = |name: &str, what, findings: &[&'static str], change: &dyn Fn(&mut AttestationTrust)| {
        let mut trust = host.trust()?;
        change(&mut trust.attestation);
        cases.add(name, what, host.log.files()?, Some(trust), findings)
    };
    let other = FixedTpm::new(0x55)?;
    add("ak_untrusted", "the trust file names another attestation key", &["ak_untrusted"], &|known| {
        known.ak_names = vec![other.name()];
    })?;
    add(
        "counter_untrusted",
        "the counter has another name than the trust file says",
        &["counter_untrusted"],
        &|known| {
            known.counter_name = Some(NvPublic::counter(0x0150_0200).name());
        },
    )?;
    add("counter_untrusted_value", "the counter began elsewhere", &["counter_untrusted"], &|known| {
        known.counter_value = Some(4);
    })?;
    add("reset_count_untrusted", "the log began after another boot", &["reset_count_untrusted"], &|known| {
        known.reset_count = Some(4);
    })
}
