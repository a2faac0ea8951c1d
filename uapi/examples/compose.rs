// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Composes an address space of two files, attaches it, gives another process a view of
//! it, and takes away what that process sees.

use std::error::Error;
use std::fs::File;
use std::os::fd::OwnedFd;

use address_space::{AddressSpace, Holes, Prot, View, page_size};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

/// A page of memory with a text in it, as a file.
fn page(text: &str) -> Result<File, Box<dyn Error>> {
    let file = memfd_create(text, MemfdFlags::CLOEXEC)?;
    ftruncate(&file, page_size())?;
    let file = File::from(file);
    std::os::unix::fs::FileExt::write_at(&file, text.as_bytes(), 0)?;
    Ok(file)
}

fn main() -> Result<(), Box<dyn Error>> {
    let can = address_space::query()?;
    println!("the module has version {} of the interface", can.version);

    // 16 pages in which nothing is mapped, attached as they are.
    let space = AddressSpace::new(16 * page_size())?;
    let window = space.attach(.., Prot::READ)?;

    // What is mapped is visible at once, wherever it is attached.
    space.map(&page("the first file")?).at(0).commit()?;
    space
        .map(&page("the second file")?)
        .at(8 * page_size())
        .commit()?;
    let mut text = [0; 15];
    window.read_slice(8 * page_size() as usize, &mut text)?;
    println!("the window shows: {}", String::from_utf8_lossy(&text));

    // Another process gets less: the first page, for reading, and zeroes where nothing
    // is. It is sent as a file descriptor, over a socket say.
    let sent: OwnedFd = space
        .view_with(0..page_size(), Prot::READ, Holes::ABSORB)?
        .into();
    let view = View::from(sent);
    let seen = view.attach(.., Prot::READ)?;
    let first: u8 = seen.read(0)?;
    println!("the view begins with {:?}", char::from(first));

    // When this returns, nobody can reach the file any more.
    space.unmap(0..page_size())?;
    let first: u8 = seen.read(0)?;
    assert_eq!(first, 0);
    println!("the view begins with a hole");

    // Without a policy an access to a hole raises a signal, or returns an error:
    match window.try_read::<u8>(0) {
        Ok(byte) => println!("the window begins with {byte:#x}"),
        Err(error) => println!("{error}"),
    }
    Ok(())
}
