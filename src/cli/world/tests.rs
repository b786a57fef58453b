//! The real world against a made-up cache.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

use super::*;

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn cache() -> Result<(tempfile::TempDir, RealWorld), std::io::Error> {
    let home = tempfile::tempdir()?;
    let repo = home.path().join("models--org--tiny");
    for (commit, text) in [("abc123", "new"), ("def456", "old")] {
        let snapshot = repo.join("snapshots").join(commit);
        std::fs::create_dir_all(snapshot.join("onnx"))?;
        std::fs::write(snapshot.join("config.json"), text)?;
        std::fs::write(snapshot.join("onnx/model.onnx"), "")?;
    }
    std::fs::create_dir_all(repo.join("refs"))?;
    std::fs::write(repo.join("refs/main"), "abc123\n")?;
    let world = RealWorld::with_cache(true, home.path().to_owned());
    Ok((home, world))
}

fn config(revision: Option<&str>) -> HubFile {
    HubFile {
        repo: "org/tiny".into(),
        kind: RepoKind::Model,
        revision: revision.map(str::to_owned),
        file: "config.json".into(),
    }
}

#[test]
fn a_cached_file_is_found_offline_with_its_commit() -> Outcome {
    let (_home, world) = cache()?;
    assert!(world.offline());
    let found = world.hub(&config(None))?;
    assert_eq!(found.commit.as_deref(), Some("abc123"));
    assert_eq!(world.read(&found.path)?, b"new");
    let pinned = world.hub(&config(Some("def456")))?;
    assert_eq!(pinned.commit.as_deref(), Some("def456"));
    assert_eq!(world.read(&pinned.path)?, b"old");
    assert_eq!(commit_of(&pinned.path).as_deref(), Some("def456"));
    Ok(())
}

#[test]
fn what_is_not_cached_is_an_error_that_says_so() -> Outcome {
    let (_home, world) = cache()?;
    let other = HubFile { repo: "org/other".into(), ..config(None) };
    for file in [other, config(Some("v9")), HubFile { file: "gone.json".into(), ..config(None) }] {
        let Err(error) = world.hub(&file) else { return Err("it was found".into()) };
        assert!(error.to_string().contains("the network is off"), "{error}");
        assert!(error.to_string().contains("--offline"), "{error}");
    }
    assert!(world.hub_list("org/other", RepoKind::Model, None).is_err());
    assert!(world.hub_list("org/tiny", RepoKind::Dataset, None).is_err());
    Ok(())
}

#[test]
fn a_snapshot_is_listed_with_its_folders() -> Outcome {
    let (_home, world) = cache()?;
    assert_eq!(world.hub_list("org/tiny", RepoKind::Model, None)?, ["config.json", "onnx/model.onnx"]);
    Ok(())
}

#[test]
fn names_cannot_lead_out_of_the_cache() -> Outcome {
    let (_home, world) = cache()?;
    for (repo, revision, file) in [
        ("../x", None, "config.json"),
        ("org/tiny/x", None, "config.json"),
        ("", None, "config.json"),
        ("org/tiny", Some("../../x"), "config.json"),
        ("org/tiny", None, "/etc/passwd"),
        ("org/tiny", None, "../def456/config.json"),
    ] {
        let file = HubFile { repo: repo.into(), file: file.into(), ..config(revision) };
        let Err(error) = world.hub(&file) else { return Err("it was found".into()) };
        assert!(!error.to_string().contains("network"), "{error}");
    }
    Ok(())
}

#[test]
fn a_fingerprint_follows_the_content() -> Outcome {
    let (home, world) = cache()?;
    let path = home.path().join("a.txt");
    std::fs::write(&path, "one")?;
    assert_eq!(world.fingerprint(&path)?, blake3::hash(b"one").to_hex().to_string());
    assert_eq!(world.fingerprint(&path)?, world.fingerprint(&path)?);
    std::fs::write(&path, "three")?;
    assert_eq!(world.fingerprint(&path)?, blake3::hash(b"three").to_hex().to_string());
    assert!(world.fingerprint(&home.path().join("none")).is_err());
    Ok(())
}

#[test]
fn files_are_listed_sorted_without_directories() -> Outcome {
    let (home, world) = cache()?;
    std::fs::write(home.path().join("b.tsv"), "")?;
    std::fs::write(home.path().join("a.tsv"), "")?;
    assert_eq!(world.list(home.path())?, ["a.tsv", "b.tsv"]);
    assert!(world.exists(&home.path().join("a.tsv")) && !world.exists(&home.path().join("c.tsv")));
    assert!(world.list(&home.path().join("none")).is_err());
    Ok(())
}

/// A hub with one repository of one file; it answers until the process ends.
fn small_hub() -> Result<String, std::io::Error> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = format!("http://{}", listener.local_addr()?);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
            let request = lines.next().unwrap_or_default();
            let ranged = lines.take_while(|line| !line.is_empty()).any(|line| line.to_lowercase().starts_with("range:"));
            let (status, body) = if request.contains("/org/tiny/resolve/main/config.json") {
                (if ranged { "206 Partial Content" } else { "200 OK" }, "hi")
            } else if request.contains("/api/models/org/tiny") {
                ("200 OK", r#"{"sha":"c0ffee","siblings":[{"rfilename":"b"},{"rfilename":"a/b"}]}"#)
            } else {
                ("404 Not Found", "")
            };
            let range = if ranged { "Content-Range: bytes 0-1/2\r\n" } else { "" };
            let _ = write!(
                &stream,
                "HTTP/1.1 {status}\r\nETag: \"e1\"\r\nX-Repo-Commit: c0ffee\r\n{range}Content-Type: application/json\r\n\
                 Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    Ok(address)
}

#[test]
fn a_file_is_fetched_once_and_then_found_offline() -> Outcome {
    let home = tempfile::tempdir()?;
    let at = |offline: bool| RealWorld {
        offline,
        endpoint: small_hub().ok(),
        ..RealWorld::with_cache(offline, home.path().to_owned())
    };
    let online = at(false);
    let found = online.hub(&config(None))?;
    assert_eq!((online.read(&found.path)?.as_slice(), found.commit.as_deref()), (b"hi".as_slice(), Some("c0ffee")));
    assert_eq!(online.hub_list("org/tiny", RepoKind::Model, None)?, ["a/b", "b"]);
    assert_eq!(at(true).hub(&config(None))?, found);
    assert_eq!(at(true).hub(&config(Some("c0ffee")))?, found);
    let Err(error) = online.hub(&HubFile { file: "none".into(), ..config(None) }) else { return Err("it was found".into()) };
    assert!(error.to_string().contains("no such file, revision or model"), "{error}");
    Ok(())
}
