//! Sizes, durations, addresses and paths as people write them, and back. The errors are half
//! sentences: the caller names the key and what it expects.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::SyncMode;
use crate::filter::is_attribute_name;
use crate::schema::SchemaSource;

/// Bytes in one of each unit, in the order of the help texts. KB is 1000, KiB is 1024.
const SIZE_UNITS: [(&str, u64); 7] = [
    ("B", 1),
    ("KB", 1000),
    ("KiB", 1 << 10),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
];

/// Milliseconds in one of each unit, largest first.
const TIME_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// Paths that belong to the server itself; `*` stands for any rest.
const RESERVED_PATHS: [&str; 8] = [
    "/health",
    "/metrics",
    "/client.js",
    "/api/*",
    "/admin*",
    "/demo/*",
    "/connection/websocket",
    "/app/*",
];

/// `65536`, `64KiB` or `64kb`: bytes.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let (number, unit) = split_number(text)?;
    if unit.is_empty() {
        return Ok(number);
    }
    let (_, bytes) = SIZE_UNITS
        .into_iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(unit))
        .ok_or_else(|| format!("`{unit}` is not a unit of size (B, KB, KiB, MB, MiB, GB, GiB)"))?;
    number.checked_mul(bytes).ok_or_else(|| "too large".to_string())
}

/// In the largest binary unit that divides it.
pub fn show_size(bytes: u64) -> String {
    for (unit, size) in [("GiB", 1u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes > 0 && bytes.is_multiple_of(size) {
            return format!("{}{unit}", bytes / size);
        }
    }
    bytes.to_string()
}

/// `25s`, `500ms`, `1m30s`, `2h` or `0`. Other numbers need a unit.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    if text.trim() == "0" {
        return Ok(Duration::ZERO);
    }
    let mut milliseconds = 0u64;
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (number, tail) = split_number(rest)?;
        let length = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let unit = tail[..length].trim_end();
        if unit.is_empty() {
            return Err(format!(
                "`{number}` has no unit: write `{number}s` for seconds or `{number}ms` for \
                 milliseconds"
            ));
        }
        let (_, factor) = TIME_UNITS
            .into_iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(|| format!("`{unit}` is not a unit of time (ms, s, m, h, d)"))?;
        milliseconds = number
            .checked_mul(factor)
            .and_then(|part| milliseconds.checked_add(part))
            .ok_or_else(|| "too long".to_string())?;
        rest = &tail[length..];
    }
    if text.trim().is_empty() {
        return Err("empty".to_string());
    }
    Ok(Duration::from_millis(milliseconds))
}

/// `1m30s`; whole milliseconds.
pub fn show_duration(duration: Duration) -> String {
    let mut rest = duration.as_millis() as u64;
    let mut text = String::new();
    for (unit, size) in TIME_UNITS {
        if rest >= size {
            text.push_str(&format!("{}{unit}", rest / size));
            rest %= size;
        }
    }
    if text.is_empty() { "0".to_string() } else { text }
}

/// A folder or a file, or `None` for the empty text. Whether there is one, nobody looks.
pub fn parse_directory(text: &str) -> Result<Option<PathBuf>, String> {
    if text.contains(char::is_control) {
        return Err("control characters cannot stand in it".to_string());
    }
    Ok((!text.is_empty()).then(|| PathBuf::from(text)))
}

/// A text of one line as it is written in TOML, as a value or a key.
pub fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// A folder or a file as it is written.
pub fn show_path(path: Option<&Path>) -> String {
    quoted(&path.map(|path| path.display().to_string()).unwrap_or_default())
}

/// A schema, or `None` for the empty text.
pub fn parse_schema(text: &str) -> Result<Option<SchemaSource>, String> {
    match text {
        SchemaSource::ENVELOPE => Ok(Some(SchemaSource::Envelope)),
        _ => Ok(parse_directory(text)?.map(SchemaSource::File)),
    }
}

pub fn show_schema(schema: Option<&SchemaSource>) -> String {
    match schema {
        Some(SchemaSource::Envelope) => format!("\"{}\"", SchemaSource::ENVELOPE),
        Some(SchemaSource::File(path)) => show_path(Some(path)),
        None => show_path(None),
    }
}

/// Attributes of a user that others are shown.
pub const SHOWN_ATTRIBUTES_MAX: usize = 8;

/// Names of attributes with commas between them, none for the empty text.
pub fn parse_attributes(text: &str) -> Result<Vec<Box<str>>, String> {
    let names: Vec<Box<str>> =
        text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(Into::into).collect();
    if let Some(wrong) = names.iter().find(|name| !is_attribute_name(name)) {
        return Err(format!("`{}` is no name of an attribute", wrong.escape_debug()));
    }
    if names.len() > SHOWN_ATTRIBUTES_MAX {
        return Err(format!("more than {SHOWN_ATTRIBUTES_MAX}"));
    }
    Ok(names)
}

/// `always`, `os` or `interval 5ms`.
pub fn parse_sync(text: &str) -> Result<SyncMode, String> {
    let (mode, interval) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
    match (mode, interval) {
        ("always", "") => Ok(SyncMode::Always),
        ("os", "") => Ok(SyncMode::Os),
        ("interval", "") => Err("the time is missing".to_string()),
        ("interval", interval) => {
            let interval = parse_duration(interval)?;
            let range = Duration::from_millis(1)..=Duration::from_secs(1);
            if range.contains(&interval) {
                Ok(SyncMode::Interval(interval))
            } else {
                Err("out of range".to_string())
            }
        }
        _ => Err("unknown".to_string()),
    }
}

/// As [`parse_sync`] reads it.
pub fn show_sync(sync: SyncMode) -> String {
    match sync {
        SyncMode::Always => "always".to_string(),
        SyncMode::Interval(interval) => format!("interval {}", show_duration(interval)),
        SyncMode::Os => "os".to_string(),
    }
}

/// `0.0.0.0:9000`, `[::1]:9000`, `localhost:9000`, or a port of 127.0.0.1: `:9000`, `9000`.
pub fn parse_address(text: &str) -> Result<SocketAddr, String> {
    let text = text.trim();
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if let Some((scheme, _)) = text.split_once("://") {
        return Err(format!("an address has no `{scheme}://`"));
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return Err(format!("the port is missing: write [{text}]:8080"));
    }
    let is_port = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // What is whole and good, IPv6 in brackets too, was taken above.
    let (host, port) = match text.rsplit_once(':') {
        None if is_port => ("", text),
        None if text.is_empty() => return Err("empty".to_string()),
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => (text, ""),
    };
    let ip = match host {
        "" | "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        "*" => return Err("`*` is no IP address: all addresses are 0.0.0.0".to_string()),
        host => {
            let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
            let ip = match bare {
                Some(bare) => bare.parse().map(IpAddr::V6),
                None => host.parse().map(IpAddr::V4),
            };
            ip.map_err(|_| format!("`{}` is not an IP address", host.escape_debug()))?
        }
    };
    if port.is_empty() {
        return Err("the port is missing".to_string());
    }
    if !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("`{}` is not a port", port.escape_debug()));
    }
    let port = port.parse().map_err(|_| format!("port {port} is above 65535"))?;
    Ok(SocketAddr::new(ip, port))
}

/// The path of an endpoint of ours, or `None` for the empty text.
pub fn parse_path(text: &str) -> Result<Option<String>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    if !text.starts_with('/') {
        return Err("the path does not start with `/`".to_string());
    }
    if let Some(bad) = text.chars().find(|c| !c.is_ascii_graphic() || "?#%\"".contains(*c)) {
        return Err(format!("`{}` cannot stand in a path", bad.escape_debug()));
    }
    if let Some(reserved) = reserved_by(text) {
        return Err(format!("`{reserved}` belongs to the server"));
    }
    Ok(Some(text.to_string()))
}

/// What of the server's own a decoded path falls under: no client may use it for its WebSocket.
pub fn reserved_by(path: &str) -> Option<&'static str> {
    RESERVED_PATHS.into_iter().find(|reserved| match reserved.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix) || Some(path) == prefix.strip_suffix('/'),
        None => path == *reserved,
    })
}

/// `64 KiB` → 64 and `KiB`.
fn split_number(text: &str) -> Result<(u64, &str), String> {
    let text = text.trim();
    let length = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(length);
    if digits.is_empty() {
        return Err(if text.is_empty() {
            "empty".to_string()
        } else {
            "it does not start with a number".to_string()
        });
    }
    if rest.starts_with('.') {
        return Err("fractions are not understood: use a smaller unit".to_string());
    }
    let number = digits.parse().map_err(|_| format!("{digits} is too large"))?;
    Ok((number, rest.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_units() {
        for (text, bytes) in [
            ("0", 0),
            ("65536", 65536),
            ("64KiB", 65536),
            ("64kib", 65536),
            ("64KB", 64000),
            ("64kb", 64000),
            ("64 KiB", 65536),
            (" 10b ", 10),
            ("1MB", 1_000_000),
            ("1MiB", 1 << 20),
            ("2GiB", 2 << 30),
            ("2GB", 2_000_000_000),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for (text, reason) in [
            ("", "empty"),
            ("KiB", "does not start with a number"),
            ("-1", "does not start with a number"),
            ("64Q", "`Q` is not a unit"),
            ("64K", "`K` is not a unit"),
            ("1.5MiB", "fractions"),
            ("99999999999999999999", "too large"),
            ("99999999999GiB", "too large"),
        ] {
            let error = parse_size(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn durations_need_a_unit() {
        for (text, milliseconds) in [
            ("0", 0),
            ("0s", 0),
            ("25s", 25_000),
            ("500ms", 500),
            ("1m30s", 90_000),
            ("1m 30s", 90_000),
            ("2h", 7_200_000),
            ("1d", 86_400_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for (text, reason) in [
            ("", "empty"),
            ("25", "write `25s`"),
            ("1m30", "`30` has no unit"),
            ("s", "does not start with a number"),
            ("1.5s", "fractions"),
            ("3 weeks", "`weeks` is not a unit"),
            ("99999999999999999d", "too long"),
        ] {
            let error = parse_duration(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_shown_reads_back_the_same() {
        for bytes in [0, 1, 1000, 1024, 1536, 65536, 1_000_000, 1 << 20, 1 << 30, u64::MAX] {
            assert_eq!(parse_size(&show_size(bytes)), Ok(bytes));
        }
        for milliseconds in [0, 1, 999, 1000, 1001, 25_000, 90_000, 3_600_001, 86_400_000] {
            let duration = Duration::from_millis(milliseconds);
            assert_eq!(parse_duration(&show_duration(duration)), Ok(duration));
        }
        assert_eq!(show_size(65536), "64KiB");
        assert_eq!(show_duration(Duration::from_secs(90)), "1m30s");
    }

    #[test]
    fn syncs_are_always_never_or_at_intervals() {
        for (text, sync) in [
            ("always", SyncMode::Always),
            ("os", SyncMode::Os),
            ("interval 5ms", SyncMode::Interval(Duration::from_millis(5))),
            (" interval  1s ", SyncMode::Interval(Duration::from_secs(1))),
        ] {
            assert_eq!(parse_sync(text), Ok(sync), "{text}");
            assert_eq!(parse_sync(&show_sync(sync)), Ok(sync));
        }
        for (text, reason) in [
            ("", "unknown"),
            ("never", "unknown"),
            ("always 5ms", "unknown"),
            ("interval", "the time is missing"),
            ("interval 5", "write `5s`"),
            ("interval 0", "out of range"),
            ("interval 2s", "out of range"),
        ] {
            let error = parse_sync(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn a_directory_is_any_text_on_one_line() {
        assert_eq!(parse_directory(""), Ok(None));
        assert_eq!(parse_directory("/a b/\"c\""), Ok(Some(PathBuf::from("/a b/\"c\""))));
        assert!(parse_directory("a\nb").unwrap_err().contains("control characters"));
    }

    #[test]
    fn addresses_may_be_short() {
        for (text, address) in [
            ("0.0.0.0:9000", "0.0.0.0:9000"),
            ("[::1]:9000", "[::1]:9000"),
            (":9000", "127.0.0.1:9000"),
            ("9000", "127.0.0.1:9000"),
            ("localhost:0", "127.0.0.1:0"),
        ] {
            assert_eq!(parse_address(text), Ok(address.parse().unwrap()), "{text}");
        }
        for (text, reason) in [
            ("", "empty"),
            (":", "the port is missing"),
            ("127.0.0.1", "the port is missing"),
            ("localhost", "the port is missing"),
            ("[::1]", "the port is missing"),
            ("::1", "the port is missing: write [::1]:8080"),
            ("70000", "port 70000 is above 65535"),
            ("127.0.0.1:80000", "port 80000 is above 65535"),
            ("localhost:80000", "port 80000 is above 65535"),
            ("[::1]:80000", "port 80000 is above 65535"),
            ("1:2:3:4:5:6:7:8:80", "`1:2:3:4:5:6:7:8` is not an IP address"),
            ("127.0.0.1:-1", "`-1` is not a port"),
            ("127.0.0.1:+1", "`+1` is not a port"),
            ("127.0.0.1:http", "`http` is not a port"),
            ("127.0.0.300:80", "`127.0.0.300` is not an IP address"),
            ("*:80", "all addresses are 0.0.0.0"),
            ("http://127.0.0.1:80", "an address has no `http://`"),
            ("example.org:80", "`example.org` is not an IP address"),
        ] {
            let error = parse_address(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn reserved_paths_are_refused() {
        assert_eq!(parse_path(""), Ok(None));
        assert_eq!(parse_path("/echo"), Ok(Some("/echo".to_string())));
        assert_eq!(parse_path("/health/x"), Ok(Some("/health/x".to_string())));
        assert_eq!(parse_path("/apis"), Ok(Some("/apis".to_string())));
        for path in
            ["/health", "/api", "/api/", "/api/x", "/admin", "/admins", "/app/key", "/client.js"]
        {
            assert!(parse_path(path).unwrap_err().contains("belongs to the server"), "{path}");
        }
        assert!(parse_path("echo").unwrap_err().contains("start with `/`"));
        assert!(parse_path("/a b").unwrap_err().contains("cannot stand"));
        assert!(parse_path("/a?b").unwrap_err().contains("`?`"));
    }

    #[test]
    fn reserved_paths_are_those_of_the_server() {
        for path in [
            "/health",
            "/metrics",
            "/client.js",
            "/api",
            "/api/x",
            "/admin",
            "/admin/x",
            "/demo/",
            "/app/k",
            "/connection/websocket",
        ] {
            assert!(reserved_by(path).is_some(), "{path}");
        }
        for path in ["/", "/ws", "/healthy", "/apix", "/application", "/connection", "/x/api"] {
            assert!(reserved_by(path).is_none(), "{path}");
        }
    }
}
