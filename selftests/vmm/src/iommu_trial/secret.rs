// SPDX-License-Identifier: GPL-2.0

//! A secret of the guest's, which no device was given, and what a device can do to get it: one
//! that has the memfd, one that dies of it, and one that is spared.

use std::ops::Range;

use address_space::{Holes, Prot, page_size};
use anyhow::{Context as _, Result, ensure};
use rig::READ_WRITE;
use rig::check::expect;
use rig::process::signals::SIGBUS;
use rig::tap::line;
use virtio_bindings::virtio_blk::{VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK};

use super::attack::{self, Outcome, Part};
use super::heard::wait_for_more;
use super::{Hardware, IommuTrial};
use crate::disk::Reach;
use crate::machine::Machine;

/// What becomes of accesses by a device that is spared.
pub const ABSORB: Holes = Holes::ABSORB.union(Holes::DENIED);

impl IommuTrial {
    pub(super) fn secret(&mut self, machine: &mut Machine<Hardware>, gpa: u64, length: usize) {
        let ram = machine.ram.clone();
        let Ok(secret) = ram.read(gpa, length) else {
            return self.report(
                "secret_leaks_without_the_space",
                Err(anyhow::anyhow!("no secret")),
            );
        };
        let found = |image: &[u8]| image.windows(length).any(|window| window == secret);
        let page = gpa & !(page_size() - 1);

        let disk = &mut machine.devices.beside.device;
        let rings = |_, _| Ok(());
        let result = attack::attempt(&ram, disk, Ok, rings, Part::Data, page);
        let result = result.and_then(|(is, image)| {
            expect("the device", is, Outcome::Done(VIRTIO_BLK_S_OK as u8))?;
            ensure!(found(&image), "the secret is not in the image");
            line("#   memfd: the write is done, and the secret is in the disk image");
            Ok(())
        });
        self.report("secret_leaks_without_the_space", result);

        let iommu = &machine.devices.iommu.device;
        let disk = &mut machine.devices.behind.device;
        let translate = |addr| iommu.translate(addr);
        for (name, part, should) in [
            (
                "secret_is_out_of_reach_of_a_data_descriptor",
                Part::Data,
                Outcome::Done(VIRTIO_BLK_S_IOERR as u8),
            ),
            (
                "device_dies_of_a_header_it_was_not_given",
                Part::Header,
                Outcome::Died(Some(SIGBUS)),
            ),
        ] {
            let told = iommu.faults().told().len();
            let result = attack::attempt(&ram, disk, translate, rings, part, page);
            let result = result.and_then(|(is, image)| {
                wait_for_more(iommu.faults(), told)?;
                expect("the device", is, should)?;
                ensure!(!found(&image), "the secret is in the image");
                line(&format!(
                    "#   space: {part:?}: {is:?}; the secret did not leak"
                ));
                Ok(())
            });
            self.report(name, result);
        }
        self.must.push((page, Prot::READ));
    }

    /// Gives the device a view that absorbs, and has it access what it has not in every way.
    pub(super) fn absorb(
        &mut self,
        machine: &mut Machine<Hardware>,
        gpa: u64,
        length: usize,
    ) -> Result<()> {
        let ram = machine.ram.clone();
        let secret = ram.read(gpa, length)?;
        let page = gpa & !(page_size() - 1);
        let iommu = &machine.devices.iommu.device;
        let disk = &mut machine.devices.behind.device;
        disk.reach = Reach::Iommu(iommu.view(ABSORB)?);
        let start = disk.queue()?.descriptors & !(page_size() - 1);
        let ring = iommu.translate(start)?;
        let rings = |range: Range<u64>, away| {
            let length = range.end - range.start;
            if away {
                iommu.domain().unmap(range.start, length)?;
            } else {
                iommu.domain().map(range.start, ring, length, READ_WRITE)?;
            }
            Ok(())
        };
        let process = disk.daemon.id();
        let good = Outcome::Done(VIRTIO_BLK_S_OK as u8);
        // The first request is made through the old view; then the device gets the new one.
        for (part, should, accesses) in [
            (Part::Nothing, good, None),
            (Part::Data, good, Some((page, Prot::READ))),
            (Part::Nothing, good, None),
            // Zeroes are a request to read nothing.
            (Part::Header, good, Some((page, Prot::READ))),
            // The status is not where the driver looks.
            (Part::Status, Outcome::Done(0xff), Some((page, Prot::WRITE))),
            // Zeroes are no descriptors.
            (Part::Table, Outcome::HungUp, Some((page, Prot::READ))),
            (Part::Rings, Outcome::HungUp, Some((start, Prot::READ))),
            (Part::Nothing, good, None),
        ] {
            let told = iommu.faults().told().len();
            let translate = |addr| iommu.translate(addr);
            let (is, image) = attack::attempt(&ram, disk, translate, rings, part, page)
                .with_context(|| format!("{part:?}"))?;
            expect("the device", is, should).with_context(|| format!("{part:?}"))?;
            ensure!(disk.daemon.is_alive()?, "{part:?}: the device is dead");
            expect("its process", disk.daemon.id(), process)?;
            let leaked = image.windows(length).any(|window| window == secret);
            ensure!(!leaked, "{part:?}: the secret is in the image");
            let written = match part {
                Part::Data => image.iter().all(|byte| *byte == 0),
                Part::Nothing | Part::Status => image != attack::BEFORE,
                Part::Header | Part::Table | Part::Rings => image == attack::BEFORE,
            };
            ensure!(written, "{part:?}: in the image is something else");
            if let Some(access) = accesses {
                wait_for_more(iommu.faults(), told)?;
                self.must.push(access);
            }
            line(&format!("#   absorbed: {part:?}: {is:?}"));
        }
        Ok(())
    }
}
