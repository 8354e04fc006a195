//! `affiant-verify`: checks a log or an evidence bundle offline against a trust file and prints the verdict.

#![forbid(unsafe_code)]

use std::io::{self, Write as _};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use agent_evidence::command::{COULD_NOT_CHECK, Reading, verify_path_with, verify_proof};
use agent_evidence::verify::{Challenge, Options};
use clap::Parser;

/// Verifies an Affiant log or evidence bundle, offline or from a web server, which need not be trusted.
///
/// Exit codes: 0 every claim that the trust file requires is proved; 1 findings; 2 could not check, or no trust file
/// (self-consistent, signer not established).
#[derive(Parser)]
#[command(
    name = "affiant-verify",
    version,
    after_help = "Example:\n  affiant-verify /var/lib/affiant/log --trust host.trust.toml\n  affiant-verify incident.evb --trust host.trust.toml\n  affiant-verify https://logs.example/host/ --trust host.trust.toml"
)]
struct Arguments {
    /// The log's directory, with `checkpoint` and `tile/`; or an evidence bundle; or the address of either on a web server.
    #[arg(required_unless_present = "proof")]
    path: Option<PathBuf>,
    /// Verify one entry by this proof (C2SP tlog-proof) instead of a whole log.
    #[arg(long, value_name = "FILE", requires = "entry", conflicts_with_all = ["path", "strict", "json"])]
    proof: Option<PathBuf>,
    /// The bytes of that entry.
    #[arg(long, value_name = "FILE", requires = "proof")]
    entry: Option<PathBuf>,
    /// What is known of the log from elsewhere.
    #[arg(long, value_name = "FILE")]
    trust: Option<PathBuf>,
    /// Losses that the kernel side counted, and contents beside the log that are not there, are findings too.
    #[arg(long)]
    strict: bool,
    /// A value that an anchor of the log must carry, as 32 to 64 hexadecimal digits: picked at random by you, handed to the host
    /// (`affiant anchor --nonce`), and answered by its TPM. That it is not answered is a finding.
    #[arg(long, value_name = "HEX", conflicts_with = "proof")]
    live_challenge: Option<Challenge>,
    /// How many threads hash and decode; the report is the same. By default as many as there are processors.
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// Most that is taken from a web server in all, in MiB. By default 64 GiB.
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 40))]
    max_download_mib: Option<u64>,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Usage text goes where clap sends it; a reader that has gone away is not an error of ours.
            let _printed = error.print();
            return if error.use_stderr() { ExitCode::from(COULD_NOT_CHECK) } else { ExitCode::SUCCESS };
        }
    };
    let options = Options { strict: arguments.strict, challenge: arguments.live_challenge };
    let trust = arguments.trust.as_deref();
    let reading = Reading {
        threads: arguments.threads,
        download_bytes_max: arguments.max_download_mib.map(|mebibytes| mebibytes << 20),
    };
    let outcome = match (&arguments.proof, &arguments.entry) {
        (Some(proof), Some(entry)) => verify_proof(proof, entry, trust),
        _ => verify_path_with(&arguments.path.unwrap_or_default(), trust, options, reading).map(|report| {
            let text = if arguments.json { report.to_json() } else { report.to_string() };
            (text, report.verdict.exit_code())
        }),
    };
    let (text, code) = match outcome {
        Ok(outcome) => outcome,
        Err(error) => {
            let _printed = writeln!(io::stderr(), "affiant-verify: {}", error.in_full());
            return ExitCode::from(COULD_NOT_CHECK);
        }
    };
    if let Err(error) = io::stdout().write_all(text.as_bytes()) {
        // A verdict that nobody could read is no verdict.
        let _printed = writeln!(io::stderr(), "affiant-verify: cannot print the report: {error}");
        return ExitCode::from(COULD_NOT_CHECK);
    }
    ExitCode::from(code)
}
