//! The `affiant` command: the command line in, an exit code out.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use agent::cli;
use agent::cli::args::{
    self, Arguments, Command, ConfigCommand, EnrollCommand, EnrollTpm, HoldCommand, LogCommand, SessionCommand,
    TrustCommand, WitnessArguments, WitnessCommand,
};
use agent::cli::exit::{self, Exit};
use agent::cli::output::{Output, complain};
use agent::cli::{
    anchor, bundle, config, doctor, enroll, erase, prove, prune, run, session, status, tail, timeline, trust,
    uninstall, verify, witness,
};
use agent::config::Config;
use agent::export::sealed::SealedLog;
use agent::log::copy::Form;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let outcome = args::parse(std::env::args_os()).and_then(command);
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(Exit { code, message }) => {
            if let Some(message) = message {
                complain(&message);
            }
            ExitCode::from(code)
        }
    }
}

fn command(arguments: Arguments) -> Result<u8, Exit> {
    let Arguments { config: file, state, command } = arguments;
    // These need no configuration, and must work where it is broken.
    match command {
        Command::SessionExec { socket, command } => return Err(run::session_exec(&socket, &command)),
        Command::Completions { shell } => return completions(shell),
        Command::Doctor { json } => {
            let settings = Config::load_or_default(file.as_deref()).unwrap_or_else(|error| {
                complain(&format!("{error}; the TPM is looked for where it usually is"));
                Config::default()
            });
            return printed(|out| doctor::doctor(&settings.tpm, settings.capture.tier, json, out));
        }
        Command::Config(ConfigCommand::Check { file, json }) => {
            return printed(|out| config::check(&file, json, out));
        }
        Command::Witness(WitnessArguments { serve: Some(serve), command: None }) => {
            return witness::serve(&serve, state.as_deref());
        }
        // On a witness's machine there is no agent, and no log.
        Command::Witness(WitnessArguments {
            command: Some(command @ (WitnessCommand::Init { .. } | WitnessCommand::Cosign { .. })),
            ..
        }) => return printed(|out| witness::witness(Path::new(""), state.as_deref(), None, &command, out)),
        // An authority's machine has no agent either.
        Command::Enroll(EnrollCommand::CaInit { directory, name, days }) => {
            return printed(|out| enroll::ca_init(&directory, &name, days, out));
        }
        Command::Enroll(EnrollCommand::Challenge { request, output, authority }) => {
            return printed(|out| enroll::challenge(&request, &output, &authority, out));
        }
        Command::Enroll(EnrollCommand::Certify { request, response, output, authority, uncertified_ek, days }) => {
            let wish = enroll::Issue { uncertified_ek, days };
            return printed(|out| enroll::certify(&request, &response, &output, &authority, wish, out));
        }
        Command::Trust(TrustCommand::Show { file, json }) => return printed(|out| trust::show(&file, json, out)),
        Command::Trust(TrustCommand::AddRoot { file, certificate, class, minimum_tier }) => {
            let tier = minimum_tier.as_deref().and_then(agent_evidence::record::KeyTier::parse);
            return printed(|out| trust::add_root(&file, &certificate, class, tier, out));
        }
        _ => {}
    }
    let mut settings = Config::load_or_default(file.as_deref())?;
    if let Some(state) = state {
        let state = std::path::absolute(&state)
            .map_err(|error| Exit::new(exit::USAGE, format!("--state {}: {error}", state.display())))?;
        settings = settings.with_state(state)?;
    }
    let socket = settings.paths.control_socket();
    let log_directory = settings.paths.log();
    let log = |chosen: Option<PathBuf>| chosen.unwrap_or_else(|| log_directory.clone());
    match command {
        Command::Daemon { verbose } => daemon(settings, verbose),
        Command::Run(wish) => run::run(run::Wish {
            socket,
            identity: wish.identity,
            task: wish.task,
            ttl_ns: wish.ttl,
            labels: wish.labels,
            command: wish.command,
        }),
        Command::Status { json } => printed(|out| status::status(&socket, json, out)),
        Command::Whoami { json } => printed(|out| session::whoami(&socket, json, out)),
        Command::Session(SessionCommand::List { all, json }) => printed(|out| session::list(&socket, all, json, out)),
        Command::Session(SessionCommand::Show { id, json }) => printed(|out| session::show(&socket, &id, json, out)),
        Command::Session(SessionCommand::Revoke { id }) => printed(|out| session::revoke(&socket, &id, out)),
        Command::Tail(wish) => printed(|out| tail::tail(&SealedLog::new(log_directory.clone()), &wish, out)),
        Command::Timeline(wish) => {
            printed(|out| timeline::timeline(&SealedLog::new(log_directory.clone()), &wish, out))
        }
        Command::Bundle(mut wish) => {
            let directory = log(wish.log.take());
            printed(|out| bundle::bundle(&directory, &wish, out))
        }
        Command::Verify(mut wish) => {
            let directory = log(wish.path.take());
            printed(|out| verify::verify(&directory, &socket, &wish, out))
        }
        Command::Witness(WitnessArguments { command: Some(command), .. }) => {
            printed(|out| witness::witness(&log_directory, None, Some(&socket), &command, out))
        }
        Command::Anchor { nonce, export, json } => {
            printed(|out| anchor::anchor(&socket, nonce, export.as_deref(), json, out))
        }
        Command::Enroll(EnrollCommand::Request { output, mut tpm }) => {
            let directory = log(tpm.log.take());
            printed(|out| enroll::request(&tpm_here(&settings, tpm), &directory, &output, out))
        }
        Command::Enroll(EnrollCommand::Respond { challenge, output, tpm }) => {
            printed(|out| enroll::respond(&tpm_here(&settings, tpm), &challenge, &output, out))
        }
        Command::Enroll(EnrollCommand::Install { certificate, mut tpm }) => {
            let directory = log(tpm.log.take());
            printed(|out| enroll::install(&tpm_here(&settings, tpm), &directory, &certificate, out))
        }
        Command::Uninstall { dry_run, json } => printed(|out| uninstall::uninstall(&settings, dry_run, json, out)),
        Command::Enroll(EnrollCommand::Identity { certificates, key, mut tpm }) => {
            let directory = log(tpm.log.take());
            printed(|out| enroll::identity(&tpm_here(&settings, tpm), &directory, key, &certificates, out))
        }
        Command::Prove(wish) => printed(|out| prove::prove(&log_directory, &wish, out)),
        Command::Trust(TrustCommand::Init { output, witness_policy, log: directory }) => {
            printed(|out| trust::init(&log(directory), output.as_deref(), witness_policy.as_deref(), out))
        }
        Command::Trust(TrustCommand::AddHead { file, log: directory, checkpoint, json }) => {
            let directory = (directory.is_some() || checkpoint.is_none()).then(|| log(directory));
            printed(|out| trust::add_head(&file, directory.as_deref(), checkpoint.as_deref(), json, out))
        }
        Command::Log(LogCommand::Export { to, plain, log: directory, json }) => {
            let form = if plain { Form::Plain } else { Form::AsStored };
            printed(|out| cli::log::export(&log(directory), &to, form, json, out))
        }
        Command::Log(LogCommand::Hold(wish)) => {
            let log = SealedLog::new(log_directory.clone());
            match wish {
                HoldCommand::Add { session, reason } => {
                    printed(|out| cli::log::hold(&log, &socket, &session, true, reason, out))
                }
                HoldCommand::Remove { session, reason } => {
                    printed(|out| cli::log::hold(&log, &socket, &session, false, reason, out))
                }
                HoldCommand::List { json } => printed(|out| cli::log::held(&log, json, out)),
            }
        }
        Command::Log(LogCommand::Prune { before, reason, dry_run, json }) => {
            let wish = prune::Wish { before, reason, dry_run, json };
            printed(|out| prune::prune(&SealedLog::new(log_directory.clone()), &socket, wish, out))
        }
        Command::Log(LogCommand::Freeze {}) => printed(|out| cli::log::freeze(&settings, out)),
        Command::Log(LogCommand::Unpack { output, log: directory }) => {
            printed(|out| cli::log::export(&log(directory), &output, Form::Plain, false, out))
        }
        Command::Witness(WitnessArguments { command: None, .. }) => {
            Err(Exit::new(exit::USAGE, "witness: expected --key, --state and --log, or a command"))
        }
        Command::Log(LogCommand::Erase { index, field, reason }) => {
            printed(|out| erase::erase(&socket, index, &field, &reason, out))
        }
        Command::SessionExec { .. }
        | Command::Completions { .. }
        | Command::Doctor { .. }
        | Command::Config(_)
        | Command::Enroll(
            EnrollCommand::CaInit { .. } | EnrollCommand::Challenge { .. } | EnrollCommand::Certify { .. },
        )
        | Command::Trust(TrustCommand::Show { .. } | TrustCommand::AddRoot { .. }) => {
            Err(Exit::new(exit::SOFTWARE, "a command was dispatched twice"))
        }
    }
}

/// The TPM that the command line names, or the configured one.
fn tpm_here(settings: &Config, named: EnrollTpm) -> enroll::Tpm {
    enroll::Tpm {
        device: named.tpm.unwrap_or_else(|| settings.tpm.device.clone()),
        nv_index: named.nv_index.unwrap_or(settings.tpm.nv_index),
        keys: settings.paths.keys(),
    }
}

/// Runs a command that prints, and makes what it printed visible also when it fails.
fn printed(command: impl FnOnce(&mut Output) -> Result<u8, Exit>) -> Result<u8, Exit> {
    let mut out = Output::open();
    let outcome = command(&mut out);
    let flushed = out.flush();
    let code = outcome?;
    flushed?;
    Ok(code)
}

fn daemon(settings: Config, verbose: u8) -> Result<u8, Exit> {
    let filter = match verbose {
        0 => "info",
        1 => "info,agent=debug",
        _ => "trace",
    };
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Exit::new(exit::UNAVAILABLE, format!("cannot start the runtime: {error}")))?;
    runtime.block_on(agent::app::run_daemon(settings)).map_err(|error| Exit::in_full(error.exit_code(), &error))?;
    Ok(0)
}

fn completions(shell: clap_complete::Shell) -> Result<u8, Exit> {
    let mut script = Vec::new();
    let mut command = args::command();
    clap_complete::generate(shell, &mut command, "affiant", &mut script);
    printed(|out| out.bytes(&script).map(|()| 0))
}
