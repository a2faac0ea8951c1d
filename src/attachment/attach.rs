// SPDX-License-Identifier: GPL-2.0

//! How attachments are made, recognised and counted.
//!
//! All of this runs with the mmap lock of the attached process held, by the callers.

use kernel::{
    mm::virt::VmaRef,
    prelude::*,
    sync::atomic::ordering::*, //
};

use crate::{
    attachment::{
        access, fault,
        operations::{
            Buffer,
            Table,
            VmOperations, //
        },
        vma::{
            private_data,
            Attachment,
            FaultContext,
            VmFault, //
        },
    },
    layout::{
        Prot,
        SpacePage, //
    },
    space::{
        terms::{
            Sink,
            Terms, //
        },
        Space, //
    },
    sys::{
        bindings,
        file_operations::NewVma, //
    },
};

/// What attachments do.
struct Operations;

static TABLE: Table = Table::of::<Operations>();

impl VmOperations for Operations {
    fn open(attachment: Attachment<'_>) {
        let counts = &attachment.space().counts;
        counts.attachments.fetch_add(1, Relaxed);
        // fork() is about to copy the parent's entries, or mremap() to move them. The module's
        // zaps do not take the mmap lock, on which both rely for huge entries. copy_huge_pmd()
        // reads a special one without a lock and does not look again. move_huge_pmd() has none in
        // either place for a moment; it holds the locks of both page tables, but a zap that sees
        // no entry waits for no lock. So an entry could come to a place that the zap has passed,
        // when its page is put already. There must be none to be copied or moved, and none can be
        // made before that is over: the VMA that has them is write-locked.
        //
        // (Entries of single pages are read and set under the locks of both page tables, which a
        // zap takes for each, and the new VMA is after the old one in `i_mmap` by then, so a zap
        // comes to it later. mremap() moves whole page tables with `i_mmap` locked.)
        //
        // Nor may a child see what its parent has written to its sink.
        attachment.open();
    }

    fn close(attachment: Attachment<'_>) {
        let space = attachment.space();
        space.counts.attachments.fetch_sub(1, Relaxed);
        let start = attachment.vma().start();
        space.slots.remove(attachment.mm_ptr(), start);
        attachment.close();
    }

    fn fault(context: FaultContext<'_>) -> VmFault {
        fault::fault(context)
    }

    fn huge_fault(context: FaultContext<'_>) -> VmFault {
        fault::huge_fault(context)
    }

    fn pfn_mkwrite(context: FaultContext<'_>) -> VmFault {
        fault::write_fault(context)
    }

    /// Where KVM may look there must be no entry for reading where there may be one for writing
    /// (`fault.rs`): what mprotect() makes writable is to be installed anew. And so is what the
    /// attachment may execute, or mprotect() would give all entries the right to it, also those
    /// of what the space does not show for it.
    fn mprotect(
        attachment: Attachment<'_>,
        start: usize,
        end: usize,
        flags: bindings::vm_flags_t,
    ) -> Result {
        // Also where it was writable before: a new protection key has the entries made anew.
        let write = attachment.has_secondary_mmu() && flags & bindings::VM_WRITE != 0;
        if write || flags & bindings::VM_EXEC != 0 {
            attachment.zap_exclusively(start, end);
        }
        Ok(())
    }

    fn access(attachment: Attachment<'_>, addr: usize, buffer: Buffer<'_>) -> Result<usize> {
        access::access(attachment, addr, buffer)
    }
}

/// Makes a new VMA an attachment that shows the space from page `first` on, for no more than
/// `prot`.
///
/// `EINVAL` for a private mapping, `EACCES` for more than `prot`, `ENOMEM`. The caller has checked
/// that the VMA lies within what the file shows.
pub(crate) fn attach(new: &NewVma<'_, Terms>, first: SpacePage, prot: Prot) -> Result {
    let vma = new.vma();
    use bindings::{
        ADDRESS_SPACE_MAYSHARE,
        VM_DONTDUMP,
        VM_DONTEXPAND,
        VM_EXEC,
        VM_IO,
        VM_MAYEXEC,
        VM_MAYWRITE,
        VM_PFNMAP,
        VM_WRITE, //
    };
    // Not VM_SHARED: the kernel clears it for a shared mapping of a file that is open for reading
    // only.
    if vma.flags() & ADDRESS_SPACE_MAYSHARE == 0 {
        return Err(EINVAL);
    }
    let mut refused = 0;
    if !prot.contains(Prot::WRITE) {
        refused |= VM_WRITE | VM_MAYWRITE;
    }
    if !prot.contains(Prot::EXEC) {
        refused |= VM_EXEC | VM_MAYEXEC;
    }
    if vma.flags() & (refused & (VM_WRITE | VM_EXEC)) != 0 {
        return Err(EACCES);
    }
    let terms = new.shown();
    let sink = match terms.absorbs() {
        true => Some(Sink::new(terms.into())?),
        false => None,
    };
    let set = VM_PFNMAP | VM_IO | VM_DONTEXPAND | VM_DONTDUMP;
    // SAFETY: The VMA is being set up, so nothing else uses it; the flags are those of a PFN map,
    // of which nothing is mapped yet. Its private data is the terms, or else a sink of them.
    unsafe {
        let raw = vma.as_ptr();
        bindings::address_space_helper_init_pfn_vma(raw, first.get() as usize, set, refused);
        (*raw).vm_ops = TABLE.as_raw();
        if let Some(sink) = sink {
            (*raw).vm_private_data = private_data(sink);
        }
    }
    terms.space().counts.attachments.fetch_add(1, Relaxed);
    Ok(())
}

/// The attachment of `space` that `vma` is, if it is one.
pub(crate) fn attachment_of<'a>(vma: &'a VmaRef, space: &Space) -> Option<Attachment<'a>> {
    let raw = vma.as_ptr();
    // SAFETY: The VMA is valid and held still, as `VmaRef` has it. `attach` alone gives one this
    // table, with private data to match.
    let attachment = unsafe {
        let ours = core::ptr::eq((*raw).vm_ops, TABLE.as_raw());
        ours.then(|| Attachment::new(raw))?
    };
    core::ptr::eq(&**attachment.space(), space).then_some(attachment)
}
