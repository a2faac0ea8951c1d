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
    prelude::*,
    seq_file::{
        seq_print,
        SeqFile, //
    },
};

use crate::sys::{
    bindings,
    inode::{
        FsContext,
        FsParameter,
        SuperBlock, //
    }, //
};

/// What accesses to holes come to, as a mount says it.
#[derive(Clone, Copy)]
pub(crate) struct Holes {
    /// By a flag of the interface, of `ADDRESS_SPACE_HOLE_*`; 0 if nothing was said.
    pub(crate) policy: u32,
    /// `denied`: so too what is mapped and does not allow the access.
    pub(crate) denied: bool,
}

impl Holes {
    /// Whether a file can be made with them.
    pub(super) fn go_together(&self) -> bool {
        !self.denied
            || [
                bindings::ADDRESS_SPACE_HOLE_ABSORB,
                bindings::ADDRESS_SPACE_HOLE_WAIT,
            ]
            .contains(&self.policy)
    }
}

/// The options of a mount.
pub(super) struct Options {
    /// Permissions of the root.
    pub(super) mode: u16,
    pub(super) uid: bindings::kuid_t,
    pub(super) gid: bindings::kgid_t,
    pub(super) holes: Holes,
}

/// The permissions of the root where nothing is said.
const MODE_OF_ROOT: u16 = 0o755;

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
        name: name.to_bytes_with_nul().as_ptr(),
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
        name: name.to_bytes_with_nul().as_ptr(),
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

    /// Gives a new context the options of a mount that says nothing, and its operations. `ENOMEM`.
    pub(super) fn begin(
        context: &FsContext,
        operations: &'static bindings::fs_context_operations,
    ) -> Result {
        let options = Options {
            mode: MODE_OF_ROOT,
            uid: bindings::kuid_t { val: 0 },
            gid: bindings::kgid_t { val: 0 },
            holes: Holes {
                policy: 0,
                denied: false,
            },
        };
        let options = KBox::new(options, GFP_KERNEL)?;
        // SAFETY: The context is new.
        unsafe {
            (*context.as_raw()).s_fs_info = KBox::into_raw(options).cast();
            (*context.as_raw()).ops = operations;
        }
        Ok(())
    }

    /// Takes them from where a context or a superblock has them, which is at its end; [`None`] if
    /// they have passed on to a superblock, or were never made.
    pub(super) fn take(from: &impl HasOptions) -> Option<KBox<Options>> {
        // SAFETY: What is there is what `begin` made, and nothing looks there any more.
        unsafe {
            let place = from.place();
            let options = core::mem::replace(&mut *place, core::ptr::null_mut());
            (!options.is_null()).then(|| KBox::from_raw(options.cast()))
        }
    }

    /// Those of a superblock.
    pub(super) fn of(sb: &SuperBlock) -> &Options {
        // SAFETY: It got them with its context, and has them until no inode is left.
        unsafe { &*(*sb.place()).cast() }
    }

    /// Reads an option. The error, but for `ENOPARAM`, is explained in the context's log.
    pub(super) fn parse(context: &FsContext, parameter: &FsParameter) -> Result<c_int> {
        let mut value = MaybeUninit::<bindings::fs_parse_result>::zeroed();
        // SAFETY: The context has its options until it has a superblock. Of the result's fields
        // each kind of parameter sets its own; zeroes are a value of all.
        unsafe {
            let log = &raw mut (*context.as_raw()).log;
            let (table, to) = (Self::PARAMETERS, value.as_mut_ptr());
            let number = bindings::__fs_parse(log, table, parameter.as_raw(), to);
            let options = &mut *(*context.place()).cast::<Options>();
            let value = &value.assume_init_ref().__bindgen_anon_1;
            match u8::try_from(number) {
                Ok(MODE) => options.mode = (*value.uint_32.as_ref() & 0o7777) as u16,
                Ok(UID) => options.uid = *value.uid.as_ref(),
                Ok(GID) => options.gid = *value.gid.as_ref(),
                Ok(HOLES) => options.holes.policy = *value.uint_32.as_ref(),
                Ok(DENIED) => options.holes.denied = true,
                // ENOPARAM has the kernel look whether it is the source.
                _ => return Ok(number),
            }
        }
        Ok(0)
    }

    /// Prints what /proc/mounts shows: as the initial user namespace numbers users and groups.
    pub(super) fn show(&self, out: &SeqFile) {
        if self.mode != MODE_OF_ROOT {
            seq_print!(out, ",mode={:o}", self.mode);
        }
        if self.uid.val != 0 {
            seq_print!(out, ",uid={}", self.uid.val);
        }
        if self.gid.val != 0 {
            seq_print!(out, ",gid={}", self.gid.val);
        }
        let is_said = |choice: &&bindings::constant_table| choice.value as u32 == self.holes.policy;
        if let Some(choice) = CHOICES.0[..3].iter().find(is_said) {
            // SAFETY: The names of the table are static.
            let name = unsafe { CStr::from_char_ptr(choice.name) };
            seq_print!(out, ",holes={}", name);
        }
        if self.holes.denied {
            seq_print!(out, ",denied");
        }
    }
}

/// What has the options of a mount: at first the context, then the superblock.
pub(super) trait HasOptions {
    /// Where it has a pointer to them.
    fn place(&self) -> *mut *mut c_void;
}

impl HasOptions for FsContext {
    fn place(&self) -> *mut *mut c_void {
        // SAFETY: A field of an object that is there.
        unsafe { &raw mut (*self.as_raw()).s_fs_info }
    }
}

impl HasOptions for SuperBlock {
    fn place(&self) -> *mut *mut c_void {
        // SAFETY: As above.
        unsafe { &raw mut (*self.as_raw()).s_fs_info }
    }
}
