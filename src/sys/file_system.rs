// SPDX-License-Identifier: GPL-2.0

//! The module's own file system, which has the inodes of the files that can be mapped: they are
//! regular files, as memfds are, and can be opened again through /proc.
//!
//! It is mounted inside the kernel alone, as the tmpfs of memfds is, and only while there is such
//! a file: a mount holds the module.
//!
//! Locks: the kernel's, around the mount.
//!
//! C headers: [`include/linux/pseudo_fs.h`](srctree/include/linux/pseudo_fs.h),
//! [`include/linux/fs.h`](srctree/include/linux/fs.h)

use core::ptr::NonNull;

use kernel::{
    error::{
        from_err_ptr,
        from_result,
        to_result, //
    },
    fs::File,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            ordering::*,
            Atomic, //
        },
    },
    types::Opaque, //
};

use crate::sys::{
    bindings,
    inode::{
        self,
        callbacks,
        Attributes,
        Dentry,
        IdMap,
        NewInode,
        SuperBlock, //
    },
    module::THIS_MODULE, //
};

/// As mount tables would say it.
const NAME: &CStr = c"address_space";

/// What the kernel keeps of the file system.
struct FileSystem {
    kind: Opaque<bindings::file_system_type>,
    mount: Opaque<*mut bindings::vfsmount>,
    pins: Opaque<c_int>,
}

// SAFETY: Only the kernel changes them, under locks of its own.
unsafe impl Sync for FileSystem {}

static FILE_SYSTEM: FileSystem = FileSystem {
    kind: Opaque::new(bindings::file_system_type {
        name: NAME.to_bytes_with_nul().as_ptr(),
        owner: THIS_MODULE,
        init_fs_context: Some(bindings::address_space_helper_init_fs_context),
        kill_sb: Some(bindings::kill_anon_super),
        ..pin_init::zeroed()
    }),
    mount: Opaque::new(core::ptr::null_mut()),
    pins: Opaque::new(0),
};

/// The number of the next inode: none is used twice, since events name files by it.
static NEXT_NUMBER: Atomic<u64> = Atomic::new(1);

/// The number of a new inode.
pub(super) fn next_number() -> u64 {
    NEXT_NUMBER.fetch_add(1, Relaxed)
}

/// The file system, mounted.
///
/// # Invariants
///
/// Stands for one pin of the mount, which so does not change.
pub(super) struct Mounted(());

impl Mounted {
    /// `ENOMEM`.
    pub(super) fn new() -> Result<Mounted> {
        let fs = &FILE_SYSTEM;
        // SAFETY: They are static, and only the kernel changes them.
        to_result(unsafe {
            bindings::simple_pin_fs(fs.kind.get().cast(), fs.mount.get(), fs.pins.get())
        })?;
        // INVARIANT: Just pinned.
        Ok(Mounted(()))
    }

    /// Opens a new regular file of the caller's, with an inode of its own. Whoever opens it again
    /// needs the permissions `mode`. `ENOMEM`, `ENFILE`.
    pub(super) fn open(
        &self,
        name: &CStr,
        of_inode: &'static bindings::inode_operations,
        operations: &'static bindings::file_operations,
        mode: u16,
        flags: u32,
    ) -> Result<ARef<File>> {
        // SAFETY: The mount stays by the type's invariant, and with it its superblock.
        let (mount, sb) = unsafe {
            let mount = *FILE_SYSTEM.mount.get();
            (mount, &*(*mount).mnt_sb.cast::<SuperBlock>())
        };
        let mut inode = NewInode::new(sb, bindings::S_IFREG as u16 | mode)?;
        let null = core::ptr::null_mut();
        inode.set_file(next_number(), of_inode, operations, null);
        let (inode, name) = (inode.into_raw(), name.as_char_ptr());
        // SAFETY: The inode is this function's until the file has it. The operations are static.
        // The new file's only reference passes on, and there is no fd for it. When it is put, so
        // is a reference to the module, which the caller holds another of.
        unsafe {
            let file = bindings::alloc_file_pseudo(inode, mount, name, flags as c_int, operations);
            let file = from_err_ptr(file).inspect_err(|_| bindings::iput(inode))?;
            bindings::__module_get(THIS_MODULE);
            Ok(ARef::from_raw(NonNull::new_unchecked(file.cast())))
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // SAFETY: Releases the pin that the type stands for.
        unsafe { bindings::simple_release_fs(FILE_SYSTEM.mount.get(), FILE_SYSTEM.pins.get()) };
    }
}

/// The operation that changes one's attributes.
pub(super) const SET_ATTRIBUTES: Option<
    unsafe extern "C" fn(
        *mut bindings::mnt_idmap,
        *mut bindings::dentry,
        *mut bindings::iattr,
    ) -> c_int,
> = Some(set_attributes);

callbacks! {
    /// As for any file in memory, but its size cannot change: as if it were sealed.
    fn set_attributes(idmap: &IdMap, dentry: &Dentry, attributes: &Attributes) -> c_int {
        from_result(|| {
            match attributes.take_size() {
                Some(size) if size != dentry.inode().size() => return Err(EPERM),
                _ => {}
            }
            inode::set_attributes(idmap, dentry, attributes).map(|()| 0)
        })
    }
}
