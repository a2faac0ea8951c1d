// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Attachments as regions of guest memory, for code that uses the `vm-memory` crate.

use std::fmt;
use std::ops::Deref;

use vm_memory::bitmap::{BS, Bitmap};
use vm_memory::guest_memory::{Error, Result};
use vm_memory::{
    FileOffset, GuestAddress, GuestMemoryRegion, GuestMemoryRegionBytes, GuestUsize,
    MemoryRegionAddress, VolatileSlice,
};

use crate::KvmWindow;
use crate::window::Memory;

/// A [`Window`](crate::Window) or [`KvmWindow`] as a region of guest memory: a
/// `vm_memory::GuestMemoryRegion`.
///
/// A `GuestRegionCollection` of them is the `GuestMemory` of a VMM, or of a device process:
///
/// ```no_run
/// use address_space::{AddressSpace, GuestRegion, KvmFlags};
/// use vm_memory::{Bytes, GuestAddress, GuestRegionCollection};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let vm = std::fs::File::open("/dev/null")?;
/// # let space = AddressSpace::new(2 << 30)?;
/// let low = space.attach_kvm(&vm, 0, 0, ..1 << 30, KvmFlags::empty())?;
/// let high = space.attach_kvm(&vm, 1, 4 << 30, 1 << 30.., KvmFlags::empty())?;
/// let regions = vec![GuestRegion::from(low), GuestRegion::from(high)];
/// let memory = GuestRegionCollection::from_regions(regions)?;
/// memory.write_obj(1_u32, GuestAddress(4 << 30))?;
/// # Ok(())
/// # }
/// ```
///
/// It shows what the address space shows at any moment: that a file is mapped there or
/// another is no change of the guest memory. When the last `Arc` of a region is dropped, its
/// window is, and with a [`KvmWindow`] the memory slot.
///
/// # Accesses to what is not there
///
/// `vm-memory` knows no memory that comes and goes: an access to a hole, or one that a
/// mapping does not allow, raises a signal as with [`Memory`]. Where a guest chooses the
/// addresses, attach with [`Holes::ABSORB`](crate::Holes::ABSORB) and
/// [`Holes::DENIED`](crate::Holes::DENIED) (or their [`KvmFlags`](crate::KvmFlags)). A write
/// to a window that is only attached for reading raises SIGSEGV in any case.
///
/// # Dirty pages
///
/// KVM logs what the guest writes, not what the VMM does.
/// [`with_bitmap()`](GuestRegion::with_bitmap) is for the latter.
///
/// # With `GuestMemoryMmap`
///
/// Code that has no other type than `GuestMemoryMmap` can have address spaces, too. For
/// `GuestRegionMmap::from_range()` and `MmapRegion` a file descriptor of an address space or
/// view is a file like a memfd:
/// `FileOffset::new(File::from(OwnedFd::from(view)), 0)`.
pub struct GuestRegion<W, B = ()> {
    window: W,
    start: GuestAddress,
    bitmap: B,
    file: Option<FileOffset>,
}

impl<W: Deref<Target = Memory>> GuestRegion<W> {
    /// A region of guest memory that begins at the guest physical address `start` and is as
    /// long as the window. `None` if it would end beyond 2^64.
    pub fn new(window: W, start: GuestAddress) -> Option<GuestRegion<W>> {
        start.0.checked_add(window.len() as u64)?;
        Some(GuestRegion {
            window,
            start,
            bitmap: (),
            file: None,
        })
    }
}

impl<W, B> GuestRegion<W, B> {
    /// The same with a bitmap of the pages that are written through it, such as an
    /// `AtomicBitmap`.
    pub fn with_bitmap<C: Bitmap>(self, bitmap: C) -> GuestRegion<W, C> {
        GuestRegion {
            window: self.window,
            start: self.start,
            bitmap,
            file: self.file,
        }
    }

    /// The same with the file that a vhost-user front-end sends to a device as this region:
    /// a view, and where in it the region begins.
    pub fn with_file(mut self, file: FileOffset) -> GuestRegion<W, B> {
        self.file = Some(file);
        self
    }

    /// The window.
    pub fn window(&self) -> &W {
        &self.window
    }

    /// The window, without the rest.
    pub fn into_window(self) -> W {
        self.window
    }

    /// The bitmap of what is written.
    pub fn dirty(&self) -> &B {
        &self.bitmap
    }
}

/// Where the guest has the memory slot.
impl From<KvmWindow> for GuestRegion<KvmWindow> {
    fn from(window: KvmWindow) -> Self {
        GuestRegion {
            // KVM has refused a slot that ends beyond 2^64.
            start: GuestAddress(window.guest_phys_addr()),
            window,
            bitmap: (),
            file: None,
        }
    }
}

impl<W: Deref<Target = Memory>, B: Bitmap> GuestMemoryRegion for GuestRegion<W, B> {
    type B = B;

    fn len(&self) -> GuestUsize {
        self.window.len() as u64
    }

    fn start_addr(&self) -> GuestAddress {
        self.start
    }

    fn bitmap(&self) -> BS<'_, B> {
        self.bitmap.slice_at(0)
    }

    fn get_host_address(&self, addr: MemoryRegionAddress) -> Result<*mut u8> {
        Ok(self.get_slice(addr, 1)?.ptr_guard_mut().as_ptr())
    }

    fn file_offset(&self) -> Option<&FileOffset> {
        self.file.as_ref()
    }

    fn get_slice(
        &self,
        offset: MemoryRegionAddress,
        count: usize,
    ) -> Result<VolatileSlice<'_, BS<'_, B>>> {
        let offset = usize::try_from(offset.0).map_err(|_| Error::InvalidBackendAddress)?;
        let memory: &Memory = &self.window;
        let start = memory
            .bytes(offset, count)
            .map_err(|_| Error::InvalidBackendAddress)?;
        let bitmap = self.bitmap.slice_at(offset);
        // SAFETY: `bytes()` checked the bounds, and the mapping outlives the slice, which
        // borrows from it. All accesses of `VolatileSlice` are volatile.
        Ok(unsafe { VolatileSlice::with_bitmap(start, count, bitmap, None) })
    }
}

impl<W: Deref<Target = Memory>, B: Bitmap> GuestMemoryRegionBytes for GuestRegion<W, B> {}

impl<W: fmt::Debug, B> fmt::Debug for GuestRegion<W, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuestRegion")
            .field("start", &format_args!("{:#x}", self.start.0))
            .field("window", &self.window)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Prot;
    use crate::window::tests::window_of_file;
    use vm_memory::Bytes as _;

    const PAGE: u64 = 4096;

    fn region(start: u64) -> Option<GuestRegion<crate::Window>> {
        GuestRegion::new(window_of_file(2, 2, Prot::READ_WRITE), GuestAddress(start))
    }

    #[test]
    fn region_ends_within_64_bits() {
        assert!(region(u64::MAX - PAGE).is_none());
        let last = region(u64::MAX - 2 * PAGE).unwrap();
        assert_eq!(last.last_addr(), GuestAddress(u64::MAX - 1));
    }

    #[test]
    fn slices_are_within_the_region() {
        let region = region(0x10000).unwrap();
        let slice = |offset, count| {
            let slice = region.get_slice(MemoryRegionAddress(offset), count);
            slice.map(|slice| slice.ptr_guard().as_ptr().addr()).ok()
        };
        let start = region.window().as_ptr().addr();
        assert_eq!(slice(PAGE, PAGE as usize), Some(start + PAGE as usize));
        assert_eq!(slice(2 * PAGE, 0), Some(start + 2 * PAGE as usize));
        assert_eq!(slice(2 * PAGE, 1), None);
        assert_eq!(slice(PAGE, 1 + PAGE as usize), None);
        assert_eq!(slice(u64::MAX, 1), None);
        let host = |offset| region.get_host_address(MemoryRegionAddress(offset)).ok();
        assert_eq!(host(5).map(|host| host.addr()), Some(start + 5));
        assert_eq!(host(2 * PAGE), None);
    }

    #[test]
    fn what_is_written_is_in_the_window_and_in_the_bitmap() {
        use std::num::NonZero;
        use vm_memory::bitmap::AtomicBitmap;

        let page = NonZero::new(PAGE as usize).unwrap();
        let region = region(0x10000).unwrap();
        let region = region.with_bitmap(AtomicBitmap::new(2 * PAGE as usize, page));
        region.write_obj(7_u32, MemoryRegionAddress(PAGE)).unwrap();
        let dirty = [0, 1].map(|page| region.dirty().dirty_at(page * PAGE as usize));
        assert_eq!(dirty, [false, true]);
        assert_eq!(region.into_window().read::<u32>(PAGE as usize), Ok(7));
    }
}
