// SPDX-License-Identifier: GPL-2.0

//! The shared directory, as a guest's FUSE requests see it: fuse-backend-rs's
//! `PassthroughFs`, with a DAX window that this server changes itself, and with nothing
//! between two requests that a server that takes over would not have.
//!
//! - Opening a file makes no state: each request names the inode, which is opened for it.
//!   The guest's handles are all 0.
//! - The number of an inode is that of the host, and so the same in the next server.

mod forward;
mod mapping;
mod names;
mod window;

use std::ffi::CString;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fuse_backend_rs::api::filesystem::{Context, FileSystem as _, FsOptions};
use fuse_backend_rs::passthrough::{CachePolicy, Config, PassthroughFs};
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

pub use self::mapping::NoHandler;
pub use self::names::set_request;
pub use self::window::Window;
use crate::state::record::{Place, Record};
use crate::state::{Known, State};

/// What the server offers besides what `PassthroughFs` does by itself.
///
/// AUTO_INVAL_DATA: what another guest or the host has changed is noticed by size and time.
/// The others are for large requests, and several at a time.
const OFFERED: FsOptions = FsOptions::from_bits_truncate(
    FsOptions::ASYNC_READ.bits()
        | FsOptions::AUTO_INVAL_DATA.bits()
        | FsOptions::BIG_WRITES.bits()
        | FsOptions::MAX_PAGES.bits()
        | FsOptions::PARALLEL_DIROPS.bits(),
);

/// What the inner file system must believe that the guest can do, so that it keeps no
/// handles. The guest is not told.
const STATELESS: FsOptions = FsOptions::from_bits_truncate(
    FsOptions::ZERO_MESSAGE_OPEN.bits() | FsOptions::ZERO_MESSAGE_OPENDIR.bits(),
);

/// How long a guest may trust a name, at least. With none at all its kernel drops the inode,
/// and all that is mapped of it, when the file is closed.
const LEAST_TIMEOUT: Duration = Duration::from_millis(1);

/// The part of an inode's number that is the host's.
const HOST_INODE: u64 = (1 << 47) - 1;

/// The shared directory.
pub struct Share {
    inner: PassthroughFs,
    state: State,
    window: Option<Mutex<Box<dyn Window>>>,
    readonly: bool,
}

/// What a server may do.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Whether nothing may be written.
    pub readonly: bool,
    /// How long a guest may trust what it knows of names and attributes.
    pub timeout: Duration,
}

impl Share {
    /// The directory that will be the root of this process at [`take_over()`](Share::take_over)
    /// and when a guest mounts it.
    ///
    /// Opens files in /proc, which need not be there later.
    pub fn new(
        window: Option<Box<dyn Window>>,
        state: State,
        options: Options,
    ) -> io::Result<Share> {
        let config = Config {
            root_dir: "/".to_owned(),
            entry_timeout: options.timeout.max(LEAST_TIMEOUT),
            attr_timeout: options.timeout,
            // Required by no_open; what it would tell the guest is decided in open().
            cache_policy: CachePolicy::Always,
            no_open: true,
            no_opendir: true,
            use_host_ino: true,
            // For a guest that asks for DAX file by file.
            dax_file_size: window.is_some().then_some(0),
            ..Config::default()
        };
        Ok(Share {
            inner: PassthroughFs::new(config)?,
            state,
            window: window.map(Mutex::new),
            readonly: options.readonly,
        })
    }

    /// Finds the inodes that a guest knows by the state of the server before, if there was
    /// one.
    pub fn take_over(&self) -> io::Result<()> {
        let Some(capable) = self.state.capable() else {
            return Ok(());
        };
        let capable = FsOptions::from_bits_truncate(capable);
        self.inner.init(capable | STATELESS)?;
        let context = Context::default();
        let mut unknown = Vec::new();
        for known in self.state.known() {
            let node = known.node;
            if !known.names.iter().any(|place| self.find(place, &known)) {
                log::warn!("inode {node} is no longer where it was: {:?}", known.names);
                let count = u64::MAX;
                self.state.change(&Record::Forget { node, count });
            } else if known.count == 0 {
                unknown.push(node);
            }
        }
        // They were needed to find what is in them.
        for node in unknown {
            self.inner.forget(&context, node, 1);
        }
        Ok(())
    }

    /// Looks up an inode where it should be, once. Whether it is there.
    fn find(&self, place: &Place, known: &Known) -> bool {
        let context = Context::default();
        let Ok(name) = CString::new(place.name.clone()) else {
            return false;
        };
        let Ok(entry) = self.inner.lookup(&context, place.parent, &name) else {
            return false;
        };
        let born = self.born(entry.inode);
        let same = born == known.born || born == 0 || known.born == 0;
        if entry.inode == known.node && same {
            return true;
        }
        self.inner.forget(&context, entry.inode, 1);
        false
    }

    /// When an inode was made, in nanoseconds; 0 if that is not known. It must be looked up.
    fn born(&self, inode: u64) -> u64 {
        // By its name, which may be another's a moment later: then it is not known.
        let path = self.inner.readlinkat_proc_file(inode);
        let wanted = StatxFlags::INO | StatxFlags::BTIME;
        let stat = path
            .ok()
            .and_then(|path| statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, wanted).ok());
        match stat {
            Some(stat)
                if stat.stx_mask & wanted.bits() == wanted.bits()
                    && stat.stx_ino & HOST_INODE == inode & HOST_INODE =>
            {
                let time = stat.stx_btime;
                (time.tv_sec.unsigned_abs())
                    .wrapping_mul(1_000_000_000)
                    .wrapping_add(u64::from(time.tv_nsec))
            }
            _ => 0,
        }
    }

    /// The window, if there is one.
    fn window(&self) -> Option<MutexGuard<'_, Box<dyn Window>>> {
        // A panic leaves it in order: each call changes it all or not at all.
        self.window
            .as_ref()
            .map(|window| window.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Begins the mount of a guest that has these abilities.
    fn begin(&self, capable: FsOptions) -> io::Result<FsOptions> {
        if self.state.capable().is_some() {
            // The guest has been reset.
            self.end();
        }
        let wanted = self.inner.init(capable | STATELESS)?;
        let capable = capable.bits();
        self.state.change(&Record::Init { capable });
        Ok((wanted | OFFERED) & !STATELESS)
    }

    /// Ends it: nothing of it stays in the window.
    fn end(&self) {
        if let Some(mut window) = self.window() {
            if let Err(error) = window.clear() {
                log::error!("cannot clear the window: {error}");
            }
        }
        self.inner.destroy();
        self.state.change(&Record::End);
    }
}
