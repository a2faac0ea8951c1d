// SPDX-License-Identifier: GPL-2.0

//! The model itself, in sequences that can be followed by hand: what it must accept and,
//! above all, what it must not.

use super::*;

impl Model {
    /// Makes a step that goes well.
    fn make(&mut self, op: Op) -> Verdict {
        assert!(self.possible(&op), "{op:?}");
        self.judge(&op, &Seen::Done)
    }
}

fn model() -> Model {
    let mut file = File::new(Kind::Memfd, 4, 8);
    for cell in 0..8 {
        file.cells[cell as usize] = first_value(0, cell);
    }
    let mut files: [Option<File>; FILES] = Default::default();
    files[0] = Some(file);
    let mut model = Model::new(files);
    model.make(Op::Create { space: 0, holes: 0 }).unwrap();
    model
}

fn map(start: u64, count: u64, prot: u32) -> Map {
    Map {
        handle: Handle {
            file: 0,
            writable: true,
        },
        offset: 0,
        at: Span::new(start, count),
        prot,
        replace: false,
        populate: false,
        private: false,
    }
}

fn mapped(start: u64, count: u64, prot: u32) -> Op {
    Op::Map {
        on: Source::Space(0),
        map: map(start, count, prot),
    }
}

fn attached(at: Span, prot: u32) -> Op {
    Op::Attach {
        process: 0,
        source: Source::Space(0),
        at,
        prot,
        place: 0,
    }
}

fn touch(page: u64, access: Access) -> Op {
    let touches = vec![Touch {
        page,
        cell: 0,
        access,
    }];
    Op::Touch {
        process: 0,
        touches,
    }
}

/// Whether only this may come of an access.
fn only(model: &mut Model, page: u64, access: Access, wanted: Touched) {
    let value = first_value(0, page * CELLS);
    let others = [
        Touched::Value(0),
        Touched::Value(value),
        Touched::Stored,
        Touched::Bus,
        Touched::Segv,
        Touched::Fault,
    ];
    for other in others.into_iter().filter(|other| *other != wanted) {
        let op = touch(page, access);
        assert!(
            model
                .clone()
                .judge(&op, &Seen::Touched(vec![other]))
                .is_err(),
            "{other:?} instead of {wanted:?}"
        );
    }
    let op = touch(page, access);
    model.judge(&op, &Seen::Touched(vec![wanted])).unwrap();
}

#[test]
fn a_page_shows_its_file_or_is_refused() {
    let mut model = model();
    model.make(attached(Span::new(0, 6), RW)).unwrap();
    only(&mut model, 1, Access::Load, Touched::Bus);
    model.make(mapped(0, 5, READ)).unwrap();
    only(
        &mut model,
        1,
        Access::Load,
        Touched::Value(first_value(0, 2)),
    );
    only(&mut model, 1, Access::Store(7), Touched::Segv);
    only(&mut model, 1, Access::CopyTo(7), Touched::Fault);
    only(&mut model, 4, Access::Load, Touched::Bus);
    only(&mut model, 5, Access::Load, Touched::Bus);
    only(&mut model, 6, Access::Load, Touched::Segv);
}

#[test]
fn what_was_unmapped_is_not_seen() {
    let mut model = model();
    model.make(attached(Span::new(0, 6), RW)).unwrap();
    model.make(mapped(0, 2, RW)).unwrap();
    let at = Span::new(1, 1);
    model
        .make(Op::Unmap {
            on: Source::Space(0),
            at,
        })
        .unwrap();
    only(
        &mut model,
        0,
        Access::Load,
        Touched::Value(first_value(0, 0)),
    );
    only(&mut model, 1, Access::Load, Touched::Bus);
}

#[test]
fn a_write_is_seen_everywhere_and_after_it_only_the_new() {
    let mut model = model();
    model.make(attached(Span::new(0, 6), RW)).unwrap();
    model.make(mapped(0, 1, RW)).unwrap();
    model.make(mapped(2, 1, READ)).unwrap();
    only(&mut model, 0, Access::Store(7), Touched::Stored);
    only(&mut model, 2, Access::Load, Touched::Value(7));
    assert!(model.check_file(0, &Seen::Content(8, Vec::new())).is_err());
}

#[test]
fn truncation_takes_the_rest_of_a_page_too() {
    let mut model = model();
    model.make(attached(Span::new(0, 6), RW)).unwrap();
    model.make(mapped(0, 4, RW)).unwrap();
    let cut = |cells| Op::Truncate { file: 0, cells };
    model.make(cut(3)).unwrap();
    only(
        &mut model,
        1,
        Access::Load,
        Touched::Value(first_value(0, 2)),
    );
    only(&mut model, 2, Access::Load, Touched::Bus);
    model.make(cut(8)).unwrap();
    only(&mut model, 2, Access::Load, Touched::Value(0));
}

#[test]
fn a_refused_call_changes_nothing() {
    let mut model = model();
    model.make(mapped(0, 2, RW)).unwrap();
    let before = model.open(Source::Space(0)).unwrap().shown.clone();
    let again = mapped(1, 2, RW);
    assert!(model.clone().judge(&again, &Seen::Done).is_err());
    model.judge(&again, &Seen::Errno(libc::EEXIST)).unwrap();
    let batch = Op::Batch {
        on: Source::Space(0),
        changes: vec![Change::Unmap(Span::new(0, 1)), Change::Map(map(0, 2, RW))],
    };
    let refused = |index| Seen::Refused(Some(index), libc::EEXIST);
    assert!(model.clone().judge(&batch, &refused(0)).is_err());
    model.judge(&batch, &refused(1)).unwrap();
    assert_eq!(before, model.open(Source::Space(0)).unwrap().shown);
}

#[test]
fn protection_is_raised_only_to_what_was_checked() {
    let mut model = model();
    model.make(mapped(0, 1, READ)).unwrap();
    let raise = Op::Protect {
        on: Source::Space(0),
        at: Span::new(0, 1),
        prot: RW,
    };
    let refused = Seen::Errno(libc::EACCES);
    assert!(model.clone().judge(&raise, &Seen::Done).is_err());
    model.judge(&raise, &refused).unwrap();
    // Both may be one piece of the file, or two.
    model.make(mapped(1, 1, RW)).unwrap();
    model.clone().judge(&raise, &refused).unwrap();
    model.judge(&raise, &Seen::Done).unwrap();
    assert!(model.judge(&raise, &refused).is_err());
}

#[test]
fn fdinfo_is_compared_page_by_page() {
    let mut model = model();
    model.make(mapped(3, 2, READ)).unwrap();
    let line = |start, count, offset| Line {
        at: Span::new(start, count),
        prot: READ,
        offset,
        file: Some(0),
        private: false,
    };
    model.check_layout(0, &[line(3, 2, 0)]).unwrap();
    model
        .check_layout(0, &[line(3, 1, 0), line(4, 1, 1)])
        .unwrap();
    for wrong in [line(3, 1, 0), line(3, 2, 1), line(3, 3, 0), line(2, 2, 0)] {
        assert!(model.check_layout(0, &[wrong]).is_err());
    }
}

#[test]
fn attachments_are_cut_protected_moved_and_copied() {
    let mut model = model();
    model.make(mapped(0, 4, RW)).unwrap();
    model.make(attached(Span::new(0, 4), RW)).unwrap();
    let at = Span::new(1, 1);
    let prot = |at, prot| Op::Mprotect {
        process: 0,
        at,
        prot,
    };
    model.make(prot(at, READ)).unwrap();
    only(&mut model, 1, Access::Store(7), Touched::Segv);
    // Three VMAs now, of which one can be moved.
    let r#move = |at, to| Op::Mremap { process: 0, at, to };
    assert!(!model.possible(&r#move(Span::new(0, 2), 100)));
    model.make(r#move(at, 100)).unwrap();
    only(&mut model, 1, Access::Load, Touched::Segv);
    only(
        &mut model,
        100,
        Access::Load,
        Touched::Value(first_value(0, 2)),
    );
    model.make(Op::Fork { from: 0, to: 1 }).unwrap();
    let pages = model.hot_pages(0);
    model
        .make(Op::Detach {
            process: 0,
            at: Span::new(0, 200),
        })
        .unwrap();
    assert_eq!(model.hot_pages(1), pages);
    assert!(model.hot_pages(0).is_empty());
}

#[test]
fn a_view_gives_no_more_than_its_own() {
    let mut model = model();
    model.make(mapped(0, 4, RW)).unwrap();
    let view = Op::MakeView {
        on: Source::Space(0),
        view: 0,
        at: Span::new(1, 2),
        prot: READ,
        holes: 0,
        manage: false,
    };
    model.make(view).unwrap();
    let attach = |at, prot| Op::Attach {
        process: 0,
        source: Source::View(0),
        at,
        prot,
        place: 0,
    };
    let refused = |errno| Seen::Errno(errno);
    model
        .judge(&attach(Span::new(0, 3), READ), &refused(libc::EINVAL))
        .unwrap();
    model
        .judge(&attach(Span::new(0, 2), RW), &refused(libc::EACCES))
        .unwrap();
    model.make(attach(Span::new(1, 1), READ)).unwrap();
    only(
        &mut model,
        0,
        Access::Load,
        Touched::Value(first_value(0, 4)),
    );
    let raise = Op::Mprotect {
        process: 0,
        at: Span::new(0, 1),
        prot: RW,
    };
    assert!(model.judge(&raise, &Seen::Done).is_err());
}

#[test]
fn a_huge_page_that_reaches_past_the_end_is_left_out() {
    let mut model = model();
    model.make(attached(Span::new(0, 6), RW)).unwrap();
    model.make(mapped(0, 6, RW)).unwrap();
    let load = |page| Touch {
        page,
        cell: 0,
        access: Access::Load,
    };
    let all = [load(3), load(4)];
    assert_eq!(model.meaningful(0, &all), all);
    if let Some(file) = &mut model.files[0] {
        file.kind = Kind::HugeTmpfs;
    }
    assert_eq!(model.meaningful(0, &all), all[..1]);
    assert!(model.sweep(0).iter().all(|touch| touch.page < 4));
}

#[test]
fn a_guest_meets_holes_and_what_it_may_not_write() {
    let mut model = model();
    model.make(mapped(0, 2, READ)).unwrap();
    model.make(Op::Boot).unwrap();
    let plug = Op::Plug {
        source: Source::Space(0),
        slot: 0,
        at: Span::new(0, 4),
        readonly: false,
        log: false,
        holes: 0,
    };
    model.make(plug).unwrap();
    let touch = |page, store| {
        Op::Guest(vec![GuestTouch {
            slot: 0,
            page,
            cell: 0,
            store,
        }])
    };
    let seen = |touched| Seen::Touched(vec![touched]);
    let value = Touched::Value(first_value(0, 2));
    model.judge(&touch(1, None), &seen(value)).unwrap();
    model
        .judge(&touch(1, Some(7)), &seen(Touched::Mmio))
        .unwrap();
    model
        .judge(&touch(1, Some(7)), &seen(Touched::Fault))
        .unwrap();
    assert!(
        model
            .clone()
            .judge(&touch(1, Some(7)), &seen(Touched::Stored))
            .is_err()
    );
    assert!(
        model
            .clone()
            .judge(&touch(2, None), &seen(Touched::Value(0)))
            .is_err()
    );
    assert!(
        model
            .clone()
            .judge(&touch(2, None), &seen(Touched::Mmio))
            .is_err()
    );
    model.judge(&touch(2, None), &seen(Touched::Fault)).unwrap();
}

/// A view with a policy, of all of space 0, attached at page 0 of process 0.
fn attached_with(model: &mut Model, holes: u32) {
    let view = Op::MakeView {
        on: Source::Space(0),
        view: 0,
        at: Span::new(0, SPACE_PAGES),
        prot: RW,
        holes,
        manage: false,
    };
    model.make(view).unwrap();
    let attach = Op::Attach {
        process: 0,
        source: Source::View(0),
        at: Span::new(0, 6),
        prot: RW,
        place: 0,
    };
    model.make(attach).unwrap();
}

#[test]
fn what_is_absorbed_is_seen_in_the_same_attachment_only() {
    let mut model = model();
    attached_with(&mut model, ABSORB);
    model.make(attached(Span::new(0, 6), RW)).unwrap();
    attached_with_again(&mut model);
    only(&mut model, 100, Access::Store(7), Touched::Stored);
    only(&mut model, 101, Access::Load, Touched::Value(7));
    only(&mut model, 1, Access::Load, Touched::Bus);
    model.make(Op::Fork { from: 0, to: 1 }).unwrap();
    let load = Touch {
        page: 100,
        cell: 0,
        access: Access::Load,
    };
    let of_child = Op::Touch {
        process: 1,
        touches: vec![load],
    };
    let seen = |value| Seen::Touched(vec![Touched::Value(value)]);
    assert!(model.clone().judge(&of_child, &seen(7)).is_err());
    model.judge(&of_child, &seen(0)).unwrap();
    model.make(mapped(0, 4, RW)).unwrap();
    let value = Touched::Value(first_value(0, 0));
    only(&mut model, 100, Access::Load, value);
}

/// The view of `attached_with()`, at page 100.
fn attached_with_again(model: &mut Model) {
    let attach = Op::Attach {
        process: 0,
        source: Source::View(0),
        at: Span::new(0, 6),
        prot: RW,
        place: 100,
    };
    model.make(attach).unwrap();
}

#[test]
fn what_is_absorbed_past_the_end_may_be_seen_for_a_while() {
    let mut model = model();
    attached_with(&mut model, ABSORB);
    model.make(mapped(0, 6, RW)).unwrap();
    only(&mut model, 4, Access::Store(7), Touched::Stored);
    only(&mut model, 4, Access::Load, Touched::Value(7));
    model.make(Op::Truncate { file: 0, cells: 12 }).unwrap();
    let load = touch(4, Access::Load);
    for value in [0, 7] {
        let seen = Seen::Touched(vec![Touched::Value(value)]);
        model.clone().judge(&load, &seen).unwrap();
    }
    // A write would go to the one or to the other.
    let store = Touch {
        page: 4,
        cell: 0,
        access: Access::Store(8),
    };
    assert!(model.meaningful(0, &[store]).is_empty());
    let seen = |value| Seen::Touched(vec![Touched::Value(value)]);
    assert!(model.clone().judge(&Op::Expire(0), &seen(7)).is_err());
    model.judge(&Op::Expire(0), &seen(0)).unwrap();
    only(&mut model, 4, Access::Load, Touched::Value(0));
}

fn watched(timed: bool) -> Op {
    Op::Watch {
        on: Source::Space(0),
        watch: 0,
        at: None,
        timed,
    }
}

fn wait(page: u64) -> Op {
    Op::Wait {
        waiter: 0,
        process: 0,
        touch: Touch {
            page,
            cell: 0,
            access: Access::Load,
        },
    }
}

#[test]
fn a_wait_ends_with_what_is_mapped_or_in_a_refusal() {
    let mut model = model();
    attached_with(&mut model, WAIT);
    // Nobody watches.
    only(&mut model, 1, Access::Load, Touched::Bus);
    assert!(!model.possible(&wait(1)));
    model.make(watched(false)).unwrap();
    model.make(wait(1)).unwrap();
    assert_eq!(model.waiting(), [(0, 1)]);
    assert!(model.ended_waiters().is_empty());
    let mut poisoned = model.clone();
    let poison = Op::Poison {
        on: Source::Space(0),
        at: Span::new(0, 2),
        clear: false,
    };
    poisoned.make(poison).unwrap();
    assert_eq!(poisoned.ended_waiters(), [0]);
    let value = Touched::Value(first_value(0, 2));
    assert!(poisoned.clone().judge_waiters(&[(0, value)]).is_err());
    poisoned.judge_waiters(&[(0, Touched::Bus)]).unwrap();
    model.make(mapped(0, 4, RW)).unwrap();
    assert_eq!(model.ended_waiters(), [0]);
    assert!(model.clone().judge_waiters(&[(0, Touched::Bus)]).is_err());
    model.judge_waiters(&[(0, value)]).unwrap();
    assert_eq!(model.waiting(), [(0, 0)]);
}

#[test]
fn a_wait_is_told_of_once_and_before_it_has_ended() {
    let mut model = model();
    attached_with(&mut model, WAIT);
    model.make(watched(false)).unwrap();
    model.make(wait(1)).unwrap();
    let event = Told::Of {
        kind: EventKind::Wait,
        page: 1,
        access: READ,
        through: 1,
    };
    let read = |model: &mut Model, told: &[Told]| {
        model.judge(&Op::ReadEvents(0), &Seen::Told(told.to_vec()))
    };
    assert!(read(&mut model.clone(), &[]).is_err());
    assert!(read(&mut model.clone(), &[event, event]).is_err());
    let mut killed = model.clone();
    killed.make(Op::Kill(0)).unwrap();
    assert!(read(&mut killed.clone(), &[event]).is_err());
    read(&mut killed, &[]).unwrap();
    read(&mut model, &[event]).unwrap();
    assert!(read(&mut model.clone(), &[event]).is_err());
    read(&mut model, &[]).unwrap();
}

#[test]
fn a_part_is_changed_in_its_own_range_for_its_own_rights() {
    let mut model = model();
    let view = Op::MakeView {
        on: Source::Space(0),
        view: 0,
        at: Span::new(2, 4),
        prot: READ,
        holes: 0,
        manage: true,
    };
    model.make(view).unwrap();
    let map = |at, prot| Op::Map {
        on: Source::View(0),
        map: map(at, 1, prot),
    };
    let refused = |errno| Seen::Errno(errno);
    model.judge(&map(4, READ), &refused(libc::EINVAL)).unwrap();
    model.judge(&map(0, RW), &refused(libc::EACCES)).unwrap();
    model.make(map(1, READ)).unwrap();
    let shown = &model.open(Source::Space(0)).unwrap().shown;
    assert!(shown[3].is_some() && shown[1].is_none());
}

#[test]
fn private_map_has_copies_of_its_own() {
    let mut model = model();
    let private = |start| Op::Map {
        on: Source::Space(0),
        map: Map {
            private: true,
            ..map(start, 1, RW)
        },
    };
    model.make(private(3)).unwrap();
    model.make(private(4)).unwrap();
    model.make(attached(Span::new(3, 2), RW)).unwrap();
    let value = |value| Seen::Touched(vec![Touched::Value(value)]);
    let stored = Seen::Touched(vec![Touched::Stored]);
    model.judge(&touch(0, Access::Store(7)), &stored).unwrap();
    model.judge(&touch(0, Access::Load), &value(7)).unwrap();
    let first = model.file(0).value(0);
    model.judge(&touch(1, Access::Load), &value(first)).unwrap();
    assert!(model.judge(&touch(1, Access::Load), &value(7)).is_err());
    let forget = Op::Want {
        on: Source::Space(0),
        at: Span::new(3, 2),
        want: Want::DontNeed,
    };
    model.make(forget).unwrap();
    model.judge(&touch(0, Access::Load), &value(first)).unwrap();
}
