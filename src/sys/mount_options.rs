// SPDX-License-Identifier: GPL-2.0

//! What the file system of `named_files.rs` can be told when it is mounted: `mode`, `uid` and `gid`
//! of its root, as tmpfs, and `holes` and `denied`, the policy of its files.
//!
//! Takes no lock: options do not change once they are a superblock's.
//!
//! C headers: [`include/linux/fs_context.h`](srctree/include/linux/fs_context.h),
//! [`include/linux/fs_parser.h`](srctree/include/linux/fs_parser.h)

use core::{
    ffi::c_void,
    mem::MaybeUninit, //
};

use kernel::{
    error::from_result,
    prelude::*,
    seq_file::{
        seq_print,
        SeqFile, //
    },
};

use crate::sys::bindings;

/// What accesses to holes come to, as a mount says it.
#[derive(Clone, Copy)]
pub(crate) struct Holes {
    /// By a flag of the interface, of `ADDRESS_SPACE_HOLE_*`; 0 if nothing was said.
    pub(crate) policy: u32,
    /// `denied`: so too what is mapped and does not allow the access.
    pub(crate) denied: bool,
}

/// The options of a mount.
pub(super) struct Options {
    /// Permissions of the root.
    pub(super) mode: u16,
    pub(super) uid: bindings::kuid_t,
    pub(super) gid: bindings::kgid_t,
    pub(super) holes: Holes,
}

/// A constant that the kernel reads.
struct Table<T>(T);

// SAFETY: Nothing changes it.
unsafe impl<T> Sync for Table<T> {}

const MODE: u8 = 0;
const UID: u8 = 1;
const GID: u8 = 2;
const HOLES: u8 = 3;
const DENIED: u8 = 4;

const fn choice(name: &'static CStr, value: u32) -> bindings::constant_table {
    bindings::constant_table {
        name: name.as_ptr().cast(),
        value: value as c_int,
    }
}

/// The values of `holes`; the last entry ends the table, as those of the next one.
static CHOICES: Table<[bindings::constant_table; 4]> = Table([
    choice(c"signal", bindings::ADDRESS_SPACE_HOLE_SIGNAL),
    choice(c"absorb", bindings::ADDRESS_SPACE_HOLE_ABSORB),
    choice(c"wait", bindings::ADDRESS_SPACE_HOLE_WAIT),
    pin_init::zeroed(),
]);

const fn parameter(
    name: &'static CStr,
    number: u8,
    kind: bindings::fs_param_type,
    data: *const c_void,
) -> bindings::fs_parameter_spec {
    bindings::fs_parameter_spec {
        name: name.as_ptr().cast(),
        opt: number,
        type_: kind,
        data,
        ..pin_init::zeroed()
    }
}

static PARAMETERS: Table<[bindings::fs_parameter_spec; 6]> = {
    let (none, octal) = (core::ptr::null(), core::ptr::without_provenance(8));
    let choices = (&raw const CHOICES.0).cast();
    Table([
        parameter(c"mode", MODE, Some(bindings::fs_param_is_u32), octal),
        parameter(c"uid", UID, Some(bindings::fs_param_is_uid), none),
        parameter(c"gid", GID, Some(bindings::fs_param_is_gid), none),
        parameter(c"holes", HOLES, Some(bindings::fs_param_is_enum), choices),
        // A flag has no value to parse.
        parameter(c"denied", DENIED, None, none),
        pin_init::zeroed(),
    ])
};

impl Options {
    /// The table of parameters.
    pub(super) const PARAMETERS: *const bindings::fs_parameter_spec =
        (&raw const PARAMETERS.0).cast();

    /// The options of a mount that says nothing, for a context, which owns them from now on.
    /// `ENOMEM`.
    ///
    /// # Safety
    ///
    /// The context is new; it calls [`Options::free`] when it goes.
    pub(super) unsafe fn attach(context: *mut bindings::fs_context) -> Result {
        // SAFETY: To map an ID reads a namespace that is always there.
        let (uid, gid) = unsafe {
            let users = &raw mut bindings::init_user_ns;
            (bindings::make_kuid(users, 0), bindings::make_kgid(users, 0))
        };
        let options = Options {
            mode: 0o755,
            uid,
            gid,
            holes: Holes {
                policy: 0,
                denied: false,
            },
        };
        let options = KBox::new(options, GFP_KERNEL)?;
        // SAFETY: By the caller's word.
        unsafe { (*context).s_fs_info = KBox::into_raw(options).cast() };
        Ok(())
    }

    /// Frees what no superblock has taken.
    ///
    /// # Safety
    ///
    /// Called at the end of a context that `attach` prepared.
    pub(super) unsafe extern "C" fn free(context: *mut bindings::fs_context) {
        // SAFETY: What is still there is the context's own.
        unsafe { drop(Self::taken((*context).s_fs_info)) };
    }

    /// Takes them from a superblock that is about to go.
    ///
    /// # Safety
    ///
    /// The superblock has those of a context that `attach` prepared, or none; it is asked for them
    /// no more.
    pub(super) unsafe fn detach(sb: *mut bindings::super_block) -> Option<KBox<Options>> {
        // SAFETY: By the caller's word.
        unsafe { Self::taken((*sb).s_fs_info) }
    }

    /// # Safety
    ///
    /// What `attach` made, which is the caller's, or null.
    unsafe fn taken(options: *mut c_void) -> Option<KBox<Options>> {
        // SAFETY: By the caller's word.
        (!options.is_null()).then(|| unsafe { KBox::from_raw(options.cast()) })
    }

    /// Those of a superblock.
    ///
    /// # Safety
    ///
    /// The superblock is one of this file system, and stays for `'a`.
    pub(super) unsafe fn of<'a>(sb: *mut bindings::super_block) -> &'a Options {
        // SAFETY: By the caller's word it got them with its context.
        unsafe { &*(*sb).s_fs_info.cast() }
    }

    /// Reads an option. `EINVAL`, which the kernel explains in the context's log.
    ///
    /// # Safety
    ///
    /// Called for a context that `attach` prepared, before it has a superblock.
    pub(super) unsafe extern "C" fn parse(
        context: *mut bindings::fs_context,
        parameter: *mut bindings::fs_parameter,
    ) -> c_int {
        let mut value = MaybeUninit::<bindings::fs_parse_result>::zeroed();
        // SAFETY: The context has its options, and of the result's fields each kind of parameter
        // sets its own; zeroes are a value of all.
        from_result(|| unsafe {
            let log = &raw mut (*context).log;
            let number = bindings::__fs_parse(log, Self::PARAMETERS, parameter, value.as_mut_ptr());
            let options = &mut *(*context).s_fs_info.cast::<Options>();
            let value = &value.assume_init_ref().__bindgen_anon_1;
            match u8::try_from(number) {
                Ok(MODE) => options.mode = (*value.uint_32.as_ref() & 0o7777) as u16,
                Ok(UID) => options.uid = *value.uid.as_ref(),
                Ok(GID) => options.gid = *value.gid.as_ref(),
                Ok(HOLES) => options.holes.policy = *value.uint_32.as_ref(),
                Ok(DENIED) => options.holes.denied = true,
                // ENOPARAM too, which has the kernel look whether it is the source.
                _ => return Ok(number),
            }
            Ok(0)
        })
    }

    /// Prints what /proc/mounts shows.
    ///
    /// # Safety
    ///
    /// Called for the root of a superblock of this file system.
    pub(super) unsafe extern "C" fn show(
        out: *mut bindings::seq_file,
        root: *mut bindings::dentry,
    ) -> c_int {
        // SAFETY: The seq_file is this call's, and the superblock stays meanwhile. To map an ID
        // reads a namespace that is always there.
        let (out, options, uid, gid) = unsafe {
            let options = Options::of((*root).d_sb);
            let users = &raw mut bindings::init_user_ns;
            (
                SeqFile::from_raw(out),
                options,
                bindings::from_kuid_munged(users, options.uid),
                bindings::from_kgid_munged(users, options.gid),
            )
        };
        if options.mode != 0o755 {
            seq_print!(out, ",mode={:o}", options.mode);
        }
        if uid != 0 {
            seq_print!(out, ",uid={}", uid);
        }
        if gid != 0 {
            seq_print!(out, ",gid={}", gid);
        }
        match options.holes.policy {
            bindings::ADDRESS_SPACE_HOLE_SIGNAL => seq_print!(out, ",holes=signal"),
            bindings::ADDRESS_SPACE_HOLE_ABSORB => seq_print!(out, ",holes=absorb"),
            bindings::ADDRESS_SPACE_HOLE_WAIT => seq_print!(out, ",holes=wait"),
            _ => {}
        }
        if options.holes.denied {
            seq_print!(out, ",denied");
        }
        0
    }
}
