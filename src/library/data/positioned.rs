//! Reading and writing at a place of a file that several threads share.

use std::fs::File;

#[cfg(unix)]
/// Fills `bytes` from `offset` on.
///
/// # Errors
/// What the file system says, or that the file ends before.
pub fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

#[cfg(unix)]
/// Reads some bytes from `offset` on; none at the end.
///
/// # Errors
/// What the file system says.
pub fn read_some_at(file: &File, bytes: &mut [u8], offset: u64) -> std::io::Result<usize> {
    loop {
        match std::os::unix::fs::FileExt::read_at(file, bytes, offset) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

#[cfg(unix)]
/// Writes `bytes` at `offset`.
///
/// # Errors
/// What the file system says.
pub fn write_at(file: &File, bytes: &[u8], offset: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

#[cfg(windows)]
/// Fills `bytes` from `offset` on.
///
/// # Errors
/// What the file system says, or that the file ends before.
pub fn read_at(file: &File, mut bytes: &mut [u8], mut offset: u64) -> std::io::Result<()> {
    use std::os::windows::fs::FileExt as _;
    while !bytes.is_empty() {
        let n = file.seek_read(bytes, offset)?;
        if n == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        bytes = bytes.get_mut(n..).unwrap_or_default();
        offset += n as u64;
    }
    Ok(())
}

#[cfg(windows)]
/// Reads some bytes from `offset` on; none at the end.
///
/// # Errors
/// What the file system says.
pub fn read_some_at(file: &File, bytes: &mut [u8], offset: u64) -> std::io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, bytes, offset)
}

#[cfg(windows)]
/// Writes `bytes` at `offset`.
///
/// # Errors
/// What the file system says.
pub fn write_at(file: &File, mut bytes: &[u8], mut offset: u64) -> std::io::Result<()> {
    use std::os::windows::fs::FileExt as _;
    while !bytes.is_empty() {
        let n = file.seek_write(bytes, offset)?;
        bytes = bytes.get(n..).unwrap_or_default();
        offset += n as u64;
    }
    Ok(())
}
