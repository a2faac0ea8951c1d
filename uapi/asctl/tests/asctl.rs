// SPDX-License-Identifier: GPL-2.0

//! What asctl prints of address spaces that this process has. Needs the module, and root.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::process::{Command, Stdio};

use address_space::{AddressSpace, Advice, Device, Errno, Holes, Prot, page_size};
use rustix::fs::{MemfdFlags, fstat, ftruncate, memfd_create};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::Value;

const PAGES: u64 = 64;

fn asctl(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_asctl"))
        .args(arguments)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&asctl(arguments)).unwrap()
}

/// A space of a name of its own, with a file in its first quarter.
fn space(name: &str) -> AddressSpace {
    let device = Device::open().unwrap_or_else(|error| panic!("{error}"));
    let space = device
        .create_named(name, PAGES * page_size(), Holes::empty())
        .unwrap();
    let file: OwnedFd = memfd_create("asctl-file", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, PAGES / 4 * page_size()).unwrap();
    // In memory, so that one fault brings each page.
    let file = File::from(file);
    for page in 0..PAGES / 4 {
        file.write_at(b"x", page * page_size()).unwrap();
    }
    space
        .map(&file)
        .prot(Prot::READ | Prot::WRITE)
        .at(0)
        .commit()
        .unwrap();
    space
}

#[test]
fn list_has_name_owner_creator_and_sizes() {
    let space = space("listed");
    let rows = json(&["list", "--json"]);
    let row = rows
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["space"] == space.id().unwrap())
        .unwrap();
    assert_eq!(row["name"], "listed");
    assert_eq!(row["owner"], "root");
    assert_eq!(row["creator"], std::process::id());
    assert_eq!(row["length"], PAGES * page_size());
    assert_eq!(row["mapped"], PAGES / 4 * page_size());
    assert_eq!(row["memory"], 0);
    assert_eq!(row["mappings"], 1);

    let text = asctl(&["list"]);
    let line = text.lines().find(|line| line.contains(" listed ")).unwrap();
    assert!(
        line.contains(&format!("{} (", std::process::id())),
        "{line}"
    );
    assert!(line.contains("256 KiB"), "{line}");

    let pages = 0..2 * page_size();
    space.advise(pages, Advice::PopulateRead).unwrap();
    let shown = json(&["show", "--json", "listed"]);
    let memory: u64 = shown["values"]["memory"].as_str().unwrap().parse().unwrap();
    // With what the kernel maps around it.
    let most = PAGES / 4 * page_size();
    assert!((2 * page_size()..=most).contains(&memory), "{memory}");
}

#[test]
fn what_cannot_be_known_of_a_view_is_null() {
    // Only a view is open, in another process.
    let space = space("viewed");
    let view = space.view(0..page_size(), Prot::READ).unwrap();
    let id = space.id().unwrap();
    let inode = fstat(&view).unwrap().st_ino;
    let mut child = Command::new("sleep")
        .arg("1000")
        .stdin(view.as_fd().try_clone_to_owned().unwrap())
        .spawn()
        .unwrap();
    drop((space, view));
    let rows = json(&["list", "--json"]);
    let text = asctl(&["list"]);
    let who = json(&["who", "--json", &id.to_string()]);
    child.kill().unwrap();
    child.wait().unwrap();
    let mut rows = rows.as_array().unwrap().iter();
    let row = rows.find(|row| row["space"] == id).unwrap();
    for key in [
        "owner", "creator", "length", "mapped", "memory", "mappings", "slots", "waiting",
    ] {
        assert!(row[key].is_null(), "{key}: {row}");
    }
    assert_eq!(row["attachments"], 0);
    let id = id.to_string();
    let line = text.lines().find(|line| line.trim_start().starts_with(&id));
    assert!(line.unwrap().contains("?"), "{text}");
    assert_eq!(who["holders"][0]["inode"], inode);
}

#[test]
fn show_draws_the_layout_to_scale() {
    let space = space("drawn");
    space.move_to(0..4 * page_size(), 60 * page_size()).unwrap();
    let text = asctl(&["show", "drawn"]);
    let strip = text.lines().find(|line| line.starts_with('[')).unwrap();
    let strip = strip.trim_matches(['[', ']']);
    assert_eq!(strip.chars().count(), 78, "{text}");
    // Pages 4 to 16 and 60 to 64, of one file.
    assert!(strip.starts_with("...."), "{text}");
    assert!(strip.ends_with("aaaa"), "{text}");
    let files = strip.chars().filter(|column| *column == 'a').count();
    assert!((18..=21).contains(&files), "{text}");
    assert!(text.contains("/memfd:asctl-file"), "{text}");

    let shown = json(&["show", "--json", &space.id().unwrap().to_string()]);
    assert_eq!(shown["layout"].as_array().unwrap().len(), 2);
    assert_eq!(shown["layout"][1]["start"], 60 * page_size());
    assert_eq!(shown["layout"][1]["prot"], "rw-");
    assert_eq!(shown["values"]["holes"], "signal");
}

#[test]
fn show_has_what_is_private_and_what_a_terminal_would_obey() {
    let space = space("sh\x1b[2Jown");
    let file = memfd_create("copied", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, page_size()).unwrap();
    let map = space.map(&file).private().prot(Prot::READ_WRITE);
    map.at(32 * page_size()).commit().unwrap();
    let id = space.id().unwrap().to_string();
    let shown = json(&["show", "--json", &id]);
    let layout = shown["layout"].as_array().unwrap();
    assert_eq!(
        [0, 1].map(|at| layout[at]["private"] == true),
        [false, true]
    );
    assert_eq!(shown["mapped"], (PAGES / 4 + 1) * page_size());
    for text in [asctl(&["show", &id]), asctl(&["list"])] {
        assert!(text.contains("sh\\u{1b}[2Jown"), "{text}");
        assert!(!text.contains('\x1b'), "{text}");
    }
    assert!(asctl(&["show", &id]).contains("  rw-p  "));
}

#[test]
fn names_that_are_no_text_hide_nothing() {
    let space = space("beside");
    let file = memfd_create(c"\xff\xfe", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, page_size()).unwrap();
    space.map(&file).at(32 * page_size()).commit().unwrap();
    // In this process's maps, too.
    let _mapped = AddressSpace::from(file).attach(0..page_size(), Prot::READ);
    let _window = space.attach(0..page_size(), Prot::READ).unwrap();
    let id = space.id().unwrap().to_string();
    let who = json(&["who", "--json", &id]);
    assert_eq!(who["attachments"].as_array().unwrap().len(), 1, "{who}");
    let shown = json(&["show", "--json", &id]);
    assert_eq!(shown["mapped"], (PAGES / 4 + 1) * page_size());
    assert!(
        shown["layout"][1]["path"]
            .as_str()
            .unwrap()
            .contains('\u{fffd}')
    );
    assert_eq!(space.info().unwrap().mappings, 2);
}

#[test]
fn who_has_every_file_descriptor_and_attachment() {
    let space = space("held");
    let view = space
        .view_named("device", 0..4 * page_size(), Prot::READ, Holes::empty())
        .unwrap();
    let window = view.attach(0..page_size(), Prot::READ).unwrap();
    let who = json(&["who", "held", "--json"]);
    let holders = who["holders"].as_array().unwrap();
    assert_eq!(holders.len(), 2, "{who}");
    assert!(holders.iter().any(|holder| holder["is_asfd"] == true));
    let of_view = holders.iter().find(|holder| holder["name"] == "device");
    assert_eq!(of_view.unwrap()["prot"], "r--");
    let attached = who["attachments"].as_array().unwrap();
    assert_eq!(attached.len(), 1, "{who}");
    assert_eq!(attached[0]["pid"], std::process::id());
    assert_eq!(attached[0]["inode"], view.id().unwrap());

    let text = asctl(&["who", "held"]);
    assert!(text.contains("(device)"), "{text}");
    drop(window);
}

/// Nobody has a file descriptor of it any more; it is found by its attachment.
#[test]
fn space_without_file_descriptors_is_found() {
    let space = space("closed");
    let id = space.id().unwrap();
    let window = space.attach(0..page_size(), Prot::READ).unwrap();
    drop(space);
    let who = json(&["who", &id.to_string(), "--json"]);
    assert_eq!(who["holders"].as_array().unwrap().len(), 0, "{who}");
    assert_eq!(who["attachments"].as_array().unwrap().len(), 1, "{who}");
    let shown = json(&["show", &id.to_string(), "--json"]);
    assert_eq!(shown["layout"].as_array().unwrap().len(), 1, "{shown}");
    drop(window);
}

#[test]
fn watch_prints_changes_and_faults_as_they_happen() {
    let space = space("watched");
    let other = self::space("not-watched");
    let mut watch = Command::new(env!("CARGO_BIN_EXE_asctl"))
        .args(["watch", "watched", "-n", "3"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let id = space.id().unwrap();
    let instance = format!("/sys/kernel/tracing/instances/asctl-{}", watch.id());
    // It has begun when what it enables is enabled.
    let enabled = format!("{instance}/events/address_space/enable");
    while std::fs::read_to_string(&enabled).unwrap_or_default().trim() != "1" {
        assert!(watch.try_wait().unwrap().is_none());
        std::thread::yield_now();
    }
    other.unmap(0..page_size()).unwrap();
    space.unmap(0..page_size()).unwrap();
    let window = space.attach(0..PAGES * page_size(), Prot::READ).unwrap();
    let mut bytes = [0; 1];
    window.read_slice(page_size() as usize, &mut bytes).unwrap();
    space
        .protect(page_size()..2 * page_size(), Prot::READ)
        .unwrap();

    let first = lines.next().unwrap().unwrap();
    assert!(
        first.contains(&format!(
            "change     space={id} pages=0x0-0x1 prot=--- revoked="
        )),
        "{first}"
    );
    let second = lines.next().unwrap().unwrap();
    assert!(
        second.contains(&format!(
            "fault      space={id} view={id} page=0x1 access=r-- ret=DONE"
        )),
        "{second}"
    );
    let third = lines.next().unwrap().unwrap();
    assert!(
        third.contains("pages=0x1-0x2 prot=r-- revoked=1"),
        "{third}"
    );
    assert!(watch.wait().unwrap().success());
    assert!(!std::path::Path::new(&instance).exists());
}

#[test]
fn top_has_a_table_for_each_look() {
    let _space = space("busy");
    let text = asctl(&["top", "-n", "2", "-d", "0.1"]);
    assert_eq!(text.matches("FAULTS/s").count(), 2, "{text}");
    assert_eq!(text.matches(" busy ").count(), 2, "{text}");
}

#[test]
fn what_is_not_there_is_said_in_one_line() {
    let output = Command::new(env!("CARGO_BIN_EXE_asctl"))
        .args(["show", "no such space"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.starts_with("asctl: no address space"), "{text}");
    assert_eq!(text.lines().count(), 1);
    // A file that is no address space is not taken for one.
    let file = File::open("/etc/os-release").unwrap();
    let error = AddressSpace::from(OwnedFd::from(file)).unmap(0..page_size());
    assert_eq!(error.unwrap_err().errno(), Some(Errno::NOTTY));
}

/// A mount of address spaces with a name, which ends with this.
struct Mounted(std::path::PathBuf);

impl Mounted {
    fn new() -> Mounted {
        let at = std::env::temp_dir().join(format!("asctl-{}", std::process::id()));
        std::fs::create_dir(&at).unwrap();
        mount("none", &at, "address_space", MountFlags::empty(), None).unwrap();
        Mounted(at)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn space_with_a_name_is_listed_whether_or_not_anybody_has_it_open() {
    let mounted = Mounted::new();
    let path = mounted.0.join("ram");
    let name = path.to_str().unwrap();
    let file = File::create_new(&path).unwrap();
    file.set_len(PAGES * page_size()).unwrap();
    // One without a length is no address space yet.
    drop(File::create_new(mounted.0.join("empty")).unwrap());
    drop(file);
    let rows = json(&["list", "--json"]);
    let mut named = rows.as_array().unwrap().iter().filter(|row| {
        let name = row["name"].as_str().unwrap();
        name.starts_with(mounted.0.to_str().unwrap())
    });
    let row = named.next().unwrap();
    assert_eq!(row["name"], name);
    assert_eq!(row["length"], PAGES * page_size());
    assert!(named.next().is_none(), "{rows}");
    for called in [name, "ram"] {
        let who = json(&["who", called, "--json"]);
        assert_eq!(who["holders"].as_array().unwrap().len(), 0, "{who}");
    }

    let file = File::options().read(true).write(true).open(&path).unwrap();
    let space = AddressSpace::from(OwnedFd::from(file));
    let _window = space.attach(0..page_size(), Prot::READ).unwrap();
    let who = json(&["who", name, "--json"]);
    let holders = who["holders"].as_array().unwrap();
    assert_eq!(holders.len(), 1, "{who}");
    assert_eq!(holders[0]["pid"], std::process::id());
    let attached = who["attachments"].as_array().unwrap();
    assert_eq!(attached.len(), 1, "{who}");
    assert_eq!(attached[0]["path"], name);
    assert_eq!(
        (&holders[0]["prot"], &holders[0]["manages"]),
        (&"rwx".into(), &true.into())
    );
    // What is open for reading only manages nothing.
    let reader = File::open(&path).unwrap();
    let who = json(&["who", name, "--json"]);
    let holders = who["holders"].as_array().unwrap().iter();
    let reads = |holder: &&Value| holder["fd"] == reader.as_raw_fd();
    let holder = holders.clone().find(reads).unwrap();
    assert_eq!(
        (&holder["prot"], &holder["manages"]),
        (&"r-x".into(), &false.into())
    );
}
