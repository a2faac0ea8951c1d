// SPDX-License-Identifier: GPL-2.0

//! A vector whose first elements need no allocation.

use core::iter::Chain;

use kernel::{
    alloc::AllocError,
    prelude::*, //
};

/// A list of `T` of which the first `N` are inline.
///
/// Where more are needed, all that follow the first `N` are in one allocation, charged to the
/// active memory cgroup. (There is none until then: to free an empty one is a call.)
pub(crate) struct SmallVec<T, const N: usize> {
    inline: [Option<T>; N],
    inline_len: usize,
    more: Option<KVVec<T>>,
}

impl<T, const N: usize> SmallVec<T, N> {
    /// An empty list.
    pub(crate) fn new() -> Self {
        Self {
            // Not as a constant, all bytes of which would be copied.
            inline: core::array::from_fn(|_| None),
            inline_len: 0,
            more: None,
        }
    }

    /// Allocates what `len` elements need in all. May sleep. `ENOMEM`.
    pub(crate) fn reserve(&mut self, len: usize) -> Result<(), AllocError> {
        let Some(beyond) = len.checked_sub(N).filter(|beyond| *beyond > 0) else {
            return Ok(());
        };
        let more = self.more.get_or_insert_with(KVVec::new);
        more.reserve(beyond.saturating_sub(more.len()), GFP_KERNEL_ACCOUNT)
    }

    /// Appends an element if there is room without an allocation; else returns it.
    pub(crate) fn push_within_capacity(&mut self, value: T) -> Result<(), T> {
        if let Some(place) = self.inline.get_mut(self.inline_len) {
            *place = Some(value);
            self.inline_len += 1;
            return Ok(());
        }
        match &mut self.more {
            Some(more) => more.push_within_capacity(value).map_err(|error| error.0),
            None => Err(value),
        }
    }

    /// Appends an element. May sleep.
    pub(crate) fn push(&mut self, value: T) -> Result<(), AllocError> {
        if self.inline_len == N {
            let more = self.more.get_or_insert_with(KVVec::new);
            return more.push(value, GFP_KERNEL_ACCOUNT);
        }
        self.push_within_capacity(value).map_err(|_| AllocError)
    }

    /// Drops all elements, and keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.inline = [const { None }; N];
        self.inline_len = 0;
        if let Some(more) = &mut self.more {
            more.clear();
        }
    }

    /// How many elements there are.
    pub(crate) fn len(&self) -> usize {
        self.inline_len + self.more.as_ref().map_or(0, |more| more.len())
    }

    /// The element at `index`.
    pub(crate) fn get(&self, index: usize) -> Option<&T> {
        match self.inline.get(index) {
            Some(place) => place.as_ref(),
            None => self.more.as_ref()?.get(index - N),
        }
    }

    /// The last element.
    pub(crate) fn last(&self) -> Option<&T> {
        self.get(self.len().checked_sub(1)?)
    }

    /// All elements in order.
    pub(crate) fn iter(
        &self,
    ) -> Chain<core::iter::Flatten<core::slice::Iter<'_, Option<T>>>, core::slice::Iter<'_, T>>
    {
        let more = self.more.as_deref().unwrap_or(&[]);
        Iterator::chain(self.inline.iter().flatten(), more.iter())
    }
}
