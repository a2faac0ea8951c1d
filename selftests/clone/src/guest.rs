// SPDX-License-Identifier: GPL-2.0

//! The guest: a program that builds a table in its memory, and then does what it is told, as
//! often as it is told: walk the table, count, mark pages of the table, store somewhere.
//!
//! It reads each command and its argument from a port, and writes the result to another. So it
//! can be stopped, saved and cloned between any two commands.

use std::ops::Range;

use rig::flat;
use serde::{Deserialize, Serialize};

/// How much memory the guest has, in bytes, from guest address 0 on.
pub const LENGTH: usize = 16 << 20;
/// Its counters: one at the beginning of each page. This is what it writes most.
pub const COUNTERS: Range<usize> = 1 << 20..3 << 19;
/// The table: each page has the address of another, a value, and a mark.
pub const TABLE: Range<usize> = 8 << 20..16 << 20;
/// One in so many pages of the table is marked by [`Command::Mark`].
pub const MARKED: usize = 64;
/// A place that the guest does not touch by itself.
pub const UNTOUCHED: u32 = 4 << 20;

pub const PAGE: usize = 4096;
/// How many pages the counters have,
pub const COUNTER_PAGES: usize = (COUNTERS.end - COUNTERS.start) / PAGE;
/// the table,
pub const TABLE_PAGES: usize = (TABLE.end - TABLE.start) / PAGE;
/// and those of it that are marked.
pub const MARKED_PAGES: usize = TABLE_PAGES / MARKED;

/// Where commands come from, and their arguments; and where results go.
pub const COMMAND_PORT: u16 = 0x500;
pub const ARGUMENT_PORT: u16 = 0x504;
pub const RESULT_PORT: u16 = 0x508;

/// The value of a page of the table is so many times its number.
const FACTOR: u32 = 0x9e37_79b1;
/// What [`Command::Move`] stores.
const MOVED: u32 = 0x5ca1_ab1e;

/// What the guest does when it is told; each with an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Builds the table.
    Build = 1,
    /// Walks the table, through all of its pages; the sum of its values and marks.
    Walk = 2,
    /// Adds the argument to each counter; the last of them.
    Count = 3,
    /// Writes the argument as a mark.
    Mark = 4,
    /// The word at the address.
    Load = 5,
    /// How many commands there have been.
    Commands = 6,
    /// Each of these stores at the address, by an instruction of its own; the word there.
    Move = 7,
    Add = 8,
    LockedAdd = 9,
    StoreFloat = 10,
}

rig::flat_code! {
    pub program: clone_guest_start..clone_guest_end, labels: [],
    r#"
    // EBP: how many commands there have been.
    xor %ebp, %ebp
clone_guest_wait:
    mov $({command_port}), %edx
    in %dx, %eax
    mov %eax, %ecx
    test %ecx, %ecx
    jz clone_guest_wait
    mov $({argument_port}), %edx
    in %dx, %eax
    mov %eax, %edi
    mov $({table}), %esi
    inc %ebp
    dec %ecx
    jz clone_guest_build
    dec %ecx
    jz clone_guest_walk
    dec %ecx
    jz clone_guest_count
    dec %ecx
    jz clone_guest_mark
    dec %ecx
    jz clone_guest_load
    dec %ecx
    jz clone_guest_commands
    dec %ecx
    jz clone_guest_move
    dec %ecx
    jz clone_guest_add
    dec %ecx
    jz clone_guest_locked_add
    dec %ecx
    jz clone_guest_store_float
    hlt

clone_guest_build:
    xor %ebx, %ebx
1:  lea 3(%ebx, %ebx, 4), %eax
    and $({table_pages} - 1), %eax
    shl $12, %eax
    add $({table}), %eax
    mov %eax, (%esi)
    imul $({factor}), %ebx, %eax
    mov %eax, 4(%esi)
    add $4096, %esi
    inc %ebx
    cmp $({table_pages}), %ebx
    jb 1b
    jmp clone_guest_result

clone_guest_walk:
    xor %eax, %eax
1:  add 4(%esi), %eax
    add 8(%esi), %eax
    mov (%esi), %esi
    cmp $({table}), %esi
    jne 1b
    jmp clone_guest_result

clone_guest_count:
    mov $({counters}), %esi
1:  add %edi, (%esi)
    mov (%esi), %eax
    add $4096, %esi
    cmp $({counters_end}), %esi
    jb 1b
    jmp clone_guest_result

clone_guest_mark:
    mov %edi, 8(%esi)
    add $(4096 * {marked}), %esi
    cmp $({table_end}), %esi
    jb clone_guest_mark
    mov %edi, %eax
    jmp clone_guest_result

clone_guest_move:
    movl $({moved}), (%edi)
    jmp clone_guest_load
clone_guest_add:
    addl $1, (%edi)
    jmp clone_guest_load
clone_guest_locked_add:
    lock addl $1, (%edi)
    jmp clone_guest_load
clone_guest_store_float:
    fld1
    fstps (%edi)
clone_guest_load:
    mov (%edi), %eax
    jmp clone_guest_result

clone_guest_commands:
    mov %ebp, %eax
clone_guest_result:
    mov $({result_port}), %edx
    out %eax, %dx
    jmp clone_guest_wait
    "#,
    command_port = const COMMAND_PORT,
    argument_port = const ARGUMENT_PORT,
    result_port = const RESULT_PORT,
    table = const TABLE.start,
    table_end = const TABLE.end,
    table_pages = const TABLE_PAGES,
    counters = const COUNTERS.start,
    counters_end = const COUNTERS.end,
    marked = const MARKED,
    factor = const FACTOR,
    moved = const MOVED,
}

impl Command {
    /// The commands that store.
    pub const STORES: [Command; 4] = [
        Command::Move,
        Command::Add,
        Command::LockedAdd,
        Command::StoreFloat,
    ];

    /// The word where one of those has stored, if it was `before`.
    pub fn stored(self, before: u32) -> u32 {
        match self {
            Command::Move => MOVED,
            Command::Add | Command::LockedAdd => before.wrapping_add(1),
            Command::StoreFloat => 1.0_f32.to_bits(),
            _ => before,
        }
    }
}

/// What is in the guest's memory: what it has counted, and marked last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The sum of what it was told to count.
    pub count: u32,
    /// The mark.
    pub mark: u32,
}

impl State {
    /// What a walk of the table finds.
    pub fn walked(self) -> u32 {
        let values = (0..TABLE_PAGES as u32).map(|page| FACTOR.wrapping_mul(page));
        let marks = self.mark.wrapping_mul(MARKED_PAGES as u32);
        values.fold(marks, u32::wrapping_add)
    }

    /// All of the guest's memory.
    pub fn image(self) -> Vec<u8> {
        let mut image = vec![0; LENGTH];
        let code = program().bytes();
        image[flat::CODE as usize..][..code.len()].copy_from_slice(code);
        for counter in image[COUNTERS].chunks_exact_mut(PAGE) {
            counter[..4].copy_from_slice(&self.count.to_le_bytes());
        }
        for (page, bytes) in image[TABLE].chunks_exact_mut(PAGE).enumerate() {
            let next = TABLE.start + (page * 5 + 3) % TABLE_PAGES * PAGE;
            let value = FACTOR.wrapping_mul(page as u32);
            let mark = if page % MARKED == 0 { self.mark } else { 0 };
            for (place, word) in bytes.chunks_exact_mut(4).zip([next as u32, value, mark]) {
                place.copy_from_slice(&word.to_le_bytes());
            }
        }
        image
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn walk_goes_through_all_pages_and_program_fits_before_the_counters() {
        let next = |page: &usize| Some((page * 5 + 3) % TABLE_PAGES);
        let walked = std::iter::successors(Some(0), next).take(TABLE_PAGES);
        assert_eq!(walked.collect::<BTreeSet<_>>().len(), TABLE_PAGES);
        assert!(flat::CODE as usize + program().bytes().len() <= COUNTERS.start);
    }

    #[test]
    fn states_differ_in_what_is_counted_and_marked() {
        let pages = |one: &[u8], other: &[u8]| {
            let pairs = one.chunks(PAGE).zip(other.chunks(PAGE));
            pairs.filter(|(one, other)| one != other).count()
        };
        let image = |count, mark| State { count, mark }.image();
        assert_eq!(pages(&image(1, 0), &image(2, 0)), COUNTER_PAGES);
        assert_eq!(pages(&image(1, 1), &image(1, 2)), MARKED_PAGES);
        let walked = |mark| State { count: 0, mark }.walked();
        assert_eq!(walked(3).wrapping_sub(walked(2)), MARKED_PAGES as u32);
    }
}
