// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A DAX window, as attached processes see it. Needs the module.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;

use address_space::dax::{Error, Window};
use address_space::{AddressSpace, Errno, Prot, page_size};

mod common;

use common::{Process, READ_WRITE, SIGBUS, SIGSEGV, file, letter_in_file, letters, pages, space};

/// The window begins at this page of the space, and has so many pages.
const FIRST: u64 = 2;
const PAGES: u64 = 8;

/// The asfd as the VMM has it, and a window as the server has it, with another asfd of the
/// same space.
fn window(most_files: usize) -> (AddressSpace, Window) {
    let vmm = space(FIRST + PAGES + 2);
    let server = AddressSpace::from(vmm.as_fd().try_clone_to_owned().unwrap());
    let range = pages(FIRST, FIRST + PAGES);
    (vmm, Window::new(server, range, most_files).unwrap())
}

/// What `Window::map()` calls to open a file: a duplicate of this one.
fn opens(file: &File) -> impl FnOnce() -> io::Result<OwnedFd> {
    || file.as_fd().try_clone_to_owned()
}

fn already_open() -> io::Result<OwnedFd> {
    panic!("it should be open already")
}

/// A number from the fdinfo of an asfd.
fn number(space: &AddressSpace, key: &str) -> u64 {
    let path = format!("/proc/self/fdinfo/{}", space.as_fd().as_raw_fd());
    let text = fs::read_to_string(path).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.unwrap()
        .trim_start_matches(':')
        .trim()
        .parse()
        .unwrap()
}

fn show(space: &AddressSpace, range: Range<u64>) -> String {
    letters(&space.attach(range, Prot::READ).unwrap())
}

#[test]
fn map_is_visible_at_its_place_and_nowhere_else() {
    let (vmm, mut window) = window(4);
    let file = file("abcd");
    window
        .map(1, page_size(), pages(3, 5), false, opens(&file))
        .unwrap();
    assert_eq!(show(&vmm, pages(FIRST + 3, FIRST + 5)), "bc");
    let mut process = Process::attaching(&vmm, Prot::READ);
    assert_eq!(process.letter(FIRST + 3), Ok('b'));
    assert_eq!(process.letter(FIRST + 5), Err(SIGBUS));
}

#[test]
fn map_replaces_what_is_there() {
    let (vmm, mut window) = window(4);
    window
        .map(1, 0, pages(0, 2), false, opens(&file("ab")))
        .unwrap();
    let mut process = Process::attaching(&vmm, Prot::READ);
    assert_eq!(process.letter(FIRST), Ok('a'));
    window
        .map(2, 0, pages(0, 1), false, opens(&file("x")))
        .unwrap();
    assert_eq!(process.letter(FIRST), Ok('x'));
    assert_eq!(process.letter(FIRST + 1), Ok('b'));
}

#[test]
fn mapping_again_for_writing_makes_a_place_writable() {
    let (vmm, mut window) = window(4);
    let file = file("a");
    window.map(1, 0, pages(0, 1), false, opens(&file)).unwrap();
    let mut process = Process::attaching(&vmm, READ_WRITE);
    assert_eq!(process.letter(FIRST), Ok('a'));
    assert_eq!(process.set_letter(FIRST, 'x'), Err(SIGSEGV));

    window.map(1, 0, pages(0, 1), true, opens(&file)).unwrap();
    let mut process = Process::attaching(&vmm, READ_WRITE);
    assert_eq!(process.letter(FIRST), Ok('a'));
    assert_eq!(process.set_letter(FIRST, 'x'), Ok(()));
    assert_eq!(letter_in_file(&file, 0), 'x');
    assert_eq!(window.open_files(), 1);
    assert_eq!(number(&vmm, "registered"), 1);
}

#[test]
fn place_past_the_end_shows_what_the_file_grows_to() {
    let (vmm, mut window) = window(4);
    let file = file("a");
    window.map(1, 0, pages(0, 4), false, opens(&file)).unwrap();
    assert_eq!(
        Process::attaching(&vmm, Prot::READ).letter(FIRST + 1),
        Err(SIGBUS)
    );
    file.write_all_at(&vec![b'b'; page_size() as usize], page_size())
        .unwrap();
    assert_eq!(show(&vmm, pages(FIRST, FIRST + 2)), "ab");
}

#[test]
fn unmap_of_many_places_is_one_step() {
    let (vmm, mut window) = window(4);
    window
        .map(1, 0, pages(0, 6), false, opens(&file("abcdef")))
        .unwrap();
    let mut processes = [0, 2, 4].map(|page| (page, Process::attaching(&vmm, Prot::READ)));
    for (page, process) in &mut processes {
        assert!(process.letter(FIRST + *page).is_ok());
    }

    // With a place that is not in the window, nothing happens.
    let outside = [pages(0, 1), pages(2, 3), pages(PAGES, PAGES + 1)];
    assert_eq!(window.unmap(&outside).unwrap_err().errno(), Errno::INVAL);
    assert_eq!(show(&vmm, pages(FIRST, FIRST + 6)), "abcdef");

    window
        .unmap(&[pages(0, 1), pages(2, 3), pages(4, 5)])
        .unwrap();
    for (page, process) in &mut processes {
        assert_eq!(process.letter(FIRST + *page), Err(SIGBUS));
    }
    let mut process = Process::attaching(&vmm, Prot::READ);
    assert_eq!(
        [1, 3, 5].map(|page| process.letter(FIRST + page)),
        ['b', 'd', 'f'].map(Ok)
    );
    window.unmap(&[]).unwrap();
}

#[test]
fn place_outside_of_the_window_is_einval_though_the_space_is_larger() {
    let (vmm, mut window) = window(4);
    let (page, file) = (page_size(), file("ab"));
    // Next to the window, in the space, is something of the VMM's.
    vmm.map(&common::file("v")).at(0).commit().unwrap();
    for place in [
        pages(PAGES, PAGES + 1),
        pages(PAGES - 1, PAGES + 1),
        pages(1, 1),
        pages(2, 1),
        1..page,
        0..page + 1,
        0..u64::MAX,
        u64::MAX - page + 1..page,
    ] {
        let error = window
            .map(1, 0, place.clone(), false, already_open)
            .unwrap_err();
        assert!(
            matches!(error, Error::OutOfWindow { .. }),
            "{place:?}: {error}"
        );
        assert_eq!(error.errno(), Errno::INVAL);
        assert_eq!(window.unmap(&[place]).unwrap_err().errno(), Errno::INVAL);
    }
    let error = window
        .map(1, 1, pages(0, 1), false, opens(&file))
        .unwrap_err();
    assert_eq!(error.errno(), Errno::INVAL, "{error}");
    let end = u64::MAX - page + 1;
    let error = window
        .map(1, end, pages(0, 1), false, opens(&file))
        .unwrap_err();
    assert_eq!(error.errno(), Errno::OVERFLOW, "{error}");
    assert_eq!(number(&vmm, "mappings"), 1);
    assert_eq!(number(&vmm, "registered"), 0);
    window.clear().unwrap();
    assert_eq!(show(&vmm, pages(0, 1)), "v");
}

#[test]
fn window_that_is_not_in_the_space_is_refused() {
    for range in [pages(0, 5), pages(4, 5), pages(1, 1), 1..page_size()] {
        let error = Window::new(space(4), range, 1).unwrap_err();
        assert_eq!(error.errno(), Errno::INVAL, "{error}");
    }
}

#[test]
fn errno_of_opening_is_that_of_the_map() {
    let (vmm, mut window) = window(4);
    let fails = || Err(io::Error::from_raw_os_error(libc::EROFS));
    let error = window.map(1, 0, pages(0, 1), true, fails).unwrap_err();
    assert_eq!(error.errno(), Errno::ROFS, "{error}");
    assert_eq!(number(&vmm, "mappings"), 0);
}

#[test]
fn file_that_cannot_be_mapped_is_refused_and_not_kept_open() {
    let (vmm, mut window) = window(4);
    let directory = File::open("/").unwrap();
    let error = window
        .map(1, 0, pages(0, 1), false, opens(&directory))
        .unwrap_err();
    assert_eq!(error.errno(), Errno::NODEV, "{error}");
    // Open for reading only.
    let path = std::env::temp_dir().join(format!("dax-test-{}", std::process::id()));
    fs::write(&path, "a").unwrap();
    let file = File::open(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let error = window
        .map(2, 0, pages(0, 1), true, opens(&file))
        .unwrap_err();
    assert_eq!(error.errno(), Errno::ACCESS, "{error}");
    assert_eq!(window.open_files(), 0);
    assert_eq!(number(&vmm, "registered"), 0);
}

#[test]
fn file_is_opened_and_registered_once() {
    let (vmm, mut window) = window(4);
    window
        .map(1, 0, pages(0, 1), true, opens(&file("abcdefgh")))
        .unwrap();
    for page in 0..PAGES {
        let offset = (PAGES - 1 - page) * page_size();
        let write = page % 2 == 0;
        window
            .map(1, offset, pages(page, page + 1), write, already_open)
            .unwrap();
    }
    assert_eq!(show(&vmm, pages(FIRST, FIRST + PAGES)), "hgfedcba");
    assert_eq!(number(&vmm, "registered"), 1);
}

#[test]
fn registered_files_do_not_leak() {
    let (vmm, mut window) = window(3);
    for round in 0..200_u64 {
        let (number_of_file, page) = (round % 17, round % PAGES);
        let map = |window: &mut Window, write| {
            let open = || Ok(file("a").into());
            window.map(number_of_file, 0, pages(page, page + 1), write, open)
        };
        map(&mut window, round % 3 == 0).unwrap();
        assert!(window.open_files() <= 3);
        assert_eq!(number(&vmm, "registered"), window.open_files() as u64);
        if round % 5 == 0 {
            window.forget(number_of_file);
        }
    }
    // What is mapped outlives the open file.
    let mapped = number(&vmm, "mappings");
    assert!(mapped > 0);
    drop(window);
    assert_eq!(number(&vmm, "registered"), 0);
    assert_eq!(number(&vmm, "mappings"), mapped);
}

#[test]
fn clear_unmaps_the_window_and_closes_all_files() {
    let (vmm, mut window) = window(4);
    for page in 0..4 {
        window
            .map(page, 0, pages(page, page + 1), true, opens(&file("a")))
            .unwrap();
    }
    assert_eq!(number(&vmm, "registered"), 4);
    window.clear().unwrap();
    assert_eq!(number(&vmm, "registered"), 0);
    assert_eq!(number(&vmm, "mappings"), 0);
    assert_eq!(window.open_files(), 0);
    // It can be used again.
    window
        .map(0, 0, pages(0, 1), false, opens(&file("b")))
        .unwrap();
    assert_eq!(show(&vmm, pages(FIRST, FIRST + 1)), "b");
}

#[test]
fn server_that_takes_over_finds_what_is_mapped() {
    let (vmm, mut old) = window(4);
    old.map(1, 0, pages(0, 2), false, opens(&file("ab")))
        .unwrap();
    drop(old);
    let server = AddressSpace::from(vmm.as_fd().try_clone_to_owned().unwrap());
    let mut new = Window::new(server, pages(FIRST, FIRST + PAGES), 4).unwrap();
    assert_eq!(show(&vmm, pages(FIRST, FIRST + 2)), "ab");
    new.unmap(&[pages(0, 1)]).unwrap();
    let mut process = Process::attaching(&vmm, Prot::READ);
    assert_eq!(process.letter(FIRST + 1), Ok('b'));
    assert_eq!(process.letter(FIRST), Err(SIGBUS));
}
