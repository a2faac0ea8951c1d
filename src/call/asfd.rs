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
    prelude::*,
    seq_file::SeqFile, //
};

use crate::{
    attachment::populate::populate,
    call::{
        batch,
        fdinfo,
        file::SpaceFile,
        kvm,
        request::{
            self,
            mappable_file,
            reject_unknown_flags,
            MapRequest, //
        },
        uapi,
        view::View, //
    },
    layout::{
        Pages,
        Prot,
        SpacePage, //
    },
    segment::list::Pins,
    space::{
        bytes,
        change::{
            Change,
            Kind, //
        },
        Handle, //
    },
    sys::{
        file,
        file_operations, //
    },
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

    fn first(&self) -> SpacePage {
        SpacePage::new(0)
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
            uapi::BATCH => batch::batch(self.handle.space(), arg),
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
        // Before anything is made of the flags: a caller that probes for a new one is to get one
        // answer.
        reject_unknown_flags(arg.flags, known)?;
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
        let file = mappable_file(request.fd)?;

        let space = self.handle.space();
        let part = request.part.clone();
        let (ops, pinned) = space.obtain(space.ops.lock(), file, part, request.prot)?;
        let mut pins = Pins::new();
        pins.push(pinned)?;
        let made = if anywhere {
            space
                .find_room(&ops, &request.part)
                .map(|start| request.target = start..start + request.part.count())
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
            let addr = bytes(request.target.start.get());
            if let Err(error) = uapi::write_back(ptr, offset_of!(uapi::Mmap, addr), addr) {
                // A call that fails has changed nothing; nothing was there before.
                self.change(request.target, Kind::Unmap)?;
                return Err(error);
            }
        }
        populate(space, [&change].into_iter(), &pins);
        Ok(0)
    }

    fn munmap(&self, ptr: UserPtr) -> Result<isize> {
        let arg: uapi::Munmap = uapi::read(ptr)?;
        reject_unknown_flags(arg.flags, uapi::MUNMAP_RELEASE)?;
        let pages = request::space_range(arg.addr, arg.length, self.pages())?;
        let done = self.change(pages, Kind::Unmap)?;
        if arg.flags & uapi::MUNMAP_RELEASE != 0 {
            self.handle.space().release_idle();
        }
        Ok(done)
    }

    fn change(&self, pages: Range<SpacePage>, kind: Kind) -> Result<isize> {
        let space = self.handle.space();
        let ops = space.ops.lock();
        space.change(&ops, &Change { pages, kind }, &Pins::new())?;
        Ok(0)
    }

    fn protect(&self, ptr: UserPtr) -> Result<isize> {
        let arg: uapi::Protect = uapi::read(ptr)?;
        reject_unknown_flags(arg.flags | arg.reserved, 0)?;
        let prot = request::prot(arg.prot)?;
        let pages = request::space_range(arg.addr, arg.length, self.pages())?;
        self.change(pages, Kind::Protect { prot })
    }

    fn r#move(&self, ptr: UserPtr) -> Result<isize> {
        let arg: uapi::Move = uapi::read(ptr)?;
        reject_unknown_flags(arg.flags, uapi::MOVE_REPLACE)?;
        let pages = request::space_range(arg.addr, arg.length, self.pages())?;
        let target = request::space_range(arg.new_addr, arg.length, self.pages())?;
        if pages.overlaps(&target) {
            return Err(EINVAL);
        }
        let (to, replace) = (target.start, arg.flags & uapi::MOVE_REPLACE != 0);
        self.change(pages, Kind::Move { to, replace })
    }

    fn register(&self, ptr: UserPtr) -> Result<isize> {
        let arg: uapi::Register = uapi::read(ptr)?;
        reject_unknown_flags(arg.flags, uapi::REGISTER_POPULATE)?;
        let prot = request::prot(arg.prot)?;
        let file = mappable_file(arg.fd)?;
        let length = match arg.length {
            0 => request::rest_of_file(&file, arg.offset)?,
            length => length,
        };
        let part = request::file_range(arg.offset, length)?;
        let space = self.handle.space();
        let pinned = space.register(file, part.clone(), prot)?;
        if arg.flags & uapi::REGISTER_POPULATE != 0 {
            let segment = pinned.segment();
            space.bring_in(&pinned, segment.pages_of(&part), prot);
        }
        Ok(0)
    }

    fn unregister(&self, ptr: UserPtr) -> Result<isize> {
        let arg: uapi::Unregister = uapi::read(ptr)?;
        reject_unknown_flags(arg.flags | arg.reserved, 0)?;
        let file = file::from_fd(arg.fd)?;
        self.handle.space().unregister(&file)?;
        Ok(0)
    }

    fn view(&self, ptr: UserPtr) -> Result<isize> {
        let arg: uapi::View = uapi::read(ptr)?;
        reject_unknown_flags(arg.flags, 0)?;
        reject_unknown_flags(arg.reserved, 0)?;
        let prot = request::prot(arg.prot)?;
        if prot == Prot::NONE {
            return Err(EINVAL);
        }
        let range = request::space_range(arg.offset, arg.length, self.pages())?;
        let fd = FileDescriptorReservation::get_unused_fd_flags(O_CLOEXEC)?;
        // The kernel itself then refuses writable mappings of it.
        let mode = if prot.contains(Prot::WRITE) {
            O_RDWR
        } else {
            O_RDONLY
        };
        let file = file_operations::create(mode | O_CLOEXEC, |_| {
            Ok(View::new(self.handle.share(), range, prot))
        })?;
        let number = fd.reserved_fd();
        fd.fd_install(file);
        Ok(number as isize)
    }
}
