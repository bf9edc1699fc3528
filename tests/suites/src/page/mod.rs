//! The page: who may see it on both servers, and what a browser makes of it.

mod browser;
mod drawn;
pub mod seen;
pub mod web;

use dmuc_testkit::Kind;

use crate::runner::Suite;

pub fn suite() -> Suite {
    let mut suite = Suite::new("page");
    for kind in [Kind::Ejabberd, Kind::Prosody] {
        suite = suite.case(format!("{kind}"), move || seen::run(kind));
    }
    suite.case("a hundred servers", drawn::run)
}
