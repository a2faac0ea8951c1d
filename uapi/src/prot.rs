// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Protections of memory.

use std::fmt;

use rustix::mm::ProtFlags;

bitflags::bitflags! {
    /// A protection: `PROT_*`.
    ///
    /// The kernel takes [`WRITE`](Prot::WRITE) and [`EXEC`](Prot::EXEC) only
    /// together with [`READ`](Prot::READ).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Prot: u32 {
        /// Reading is allowed.
        const READ = 1 << 0;
        /// Writing is allowed.
        const WRITE = 1 << 1;
        /// Executing is allowed, where the file's mount and the attachment allow it too.
        const EXEC = 1 << 2;
    }
}

impl Prot {
    /// [`READ`](Prot::READ) and [`WRITE`](Prot::WRITE).
    pub const READ_WRITE: Prot = Prot::READ.union(Prot::WRITE);
}

impl From<Prot> for ProtFlags {
    fn from(prot: Prot) -> Self {
        ProtFlags::from_bits_retain(prot.bits())
    }
}

impl fmt::Display for Prot {
    /// As in `/proc/PID/maps`: `rw-`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (flag, letter) in [(Prot::READ, "r"), (Prot::WRITE, "w"), (Prot::EXEC, "x")] {
            f.write_str(if self.contains(flag) { letter } else { "-" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_match_those_of_mmap() {
        assert_eq!(ProtFlags::from(Prot::READ), ProtFlags::READ);
        assert_eq!(ProtFlags::from(Prot::WRITE), ProtFlags::WRITE);
        assert_eq!(ProtFlags::from(Prot::EXEC), ProtFlags::EXEC);
        assert_eq!(ProtFlags::from(Prot::empty()), ProtFlags::empty());
    }

    #[test]
    fn display_is_that_of_proc_maps() {
        assert_eq!(Prot::READ_WRITE.to_string(), "rw-");
        assert_eq!((Prot::READ | Prot::EXEC).to_string(), "r-x");
        assert_eq!(Prot::empty().to_string(), "---");
    }
}
