// SPDX-License-Identifier: GPL-2.0

//! The guest's window, whoever changes it.

use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;

use address_space::dax;

use crate::asked::Asked;

/// A window in which a guest sees files.
pub enum Window {
    /// A range of an address space, which this server changes by itself.
    Own(dax::Window),
    /// Memory of the VMM, which is asked to change it.
    Asked(Asked),
}

impl Window {
    /// As [`dax::Window::map()`].
    pub(super) fn map(
        &mut self,
        file: u64,
        offset: u64,
        place: Range<u64>,
        write: bool,
        open: impl FnOnce() -> io::Result<OwnedFd>,
    ) -> io::Result<()> {
        match self {
            Window::Own(window) => {
                let done = window.map(file, offset, place, write, open);
                done.map_err(|error| refused("map", &error))
            }
            Window::Asked(asked) => asked.map(file, offset, place, write, open),
        }
    }

    /// As [`dax::Window::unmap()`].
    pub(super) fn unmap(&mut self, places: &[Range<u64>]) -> io::Result<()> {
        match self {
            Window::Own(window) => {
                let done = window.unmap(places);
                done.map_err(|error| refused("unmap", &error))
            }
            Window::Asked(asked) => places.iter().try_for_each(|place| asked.unmap(place)),
        }
    }

    /// Closes a file.
    pub(super) fn forget(&mut self, file: u64) {
        match self {
            Window::Own(window) => window.forget(file),
            Window::Asked(asked) => asked.forget(file),
        }
    }

    /// Unmaps everything, and closes all files.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        match self {
            Window::Own(window) => {
                let done = window.clear();
                done.map_err(|error| refused("clear", &error))
            }
            Window::Asked(asked) => asked.clear(),
        }
    }
}

fn refused(what: &str, error: &dax::Error) -> io::Error {
    log::debug!("cannot {what}: {error}");
    error.errno().into()
}
