// SPDX-License-Identifier: GPL-2.0

//! Requests that look up, make, remove and rename: what the guest knows by them is kept in
//! the state, and one that a server began before it was killed is not made twice.
//!
//! The inner file system counts each inode as looked up once, as long as the guest knows it;
//! the state has the real count.

use std::cell::Cell;
use std::ffi::CStr;
use std::io;
use std::thread;

use fuse_backend_rs::api::filesystem::{Context, DirEntry, Entry, FileSystem as _};

use super::Share;
use crate::state::ROOT;
use crate::state::record::{Place, Record};

thread_local! {
    /// The queue and the number of the request that this thread handles.
    static REQUEST: Cell<(u32, u64)> = const { Cell::new((0, 0)) };
}

/// Says which request this thread handles: its queue, and the guest's number for it.
pub fn set_request(queue: u32, number: u64) {
    REQUEST.set((queue, number));
}

fn place((parent, name): (u64, &CStr)) -> Place {
    Place {
        parent,
        name: name.to_bytes().to_vec(),
    }
}

fn is(error: &io::Error, errno: i32) -> bool {
    error.raw_os_error() == Some(errno)
}

impl Share {
    /// A request by which the guest gets to know an inode.
    pub(super) fn looked_up(
        &self,
        parent: u64,
        name: &CStr,
        look: impl FnOnce() -> io::Result<Entry>,
    ) -> io::Result<Entry> {
        let entry = look()?;
        self.known(parent, name, entry.inode);
        Ok(entry)
    }

    /// The guest knows an inode, once more, which the inner file system has counted.
    fn known(&self, parent: u64, name: &CStr, inode: u64) {
        if inode == ROOT {
            return;
        }
        let born = || self.born(inode);
        if self.state.look(place((parent, name)), inode, born) {
            self.inner.forget(&Context::default(), inode, 1);
        }
    }

    /// The guest has forgotten lookups of inodes.
    pub(super) fn forgotten(&self, context: &Context, forgotten: &[(u64, u64)]) {
        // A server that was killed has counted them, or they are never counted: an inode
        // that is kept for nothing does no harm, and one that is missing does.
        if self.state.begin(REQUEST.get(), || 0).is_some() {
            return;
        }
        for &(inode, count) in forgotten {
            if inode != ROOT && self.state.forget(inode, count) {
                if let Some(mut window) = self.window() {
                    window.forget(inode);
                }
                self.inner.forget(context, inode, 1);
            }
        }
    }

    /// A request that makes a file or directory, as the guest's user.
    pub(super) fn made(
        &self,
        context: &Context,
        parent: u64,
        name: &CStr,
        make: impl FnOnce() -> io::Result<Entry> + Send,
    ) -> io::Result<Entry> {
        self.linked(context, parent, name, || as_user(context, make))
    }

    /// A request that makes a name.
    pub(super) fn linked(
        &self,
        context: &Context,
        parent: u64,
        name: &CStr,
        make: impl FnOnce() -> io::Result<Entry>,
    ) -> io::Result<Entry> {
        let before = self.before(parent, name);
        self.looked_up(parent, name, || match (make(), before) {
            // There was none when it was begun: so it was made.
            (Err(error), Some(0)) if is(&error, libc::EEXIST) => {
                self.inner.lookup(context, parent, name)
            }
            (made, _) => made,
        })
    }

    /// A request that removes a name.
    pub(super) fn removed(
        &self,
        parent: u64,
        name: &CStr,
        remove: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let before = self.before(parent, name);
        match (remove(), before) {
            (Err(error), Some(1..)) if is(&error, libc::ENOENT) => {}
            (removed, _) => removed?,
        }
        let place = place((parent, name));
        self.state.change(&Record::Unlink { place });
        Ok(())
    }

    /// A request that renames.
    pub(super) fn renamed(
        &self,
        from: (u64, &CStr),
        to: (u64, &CStr),
        flags: u32,
        rename: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let exchange = flags & libc::RENAME_EXCHANGE != 0;
        let before = self.before(from.0, from.1);
        // To exchange once more would undo it.
        let done = exchange && before.is_some_and(|before| before != self.inode_at(from));
        if !done {
            match (rename(), before) {
                (Err(error), Some(1..)) if !exchange && is(&error, libc::ENOENT) => {}
                (renamed, _) => renamed?,
            }
        }
        self.state.change(&Record::Rename {
            from: place(from),
            to: place(to),
            exchange,
        });
        Ok(())
    }

    /// A request by which the guest gets to know everything in a directory.
    pub(super) fn listed(
        &self,
        context: &Context,
        directory: u64,
        size: u32,
        offset: u64,
        add: &mut dyn FnMut(DirEntry<'_>, Entry) -> io::Result<usize>,
    ) -> io::Result<()> {
        let mut add = |file: DirEntry<'_>, entry: Entry| {
            let name = [file.name, b"\0"].concat();
            let length = add(file, entry)?;
            // With 0 there was no room for it, and the inner file system forgets it.
            if let (1.., Ok(name)) = (length, CStr::from_bytes_with_nul(&name)) {
                self.known(directory, name, entry.inode);
            }
            Ok(length)
        };
        self.inner
            .readdirplus(context, directory, 0, size, offset, &mut add)
    }

    /// Begins a request about a name. If a server that was killed had begun it, returns the
    /// inode that had the name then, 0 for none.
    fn before(&self, parent: u64, name: &CStr) -> Option<u64> {
        self.state
            .begin(REQUEST.get(), || self.inode_at((parent, name)))
    }

    /// The inode that has a name; 0 for none.
    fn inode_at(&self, (parent, name): (u64, &CStr)) -> u64 {
        let context = Context::default();
        let Ok(entry) = self.inner.lookup(&context, parent, name) else {
            return 0;
        };
        self.inner.forget(&context, entry.inode, 1);
        entry.inode
    }
}

/// Runs a request that makes a file, and so as the guest's user.
///
/// A thread that takes another user's credentials and then its own again has new ones for the
/// kernel, with which no registered file is found: so that is a thread of its own.
fn as_user<R: Send>(context: &Context, request: impl FnOnce() -> R + Send) -> R {
    if context.uid == 0 && context.gid == 0 {
        return request();
    }
    thread::scope(|scope| match scope.spawn(request).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}
