// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The calls as the kernel sees them: `include/linux/address_space.h`, word for
//! word.
//!
//! For those who need a call that the safe types do not make. The contract of
//! each struct and number is in the header; the names are the header's own.

#![allow(non_camel_case_types)]

use rustix::ioctl::{Opcode, opcode};

/// The type of all calls, the second argument of `_IO()`.
pub const ADDRESS_SPACE_TYPE: u8 = 0xB9;

/// Argument of [`ADDRESS_SPACE_CREATE`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct address_space_create {
    /// Size of this struct in bytes.
    pub size: u32,
    /// Must be 0.
    pub flags: u32,
    /// Length of the address space in bytes, a multiple of the page size.
    pub length: u64,
}

/// On `/dev/address_space`: makes an address space, returns its asfd.
pub const ADDRESS_SPACE_CREATE: Opcode = opcode::none(ADDRESS_SPACE_TYPE, 0x00);

/// What is mapped in the range gives way.
pub const ADDRESS_SPACE_MAP_REPLACE: u32 = 1 << 0;
/// The kernel chooses the address.
pub const ADDRESS_SPACE_MAP_ANYWHERE: u32 = 1 << 1;
/// The file's pages are brought into memory before the call returns.
pub const ADDRESS_SPACE_MAP_POPULATE: u32 = 1 << 2;

/// Argument of [`ADDRESS_SPACE_MMAP`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct address_space_mmap {
    /// Size of this struct in bytes.
    pub size: u32,
    /// `ADDRESS_SPACE_MAP_*`.
    pub flags: u32,
    /// The file to map.
    pub fd: i32,
    /// `PROT_*`.
    pub prot: u32,
    /// Where in the file, in bytes, a multiple of the page size.
    pub offset: u64,
    /// How much, in bytes, a multiple of the page size.
    pub length: u64,
    /// Where in the address space, in bytes, a multiple of the page size; out
    /// with [`ADDRESS_SPACE_MAP_ANYWHERE`].
    pub addr: u64,
}

/// On an asfd: maps a range of a file.
pub const ADDRESS_SPACE_MMAP: Opcode = opcode::none(ADDRESS_SPACE_TYPE, 0x01);

/// Argument of [`ADDRESS_SPACE_MUNMAP`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct address_space_munmap {
    /// Size of this struct in bytes.
    pub size: u32,
    /// Must be 0.
    pub flags: u32,
    /// Where in the address space, in bytes, a multiple of the page size.
    pub addr: u64,
    /// How much, in bytes, a multiple of the page size.
    pub length: u64,
}

/// On an asfd: empties a range.
pub const ADDRESS_SPACE_MUNMAP: Opcode = opcode::none(ADDRESS_SPACE_TYPE, 0x02);

/// Argument of [`ADDRESS_SPACE_VIEW`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct address_space_view {
    /// Size of this struct in bytes.
    pub size: u32,
    /// Must be 0.
    pub flags: u32,
    /// `PROT_*`.
    pub prot: u32,
    /// Must be 0.
    pub __reserved: u32,
    /// Where in the address space the view begins, in bytes, a multiple of the
    /// page size.
    pub offset: u64,
    /// How much it shows, in bytes, a multiple of the page size.
    pub length: u64,
}

/// On an asfd: returns a view.
pub const ADDRESS_SPACE_VIEW: Opcode = opcode::none(ADDRESS_SPACE_TYPE, 0x03);

/// Argument of [`ADDRESS_SPACE_REGISTER`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct address_space_register {
    /// Size of this struct in bytes.
    pub size: u32,
    /// [`ADDRESS_SPACE_REGISTER_POPULATE`].
    pub flags: u32,
    /// The file.
    pub fd: i32,
    /// `PROT_*`: the most that maps of it will ask for.
    pub prot: u32,
    /// Where in the file, in bytes, a multiple of the page size.
    pub offset: u64,
    /// How much, in bytes, a multiple of the page size; 0: to the end of the file.
    pub length: u64,
}

/// On an asfd: makes a part of a file ready for maps, and keeps it ready.
pub const ADDRESS_SPACE_REGISTER: Opcode = opcode::none(ADDRESS_SPACE_TYPE, 0x04);
/// The file's pages are brought into memory before the call returns.
pub const ADDRESS_SPACE_REGISTER_POPULATE: u32 = 1 << 0;

/// Argument of [`ADDRESS_SPACE_UNREGISTER`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct address_space_unregister {
    /// Size of this struct in bytes.
    pub size: u32,
    /// Must be 0.
    pub flags: u32,
    /// The file, the same open file as was registered.
    pub fd: i32,
    /// Must be 0.
    pub __reserved: u32,
}

/// On an asfd: ends all registrations of a file.
pub const ADDRESS_SPACE_UNREGISTER: Opcode = opcode::none(ADDRESS_SPACE_TYPE, 0x05);

/// An operation of a batch: a map.
pub const ADDRESS_SPACE_OP_MMAP: u32 = 1;
/// An operation of a batch: an unmap.
pub const ADDRESS_SPACE_OP_MUNMAP: u32 = 2;
/// An operation of a batch: a change of protection.
pub const ADDRESS_SPACE_OP_PROTECT: u32 = 3;

/// One operation of a batch. Fields that it does not use are not looked at.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct address_space_op {
    /// `ADDRESS_SPACE_OP_*`.
    pub opcode: u32,
    /// [`ADDRESS_SPACE_MAP_REPLACE`] for a map; else 0.
    pub flags: u32,
    /// For a map: the file.
    pub fd: i32,
    /// For a map and a protect: `PROT_*`.
    pub prot: u32,
    /// For a map: where in the file, in bytes, a multiple of the page size.
    pub offset: u64,
    /// How much, in bytes, a multiple of the page size.
    pub length: u64,
    /// Where in the address space, in bytes, a multiple of the page size.
    pub addr: u64,
}

/// Argument of [`ADDRESS_SPACE_BATCH`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct address_space_batch {
    /// Size of this struct in bytes.
    pub size: u32,
    /// Must be 0.
    pub flags: u32,
    /// Address of an array of [`address_space_op`].
    pub ops: u64,
    /// How many there are, 1 to 65536.
    pub nr_ops: u32,
    /// Size of [`address_space_op`] in bytes.
    pub op_size: u32,
    /// Out: the index of the operation that was refused.
    pub failed: u32,
    /// Must be 0.
    pub __reserved: u32,
}

/// On an asfd: makes all of the changes, or none.
pub const ADDRESS_SPACE_BATCH: Opcode = opcode::none(ADDRESS_SPACE_TYPE, 0x06);

/// Argument of [`ADDRESS_SPACE_PROTECT`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct address_space_protect {
    /// Size of this struct in bytes.
    pub size: u32,
    /// Must be 0.
    pub flags: u32,
    /// Where in the address space, in bytes, a multiple of the page size.
    pub addr: u64,
    /// How much, in bytes, a multiple of the page size.
    pub length: u64,
    /// `PROT_*`.
    pub prot: u32,
    /// Must be 0.
    pub __reserved: u32,
}

/// On an asfd: changes what may be done to a range.
pub const ADDRESS_SPACE_PROTECT: Opcode = opcode::none(ADDRESS_SPACE_TYPE, 0x07);

/// Argument of [`ADDRESS_SPACE_MOVE`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct address_space_move {
    /// Size of this struct in bytes.
    pub size: u32,
    /// [`ADDRESS_SPACE_MAP_REPLACE`].
    pub flags: u32,
    /// Where in the address space, in bytes, a multiple of the page size.
    pub addr: u64,
    /// How much, in bytes, a multiple of the page size.
    pub length: u64,
    /// Where it goes, in bytes, a multiple of the page size.
    pub new_addr: u64,
}

/// On an asfd: shows a range at another address.
pub const ADDRESS_SPACE_MOVE: Opcode = opcode::none(ADDRESS_SPACE_TYPE, 0x08);

/// The guest may only read: see `KVM_SET_USER_MEMORY_REGION`.
pub const KVM_MEM_READONLY: u32 = 1 << 1;
/// KVM keeps a log of the pages the guest writes to.
pub const KVM_MEM_LOG_DIRTY_PAGES: u32 = 1 << 0;

/// Argument of [`KVM_MAP_ADDRESS_SPACE`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct kvm_map_address_space {
    /// Size of this struct in bytes.
    pub size: u32,
    /// `KVM_MEM_READONLY`, `KVM_MEM_LOG_DIRTY_PAGES`.
    pub flags: u32,
    /// The virtual machine.
    pub vmfd: i32,
    /// The memory slot; KVM's address space id in the upper 16 bits.
    pub slot: u32,
    /// Where the guest finds it, in bytes, a multiple of the page size.
    pub guest_phys_addr: u64,
    /// How much the guest is shown, in bytes, a multiple of the page size.
    pub memory_size: u64,
    /// From where in the address space or view, in bytes, a multiple of the
    /// page size.
    pub offset: u64,
    /// Out: where the caller finds the same memory.
    pub window: u64,
}

/// On an asfd or a view: makes a window of it a memory slot.
pub const KVM_MAP_ADDRESS_SPACE: Opcode = opcode::none(ADDRESS_SPACE_TYPE, 0x10);

/// Argument of [`KVM_UNMAP_ADDRESS_SPACE`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct kvm_unmap_address_space {
    /// Size of this struct in bytes.
    pub size: u32,
    /// Must be 0.
    pub flags: u32,
    /// The virtual machine.
    pub vmfd: i32,
    /// The memory slot.
    pub slot: u32,
}

/// On an asfd or a view: removes a memory slot and the caller's window.
pub const KVM_UNMAP_ADDRESS_SPACE: Opcode = opcode::none(ADDRESS_SPACE_TYPE, 0x11);

// The kernel takes a struct by the size it says it has; one that grew by
// accident would be refused by every kernel there is (E2BIG).
const _: () = {
    assert!(size_of::<address_space_create>() == 16);
    assert!(size_of::<address_space_mmap>() == 40);
    assert!(size_of::<address_space_munmap>() == 24);
    assert!(size_of::<address_space_view>() == 32);
    assert!(size_of::<address_space_register>() == 32);
    assert!(size_of::<address_space_unregister>() == 16);
    assert!(size_of::<address_space_op>() == 40);
    assert!(size_of::<address_space_batch>() == 32);
    assert!(size_of::<address_space_protect>() == 32);
    assert!(size_of::<address_space_move>() == 32);
    assert!(size_of::<kvm_map_address_space>() == 48);
    assert!(size_of::<kvm_unmap_address_space>() == 16);
};

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write as _;
    use std::io::Write as _;
    use std::mem::{offset_of, size_of_val};
    use std::process::{Command, Stdio};

    /// One `_Static_assert` for each thing that this module and the header both
    /// say, so that the C compiler is the one to compare them.
    fn assertions() -> String {
        let mut c = String::from(
            "#include <stddef.h>\n#include <linux/kvm.h>\n#include <linux/address_space.h>\n",
        );

        macro_rules! same_struct {
            ($name:ident { $($field:ident),* }) => {
                let name = stringify!($name);
                let value = $name::default();
                // Without `..`: a field that is missing in the list does not compile.
                let $name { $($field),* } = value;
                assert_c(&mut c, &format!("sizeof(struct {name})"), size_of::<$name>() as u64);
                $(
                    let field = stringify!($field);
                    assert_c(
                        &mut c,
                        &format!("offsetof(struct {name}, {field})"),
                        offset_of!($name, $field) as u64,
                    );
                    assert_c(
                        &mut c,
                        &format!("sizeof(((struct {name} *)0)->{field})"),
                        size_of_val(&$field) as u64,
                    );
                )*
            };
        }
        macro_rules! same_number {
            ($($name:ident),*) => {
                $( assert_c(&mut c, stringify!($name), u64::from($name)); )*
            };
        }

        same_struct!(address_space_create {
            size,
            flags,
            length
        });
        same_struct!(address_space_mmap {
            size,
            flags,
            fd,
            prot,
            offset,
            length,
            addr
        });
        same_struct!(address_space_munmap {
            size,
            flags,
            addr,
            length
        });
        same_struct!(address_space_view {
            size,
            flags,
            prot,
            __reserved,
            offset,
            length
        });
        same_struct!(address_space_register {
            size,
            flags,
            fd,
            prot,
            offset,
            length
        });
        same_struct!(address_space_unregister {
            size,
            flags,
            fd,
            __reserved
        });
        same_struct!(address_space_op {
            opcode,
            flags,
            fd,
            prot,
            offset,
            length,
            addr
        });
        same_struct!(address_space_batch {
            size,
            flags,
            ops,
            nr_ops,
            op_size,
            failed,
            __reserved
        });
        same_struct!(address_space_protect {
            size,
            flags,
            addr,
            length,
            prot,
            __reserved
        });
        same_struct!(address_space_move {
            size,
            flags,
            addr,
            length,
            new_addr
        });
        same_struct!(kvm_map_address_space {
            size,
            flags,
            vmfd,
            slot,
            guest_phys_addr,
            memory_size,
            offset,
            window
        });
        same_struct!(kvm_unmap_address_space {
            size,
            flags,
            vmfd,
            slot
        });
        same_number!(
            ADDRESS_SPACE_TYPE,
            ADDRESS_SPACE_CREATE,
            ADDRESS_SPACE_MMAP,
            ADDRESS_SPACE_MUNMAP,
            ADDRESS_SPACE_VIEW,
            ADDRESS_SPACE_REGISTER,
            ADDRESS_SPACE_UNREGISTER,
            ADDRESS_SPACE_BATCH,
            ADDRESS_SPACE_PROTECT,
            ADDRESS_SPACE_MOVE,
            ADDRESS_SPACE_REGISTER_POPULATE,
            ADDRESS_SPACE_OP_MMAP,
            ADDRESS_SPACE_OP_MUNMAP,
            ADDRESS_SPACE_OP_PROTECT,
            KVM_MAP_ADDRESS_SPACE,
            KVM_UNMAP_ADDRESS_SPACE,
            ADDRESS_SPACE_MAP_REPLACE,
            ADDRESS_SPACE_MAP_ANYWHERE,
            ADDRESS_SPACE_MAP_POPULATE,
            KVM_MEM_READONLY,
            KVM_MEM_LOG_DIRTY_PAGES
        );
        c
    }

    fn assert_c(c: &mut String, expression: &str, value: u64) {
        writeln!(
            c,
            "_Static_assert({expression} == {value}ULL, \"{expression}\");"
        )
        .unwrap();
    }

    #[test]
    fn structs_and_numbers_are_those_of_the_c_header() {
        let cc = std::env::var("CC").unwrap_or_else(|_| "cc".into());
        let mut compiler = Command::new(&cc)
            .args(["-std=gnu11", "-Wall", "-Werror", "-fsyntax-only"])
            .arg(concat!("-I", env!("CARGO_MANIFEST_DIR"), "/include"))
            .args(["-x", "c", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("cannot run the C compiler {cc} (set CC): {e}"));
        let source = assertions();
        compiler
            .stdin
            .take()
            .unwrap()
            .write_all(source.as_bytes())
            .unwrap();
        let output = compiler.wait_with_output().unwrap();
        assert!(
            output.status.success(),
            "the header and sys.rs disagree:\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
