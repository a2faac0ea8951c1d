// SPDX-License-Identifier: GPL-2.0

//! /proc/PID/fdinfo of an asfd and of a view.
//!
//! The layout is shown one range a line, as /proc/PID/maps shows an mm. No lock is held while it is
//! printed, or a reader of a million lines would keep the owner waiting; what is copied at a time
//! is of one moment.

use kernel::{
    fmt,
    seq_file::{
        seq_print,
        SeqFile, //
    },
    sync::atomic::{
        ordering::*,
        Atomic, //
    },
};

use crate::{
    call::file::SpaceFile,
    layout::{
        Prot,
        SpacePage, //
    },
    space::{
        bytes,
        refusals::Refusals,
        terms::Terms,
        walk::room_for_copies,
        Space, //
    },
    sys::file, //
};

/// A protection as three letters.
pub(super) struct Letters(pub(super) Prot);

impl Letters {
    fn letter(&self, bit: Prot, letter: char) -> char {
        if self.0.contains(bit) {
            letter
        } else {
            '-'
        }
    }
}

impl fmt::Display for Letters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}{}{}",
            self.letter(Prot::READ, 'r'),
            self.letter(Prot::WRITE, 'w'),
            self.letter(Prot::EXEC, 'x')
        )
    }
}

fn count(counter: &Atomic<u64>) -> u64 {
    counter.load(Relaxed)
}

pub(crate) fn show_space(asfd: &impl SpaceFile, out: &SeqFile) {
    let space: &Space = asfd.space();
    seq_print!(out, "space:\t{}\n", space.mapping.ino());
    seq_print!(out, "creator:\t{}\n", space.arenas.main().creator());
    seq_print!(out, "length:\t{}\n", bytes(space.pages));
    seq_print!(out, "mappings:\t{}\n", space.install.read().layout.len());
    seq_print!(out, "registered:\t{}\n", count(&space.counts.registered));
    seq_print!(out, "attachments:\t{}\n", count(&space.counts.attachments));
    seq_print!(out, "faults:\t{}\n", count(&space.counts.faults));
    seq_print!(out, "revocations:\t{}\n", count(&space.counts.revocations));
    seq_print!(
        out,
        "invalidations:\t{}\n",
        count(&space.counts.invalidations)
    );
    seq_print!(out, "deferred:\t{}\n", count(&space.counts.deferred));
    let memory = space.arenas.in_memory() as u64;
    seq_print!(out, "memory:\t{}\n", bytes(memory));
    let copies = space.arenas.copies() as u64;
    seq_print!(out, "copies:\t{}\n", bytes(copies));
    show_terms(asfd.terms(), out);
    seq_print!(out, "waiting:\t{}\n", space.watch.waiting());
    show_refusal(&space.refusals, SpacePage::FIRST, out);
    if let Some(page) = space.refusals.last_hole() {
        // KVM does not say at which address a guest met a hole; this does, as long as only one
        // access at a time meets one.
        seq_print!(out, "last-hole:\t{:#x}\n", bytes(page.get()));
    }
    show_slots(space, out);
    let mut ranges = room_for_copies(usize::MAX);
    let mut page = SpacePage::new(0);
    let mut more = true;
    // With no lock held meanwhile: a million lines take their time.
    while more && !file::is_full(out) {
        more = match space.copy_ranges(page, &mut ranges) {
            Ok(more) => more,
            Err(_) => break,
        };
        page = ranges.last().map_or(page, |last| last.end);
        for range in ranges.iter() {
            seq_print!(
                out,
                "{:08x}-{:08x} {}{} {:08x} ",
                bytes(range.start.get()),
                bytes(range.end.get()),
                Letters(range.prot),
                if range.segment.is_private() { 'p' } else { 's' },
                bytes(range.segment.file_page(range.offset).get())
            );
            file::print_path(range.segment.file(), out);
            seq_print!(out, "\n");
        }
    }
}

pub(crate) fn show_view(view: &impl SpaceFile, manages: bool, out: &SeqFile) {
    seq_print!(out, "space:\t{}\n", view.space().mapping.ino());
    seq_print!(out, "offset:\t{}\n", bytes(view.terms().first.get()));
    seq_print!(out, "length:\t{}\n", bytes(view.pages()));
    seq_print!(out, "prot:\t{}\n", Letters(view.prot()));
    if manages {
        seq_print!(out, "manages:\tyes\n");
    }
    show_terms(view.terms(), out);
    // Only those through the view.
    show_refusal(&view.terms().refusals, view.terms().first, out);
}

/// The memory slots, one a line: whose they are, as the reader's PID namespace numbers processes; a
/// number for the machine; that of the slot; and what it shows.
fn show_slots(space: &Space, out: &SeqFile) {
    seq_print!(out, "slots:\t{}\n", space.slots.count());
    let mut last = None;
    while let Some(told) = space.slots.next(last.as_ref()) {
        if file::is_full(out) {
            break;
        }
        let start = bytes(told.first.get());
        seq_print!(
            out,
            "slot:\tpid {} vm {} slot {} {:08x}-{:08x}\n",
            told.process.tgid_nr_ns(None),
            told.machine,
            told.slot,
            start,
            start + told.length as u64
        );
        last = Some(told);
    }
}

/// The last refused access: how many there have been, where, counted from page `first` on, how the
/// page was accessed, and why that was refused.
fn show_refusal(refusals: &Refusals, first: SpacePage, out: &SeqFile) {
    if let Some(last) = refusals.last() {
        seq_print!(
            out,
            "last-refusal:\t{} {:#x} {} {}\n",
            last.count,
            bytes(last.page - first),
            Letters(last.access),
            last.why
        );
    }
}

fn show_terms(terms: &Terms, out: &SeqFile) {
    seq_print!(out, "holes:\t{}\n", terms.policy);
}
