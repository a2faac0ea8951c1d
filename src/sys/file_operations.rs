// SPDX-License-Identifier: GPL-2.0

//! Files on inodes of their own, with operations in Rust.
//!
//! The kernel crate's `MiscDevice` makes file operations for devices only. The shims here
//! convert arguments and delegate to [`FileOperations`], for files that can be mapped, which are
//! regular files (`file_system.rs`), or to [`Readable`], for files on anonymous inodes.
//!
//! All files that are open on an inode have one state. Whoever opens it once more, through /proc,
//! finds that by the inode, for as long as any other file has it.
//!
//! Locks: the inode's, while a file is opened again or closed, or asked for its attributes.
//!
//! C headers: [`include/linux/anon_inodes.h`](srctree/include/linux/anon_inodes.h),
//! [`include/linux/fs.h`](srctree/include/linux/fs.h)

use core::{
    marker::PhantomData,
    ops::Range,
    ptr::NonNull, //
};

use kernel::{
    error::{
        from_err_ptr,
        from_result, //
    },
    fs::File,
    mm::virt::VmaNew,
    prelude::*,
    seq_file::SeqFile,
    sync::{
        aref::ARef,
        poll::PollTable,
        Arc,
        ArcBorrow, //
    },
    uaccess::{
        UserSlice,
        UserSliceWriter, //
    },
};

use crate::sys::{
    bindings,
    file,
    file_system::{
        self,
        Mounted, //
    },
    inode::{
        self,
        callbacks,
        IdMap,
        Inode,
        InodeLock, //
    },
    mapping::Mapping,
    module::THIS_MODULE,
    safe_fns, //
};

/// The state of an inode, and what files on it do that are told to.
pub(crate) trait Control: Sync + Send + Sized + 'static {
    /// Its size in bytes.
    fn size(&self) -> u64;

    /// An ioctl.
    fn ioctl(&self, file: &File, cmd: u32, arg: UserPtr) -> Result<isize>;

    /// Prints what /proc/PID/fdinfo shows.
    fn show_fdinfo(&self, out: &SeqFile);
}

/// The state of one whose files can be mapped, too, and what they do. Offsets and lengths are
/// bytes.
pub(crate) trait FileOperations: Control {
    /// What VMAs of the file show.
    type Shown: Sync + Send;

    /// What VMAs of the file show, to which the state has a reference; an error where there is
    /// nothing yet.
    fn shown(&self) -> Result<ArcBorrow<'_, Self::Shown>>;

    /// The mapping to whose `i_mmap` VMAs of the file are linked, which the state keeps. The
    /// file's own inode, whose is the default, keeps its size.
    fn mapping(&self) -> &Mapping;

    /// Whether the inode may be opened again for writing.
    fn is_writable(&self) -> bool;

    /// How many bytes of it there are: st_blocks, in other units.
    fn allocated(&self) -> u64;

    /// Sets up a VMA that maps the file from page `first` on.
    fn mmap(&self, vma: &NewVma<'_, Self::Shown>, first: u64) -> Result;

    /// The page offset that decides where huge pages can begin in a mapping from page `first`.
    fn huge_page_offset(&self, first: usize) -> usize;

    /// Where data begins, or the first hole if `hole`, from byte `from` on, which lies in the file;
    /// the file's end is a hole. `ENXIO` where there is no more data; `EINTR`.
    fn seek(&self, from: u64, hole: bool) -> Result<u64>;

    /// fsync() of `bytes`, and msync() of a mapping of them.
    fn fsync(&self, bytes: Range<u64>, datasync: bool) -> Result;
}

/// A VMA that is being set up.
///
/// # Invariants
///
/// Its private data is what `shown` leads to, which its file keeps as long as the VMA has the file.
pub(crate) struct NewVma<'a, S> {
    vma: &'a VmaNew,
    shown: ArcBorrow<'a, S>,
}

impl<'a, S> NewVma<'a, S> {
    /// The VMA.
    pub(crate) fn vma(&self) -> &'a VmaNew {
        self.vma
    }

    /// What it shows, and its private data.
    pub(crate) fn shown(&self) -> ArcBorrow<'a, S> {
        self.shown
    }
}

/// The state of a file on an anonymous inode.
pub(crate) trait Anonymous: Sync + Send + Sized + 'static {
    /// What the file is called in /proc; no other type has the same.
    const NAME: &'static CStr;
}

/// The state of an open file that is read, and what the file does.
pub(crate) trait Readable: Anonymous {
    /// Reads what there is to `out`, and waits until there is something unless `nonblocking`;
    /// returns how many bytes.
    fn read(&self, out: &mut UserSliceWriter, nonblocking: bool) -> Result<usize>;

    /// Whether there is something to be read; `table` is told of where a change of that is
    /// notified.
    fn poll(&self, file: &File, table: &PollTable<'_>) -> bool;
}

/// Makes a regular file, called `name` in /proc, for the accesses that `flags` say; nobody else
/// may open it again. Its state `state` makes of the new file itself. `ENOMEM`, `ENFILE`, and the
/// errors of `state`.
pub(crate) fn create<T: FileOperations>(
    name: &CStr,
    flags: u32,
    state: impl FnOnce(&File) -> Result<T>,
) -> Result<ARef<File>> {
    let mode = match flags & bindings::O_ACCMODE {
        bindings::O_RDONLY => 0o400,
        _ => 0o600,
    };
    // Until the state has it mounted.
    let mounted = Mounted::new()?;
    let file = mounted.open(name, &Shims::<T>::INODE, table::<T>(), mode, flags)?;
    let state = Arc::new(state(&file)?, GFP_KERNEL_ACCOUNT)?;
    let (size, mapping) = (state.size(), state.mapping().as_raw());
    safe_fns::address_space_helper_set_file_size(&file, size as bindings::loff_t);
    // SAFETY: Nothing else knows the file yet, nor its inode. The state, which keeps the mapping,
    // goes only when the last file on the inode does, and the inode's pointer to it before.
    unsafe {
        (*file.as_ptr()).f_mapping = mapping;
        let state = Arc::into_raw(state).cast_mut().cast();
        (*(*file.as_ptr()).f_inode).i_private = state;
        (*file.as_ptr()).private_data = state;
    }
    Ok(file)
}

/// The mapping of an inode of its own, for files on another inode, which need one that stays as
/// long as what they show.
pub(super) fn new_mapping<T: FileOperations>() -> Result<Mapping> {
    // Without a state it is nobody's to open again.
    let operations = &Shims::<T>::INODE;
    let file = Mounted::new()?.open(c"", operations, table::<T>(), 0, bindings::O_RDONLY)?;
    Mapping::of(&file)
}

/// The operations of a file whose inode has a `T`.
pub(super) fn table<T: FileOperations>() -> &'static bindings::file_operations {
    &Shims::<T>::TABLE
}

/// What stat() calls for an inode that has a `T`, or none any more.
pub(super) const fn get_attributes<T: FileOperations>() -> GetAttributes {
    Some(Shims::<T>::get_attributes)
}

/// See [`get_attributes()`].
type GetAttributes = Option<
    unsafe extern "C" fn(
        *mut bindings::mnt_idmap,
        *const bindings::path,
        *mut bindings::kstat,
        u32,
        c_uint,
    ) -> c_int,
>;

/// Makes a file that is read.
pub(crate) fn create_readable<T: Readable>(
    flags: u32,
    state: impl FnOnce(&File) -> Result<T>,
) -> Result<ARef<File>> {
    create_anonymous(&Shims::<T>::READABLE, flags, state)
}

/// Makes a file that is told what to do, and nothing else.
pub(crate) fn create_control<T: Control + Anonymous>(
    flags: u32,
    state: impl FnOnce(&File) -> Result<T>,
) -> Result<ARef<File>> {
    create_anonymous(&Shims::<T>::CONTROL, flags, |file| {
        let state = state(file)?;
        let size = state.size() as bindings::loff_t;
        safe_fns::address_space_helper_set_file_size(file, size);
        Ok(state)
    })
}

fn create_anonymous<T: Anonymous>(
    operations: &'static bindings::file_operations,
    flags: u32,
    state: impl FnOnce(&File) -> Result<T>,
) -> Result<ARef<File>> {
    // SAFETY: The name and the operations are static. The new file's only reference passes on, and
    // there is no fd for it. Without private data it can be put as it is: `release` allows for
    // that.
    let file: ARef<File> = unsafe {
        let file = from_err_ptr(bindings::anon_inode_create_getfile(
            T::NAME.as_char_ptr(),
            operations,
            core::ptr::null_mut(),
            flags as c_int,
            core::ptr::null(),
        ))?;
        ARef::from_raw(NonNull::new_unchecked(file.cast()))
    };
    let state = Arc::into_raw(Arc::new(state(&file)?, GFP_KERNEL_ACCOUNT)?);
    // SAFETY: Nothing else knows the file yet.
    unsafe { (*file.as_ptr()).private_data = state.cast_mut().cast() };
    Ok(file)
}

/// Whether a file is one of this module's that can be mapped: its device cannot.
pub(crate) fn is_ours(file: &File) -> bool {
    // SAFETY: An open file has operations, which do not change.
    unsafe {
        let ops = (*file.as_ptr()).f_op;
        (*ops).owner == THIS_MODULE && (*ops).mmap.is_some()
    }
}

/// The state of a file, if that is a `T`. The file must have been found by a file descriptor.
pub(crate) fn state<T: Anonymous>(file: &File) -> Option<&T> {
    // SAFETY: Only `create_anonymous` makes files of that name, with a `T` that stays as long as
    // the file, and they get a file descriptor when they have it.
    file::is_anon_file(file, T::NAME).then(|| unsafe { &*(*file.as_ptr()).private_data.cast() })
}

struct Shims<T>(PhantomData<T>);

/// Operations: each gets the file's state, the file, and its other arguments, of which those in
/// brackets come before the file.
macro_rules! shims {
    ($(
        fn $name:ident($([$before:ident: $before_type:ty])? $($arg:ident: $type:ty),*) -> $ret:ty =
            |$state:ident, $file:ident| $body:expr;
    )*) => {$(
        /// # Safety
        ///
        /// Called as a file operation, with arguments as for that, of an open file that has these
        /// operations.
        unsafe extern "C" fn $name(
            $($before: $before_type,)? file: *mut bindings::file, $($arg: $type),*
        ) -> $ret {
            // SAFETY: The file is open, and so has a state, which only `release` takes away; no
            // operation uses the file position of an fdget_pos().
            let ($state, $file): (&T, &File) = unsafe {
                (&*(*file).private_data.cast(), File::from_raw_file(file))
            };
            $body
        }
    )*};
}

impl<T: FileOperations> Shims<T> {
    const INODE: bindings::inode_operations = bindings::inode_operations {
        setattr: file_system::SET_ATTRIBUTES,
        getattr: get_attributes::<T>(),
        ..pin_init::zeroed()
    };

    callbacks! {
        /// Says what the kernel knows of an inode, and how much there is of it.
        fn get_attributes(
            idmap: &IdMap;
            path: *const bindings::path, stat: *mut bindings::kstat, mask: u32, _flags: c_uint
        ) -> c_int {
            // SAFETY: The path leads to an inode with these operations. While it is locked the
            // state, if it has one, stays.
            let (inode, allocated) = unsafe {
                let inode: &Inode = &*(*(*path).dentry).d_inode.cast();
                let _lock = InodeLock::new(inode);
                let state: *const T = (*inode.as_raw()).i_private.cast_const().cast();
                (inode, state.as_ref().map_or(0, T::allocated))
            };
            inode::fill_stat(idmap, inode, allocated.div_ceil(512), mask, stat);
            0
        }
    }

    const TABLE: bindings::file_operations = bindings::file_operations {
        // Keeps the module loaded while a file is open.
        owner: THIS_MODULE,
        open: Some(Self::open),
        llseek: Some(Self::llseek),
        unlocked_ioctl: Some(Self::ioctl),
        compat_ioctl: bindings::compat_ptr_ioctl,
        mmap: Some(Self::mmap),
        get_unmapped_area: Some(Self::get_unmapped_area),
        fsync: Some(Self::fsync),
        show_fdinfo: Some(Self::show_fdinfo),
        release: Some(Self::release),
        ..pin_init::zeroed()
    };

    /// `ENXIO` where no file is open on the inode any more; `EACCES` for more than there is.
    ///
    /// # Safety
    ///
    /// Called as a file operation, for a file that is being opened, on an inode with these
    /// operations.
    unsafe extern "C" fn open(inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
        // SAFETY: The file has its inode already. While that is locked, what `create` has put
        // there is not taken away, and nothing else uses the file yet.
        from_result(|| unsafe {
            let opened = File::from_raw_file(file);
            let _lock = InodeLock::new(Inode::of(opened));
            let shared: *const T = (*inode).i_private.cast();
            if shared.is_null() {
                return Err(ENXIO);
            }
            let shared: Arc<T> = ArcBorrow::from_raw(shared).into();
            if opened.flags() & bindings::O_ACCMODE != bindings::O_RDONLY && !shared.is_writable() {
                return Err(EACCES);
            }
            (*file).f_mapping = shared.mapping().as_raw();
            (*file).private_data = Arc::into_raw(shared).cast_mut().cast();
            Ok(0)
        })
    }

    shims! {
        fn llseek(offset: bindings::loff_t, whence: c_int) -> bindings::loff_t = |state, file| {
            let size = state.size();
            let whence = whence as u32;
            let (offset, whence) = match whence {
                bindings::SEEK_DATA | bindings::SEEK_HOLE => {
                    // A negative offset is beyond every file's end.
                    let found = match offset as u64 {
                        from if from < size => state.seek(from, whence == bindings::SEEK_HOLE),
                        _ => Err(ENXIO),
                    };
                    match found {
                        Ok(found) => (found as bindings::loff_t, bindings::SEEK_SET),
                        Err(error) => return error.to_errno().into(),
                    }
                }
                _ => (offset, whence),
            };
            let size = size as bindings::loff_t;
            safe_fns::fixed_size_llseek(file, offset, whence as c_int, size)
        };

        fn mmap(vma: *mut bindings::vm_area_struct) -> c_int = |state, _file| {
            from_result(|| {
                let shown = state.shown()?;
                // SAFETY: The VMA is being set up, by this operation alone. It has the file, whose
                // state keeps what it shows.
                //
                // INVARIANT: As above.
                let (vma, first) = unsafe {
                    (*vma).vm_private_data = core::ptr::from_ref(&*shown).cast_mut().cast();
                    let first = (*vma).vm_pgoff as u64;
                    (NewVma { vma: VmaNew::from_raw(vma), shown }, first)
                };
                state.mmap(&vma, first).map(|()| 0)
            })
        };

        fn get_unmapped_area(
            addr: c_ulong, length: c_ulong, first: c_ulong, flags: c_ulong
        ) -> c_ulong = |state, file| {
            let first = state.huge_page_offset(first);
            safe_fns::address_space_helper_get_unmapped_area(file, addr, length, first, flags)
        };

        fn fsync(
            start: bindings::loff_t, last: bindings::loff_t, datasync: c_int
        ) -> c_int = |state, _file| {
            let bytes = start.max(0) as u64..(last.max(0) as u64).saturating_add(1);
            from_result(|| state.fsync(bytes, datasync != 0).map(|()| 0))
        };
    }
}

impl<T: Control> Shims<T> {
    const CONTROL: bindings::file_operations = bindings::file_operations {
        owner: THIS_MODULE,
        unlocked_ioctl: Some(Self::ioctl),
        compat_ioctl: bindings::compat_ptr_ioctl,
        show_fdinfo: Some(Self::show_fdinfo),
        release: Some(Self::release),
        ..pin_init::zeroed()
    };

    shims! {
        fn ioctl(cmd: c_uint, arg: c_ulong) -> c_long = |state, file| {
            match state.ioctl(file, cmd, UserPtr::from_addr(arg)) {
                Ok(value) => value as c_long,
                Err(error) => error.to_errno() as c_long,
            }
        };

        fn show_fdinfo([out: *mut bindings::seq_file]) -> () = |state, _file| {
            // SAFETY: The seq_file is this call's.
            state.show_fdinfo(unsafe { SeqFile::from_raw(out) })
        };
    }
}

impl<T: Readable> Shims<T> {
    const READABLE: bindings::file_operations = bindings::file_operations {
        owner: THIS_MODULE,
        read: Some(Self::read),
        poll: Some(Self::poll),
        release: Some(Self::release),
        ..pin_init::zeroed()
    };

    shims! {
        fn read(buf: *mut c_char, len: usize, _pos: *mut bindings::loff_t) -> isize =
            |state, file| {
                let buf = UserPtr::from_ptr(buf.cast());
                let mut out = UserSlice::new(buf, len).writer();
                match state.read(&mut out, file.flags() & bindings::O_NONBLOCK != 0) {
                    Ok(bytes) => bytes as isize,
                    Err(error) => error.to_errno() as isize,
                }
            };

        fn poll(table: *mut bindings::poll_table_struct) -> bindings::__poll_t = |state, file| {
            // SAFETY: The table is this call's, or null.
            let table = unsafe { PollTable::from_raw(table) };
            match state.poll(file, &table) {
                true => POLLIN | POLLRDNORM,
                false => 0,
            }
        };
    }
}

/// What poll() says of a file that can be read.
const POLLIN: bindings::__poll_t = 0x01;
const POLLRDNORM: bindings::__poll_t = 0x40;

impl<T> Shims<T> {
    /// # Safety
    ///
    /// As for the other operations, as the file's last use.
    unsafe extern "C" fn release(inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
        // SAFETY: The file is valid until this returns. If it was made or opened to the end, it
        // has a reference to a state, which nothing uses any more.
        let last = unsafe {
            let state: *const T = (*file).private_data.cast_const().cast();
            if state.is_null() {
                return 0;
            }
            let _lock = InodeLock::new(Inode::of(File::from_raw_file(file)));
            let last = Arc::into_unique_or_drop(Arc::from_raw(state));
            if last.is_some() {
                // Whoever opens the inode from now on must not find it.
                (*inode).i_private = core::ptr::null_mut();
            }
            last
        };
        // To end a space takes its time, and its attachments' locks.
        drop(last);
        0
    }
}
