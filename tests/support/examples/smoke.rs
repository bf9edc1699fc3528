//! The laboratory's test of itself, for `cargo xtask test --suite kit`.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    let (passed, failed) = dmuc_testkit::selftest::run().await;
    println!("suite selftest: {passed} passed, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
