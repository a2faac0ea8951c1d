// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a hole comes to, and who is told. Needs the module.

use std::thread;
use std::time::Duration;

use address_space::{Errno, EventKind, Holes, Prot, page_size};

mod common;

use common::{READ_WRITE, file, letters, pages, space};

#[test]
fn absorbed_hole_reads_zeroes_until_something_is_mapped() {
    let space = space(4);
    let view = space
        .view_with(pages(0, 4), READ_WRITE, Holes::ABSORB)
        .unwrap();
    let window = view.attach(pages(0, 4), READ_WRITE).unwrap();
    assert_eq!(letters(&window), "\0\0\0\0");
    window.write::<u8>(0, 7).unwrap();
    space.map(&file("abcd")).at(0).commit().unwrap();
    assert_eq!(letters(&window), "abcd");
}

#[test]
fn manager_maps_what_a_task_waits_for() {
    let space = space(4);
    let view = space
        .view_with(pages(0, 4), Prot::READ, Holes::WAIT)
        .unwrap();
    let mut events = space.watch(pages(0, 4), None).unwrap();
    let window = view.attach(pages(0, 4), Prot::READ).unwrap();
    let image = file("abcd");
    let reader = thread::spawn(move || letters(&window));
    for page in 0..4 {
        let event = events.next().unwrap().unwrap();
        assert_eq!(event.kind, EventKind::Wait);
        assert_eq!(event.offset, page * page_size());
        assert_eq!(event.access, Prot::READ);
        assert_eq!(event.view, view.id().unwrap());
        space
            .map(&image)
            .offset(event.offset)
            .length(page_size())
            .at(event.offset)
            .commit()
            .unwrap();
    }
    assert_eq!(reader.join().unwrap(), "abcd");
    events.set_nonblocking(true).unwrap();
    assert_eq!(events.try_next().unwrap(), None);
}

#[test]
fn absorbed_access_is_told_of() {
    let space = space(4);
    let view = space
        .view_with(pages(1, 4), READ_WRITE, Holes::ABSORB)
        .unwrap();
    let events = space
        .watch(pages(0, 4), Some(Duration::from_secs(1)))
        .unwrap();
    let window = view.attach(pages(0, 3), READ_WRITE).unwrap();
    window.write::<u8>(page_size() as usize, 1).unwrap();
    let event = events.try_next().unwrap().unwrap();
    assert_eq!(event.kind, EventKind::Hole);
    assert_eq!(event.offset, 2 * page_size());
    assert_eq!(event.access, Prot::WRITE);
    assert_ne!(space.id().unwrap(), view.id().unwrap());
}

#[test]
fn there_is_one_watcher_at_a_time() {
    let space = space(4);
    let error = space.poison(pages(0, 1)).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::NOENT), "{error}");
    let events = space.watch(pages(0, 4), None).unwrap();
    let error = space.watch(pages(0, 4), None).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::BUSY), "{error}");
    space.poison(pages(0, 1)).unwrap();
    space.unpoison(pages(0, 1)).unwrap();
    drop(events);
    space.watch(pages(0, 4), None).unwrap();
}

#[test]
fn policies_that_contradict_each_other_are_refused() {
    let space = space(4);
    for holes in [Holes::ABSORB | Holes::WAIT, Holes::DENIED] {
        let error = space.view_with(pages(0, 1), Prot::READ, holes).unwrap_err();
        assert_eq!(error.errno(), Some(Errno::INVAL), "{error}");
    }
}
