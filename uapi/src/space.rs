// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, fstat, open};

use crate::batch::{Batch, length_of};
use crate::call::{call, call_for_fd, size_field};
use crate::{Errno, Error, KvmFlags, KvmWindow, Prot, Result, View, Window, page_size, sys};

/// An open `/dev/address_space`, which makes address spaces.
///
/// For a program that gives up the right to open the device before it makes
/// its last address space. Others use [`AddressSpace::new()`].
#[derive(Debug)]
pub struct Device {
    fd: OwnedFd,
}

impl Device {
    /// Opens `/dev/address_space`.
    ///
    /// # Errors
    ///
    /// [`Error::Open`]: ENOENT where the module is not loaded, EACCES where
    /// this user may not open the device.
    pub fn open() -> Result<Device> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        match open("/dev/address_space", flags, Mode::empty()) {
            Ok(fd) => Ok(Device { fd }),
            Err(errno) => Err(Error::Open { errno }),
        }
    }

    /// Makes an address space of `length` bytes in which nothing is mapped.
    ///
    /// # Errors
    ///
    /// [`Error::Create`]: EINVAL where the length is not a multiple of the page
    /// size, 0 or above 2^46; ENOMEM, EMFILE, ENFILE; EBUSY while the system is
    /// going to sleep.
    pub fn create(&self, length: u64) -> Result<AddressSpace> {
        let argument = sys::address_space_create {
            size: size_field::<sys::address_space_create>(),
            flags: 0,
            length,
        };
        match call_for_fd(&self.fd, argument) {
            Ok(fd) => Ok(AddressSpace { fd }),
            Err(errno) => Err(Error::Create { length, errno }),
        }
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A device that another process opened.
impl From<OwnedFd> for Device {
    fn from(fd: OwnedFd) -> Self {
        Device { fd }
    }
}

impl From<Device> for OwnedFd {
    fn from(device: Device) -> Self {
        device.fd
    }
}

/// An address space, with all rights to it: an asfd.
///
/// Files are mapped into it and unmapped from it, by any process that holds it.
/// Everything that has it attached, processes and virtual machines, sees each
/// change at once.
///
/// To give it to another process, send it as any file descriptor: it is
/// [`AsFd`], and `From` and into [`OwnedFd`]. A file descriptor that is no asfd
/// is found out at the first call (ENOTTY).
#[derive(Debug)]
pub struct AddressSpace {
    fd: OwnedFd,
}

impl AddressSpace {
    /// Opens the device and makes an address space of `length` bytes in which
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

    /// Begins to map a file. Nothing happens before [`Map::commit()`].
    ///
    /// ```no_run
    /// # use address_space::{AddressSpace, Prot};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let space = AddressSpace::new(1 << 30)?;
    /// let file = std::fs::File::open("/etc/os-release")?;
    /// // All of it, anywhere, to be read:
    /// let addr = space.map(&file).commit()?;
    /// // Its first page, in place of whatever is at 1 MiB:
    /// space.map(&file).length(4096).at(1 << 20).replace().commit()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn map<'a>(&'a self, file: &'a impl AsFd) -> Map<'a> {
        Map {
            space: self,
            file: file.as_fd(),
            offset: 0,
            length: None,
            addr: None,
            prot: Prot::READ,
            flags: 0,
        }
    }

    /// Empties a range (bytes, multiples of the page size). Holes in it are
    /// fine; mappings that reach past it are cut.
    ///
    /// When this returns, no process and no virtual machine reaches what was
    /// mapped there.
    ///
    /// # Errors
    ///
    /// [`Error::Unmap`]: EINVAL where the range is empty, not of whole pages, or
    /// leaves the address space; ENOMEM.
    pub fn unmap(&self, range: Range<u64>) -> Result<()> {
        let mut argument = sys::address_space_munmap {
            size: size_field::<sys::address_space_munmap>(),
            flags: 0,
            addr: range.start,
            length: length_of(&range),
        };
        match call(&self.fd, &mut argument) {
            Ok(_) => Ok(()),
            Err(errno) => Err(Error::Unmap { range, errno }),
        }
    }

    /// Begins to make a file ready for maps of it, again and again. Nothing
    /// happens before [`Registration::commit()`].
    ///
    /// Maps of what is registered, with no more than its protection, are then
    /// changes of the layout and nothing else, for this very open file and its
    /// duplicates, by a caller with the same credentials. Nothing shows before
    /// it is mapped.
    ///
    /// ```no_run
    /// # use address_space::{AddressSpace, Prot};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let space = AddressSpace::new(1 << 30)?;
    /// # let ram = std::fs::File::open("/dev/shm/ram")?;
    /// let prot = Prot::READ | Prot::WRITE;
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
        Registration {
            space: self,
            file: file.as_fd(),
            offset: 0,
            length: None,
            prot: Prot::READ,
            flags: 0,
        }
    }

    /// Ends all registrations of a file: the same open file, or a duplicate of
    /// it. What is mapped of it stays mapped.
    ///
    /// # Errors
    ///
    /// [`Error::Unregister`]: ENOENT where it is not registered; EBADF; ELOOP
    /// for an asfd or a view.
    pub fn unregister(&self, file: impl AsFd) -> Result<()> {
        let mut argument = sys::address_space_unregister {
            size: size_field::<sys::address_space_unregister>(),
            flags: 0,
            fd: file.as_fd().as_raw_fd(),
            __reserved: 0,
        };
        match call(&self.fd, &mut argument) {
            Ok(_) => Ok(()),
            Err(errno) => Err(Error::Unregister { errno }),
        }
    }

    /// Begins a batch: changes that are all made, or none. Nothing happens
    /// before [`Batch::commit()`].
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

    /// Changes what anyone may do to what is mapped in a range (bytes,
    /// multiples of the page size). When this returns, nobody can do more any
    /// longer.
    ///
    /// # Errors
    ///
    /// [`Error::Protect`]: ENOENT where there is a hole in the range; EACCES for
    /// more than what the mapping, or the registration it came from, was made
    /// for; EINVAL where the range is empty, not of whole pages, or leaves the
    /// address space; ENOMEM.
    pub fn protect(&self, range: Range<u64>, prot: Prot) -> Result<()> {
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

    /// Shows at `new_addr` what is shown in a range (bytes, multiples of the
    /// page size), and nothing in the range any more.
    ///
    /// # Errors
    ///
    /// [`Error::Move`]: ENOENT where there is a hole in the range; EEXIST where
    /// something is mapped where it goes; EINVAL where the range is empty, not
    /// of whole pages, one of the two leaves the address space, or they overlap;
    /// ENOMEM.
    pub fn move_to(&self, range: Range<u64>, new_addr: u64) -> Result<()> {
        self.move_with(range, new_addr, 0)
    }

    /// As [`move_to()`](AddressSpace::move_to), but what is mapped where it goes
    /// gives way.
    ///
    /// # Errors
    ///
    /// As [`move_to()`](AddressSpace::move_to), without EEXIST.
    pub fn move_over(&self, range: Range<u64>, new_addr: u64) -> Result<()> {
        self.move_with(range, new_addr, sys::ADDRESS_SPACE_MAP_REPLACE)
    }

    fn move_with(&self, range: Range<u64>, new_addr: u64, flags: u32) -> Result<()> {
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

    /// Makes a view of a range (bytes, multiples of the page size), which shows
    /// no more than it, for no more than `prot`.
    ///
    /// ```no_run
    /// # use address_space::{AddressSpace, Prot};
    /// # fn main() -> Result<(), address_space::Error> {
    /// let space = AddressSpace::new(1 << 30)?;
    /// let view = space.view(0..1 << 20, Prot::READ)?;
    /// assert_eq!(view.length()?, 1 << 20);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::View`]: EINVAL where the range is empty, not of whole pages, or
    /// leaves the address space, and where `prot` has no [`Prot::READ`]; ENOMEM,
    /// EMFILE, ENFILE.
    pub fn view(&self, range: Range<u64>, prot: Prot) -> Result<View> {
        let argument = sys::address_space_view {
            size: size_field::<sys::address_space_view>(),
            flags: 0,
            prot: prot.bits(),
            __reserved: 0,
            offset: range.start,
            length: length_of(&range),
        };
        match call_for_fd(&self.fd, argument) {
            Ok(fd) => Ok(View::from(fd)),
            Err(errno) => Err(Error::View { range, prot, errno }),
        }
    }

    /// Attaches a range (bytes, from a multiple of the page size) to this
    /// process.
    ///
    /// # Errors
    ///
    /// [`Error::Attach`]: EINVAL where the range is empty, does not begin at a
    /// page, or leaves the address space; EPERM for [`Prot::EXEC`]; ENOMEM.
    pub fn attach(&self, range: Range<u64>, prot: Prot) -> Result<Window> {
        Window::attach(self.as_fd(), range, prot)
    }

    /// Makes a range (bytes, multiples of the page size) a memory slot of a
    /// virtual machine that this process made.
    ///
    /// The guest finds it at `guest_phys_addr`. The slot follows the address
    /// space with no further call. An access of the guest to a hole ends
    /// `KVM_RUN` with EFAULT; once something is mapped there, `KVM_RUN` goes on
    /// with that access. A write to what is mapped for reading only ends in
    /// the same way, or, where the page is there because it was read, with
    /// `KVM_EXIT_MMIO`, as in a read-only slot.
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
    /// [`Error::KvmMap`]: EINVAL where `vm` is no virtual machine, a number is
    /// not of whole pages, the range is empty or leaves the address space, or
    /// KVM does not take the slot, one that has other memory for example; EIO
    /// where the virtual machine is another process's; EEXIST where the slot
    /// shows this address space already, or overlaps another; ENOMEM.
    pub fn attach_kvm(
        &self,
        vm: impl AsFd,
        slot: u32,
        guest_phys_addr: u64,
        range: Range<u64>,
        flags: KvmFlags,
    ) -> Result<KvmWindow> {
        KvmWindow::attach(
            self.as_fd(),
            vm.as_fd(),
            slot,
            guest_phys_addr,
            range,
            flags,
        )
    }
}

impl AsFd for AddressSpace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// An asfd that another process sent.
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

/// A file about to be mapped into an address space: made by
/// [`AddressSpace::map()`].
///
/// Unless told otherwise it maps the whole file, to be read, at an address that
/// the kernel chooses.
#[derive(Clone, Debug)]
#[must_use = "nothing is mapped before commit()"]
pub struct Map<'a> {
    space: &'a AddressSpace,
    file: BorrowedFd<'a>,
    offset: u64,
    length: Option<u64>,
    addr: Option<u64>,
    prot: Prot,
    flags: u32,
}

impl Map<'_> {
    /// From where in the file, in bytes, a multiple of the page size. Else 0.
    pub fn offset(mut self, offset: u64) -> Self {
        self.offset = offset;
        self
    }

    /// How much, in bytes, a multiple of the page size. It may reach past the
    /// end of the file: accesses to what the file does not have are SIGBUS.
    ///
    /// Else, all of the file from the offset on, its last page whole.
    pub fn length(mut self, length: u64) -> Self {
        self.length = Some(length);
        self
    }

    /// Where in the address space, in bytes, a multiple of the page size.
    pub fn at(mut self, addr: u64) -> Self {
        self.addr = Some(addr);
        self
    }

    /// Wherever the kernel likes, aligned so that huge pages can be used where
    /// the file has them. So it is without [`at()`](Map::at).
    pub fn anywhere(mut self) -> Self {
        self.addr = None;
        self
    }

    /// What may be done to the range, at the most, through this address space.
    /// Else [`Prot::READ`].
    pub fn prot(mut self, prot: Prot) -> Self {
        self.prot = prot;
        self
    }

    /// Puts the file in the place of whatever is mapped in the range, all at
    /// once: who looks sees the old or the new, never a hole. Only with
    /// [`at()`](Map::at).
    pub fn replace(mut self) -> Self {
        self.flags |= sys::ADDRESS_SPACE_MAP_REPLACE;
        self
    }

    /// Brings the file's pages into memory before it returns, as far as that is
    /// possible.
    pub fn populate(mut self) -> Self {
        self.flags |= sys::ADDRESS_SPACE_MAP_POPULATE;
        self
    }

    /// Maps the file, and returns where in the address space, in bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Map`], and nothing has changed: EEXIST where something is mapped
    /// in the range; EBADF for a file that is not open; EACCES where its mode
    /// does not allow the protection; EPERM where a seal or a noexec mount does
    /// not; ENODEV for a file that cannot be mapped or whose memory cannot be
    /// shown; ELOOP for an asfd or a view; EINVAL where a number is not of whole
    /// pages, the length 0, or the range leaves the address space; ENOSPC where
    /// no hole is large enough; ENOMEM.
    ///
    /// [`Error::FileLength`] where no length was given and the file does not
    /// tell its own.
    pub fn commit(self) -> Result<u64> {
        let length = match self.length {
            Some(length) => length,
            None => rest_of_file(self.file, self.offset)?,
        };
        let anywhere = match self.addr {
            Some(_) => 0,
            None => sys::ADDRESS_SPACE_MAP_ANYWHERE,
        };
        let mut argument = sys::address_space_mmap {
            size: size_field::<sys::address_space_mmap>(),
            flags: self.flags | anywhere,
            fd: self.file.as_raw_fd(),
            prot: self.prot.bits(),
            offset: self.offset,
            length,
            addr: self.addr.unwrap_or(0),
        };
        match call(self.space, &mut argument) {
            Ok(_) => Ok(argument.addr),
            Err(errno) => Err(Error::Map {
                addr: self.addr,
                offset: self.offset,
                length,
                errno,
            }),
        }
    }
}

/// A file about to be registered: made by [`AddressSpace::register()`].
///
/// Unless told otherwise it registers the whole file, to be read.
#[derive(Clone, Debug)]
#[must_use = "nothing is registered before commit()"]
pub struct Registration<'a> {
    space: &'a AddressSpace,
    file: BorrowedFd<'a>,
    offset: u64,
    length: Option<u64>,
    prot: Prot,
    flags: u32,
}

impl Registration<'_> {
    /// From where in the file, in bytes, a multiple of the page size. Else 0.
    pub fn offset(mut self, offset: u64) -> Self {
        self.offset = offset;
        self
    }

    /// How much, in bytes, a multiple of the page size. Else, all of the file
    /// from the offset on, as it is now.
    pub fn length(mut self, length: u64) -> Self {
        self.length = Some(length);
        self
    }

    /// The most that maps of it will ask for. Else [`Prot::READ`].
    pub fn prot(mut self, prot: Prot) -> Self {
        self.prot = prot;
        self
    }

    /// Brings the pages into memory before it returns, as far as that is
    /// possible.
    pub fn populate(mut self) -> Self {
        self.flags |= sys::ADDRESS_SPACE_REGISTER_POPULATE;
        self
    }

    /// Registers the file.
    ///
    /// # Errors
    ///
    /// [`Error::Register`]: as for a map of the file (EBADF, EACCES, EPERM,
    /// ENODEV, ELOOP, EINVAL, ENOMEM), and EINVAL where it ends before the
    /// offset and no length was given.
    pub fn commit(self) -> Result<()> {
        let error = |errno| Error::Register {
            offset: self.offset,
            length: self.length,
            errno,
        };
        if self.length == Some(0) {
            // The kernel would take it for "to the end".
            return Err(error(Errno::INVAL));
        }
        let mut argument = sys::address_space_register {
            size: size_field::<sys::address_space_register>(),
            flags: self.flags,
            fd: self.file.as_raw_fd(),
            prot: self.prot.bits(),
            offset: self.offset,
            length: self.length.unwrap_or(0),
        };
        match call(self.space, &mut argument) {
            Ok(_) => Ok(()),
            Err(errno) => Err(error(errno)),
        }
    }
}

/// From `offset` to the end of a file, its last page whole. 0 where there is
/// nothing: the kernel's to refuse.
fn rest_of_file(file: BorrowedFd<'_>, offset: u64) -> Result<u64> {
    let stat = fstat(file).map_err(|errno| Error::FileLength { errno })?;
    let length = u64::try_from(stat.st_size).unwrap_or(0);
    // A file is at most 2^63 - 1 bytes long, so this cannot overflow.
    Ok(length.saturating_sub(offset).next_multiple_of(page_size()))
}

/// The length of an address space or view in bytes.
pub(crate) fn length(fd: BorrowedFd<'_>) -> Result<u64> {
    let stat = fstat(fd).map_err(|errno| Error::Length { errno })?;
    Ok(u64::try_from(stat.st_size).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

    fn file(length: u64) -> OwnedFd {
        let file = memfd_create("file", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, length).unwrap();
        file
    }

    #[test]
    fn rest_of_a_file_is_whole_pages() {
        let page = page_size();
        let rest = |length, offset| rest_of_file(file(length).as_fd(), offset).unwrap();
        assert_eq!(rest(0, 0), 0);
        assert_eq!(rest(1, 0), page);
        assert_eq!(rest(page, 0), page);
        assert_eq!(rest(page + 1, 0), 2 * page);
        assert_eq!(rest(page + 1, page), page);
        assert_eq!(rest(page, 2 * page), 0);
    }

    #[test]
    fn every_call_on_another_kind_of_file_is_enotty() {
        let space = AddressSpace::from(file(0x4000));
        let errors = [
            space.map(&file(0x1000)).commit().unwrap_err(),
            space.unmap(0..0x1000).unwrap_err(),
            space.register(&file(0x1000)).commit().unwrap_err(),
            space.unregister(file(0x1000)).unwrap_err(),
            space.batch().unmap(0..0x1000).commit().unwrap_err(),
            space.protect(0..0x1000, Prot::READ).unwrap_err(),
            space.move_to(0..0x1000, 0x2000).unwrap_err(),
            space.view(0..0x1000, Prot::READ).unwrap_err(),
            space
                .attach_kvm(file(0), 0, 0, 0..0x1000, KvmFlags::empty())
                .unwrap_err(),
            Device::from(file(0)).create(0x1000).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.errno(), Some(Errno::NOTTY), "{error}");
            assert!(error.advice().is_some(), "{error}");
        }
    }

    #[test]
    fn file_descriptors_go_in_and_out() {
        let fd = file(0x3000);
        let raw = fd.as_raw_fd();
        let space = AddressSpace::from(fd);
        assert_eq!(space.length().unwrap(), 0x3000);
        assert_eq!(OwnedFd::from(space).as_raw_fd(), raw);
    }
}
