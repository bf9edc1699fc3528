//! `cargo xtask demo`: the same room with and without dmuc.

use anyhow::Result;
use clap::Args;

use crate::{setup, stage, suites};

/// Passed on to the program of the suites as they are.
#[derive(Args)]
pub struct Arguments {
    /// Options of the demonstration: --users N, --messages N, --pairing P, --json, --keep
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTIONS")]
    options: Vec<String>,
}

/// Runs it; whether it succeeded.
pub fn run(arguments: &Arguments) -> Result<bool> {
    setup::run()?;
    let stage = stage::run()?;
    let program = suites::build_suites()?;
    let status = suites::command(&program, &stage).arg("demo").args(&arguments.options).status()?;
    Ok(status.success())
}
