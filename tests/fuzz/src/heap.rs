//! What is on the heap, as the allocator counts it: for a fuzzer's program and no other.

use std::alloc::System;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static HEAP: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Bytes that are allocated.
pub fn live() -> usize {
    let stats = HEAP.stats();
    // A block that grows counts with what it grows by.
    stats.bytes_allocated.saturating_sub(stats.bytes_deallocated)
}

/// Bytes that have ever been allocated: a measure of work that does not hang on the machine.
pub fn spent() -> usize {
    HEAP.stats().bytes_allocated
}
