// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A DAX window for a file server: a range of an address space in which a guest sees
//! files of the server, mapped and unmapped as the guest asks.
//!
//! For virtio-fs this is what FUSE_SETUPMAPPING and FUSE_REMOVEMAPPING come to. The VMM
//! makes the address space and attaches the window to the guest once; the server has the
//! asfd and changes the window by itself, with no message to the VMM.
//!
//! ```no_run
//! use address_space::AddressSpace;
//! use address_space::dax::Window;
//! use std::fs::File;
//! use std::os::fd::OwnedFd;
//!
//! # fn receive() -> OwnedFd { unimplemented!() }
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // The server got the asfd from the VMM, and where in it the window is.
//! let space = AddressSpace::from(receive());
//! let mut window = Window::new(space, 0..1 << 30, 1024)?;
//!
//! // The guest asks for 2 MiB of node 7 at the start of the window, for reading.
//! window.map(7, 0, 0..2 << 20, false, || {
//!     Ok(File::open("/srv/share/file")?.into())
//! })?;
//! // It no longer needs them, nor the node.
//! window.unmap(&[0..2 << 20])?;
//! window.forget(7);
//! # Ok(())
//! # }
//! ```

mod error;
mod files;

use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;

use rustix::fs::fstat;

use crate::{AddressSpace, Prot, page_size};
pub use error::Error;
use files::{Files, Held, section};

/// A range of an address space, and the files that a server shows there.
///
/// Each file is opened once and registered, so that a map is a change of the layout and
/// nothing else. The kernel finds a registered file by its open file and the caller's
/// credentials: all calls should be made by threads that have never changed theirs, not
/// even there and back. On another thread they work, at the cost of a map of a file that
/// is not registered.
///
/// When this is dropped, the registrations end. What is mapped stays, for a server that
/// takes over: [`clear()`](Window::clear) unmaps it. The registrations of a server that was
/// killed stay, too: one that takes over calls
/// [`unregister_all()`](AddressSpace::unregister_all) first.
#[derive(Debug)]
pub struct Window {
    space: AddressSpace,
    range: Range<u64>,
    files: Files,
}

impl Window {
    /// A window that is `range` of the space (bytes, multiples of the page size), for a
    /// server that keeps at most `most_files` files open for it. What is mapped there
    /// stays.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfWindow`] (EINVAL) if the range is empty, not aligned to pages, or not
    /// within the address space.
    ///
    /// # Panics
    ///
    /// If `most_files` is 0.
    pub fn new(space: AddressSpace, range: Range<u64>, most_files: usize) -> Result<Window, Error> {
        let length = space.length().map_err(Error::Space)?;
        part_of(&(0..length), &range)?;
        Ok(Window {
            space,
            range,
            files: Files::new(most_files),
        })
    }

    /// Maps a range of a file, from `offset` on, at `place` of the window, whatever is
    /// mapped there. All are bytes, multiples of the page size. The range may extend
    /// beyond the end of the file.
    ///
    /// `file` is a number that the server has for this file and for no other until
    /// [`forget()`](Window::forget): for FUSE, the node id. `open` is called if the file
    /// is not open yet, or not for writing while `write` is set, and must open it for
    /// reading, and for writing if `write` is set.
    ///
    /// A place where the file is mapped for reading is made writable by mapping it again.
    ///
    /// # Errors
    ///
    /// - [`Error::OutOfWindow`] (EINVAL) if the place is empty, not aligned to pages, or
    ///   not within the window.
    /// - [`Error::Open`] if `open` fails, with its errno.
    /// - [`Error::Space`] for the errors of [`Map::commit()`](crate::Map::commit). The file is
    ///   closed then, as by [`forget()`](Window::forget).
    ///
    /// What is mapped has not changed then.
    pub fn map(
        &mut self,
        file: u64,
        offset: u64,
        place: Range<u64>,
        write: bool,
        open: impl FnOnce() -> io::Result<OwnedFd>,
    ) -> Result<(), Error> {
        let place = part_of(&self.range, &place)?;
        let length = place.end - place.start;
        if self.files.get(file, write).is_none() {
            let held = Held::new(open().map_err(Error::Open)?, write);
            for old in self.files.insert(file, held) {
                end(&self.space, &old);
            }
        }
        let Some(held) = self.files.get(file, write) else {
            unreachable!("it was opened just now");
        };
        // EOVERFLOW of the map itself if there is no end.
        if let Some(end) = offset.checked_add(length) {
            register(
                &self.space,
                held,
                &(offset..end),
                section(self.range.end - self.range.start),
            );
        }
        let map = self.space.map(&held.fd).offset(offset).length(length);
        let done = map.at(place.start).prot(prot(write)).replace().commit();
        match done {
            Ok(_) => Ok(()),
            Err(error) => {
                // It may be no file that can be mapped at all.
                self.forget(file);
                Err(Error::Space(error))
            }
        }
    }

    /// Unmaps these places of the window (bytes, multiples of the page size), all in one
    /// step. They may contain holes. When this returns, no guest reaches what was mapped
    /// there.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfWindow`] (EINVAL) if one of them is empty, not aligned to pages, or
    /// not within the window; [`Error::Space`] for the errors of
    /// [`Batch::commit()`](crate::Batch::commit). Nothing has changed then.
    pub fn unmap(&mut self, places: &[Range<u64>]) -> Result<(), Error> {
        let done = match places {
            [place] => self.space.unmap(part_of(&self.range, place)?),
            places => {
                let mut batch = self.space.batch();
                for place in places {
                    batch = batch.unmap(part_of(&self.range, place)?);
                }
                batch.commit()
            }
        };
        done.map_err(Error::Space)
    }

    /// Closes a file. What is mapped of it stays, and keeps it in the address space. To be
    /// called when the number gets another meaning, and when the guest no longer knows the
    /// file.
    pub fn forget(&mut self, file: u64) {
        if let Some(held) = self.files.remove(file) {
            end(&self.space, &held);
        }
    }

    /// Unmaps everything in the window, and closes all files.
    ///
    /// # Errors
    ///
    /// [`Error::Space`] for the errors of [`AddressSpace::unmap()`]: the files are closed
    /// all the same.
    pub fn clear(&mut self) -> Result<(), Error> {
        self.forget_all();
        self.space
            .unmap_and_release(self.range.clone())
            .map_err(Error::Space)
    }

    /// How many files are open.
    pub fn open_files(&self) -> usize {
        self.files.len()
    }

    fn forget_all(&mut self) {
        for held in self.files.drain() {
            end(&self.space, &held);
        }
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.forget_all();
    }
}

/// A range of the window as one of the space.
fn part_of(window: &Range<u64>, part: &Range<u64>) -> Result<Range<u64>, Error> {
    let length = window.end.saturating_sub(window.start);
    let aligned = |number: u64| number % page_size() == 0;
    if part.start < part.end
        && part.end <= length
        && [part.start, part.end, window.start]
            .into_iter()
            .all(aligned)
    {
        Ok(window.start + part.start..window.start + part.end)
    } else {
        Err(Error::OutOfWindow {
            place: part.clone(),
            length,
        })
    }
}

fn prot(write: bool) -> Prot {
    if write { Prot::READ_WRITE } else { Prot::READ }
}

/// Registers what a map of a part of the file needs, and more, for the next.
fn register(space: &AddressSpace, held: &mut Held, part: &Range<u64>, section: u64) {
    let size = |fd: &OwnedFd| fstat(fd).map_or(0, |stat| stat.st_size.max(0) as u64);
    for range in held.missing(part, section, size) {
        let registration = space
            .register(&held.fd)
            .offset(range.start)
            .length(range.end - range.start);
        // Without it the map only takes longer; where it cannot succeed, it says why.
        if registration.prot(prot(held.writable)).commit().is_err() {
            held.failed = true;
        }
    }
}

/// Ends the registrations of a file that is about to be closed.
fn end(space: &AddressSpace, held: &Held) {
    // ENOENT if registering failed, and there is no other error.
    let _ = space.unregister(&held.fd);
}
