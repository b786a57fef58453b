//! The real world against a made-up cache.

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
    Ok(())
}

#[test]
fn what_is_not_cached_is_an_error_that_says_so() -> Outcome {
    let (_home, world) = cache()?;
    let other = HubFile {
        repo: "org/other".into(),
        ..config(None)
    };
    for file in [
        other,
        config(Some("v9")),
        HubFile {
            file: "gone.json".into(),
            ..config(None)
        },
    ] {
        let Err(error) = world.hub(&file) else {
            return Err("it was found".into());
        };
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
    assert_eq!(
        world.hub_list("org/tiny", RepoKind::Model, None)?,
        ["config.json", "onnx/model.onnx"]
    );
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
        let file = HubFile {
            repo: repo.into(),
            file: file.into(),
            ..config(revision)
        };
        let Err(error) = world.hub(&file) else {
            return Err("it was found".into());
        };
        assert!(!error.to_string().contains("network"), "{error}");
    }
    Ok(())
}

#[test]
fn a_fingerprint_follows_the_content() -> Outcome {
    let (home, world) = cache()?;
    let path = home.path().join("a.txt");
    std::fs::write(&path, "one")?;
    assert_eq!(
        world.fingerprint(&path)?,
        blake3::hash(b"one").to_hex().to_string()
    );
    assert_eq!(world.fingerprint(&path)?, world.fingerprint(&path)?);
    std::fs::write(&path, "three")?;
    assert_eq!(
        world.fingerprint(&path)?,
        blake3::hash(b"three").to_hex().to_string()
    );
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

/// A hub of one file: answers every download with `w8s!`, everything else with an error; gives the
/// paths that were asked for.
fn hub(requests: usize) -> Result<(String, std::thread::JoinHandle<Vec<String>>), std::io::Error> {
    use std::io::{BufRead, BufReader, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = format!("http://{}", listener.local_addr()?);
    let serve = move || {
        let mut asked = Vec::new();
        for stream in listener.incoming().take(requests) {
            let Ok(mut stream) = stream else { continue };
            let Ok(copy) = stream.try_clone() else {
                continue;
            };
            let head: Vec<String> = BufReader::new(copy)
                .lines()
                .map_while(Result::ok)
                .take_while(|l| !l.is_empty())
                .collect();
            let path = head
                .first()
                .and_then(|l| l.split(' ').nth(1))
                .unwrap_or_default()
                .to_owned();
            let first = head.iter().any(|l| l.to_lowercase().ends_with("bytes=0-0"));
            let body = if first { "w" } else { "w8s!" };
            let answer = if path.contains("/resolve/") {
                let range = format!("content-range: bytes 0-{}/4", body.len() - 1);
                let rest = "x-repo-commit: abc123\r\netag: \"e7a9\"\r\nconnection: close";
                format!(
                    "HTTP/1.1 206 Partial Content\r\n{range}\r\n{rest}\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                )
            } else {
                "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
                    .to_owned()
            };
            let _ = stream.write_all(answer.as_bytes());
            asked.push(path);
        }
        asked
    };
    Ok((address, std::thread::spawn(serve)))
}

#[test]
fn further_files_are_fetched_at_the_commit_the_cache_has() -> Outcome {
    let (_home, offline) = cache()?;
    let (address, served) = hub(3)?;
    let world = RealWorld {
        offline: false,
        endpoint: Some(address),
        ..offline
    };
    let found = world.hub(&HubFile {
        file: "model.safetensors".into(),
        ..config(None)
    })?;
    assert_eq!(
        (world.read(&found.path)?.as_slice(), found.commit.as_deref()),
        (&b"w8s!"[..], Some("abc123"))
    );
    // The hub answers the listing with an error: what is cached is listed.
    let listed = world.hub_list("org/tiny", RepoKind::Model, None)?;
    assert_eq!(
        listed,
        ["config.json", "model.safetensors", "onnx/model.onnx"]
    );
    let asked = served.join().map_err(|_| "the server failed")?;
    let file = "/org/tiny/resolve/abc123/model.safetensors";
    assert_eq!(asked, [file, file, "/api/models/org/tiny/revision/abc123"]);
    Ok(())
}

#[test]
fn a_token_that_everyone_could_read_is_a_problem_that_is_named() -> Outcome {
    let world = |endpoint: &str| -> Result<RealWorld, std::io::Error> {
        Ok(RealWorld {
            offline: false,
            endpoint: Some(endpoint.to_owned()),
            token: Some("secret".to_owned()),
            ..cache()?.1
        })
    };
    let plain = world("http://hub.example")?;
    let refused = plain.reach().refused;
    assert!(refused.is_some_and(|why| why.contains("use https")));
    assert_eq!(world("https://hub.example")?.reach().refused, None);
    let shown = world("https://me:secret@hub.example/hf")?.reach().endpoint;
    assert_eq!(shown, "https://hub.example/hf");
    let file = HubFile {
        repo: "org/other".into(),
        ..config(None)
    };
    let why = plain.hub(&file).map_err(|e| e.to_string());
    assert!(
        why.as_ref().is_err_and(|w| w.contains("HF_ENDPOINT")),
        "{why:?}"
    );
    assert!(!format!("{plain:?}{why:?}").contains("secret"));
    assert!(plain.hub_list("org/other", RepoKind::Model, None).is_err());
    Ok(())
}
