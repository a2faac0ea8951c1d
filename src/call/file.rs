// SPDX-License-Identifier: GPL-2.0

//! What the files of an asfd and of a view have in common: they are anonymous
//! inodes of their own, can be mapped and measured like a memfd, and cannot be read
//! or written.
//!
//! The kernel crate's `MiscDevice` makes file operations for devices only, so they
//! are made here, once for every type that is a [`SpaceFile`].

use core::ptr::NonNull;

use kernel::{
    error::{
        from_err_ptr,
        from_result, //
    },
    fs::File,
    mm::virt::VmaNew,
    prelude::*,
    seq_file::SeqFile,
    sync::aref::ARef, //
};

use crate::{
    attachment::vma,
    layout::Prot,
    space::{
        bytes,
        Handle, //
    },
    sys::bindings,
    LocalModule, //
};

/// What an open file shows of a space.
pub(crate) trait SpaceFile: Sync + Send + Sized + 'static {
    /// What the file is called in /proc.
    const NAME: &'static CStr;

    /// The space.
    fn handle(&self) -> &Handle;
    /// First page of the space that is shown.
    fn first(&self) -> u64;
    /// Number of pages.
    fn pages(&self) -> u64;
    /// What attachments may be made for.
    fn prot(&self) -> Prot;
    /// The calls.
    fn ioctl(&self, file: &File, cmd: u32, arg: UserPtr) -> Result<isize>;
    /// What /proc/PID/fdinfo shows.
    fn show(&self, out: &SeqFile);
}

/// Makes a file whose state `state` makes of the new file itself.
pub(crate) fn create<T: SpaceFile>(
    flags: u32,
    state: impl FnOnce(&File) -> Result<T>,
) -> Result<ARef<File>> {
    // SAFETY: The name and the operations are static. Without private data the file
    // can be put as it is: `release` allows for that.
    let raw = from_err_ptr(unsafe {
        bindings::anon_inode_create_getfile(
            T::NAME.as_char_ptr(),
            &Operations::<T>::TABLE,
            core::ptr::null_mut(),
            flags as c_int,
            core::ptr::null(),
        )
    })?;
    let raw = NonNull::new(raw).ok_or(ENOMEM)?;
    // SAFETY: The new file's only reference is ours, and nobody has an fd for it.
    let file: ARef<File> = unsafe { ARef::from_raw(raw.cast()) };
    let state = state(&file)?;
    let length = bytes(state.pages());
    let state = KBox::into_raw(KBox::new(state, GFP_KERNEL_ACCOUNT)?);
    // SAFETY: Nobody else knows the file yet.
    unsafe {
        bindings::address_space_helper_set_size(file.as_ptr(), length as bindings::loff_t);
        (*file.as_ptr()).private_data = state.cast();
    }
    Ok(file)
}

/// Whether a file is an asfd or a view.
pub(crate) fn is_space_file(file: &File) -> bool {
    // SAFETY: The operations of an open file do not change.
    let ops = unsafe { (*file.as_ptr()).f_op };
    // Of the module's files only these can be mapped; the device cannot.
    //
    // SAFETY: An open file has operations.
    unsafe { (*ops).owner == OWNER && (*ops).mmap.is_some() }
}

/// What keeps the module loaded: the operations of a file must name their own
/// module.
const OWNER: *mut bindings::module = kernel::module::this_module::<LocalModule>().as_ptr();

struct Operations<T>(core::marker::PhantomData<T>);

impl<T: SpaceFile> Operations<T> {
    const TABLE: bindings::file_operations = bindings::file_operations {
        owner: OWNER,
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

    /// # Safety
    ///
    /// `file` must be one that [`create`] returned for `T`, and outlive `'a`.
    unsafe fn state<'a>(file: *mut bindings::file) -> &'a T {
        // SAFETY: `create` has put it there.
        unsafe { &*(*file).private_data.cast() }
    }

    /// # Safety
    ///
    /// Called as a file operation of a file of `T`; so are all below.
    unsafe extern "C" fn llseek(
        file: *mut bindings::file,
        offset: bindings::loff_t,
        whence: c_int,
    ) -> bindings::loff_t {
        // SAFETY: By our caller.
        let state = unsafe { Self::state(file) };
        // SAFETY: As above.
        unsafe {
            bindings::fixed_size_llseek(
                file,
                offset,
                whence,
                bytes(state.pages()) as bindings::loff_t,
            )
        }
    }

    /// # Safety
    ///
    /// See [`Self::llseek`].
    unsafe extern "C" fn ioctl(file: *mut bindings::file, cmd: c_uint, arg: c_ulong) -> c_long {
        // SAFETY: By our caller.
        let state = unsafe { Self::state(file) };
        // SAFETY: The file is open, and these calls do not use its position.
        let file = unsafe { File::from_raw_file(file) };
        match state.ioctl(file, cmd, UserPtr::from_addr(arg)) {
            Ok(value) => value as c_long,
            Err(error) => error.to_errno() as c_long,
        }
    }

    /// # Safety
    ///
    /// See [`Self::llseek`].
    unsafe extern "C" fn mmap(
        file: *mut bindings::file,
        vma: *mut bindings::vm_area_struct,
    ) -> c_int {
        // SAFETY: By our caller.
        let state = unsafe { Self::state(file) };
        // SAFETY: The VMA is being set up.
        let (vma, first) = unsafe { (VmaNew::from_raw(vma), (*vma).vm_pgoff as u64) };
        from_result(|| {
            let pages = ((vma.end() - vma.start()) >> kernel::page::PAGE_SHIFT) as u64;
            let end = first.checked_add(pages).ok_or(EOVERFLOW)?;
            if end > state.pages() {
                return Err(EINVAL);
            }
            // SAFETY: The VMA is of this file, whose state keeps a handle.
            unsafe {
                vma::attach(
                    vma,
                    state.handle().space(),
                    state.first() + first,
                    state.prot(),
                )?
            };
            Ok(0)
        })
    }

    /// fsync() of the file and msync() of a window.
    ///
    /// # Safety
    ///
    /// See [`Self::llseek`].
    unsafe extern "C" fn fsync(
        file: *mut bindings::file,
        start: bindings::loff_t,
        end: bindings::loff_t,
        datasync: c_int,
    ) -> c_int {
        // SAFETY: By our caller.
        let state = unsafe { Self::state(file) };
        let page = |at: bindings::loff_t| (at.max(0) as u64 >> kernel::page::PAGE_SHIFT);
        let first = page(start).min(state.pages());
        // `end` is the last byte.
        let last = page(end).min(state.pages().saturating_sub(1)) + 1;
        from_result(|| {
            if first < last {
                let range = state.first() + first..state.first() + last;
                state.handle().space().sync(range, datasync != 0)?;
            }
            Ok(0)
        })
    }

    /// An address at which huge pages can be used: that depends on the offset in the
    /// space, where the view begins somewhere.
    ///
    /// # Safety
    ///
    /// See [`Self::llseek`].
    unsafe extern "C" fn get_unmapped_area(
        file: *mut bindings::file,
        addr: c_ulong,
        length: c_ulong,
        first: c_ulong,
        flags: c_ulong,
    ) -> c_ulong {
        // SAFETY: By our caller.
        let state = unsafe { Self::state(file) };
        // SAFETY: As above.
        unsafe {
            bindings::thp_get_unmapped_area(
                file,
                addr,
                length,
                first.wrapping_add(state.first() as usize),
                flags,
            )
        }
    }

    /// # Safety
    ///
    /// See [`Self::llseek`].
    unsafe extern "C" fn show_fdinfo(out: *mut bindings::seq_file, file: *mut bindings::file) {
        // SAFETY: By our caller; the seq_file is ours for the call.
        let (state, out) = unsafe { (Self::state(file), SeqFile::from_raw(out)) };
        state.show(out);
    }

    /// # Safety
    ///
    /// See [`Self::llseek`]; the file's last use.
    unsafe extern "C" fn release(_inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
        // SAFETY: By our caller.
        let state: *mut T = unsafe { (*file).private_data }.cast();
        // Null where making the file did not come to its end.
        if !state.is_null() {
            // SAFETY: `create` made it of a `KBox`, and nobody uses it any more.
            drop(unsafe { KBox::from_raw(state) });
        }
        0
    }
}
