// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Accesses that end in an error where a plain one ends in a signal.
//!
//! The kernel makes them: `process_vm_writev()` and `process_vm_readv()` of this process on
//! itself. Those pin the pages of the other side, here the caller's buffer, and access the
//! window as any system call does: so they work on memory that cannot be pinned, with one
//! call, without a file and without a second copy.

use crate::window::{Memory, Word};
use crate::{Errno, Error, Prot, Result};

/// Between the window and a buffer.
#[derive(Clone, Copy)]
enum Copy {
    FromWindow,
    ToWindow,
}

/// # Accesses without signals
///
/// [`try_read()`](Memory::try_read), [`try_write()`](Memory::try_write) and their forms for
/// slices are for memory whose owner may take it away at any moment, in a program that is
/// not to die of it. They do what a system call does on such memory: at a hole, beyond the
/// end of a file and where the mapping does not allow the access they return
/// [`Error::Access`]. With [`Holes::ABSORB`](crate::Holes::ABSORB) a hole is absorbed as for
/// any other access. With [`Holes::WAIT`](crate::Holes::WAIT) they do not wait but fail,
/// except with [`Holes::KERNEL`](crate::Holes::KERNEL).
///
/// Each is a system call: one to two microseconds up to a page, where a plain access takes
/// nanoseconds; a megabyte takes as long as a copy of it. It needs no file descriptor, no
/// signal handler and no privilege. A seccomp filter must allow `process_vm_readv` and
/// `process_vm_writev`, and the kernel must have them (`CONFIG_CROSS_MEMORY_ATTACH`), as
/// those of distributions do: where it does not, the error has ENOSYS, or what the filter
/// says.
impl Memory {
    /// Reads a number at `offset` bytes, which need not be aligned. Its bytes may be of
    /// different moments if it is written meanwhile.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfWindow`]; [`Error::Access`]: EFAULT where a plain read would have
    /// raised a signal.
    pub fn try_read<T: Word>(&self, offset: usize) -> Result<T> {
        let mut value = T::default();
        let start = self.bytes(offset, size_of::<T>())?;
        // SAFETY: The value is so long, and every value of a `Word` is valid.
        unsafe {
            self.copy(
                Copy::FromWindow,
                start,
                (&raw mut value).cast(),
                size_of::<T>(),
            )
        }?;
        Ok(value)
    }

    /// Writes a number at `offset` bytes, which need not be aligned. A reader may see a part
    /// of it.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfWindow`], [`Error::NotWritable`]; [`Error::Access`]: EFAULT where a
    /// plain write would have raised a signal.
    pub fn try_write<T: Word>(&self, offset: usize, mut value: T) -> Result<()> {
        let start = self.bytes(offset, size_of::<T>())?;
        self.writable()?;
        // SAFETY: The value is so long, and the mapping is writable.
        unsafe {
            self.copy(
                Copy::ToWindow,
                start,
                (&raw mut value).cast(),
                size_of::<T>(),
            )
        }
    }

    /// Copies the bytes at `offset` into `bytes`.
    ///
    /// ```no_run
    /// # use address_space::{AddressSpace, Error, Prot};
    /// # fn main() -> Result<(), Error> {
    /// # let space = AddressSpace::new(1 << 20)?;
    /// let window = space.attach(.., Prot::READ)?;
    /// let mut header = [0; 64];
    /// match window.try_read_slice(0x1000, &mut header) {
    ///     Ok(()) => {}
    ///     Err(Error::Access { offset, .. }) => eprintln!("there is nothing at {offset:#x}"),
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`try_read()`](Memory::try_read). What comes before the offset in
    /// [`Error::Access`] has been copied.
    pub fn try_read_slice(&self, offset: usize, bytes: &mut [u8]) -> Result<()> {
        let start = self.bytes(offset, bytes.len())?;
        // SAFETY: The slice is so long, and borrowed for writing.
        unsafe { self.copy(Copy::FromWindow, start, bytes.as_mut_ptr(), bytes.len()) }
    }

    /// Copies `bytes` to `offset`.
    ///
    /// # Errors
    ///
    /// As [`try_write()`](Memory::try_write). What comes before the offset in
    /// [`Error::Access`] has been written.
    pub fn try_write_slice(&self, offset: usize, bytes: &[u8]) -> Result<()> {
        let start = self.bytes(offset, bytes.len())?;
        self.writable()?;
        let buffer = bytes.as_ptr().cast_mut();
        // SAFETY: The slice is so long, and only read; and the mapping is writable.
        unsafe { self.copy(Copy::ToWindow, start, buffer, bytes.len()) }
    }

    /// # Safety
    ///
    /// `length` bytes at `window` must be within this memory, which must be writable for a
    /// copy to it; as many at `buffer` must be the caller's to read, or for a copy from the
    /// window to write.
    unsafe fn copy(
        &self,
        copy: Copy,
        window: *mut u8,
        buffer: *mut u8,
        length: usize,
    ) -> Result<()> {
        // Not that of the process: its first thread may have ended.
        // SAFETY: It only returns a number.
        let own = unsafe { libc::gettid() };
        let mut done = 0;
        while done < length {
            let part = |start: *mut u8| libc::iovec {
                iov_base: start.wrapping_add(done).cast(),
                iov_len: length - done,
            };
            let (local, remote) = (part(window), part(buffer));
            // SAFETY: By the caller's promise. If other processes or threads change the
            // window meanwhile, that is as with any system call.
            let copied = unsafe {
                match copy {
                    Copy::FromWindow => libc::process_vm_writev(own, &local, 1, &remote, 1, 0),
                    Copy::ToWindow => libc::process_vm_readv(own, &local, 1, &remote, 1, 0),
                }
            };
            let errno = match usize::try_from(copied) {
                // Fewer than wanted: the next try begins with the one that failed.
                Ok(copied) if copied > 0 => {
                    done += copied;
                    continue;
                }
                Ok(_) => Errno::FAULT,
                Err(_) => {
                    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::FAULT)
                }
            };
            return Err(Error::Access {
                offset: window.addr() + done - self.as_ptr().addr(),
                access: match copy {
                    Copy::FromWindow => Prot::READ,
                    Copy::ToWindow => Prot::WRITE,
                },
                errno,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::window::tests::window_of_file;
    use crate::{Errno, Error, Prot};

    const PAGE: usize = 4096;

    /// Of a file that ends after its first page.
    fn half_a_window() -> crate::Window {
        window_of_file(1, 2, Prot::READ_WRITE)
    }

    #[test]
    fn words_and_slices_are_read_back() {
        let window = half_a_window();
        window.try_write(3, 0x0123_4567_89ab_cdef_u64).unwrap();
        assert_eq!(window.try_read::<u64>(3), Ok(0x0123_4567_89ab_cdef));
        window.try_write_slice(100, b"hello").unwrap();
        let mut copy = [0; 7];
        window.try_read_slice(99, &mut copy).unwrap();
        assert_eq!(&copy, b"\0hello\0");
        window.try_read_slice(2 * PAGE, &mut []).unwrap();
    }

    #[test]
    fn access_that_fails_says_where_and_has_done_what_comes_before() {
        let window = half_a_window();
        window.write_slice(PAGE - 5, b"hello").unwrap();
        let mut copy = [0xff; 8];
        let error = |access| Error::Access {
            offset: PAGE,
            access,
            errno: Errno::FAULT,
        };
        let read = window.try_read_slice(PAGE - 5, &mut copy);
        assert_eq!(read, Err(error(Prot::READ)));
        assert_eq!(&copy, b"hello\xff\xff\xff");
        let written = window.try_write_slice(PAGE - 3, b"abcdef");
        assert_eq!(written, Err(error(Prot::WRITE)));
        assert_eq!(window.read::<u8>(PAGE - 1), Ok(b'c'));
        assert_eq!(window.try_read::<u32>(PAGE), Err(error(Prot::READ)));
        assert_eq!(window.try_write(PAGE, 1_u8), Err(error(Prot::WRITE)));
    }

    #[test]
    fn access_past_the_end_or_against_the_protection_makes_no_call() {
        let window = window_of_file(1, 1, Prot::READ);
        let error = window.try_read::<u16>(PAGE - 1).unwrap_err();
        assert!(matches!(error, Error::OutOfWindow { .. }), "{error}");
        assert_eq!(window.try_write(0, 1_u8), Err(Error::NotWritable));
        assert_eq!(window.try_write_slice(0, b"x"), Err(Error::NotWritable));
    }
}
