// SPDX-License-Identifier: GPL-2.0

//! The asfd: the file with all rights to a space, and its calls.

use core::{
    mem::offset_of,
    ops::Range, //
};

use kernel::{
    bindings::{
        O_CLOEXEC,
        O_RDONLY,
        O_RDWR, //
    },
    fs::{
        file::FileDescriptorReservation,
        File, //
    },
    page::PAGE_SIZE,
    prelude::*,
    seq_file::SeqFile, //
};

use crate::{
    call::{
        fdinfo,
        file::{
            self,
            SpaceFile, //
        },
        kvm,
        request::{
            any_file,
            regular_file,
            MapRequest, //
        },
        uapi,
        view::View, //
    },
    layout::Prot,
    space::{
        batch::Batch,
        bytes,
        change::{
            Change,
            Kind, //
        },
        segments::Pins,
        Handle, //
    },
    sys::bindings, //
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
            uapi::REGISTER => self.register(arg),
            uapi::UNREGISTER => self.unregister(arg),
            uapi::BATCH => self.batch(arg),
            uapi::PROTECT => self.protect(arg),
            uapi::MOVE => self.r#move(arg),
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
        // Before anything is made of the flags: who probes for a new one is to get
        // one answer.
        uapi::only(arg.flags, known)?;
        let anywhere = arg.flags & uapi::MAP_ANYWHERE != 0;
        if anywhere && (arg.flags & uapi::MAP_REPLACE != 0 || arg.addr != 0) {
            return Err(EINVAL);
        }
        let op = uapi::Op {
            opcode: uapi::OP_MMAP,
            flags: arg.flags,
            fd: arg.fd,
            prot: arg.prot,
            offset: arg.offset,
            length: arg.length,
            addr: arg.addr,
        };
        let mut request = MapRequest::check(&op, known, self.pages())?;
        let file = regular_file(request.fd)?;

        let space = self.handle.space();
        let first = request.part.start as usize;
        let pages = request.part.end - request.part.start;
        let (ops, pinned) =
            space.obtain(space.ops.lock(), file, first, pages as usize, request.prot)?;
        let pins = Pins::one(pinned);
        let made = if anywhere {
            space
                .find_room(pages, request.part.start)
                .map(|start| request.target = start..start + pages)
        } else {
            Ok(())
        }
        .and_then(|()| {
            let change = request.change();
            space.change(&ops, &change, &pins).map(|()| change)
        });
        drop(ops);
        let change = made.inspect_err(|_| {
            // The segment may have been made for nothing.
            space.reap_later();
        })?;
        if anywhere {
            let addr = bytes(request.target.start);
            if let Err(error) = uapi::write_back(ptr, offset_of!(uapi::Mmap, addr), addr) {
                // A call that fails has changed nothing; nothing was there before.
                self.change(request.target, Kind::Unmap)?;
                return Err(error);
            }
        }
        space.populate([&change].into_iter(), &pins);
        Ok(0)
    }

    fn munmap(&self, ptr: UserPtr) -> Result<isize> {
        let arg: uapi::Munmap = uapi::read(ptr)?;
        uapi::only(arg.flags, 0)?;
        let pages = uapi::range_within(arg.addr, arg.length, self.pages())?;
        self.change(pages, Kind::Unmap)
    }

    fn change(&self, pages: Range<u64>, kind: Kind) -> Result<isize> {
        let space = self.handle.space();
        space.change(&space.ops.lock(), &Change { pages, kind }, &Pins::new())?;
        Ok(0)
    }

    fn protect(&self, ptr: UserPtr) -> Result<isize> {
        let arg: uapi::Protect = uapi::read(ptr)?;
        uapi::only(arg.flags | arg.reserved, 0)?;
        let prot = uapi::prot(arg.prot)?;
        let pages = uapi::range_within(arg.addr, arg.length, self.pages())?;
        self.change(pages, Kind::Protect { prot })
    }

    fn r#move(&self, ptr: UserPtr) -> Result<isize> {
        let arg: uapi::Move = uapi::read(ptr)?;
        uapi::only(arg.flags, uapi::MOVE_REPLACE)?;
        let pages = uapi::range_within(arg.addr, arg.length, self.pages())?;
        let target = uapi::range_within(arg.new_addr, arg.length, self.pages())?;
        if pages.start < target.end && target.start < pages.end {
            return Err(EINVAL);
        }
        let (to, replace) = (target.start, arg.flags & uapi::MOVE_REPLACE != 0);
        self.change(pages, Kind::Move { to, replace })
    }

    fn register(&self, ptr: UserPtr) -> Result<isize> {
        let arg: uapi::Register = uapi::read(ptr)?;
        uapi::only(arg.flags, uapi::REGISTER_POPULATE)?;
        let prot = uapi::prot(arg.prot)?;
        let file = regular_file(arg.fd)?;
        let length = match arg.length {
            0 => to_the_end(&file, arg.offset)?,
            length => length,
        };
        let part = uapi::range(arg.offset, length)?;
        self.handle.space().register(
            file,
            part.start as usize,
            (part.end - part.start) as usize,
            prot,
            arg.flags & uapi::REGISTER_POPULATE != 0,
        )?;
        Ok(0)
    }

    fn unregister(&self, ptr: UserPtr) -> Result<isize> {
        let arg: uapi::Unregister = uapi::read(ptr)?;
        uapi::only(arg.flags | arg.reserved, 0)?;
        let file = any_file(arg.fd)?;
        self.handle.space().unregister(&file)?;
        Ok(0)
    }

    fn batch(&self, ptr: UserPtr) -> Result<isize> {
        let arg: uapi::Batch = uapi::read(ptr)?;
        uapi::only(arg.flags | arg.reserved, 0)?;
        if arg.nr_ops == 0 || arg.nr_ops > uapi::MAX_OPS {
            return Err(EINVAL);
        }
        let space = self.handle.space();
        let mut batch = Batch::new();
        batch.read(&arg, self.pages())?;
        let made = batch.run(space);
        drop(batch);
        if let Err((index, error)) = made {
            if let Some(index) = index {
                // Where not even this can be told, the error is the refused
                // operation's all the same.
                let _ = uapi::write_back(ptr, offset_of!(uapi::Batch, failed), index as u32);
            }
            // Segments may have been made for nothing.
            space.reap_later();
            return Err(error);
        }
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

/// How many bytes, in whole pages, a file has from `offset` on. `EINVAL` for none.
fn to_the_end(file: &File, offset: u64) -> Result<u64> {
    // SAFETY: The file is held.
    let size = unsafe { bindings::address_space_helper_size(file.as_ptr()) } as u64;
    let end = size
        .checked_next_multiple_of(PAGE_SIZE as u64)
        .ok_or(EOVERFLOW)?;
    match end.checked_sub(offset) {
        Some(length) if length > 0 => Ok(length),
        _ => Err(EINVAL),
    }
}
