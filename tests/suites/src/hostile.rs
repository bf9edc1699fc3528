use crate::runner::Suite;

pub fn suite() -> Suite {
    Suite::new("hostile")
}
