// SPDX-License-Identifier: GPL-2.0

//! Steps and their results: the types that generator, model and machine share.
//!
//! Everything has the number of its place (the second space, the third process), so that a
//! sequence still makes sense when steps are left out of it: a step that needs what does
//! not exist is left out, too. All numbers are pages, or *cells*: halves of a page, whose
//! first words are checked.

use serde::{Deserialize, Serialize};

pub use address_space::EventKind;
pub use address_space::sys::{
    ADDRESS_SPACE_HOLE_ABSORB as ABSORB, ADDRESS_SPACE_HOLE_DENIED as HOLE_DENIED,
    ADDRESS_SPACE_HOLE_KERNEL as HOLE_KERNEL, ADDRESS_SPACE_HOLE_SIGNAL as SIGNAL,
    ADDRESS_SPACE_HOLE_WAIT as WAIT,
};

pub const PAGE: u64 = 4096;
/// Bytes of a cell.
pub const CELL: u64 = 2048;
/// Cells of a page.
pub const CELLS: u64 = PAGE / CELL;
/// Pages of a huge page.
pub const HUGE: u64 = 512;

/// Length of each address space.
pub const SPACE_PAGES: u64 = 3 * HUGE;
pub const SPACES: usize = 3;
pub const VIEWS: usize = 4;
/// The first is the one that makes all calls.
pub const PROCESSES: usize = 4;
/// Places for attachments in each process,
pub const PLACES: u64 = 5;
/// and how long each is.
pub const PLACE_PAGES: u64 = 4 * HUGE;
/// Memory slots for spaces in the virtual machine.
pub const SLOTS: usize = 3;
/// See [`Kind`].
pub const FILES: usize = 7;
/// Events files.
pub const WATCHES: usize = 2;
/// Processes that wait at holes, each with one access,
pub const WAITERS: usize = 3;
/// and the number of the guest among those that wait.
pub const GUEST: usize = WAITERS;
/// How long a task waits at most, where that is limited.
pub const TIMEOUT_MS: u64 = 20;

pub const NONE: u32 = 0;
pub const READ: u32 = 1;
pub const WRITE: u32 = 2;
pub const RW: u32 = READ | WRITE;

/// A run of pages, or of cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    pub start: u64,
    pub count: u64,
}

impl Span {
    pub fn new(start: u64, count: u64) -> Self {
        Span { start, count }
    }

    pub fn end(&self) -> u64 {
        self.start + self.count
    }

    pub fn iter(&self) -> impl Iterator<Item = u64> + use<> {
        self.start..self.end()
    }

    pub fn has(&self, number: u64) -> bool {
        (self.start..self.end()).contains(&number)
    }

    pub fn overlaps(&self, other: &Span) -> bool {
        self.start < other.end() && other.start < self.end()
    }

    /// In bytes, where it counts pages.
    pub fn bytes(&self) -> std::ops::Range<u64> {
        self.start * PAGE..self.end() * PAGE
    }
}

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    Memfd,
    Hugetlb,
    /// On a tmpfs that uses huge pages where it can.
    HugeTmpfs,
    Ext4,
    /// None: memory of the fuzzer's own, which it lends.
    Lent,
}

/// An open file: each file is open for reading and writing, and for reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Handle {
    pub file: usize,
    pub writable: bool,
}

/// What can be attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    Space(usize),
    View(usize),
}

/// A map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Map {
    pub handle: Handle,
    /// Page of the file.
    pub offset: u64,
    pub at: Span,
    pub prot: u32,
    pub replace: bool,
    pub populate: bool,
    /// Whether what is written is written to copies.
    #[serde(default)]
    pub private: bool,
}

/// An operation of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    Map(Map),
    Unmap(Span),
    Protect(Span, u32),
}

/// How memory is touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    Load,
    Store(u64),
    /// By the kernel, in a system call.
    CopyFrom,
    CopyTo(u64),
    /// By /proc/self/mem, as a debugger does.
    DebugFrom,
    DebugTo(u64),
    /// By a private futex operation that adds 0: a fault that may not release its lock.
    Futex,
}

impl Access {
    /// For reading or for writing.
    pub fn wants(self) -> u32 {
        match self {
            Access::Load | Access::CopyFrom | Access::DebugFrom => READ,
            _ => WRITE,
        }
    }

    pub fn stored(self) -> Option<u64> {
        match self {
            Access::Store(value) | Access::CopyTo(value) | Access::DebugTo(value) => Some(value),
            _ => None,
        }
    }
}

/// One access of a process: `page` counts through the places of its attachments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Touch {
    pub page: u64,
    /// Which cell of the page.
    pub cell: u64,
    pub access: Access,
}

/// One access of the guest, or of its VMM through the slot's mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestTouch {
    pub slot: usize,
    pub page: u64,
    pub cell: u64,
    pub store: Option<u64>,
}

/// Advice to the kernel for a file's memory, which changes no content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Advice {
    Sync,
    PageOut,
    Collapse,
    DropCaches,
}

/// What is wanted of the memory of a range of a space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Want {
    DontNeed,
    Remove,
    WillNeed,
    PopulateRead,
    PopulateWrite,
}

/// A step of a sequence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    // Calls on spaces.
    Create {
        space: usize,
        holes: u32,
    },
    Close(usize),
    Map {
        on: Source,
        map: Map,
    },
    MapAnywhere {
        on: Source,
        map: Map,
    },
    Unmap {
        on: Source,
        at: Span,
    },
    Protect {
        on: Source,
        at: Span,
        prot: u32,
    },
    Move {
        on: Source,
        at: Span,
        to: u64,
        replace: bool,
    },
    Batch {
        on: Source,
        changes: Vec<Change>,
    },
    Want {
        on: Source,
        at: Span,
        want: Want,
    },
    /// All of the file, from `offset` on, where `pages` is none.
    Register {
        on: Source,
        handle: Handle,
        offset: u64,
        pages: Option<u64>,
        prot: u32,
        populate: bool,
    },
    Unregister {
        on: Source,
        handle: Handle,
    },
    UnregisterAll(usize),
    MakeView {
        on: Source,
        view: usize,
        at: Span,
        prot: u32,
        holes: u32,
        manage: bool,
    },
    CloseView(usize),
    Fsync(Source),

    // Who is told of accesses to holes, and who waits for what.
    Watch {
        on: Source,
        watch: usize,
        /// All of it where it is none.
        at: Option<Span>,
        timed: bool,
    },
    Unwatch(usize),
    Poison {
        on: Source,
        at: Span,
        clear: bool,
    },
    /// Reads all events that there are.
    ReadEvents(usize),
    /// A copy of a process makes an access that waits.
    Wait {
        waiter: usize,
        process: usize,
        touch: Touch,
    },
    /// The guest does.
    GuestWait(GuestTouch),
    /// A signal that does not kill.
    Interrupt(usize),
    Kill(usize),
    /// Waits until what a process absorbs briefly is gone.
    Expire(usize),

    // Processes and their attachments. Places are counted in pages.
    Spawn(usize),
    Fork {
        from: usize,
        to: usize,
    },
    End(usize),
    Attach {
        process: usize,
        source: Source,
        at: Span,
        prot: u32,
        place: u64,
    },
    Detach {
        process: usize,
        at: Span,
    },
    Mprotect {
        process: usize,
        at: Span,
        prot: u32,
    },
    Mremap {
        process: usize,
        at: Span,
        to: u64,
    },
    Touch {
        process: usize,
        touches: Vec<Touch>,
    },
    /// Reads all hot pages.
    Sweep(usize),

    // Files, without a call on a space. In cells.
    Write {
        file: usize,
        cell: u64,
        value: u64,
        mapped: bool,
    },
    Truncate {
        file: usize,
        cells: u64,
    },
    Punch {
        file: usize,
        at: Span,
    },
    Advise {
        file: usize,
        at: Span,
        advice: Advice,
    },
    /// Compares all of the file with what should be in it.
    Check(usize),
    /// The lender takes its memory back.
    TakeBack(usize),

    // The virtual machine.
    Boot,
    Halt,
    Plug {
        source: Source,
        slot: usize,
        at: Span,
        readonly: bool,
        log: bool,
        holes: u32,
    },
    Unplug {
        source: Source,
        slot: usize,
    },
    Guest(Vec<GuestTouch>),
    GuestSweep,
    /// The VMM, through its mappings of the slots.
    Vmm(Vec<GuestTouch>),
}

impl Op {
    /// Which pages of a space a call changes; of a batch, those of its last operation.
    pub fn changed_pages(&self) -> Option<Span> {
        match self {
            Op::Map { map, .. } => Some(map.at),
            Op::Unmap { at, .. } | Op::Protect { at, .. } | Op::Move { at, .. } => Some(*at),
            Op::Batch { changes, .. } => changes.last().map(|change| match change {
                Change::Map(map) => map.at,
                Change::Unmap(at) | Change::Protect(at, _) => *at,
            }),
            _ => None,
        }
    }
}

/// The result of one access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Touched {
    Value(u64),
    Stored,
    Bus,
    Segv,
    /// The system call, or KVM_RUN, failed with EFAULT.
    Fault,
    /// The guest was left for a device that does not exist.
    Mmio,
    /// A signal with another address.
    Astray(u64),
    /// For an expectation: the write is refused in one of the two ways that KVM has.
    NoWrite,
}

/// The result of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    Done,
    /// Where a map went.
    At(u64),
    Errno(i32),
    /// With the index of the refused operation.
    Refused(Option<usize>, i32),
    Touched(Vec<Touched>),
    Told(Vec<Told>),
    /// The size in cells, and the words of all cells that are not 0.
    Content(u64, Vec<(u64, u64)>),
}

/// An event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Of {
        kind: EventKind,
        page: u64,
        access: u32,
        /// Which of all asfds and views that were ever made.
        through: usize,
    },
    /// So many were lost.
    Lost(u64),
}

/// A mapping in the layout that the kernel tells of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub at: Span,
    pub prot: u32,
    pub offset: u64,
    pub file: Option<usize>,
    pub private: bool,
}
