// SPDX-License-Identifier: GPL-2.0

//! What a transcript of the trial tells a reader who has not seen it before.

use vmm_guest::dax::Step;

use super::hardware::Hardware;
use crate::machine::Machine;
use crate::report::Report;

pub const VMM: &str = "VMM";
pub const SERVER: &str = "file server";
pub const GUEST: &str = "guest";
pub const HOST: &str = "host";
pub const KERNEL: &str = "kernel";
const DISK: &str = "disk";
pub const OTHER: &str = "other guest";

/// Says what there is, before the guest boots.
pub fn introduce(report: &Report, machine: &Machine<Hardware>) {
    let hardware = &machine.devices;
    report.tells(
        "A Linux guest works with files of its host in a window of its memory: virtio-fs with\n\
         DAX. Nobody copies them. What is in the window changes all the time, and only the\n\
         file server knows what has to be there. It cannot change another process's memory, so\n\
         it usually asks the VMM for each change, and passes it the file. Here the window is a\n\
         range of an address space, and the file server has a file descriptor of it.\n",
    );
    let window = hardware.memory.window();
    let (at, length) = (window.start, (window.end - window.start) >> 20);
    let (vmm, server) = (std::process::id(), hardware.files.device.daemon.id());
    let vmm = format!("(pid {vmm}) runs Debian's kernel in KVM. It has made the window,");
    let slot = format!("{length} MiB at {at:#x}, a memory slot once, and that is all");
    let server = format!("(pid {server}) shares a directory of the host; maps its files in the");
    for (who, what) in [
        (VMM, &*vmm),
        ("", &*slot),
        (SERVER, &*server),
        ("", "window, and can map nothing elsewhere"),
        (
            DISK,
            "is an unmodified qemu-storage-daemon, with a view of RAM and window",
        ),
        (
            OTHER,
            "is in another VMM, with a file server of its own for the directory",
        ),
    ] {
        report.tells(&format!("   {who:<12} {what}"));
    }
    report.tells("\nThe guests boot, which takes half a minute in an emulated machine.");
}

/// What begins with a step, if something does.
pub fn title(step: Step) -> Option<&'static str> {
    Some(match step {
        Step::Mounted => "The guest mounts the directory: mount -t virtiofs -o dax=always",
        Step::Huge => "It writes to a file of which the host has huge pages.",
        Step::Read => "It reads a file, with read() and through mappings.",
        Step::Stored => "It makes a file, and fills it through a mapping.",
        Step::Private => "The host writes to the same file.",
        Step::Appended => "The guest appends to it.",
        Step::Cut => "The guest cuts it, and makes it longer again.",
        Step::Named => "It makes, renames and removes files.",
        Step::Executed => "It executes a program in the directory.",
        Step::Large => "It reads a file that is larger than the window, in order and at random.",
        Step::Queues => "Both CPUs of the guest make requests, each in a queue of its own.",
        Step::Copied => "The guest passes a mapping of one file to write() of another.",
        Step::FromDisk => "It reads from its disk into a mapped file, with O_DIRECT.",
        Step::Compiled => "It compiles a C program, with the compiler in the directory.",
        Step::Filled => "It fills a database, in shared memory and through mappings.",
        Step::Turns => "Two guests write to one page of one file, in turns.",
        Step::Kill => "The file server is killed while the guest works, again and again.",
        Step::Shrink => "The host cuts two files that the guest has mapped.",
        Step::Grown => "The host makes them longer again.",
        _ => return None,
    })
}
