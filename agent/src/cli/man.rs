//! Completions and manual pages, made from the same definitions as `--help`.

use super::{Exit, Failure, output};
use clap::Command;
use clap_complete::Shell;
use std::path::Path;

const NAME: &str = "merestone";

pub(super) fn completions(shell: Shell, mut command: Command) -> Result<Exit, Failure> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command, NAME, &mut text);
    output::say(String::from_utf8_lossy(&text).trim_end())?;
    Ok(Exit::Yes)
}

pub(super) fn pages(dir: Option<&Path>, command: Command) -> Result<Exit, Failure> {
    let command = command.version(env!("CARGO_PKG_VERSION"));
    let Some(dir) = dir else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page)?;
        output::say(String::from_utf8_lossy(&page).trim_end())?;
        return Ok(Exit::Yes);
    };
    clap_mangen::generate_to(command, dir).map_err(|error| {
        Failure::new(
            Exit::No,
            format!("cannot write to {}: {error}", dir.display()),
        )
        .hint("name an existing directory you may write to")
    })?;
    Ok(Exit::Yes)
}
