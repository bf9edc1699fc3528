//! `cargo xtask`: everything about dmuc that is more than one `cargo` command.

mod debian;
mod demo;
mod fuzz;
mod lint;
mod package;
mod paths;
mod run;
mod setup;
mod shells;
mod stage;
mod suites;
mod tally;
mod test;

// The one file that both sides need. As a dependency the test kit would bring half of the
// crates of this workspace into every `cargo xtask`.
#[path = "../../support/src/namespace.rs"]
#[allow(dead_code)]
mod namespace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Builds, tests and shows dmuc")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Installs the Debian packages that the tests need
    Setup,
    /// Builds the module for both servers into target/stage
    Stage,
    /// Builds Debian packages, ejabberd's contrib layout and a Prosody rock into target/packages
    Package(package::Arguments),
    /// Runs all tests, or one suite of them
    Test(test::Arguments),
    /// Shows a room with and without dmuc, with numbers
    Demo(demo::Arguments),
    /// Measures rooms without and with dmuc, side by side
    Bench(demo::Arguments),
    /// Cuts a link again and again, without and with dmuc, and counts what is lost
    Cuts(demo::Arguments),
    /// Lets links and servers fail at random for a long time
    Soak(demo::Arguments),
    /// Feeds the protocol core with what a hostile peer may send
    Fuzz(fuzz::Arguments),
    /// Checks formatting and runs the linters
    Lint,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().task {
        Task::Setup => setup::run().map(|()| true),
        Task::Stage => stage::run().map(|_| true),
        Task::Package(arguments) => package::run(&arguments).map(|()| true),
        Task::Test(arguments) => test::run(&arguments),
        Task::Demo(arguments) => demo::run("demo", &arguments),
        Task::Bench(arguments) => demo::run("bench", &arguments),
        Task::Cuts(arguments) => demo::run("cuts", &arguments),
        Task::Soak(arguments) => demo::run("soak", &arguments),
        Task::Fuzz(arguments) => fuzz::run(&arguments),
        Task::Lint => Ok(lint::run().report("lint")),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
