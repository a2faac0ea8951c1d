// SPDX-License-Identifier: GPL-2.0

//! The asfd: the file with all rights to a space, and its calls.

use kernel::{
    bindings::{O_CLOEXEC, O_RDONLY, O_RDWR},
    fs::{
        file::{FileDescriptorReservation, LocalFile},
        File,
    },
    prelude::*,
    seq_file::SeqFile,
    sync::aref::ARef,
};

use crate::{
    fdinfo, file,
    file::SpaceFile,
    kvm,
    layout::Prot,
    space::{Handle, Place},
    uapi,
    view::View,
};

/// The state of an asfd.
pub(crate) struct Asfd {
    handle: Handle,
}

impl Asfd {
    pub(crate) fn new(handle: Handle) -> Self {
        Asfd { handle }
    }
}

impl SpaceFile for Asfd {
    const NAME: &'static CStr = c"[address_space]";

    fn handle(&self) -> &Handle {
        &self.handle
    }

    fn first(&self) -> u64 {
        0
    }

    fn pages(&self) -> u64 {
        self.handle.space().pages
    }

    fn prot(&self) -> Prot {
        Prot::READ | Prot::WRITE | Prot::EXEC
    }

    fn ioctl(&self, file: &File, cmd: u32, arg: UserPtr) -> Result<isize> {
        match cmd {
            uapi::MMAP => self.mmap(arg),
            uapi::MUNMAP => self.munmap(arg),
            uapi::VIEW => self.view(arg),
            uapi::KVM_MAP => kvm::map(self, file, arg),
            uapi::KVM_UNMAP => kvm::unmap(self, arg),
            _ => Err(ENOTTY),
        }
    }

    fn show(&self, out: &SeqFile) {
        fdinfo::show_space(self.handle.space(), out);
    }
}

impl Asfd {
    fn mmap(&self, ptr: UserPtr) -> Result<isize> {
        let arg: uapi::Mmap = uapi::read(ptr)?;
        let known = uapi::MAP_REPLACE | uapi::MAP_ANYWHERE | uapi::MAP_POPULATE;
        uapi::only(arg.flags, known)?;
        let anywhere = arg.flags & uapi::MAP_ANYWHERE != 0;
        let replace = arg.flags & uapi::MAP_REPLACE != 0;
        if anywhere && (replace || arg.addr != 0) {
            return Err(EINVAL);
        }
        let prot = uapi::prot(arg.prot)?;
        let part = uapi::range(arg.offset, arg.length)?;
        let target = uapi::range_within(arg.addr, arg.length, self.pages())?;
        if arg.offset + arg.length > i64::MAX as u64 {
            // No file is that long.
            return Err(EOVERFLOW);
        }
        let file = regular_file(arg.fd)?;

        let space = self.handle.space();
        let place = match (anywhere, replace) {
            (true, _) => Place::Anywhere,
            (_, true) => Place::Over(target.start),
            _ => Place::Empty(target.start),
        };
        let pages = part.end - part.start;
        let at = space.map(
            file,
            part.start as usize,
            pages as usize,
            prot,
            place,
            arg.flags & uapi::MAP_POPULATE != 0,
        )?;
        if anywhere {
            let addr = crate::space::bytes(at);
            if let Err(error) = uapi::write_back(ptr, core::mem::offset_of!(uapi::Mmap, addr), addr)
            {
                // A call that fails has changed nothing; nothing was there before.
                space.unmap(at..at + pages)?;
                return Err(error);
            }
        }
        Ok(0)
    }

    fn munmap(&self, ptr: UserPtr) -> Result<isize> {
        let arg: uapi::Munmap = uapi::read(ptr)?;
        uapi::only(arg.flags, 0)?;
        let range = uapi::range_within(arg.addr, arg.length, self.pages())?;
        self.handle.space().unmap(range)?;
        Ok(0)
    }

    fn view(&self, ptr: UserPtr) -> Result<isize> {
        let arg: uapi::View = uapi::read(ptr)?;
        uapi::only(arg.flags, 0)?;
        uapi::only(arg.reserved, 0)?;
        let prot = uapi::prot(arg.prot)?;
        if prot == Prot::NONE {
            return Err(EINVAL);
        }
        let range = uapi::range_within(arg.offset, arg.length, self.pages())?;
        let fd = FileDescriptorReservation::get_unused_fd_flags(O_CLOEXEC)?;
        // The kernel itself then refuses writable mappings of it.
        let mode = if prot.contains(Prot::WRITE) {
            O_RDWR
        } else {
            O_RDONLY
        };
        let file = file::create(mode | O_CLOEXEC, |_| {
            Ok(View::new(self.handle.share(), range, prot))
        })?;
        View::hang_in_space(&file, self.handle.space());
        let number = fd.reserved_fd();
        fd.fd_install(file);
        Ok(number as isize)
    }
}

/// The file that an fd of the caller stands for; `EBADF`, and `ELOOP` for an address
/// space, which cannot be mapped in one.
fn regular_file(fd: i32) -> Result<ARef<File>> {
    let fd = u32::try_from(fd).map_err(|_| EBADF)?;
    // SAFETY: An ioctl does not hold a file position.
    let file = unsafe { LocalFile::assume_no_fdget_pos(LocalFile::fget(fd)?) };
    if file::is_space_file(&file) {
        return Err(ELOOP);
    }
    Ok(file)
}
