// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The translation and the C header are compared, by a C compiler.

use super::*;
use std::fmt::Write as _;
use std::io::Write as _;
use std::mem::{offset_of, size_of_val};
use std::process::{Command, Stdio};

/// One `_Static_assert` for each definition that this module and the header
/// share: the C compiler compares them.
fn assertions() -> String {
    let mut c = String::from(
        "#include <stddef.h>\n#include <linux/kvm.h>\n#include <linux/address_space.h>\n",
    );

    macro_rules! same_struct {
        ($name:ident { $($field:ident),* }) => {
            let name = stringify!($name);
            let value = $name::default();
            // Without `..`, so that a field missing from the list is an error.
            let $name { $($field),* } = value;
            assert_c(&mut c, &format!("sizeof(struct {name})"), size_of::<$name>() as u64);
            $(
                let field = stringify!($field).trim_start_matches("r#");
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
        length,
        name
    });
    same_struct!(address_space_lend {
        size,
        flags,
        prot,
        __reserved,
        addr,
        length
    });
    same_struct!(address_space_query {
        size,
        flags,
        version,
        __reserved,
        features,
        max_length,
        max_name,
        max_ops,
        max_poisoned,
        max_events
    });
    same_struct!(address_space_layout {
        size,
        flags,
        addr,
        length,
        ranges,
        nr_ranges,
        range_size,
        next
    });
    same_struct!(address_space_range {
        addr,
        length,
        offset,
        ino,
        dev_major,
        dev_minor,
        prot,
        flags
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
        length,
        name
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
    same_struct!(address_space_advise {
        size,
        flags,
        addr,
        length,
        advice,
        __reserved
    });
    same_struct!(address_space_events {
        size,
        flags,
        timeout_ms,
        __reserved,
        addr,
        length
    });
    same_struct!(address_space_event {
        size,
        r#type,
        offset,
        access,
        tid,
        view
    });
    same_struct!(address_space_poison {
        size,
        flags,
        addr,
        length
    });
    same_struct!(address_space_move {
        size,
        flags,
        addr,
        length,
        new_addr
    });
    same_struct!(address_space_kvm_map {
        size,
        flags,
        vmfd,
        slot,
        guest_phys_addr,
        memory_size,
        offset,
        window
    });
    same_struct!(address_space_kvm_unmap {
        size,
        flags,
        vmfd,
        slot
    });
    // The aliases of the header name the same structs.
    for (alias, name) in [
        ("kvm_map_address_space", "address_space_kvm_map"),
        ("kvm_unmap_address_space", "address_space_kvm_unmap"),
    ] {
        let same = format!("__builtin_types_compatible_p(struct {alias}, struct {name})");
        assert_c(&mut c, &same, 1);
    }
    same_number!(
        ADDRESS_SPACE_TYPE,
        ADDRESS_SPACE_NAME_MAX,
        ADDRESS_SPACE_FEATURE_NAMES,
        ADDRESS_SPACE_FEATURE_REOPEN,
        ADDRESS_SPACE_FEATURE_EXEC,
        ADDRESS_SPACE_FEATURE_MANAGE,
        ADDRESS_SPACE_FEATURE_HOLES,
        ADDRESS_SPACE_FEATURE_RELEASE,
        ADDRESS_SPACE_FEATURE_UNREGISTER_ALL,
        ADDRESS_SPACE_FEATURE_KVM,
        ADDRESS_SPACE_FEATURE_HUGE_PAGES,
        ADDRESS_SPACE_FEATURE_LEND,
        ADDRESS_SPACE_FEATURE_PRIVATE,
        ADDRESS_SPACE_FEATURE_ADVISE,
        ADDRESS_SPACE_FEATURE_LAYOUT,
        ADDRESS_SPACE_FEATURE_MOUNT,
        ADDRESS_SPACE_MAGIC,
        ADDRESS_SPACE_LAYOUT,
        ADDRESS_SPACE_RANGE_PRIVATE,
        ADDRESS_SPACE_RANGE_LENT,
        ADDRESS_SPACE_VERSION,
        ADDRESS_SPACE_QUERY,
        ADDRESS_SPACE_HOLE_SIGNAL,
        ADDRESS_SPACE_HOLE_ABSORB,
        ADDRESS_SPACE_HOLE_WAIT,
        ADDRESS_SPACE_HOLE_DENIED,
        ADDRESS_SPACE_HOLE_KERNEL,
        ADDRESS_SPACE_EVENTS,
        ADDRESS_SPACE_EVENT_WAIT,
        ADDRESS_SPACE_EVENT_HOLE,
        ADDRESS_SPACE_EVENT_DENIED,
        ADDRESS_SPACE_EVENT_PAST_END,
        ADDRESS_SPACE_EVENT_MEMORY_ERROR,
        ADDRESS_SPACE_EVENT_IO_ERROR,
        ADDRESS_SPACE_EVENT_NO_MEMORY,
        ADDRESS_SPACE_EVENT_POISONED,
        ADDRESS_SPACE_EVENT_TIMED_OUT,
        ADDRESS_SPACE_EVENT_INTERRUPTED,
        ADDRESS_SPACE_EVENT_OVERFLOW,
        ADDRESS_SPACE_POISON,
        ADDRESS_SPACE_POISON_CLEAR,
        ADDRESS_SPACE_CREATE,
        ADDRESS_SPACE_LEND,
        ADDRESS_SPACE_LEND_REVOKE,
        ADDRESS_SPACE_MMAP,
        ADDRESS_SPACE_MUNMAP,
        ADDRESS_SPACE_VIEW,
        ADDRESS_SPACE_REGISTER,
        ADDRESS_SPACE_UNREGISTER,
        ADDRESS_SPACE_BATCH,
        ADDRESS_SPACE_PROTECT,
        ADDRESS_SPACE_MOVE,
        ADDRESS_SPACE_REGISTER_POPULATE,
        ADDRESS_SPACE_REGISTER_PRIVATE,
        ADDRESS_SPACE_UNREGISTER_ALL,
        ADDRESS_SPACE_VIEW_MANAGE,
        ADDRESS_SPACE_MUNMAP_RELEASE,
        ADDRESS_SPACE_OP_MMAP,
        ADDRESS_SPACE_OP_MUNMAP,
        ADDRESS_SPACE_OP_PROTECT,
        ADDRESS_SPACE_KVM_MAP,
        ADDRESS_SPACE_KVM_UNMAP,
        KVM_MAP_ADDRESS_SPACE,
        KVM_UNMAP_ADDRESS_SPACE,
        ADDRESS_SPACE_MAP_REPLACE,
        ADDRESS_SPACE_MAP_ANYWHERE,
        ADDRESS_SPACE_MAP_POPULATE,
        ADDRESS_SPACE_MAP_PRIVATE,
        ADDRESS_SPACE_ADVISE,
        ADDRESS_SPACE_WILLNEED,
        ADDRESS_SPACE_DONTNEED,
        ADDRESS_SPACE_REMOVE,
        ADDRESS_SPACE_POPULATE_READ,
        ADDRESS_SPACE_POPULATE_WRITE,
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
fn structs_and_numbers_match_the_c_header() {
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
