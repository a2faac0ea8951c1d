// SPDX-License-Identifier: GPL-2.0

//! ADDRESS_SPACE_ADVISE.

use kernel::{
    prelude::*,
    sync::Arc, //
};

use crate::{
    attachment::populate::install,
    call::{
        request::{
            reject_unknown_flags,
            Part, //
        },
        uapi, //
    },
    space::{
        advise::Advice,
        Space, //
    },
    sys::errno::EOPNOTSUPP,
};

/// [`uapi::ADVISE`].
pub(crate) fn advise(space: &Arc<Space>, within: &Part, ptr: UserPtr) -> Result<isize> {
    let arg: uapi::Advise = uapi::read(ptr)?;
    reject_unknown_flags(arg.flags | arg.reserved, 0)?;
    let advice = match arg.advice {
        uapi::WILLNEED => Advice::WillNeed,
        uapi::DONTNEED => Advice::DontNeed,
        uapi::REMOVE => Advice::Remove,
        uapi::POPULATE_READ => Advice::PopulateRead,
        uapi::POPULATE_WRITE => Advice::PopulateWrite,
        _ => return Err(EOPNOTSUPP.into()),
    };
    let pages = within.range(arg.addr, arg.length)?;
    space.advise(&pages, advice, within.limit())?;
    if advice.access().is_some() {
        install(space, &pages);
    }
    Ok(0)
}
