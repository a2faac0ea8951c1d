// SPDX-License-Identifier: GPL-2.0

//! Inodes, and what else the kernel gives to the operations of a file system.
//!
//! Takes no lock. Whoever changes an inode has a [`NewInode`], or is the operation for which the
//! kernel has locked it.
//!
//! C headers: [`include/linux/fs.h`](srctree/include/linux/fs.h),
//! [`include/linux/posix_acl.h`](srctree/include/linux/posix_acl.h)

use core::{
    marker::PhantomData,
    ptr::NonNull, //
};

use kernel::{
    error::{
        from_result,
        to_result, //
    },
    fs::File,
    prelude::*,
    seq_file::SeqFile,
    types::Opaque, //
};

use crate::sys::{
    bindings,
    safe_fns, //
};

/// A type that has the layout of one of C's.
pub(super) trait CType {
    type C;
}

macro_rules! c_types {
    ($($(#[$doc:meta])* $name:ident($c:ident);)*) => {$(
        $(#[$doc])*
        #[repr(transparent)]
        pub(super) struct $name(Opaque<bindings::$c>);

        impl CType for $name {
            type C = bindings::$c;
        }

        impl $name {
            /// The C object.
            pub(super) fn as_raw(&self) -> *mut bindings::$c {
                self.0.get()
            }
        }
    )*};
}

// A reference to one of these is only made of what the kernel gives to an operation, or of what an
// object that is held keeps: so it is valid for as long as it is borrowed.
c_types! {
    /// `struct inode`.
    Inode(inode);
    /// `struct dentry`: a name and the inode that it stands for.
    Dentry(dentry);
    /// `struct mnt_idmap`: how a mount shows users and groups.
    IdMap(mnt_idmap);
    /// `struct super_block`: a file system that is mounted.
    SuperBlock(super_block);
    /// `struct iattr`: what is to be changed of an inode.
    Attributes(iattr);
    /// `struct fs_context`: a mount that is being set up.
    FsContext(fs_context);
    /// `struct fs_parameter`: an option of it.
    FsParameter(fs_parameter);
}

impl CType for File {
    type C = bindings::file;
}

impl CType for SeqFile {
    type C = bindings::seq_file;
}

/// Declares functions for C's tables of operations. What they are given by pointer they get as
/// references; other arguments, which come last, as they are.
macro_rules! callbacks {
    ($(
        $(#[$doc:meta])*
        fn $name:ident($($arg:ident: &$type:ty),* $(;
            $($(#[$meta:meta])* $plain:ident: $plain_type:ty),*)?)
            -> $ret:ty $body:block
    )*) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        ///
        /// Called as such an operation.
        unsafe extern "C" fn $name(
            $($arg: *mut <$type as $crate::sys::inode::CType>::C,)*
            $($($(#[$meta])* $plain: $plain_type),*)?
        ) -> $ret {
            // SAFETY: What operations are given by pointer stays for the call, and the types have
            // the layout of C's.
            $(let $arg: &$type = unsafe { &*$arg.cast() };)*
            $body
        }
    )*};
}
pub(super) use callbacks;

impl Inode {
    /// That of an open file.
    pub(super) fn of(file: &File) -> &Inode {
        // SAFETY: An open file has an inode, which does not change.
        unsafe { &*(*file.as_ptr()).f_inode.cast() }
    }

    /// The file system.
    pub(super) fn sb(&self) -> &SuperBlock {
        // SAFETY: An inode has one as long as it exists.
        unsafe { &*(*self.as_raw()).i_sb.cast() }
    }

    /// The size in bytes.
    pub(super) fn size(&self) -> u64 {
        safe_fns::address_space_helper_inode_size(self) as u64
    }

    /// Notes that an entry of the directory was made, or has gone.
    fn touch(&self) {
        safe_fns::address_space_helper_touch_inode(self);
    }
}

impl Dentry {
    /// What it stands for, in an operation on that.
    pub(super) fn inode(&self) -> &Inode {
        // SAFETY: An operation on an inode is given a dentry that has one meanwhile.
        unsafe { &*(*self.as_raw()).d_inode.cast() }
    }
}

impl Attributes {
    /// The size that is to be set, which the inode does not take from here any more.
    pub(super) fn take_size(&self) -> Option<u64> {
        // SAFETY: They are for one operation alone.
        unsafe {
            let attributes = &mut *self.as_raw();
            let is_there = attributes.ia_valid & bindings::ATTR_SIZE != 0;
            attributes.ia_valid &= !bindings::ATTR_SIZE;
            is_there.then_some(attributes.ia_size as u64)
        }
    }
}

/// An inode with its lock held.
pub(super) struct InodeLock<'a>(&'a Inode);

impl<'a> InodeLock<'a> {
    pub(super) fn new(inode: &'a Inode) -> Self {
        safe_fns::address_space_helper_lock_inode(inode);
        InodeLock(inode)
    }
}

impl Drop for InodeLock<'_> {
    fn drop(&mut self) {
        safe_fns::address_space_helper_unlock_inode(self.0);
    }
}

/// Says what stat() returns of an inode: that it takes `blocks` blocks, and what the kernel knows.
pub(super) fn fill_stat(
    idmap: &IdMap,
    inode: &Inode,
    blocks: u64,
    mask: u32,
    stat: *mut bindings::kstat,
) {
    // SAFETY: The operation that this is for is given a place for it.
    unsafe {
        bindings::generic_fillattr(idmap.as_raw(), mask, inode.as_raw(), stat);
        (*stat).blocks = blocks;
    }
}

/// Changes what else there is of an inode: as for any file in memory.
pub(super) fn set_attributes(idmap: &IdMap, dentry: &Dentry, attributes: &Attributes) -> Result {
    to_result(safe_fns::simple_setattr(idmap, dentry, attributes))?;
    // SAFETY: The inode is locked, and the mode, if it was to be changed, has been checked.
    unsafe {
        if (*attributes.as_raw()).ia_valid & bindings::ATTR_MODE != 0 {
            let mode = (*dentry.inode().as_raw()).i_mode;
            to_result(bindings::posix_acl_chmod(
                idmap.as_raw(),
                dentry.as_raw(),
                mode,
            ))?;
        }
    }
    Ok(())
}

callbacks! {
    /// Sets an ACL, which is kept with the inode: nothing of that is kept elsewhere.
    fn set_acl_of(
        idmap: &IdMap, dentry: &Dentry; acl: *mut bindings::posix_acl, kind: c_int
    ) -> c_int {
        let inode = dentry.inode();
        let mut acl = acl;
        from_result(|| {
            // SAFETY: The inode is locked. It takes a reference of its own to the ACL, which is
            // the caller's, or null.
            unsafe {
                if kind as u32 == bindings::ACL_TYPE_ACCESS {
                    let (idmap, inode) = (idmap.as_raw(), inode.as_raw());
                    let mode = &raw mut (*inode).i_mode;
                    to_result(bindings::posix_acl_update_mode(idmap, inode, mode, &mut acl))?;
                }
                bindings::inode_set_ctime_current(inode.as_raw());
                bindings::set_cached_acl(inode.as_raw(), kind, acl);
            }
            Ok(0)
        })
    }
}

/// The operation that sets an ACL.
pub(super) const SET_ACL: Option<
    unsafe extern "C" fn(
        *mut bindings::mnt_idmap,
        *mut bindings::dentry,
        *mut bindings::posix_acl,
        c_int,
    ) -> c_int,
> = Some(set_acl_of);

/// An inode that nothing else knows yet.
///
/// # Invariants
///
/// Owns the only reference to an inode of `sb`.
pub(super) struct NewInode<'sb> {
    inode: NonNull<bindings::inode>,
    sb: PhantomData<&'sb SuperBlock>,
}

impl<'sb> NewInode<'sb> {
    /// An inode of the calling user's with the type and the permissions that `mode` says. `ENOMEM`.
    pub(super) fn new(sb: &'sb SuperBlock, mode: u16) -> Result<Self> {
        // SAFETY: The map that changes nothing is static.
        let idmap = unsafe { &*(&raw mut bindings::nop_mnt_idmap).cast() };
        Self::make(sb, idmap, core::ptr::null(), mode)
    }

    /// An inode that is to be in a directory, which says what its group is, and with which ACL it
    /// begins; or else the umask applies. `ENOMEM`.
    pub(super) fn new_in(dir: &'sb Inode, idmap: &IdMap, mode: u16) -> Result<Self> {
        let inode = Self::make(dir.sb(), idmap, dir.as_raw(), mode)?;
        let (mut default, mut access) = (core::ptr::null_mut(), core::ptr::null_mut());
        // SAFETY: The inode is new, and takes references of its own to what it is given.
        unsafe {
            let (dir, raw) = (dir.as_raw(), inode.inode.as_ptr());
            let mode = &raw mut (*raw).i_mode;
            to_result(bindings::posix_acl_create(
                dir,
                mode,
                &mut default,
                &mut access,
            ))?;
            for (acl, kind) in [
                (default, bindings::ACL_TYPE_DEFAULT),
                (access, bindings::ACL_TYPE_ACCESS),
            ] {
                bindings::set_cached_acl(raw, kind as c_int, acl);
                bindings::address_space_helper_posix_acl_release(acl);
            }
        }
        Ok(inode)
    }

    fn make(
        sb: &'sb SuperBlock,
        idmap: &IdMap,
        dir: *const bindings::inode,
        mode: u16,
    ) -> Result<Self> {
        // SAFETY: The superblock has inodes as long as it is borrowed, and the directory, unless it
        // is null, is one of them.
        let inode = unsafe {
            let inode = NonNull::new(bindings::new_inode(sb.as_raw())).ok_or(ENOMEM)?;
            bindings::inode_init_owner(idmap.as_raw(), inode.as_ptr(), dir, mode);
            bindings::simple_inode_init_ts(inode.as_ptr());
            inode
        };
        // INVARIANT: Just made.
        Ok(NewInode {
            inode,
            sb: PhantomData,
        })
    }

    /// Makes it a directory.
    pub(super) fn set_directory(
        &mut self,
        number: u64,
        operations: &'static bindings::inode_operations,
    ) {
        // SAFETY: The inode is new. The kernel's table is constant.
        unsafe {
            let inode = self.inode.as_mut();
            inode.i_ino = number;
            inode.i_op = operations;
            inode.__bindgen_anon_3.i_fop = &raw const bindings::simple_dir_operations;
            // Its own `.`.
            bindings::inc_nlink(inode);
        }
    }

    /// Makes it a file, with what `private` says as its state.
    pub(super) fn set_file(
        &mut self,
        number: u64,
        operations: &'static bindings::inode_operations,
        file_operations: &'static bindings::file_operations,
        private: *mut c_void,
    ) {
        // SAFETY: The inode is new.
        let inode = unsafe { self.inode.as_mut() };
        inode.i_ino = number;
        inode.i_op = operations;
        inode.__bindgen_anon_3.i_fop = file_operations;
        inode.i_private = private;
    }

    /// Has security modules label it, as what is to be in `dir` by the name of `dentry`.
    pub(super) fn label(&self, dir: &Inode, dentry: &Dentry) -> Result {
        let (inode, null) = (self.inode.as_ptr(), core::ptr::null_mut());
        // SAFETY: The inode is new. The name stays while the directory is locked, as it is for
        // making an entry.
        to_result(unsafe {
            let name = &raw const (*dentry.as_raw()).__bindgen_anon_1.d_name;
            bindings::security_inode_init_security(inode, dir.as_raw(), name, None, null)
        })
    }

    /// Gives it the name that `dentry` has in `dir`.
    pub(super) fn enter(self, dir: &Inode, dentry: &Dentry) {
        let inode = self.into_raw();
        // SAFETY: The dentry, which has no inode yet, takes the reference.
        unsafe { bindings::d_make_persistent(dentry.as_raw(), inode) };
        dir.touch();
    }

    /// Labels it, and opens it without a name, by a file that is made for that in `dir`.
    pub(super) fn open_nameless(self, dir: &Inode, file: &File) -> Result {
        // SAFETY: The file is being opened, with a dentry of its own that takes the reference.
        unsafe {
            let dentry: &Dentry = &*(*file.as_ptr()).__bindgen_anon_1.f_path.dentry.cast();
            self.label(dir, dentry)?;
            bindings::d_tmpfile(file.as_ptr(), self.into_raw());
            to_result(bindings::finish_open(file.as_ptr(), dentry.as_raw(), None))
        }
    }

    /// Makes it the root of its file system, which has none yet, with this owner. `ENOMEM`.
    pub(super) fn become_root(
        self,
        sb: &SuperBlock,
        uid: bindings::kuid_t,
        gid: bindings::kgid_t,
    ) -> Result {
        let inode = self.into_raw();
        // SAFETY: The inode is new, and its reference passes on, also if there is an error.
        unsafe {
            (*inode).i_uid = uid;
            (*inode).i_gid = gid;
            let root = bindings::d_make_root(inode);
            (*sb.as_raw()).s_root = root;
            match root.is_null() {
                true => Err(ENOMEM),
                false => Ok(()),
            }
        }
    }

    /// The inode, with its reference.
    pub(super) fn into_raw(self) -> *mut bindings::inode {
        core::mem::ManuallyDrop::new(self).inode.as_ptr()
    }
}

impl Drop for NewInode<'_> {
    fn drop(&mut self) {
        // SAFETY: Puts the reference that the type owns.
        unsafe { bindings::iput(self.inode.as_ptr()) };
    }
}
