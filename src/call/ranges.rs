// SPDX-License-Identifier: GPL-2.0

//! ADDRESS_SPACE_LAYOUT: what is mapped, for programs.
//!
//! Locks: `install`, for reading, while some ranges are copied; none while user memory is written.

use core::mem::offset_of;

use kernel::{
    page::PAGE_SIZE,
    prelude::*,
    uaccess::UserSlice, //
};

use crate::{
    call::{
        request::{
            reject_unknown_flags,
            Part, //
        },
        uapi, //
    },
    layout::SpacePage,
    space::{
        bytes,
        change::Old,
        walk::room_for_copies,
        Space, //
    },
    sys::{
        file,
        wait::is_killed, //
    },
};

/// [`uapi::LAYOUT`].
pub(crate) fn layout(space: &Space, within: &Part, ptr: UserPtr) -> Result<isize> {
    let mut arg: uapi::Layout = uapi::read(ptr)?;
    reject_unknown_flags(arg.flags, 0)?;
    let stride = arg.range_size as usize;
    if stride < size_of::<uapi::Range>() {
        return Err(EINVAL);
    }
    if stride > PAGE_SIZE {
        return Err(E2BIG);
    }
    let pages = within.range(arg.addr, arg.length)?;
    let room = arg.nr_ranges as usize;
    let length = room.checked_mul(stride).ok_or(EOVERFLOW)?;
    let mut out = UserSlice::new(UserPtr::from_addr(arg.ranges as usize), length).writer();

    let mut copies = room_for_copies(room);
    let mut told = 0;
    let mut page = pages.start;
    while told < room && page < pages.end {
        if is_killed() {
            return Err(EINTR);
        }
        let more = space.copy_ranges(page, &mut copies)?;
        page = pages.end;
        for range in copies.iter() {
            if range.start >= pages.end {
                break;
            }
            if told == room {
                page = range.start.max(pages.start);
                break;
            }
            let told_range = describe(range, pages.start, pages.end, within.first());
            out.write(&told_range)?;
            for _ in size_of::<uapi::Range>()..stride {
                out.write(&0u8)?;
            }
            told += 1;
        }
        if let Some(last) = copies.last().filter(|last| more && last.end < pages.end) {
            // What was copied has all been told, or there is no room for the rest.
            page = page.min(last.end);
        }
    }
    arg.nr_ranges = told as u32;
    arg.next = bytes(page - within.first());
    uapi::write_back(ptr, offset_of!(uapi::Layout, nr_ranges), arg.nr_ranges)?;
    uapi::write_back(ptr, offset_of!(uapi::Layout, next), arg.next)?;
    Ok(0)
}

/// The part of a range that lies in `start..end`; addresses begin with `zero`.
fn describe(range: &Old, start: SpacePage, end: SpacePage, zero: SpacePage) -> uapi::Range {
    let first = range.start.max(start);
    let offset = range
        .segment
        .file_page(range.offset + (first - range.start));
    let (mut flags, mut ino, mut device) = (0, 0, (0, 0));
    if range.segment.is_private() {
        flags |= uapi::RANGE_PRIVATE;
    }
    if range.segment.is_lent() {
        flags |= uapi::RANGE_LENT;
    } else {
        let file = range.segment.file();
        (ino, device) = (file::ino(file), file::device(file));
    }
    uapi::Range {
        addr: bytes(first - zero),
        length: bytes(range.end.min(end) - first),
        offset: bytes(offset.get()),
        ino,
        dev_major: device.0,
        dev_minor: device.1,
        prot: range.prot.bits(),
        flags,
    }
}
