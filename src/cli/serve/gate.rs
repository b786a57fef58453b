//! Who may ask: a key where one is set, and no page of another site.

use std::net::SocketAddr;

use axum::http::{HeaderMap, Method, header};

/// What lets requests in.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    /// The hash of the key: comparing hashes tells nothing of the key by its time.
    key: Option<blake3::Hash>,
    /// Whether only this machine can reach the server, so that its name is known.
    local: bool,
}

impl Gate {
    pub(super) fn new(key: Option<&str>, address: SocketAddr) -> Self {
        Self {
            key: key.map(|key| blake3::hash(key.as_bytes())),
            local: address.ip().is_loopback(),
        }
    }

    /// Lets a request in.
    ///
    /// # Errors
    /// The status and why not.
    pub(super) fn check(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<(), (u16, String)> {
        let text =
            |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        // A page whose name was turned to this machine says its own name.
        if self.local && !text(header::HOST).is_some_and(is_local) {
            return Err((
                403,
                "this server answers to localhost alone; use http://127.0.0.1 or http://localhost"
                    .to_owned(),
            ));
        }
        // What no page of another site can send without asking first, which is answered by nothing.
        let json = |kind: &str| {
            kind.split(';')
                .next()
                .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
        };
        if method == Method::POST && !text(header::CONTENT_TYPE).is_some_and(json) {
            return Err((
                415,
                "write the header `Content-Type: application/json`".to_owned(),
            ));
        }
        let Some(key) = self
            .key
            .filter(|_| !matches!(path, "/" | "/healthz" | "/readyz"))
        else {
            return Ok(());
        };
        let bearer = text(header::AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
        let own = headers
            .get("x-api-key")
            .and_then(|value| value.to_str().ok());
        let shown = bearer
            .or(own)
            .map(|shown| blake3::hash(shown.trim().as_bytes()));
        if shown == Some(key) {
            Ok(())
        } else {
            Err((
                401,
                "the key is wrong or not there; write the header `Authorization: Bearer KEY`"
                    .to_owned(),
            ))
        }
    }
}

/// Whether a `Host` is this machine as it calls itself.
fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost")
        || name
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_those_with_the_key_and_no_other_site_get_in() {
        let address = SocketAddr::from(([127, 0, 0, 1], 80));
        let ask = |key: Option<&str>,
                   method: &Method,
                   path: &str,
                   list: &[(&'static str, &'static str)]| {
            let pairs = list.iter().map(|(name, value)| {
                (
                    header::HeaderName::from_static(name),
                    header::HeaderValue::from_static(value),
                )
            });
            let headers: HeaderMap = pairs.collect();
            Gate::new(key, address)
                .check(method, path, &headers)
                .map_err(|(status, _)| status)
        };
        let local = ("host", "localhost:80");
        let json = ("content-type", "application/json; charset=utf-8");
        assert_eq!(ask(None, &Method::GET, "/", &[local]), Ok(()));
        assert_eq!(
            ask(None, &Method::GET, "/", &[("host", "evil.example")]),
            Err(403)
        );
        assert_eq!(ask(None, &Method::GET, "/", &[]), Err(403));
        assert_eq!(
            ask(
                None,
                &Method::POST,
                "/v1/predict",
                &[local, ("content-type", "text/plain")]
            ),
            Err(415)
        );
        assert_eq!(
            ask(
                None,
                &Method::POST,
                "/v1/predict",
                &[("host", "[::1]:80"), json]
            ),
            Ok(())
        );
        assert_eq!(ask(Some("k"), &Method::GET, "/metrics", &[local]), Err(401));
        assert_eq!(ask(Some("k"), &Method::GET, "/healthz", &[local]), Ok(()));
        assert_eq!(
            ask(
                Some("k"),
                &Method::GET,
                "/v1/models",
                &[local, ("authorization", "Bearer k")]
            ),
            Ok(())
        );
        assert_eq!(
            ask(
                Some("k"),
                &Method::GET,
                "/v1/models",
                &[local, ("x-api-key", "K")]
            ),
            Err(401)
        );
    }
}
