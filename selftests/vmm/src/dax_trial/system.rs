// SPDX-License-Identifier: GPL-2.0

//! The host's programs that the guest executes in the directory, with all that they load, and the
//! use of what the guest has made with them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use rig::check::expect;
use rig::folder::Folder;
use vmm_guest::work::{
    CHECK, CHECKED, COMPILE, COMPILER, INTERPRETER, OPTIONS, SOURCE, SYSTEM, WORK,
};

use super::share::same;

/// What the compiler executes.
const PARTS: [&str; 4] = ["cc1", "collect2", "as", "ld"];

/// What the compiler includes in each program.
const HEADER: &str = "/usr/include/stdc-predef.h";

/// What the interpreter loads for a database.
const LOADED: &str = "import _sqlite3, os, sys
for module in list(sys.modules.values()):
    print(getattr(module, '__file__', None) or '')";

/// Copies it all to the directory.
pub fn install(directory: &Path) -> Result<()> {
    let system = directory.join(SYSTEM);
    fs::create_dir_all(system.join(WORK))?;
    let mut files = BTreeSet::from([PathBuf::from(HEADER)]);
    for program in [COMPILER, INTERPRETER] {
        files.insert(PathBuf::from("/usr/bin").join(program));
    }
    for part in PARTS {
        let path = output(COMPILER, &[&format!("-print-prog-name={part}")])?;
        let path = PathBuf::from(path.trim());
        files.insert(match path.is_absolute() {
            true => path,
            false => PathBuf::from("/usr/bin").join(path),
        });
    }
    let loaded = output(INTERPRETER, &[&OPTIONS[..], &[LOADED]].concat())?;
    files.extend(
        loaded
            .lines()
            .filter(|line| !line.is_empty())
            .map(PathBuf::from),
    );
    for file in files.clone() {
        files.extend(libraries(&file)?);
    }
    let mut bytes = 0;
    for file in &files {
        let to = system.join(file.strip_prefix("/")?);
        fs::create_dir_all(to.parent().context("a file in no directory")?)?;
        bytes += fs::copy(file, &to).with_context(|| file.display().to_string())?;
    }
    ensure!(bytes > 0, "there are no programs");
    Ok(())
}

/// The libraries that a program or a library needs.
fn libraries(file: &Path) -> Result<Vec<PathBuf>> {
    // These are none.
    let extension = file.extension().unwrap_or_default();
    if extension == "py" || extension == "h" {
        return Ok(Vec::new());
    }
    let text = output("ldd", &[&file.display().to_string()])?;
    let path = |line: &str| {
        let mut words = line.split_whitespace();
        let path = words.find(|word| word.starts_with('/'));
        path.map(PathBuf::from)
    };
    Ok(text.lines().filter_map(path).collect())
}

/// Checks the program that the guest has made, and executed: the host makes the same, byte by byte.
/// Returns its length.
pub fn check_program(directory: &Path) -> Result<usize> {
    let folder = Folder::new("program")?;
    fs::write(folder.path().join("program.c"), SOURCE)?;
    let mut command = Command::new(COMPILER);
    let output = command.args(COMPILE).current_dir(folder.path()).output()?;
    ensure!(output.status.success(), "{COMPILER}: {output:?}");
    let should = fs::read(folder.path().join("program"))?;
    let program = directory.join(SYSTEM).join(WORK).join("program");
    same("the guest's program", &fs::read(program)?, &should)?;
    Ok(should.len())
}

/// Checks the database that the guest has filled, and returns its length.
pub fn check_database(directory: &Path) -> Result<u64> {
    let work = directory.join(SYSTEM).join(WORK);
    let mut command = Command::new(INTERPRETER);
    command.args(OPTIONS).arg(CHECK).current_dir(&work);
    let output = command.output().context(INTERPRETER)?;
    ensure!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    expect("the database", &*text, CHECKED)?;
    Ok(work.join("database").metadata()?.len())
}

/// What a program prints.
fn output(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.with_context(|| program.to_owned())?;
    ensure!(
        output.status.success(),
        "{program} {arguments:?}: {output:?}"
    );
    Ok(String::from_utf8(output.stdout)?)
}
