// SPDX-License-Identifier: GPL-2.0

//! The guest's window, as requests change it, whoever has it: a range of an address space,
//! which this server changes by itself, or what else implements this.

use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;

use address_space::dax;

/// A window in which a guest sees files. Its errors are for the guest.
pub trait Window: Send {
    /// As [`dax::Window::map()`].
    fn map(
        &mut self,
        file: u64,
        offset: u64,
        place: Range<u64>,
        write: bool,
        open: &dyn Fn() -> io::Result<OwnedFd>,
    ) -> io::Result<()>;

    /// As [`dax::Window::unmap()`].
    fn unmap(&mut self, places: &[Range<u64>]) -> io::Result<()>;

    /// Closes a file.
    fn forget(&mut self, file: u64);

    /// Unmaps everything, and closes all files.
    fn clear(&mut self) -> io::Result<()>;
}

impl Window for dax::Window {
    fn map(
        &mut self,
        file: u64,
        offset: u64,
        place: Range<u64>,
        write: bool,
        open: &dyn Fn() -> io::Result<OwnedFd>,
    ) -> io::Result<()> {
        told("map", self.map(file, offset, place, write, open))
    }

    fn unmap(&mut self, places: &[Range<u64>]) -> io::Result<()> {
        told("unmap", self.unmap(places))
    }

    fn forget(&mut self, file: u64) {
        self.forget(file);
    }

    fn clear(&mut self) -> io::Result<()> {
        told("clear", self.clear())
    }
}

/// Logs why something was refused, of which the guest gets the errno.
fn told(what: &str, done: Result<(), dax::Error>) -> io::Result<()> {
    done.map_err(|error| {
        log::debug!("cannot {what}: {error}");
        error.errno().into()
    })
}
