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
    fs::File,
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    seq_file::SeqFile,
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
    inode::{
        self,
        callbacks,
        Attributes,
        Dentry,
        FsContext,
        FsParameter,
        IdMap,
        Inode,
        NewInode,
        SuperBlock, //
    },
    mapping::Mapping,
    module::THIS_MODULE,
    mount_options::{
        Holes,
        Options, //
    },
    safe_fns, //
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
///
/// # Invariants
///
/// `kind` is registered. Inodes of its superblocks that are regular files have a reference to a `T`
/// as their private data, which goes when they are evicted.
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
        free: Some(Self::free_context),
        parse_param: Some(Self::parse),
        get_tree: Some(Self::get_tree),
        ..pin_init::zeroed()
    };

    const SUPER: bindings::super_operations = bindings::super_operations {
        statfs: Some(bindings::simple_statfs),
        drop_inode: Some(bindings::inode_just_drop),
        evict_inode: Some(Self::evict),
        show_options: Some(Self::show_options),
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
        listxattr: Some(bindings::generic_listxattr),
        set_acl: inode::SET_ACL,
        ..pin_init::zeroed()
    };

    const FILE: bindings::inode_operations = bindings::inode_operations {
        setattr: Some(Self::set_attributes),
        getattr: file_operations::get_attributes::<T>(),
        listxattr: Some(bindings::generic_listxattr),
        set_acl: inode::SET_ACL,
        ..pin_init::zeroed()
    };

    callbacks! {
        /// A mount is to be set up.
        fn init_context(context: &FsContext) -> c_int {
            from_result(|| Options::begin(context, &Self::CONTEXT).map(|()| 0))
        }

        /// Ends what was set up, and not mounted.
        fn free_context(context: &FsContext) -> () {
            drop(Options::take(context));
        }

        /// Reads an option.
        fn parse(context: &FsContext, parameter: &FsParameter) -> c_int {
            from_result(|| Options::parse(context, parameter))
        }

        /// Mounts what was set up.
        fn get_tree(context: &FsContext) -> c_int {
            // SAFETY: The context stays for the call, and `fill` is for its new superblock.
            unsafe { bindings::get_tree_nodev(context.as_raw(), Some(Self::fill)) }
        }

        /// Sets up a new superblock, which has the context's options.
        fn fill(sb: &SuperBlock, _context: &FsContext) -> c_int {
            let raw = sb.as_raw();
            // SAFETY: Nobody else knows the superblock yet.
            unsafe {
                (*raw).s_maxbytes = bindings::loff_t::MAX;
                (*raw).s_blocksize = PAGE_SIZE;
                (*raw).s_blocksize_bits = PAGE_SHIFT as u8;
                (*raw).s_magic = bindings::ADDRESS_SPACE_MAGIC as c_ulong;
                (*raw).s_time_gran = 1;
                (*raw).s_flags |= bindings::ADDRESS_SPACE_POSIX_ACL;
                (*raw).s_op = &Self::SUPER;
                (*raw).s_xattr = (&raw const bindings::address_space_helper_acls).cast();
            }
            from_result(|| {
                let options = Options::of(sb);
                if !options.holes.go_together() {
                    return Err(EINVAL);
                }
                let mode = bindings::S_IFDIR as u16 | options.mode;
                let mut root = NewInode::new(sb, mode)?;
                root.set_directory(file_system::next_number(), &Self::DIRECTORY);
                root.become_root(sb, options.uid, options.gid)?;
                Ok(0)
            })
        }

        /// The last mount of the superblock is gone.
        fn kill_super(sb: &SuperBlock) -> () {
            let options = Options::take(sb);
            // SAFETY: This is the operation that ends the superblock.
            unsafe { bindings::kill_anon_super(sb.as_raw()) };
            // No inode asks for them any more.
            drop(options);
        }

        /// Prints what /proc/mounts shows.
        fn show_options(out: &SeqFile, root: &Dentry) -> c_int {
            Options::of(root.inode().sb()).show(out);
            0
        }

        /// Makes a file.
        fn create(
            idmap: &IdMap, dir: &Inode, dentry: &Dentry;
            mode: bindings::umode_t, #[cfg(CREATE_SAYS_EXCL)] _excl: bool
        ) -> c_int {
            from_result(|| {
                let inode = Self::new_file(idmap, dir, bindings::S_IFREG as u16 | mode)?;
                inode.label(dir, dentry)?;
                inode.enter(dir, dentry);
                Ok(0)
            })
        }

        /// Makes a file that has no name yet (`O_TMPFILE`).
        fn create_nameless(
            idmap: &IdMap, dir: &Inode, file: &File; mode: bindings::umode_t
        ) -> c_int {
            from_result(|| Self::new_file(idmap, dir, mode)?.open_nameless(dir, file).map(|()| 0))
        }

        /// Makes a directory.
        fn make_directory(
            idmap: &IdMap, dir: &Inode, dentry: &Dentry; mode: bindings::umode_t
        ) -> *mut bindings::dentry {
            let error = from_result(|| {
                let mode = bindings::S_IFDIR as u16 | mode;
                let mut inode = NewInode::new_in(dir, idmap, mode)?;
                inode.set_directory(file_system::next_number(), &Self::DIRECTORY);
                inode.label(dir, dentry)?;
                inode.enter(dir, dentry);
                // Its `..`.
                safe_fns::inc_nlink(dir);
                Ok(0)
            });
            // Null says that the dentry was used.
            core::ptr::without_provenance_mut(error as isize as usize)
        }

        /// Changes an inode, which is locked.
        fn set_attributes(
            idmap: &IdMap, dentry: &Dentry, attributes: &Attributes
        ) -> c_int {
            from_result(|| {
                if let Some(bytes) = attributes.take_size() {
                    let inode = dentry.inode();
                    // SAFETY: Only regular files have a size that can be set. Those of this file
                    // system have such a state as long as they exist, by the type's invariant.
                    let state: &T = unsafe { &*(*inode.as_raw()).i_private.cast_const().cast() };
                    state.resize(bytes)?;
                    let size = bytes as bindings::loff_t;
                    safe_fns::address_space_helper_set_inode_size(inode, size);
                }
                inode::set_attributes(idmap, dentry, attributes).map(|()| 0)
            })
        }

        /// Ends an inode that nothing uses any more.
        fn evict(inode: &Inode) -> () {
            let raw = inode.as_raw();
            // SAFETY: This is the operation that ends the inode. No file is open on it, so that its
            // reference to the state is the last.
            let state: Option<Arc<T>> = unsafe {
                bindings::truncate_inode_pages_final(&raw mut (*raw).i_data);
                bindings::clear_inode(raw);
                let state: *const T = (*raw).i_private.cast_const().cast();
                (!state.is_null()).then(|| Arc::from_raw(state))
            };
            drop(state);
        }
    }

    /// A new file, which is to be in `dir`.
    fn new_file<'a>(idmap: &IdMap, dir: &'a Inode, mode: u16) -> Result<NewInode<'a>> {
        let mut inode = NewInode::new_in(dir, idmap, mode)?;
        let mapping = file_operations::new_mapping::<T>()?;
        let number = mapping.ino() as u64;
        let state = T::new(mapping, Options::of(dir.sb()).holes)?;
        let state = Arc::into_raw(Arc::new(state, GFP_KERNEL_ACCOUNT)?);
        let table = file_operations::table::<T>();
        // INVARIANT: The reference passes on.
        inode.set_file(number, &Self::FILE, table, state.cast_mut().cast());
        Ok(inode)
    }
}

#[pinned_drop]
impl<T: NamedFile> PinnedDrop for FileSystem<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: It is registered by the type's invariant. It is not mounted: a mount holds the
        // module. An error would say that it was not registered.
        unsafe { bindings::unregister_filesystem(self.kind.get().cast()) };
    }
}
