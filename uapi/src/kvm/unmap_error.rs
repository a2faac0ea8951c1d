// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The error of an unmap, which has the window.

use std::{fmt, io};

use super::KvmWindow;
use crate::Error;

/// A memory slot could not be removed: the error of [`KvmWindow::unmap()`], with the window,
/// which is what it was.
///
/// With `?` it becomes an [`Error`], and the window is dropped, which tries to remove the
/// slot once more.
#[derive(Debug)]
pub struct KvmUnmapError {
    pub(super) window: KvmWindow,
    pub(super) error: Error,
}

impl KvmUnmapError {
    /// Why: [`Error::KvmUnmap`].
    pub fn error(&self) -> &Error {
        &self.error
    }

    /// The window, to try again or to [leak](KvmWindow::leak) it.
    pub fn into_window(self) -> KvmWindow {
        self.window
    }
}

impl fmt::Display for KvmUnmapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for KvmUnmapError {}

impl From<KvmUnmapError> for Error {
    fn from(error: KvmUnmapError) -> Error {
        error.error
    }
}

impl From<KvmUnmapError> for io::Error {
    fn from(error: KvmUnmapError) -> io::Error {
        error.error.into()
    }
}
