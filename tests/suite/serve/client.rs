//! A server in a process of its own, and what asks it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};

use serde_json::Value;

use crate::support::program;

/// A server that runs.
pub struct Running {
    pub child: Child,
    address: String,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn serve(dir: &Path, args: &[&str], key: Option<&str>) -> Running {
    let mut command = program();
    let command = command
        .current_dir(dir)
        .args(["serve", "--listen", "127.0.0.1:0"])
        .args(args)
        .envs(key.map(|key| ("PEFTC_API_KEY", key)));
    let mut child = command.stderr(Stdio::piped()).spawn().expect("starts");
    let mut lines = BufReader::new(child.stderr.take().expect("standard error")).lines();
    let found = lines.find_map(|line| {
        line.ok()?
            .split_once("http://")
            .map(|(_, at)| at.trim().to_owned())
    });
    // What it says later must not fill the pipe.
    std::thread::spawn(move || lines.for_each(drop));
    Running {
        child,
        address: found.expect("an address"),
    }
}

impl Running {
    /// The status and the body that a request gets.
    pub fn ask(&self, method: &str, path: &str, kind: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).expect("connected");
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n",
            self.address
        );
        stream.write_all(head.as_bytes()).expect("sent");
        // A body that is too long may be refused before it is read.
        let _ = stream.write_all(body.as_bytes());
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all);
        let text = String::from_utf8(all).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|s| s.parse().ok())
            .expect("a status");
        let chunked = head
            .to_ascii_lowercase()
            .contains("transfer-encoding: chunked");
        (
            status,
            if chunked {
                joined(body)
            } else {
                body.to_owned()
            },
        )
    }

    pub fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let (status, text) = self.ask("POST", path, "application/json", &body.to_string());
        (
            status,
            serde_json::from_str(&text).unwrap_or_else(|why| panic!("{why}: {text}")),
        )
    }
}

/// A body in chunks, whose lengths stand before them.
fn joined(mut body: &str) -> String {
    let mut out = String::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).expect("a length");
        out.push_str(&rest[..length]);
        body = rest[length..].strip_prefix("\r\n").unwrap_or_default();
    }
    out
}

impl Running {
    /// A number of `/metrics`.
    pub fn number(&self, name: &str) -> u64 {
        let (_, text) = self.ask("GET", "/metrics", "text/plain", "");
        let line = text
            .lines()
            .find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
        let number = line.and_then(|n| n.parse().ok());
        number.unwrap_or_else(|| panic!("no `{name}` in {text}"))
    }

    /// Waits until so many requests wait or are computed.
    pub fn until_waiting(&self, count: u64) {
        for _ in 0..500 {
            if self.number("peftc_waiting_requests") >= count {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        panic!("no {count} requests wait");
    }
}
