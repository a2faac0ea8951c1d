// SPDX-License-Identifier: GPL-2.0

//! The calls that change what a space shows, or make views: on an asfd, and on a view that may be
//! used so. What they say is of the part of the space that the file shows: offsets begin with it,
//! and nothing beyond it can be changed, nor mapped for more than the file allows.

use core::{
    mem::offset_of,
    ops::Range, //
};

use kernel::{
    bindings::O_CLOEXEC,
    fs::{
        file::FileDescriptorReservation,
        File, //
    },
    prelude::*,
    sync::Arc, //
};

use crate::{
    attachment::populate::populate,
    call::{
        advise,
        batch,
        file::SpaceFile,
        lend,
        ranges,
        request::{
            self,
            reject_unknown_flags,
            MapRequest,
            Part, //
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
        terms::Terms,
        Space, //
    },
    sys::{
        errno::EOPNOTSUPP,
        file, //
    },
};

/// A call on a file that may change what it shows; `ENOTTY` for those that are none.
pub(crate) fn ioctl<T: SpaceFile>(of: &T, file: &File, cmd: u32, arg: UserPtr) -> Result<isize> {
    let manager = Manager {
        is_owner: T::IS_OWNER,
        terms: of.terms(),
        space: of.space(),
        part: Part::of(of, file),
        file,
    };
    let change = || request::may_change(file).map(|()| &manager);
    match cmd {
        uapi::MMAP => change()?.mmap(arg),
        uapi::MUNMAP => change()?.munmap(arg),
        uapi::VIEW => manager.view(arg),
        uapi::LAYOUT => ranges::layout(manager.space, &manager.part, arg),
        uapi::REGISTER => change()?.register(arg),
        uapi::UNREGISTER => change()?.unregister(arg),
        uapi::BATCH => change().and_then(|of| batch::batch(of.space, &of.part, arg)),
        uapi::PROTECT => change()?.protect(arg),
        uapi::MOVE => change()?.r#move(arg),
        uapi::ADVISE => change().and_then(|of| advise::advise(of.space, &of.part, arg)),
        _ => Err(ENOTTY),
    }
}

/// Who makes such a call.
struct Manager<'a> {
    is_owner: bool,
    terms: &'a Terms,
    space: &'a Arc<Space>,
    part: Part,
    file: &'a File,
}

impl Manager<'_> {
    fn mmap(&self, ptr: UserPtr) -> Result<isize> {
        let arg: uapi::Mmap = uapi::read(ptr)?;
        let known = uapi::MAP_REPLACE | uapi::MAP_ANYWHERE | uapi::MAP_POPULATE | uapi::MAP_PRIVATE;
        // Before anything is made of the flags: a caller that probes for a new one is to get one
        // answer.
        reject_unknown_flags(arg.flags, known)?;
        let anywhere = arg.flags & uapi::MAP_ANYWHERE != 0;
        if anywhere && !self.part.is_all_of(self.space) {
            return Err(EOPNOTSUPP.into());
        }
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
        let mut request = MapRequest::check(&op, known, &self.part)?;
        let backing = lend::backing(request.fd, request.private)?;

        let space = self.space;
        let part = request.part.clone();
        let (mut ops, pinned) = space.obtain(space.ops.lock(), backing, part, request.prot)?;
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
            space.change(&mut ops, &change, &pins).map(|()| change)
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
        let pages = self.part.range(arg.addr, arg.length)?;
        let kind = Kind::Unmap;
        if arg.flags & uapi::MUNMAP_RELEASE == 0 {
            return self.change(pages, kind);
        }
        let space = self.space;
        let taken = space.change_and_take(&mut space.ops.lock(), &Change { pages, kind })?;
        space.release(taken);
        Ok(0)
    }

    fn change(&self, pages: Range<SpacePage>, kind: Kind) -> Result<isize> {
        let space = self.space;
        let mut ops = space.ops.lock();
        space.change(&mut ops, &Change { pages, kind }, &Pins::new())?;
        Ok(0)
    }

    fn protect(&self, ptr: UserPtr) -> Result<isize> {
        let arg: uapi::Protect = uapi::read(ptr)?;
        reject_unknown_flags(arg.flags | arg.reserved, 0)?;
        let prot = self.part.prot(arg.prot)?;
        let pages = self.part.range(arg.addr, arg.length)?;
        self.change(pages, Kind::Protect { prot })
    }

    fn r#move(&self, ptr: UserPtr) -> Result<isize> {
        let arg: uapi::Move = uapi::read(ptr)?;
        reject_unknown_flags(arg.flags, uapi::MOVE_REPLACE)?;
        let pages = self.part.range(arg.addr, arg.length)?;
        let target = self.part.range(arg.new_addr, arg.length)?;
        if pages.overlaps(&target) {
            return Err(EINVAL);
        }
        let (to, replace) = (target.start, arg.flags & uapi::MOVE_REPLACE != 0);
        self.change(pages, Kind::Move { to, replace })
    }

    fn register(&self, ptr: UserPtr) -> Result<isize> {
        let arg: uapi::Register = uapi::read(ptr)?;
        reject_unknown_flags(arg.flags, uapi::REGISTER_POPULATE | uapi::REGISTER_PRIVATE)?;
        let prot = self.part.prot(arg.prot)?;
        let private = arg.flags & uapi::REGISTER_PRIVATE != 0;
        let backing = lend::backing(arg.fd, private)?;
        let length = match arg.length {
            0 => request::rest_of_file(&backing.file, arg.offset)?,
            length => length,
        };
        let part = request::file_range(arg.offset, length)?;
        request::check_end_in_file(arg.offset, length)?;
        let space = self.space;
        let pinned = space.register(backing, part.clone(), prot, self.terms.id)?;
        if arg.flags & uapi::REGISTER_POPULATE != 0 {
            let segment = pinned.segment();
            space.bring_in(&pinned, segment.pages_of(&part), segment.populates(prot));
        }
        Ok(0)
    }

    fn unregister(&self, ptr: UserPtr) -> Result<isize> {
        let arg: uapi::Unregister = uapi::read(ptr)?;
        reject_unknown_flags(arg.flags, uapi::UNREGISTER_ALL)?;
        reject_unknown_flags(arg.reserved, 0)?;
        if arg.flags & uapi::UNREGISTER_ALL == 0 {
            let file = file::from_fd(arg.fd)?;
            self.space.unregister(&file)?;
        } else if arg.fd == uapi::NO_FD {
            let by = (!self.is_owner).then_some(self.terms.id);
            self.space.unregister_all(by);
        } else {
            return Err(EINVAL);
        }
        Ok(0)
    }

    fn view(&self, ptr: UserPtr) -> Result<isize> {
        let arg: uapi::View = uapi::read(ptr)?;
        reject_unknown_flags(arg.flags, uapi::VIEW_MANAGE | uapi::HOLE_FLAGS)?;
        reject_unknown_flags(arg.reserved, 0)?;
        let policy = request::policy(arg.flags)?.unwrap_or(self.terms.policy);
        let manages = arg.flags & uapi::VIEW_MANAGE != 0;
        if manages {
            request::may_change(self.file)?;
        }
        let prot = self.part.prot(arg.prot)?;
        if prot == Prot::NONE {
            return Err(EINVAL);
        }
        // The view is no file of that mount, so nobody would ask again.
        if prot.contains(Prot::EXEC) && file::is_noexec(self.file) {
            return Err(EPERM);
        }
        let range = self.part.range(arg.offset, arg.length)?;
        let fd = FileDescriptorReservation::get_unused_fd_flags(O_CLOEXEC)?;
        let name = uapi::Name::read(c"address_space_view", arg.name)?;
        let file = View::open(name.as_cstr(), range.count(), prot, manages, |file| {
            let is_owner = self.is_owner && request::may_change(self.file).is_ok();
            let share_of = (!is_owner).then_some(self.terms.share_of);
            let handle = self.terms.share();
            Terms::new(handle, range.start, policy, file::ino(file), share_of)
        })?;
        let number = fd.reserved_fd();
        fd.fd_install(file);
        Ok(number as isize)
    }
}
