// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! An address space and its calls.

use std::ops::{Range, RangeBounds};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::fstat;

use crate::batch::{Batch, length_of};
use crate::call::{call, size_field};
use crate::range::bytes_of;
use crate::{
    Advice, Device, Error, KvmFlags, KvmWindow, Map, Prot, Registration, Result, Window, sys,
};

/// An address space, with all rights to it: an asfd.
///
/// Any process that has it can map files into it and unmap them. All processes and
/// virtual machines that use it see each change at once.
///
/// To give it to another process, send it like any file descriptor: it implements
/// [`AsFd`], and converts from and into [`OwnedFd`], which checks nothing.
#[derive(Debug)]
pub struct AddressSpace {
    pub(crate) fd: OwnedFd,
}

impl AddressSpace {
    /// Opens the device and creates an address space of `length` bytes in which
    /// nothing is mapped.
    ///
    /// # Errors
    ///
    /// As [`Device::open()`] and [`Device::create()`].
    pub fn new(length: u64) -> Result<AddressSpace> {
        Device::open()?.create(length)
    }

    /// The length in bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Length`], which does not happen to an open asfd.
    pub fn length(&self) -> Result<u64> {
        length(self.as_fd())
    }

    /// Maps a file. Nothing happens until [`Map::commit()`].
    ///
    /// ```no_run
    /// # use address_space::{AddressSpace, Prot};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let space = AddressSpace::new(1 << 30)?;
    /// let file = std::fs::File::open("/etc/os-release")?;
    /// // All of it, anywhere, for reading:
    /// let addr = space.map(&file).commit()?;
    /// // Its first page, in place of whatever is at 1 MiB:
    /// space.map(&file).length(4096).at(1 << 20).replace().commit()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn map<'a>(&'a self, file: &'a impl AsFd) -> Map<'a> {
        Map::new(self, file.as_fd())
    }

    /// Removes all mappings from a range (bytes, multiples of the page size). The
    /// range may contain holes; mappings that extend beyond it are cut.
    ///
    /// When this returns, no process and no virtual machine can reach what was
    /// mapped there.
    ///
    /// # Errors
    ///
    /// [`Error::Unmap`]: EINVAL if the range is empty, not aligned to pages, or not
    /// within the address space; ENOMEM.
    pub fn unmap(&self, range: impl RangeBounds<u64>) -> Result<()> {
        self.unmap_with(range, 0)
    }

    /// As [`AddressSpace::unmap()`], and lets go of files of which it unmaps the last
    /// and which are not registered, so that they can be executed, leased or sealed,
    /// and their file systems unmounted. (Otherwise that happens about a tenth of a
    /// second later. For FUSE and network file systems it only begins.)
    ///
    /// # Errors
    ///
    /// As for [`AddressSpace::unmap()`].
    pub fn unmap_and_release(&self, range: impl RangeBounds<u64>) -> Result<()> {
        self.unmap_with(range, sys::ADDRESS_SPACE_MUNMAP_RELEASE)
    }

    fn unmap_with(&self, range: impl RangeBounds<u64>, flags: u32) -> Result<()> {
        let range = self.bytes_of(range)?;
        let mut argument = sys::address_space_munmap {
            size: size_field::<sys::address_space_munmap>(),
            flags,
            addr: range.start,
            length: length_of(&range),
        };
        match call(&self.fd, &mut argument) {
            Ok(_) => Ok(()),
            Err(errno) => Err(Error::Unmap { range, errno }),
        }
    }

    /// Registers a file that will be mapped many times. Nothing happens until
    /// [`Registration::commit()`].
    ///
    /// Maps of the registered range, with no more than its protection, of this open
    /// file or a duplicate of it, by a caller with the same credentials, are then
    /// changes of the layout and nothing else. A registered range is not visible
    /// until it is mapped.
    ///
    /// ```no_run
    /// # use address_space::{AddressSpace, Prot};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let space = AddressSpace::new(1 << 30)?;
    /// # let ram = std::fs::File::open("/dev/shm/ram")?;
    /// let prot = Prot::READ_WRITE;
    /// space.register(&ram).prot(prot).commit()?;
    /// for page in (0..1 << 20).step_by(4096) {
    ///     space.map(&ram).offset(page).length(4096).at(0).prot(prot).commit()?;
    ///     space.unmap(0..4096)?;
    /// }
    /// space.unregister(&ram)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn register<'a>(&'a self, file: &'a impl AsFd) -> Registration<'a> {
        Registration::new(self, file.as_fd())
    }

    /// Ends all registrations of an open file, or of a duplicate of it. Existing
    /// mappings of the file remain.
    ///
    /// # Errors
    ///
    /// [`Error::Unregister`]: ENOENT if it is not registered; EBADF.
    pub fn unregister(&self, file: impl AsFd) -> Result<()> {
        self.unregister_with(file.as_fd().as_raw_fd(), 0)
    }

    /// Ends all registrations of all files, by whatever process: for one that takes over
    /// from a process that was killed, and does not have its open files. Existing
    /// mappings remain. With a [part](AddressSpace::part) of an address space, those
    /// that were made through the same part.
    ///
    /// # Errors
    ///
    /// [`Error::Unregister`]: ENOTTY if this is no asfd; EOPNOTSUPP if the module does
    /// not have this call yet.
    pub fn unregister_all(&self) -> Result<()> {
        self.unregister_with(-1, sys::ADDRESS_SPACE_UNREGISTER_ALL)
    }

    fn unregister_with(&self, fd: i32, flags: u32) -> Result<()> {
        let mut argument = sys::address_space_unregister {
            size: size_field::<sys::address_space_unregister>(),
            flags,
            fd,
            __reserved: 0,
        };
        match call(&self.fd, &mut argument) {
            Ok(_) => Ok(()),
            Err(errno) => Err(Error::Unregister { errno }),
        }
    }

    /// Creates a batch: changes of which all are made or none. Nothing happens until
    /// [`Batch::commit()`].
    ///
    /// ```no_run
    /// # use address_space::{AddressSpace, Prot};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let space = AddressSpace::new(1 << 30)?;
    /// # let file = std::fs::File::open("/dev/shm/ram")?;
    /// let done = space
    ///     .batch()
    ///     .unmap(0..0x10000)
    ///     .map(&file, 0x4000, 0..0x1000, Prot::READ)
    ///     .protect(0x20000..0x30000, Prot::READ)
    ///     .commit();
    /// if let Err(error) = done {
    ///     eprintln!("nothing has changed: {error}");
    ///     assert!(error.failed_operation() < Some(3));
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn batch(&self) -> Batch<'_> {
        Batch {
            space: self,
            operations: Vec::new(),
        }
    }

    /// Changes the protection of all mappings in a range (bytes, multiples of the
    /// page size). When this returns, no access can do more than `prot` allows.
    ///
    /// # Errors
    ///
    /// [`Error::Protect`]: ENOENT if there is a hole in the range; EACCES if `prot`
    /// allows more than the range of the file was mapped or registered for; EINVAL
    /// if the range is empty, not aligned to pages, or not within the address space;
    /// ENOMEM.
    pub fn protect(&self, range: impl RangeBounds<u64>, prot: Prot) -> Result<()> {
        let range = self.bytes_of(range)?;
        let mut argument = sys::address_space_protect {
            size: size_field::<sys::address_space_protect>(),
            flags: 0,
            addr: range.start,
            length: length_of(&range),
            prot: prot.bits(),
            __reserved: 0,
        };
        match call(&self.fd, &mut argument) {
            Ok(_) => Ok(()),
            Err(errno) => Err(Error::Protect { range, prot, errno }),
        }
    }

    /// Moves what is mapped in a range (bytes, multiples of the page size) to
    /// `new_addr`, and leaves a hole.
    ///
    /// # Errors
    ///
    /// [`Error::Move`]: ENOENT if there is a hole in the range; EEXIST if something
    /// is mapped at the destination; EINVAL if the range is empty or not aligned to
    /// pages, one of the two ranges is not within the address space, or they
    /// overlap; ENOMEM.
    pub fn move_to(&self, range: impl RangeBounds<u64>, new_addr: u64) -> Result<()> {
        self.move_with(range, new_addr, 0)
    }

    /// As [`move_to()`](AddressSpace::move_to), but replaces what is mapped at the
    /// destination.
    ///
    /// # Errors
    ///
    /// As [`move_to()`](AddressSpace::move_to), without EEXIST.
    pub fn move_over(&self, range: impl RangeBounds<u64>, new_addr: u64) -> Result<()> {
        self.move_with(range, new_addr, sys::ADDRESS_SPACE_MAP_REPLACE)
    }

    fn move_with(&self, range: impl RangeBounds<u64>, new_addr: u64, flags: u32) -> Result<()> {
        let range = self.bytes_of(range)?;
        let mut argument = sys::address_space_move {
            size: size_field::<sys::address_space_move>(),
            flags,
            addr: range.start,
            length: length_of(&range),
            new_addr,
        };
        match call(&self.fd, &mut argument) {
            Ok(_) => Ok(()),
            Err(errno) => Err(Error::Move {
                range,
                new_addr,
                errno,
            }),
        }
    }

    /// Says what is wanted of the memory of a range (bytes, multiples of the page size),
    /// all of which must be mapped. It stays mapped.
    ///
    /// ```no_run
    /// # use address_space::{Advice, AddressSpace, Prot};
    /// # fn main() -> Result<(), address_space::Error> {
    /// # let ram = AddressSpace::new(1 << 30)?;
    /// // What a balloon gives back:
    /// ram.advise(0x10000..0x20000, Advice::Remove)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Advise`]. Nothing has been done: ENOENT if there is a hole in the range;
    /// EACCES if the range does not allow the access; EOPNOTSUPP to remove lent memory;
    /// EINVAL if the range is empty, not aligned to pages, or not within the address
    /// space. It may have been done for a part of the range: EPERM for a file that is
    /// sealed, EOPNOTSUPP for one that can have no holes, EFAULT for a page that cannot
    /// be populated, EHWPOISON, EINTR, EAGAIN, ENOMEM.
    pub fn advise(&self, range: impl RangeBounds<u64>, advice: Advice) -> Result<()> {
        let range = self.bytes_of(range)?;
        let mut argument = sys::address_space_advise {
            size: size_field::<sys::address_space_advise>(),
            flags: 0,
            addr: range.start,
            length: length_of(&range),
            advice: advice.number(),
            __reserved: 0,
        };
        match call(&self.fd, &mut argument) {
            Ok(_) => Ok(()),
            Err(errno) => Err(Error::Advise {
                advice,
                range,
                errno,
            }),
        }
    }

    /// The bytes that a range means.
    pub(crate) fn bytes_of(&self, range: impl RangeBounds<u64>) -> Result<Range<u64>> {
        bytes_of(self.as_fd(), range)
    }

    /// By which [events](crate::Event) name accesses through the asfd.
    ///
    /// # Errors
    ///
    /// [`Error::Length`], which does not happen to an open asfd.
    pub fn id(&self) -> Result<u64> {
        id(self.as_fd())
    }

    /// Attaches a range (bytes; the start is a multiple of the page size) to this
    /// process.
    ///
    /// # Errors
    ///
    /// [`Error::Attach`]: EINVAL if the range is empty, does not start at a page, or
    /// is not within the address space; EACCES if the asfd is not open for it; ENOMEM.
    pub fn attach(&self, range: impl RangeBounds<u64>, prot: Prot) -> Result<Window> {
        Window::attach(self.as_fd(), self.bytes_of(range)?, prot)
    }

    /// Makes a range (bytes, multiples of the page size) a memory slot of a
    /// virtual machine that this process created.
    ///
    /// The slot is at `guest_phys_addr`, and follows the address space without
    /// further calls. If the guest accesses a hole, `KVM_RUN` returns EFAULT; once
    /// something is mapped there, the next `KVM_RUN` repeats the access. A write to
    /// a read-only mapping has the same result, or, if the page is present because
    /// the guest has read it, `KVM_EXIT_MMIO`, as in a read-only slot.
    ///
    /// Keep the returned [`KvmWindow`] for as long as the guest is to have the memory: a
    /// drop [removes the slot](KvmWindow#removing-the-slot).
    ///
    /// ```no_run
    /// # use address_space::{AddressSpace, KvmFlags};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # #[cfg(feature = "kvm-ioctls")] {
    /// let vm = kvm_ioctls::Kvm::new()?.create_vm()?;
    /// let ram = AddressSpace::new(1 << 20)?;
    /// let window = ram.attach_kvm(
    ///     address_space::vm_fd(&vm),
    ///     0,
    ///     0,
    ///     0..1 << 20,
    ///     KvmFlags::empty(),
    /// )?;
    /// # }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::KvmMap`]: EINVAL if `vm` is not a virtual machine, a number is not a
    /// multiple of the page size, the range is empty or not within the address
    /// space, or KVM refuses the slot, for example because it has other memory; EIO
    /// if another process created the virtual machine; EEXIST if the slot shows this
    /// address space already, or overlaps another slot; ENOMEM.
    pub fn attach_kvm(
        &self,
        vm: impl AsFd,
        slot: u32,
        guest_phys_addr: u64,
        range: impl RangeBounds<u64>,
        flags: KvmFlags,
    ) -> Result<KvmWindow> {
        KvmWindow::attach(
            self.as_fd(),
            vm.as_fd(),
            slot,
            guest_phys_addr,
            self.bytes_of(range)?,
            flags,
        )
    }
}

impl AsFd for AddressSpace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// For an asfd that was received from another process. What it is of is not checked here: on
/// another file calls are ENOTTY (or whatever its driver, or the server of its file system,
/// makes of them) but for [`length()`](AddressSpace::length), [`id()`](AddressSpace::id),
/// [`attach()`](AddressSpace::attach) and [`sync_all()`](AddressSpace::sync_all), which work
/// on other files too, and [`info()`](AddressSpace::info), which is EINVAL. Those that return
/// something new, as [`view()`](AddressSpace::view), are made on an address space only.
impl From<OwnedFd> for AddressSpace {
    fn from(fd: OwnedFd) -> Self {
        AddressSpace { fd }
    }
}

impl From<AddressSpace> for OwnedFd {
    fn from(space: AddressSpace) -> Self {
        space.fd
    }
}

/// The length of an address space or view in bytes.
pub(crate) fn length(fd: BorrowedFd<'_>) -> Result<u64> {
    let stat = fstat(fd).map_err(|errno| Error::Length { errno })?;
    Ok(u64::try_from(stat.st_size).unwrap_or(0))
}

/// The inode number of an address space or view.
pub(crate) fn id(fd: BorrowedFd<'_>) -> Result<u64> {
    let stat = fstat(fd).map_err(|errno| Error::Length { errno })?;
    Ok(stat.st_ino)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Errno;
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

    fn file(length: u64) -> OwnedFd {
        let file = memfd_create("file", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, length).unwrap();
        file
    }

    #[test]
    fn every_call_on_another_kind_of_file_is_enotty() {
        let space = AddressSpace::from(file(0x4000));
        let errors = [
            space.map(&file(0x1000)).commit().unwrap_err(),
            space.unmap(0..0x1000).unwrap_err(),
            space.register(&file(0x1000)).commit().unwrap_err(),
            space.unregister(file(0x1000)).unwrap_err(),
            space.unregister_all().unwrap_err(),
            space.batch().unmap(0..0x1000).commit().unwrap_err(),
            space.protect(0..0x1000, Prot::READ).unwrap_err(),
            space.move_to(0..0x1000, 0x2000).unwrap_err(),
            space.view(0..0x1000, Prot::READ).unwrap_err(),
            space.watch(0..0x1000, None).unwrap_err(),
            space.poison(0..0x1000).unwrap_err(),
            space
                .attach_kvm(file(0), 0, 0, 0..0x1000, KvmFlags::empty())
                .unwrap_err(),
            Device::from(file(0)).create(0x1000).unwrap_err(),
            Device::from(file(0)).query().unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.errno(), Some(Errno::NOTTY), "{error}");
            assert!(error.advice().is_some(), "{error}");
        }
    }

    #[test]
    fn asfd_converts_from_and_into_a_file_descriptor() {
        let fd = file(0x3000);
        let raw = fd.as_raw_fd();
        let space = AddressSpace::from(fd);
        assert_eq!(space.length().unwrap(), 0x3000);
        assert_eq!(OwnedFd::from(space).as_raw_fd(), raw);
    }
}
