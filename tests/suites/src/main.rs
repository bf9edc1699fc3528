//! The integration suites of dmuc and its demonstration, on real servers in a private network.
//!
//! `cargo xtask test` and `cargo xtask demo` build and run this program; by itself it finds neither
//! the staged module nor a network.

mod demo;
mod ghosts;
mod hostile;
mod link;
mod native;
mod normal;
mod oracle;
mod reload;
mod runner;
mod scene;
mod sessions;
mod traffic;
mod unnoticed;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use runner::Suite;

#[derive(Parser)]
struct Arguments {
    /// The suite to run
    #[arg(long)]
    suite: Option<String>,
    /// Only cases whose name holds this; else what is in `$DMUC_CASE`
    #[arg(long)]
    case: Option<String>,
    /// Prints the names of the suites
    #[arg(long)]
    list: bool,
    #[command(subcommand)]
    task: Option<Task>,
}

#[derive(Subcommand)]
enum Task {
    /// Shows a room with and without dmuc
    Demo(demo::Arguments),
}

fn suites() -> Vec<Suite> {
    vec![
        link::suite(),
        sessions::suite(),
        unnoticed::suite(),
        reload::suite(),
        ghosts::suite(),
        hostile::suite(),
        native::suite(),
    ]
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(Task::Demo(demo)) = &arguments.task {
        return match demo::run(demo).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error:#}");
                ExitCode::FAILURE
            }
        };
    }
    if arguments.list {
        for suite in suites() {
            println!("{}", suite.name);
        }
        return ExitCode::SUCCESS;
    }
    let case = arguments.case.or_else(|| std::env::var("DMUC_CASE").ok());
    let mut failed = 0;
    for suite in suites() {
        if arguments.suite.as_deref().is_none_or(|name| name == suite.name) {
            failed += suite.run(case.as_deref()).await;
        }
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
