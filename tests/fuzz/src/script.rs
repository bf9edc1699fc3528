//! What an input says, read from its beginning to its end.

/// Steps of one input: so many that limits are reached, and no input takes long.
const MAX_STEPS: usize = 400;
/// The same if they are repeated.
const MAX_REPEATED: usize = 8;

/// The rest of an input. When nothing is left every answer is the first.
#[derive(Clone)]
pub struct Script<'a> {
    rest: &'a [u8],
    left: usize,
}

impl<'a> Script<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        Script { rest: data, left: MAX_STEPS }
    }

    /// For steps that are played over and over.
    pub fn short(data: &'a [u8]) -> Self {
        Script { rest: data, left: MAX_REPEATED }
    }

    /// Whether there is another step.
    pub fn goes_on(&mut self) -> bool {
        let goes_on = self.left > 0 && !self.rest.is_empty();
        self.left = self.left.saturating_sub(1);
        goes_on
    }

    pub fn byte(&mut self) -> u8 {
        match self.rest.split_first() {
            Some((first, rest)) => {
                self.rest = rest;
                *first
            }
            None => 0,
        }
    }

    /// A number below `n`, which is at most 256.
    pub fn below(&mut self, n: usize) -> usize {
        usize::from(self.byte()) % n.max(1)
    }

    /// Once in `n` times.
    pub fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == n - 1
    }

    pub fn of<'t, T>(&mut self, all: &'t [T]) -> &'t T {
        &all[self.below(all.len())]
    }

    pub fn word(&mut self) -> u32 {
        u32::from_le_bytes([self.byte(), self.byte(), self.byte(), self.byte()])
    }

    /// Some text, not long.
    pub fn text(&mut self) -> String {
        let len = self.below(24).min(self.rest.len());
        let (bytes, rest) = self.rest.split_at(len);
        self.rest = rest;
        String::from_utf8_lossy(bytes).into_owned()
    }

    /// Everything that is left.
    pub fn all(self) -> &'a [u8] {
        self.rest
    }
}
