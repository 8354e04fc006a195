//! Chains that others made (`tests/attest`), and the rules one by one with chains made here. Whatever is judged here is
//! judged by the second reader (`tests/reader/certificates.py`) too, and both must agree.

use std::io::Write as _;
use std::process::{Command, Stdio};

use p256::ecdsa::SigningKey;
use p256::ecdsa::signature::Signer as _;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{ExtendedKeyUsage, KeyUsages, SubjectAltName};

use super::issue::{Draft, IssueError, Lifetime, basic_constraints, common_name, extension, key_usage};
use super::path::{CHAIN_MAX, RootError};
use super::x509::{CERTIFICATE_BYTES_MAX, EXTENDED_KEY_USAGE, SUBJECT_ALT_NAME, SignatureError};
use super::*;
use crate::attest::testdata;
use crate::attest::tpm::{Attest, Attested, EcdsaSignature, Name, Parameters, Public};

const NOW: WallTime = WallTime(1_800_000_000_000_000_000);
const LIFETIME: Lifetime = Lifetime { from: 1_700_000_000, until: 1_900_000_000 };
/// What the recorded certificates are valid at: 2030.
const RECORDED: WallTime = WallTime(1_893_456_000_000_000_000);

macro_rules! recorded {
    ($name:literal) => {
        include_str!(concat!("../../../../tests/attest/", $name, ".pem"))
    };
}

fn one(pem: &str) -> Certificate {
    let mut read = Certificate::parse_pem(pem).unwrap();
    assert_eq!(read.len(), 1);
    read.remove(0)
}

fn roots(class: RootClass, certificate: &Certificate) -> Roots {
    let mut roots = Roots::new();
    roots.add(class, certificate.clone()).unwrap();
    roots
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_slice(&[seed; 32]).unwrap()
}

/// The attestation key of a seed.
fn ak(seed: u8) -> Ak {
    let mut public = Public::parse(testdata::AK_PUBLIC).unwrap();
    let point = key(seed).verifying_key().to_sec1_point(false);
    let Parameters::Ecc { x, y, .. } = &mut public.parameters else { panic!("{public:?}") };
    (*x, *y) = (point.x().unwrap().to_vec(), point.y().unwrap().to_vec());
    Ak::parse(&public.to_bytes(), Name::parse(testdata::AK_QUALIFIED_NAME).unwrap()).unwrap()
}

fn tie() -> Tie {
    Tie {
        origin: "affiant.example/host".to_owned(),
        log_key: PublicKey([1; 32]),
        genesis: LeafHash([2; 32]),
        first_epoch_key: PublicKey([3; 32]),
        counter: Some(CounterPin { name: [&[0, 0x0b][..], &[4; 32]].concat(), value: u64::MAX }),
        reset_count: 5,
        restart_count: u32::MAX,
        clock_ms: 1_000_000_000_000,
        ak_name: ak(AK).name().as_bytes().to_vec(),
        ek_name: [&[0, 0x0b][..], &[7; 32]].concat(),
        ek_certificate: None,
        request: Digest([8; 32]),
    }
}

/// An authority's certificate with each field to be bent.
fn authority(
    name: &str,
    own: &SigningKey,
    issuer: &str,
    signer: &SigningKey,
    extensions: Vec<Extension>,
) -> Certificate {
    let draft = Draft {
        issuer: common_name(issuer).unwrap(),
        subject: common_name(name).unwrap(),
        point: own.verifying_key().to_sec1_point(false).as_bytes().to_vec(),
        lifetime: LIFETIME,
        extensions,
    };
    Certificate::parse(&draft.sign(signer, &[9; 16]).unwrap()).unwrap()
}

fn may_sign(below: Option<u8>) -> Vec<Extension> {
    vec![basic_constraints(true, below).unwrap(), key_usage(KeyUsages::KeyCertSign.into()).unwrap()]
}

/// What both readers say.
fn agreed(
    shown: &Shown<'_, impl AsRef<[u8]>>,
    beginning: &Beginning<'_>,
    roots: &TrustRoots,
    at: WallTime,
) -> Result<Vouched, CertError> {
    let own = who_vouches(shown, beginning, roots, at);
    let others = second_reader(&[case(shown, beginning, roots, at)]);
    assert_eq!(others[0].0, in_words(&own), "the second reader says {:?}; here {own:?}", others[0]);
    own
}

fn in_words(outcome: &Result<Vouched, CertError>) -> String {
    let Ok(vouched) = outcome else { return "refused".to_owned() };
    let by = match vouched.by() {
        VouchedBy::Site => "site",
        VouchedBy::Independent => "independent",
        VouchedBy::Cloud => "cloud",
        VouchedBy::Vendor => "vendor",
    };
    let endorsement = match vouched.endorsement() {
        Endorsement::Certified { .. } => "certified",
        Endorsement::Said(NotChecked::NoRoots) => "no_roots",
        Endorsement::Said(NotChecked::NotShown) => "not_shown",
        Endorsement::Contradicted(_) => "contradicted",
        Endorsement::Uncertified => "uncertified",
        Endorsement::NotStated => "not_stated",
    };
    format!("{by} {} {endorsement}", vouched.tier().as_str())
}

fn case(
    shown: &Shown<'_, impl AsRef<[u8]>>,
    beginning: &Beginning<'_>,
    roots: &TrustRoots,
    at: WallTime,
) -> serde_json::Value {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let list = |chain: &[_]| chain.iter().map(|one| hex(AsRef::<[u8]>::as_ref(one))).collect::<Vec<_>>();
    let point = shown.ak.point().to_sec1_point(false);
    let class = |class: &RootClass| match class {
        RootClass::Site => "site",
        RootClass::Independent => "independent",
        RootClass::Cloud => "cloud",
        RootClass::Vendor => "vendor",
        RootClass::Endorsement => "endorsement",
    };
    serde_json::json!({
        "x": hex(point.x().unwrap()),
        "y": hex(point.y().unwrap()),
        "name": hex(shown.ak.name().as_bytes()),
        "qualified_name": hex(shown.ak.qualified_name().as_bytes()),
        "certificates": list(shown.certificates),
        "ek_certificates": list(shown.ek_certificates),
        "origin": beginning.origin,
        "log_key": hex(&beginning.log_key.0),
        "genesis": hex(&beginning.genesis.0),
        "first_epoch_key": hex(&beginning.first_epoch_key.0),
        "counter": hex(beginning.counter_name.unwrap_or_default()),
        "roots": roots.keys.iter().map(|(known, root)| (class(known), hex(root.der()))).collect::<Vec<_>>(),
        "ek_roots": roots.endorsement.iter().map(|(_, root)| hex(root.der())).collect::<Vec<_>>(),
        "seconds": at.0 / 1_000_000_000,
    })
}

/// What the second reader says of cases: the outcome, and the rule where it refuses.
fn second_reader(cases: &[serde_json::Value]) -> Vec<(String, String)> {
    let mut child = Command::new("python3")
        .args(["-m", "reader.certificates"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines: String = cases.iter().map(|case| format!("{case}\n")).collect();
    // All of it fits into no pipe: it is written by a thread of its own.
    let mut input = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || input.write_all(lines.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    let answers: Vec<(String, String)> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| match line.strip_prefix("refused") {
            Some(why) => ("refused".to_owned(), why.to_owned()),
            None => (line.to_owned(), String::new()),
        })
        .collect();
    assert_eq!(answers.len(), cases.len());
    answers
}

/// A root, an authority below it, and an attestation key below that.
struct Site {
    root: Certificate,
    middle: Certificate,
    leaf: Certificate,
}

const ROOT: u8 = 11;
const MIDDLE: u8 = 12;
const AK: u8 = 13;

impl Site {
    fn new(tie: &Tie) -> Self {
        let root = authority("root", &key(ROOT), "root", &key(ROOT), may_sign(None));
        let middle = authority("middle", &key(MIDDLE), "root", &key(ROOT), may_sign(Some(0)));
        let ak = ak(AK);
        let leaf = issue::attestation_key(&key(MIDDLE), &middle, ak.point(), tie, &[1; 16], LIFETIME).unwrap();
        Self { root, middle, leaf }
    }

    fn judge(&self, class: RootClass, chain: &[&Certificate], beginning: &Beginning<'_>) -> Result<Vouched, CertError> {
        let roots = TrustRoots { keys: roots(class, &self.root), endorsement: Roots::new() };
        judge(&roots, chain, &[], beginning)
    }
}

fn judge(
    roots: &TrustRoots,
    chain: &[&Certificate],
    endorsement: &[&Certificate],
    beginning: &Beginning<'_>,
) -> Result<Vouched, CertError> {
    let ak = ak(AK);
    let certificates: Vec<&[u8]> = chain.iter().map(|one| one.der()).collect();
    let ek_certificates: Vec<&[u8]> = endorsement.iter().map(|one| one.der()).collect();
    let shown = Shown { ak: &ak, certificates: &certificates, ek_certificates: &ek_certificates };
    agreed(&shown, beginning, roots, NOW)
}

fn beginning(tie: &Tie) -> Beginning<'_> {
    Beginning {
        origin: &tie.origin,
        log_key: tie.log_key,
        genesis: tie.genesis,
        first_epoch_key: tie.first_epoch_key,
        counter_name: tie.counter.as_ref().map(|counter| counter.name.as_slice()),
    }
}

#[test]
fn endorsement_certificates_of_another_program_lead_to_its_root() {
    let issuer = one(recorded!("swtpm_issuer"));
    let root = one(recorded!("swtpm_root"));
    let believed = roots(RootClass::Endorsement, &root);
    let rsa = one(recorded!("swtpm_ek_rsa"));
    let (key, named) = follow_endorsement(&[rsa.clone(), issuer.clone()], &believed, RECORDED).unwrap();
    assert!(matches!(key, SubjectKey::Rsa(key) if key.modulus().len() == 256));
    assert_eq!(named, "CN=swtpm-localca-rootca");
    let curve = one(recorded!("swtpm_ek_p384"));
    let (key, _) = follow_endorsement(&[curve.clone(), issuer.clone(), root], &believed, RECORDED).unwrap();
    assert!(matches!(key, SubjectKey::P384(_)));
    // The issuer itself may be what is believed.
    assert!(follow_endorsement(&[curve], &roots(RootClass::Endorsement, &issuer), RECORDED).is_ok());
    let refused = follow_endorsement(&[issuer], &believed, RECORDED);
    assert_eq!(refused, Err(CertError::Endorsement("it is an authority's")));
}

#[test]
fn rsa_and_p384_signatures_of_openssl_verify_and_fail_when_anything_is_changed() {
    let root = one(recorded!("p384_root"));
    let authority = one(recorded!("rsa_authority"));
    let leaf = one(recorded!("rsa_leaf"));
    let believed = roots(RootClass::Vendor, &root);
    assert!(follow(&[leaf.clone(), authority.clone()], &believed, RECORDED).is_ok());
    // One bit of each signed part, and of each signature.
    for (position, at) in [(0, 100), (1, 100), (0, leaf.der().len() - 1), (1, authority.der().len() - 1)] {
        let mut chain = [leaf.der().to_vec(), authority.der().to_vec()];
        chain[position][at] ^= 1;
        let read = read_chain(&chain);
        let followed = read.and_then(|chain| follow(&chain, &believed, RECORDED).map(|_| ()));
        let refused = matches!(
            followed,
            Err(PathError::Signature { position: seen, .. }
                | PathError::Certificate { position: seen, .. }
                | PathError::NotValid { position: seen, .. })
                if seen == position
        );
        assert!(refused, "{position} {at}: {followed:?}");
    }
}

#[test]
fn weak_and_unknown_algorithms_are_refused() {
    for (pem, oid) in
        [(recorded!("refused_pss"), "1.2.840.113549.1.1.10"), (recorded!("refused_sha1"), "1.2.840.113549.1.1.5")]
    {
        assert_eq!(Certificate::parse_pem(pem), Err(CertificateError::Algorithm { oid: oid.to_owned() }));
    }
    let short = Certificate::parse_pem(recorded!("refused_rsa1024"));
    assert_eq!(short, Err(CertificateError::Rsa(rsa::RsaError::Size { bits: 1024 })));
}

#[test]
fn the_sites_word_is_tier_1_and_no_certificate_can_make_it_more() {
    let own = Tie { ek_certificate: Some(Digest([1; 32])), ..tie() };
    let site = Site::new(&own);
    let chain = [&site.leaf, &site.middle];
    let vouched = site.judge(RootClass::Site, &chain, &beginning(&own)).unwrap();
    assert_eq!((vouched.by(), vouched.tier(), vouched.root()), (VouchedBy::Site, KeyTier::T1, "CN=root"));
    assert_eq!(vouched.tie(), Some(&own));
    assert_eq!(
        vouched.to_string(),
        "EK vendor-certified as the authority says (its certificate is not shown); \
         AK bound on the word of the site's CA CN=root"
    );
    let independent = site.judge(RootClass::Independent, &chain, &beginning(&own)).unwrap();
    assert_eq!((independent.by(), independent.tier()), (VouchedBy::Independent, KeyTier::T3));
    // The root may be shown too.
    assert!(site.judge(RootClass::Site, &[&site.leaf, &site.middle, &site.root], &beginning(&own)).is_ok());
}

#[test]
fn an_independent_authority_that_saw_no_vendors_certificate_gives_no_more_than_a_site() {
    let own = tie();
    let site = Site::new(&own);
    let vouched = site.judge(RootClass::Independent, &[&site.leaf, &site.middle], &beginning(&own)).unwrap();
    assert_eq!((vouched.by(), vouched.endorsement()), (VouchedBy::Independent, &Endorsement::Uncertified));
    assert_eq!(vouched.tier(), KeyTier::T1);
    assert_eq!(vouched.to_string(), "EK not vendor-certified; AK bound by the independent CA CN=root");
}

#[test]
fn cloud_providers_and_vendors_vouch_without_tying_the_key_to_a_log() {
    let own = tie();
    let site = Site::new(&own);
    let chain = [&site.leaf, &site.middle];
    let cloud = site.judge(RootClass::Cloud, &chain, &beginning(&own)).unwrap();
    assert_eq!((cloud.by(), cloud.tier(), cloud.tie()), (VouchedBy::Cloud, KeyTier::T2, None));
    assert_eq!(cloud.to_string(), "AK certified by the cloud provider (CN=root)");
    let vendor = site.judge(RootClass::Vendor, &chain, &beginning(&own)).unwrap();
    assert_eq!(
        (vendor.by(), vendor.tier(), vendor.endorsement()),
        (VouchedBy::Vendor, KeyTier::T3, &Endorsement::NotStated)
    );
    // A root that is believed for endorsement keys is believed for nothing else.
    assert_eq!(site.judge(RootClass::Endorsement, &chain, &beginning(&own)), Err(CertError::Purpose));
}

#[test]
fn a_vendor_vouches_by_way_of_the_machines_own_restricted_key() {
    let tie = tie();
    let ours = ak(AK);
    let root = authority("root", &key(ROOT), "root", &key(ROOT), may_sign(None));
    let usage = || key_usage(KeyUsages::DigitalSignature.into()).unwrap();
    let purpose = extension(EXTENDED_KEY_USAGE, false, &ExtendedKeyUsage(vec![PURPOSE_ATTESTATION])).unwrap();
    // SEQUENCE { SEQUENCE { 2.23.133.11.1.3 } }
    let policy = Extension {
        extn_id: ObjectIdentifier::new_unwrap("2.5.29.32"),
        critical: true,
        extn_value: OctetString::new(
            &[&[0x30, 0x0a, 0x30, 0x08, 0x06, 0x06][..], &[0x67, 0x81, 0x05, 0x0b, 0x01, 0x03]].concat()[..],
        )
        .unwrap(),
    };
    let iak = |extensions| authority("iak", &key(42), "root", &key(ROOT), extensions);
    let certify = |bend: &dyn Fn(&mut Attest)| {
        let mut attest = Attest::parse(testdata::CERTIFY_ATTEST).unwrap();
        attest.attested =
            Attested::Certify { name: ours.name().clone(), qualified_name: ours.qualified_name().clone() };
        bend(&mut attest);
        let attest = attest.to_bytes();
        let signature: p256::ecdsa::Signature = key(42).sign(&attest);
        let (r, s) = signature.split_bytes();
        KeyCertification { attest, signature: EcdsaSignature { r: r.into(), s: s.into() }.to_bytes() }
    };
    let judged = |class, iak: &Certificate, certification: &KeyCertification| {
        let certificates = [certification.to_der().unwrap(), iak.der().to_vec()];
        let shown = Shown { ak: &ours, certificates: &certificates, ek_certificates: &[] };
        let roots = TrustRoots { keys: roots(class, &root), endorsement: Roots::new() };
        agreed(&shown, &beginning(&tie), &roots, NOW)
    };
    let good = certify(&|_| {});
    for extension in [purpose.clone(), policy] {
        let vouched = judged(RootClass::Vendor, &iak(vec![usage(), extension]), &good).unwrap();
        assert_eq!((vouched.by(), vouched.tier(), vouched.tie()), (VouchedBy::Vendor, KeyTier::T3, None));
    }
    let iak_restricted = iak(vec![usage(), purpose.clone()]);
    let site = judged(RootClass::Site, &iak_restricted, &good);
    assert_eq!(site, Err(CertError::NotVendor { class: RootClass::Site }));
    let refused =
        |iak: &Certificate, certification: &KeyCertification| match judged(RootClass::Vendor, iak, certification) {
            Err(CertError::Certify(error)) => error,
            other => panic!("{other:?}"),
        };
    // An identity key that signs whatever it is given can certify anything.
    assert_eq!(refused(&iak(vec![usage()]), &good), CertifyError::NotRestricted);
    assert_eq!(judged(RootClass::Vendor, &iak(vec![purpose.clone()]), &good), Err(CertError::Usage));
    let other = certify(&|attest| {
        let name = Name::parse(testdata::EK_NAME).unwrap();
        attest.attested = Attested::Certify { name: name.clone(), qualified_name: name };
    });
    assert_eq!(refused(&iak_restricted, &other), CertifyError::OtherKey);
    let quote = certify(&|attest| attest.attested = Attest::parse(testdata::QUOTE_ATTEST).unwrap().attested);
    assert_eq!(refused(&iak_restricted, &quote), CertifyError::Kind);
    let foreign = KeyCertification { signature: testdata::CERTIFY_SIG.to_vec(), ..good.clone() };
    assert_eq!(refused(&iak_restricted, &foreign), CertifyError::Forged);
    let unsigned = KeyCertification { signature: vec![], ..good };
    assert!(matches!(refused(&iak_restricted, &unsigned), CertifyError::Signature(_)));
}

#[test]
fn the_endorsement_certificate_is_followed_where_the_trust_file_has_roots() {
    let issuer = one(recorded!("swtpm_issuer"));
    let ek = one(recorded!("swtpm_ek_rsa"));
    let other = one(recorded!("swtpm_ek_p384"));
    let own = Tie { ek_certificate: Some(Digest(Sha256::digest(ek.der()).into())), ..tie() };
    let site = Site::new(&own);
    let chain = [&site.leaf, &site.middle];
    let keys = roots(RootClass::Independent, &site.root);
    let at = |endorsement: Roots, shown: &[&Certificate]| {
        let ak = ak(AK);
        let certificates: Vec<&[u8]> = chain.iter().map(|one| one.der()).collect();
        let ek_certificates: Vec<&[u8]> = shown.iter().map(|one| one.der()).collect();
        let shown = Shown { ak: &ak, certificates: &certificates, ek_certificates: &ek_certificates };
        let roots = TrustRoots { keys: keys.clone(), endorsement };
        // In 2030 the certificates made here are still valid, and swtpm's already.
        agreed(&shown, &beginning(&own), &roots, RECORDED)
    };
    let swtpm = || roots(RootClass::Endorsement, &one(recorded!("swtpm_root")));
    let vouched = at(swtpm(), &[&ek, &issuer]).unwrap();
    assert_eq!(vouched.endorsement(), &Endorsement::Certified { root: "CN=swtpm-localca-rootca".to_owned() });
    assert_eq!(vouched.tier(), KeyTier::T3);
    assert_eq!(at(Roots::new(), &[&ek, &issuer]).unwrap().endorsement(), &Endorsement::Said(NotChecked::NoRoots));
    assert_eq!(at(swtpm(), &[]).unwrap().endorsement(), &Endorsement::Said(NotChecked::NotShown));
    // Stripped of the issuer: the authority's word is contradicted, and T3 is lost.
    let stripped = at(swtpm(), &[&ek]).unwrap();
    let missing = PathError::NoRoot { position: 0, issuer: "CN=swtpm-localca".to_owned() };
    assert_eq!((stripped.endorsement(), stripped.tier()), (&Endorsement::Contradicted(missing), KeyTier::T1));
    assert_eq!(at(swtpm(), &[&other, &issuer]), Err(CertError::OtherEndorsement));
}

#[test]
fn stripped_reordered_and_foreign_chains_are_refused() {
    let own = tie();
    let site = Site::new(&own);
    let Site { root, middle, leaf } = &site;
    let foreign = authority("foreign", &key(21), "foreign", &key(21), may_sign(None));
    // Names that are right and keys that are not.
    let impostor = authority("middle", &key(22), "root", &key(22), may_sign(None));
    let refused = |chain: &[&Certificate]| match site.judge(RootClass::Site, chain, &beginning(&own)) {
        Err(CertError::Path(error)) => error,
        other => panic!("{other:?}"),
    };
    let name = |name: &str| format!("CN={name}");
    assert_eq!(refused(&[]), PathError::Empty);
    assert_eq!(refused(&[leaf]), PathError::NoRoot { position: 0, issuer: name("middle") });
    let order =
        |position, issuer: &str, next: &str| PathError::Order { position, issuer: name(issuer), next: name(next) };
    assert_eq!(refused(&[leaf, root, middle]), order(0, "middle", "root"));
    assert_eq!(refused(&[leaf, &foreign, middle]), order(0, "middle", "foreign"));
    assert_eq!(refused(&[leaf, middle, &foreign]), PathError::Surplus { position: 2 });
    assert_eq!(refused(&[leaf, middle, root, root]), PathError::Surplus { position: 3 });
    let wrong = SignatureError::Wrong;
    assert_eq!(refused(&[leaf, &impostor]), PathError::Signature { position: 0, source: wrong });
    let mut forged = Site::new(&own);
    forged.middle = impostor;
    let ak = ak(AK);
    let forged_leaf = issue::attestation_key(&key(22), &forged.middle, ak.point(), &own, &[1; 16], LIFETIME).unwrap();
    assert_eq!(refused(&[&forged_leaf, &forged.middle]), PathError::Signature { position: 1, source: wrong });
    assert_eq!(refused(&[leaf; CHAIN_MAX + 1]), PathError::TooLong { seen: CHAIN_MAX + 1 });
    // A self-made certificate under the right names, with its own root shown.
    let own_root = authority("root", &key(23), "root", &key(23), may_sign(None));
    let own_middle = authority("middle", &key(24), "root", &key(23), may_sign(Some(0)));
    let own_leaf = issue::attestation_key(&key(24), &own_middle, ak.point(), &own, &[1; 16], LIFETIME).unwrap();
    assert_eq!(refused(&[&own_leaf, &own_middle, &own_root]), PathError::Signature { position: 2, source: wrong });
}

#[test]
fn certificates_that_may_not_stand_above_another_are_refused() {
    let own = tie();
    let root = authority("root", &key(ROOT), "root", &key(ROOT), may_sign(Some(1)));
    let ak = ak(AK);
    let refused = |extensions: Vec<Extension>| {
        let middle = authority("middle", &key(MIDDLE), "root", &key(ROOT), extensions);
        let leaf = issue::attestation_key(&key(MIDDLE), &middle, ak.point(), &own, &[1; 16], LIFETIME).unwrap();
        follow(&[leaf, middle], &roots(RootClass::Site, &root), NOW).map(|_| ())
    };
    assert_eq!(refused(may_sign(None)), Ok(()));
    assert_eq!(refused(vec![]), Err(PathError::NotAuthority { position: 1 }));
    let not_ca = vec![basic_constraints(false, None).unwrap(), key_usage(KeyUsages::KeyCertSign.into()).unwrap()];
    assert_eq!(refused(not_ca), Err(PathError::NotAuthority { position: 1 }));
    let no_usage = vec![basic_constraints(true, None).unwrap()];
    assert_eq!(refused(no_usage), Err(PathError::MayNotSign { position: 1 }));
    let other_usage = vec![basic_constraints(true, None).unwrap(), key_usage(KeyUsages::CRLSign.into()).unwrap()];
    assert_eq!(refused(other_usage), Err(PathError::MayNotSign { position: 1 }));

    // Too long for the authority in the middle, and for the root.
    let upper = authority("upper", &key(31), "root", &key(ROOT), may_sign(Some(0)));
    let lower = authority("lower", &key(32), "upper", &key(31), may_sign(None));
    let leaf = issue::attestation_key(&key(32), &lower, ak.point(), &own, &[1; 16], LIFETIME).unwrap();
    let long = follow(&[leaf.clone(), lower.clone(), upper], &roots(RootClass::Site, &root), NOW).map(|_| ());
    assert_eq!(long, Err(PathError::PathLength { position: 2, seen: 1, max: 0 }));
    let upper = authority("upper", &key(31), "root", &key(ROOT), may_sign(None));
    let long = follow(&[leaf, lower, upper], &roots(RootClass::Site, &root), NOW).map(|_| ());
    assert_eq!(long, Err(PathError::PathLength { position: 3, seen: 2, max: 1 }));
}

#[test]
fn every_certificate_but_the_root_must_be_valid_at_the_time_that_is_asked_about() {
    let site = Site::new(&tie());
    let chain = [site.leaf.clone(), site.middle.clone()];
    let at = |seconds: u64| {
        follow(&chain, &roots(RootClass::Site, &site.root), WallTime(seconds * 1_000_000_000)).map(|_| ())
    };
    let refused = |at| Err(PathError::NotValid { position: 0, from: LIFETIME.from, until: LIFETIME.until, at });
    assert_eq!(at(LIFETIME.from), Ok(()));
    assert_eq!(at(LIFETIME.until), Ok(()));
    assert_eq!(at(LIFETIME.from - 1), refused(LIFETIME.from - 1));
    assert_eq!(at(LIFETIME.until + 1), refused(LIFETIME.until + 1));
    let ak = ak(AK);
    let longer = Lifetime { until: LIFETIME.until + 10, ..LIFETIME };
    let leaf = issue::attestation_key(&key(MIDDLE), &site.middle, ak.point(), &tie(), &[1; 16], longer).unwrap();
    let late = WallTime((LIFETIME.until + 1) * 1_000_000_000);
    let expired = follow(&[leaf, site.middle], &roots(RootClass::Site, &site.root), late).map(|_| ());
    assert!(matches!(expired, Err(PathError::NotValid { position: 1, .. })), "{expired:?}");
}

#[test]
fn a_certificate_of_another_key_or_purpose_is_refused() {
    let own = tie();
    let site = Site::new(&own);
    let judged = |leaf: &Certificate| site.judge(RootClass::Site, &[leaf, &site.middle], &beginning(&own));
    let ak = ak(99);
    let other = issue::attestation_key(&key(MIDDLE), &site.middle, ak.point(), &own, &[1; 16], LIFETIME).unwrap();
    assert_eq!(judged(&other), Err(CertError::OtherKey));

    let bent = |extensions: Vec<Extension>| authority("leaf", &key(AK), "middle", &key(MIDDLE), extensions);
    let usage = key_usage(KeyUsages::DigitalSignature.into()).unwrap();
    let purpose = extension(EXTENDED_KEY_USAGE, false, &ExtendedKeyUsage(vec![PURPOSE_ATTESTATION])).unwrap();
    let tied =
        Extension { extn_id: ENROLMENT, critical: false, extn_value: OctetString::new(own.to_der().unwrap()).unwrap() };
    let named = |name: &str| {
        let names = SubjectAltName(vec![GeneralName::DirectoryName(common_name(name).unwrap())]);
        extension(SUBJECT_ALT_NAME, false, &names).unwrap()
    };
    let whole = || vec![usage.clone(), purpose.clone(), tied.clone(), named(&own.origin)];
    assert!(judged(&bent(whole())).is_ok());
    assert_eq!(judged(&bent(whole()[1..].to_vec())), Err(CertError::Usage));
    let signs = vec![key_usage(KeyUsages::DigitalSignature | KeyUsages::KeyCertSign).unwrap(), purpose.clone()];
    assert_eq!(judged(&bent(signs)), Err(CertError::Usage));
    assert_eq!(judged(&bent(vec![usage.clone()])), Err(CertError::Purpose));
    assert_eq!(judged(&bent(vec![usage.clone(), purpose.clone()])), Err(CertError::NotTied));
    let subject = |seen: &str| Err(CertError::Subject { seen: seen.to_owned(), origin: own.origin.clone() });
    assert_eq!(judged(&bent(whole()[..3].to_vec())), subject(""));
    let renamed = vec![usage.clone(), purpose.clone(), tied.clone(), named("other.example/host")];
    assert_eq!(judged(&bent(renamed)), subject("other.example/host"));
    let mut garbage = whole();
    garbage[2].extn_value = OctetString::new(&b"\x30\x00"[..]).unwrap();
    assert!(matches!(judged(&bent(garbage)), Err(CertError::Tie(TieError::Form(_)))));
    let mut ca = whole();
    ca.push(basic_constraints(true, None).unwrap());
    assert_eq!(judged(&bent(ca)), Err(CertError::Authority));
}

#[test]
fn a_certificate_for_another_log_is_refused_by_what_differs() {
    let own = tie();
    let site = Site::new(&own);
    let judged = |beginning: &Beginning<'_>| site.judge(RootClass::Site, &[&site.leaf, &site.middle], beginning);
    let good = beginning(&own);
    let renamed = Beginning { origin: "affiant.example/renamed", ..good };
    let expected = CertError::OtherOrigin { seen: own.origin.clone(), expected: renamed.origin.to_owned() };
    assert_eq!(judged(&renamed), Err(expected));
    for (what, bent) in [
        ("log key", Beginning { log_key: PublicKey([0; 32]), ..good }),
        ("genesis", Beginning { genesis: LeafHash([0; 32]), ..good }),
        ("first epoch key", Beginning { first_epoch_key: PublicKey([0; 32]), ..good }),
        ("NV counter", Beginning { counter_name: Some(&[0; 34]), ..good }),
        ("NV counter", Beginning { counter_name: None, ..good }),
    ] {
        assert_eq!(judged(&bent), Err(CertError::OtherLog { what }));
    }
    // A counter that was made after enrolment is no contradiction.
    let without = Tie { counter: None, ..tie() };
    let site = Site::new(&without);
    let later = Beginning { counter_name: Some(&[1; 34]), ..good };
    assert!(site.judge(RootClass::Site, &[&site.leaf, &site.middle], &later).is_ok());
    // The same point with other attributes is another key to a TPM.
    let site = Site::new(&Tie { ak_name: vec![0; 34], ..tie() });
    let other = site.judge(RootClass::Site, &[&site.leaf, &site.middle], &good);
    assert_eq!(other, Err(CertError::OtherName));
}

#[test]
fn a_root_must_be_an_authoritys_and_is_believed_as_one_thing() {
    let site = Site::new(&tie());
    let mut known = Roots::new();
    let refused = |subject: &str| RootError::NotAuthority { subject: subject.to_owned() };
    assert_eq!(known.add(RootClass::Site, site.leaf.clone()), Err(refused("CN=affiant.example/host")));
    let mute = authority("mute", &key(1), "mute", &key(1), vec![basic_constraints(true, None).unwrap()]);
    assert_eq!(known.add(RootClass::Site, mute), Err(RootError::MayNotSign { subject: "CN=mute".to_owned() }));
    known.add(RootClass::Site, site.root.clone()).unwrap();
    known.add(RootClass::Site, site.root.clone()).unwrap();
    assert_eq!(known.iter().count(), 1);
    let twice =
        RootError::TwoClasses { subject: "CN=root".to_owned(), one: RootClass::Site, other: RootClass::Independent };
    assert_eq!(known.add(RootClass::Independent, site.root), Err(twice));
}

#[test]
fn the_roots_of_a_trust_file_are_read_list_by_list() {
    let site = Site::new(&tie());
    let mut roots = TrustRoots::default();
    roots.add_pem(RootClass::Site, &[site.root.to_pem()]).unwrap();
    roots.add_pem(RootClass::Endorsement, &[recorded!("swtpm_root")]).unwrap();
    assert_eq!((roots.keys.iter().count(), roots.endorsement.iter().count()), (1, 1));
    let mut refused = |class, text: &str| roots.add_pem(class, &[text]).unwrap_err();
    assert_eq!(refused(RootClass::Site, ""), TrustRootsError::Count { position: 0, seen: 0 });
    let two = format!("{}{}", site.root.to_pem(), site.middle.to_pem());
    assert_eq!(refused(RootClass::Site, &two), TrustRootsError::Count { position: 0, seen: 2 });
    let both = refused(RootClass::Independent, &site.root.to_pem());
    assert!(matches!(both, TrustRootsError::Root { source: RootError::TwoClasses { .. }, .. }), "{both:?}");
    let leaf = refused(RootClass::Site, &site.leaf.to_pem());
    assert!(matches!(leaf, TrustRootsError::Root { source: RootError::NotAuthority { .. }, .. }), "{leaf:?}");
    let weak = refused(RootClass::Endorsement, recorded!("refused_sha1"));
    assert!(matches!(weak, TrustRootsError::Certificate { .. }), "{weak:?}");
}

#[test]
fn forms_that_are_not_understood_are_refused() {
    let leaf = Site::new(&tie()).leaf;
    let large = vec![0; CERTIFICATE_BYTES_MAX + 1];
    assert_eq!(Certificate::parse(&large), Err(CertificateError::TooLarge { seen: large.len() }));
    let trailing = [leaf.der(), &[0]].concat();
    assert!(matches!(Certificate::parse(&trailing), Err(CertificateError::Form(_))));
    for length in 0..leaf.der().len() {
        assert!(Certificate::parse(&leaf.der()[..length]).is_err(), "{length}");
    }
    let bent = |extensions: Vec<Extension>| {
        let draft = Draft {
            issuer: common_name("issuer").unwrap(),
            subject: common_name("subject").unwrap(),
            point: key(AK).verifying_key().to_sec1_point(false).as_bytes().to_vec(),
            lifetime: LIFETIME,
            extensions,
        };
        Certificate::parse(&draft.sign(&key(1), &[0xff; 16]).unwrap())
    };
    let unknown = |critical| Extension {
        extn_id: ObjectIdentifier::new_unwrap("1.2.3.4"),
        critical,
        extn_value: OctetString::new(&[5, 0][..]).unwrap(),
    };
    assert!(bent(vec![unknown(false)]).is_ok());
    assert_eq!(bent(vec![unknown(true)]), Err(CertificateError::CriticalUnknown { oid: "1.2.3.4".to_owned() }));
    let twice = vec![unknown(false), unknown(false)];
    assert_eq!(bent(twice), Err(CertificateError::ExtensionRepeated { oid: "1.2.3.4".to_owned() }));
    let names = Extension { extn_id: ObjectIdentifier::new_unwrap("2.5.29.30"), ..unknown(false) };
    assert_eq!(bent(vec![names]), Err(CertificateError::NameConstraints));
    let many = vec![unknown(false); 33];
    assert_eq!(bent(many), Err(CertificateError::TooManyExtensions { seen: 33 }));
    let usage = Extension { extn_id: ObjectIdentifier::new_unwrap("2.5.29.15"), ..unknown(true) };
    assert!(matches!(bent(vec![usage]), Err(CertificateError::Extension { oid, .. }) if oid == "2.5.29.15"));
    let mut off_curve = Draft {
        issuer: common_name("issuer").unwrap(),
        subject: common_name("subject").unwrap(),
        point: vec![4; 65],
        lifetime: LIFETIME,
        extensions: vec![],
    };
    let point = Err(CertificateError::Point);
    assert_eq!(Certificate::parse(&off_curve.clone().sign(&key(1), &[0; 16]).unwrap()), point);
    // A compressed point is a second spelling of a key.
    off_curve.point = key(1).verifying_key().to_sec1_point(true).as_bytes().to_vec();
    assert_eq!(Certificate::parse(&off_curve.sign(&key(1), &[0; 16]).unwrap()), point);
    let backwards = Lifetime { from: 2, until: 1 };
    let made = issue::authority(&key(1), "root", &[1; 16], backwards);
    assert_eq!(made, Err(IssueError::Refused(CertificateError::Backwards)));
}

#[test]
fn pem_is_read_with_comments_and_without_private_keys() {
    let site = Site::new(&tie());
    let text = format!("the site's\n{}and\r\n{}", site.root.to_pem(), site.middle.to_pem().replace('\n', "\r\n"));
    assert_eq!(Certificate::parse_pem(&text), Ok(vec![site.root.clone(), site.middle]));
    assert_eq!(Certificate::parse_pem(""), Ok(vec![]));
    let pem = |line, expected| Err(CertificateError::Pem { line, expected });
    let key = "-----BEGIN PRIVATE KEY-----\n";
    assert_eq!(Certificate::parse_pem(key), pem(1, "expected only blocks of CERTIFICATE"));
    let open = "\n-----BEGIN CERTIFICATE-----\nAAAA\n";
    assert_eq!(Certificate::parse_pem(open), pem(3, "expected an end of the certificate"));
    let bad = "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n";
    assert_eq!(Certificate::parse_pem(bad), pem(3, "expected base64 in the block above"));
}

#[test]
fn the_tie_has_one_encoding() {
    for tie in [tie(), Tie { counter: None, ek_certificate: Some(Digest([9; 32])), ..tie() }] {
        let bytes = tie.to_der().unwrap();
        assert_eq!(Tie::from_der(&bytes), Ok(tie));
        assert!(matches!(Tie::from_der(&[&bytes[..], &[0]].concat()), Err(TieError::Form(_))));
        let mut newer = bytes.clone();
        // SEQUENCE, its length in two bytes, INTEGER, its length.
        let version = newer.iter().position(|byte| *byte == 0x02).unwrap() + 2;
        newer[version] = 2;
        assert_eq!(Tie::from_der(&newer), Err(TieError::Version { seen: 2 }));
    }
    let short = Tie { ak_name: vec![1; 3], ..tie() }.to_der().unwrap();
    let size = TieError::Size { what: "the attestation key's name", seen: 3, expected: "4 to 66" };
    assert_eq!(Tie::from_der(&short), Err(size));
}

#[test]
fn names_cannot_command_a_terminal() {
    let root = issue::authority(&key(1), "\u{1b}[2Jroot", &[1; 16], LIFETIME).unwrap();
    assert_eq!(root.to_string(), "CN=\\1b[2Jroot");
}

#[test]
fn an_authoritys_key_is_written_as_openssl_writes_it_and_read_back() {
    // `openssl ecparam -name prime256v1 -genkey -noout`.
    let openssl = include_str!("../../../../tests/attest/authority_key.pem");
    let key = issue::AuthorityKey::parse_pem(openssl).unwrap();
    assert_eq!(key.to_pem().unwrap(), openssl);
    let own = issue::AuthorityKey::from_random(&[7; 32]).unwrap();
    let again = issue::AuthorityKey::parse_pem(&own.to_pem().unwrap()).unwrap();
    assert_eq!(again.secrets(), own.secrets());
    assert_ne!(own.secrets(), key.secrets());
    assert!(issue::AuthorityKey::from_random(&[0; 32]).is_none());
    for bad in ["", "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n", &openssl[1..]] {
        assert!(matches!(issue::AuthorityKey::parse_pem(bad), Err(IssueError::Key)), "{bad}");
    }
}

/// A fixed generator of numbers below its argument: the same ones each time.
fn generator() -> impl FnMut(usize) -> usize {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    move |below| {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        usize::try_from(state >> 33).unwrap() % below
    }
}

fn alter(bytes: &mut Vec<u8>, next: &mut impl FnMut(usize) -> usize) {
    let at = next(bytes.len());
    match next(5) {
        0 => bytes[at] ^= 1 << next(8),
        1 => bytes[at] = u8::try_from(next(256)).unwrap(),
        2 => bytes.truncate(at.max(1)),
        3 => drop(bytes.remove(at)),
        _ => bytes.insert(at, 0),
    }
}

/// Signatures are not judged here, so that forms are what is compared.
#[test]
fn both_readers_read_altered_certificates_alike() {
    let site = Site::new(&Tie { ek_certificate: Some(Digest([7; 32])), ..tie() });
    let pems = [
        recorded!("swtpm_ek_rsa"),
        recorded!("swtpm_ek_p384"),
        recorded!("swtpm_issuer"),
        recorded!("rsa_authority"),
        recorded!("p384_root"),
    ];
    let mut originals: Vec<Vec<u8>> = pems.iter().map(|pem| one(pem).der().to_vec()).collect();
    // Twice, since it has the most in it.
    originals.extend([site.middle.der().to_vec(), site.leaf.der().to_vec(), site.leaf.der().to_vec()]);
    let mut next = generator();
    let (mut cases, mut expected) = (Vec::new(), Vec::new());
    for round in 0..4000 {
        let mut bytes = originals[round % originals.len()].clone();
        if round >= originals.len() {
            alter(&mut bytes, &mut next);
        }
        let read = Certificate::parse(&bytes);
        let tied = read.as_ref().is_ok_and(|certificate| read_tie(certificate).is_ok());
        expected.push(match (read.is_ok(), tied) {
            (false, _) => "refused",
            (true, false) => "certificate",
            (true, true) => "tied",
        });
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        cases.push(serde_json::json!({ "certificate": hex }));
    }
    // Altered bits in the signature leave the form as it is.
    assert!(expected.iter().filter(|word| **word == "tied").count() > 2);
    for ((case, expected), (said, why)) in cases.iter().zip(expected).zip(second_reader(&cases)) {
        assert_eq!(said, expected, "{why}: {case}");
    }
}

#[test]
fn both_readers_judge_altered_bytes_alike() {
    let ek = one(recorded!("swtpm_ek_rsa"));
    let issuer = one(recorded!("swtpm_issuer"));
    let own = Tie { ek_certificate: Some(Digest(Sha256::digest(ek.der()).into())), ..tie() };
    let site = Site::new(&own);
    let ak = ak(AK);
    let roots = TrustRoots {
        keys: roots(RootClass::Independent, &site.root),
        endorsement: roots(RootClass::Endorsement, &one(recorded!("swtpm_root"))),
    };
    let good =
        [vec![site.leaf.der().to_vec(), site.middle.der().to_vec()], vec![ek.der().to_vec(), issuer.der().to_vec()]];
    let mut next = generator();
    let (mut cases, mut expected) = (Vec::new(), Vec::new());
    for _ in 0..100 {
        let mut chains = good.clone();
        let bytes = &mut chains[next(2)][next(2)];
        alter(bytes, &mut next);
        let shown = Shown { ak: &ak, certificates: &chains[0], ek_certificates: &chains[1] };
        cases.push(case(&shown, &beginning(&own), &roots, RECORDED));
        expected.push(in_words(&who_vouches(&shown, &beginning(&own), &roots, RECORDED)));
    }
    // Unaltered, it verifies: what the others are compared with.
    let shown = Shown { ak: &ak, certificates: &good[0], ek_certificates: &good[1] };
    cases.push(case(&shown, &beginning(&own), &roots, RECORDED));
    expected.push("independent T3 certified".to_owned());
    for ((case, expected), (said, why)) in cases.iter().zip(expected).zip(second_reader(&cases)) {
        assert_eq!(said, expected, "{why}: {case}");
    }
}
