//! What the simulated kernel holds at a moment, for whoever keeps books about it.

use super::super::{Completion, Descriptor, Kind, Token};
use super::SimulatedRing;
use super::descriptors::Object;

/// A look between two waits.
#[derive(Debug, Default)]
pub struct View {
    /// Operations pushed whose last completion has not been taken, in order.
    pub tokens: Vec<Token>,
    /// Receive buffers that completions not yet taken bring.
    pub buffers_coming: usize,
    /// Sockets that completions not yet taken bring.
    pub sockets_coming: usize,
    /// Files that completions not yet taken bring.
    pub files_coming: usize,
    /// Sockets closed on the ring, which nobody has been told yet.
    pub sockets_gone: usize,
    /// Files closed on the ring, which nobody has been told yet.
    pub files_gone: usize,
}

impl View {
    fn add(&mut self, completion: Completion) {
        let brings = usize::from(completion.result >= 0);
        self.buffers_coming += usize::from(completion.buffer().is_some());
        match completion.token.kind() {
            Some(Kind::Accept) => self.sockets_coming += brings,
            Some(Kind::Open) => self.files_coming += brings,
            Some(Kind::Close) => self.sockets_gone += 1,
            Some(Kind::CloseFile) => self.files_gone += 1,
            _ => {}
        }
    }
}

impl SimulatedRing {
    /// What is under way now.
    pub fn view(&mut self) -> View {
        self.catch_up();
        let mut view = View::default();
        view.tokens.extend(self.queue.iter().map(|(token, _)| *token));
        for pending in self.pending.iter().flatten() {
            view.tokens.push(pending.token);
            if let Some((result, flags)) = pending.outcome {
                view.add(Completion { token: pending.token, result, flags });
            }
        }
        for completion in self.completions.iter().chain(&self.overflowed) {
            view.add(*completion);
            if !completion.more() {
                view.tokens.push(completion.token);
            }
        }
        view.tokens.sort_by_key(|token| token.user_data());
        view
    }

    /// A completion of nothing that was submitted: a surprise of the kernel's.
    #[cfg(test)]
    pub fn inject(&mut self, token: Token, result: i32, flags: u32) {
        self.completions.push_back(Completion { token, result, flags });
    }

    /// A receive buffer, as a completion would bring it.
    #[cfg(test)]
    pub fn take_provided(&mut self) -> u16 {
        let buffer = self.provided.pop_front().expect("one is provided");
        self.is_provided[usize::from(buffer)] = false;
        buffer
    }

    /// Whether the number stands for a listener.
    pub fn is_listener(&self, descriptor: Descriptor) -> bool {
        let found = self.table.find(descriptor);
        found.is_some_and(|found| matches!(self.table.object(found), Object::Listener(_)))
    }

    /// The peer of a socket, by number.
    pub fn peer_of(&self, descriptor: Descriptor) -> usize {
        self.socket_number(descriptor, "peer_of")
    }

    /// An open file, as a completion would bring it.
    #[cfg(test)]
    pub fn open_beside(&mut self) -> Descriptor {
        self.table.insert(Object::File(0))
    }
}
