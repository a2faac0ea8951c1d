// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Attachments in this process, and accesses to their memory.

use std::fmt;
use std::ops::{Deref, Range};
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

use rustix::mm::{MapFlags, mmap, munmap};

use crate::{Errno, Error, Prot, Result};

/// A number that [`Memory`] can read and write in one access.
pub trait Word: Copy + Default + sealed::Sealed {}

mod sealed {
    pub trait Sealed {}
}

macro_rules! words {
    ($($word:ty),*) => { $(
        impl sealed::Sealed for $word {}
        impl Word for $word {}
    )* };
}
words!(u8, u16, u32, u64, i8, i16, i32, i64);

/// Memory of this process that shows an address space or view.
///
/// Its contents can change at any time, by the owner of the address space and by
/// other processes that have it attached. So there is no slice of it: every access
/// is volatile and copies.
///
/// An access to a page that is not there raises a signal, as with any mapped file:
/// SIGBUS for a hole and beyond the end of a file, SIGSEGV for a write to a
/// read-only mapping. A system call on such memory fails with EFAULT instead, and so do
/// the accesses whose names begin with `try`: see [below](Memory#accesses-without-signals).
pub struct Memory {
    start: NonNull<u8>,
    length: usize,
    prot: Prot,
}

// SAFETY: The mapping belongs to the process, not to a thread. All accesses are
// volatile and copy, so other processes and threads may change the memory meanwhile.
unsafe impl Send for Memory {}
// SAFETY: As above.
unsafe impl Sync for Memory {}

impl Memory {
    /// # Safety
    ///
    /// `length` bytes at `start` must be a mapping of an address space or view
    /// with at least `prot`, and stay mapped while the `Memory` exists.
    pub(crate) unsafe fn new(start: NonNull<u8>, length: usize, prot: Prot) -> Self {
        Memory {
            start,
            length,
            prot,
        }
    }

    /// The same memory once more.
    ///
    /// # Safety
    ///
    /// As for [`new()`](Memory::new).
    pub(crate) unsafe fn duplicate(&self) -> Self {
        // SAFETY: By the caller's promise.
        unsafe { Memory::new(self.start, self.length, self.prot) }
    }

    /// The length in bytes.
    // What can be empty has no attachment: the kernel refuses it.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.length
    }

    /// The protection of the attachment. A mapping that it shows may allow less.
    pub fn prot(&self) -> Prot {
        self.prot
    }

    /// The address, for system calls and other code that takes addresses.
    pub fn as_ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// Reads a number at `offset` bytes, in one access.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfWindow`], [`Error::Misaligned`].
    pub fn read<T: Word>(&self, offset: usize) -> Result<T> {
        let word = self.word::<T>(offset)?;
        // SAFETY: `word()` checked bounds and alignment, and every value of a
        // `Word` is valid.
        Ok(unsafe { word.read_volatile() })
    }

    /// Writes a number at `offset` bytes, in one access.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfWindow`], [`Error::Misaligned`], [`Error::NotWritable`].
    pub fn write<T: Word>(&self, offset: usize, value: T) -> Result<()> {
        let word = self.word::<T>(offset)?;
        self.writable()?;
        // SAFETY: `word()` checked bounds and alignment, and the mapping is
        // writable.
        unsafe { word.write_volatile(value) };
        Ok(())
    }

    /// Copies the bytes at `offset` into `bytes`, in an undefined order.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfWindow`].
    pub fn read_slice(&self, offset: usize, bytes: &mut [u8]) -> Result<()> {
        let start = self.bytes(offset, bytes.len())?;
        for (piece, at) in pieces(start as usize, bytes.len()) {
            let out = &mut bytes[at..at + piece];
            // SAFETY: `bytes()` checked the bounds of the whole, and `pieces()`
            // gives 8 only where the address is aligned to it.
            unsafe {
                let from = start.add(at);
                if piece == size_of::<u64>() {
                    out.copy_from_slice(&from.cast::<u64>().read_volatile().to_ne_bytes());
                } else {
                    out[0] = from.read_volatile();
                }
            }
        }
        Ok(())
    }

    /// Copies `bytes` to `offset`, in an undefined order.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfWindow`], [`Error::NotWritable`].
    pub fn write_slice(&self, offset: usize, bytes: &[u8]) -> Result<()> {
        let start = self.bytes(offset, bytes.len())?;
        self.writable()?;
        for (piece, at) in pieces(start as usize, bytes.len()) {
            // SAFETY: As in `read_slice()`, and the mapping is writable.
            unsafe {
                let to = start.add(at);
                match bytes[at..at + piece].try_into() {
                    Ok(word) => to.cast::<u64>().write_volatile(u64::from_ne_bytes(word)),
                    Err(_) => to.write_volatile(bytes[at]),
                }
            }
        }
        Ok(())
    }

    /// The same memory for code that uses `vm-memory`.
    ///
    /// A write through it raises SIGSEGV if [`prot()`](Memory::prot) does not contain
    /// [`Prot::WRITE`].
    #[cfg(feature = "vm-memory")]
    pub fn as_volatile_slice(&self) -> vm_memory::VolatileSlice<'_> {
        // SAFETY: The mapping has this length, and outlives the slice, which borrows
        // from it. All accesses of `VolatileSlice` are volatile.
        unsafe { vm_memory::VolatileSlice::new(self.as_ptr(), self.length) }
    }

    pub(crate) fn writable(&self) -> Result<()> {
        if self.prot.contains(Prot::WRITE) {
            Ok(())
        } else {
            Err(Error::NotWritable)
        }
    }

    fn word<T>(&self, offset: usize) -> Result<*mut T> {
        let word = self.bytes(offset, size_of::<T>())?.cast::<T>();
        if word.is_aligned() {
            Ok(word)
        } else {
            Err(Error::Misaligned {
                offset,
                align: align_of::<T>(),
            })
        }
    }

    /// The address of `length` bytes at `offset`, all of which are within the window.
    pub(crate) fn bytes(&self, offset: usize, length: usize) -> Result<*mut u8> {
        match offset.checked_add(length) {
            // SAFETY: Within the mapping, or one past its end.
            Some(end) if end <= self.length => Ok(unsafe { self.as_ptr().add(offset) }),
            _ => Err(Error::OutOfWindow {
                offset,
                length,
                window: self.length,
            }),
        }
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Memory({:p}, {:#x} bytes, {})",
            self.start, self.length, self.prot
        )
    }
}

/// Splits `length` bytes at `address` into aligned words and the single bytes
/// before and after them: pairs of size and distance from the start.
fn pieces(address: usize, length: usize) -> impl Iterator<Item = (usize, usize)> {
    const WORD: usize = size_of::<u64>();
    let mut at = 0;
    std::iter::from_fn(move || {
        let piece = match length - at {
            0 => return None,
            left if left >= WORD && (address + at) % WORD == 0 => WORD,
            _ => 1,
        };
        let this = (piece, at);
        at += piece;
        Some(this)
    })
}

/// An attachment of an address space or view in this process.
///
/// It outlives the file descriptor that it was made from, and is unmapped when it
/// is dropped. It dereferences to [`Memory`], which has the accesses.
#[derive(Debug)]
pub struct Window {
    memory: Memory,
}

impl Window {
    pub(crate) fn attach(fd: BorrowedFd<'_>, range: Range<u64>, prot: Prot) -> Result<Window> {
        let error = |errno| Error::Attach {
            range: range.clone(),
            prot,
            errno,
        };
        let length = usize::try_from(range.end.saturating_sub(range.start))
            .map_err(|_| error(Errno::OVERFLOW))?;
        // SAFETY: A new mapping at an address that the kernel chooses does not affect
        // existing ones.
        let start = unsafe {
            mmap(
                std::ptr::null_mut(),
                length,
                prot.into(),
                MapFlags::SHARED,
                fd,
                range.start,
            )
        }
        .map_err(error)?;
        let start = NonNull::new(start.cast()).ok_or_else(|| error(Errno::FAULT))?;
        // SAFETY: This is the new mapping; only drop() unmaps it.
        let memory = unsafe { Memory::new(start, length, prot) };
        Ok(Window { memory })
    }
}

impl Deref for Window {
    type Target = Memory;

    fn deref(&self) -> &Memory {
        &self.memory
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: This value owns the mapping, and nothing borrows from it any more.
        // If it fails the attachment remains, which does no harm.
        let _ = unsafe { munmap(self.as_ptr().cast(), self.len()) };
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
    use std::os::fd::AsFd;

    const PAGE: u64 = 4096;

    /// A window of a memfd: `Window` relies only on the fact that the file can be
    /// mapped.
    fn window(prot: Prot) -> Window {
        window_of(2, prot)
    }

    fn window_of(pages: u64, prot: Prot) -> Window {
        window_of_file(pages, pages, prot)
    }

    /// A window of which only some pages are there.
    pub(crate) fn window_of_file(there: u64, pages: u64, prot: Prot) -> Window {
        let file = memfd_create("window", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, there * PAGE).unwrap();
        Window::attach(file.as_fd(), 0..pages * PAGE, prot).unwrap()
    }

    #[test]
    fn words_are_read_back() {
        let window = window(Prot::READ_WRITE);
        window.write(8, 0x0123_4567_89ab_cdef_u64).unwrap();
        assert_eq!(window.read::<u64>(8).unwrap(), 0x0123_4567_89ab_cdef);
        assert_eq!(window.read::<u64>(16).unwrap(), 0);
        window.write(window.len() - 1, 7_u8).unwrap();
        assert_eq!(window.read::<u8>(window.len() - 1).unwrap(), 7);
    }

    #[test]
    fn slices_are_read_back_at_any_alignment() {
        let window = window(Prot::READ_WRITE);
        let text: Vec<u8> = (1..=100).collect();
        for offset in 0..17 {
            for length in [0, 1, 7, 8, 9, 31, 100] {
                window.write_slice(offset, &[0; 120]).unwrap();
                window.write_slice(offset, &text[..length]).unwrap();
                let mut copy = vec![0xff; length];
                window.read_slice(offset, &mut copy).unwrap();
                assert_eq!(copy, text[..length]);
                assert_eq!(window.read::<u8>(offset + length).unwrap(), 0);
            }
        }
    }

    #[test]
    fn access_past_the_end_is_refused() {
        let window = window(Prot::READ_WRITE);
        let length = window.len();
        let mut two = [0; 2];
        for offset in [length - 1, length, usize::MAX] {
            let expected = Error::OutOfWindow {
                offset,
                length: 2,
                window: length,
            };
            assert_eq!(window.read::<u16>(offset), Err(expected.clone()));
            assert_eq!(window.read_slice(offset, &mut two), Err(expected.clone()));
            assert_eq!(window.write_slice(offset, &two), Err(expected));
        }
        window.read_slice(length, &mut []).unwrap();
    }

    #[test]
    fn misaligned_word_is_refused() {
        let window = window(Prot::READ_WRITE);
        assert_eq!(
            window.read::<u32>(2),
            Err(Error::Misaligned {
                offset: 2,
                align: 4
            })
        );
    }

    #[test]
    fn write_to_a_read_only_window_is_refused() {
        let window = window(Prot::READ);
        assert_eq!(window.write(0, 1_u8), Err(Error::NotWritable));
        assert_eq!(window.write_slice(0, b"x"), Err(Error::NotWritable));
        assert_eq!(window.read::<u8>(0), Ok(0));
    }

    #[test]
    fn empty_or_reversed_range_is_refused() {
        let file = memfd_create("window", MemfdFlags::CLOEXEC).unwrap();
        #[allow(clippy::reversed_empty_ranges)]
        for range in [0..0, PAGE..0] {
            let error = Window::attach(file.as_fd(), range, Prot::READ).unwrap_err();
            assert_eq!(error.errno(), Some(Errno::INVAL));
        }
    }

    #[test]
    fn dropping_unmaps() {
        // A length that no other test uses: tests that run at the same time may map
        // something at the same address.
        let window = window_of(37, Prot::READ);
        let (start, length) = (window.as_ptr() as usize, window.len());
        let mapped = move || {
            let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
            maps.contains(&format!("{:x}-{:x} ", start, start + length))
        };
        assert!(mapped());
        drop(window);
        assert!(!mapped());
    }

    #[cfg(feature = "vm-memory")]
    #[test]
    fn volatile_slice_is_the_same_memory() {
        use vm_memory::Bytes;

        let window = window(Prot::READ_WRITE);
        window.write_slice(100, b"hello").unwrap();
        let slice = window.as_volatile_slice();
        assert_eq!(slice.len(), window.len());
        let mut copy = [0; 5];
        slice.read_slice(&mut copy, 100).unwrap();
        assert_eq!(&copy, b"hello");
    }
}
