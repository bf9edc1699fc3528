//! The fuzzer's program: libFuzzer's arguments, and the target's name in `DMUC_FUZZ`.

#![no_main]

use std::sync::OnceLock;

use dmuc_fuzz::{TARGETS, Target};
use libfuzzer_sys::fuzz_target;

fn target() -> Target {
    let name = std::env::var("DMUC_FUZZ").unwrap_or_default();
    let known = || TARGETS.iter().map(|target| target.name).collect::<Vec<_>>().join(", ");
    *TARGETS
        .iter()
        .find(|target| target.name == name)
        .unwrap_or_else(|| panic!("DMUC_FUZZ is '{name}' and not one of {}", known()))
}

static TARGET: OnceLock<Target> = OnceLock::new();

fuzz_target!(|data: &[u8]| (TARGET.get_or_init(target).run)(data));
