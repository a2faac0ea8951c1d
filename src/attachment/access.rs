// SPDX-License-Identifier: GPL-2.0

//! ptrace and /proc/PID/mem, which cannot read a PFN map otherwise. The layout's and the
//! attachment's protection hold for them too.
//!
//! Locks: the attached mm's mmap lock is held and cannot be released, also while a page is brought
//! in, and while what is invalidated in the arena ends; locks of the arena's are only tried.

use core::ops::ControlFlow;

use kernel::{
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    time::{
        delay::fsleep,
        Delta, //
    },
};

use crate::{
    attachment::{
        operations::Buffer,
        vma::Attachment, //
    },
    layout::{
        Prot,
        SpacePage, //
    },
    space::{
        policy::Refusal,
        resolve::Resolved,
        retry::{
            Obstacle,
            Reach,
            Retry, //
        },
        Space, //
    },
    sys::{
        bindings,
        mm::{
            Locks,
            NoPage, //
        },
        wait::nap,
    },
};

/// How long to wait for a revocation, or for the arena's lock, before another try.
const PAUSE: Delta = Delta::from_micros(50);

/// Copies between the attachment at `addr` and the buffer; returns how many bytes, which may be
/// fewer than wanted: none behind the end of the VMA, whatever the space shows there. `EACCES`;
/// `EFAULT` for none.
pub(super) fn access(
    attachment: Attachment<'_>,
    addr: usize,
    mut buffer: Buffer<'_>,
) -> Result<usize> {
    let (wanted, flag) = if buffer.is_write() {
        (Prot::WRITE, bindings::VM_WRITE)
    } else {
        (Prot::READ, bindings::VM_READ)
    };
    if attachment.vma().flags() & flag == 0 {
        return Err(EACCES);
    }
    // The kernel asks for all that is wanted, and goes on with the next VMA, for which other
    // rights hold, where less was copied.
    let wanted_bytes = buffer.len().min(attachment.vma().end() - addr);
    let first = attachment.pages().start;
    let mut done = 0;
    while done < wanted_bytes {
        let at = addr + done - attachment.vma().start();
        let offset = at % PAGE_SIZE;
        let chunk = (PAGE_SIZE - offset).min(wanted_bytes - done);
        let page = first + (at >> PAGE_SHIFT) as u64;
        let copied = with_page(attachment, page, wanted, |frame| {
            buffer.copy(done, &frame, offset, chunk);
        });
        if copied.is_err() {
            break;
        }
        done += chunk;
    }
    if done == 0 {
        return Err(EFAULT);
    }
    Ok(done)
}

/// Why there is no page.
enum NoAccess {
    /// It is refused.
    Refused(Refusal),
    Error(Error),
}

/// Calls `use_frame` with a page, which is brought in if need be; or with the sink, if that is what
/// an access would meet.
fn with_page(
    attachment: Attachment<'_>,
    page: SpacePage,
    access: Prot,
    mut use_frame: impl FnMut(Resolved<'_>),
) -> Result {
    let space = attachment.space();
    loop {
        let refusal = match with_shown_page(space, page, access, &mut use_frame) {
            Ok(()) => return Ok(()),
            Err(NoAccess::Error(error)) => return Err(error),
            Err(NoAccess::Refused(refusal)) => refusal,
        };
        let sink = match attachment.sink() {
            Some(sink) if attachment.terms().policy.absorbs(refusal) => sink,
            _ => return Err(EFAULT),
        };
        match space.with_sink(page, access, refusal, sink.pfn()?, &mut use_frame) {
            Ok(Some(())) => return Ok(()),
            // Something else is there now.
            Ok(None) => (),
            // Or there is no room to note it.
            Err(_) => nap(PAUSE)?,
        }
    }
}

/// The same with what the layout shows.
fn with_shown_page(
    space: &Space,
    page: SpacePage,
    access: Prot,
    mut use_frame: impl FnMut(Resolved<'_>),
) -> Result<(), NoAccess> {
    let error = |error| ControlFlow::Break(NoAccess::Error(error));
    let refused = |refusal| ControlFlow::Break(NoAccess::Refused(refusal));
    let write = access.contains(Prot::WRITE);
    let policy = |obstacle: Obstacle<'_>| match obstacle {
        Obstacle::Hole => refused(Refusal::Hole),
        Obstacle::Denied => refused(Refusal::Denied),
        Obstacle::NoMemory => error(ENOMEM),
        Obstacle::Invalidating => {
            fsleep(PAUSE);
            ControlFlow::Continue(())
        }
        // The notifier may have to be waited for.
        Obstacle::Busy(pinned, at) | Obstacle::Missing(pinned, at) => {
            let busy = matches!(obstacle, Obstacle::Busy(..));
            let segment = pinned.segment();
            let ended = segment.ends_before(at);
            match space.fault_in(segment, at, write, Locks::Try) {
                Ok(()) if !busy => ControlFlow::Continue(()),
                // It may be for a lock that the page itself does not need.
                Ok(()) | Err(NoPage::Busy) => {
                    fsleep(PAUSE);
                    ControlFlow::Continue(())
                }
                Err(no_page) => {
                    let ended = ended || segment.ends_before(at);
                    Refusal::of(no_page, ended).map_or(error(EINTR), refused)
                }
            }
        }
    };
    let attempt = |_| space.with_frame(page, access, &mut use_frame);
    let found = Retry::new(write, Reach::ALONE)
        .without_mapping()
        .run(space, attempt, policy)?;
    found.ok_or(NoAccess::Error(EAGAIN))
}
