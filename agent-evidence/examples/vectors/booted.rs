//! The cases of `tests/vectors` about what was booted: logs that real guests measured (`tests/measured`), under quotes of a TPM in
//! software that has the registers of those guests.

use agent_evidence::attest::pcr::RegisterPolicy;
use agent_evidence::bundle::{Manifest, Selected};
use agent_evidence::record::{AnchorCause, Measured, MeasuredLog};

use super::attested::Host;
use super::*;

/// What one guest measured.
struct Guest {
    event_log: &'static [u8],
    ima: &'static [u8],
    pcrs: &'static str,
    pcrs_early: &'static str,
}

macro_rules! guest {
    ($name:literal) => {
        Guest {
            event_log: include_bytes!(concat!("../../tests/measured/", $name, "/event_log")),
            ima: include_bytes!(concat!("../../tests/measured/", $name, "/ima")),
            pcrs: include_str!(concat!("../../tests/measured/", $name, "/pcrs")),
            pcrs_early: include_str!(concat!("../../tests/measured/", $name, "/pcrs_early")),
        }
    };
}

const PLAIN: Guest = guest!("plain");
const SECURE: Guest = guest!("secure");
const OTHER: Guest = guest!("sha384");
const SHA1_EVENT_LOG: &[u8] = include_bytes!("../../tests/measured/sha1/event_log");

/// How much of the list of `PLAIN` the kernel had when the early registers were read.
const IMA_EARLY: usize = 515;

/// The registers that agents quote.
const QUOTED: [u32; 13] = [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 14];

/// The registers that the policy speaks of.
const POLICY: [u32; 8] = [0, 1, 2, 3, 4, 5, 6, 7];

fn registers(text: &str) -> Vec<(u32, [u8; 32])> {
    let row = |line: &str| {
        let (index, value) = line.split_once(' ')?;
        Some((index.parse().ok()?, Digest::from_hex(value)?.0))
    };
    text.lines().filter_map(row).filter(|(index, _)| QUOTED.contains(index)).collect()
}

/// The bytes with this byte of them changed.
fn changed(bytes: &[u8], at: usize, to: u8) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if let Some(byte) = bytes.get_mut(at) {
        *byte = to;
    }
    bytes
}

/// Values that are right for these guests.
fn policy(guests: &[&Guest], indexes: &[u32]) -> Result<Vec<RegisterPolicy>, BuildError> {
    let mut policies = Vec::new();
    for index in indexes {
        let of = |guest: &&Guest| {
            let value = registers(guest.pcrs).into_iter().find(|(register, _)| register == index)?.1;
            Some(Digest(value))
        };
        let mut values: Vec<Digest> = guests.iter().filter_map(of).collect();
        values.dedup();
        // Of a register that no guest quotes any value will do.
        let values = if values.is_empty() { vec![Digest([0; 32])] } else { values };
        policies.push(RegisterPolicy::new(*index, values)?);
    }
    Ok(policies)
}

/// What is put beside the log of a boot.
struct Logs<'l> {
    event_log: Option<&'l [u8]>,
    /// Parts of the list: content, where it begins, and whether it was the end.
    ima: &'l [(&'l [u8], usize, bool)],
}

impl Host {
    fn measured(&mut self, log: MeasuredLog, content: &[u8], from: usize, complete: bool) {
        let content = self.log.blob(content);
        self.log.append(Body::Measured(Measured { log, content, from: from as u64, complete }));
    }

    fn logs(&mut self, logs: &Logs<'_>) {
        if let Some(event_log) = logs.event_log {
            self.measured(MeasuredLog::EventLog, event_log, 0, true);
        }
        for (content, from, complete) in logs.ima {
            self.measured(MeasuredLog::Ima, content, *from, *complete);
        }
    }
}

/// A host that booted as this guest: 6 an anchor of the early registers, 9 an anchor of the later ones, 10 and on the logs.
fn booted(guest: &Guest, logs: &Logs<'_>) -> Result<Host, BuildError> {
    let mut host = Host::with_registers(registers(guest.pcrs_early))?;
    host.tpm.pcrs = registers(guest.pcrs);
    host.anchor(AnchorCause::Interval)?;
    host.logs(logs);
    Ok(host)
}

/// The event log alone, as it is.
fn whole(guest: &Guest) -> Logs<'_> {
    Logs { event_log: Some(guest.event_log), ima: &[] }
}

fn trust(host: &Host) -> Result<Trust, BuildError> {
    let mut trust = host.trust()?;
    trust.required.push(Claim::HostState);
    trust.registers = policy(&[&PLAIN], &POLICY)?;
    Ok(trust)
}

impl Cases {
    /// A host that booted as `PLAIN`, with these logs.
    fn booted(
        &mut self,
        name: &str,
        what: &'static str,
        logs: &Logs<'_>,
        findings: &[&'static str],
    ) -> Result<(), BuildError> {
        let host = booted(&PLAIN, logs)?.end()?;
        let trust = trust(&host)?;
        self.add(name, what, host.log.files()?, Some(trust), findings)
    }

    /// The same with whole logs, and another trust file.
    fn trusted(
        &mut self,
        name: &str,
        what: &'static str,
        change: impl FnOnce(&mut Trust) -> Result<(), BuildError>,
        findings: &[&'static str],
    ) -> Result<(), BuildError> {
        let ima = [(PLAIN.ima, 0, true)];
        let host = booted(&PLAIN, &Logs { ima: &ima, ..whole(&PLAIN) })?.end()?;
        let mut trust = trust(&host)?;
        change(&mut trust)?;
        self.add(name, what, host.log.files()?, Some(trust), findings)
    }
}

pub(super) fn host_state(cases: &mut Cases) -> Result<(), BuildError> {
    in_order(cases)?;
    not_proved(cases)?;
    event_logs(cases)?;
    lists(cases)?;
    bundles(cases)
}

fn in_order(cases: &mut Cases) -> Result<(), BuildError> {
    cases.trusted("host_state", "the logs give what was quoted, and the trust file allows it", |_| Ok(()), &[])?;
    let (first, second) = PLAIN.ima.split_at(500);
    cases.booted(
        "host_state_parts",
        "the list comes in parts, and the agent reads it a second time",
        &Logs {
            ima: &[(first, 0, false), (second, 500, true), (&[], PLAIN.ima.len(), true), (PLAIN.ima, 0, true)],
            ..whole(&PLAIN)
        },
        &[],
    )?;
    cases.booted(
        "host_state_ahead",
        "the list was read before what the last quotes stand for: no log explains their register 10",
        &Logs { ima: &[(PLAIN.ima.get(..IMA_EARLY).unwrap_or_default(), 0, false)], ..whole(&PLAIN) },
        &[],
    )?;
    // The first measured event is an EV_S_CRTM_VERSION of register 0.
    let swapped = changed(PLAIN.event_log, 73, 4);
    cases.booted(
        "host_state_type_swapped",
        "an event of the event log is called by another type, which no digest covers and nobody believes",
        &Logs { event_log: Some(&swapped), ima: &[(PLAIN.ima, 0, true)] },
        &[],
    )?;
    let mut host = booted(&PLAIN, &Logs { ima: &[(PLAIN.ima, 0, true)], ..whole(&PLAIN) })?.end()?;
    host.reboot();
    host.tpm.pcrs = registers(SECURE.pcrs_early);
    host.start()?;
    host.tpm.pcrs = registers(SECURE.pcrs);
    host.anchor(AnchorCause::Interval)?;
    host.logs(&Logs { ima: &[(SECURE.ima, 0, true)], ..whole(&SECURE) });
    let host = host.end()?;
    let mut trust = trust(&host)?;
    trust.registers = policy(&[&PLAIN, &SECURE], &POLICY)?;
    cases.add(
        "host_state_two_boots",
        "the host booted a second time, with Secure Boot; the trust file allows both",
        host.log.files()?,
        Some(trust.clone()),
        &[],
    )?;
    trust.registers = policy(&[&PLAIN], &POLICY)?;
    cases.add(
        "pcr_policy_violated",
        "the host booted something else the second time than the trust file allows",
        host.log.files()?,
        Some(trust),
        &["pcr_policy_violated", "pcr_policy_violated", "pcr_policy_violated"],
    )
}

/// Nothing is wrong, and it does not follow.
fn not_proved(cases: &mut Cases) -> Result<(), BuildError> {
    const NOT: &[&str] = &["claim_not_proved"];
    let none = |trust: &mut Trust| {
        trust.registers.clear();
        Ok(())
    };
    cases.trusted("host_state_no_policy", "nobody says which registers are right", none, NOT)?;
    let more = |trust: &mut Trust| {
        trust.registers = policy(&[&PLAIN], &[7, 8])?;
        Ok(())
    };
    cases.trusted("host_state_not_quoted", "the trust file speaks of a register that was not quoted", more, NOT)?;
    let unnamed = |trust: &mut Trust| {
        trust.attestation.ak_names.clear();
        Ok(())
    };
    cases.trusted("host_state_unvouched", "nobody vouches for the key that quotes", unnamed, NOT)?;
    let ima = [(PLAIN.ima, 0, true)];
    cases.booted("host_state_no_event_log", "no event log", &Logs { event_log: None, ima: &ima }, NOT)?;
    cases.booted(
        "host_state_sha1",
        "the firmware did not use the SHA-256 bank",
        &Logs { event_log: Some(SHA1_EVENT_LOG), ima: &ima },
        NOT,
    )?;
    let mut host = booted(&PLAIN, &Logs { ima: &ima, ..whole(&PLAIN) })?.end()?;
    host.reboot();
    host.arm();
    host.heartbeat();
    host.disarm();
    let trust = trust(&host)?;
    cases.add("host_state_never_quoted", "a boot of which nothing was quoted", host.log.files()?, Some(trust), NOT)
}

fn event_logs(cases: &mut Cases) -> Result<(), BuildError> {
    let ima: &[(&[u8], usize, bool)] = &[(PLAIN.ima, 0, true)];
    let mut add = |name: &str, what, event_log: &[u8], findings: &[&'static str]| {
        cases.booted(name, what, &Logs { event_log: Some(event_log), ima }, findings)
    };
    // The SHA-256 digest of the first measured event begins at byte 105.
    add(
        "measured_mismatch_event_log",
        "a digest of the event log was altered",
        &changed(PLAIN.event_log, 110, 0),
        &["measured_mismatch"],
    )?;
    add("measured_mismatch_other_boot", "the event log of another boot", OTHER.event_log, &["measured_mismatch"])?;
    add(
        "measured_mismatch_no_action",
        "a measured event is called one that was not measured",
        &changed(PLAIN.event_log, 73, 3),
        &["measured_mismatch"],
    )?;
    let cut = PLAIN.event_log.get(..PLAIN.event_log.len() - 1).unwrap_or_default();
    add("measured_malformed", "the event log ends within an event", cut, &["measured_malformed"])
}

fn lists(cases: &mut Cases) -> Result<(), BuildError> {
    let mut add = |name: &str, what, ima: &[(&[u8], usize, bool)], findings: &[&'static str]| {
        cases.booted(name, what, &Logs { ima, ..whole(&PLAIN) }, findings)
    };
    let mismatch = &["measured_mismatch"];
    let early = PLAIN.ima.get(..IMA_EARLY).unwrap_or_default();
    add(
        "measured_mismatch_ima_cut",
        "the measurement list ends before what was quoted",
        &[(early, 0, true)],
        mismatch,
    )?;
    let altered = changed(PLAIN.ima, PLAIN.ima.len() - 10, b'x');
    add(
        "measured_mismatch_ima_altered",
        "a name in the measurement list was altered",
        &[(&altered, 0, true)],
        mismatch,
    )?;
    // The fourth entry reports a violation: 20 zeros, after the three of its register.
    let violation = PLAIN.ima.windows(20).position(|window| window == [0; 20]).unwrap_or_default();
    let denied = changed(PLAIN.ima, violation + 3, 1);
    add(
        "measured_mismatch_violation",
        "a violation in the measurement list is denied",
        &[(&denied, 0, true)],
        mismatch,
    )?;
    let register = changed(PLAIN.ima, 0, 11);
    let malformed = &["measured_malformed"];
    add("measured_malformed_ima", "an entry of another register", &[(&register, 0, true)], malformed)?;
    let end = PLAIN.ima.get(..PLAIN.ima.len() - 1).unwrap_or_default();
    add("measured_malformed_ima_cut", "the measurement list ends within an entry", &[(end, 0, true)], malformed)?;
    let (first, rest) = PLAIN.ima.split_at(500);
    let (_, second) = rest.split_at(100);
    add(
        "measured_malformed_gap",
        "a part of the list was left out",
        &[(first, 0, false), (second, 600, true)],
        malformed,
    )
}

/// An evidence bundle with the logs of the time of its session.
fn bundles(cases: &mut Cases) -> Result<(), BuildError> {
    let ima = [(PLAIN.ima, 0, true)];
    let mut host = booted(&PLAIN, &Logs { ima: &ima, ..whole(&PLAIN) })?;
    let session = host.log.append(issued());
    host.log.event(exit(), Class::Process, Some(session));
    let revoked = {
        let state = host.log.session(session);
        Revoked {
            id: "s-1".into(),
            cause: RevokeCause::Exit,
            code: Some(0),
            signal: None,
            residual: None,
            acts: vec![KindCount { kind: agent_evidence::record::Kind::Exit, count: 1 }].into(),
            entries: state.number.0 + 1,
            hash: state.hash,
        }
    };
    let draft = Draft { session: Some(session), ..host.log.draft(Body::Revoked(revoked)) };
    host.log.append_draft(&draft, |_| {});
    let host = host.end()?;
    let Selected { sessions, disclosed, anchored: heads, .. } = host.log.selected(&["s-1"]).map_err(BuildError)?;
    let mut trust = trust(&host)?;
    trust.heads.clear();
    let bundle = host.log.bundle(&Manifest { sessions, heads }, &disclosed)?;
    cases.add("bundle_host_state", "a bundle shows what its host had booted", Files::default(), Some(trust), &[])?;
    if let Some(case) = cases.0.last_mut() {
        case.bundle = Some(bundle);
    }
    Ok(())
}
