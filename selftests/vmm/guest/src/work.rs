// SPDX-License-Identifier: GPL-2.0

//! Real work that the guest does with programs that are in the shared directory, as is all that
//! they work with: a compiler makes a program, and a database is filled.
//!
//! The programs are Debian's, in a directory that is the root for them. The host has the same,
//! and uses what they have made.

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{chdir, chroot};

/// The directory in the shared one that is the root.
pub const SYSTEM: &str = "system";
/// The directory in that for all that is made, and for temporary files.
pub const WORK: &str = "work";

/// The compiler's arguments. The program needs no library, which would have to be there.
pub const COMPILER: &str = "gcc";
pub const COMPILE: [&str; 7] = [
    "-O2",
    "-nostdlib",
    "-static",
    "-fno-use-linker-plugin",
    "-o",
    "program",
    "program.c",
];
pub const SOURCE: &str = r#"
static long fibonacci(int n)
{
	return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

void _start(void)
{
	long code = fibonacci(20) % 251;

	__asm__ volatile("syscall" : : "a"(60), "D"(code) : "rcx", "r11", "memory");
	__builtin_unreachable();
}
"#;
/// What the program ends with.
pub const CODE: i32 = 6765 % 251;

/// The interpreter that has the database, and its options: without what is not in the directory.
pub const INTERPRETER: &str = "python3";
pub const OPTIONS: [&str; 4] = ["-I", "-S", "-B", "-c"];
/// Fills a database. Its journal is in shared memory, and it is read through a mapping.
pub const FILL: &str = r#"
import _sqlite3
database = _sqlite3.connect("database", isolation_level=None)
do = lambda text: database.execute(text).fetchall()
assert do("pragma journal_mode = wal") == [("wal",)]
assert do("pragma mmap_size = 1000000") == [(1000000,)]
do("create table words (number integer primary key, word text)")
do("create index by_word on words (word)")
do("""with recursive c(n) as (select 1 union all select n + 1 from c where n < 2000)
      insert into words select n, hex(n * 7919 % 10007) from c""")
do("delete from words where number % 3 = 0")
database.close()
"#;
/// Reads it.
pub const CHECK: &str = r#"
import _sqlite3
database = _sqlite3.connect("database")
do = lambda text: database.execute(text).fetchone()
print(*do("select count(*), sum(number), min(word), max(word) from words"))
print(*do("pragma integrity_check"))
"#;
/// What that prints.
pub const CHECKED: &str = "1334 1334667 31303030 39393936\nok\n";

/// The argument that makes this program another one, in the directory.
const INSIDE: &str = "inside";

/// Runs a program of the directory, in the directory for what is made. Fails with what it prints
/// if it does.
pub fn run(system: &Path, program: &str, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new("/proc/self/exe");
    command.arg(INSIDE).arg(system).arg(program).args(arguments);
    let output = command.output().with_context(|| program.to_owned())?;
    let text = || String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        output.status.success(),
        "{program}: {}: {}",
        output.status,
        text()
    );
    Ok(output)
}

/// Becomes another program, if the arguments say so; returns only if that fails.
pub fn become_another(mut arguments: impl Iterator<Item = OsString>) -> Result<()> {
    if arguments.next().is_none_or(|argument| argument != INSIDE) {
        return Ok(());
    }
    let system = arguments.next().context("no directory")?;
    let program = arguments.next().context("no program")?;
    chroot(&*system).context("chroot")?;
    chdir(Path::new("/").join(WORK).as_path()).context("chdir")?;
    let mut command = Command::new(&program);
    command.args(arguments).env_clear();
    command.env("PATH", "/usr/bin").env("TMPDIR", ".");
    Err(command.exec()).context("exec")
}

/// The arguments of this program.
pub fn arguments() -> impl Iterator<Item = OsString> {
    env::args_os().skip(1)
}
