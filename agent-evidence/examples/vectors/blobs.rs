//! The cases of `tests/vectors` about contents beside the log: policies, certificates, measured logs.

use agent_evidence::blob;
use agent_evidence::bundle::write_blob;
use agent_evidence::fixture::tpm::FixedTpm;
use agent_evidence::record::{AttestationKey, Measured, MeasuredLog, Voucher};

use super::bundles::Two;
use super::*;

const POLICIES: &[u8] =
    b"permit(principal, action, resource);\nforbid(principal, action == Action::\"connect\", resource);\n";
const KEY: &[u8] = b"a certificate";
const ROOT: &[u8] = b"the certificate above";
const IMA: &[u8] = b"10 91f34b5c671d73504b274a919661cf80dab1e127 ima-ng sha256:0 boot_aggregate\n";

fn policy(log: &mut Builder) -> Body<'static> {
    Body::Policy(Policy { language: "cedar".into(), set: log.blob(POLICIES), count: 2, enforcing: false })
}

fn measured(content: Blob) -> Body<'static> {
    Body::Measured(Measured { log: MeasuredLog::Ima, content, from: 0, complete: true })
}

/// 10 policy, 11 attestation key, 12 and 13 measured: the same content twice, and one certificate in both chains.
fn log(change: impl FnOnce(&mut Blob)) -> Result<Builder, BuildError> {
    let key = FixedTpm::new(0x51)?.attestation_key();
    Ok(Story::with(|story| {
        let policy = policy(&mut story.log);
        story.log.append(policy);
        let (own, root) = (story.log.blob(KEY), story.log.blob(ROOT));
        story.log.append(Body::AttestationKey(AttestationKey {
            voucher: Voucher::Site,
            certificates: vec![own, root.clone()].into(),
            ek_certificates: vec![root].into(),
            ..key
        }));
        let mut content = story.log.blob(IMA);
        story.log.append(measured(content.clone()));
        change(&mut content);
        story.log.append(measured(content));
    })?)
}

fn path_of(content: &[u8]) -> String {
    blob::path(&blob::reference(content).sha256)
}

pub(super) fn blobs(cases: &mut Cases) -> Result<(), BuildError> {
    let whole = log(|_| {})?;
    cases.log("blobs", "nothing: every content that entries refer to is there", &whole, &[])?;
    let beside = |files: &mut Files| {
        files.0.insert(path_of(b"another"), b"something".to_vec());
    };
    cases.damaged("blob_beside", "nothing: no entry refers to the blob that is none", &whole, beside, &[])?;
    let edit = |files: &mut Files| replace_once(file(files, &path_of(POLICIES)), b"forbid", b"permit");
    cases.damaged("blob_altered", "the text of the policies was edited", &whole, edit, &["blob_altered"])?;
    let cut = |files: &mut Files| file(files, &path_of(IMA)).clear();
    cases.damaged("blob_cut", "a measured log was emptied", &whole, cut, &["blob_altered"])?;
    let remove = |files: &mut Files| drop(files.0.remove(&path_of(POLICIES)));
    cases.damaged("blob_removed", "the text of the policies was removed", &whole, remove, &[])?;
    cases.damaged("blob_absent", "the same under the strict rule", &whole, remove, &["blob_absent"])?;
    if let Some(case) = cases.0.last_mut() {
        case.strict = true;
    }
    let what = "an entry says another size of a content than the entry before it";
    cases.log("blob_size_wrong", what, &log(|blob| blob.size += 1)?, &["blob_altered"])?;
    let what = "an entry refers to more than a blob may have";
    cases.log("blob_too_large", what, &log(|blob| blob.size = blob::BLOB_BYTES_MAX as u64 + 1)?, &["blob_altered"])?;
    in_bundles(cases)
}

fn in_bundles(cases: &mut Cases) -> Result<(), BuildError> {
    let mut two = Two::begin()?;
    let policy = policy(two.log());
    two.log().append(policy);
    let ima = two.log().blob(IMA);
    two.log().append(measured(ima));
    // Of an entry that is withheld.
    two.acts()?;
    two.end();
    let late = two.log().blob(KEY);
    two.log().append(measured(late));
    let log = two.into_log();
    let whole = log.bundle_of(&["s-1"], &[])?;
    let trust = || log.trust().map(Some);
    cases.evb(
        "bundle_blobs",
        "nothing: the contents that its entries refer to are there",
        whole.clone(),
        trust()?,
        &[],
    )?;

    let mut members = [POLICIES, IMA].map(|content| (blob::reference(content).sha256, content));
    members.sort();
    let head = whole.len() - 1024 - 2048;
    let with = |members: &[(Digest, &[u8])]| -> Result<Vec<u8>, BuildError> {
        let mut bundle = whole.get(..head).unwrap_or_default().to_vec();
        for (digest, content) in members {
            write_blob(&mut bundle, digest, content)?;
        }
        bundle.extend_from_slice(&[0; 1024]);
        Ok(bundle)
    };
    if with(&members)? != whole {
        return Err(BuildError("the blobs do not stand where they should".to_owned()));
    }
    let [first, second] = members;
    let altered = with(&[first, (second.0, b"another")])?;
    cases.evb("evb_blob_altered", "a content was exchanged", altered, trust()?, &["blob_altered"])?;
    let absent = with(&[second])?;
    cases.evb("bundle_blob_removed", "a content was left out", absent.clone(), trust()?, &[])?;
    cases.evb(
        "evb_blob_absent",
        "the same under the strict rule",
        absent,
        trust()?,
        &["loss_accounted", "blob_absent"],
    )?;
    if let Some(case) = cases.0.last_mut() {
        case.strict = true;
    }
    let what = "the contents stand in another order";
    cases.evb("evb_malformed_blob_order", what, with(&[second, first])?, trust()?, &["evb_malformed"])?;
    cases.evb(
        "evb_malformed_blob_twice",
        "one stands twice",
        with(&[first, first, second])?,
        trust()?,
        &["evb_malformed"],
    )?;
    let mut more = vec![first, second, (blob::reference(KEY).sha256, KEY)];
    more.sort();
    cases.evb("evb_malformed_blob_foreign", "no entry refers to one", with(&more)?, trust()?, &["evb_malformed"])
}
