//! Servers that do what no hub should.

mod faults;

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use super::answer::is_name;
use super::*;

type Outcome = Result<(), Box<dyn std::error::Error>>;

const BODY: &[u8] = b"twenty bytes in all!";
const COMMIT_ID: &str = "0123456789abcdef0123456789abcdef01234567";

/// What was asked.
#[derive(Clone, Debug)]
struct Asked {
    path: String,
    /// Where the wanted part begins, and whether it is one byte.
    from: u64,
    probe: bool,
    token: bool,
}

/// What is answered.
enum Reply {
    /// These bytes, then the end of the connection.
    Bytes(Vec<u8>),
    /// These bytes one by one with a pause between.
    Trickle(Vec<u8>, Duration),
    /// These bytes, and then nothing for long.
    Stall(Vec<u8>),
}

struct Server {
    address: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    fn new(
        reply: impl Fn(&Asked, usize) -> Reply + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = format!("http://{}", listener.local_addr()?);
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (list, reply) = (asked.clone(), Arc::new(reply));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (list, reply) = (list.clone(), reply.clone());
                std::thread::spawn(move || serve(stream, &list, &*reply));
            }
        });
        Ok(Self { address, asked })
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked
            .lock()
            .map(|list| list.clone())
            .unwrap_or_default()
    }
}

fn serve(
    mut stream: TcpStream,
    list: &Mutex<Vec<Asked>>,
    reply: &(dyn Fn(&Asked, usize) -> Reply + Send + Sync),
) {
    let Ok(copy) = stream.try_clone() else { return };
    let head: Vec<String> = BufReader::new(copy)
        .lines()
        .map_while(Result::ok)
        .take_while(|line| !line.is_empty())
        .map(|line| line.to_lowercase())
        .collect();
    let path = head.first().and_then(|l| l.split(' ').nth(1));
    let range = head.iter().find_map(|l| l.strip_prefix("range: bytes="));
    let asked = Asked {
        path: path.unwrap_or_default().to_owned(),
        from: range
            .and_then(|r| r.split('-').next()?.parse().ok())
            .unwrap_or(0),
        probe: range == Some("0-0"),
        token: head
            .iter()
            .any(|l| l.starts_with("authorization: bearer secret")),
    };
    let before = list.lock().map_or(0, |mut list| {
        list.push(asked.clone());
        list.len() - 1
    });
    match reply(&asked, before) {
        Reply::Bytes(bytes) => drop(stream.write_all(&bytes)),
        Reply::Trickle(bytes, pause) => {
            for byte in bytes {
                if stream.write_all(&[byte]).is_err() {
                    return;
                }
                std::thread::sleep(pause);
            }
        }
        Reply::Stall(bytes) => {
            drop(stream.write_all(&bytes));
            std::thread::sleep(Duration::from_secs(3));
        }
    }
}

/// A head with these lines, and a body.
fn http(status: &str, lines: &[String], body: &[u8]) -> Vec<u8> {
    let lines: String = lines.iter().map(|l| format!("{l}\r\n")).collect();
    let mut bytes = format!("HTTP/1.1 {status}\r\n{lines}connection: close\r\n\r\n").into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

fn git_hash(body: &[u8]) -> String {
    let hash = Sha1::new().chain_update(format!("blob {}\0", body.len()));
    let hash = hash.chain_update(body).finalize();
    hash.iter().map(|b| format!("{b:02x}")).collect()
}

/// The answer of a good hub, with other names if wanted.
fn part(asked: &Asked, body: &[u8], etag: &str, commit: &str) -> Vec<u8> {
    let end = if asked.probe { 1 } else { body.len() };
    let piece = body.get(asked.from as usize..end).unwrap_or_default();
    let lines = [
        format!(
            "content-range: bytes {}-{}/{}",
            asked.from,
            end - 1,
            body.len()
        ),
        format!("content-length: {}", piece.len()),
        format!("etag: \"{etag}\""),
        format!("x-repo-commit: {commit}"),
    ];
    http("206 Partial Content", &lines, piece)
}

fn good(asked: &Asked) -> Vec<u8> {
    part(asked, BODY, &git_hash(BODY), COMMIT_ID)
}

fn quick() -> Patience {
    Patience {
        connect: Duration::from_millis(500),
        answer: Duration::from_millis(250),
        window: Duration::from_millis(200),
        least: 8,
        tries: 3,
        pause: Duration::from_millis(1),
    }
}

fn wanted() -> HubFile {
    HubFile {
        repo: "org/tiny".into(),
        kind: RepoKind::Model,
        revision: None,
        file: "sub dir/model.bin".into(),
    }
}

fn fetch(server: &Server, cache: &Path) -> Result<(PathBuf, String), Trouble> {
    let client = Client::new(&server.address, Some("secret"), quick())?;
    client.file(
        &Blobs::at(cache.join("models--org--tiny")),
        &wanted(),
        "main",
        None,
    )
}

/// Everything below a folder, by its path, without what is only on its way.
fn tree(dir: &Path) -> Vec<String> {
    let mut list = Vec::new();
    let mut todo = vec![dir.to_path_buf()];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_none_or(|e| e != "incomplete") {
                list.push(path.display().to_string());
            }
        }
    }
    list
}

/// Nothing of a file that was refused is in the cache or beside it.
fn refuses(reply: impl Fn(&Asked, usize) -> Reply + Send + Sync + 'static, part: &str) -> Outcome {
    let dir = tempfile::tempdir()?;
    let server = Server::new(reply)?;
    let before = Instant::now();
    let why = match fetch(&server, &dir.path().join("a/b/cache")) {
        Ok(found) => return Err(format!("{found:?} was believed; {part}").into()),
        Err(why) => why.to_string(),
    };
    assert!(why.contains(part), "{why}, not {part}");
    assert_eq!(tree(dir.path()), Vec::<String>::new(), "{why}");
    assert!(before.elapsed() < Duration::from_secs(8), "{why}");
    Ok(())
}

#[test]
fn a_file_comes_under_its_hash_its_commit_and_its_branch() -> Outcome {
    let dir = tempfile::tempdir()?;
    let server = Server::new(|asked, _| Reply::Bytes(good(asked)))?;
    let (path, commit) = fetch(&server, dir.path())?;
    let repo = dir.path().join("models--org--tiny");
    assert_eq!(
        path,
        repo.join("snapshots")
            .join(COMMIT_ID)
            .join("sub dir/model.bin")
    );
    assert_eq!(
        (std::fs::read(&path)?.as_slice(), commit.as_str()),
        (BODY, COMMIT_ID)
    );
    assert_eq!(
        std::fs::read(repo.join("blobs").join(git_hash(BODY)))?,
        BODY
    );
    assert_eq!(std::fs::read_to_string(repo.join("refs/main"))?, COMMIT_ID);
    assert!(std::fs::symlink_metadata(&path)?.is_symlink());
    let asked = server.asked();
    let address = |revision| format!("/org/tiny/resolve/{revision}/sub%20dir/model.bin");
    let paths: Vec<&str> = asked.iter().map(|a| a.path.as_str()).collect();
    assert_eq!(paths, [address("main"), address(COMMIT_ID)]);
    assert!(asked.iter().all(|a| a.token));
    // A second time nothing has to come.
    fetch(&server, dir.path())?;
    assert_eq!(server.asked().len(), 3);
    Ok(())
}

#[test]
fn names_that_lead_elsewhere_are_refused() -> Outcome {
    let own = git_hash(BODY);
    let long = "a".repeat(129);
    for bad in [
        "..",
        "../../../../evil",
        "a/b",
        "/etc/evil",
        "",
        ".hidden",
        "a\\b",
        "é",
        "a b",
        &long,
    ] {
        let (etag, commit) = (bad.to_owned(), COMMIT_ID.to_owned());
        let reply = move |a: &Asked, _| Reply::Bytes(part(a, BODY, &etag, &commit));
        refuses(reply, "etag")?;
        let (etag, commit) = (own.clone(), bad.to_owned());
        let reply = move |a: &Asked, _| Reply::Bytes(part(a, BODY, &etag, &commit));
        refuses(reply, "x-repo-commit")?;
    }
    Ok(())
}

proptest! {
    #[test]
    fn a_name_is_one_part_of_a_path(text in "[-./_\\\\a-z0-9~: ]{0,12}|\\PC{0,6}") {
        if is_name(&text) {
            let parts: Vec<_> = Path::new(&text).components().collect();
            prop_assert!(matches!(parts.as_slice(), [std::path::Component::Normal(part)] if part.to_str() == Some(text.as_str())));
        }
    }
}

#[test]
fn the_token_stays_with_the_endpoint() -> Outcome {
    let other = Server::new(|asked, _| {
        let whole = http("200 OK", &[format!("content-length: {}", BODY.len())], BODY);
        Reply::Bytes(if asked.probe { good(asked) } else { whole })
    })?;
    let elsewhere = other.address.clone();
    let hub = Server::new(move |asked, _| {
        // First within the hub, as for a repository that was renamed.
        let (to, lines) = if asked.path.starts_with("/new") {
            let lines = [
                format!("x-linked-etag: \"{}\"", git_hash(BODY)),
                format!("x-linked-size: {}", BODY.len()),
                format!("x-repo-commit: {COMMIT_ID}"),
            ];
            (format!("{elsewhere}/signed?a=b"), lines.to_vec())
        } else {
            ("/new/place".to_owned(), Vec::new())
        };
        let lines = [
            lines,
            vec![format!("location: {to}"), "content-length: 0".into()],
        ]
        .concat();
        Reply::Bytes(http("302 Found", &lines, b""))
    })?;
    let dir = tempfile::tempdir()?;
    let (path, _) = fetch(&hub, dir.path())?;
    assert_eq!(std::fs::read(path)?, BODY);
    assert_eq!(hub.asked().len(), 4);
    assert!(hub.asked().iter().all(|a| a.token), "{:?}", hub.asked());
    assert_eq!(other.asked().len(), 2);
    assert!(
        other.asked().iter().all(|a| !a.token),
        "{:?}",
        other.asked()
    );
    Ok(())
}

#[test]
fn a_token_is_not_shown_to_everyone_on_the_way() {
    let new = |endpoint: &str, token| Client::new(endpoint, token, quick());
    for bad in [
        "http://hub.example",
        "http://10.0.0.1:80/hf",
        "http://127.0.0.1.example",
    ] {
        let why = new(bad, Some("secret"))
            .map(drop)
            .map_err(|e| e.to_string());
        assert!(
            why.as_ref().is_err_and(|w| w.contains("use https")),
            "{bad}: {why:?}"
        );
        assert!(new(bad, None).is_ok(), "{bad}");
    }
    for fine in [
        "https://hub.example",
        "http://localhost:1",
        "http://127.0.0.1",
        "http://[::1]:8",
    ] {
        assert!(new(fine, Some("secret")).is_ok(), "{fine}");
    }
    for bad in ["ftp://hub.example", "hub", "", "https://", "file:///etc"] {
        assert!(new(bad, None).is_err(), "{bad}");
    }
    assert!(new("https://hub.example", Some("a\r\nb: c")).is_err());
    let client = new("https://hub.example", Some("secret"));
    assert!(client.is_ok_and(|c| !format!("{c:?}").contains("secret")));
}

#[test]
fn files_of_one_repository_are_of_one_commit() -> Outcome {
    let dir = tempfile::tempdir()?;
    let server = Server::new(|asked, _| Reply::Bytes(good(asked)))?;
    let client = Client::new(&server.address, None, quick())?;
    let other = "f".repeat(40);
    let blobs = Blobs::at(dir.path().to_owned());
    let why = client.file(&blobs, &wanted(), &other, Some(&other));
    let why = why.map_err(|e| e.to_string());
    assert!(
        why.as_ref().is_err_and(|w| w.contains("answers with 0123")),
        "{why:?}"
    );
    assert_eq!(tree(dir.path()), Vec::<String>::new());
    Ok(())
}

#[test]
fn a_list_of_files_names_only_paths_inside() -> Outcome {
    let list = |text: &'static str| {
        let server = Server::new(move |_, _| {
            let lines = [format!("content-length: {}", text.len())];
            Reply::Bytes(http("200 OK", &lines, text.as_bytes()))
        })?;
        let client = Client::new(&server.address, None, quick())?;
        let listed = client.list("org/tiny", RepoKind::Dataset, "refs/pr/1");
        let asked = server.asked();
        assert_eq!(
            asked.first().map(|a| a.path.as_str()),
            Some("/api/datasets/org/tiny/revision/refs%2fpr%2f1")
        );
        Ok::<_, Box<dyn std::error::Error>>(listed.map_err(|e| e.to_string()))
    };
    let fine = list(r#"{"sha": "x", "siblings": [{"rfilename": "a/b.txt"}, {"rfilename": "c"}]}"#)?;
    assert_eq!(fine, Ok(vec!["a/b.txt".to_owned(), "c".to_owned()]));
    for bad in [
        r#"{"siblings": [{"rfilename": "../x"}]}"#,
        r#"{"siblings": [{"rfilename": "/x"}]}"#,
        r#"{"siblings": [{"rfilename": ""}]}"#,
        r#"{"siblings": [{"rfilename": 7}]}"#,
        "{}",
        "<html>",
        "",
    ] {
        assert!(list(bad)?.is_err_and(|w| w.contains("refused")), "{bad}");
    }
    Ok(())
}

#[test]
fn two_at_once_end_with_one_whole_file() -> Outcome {
    let dir = tempfile::tempdir()?;
    let server = Server::new(|asked, _| {
        let bytes = good(asked);
        Reply::Trickle(bytes, Duration::from_micros(300))
    })?;
    let fetched: Vec<Result<Vec<u8>, String>> = std::thread::scope(|scope| {
        let one = || {
            let (path, _) = fetch(&server, dir.path()).map_err(|e| e.to_string())?;
            std::fs::read(path).map_err(|e| e.to_string())
        };
        let both = [scope.spawn(one), scope.spawn(one)];
        both.into_iter()
            .map(|t| t.join().unwrap_or_else(|_| Err("panicked".to_owned())))
            .collect()
    });
    assert!(
        fetched.iter().all(|f| f.as_deref() == Ok(BODY)),
        "{fetched:?}"
    );
    Ok(())
}
