//! What a server or the way to it does wrong.

use super::*;

#[test]
fn redirects_end_and_lead_to_the_web() -> Outcome {
    let to = |line: &'static str| {
        move |_: &Asked, _| {
            let lines = [line.to_owned(), "content-length: 0".to_owned()];
            Reply::Bytes(http("302 Found", &lines, b""))
        }
    };
    refuses(to("location: /again"), "more than 10 times")?;
    refuses(to("x: no location"), "without saying where to")?;
    refuses(to("location: ftp://hub.example/x"), "no address")?;
    refuses(to("location: file:///etc/passwd"), "no address")?;
    refuses(to("location: http://"), "no address")?;
    refuses(to("location: \u{e9}"), "no address")?;
    let at: Uri = "https://hub.example/a/b?c".parse()?;
    let follows = |to: &str| {
        let value = HeaderValue::from_str(to).ok()?;
        Some(follow(&at, Some(&value)).ok()?.to_string())
    };
    let leads = |to: &str, there: &str| assert_eq!(follows(to).as_deref(), Some(there), "{to}");
    leads("/x", "https://hub.example/x");
    leads("x?y#z", "https://hub.example/a/x?y");
    leads("?y", "https://hub.example/a/b?y");
    leads("//cdn.example/x", "https://cdn.example/x");
    leads("https://cdn.example/x?s=//", "https://cdn.example/x?s=//");
    assert_eq!(follows("http://hub.example/x"), None, "from https to http");
    let same = |a: &str, b: &str| Some(same_place(&a.parse().ok()?, &b.parse().ok()?));
    assert_eq!(
        same("https://h.example/a", "https://H.example:443/b"),
        Some(true)
    );
    assert_eq!(
        same("https://h.example", "https://h.example:444"),
        Some(false)
    );
    assert_eq!(same("https://h.example", "http://h.example"), Some(false));
    assert_eq!(
        same("https://h.example", "https://x.h.example"),
        Some(false)
    );
    Ok(())
}

#[test]
fn what_ends_too_early_goes_on_and_is_never_taken_for_whole() -> Outcome {
    // Seven bytes a time: each request brings it further by almost what is borne with.
    let server = Server::new(|asked, _| {
        let mut bytes = good(asked);
        let cut = bytes
            .len()
            .min(bytes.len() - (BODY.len() - asked.from as usize) + 7);
        if !asked.probe {
            bytes.truncate(cut);
        }
        Reply::Bytes(bytes)
    })?;
    let dir = tempfile::tempdir()?;
    let (path, _) = fetch(&server, dir.path())?;
    assert_eq!(std::fs::read(path)?, BODY);
    let from: Vec<u64> = server.asked().iter().map(|a| a.from).collect();
    assert_eq!(from, [0, 0, 7, 14]);

    // One byte a time is too little; what has come is there for the next run.
    let dir = tempfile::tempdir()?;
    let server = Server::new(|asked, before| {
        let mut bytes = good(asked);
        if !asked.probe && before < 4 {
            bytes.truncate(bytes.len() - (BODY.len() - asked.from as usize) + 1);
        }
        Reply::Bytes(bytes)
    })?;
    let why = fetch(&server, dir.path()).map_err(|e| e.to_string());
    assert!(why.as_ref().is_err_and(|w| !w.is_empty()), "{why:?}");
    assert_eq!(tree(dir.path()), Vec::<String>::new());
    let (path, _) = fetch(&server, dir.path())?;
    assert_eq!(std::fs::read(path)?, BODY);
    let from: Vec<u64> = server.asked().iter().map(|a| a.from).collect();
    assert_eq!(from, [0, 0, 1, 2, 0, 3]);
    Ok(())
}

#[test]
fn every_wait_ends() -> Outcome {
    let first = |asked: &Asked, rest: Reply| {
        if asked.probe {
            Reply::Bytes(good(asked))
        } else {
            rest
        }
    };
    refuses(|_, _| Reply::Stall(Vec::new()), "timeout")?;
    refuses(
        |_, _| {
            let head = format!("HTTP/1.1 200 OK\r\nx: {}", "a".repeat(4000));
            Reply::Trickle(head.into_bytes(), Duration::from_millis(40))
        },
        "timeout",
    )?;
    let stalls = move |asked: &Asked, _| {
        let mut bytes = good(asked);
        bytes.truncate(bytes.len() - 15);
        first(asked, Reply::Stall(bytes))
    };
    refuses(stalls, "")?;
    let crawls = move |asked: &Asked, _| {
        let bytes = good(asked);
        let body = bytes.len() - (BODY.len() - asked.from as usize);
        let (head, body) = bytes.split_at(body.min(bytes.len()));
        if asked.probe {
            return Reply::Bytes(bytes);
        }
        let _ = head;
        Reply::Trickle([head, body].concat(), Duration::from_millis(60))
    };
    refuses(crawls, "")?;
    Ok(())
}

#[test]
fn what_is_not_as_promised_is_not_kept() -> Outcome {
    let other = b"twenty bytes at all!";
    let hash = git_hash(BODY);
    let reply = move |a: &Asked, _| Reply::Bytes(part(a, other, &hash, COMMIT_ID));
    refuses(reply, "is not what its hash")?;
    let long: String = Sha256::digest(BODY)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let etag = long.clone();
    let reply = move |a: &Asked, _| Reply::Bytes(part(a, other, &etag, COMMIT_ID));
    refuses(reply, "is not what its hash")?;
    let linked = |a: &Asked, _: usize| {
        let text = String::from_utf8_lossy(&good(a)).replace("etag", "x-linked-size: 21\r\netag");
        Reply::Bytes(text.into_bytes())
    };
    refuses(linked, "21 bytes, and that it has 20")?;
    let more = |a: &Asked, _: usize| {
        let lines = ["x: y".to_owned()];
        Reply::Bytes(if a.probe {
            good(a)
        } else {
            http("200 OK", &lines, &[BODY, b"!"].concat())
        })
    };
    refuses(more, "more than 20 bytes")?;
    let another = |a: &Asked, _: usize| {
        let text = String::from_utf8_lossy(&good(a)).replace("bytes 0-19", "bytes 3-19");
        Reply::Bytes(text.into_bytes())
    };
    refuses(another, "another part")?;
    let endless = |_: &Asked, _: usize| {
        let lines = [
            format!("etag: \"{}\"", git_hash(BODY)),
            format!("x-repo-commit: {COMMIT_ID}"),
        ];
        Reply::Bytes(http("200 OK", &lines, BODY))
    };
    refuses(endless, "how long the file is")?;
    refuses(
        |_, _| Reply::Bytes(http("200 OK", &["content-length: 0".into()], b"")),
        "no commit",
    )?;
    refuses(|_, _| Reply::Bytes(b"SSH-2.0-x\r\n\r\n".to_vec()), "")?;
    // The same hashes of the right content are in order, and so is git's and the plain one.
    let plain: String = Sha1::digest(BODY)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    for etag in [
        long.clone(),
        format!("W/\"{}", git_hash(BODY)),
        plain,
        "my-etag".to_owned(),
    ] {
        let dir = tempfile::tempdir()?;
        let server = Server::new(move |a, _| Reply::Bytes(part(a, BODY, &etag, COMMIT_ID)))?;
        assert_eq!(std::fs::read(fetch(&server, dir.path())?.0)?, BODY);
    }
    Ok(())
}

#[test]
fn servers_without_parts_and_empty_files_are_served() -> Outcome {
    let whole = |asked: &Asked, before: usize| {
        let lines = [
            format!("content-length: {}", BODY.len()),
            format!("etag: {}", git_hash(BODY)),
            format!("x-repo-commit: {COMMIT_ID}"),
        ];
        let mut bytes = http("200 OK", &lines, BODY);
        if before == 1 {
            bytes.truncate(bytes.len() - 5);
        }
        let _ = asked;
        Reply::Bytes(bytes)
    };
    let dir = tempfile::tempdir()?;
    let server = Server::new(whole)?;
    assert_eq!(std::fs::read(fetch(&server, dir.path())?.0)?, BODY);
    let from: Vec<u64> = server.asked().iter().map(|a| a.from).collect();
    assert_eq!(from, [0, 0, 15]);

    let dir = tempfile::tempdir()?;
    let server = Server::new(|_, _| {
        let lines = [
            "content-range: bytes */0".to_owned(),
            "content-length: 0".to_owned(),
            format!("etag: {}", git_hash(b"")),
            format!("x-repo-commit: {COMMIT_ID}"),
        ];
        Reply::Bytes(http("416 Range Not Satisfiable", &lines, b""))
    })?;
    assert_eq!(std::fs::read(fetch(&server, dir.path())?.0)?, b"");
    Ok(())
}

#[test]
fn what_may_pass_is_asked_again_and_what_may_not_is_not() -> Outcome {
    let dir = tempfile::tempdir()?;
    let status = |status: &str| http(status, &["content-length: 0".to_owned()], b"");
    let server = Server::new(move |asked, before| {
        Reply::Bytes(if before < 2 {
            status("503 Service Unavailable")
        } else {
            good(asked)
        })
    })?;
    fetch(&server, dir.path())?;
    assert_eq!(server.asked().len(), 4);
    for (code, times) in [("404 Not Found", 1), ("401 Unauthorized", 1), ("500 Oh", 3)] {
        let server = Server::new(move |_, _| Reply::Bytes(status(code)))?;
        let why = fetch(&server, &dir.path().join("other")).map_err(|e| e.to_string());
        assert_eq!(
            why.err(),
            Some(format!("status {}", code.split(' ').next().unwrap_or("")))
        );
        assert_eq!(server.asked().len(), times, "{code}");
    }
    Ok(())
}
