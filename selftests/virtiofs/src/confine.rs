// SPDX-License-Identifier: GPL-2.0

//! Takes from this process what it does not need: a guest that has taken it over finds the
//! shared directory and the file descriptors that the server has, and nothing else.
//!
//! - The shared directory is its root, in a mount namespace of its own, without devices,
//!   set-user-id programs and other programs, and read-only if the guest may not write.
//! - It has the capabilities of a file server's, and gets no other by executing something.
//! - It makes only the system calls of [`calls`].
//!
//! All calls of an address space work as before.

mod calls;

use std::collections::HashSet;
use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use caps::{CapSet, Capability};
use rustix::mount::{
    MountPropagationFlags, UnmountFlags, mount_bind_recursive, mount_change, unmount,
};
use rustix::process::{chdir, getegid, geteuid, pivot_root};
use rustix::thread::{UnshareFlags, set_no_new_privs, unshare_unsafe};

/// What a file server needs to give files the owner, the mode and the content that its guest
/// wants.
const KEPT: [Capability; 7] = [
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FOWNER,
    Capability::CAP_FSETID,
    Capability::CAP_MKNOD,
    Capability::CAP_SETGID,
    Capability::CAP_SETUID,
];

/// Confines this process to a directory, for good. It must not have other threads yet: those
/// that it starts later are confined too.
///
/// Without the privilege to do that, it is done in a user namespace in which the user is
/// root, and can make files for nobody else.
pub fn to(directory: &Path, readonly: bool) -> Result<()> {
    let directory = directory
        .canonicalize()
        .with_context(|| format!("cannot find {}", directory.display()))?;
    leave_namespace()?;
    enter(&directory, readonly).with_context(|| directory.display().to_string())?;
    drop_capabilities().context("cannot drop capabilities")?;
    set_no_new_privs(true).context("no_new_privs")?;
    calls::restrict().context("seccomp")
}

/// Moves to a mount namespace, in which this process may mount.
fn leave_namespace() -> Result<()> {
    let (uid, gid) = (geteuid(), getegid());
    let privileged = caps::has_cap(None, CapSet::Effective, Capability::CAP_SYS_ADMIN)?;
    let mut flags = UnshareFlags::NEWNS;
    if !privileged {
        flags |= UnshareFlags::NEWUSER;
    }
    // SAFETY: The file descriptors stay shared.
    unsafe { unshare_unsafe(flags) }.context("cannot make a namespace")?;
    if !privileged {
        fs::write("/proc/self/setgroups", "deny").context("setgroups")?;
        fs::write("/proc/self/uid_map", format!("0 {} 1", uid.as_raw())).context("uid_map")?;
        fs::write("/proc/self/gid_map", format!("0 {} 1", gid.as_raw())).context("gid_map")?;
    }
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).context("cannot separate the mounts")
}

/// Makes a directory the root, and all else unreachable.
fn enter(directory: &Path, readonly: bool) -> Result<()> {
    mount_bind_recursive(directory, directory).context("cannot bind")?;
    restrict_mounts(directory, readonly).context("cannot restrict the mount")?;
    chdir(directory)?;
    // The old root is mounted over the new one, and taken away from there.
    pivot_root(".", ".").context("cannot make it the root")?;
    unmount(".", UnmountFlags::DETACH).context("cannot leave the old root")?;
    chdir("/")?;
    Ok(())
}

/// Sets the options of all mounts from a directory on.
fn restrict_mounts(directory: &Path, readonly: bool) -> Result<()> {
    let path = CString::new(directory.as_os_str().as_bytes())?;
    let mut set = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
    if readonly {
        set |= libc::MOUNT_ATTR_RDONLY;
    }
    let attributes = libc::mount_attr {
        attr_set: set,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: The kernel reads the path, which ends with a zero, and a struct of the length
    // that it is told.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::AT_RECURSIVE,
            &attributes,
            size_of_val(&attributes),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error().into())
    }
}

fn drop_capabilities() -> Result<()> {
    let permitted = caps::read(None, CapSet::Permitted)?;
    let kept: HashSet<_> = permitted.intersection(&KEPT.into()).copied().collect();
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        for capability in caps::all() {
            if !kept.contains(&capability) && caps::has_cap(None, CapSet::Bounding, capability)? {
                caps::drop(None, CapSet::Bounding, capability)?;
            }
        }
    }
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Inheritable)?;
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)?;
    Ok(())
}
