// SPDX-License-Identifier: GPL-2.0

//! The module's file system as user space mounts it: directories, and regular files with names.
//!
//! What such a file is decides the type that implements [`NamedFile`]. The inode has its state from
//! its creation to its eviction; files that are open on it share it, as those of
//! `file_operations.rs` do. Permissions, owners and ACLs are the kernel's. Mount options are in
//! `mount_options.rs`.
//!
//! Locks: the kernel's. What an inode is told is under the inode's own lock, but its eviction,
//! which has no lock.
//!
//! C headers: [`include/linux/fs.h`](srctree/include/linux/fs.h),
//! [`include/linux/fs_context.h`](srctree/include/linux/fs_context.h)

use core::marker::PhantomData;

use kernel::{
    error::{
        from_result,
        to_result, //
    },
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    sync::Arc,
    types::Opaque, //
};

use crate::sys::{
    bindings,
    file_operations::{
        self,
        FileOperations, //
    },
    file_system,
    mapping::Mapping,
    module::THIS_MODULE,
    mount_options::{
        Holes,
        Options, //
    }, //
};

/// The state of a file with a name.
pub(crate) trait NamedFile: FileOperations {
    /// That of a new file, which has no bytes. `mapping` is what its VMAs are to be linked to, and
    /// its inode's number that of the file; `holes` is what the mount says of all its files.
    fn new(mapping: Mapping, holes: Holes) -> Result<Self>;

    /// Gives the file so many bytes. The inode is locked.
    fn resize(&self, bytes: u64) -> Result;
}

/// A file system of such files, for as long as it is registered: so long it can be mounted, and it
/// cannot go while it is.
#[pin_data(PinnedDrop)]
pub(crate) struct FileSystem<T: NamedFile> {
    #[pin]
    kind: Opaque<bindings::file_system_type>,
    _files: PhantomData<T>,
}

// SAFETY: Only the kernel changes what it has of it, under locks of its own.
unsafe impl<T: NamedFile> Send for FileSystem<T> {}
// SAFETY: As above.
unsafe impl<T: NamedFile> Sync for FileSystem<T> {}

impl<T: NamedFile> FileSystem<T> {
    /// Registers it; it must be in static memory, which lockdep asks of the keys of locks.
    /// `EBUSY` if there is one of that name.
    pub(crate) fn register(name: &'static CStr) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            kind <- Opaque::try_ffi_init(|kind: *mut bindings::file_system_type| {
                // SAFETY: The memory is this object's, which is pinned, and is unregistered when
                // that is dropped.
                to_result(unsafe {
                    kind.write(bindings::file_system_type {
                        name: name.as_char_ptr(),
                        owner: THIS_MODULE,
                        fs_flags: bindings::FS_ALLOW_IDMAP as c_int,
                        init_fs_context: Some(Self::init_context),
                        parameters: Options::PARAMETERS,
                        kill_sb: Some(Self::kill_super),
                        ..pin_init::zeroed()
                    });
                    bindings::register_filesystem(kind.cast())
                })
            }),
            _files: PhantomData,
        })
    }

    const CONTEXT: bindings::fs_context_operations = bindings::fs_context_operations {
        free: Some(Options::free),
        parse_param: Some(Options::parse),
        get_tree: Some(Self::get_tree),
        ..pin_init::zeroed()
    };

    const SUPER: bindings::super_operations = bindings::super_operations {
        statfs: Some(bindings::simple_statfs),
        drop_inode: Some(bindings::inode_just_drop),
        evict_inode: Some(Self::evict),
        show_options: Some(Options::show),
        ..pin_init::zeroed()
    };

    const DIRECTORY: bindings::inode_operations = bindings::inode_operations {
        lookup: Some(bindings::simple_lookup),
        create: Some(Self::create),
        tmpfile: Some(Self::create_nameless),
        mkdir: Some(Self::make_directory),
        link: Some(bindings::simple_link),
        unlink: Some(bindings::simple_unlink),
        rmdir: Some(bindings::simple_rmdir),
        rename: Some(bindings::simple_rename),
        setattr: Some(Self::set_attributes),
        set_acl: Some(set_acl),
        ..pin_init::zeroed()
    };

    const FILE: bindings::inode_operations = bindings::inode_operations {
        setattr: Some(Self::set_attributes),
        set_acl: Some(set_acl),
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// Called for a mount that is being set up.
    unsafe extern "C" fn init_context(context: *mut bindings::fs_context) -> c_int {
        // SAFETY: The context is the caller's, and calls `free` when it goes.
        from_result(|| unsafe {
            Options::attach(context)?;
            (*context).ops = &Self::CONTEXT;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// Called for a mount that is being set up, with its options.
    unsafe extern "C" fn get_tree(context: *mut bindings::fs_context) -> c_int {
        // SAFETY: Passes the caller's word on.
        unsafe { bindings::get_tree_nodev(context, Some(Self::fill)) }
    }

    /// # Safety
    ///
    /// Called for a new superblock, which has the options of `context`.
    unsafe extern "C" fn fill(
        sb: *mut bindings::super_block,
        _context: *mut bindings::fs_context,
    ) -> c_int {
        // SAFETY: Nobody else knows the superblock, and its options stay with it. The kernel
        // drops the inode of a root that cannot be made.
        from_result(|| unsafe {
            (*sb).s_maxbytes = bindings::loff_t::MAX;
            (*sb).s_blocksize = PAGE_SIZE;
            (*sb).s_blocksize_bits = PAGE_SHIFT as u8;
            (*sb).s_magic = bindings::ADDRESS_SPACE_MAGIC as c_ulong;
            (*sb).s_time_gran = 1;
            (*sb).s_flags |= bindings::ADDRESS_SPACE_POSIX_ACL;
            (*sb).s_op = &Self::SUPER;
            let options = Options::of(sb);
            let idmap = &raw mut bindings::nop_mnt_idmap;
            let mode = bindings::S_IFDIR as u16 | options.mode;
            let inode = Self::make_inode(idmap, sb, core::ptr::null_mut(), mode)?;
            (*inode).i_uid = options.uid;
            (*inode).i_gid = options.gid;
            (*sb).s_root = bindings::d_make_root(inode);
            match (*sb).s_root.is_null() {
                true => Err(ENOMEM),
                false => Ok(0),
            }
        })
    }

    /// # Safety
    ///
    /// Called when the last mount of the superblock is gone.
    unsafe extern "C" fn kill_super(sb: *mut bindings::super_block) {
        // SAFETY: After the superblock's end nothing uses its options.
        unsafe {
            let options = Options::detach(sb);
            bindings::kill_anon_super(sb);
            drop(options);
        }
    }

    /// Makes a directory or a regular file, of which `dir`, where it is to be, and `mode` say who
    /// may use it. `ENOMEM`, `ENFILE`, and the errors of security modules.
    ///
    /// # Safety
    ///
    /// `dir`, unless it is null, is a directory of `sb`, and is locked.
    unsafe fn make_inode(
        idmap: *mut bindings::mnt_idmap,
        sb: *mut bindings::super_block,
        dir: *mut bindings::inode,
        mode: u16,
    ) -> Result<*mut bindings::inode> {
        // SAFETY: The inode is this function's. What of it is set here stays, but the state, which
        // `evict` takes; and the operations are constant.
        unsafe {
            let inode = bindings::new_inode(sb);
            if inode.is_null() {
                return Err(ENOMEM);
            }
            bindings::inode_init_owner(idmap, inode, dir, mode);
            bindings::simple_inode_init_ts(inode);
            let made = match u32::from(mode) & bindings::S_IFMT {
                bindings::S_IFDIR => {
                    (*inode).i_ino = file_system::next_number();
                    (*inode).i_op = &Self::DIRECTORY;
                    (*inode).__bindgen_anon_3.i_fop = &raw const bindings::simple_dir_operations;
                    // Its own `.`.
                    bindings::inc_nlink(inode);
                    Ok(())
                }
                _ => file_operations::new_mapping::<T>().and_then(|mapping| {
                    (*inode).i_ino = mapping.ino() as u64;
                    let state = T::new(mapping, Options::of(sb).holes)?;
                    let state = Arc::new(state, GFP_KERNEL_ACCOUNT)?;
                    (*inode).i_op = &Self::FILE;
                    (*inode).__bindgen_anon_3.i_fop = file_operations::table::<T>();
                    (*inode).i_private = Arc::into_raw(state).cast_mut().cast();
                    Ok(())
                }),
            };
            made.and_then(|()| match dir.is_null() {
                true => Ok(()),
                false => inherit_acl(dir, inode),
            })
            .inspect_err(|_| bindings::iput(inode))?;
            Ok(inode)
        }
    }

    /// # Safety
    ///
    /// As for `make_inode`; `dentry` is where it is to be.
    unsafe fn make(
        idmap: *mut bindings::mnt_idmap,
        dir: *mut bindings::inode,
        dentry: *mut bindings::dentry,
        mode: u16,
    ) -> Result {
        // SAFETY: Passes the caller's word on. The new inode becomes the dentry's.
        unsafe {
            let inode = Self::make_inode(idmap, (*dir).i_sb, dir, mode)?;
            let name = &raw const (*dentry).__bindgen_anon_1.d_name;
            label(inode, dir, name)?;
            bindings::d_make_persistent(dentry, inode);
            touch(dir);
        }
        Ok(())
    }

    /// # Safety
    ///
    /// Called as a directory's operation.
    unsafe extern "C" fn create(
        idmap: *mut bindings::mnt_idmap,
        dir: *mut bindings::inode,
        dentry: *mut bindings::dentry,
        mode: bindings::umode_t,
    ) -> c_int {
        let mode = bindings::S_IFREG as u16 | mode;
        // SAFETY: Passes the kernel's word on.
        from_result(|| unsafe { Self::make(idmap, dir, dentry, mode) }.map(|()| 0))
    }

    /// # Safety
    ///
    /// Called as a directory's operation.
    unsafe extern "C" fn create_nameless(
        idmap: *mut bindings::mnt_idmap,
        dir: *mut bindings::inode,
        file: *mut bindings::file,
        mode: bindings::umode_t,
    ) -> c_int {
        // SAFETY: Passes the kernel's word on. The new inode becomes that of the file's dentry.
        from_result(|| unsafe {
            let inode = Self::make_inode(idmap, (*dir).i_sb, dir, mode)?;
            let dentry = (*file).__bindgen_anon_1.f_path.dentry;
            label(inode, dir, &raw const (*dentry).__bindgen_anon_1.d_name)?;
            bindings::d_tmpfile(file, inode);
            to_result(bindings::finish_open(file, dentry, None)).map(|()| 0)
        })
    }

    /// # Safety
    ///
    /// Called as a directory's operation.
    unsafe extern "C" fn make_directory(
        idmap: *mut bindings::mnt_idmap,
        dir: *mut bindings::inode,
        dentry: *mut bindings::dentry,
        mode: bindings::umode_t,
    ) -> *mut bindings::dentry {
        let mode = bindings::S_IFDIR as u16 | mode;
        // SAFETY: Passes the kernel's word on. The new directory's `..` is counted.
        let error = from_result(|| unsafe {
            Self::make(idmap, dir, dentry, mode)?;
            bindings::inc_nlink(dir);
            Ok(0)
        });
        // Null says that the dentry was used.
        core::ptr::without_provenance_mut(error as isize as usize)
    }

    /// # Safety
    ///
    /// Called as an inode's operation, with the inode locked.
    unsafe extern "C" fn set_attributes(
        idmap: *mut bindings::mnt_idmap,
        dentry: *mut bindings::dentry,
        attributes: *mut bindings::iattr,
    ) -> c_int {
        // SAFETY: The dentry has an inode; of a regular file that has a state. The attributes are
        // the call's.
        from_result(|| unsafe {
            let inode = (*dentry).d_inode;
            if (*attributes).ia_valid & bindings::ATTR_SIZE != 0 {
                let size = (*attributes).ia_size;
                let state: *const T = (*inode).i_private.cast_const().cast();
                (*state).resize(size as u64)?;
                bindings::address_space_helper_set_inode_size(inode, size);
                (*attributes).ia_valid &= !bindings::ATTR_SIZE;
            }
            to_result(bindings::simple_setattr(idmap, dentry, attributes))?;
            if (*attributes).ia_valid & bindings::ATTR_MODE != 0 {
                to_result(bindings::posix_acl_chmod(idmap, dentry, (*inode).i_mode))?;
            }
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// Called for an inode that nothing uses any more.
    unsafe extern "C" fn evict(inode: *mut bindings::inode) {
        // SAFETY: No file is open on the inode, so that its reference to the state is the last.
        unsafe {
            bindings::truncate_inode_pages_final(&raw mut (*inode).i_data);
            bindings::clear_inode(inode);
            let state: *const T = (*inode).i_private.cast_const().cast();
            if !state.is_null() {
                drop(Arc::from_raw(state));
            }
        }
    }
}

#[pinned_drop]
impl<T: NamedFile> PinnedDrop for FileSystem<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: It was registered. It is not mounted: a mount holds the module. An error would
        // say that it was not registered.
        unsafe { bindings::unregister_filesystem(self.kind.get().cast()) };
    }
}

/// Has security modules label a new inode, which is put if they refuse.
///
/// # Safety
///
/// The inode is the caller's and is to be in `dir`, which is locked, by the name.
unsafe fn label(
    inode: *mut bindings::inode,
    dir: *mut bindings::inode,
    name: *const bindings::qstr,
) -> Result {
    // SAFETY: By the caller's word.
    unsafe {
        let null = core::ptr::null_mut();
        to_result(bindings::security_inode_init_security(inode, dir, name, None, null))
            .inspect_err(|_| bindings::iput(inode))
    }
}

/// As an entry of a directory is made or goes.
///
/// # Safety
///
/// `dir` is a locked directory.
unsafe fn touch(dir: *mut bindings::inode) {
    // SAFETY: By the caller's word.
    unsafe { bindings::address_space_helper_set_mtime(dir, bindings::inode_set_ctime_current(dir)) };
}

/// Gives a new inode the ACLs that its directory has for such, or else applies the umask.
///
/// # Safety
///
/// The inode is the caller's and is to be in `dir`, which is locked.
unsafe fn inherit_acl(dir: *mut bindings::inode, inode: *mut bindings::inode) -> Result {
    let (mut default, mut access) = (core::ptr::null_mut(), core::ptr::null_mut());
    // SAFETY: By the caller's word. The inode takes references of its own to what it is given.
    unsafe {
        let mode = &raw mut (*inode).i_mode;
        to_result(bindings::posix_acl_create(dir, mode, &mut default, &mut access))?;
        for (acl, kind) in [
            (default, bindings::ACL_TYPE_DEFAULT),
            (access, bindings::ACL_TYPE_ACCESS),
        ] {
            bindings::set_cached_acl(inode, kind as c_int, acl);
            bindings::address_space_helper_posix_acl_release(acl);
        }
    }
    Ok(())
}

/// Sets an ACL, which is kept with the inode, as nothing else of it is kept elsewhere.
///
/// # Safety
///
/// Called as an inode operation, with the inode locked.
unsafe extern "C" fn set_acl(
    idmap: *mut bindings::mnt_idmap,
    dentry: *mut bindings::dentry,
    mut acl: *mut bindings::posix_acl,
    kind: c_int,
) -> c_int {
    // SAFETY: The dentry has an inode, which takes a reference of its own to the ACL.
    from_result(|| unsafe {
        let inode = (*dentry).d_inode;
        if kind as u32 == bindings::ACL_TYPE_ACCESS {
            let mode = &raw mut (*inode).i_mode;
            to_result(bindings::posix_acl_update_mode(idmap, inode, mode, &mut acl))?;
        }
        bindings::inode_set_ctime_current(inode);
        bindings::set_cached_acl(inode, kind, acl);
        Ok(0)
    })
}
