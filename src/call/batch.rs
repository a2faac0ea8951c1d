// SPDX-License-Identifier: GPL-2.0

//! ADDRESS_SPACE_BATCH: reading the operations.
//!
//! They are read and checked with no lock held; `space/batch.rs` makes them.

use core::mem::offset_of;

use kernel::{
    prelude::*,
    sync::Arc, //
};

use crate::{
    attachment::populate::populate,
    call::{
        lend,
        request::{
            self,
            Part, //
        },
        uapi, //
    },
    space::{
        batch::Batch,
        Space, //
    },
};

/// [`uapi::BATCH`].
pub(crate) fn batch(space: &Arc<Space>, within: &Part, ptr: UserPtr) -> Result<isize> {
    let arg: uapi::Batch = uapi::read(ptr)?;
    request::reject_unknown_flags(arg.flags | arg.reserved, 0)?;
    if arg.nr_ops == 0 || arg.nr_ops > uapi::MAX_OPS {
        return Err(EINVAL);
    }
    let mut batch = read(space, &arg, within)?;
    if let Err(refused) = batch.run(space, lend::backing) {
        batch.end(space);
        if let Some(index) = refused.index {
            // Where not even this can be written, the error is the refused operation's all the
            // same.
            let _ = uapi::write_back(ptr, offset_of!(uapi::Batch, failed), index as u32);
        }
        // Segments may have been made for nothing.
        space.reap_later();
        return Err(refused.error);
    }
    populate(space, batch.changes(), batch.pins());
    batch.end(space);
    Ok(0)
}

/// Reads the operations of a batch for a part of a space.
fn read(space: &Space, arg: &uapi::Batch, within: &Part) -> Result<Batch> {
    let count = arg.nr_ops as usize;
    let mut batch = Batch::new(space, count)?;
    let mut op = uapi::Op::ZERO;
    for index in 0..count {
        let change = arg
            .read_op(index, &mut op)
            .and_then(|()| request::operation(&op, within));
        match change {
            Ok(change) => batch.push(change, op.fd),
            Err(error) => {
                batch.break_off(error);
                break;
            }
        }
    }
    Ok(batch)
}
