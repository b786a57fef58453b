//! Addresses: where a redirect leads, and who is who.

use std::net::IpAddr;

use ureq::http::{HeaderValue, Uri};

use super::{Trouble, refused};

/// Whether two addresses are of one server: only then one may see what is shown to the other.
pub(in crate::cli::world) fn same_place(one: &Uri, other: &Uri) -> bool {
    let port = |u: &Uri| {
        u.port_u16().or(match u.scheme_str() {
            Some("https") => Some(443),
            Some("http") => Some(80),
            _ => None,
        })
    };
    let host = |u: &Uri| u.host().map(str::to_ascii_lowercase);
    one.scheme() == other.scheme() && host(one) == host(other) && port(one) == port(other)
}

/// Whether an address is this machine's own.
pub(in crate::cli::world) fn loopback(address: &Uri) -> bool {
    let host = address.host().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Where an answer sends on to, if one may go there.
pub(in crate::cli::world) fn follow(
    at: &Uri,
    location: Option<&HeaderValue>,
) -> Result<Uri, Trouble> {
    let to = location.ok_or_else(|| refused("it sends on without saying where to"))?;
    let next = to.to_str().ok().and_then(|to| join(at, to));
    let next = next.ok_or_else(|| refused("it sends on to what is no address"))?;
    if at.scheme_str() == Some("https") && next.scheme_str() != Some("https") {
        return Err(refused("it sends on from https to plain http"));
    }
    Ok(next)
}

/// Where a `location` leads from an address; `None` where that is nowhere on the web.
pub(in crate::cli::world) fn join(at: &Uri, to: &str) -> Option<Uri> {
    let to = to.trim().split('#').next()?;
    let own = format!("{}://{}", at.scheme_str()?, at.authority()?);
    let full = if to.contains("://") {
        to.to_owned()
    } else if to.starts_with("//") {
        format!("{}:{to}", at.scheme_str()?)
    } else if to.starts_with('/') {
        format!("{own}{to}")
    } else if to.starts_with('?') {
        format!("{own}{}{to}", at.path())
    } else {
        let folder = at.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{own}{folder}/{to}")
    };
    let uri: Uri = full.parse().ok()?;
    let web = matches!(uri.scheme_str(), Some("http" | "https"));
    (web && uri.host().is_some()).then_some(uri)
}

/// A path as it stands in an address.
pub(in crate::cli::world) fn encode(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                out.push(char::from(byte));
            }
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}
