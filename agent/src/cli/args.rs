//! The command line: every command, option and its help.
//!
//! Owns the words a user types. clap's own exit code for a mistake (2) is mapped to 64 in
//! [`parse`], because 2 is the verifier's "could not check".
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use agent_evidence::verify::Challenge;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::cli::duration;
use crate::cli::exit::{self, Exit};

/// What the host's AI workloads did, sworn to: kernel events in, signed evidence out.
#[derive(Debug, Parser)]
#[command(name = "affiant", version, arg_required_else_help = true, max_term_width = 100)]
pub struct Arguments {
    /// Configuration file [default: /etc/affiant/affiant.toml, or the built-in defaults without it].
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// State directory, instead of the configured one.
    #[arg(long, global = true, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the agent in the foreground.
    #[command(after_help = "Example:\n  affiant daemon --config /etc/affiant/affiant.toml\n\n\
        SIGTERM drains and seals. Exit: 0; 64 bad configuration; 69 the kernel or a TPM lacks something; \
        70 evidence fault.")]
    Daemon {
        /// Trace more: -v for debug, -vv for everything.
        #[arg(short, long, action = clap::ArgAction::Count)]
        verbose: u8,
    },
    /// Say what this kernel, TPM and container runtime allow.
    #[command(after_help = "Example:\n  affiant doctor --json\n\nExit: 0 usable, 69 not.")]
    Doctor {
        /// Print facts as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Say how the daemon is: tiers, hooks, log, losses, lag per sink.
    #[command(after_help = "Example:\n  affiant status --json | jq .sinks\n\nExit: 0; 69 no daemon.")]
    Status {
        /// Print facts as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Run a command in a session of its own.
    #[command(after_help = "Example:\n  affiant run --task 'nightly scoring' --ttl 2h -- python score.py\n\n\
        Exit: the command's own; 69 no daemon, 77 refused, 127 not found, 126 not executable, \
        128+n ended by signal n, 64 usage.")]
    Run(RunArguments),
    /// List, show and revoke sessions.
    #[command(subcommand)]
    Session(SessionCommand),
    /// Print entries as they are sealed.
    #[command(after_help = "Examples:\n  affiant tail -f\n  affiant tail --kind connect --since 10m\n  \
        affiant tail -o json | jq .body   (the stored bytes, one entry per line)")]
    Tail(TailArguments),
    /// Print what one session did: its process tree and acts, in order.
    #[command(after_help = "Example:\n  affiant timeline 0f3a6c1e2b4d5f60")]
    Timeline(TimelineArguments),
    /// Hand sessions over: one file with all that checking them needs, and nothing of the others.
    #[command(
        after_help = "Examples:\n  affiant bundle 0f3a6c1e2b4d5f60 -o incident.evb --trust auditor.trust.toml\n  \
        affiant-verify incident.evb --trust auditor.trust.toml   (where the file is received)\n\n\
        Exit: 0; 1 what was written has findings; 65 no such session, or a log that cannot be read; 77 refused."
    )]
    Bundle(BundleArguments),
    /// Say which session and identity the kernel gives this process.
    #[command(after_help = "Example:\n  affiant whoami --json\n\nExit: 0 in a session; 1 in none; 69 no daemon.")]
    Whoami {
        /// Print facts as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Verify a log or an evidence bundle (the same as affiant-verify).
    #[command(after_help = "Example:\n  affiant verify /var/lib/affiant/log --trust trust.toml\n\n\
        Exit: 0 every claim the trust file requires is proved; 1 findings; 2 could not check, or no trust file.")]
    Verify(VerifyArguments),
    /// Prove that one entry is in the log, in a file of its own (C2SP tlog-proof).
    #[command(after_help = "Example:\n  affiant prove 1200 -o 1200.tlog-proof --entry-out 1200.json\n  \
        affiant-verify --proof 1200.tlog-proof --entry 1200.json --trust trust.toml\n\n\
        Exit: 0; 64 no such entry yet; 65 the log cannot be used; 69 no log; 77 not allowed.")]
    Prove(ProveArguments),
    /// Have the TPM quote the newest checkpoint now. Root only.
    #[command(after_help = "Examples:\n  affiant anchor --nonce 5f2b9c04a1d3e8f75f2b9c04a1d3e8f7\n  \
        affiant anchor --export /tmp/anchor   (for tpm2_checkquote; says how)\n\n\
        The nonce, 16 to 32 bytes of somebody who wants to know that the answer is fresh, is hashed into what the TPM signs.\n\
        Without one the daemon takes a random one.\n\
        Exit: 0 a checkpoint covers the anchor; 64 a wrong nonce; 69 no daemon, or no TPM that works; 77 not root.")]
    Anchor {
        /// Nonce, as hexadecimal digits.
        #[arg(long, value_name = "HEX")]
        nonce: Option<String>,
        /// Directory for the key, the quote, its signature and the registers, as the TPM's own tools read them.
        #[arg(long, value_name = "DIR")]
        export: Option<PathBuf>,
        /// Print the index and the entry as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Take off this host what the agent keeps outside its state directory: pinned kernel objects, cgroups, the TPM's
    /// counter. Root only.
    ///
    /// The log and its keys stay, and the log says what was removed. A counter goes only if it stands where the log
    /// says. Stop the daemon first; remove the package and the state directory afterwards, if nobody needs the evidence.
    #[command(
        after_help = "Example:\n  systemctl disable --now affiant && affiant uninstall --dry-run && affiant uninstall\n\n\
        Exit: 0; 69 a daemon runs, or something was left, which is named; 65 or 70 the log cannot be read or told; 77 not root."
    )]
    Uninstall {
        /// Only say what would be removed.
        #[arg(long)]
        dry_run: bool,
        /// Print facts as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Run a small witness (C2SP tlog-witness), or exchange files with one.
    #[command(after_help = "Example:\n  affiant witness init --name witness.example/w1 --key w1.key\n  \
        affiant witness --listen 0.0.0.0:7380 --key w1.key --state /var/lib/affiant-witness --log 'VKEY'\n\n\
        --state is what the witness remembers: it must not be lost, rolled back or shared.\n\
        A witness belongs on another machine, under other hands than the logs that it watches.\n\
        Exit: 0; 64 usage; 65 unusable input; 69 a place cannot be used; 70 its memory is damaged; 77 refused to cosign.")]
    Witness(WitnessArguments),
    /// Have an authority vouch for this host's TPM key, by files.
    #[command(
        subcommand,
        after_help = "In this order, with a USB stick between the two machines:\n  \
        affiant enroll request -o /media/usb/request          (on the host)\n  \
        affiant enroll challenge /media/usb/request ...       (where the authority is)\n  \
        affiant enroll respond /media/usb/challenge ...       (on the host)\n  \
        affiant enroll certify /media/usb/request ...         (where the authority is)\n  \
        affiant enroll install /media/usb/certificate         (on the host)\n\n\
        The authority needs no TPM, no daemon and no network; `affiant enroll ca-init` makes a small one.\n\
        Exit: 0; 64 usage; 65 a file that cannot be used; 69 no TPM, or a place cannot be used; 77 refused."
    )]
    Enroll(EnrollCommand),
    /// Write and read trust files.
    #[command(subcommand)]
    Trust(TrustCommand),
    /// Copy the log to another disk, or write out its plain form.
    #[command(subcommand)]
    Log(LogCommand),
    /// Work on configuration files.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print a completion script for a shell.
    #[command(after_help = "Example:\n  affiant completions bash > /etc/bash_completion.d/affiant")]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Joins a session and becomes the command: started by `affiant run`.
    #[command(hide = true)]
    SessionExec {
        /// The control socket.
        #[arg(long)]
        socket: PathBuf,
        /// The command and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
}

/// What `run` takes.
#[derive(Debug, Args)]
pub struct RunArguments {
    /// Identity to run under, as a SPIFFE ID that the configuration allows you.
    #[arg(long, value_name = "URI")]
    pub identity: Option<String>,
    /// What it is for, in your words; recorded as a claim.
    #[arg(long, value_name = "TEXT")]
    pub task: Option<String>,
    /// Longest time the session may last, as 90s, 30m, 1h or 2d.
    #[arg(long, value_name = "TIME", value_parser = duration::parse_ns)]
    pub ttl: Option<u64>,
    /// A label, recorded as a claim; may be given again.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    pub labels: Vec<(String, String)>,
    /// The command and its arguments.
    // A word with a hyphen before the command is a mistyped option, not a command; what follows the command is its own.
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// What `session` does.
#[derive(Debug, Subcommand)]
pub enum SessionCommand {
    /// List the open sessions that you may see.
    #[command(after_help = "Example:\n  affiant session list --all")]
    List {
        /// Those that ended a short while ago, too.
        #[arg(long)]
        all: bool,
        /// Print facts as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show one session.
    #[command(after_help = "Example:\n  affiant session show 0f3a6c1e2b4d5f60")]
    Show {
        /// The session's id.
        id: String,
        /// Print facts as JSON.
        #[arg(long)]
        json: bool,
    },
    /// End a session's credential now.
    #[command(after_help = "Example:\n  affiant session revoke 0f3a6c1e2b4d5f60")]
    Revoke {
        /// The session's id.
        id: String,
    },
}

/// How `tail` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TailOutput {
    /// One readable line per entry.
    Compact,
    /// The stored bytes, one entry per line.
    Json,
}

/// What `tail` takes.
#[derive(Debug, Args)]
pub struct TailArguments {
    /// Go on as entries are sealed; without --since or --session, from the last ten on.
    #[arg(short, long)]
    pub follow: bool,
    /// How to print.
    #[arg(short, long, value_enum, default_value = "compact")]
    pub output: TailOutput,
    /// Only this session's entries, by its id.
    #[arg(long, value_name = "ID")]
    pub session: Option<String>,
    /// Only entries of this kind; may be given again.
    #[arg(long = "kind", value_name = "KIND", value_parser = parse_kind)]
    pub kinds: Vec<agent_evidence::record::Kind>,
    /// Only entries since then: a time ago (10m), a UTC time (2026-11-23T20:00:00Z) or an index (#1200).
    #[arg(long, value_name = "T", value_parser = parse_since)]
    pub since: Option<Since>,
}

/// From where `tail` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// So many nanoseconds ago.
    AgoNs(u64),
    /// A wall time in nanoseconds since 1970.
    WallNs(u64),
    /// An entry.
    Index(u64),
}

/// How `timeline` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TimelineOutput {
    /// For people.
    Text,
    /// The stored bytes of the session's entries and of the losses in its time, one per line.
    Json,
}

/// What `timeline` takes.
#[derive(Debug, Args)]
pub struct TimelineArguments {
    /// The session's id.
    pub session: String,
    /// How to print.
    #[arg(short, long, value_enum, default_value = "text")]
    pub output: TimelineOutput,
    /// Show every act: nothing is folded.
    #[arg(long)]
    pub all: bool,
}

/// What `witness` takes: what to serve, or what else to do.
#[derive(Debug, Args)]
#[command(subcommand_negates_reqs = true)]
pub struct WitnessArguments {
    /// Serve.
    #[command(flatten)]
    pub serve: Option<WitnessServe>,
    /// Something else.
    #[command(subcommand)]
    pub command: Option<WitnessCommand>,
}

/// A witness's places and logs.
#[derive(Debug, Clone, Args)]
pub struct WitnessServe {
    /// Where to listen, without TLS.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7380")]
    pub listen: String,
    /// Its key, as `witness init` made it.
    #[arg(long, value_name = "FILE", required = true)]
    pub key: PathBuf,
    /// The verifier key of a log that it watches (`log_key` in a trust file); may be given again.
    #[arg(long = "log", value_name = "VKEY", required = true)]
    pub logs: Vec<String>,
}

/// What `witness` does besides serving.
#[derive(Debug, Subcommand)]
pub enum WitnessCommand {
    /// Make a witness's key, and print its verifier key.
    #[command(after_help = "Example:\n  affiant witness init --name witness.example/w1 --key w1.key")]
    Init {
        /// Name of the key: best an address without scheme, which nobody else uses.
        #[arg(long)]
        name: String,
        /// The file to write; it must not exist.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
    },
    /// On the log's host: write the request for a witness that is reached by files.
    #[command(after_help = "Example:\n  affiant witness export-request --vkey 'VKEY' -o /media/usb/request")]
    ExportRequest {
        /// The file to write; it must not exist. Without it: standard output.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// The witness's verifier key, to go on from what it cosigned last.
        #[arg(long)]
        vkey: Option<String>,
        /// The size that the witness cosigned last, if it is not the one that is known here.
        #[arg(long, value_name = "SIZE")]
        old: Option<u64>,
    },
    /// On the witness's side: cosign the request in a file.
    #[command(
        after_help = "Example:\n  affiant witness cosign /media/usb/request -o /media/usb/cosigned --key w1.key \\\n    \
        --state /var/lib/affiant-witness --log 'VKEY'"
    )]
    Cosign {
        /// The request.
        file: PathBuf,
        /// The file to write; it must not exist. Without it: standard output.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// The witness.
        #[command(flatten)]
        keeper: WitnessServe,
    },
    /// On the log's host: keep what a witness cosigned.
    #[command(after_help = "Example:\n  affiant witness import /media/usb/cosigned --vkey 'VKEY'")]
    Import {
        /// The cosigned checkpoint.
        file: PathBuf,
        /// The witness's verifier key.
        #[arg(long)]
        vkey: String,
    },
}

/// What `enroll` does.
#[derive(Debug, Subcommand)]
pub enum EnrollCommand {
    /// On the host: ask for a certificate of its attestation key, signed by that key.
    #[command(after_help = "Example:\n  affiant enroll request -o /media/usb/request\n\n\
        The daemon must have run with the TPM; the log is verified first.")]
    Request {
        /// The file to write; it must not exist.
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        /// Where the TPM is.
        #[command(flatten)]
        tpm: EnrollTpm,
    },
    /// Where the authority is: make a challenge that only the TPM of a request can open.
    #[command(after_help = "Example:\n  affiant enroll challenge /media/usb/request --ca /root/ca \\\n    \
        --ek-roots /root/tpm-vendors -o /media/usb/challenge")]
    Challenge {
        /// The request.
        request: PathBuf,
        /// The file to write; it must not exist.
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        /// The authority.
        #[command(flatten)]
        authority: EnrollAuthority,
    },
    /// On the host: have the TPM open a challenge.
    #[command(after_help = "Example:\n  affiant enroll respond /media/usb/challenge -o /media/usb/response")]
    Respond {
        /// The challenge.
        challenge: PathBuf,
        /// The file to write; it must not exist.
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        /// Where the TPM is.
        #[command(flatten)]
        tpm: EnrollTpm,
    },
    /// Where the authority is: issue the certificate, if the challenge was opened.
    #[command(
        after_help = "Example:\n  affiant enroll certify /media/usb/request /media/usb/response --ca /root/ca \\\n    \
        --ek-roots /root/tpm-vendors -o /media/usb/certificate\n\n\
        Refuses (77) when no vendor that --ek-roots names certified the TPM's endorsement key."
    )]
    Certify {
        /// The request.
        request: PathBuf,
        /// The response.
        response: PathBuf,
        /// The file to write; it must not exist.
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        /// The authority.
        #[command(flatten)]
        authority: EnrollAuthority,
        /// Certify the key although no vendor certified the endorsement key: the certificate says so.
        #[arg(long)]
        uncertified_ek: bool,
        /// Days that the certificate is valid.
        #[arg(long, default_value_t = 3650, value_parser = clap::value_parser!(u32).range(1..=36_500))]
        days: u32,
    },
    /// On the host: keep the certificate; the daemon writes it into the log when it starts next.
    #[command(after_help = "Example:\n  affiant enroll install /media/usb/certificate && systemctl restart affiant")]
    Install {
        /// What `certify` wrote.
        certificate: PathBuf,
        /// Where the TPM is.
        #[command(flatten)]
        tpm: EnrollTpm,
    },
    /// On the host: have a key that the machine's vendor certified certify the attestation key, and keep that.
    #[command(
        after_help = "Example:\n  affiant enroll identity iak.pem --key 0x81090001 && systemctl restart affiant\n\n\
        Needs a restricted signing key on P-256 in the TPM (an initial attestation key, IAK), without an authorization\n\
        value. It replaces what `install` kept: one at a time vouches."
    )]
    Identity {
        /// Certificates of that key, PEM: its own, then each one's issuer, up to the vendor's authority.
        certificates: PathBuf,
        /// Where the key is in the TPM: a persistent handle.
        #[arg(long, value_name = "HANDLE", value_parser = persistent)]
        key: u32,
        /// Where the TPM is.
        #[command(flatten)]
        tpm: EnrollTpm,
    },
    /// Make a small authority: a key and its certificate, which trust files name as a root.
    #[command(after_help = "Example:\n  affiant enroll ca-init /root/ca --name 'Example site CA'\n\n\
        Whoever reads ca.key in it can certify any key: keep it on a machine that no network reaches.")]
    CaInit {
        /// The directory to make.
        directory: PathBuf,
        /// Name of the authority, as verdicts will show it.
        #[arg(long)]
        name: String,
        /// Days that its certificate is valid.
        #[arg(long, default_value_t = 7300, value_parser = clap::value_parser!(u32).range(1..=36_500))]
        days: u32,
    },
}

/// Where a host's TPM is.
#[derive(Debug, Args)]
pub struct EnrollTpm {
    /// The TPM, instead of the configured one (`tpm.device`).
    #[arg(long, value_name = "TPM")]
    pub tpm: Option<String>,
    /// Handle of the agent's NV counter, instead of the configured one (`tpm.nv_index`).
    #[arg(long, value_name = "HANDLE", value_parser = handle)]
    pub nv_index: Option<u32>,
    /// The log, instead of the one in the state directory.
    #[arg(long, value_name = "DIR")]
    pub log: Option<PathBuf>,
}

/// An authority's places.
#[derive(Debug, Args)]
pub struct EnrollAuthority {
    /// The authority's directory, as `ca-init` made it.
    #[arg(long, value_name = "DIR")]
    pub ca: PathBuf,
    /// A directory with the root certificates of TPM vendors, PEM or DER: whom you believe that a TPM is one.
    #[arg(long, value_name = "DIR")]
    pub ek_roots: Option<PathBuf>,
    /// Print facts as JSON.
    #[arg(long)]
    pub json: bool,
}

/// A handle of an NV index, in hexadecimal.
fn handle(text: &str) -> Result<u32, String> {
    let handle = hexadecimal(text)?;
    if handle >> 24 == 1 { Ok(handle) } else { Err("expected a handle of an NV index: 0x01......".to_owned()) }
}

/// A handle of a persistent object, in hexadecimal.
fn persistent(text: &str) -> Result<u32, String> {
    let handle = hexadecimal(text)?;
    if handle >> 24 == 0x81 { Ok(handle) } else { Err("expected a persistent handle: 0x81......".to_owned()) }
}

fn hexadecimal(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("0x").ok_or("expected 0x and hexadecimal digits")?;
    u32::from_str_radix(digits, 16).map_err(|error| error.to_string())
}

/// What `prove` takes.
#[derive(Debug, Args)]
pub struct ProveArguments {
    /// Index of the entry.
    pub index: u64,
    /// The file to write the proof to; it must not exist. Without it: standard output.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// A file to write the entry's bytes to, which the proof does not hold; it must not exist.
    #[arg(long, value_name = "FILE")]
    pub entry_out: Option<PathBuf>,
    /// Under the newest checkpoint that a witness cosigned, instead of the newest of all.
    #[arg(long)]
    pub witnessed: bool,
}

/// What `bundle` takes.
#[derive(Debug, Args)]
pub struct BundleArguments {
    /// The sessions' ids.
    #[arg(required = true, value_name = "SESSION")]
    pub sessions: Vec<String>,
    /// The file to write; it must not exist.
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Show that the log continues the heads that this trust file remembers: the receiver's.
    #[arg(long, value_name = "FILE")]
    pub trust: Option<PathBuf>,
    /// Show that the log continues its head at this size; may be given again.
    #[arg(long = "head", value_name = "SIZE")]
    pub heads: Vec<u64>,
    /// Under the newest checkpoint that a witness cosigned, instead of the newest of all.
    #[arg(long)]
    pub witnessed: bool,
    /// The log directory [default: the configured one].
    #[arg(long, value_name = "DIR")]
    pub log: Option<PathBuf>,
}

/// What `verify` takes.
#[derive(Debug, Args)]
pub struct VerifyArguments {
    /// The log directory, or an evidence bundle [default: the configured log].
    pub path: Option<PathBuf>,
    /// Verify one entry by this proof (see `affiant prove`) instead of a whole log.
    #[arg(long, value_name = "FILE", requires = "entry", conflicts_with_all = ["path", "strict", "json"])]
    pub proof: Option<PathBuf>,
    /// The bytes of that entry.
    #[arg(long, value_name = "FILE", requires = "proof")]
    pub entry: Option<PathBuf>,
    /// The trust file.
    #[arg(long, value_name = "FILE")]
    pub trust: Option<PathBuf>,
    /// Take accounted losses, and contents beside the log that are not there, for findings.
    #[arg(long)]
    pub strict: bool,
    /// A value that an anchor of the log must carry: 32 to 64 hexadecimal digits, picked at random by you, handed to the host
    /// (`affiant anchor --nonce`) and answered by its TPM. That it is not answered is a finding.
    #[arg(long, value_name = "HEX", conflicts_with_all = ["proof", "live"])]
    pub live_challenge: Option<Challenge>,
    /// Pick such a value, ask the daemon of this host to answer it now, and verify with it.
    #[arg(long, conflicts_with = "proof")]
    pub live: bool,
    /// How many threads hash and decode [default: one for each processor].
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    /// Most that is taken from a web server in all, in MiB [default: 64 GiB].
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 40))]
    pub max_download_mib: Option<u64>,
    /// Print the verdict as JSON.
    #[arg(long)]
    pub json: bool,
}

/// What `trust` does.
#[derive(Debug, Subcommand)]
pub enum TrustCommand {
    /// Write a trust file that pins a log as it is now.
    #[command(after_help = "Example:\n  affiant trust init -o /media/auditor/trust.toml\n\n\
        Do it before anything happens, and keep the file where whoever could change the log cannot.")]
    Init {
        /// The file to write; it must not exist. Without it: standard output.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// The witnesses to believe, as a C2SP tlog-policy; what they can prove is then required.
        #[arg(long, value_name = "FILE")]
        witness_policy: Option<PathBuf>,
        /// The log directory [default: the configured one].
        #[arg(long, value_name = "DIR")]
        log: Option<PathBuf>,
    },
    /// Show a trust file.
    #[command(after_help = "Example:\n  affiant trust show trust.toml")]
    Show {
        /// The trust file.
        file: PathBuf,
        /// Print facts as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Remember the log's head as it is now, or a head that was seen elsewhere.
    #[command(after_help = "Example:\n  affiant trust add-head trust.toml\n  \
        affiant trust add-head trust.toml --checkpoint yesterday.checkpoint --log /mnt/log")]
    AddHead {
        /// The trust file; it is replaced as a whole.
        file: PathBuf,
        /// The log directory, which must agree with the file [default: the configured one, without --checkpoint].
        #[arg(long, value_name = "DIR")]
        log: Option<PathBuf>,
        /// A checkpoint that was seen: the log key must have signed it, and a log that is given must continue it.
        #[arg(long, value_name = "FILE")]
        checkpoint: Option<PathBuf>,
        /// Print facts as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Believe an authority that certifies attestation or endorsement keys.
    #[command(after_help = "Example:\n  affiant trust add-root trust.toml --as site ca.pem --minimum-tier T1\n\n\
        As independent only an authority that does not depend on whoever runs the hosts: its word is worth more.")]
    AddRoot {
        /// The trust file; it is replaced as a whole.
        file: PathBuf,
        /// The authority's certificate, in PEM; a file may hold several.
        #[arg(value_name = "PEM")]
        certificate: PathBuf,
        /// What it is believed as.
        #[arg(long = "as", value_name = "CLASS")]
        class: RootAs,
        /// Require this tier of the log from now on.
        #[arg(long, value_name = "TIER", value_parser = ["T0", "T1", "T2", "T3"])]
        minimum_tier: Option<String>,
    },
}

/// What an authority is believed as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RootAs {
    /// The site's own: its word is worth T1.
    Site,
    /// One that does not depend on the operator: T3, for keys of TPMs that a vendor certified.
    Independent,
    /// A cloud provider's: T2.
    Cloud,
    /// A vendor's, of identity keys of machines: T3.
    Vendor,
    /// A vendor's of TPMs, which certifies endorsement keys.
    Endorsement,
}

/// What `log` does.
#[derive(Debug, Subcommand)]
pub enum LogCommand {
    /// Erase the text behind a commitment, for good. Root only.
    ///
    /// Which values are committed is configuration (`privacy.commit`). The log gets an entry that says what was erased, by whom
    /// and why; what was signed stays provable.
    #[command(
        after_help = "Example:\n  affiant log erase 1042 exec.argv.3 --reason 'request 17 of the data protection officer'\n\n\
        Exit: 0 erased; 64 no such committed value; 69 no daemon; 77 not root, or the session is under hold."
    )]
    Erase {
        /// Index of the entry.
        index: u64,
        /// The value's field: kind, members and positions.
        field: String,
        /// Why; recorded.
        #[arg(long)]
        reason: String,
    },
    /// Copy the log into a directory, on a disk that leaves the host, or go on with a copy that is there.
    ///
    /// What is copied is made durable, read back, and must have the root that the checkpoint states. The daemon may run.
    #[command(
        after_help = "Example:\n  affiant log export /media/usb/host-a && affiant-verify /media/usb/host-a --trust trust.toml\n\n\
        Exit: 0; 65 the log or the copy is damaged, or the copy is of another log; 70 the disk failed."
    )]
    Export {
        /// The directory; it is made if its parent exists.
        to: PathBuf,
        /// Write packed segments out as plain C2SP bundles and tiles.
        #[arg(long)]
        plain: bool,
        /// The log directory [default: the configured one].
        #[arg(long, value_name = "DIR")]
        log: Option<PathBuf>,
        /// Print facts as JSON.
        #[arg(long)]
        json: bool,
    },
    /// End the log: it is sealed and put aside, and the next start of the daemon begins a successor that names its head.
    #[command(after_help = "Example:\n  systemctl stop affiant && affiant log freeze && systemctl start affiant\n\n\
        Exit: 0; 69 a daemon is running, or there is no log; 70 the log contradicts itself.")]
    Freeze {},
    /// Exempt sessions from pruning and erasure.
    #[command(subcommand)]
    Hold(HoldCommand),
    /// Remove the entries of long ago, for good. Root only.
    ///
    /// The control chain, sessions' beginnings and ends, what names workloads and processes, and every entry of a
    /// session that is held or open stay, with what proves them; so does every proof that was made. The log gets an
    /// entry that says what went, by whom and why.
    #[command(
        after_help = "Example:\n  affiant log prune --before 90d --dry-run\n  affiant log prune --before 2026-01-01 --reason 'policy 4.2'\n\n\
        Exit: 0; 64 nothing could go; 69 no daemon; 77 not root."
    )]
    Prune {
        /// Entries before this one go, rounded down to what can: an index (1042 or #1042), a time (2026-01-01,
        /// 2026-01-01T12:00:00Z), or how long ago (90d). A time is looked up as the entries state it.
        #[arg(long, value_name = "INDEX|TIME", value_parser = parse_before)]
        before: Since,
        /// Why; recorded.
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
        /// Only say what would go and what would stay.
        #[arg(long)]
        dry_run: bool,
        /// Print facts as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Write the log out as a plain C2SP tiles directory, for readers that do not know packed segments.
    #[command(after_help = "Example:\n  affiant log unpack -o /srv/www/log")]
    Unpack {
        /// The directory; it is made if its parent exists. A plain copy that is there is gone on with.
        #[arg(short, long, value_name = "DIR")]
        output: PathBuf,
        /// The log directory [default: the configured one].
        #[arg(long, value_name = "DIR")]
        log: Option<PathBuf>,
    },
}

/// What `log hold` does.
#[derive(Debug, Subcommand)]
pub enum HoldCommand {
    /// Keep a session's entries, whatever retention says, from here on.
    #[command(after_help = "Example:\n  affiant log hold add 0f3a6c1e2b4d5f60 --reason 'case 2026-117'\n\n\
        Exit: 0; 65 no such session; 69 no daemon; 77 not root.")]
    Add {
        /// The session, also one that has ended.
        session: String,
        /// Why; recorded.
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// Let retention have its way with a session again.
    #[command(after_help = "Example:\n  affiant log hold remove 0f3a6c1e2b4d5f60 --reason 'case closed'")]
    Remove {
        /// The session.
        session: String,
        /// Why; recorded.
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// List the sessions that are held.
    #[command(after_help = "Example:\n  affiant log hold list --json")]
    List {
        /// Print facts as JSON.
        #[arg(long)]
        json: bool,
    },
}

/// What `config` does.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Validate a file and print the effective configuration.
    #[command(
        after_help = "Example:\n  affiant config check /etc/affiant/affiant.toml\n\nExit: 0; 64 with key and line."
    )]
    Check {
        /// The file.
        file: PathBuf,
        /// Print facts as JSON.
        #[arg(long)]
        json: bool,
    },
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not a label; expected KEY=VALUE")),
    }
}

fn parse_kind(text: &str) -> Result<agent_evidence::record::Kind, String> {
    use agent_evidence::record::Kind;
    Kind::ALL.iter().copied().find(|kind| kind.as_str() == text).ok_or_else(|| {
        let known: Vec<&str> = Kind::ALL.iter().map(|kind| kind.as_str()).collect();
        format!("no kind {text:?}; known are {}", known.join(", "))
    })
}

/// As `--since`, and an index may stand without its mark.
fn parse_before(text: &str) -> Result<Since, String> {
    text.parse().map(Since::Index).or_else(|_not_an_index| parse_since(text))
}

fn parse_since(text: &str) -> Result<Since, String> {
    if let Some(index) = text.strip_prefix('#') {
        return index
            .parse()
            .map(Since::Index)
            .map_err(|_not_a_number| format!("{text:?} is not an index; expected #1200"));
    }
    if let Some(wall_ns) = crate::cli::clock::parse_utc(text) {
        return Ok(Since::WallNs(wall_ns));
    }
    duration::parse_ns(text).map(Since::AgoNs).map_err(|_not_a_length| {
        format!(
            "{text:?} is not a time; expected a time ago (10m), a UTC time (2026-11-23T20:00:00Z) or an index (#1200)"
        )
    })
}

/// Parses the command line.
///
/// # Errors
/// A mistake, with code 64. Help and version are printed and end with code 0.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Arguments, Exit> {
    Arguments::try_parse_from(arguments).map_err(|error| {
        if error.use_stderr() {
            let rendered = error.render().to_string();
            let message = rendered.trim_end().trim_start_matches("error: ").to_owned();
            Exit::new(exit::USAGE, message)
        } else {
            let mut out = crate::cli::output::Output::open();
            match out.bytes(error.render().to_string().as_bytes()).and_then(|()| out.flush()) {
                Ok(()) => Exit { code: 0, message: None },
                Err(exit) => exit,
            }
        }
    })
}

/// The command line as clap knows it, for completions.
#[must_use]
pub fn command() -> clap::Command {
    Arguments::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Arguments, Exit> {
        parse(line.split(' ').map(OsString::from))
    }

    #[test]
    fn the_definition_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn every_command_has_help_with_an_example() {
        let mut pending = vec![command()];
        while let Some(command) = pending.pop() {
            let subcommands: Vec<clap::Command> = command.get_subcommands().cloned().collect();
            if subcommands.is_empty() && !command.is_hide_set() {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("Example"), "{} has no example", command.get_name());
            }
            pending.extend(subcommands);
        }
    }

    #[test]
    fn mistakes_end_with_64() {
        for line in ["affiant nonsense", "affiant run --ttl soon -- x", "affiant run", "affiant tail --kind nothing"] {
            assert_eq!(parsed(line).err().map(|exit| exit.code), Some(64), "{line}");
        }
    }

    #[test]
    fn the_commands_own_options_stay_its_own() {
        let Command::Run(run) = parsed("affiant run --task x ls -l --config y").unwrap().command else { panic!() };
        assert_eq!(run.command, ["ls", "-l", "--config", "y"]);
        let Command::Run(run) = parsed("affiant run -- --odd").unwrap().command else { panic!() };
        assert_eq!(run.command, ["--odd"]);
    }

    #[test]
    fn global_options_may_stand_after_the_command() {
        let parsed = parsed("affiant trust --config /c init -o /t").unwrap();
        assert_eq!(parsed.config, Some("/c".into()));
    }

    #[test]
    fn since_is_a_time_ago_a_time_or_an_index() {
        assert_eq!(parse_since("10m"), Ok(Since::AgoNs(600_000_000_000)));
        assert_eq!(parse_since("#7"), Ok(Since::Index(7)));
        assert_eq!(parse_before("7"), Ok(Since::Index(7)));
        assert_eq!(parse_before("10m"), parse_since("10m"));
        assert_eq!(parse_since("1970-01-01T00:00:01Z"), Ok(Since::WallNs(1_000_000_000)));
        assert!(parse_since("yesterday").unwrap_err().contains("expected a time ago"));
    }
}
