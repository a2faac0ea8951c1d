// SPDX-License-Identifier: GPL-2.0

//! `WARN_ON_ONCE()` for Rust, for what cannot happen: say it once and carry on.
//!
//! C header: [`include/asm-generic/bug.h`](srctree/include/asm-generic/bug.h)

/// Warns the first time that `$cond` is true, and returns it.
macro_rules! warn_on_once {
    ($cond:expr) => {{
        let cond: bool = $cond;
        if cond {
            ::kernel::do_once_lite! {
                let _ = ::kernel::warn_on!(true);
            }
        }
        cond
    }};
}
pub(crate) use warn_on_once;
