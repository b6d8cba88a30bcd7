//! Memory that the kernel reads and writes: one mapping per shard, and pipes. Everything is
//! counted; nothing is freed while the kernel may still use it.

mod arena;
mod kept;
mod payload;
mod pipes;
mod receive_buffers;
mod send_buffers;
mod spills;

pub use arena::Arena;
pub use kept::Kept;
pub use payload::Payload;
pub use pipes::{PipePool, PooledPipe};
pub use receive_buffers::{HeldBuffer, LONG_BYTES, ReceiveBuffers, Received};
pub use send_buffers::{SendBuffer, SendBuffers};
pub use spills::{Spill, Spills};
