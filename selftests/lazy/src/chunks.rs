// SPDX-License-Identifier: GPL-2.0

//! Which chunks of a memory have come, and which comes next.

/// What has become of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Missing,
    /// It has been asked for.
    Wanted,
    /// It is there, or was given up.
    Done,
}

/// The chunks of a memory.
pub struct Chunks {
    states: Vec<State>,
    /// How many are not done.
    left: usize,
    /// Where the search for the next begins: after the last that somebody waited for, since
    /// what is near it is likely to be touched next.
    next: usize,
}

impl Chunks {
    /// So many chunks, none of which is there.
    pub fn new(count: usize) -> Chunks {
        Chunks {
            states: vec![State::Missing; count],
            left: count,
            next: 0,
        }
    }

    /// Somebody waits for a chunk. Returns whether it has to be asked for.
    pub fn want(&mut self, chunk: usize) -> bool {
        self.next = chunk;
        let missing = self.states[chunk] == State::Missing;
        if missing {
            self.states[chunk] = State::Wanted;
        }
        missing
    }

    /// A chunk has come, or is given up. Returns false if it was done already.
    pub fn done(&mut self, chunk: usize) -> bool {
        let first = std::mem::replace(&mut self.states[chunk], State::Done) != State::Done;
        self.left -= usize::from(first);
        first
    }

    /// A chunk that is not there, and that nobody has asked for.
    pub fn next(&mut self) -> Option<usize> {
        let count = self.states.len();
        let found = (self.next..count)
            .chain(0..self.next)
            .find(|&chunk| self.states[chunk] == State::Missing)?;
        self.next = (found + 1) % count;
        Some(found)
    }

    /// Whether all are done.
    pub fn all_done(&self) -> bool {
        self.left == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_chunk_is_next_once_and_those_after_a_wanted_one_come_first() {
        let mut chunks = Chunks::new(8);
        assert!(chunks.want(5));
        assert!(!chunks.want(5));
        chunks.done(5);
        let order: Vec<_> = std::iter::from_fn(|| {
            let next = chunks.next()?;
            assert!(chunks.done(next));
            Some(next)
        })
        .collect();
        assert_eq!(order, [6, 7, 0, 1, 2, 3, 4]);
        assert!(chunks.all_done());
        assert!(!chunks.done(0));
    }

    #[test]
    fn what_was_asked_for_is_not_next() {
        let mut chunks = Chunks::new(2);
        assert!(chunks.want(0));
        assert_eq!(chunks.next(), Some(1));
        chunks.done(1);
        assert_eq!(chunks.next(), None);
        assert!(!chunks.all_done());
    }
}
