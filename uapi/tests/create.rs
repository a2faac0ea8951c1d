// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Creating address spaces. Needs the module.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use address_space::{AddressSpace, Device, Errno, Features, Holes, Prot, page_size, sys};
use rustix::fs::{FileType, SeekFrom, fstat, readlink, seek};
use rustix::io::{FdFlags, fcntl_getfd};

mod common;

#[test]
fn query_tells_what_the_module_can_do() {
    let can = address_space::query().unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(can.version, sys::ADDRESS_SPACE_VERSION);
    assert!(can.features.contains(Features::NAMES | Features::HOLES));
    assert_eq!(can.max_name, sys::ADDRESS_SPACE_NAME_MAX as usize);
    AddressSpace::new(can.max_length).unwrap();
    AddressSpace::new(can.max_length + page_size()).unwrap_err();
}

#[test]
fn length_is_the_requested_one() {
    let space = common::space(7);
    assert_eq!(space.length().unwrap(), 7 * page_size());
}

#[test]
fn asfd_has_its_length_like_a_memfd() {
    let space = common::space(7);
    assert_eq!(fstat(&space).unwrap().st_size as u64, 7 * page_size());
    assert_eq!(seek(&space, SeekFrom::End(0)).unwrap(), 7 * page_size());
}

#[test]
fn asfd_is_a_regular_file_like_a_memfd() {
    let stat = fstat(common::space(1)).unwrap();
    assert_eq!(FileType::from_raw_mode(stat.st_mode), FileType::RegularFile);
}

#[test]
fn names_are_those_in_proc() {
    let device = Device::open().unwrap_or_else(|error| panic!("{error}"));
    let space = device
        .create_named("ram", page_size(), Holes::empty())
        .unwrap();
    assert_eq!(path(&space), "/address_space:ram (deleted)");
    let view = space
        .view_named("disk", 0..page_size(), Prot::READ, Holes::empty())
        .unwrap();
    assert_eq!(path(&view), "/address_space_view:disk (deleted)");
    let part = space
        .part_named("server", 0..page_size(), Prot::READ_WRITE, Holes::empty())
        .unwrap();
    assert_eq!(path(&part), "/address_space_view:server (deleted)");
    part.unmap(..).unwrap();

    for wrong in [
        "x".repeat(sys::ADDRESS_SPACE_NAME_MAX as usize + 1),
        "a\0b".into(),
    ] {
        let error = device
            .create_named(&wrong, page_size(), Holes::empty())
            .unwrap_err();
        assert_eq!(error.errno(), Some(Errno::INVAL));
    }
}

fn path(fd: impl AsFd) -> String {
    let link = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    readlink(link, Vec::new()).unwrap().into_string().unwrap()
}

#[test]
fn asfd_is_close_on_exec() {
    let space = common::space(1);
    assert!(fcntl_getfd(&space).unwrap().contains(FdFlags::CLOEXEC));
}

#[test]
fn one_device_creates_many_address_spaces() {
    let device = Device::open().unwrap_or_else(|error| panic!("{error}"));
    let spaces: Vec<_> = (1..=10)
        .map(|n| device.create(n * page_size()).unwrap())
        .collect();
    drop(device);
    for (space, n) in spaces.iter().zip(1..) {
        assert_eq!(space.length().unwrap(), n * page_size());
    }
}

#[test]
fn bad_length_is_einval_with_its_cause() {
    for (length, cause) in [
        (0, "the length is 0"),
        (1, "not a multiple of the page size"),
        (page_size() + 1, "not a multiple of the page size"),
        ((1 << 47) + page_size(), "more than 2^47"),
        (!(page_size() - 1), "more than 2^47"),
    ] {
        let error = AddressSpace::new(length).expect_err(&format!("{length:#x}"));
        assert_eq!(error.errno(), Some(Errno::INVAL), "{error}");
        assert!(error.to_string().contains(cause), "{error}");
    }
}

#[test]
fn longest_address_space_can_be_created() {
    assert_eq!(
        AddressSpace::new(1 << 47).unwrap().length().unwrap(),
        1 << 47
    );
}

#[test]
fn device_works_through_a_duplicate() {
    let device = Device::open().unwrap_or_else(|error| panic!("{error}"));
    let sent: OwnedFd = device.as_fd().try_clone_to_owned().unwrap();
    drop(device);
    Device::from(sent).create(page_size()).unwrap();
}
