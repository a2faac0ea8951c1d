// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Accesses that end in an error where others end in a signal. Needs the module.

use std::time::{Duration, Instant};

use address_space::{AddressSpace, Errno, Error, Holes, Memory, Prot, page_size};

mod common;

use common::{READ_WRITE, file, letter_in_file, pages, space};

/// The offset of a page.
fn at(page: u64) -> usize {
    (page * page_size()) as usize
}

/// The offset and the errno of an access that must have failed.
fn refused<T: std::fmt::Debug>(result: Result<T, Error>) -> (usize, Errno) {
    match result {
        Err(Error::Access { offset, errno, .. }) => (offset, errno),
        other => panic!("{other:?}"),
    }
}

/// All ways to read and to write a page fail, at its start.
fn expect_refused(window: &Memory, page: u64) {
    let start = (at(page), Errno::FAULT);
    assert_eq!(refused(window.try_read::<u64>(start.0)), start);
    assert_eq!(
        refused(window.try_read_slice(start.0, &mut [0; 100])),
        start
    );
    expect_write_refused(window, page);
}

fn expect_write_refused(window: &Memory, page: u64) {
    let start = (at(page), Errno::FAULT);
    assert_eq!(refused(window.try_write(start.0, 1_u64)), start);
    assert_eq!(refused(window.try_write_slice(start.0, &[1; 100])), start);
}

#[test]
fn access_to_a_hole_is_an_error_until_something_is_mapped() {
    let space = space(2);
    let window = space.attach(.., READ_WRITE).unwrap();
    expect_refused(&window, 0);
    let file = file("ab");
    space.map(&file).at(0).prot(READ_WRITE).commit().unwrap();
    assert_eq!(window.try_read(at(1)), Ok(b'b'));
    window.try_write(at(1), b'x').unwrap();
    assert_eq!(letter_in_file(&file, 1), 'x');
    space.unmap(pages(1, 2)).unwrap();
    expect_refused(&window, 1);
    assert_eq!(window.try_read(0), Ok(b'a'));
}

#[test]
fn access_that_runs_into_a_hole_has_done_what_comes_before() {
    let space = space(4);
    let file = file("abc");
    space.map(&file).at(0).prot(READ_WRITE).commit().unwrap();
    let window = space.attach(.., READ_WRITE).unwrap();
    let hole = (at(3), Errno::FAULT);
    let start = at(1) + 5;
    let length = at(4) - 100 - start;
    let mut bytes = vec![0; length];
    assert_eq!(refused(window.try_read_slice(start, &mut bytes)), hole);
    let (copied, rest) = bytes.split_at(at(3) - start);
    assert!(copied.iter().all(|byte| b"bc".contains(byte)));
    assert!(rest.iter().all(|byte| *byte == 0));

    let bytes = vec![b'x'; length];
    assert_eq!(refused(window.try_write_slice(start, &bytes)), hole);
    assert_eq!(letter_in_file(&file, 1), 'b');
    assert_eq!(letter_in_file(&file, 2), 'x');
    assert_eq!(window.try_read(at(3) - 1), Ok(b'x'));
}

#[test]
fn write_to_a_mapping_for_reading_is_an_error() {
    let space = space(1);
    space.map(&file("a")).at(0).commit().unwrap();
    let window = space.attach(.., READ_WRITE).unwrap();
    expect_write_refused(&window, 0);
    // Also where there is an entry for reading.
    assert_eq!(window.try_read(0), Ok(b'a'));
    expect_write_refused(&window, 0);
    let window = space.attach(.., Prot::READ).unwrap();
    assert_eq!(window.try_write(0, 1_u8), Err(Error::NotWritable));
}

#[test]
fn access_beyond_the_end_of_a_file_is_an_error() {
    let space = space(2);
    let file = file("ab");
    space.map(&file).at(0).prot(READ_WRITE).commit().unwrap();
    let window = space.attach(.., READ_WRITE).unwrap();
    assert_eq!(window.try_read(at(1)), Ok(b'b'));
    file.set_len(page_size()).unwrap();
    expect_refused(&window, 1);
}

/// A view of it with a policy.
fn window_with(space: &AddressSpace, holes: Holes) -> address_space::Window {
    let view = space.view_with(.., READ_WRITE, holes).unwrap();
    view.attach(.., READ_WRITE).unwrap()
}

#[test]
fn hole_that_is_absorbed_is_no_error() {
    let space = space(2);
    let window = window_with(&space, Holes::ABSORB);
    assert_eq!(window.try_read(at(1)), Ok(0_u64));
    window.try_write_slice(at(1), &[1; 100]).unwrap();
}

#[test]
fn hole_that_is_waited_for_is_an_error_at_once() {
    let space = space(2);
    let window = window_with(&space, Holes::WAIT);
    let _events = space.watch(.., None).unwrap();
    let before = Instant::now();
    expect_refused(&window, 1);
    assert!(before.elapsed() < Duration::from_secs(10));
}

#[test]
fn access_never_hangs_nor_signals_while_the_owner_maps_and_unmaps() {
    let space = space(1);
    let file = file("a");
    let window = space.attach(.., READ_WRITE).unwrap();
    std::thread::scope(|scope| {
        let owner = scope.spawn(|| {
            for _ in 0..500 {
                space.map(&file).at(0).prot(READ_WRITE).commit().unwrap();
                space.unmap(..).unwrap();
            }
        });
        while !owner.is_finished() {
            match window.try_read::<u8>(0) {
                Ok(byte) => assert_eq!(byte, b'a'),
                result => assert_eq!(refused(result), (0, Errno::FAULT)),
            }
        }
    });
    expect_refused(&window, 0);
}
