//! Running named cases and counting them.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use tokio::time::timeout;

/// Longest time for one case, servers' starts included.
const LIMIT: Duration = Duration::from_secs(240);

type Run = Box<dyn Fn() -> Pin<Box<dyn Future<Output = Result<()>>>>>;

/// Named cases.
pub struct Suite {
    /// What `--suite` takes.
    pub name: &'static str,
    cases: Vec<Case>,
}

struct Case {
    name: String,
    limit: Duration,
    run: Run,
}

impl Suite {
    /// A suite without cases.
    pub fn new(name: &'static str) -> Self {
        Suite { name, cases: Vec::new() }
    }

    /// Adds a case.
    pub fn case<F>(self, name: impl Into<String>, run: impl Fn() -> F + 'static) -> Self
    where
        F: Future<Output = Result<()>> + 'static,
    {
        self.long_case(name, LIMIT, run)
    }

    /// Adds a case that may take so long.
    pub fn long_case<F>(
        mut self,
        name: impl Into<String>,
        limit: Duration,
        run: impl Fn() -> F + 'static,
    ) -> Self
    where
        F: Future<Output = Result<()>> + 'static,
    {
        let run = Box::new(move || Box::pin(run()) as _);
        self.cases.push(Case { name: name.into(), limit, run });
        self
    }

    /// Runs the cases one after the other; how many failed.
    pub async fn run(self, only: Option<&str>) -> usize {
        let (mut passed, mut failed) = (0, 0);
        for Case { name, limit, run } in self.cases {
            if only.is_some_and(|only| !name.contains(only)) {
                continue;
            }
            let begin = Instant::now();
            let outcome = timeout(limit, run())
                .await
                .unwrap_or_else(|_| Err(anyhow!("took longer than {limit:?}")));
            let took = begin.elapsed().as_secs_f64();
            match outcome {
                Ok(()) => {
                    passed += 1;
                    println!("{}: {name}: ok ({took:.1} s)", self.name);
                }
                Err(error) => {
                    failed += 1;
                    println!("{}: {name}: FAILED ({took:.1} s): {error:#}", self.name);
                }
            }
        }
        println!("suite {}: {passed} passed, {failed} failed", self.name);
        failed
    }
}
