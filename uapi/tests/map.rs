// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Composing an address space, as attached processes see it. Needs the module.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;

use address_space::{AddressSpace, Errno, Prot, page_size};
use rustix::fs::{Mode, OFlags, SealFlags, fcntl_add_seals, open};
use rustix::pipe::pipe;

mod common;

use common::{Process, READ_WRITE, SIGBUS, SIGSEGV, file, letter_in_file, letters, pages, space};

#[test]
fn map_is_visible_in_an_earlier_attachment() {
    let space = space(4);
    let window = space.attach(pages(0, 4), Prot::READ).unwrap();
    assert_eq!(space.map(&file("abcd")).at(0).commit(), Ok(0));
    assert_eq!(letters(&window), "abcd");
}

#[test]
fn map_is_visible_in_a_later_attachment() {
    let space = space(4);
    space.map(&file("abcd")).at(0).commit().unwrap();
    assert_eq!(
        letters(&space.attach(pages(0, 4), Prot::READ).unwrap()),
        "abcd"
    );
}

#[test]
fn window_starts_at_the_attached_offset() {
    let space = space(4);
    space.map(&file("abcd")).at(0).commit().unwrap();
    assert_eq!(
        letters(&space.attach(pages(1, 3), Prot::READ).unwrap()),
        "bc"
    );
}

#[test]
fn part_of_a_file_can_be_mapped() {
    let space = space(4);
    let file = file("abcd");
    let page = page_size();
    space
        .map(&file)
        .offset(page)
        .length(2 * page)
        .at(0)
        .commit()
        .unwrap();
    space
        .map(&file)
        .offset(3 * page)
        .at(3 * page)
        .commit()
        .unwrap();
    space.map(&file).length(page).at(2 * page).commit().unwrap();
    assert_eq!(
        letters(&space.attach(pages(0, 4), Prot::READ).unwrap()),
        "bcad"
    );
}

#[test]
fn map_anywhere_finds_a_hole_and_returns_its_address() {
    let space = space(4);
    space.map(&file("a")).at(0).commit().unwrap();
    space.map(&file("d")).at(3 * page_size()).commit().unwrap();
    assert_eq!(space.map(&file("bc")).anywhere().commit(), Ok(page_size()));
    assert_eq!(
        letters(&space.attach(pages(0, 4), Prot::READ).unwrap()),
        "abcd"
    );

    let error = space.map(&file("e")).commit().unwrap_err();
    assert_eq!(error.errno(), Some(Errno::NOSPC), "{error}");
}

#[test]
fn populate_changes_no_contents() {
    let space = space(2);
    space.map(&file("ab")).at(0).populate().commit().unwrap();
    assert_eq!(
        letters(&space.attach(pages(0, 2), Prot::READ).unwrap()),
        "ab"
    );
}

#[test]
fn map_over_a_mapping_is_eexist_and_changes_nothing() {
    let space = space(2);
    space.map(&file("a")).at(page_size()).commit().unwrap();
    let error = space.map(&file("xy")).at(0).commit().unwrap_err();
    assert_eq!(error.errno(), Some(Errno::EXIST), "{error}");

    let mut process = Process::attaching(&space, Prot::READ);
    assert_eq!(process.letter(1), Ok('a'));
    assert_eq!(process.letter(0), Err(SIGBUS));
}

#[test]
fn replace_is_visible_to_an_attached_process() {
    let space = space(2);
    space.map(&file("ab")).at(0).commit().unwrap();
    let mut process = Process::attaching(&space, Prot::READ);
    assert_eq!(process.letter(0), Ok('a'));
    assert_eq!(process.letter(1), Ok('b'));

    space
        .map(&file("x"))
        .at(page_size())
        .replace()
        .commit()
        .unwrap();
    assert_eq!(process.letter(0), Ok('a'));
    assert_eq!(process.letter(1), Ok('x'));
}

#[test]
fn unmap_is_visible_to_an_attached_process() {
    let space = space(2);
    space.map(&file("ab")).at(0).commit().unwrap();
    let mut process = Process::attaching(&space, Prot::READ);
    assert_eq!(process.letter(0), Ok('a'));
    assert_eq!(process.letter(1), Ok('b'));

    space.unmap(pages(0, 1)).unwrap();
    assert_eq!(process.letter(1), Ok('b'));
    assert_eq!(process.letter(0), Err(SIGBUS));
}

#[test]
fn unmap_is_visible_to_a_forked_child() {
    let space = space(1);
    space.map(&file("a")).at(0).commit().unwrap();
    let window = space.attach(pages(0, 1), Prot::READ).unwrap();
    // The page is in the page table, of which the child gets a copy.
    assert_eq!(letters(&window), "a");
    let mut child = Process::inheriting(&window);

    space.unmap(pages(0, 1)).unwrap();
    assert_eq!(child.letter(0), Err(SIGBUS));
}

#[test]
fn unmap_of_holes_succeeds() {
    let space = space(4);
    space.unmap(pages(0, 4)).unwrap();
    space.map(&file("b")).at(page_size()).commit().unwrap();
    space.unmap(pages(0, 4)).unwrap();
    assert_eq!(
        Process::attaching(&space, Prot::READ).letter(1),
        Err(SIGBUS)
    );
}

#[test]
fn hole_is_sigbus() {
    assert_eq!(
        Process::attaching(&space(1), Prot::READ).letter(0),
        Err(SIGBUS)
    );
    assert_eq!(
        Process::attaching(&space(1), READ_WRITE).set_letter(0, 'x'),
        Err(SIGBUS)
    );
}

#[test]
fn writes_are_visible_in_the_file_and_in_the_window() {
    let space = space(2);
    let file = file("ab");
    space.map(&file).at(0).prot(READ_WRITE).commit().unwrap();
    let window = space.attach(pages(0, 2), READ_WRITE).unwrap();

    window.write(0, b'x').unwrap();
    assert_eq!(letter_in_file(&file, 0), 'x');
    file.write_all_at(b"y", page_size()).unwrap();
    assert_eq!(letters(&window), "xy");
}

#[test]
fn write_to_a_read_only_mapping_is_sigsegv_and_does_not_reach_the_file() {
    let space = space(1);
    let file = file("a");
    space.map(&file).at(0).commit().unwrap();
    let mut process = Process::attaching(&space, READ_WRITE);
    // With a page table entry present, the write takes another path in the kernel.
    assert_eq!(process.letter(0), Ok('a'));
    assert_eq!(process.set_letter(0, 'x'), Err(SIGSEGV));
    assert_eq!(
        Process::attaching(&space, READ_WRITE).set_letter(0, 'x'),
        Err(SIGSEGV)
    );
    assert_eq!(letter_in_file(&file, 0), 'a');
}

#[test]
fn access_beyond_the_end_of_a_file_is_sigbus() {
    let space = space(2);
    let file = file("a");
    space
        .map(&file)
        .length(2 * page_size())
        .at(0)
        .commit()
        .unwrap();
    let mut process = Process::attaching(&space, Prot::READ);
    assert_eq!(process.letter(0), Ok('a'));
    assert_eq!(process.letter(1), Err(SIGBUS));
}

#[test]
fn truncation_of_the_file_is_visible() {
    let space = space(2);
    let file = file("ab");
    space.map(&file).at(0).commit().unwrap();
    let mut process = Process::attaching(&space, Prot::READ);
    assert_eq!(process.letter(0), Ok('a'));
    assert_eq!(process.letter(1), Ok('b'));
    file.set_len(page_size()).unwrap();
    // At once, since the process is not changing its own mappings; otherwise it could
    // take milliseconds.
    assert_eq!(process.letter(0), Ok('a'));
    assert_eq!(process.letter(1), Err(SIGBUS));
}

#[test]
fn window_outlives_the_file_and_the_asfd() {
    let space = space(1);
    space.map(&file("a")).at(0).commit().unwrap();
    let window = space.attach(pages(0, 1), Prot::READ).unwrap();
    drop(space);
    assert_eq!(letters(&window), "a");
}

#[test]
fn asfd_works_in_another_process() {
    let space = space(1);
    let file = file("a");
    let code = common::in_another_process(|| i32::from(space.map(&file).at(0).commit().is_err()));
    assert_eq!(code, 0);
    assert_eq!(
        letters(&space.attach(pages(0, 1), Prot::READ).unwrap()),
        "a"
    );
}

#[test]
fn attaching_beyond_the_end_is_refused() {
    let space = space(2);
    space.attach(pages(0, 2), Prot::READ).unwrap();
    for range in [pages(0, 3), pages(1, 3), pages(2, 3)] {
        let error = space.attach(range, Prot::READ).unwrap_err();
        assert!(error.errno().is_some(), "{error}");
    }
}

#[test]
fn attaching_for_execution_is_refused_without_the_right_to_it() {
    let space = space(1);
    space
        .map(&file("a"))
        .at(0)
        .prot(Prot::READ | Prot::EXEC)
        .commit()
        .unwrap();
    space.attach(pages(0, 1), Prot::READ | Prot::EXEC).unwrap();
    let view = space.view(pages(0, 1), Prot::READ).unwrap();
    let error = view
        .attach(pages(0, 1), Prot::READ | Prot::EXEC)
        .unwrap_err();
    assert_eq!(error.errno(), Some(Errno::ACCESS), "{error}");
    assert!(error.to_string().contains("protection"), "{error}");
}

#[test]
fn address_spaces_do_not_nest() {
    let outer = space(1);
    let inner = space(1);
    let view = inner.view(pages(0, 1), Prot::READ).unwrap();
    let errors = [
        outer.map(&inner).at(0).commit().unwrap_err(),
        outer.map(&view).at(0).commit().unwrap_err(),
        outer.map(&outer).at(0).commit().unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.errno(), Some(Errno::LOOP), "{error}");
        assert!(error.to_string().contains("nested"), "{error}");
    }
}

#[test]
fn map_for_writing_needs_a_file_open_for_writing() {
    let space = space(1);
    let path = std::env::temp_dir().join(format!("address-space-test-{}", std::process::id()));
    std::fs::write(&path, vec![b'a'; page_size() as usize]).unwrap();
    let file = File::open(&path).unwrap();
    let writable = File::options().write(true).open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();

    let error = space
        .map(&file)
        .at(0)
        .prot(READ_WRITE)
        .commit()
        .unwrap_err();
    assert_eq!(error.errno(), Some(Errno::ACCESS), "{error}");
    let error = space
        .map(&writable)
        .at(0)
        .prot(READ_WRITE)
        .commit()
        .unwrap_err();
    assert_eq!(error.errno(), Some(Errno::ACCESS), "{error}");
    space.map(&file).at(0).commit().unwrap();
}

#[test]
fn sealed_file_cannot_be_mapped_for_writing() {
    let space = space(1);
    let file = file("a");
    fcntl_add_seals(&file, SealFlags::WRITE).unwrap();
    let error = space
        .map(&file)
        .at(0)
        .prot(READ_WRITE)
        .commit()
        .unwrap_err();
    assert_eq!(error.errno(), Some(Errno::PERM), "{error}");
    space.map(&file).at(0).commit().unwrap();
}

#[test]
fn files_that_cannot_be_mapped_are_refused() {
    let space = space(1);
    let directory = File::open("/").unwrap();
    let (pipe, _) = pipe().unwrap();
    let path = open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let refused = |file: OwnedFd, errno| {
        let error = space
            .map(&file)
            .length(page_size())
            .at(0)
            .commit()
            .unwrap_err();
        assert_eq!(error.errno(), Some(errno), "{error}");
    };
    refused(directory.into(), Errno::NODEV);
    refused(pipe, Errno::NODEV);
    refused(path, Errno::BADF);
}

#[test]
fn bad_ranges_are_refused_and_change_nothing() {
    let space = space(2);
    let file = file("ab");
    let page = page_size();
    space.map(&file).at(0).commit().unwrap();

    let map = |addr, offset, length| {
        space
            .map(&file)
            .at(addr)
            .offset(offset)
            .length(length)
            .replace()
            .commit()
            .unwrap_err()
            .errno()
            .unwrap()
    };
    assert_eq!(map(1, 0, page), Errno::INVAL);
    assert_eq!(map(0, 1, page), Errno::INVAL);
    assert_eq!(map(0, 0, 1), Errno::INVAL);
    assert_eq!(map(0, 0, 0), Errno::INVAL);
    assert_eq!(map(2 * page, 0, page), Errno::INVAL);
    assert_eq!(map(page, 0, 2 * page), Errno::INVAL);
    assert_eq!(map(u64::MAX - page + 1, 0, page), Errno::OVERFLOW);
    assert_eq!(map(0, u64::MAX - page + 1, page), Errno::OVERFLOW);

    let unmap = |range| space.unmap(range).unwrap_err().errno().unwrap();
    assert_eq!(unmap(0..1), Errno::INVAL);
    assert_eq!(unmap(1..page), Errno::INVAL);
    assert_eq!(unmap(page..page), Errno::INVAL);
    assert_eq!(unmap(page..3 * page), Errno::INVAL);

    assert_eq!(
        letters(&space.attach(pages(0, 2), Prot::READ).unwrap()),
        "ab"
    );
}

#[test]
fn replace_without_an_address_is_refused() {
    let space = space(1);
    let error = space.map(&file("a")).replace().commit().unwrap_err();
    assert_eq!(error.errno(), Some(Errno::INVAL));
    assert!(
        error.to_string().contains("replace() needs at()"),
        "{error}"
    );
}

#[test]
fn empty_file_cannot_be_mapped_whole() {
    let error = space(1).map(&file("")).at(0).commit().unwrap_err();
    assert_eq!(error.errno(), Some(Errno::INVAL), "{error}");
}

#[test]
fn asfd_works_after_a_conversion_into_a_file_descriptor_and_back() {
    let space = space(1);
    let fd = OwnedFd::from(space);
    let space = AddressSpace::from(fd);
    space.map(&file("a")).at(0).commit().unwrap();
    assert_eq!(
        letters(&space.attach(pages(0, 1), Prot::READ).unwrap()),
        "a"
    );
}
