//! The device against real software TPMs, one for each test.

#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]

use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::sync::mpsc::{Receiver, sync_channel};

use agent::cli::anchor;
use agent::tpm::worker::{Answer, Order, Worker};
use agent::tpm::{AkFrom, COUNTER_ATTRIBUTES, CounterKnown, Device, NV_WRITTEN, Place, QUOTED_PCRS, TpmError, Trouble};
use agent_evidence::attest::key::Ak;
use agent_evidence::attest::tpm::{Attested, Name};
use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tests::{Commands, Swtpm};

/// The counter's handle.
const INDEX: u32 = 0x0150_0100;

fn keys() -> Result<TempDir> {
    let dir = tempfile::tempdir()?;
    std::fs::DirBuilder::new().mode(0o700).create(dir.path().join("keys"))?;
    Ok(dir)
}

fn open(tpm: &Swtpm, keys: &TempDir) -> Result<Device> {
    let place = Place::of(&tpm.tcti()).context("a TCTI is a place")?;
    Ok(Device::open(&place, &keys.path().join("keys"))?)
}

fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(part);
    }
    digest.finalize().into()
}

/// A name with SHA-256 (TPM 2.0 part 1, section 16): the algorithm and the digest.
fn name_of(public: &[u8]) -> Vec<u8> {
    [&[0x00, 0x0b][..], &sha256(&[public])].concat()
}

#[test]
fn the_ak_is_made_once_and_found_again_below_the_same_ek() -> Result<()> {
    let (mut tpm, keys) = (Swtpm::start()?, keys()?);
    let first = open(&tpm, &keys)?.identity().clone();
    assert_eq!(first.ak_from, AkFrom::New);
    let mode = std::fs::metadata(keys.path().join("keys/ak.tpm"))?.permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    // Names as a verifier computes them (TPM 2.0 part 1, sections 16 and 26.5).
    assert_eq!(first.ak_name, name_of(&first.ak_public));
    assert_eq!(first.ek_name, name_of(&first.ek_public));
    let qualified_ek = name_of(&[&0x4000_000b_u32.to_be_bytes()[..], &first.ek_name].concat());
    assert_eq!(first.ak_qualified_name, name_of(&[&qualified_ek[..], &first.ak_name].concat()));
    // fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, noDA, restricted, sign; after type and name algorithm.
    assert_eq!(first.ak_public.get(..8), Some(&[0x00, 0x23, 0x00, 0x0b, 0x00, 0x05, 0x04, 0x72][..]));
    assert!(first.tpm.contains("IBM") && first.tpm.contains("firmware"), "{}", first.tpm);

    let again = open(&tpm, &keys)?.identity().clone();
    assert_eq!((again.ak_from, &again.ak_name), (AkFrom::Blob, &first.ak_name));
    for orderly in [true, false] {
        if orderly {
            tpm.stop()?
        } else {
            tpm.kill()?
        }
        tpm.restart()?;
        let after = open(&tpm, &keys)?.identity().clone();
        assert_eq!((after.ak_from, &after.ak_name), (AkFrom::Blob, &first.ak_name), "orderly {orderly}");
    }
    Ok(())
}

#[test]
fn a_cleared_tpm_and_another_tpm_are_told_apart_and_get_a_new_ak() -> Result<()> {
    let (tpm, other, keys) = (Swtpm::start()?, Swtpm::start()?, keys()?);
    let device = open(&tpm, &keys)?;
    let first = device.identity().clone();
    device.seal_log_key(&[7; 32], &[8; 32])?;
    assert_eq!(device.unseal_log_key()?.as_deref(), Some(&[7; 32]));

    tpm.tool("tpm2_clear", &[])?;
    let device = open(&tpm, &keys)?;
    let cleared = device.identity().clone();
    assert_eq!(cleared.ak_from, AkFrom::Cleared);
    assert_eq!(cleared.ek_name, first.ek_name, "a clear keeps the EK");
    assert_ne!(cleared.ak_name, first.ak_name);
    let lost = device.unseal_log_key().expect_err("the storage key of the blob is gone");
    assert_eq!(lost.trouble(), Trouble::KeyLost);
    ensure!(lost.to_string().contains("cleared"), "{lost}");

    let device = open(&other, &keys)?;
    assert_eq!(device.identity().ak_from, AkFrom::OtherTpm);
    let lost = device.unseal_log_key().expect_err("sealed elsewhere");
    ensure!(lost.to_string().contains("another TPM"), "{lost}");
    Ok(())
}

#[test]
fn a_sealed_seed_survives_reboots_and_is_in_no_file() -> Result<()> {
    let (mut tpm, keys) = (Swtpm::start()?, keys()?);
    let seed: [u8; 32] = std::array::from_fn(|index| u8::try_from(index).unwrap_or(0) ^ 0xa5);
    let device = open(&tpm, &keys)?;
    assert_eq!(device.unseal_log_key()?, None);
    device.seal_log_key(&seed, &[8; 32])?;
    drop(device);
    tpm.kill()?;
    tpm.restart()?;
    assert_eq!(open(&tpm, &keys)?.unseal_log_key()?.as_deref(), Some(&seed));
    let path = Device::log_key_path(&keys.path().join("keys"));
    let blob = std::fs::read(&path)?;
    assert!(!blob.windows(8).any(|window| seed.windows(8).any(|part| part == window)));
    assert_eq!(std::fs::metadata(&path)?.permissions().mode() & 0o777, 0o600);
    Ok(())
}

#[test]
fn a_quote_covers_the_values_that_come_with_it_and_other_tools_accept_it() -> Result<()> {
    let (tpm, keys) = (Swtpm::start()?, keys()?);
    let device = open(&tpm, &keys)?;
    tpm.tool("tpm2_pcrextend", &[&format!("11:sha256={}", "ab".repeat(32))])?;
    let quote = device.quote(&[0x51; 32])?;
    let numbers: Vec<u32> = quote.pcrs.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, QUOTED_PCRS);
    let extended = sha256(&[&[0; 32], &[0xab; 32]]);
    assert_eq!(quote.pcrs.iter().find(|(number, _)| *number == 11).map(|(_, value)| *value), Some(extended));
    // magic, type, qualified signer (34 bytes), then the qualifying data (TPM 2.0 part 2, section 10.12.8).
    assert_eq!(quote.attest.get(..6), Some(&[0xff, 0x54, 0x43, 0x47, 0x80, 0x18][..]));
    assert_eq!(quote.attest.get(8..42), Some(device.identity().ak_qualified_name.as_slice()));
    assert_eq!(quote.attest.get(42..76), Some(&[&[0x00, 0x20][..], &[0x51; 32]].concat()[..]));
    let values: Vec<&[u8]> = quote.pcrs.iter().map(|(_, value)| value.as_slice()).collect();
    assert!(quote.attest.ends_with(&sha256(&values)));

    // As `affiant anchor --export` writes it.
    let dir = tempfile::tempdir()?;
    let at = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    std::fs::write(at("quote.msg"), &quote.attest)?;
    std::fs::write(at("quote.sig"), &quote.signature)?;
    std::fs::write(at("quote.pcrs"), anchor::registers(&quote.pcrs))?;
    std::fs::write(at("ak.pem"), anchor::pem(&device.identity().ak_public).context("a key on P-256")?)?;
    let check = |nonce: &str, pcrs: &str| {
        let (key, quote, signature) = (at("ak.pem"), at("quote.msg"), at("quote.sig"));
        tpm.tool(
            "tpm2_checkquote",
            &["-u", &key, "-m", &quote, "-s", &signature, "-f", pcrs, "-g", "sha256", "-q", nonce],
        )
    };
    check(&"51".repeat(32), &at("quote.pcrs"))?;
    check(&"52".repeat(32), &at("quote.pcrs")).expect_err("another nonce");
    let mut other = quote.pcrs.clone();
    other[9].1[0] ^= 1;
    std::fs::write(at("other.pcrs"), anchor::registers(&other))?;
    check(&"51".repeat(32), &at("other.pcrs")).expect_err("another value of a register");

    // And the verifier of this project.
    let ak = Ak::parse(&device.identity().ak_public, Name::parse(&device.identity().ak_qualified_name)?)?;
    let read = ak.verify(&quote.attest, &quote.signature)?;
    assert_eq!((read.extra_data, ak.name().as_bytes()), (vec![0x51; 32], device.identity().ak_name.as_slice()));
    Ok(())
}

#[test]
fn the_counter_is_certified_with_the_name_and_value_that_a_verifier_computes() -> Result<()> {
    let (mut tpm, keys) = (Swtpm::start()?, keys()?);
    let device = open(&tpm, &keys)?;
    let counter = device.counter(INDEX)?;
    assert!(counter.made);
    // TPM 2.0 part 2, section 13.5: index, name algorithm, attributes, no policy, size.
    let public = [
        &INDEX.to_be_bytes()[..],
        &[0x00, 0x0b],
        &(COUNTER_ATTRIBUTES | NV_WRITTEN).to_be_bytes(),
        &[0x00, 0x00],
        &[0x00, 0x08],
    ]
    .concat();
    assert_eq!(counter.name, name_of(&public));

    let next = counter.value + 1;
    device.step_counter(INDEX, next)?;
    let certified = device.certify_counter(INDEX, &[0x77; 32])?;
    assert_eq!(certified.attest.get(4..6), Some(&[0x80, 0x14][..]));
    assert_eq!(certified.attest.get(42..76), Some(&[&[0x00, 0x20][..], &[0x77; 32]].concat()[..]));
    let end = [&[0x00, 0x22][..], &counter.name, &[0x00, 0x00], &[0x00, 0x08], &next.to_be_bytes()].concat();
    assert!(certified.attest.ends_with(&end));
    let ak = Ak::parse(&device.identity().ak_public, Name::parse(&device.identity().ak_qualified_name)?)?;
    let read = ak.verify(&certified.attest, &certified.signature)?;
    let Attested::Nv { name, contents, .. } = read.attested else { anyhow::bail!("not of an NV index") };
    assert_eq!((name.as_bytes(), contents), (counter.name.as_slice(), next.to_be_bytes().to_vec()));
    let itself = device.certify_ak(&[0x78; 32])?;
    let read = ak.verify(&itself.attest, &itself.signature)?;
    assert!(matches!(read.attested, Attested::Certify { name, qualified_name }
        if name == *ak.name() && qualified_name == *ak.qualified_name()));

    // Whoever finds it elsewhere leaves it alone.
    let moved = device.step_counter(INDEX, next + 5).expect_err("not the next value");
    assert!(matches!(moved, TpmError::CounterMoved { seen, .. } if seen == next));
    tpm.kill()?;
    tpm.restart()?;
    let device = open(&tpm, &keys)?;
    let after = device.counter(INDEX)?;
    assert_eq!((after.value, after.made), (next, false), "a power cut does not move a counter that is not orderly");
    Ok(())
}

#[test]
fn a_counter_that_was_removed_or_is_anothers_is_told() -> Result<()> {
    let (tpm, keys) = (Swtpm::start()?, keys()?);
    let device = open(&tpm, &keys)?;
    let first = device.counter(INDEX)?;
    device.step_counter(INDEX, first.value + 1)?;
    tpm.tool("tpm2_nvundefine", &["0x1500100"])?;
    assert_eq!(device.step_counter(INDEX, first.value + 2).expect_err("gone").trouble(), Trouble::CounterGone);
    assert_eq!(device.certify_counter(INDEX, &[0; 32]).expect_err("gone").trouble(), Trouble::CounterGone);
    let second = device.counter(INDEX)?;
    assert!(second.made && second.value > first.value + 1, "{second:?}: no value comes twice");

    tpm.tool("tpm2_nvundefine", &["0x1500100"])?;
    tpm.tool("tpm2_nvdefine", &["0x1500100", "-s", "8", "-a", "ownerread|ownerwrite|authread|authwrite"])?;
    assert_eq!(device.counter(INDEX).expect_err("an ordinary index").trouble(), Trouble::CounterForeign);
    Ok(())
}

#[test]
fn a_tpm_that_is_gone_owned_or_full_says_which() -> Result<()> {
    let (mut tpm, keys) = (Swtpm::start()?, keys()?);
    let device = open(&tpm, &keys)?;
    tpm.tool("tpm2_changeauth", &["-c", "owner", "secret"])?;
    assert_eq!(device.counter(INDEX).expect_err("owned").trouble(), Trouble::AuthNeeded);
    tpm.tool("tpm2_changeauth", &["-c", "owner", "-p", "secret"])?;

    let mut index = 0x0150_0200_u32;
    let full = loop {
        // Until the TPM has no room for another.
        let handle = format!("{index:#x}");
        match tpm.tool("tpm2_nvdefine", &[&handle, "-s", "2048", "-a", "ownerread|ownerwrite"]) {
            Ok(_) => index += 1,
            Err(error) => break error.to_string(),
        }
        ensure!(index < 0x0150_0300, "the TPM never gets full");
    };
    ensure!(full.contains("0x14B") || full.contains("0x14b"), "{full}");
    while tpm
        .tool("tpm2_nvdefine", &[&format!("{index:#x}"), "-s", "8", "-a", "nt=counter|ownerread|ownerwrite"])
        .is_ok()
    {
        index += 1;
    }
    assert_eq!(device.counter(INDEX).expect_err("full").trouble(), Trouble::NvFull);

    tpm.kill()?;
    assert_eq!(device.quote(&[0; 32]).expect_err("gone").trouble(), Trouble::Absent);
    let place = Place::of(&tpm.tcti()).context("a place")?;
    let error = Device::open(&place, &keys.path().join("keys")).err().context("nothing answers")?;
    assert_eq!(error.trouble(), Trouble::Absent, "{error}");
    // A device with contexts of the time before goes on with the TPM after a reset only if it is opened anew.
    tpm.restart()?;
    assert!(matches!(device.quote(&[0; 32]), Err(TpmError::Reset)), "saved contexts end with a reset");
    assert!(matches!(device.unseal_log_key(), Ok(None)), "nothing was sealed");
    open(&tpm, &keys)?.quote(&[0; 32])?;
    Ok(())
}

#[test]
fn nothing_is_left_in_a_tpm_even_by_an_agent_that_was_killed() -> Result<()> {
    let (tpm, keys) = (Swtpm::start()?, keys()?);
    // What a killed agent leaves in a TPM without a resource manager: every slot taken.
    tpm.tool("tpm2_createprimary", &["-C", "e", "-c", "left.ctx"])?;
    tpm.tool("tpm2_createprimary", &["-C", "o", "-c", "left2.ctx"])?;
    let left = tpm.tool("tpm2_getcap", &["handles-transient"])?;
    ensure!(left.contains("0x8000000"), "{left}: the test wants leftovers");
    let device = open(&tpm, &keys)?;
    device.seal_log_key(&[1; 32], &[2; 32])?;
    let counter = device.counter(INDEX)?;
    for round in 0..5 {
        device.quote(&[round; 32])?;
        device.certify_ak(&[round; 32])?;
        device.certify_counter(counter.index, &[round; 32])?;
        device.unseal_log_key()?;
        device.clock()?;
    }
    for kind in ["handles-transient", "handles-loaded-session", "handles-saved-session"] {
        assert_eq!(tpm.tool("tpm2_getcap", &[kind])?.trim(), "", "{kind}");
    }
    Ok(())
}

#[test]
fn a_credential_made_for_this_ak_opens_and_another_does_not() -> Result<()> {
    let (tpm, keys) = (Swtpm::start()?, keys()?);
    let device = open(&tpm, &keys)?;
    let identity = device.identity();
    let dir = tempfile::tempdir()?;
    let at = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    let length = u16::try_from(identity.ek_public.len())?.to_be_bytes();
    std::fs::write(at("ek.tss"), [&length[..], &identity.ek_public].concat())?;
    std::fs::write(at("secret"), [0x42; 32])?;
    let hex: String = identity.ak_name.iter().map(|byte| format!("{byte:02x}")).collect();
    tpm.tool("tpm2_makecredential", &["-u", &at("ek.tss"), "-s", &at("secret"), "-n", &hex, "-o", &at("credential")])?;
    // Magic and version, then TPM2B_ID_OBJECT and TPM2B_ENCRYPTED_SECRET.
    let file = std::fs::read(at("credential"))?;
    let field = |from: usize| -> Result<&[u8]> {
        let length: [u8; 2] = file.get(from..from + 2).context("short")?.try_into()?;
        file.get(from + 2..from + 2 + usize::from(u16::from_be_bytes(length))).context("short")
    };
    let credential = field(8)?;
    let secret = field(8 + 2 + credential.len())?;
    assert_eq!(device.activate_credential(credential, secret)?.as_slice(), &[0x42; 32]);
    let mut damaged = credential.to_vec();
    damaged[10] ^= 1;
    let refused = device.activate_credential(&damaged, secret).expect_err("not what was made");
    ensure!(refused.to_string().contains("TPM_RC_INTEGRITY"), "{refused}");
    assert_eq!(tpm.tool("tpm2_getcap", &["handles-transient"])?.trim(), "", "a failure leaves nothing either");
    Ok(())
}

#[test]
fn certificates_in_nv_are_read_without_their_pads() -> Result<()> {
    let (tpm, keys) = (Swtpm::start()?, keys()?);
    assert!(open(&tpm, &keys)?.identity().ek_certificates.is_empty());
    let certificate = [&[0x30, 0x82, 0x02, 0x00][..], &[0x5a; 0x200]].concat();
    let above = [&[0x30, 0x81, 0xf0][..], &[0xa5; 0xf0]].concat();
    for (index, bytes) in
        [("0x1c0000a", [&certificate[..], &[0xff; 100]].concat()), ("0x1c00101", [&above[..], &certificate].concat())]
    {
        let size = bytes.len().to_string();
        std::fs::write(tpm.directory().join("certificate"), &bytes)?;
        let attributes = "ppwrite|ppread|ownerread|authread|no_da|platformcreate";
        tpm.tool("tpm2_nvdefine", &[index, "-C", "p", "-s", &size, "-a", attributes])?;
        tpm.tool("tpm2_nvwrite", &[index, "-C", "p", "-i", "certificate"])?;
    }
    assert_eq!(open(&tpm, &keys)?.identity().ek_certificates, [certificate.clone(), above, certificate]);
    Ok(())
}

/// A worker on this TPM, and its answers.
fn worker(tpm: &Swtpm, keys: &TempDir) -> Result<(Worker, Receiver<Result<Answer, TpmError>>)> {
    let (tell, answers) = sync_channel(4);
    let place = Place::of(&tpm.tcti()).context("a place")?;
    let worker = Worker::start(place, keys.path().join("keys"), Box::new(move |answer| tell.send(answer).is_ok()))?;
    Ok((worker, answers))
}

fn answer(answers: &Receiver<Result<Answer, TpmError>>) -> Result<Result<Answer, TpmError>> {
    answers.recv_timeout(tests::DEADLINE).context("no answer")
}

#[test]
fn a_worker_takes_one_order_more_than_it_carries_out_and_never_makes_its_owner_wait() -> Result<()> {
    let (tpm, keys) = (Swtpm::start()?, keys()?);
    let (worker, answers) = worker(&tpm, &keys)?;
    let begin = || Order::Begin { unseal: false, counter: Some(INDEX) };
    assert!(worker.order(begin()));
    let Ok(Answer::Begun(begun)) = answer(&answers)? else { anyhow::bail!("it did not begin") };
    let counter = begun.counter.context("asked for")??;
    assert!(begun.seed.is_none());

    // A TPM that hangs: the thread hangs, the owner is told that there is no more room.
    tpm.pause()?;
    assert!(worker.order(Order::Quote { qualifying: [1; 32] }));
    tests::until("the thread took the first", || Ok(worker.order(Order::Quote { qualifying: [2; 32] }).then_some(())))?;
    assert!(!worker.order(Order::Quote { qualifying: [3; 32] }));
    tpm.resume()?;
    for _ in 0..2 {
        assert!(matches!(answer(&answers)?, Ok(Answer::Quoted(_))));
    }
    let to = counter.value + 1;
    assert!(worker.order(Order::Step { index: INDEX, to, qualifying: [4; 32] }));
    assert!(matches!(answer(&answers)?, Ok(Answer::Certified(_))));
    Ok(())
}

#[test]
fn a_tpm_that_dies_in_the_middle_of_orders_never_steps_the_counter_twice_for_one_value() -> Result<()> {
    let (mut tpm, keys) = (Swtpm::start()?, keys()?);
    let mut last = None;
    for round in 0_u64..6 {
        let (worker, answers) = worker(&tpm, &keys)?;
        assert!(worker.order(Order::Begin { unseal: false, counter: Some(INDEX) }));
        let Ok(Answer::Begun(begun)) = answer(&answers)? else { anyhow::bail!("it did not begin") };
        let value = begun.counter.context("asked for")??.value;
        if let Some(last) = last {
            ensure!(value == last || value == last + 1, "{value} after an order from {last}");
        }
        assert!(worker.order(Order::Step { index: INDEX, to: value + 1, qualifying: [9; 32] }));
        // Cut at another moment each time: before, during and after the step.
        std::thread::sleep(std::time::Duration::from_millis(round * 2));
        tpm.kill()?;
        // Either it was certified or it was not; what is said was signed.
        if let Ok(Answer::Certified(certified)) = answer(&answers)? {
            assert!(certified.attest.ends_with(&(value + 1).to_be_bytes()));
        }
        last = Some(value);
        tpm.restart()?;
    }
    Ok(())
}

#[test]
fn a_reset_is_told_so_that_keys_and_counter_are_looked_at_again() -> Result<()> {
    let (mut tpm, keys) = (Swtpm::start()?, keys()?);
    let (worker, answers) = worker(&tpm, &keys)?;
    assert!(worker.order(Order::Quote { qualifying: [1; 32] }));
    assert!(matches!(answer(&answers)?, Err(TpmError::Reset)), "nothing was begun");
    assert!(worker.order(Order::Begin { unseal: true, counter: None }));
    let Ok(Answer::Begun(begun)) = answer(&answers)? else { anyhow::bail!("it did not begin") };
    assert_eq!(begun.seed.context("asked for")?.expect_err("no blob").trouble(), Trouble::KeyLost);
    tpm.stop()?;
    tpm.restart()?;
    for expected_reset in [true, true, false] {
        let order = if expected_reset {
            Order::Quote { qualifying: [1; 32] }
        } else {
            Order::Begin { unseal: false, counter: None }
        };
        assert!(worker.order(order));
        let answered = answer(&answers)?;
        assert_eq!(matches!(answered, Err(TpmError::Reset)), expected_reset, "{answered:?}");
    }
    Ok(())
}

#[test]
fn a_counter_is_removed_for_the_log_that_knows_it_and_for_no_other() -> Result<()> {
    let (tpm, keys) = (Swtpm::start_noting()?, keys()?);
    let place = Place::of(&tpm.tcti()).context("a TCTI is a place")?;
    let device = open(&tpm, &keys)?;
    let facts = device.counter(INDEX)?;
    device.step_counter(INDEX, facts.value + 1)?;
    drop(device);
    let value = facts.value + 1;
    let known = CounterKnown { index: INDEX, name: facts.name, value };
    let others = [
        CounterKnown { value: value + 1, ..known.clone() },
        CounterKnown { value: value - 2, ..known.clone() },
        CounterKnown { name: vec![0; 34], ..known.clone() },
    ];
    for other in others {
        let error = Device::remove_counter(&place, &other).expect_err("another log's");
        assert!(matches!(error, TpmError::CounterMoved { seen, .. } if seen == value), "{error}");
    }
    let elsewhere = CounterKnown { index: INDEX + 1, ..known.clone() };
    assert_eq!(Device::remove_counter(&place, &elsewhere)?, None);
    // A step that did not come to be sealed.
    assert_eq!(Device::find_counter(&place, &CounterKnown { value: value - 1, ..known.clone() })?, Some(value));

    tpm.tool("tpm2_changeauth", &["-c", "owner", "secret"])?;
    let error = Device::remove_counter(&place, &known).expect_err("the owner has a password");
    assert_eq!(error.trouble(), Trouble::AuthNeeded, "{error}");
    tpm.tool("tpm2_changeauth", &["-c", "owner", "-p", "secret"])?;
    assert_eq!(Device::find_counter(&place, &known)?, Some(value), "it is still there");
    let before = tpm.commands()?;
    assert_eq!(before.of(Commands::NV_INCREMENT), 2, "the first value and a step: {before:?}");
    assert_eq!(Device::remove_counter(&place, &known)?, Some(value));
    assert_eq!(tpm.commands()?.nv_writes(), before.nv_writes() + 1);
    assert_eq!(Device::remove_counter(&place, &known)?, None);
    Ok(())
}
