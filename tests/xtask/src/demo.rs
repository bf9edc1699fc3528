//! `cargo xtask demo`, `bench`, `cuts` and `soak`: what the program of the suites does besides them.

use anyhow::Result;
use clap::Args;

use crate::debian::{Places, Releases};
use crate::{setup, suites};

/// Passed on to the program of the suites as they are, but for the releases.
#[derive(Args)]
pub struct Arguments {
    /// Servers of another Debian release, or of two: the primary's and the replica's. Comes before
    /// the other options
    #[arg(long, value_name = "RELEASE[,RELEASE]")]
    debian: Option<Releases>,
    /// Options of the program itself: see `-- --help`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTIONS")]
    options: Vec<String>,
}

/// Runs it; whether it succeeded.
pub fn run(task: &str, arguments: &Arguments) -> Result<bool> {
    setup::run()?;
    let places = Places::of(arguments.debian.as_ref())?;
    let program = suites::build()?.suites;
    let status = suites::command(&program, &places).arg(task).args(&arguments.options).status()?;
    Ok(status.success())
}
