// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Ranges without a start or an end. Needs the module.

use address_space::{Advice, Errno, Prot, page_size};

mod common;

use common::{READ_WRITE, file, letters, pages, space};

#[test]
fn range_without_bounds_is_all_of_it() {
    let space = space(4);
    space.map(&file("abcd")).at(0).commit().unwrap();
    let page = page_size();
    let of_space = |range| letters(&space.attach(range, Prot::READ).unwrap());
    assert_eq!(letters(&space.attach(.., Prot::READ).unwrap()), "abcd");
    assert_eq!(of_space(page..4 * page), "bcd");
    assert_eq!(letters(&space.attach(page.., Prot::READ).unwrap()), "bcd");
    assert_eq!(letters(&space.attach(..page, Prot::READ).unwrap()), "a");
    assert_eq!(
        letters(&space.attach(..=page - 1, Prot::READ).unwrap()),
        "a"
    );
}

#[test]
fn end_of_a_view_is_its_own() {
    let space = space(4);
    space.map(&file("abcd")).at(0).commit().unwrap();
    let view = space.view(pages(1, 3), Prot::READ).unwrap();
    assert_eq!(letters(&view.attach(.., Prot::READ).unwrap()), "bc");
    let part = space.part(page_size().., READ_WRITE).unwrap();
    assert_eq!(part.length(), Ok(3 * page_size()));
    part.unmap(2 * page_size()..).unwrap();
    assert_eq!(
        letters(&space.attach(pages(0, 3), Prot::READ).unwrap()),
        "abc"
    );
}

#[test]
fn all_can_be_changed_at_once() {
    let space = space(2);
    let file = file("ab");
    let map = || space.map(&file).at(0).prot(READ_WRITE).commit();
    map().unwrap();
    space.advise(.., Advice::WillNeed).unwrap();
    space.protect(.., Prot::READ).unwrap();
    let window = space.attach(.., READ_WRITE).unwrap();
    assert!(window.try_write(0, b'x').is_err());
    space.batch().protect(.., READ_WRITE).commit().unwrap();
    window.try_write(0, b'x').unwrap();
    space.batch().unmap(..).commit().unwrap();
    map().unwrap();
    space.unmap(..).unwrap();
    assert!(window.try_read::<u8>(0).is_err());
    drop(space.watch(.., None).unwrap());
    let beyond = space.unmap(3 * page_size()..).unwrap_err();
    assert_eq!(beyond.errno(), Some(Errno::INVAL), "{beyond}");
}
