// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Private maps, and what is wanted of memory, as attached processes see them. Needs the
//! module.

use address_space::{Advice, Errno, Prot, page_size};
use rustix::fs::{SealFlags, fcntl_add_seals};

mod common;

use common::{Process, READ_WRITE, SIGBUS, file, letter_in_file, pages, space};

#[test]
fn what_is_written_to_a_private_map_is_not_in_the_file_and_seen_by_all() {
    let (space, file) = (space(2), file("ab"));
    space
        .map(&file)
        .at(0)
        .private()
        .prot(READ_WRITE)
        .commit()
        .unwrap();
    let mut one = Process::attaching(&space, READ_WRITE);
    let mut other = Process::attaching(&space, Prot::READ);
    assert_eq!(other.letter(0), Ok('a'));
    assert_eq!(one.set_letter(0, 'x'), Ok(()));
    assert_eq!(other.letter(0), Ok('x'));
    assert_eq!(other.letter(1), Ok('b'));
    assert_eq!(letter_in_file(&file, 0), 'a');
}

#[test]
fn file_that_is_sealed_can_be_mapped_private() {
    let (space, file) = (space(4), file("ab"));
    fcntl_add_seals(&file, SealFlags::WRITE).unwrap();
    let error = space.map(&file).at(0).prot(READ_WRITE).commit();
    assert_eq!(error.unwrap_err().errno(), Some(Errno::PERM));
    space
        .batch()
        .map(&file, 0, pages(0, 2), READ_WRITE)
        .private()
        .commit()
        .unwrap();
    let mut process = Process::attaching(&space, READ_WRITE);
    assert_eq!(process.set_letter(1, 'y'), Ok(()));
    assert_eq!(process.letter(1), Ok('y'));
    assert_eq!(letter_in_file(&file, 1), 'b');
}

#[test]
fn private_registration_keeps_what_is_unmapped() {
    let (space, file) = (space(1), file("a"));
    let map = || {
        let map = space.map(&file).at(0).private().prot(READ_WRITE);
        map.commit().unwrap();
    };
    space
        .register(&file)
        .private()
        .prot(READ_WRITE)
        .commit()
        .unwrap();
    map();
    let mut process = Process::attaching(&space, READ_WRITE);
    assert_eq!(process.set_letter(0, 'x'), Ok(()));
    space.unmap(pages(0, 1)).unwrap();
    assert_eq!(process.letter(0), Err(SIGBUS));
    map();
    let mut process = Process::attaching(&space, READ_WRITE);
    assert_eq!(process.letter(0), Ok('x'));
    space.unmap(pages(0, 1)).unwrap();
    space.unregister(&file).unwrap();
    map();
    assert_eq!(process.letter(0), Ok('a'));
}

#[test]
fn advice_is_followed() {
    let (space, file) = (space(4), file("abcd"));
    space.map(&file).at(0).prot(READ_WRITE).commit().unwrap();
    let mut process = Process::attaching(&space, READ_WRITE);
    assert_eq!(process.set_letter(0, 'x'), Ok(()));
    space.advise(pages(0, 4), Advice::WillNeed).unwrap();
    space.advise(pages(0, 4), Advice::DontNeed).unwrap();
    space.advise(pages(0, 4), Advice::PopulateRead).unwrap();
    space.advise(pages(0, 4), Advice::PopulateWrite).unwrap();
    assert_eq!(process.letter(0), Ok('x'));
    space.advise(pages(1, 3), Advice::Remove).unwrap();
    assert_eq!(process.letter(1), Ok('\0'));
    assert_eq!(process.letter(3), Ok('d'));
    assert_eq!(letter_in_file(&file, 2), '\0');
}

#[test]
fn advice_that_cannot_be_followed_says_why() {
    let (space, file) = (space(4), file("abc"));
    space.map(&file).at(0).commit().unwrap();
    let error = space.advise(pages(0, 4), Advice::WillNeed).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::NOENT), "{error}");
    assert!(error.to_string().contains("without a hole"), "{error}");
    let error = space.advise(pages(0, 1), Advice::Remove).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::ACCESS), "{error}");
    assert!(error.to_string().contains("cannot punch 0x0-"), "{error}");
    file.set_len(page_size()).unwrap();
    let error = space.advise(pages(0, 3), Advice::PopulateRead).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::FAULT), "{error}");
    assert!(error.to_string().contains("ends before it"), "{error}");
}
