//! The integration suites of dmuc, its demonstration and its benchmark, on real servers in a
//! private network.
//!
//! `cargo xtask test`, `demo` and `bench` build and run this program; by itself it finds neither the
//! staged module nor a network.

mod bench;
mod cluster;
mod demo;
mod faults;
mod ghosts;
mod hostile;
mod joins;
mod link;
mod native;
mod normal;
mod operations;
mod oracle;
mod packages;
mod page;
mod planted;
mod random;
mod reload;
mod runner;
mod scene;
mod traffic;
mod transparency;
mod trees;
mod view;

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
    #[command(flatten)]
    random: random::Arguments,
    #[command(subcommand)]
    task: Option<Task>,
}

#[derive(Subcommand)]
enum Task {
    /// Shows a room with and without dmuc
    Demo(demo::Arguments),
    /// Measures rooms without and with dmuc
    Bench(bench::Arguments),
    /// Cuts a link again and again, without and with dmuc
    Cuts(faults::cuts::Arguments),
    /// Lets links and servers fail at random for a long time
    Soak(faults::soak::Arguments),
}

fn suites(random: &random::Arguments) -> Vec<Suite> {
    vec![
        link::suite(),
        joins::suite(),
        transparency::suite(),
        trees::suite(),
        reload::suite(),
        ghosts::suite(),
        faults::suite(),
        cluster::suite(),
        hostile::suite(),
        native::suite(),
        bench::suite(),
        operations::suite(),
        planted::suite(),
        packages::suite(),
        page::suite(),
        random::suite(random),
    ]
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(task) = &arguments.task {
        let outcome = match task {
            Task::Demo(demo) => demo::run(demo).await.map(|()| true),
            Task::Bench(bench) => bench::run(bench).await.map(|()| true),
            Task::Cuts(cuts) => faults::cuts::run(cuts).await,
            Task::Soak(soak) => faults::soak::run(soak).await,
        };
        return match outcome {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => {
                eprintln!("error: {error:#}");
                ExitCode::FAILURE
            }
        };
    }
    if arguments.list {
        for suite in suites(&arguments.random) {
            println!("{}", suite.name);
        }
        return ExitCode::SUCCESS;
    }
    let case = arguments.case.or_else(|| std::env::var("DMUC_CASE").ok());
    let mut failed = 0;
    for suite in suites(&arguments.random) {
        if arguments.suite.as_deref().is_none_or(|name| name == suite.name) {
            failed += suite.run(case.as_deref()).await;
        }
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
