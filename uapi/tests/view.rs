// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a view allows, and what it does not. Needs the module.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use address_space::{AddressSpace, Errno, Prot, View, page_size};
use rustix::mm::{MprotectFlags, mprotect};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

mod common;

use common::{Process, READ_WRITE, SIGBUS, file, letter_in_file, letters, pages, space};

/// An address space that shows `abcd`, and the view of its two middle pages.
fn view_of_the_middle(prot: Prot) -> (AddressSpace, View) {
    let space = space(4);
    space
        .map(&file("abcd"))
        .at(0)
        .prot(READ_WRITE)
        .commit()
        .unwrap();
    let view = space.view(pages(1, 3), prot).unwrap();
    (space, view)
}

#[test]
fn view_shows_its_range() {
    let (_space, view) = view_of_the_middle(Prot::READ);
    assert_eq!(view.length().unwrap(), 2 * page_size());
    assert_eq!(
        letters(&view.attach(pages(0, 2), Prot::READ).unwrap()),
        "bc"
    );
    assert_eq!(letters(&view.attach(pages(1, 2), Prot::READ).unwrap()), "c");
}

#[test]
fn view_refuses_an_attachment_beyond_its_end() {
    let (_space, view) = view_of_the_middle(Prot::READ);
    for range in [pages(0, 3), pages(1, 3), pages(2, 3), pages(0, 4)] {
        let error = view.attach(range, Prot::READ).unwrap_err();
        assert!(error.errno().is_some(), "{error}");
    }
}

#[test]
fn view_refuses_a_writable_attachment() {
    let (_space, view) = view_of_the_middle(Prot::READ);
    let error = view.attach(pages(0, 2), READ_WRITE).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::ACCESS), "{error}");
    assert!(
        error.to_string().contains("no more") || error.advice().is_some(),
        "{error}"
    );
}

#[test]
fn attachment_of_a_view_cannot_be_made_writable() {
    let (_space, view) = view_of_the_middle(Prot::READ);
    let window = view.attach(pages(0, 2), Prot::READ).unwrap();
    // SAFETY: More protection takes nothing from the window.
    let result = unsafe {
        mprotect(
            window.as_ptr().cast(),
            window.len(),
            MprotectFlags::READ | MprotectFlags::WRITE,
        )
    };
    assert_eq!(result, Err(Errno::ACCESS));
}

#[test]
fn writable_view_writes_to_the_file() {
    let space = space(2);
    let file = file("ab");
    space.map(&file).at(0).prot(READ_WRITE).commit().unwrap();
    let view = space.view(pages(1, 2), READ_WRITE).unwrap();
    view.attach(pages(0, 1), READ_WRITE)
        .unwrap()
        .write(0, b'x')
        .unwrap();
    assert_eq!(letter_in_file(&file, 1), 'x');
}

#[test]
fn view_follows_the_address_space() {
    let (space, view) = view_of_the_middle(Prot::READ);
    let window = view.attach(pages(0, 2), Prot::READ).unwrap();
    assert_eq!(letters(&window), "bc");
    space
        .map(&file("xyz"))
        .at(page_size())
        .replace()
        .commit()
        .unwrap();
    assert_eq!(letters(&window), "xy");
}

#[test]
fn unmap_is_visible_through_a_view() {
    let (space, view) = view_of_the_middle(Prot::READ);
    let mut process = Process::accessing(|| view.attach(pages(0, 2), Prot::READ).unwrap());
    assert_eq!(process.letter(0), Ok('b'));
    assert_eq!(process.letter(1), Ok('c'));
    space.unmap(pages(2, 4)).unwrap();
    assert_eq!(process.letter(0), Ok('b'));
    assert_eq!(process.letter(1), Err(SIGBUS));
}

#[test]
fn view_cannot_change_the_address_space() {
    let (_space, view) = view_of_the_middle(READ_WRITE);
    let window = view.attach(pages(0, 2), Prot::READ).unwrap();
    // A view in the place of an asfd.
    let claim = AddressSpace::from(view.as_fd().try_clone_to_owned().unwrap());
    let errors = [
        claim.map(&file("x")).at(0).replace().commit().unwrap_err(),
        claim.unmap(pages(0, 1)).unwrap_err(),
        claim.view(pages(0, 1), Prot::READ).unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.errno(), Some(Errno::NOTTY), "{error}");
        assert!(error.to_string().contains("a view does not"), "{error}");
    }
    assert_eq!(letters(&window), "bc");
}

#[test]
fn view_outlives_the_asfd() {
    let (space, view) = view_of_the_middle(Prot::READ);
    drop(space);
    assert_eq!(
        letters(&view.attach(pages(0, 2), Prot::READ).unwrap()),
        "bc"
    );
}

#[test]
fn views_of_bad_ranges_are_refused() {
    let space = space(2);
    let page = page_size();
    let view = |range, prot| space.view(range, prot).unwrap_err().errno().unwrap();
    assert_eq!(view(0..0, Prot::READ), Errno::INVAL);
    assert_eq!(view(0..1, Prot::READ), Errno::INVAL);
    assert_eq!(view(1..page, Prot::READ), Errno::INVAL);
    assert_eq!(view(page..3 * page, Prot::READ), Errno::INVAL);
    assert_eq!(view(0..page, Prot::empty()), Errno::INVAL);
    assert_eq!(view(0..page, Prot::WRITE), Errno::INVAL);
}

#[test]
fn view_works_after_a_trip_through_a_socket() {
    let (_space, view) = view_of_the_middle(Prot::READ);
    let (here, there) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();

    let fds = [view.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    sendmsg(
        &here,
        &[IoSlice::new(b"view")],
        &mut control,
        SendFlags::empty(),
    )
    .unwrap();
    drop(view);

    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [0; 4];
    recvmsg(
        &there,
        &mut [IoSliceMut::new(&mut bytes)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )
    .unwrap();
    let mut received: Vec<OwnedFd> = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            received.extend(fds);
        }
    }
    let view = View::from(received.pop().unwrap());
    assert_eq!(
        letters(&view.attach(pages(0, 2), Prot::READ).unwrap()),
        "bc"
    );
}
