// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Memory of the process's own, lent and shown. Needs the module.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;

use address_space::{AddressSpace, Errno, Lend, Prot, page_size};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

mod common;

use common::{READ_WRITE, letters, pages, space};

/// Anonymous memory of some pages, each of which begins with its letter.
struct Own {
    start: NonNull<u8>,
    pages: u64,
}

impl Own {
    fn new(letters: &str) -> Own {
        let pages = letters.len() as u64;
        let length = (pages * page_size()) as usize;
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: New memory, where the kernel has room.
        let start =
            unsafe { mmap_anonymous(std::ptr::null_mut(), length, prot, MapFlags::PRIVATE) };
        let own = Own {
            start: NonNull::new(start.unwrap().cast()).unwrap(),
            pages,
        };
        for (page, letter) in letters.bytes().enumerate() {
            own.set(page as u64, letter);
        }
        own
    }

    fn at(&self, page: u64) -> *mut u8 {
        assert!(page < self.pages);
        // SAFETY: The page is there.
        unsafe { self.start.as_ptr().add((page * page_size()) as usize) }
    }

    fn set(&self, page: u64, letter: u8) {
        // SAFETY: The page is there, and no reference leads to it.
        unsafe { self.at(page).write_volatile(letter) };
    }

    fn get(&self, page: u64) -> u8 {
        // SAFETY: As above.
        unsafe { self.at(page).read_volatile() }
    }

    fn lend(&self, prot: Prot) -> Lend {
        // SAFETY: No reference leads to the memory.
        unsafe { Lend::new(self.start, (self.pages * page_size()) as usize, prot) }
            .unwrap_or_else(|error| panic!("{error}"))
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // SAFETY: Nothing uses it any more.
        unsafe {
            munmap(
                self.start.as_ptr().cast(),
                (self.pages * page_size()) as usize,
            )
        }
        .unwrap();
    }
}

#[test]
fn lent_memory_is_shown_and_written() {
    let own = Own::new("abcd");
    let lend = own.lend(READ_WRITE);
    assert_eq!(lend.length().unwrap(), 4 * page_size());
    let space = space(4);
    space.map(&lend).prot(READ_WRITE).at(0).commit().unwrap();
    let window = space.attach(pages(0, 4), READ_WRITE).unwrap();
    assert_eq!(letters(&window), "abcd");
    own.set(2, b'x');
    window.write::<u8>(0, b'y').unwrap();
    assert_eq!(letters(&window), "ybxd");
    assert_eq!(own.get(0), b'y');
}

#[test]
fn all_of_a_process_is_at_its_addresses() {
    let own = Own::new("abc");
    // SAFETY: For reading only.
    let lend = unsafe { Lend::all(Prot::READ) }.unwrap();
    let space = AddressSpace::new(lend.length().unwrap()).unwrap();
    space.map(&lend).at(0).commit().unwrap();
    let start = own.at(0) as u64;
    let window = space
        .attach(start..start + 3 * page_size(), Prot::READ)
        .unwrap();
    assert_eq!(letters(&window), "abc");
    own.set(1, b'x');
    assert_eq!(letters(&window), "axc");
}

#[test]
fn memory_that_was_taken_back_cannot_be_mapped() {
    let own = Own::new("ab");
    let lend = own.lend(Prot::READ);
    let space = space(4);
    space.map(&lend).at(0).commit().unwrap();
    let error = space
        .map(&lend)
        .prot(READ_WRITE)
        .at(2 * page_size())
        .commit()
        .unwrap_err();
    assert_eq!(error.errno(), Some(Errno::ACCESS));
    lend.revoke().unwrap();
    let error = space.map(&lend).at(2 * page_size()).commit().unwrap_err();
    assert_eq!(error.errno(), Some(Errno::SRCH));
    assert!(error.to_string().contains("taken it back"), "{error}");
    assert_eq!(own.get(1), b'b');
}

#[test]
fn errors_say_what_to_do() {
    let own = Own::new("ab");
    // SAFETY: No reference leads to the memory.
    let error = unsafe { Lend::new(own.start, 1, Prot::READ) }.unwrap_err();
    assert_eq!(error.errno(), Some(Errno::INVAL));
    assert!(
        error.to_string().contains("multiples of the page size"),
        "{error}"
    );
    let file = File::open("/dev/null").unwrap();
    let error = Lend::from(OwnedFd::from(file)).revoke().unwrap_err();
    assert_eq!(error.errno(), Some(Errno::NOTTY));
    assert!(
        AddressSpace::new(page_size())
            .unwrap()
            .register(&own.lend(Prot::READ))
            .commit()
            .is_ok()
    );
}
