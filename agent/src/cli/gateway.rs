//! `merestone gateway`: a reverse proxy that gives a receipt for each answer.

use super::{Exit, Failure, Globals};
use crate::config::{Config, DEFAULT_PATH, Override};
use crate::gateway::{self, Options};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Every answer carries the header Merestone-Receipt with an id; the receipt, and the salt of its
digests, are at /.well-known/merestone/receipts/ID. The gateway must be in the server's cgroup:
give the server's command line after --, and both are one service.

Example:
  merestone gateway --listen 127.0.0.1:8000 --to http://127.0.0.1:8001 -- \\
    vllm serve /srv/models/llama --host 127.0.0.1 --port 8001

Exit status:
  0  stopped    1  it cannot serve    2  usage")]
pub(super) struct Args {
    /// Where clients connect [default: 127.0.0.1:8000]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,

    /// The inference server, plain HTTP [default: port 8001 of this host]
    #[arg(long, value_name = "URL")]
    to: Option<String>,

    /// The agent's records socket [default: /run/merestone/records.sock]
    #[arg(long, value_name = "PATH")]
    records: Option<PathBuf>,

    /// Refuse a request (503) for which there can be no receipt
    #[arg(long)]
    require_receipts: bool,

    /// A directory or file of weights, instead of what the server is seen to open
    #[arg(long, value_name = "PATH", num_args = 1..)]
    model_files: Vec<PathBuf>,

    /// Answer /metrics, /-/healthy and /-/ready here [default: nowhere]
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics: Option<String>,

    /// How long the server may be silent before its answer begins [default: 10m]
    #[arg(long, value_name = "DURATION")]
    timeout: Option<String>,

    /// How long receipts are kept for their clients [default: 1h]
    #[arg(long, value_name = "DURATION")]
    keep: Option<String>,

    /// The server's command line, to start it as part of this service
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl Args {
    /// The flags as overrides, so that they pass the same checks as the file.
    fn overrides(&self) -> Vec<Override> {
        let Self {
            listen,
            to,
            records,
            require_receipts,
            model_files,
            metrics,
            timeout,
            keep,
            command: _,
        } = self;
        let path = |path: &PathBuf| path.to_string_lossy().into_owned();
        let files: Vec<String> = model_files.iter().map(path).collect();
        [
            ("gateway.listen", "--listen", listen.clone()),
            ("gateway.to", "--to", to.clone()),
            ("records.socket", "--records", records.as_ref().map(path)),
            (
                "gateway.require_receipts",
                "--require-receipts",
                require_receipts.then(|| "true".to_owned()),
            ),
            (
                "gateway.model_files",
                "--model-files",
                (!files.is_empty()).then(|| files.join(",")),
            ),
            ("gateway.metrics", "--metrics", metrics.clone()),
            ("gateway.timeout", "--timeout", timeout.clone()),
            ("gateway.keep", "--keep", keep.clone()),
        ]
        .into_iter()
        .filter_map(|(key, flag, value)| {
            Some(Override {
                key: key.to_owned(),
                value: value?,
                flag: flag.to_owned(),
            })
        })
        .collect()
    }
}

pub(super) fn execute(globals: &Globals, args: Args) -> Result<Exit, Failure> {
    let mut globals = globals.clone();
    globals.set.extend(args.overrides());
    let config = load(&globals)?;
    super::run::log();
    for note in &config.notes {
        tracing::warn!("{note}");
    }
    let Some(records) = config.records.socket else {
        return Err(Failure::new(
            Exit::No,
            "`records.socket` is empty: no receipt could be had",
        )
        .hint("name the agent's records socket with --records"));
    };
    let outcome = gateway::run(Options {
        listen: config.gateway.listen,
        to: config.gateway.to,
        records,
        require_receipts: config.gateway.require_receipts,
        model_files: config.gateway.model_files,
        metrics: config.gateway.metrics,
        timeout: config.gateway.timeout,
        keep: config.gateway.keep,
        leave_out: config.records.leave_out,
        command: args.command,
    });
    match outcome {
        Ok(()) => Ok(Exit::Yes),
        Err(error) => Err(Failure::of(&error)),
    }
}

/// The configuration; without a file where none is named and the agent's own
/// is not there, as in a container beside the server.
fn load(globals: &Globals) -> Result<Config, Failure> {
    let default = Path::new(DEFAULT_PATH);
    if globals.config.is_some() || default.exists() {
        return globals.load();
    }
    let none = Vec::new();
    Ok(Config::parse(
        default,
        none,
        std::env::vars_os(),
        &globals.set,
    )?)
}
