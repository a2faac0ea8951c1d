// SPDX-License-Identifier: GPL-2.0

//! Comparisons that fail a test.

use std::fmt::Debug;

use anyhow::{Result, ensure};

/// Fails if `is` differs from `should`; `what` names it.
pub fn expect<T: PartialEq + Debug>(what: &str, is: T, should: T) -> Result<()> {
    ensure!(is == should, "{what}: {is:?}, should be {should:?}");
    Ok(())
}
