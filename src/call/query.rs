// SPDX-License-Identifier: GPL-2.0

//! ADDRESS_SPACE_QUERY: what this kernel and this version of the module can do.
//!
//! Takes no lock.

use kernel::prelude::*;

use crate::{
    call::{
        request,
        uapi, //
    },
    space::{
        events,
        watch, //
    },
};

/// Whatever the kernel.
const ALWAYS: u64 = uapi::FEATURE_NAMES
    | uapi::FEATURE_REOPEN
    | uapi::FEATURE_EXEC
    | uapi::FEATURE_MANAGE
    | uapi::FEATURE_HOLES
    | uapi::FEATURE_RELEASE
    | uapi::FEATURE_UNREGISTER_ALL
    | uapi::FEATURE_LEND
    | uapi::FEATURE_PRIVATE
    | uapi::FEATURE_ADVISE
    | uapi::FEATURE_LAYOUT
    | uapi::FEATURE_MOUNT;

/// What there is.
const FEATURES: u64 = ALWAYS
    | if_built(cfg!(CONFIG_KVM), uapi::FEATURE_KVM)
    | if_built(cfg!(CONFIG_TRANSPARENT_HUGEPAGE), uapi::FEATURE_HUGE_PAGES);

const fn if_built(built: bool, feature: u64) -> u64 {
    match built {
        true => feature,
        false => 0,
    }
}

/// [`uapi::QUERY`]. What the caller has in the members that are written does not matter.
pub(crate) fn query(ptr: UserPtr) -> Result<isize> {
    let arg: uapi::Query = uapi::read(ptr)?;
    request::reject_unknown_flags(arg.flags | arg.reserved, 0)?;
    let answer = uapi::Query {
        version: uapi::VERSION,
        features: FEATURES,
        max_length: uapi::MAX_LENGTH,
        max_name: uapi::NAME_MAX as u32,
        max_ops: uapi::MAX_OPS,
        max_poisoned: watch::POISONED as u32,
        max_events: events::KEPT as u32,
        ..arg
    };
    uapi::write_whole(ptr, &answer, arg.size)?;
    Ok(0)
}
