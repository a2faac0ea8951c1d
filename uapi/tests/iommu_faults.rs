// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a device sees of what it has not, and what the VMM hears of it. Needs the module.

use std::fs::File;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use address_space::iommu::{Domain, Fault, Faults, Mapping, Reason};
use address_space::{AddressSpace, Errno, Error, EventKind, Holes, Prot, View, Window, page_size};

mod common;

use common::{Process, READ_WRITE, SIGBUS, SIGSEGV, file, letter_in_file};

/// The start of the apertures.
const BASE: u64 = 4 << 30;

/// How long a page that was written to may be hidden from the device: the kernel says a
/// hundredth of a second, but the machine may have other things to do.
const HIDDEN: Duration = Duration::from_secs(30);

/// The IOVA of a page.
fn iova(page: u64) -> u64 {
    BASE + page * page_size()
}

/// The guest physical address of a page.
fn gpa(page: u64) -> u64 {
    page * page_size()
}

/// A domain of so many pages, its faults, and its guest's RAM: "abcd".
fn domain(pages: u64) -> (Domain, Faults, File) {
    let domain = Domain::new(BASE..iova(pages)).unwrap_or_else(|error| panic!("{error}"));
    let ram = file("abcd");
    domain.add_ram(0, &ram, 0, gpa(4)).unwrap();
    let faults = domain.faults().unwrap();
    faults.set_nonblocking(true).unwrap();
    (domain, faults, ram)
}

/// A process that has attached a view.
fn device(view: View) -> Process {
    Process::attaching(&AddressSpace::from(OwnedFd::from(view)), READ_WRITE)
}

/// A device that this process is itself.
fn window(view: &View) -> Window {
    view.attach(0..view.length().unwrap(), READ_WRITE).unwrap()
}

fn letter(window: &Window, page: u64) -> char {
    char::from(window.read::<u8>(gpa(page) as usize).unwrap())
}

fn set_letter(window: &Window, page: u64, letter: char) {
    window
        .write::<u8>(gpa(page) as usize, letter as u8)
        .unwrap();
}

fn mapping(page: u64, from: u64, pages: u64, prot: Prot) -> Mapping {
    Mapping {
        iova: iova(page),
        gpa: gpa(from),
        length: gpa(pages),
        prot,
    }
}

/// The end of other threads' work, also where a check fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// What a fault says, but for the task.
fn says(fault: &Fault) -> (u64, u64, Prot, Reason) {
    (fault.view, fault.iova, fault.access, fault.reason)
}

/// The next fault, which must be there.
fn next(faults: &Faults) -> Fault {
    let next = faults.try_next().unwrap();
    next.unwrap_or_else(|| panic!("no fault; {} lost", faults.lost()))
}

/// Waits until a page shows a letter again.
fn wait_for(page: u64, should: char, mut letter: impl FnMut(u64) -> char) {
    let start = Instant::now();
    while letter(page) != should {
        assert!(start.elapsed() < HIDDEN, "page {page} is not {should}");
    }
}

#[test]
fn device_goes_on_and_the_fault_names_it() {
    let (domain, faults, ram) = domain(16);
    let views = [READ_WRITE, READ_WRITE].map(|prot| domain.view(prot).unwrap());
    let ids = [&views[0], &views[1]].map(|view| view.id().unwrap());
    assert_ne!(ids[0], ids[1]);
    let mut devices = views.map(device);
    domain.map(iova(1), gpa(1), gpa(1), Prot::READ).unwrap();

    assert_eq!(devices[0].letter(0), Ok('\0'));
    assert_eq!(devices[1].set_letter(15, 'x'), Ok(()));
    assert_eq!(devices[1].set_letter(1, 'x'), Ok(()));
    let expected = [
        (ids[0], iova(0), Prot::READ, Reason::NotMapped),
        (ids[1], iova(15), Prot::WRITE, Reason::NotMapped),
        (ids[1], iova(1), Prot::WRITE, Reason::Denied),
    ];
    for should in expected {
        assert_eq!(says(&next(&faults)), should);
    }
    assert_eq!(faults.try_next().unwrap(), None);
    assert_eq!(faults.lost(), 0);

    // What was written went nowhere, and no other device sees it.
    assert_eq!(letter_in_file(&ram, 1), 'b');
    assert_eq!(devices[0].letter(1), Ok('b'));
    assert_eq!(devices[0].letter(15), Ok('\0'));
    wait_for(1, 'b', |page| devices[1].letter(page).unwrap());
    // Whoever maps something is seen at once.
    domain.map(iova(0), gpa(0), gpa(1), Prot::READ).unwrap();
    assert_eq!(devices[0].letter(0), Ok('a'));
}

#[test]
fn device_that_dies_is_reported() {
    let (domain, faults, _) = domain(16);
    domain.map(iova(1), gpa(1), gpa(1), Prot::READ).unwrap();
    for (page, signal, reason) in [(3, SIGBUS, Reason::NotMapped), (1, SIGSEGV, Reason::Denied)] {
        let view = domain.view_with(READ_WRITE, Holes::SIGNAL).unwrap();
        let id = view.id().unwrap();
        assert_eq!(device(view).set_letter(page, 'x'), Err(signal));
        // Rust's handler of these signals lets the access be made again.
        let mut told = vec![next(&faults)];
        told.extend(faults.try_next().unwrap());
        for fault in told {
            let should = (id, iova(page), Prot::WRITE, reason);
            assert_eq!(says(&fault), should);
        }
    }
}

#[test]
fn device_that_waits_is_a_page_request() {
    let (domain, faults, _) = domain(16);
    faults.set_nonblocking(false).unwrap();
    let view = domain.view_with(READ_WRITE, Holes::WAIT).unwrap();
    let id = view.id().unwrap();
    let window = window(&view);
    let device =
        thread::spawn(move || (0..4).map(|page| letter(&window, page)).collect::<String>());
    for (page, fault) in (0..4).zip(faults) {
        let fault = fault.unwrap();
        assert_eq!(says(&fault), (id, iova(page), Prot::READ, Reason::Waits));
        domain
            .map(fault.iova, gpa(3 - page), gpa(1), Prot::READ)
            .unwrap();
    }
    assert_eq!(device.join().unwrap(), "dcba");
}

#[test]
fn memory_that_is_not_there_is_another_reason() {
    let (domain, faults, ram) = domain(16);
    let view = domain.view(READ_WRITE).unwrap();
    domain.populate_up_to(0);
    domain.map(iova(0), gpa(0), gpa(4), READ_WRITE).unwrap();
    ram.set_len(gpa(2)).unwrap();
    assert_eq!(device(view).letter(3), Ok('\0'));
    let fault = next(&faults);
    assert_eq!(fault.reason, Reason::Other(EventKind::PastEnd));
    assert_eq!(fault.iova, iova(3));
}

#[test]
fn hole_is_reported_once_until_it_is_asked_for_again() {
    let (domain, faults, _) = domain(16);
    let view = domain.view(READ_WRITE).unwrap();
    let window = window(&view);
    let reported = |page| {
        assert_eq!(letter(&window, page), '\0');
        let first = faults.try_next().unwrap();
        assert_eq!(faults.try_next().unwrap(), None);
        first.map(|fault| fault.iova)
    };
    assert_eq!(reported(5), Some(iova(5)));
    assert_eq!(reported(5), None);
    assert_eq!(reported(6), Some(iova(6)));
    domain.report_again(iova(5) + 8).unwrap();
    assert_eq!(reported(6), None);
    assert_eq!(reported(5), Some(iova(5)));
    // What the guest maps and unmaps is as new.
    domain.map(iova(5), gpa(0), gpa(1), Prot::READ).unwrap();
    domain.unmap(iova(5), gpa(1)).unwrap();
    assert_eq!(reported(5), Some(iova(5)));
    domain.replace(&[]).unwrap();
    assert_eq!(reported(5), Some(iova(5)));
    assert_eq!(reported(6), Some(iova(6)));

    // What is mapped stays.
    domain.map(iova(5), gpa(2), gpa(1), Prot::READ).unwrap();
    domain.report_again(iova(5)).unwrap();
    assert_eq!(letter(&window, 5), 'c');
    let error = domain.report_again(iova(16)).unwrap_err();
    assert!(matches!(error, Error::OutOfAperture { .. }), "{error}");
    // Without RAM, too.
    let empty = Domain::new(BASE..iova(4)).unwrap();
    empty.report_again(iova(3)).unwrap();
}

/// Somebody maps, not by the domain, while a hole is asked for.
#[test]
fn asking_again_takes_nothing_away() {
    const ROUNDS: u32 = 400;
    let (domain, faults, ram) = domain(16);
    let view = domain.view(READ_WRITE).unwrap();
    let window = window(&view);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Relaxed) {
                domain.report_again(iova(5)).unwrap();
            }
        });
        let _end = End(&done);
        for round in 0..ROUNDS {
            let map = domain.space().map(&ram).length(gpa(1));
            map.at(gpa(5)).commit().unwrap();
            for _ in 0..3 {
                assert_eq!(letter(&window, 5), 'a', "round {round}");
            }
            domain.space().unmap(gpa(5)..gpa(6)).unwrap();
            assert_eq!(letter(&window, 5), '\0', "round {round}");
        }
    });
    assert!(faults.try_next().unwrap().is_some());
}

#[test]
fn flood_is_counted_and_other_devices_are_heard() {
    const LOUD: u64 = 5000;
    let (domain, faults, _) = domain(LOUD + 1);
    let [loud, quiet] = [(); 2].map(|()| domain.view(READ_WRITE).unwrap());
    let ids = [&loud, &quiet].map(|view| view.id().unwrap());
    let [loud, quiet] = [&loud, &quiet].map(window);
    for page in 0..LOUD {
        assert_eq!(letter(&loud, page), '\0');
    }
    assert_eq!(letter(&quiet, LOUD), '\0');
    let mut kept = 0;
    let mut heard = false;
    while let Some(fault) = faults.try_next().unwrap() {
        kept += 1;
        heard |= says(&fault) == (ids[1], iova(LOUD), Prot::READ, Reason::NotMapped);
        assert!(heard || (fault.view, fault.iova) == (ids[0], iova(kept - 1)));
    }
    assert!(heard, "the quiet device was not heard");
    assert!((2..=256).contains(&kept), "{kept} were kept");
    assert_eq!(faults.lost(), LOUD + 1 - kept);
    // There is room again.
    assert_eq!(letter(&loud, LOUD), '\0');
    assert_eq!(next(&faults).iova, iova(LOUD));
}

#[test]
fn fault_can_be_read_after_its_view_was_closed() {
    let (domain, faults, _) = domain(16);
    let mut closed = Vec::new();
    for page in 0..16 {
        let view = domain.view(READ_WRITE).unwrap();
        closed.push(view.id().unwrap());
        assert_eq!(letter(&window(&view), page), '\0');
    }
    let now = domain.view(READ_WRITE).unwrap().id().unwrap();
    assert!(!closed.contains(&now));
    for (page, view) in (0..).zip(closed) {
        let should = (view, iova(page), Prot::READ, Reason::NotMapped);
        assert_eq!(says(&next(&faults)), should);
    }
    assert_eq!(faults.try_next().unwrap(), None);
}

#[test]
fn domain_has_one_stream_at_a_time() {
    let (domain, faults, _) = domain(16);
    let error = domain.faults().unwrap_err();
    assert_eq!(error.errno(), Some(Errno::BUSY), "{error}");
    assert!(error.advice().is_some());
    drop(faults);
    let faults = domain.faults().unwrap();
    // It outlives the domain, and the domain's devices it.
    let view = domain.view(READ_WRITE).unwrap();
    let window = window(&view);
    drop(domain);
    assert_eq!(letter(&window, 1), '\0');
    assert_eq!(next(&faults).iova, iova(1));
    drop(faults);
    assert_eq!(letter(&window, 2), '\0');
}

/// Devices read and write everywhere, while the domain is replaced, and nobody reads the
/// faults: what is mapped is there as soon as the call returns, what is not mapped reads as
/// zeroes, and no write arrives anywhere.
#[test]
fn replace_is_in_time_for_devices_that_fault_all_the_time() {
    const PAGES: u64 = 64;
    const ROUNDS: u64 = 300;
    const DEVICES: usize = 3;
    let (domain, faults, ram) = domain(PAGES);
    // It only reads, so that its page stays zero.
    let reader = domain.view(READ_WRITE).unwrap();
    let reader = window(&reader);
    let done = AtomicBool::new(false);
    let check = |mapped: Range<u64>, round| {
        for page in 0..PAGES {
            let should = if mapped.contains(&page) {
                ['a', 'b', 'c', 'd'][(page - mapped.start) as usize]
            } else {
                '\0'
            };
            assert_eq!(letter(&reader, page), should, "page {page}, round {round}");
        }
    };
    thread::scope(|scope| {
        for device in 0..DEVICES {
            let (domain, done) = (&domain, &done);
            scope.spawn(move || {
                while !done.load(Relaxed) {
                    // Closed again with its faults in the queue.
                    let window = window(&domain.view(READ_WRITE).unwrap());
                    for page in (0..PAGES).cycle().skip(device * 7).take(4 * PAGES as usize) {
                        set_letter(&window, page, 'x');
                        assert!("xabcd\0".contains(letter(&window, page)));
                    }
                }
            });
        }
        let _end = End(&done);
        for round in 0..ROUNDS {
            let first = round * 7 % (PAGES - 4);
            domain.replace(&[mapping(first, 0, 4, Prot::READ)]).unwrap();
            check(first..first + 4, round);
            if round % 8 == 0 {
                domain.replace(&[]).unwrap();
                check(0..0, round);
            }
        }
    });
    for (page, should) in (0..).zip("abcd".chars()) {
        assert_eq!(letter_in_file(&ram, page), should);
    }
    let kept = faults.map(Result::unwrap).count();
    assert!((1..=256).contains(&kept), "{kept} were kept");
}
