//! A content against the name that the hub gives it.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use super::Trouble;

/// Whether a file's content is what its name says: SHA-256 for large files, for others git's SHA-1 of it,
/// and the plain one that some mirrors give. Other names say nothing of the content.
pub(in crate::cli::world) fn is_content(
    etag: &str,
    size: u64,
    file: &mut File,
) -> Result<bool, Trouble> {
    let etag = etag.to_ascii_lowercase();
    let hex = etag.bytes().all(|b| b.is_ascii_hexdigit());
    let length = if hex { etag.len() } else { 0 };
    let git = format!("blob {}\0", size);
    let (mut long, mut blob, mut short) = (
        (length == 64).then(Sha256::new),
        (length == 40).then(|| Sha1::new().chain_update(git)),
        (length == 40).then(Sha1::new),
    );
    if long.is_none() && blob.is_none() {
        return Ok(true);
    }
    let disk = |error| Trouble::disk(Path::new(""), error);
    file.seek(SeekFrom::Start(0)).map_err(disk)?;
    let mut piece = vec![0; 1 << 20];
    loop {
        let n = file.read(&mut piece).map_err(disk)?;
        let Some(bytes) = piece.get(..n).filter(|b| !b.is_empty()) else {
            break;
        };
        if let Some(hash) = &mut long {
            hash.update(bytes);
        }
        for hash in [&mut blob, &mut short].into_iter().flatten() {
            hash.update(bytes);
        }
    }
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let long = long.map(|h| hex(&h.finalize()));
    let short = [blob, short].map(|h| h.map(|h| hex(&h.finalize())));
    let mut found = short.into_iter().chain([long]).flatten();
    Ok(found.any(|hash| hash == etag))
}
