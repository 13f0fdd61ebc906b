//! `stentor serve`: configuration, log, open files, banner; the rest is the server's.

use super::open_files::{self, OpenFiles};
use super::settings::Settings;
use super::{logging, print};
use crate::server::{Server, StartError};
use anyhow::anyhow;
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;

pub const HELP: &str = "\
A value comes from the last of these that has one: its default, the file, the environment
variable STENTOR_SECTION_KEY (or PORT, for the port alone), its flag; --set is a flag too, and one
key has one. `stentor config` shows the result, and lists all keys with --help.

Sizes: 65536, 64KiB (KiB = 1024), 64KB (KB = 1000). Times: 500ms, 25s, 1m30s, 2h.

Examples:
  stentor serve
  stentor serve --listen :9000 --shards 2
  stentor serve --config stentor.toml --log-level debug
  stentor serve --auth-keys keys --auth-required       for those with a token in this file
  stentor serve --listen 0.0.0.0:8080 --insecure       for everybody, unencrypted
  STENTOR_LIMITS_MAX_TOPICS=5000 stentor serve --set limits.publish_rate=100";

pub fn run(settings: Settings) -> anyhow::Result<ExitCode> {
    let loaded = settings.load()?;
    // Keeps the log's thread alive until the last line is written.
    let _log = logging::start(loaded.config.log);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let open_files = open_files::raise();
    let wanted = loaded.config.limits.max_connections;
    let server = Server::bind(loaded.config, open_files.now).map_err(|error| {
        if let StartError::Listen { address, error } = &error
            && let Some(advice) = advice(*address, error.kind(), "--listen")
        {
            return anyhow!("cannot listen on {address}: {advice}");
        }
        if let StartError::Admin { address, error } = &error
            && let Some(advice) = advice(*address, error.kind(), "--admin")
        {
            return anyhow!("the server API cannot listen on {address}: {advice}");
        }
        error.into()
    })?;
    let affordable = server.connections_max();
    if let Some(wanted) = wanted.filter(|wanted| *wanted > affordable) {
        tracing::warn!(
            "limits.max_connections = {wanted}: {open_files} allow {affordable}; raise the hard \
             limit (`ulimit -n`, LimitNOFILE= of systemd)"
        );
    }
    if let Err(error) = print(&banner(&server, open_files)) {
        tracing::warn!("cannot write to stdout: {error}");
    }
    server.run()?;
    Ok(ExitCode::SUCCESS)
}

fn banner(server: &Server, open_files: OpenFiles) -> String {
    let address = server.address();
    let shards = match server.shards() {
        1 => "1 shard".to_string(),
        shards => format!("{shards} shards"),
    };
    // More shards than cores share them; with fewer, the last cores stay free.
    let cores: Vec<usize> = server.cores().iter().map(|core| core.id).collect();
    let pinned = match &cores[..cores.len().min(server.shards())] {
        [] => "not pinned".to_string(),
        [core] => format!("pinned to core {core}"),
        cores => format!("pinned to cores {}", ranges(cores)),
    };
    let admin = server.admin_address().map(|address| format!("server API on http://{address}\n"));
    format!(
        "stentor {version} listening on http://{address} (ws://{address})\n\
         {shards}, {pinned}, {backend}\n\
         {open_files}: up to {connections} connections\n{admin}",
        admin = admin.unwrap_or_default(),
        version = env!("CARGO_PKG_VERSION"),
        backend = server.backend(),
        connections = server.connections_max(),
    )
}

/// `0-3,8`
fn ranges(numbers: &[usize]) -> String {
    let runs = numbers.chunk_by(|number, next| number + 1 == *next);
    let show = |run: &[usize]| match run {
        [first, .., last] => format!("{first}-{last}"),
        run => run.iter().map(usize::to_string).collect(),
    };
    runs.map(show).collect::<Vec<_>>().join(",")
}

/// What is wrong with an address that cannot be had, and what to do about it.
fn advice(address: SocketAddr, error: io::ErrorKind, flag: &str) -> Option<String> {
    let port = address.port();
    match error {
        io::ErrorKind::AddrInUse => Some(format!(
            "the address is in use; stop the program that has it, or choose another with {flag}"
        )),
        io::ErrorKind::AddrNotAvailable => Some(format!(
            "this machine has no address {}; choose another with {flag}",
            address.ip()
        )),
        io::ErrorKind::PermissionDenied => Some(format!(
            "port {port} needs the privilege CAP_NET_BIND_SERVICE; choose one above 1023 with \
             {flag}"
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_cannot_be_had_comes_with_advice() {
        let address = "127.0.0.1:80".parse().unwrap();
        for (error, words) in [
            (io::ErrorKind::AddrInUse, "the address is in use"),
            (io::ErrorKind::AddrNotAvailable, "this machine has no address 127.0.0.1"),
            (io::ErrorKind::PermissionDenied, "port 80 needs the privilege"),
        ] {
            assert!(advice(address, error, "--listen").unwrap().starts_with(words));
        }
        assert_eq!(advice(address, io::ErrorKind::OutOfMemory, "--listen"), None);
    }

    #[test]
    fn cores_are_shown_as_ranges() {
        assert_eq!(ranges(&[0, 1, 2, 3, 8, 10, 11]), "0-3,8,10-11");
        assert_eq!(ranges(&[5]), "5");
        assert_eq!(ranges(&[]), "");
    }
}
