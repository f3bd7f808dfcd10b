//! Fetches files of a public repository: in ranges that resume, into their place only when whole and right.
//!
//! `hf-hub` speaks to the hub; this layer adds what version 1.0 lacks: resuming a cut download, length and SHA-256
//! checks, an offline switch, a list of allowed hosts and a token that never reaches a message.

mod repository;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use hf_hub::{HFClientSync, HFError};

pub use repository::{Fetched, HubRepo, RemoteFile, STAGE, sha256_of};

use super::registry::split_repo;
use crate::progress::Progress;

/// Where public models are.
pub const PUBLIC_ENDPOINT: &str = "https://huggingface.co";

/// Hosts a download may touch, themselves or as parents: the hub and its content servers.
const ALLOWED_HOSTS: [&str; 2] = ["huggingface.co", "hf.co"];
const CHUNK_BYTES: u64 = 16 << 20;
const ATTEMPTS: u32 = 4;
const LONGEST_WAIT: Duration = Duration::from_secs(120);

/// Why nothing, or not all, was fetched.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    #[error("{what} is not on this machine and the network is switched off (KINORA_OFFLINE or --offline)")]
    Offline { what: String },
    #[error("downloads may only come from {allowed}; {url:?} is elsewhere", allowed = ALLOWED_HOSTS.join(" and "))]
    Host { url: String },
    #[error("{repo:?} is not OWNER/NAME")]
    Repo { repo: String },
    #[error("the hub asks for a token to read {repo} (401): set HF_TOKEN to one that may read it")]
    Unauthorized { repo: String },
    #[error("the hub refuses {repo} (403): accept its terms on the repository page, then set HF_TOKEN")]
    Forbidden { repo: String },
    #[error("the hub has no {what} (404)")]
    NotFound { what: String },
    #[error("the hub asks to slow down (429){}; try again later, what was fetched is kept", wait.map(|w| format!(", to wait {} s", w.as_secs())).unwrap_or_default())]
    RateLimited { wait: Option<Duration> },
    #[error(
        "{file}: the connection broke after {done} of {total} bytes ({what}); run the same command again to go on from there"
    )]
    Cut { file: String, done: u64, total: u64, what: String },
    #[error("{file}: asked for {expected} bytes, the server sent {found}; nothing was kept of them")]
    Length { file: String, expected: u64, found: u64 },
    #[error("{file}: SHA-256 is {found}, expected {expected}; the copy was deleted, fetch it again")]
    Digest { file: String, expected: String, found: String },
    #[error("{file}: the hub says {found} bytes, the registry {expected}; the repository has changed")]
    Size { file: String, expected: u64, found: u64 },
    #[error("{} has {free} bytes free, {needed} are needed: free some disk space or choose another folder with KINORA_MODELS", folder.display())]
    Space { folder: PathBuf, needed: u64, free: u64 },
    #[error("another process is fetching {}", path.display())]
    Busy { path: PathBuf },
    #[error("cancelled; what was fetched is kept")]
    Cancelled,
    #[error("cannot {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
    #[error("the hub failed: {what}")]
    Other { what: String },
}

/// A token that cannot be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Wraps a token.
    pub fn new(token: impl Into<String>) -> Self {
        Self(token.into())
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(hidden)")
    }
}

/// How to reach the hub.
#[derive(Debug, Clone)]
pub struct HubOptions {
    /// `https` at an allowed host, or `http` at this machine for tests.
    pub endpoint: String,
    pub token: Option<Token>,
    /// Refuse every request.
    pub offline: bool,
    /// Bytes asked for at a time; progress, cancel and resume have this grain.
    pub chunk_bytes: u64,
    /// First wait between two attempts, doubled each time.
    pub first_wait: Duration,
}

impl Default for HubOptions {
    fn default() -> Self {
        Self {
            endpoint: PUBLIC_ENDPOINT.to_owned(),
            token: None,
            offline: false,
            chunk_bytes: CHUNK_BYTES,
            first_wait: Duration::from_secs(1),
        }
    }
}

impl HubOptions {
    /// The public hub, with `HF_TOKEN` and `KINORA_OFFLINE` of the environment.
    pub fn from_env() -> Self {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let offline = set("KINORA_OFFLINE").is_some_and(|value| value != "0");
        Self { token: set("HF_TOKEN").map(Token), offline, ..Self::default() }
    }
}

/// The hub.
#[derive(Debug)]
pub struct Hub {
    options: HubOptions,
    client: HFClientSync,
}

fn is_loopback(host: &str) -> bool {
    matches!(host, "127.0.0.1" | "localhost" | "[::1]")
}

/// Whether a request may go to `url`; `http` and this machine only if the endpoint is this machine.
fn is_allowed(url: &reqwest::Url, local: bool) -> bool {
    let Some(host) = url.host_str() else { return false };
    if local {
        return is_loopback(host);
    }
    let under =
        |parent: &str| host.strip_suffix(parent).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    url.scheme() == "https" && ALLOWED_HOSTS.into_iter().any(under)
}

impl Hub {
    /// A client; contacts nobody yet.
    ///
    /// # Errors
    /// An endpoint that is not allowed, or a client that cannot be set up.
    pub fn new(options: HubOptions) -> Result<Self, HubError> {
        let refused = || HubError::Host { url: options.endpoint.clone() };
        let endpoint = reqwest::Url::parse(&options.endpoint).map_err(|_| refused())?;
        let local = endpoint.host_str().is_some_and(is_loopback);
        if !is_allowed(&endpoint, local) {
            return Err(refused());
        }
        let redirects = reqwest::redirect::Policy::custom(move |attempt| {
            if attempt.previous().len() > 8 || !is_allowed(attempt.url(), local) {
                return attempt.error("redirected to a host that is not allowed");
            }
            attempt.follow()
        });
        let client = reqwest::Client::builder()
            .user_agent(concat!("kinora/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(20))
            .read_timeout(Duration::from_secs(60))
            .redirect(redirects)
            .build()
            .map_err(|error| HubError::Other { what: error.to_string() })?;
        // Without an explicit token hf-hub searches the environment and the home folder. One that is no valid header
        // is left out of requests, which is how to say "none".
        let token = options.token.as_ref().map_or("\n", |token| token.0.as_str());
        let client = HFClientSync::from_inner(
            hf_hub::HFClientBuilder::new()
                .endpoint(options.endpoint.clone())
                .token(token)
                .client(client)
                .cache_enabled(false)
                .cache_dir(std::env::temp_dir())
                .retry_max_attempts(0)
                .build()
                .map_err(|error| HubError::Other { what: error.to_string() })?,
        )
        .map_err(|error| HubError::Other { what: error.to_string() })?;
        Ok(Self { options, client })
    }

    /// Opens a repository at a revision, which is resolved to its commit so that all files belong together.
    ///
    /// # Errors
    /// Offline, or an answer of the hub: no such repository or revision, no permission.
    pub fn repo(&self, name: &str, revision: &str, progress: &dyn Progress) -> Result<HubRepo<'_>, HubError> {
        if self.options.offline {
            return Err(HubError::Offline { what: name.to_owned() });
        }
        let (owner, short) = split_repo(name).ok_or_else(|| HubError::Repo { repo: name.to_owned() })?;
        let repo = self.client.model(owner, short);
        let what = format!("repository {name} at revision {revision}");
        let info = self.attempt(progress, name, &what, || repo.info().revision(revision).send())?;
        let commit = info.sha.ok_or_else(|| HubError::Other { what: format!("{what} names no commit") })?;
        if commit.is_empty() || !commit.chars().all(|c| c.is_ascii_alphanumeric()) {
            return Err(HubError::Other { what: format!("{what} has the odd commit {commit:?}") });
        }
        Ok(HubRepo { hub: self, name: name.to_owned(), commit, repo })
    }

    /// Repeats what may pass: broken connections, server errors and "slow down", with growing waits.
    fn attempt<T>(
        &self,
        progress: &dyn Progress,
        repo: &str,
        what: &str,
        mut call: impl FnMut() -> Result<T, HFError>,
    ) -> Result<T, HubError> {
        let mut wait = self.options.first_wait;
        for attempt in 1.. {
            if progress.cancelled() {
                return Err(HubError::Cancelled);
            }
            let error = match call() {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let pause = match &error {
                HFError::RateLimited { retry_after, .. } => retry_after.unwrap_or(wait),
                HFError::Request { source, .. } if !source.is_redirect() && !source.is_builder() => wait,
                HFError::Http { context } if context.status.is_server_error() => wait,
                _ => return Err(self.translate(error, repo, what)),
            };
            if attempt >= ATTEMPTS || pause > LONGEST_WAIT {
                return Err(self.translate(error, repo, what));
            }
            let until = Instant::now() + pause;
            while Instant::now() < until {
                if progress.cancelled() {
                    return Err(HubError::Cancelled);
                }
                std::thread::sleep(Duration::from_millis(50).min(pause));
            }
            wait *= 2;
        }
        Err(HubError::Cancelled)
    }

    fn translate(&self, error: HFError, repo: &str, what: &str) -> HubError {
        match error {
            HFError::AuthRequired { .. } => HubError::Unauthorized { repo: repo.to_owned() },
            HFError::Forbidden { .. } => HubError::Forbidden { repo: repo.to_owned() },
            HFError::RepoNotFound { .. }
            | HFError::RevisionNotFound { .. }
            | HFError::EntryNotFound { .. } => HubError::NotFound { what: what.to_owned() },
            HFError::RateLimited { retry_after, .. } => HubError::RateLimited { wait: retry_after },
            other => HubError::Other { what: self.redacted(&with_causes(&other)) },
        }
    }

    /// A message of others, without the token.
    fn redacted(&self, message: &str) -> String {
        match &self.options.token {
            Some(Token(token)) if !token.is_empty() => message.replace(token.as_str(), "(hidden)"),
            _ => message.to_owned(),
        }
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !message.contains(&text) {
            message.push_str(": ");
            message.push_str(&text);
        }
        cause = error.source();
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_hub_and_its_content_servers_are_allowed() {
        let allowed = |url: &str| is_allowed(&reqwest::Url::parse(url).unwrap(), false);
        for url in [
            "https://huggingface.co/x",
            "https://cdn-lfs.huggingface.co",
            "https://cas-bridge.xethub.hf.co/a",
        ] {
            assert!(allowed(url), "{url}");
        }
        for url in [
            "http://huggingface.co",
            "https://evilhuggingface.co",
            "https://huggingface.co.evil.org",
            "https://127.0.0.1",
            "ftp://hf.co",
        ] {
            assert!(!allowed(url), "{url}");
        }
        assert!(is_allowed(&reqwest::Url::parse("http://127.0.0.1:9/x").unwrap(), true));
        assert!(!is_allowed(&reqwest::Url::parse("https://huggingface.co").unwrap(), true));
        let elsewhere = HubOptions { endpoint: "https://example.org".to_owned(), ..HubOptions::default() };
        assert!(matches!(Hub::new(elsewhere), Err(HubError::Host { .. })));
    }

    #[test]
    fn the_token_is_never_printed() {
        let options = HubOptions { token: Some(Token::new("hf_secret")), ..HubOptions::default() };
        assert!(!format!("{options:?}").contains("hf_secret"));
        let hub = Hub::new(options).unwrap();
        assert!(!format!("{hub:?}").contains("hf_secret"));
        assert_eq!(hub.redacted("bad hf_secret!"), "bad (hidden)!");
    }
}
