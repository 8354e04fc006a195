//! The guest's TPM: swtpm, made once as a vendor makes one, with its certificate, and powered on and off with the guest.
//!
//! The certificate authority is made per run and lives in the run's directory, so its root is known to the test and trusted
//! by nobody else. The TPM keeps its state over the boots of one guest.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use ::tests::until;

use crate::process::{answer, quiet};

/// Where the credential profile of the TCG has the certificate of an endorsement key on P-256 (2.2.1.4, low range).
const P256_INDEX: &str = "0x1c0000a";
/// Where it has the certificates above that of an endorsement key (2.2.1.5.2, the first of them).
const CHAIN_INDEX: &str = "0x1c00100";
/// Where this vendor leaves the machine's identity key: one that signs only what its TPM made (an initial attestation key).
pub(crate) const IDENTITY_HANDLE: &str = "0x81090001";
/// What the certificate of such a key says of it.
const IDENTITY_EXTENSIONS: &str =
    "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=2.23.133.8.3\n";
/// Days that it is valid; a run takes minutes.
const IDENTITY_DAYS: &str = "2";
/// As a platform's manufacturer leaves such an index: everybody may read it, the platform alone may write it.
const P256_ATTRIBUTES: &str = "ppwrite|writedefine|ppread|ownerread|authread|no_da|platformcreate";

/// A certificate authority as a vendor of TPMs has one.
#[derive(Debug)]
pub(crate) struct Vendor {
    directory: PathBuf,
}

/// A TPM that is off.
#[derive(Debug)]
pub(crate) struct Tpm {
    directory: PathBuf,
}

/// A TPM that is on, for one boot. Dropping it cuts its power.
#[derive(Debug)]
pub(crate) struct Powered {
    child: Child,
    socket: PathBuf,
}

impl Vendor {
    /// Writes the authority's configuration; swtpm's tools make its keys when the first certificate is asked for.
    pub(crate) fn create(directory: PathBuf) -> Result<Self> {
        fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
        let place = |name: &str| directory.join(name).display().to_string();
        write(
            &directory.join("localca.conf"),
            &format!(
                "statedir = {}\nsigningkey = {}\nissuercert = {}\ncertserial = {}\n",
                directory.display(),
                place("signkey.pem"),
                place("issuercert.pem"),
                place("certserial")
            ),
        )?;
        let about = "--platform-manufacturer Affiant-Tests\n--platform-version 1.0\n--platform-model Guest\n";
        write(&directory.join("localca.options"), about)?;
        write(
            &directory.join("setup.conf"),
            &format!(
                "create_certs_tool = /usr/bin/swtpm_localca\ncreate_certs_tool_config = {}\n\
                 create_certs_tool_options = {}\nactive_pcr_banks = sha256\n",
                place("localca.conf"),
                place("localca.options")
            ),
        )?;
        Ok(Self { directory })
    }

    /// The root certificate, PEM; there once a TPM was made.
    pub(crate) fn root(&self) -> PathBuf {
        self.directory.join("swtpm-localca-rootca-cert.pem")
    }

    /// The certificate that signs, PEM; there once a TPM was made.
    pub(crate) fn issuer(&self) -> PathBuf {
        self.directory.join("issuercert.pem")
    }

    /// Makes a TPM whose endorsement keys this vendor certifies. The certificates are in its NV memory.
    pub(crate) fn make(&self, directory: PathBuf) -> Result<Tpm> {
        fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
        let mut setup = Command::new("swtpm_setup");
        setup.args(["--tpm2", "--create-ek-cert", "--config"]).arg(self.directory.join("setup.conf"));
        setup.arg("--tpmstate").arg(&directory);
        if crate::setup::is_root() {
            // It would else become a user who cannot write here.
            setup.args(["--runas", "root"]);
        }
        quiet(&mut setup, &[0])?;
        let tpm = Tpm { directory };
        let bench = tpm.bench()?;
        self.certify_p256(&tpm, &bench)?;
        self.identify(&tpm, &bench)?;
        // Else the first boot would be a resume to it.
        quiet(bench.tool("shutdown").arg("-c"), &[0])?;
        Ok(tpm)
    }

    /// Certifies the endorsement key on P-256, the one that the agent uses; swtpm's own tools stop at RSA and P-384.
    fn certify_p256(&self, tpm: &Tpm, bench: &Bench) -> Result<()> {
        let key = tpm.directory.join("ek.context");
        quiet(
            bench.tool("createek").args(["-G", "ecc", "-u"]).arg(tpm.directory.join("ek.public")).arg("-c").arg(&key),
            &[0],
        )?;
        let public = answer(bench.tool("readpublic").arg("-c").arg(&key)).context("the TPM does not show its key")?;
        let (x, y) = point(&public).with_context(|| format!("no point of a curve in {public}"))?;
        let mut certify = Command::new("swtpm_localca");
        certify.args(["--type", "ek", "--tpm2", "--ek", &format!("x={x},y={y},id=secp256r1"), "--dir"]);
        certify.arg(&tpm.directory).arg("--configfile").arg(self.directory.join("localca.conf"));
        certify.arg("--optsfile").arg(self.directory.join("localca.options"));
        certify.args(["--tpm-spec-family", "2.0", "--tpm-spec-level", "0", "--tpm-spec-revision", "164"]);
        certify.args(["--tpm-manufacturer", "id:00001014", "--tpm-model", "swtpm", "--tpm-version", "id:20191023"]);
        quiet(&mut certify, &[0])?;
        let issuer = tpm.directory.join("issuer.cert");
        let mut convert = Command::new("openssl");
        convert.args(["x509", "-outform", "DER", "-in"]).arg(self.issuer()).arg("-out").arg(&issuer);
        quiet(&mut convert, &[0])?;
        for (index, certificate) in [(P256_INDEX, tpm.directory.join("ek.cert")), (CHAIN_INDEX, issuer)] {
            let size = fs::metadata(&certificate).context("no certificate was made")?.len().to_string();
            let mut define = bench.tool("nvdefine");
            define.args([index, "-C", "p", "-s", &size, "-a", P256_ATTRIBUTES]);
            quiet(&mut define, &[0])?;
            let mut store = bench.tool("nvwrite");
            store.args([index, "-C", "p", "-i"]).arg(&certificate);
            quiet(&mut store, &[0])?;
        }
        Ok(())
    }

    /// Makes the machine's identity key and certifies it, as what comes with the machine: [`Tpm::identity`].
    fn identify(&self, tpm: &Tpm, bench: &Bench) -> Result<()> {
        let at = |name: &str| tpm.directory.join(name);
        let attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|sign";
        // Without a resource manager what was made before is still in the few places that a TPM has.
        quiet(bench.tool("flushcontext").arg("-t"), &[0])?;
        let mut make = bench.tool("createprimary");
        make.args(["-C", "e", "-g", "sha256", "-G", "ecc256:ecdsa-sha256:null", "-a", attributes, "-c"]);
        quiet(make.arg(at("identity.context")), &[0])?;
        let mut keep = bench.tool("evictcontrol");
        quiet(keep.args(["-C", "o", "-c"]).arg(at("identity.context")).arg(IDENTITY_HANDLE), &[0])?;
        let mut show = bench.tool("readpublic");
        quiet(show.args(["-c", IDENTITY_HANDLE, "-f", "pem", "-o"]).arg(at("identity.public")), &[0])?;
        write(&at("identity.extensions"), IDENTITY_EXTENSIONS)?;
        let mut certify = Command::new("openssl");
        certify.args(["x509", "-new", "-sha256", "-days", IDENTITY_DAYS, "-subj", "/CN=Affiant tests: a machine"]);
        certify.arg("-force_pubkey").arg(at("identity.public")).arg("-extfile").arg(at("identity.extensions"));
        certify.arg("-CA").arg(self.issuer()).arg("-CAkey").arg(self.directory.join("signkey.pem"));
        quiet(certify.arg("-out").arg(at("identity.own")), &[0])?;
        let read = |path: &Path| fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
        write(&tpm.identity(), &(read(&at("identity.own"))? + &read(&self.issuer())?))
    }
}

/// The coordinates in what `tpm2 readpublic` prints.
fn point(public: &str) -> Option<(&str, &str)> {
    let of = |name: &str| public.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    Some((of("x: ")?, of("y: ")?))
}

/// A TPM on its maker's bench: on, with no machine around it. Dropping it cuts its power.
struct Bench {
    child: Child,
    address: String,
}

impl Bench {
    /// One of tpm2-tools, pointed at it.
    fn tool(&self, name: &str) -> Command {
        let mut command = Command::new("tpm2");
        command.arg(name).env("TPM2TOOLS_TCTI", &self.address);
        command
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // What it was told to keep is on the disk by now.
        let killed = self.child.kill();
        let waited = self.child.wait();
        drop((killed, waited));
    }
}

impl Tpm {
    fn bench(&self) -> Result<Bench> {
        let socket = self.directory.join("bench");
        let control = self.directory.join("bench.ctrl");
        let child = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear", "--tpmstate"])
            .arg(format!("dir={}", self.directory.display()))
            .arg("--server")
            .arg(format!("type=unixio,path={}", socket.display()))
            .arg("--ctrl")
            .arg(format!("type=unixio,path={}", control.display()))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start swtpm")?;
        let bench = Bench { child, address: format!("swtpm:path={}", socket.display()) };
        until("swtpm listens", || Ok((socket.exists() && control.exists()).then_some(())))?;
        Ok(bench)
    }

    /// The identity key's certificate and that of who signed it, PEM, as they come with the machine.
    pub(crate) fn identity(&self) -> PathBuf {
        self.directory.join("identity.pem")
    }

    /// Powers it on.
    pub(crate) fn power(&self) -> Result<Powered> {
        let socket = self.directory.join("socket");
        let log = self.directory.join("log");
        let child = Command::new("swtpm")
            .args(["socket", "--tpm2", "--terminate", "--tpmstate"])
            .arg(format!("dir={}", self.directory.display()))
            .arg("--ctrl")
            .arg(format!("type=unixio,path={}", socket.display()))
            .arg("--log")
            .arg(format!("file={},level=1", log.display()))
            .stdin(Stdio::null())
            .spawn()
            .context("cannot start swtpm")?;
        let powered = Powered { child, socket };
        until("swtpm listens", || Ok(powered.socket.exists().then_some(())))?;
        Ok(powered)
    }
}

impl Powered {
    /// Where the emulated machine finds it.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Waits for the end that follows from the machine's: only then is its state whole on the disk.
    pub(crate) fn off(mut self) -> Result<()> {
        let status = until("swtpm ends with its guest", || self.child.try_wait().context("cannot wait for swtpm"))?;
        ensure!(status.success(), "swtpm: {status}");
        Ok(())
    }
}

impl Drop for Powered {
    fn drop(&mut self) {
        // Ended already, or of a boot that failed; either way nobody is left to tell.
        let killed = self.child.kill();
        let waited = self.child.wait();
        drop((killed, waited, fs::remove_file(&self.socket)));
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_point_is_found_among_the_rest() {
        assert_eq!(point("name: 000b\nx: 0a\ny: 0b\nsym-keybits: 128\n"), Some(("0a", "0b")));
        assert_eq!(point("name: 000b\nx: 0a\n"), None);
    }
}
