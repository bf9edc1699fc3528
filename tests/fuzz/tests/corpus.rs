//! The inputs that are kept, without the fuzzer: each of them once.

use std::path::{Path, PathBuf};

use dmuc_fuzz::TARGETS;

fn inputs(target: &str) -> Vec<PathBuf> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let entries = std::fs::read_dir(&corpus).unwrap_or_else(|e| panic!("{corpus:?}: {e}"));
    let mut inputs: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    inputs.sort();
    inputs
}

// One test for all of them: what is on the heap is counted for the whole program.
#[test]
fn what_is_kept_in_the_corpus_finds_nothing() {
    for target in TARGETS {
        let inputs = inputs(target.name);
        assert!(!inputs.is_empty(), "nothing is kept for {}", target.name);
        for input in &inputs {
            println!("{}", input.display());
            (target.run)(&std::fs::read(input).expect("readable"));
        }
        println!("{}: {} inputs", target.name, inputs.len());
    }
}
