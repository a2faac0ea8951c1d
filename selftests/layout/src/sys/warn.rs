// SPDX-License-Identifier: GPL-2.0

//! What cannot happen is only warned of in the kernel, and ends a test on the host.

/// Panics where the kernel warns.
macro_rules! warn_on_once {
    ($cond:expr) => {{
        let cond: bool = $cond;
        assert!(!cond, "this cannot happen");
        cond
    }};
}
pub(crate) use warn_on_once;
