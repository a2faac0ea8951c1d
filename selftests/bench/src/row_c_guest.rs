// SPDX-License-Identifier: GPL-2.0

//! Row c from inside a KVM guest: the first touch of 64 MiB, through an address space and
//! through a plain memory slot. Before it, the memory is in neither the host's page tables nor
//! the nested ones.

use std::fs::File;

use address_space::AddressSpace;
use anyhow::{Result, ensure};
use rig::READ_WRITE;
use rig::plain::Plain;

use crate::clock::Clock;
use crate::guest::{End, Machine, Program, Vcpu};
use crate::huge::{self, Huge};
use crate::memory::{HUGE, PAGE, Touch, in_order, resident, shuffled};
use crate::rounds::{Bench, other, ours};

const LENGTH: usize = 64 << 20;

const OURS: &str = "guest on an address space";
const PLAIN: &str = "guest on a plain memory slot";
const OURS_BEFORE: &str = "guest on an address space, KVM_PRE_FAULT_MEMORY before it";
const PLAIN_BEFORE: &str = "guest on a plain memory slot, KVM_PRE_FAULT_MEMORY before it";

pub fn run(bench: &mut Bench) -> Result<()> {
    let file = resident(LENGTH)?;
    let pages = LENGTH / PAGE;
    for (order, list) in [
        ("in order", in_order(pages)),
        ("at random", shuffled(pages)),
    ] {
        for touch in [Touch::Read, Touch::Write] {
            let name = format!("first touch of 64 MiB in a guest, 4 KiB pages, {touch:?}, {order}");
            compare(bench, name, &file, &list, touch)?;
        }
    }
    drop(file);
    for kind in [Huge::Thp, Huge::Hugetlb] {
        let file = huge::resident(kind, LENGTH)?;
        let name = format!("first touch of 64 MiB in a guest, {kind}, Write, in order");
        compare(bench, name, &file, &in_order(pages), Touch::Write)?;
        count_entries(bench, kind, &file)?;
    }
    Ok(())
}

fn compare(bench: &mut Bench, name: String, file: &File, list: &[u32], touch: Touch) -> Result<()> {
    let [mut attached, mut attached_before] =
        [Attached::new(file, list)?, Attached::new(file, list)?];
    let [mut plain, mut plain_before] = [Slot::new(list)?, Slot::new(list)?];
    let contenders = vec![
        ours(OURS, |clock| {
            attached.show(file)?;
            run_list(&mut attached.vcpu, clock, list, touch)
        }),
        ours(OURS_BEFORE, |clock| {
            attached_before.show(file)?;
            run_entered(&mut attached_before.vcpu, clock, list, touch)
        }),
        other(PLAIN, |clock| {
            plain.memory.map_at(0, file, 0, LENGTH)?;
            run_list(&mut plain.vcpu, clock, list, touch)
        }),
        other(PLAIN_BEFORE, |clock| {
            plain_before.memory.map_at(0, file, 0, LENGTH)?;
            run_entered(&mut plain_before.vcpu, clock, list, touch)
        }),
    ];
    bench.compare('c', name, 10, contenders, &[])
}

/// KVM counts the entries of each machine.
fn count_entries(bench: &mut Bench, kind: Huge, file: &File) -> Result<()> {
    let list = in_order(LENGTH / PAGE);
    let mut attached = Attached::new(file, &list)?;
    attached.show(file)?;
    run_list(&mut attached.vcpu, bench.clock, &list, Touch::Write)?;
    let mut plain = Slot::new(&list)?;
    plain.memory.map_at(0, file, 0, LENGTH)?;
    run_list(&mut plain.vcpu, bench.clock, &list, Touch::Write)?;

    let (of, to) = (attached.vcpu.small_entries()?, plain.vcpu.small_entries()?);
    let huge = attached.vcpu.huge_entries()?;
    let name = format!(
        "nested 4 KiB entries after a touch of {} MiB of {kind} ({huge} of 2 MiB in ours)",
        LENGTH / HUGE * 2
    );
    bench.count('c', name, "entries", (OURS, of), (PLAIN, to), Some(1.0));
    Ok(())
}

/// A guest on an address space.
struct Attached {
    space: AddressSpace,
    vcpu: Vcpu,
}

impl Attached {
    fn new(file: &File, list: &[u32]) -> Result<Attached> {
        let space = AddressSpace::new(LENGTH as u64)?;
        space.register(file).prot(READ_WRITE).populate().commit()?;
        let mut machine = Machine::with_space(&space)?;
        machine.set_list(&offsets(list))?;
        let vcpu = Vcpu::new(&machine, 0)?;
        Ok(Attached { space, vcpu })
    }

    /// Shows the file, of which nothing has been touched.
    fn show(&self, file: &File) -> Result<()> {
        self.space.unmap(0..LENGTH as u64)?;
        let map = self.space.map(file).length(LENGTH as u64);
        map.at(0).prot(READ_WRITE).commit()?;
        Ok(())
    }
}

/// A guest on a plain slot.
struct Slot {
    memory: Plain,
    vcpu: Vcpu,
}

impl Slot {
    fn new(list: &[u32]) -> Result<Slot> {
        let memory = Plain::reserved_aligned(LENGTH)?;
        let mut machine = Machine::with_plain(&memory)?;
        machine.set_list(&offsets(list))?;
        let vcpu = Vcpu::new(&machine, 0)?;
        Ok(Slot { memory, vcpu })
    }
}

pub fn offsets(list: &[u32]) -> Vec<u32> {
    list.iter().map(|page| page * PAGE as u32).collect()
}

/// As [`run_list`], with all of it entered before, which is measured too.
fn run_entered(vcpu: &mut Vcpu, clock: Clock, list: &[u32], touch: Touch) -> Result<f64> {
    let (entered, ()) = clock.measure(|| vcpu.pre_fault(LENGTH))?;
    Ok(entered / list.len() as f64 + run_list(vcpu, clock, list, touch)?)
}

pub fn run_list(vcpu: &mut Vcpu, clock: Clock, list: &[u32], touch: Touch) -> Result<f64> {
    vcpu.load(match touch {
        Touch::Read => Program::ReadList,
        Touch::Write => Program::WriteList,
    })?;
    let (took, end) = clock.measure(|| vcpu.run())?;
    ensure!(end == End::Done, "the guest met a hole");
    Ok(took / list.len() as f64)
}
