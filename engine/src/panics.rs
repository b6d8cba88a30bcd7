//! Panics of the application: their messages, and values whose drop may panic.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The payload of a panic. It is a value of the application, so its drop may panic as well.
pub type Panic = Box<dyn Any + Send>;

/// Takes the message out of a payload and drops the payload.
pub fn message_of(panic: Panic) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    let message = text.unwrap_or("no message").to_owned();
    discard(panic);
    message
}

/// Calls a closure of the application. A panic goes no further.
pub fn call(closure: Box<dyn FnOnce() + Send>) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(closure)) {
        discard(panic);
    }
}

/// Drops a value of the application. A panic of its drop goes no further.
pub fn discard<T>(value: T) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        // Its drop may panic as well, and so on without end.
        std::mem::forget(panic);
    }
}
