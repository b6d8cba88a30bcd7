//! Every byte back: the handlers, one that is kind to its clients and one that leaves them.

pub mod disconnect;
pub mod ending;
pub mod fate;

use crate::access_log::ConnectionLog;
use ringwright::{BoxError, Connection, ConnectionId, Handler, Local, Origin, Reason, SendStatus};

/// Sends back what it receives. When a client does not read, the engine stops reading from it.
pub struct Echo {
    /// The connections that have ended.
    pub log: ConnectionLog,
}

impl Handler for Echo {
    type State = ();

    fn opened(&mut self, _: &mut Connection<'_>, _: Origin) {}

    fn received(&mut self, (): &mut (), connection: &mut Connection<'_>, bytes: &[u8]) -> usize {
        if connection.send(bytes) == SendStatus::Refused {
            // An echo with a gap would be wrong.
            connection.abort();
        }
        bytes.len()
    }

    fn closed(&mut self, _: Option<()>, shard: &mut Local<'_>, id: ConnectionId, reason: Reason) {
        self.log.closed(shard, id, reason);
    }

    fn started(&mut self, shard: &mut Local<'_>) -> Result<(), BoxError> {
        self.log.started(shard);
        Ok(())
    }

    fn tick(&mut self, shard: &mut Local<'_>) {
        self.log.tick(shard);
    }
}
