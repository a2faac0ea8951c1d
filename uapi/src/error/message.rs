// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The message of an error: what failed, on what, why, and advice.

use std::fmt;
use std::ops::Range;

use super::Error;
use crate::Prot;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Open { .. } => write!(f, "cannot open /dev/address_space"),
            Error::Query { .. } => write!(f, "cannot ask the address_space module what it can do"),
            Error::Create { length, .. } => {
                write!(f, "cannot create an address space of {length:#x} bytes")
            }
            Error::Map {
                addr,
                offset,
                length,
                ..
            } => {
                write!(
                    f,
                    "cannot map {length:#x} bytes from {offset:#x} of the file "
                )?;
                match addr {
                    Some(addr) => write!(f, "at {addr:#x}"),
                    None => write!(f, "anywhere"),
                }
            }
            Error::FileLength { .. } => write!(f, "cannot get the length of the file to map"),
            Error::Layout { range, .. } => {
                write!(f, "cannot find out what is mapped in {}", Hex(range))
            }
            Error::Info { .. } => write!(f, "cannot read fdinfo of the address space"),
            Error::Sync { .. } => write!(f, "cannot write back the mapped files"),
            Error::Unmap { range, .. } => write!(f, "cannot unmap {}", Hex(range)),
            Error::Register { offset, length, .. } => {
                write!(f, "cannot register ")?;
                match length {
                    Some(length) => write!(f, "{length:#x} bytes from {offset:#x} of the file"),
                    None => write!(f, "the file from {offset:#x} on"),
                }
            }
            Error::Unregister { .. } => write!(f, "cannot end the registrations of the file"),
            Error::Protect { range, prot, .. } => {
                write!(f, "cannot protect {} with {prot}", Hex(range))
            }
            Error::Move {
                range, new_addr, ..
            } => write!(f, "cannot move {} to {new_addr:#x}", Hex(range)),
            Error::Advise { advice, range, .. } => {
                write!(f, "cannot {advice} {}", Hex(range))
            }
            Error::Batch {
                operations,
                failed,
                error,
            } => {
                // The message of the inner error ends with errno and advice.
                return match failed {
                    Some(failed) => write!(
                        f,
                        "batch failed at operation {failed} of {operations}: {error}"
                    ),
                    None => write!(f, "batch of {operations} operations failed: {error}"),
                };
            }
            Error::WholeBatch { .. } => write!(f, "cannot change the address space"),
            Error::Watch { range, .. } => write!(f, "cannot watch {}", Hex(range)),
            Error::Poison { range, .. } => write!(f, "cannot poison {}", Hex(range)),
            Error::ReadEvents { .. } => write!(f, "cannot read events"),
            Error::Lend { addr, length, .. } => {
                write!(
                    f,
                    "cannot lend {}",
                    Hex(&(*addr..addr.saturating_add(*length)))
                )
            }
            Error::Revoke { .. } => write!(f, "cannot take lent memory back"),
            Error::View { range, prot, .. } => {
                write!(f, "cannot create a view of {}, {prot}", Hex(range))
            }
            Error::Attach { range, prot, .. } => {
                write!(f, "cannot attach {}, {prot}", Hex(range))
            }
            Error::Length { .. } => write!(f, "cannot get the length of the address space"),
            Error::Duplicate { .. } => write!(f, "cannot duplicate a file descriptor"),
            Error::KvmMap {
                slot,
                guest_phys_addr,
                range,
                ..
            } => write!(
                f,
                "cannot make {} memory slot {slot:#x} at guest address {guest_phys_addr:#x}",
                Hex(range)
            ),
            Error::KvmSetFlags { slot, .. } => {
                write!(f, "cannot change the flags of memory slot {slot:#x}")
            }
            Error::KvmUnmap { slot, .. } => write!(f, "cannot remove memory slot {slot:#x}"),
            Error::OutOfAperture { iova, length } => write!(
                f,
                "{length:#x} bytes at I/O virtual address {iova:#x} are not within the domain"
            ),
            Error::NotRam { gpa, length } => write!(
                f,
                "{length:#x} bytes at guest address {gpa:#x} are not all RAM: see add_ram()"
            ),
            Error::RamOverlaps { gpa } => {
                write!(
                    f,
                    "guest addresses {} overlap RAM that was added before",
                    Hex(gpa)
                )
            }
            Error::OutOfWindow {
                offset,
                length,
                window,
            } => write!(
                f,
                "{length:#x} bytes at {offset:#x} are not within the window of {window:#x} bytes"
            ),
            Error::Access { offset, access, .. } => {
                let how = match access.contains(Prot::WRITE) {
                    true => "write",
                    false => "read",
                };
                write!(f, "cannot {how} at {offset:#x} of the window")
            }
            Error::Misaligned { offset, align } => {
                write!(f, "offset {offset:#x} is not a multiple of {align}")
            }
            Error::NotWritable => write!(f, "the window is not attached for writing"),
        }?;
        if let Some(errno) = self.errno() {
            write!(f, ": {errno}")?;
        }
        if let Some(advice) = self.advice() {
            write!(f, ": {advice}")?;
        }
        Ok(())
    }
}

/// A range in the format of /proc/PID/maps.
struct Hex<'a>(&'a Range<u64>);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}-{:#x}", self.0.start, self.0.end)
    }
}
