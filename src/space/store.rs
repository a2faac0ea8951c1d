// SPDX-License-Identifier: GPL-2.0

//! Where the memory of a layout comes from.

use kernel::{
    prelude::*,
    sync::Arc, //
};

use crate::{
    layout::{
        self,
        Client as _, //
    },
    segment::Segment,
    sys::warn::warn_on_once, //
};

/// Memory of the layout, charged to the active memory cgroup.
pub(crate) struct Kernel;

impl layout::Client for Kernel {
    type Segment = Arc<Segment>;

    #[cold]
    fn corrupt(what: &'static str) {
        kernel::pr_err_once!("layout: {what}\n");
        warn_on_once!(true);
    }
}

impl layout::Store for Kernel {
    type Chunk = KBox<layout::Chunk<Kernel>>;
    type Directory = KVVec<layout::Slot<Self::Chunk>>;
    type Error = Error;

    fn chunk() -> Result<Self::Chunk> {
        KBox::init(
            pin_init::init_array_from_fn(|_| layout::Node::vacant()),
            GFP_KERNEL_ACCOUNT,
        )
    }

    fn directory(slots: usize) -> Result<Self::Directory> {
        Ok(KVVec::with_capacity(slots, GFP_KERNEL_ACCOUNT)?)
    }

    fn slots(directory: &Self::Directory) -> usize {
        directory.capacity()
    }

    fn push(directory: &mut Self::Directory, slot: layout::Slot<Self::Chunk>) {
        if directory.push_within_capacity(slot).is_err() {
            Self::corrupt("a directory is full");
        }
    }

    fn pop(directory: &mut Self::Directory) -> Option<layout::Slot<Self::Chunk>> {
        directory.pop()
    }
}
