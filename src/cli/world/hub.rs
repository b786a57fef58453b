//! The hub over HTTP: which files a repository has, and one of them.
//!
//! **Invariant:** nothing that a server says is believed. What it calls a commit or a content is checked before
//! it becomes a path; a file gets its name only once its length, and its hash where one is given, are as
//! promised; the token goes to the endpoint alone; every wait ends.

use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Deserialize;
use ureq::http::{HeaderValue, Response, StatusCode, Uri, header};
use ureq::{Agent, Body};

use super::blobs::{Blobs, Slot};
use super::plain;
use crate::base::world::{HubFile, RepoKind};
use address::{encode, follow, loopback, same_place};
use answer::{name, number, range, success};
use content::is_content;
use trouble::{network, refused};

mod address;
pub(super) mod answer;
mod content;
mod trouble;

pub(super) use trouble::Trouble;

/// Where an answer may send on to, one after the other.
const MOST_REDIRECTS: usize = 10;
/// Longest list of files that is read.
const LONGEST_LIST: u64 = 64 << 20;
/// Names a commit in an answer.
const COMMIT: &str = "x-repo-commit";
/// The hash of a large file, in the answer that sends on to where it lies.
const LINKED_ETAG: &str = "x-linked-etag";
/// Its length.
const LINKED_SIZE: &str = "x-linked-size";

/// How long the hub is waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Until a connection stands.
    pub(super) connect: Duration,
    /// For an answer's head, and between two pieces of its body.
    pub(super) answer: Duration,
    /// In so long …
    pub(super) window: Duration,
    /// … at least so many bytes of a body have to come.
    pub(super) least: u64,
    /// How often in a row a request may fail.
    pub(super) tries: u32,
    /// The wait after the first failure; twice as long after each further one.
    pub(super) pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(30),
            window: Duration::from_secs(30),
            least: 64 << 10,
            tries: 4,
            pause: Duration::from_millis(500),
        }
    }
}

/// Asks a hub.
pub(super) struct Client {
    agent: Agent,
    /// Its address, without a `/` at the end.
    endpoint: String,
    base: Uri,
    token: Option<HeaderValue>,
    patience: Patience,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the token.
        f.debug_struct("Client")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

/// What the first answer says of a file.
struct Header {
    commit: String,
    /// What the content is called; with 40 or 64 hexadecimal digits it is its hash.
    etag: String,
    size: u64,
}

impl Client {
    /// A client of the hub at an address.
    pub(super) fn new(
        endpoint: &str,
        token: Option<&str>,
        patience: Patience,
    ) -> Result<Self, Trouble> {
        const ADDRESS: &str = "HF_ENDPOINT is no address; write it as `https://huggingface.co`";
        let base: Uri = endpoint.parse().map_err(|_| Trouble::Setting(ADDRESS))?;
        let web = matches!(base.scheme_str(), Some("http" | "https"));
        if !web || base.host().is_none() || base.query().is_some() {
            return Err(Trouble::Setting(ADDRESS));
        }
        let token = token
            .map(|token| HeaderValue::try_from(format!("Bearer {token}")))
            .transpose()
            .map_err(|_| Trouble::Setting("the hub's token has characters that no token has"))?
            .map(|mut value| {
                value.set_sensitive(true);
                value
            });
        // On the machine itself nobody listens in who could not read the token anyway.
        if token.is_some() && base.scheme_str() == Some("http") && !loopback(&base) {
            return Err(Trouble::Setting(
                "HF_ENDPOINT is plain http, so everyone on the way could read the token; use https, or take the token away",
            ));
        }
        let config = Agent::config_builder()
            .max_redirects(0)
            .http_status_as_error(false)
            .user_agent(concat!("peftc/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(patience.connect))
            .timeout_connect(Some(patience.connect))
            .timeout_send_request(Some(patience.answer))
            .timeout_recv_response(Some(patience.answer))
            .timeout_per_read(Some(patience.answer))
            .build();
        Ok(Self {
            agent: config.into(),
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            base,
            token,
            patience,
        })
    }

    /// The paths of a repository's files at a revision.
    pub(super) fn list(
        &self,
        repo: &str,
        kind: RepoKind,
        revision: &str,
    ) -> Result<Vec<String>, Trouble> {
        #[derive(Deserialize)]
        struct Document {
            siblings: Vec<Sibling>,
        }
        #[derive(Deserialize)]
        struct Sibling {
            rfilename: String,
        }
        let address = format!(
            "{}/api/{}/{}/revision/{}",
            self.endpoint,
            kind.folder(),
            encode(repo),
            encode(revision).replace('/', "%2F")
        );
        let mut text = Vec::new();
        self.again(|| {
            text.clear();
            let answer = self.ask(&address, None, &mut |_| Ok(()))?;
            success(answer.status())?;
            let promised = number(answer.headers(), header::CONTENT_LENGTH.as_str())?;
            let got = self.pump(answer, LONGEST_LIST, &mut |bytes| {
                text.extend_from_slice(bytes);
                Ok(())
            })?;
            match promised {
                Some(promised) if got < promised => Err(Trouble::Early(got, promised)),
                _ => Ok(()),
            }
        })?;
        let document: Document = serde_json::from_slice(&text)
            .map_err(|why| refused(format!("its list of files cannot be read: {why}")))?;
        let files: Vec<String> = document.siblings.into_iter().map(|s| s.rfilename).collect();
        match files.iter().find(|f| !plain(f)) {
            Some(bad) => Err(refused(format!(
                "it lists `{bad}`, which is no path in a repository"
            ))),
            None => Ok(files),
        }
    }

    /// Brings a file into the cache; gives its path there and its commit. `pinned` is the commit that it has
    /// to be of.
    pub(super) fn file(
        &self,
        blobs: &Blobs,
        file: &HubFile,
        revision: &str,
        pinned: Option<&str>,
    ) -> Result<(PathBuf, String), Trouble> {
        let header = self.again(|| self.header(&self.address(file, revision)))?;
        if let Some(pinned) = pinned
            && header.commit != pinned
        {
            let commit = &header.commit;
            return Err(refused(format!(
                "it was asked for commit {pinned} and answers with {commit}"
            )));
        }
        if let Slot::Open(mut open) = blobs.slot(&header.etag, header.size)? {
            self.fill(&self.address(file, &header.commit), &header, &mut open.file)
                .map_err(|why| open.named(why))?;
            let whole = is_content(&header.etag, header.size, &mut open.file);
            if !whole.map_err(|why| open.named(why))? {
                open.file.set_len(0).map_err(|e| open.disk(e))?;
                let etag = &header.etag;
                return Err(refused(format!(
                    "the content is not what its hash {etag} stands for"
                )));
            }
            open.keep()?;
        }
        let path = blobs.place(&header.etag, &header.commit, &file.file)?;
        if revision != header.commit {
            blobs.refer(revision, &header.commit)?;
        }
        Ok((path, header.commit))
    }

    fn address(&self, file: &HubFile, revision: &str) -> String {
        let folder = match file.kind {
            RepoKind::Model => "",
            RepoKind::Dataset => "datasets/",
        };
        format!(
            "{}/{folder}{}/resolve/{}/{}",
            self.endpoint,
            encode(&file.repo),
            encode(revision).replace('/', "%2F"),
            encode(&file.file)
        )
    }

    /// What a file is called and how long it is.
    fn header(&self, address: &str) -> Result<Header, Trouble> {
        let mut header: Option<(String, String, Option<u64>)> = None;
        let last = self.ask(address, Some("bytes=0-0".to_owned()), &mut |answer| {
            let head = answer.headers();
            if header.is_none() && head.contains_key(COMMIT) {
                let commit = name(head, COMMIT)?;
                let etag = if head.contains_key(LINKED_ETAG) {
                    name(head, LINKED_ETAG)?
                } else {
                    name(head, header::ETAG.as_str())?
                };
                header = Some((commit, etag, number(head, LINKED_SIZE)?));
            }
            Ok(())
        })?;
        let (status, head) = (last.status(), last.headers());
        let size = match status {
            // Nothing can be a range of an empty file.
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
                range(head)?.and_then(|(_, all)| all)
            }
            other => {
                success(other)?;
                number(head, header::CONTENT_LENGTH.as_str())?
            }
        };
        if status == StatusCode::RANGE_NOT_SATISFIABLE && size != Some(0) {
            return Err(Trouble::Status(status.as_u16()));
        }
        let (commit, etag, linked) =
            header.ok_or_else(|| refused("it names no commit; it may be no hub"))?;
        if let (Some(one), Some(other)) = (linked, size)
            && one != other
        {
            return Err(refused(format!(
                "it says that the file has {one} bytes, and that it has {other}"
            )));
        }
        let size = linked.or(size).ok_or_else(|| {
            refused("it does not say how long the file is, so an early end could not be noticed")
        })?;
        Ok(Header { commit, etag, size })
    }

    /// Downloads what is missing of a file. Whatever brings it further is no failure.
    fn fill(&self, address: &str, header: &Header, file: &mut File) -> Result<(), Trouble> {
        let disk = |error| Trouble::disk(Path::new(""), error);
        let mut failed = 0;
        loop {
            let have = file.seek(SeekFrom::End(0)).map_err(disk)?;
            if have == header.size {
                return Ok(());
            }
            let have = if have > header.size {
                file.set_len(0).map_err(disk)?;
                0
            } else {
                have
            };
            let Err(why) = self.piece(address, header, have, file) else {
                continue;
            };
            let now = file.seek(SeekFrom::End(0)).map_err(disk)?;
            failed = if now >= have + self.patience.least {
                1
            } else {
                failed + 1
            };
            self.pause(why, failed)?;
        }
    }

    /// Appends what one request brings.
    fn piece(
        &self,
        address: &str,
        header: &Header,
        have: u64,
        file: &mut File,
    ) -> Result<(), Trouble> {
        let disk = |error| Trouble::disk(Path::new(""), error);
        let answer = self.ask(address, Some(format!("bytes={have}-")), &mut |_| Ok(()))?;
        let mut start = have;
        match answer.status() {
            StatusCode::PARTIAL_CONTENT => {
                let said = range(answer.headers())?;
                if said.is_none_or(|(from, all)| {
                    from != Some(have) || all.is_some_and(|n| n != header.size)
                }) {
                    return Err(refused(
                        "it sends another part of the file than was asked for",
                    ));
                }
            }
            // Not every server knows parts, and not every beginning is known to it.
            StatusCode::RANGE_NOT_SATISFIABLE => {
                file.set_len(0).map_err(disk)?;
                return Err(Trouble::Status(416));
            }
            other => {
                success(other)?;
                start = 0;
                file.set_len(0).map_err(disk)?;
            }
        }
        file.seek(SeekFrom::Start(start)).map_err(disk)?;
        let got = self.pump(answer, header.size - start, &mut |bytes| {
            file.write_all(bytes).map_err(disk)
        })?;
        if start + got < header.size {
            return Err(Trouble::Early(start + got, header.size));
        }
        Ok(())
    }

    /// Reads a body to its end, of at most so many bytes, and no slower than is borne with.
    fn pump(
        &self,
        answer: Response<Body>,
        most: u64,
        sink: &mut dyn FnMut(&[u8]) -> Result<(), Trouble>,
    ) -> Result<u64, Trouble> {
        let mut body = answer.into_body().into_reader();
        let mut piece = vec![0; 64 << 10];
        let (mut got, mut since, mut then) = (0, 0, Instant::now());
        loop {
            let n = body
                .read(&mut piece)
                .map_err(|e| Trouble::Network(e.to_string()))?;
            let Some(bytes) = piece.get(..n).filter(|b| !b.is_empty()) else {
                return Ok(got);
            };
            got += n as u64;
            if got > most {
                return Err(refused(format!("it sends more than {most} bytes")));
            }
            sink(bytes)?;
            if then.elapsed() >= self.patience.window {
                if got - since < self.patience.least {
                    let (least, window) = (self.patience.least, self.patience.window);
                    return Err(Trouble::Slow(least, window.as_secs()));
                }
                (since, then) = (got, Instant::now());
            }
        }
    }

    /// One request, sent on where the answers say; each of them is looked at.
    fn ask(
        &self,
        address: &str,
        range: Option<String>,
        look: &mut dyn FnMut(&Response<Body>) -> Result<(), Trouble>,
    ) -> Result<Response<Body>, Trouble> {
        let mut at: Uri = address
            .parse()
            .map_err(|_| refused(format!("`{address}` is no address")))?;
        for _ in 0..=MOST_REDIRECTS {
            let mut request = self
                .agent
                .get(&at)
                .header(header::ACCEPT_ENCODING, "identity");
            if let Some(range) = &range {
                request = request.header(header::RANGE, range);
            }
            if same_place(&at, &self.base)
                && let Some(token) = &self.token
            {
                request = request.header(header::AUTHORIZATION, token);
            }
            // A proxy would carry to others what stays on this machine.
            let answer = if loopback(&at) {
                request.config().proxy(None).build().call()
            } else {
                request.call()
            };
            let answer = answer.map_err(|e| network(&e))?;
            look(&answer)?;
            if !matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(answer);
            }
            at = follow(&at, answer.headers().get(header::LOCATION))?;
        }
        Err(refused(format!(
            "it sends on more than {MOST_REDIRECTS} times"
        )))
    }

    /// Does something as often as may help.
    fn again<T>(&self, mut what: impl FnMut() -> Result<T, Trouble>) -> Result<T, Trouble> {
        let mut failed = 0;
        loop {
            match what() {
                Ok(value) => return Ok(value),
                Err(why) => {
                    failed += 1;
                    self.pause(why, failed)?;
                }
            }
        }
    }

    /// Waits after a failure, unless there is no sense in going on.
    fn pause(&self, why: Trouble, failed: u32) -> Result<(), Trouble> {
        if !why.may_pass() || failed >= self.patience.tries {
            return Err(why);
        }
        std::thread::sleep(self.patience.pause * (1 << (failed - 1).min(6)));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
