// SPDX-License-Identifier: GPL-2.0

//! The asfd: the file with all rights to a space, and its calls.

use core::{mem::offset_of, ops::Range};

use kernel::{
    bindings::{O_CLOEXEC, O_RDONLY, O_RDWR},
    fs::{
        file::{FileDescriptorReservation, LocalFile},
        File,
    },
    page::PAGE_SIZE,
    prelude::*,
    seq_file::SeqFile,
    sync::aref::ARef,
};

use crate::{
    bindings,
    change::Change,
    fdinfo, file,
    file::SpaceFile,
    kvm,
    layout::Prot,
    segments::Pinned,
    space::{bytes, Handle},
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

/// What a map asks for, checked as far as it can be without the file.
struct MapRequest {
    fd: i32,
    /// Pages of the file.
    part: Range<u64>,
    /// Pages of the space; without meaning where the kernel is to choose.
    target: Range<u64>,
    prot: Prot,
    replace: bool,
    populate: bool,
}

impl Asfd {
    /// Checks the values of a map. `EOPNOTSUPP` for flags that are not in `known`.
    fn check_map(&self, op: &uapi::Op, known: u32) -> Result<MapRequest> {
        uapi::only(op.flags, known)?;
        let prot = uapi::prot(op.prot)?;
        let part = uapi::range(op.offset, op.length)?;
        let target = uapi::range_within(op.addr, op.length, self.pages())?;
        // No file is longer.
        if op.offset + op.length > i64::MAX as u64 {
            return Err(EOVERFLOW);
        }
        Ok(MapRequest {
            fd: op.fd,
            part,
            target,
            prot,
            replace: op.flags & uapi::MAP_REPLACE != 0,
            populate: op.flags & uapi::MAP_POPULATE != 0,
        })
    }

    /// The segment that a map is to show, and the page of it to begin with.
    fn obtain(&self, request: &MapRequest) -> Result<(Pinned, u64)> {
        let file = regular_file(request.fd)?;
        let part = &request.part;
        let pages = (part.end - part.start) as usize;
        let space = self.handle.space();
        let pinned = space.obtain(file, part.start as usize, pages, request.prot)?;
        let offset = part.start - pinned.segment().first() as u64;
        Ok((pinned, offset))
    }

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
        let mut request = self.check_map(&op, known)?;
        let (pinned, offset) = self.obtain(&request)?;

        let space = self.handle.space();
        let pages = request.part.end - request.part.start;
        let ops = space.ops.lock();
        let made = if anywhere {
            space
                .find_room(pages, request.part.start)
                .map(|start| request.target = start..start + pages)
        } else {
            Ok(())
        }
        .and_then(|()| {
            let change = map_of(&request, pinned, offset);
            space.change(&ops, &change).map(|()| change)
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
                self.remove(request.target)?;
                return Err(error);
            }
        }
        space.populate(core::slice::from_ref(&change));
        Ok(0)
    }

    fn munmap(&self, ptr: UserPtr) -> Result<isize> {
        let arg: uapi::Munmap = uapi::read(ptr)?;
        uapi::only(arg.flags, 0)?;
        self.remove(uapi::range_within(arg.addr, arg.length, self.pages())?)?;
        Ok(0)
    }

    fn remove(&self, pages: Range<u64>) -> Result {
        self.change(Change::Unmap { pages })
    }

    fn change(&self, change: Change) -> Result {
        let space = self.handle.space();
        let ops = space.ops.lock();
        space.change(&ops, &change)
    }

    fn protect(&self, ptr: UserPtr) -> Result<isize> {
        let arg: uapi::Protect = uapi::read(ptr)?;
        uapi::only(arg.flags | arg.reserved, 0)?;
        self.change(Change::Protect {
            prot: uapi::prot(arg.prot)?,
            pages: uapi::range_within(arg.addr, arg.length, self.pages())?,
        })?;
        Ok(0)
    }

    fn r#move(&self, ptr: UserPtr) -> Result<isize> {
        let arg: uapi::Move = uapi::read(ptr)?;
        uapi::only(arg.flags, uapi::MOVE_REPLACE)?;
        let pages = uapi::range_within(arg.addr, arg.length, self.pages())?;
        let target = uapi::range_within(arg.new_addr, arg.length, self.pages())?;
        if pages.start < target.end && target.start < pages.end {
            return Err(EINVAL);
        }
        self.change(Change::Move {
            pages,
            to: target.start,
            replace: arg.flags & uapi::MOVE_REPLACE != 0,
        })?;
        Ok(0)
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
        self.run_batch(&arg).map_err(|(index, error)| {
            if let Some(index) = index {
                // Where not even this can be told, the error is the refused
                // operation's all the same.
                let _ = uapi::write_back(ptr, offset_of!(uapi::Batch, failed), index as u32);
            }
            // Segments may have been made for nothing.
            self.handle.space().reap_later();
            error
        })?;
        Ok(0)
    }

    /// Runs a batch; on error tells which operation was refused, if it was one.
    fn run_batch(&self, arg: &uapi::Batch) -> Result<(), (Option<usize>, Error)> {
        let count = arg.nr_ops as usize;
        let mut changes = KVVec::with_capacity(count, GFP_KERNEL_ACCOUNT)
            .map_err(|error| (None, Error::from(error)))?;
        for index in 0..count {
            self.read_op(arg, index)
                .and_then(|op| self.change_of(&op))
                .and_then(|change| Ok(changes.push(change, GFP_KERNEL_ACCOUNT)?))
                .map_err(|error| (Some(index), error))?;
        }
        let space = self.handle.space();
        let ops = space.ops.lock();
        space.change_all(&ops, &changes)?;
        drop(ops);
        space.populate(&changes);
        Ok(())
    }

    fn read_op(&self, arg: &uapi::Batch, index: usize) -> Result<uapi::Op> {
        let size = arg.op_size as usize;
        let start = size.checked_mul(index).ok_or(EOVERFLOW)?;
        let addr = (arg.ops as usize).checked_add(start).ok_or(EFAULT)?;
        uapi::read_sized(UserPtr::from_addr(addr), size)
    }

    fn change_of(&self, op: &uapi::Op) -> Result<Change> {
        match op.opcode {
            uapi::OP_MMAP => {
                let known = uapi::MAP_REPLACE | uapi::MAP_POPULATE;
                let request = self.check_map(op, known)?;
                let (segment, offset) = self.obtain(&request)?;
                Ok(map_of(&request, segment, offset))
            }
            uapi::OP_MUNMAP => {
                uapi::only(op.flags, 0)?;
                Ok(Change::Unmap {
                    pages: uapi::range_within(op.addr, op.length, self.pages())?,
                })
            }
            uapi::OP_PROTECT => {
                uapi::only(op.flags, 0)?;
                Ok(Change::Protect {
                    prot: uapi::prot(op.prot)?,
                    pages: uapi::range_within(op.addr, op.length, self.pages())?,
                })
            }
            _ => Err(EOPNOTSUPP),
        }
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

fn map_of(request: &MapRequest, segment: Pinned, offset: u64) -> Change {
    Change::Map {
        pages: request.target.clone(),
        segment,
        offset,
        prot: request.prot,
        replace: request.replace,
        populate: request.populate,
    }
}

/// The file that an fd of the caller stands for; `EBADF`, and `ELOOP` for an address
/// space, which cannot be mapped in one.
fn regular_file(fd: i32) -> Result<ARef<File>> {
    let file = any_file(fd)?;
    if file::is_space_file(&file) {
        return Err(ELOOP);
    }
    Ok(file)
}

/// The file that an fd of the caller stands for; `EBADF`.
fn any_file(fd: i32) -> Result<ARef<File>> {
    let fd = u32::try_from(fd).map_err(|_| EBADF)?;
    let file = LocalFile::fget(fd)?;
    // SAFETY: An ioctl does not hold a file position.
    Ok(unsafe { LocalFile::assume_no_fdget_pos(file) })
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
