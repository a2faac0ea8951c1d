// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a VMM does for a device in another process, whose accesses a virtual IOMMU
//! confines: it gives away one view, and maps what the guest's driver maps.

use std::error::Error;
use std::fs::File;

use address_space::iommu::{Domain, Mapping};
use address_space::{Prot, page_size};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

const MIB: u64 = 1 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    // 64 MiB of guest RAM, of which the device gets no file descriptor.
    let ram = memfd_create("ram", MemfdFlags::CLOEXEC)?;
    ftruncate(&ram, 64 * MIB)?;
    let ram = File::from(ram);

    // IOVAs from 4 GiB to 5 GiB.
    let domain = Domain::new(4096 * MIB..5120 * MIB)?;
    domain.add_ram(0, &ram, 0, 64 * MIB)?;

    // To the device, over a socket: SET_MEM_TABLE with this one region. Here it is
    // attached in the same process.
    let view = domain.view(Prot::READ_WRITE)?;
    let device = view.attach(.., Prot::READ_WRITE)?;

    // The guest's IOMMU driver maps a page for one transfer, and unmaps it.
    let iova = 5120 * MIB - page_size();
    let at = (iova - domain.aperture().start) as usize;
    domain.map(iova, 3 * MIB, page_size(), Prot::READ_WRITE)?;
    device.write(at, 0x5a_u8)?;
    domain.unmap(iova, page_size())?;
    let after: u8 = device.read(at)?;
    println!("after the unmap the device reads {after:#x}");
    assert_eq!(after, 0);

    // The guest attaches the device to another domain: one step.
    domain.replace(&[Mapping {
        iova,
        gpa: 3 * MIB,
        length: page_size(),
        prot: Prot::READ,
    }])?;
    let again: u8 = device.read(at)?;
    println!("in the other domain it reads {again:#x}");
    assert_eq!(again, 0x5a);
    Ok(())
}
