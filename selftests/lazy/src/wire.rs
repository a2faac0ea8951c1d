// SPDX-License-Identifier: GPL-2.0

//! What goes over the socket of a migration. The source sends what the CPUs have in them, and
//! then chunks. The target sends the numbers of chunks for which somebody waits. Each chunk is
//! sent once: the source sends by itself, too, what nobody has asked for.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;

use anyhow::{Context as _, Result, bail, ensure};
use rig::flat::CpuState;

use crate::memory::{CHUNK, CHUNKS};

/// The longest thing that is sent: a chunk that does not get shorter, or what is in the CPUs.
const LONGEST: usize = 2 * CHUNK;

/// Sends what the CPUs have in them.
pub fn send_cpus(mut socket: &UnixStream, cpus: &[CpuState]) -> Result<()> {
    let bytes = serde_json::to_vec(cpus)?;
    socket.write_all(&(bytes.len() as u32).to_le_bytes())?;
    Ok(socket.write_all(&bytes)?)
}

/// Receives it.
pub fn receive_cpus(socket: &UnixStream) -> Result<Vec<CpuState>> {
    let bytes = receive_bytes(socket)?.context("the source has gone")?;
    Ok(serde_json::from_slice(&bytes)?)
}

/// Asks for a chunk.
pub fn ask(mut socket: &UnixStream, chunk: usize) -> Result<()> {
    Ok(socket.write_all(&(chunk as u32).to_le_bytes())?)
}

/// Waits for a question. `None` once the target has gone.
pub fn receive_question(socket: &UnixStream) -> Result<Option<usize>> {
    let Some(bytes) = receive_exactly::<4>(socket)? else {
        return Ok(None);
    };
    number(bytes).map(Some)
}

/// Sends a chunk, packed.
pub fn send_chunk(mut socket: &UnixStream, chunk: usize, packed: &[u8]) -> Result<()> {
    let mut message = (chunk as u32).to_le_bytes().to_vec();
    message.extend((packed.len() as u32).to_le_bytes());
    message.extend(packed);
    Ok(socket.write_all(&message)?)
}

/// Waits for a chunk, packed. `None` once the source has gone.
pub fn receive_chunk(socket: &UnixStream) -> Result<Option<(usize, Vec<u8>)>> {
    let Some(bytes) = receive_exactly::<4>(socket)? else {
        return Ok(None);
    };
    let chunk = number(bytes)?;
    Ok(receive_bytes(socket)?.map(|packed| (chunk, packed)))
}

fn number(bytes: [u8; 4]) -> Result<usize> {
    let chunk = u32::from_le_bytes(bytes) as usize;
    ensure!(chunk < CHUNKS, "there is no chunk {chunk}");
    Ok(chunk)
}

fn receive_bytes(mut socket: &UnixStream) -> Result<Option<Vec<u8>>> {
    let Some(length) = receive_exactly::<4>(socket)? else {
        return Ok(None);
    };
    let length = u32::from_le_bytes(length) as usize;
    ensure!(length <= LONGEST, "a message of {length} bytes");
    let mut bytes = vec![0; length];
    gone(socket.read_exact(&mut bytes)).map(|there| there.map(|()| bytes))
}

fn receive_exactly<const N: usize>(mut socket: &UnixStream) -> Result<Option<[u8; N]>> {
    let mut bytes = [0; N];
    gone(socket.read_exact(&mut bytes)).map(|there| there.map(|()| bytes))
}

/// `None` where the other side has gone, be it in the middle of a message.
fn gone(result: std::io::Result<()>) -> Result<Option<()>> {
    match result {
        Ok(()) => Ok(Some(())),
        Err(error) => match error.kind() {
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
                Ok(None)
            }
            _ => bail!(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_what_they_were_and_half_of_one_is_an_end() {
        let (one, other) = UnixStream::pair().unwrap();
        ask(&one, 7).unwrap();
        assert_eq!(receive_question(&other).unwrap(), Some(7));
        send_chunk(&other, 3, b"abc").unwrap();
        assert_eq!(receive_chunk(&one).unwrap(), Some((3, b"abc".to_vec())));
        (&other).write_all(&[1, 0, 0, 0, 9, 0]).unwrap();
        drop(other);
        assert_eq!(receive_chunk(&one).unwrap(), None);

        let (one, other) = UnixStream::pair().unwrap();
        ask(&one, CHUNKS).unwrap();
        assert!(receive_question(&other).is_err());
    }
}
