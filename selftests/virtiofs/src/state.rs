// SPDX-License-Identifier: GPL-2.0

//! What a server must know to take over from one that was killed: [`Table`], and the
//! [`file`] in which it is kept up to date, a [`record`] for each change.
//!
//! A record is in the file before the guest has the reply, so a server that takes over knows
//! all that the guest does. It may know of a lookup for which there was no reply yet, and then
//! keeps that inode until the guest unmounts: one for each server that is killed, at most.

mod file;
pub mod record;
mod table;

use std::fs::File;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use file::StateFile;
use record::{Place, Record};
use table::Table;
pub use table::{Known, ROOT};

/// The state of a server.
pub struct State(Mutex<Kept>);

struct Kept {
    table: Table,
    /// `None` if there is to be no other server.
    file: Option<StateFile>,
}

impl State {
    /// The state that a file contains, which may be empty; changes are kept there. Without a
    /// file, a new one that is not kept.
    pub fn load(file: Option<File>) -> io::Result<State> {
        let (file, table) = match file.map(StateFile::load).transpose()? {
            Some((file, table)) => (Some(file), table),
            None => (None, Table::default()),
        };
        Ok(State(Mutex::new(Kept { table, file })))
    }

    /// What the guest can do, if it has mounted the directory.
    pub fn capable(&self) -> Option<u64> {
        self.kept().table.capable()
    }

    /// The inodes that the guest knows, and the directories that they are in; a directory
    /// comes before what is in it.
    pub fn known(&self) -> Vec<Known> {
        self.kept().table.known()
    }

    /// Makes a change.
    pub fn change(&self, record: &Record) {
        self.kept().change(record);
    }

    /// The guest has looked up an inode once more. Whether it knew it already. `born` says
    /// when it was made, if another server may need to know.
    pub fn look(&self, place: Place, node: u64, born: impl FnOnce() -> u64) -> bool {
        let needed = {
            let kept = self.kept();
            kept.file.is_some() && kept.table.count(node) == 0
        };
        let born = if needed { born() } else { 0 };
        let mut kept = self.kept();
        let knew = kept.table.count(node) > 0;
        kept.change(&Record::Look {
            place,
            node,
            count: 1,
            born,
        });
        knew
    }

    /// The guest has forgotten so many lookups. Whether it no longer knows the inode.
    pub fn forget(&self, node: u64, count: u64) -> bool {
        let mut kept = self.kept();
        let knew = kept.table.count(node) > 0;
        kept.change(&Record::Forget { node, count });
        knew && kept.table.count(node) == 0
    }

    /// A request is about to be made that must not be made twice: `before` says which inode
    /// has the name that it is about, 0 for none. If a server that was killed had begun it
    /// already, returns what that one found. Nothing if no server would take over.
    pub fn begin(&self, (queue, request): (u32, u64), before: impl FnOnce() -> u64) -> Option<u64> {
        let begun = {
            let kept = self.kept();
            kept.file.as_ref()?;
            kept.table.begun(queue)
        };
        if let Some(begun) = begun.filter(|begun| begun.request == request) {
            return Some(begun.before);
        }
        let before = before();
        self.change(&Record::Begin {
            queue,
            request,
            before,
        });
        None
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Nothing here panics between two changes that belong together.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn change(&mut self, record: &Record) {
        self.table.apply(record);
        if let Some(file) = &mut self.file {
            if let Err(error) = file.append(record, &self.table) {
                log::error!("the state is lost, no other server can take over: {error}");
                file.destroy();
                self.file = None;
            }
        }
    }
}
