// SPDX-License-Identifier: GPL-2.0

//! Pages of the module's own.

use kernel::page::Page;

use crate::sys::safe_fns;

/// The number of its frame.
pub(crate) fn pfn(page: &Page) -> usize {
    safe_fns::address_space_helper_page_pfn(page)
}
