// SPDX-License-Identifier: GPL-2.0

//! ADDRESS_SPACE_LEND, the file that it returns, and ADDRESS_SPACE_LEND_REVOKE.
//!
//! The file stands for memory of the process that has made it, and can be mapped in address spaces
//! as other files are. It says nothing of where that memory is, except to the lender itself.

use kernel::{
    bindings::{
        O_CLOEXEC,
        O_RDWR, //
    },
    fs::{
        file::FileDescriptorReservation,
        File, //
    },
    prelude::*,
    seq_file::{
        seq_print,
        SeqFile, //
    },
    sync::Arc, //
};

use crate::{
    call::{
        fdinfo::Letters,
        request::{
            self,
            reject_unknown_flags, //
        },
        uapi,
    },
    layout::Prot,
    segment::{
        lend::Lend,
        source::Backing, //
    },
    space::bytes,
    sys::{
        errno::{
            ELOOP,
            EOPNOTSUPP, //
        },
        file,
        file_operations::{
            self,
            Anonymous,
            Control, //
        },
        mm, //
    },
};

/// The state of a lend file.
struct LendFile {
    lend: Arc<Lend>,
}

/// [`uapi::LEND`] on the device.
pub(super) fn lend(ptr: UserPtr) -> Result<isize> {
    let arg: uapi::Lend = uapi::read(ptr)?;
    reject_unknown_flags(arg.flags | arg.reserved, 0)?;
    let prot = request::prot(arg.prot)?;
    if prot == Prot::NONE {
        return Err(EINVAL);
    }
    if prot.contains(Prot::EXEC) {
        return Err(EOPNOTSUPP.into());
    }
    let all = mm::task_size() as u64;
    let (addr, length) = match (arg.addr, arg.length) {
        (0, 0) => (0, all),
        (addr, length) => {
            let end = addr.checked_add(length).ok_or(EOVERFLOW)?;
            if length == 0 || end > all {
                return Err(EINVAL);
            }
            (addr, length)
        }
    };
    request::pages(addr)?;
    let pages = request::pages(length)?;
    let fd = FileDescriptorReservation::get_unused_fd_flags(O_CLOEXEC)?;
    let lend = Lend::new(addr as usize, pages, prot)?;
    let file = file_operations::create_control(O_RDWR | O_CLOEXEC, |_| Ok(LendFile { lend }))?;
    let number = fd.reserved_fd();
    fd.fd_install(file);
    Ok(number as isize)
}

/// What an fd of the caller stands for: a file, or the memory that was lent with it; of which there
/// are to be private copies if `private`. `EBADF`, and `ELOOP` for an address space, which cannot
/// be mapped in one.
pub(super) fn backing(fd: i32, private: bool) -> Result<Backing> {
    let file = file::from_fd(fd)?;
    if file_operations::is_ours(&file) {
        return Err(ELOOP.into());
    }
    let lend = file_operations::state(&file).map(|state: &LendFile| state.lend.clone());
    Ok(Backing {
        file,
        lend,
        private,
    })
}

impl Anonymous for LendFile {
    const NAME: &'static CStr = c"[address_space_lend]";
}

impl Control for LendFile {
    fn size(&self) -> u64 {
        bytes(self.lend.pages())
    }

    fn ioctl(&self, _file: &File, cmd: u32, arg: UserPtr) -> Result<isize> {
        match cmd {
            uapi::LEND_REVOKE => {
                if !arg.as_mut_ptr().is_null() {
                    return Err(EOPNOTSUPP.into());
                }
                if self.lend.is_lent() && !self.lend.is_callers() {
                    return Err(EPERM);
                }
                self.lend.take_back();
                Ok(0)
            }
            _ => Err(ENOTTY),
        }
    }

    fn show_fdinfo(&self, out: &SeqFile) {
        seq_print!(out, "length:\t{}\n", self.size());
        seq_print!(out, "prot:\t{}\n", Letters(self.lend.prot()));
        let lent = self.lend.is_lent();
        seq_print!(out, "lent:\t{}\n", if lent { "yes" } else { "no" });
        if lent && self.lend.is_callers() {
            // To others it would tell where the lender's memory is.
            seq_print!(out, "address:\t{:#x}\n", self.lend.addr());
        }
    }
}
