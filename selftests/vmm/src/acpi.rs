// SPDX-License-Identifier: GPL-2.0

//! The ACPI tables: the CPUs, a serial port, a PCI bus, and which of its devices is behind
//! an IOMMU.
//!
//! They are written here because no release of acpi_tables builds with the compiler of
//! Debian trixie.

use anyhow::Result;
use rig::ram::Ram;

use crate::pci::{BARS, MEMORY_END, Slot};

/// Where the first table is; the others follow it.
pub const RSDP: u64 = 0xe0000;

const OEM: &[u8; 6] = b"ASPACE";
const HARDWARE_REDUCED: u32 = 1 << 20;
const NO_CMOS_CLOCK: u16 = 1 << 5;
const LOCAL_APIC: u32 = 0xfee0_0000;

/// Writes the tables. `iommu` is the slot of an IOMMU and that of the device behind it.
pub fn write(ram: &Ram, cpus: u8, iommu: Option<(Slot, Slot)>) -> Result<()> {
    let mut at = RSDP + 64;
    let mut put = |table: Vec<u8>| -> Result<u64> {
        let addr = at;
        ram.write(addr, &table)?;
        at = (at + table.len() as u64).next_multiple_of(64);
        Ok(addr)
    };
    let dsdt = put(table(b"DSDT", 6, &dsdt()))?;
    let mut all = Vec::new();
    let viot = iommu.map(|(iommu, behind)| table(b"VIOT", 0, &viot(iommu, behind)));
    for table in [
        table(b"FACP", 6, &fadt(dsdt)),
        table(b"APIC", 5, &madt(cpus)),
    ]
    .into_iter()
    .chain(viot)
    {
        all.extend(put(table)?.to_le_bytes());
    }
    let xsdt = put(table(b"XSDT", 1, &all))?;

    let mut rsdp = Vec::from(b"RSD PTR \0");
    rsdp.extend(OEM);
    rsdp.extend([2, 0, 0, 0, 0]);
    rsdp[8] = checksum(&rsdp);
    rsdp.extend(36_u32.to_le_bytes());
    rsdp.extend(xsdt.to_le_bytes());
    rsdp.extend([0; 4]);
    rsdp[32] = checksum(&rsdp);
    ram.write(RSDP, &rsdp)
}

/// The byte that makes the sum of all bytes 0.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte))
}

fn table(name: &[u8; 4], revision: u8, body: &[u8]) -> Vec<u8> {
    let mut table = Vec::from(name);
    table.extend((36 + body.len() as u32).to_le_bytes());
    table.extend([revision, 0]);
    table.extend(OEM);
    table.extend(b"SELFTEST\x01\0\0\0TEST\x01\0\0\0");
    table.extend(body);
    table[9] = checksum(&table);
    table
}

fn fadt(dsdt: u64) -> Vec<u8> {
    let mut body = vec![0; 276 - 36];
    let mut put = |at: usize, bytes: &[u8]| {
        body[at - 36..at - 36 + bytes.len()].copy_from_slice(bytes);
    };
    put(40, &(dsdt as u32).to_le_bytes());
    put(109, &NO_CMOS_CLOCK.to_le_bytes());
    put(112, &HARDWARE_REDUCED.to_le_bytes());
    put(140, &dsdt.to_le_bytes());
    body
}

fn madt(cpus: u8) -> Vec<u8> {
    let mut body = Vec::from(LOCAL_APIC.to_le_bytes());
    body.extend([0; 4]);
    for cpu in 0..cpus {
        body.extend([0, 8, cpu, cpu, 1, 0, 0, 0]);
    }
    body
}

fn viot(iommu: Slot, behind: Slot) -> Vec<u8> {
    const NODES: u16 = 48;
    let short = |slot: Slot| (slot.bdf() as u16).to_le_bytes();
    let mut body = Vec::from(2_u16.to_le_bytes());
    body.extend(NODES.to_le_bytes());
    body.extend([0; 8]);
    // A virtio-iommu on the PCI bus,
    body.extend([3, 0, 16, 0, 0, 0]);
    body.extend(short(iommu));
    body.extend([0; 8]);
    // and the functions behind it, of which the first is this endpoint.
    body.extend([1, 0, 24, 0]);
    body.extend(behind.bdf().to_le_bytes());
    body.extend([0; 4]);
    body.extend(short(behind));
    body.extend(short(behind));
    body.extend(NODES.to_le_bytes());
    body.extend([0; 6]);
    body
}

fn dsdt() -> Vec<u8> {
    let pci = [
        name(b"_HID", &[0x0c, 0x41, 0xd0, 0x0a, 0x03]),
        name(b"_UID", &[0]),
        name(b"_CRS", &resources(&[&bus(), &ports(0xcf8), &memory()])),
    ];
    let serial = [
        name(b"_HID", &[0x0c, 0x41, 0xd0, 0x05, 0x01]),
        name(b"_UID", &[0]),
        name(b"_CRS", &resources(&[&ports(0x3f8)])),
    ];
    let mut devices = device(b"PCI0", &pci.concat());
    devices.extend(device(b"COM1", &serial.concat()));
    package(&[0x10], &[b"_SB_".as_slice(), &devices].concat())
}

/// A package: its length, which counts itself, and its content.
fn package(code: &[u8], content: &[u8]) -> Vec<u8> {
    let mut package = Vec::from(code);
    let length = content.len();
    if length + 1 < 0x40 {
        package.push(length as u8 + 1);
    } else {
        let length = length + 2;
        package.extend([0x40 | length as u8 & 0xf, (length >> 4) as u8]);
    }
    package.extend(content);
    package
}

fn device(name: &[u8; 4], content: &[u8]) -> Vec<u8> {
    package(&[0x5b, 0x82], &[name, content].concat())
}

fn name(name: &[u8; 4], value: &[u8]) -> Vec<u8> {
    [&[0x08], name.as_slice(), value].concat()
}

fn resources(all: &[&[u8]]) -> Vec<u8> {
    let all = [&all.concat(), [0x79, 0].as_slice()].concat();
    package(&[0x11], &[&[0x0a, all.len() as u8], &all[..]].concat())
}

/// Bus 0, and no other.
fn bus() -> Vec<u8> {
    vec![0x88, 13, 0, 2, 0x0c, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]
}

/// Eight ports.
fn ports(first: u16) -> Vec<u8> {
    let [low, high] = first.to_le_bytes();
    vec![0x47, 1, low, high, low, high, 1, 8]
}

fn memory() -> Vec<u8> {
    let mut memory = vec![0x87, 23, 0, 0, 0x0c, 1];
    for number in [0, BARS, MEMORY_END - 1, 0, MEMORY_END - BARS] {
        memory.extend((number as u32).to_le_bytes());
    }
    memory
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_sum_up_to_nothing() {
        for body in [vec![], vec![1, 2, 3], dsdt()] {
            let table = table(b"TEST", 1, &body);
            assert_eq!(checksum(&table), 0);
            assert_eq!(table[4..8], (table.len() as u32).to_le_bytes());
        }
    }

    #[test]
    fn packages_count_their_length() {
        assert_eq!(package(&[1], &[7; 3]), [1, 4, 7, 7, 7]);
        let long = package(&[1], &[7; 0x100]);
        assert_eq!(long[..3], [1, 0x42, 0x10]);
        assert_eq!(long.len(), 0x103);
    }
}
