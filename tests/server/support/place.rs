//! A server with a configuration and keys of its own, in a folder that lives as long as it.

use std::fs;

use tempfile::TempDir;

use super::Server;

pub struct Place {
    pub server: Server,
    _folder: TempDir,
}

impl Place {
    /// `users`: each has the key that [`key_of`] says; what stands behind a space comes behind the key.
    #[track_caller]
    pub fn new(configuration: &str, users: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name| folder.path().join(name);
        let keys: String = users
            .iter()
            .map(|line| line.split_once(' ').unwrap_or((line, "")))
            .map(|(user, more)| format!("{user} {} {more}\n", key_of(user)))
            .collect();
        fs::write(path("stentor.toml"), configuration).expect("it is ours");
        fs::write(path("keys"), keys).expect("it is ours");
        let text = |name| path(name).to_str().expect("text").to_owned();
        let (config, keys) = (text("stentor.toml"), text("keys"));
        let server = Server::start(&["--config", &config, "--auth-keys", &keys]);
        Self { server, _folder: folder }
    }
}

/// The token of a user.
pub fn key_of(user: &str) -> String {
    format!("{user}-0123456789abcdef")
}

/// A server with that configuration, in a folder that lives as long as it is kept.
#[track_caller]
pub fn start_with(configuration: &str, flags: &[&str]) -> (TempDir, Server) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("stentor.toml");
    fs::write(&file, configuration).expect("it is ours");
    let path = file.to_str().expect("text");
    let server = Server::start(&[&["--config", path], flags].concat());
    (folder, server)
}
