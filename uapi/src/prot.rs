// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What may be done to memory.

use std::fmt;

use rustix::mm::ProtFlags;

bitflags::bitflags! {
    /// What may be done to a range: `PROT_*`.
    ///
    /// [`WRITE`](Prot::WRITE) and [`EXEC`](Prot::EXEC) are only taken together
    /// with [`READ`](Prot::READ).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Prot: u32 {
        /// It may be read.
        const READ = 1 << 0;
        /// It may be written.
        const WRITE = 1 << 1;
        /// Code in it may be run. Today's kernels let no process attach an
        /// address space for that (EPERM).
        const EXEC = 1 << 2;
    }
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
    fn bits_are_those_of_the_system() {
        assert_eq!(ProtFlags::from(Prot::READ), ProtFlags::READ);
        assert_eq!(ProtFlags::from(Prot::WRITE), ProtFlags::WRITE);
        assert_eq!(ProtFlags::from(Prot::EXEC), ProtFlags::EXEC);
        assert_eq!(ProtFlags::from(Prot::empty()), ProtFlags::empty());
    }

    #[test]
    fn shown_as_in_proc_maps() {
        assert_eq!((Prot::READ | Prot::WRITE).to_string(), "rw-");
        assert_eq!(Prot::empty().to_string(), "---");
    }
}
