// SPDX-License-Identifier: GPL-2.0

//! On what terms a file shows a space: which part of it, and what becomes of accesses that are
//! refused. Attachments keep to the terms of the file that was mapped.
//!
//! An attachment that absorbs has a [`Sink`]: the page that is there for what is not. It is made
//! when it is first needed, charged to the task that needs it, and never seen by another process,
//! since fork() makes a sink for the copy.

use kernel::{
    page::Page,
    prelude::*,
    sync::{
        Arc,
        SetOnce, //
    },
};

use crate::{
    layout::SpacePage,
    space::{
        policy::{
            OnHole,
            Policy, //
        },
        refusals::Refusals,
        Handle,
        Space, //
    },
    sys::page,
};

/// The terms of a file.
pub(crate) struct Terms {
    handle: Handle,
    /// First page of the space that the file shows.
    pub(crate) first: SpacePage,
    pub(crate) policy: Policy,
    /// By which events name the file: the number of its inode.
    pub(crate) id: u64,
    /// Whose share of what a space keeps for its files is used: that of the file, or for a view
    /// that was made through another one, of that. So whoever can make views has no more.
    pub(crate) share_of: u64,
    /// Accesses through the file that were refused.
    pub(crate) refusals: Arc<Refusals>,
}

impl Terms {
    /// Those of a new file, with a share of its own unless it has that of another one. `ENOMEM`.
    pub(crate) fn new(
        handle: Handle,
        first: SpacePage,
        policy: Policy,
        id: u64,
        share_of: Option<u64>,
    ) -> Result<Arc<Self>> {
        let terms = Terms {
            handle,
            first,
            policy,
            id,
            share_of: share_of.unwrap_or(id),
            refusals: Arc::pin_init(Refusals::new(), GFP_KERNEL_ACCOUNT)?,
        };
        Ok(Arc::new(terms, GFP_KERNEL_ACCOUNT)?)
    }

    /// Those of the same file, with another policy. `ENOMEM`.
    pub(crate) fn with_policy(&self, policy: Policy) -> Result<Arc<Self>> {
        let terms = Terms {
            handle: self.share(),
            first: self.first,
            policy,
            id: self.id,
            share_of: self.share_of,
            refusals: self.refusals.clone(),
        };
        Ok(Arc::new(terms, GFP_KERNEL_ACCOUNT)?)
    }

    /// The space.
    pub(crate) fn space(&self) -> &Arc<Space> {
        self.handle.space()
    }

    /// Another handle to the space.
    pub(crate) fn share(&self) -> Handle {
        self.handle.share()
    }

    /// Whether an attachment on these terms has a sink.
    pub(crate) fn absorbs(&self) -> bool {
        self.policy.on_hole == OnHole::Absorb
    }
}

/// What an attachment absorbs accesses with; VMAs that it was split into have the same.
pub(crate) struct Sink {
    terms: Arc<Terms>,
    page: SetOnce<Page>,
}

impl Sink {
    /// A sink for an attachment on these terms. `ENOMEM`.
    pub(crate) fn new(terms: Arc<Terms>) -> Result<Arc<Self>> {
        let page = SetOnce::new();
        Ok(Arc::new(Sink { terms, page }, GFP_KERNEL_ACCOUNT)?)
    }

    /// The terms of the attachment.
    pub(crate) fn terms(&self) -> &Arc<Terms> {
        &self.terms
    }

    /// Whether the page was ever needed.
    pub(crate) fn is_used(&self) -> bool {
        self.page.as_ref().is_some()
    }

    /// The frame of the page, which is made if there is none yet. No spinlock may be held.
    /// `ENOMEM`; `EAGAIN` where another task is about to have made it.
    pub(crate) fn pfn(&self) -> Result<usize> {
        if self.page.as_ref().is_none() {
            self.page
                .populate(Page::alloc_page(GFP_KERNEL_ACCOUNT | __GFP_ZERO)?);
        }
        self.page.as_ref().map(page::pfn).ok_or(EAGAIN)
    }
}
