//! Enrolment by files, with the program itself: software TPMs as hosts, swtpm's own certificate authority as their
//! vendor, and an authority that has neither TPM nor daemon.

#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use agent::enroll::host::installed;
use agent::tpm::{Device, Place};
use agent_evidence::attest::cert::path::{RootClass, Roots};
use agent_evidence::attest::cert::x509::Certificate;
use agent_evidence::attest::cert::{Beginning, Endorsement, Shown, TrustRoots, Vouched, VouchedBy, who_vouches};
use agent_evidence::attest::enroll::{IssuedChain, Response};
use agent_evidence::attest::key::Ak;
use agent_evidence::attest::tpm::{Name, NvPublic, Parameters, Public};
use agent_evidence::fixture::{Builder, ORIGIN};
use agent_evidence::record::{KeyTier, WallTime};
use agent_evidence::trust::Trust;
use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;
use tests::Swtpm;

/// The counter's handle.
const INDEX: u32 = 0x0150_0100;

/// swtpm's authority, in the place of the vendor of TPMs.
struct Vendor(TempDir);

impl Vendor {
    fn new() -> Result<Self> {
        let place = tempfile::tempdir()?;
        let at = |name: &str| place.path().join(name).display().to_string();
        let configuration = format!(
            "statedir = {}\nsigningkey = {}\nissuercert = {}\ncertserial = {}\n",
            at("ca"),
            at("ca/signkey.pem"),
            at("ca/issuercert.pem"),
            at("ca/certserial")
        );
        fs::create_dir(place.path().join("ca"))?;
        fs::create_dir(place.path().join("roots"))?;
        fs::write(place.path().join("localca.conf"), configuration)?;
        fs::write(place.path().join("localca.options"), "")?;
        Ok(Self(place))
    }

    /// Certifies an endorsement key (TPMT_PUBLIC); its certificate and the issuer's, in DER.
    fn certify(&self, public: &[u8]) -> Result<[Vec<u8>; 2]> {
        let Parameters::Ecc { x, y, .. } = Public::parse(public)?.parameters else { bail!("not a point") };
        let at = |name: &str| self.0.path().join(name);
        let key = format!("x={},y={},id=secp256r1", hex(&x), hex(&y));
        let status = Command::new("swtpm_localca")
            .args(["--type", "ek", "--ek", &key, "--vmid", "test", "--tpm2"])
            .args(["--tpm-spec-family", "2.0", "--tpm-spec-level", "0", "--tpm-spec-revision", "164"])
            .args(["--tpm-manufacturer", "id:00001014", "--tpm-model", "swtpm", "--tpm-version", "id:20191023"])
            .arg("--dir")
            .arg(self.0.path())
            .arg("--configfile")
            .arg(at("localca.conf"))
            .arg("--optsfile")
            .arg(at("localca.options"))
            .output()
            .context("swtpm_localca: install the Debian package swtpm-tools")?;
        ensure!(status.status.success(), "swtpm_localca: {}", String::from_utf8_lossy(&status.stderr));
        fs::copy(at("ca/swtpm-localca-rootca-cert.pem"), at("roots/root.pem"))?;
        let issuer = Certificate::parse_pem(&fs::read_to_string(at("ca/issuercert.pem"))?)?;
        let issuer = issuer.first().context("an issuer")?.der().to_vec();
        Ok([fs::read(at("ek.cert"))?, issuer])
    }

    fn roots(&self) -> PathBuf {
        self.0.path().join("roots")
    }
}

/// A host: a TPM, the keys that the agent made in it, and a log.
struct Host {
    tpm: Swtpm,
    state: TempDir,
    log: Builder,
}

impl Host {
    fn new(vendor: Option<&Vendor>) -> Result<Self> {
        let tpm = Swtpm::start()?;
        let state = tempfile::tempdir()?;
        fs::DirBuilder::new().mode(0o700).create(state.path().join("keys"))?;
        let host = Self { tpm, state, log: log() };
        let device = host.device()?;
        device.counter(INDEX)?;
        for (path, bytes) in host.log.files()?.0 {
            let path = host.state.path().join("log").join(path);
            fs::create_dir_all(path.parent().context("a directory")?)?;
            fs::write(path, bytes)?;
        }
        if let Some(vendor) = vendor {
            let certificates = vendor.certify(&device.identity().ek_public)?;
            for (index, bytes) in ["0x01c0000a", "0x01c00100"].into_iter().zip(certificates) {
                fs::write(host.tpm.directory().join("certificate"), &bytes)?;
                let size = bytes.len().to_string();
                let attributes = "ownerwrite|authwrite|ownerread|authread|no_da";
                host.tpm.tool("tpm2_nvdefine", &[index, "-C", "o", "-s", &size, "-a", attributes])?;
                host.tpm.tool("tpm2_nvwrite", &[index, "-C", "o", "-i", "certificate"])?;
            }
        }
        Ok(host)
    }

    fn device(&self) -> Result<Device> {
        let place = Place::of(&self.tpm.tcti()).context("a TCTI is a place")?;
        Ok(Device::open(&place, &self.keys())?)
    }

    fn keys(&self) -> PathBuf {
        self.state.path().join("keys")
    }

    /// Runs `affiant enroll` on this host.
    fn enroll(&self, arguments: &[&str]) -> Result<Said> {
        let state = self.state.path().display().to_string();
        affiant(&[&["--state", &state, "enroll"], arguments, &["--tpm", &self.tpm.tcti()]].concat())
    }

    /// What a verifier makes of a certificate file for this host's key.
    fn judge(
        &self,
        issued: &IssuedChain,
        class: RootClass,
        authority: &Path,
        vendor: Option<&Vendor>,
    ) -> Result<Vouched> {
        let identity = self.device()?.identity().clone();
        let ak = Ak::parse(&identity.ak_public, Name::parse(&identity.ak_qualified_name)?)?;
        let mut roots = TrustRoots::default();
        for certificate in Certificate::parse_pem(&fs::read_to_string(authority.join("ca.pem"))?)? {
            roots.keys.add(class, certificate)?;
        }
        if let Some(vendor) = vendor {
            let mut known = Roots::new();
            for certificate in Certificate::parse_pem(&fs::read_to_string(vendor.roots().join("root.pem"))?)? {
                known.add(RootClass::Endorsement, certificate)?;
            }
            roots.endorsement = known;
        }
        let trust: Trust = self.log.trust()?;
        let counter = NvPublic::counter(INDEX).name();
        let beginning = Beginning {
            origin: ORIGIN,
            log_key: trust.log_key.key(),
            genesis: trust.genesis,
            first_epoch_key: trust.first_epoch_key,
            counter_name: Some(counter.as_bytes()),
        };
        let shown = Shown { ak: &ak, certificates: &issued.certificates, ek_certificates: &issued.ek_certificates };
        Ok(who_vouches(&shown, &beginning, &roots, now()?)?)
    }
}

fn log() -> Builder {
    let mut log = Builder::new().unwrap_or_else(|error| panic!("{error}"));
    log.append(Builder::armed());
    log
}

/// The present, for certificates that were made a moment ago.
fn now() -> Result<WallTime> {
    Ok(WallTime(agent::cli::clock::now_ns()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the program said.
#[derive(Debug)]
struct Said {
    code: i32,
    out: String,
    error: String,
}

fn affiant(arguments: &[&str]) -> Result<Said> {
    let output = Command::new(env!("CARGO_BIN_EXE_affiant")).args(arguments).output()?;
    Ok(Said {
        code: output.status.code().context("it was killed")?,
        out: String::from_utf8(output.stdout)?,
        error: String::from_utf8(output.stderr)?,
    })
}

/// A directory of files that go to and fro, and an authority.
struct Stick(TempDir);

impl Stick {
    fn new() -> Result<Self> {
        let stick = Self(tempfile::tempdir()?);
        let said = affiant(&["enroll", "ca-init", &stick.at("ca"), "--name", "Example site CA"])?;
        ensure!(said.code == 0, "{said:?}");
        assert_eq!(said.out, fs::read_to_string(stick.at("ca/ca.pem"))?);
        assert_eq!(fs::metadata(stick.at("ca/ca.key"))?.permissions().mode() & 0o777, 0o600);
        Ok(stick)
    }

    fn at(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn ca(&self) -> PathBuf {
        self.0.path().join("ca")
    }

    /// Runs `affiant enroll` where the authority is.
    fn enroll(&self, arguments: &[&str], vendor: Option<&Vendor>) -> Result<Said> {
        let roots = vendor.map(|vendor| vendor.roots().display().to_string());
        let roots: Vec<&str> = roots.iter().flat_map(|roots| ["--ek-roots", roots]).collect();
        affiant(&[&["enroll"], arguments, &["--ca", &self.at("ca")], &roots].concat())
    }

    /// Up to the response of a host.
    fn respond(&self, host: &Host, vendor: Option<&Vendor>) -> Result<Said> {
        let said = host.enroll(&["request", "-o", &self.at("request")])?;
        ensure!(said.code == 0, "{said:?}");
        let requested = said.out;
        let asked = self.enroll(&["challenge", &self.at("request"), "-o", &self.at("challenge")], vendor)?;
        ensure!(asked.code == 0, "{asked:?}");
        // What a person compares is printed alike on both sides.
        let (there, here): (Vec<_>, Vec<_>) = (requested.lines().collect(), asked.out.lines().collect());
        ensure!(there.len() == 4 && there.iter().all(|line| here.contains(line)), "{there:?} {here:?}");
        let said = host.enroll(&["respond", &self.at("challenge"), "-o", &self.at("response")])?;
        ensure!(said.code == 0, "{said:?}");
        Ok(asked)
    }

    fn certify(&self, more: &[&str], vendor: Option<&Vendor>) -> Result<Said> {
        let (request, response, output) = (self.at("request"), self.at("response"), self.at("certificate"));
        self.enroll(&[&["certify", &request, &response, "-o", &output], more].concat(), vendor)
    }

    fn issued(&self) -> Result<IssuedChain> {
        Ok(IssuedChain::parse(&fs::read(self.at("certificate"))?)?)
    }
}

#[test]
fn a_host_is_enrolled_by_files_and_its_certificate_verifies_under_the_sites_root() -> Result<()> {
    let vendor = Vendor::new()?;
    let host = Host::new(Some(&vendor))?;
    let stick = Stick::new()?;
    let asked = stick.respond(&host, Some(&vendor))?;
    assert!(asked.out.contains("EK       vendor-certified by CN=swtpm-localca-rootca\n"), "{asked:?}");
    assert!(asked.out.contains(&format!("origin   {ORIGIN}\n")), "{asked:?}");
    let said = stick.certify(&["--json"], Some(&vendor))?;
    ensure!(said.code == 0, "{said:?}");
    assert!(said.out.contains("\"ek_certified\": true"), "{said:?}");

    let said = host.enroll(&["install", &stick.at("certificate")])?;
    ensure!(said.code == 0, "{said:?}");
    let kept = installed(&host.keys())?.context("it is installed")?;
    assert_eq!(kept, stick.issued()?);

    // What a verifier says of it, by what its trust file calls the authority.
    let vouched = host.judge(&kept, RootClass::Site, &stick.ca(), Some(&vendor))?;
    assert_eq!((vouched.by(), vouched.tier()), (VouchedBy::Site, KeyTier::T1));
    assert_eq!(vouched.endorsement(), &Endorsement::Certified { root: "CN=swtpm-localca-rootca".to_owned() });
    let vouched = host.judge(&kept, RootClass::Independent, &stick.ca(), Some(&vendor))?;
    assert_eq!((vouched.by(), vouched.tier()), (VouchedBy::Independent, KeyTier::T3));
    let tie = vouched.tie().context("it is tied to the log")?;
    let counter = host.device()?.counter(INDEX)?;
    assert_eq!(
        tie.counter.as_ref().map(|pin| (pin.name.as_slice(), pin.value)),
        Some((&counter.name[..], counter.value))
    );

    // GnuTLS reads the chain as well.
    let chain: String =
        kept.certificates.iter().map(|der| Ok(Certificate::parse(der)?.to_pem())).collect::<Result<Vec<_>>>()?.concat();
    fs::write(stick.at("chain.pem"), chain)?;
    let (ca, chain) = (stick.at("ca/ca.pem"), stick.at("chain.pem"));
    let verified =
        Command::new("certtool").args(["--verify", "--load-ca-certificate", &ca, "--infile", &chain]).output()?;
    let text = String::from_utf8_lossy(&verified.stdout).into_owned();
    assert!(verified.status.success() && text.contains("The certificate is trusted"), "{text}");
    Ok(())
}

#[test]
fn an_endorsement_key_that_no_vendor_certified_is_refused_or_certified_as_such() -> Result<()> {
    let vendor = Vendor::new()?;
    let stick = Stick::new()?;
    // A program that plays a TPM: all that is missing is its vendor.
    let host = Host::new(None)?;
    let asked = stick.respond(&host, Some(&vendor)).map(|said| said.out);
    // The vendor's directory is empty until it certified something.
    let asked = asked?;
    assert!(asked.contains("NOT vendor-certified: the TPM shows no certificate for it"), "{asked}");
    let refused = stick.certify(&[], Some(&vendor))?;
    assert_eq!(refused.code, 77, "{refused:?}");
    assert!(!Path::new(&stick.at("certificate")).exists());
    let said = stick.certify(&["--uncertified-ek"], Some(&vendor))?;
    ensure!(said.code == 0, "{said:?}");
    assert!(said.error.contains("a program that plays a TPM looks the same"), "{said:?}");
    let issued = stick.issued()?;
    for class in [RootClass::Site, RootClass::Independent] {
        let vouched = host.judge(&issued, class, &stick.ca(), None)?;
        assert_eq!((vouched.endorsement(), vouched.tier()), (&Endorsement::Uncertified, KeyTier::T1));
    }
    Ok(())
}

#[test]
fn another_vendors_root_certifies_nothing() -> Result<()> {
    let (vendor, other) = (Vendor::new()?, Vendor::new()?);
    let stick = Stick::new()?;
    let host = Host::new(Some(&vendor))?;
    let stranger = Host::new(Some(&other))?;
    let asked = stick.respond(&host, Some(&other))?;
    // Both have the same name, so that the signature has to tell.
    let wrong = "NOT vendor-certified: its certificate: certificate 1 is not signed by its issuer";
    assert!(asked.out.contains(wrong), "{asked:?}");
    assert_eq!(stick.certify(&[], Some(&other))?.code, 77);
    fs::write(other.roots().join("note.txt"), "not a certificate")?;
    let said = stick.certify(&[], Some(&vendor))?;
    ensure!(said.code == 0, "{said:?}");
    // The certificate is for one host; another keeps none that is not its own.
    let refused = stranger.enroll(&["install", &stick.at("certificate")])?;
    assert_eq!(refused.code, 65, "{refused:?}");
    assert!(refused.error.contains("another key than the attestation key"), "{refused:?}");
    assert_eq!(installed(&stranger.keys())?, None);
    Ok(())
}

#[test]
fn only_the_tpm_that_asked_can_answer_and_only_its_own_authority_believes_it() -> Result<()> {
    let vendor = Vendor::new()?;
    let host = Host::new(Some(&vendor))?;
    let stick = Stick::new()?;
    stick.respond(&host, Some(&vendor))?;
    // Another TPM cannot open the challenge.
    let thief = Host::new(Some(&vendor))?;
    let refused = thief.enroll(&["respond", &stick.at("challenge"), "-o", &stick.at("stolen")])?;
    assert_eq!(refused.code, 77, "{refused:?}");
    // Whoever guesses is wrong.
    let good = Response::parse(&fs::read(stick.at("response"))?)?;
    fs::write(stick.at("response"), Response { proof: [0; 32], ..good }.to_bytes()?)?;
    assert_eq!(stick.certify(&[], Some(&vendor))?.code, 77);
    fs::write(stick.at("response"), good.to_bytes()?)?;
    // A response to one authority is none to another.
    let other = Stick::new()?;
    for file in ["request", "response"] {
        fs::copy(stick.at(file), other.at(file))?;
    }
    assert_eq!(other.certify(&[], Some(&vendor))?.code, 77);
    // A request that was changed on the way.
    let request = fs::read_to_string(stick.at("request"))?.replace(ORIGIN, "affiant.example/elsewhere");
    fs::write(other.at("request"), request)?;
    let refused = other.enroll(&["challenge", &other.at("request"), "-o", &other.at("challenge")], None)?;
    assert_eq!(refused.code, 65, "{refused:?}");
    assert!(refused.error.contains("`certified` was made for another request"), "{refused:?}");
    // A key that others can read is not used.
    fs::set_permissions(stick.at("ca/ca.key"), fs::Permissions::from_mode(0o640))?;
    let refused = stick.certify(&[], Some(&vendor))?;
    assert_eq!(refused.code, 77, "{refused:?}");
    assert!(refused.error.contains("mode 640"), "{refused:?}");
    fs::set_permissions(stick.at("ca/ca.key"), fs::Permissions::from_mode(0o600))?;
    assert_eq!(stick.certify(&[], Some(&vendor))?.code, 0);
    // Nothing is overwritten.
    assert_eq!(stick.certify(&[], Some(&vendor))?.code, 64);
    assert_eq!(affiant(&["enroll", "ca-init", &stick.at("ca"), "--name", "again"])?.code, 69);
    Ok(())
}

#[test]
fn a_host_without_a_key_or_counter_says_so() -> Result<()> {
    let host = Host::new(None)?;
    let stick = Stick::new()?;
    host.tpm.tool("tpm2_nvundefine", &["-C", "o", "0x1500100"])?;
    let said = host.enroll(&["request", "-o", &stick.at("request")])?;
    ensure!(said.code == 0, "{said:?}");
    assert!(said.error.contains("this host has no NV counter"), "{said:?}");
    let asked = stick.enroll(&["challenge", &stick.at("request"), "-o", &stick.at("challenge")], None)?;
    assert!(asked.code == 0 && asked.out.contains("counter  none\n"), "{asked:?}");
    fs::remove_file(host.keys().join("ak.tpm"))?;
    let refused = host.enroll(&["request", "-o", &stick.at("again")])?;
    assert_eq!(refused.code, 69, "{refused:?}");
    // None was made either.
    assert!(!host.keys().join("ak.tpm").exists());
    Ok(())
}

/// A machine vendor that certifies keys of its TPMs: made with OpenSSL, so that another program's certificates are read.
struct MachineVendor(TempDir);

impl MachineVendor {
    const EXTENSIONS: &str =
        "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=2.23.133.8.3\n";

    fn new() -> Result<Self> {
        let vendor = Self(tempfile::tempdir()?);
        vendor.openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "ca.key"])?;
        let request = ["req", "-x509", "-new", "-key", "ca.key", "-subj", "/CN=Machine vendor", "-days", "2"];
        vendor.openssl(&[&request[..], &["-addext", "keyUsage=critical,keyCertSign", "-out", "ca.pem"]].concat())?;
        fs::write(vendor.0.path().join("extensions"), Self::EXTENSIONS)?;
        Ok(vendor)
    }

    fn openssl(&self, arguments: &[&str]) -> Result<()> {
        let output = Command::new("openssl").args(arguments).current_dir(self.0.path()).output().context("openssl")?;
        ensure!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// Leaves an identity key at a handle of a TPM; its certificate and the vendor's, as the machine comes with them.
    fn make_key(&self, tpm: &Swtpm, handle: &str) -> Result<String> {
        let attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|sign";
        let kind = ["-C", "e", "-g", "sha256", "-G", "ecc256:ecdsa-sha256:null", "-a", attributes];
        tpm.tool("tpm2_createprimary", &[&kind[..], &["-c", "iak.context"]].concat())?;
        tpm.tool("tpm2_evictcontrol", &["-C", "o", "-c", "iak.context", handle])?;
        tpm.tool("tpm2_readpublic", &["-c", handle, "-f", "pem", "-o", "iak.public"])?;
        tpm.tool("tpm2_flushcontext", &["-t"])?;
        let key = tpm.directory().join("iak.public").display().to_string();
        let issue = ["x509", "-new", "-force_pubkey", &key, "-subj", "/CN=IAK", "-CA", "ca.pem", "-CAkey", "ca.key"];
        self.openssl(&[&issue[..], &["-days", "2", "-extfile", "extensions", "-out", "iak.pem"]].concat())?;
        let at = |name| fs::read_to_string(self.0.path().join(name));
        Ok(at("iak.pem")? + &at("ca.pem")?)
    }
}

#[test]
fn a_key_that_the_machines_vendor_certified_certifies_the_attestation_key() -> Result<()> {
    let vendor = MachineVendor::new()?;
    let host = Host::new(None)?;
    let certificates = host.state.path().join("iak.pem");
    let at = certificates.display().to_string();
    fs::write(&certificates, vendor.make_key(&host.tpm, "0x81090001")?)?;
    let said = host.enroll(&["identity", &at, "--key", "0x81090001"])?;
    ensure!(said.code == 0, "{said:?}");
    assert_eq!(said.out, "installed: AK certified by the vendor (CN=Machine vendor)\n");
    let kept = installed(&host.keys())?.context("a certificate is installed")?;
    let vouched = host.judge(&kept, RootClass::Vendor, vendor.0.path(), None)?;
    assert_eq!((vouched.by(), vouched.tier(), vouched.tie()), (VouchedBy::Vendor, KeyTier::T3, None));
    // Such a chain is worth nothing under a root that is none of a vendor.
    for class in [RootClass::Site, RootClass::Independent, RootClass::Cloud] {
        let refused = host.judge(&kept, class, vendor.0.path(), None).map_err(|error| error.to_string());
        assert!(refused.as_ref().is_err_and(|error| error.contains("and not to a vendor's")), "{class}: {refused:?}");
    }

    // No key there; a handle of another sort; certificates of another machine's key; and none above the key's own.
    assert_eq!(host.enroll(&["identity", &at, "--key", "0x81090002"])?.code, 77);
    assert_eq!(host.enroll(&["identity", &at, "--key", "0x01500100"])?.code, 64);
    let other = Host::new(None)?;
    vendor.make_key(&other.tpm, "0x81090001")?;
    let refused = other.enroll(&["identity", &at, "--key", "0x81090001"])?;
    assert!(refused.code == 65 && refused.error.contains("not the certifying key's"), "{refused:?}");
    let text = fs::read_to_string(&certificates)?;
    let (own, _vendor) = text.split_at(text.find("-----END CERTIFICATE-----\n").context("a certificate")? + 26);
    fs::write(&certificates, own)?;
    let refused = host.enroll(&["identity", &at, "--key", "0x81090001"])?;
    assert!(refused.code == 65 && refused.error.contains("the certificates are refused"), "{refused:?}");
    // Nothing of that was kept.
    assert_eq!(installed(&host.keys())?, Some(kept));
    assert_eq!(installed(&other.keys())?, None);

    // A file of this form installs as what an authority wrote does, on the host that it is of.
    let file = host.keys().join("ak.certificate").display().to_string();
    assert_eq!(host.enroll(&["install", &file])?.code, 0);
    let refused = other.enroll(&["install", &file])?;
    assert!(refused.code == 65 && refused.error.contains("it certifies another key"), "{refused:?}");
    Ok(())
}
