// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a program learns of an address space of its own. Needs the module; the last test, root.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;

use address_space::{AddressSpace, Errno, Error, Prot, Source, Window, page_size, sys};
use rustix::fs::fstatfs;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

mod common;

use common::{READ_WRITE, file, pages, space};

#[test]
fn layout_is_what_was_mapped() {
    let space = space(64);
    let file = file("abcd");
    space.map(&file).at(0).prot(READ_WRITE).commit().unwrap();
    space.protect(pages(1, 2), Prot::READ).unwrap();
    space
        .map(&file)
        .offset(page_size())
        .length(page_size())
        .at(60 * page_size())
        .prot(READ_WRITE)
        .private()
        .commit()
        .unwrap();
    let layout = space.layout(..).unwrap();
    let ranges: Vec<_> = layout.iter().map(|mapped| mapped.range.clone()).collect();
    let expected = [pages(0, 1), pages(1, 2), pages(2, 4), pages(60, 61)];
    assert_eq!(ranges, expected);
    let prots: Vec<_> = layout.iter().map(|mapped| mapped.prot).collect();
    assert_eq!(prots, [READ_WRITE, Prot::READ, READ_WRITE, READ_WRITE]);
    let offsets: Vec<_> = layout.iter().map(|mapped| mapped.offset).collect();
    assert_eq!(offsets, [0, 1, 2, 1].map(|page| page * page_size()));
    let stat = file.metadata().unwrap();
    for mapped in &layout {
        let Source::File { inode, .. } = mapped.source else {
            panic!("{mapped:?}");
        };
        assert_eq!(inode, stat.ino());
    }
    assert_eq!(
        layout
            .iter()
            .map(|mapped| mapped.is_private)
            .collect::<Vec<_>>(),
        [false, false, false, true]
    );
    // Cut to the range; and of a range without a mapping.
    let cut = space.layout(pages(3, 61)).unwrap();
    assert_eq!(cut[0].range, pages(3, 4));
    assert_eq!(cut[0].offset, 3 * page_size());
    assert_eq!(cut.len(), 2);
    assert_eq!(space.layout(pages(4, 60)).unwrap(), []);
    let error = space.layout(pages(60, 65)).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::INVAL));
    assert!(error.to_string().contains("beyond"), "{error}");
}

#[test]
fn layout_of_many_mappings_is_whole() {
    let space = space(2000);
    let file = file("a");
    let mut batch = space.batch();
    for page in (0..2000).step_by(2) {
        batch = batch.map(&file, 0, pages(page, page + 1), Prot::READ);
    }
    batch.commit().unwrap();
    let layout = space.layout(..).unwrap();
    let starts: Vec<_> = layout.iter().map(|mapped| mapped.range.start).collect();
    let expected: Vec<_> = (0..2000)
        .step_by(2)
        .map(|page| page * page_size())
        .collect();
    assert_eq!(starts, expected);
}

#[test]
fn info_counts_what_happens() {
    let space = space(8);
    let file = file("ab");
    space.register(&file).prot(READ_WRITE).commit().unwrap();
    space.map(&file).at(0).prot(READ_WRITE).commit().unwrap();
    let window: Window = space.attach(.., READ_WRITE).unwrap();
    window.write(0, 7u64).unwrap();
    space.unmap(pages(1, 2)).unwrap();
    let info = space.info().unwrap();
    assert_eq!(info.id, space.id().unwrap());
    assert_eq!(info.length, 8 * page_size());
    assert_eq!(info.creator, Some(std::process::id()));
    assert_eq!((info.mappings, info.attachments), (1, 1));
    assert_eq!((info.registered, info.slots, info.waiting), (1, 0, 0));
    assert!(info.faults >= 1, "{info:?}");
    assert_eq!(info.last_hole, None);
    assert!(window.try_read::<u64>(4 * page_size() as usize).is_err());
    assert_eq!(space.last_hole().unwrap(), Some(4 * page_size()));
    space.sync_all().unwrap();
    // Of a view there is less to know.
    let view = space.view(.., Prot::READ).unwrap();
    let error = AddressSpace::from(OwnedFd::from(view)).info().unwrap_err();
    assert!(matches!(error, Error::Info { .. }), "{error:?}");
}

#[test]
fn file_with_a_name_is_an_address_space() {
    let at = std::env::temp_dir().join(format!("asfd-{}", std::process::id()));
    std::fs::create_dir(&at).unwrap();
    mount("none", &at, "address_space", MountFlags::empty(), None).unwrap();
    let path = at.join("ram");
    let named = File::create_new(&path).unwrap();
    named.set_len(4 * page_size()).unwrap();
    drop(named);
    let named = File::options().read(true).write(true).open(&path).unwrap();
    assert_eq!(
        fstatfs(&named).unwrap().f_type,
        sys::ADDRESS_SPACE_MAGIC.into()
    );
    let space = AddressSpace::from(OwnedFd::from(named));
    space.map(&file("abcd")).at(0).commit().unwrap();
    assert_eq!(space.length().unwrap(), 4 * page_size());
    let again = AddressSpace::from(OwnedFd::from(File::open(&path).unwrap()));
    assert_eq!(again.layout(..).unwrap().len(), 1);
    let error = again.unmap(..).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::BADF));
    std::fs::remove_file(&path).unwrap();
    unmount(&at, UnmountFlags::DETACH).unwrap();
    std::fs::remove_dir(&at).unwrap();
}
