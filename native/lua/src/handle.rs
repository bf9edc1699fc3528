//! The guard around the core's state machines.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use mlua::prelude::*;

/// One state machine of the core. A panic inside it is a bug and leaves its state unknown, so
/// the instance is dropped and every later call fails; the wrapper then serves plainly.
pub struct Handle<T>(Option<T>);

impl<T> Handle<T> {
    pub fn new(inner: T) -> Self {
        Handle(Some(inner))
    }

    pub fn alive(&self) -> bool {
        self.0.is_some()
    }

    /// Calls the core. That the state may be half changed after a panic is why nobody gets to
    /// see it again, which is what `AssertUnwindSafe` asks for.
    pub fn call<R>(&mut self, f: impl FnOnce(&mut T) -> R) -> LuaResult<R> {
        let Some(inner) = self.0.as_mut() else {
            return Err(LuaError::runtime(
                "dmuc: this instance was discarded after an internal error",
            ));
        };
        catch_unwind(AssertUnwindSafe(|| f(inner))).map_err(|panic| {
            let broken = self.0.take();
            // Dropping what is half changed may panic again.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(broken)));
            LuaError::runtime(format!("dmuc: internal error: {}", message(panic.as_ref())))
        })
    }

    /// The core for reading, after a call that succeeded.
    pub fn get(&self) -> LuaResult<&T> {
        self.0.as_ref().ok_or_else(|| LuaError::runtime("dmuc: discarded"))
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("panic without a message")
}
