// SPDX-License-Identifier: GPL-2.0

//! What the guest's virtio-iommu driver says of faults in the kernel's log.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;

use anyhow::{Context as _, Result};
use rustix::fs::OFlags;
use rustix::io::Errno;

/// A fault in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    pub endpoint: u32,
    pub address: u64,
    /// The bits of the protection.
    pub access: u32,
}

/// The kernel's log, as far as it was not read.
pub struct FaultLog {
    log: File,
}

impl FaultLog {
    /// All of it.
    pub fn open() -> Result<FaultLog> {
        let mut options = OpenOptions::new();
        let nonblock = OFlags::NONBLOCK.bits() as i32;
        let log = options.read(true).custom_flags(nonblock).open("/dev/kmsg");
        Ok(FaultLog {
            log: log.context("/dev/kmsg")?,
        })
    }

    /// The next fault; `None` if there is none now.
    pub fn next_fault(&mut self) -> Result<Option<Fault>> {
        // A record at a time.
        let mut record = [0; 8192];
        loop {
            match self.log.read(&mut record) {
                Ok(length) => {
                    let text = String::from_utf8_lossy(&record[..length]);
                    if let Some(fault) = fault(&text) {
                        return Ok(Some(fault));
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                // Some was overwritten.
                Err(error) if Errno::from_io_error(&error) == Some(Errno::PIPE) => {}
                Err(error) => return Err(error).context("/dev/kmsg"),
            }
        }
    }
}

/// The fault that a record tells of: `... page fault from EP 16 at 0xfff0 [RW]`.
fn fault(record: &str) -> Option<Fault> {
    let (_, rest) = record.split_once("page fault from EP ")?;
    let (endpoint, rest) = rest.split_once(" at 0x")?;
    let (address, rest) = rest.split_once(" [")?;
    let (letters, _) = rest.split_once(']')?;
    let bit = |letter| match letter {
        'R' => 1,
        'W' => 2,
        _ => 4,
    };
    Some(Fault {
        endpoint: endpoint.parse().ok()?,
        address: u64::from_str_radix(address, 16).ok()?,
        access: letters.chars().map(bit).fold(0, |all, bit| all | bit),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_is_read_from_what_the_driver_logs() {
        let record = "3,345,1234,-;virtio_iommu virtio0: page fault from EP 16 at 0xffe10000 [W]\n";
        let should = Fault {
            endpoint: 16,
            address: 0xffe1_0000,
            access: 2,
        };
        assert_eq!(fault(record), Some(should));
        assert_eq!(fault("6,1,2,-;virtio_iommu virtio0: probed\n"), None);
    }
}
