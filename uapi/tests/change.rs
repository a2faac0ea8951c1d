// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Registered files, batches, and changes of the layout, as attached processes see
//! them. Needs the module.

use std::fs::File;
use std::os::fd::AsFd as _;

use address_space::{Errno, Error, Prot, page_size};
use rustix::fs::{Mode, OFlags, open};

mod common;

use common::{Process, READ_WRITE, SIGBUS, SIGSEGV, file, letters, pages, space};

#[test]
fn registered_file_is_not_visible_until_it_is_mapped() {
    let space = space(1);
    let file = file("ab");
    space.register(&file).prot(READ_WRITE).commit().unwrap();
    assert_eq!(
        Process::attaching(&space, Prot::READ).letter(0),
        Err(SIGBUS)
    );
    for (page, letter) in [(0, 'a'), (1, 'b'), (0, 'a')] {
        space
            .map(&file)
            .offset(page * page_size())
            .length(page_size())
            .at(0)
            .prot(READ_WRITE)
            .replace()
            .commit()
            .unwrap();
        let mut process = Process::attaching(&space, READ_WRITE);
        assert_eq!(process.letter(0), Ok(letter));
        assert_eq!(process.set_letter(0, letter), Ok(()));
    }
}

#[test]
fn unregistered_file_stays_mapped() {
    let space = space(1);
    let file = file("a");
    space.register(&file).commit().unwrap();
    space.map(&file).at(0).commit().unwrap();
    // A duplicate refers to the same open file.
    space.unregister(file.try_clone().unwrap()).unwrap();
    assert_eq!(
        letters(&space.attach(pages(0, 1), Prot::READ).unwrap()),
        "a"
    );
    let error = space.unregister(&file).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::NOENT), "{error}");
    assert!(error.to_string().contains("not registered"), "{error}");
}

#[test]
fn all_registrations_end_at_once_and_those_of_a_part_alone() {
    let space = space(2);
    let part = space.part(pages(0, 1), Prot::READ).unwrap();
    let [own, others] = ["a", "b"].map(file);
    part.register(&own).commit().unwrap();
    space.register(&others).commit().unwrap();
    part.map(&own).at(0).commit().unwrap();
    part.unregister_all().unwrap();
    assert!(space.unregister(&own).is_err());
    assert_eq!(
        letters(&space.attach(pages(0, 1), Prot::READ).unwrap()),
        "a"
    );
    part.register(&own).commit().unwrap();
    space.unregister_all().unwrap();
    space.unregister_all().unwrap();
    for file in [own, others] {
        assert!(space.unregister(&file).is_err());
    }
}

#[test]
fn part_of_a_file_can_be_registered() {
    let space = space(1);
    let file = file("abc");
    let (offset, length) = (page_size(), 2 * page_size());
    space
        .register(&file)
        .offset(offset)
        .length(length)
        .populate()
        .commit()
        .unwrap();
    space
        .map(&file)
        .offset(2 * page_size())
        .at(0)
        .commit()
        .unwrap();
    assert_eq!(
        letters(&space.attach(pages(0, 1), Prot::READ).unwrap()),
        "c"
    );
}

#[test]
fn files_and_ranges_that_cannot_be_registered_are_refused() {
    let space = space(1);
    let file = file("a");
    let errno = |result: Result<(), Error>| {
        let error = result.unwrap_err();
        assert!(error.advice().is_some(), "{error}");
        error.errno().unwrap()
    };
    assert_eq!(errno(space.register(&space).commit()), Errno::LOOP);
    assert_eq!(
        errno(space.register(&file).length(0).commit()),
        Errno::INVAL
    );
    assert_eq!(
        errno(space.register(&file).offset(4 * page_size()).commit()),
        Errno::INVAL
    );
    assert_eq!(
        errno(space.register(&file).length(1).commit()),
        Errno::INVAL
    );
    let name = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
    let reader = File::from(open(name.as_str(), OFlags::RDONLY, Mode::empty()).unwrap());
    assert_eq!(
        errno(space.register(&reader).prot(READ_WRITE).commit()),
        Errno::ACCESS
    );
}

#[test]
fn batch_is_visible_to_an_attached_process() {
    let space = space(4);
    let (old, new) = (file("abcd"), file("xyz"));
    space.map(&old).at(0).prot(READ_WRITE).commit().unwrap();
    let mut process = Process::attaching(&space, READ_WRITE);
    for (page, letter) in (0..).zip("abcd".chars()) {
        assert_eq!(process.letter(page), Ok(letter));
    }

    let page = page_size();
    space
        .batch()
        .unmap(pages(1, 2))
        .map(&new, 2 * page, pages(1, 2), Prot::READ)
        .replace(&new, 0, pages(2, 3), READ_WRITE)
        .protect(pages(0, 1), Prot::READ)
        .unmap(pages(3, 4))
        .commit()
        .unwrap();
    assert_eq!(process.letter(0), Ok('a'));
    assert_eq!(process.letter(1), Ok('z'));
    assert_eq!(process.letter(2), Ok('x'));
    assert_eq!(process.set_letter(2, 'X'), Ok(()));
    assert_eq!(
        Process::attaching(&space, READ_WRITE).set_letter(0, 'A'),
        Err(SIGSEGV)
    );
    assert_eq!(process.letter(3), Err(SIGBUS));
}

#[test]
fn failed_batch_names_the_operation_and_changes_nothing() {
    let space = space(4);
    let (old, new) = (file("abcd"), file("xyz"));
    space.map(&old).at(0).commit().unwrap();
    let window = space.attach(pages(0, 4), Prot::READ).unwrap();

    // Something is mapped in the range of the last operation.
    let batch = space
        .batch()
        .unmap(pages(0, 2))
        .map(&new, 0, pages(0, 1), Prot::READ)
        .map(&new, 0, pages(2, 3), Prot::READ);
    let error = batch.commit().unwrap_err();
    assert_eq!(error.failed_operation(), Some(2), "{error}");
    assert_eq!(error.errno(), Some(Errno::EXIST), "{error}");
    assert!(error.to_string().contains("operation 2 of 3"), "{error}");
    assert_eq!(letters(&window), "abcd");

    let batch = space.batch().unmap(pages(0, 2)).unmap(pages(3, 5));
    let error = batch.commit().unwrap_err();
    assert_eq!(error.failed_operation(), Some(1), "{error}");
    assert!(matches!(&error, Error::Batch { error, .. } if matches!(**error, Error::Unmap { .. })));
    assert_eq!(letters(&window), "abcd");
}

#[test]
fn batch_has_at_most_65536_operations() {
    const MOST: u64 = 65536;
    let space = space(MOST);
    let one = file("a");
    let mut batch = space.batch();
    for page in 0..1024 {
        batch = batch.map(&one, 0, pages(page, page + 1), Prot::READ);
    }
    batch.commit().unwrap();
    assert_eq!(
        letters(&space.attach(pages(1023, 1024), Prot::READ).unwrap()),
        "a"
    );

    let mut batch = space.batch();
    for page in 0..=MOST {
        batch = batch.unmap(pages(page.min(MOST - 1), MOST));
    }
    let error = batch.commit().unwrap_err();
    assert_eq!(error.errno(), Some(Errno::INVAL), "{error}");
    assert_eq!(error.failed_operation(), None, "{error}");
}

#[test]
fn protect_removes_and_restores_access() {
    let space = space(2);
    space
        .map(&file("ab"))
        .at(0)
        .prot(READ_WRITE)
        .commit()
        .unwrap();
    let mut process = Process::attaching(&space, READ_WRITE);
    assert_eq!(process.set_letter(0, 'A'), Ok(()));

    space.protect(pages(0, 1), Prot::READ).unwrap();
    assert_eq!(process.letter(0), Ok('A'));
    assert_eq!(process.set_letter(1, 'B'), Ok(()));
    assert_eq!(process.set_letter(0, 'x'), Err(SIGSEGV));

    space.protect(pages(0, 1), READ_WRITE).unwrap();
    let mut process = Process::attaching(&space, READ_WRITE);
    assert_eq!(process.set_letter(0, 'y'), Ok(()));
    space.protect(pages(0, 1), Prot::empty()).unwrap();
    assert_eq!(process.letter(0), Err(SIGSEGV));
}

#[test]
fn protect_needs_a_mapped_range_and_an_allowed_protection() {
    let space = space(2);
    space.map(&file("a")).at(0).commit().unwrap();
    let error = space.protect(pages(0, 2), Prot::READ).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::NOENT), "{error}");
    assert!(error.advice().is_some());
    let error = space.protect(pages(0, 1), READ_WRITE).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::ACCESS), "{error}");
    assert!(error.advice().is_some());
}

#[test]
fn move_is_visible_to_an_attached_process() {
    let space = space(4);
    space.map(&file("ab")).at(0).commit().unwrap();
    let mut process = Process::attaching(&space, Prot::READ);
    assert_eq!(process.letter(0), Ok('a'));

    space.move_to(pages(0, 2), 2 * page_size()).unwrap();
    assert_eq!(process.letter(2), Ok('a'));
    assert_eq!(process.letter(3), Ok('b'));
    assert_eq!(process.letter(0), Err(SIGBUS));

    space.map(&file("x")).at(0).commit().unwrap();
    let error = space.move_to(pages(3, 4), 0).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::EXIST), "{error}");
    assert!(error.to_string().contains("move_over()"), "{error}");
    space.move_over(pages(3, 4), 0).unwrap();
    assert_eq!(
        letters(&space.attach(pages(0, 1), Prot::READ).unwrap()),
        "b"
    );
    let error = space.move_to(pages(3, 4), 0).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::NOENT), "{error}");
}

#[test]
fn view_of_a_space_cannot_change_it() {
    let space = space(1);
    space.map(&file("a")).at(0).commit().unwrap();
    let view = space.view(pages(0, 1), Prot::READ).unwrap();
    let claim = address_space::AddressSpace::from(view.as_fd().try_clone_to_owned().unwrap());
    let file = file("x");
    for error in [
        claim.register(&file).commit().unwrap_err(),
        claim.unregister(&file).unwrap_err(),
        claim.batch().unmap(pages(0, 1)).commit().unwrap_err(),
        claim.protect(pages(0, 1), Prot::READ).unwrap_err(),
        claim.move_to(pages(0, 1), page_size()).unwrap_err(),
    ] {
        assert_eq!(error.errno(), Some(Errno::NOTTY), "{error}");
    }
}

#[test]
fn refused_range_has_its_cause() {
    let space = space(2);
    let page = page_size();
    space.map(&file("ab")).at(0).commit().unwrap();
    let view = space.view(.., Prot::READ).unwrap();
    let cause = |result: Result<(), Error>| {
        let error = result.unwrap_err();
        assert_eq!(error.errno(), Some(Errno::INVAL), "{error}");
        error.advice().unwrap()
    };
    assert!(cause(space.unmap(0..0)).contains("is empty"));
    assert!(cause(space.unmap(1..page)).contains("multiples of the page size"));
    assert!(cause(space.unmap(0..3 * page)).contains("beyond"));
    assert!(cause(space.protect(.., Prot::WRITE)).contains("must have READ"));
    assert!(cause(space.protect(page..3 * page, Prot::READ)).contains("beyond"));
    assert!(cause(space.move_to(.., page)).contains("overlap"));
    assert!(cause(space.move_to(..page, 2 * page)).contains("beyond"));
    assert!(cause(space.view(.., Prot::empty()).map(drop)).contains("must have READ"));
    assert!(cause(view.attach(1..page, Prot::READ).map(drop)).contains("does not start"));
    assert!(cause(view.attach(..3 * page, Prot::READ).map(drop)).contains("beyond"));
    let map = space.map(&file("a")).at(1).replace().commit().map(drop);
    assert!(cause(map).contains("the address is not"));
}
