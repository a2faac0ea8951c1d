// SPDX-License-Identifier: GPL-2.0

//! The guest's CPU: has it do what it is told.

use std::ops::ControlFlow::{Break, Continue};

use anyhow::{Context as _, Result};
use kvm_ioctls::{VcpuExit, VcpuFd};
use rig::flat;

use crate::guest::{ARGUMENT_PORT, COMMAND_PORT, Command, RESULT_PORT};

/// What the guest cannot do by itself, since its memory is only for reading there.
#[derive(Debug)]
pub enum Refused<'a> {
    /// It writes these bytes at a guest address, and goes on when that is done.
    Write(u64, &'a [u8]),
    /// It executes an instruction that KVM cannot emulate: which writes somewhere. It does so
    /// again.
    Unknown,
}

/// Runs the CPU until it waits for a command.
pub fn start(cpu: &mut VcpuFd) -> Result<()> {
    let waits = flat::run(cpu, |exit| match exit {
        VcpuExit::IoIn(COMMAND_PORT, data) => {
            // No command.
            data.fill(0);
            Ok(Break(()))
        }
        exit => flat::unexpected(&exit),
    })?;
    waits.context("the guest was refused its memory")
}

/// Runs the CPU until it has done what it is told, and returns the result.
pub fn obey(
    cpu: &mut VcpuFd,
    command: Command,
    argument: u32,
    mut refused: impl FnMut(Refused<'_>) -> Result<()>,
) -> Result<u32> {
    let result = flat::run(cpu, |exit| {
        match exit {
            VcpuExit::IoIn(COMMAND_PORT, data) => {
                data.copy_from_slice(&(command as u32).to_le_bytes());
            }
            VcpuExit::IoIn(ARGUMENT_PORT, data) => data.copy_from_slice(&argument.to_le_bytes()),
            VcpuExit::IoOut(RESULT_PORT, data) => {
                let bytes = data
                    .as_ref()
                    .try_into()
                    .context("a result of another size")?;
                return Ok(Break(u32::from_le_bytes(bytes)));
            }
            VcpuExit::MmioWrite(at, bytes) => refused(Refused::Write(at, bytes))?,
            VcpuExit::InternalError => refused(Refused::Unknown)?,
            exit => return flat::unexpected(&exit),
        }
        Ok(Continue(()))
    })?;
    result.context("the guest was refused its memory")
}
