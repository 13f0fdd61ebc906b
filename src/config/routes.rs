//! Where messages of clients go by their type, `[routes]`, and how webhooks are called, `[webhooks]`.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hyper::Uri;

use super::Secret;
use crate::ids::{TYPE_NAME_BYTES_MAX, TargetId};

/// The route of types without one of their own.
pub const DEFAULT_ROUTE: &str = "default";

/// Types that go to a channel unless it is said otherwise; no other can.
const CHANNEL_TYPES: [&str; 4] = ["text", "image", "file", "event"];

/// Types that the server itself answers or says.
const BUILT_IN_TYPES: [&str; 13] = [
    "ping",
    "pong",
    "auth",
    "ack",
    "restore_session",
    "end_session",
    "session_restored",
    "response",
    "error",
    "welcome",
    "migrate",
    "subscribe",
    "publish",
];

/// Routes of one server.
const ROUTES_MAX: usize = 1000;

/// Longest URL of a webhook, in bytes.
const URL_BYTES_MAX: usize = 2048;

/// What may be written for a route.
const EXPECTED: &str =
    "\"webhook:https://HOST:PORT/PATH\", or for text, image, file and event \"channel\"";

/// Where messages of a type go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// To the subscribers of the channel that the message names.
    Channel,
    /// It is a URL with `http` or `https`, and a host.
    Webhook(Uri),
    /// To a function of the program that the server is a part of.
    Handler,
}

/// `[routes]`: what was said of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Routes(BTreeMap<Box<str>, Destination>);

/// `[webhooks]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhooks {
    /// From a request to its whole response. Default 5 s.
    pub timeout: Duration,
    /// How often a batch is sent again that was not taken. Default 3.
    pub retries: u32,
    /// Messages that wait for one target, those on their way included. Default 10,000.
    pub queue_size: usize,
    /// Messages in one request. Default 10.
    pub batch_size: usize,
    /// How long a message waits for others to share its request. Default 50 ms.
    pub batch_timeout: Duration,
    /// What requests are signed with. `None` (written empty): they are not.
    pub secret: Option<Secret>,
}

/// Where a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    Channel,
    Target(TargetId),
}

/// The routes as they are looked up.
#[derive(Debug, Default)]
pub struct RouteTable {
    by_type: BTreeMap<Box<str>, Route>,
    /// Each once, with the first of the types that lead there.
    targets: Vec<(Box<str>, Destination)>,
}

impl Routes {
    /// What was written for a type, or for `default`.
    ///
    /// # Errors
    ///
    /// Half a sentence: what is wrong with it.
    pub fn set(&mut self, kind: &str, text: &str) -> Result<(), String> {
        let destination = match text.split_once(':') {
            None if text == "channel" && CHANNEL_TYPES.contains(&kind) => Destination::Channel,
            None if text == "channel" => {
                return Err(format!(
                    "only text, image, file and event say which channel they go to; expected \
                     {EXPECTED}"
                ));
            }
            Some(("webhook", url)) => Destination::Webhook(parse_url(url)?),
            _ => return Err(format!("unknown; expected {EXPECTED}")),
        };
        self.insert(kind, destination)
    }

    /// # Errors
    ///
    /// As [`Routes::set`].
    pub fn insert(&mut self, kind: &str, destination: Destination) -> Result<(), String> {
        check_type(kind)?;
        if self.0.len() >= ROUTES_MAX && !self.0.contains_key(kind) {
            return Err(format!("there are {ROUTES_MAX} routes already"));
        }
        self.0.insert(kind.into(), destination);
        Ok(())
    }

    /// In the order of the types.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Destination)> {
        self.0.iter().map(|(kind, destination)| (&**kind, destination))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl RouteTable {
    pub fn new(routes: &Routes) -> Self {
        let mut table = Self::default();
        for kind in CHANNEL_TYPES {
            table.by_type.insert(kind.into(), Route::Channel);
        }
        for (kind, destination) in routes.iter() {
            let route = match destination {
                Destination::Channel => Route::Channel,
                Destination::Webhook(_) | Destination::Handler => table.target(kind, destination),
            };
            table.by_type.insert(kind.into(), route);
        }
        table
    }

    fn target(&mut self, kind: &str, destination: &Destination) -> Route {
        let is_same = |(_, known): &(Box<str>, Destination)| {
            // Two handlers are two functions.
            known == destination && *known != Destination::Handler
        };
        let place = self.targets.iter().position(is_same).unwrap_or_else(|| {
            self.targets.push((kind.into(), destination.clone()));
            self.targets.len() - 1
        });
        // There are ROUTES_MAX at most.
        Route::Target(TargetId(place as u16))
    }

    /// Where messages of this type go; `None`: nowhere.
    pub fn find(&self, kind: &str) -> Option<Route> {
        // The type `default` has no route of its own.
        let own = self.by_type.get(kind).filter(|_| kind != DEFAULT_ROUTE);
        own.or_else(|| self.by_type.get(DEFAULT_ROUTE)).copied()
    }

    /// By their number, each with one of the types that lead there.
    pub fn targets(&self) -> impl ExactSizeIterator<Item = (&str, &Destination)> {
        self.targets.iter().map(|(kind, destination)| (&**kind, destination))
    }
}

/// As it is written in the file.
impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Channel => f.write_str("channel"),
            Self::Webhook(url) => write!(f, "webhook:{url}"),
            Self::Handler => f.write_str("handler"),
        }
    }
}

impl Default for Webhooks {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(5),
            retries: 3,
            queue_size: 10_000,
            batch_size: 10,
            batch_timeout: Duration::from_millis(50),
            secret: None,
        }
    }
}

/// Whether messages of clients can have this type, and are not all the server's own business.
pub(super) fn check_type(kind: &str) -> Result<(), String> {
    if !(1..=TYPE_NAME_BYTES_MAX).contains(&kind.len()) {
        return Err(format!("a type has 1 to {TYPE_NAME_BYTES_MAX} bytes"));
    }
    if kind.contains(char::is_control) {
        return Err("control characters cannot stand in a type here".to_string());
    }
    if BUILT_IN_TYPES.contains(&kind) {
        return Err("messages of this type are the server's own business".to_string());
    }
    Ok(())
}

fn parse_url(text: &str) -> Result<Uri, String> {
    if text.len() > URL_BYTES_MAX {
        return Err(format!("the URL has {} bytes, more than {URL_BYTES_MAX}", text.len()));
    }
    // What TOML would escape.
    if !text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"\\#".contains(&byte)) {
        return Err("a character cannot stand in the URL of a webhook".to_string());
    }
    let url: Uri = text.parse().map_err(|error| format!("no URL: {error}"))?;
    match url.scheme_str() {
        Some("http" | "https") => {}
        _ => return Err("the URL does not begin with http:// or https://".to_string()),
    }
    if url.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("a user and a password cannot stand in the URL; requests are signed with \
                    webhooks.secret"
            .to_string());
    }
    if url.host().is_none_or(str::is_empty) {
        return Err("the URL has no host".to_string());
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(routes: &[(&str, &str)]) -> RouteTable {
        let mut written = Routes::default();
        for (kind, text) in routes {
            written.set(kind, text).unwrap();
        }
        RouteTable::new(&written)
    }

    #[test]
    fn without_routes_chats_and_events_go_to_channels_and_nothing_else_goes_anywhere() {
        let table = table(&[]);
        for kind in CHANNEL_TYPES {
            assert_eq!(table.find(kind), Some(Route::Channel));
        }
        for kind in ["command", "query", "dance", "default", ""] {
            assert_eq!(table.find(kind), None, "{kind}");
        }
        assert_eq!(table.targets().len(), 0);
    }

    #[test]
    fn the_default_is_for_types_without_a_route_of_their_own() {
        let table = table(&[
            ("default", "webhook:http://a/"),
            ("text", "webhook:http://b/x?y=z"),
            ("image", "channel"),
            ("order.created", "webhook:http://a"),
        ]);
        let [a, b] = [0, 1].map(|number| Some(Route::Target(TargetId(number))));
        for (kind, route) in [
            ("text", b),
            ("image", Some(Route::Channel)),
            ("event", Some(Route::Channel)),
            ("order.created", a),
            ("dance", a),
            ("query", a),
            ("default", a),
        ] {
            assert_eq!(table.find(kind), route, "{kind}");
        }
        let targets: Vec<_> = table.targets().map(|(_, target)| target.to_string()).collect();
        assert_eq!(targets, ["webhook:http://a/", "webhook:http://b/x?y=z"]);
    }

    #[test]
    fn every_handler_is_a_target_of_its_own() {
        let mut routes = Routes::default();
        for kind in ["a", "b"] {
            routes.insert(kind, Destination::Handler).unwrap();
        }
        let table = RouteTable::new(&routes);
        let kinds: Vec<_> = table.targets().map(|(kind, _)| kind.to_string()).collect();
        assert_eq!(kinds, ["a", "b"]);
        assert_ne!(table.find("a"), table.find("b"));
    }

    #[test]
    fn what_cannot_be_a_route_is_refused_with_a_reason() {
        let long = format!("webhook:http://a/{}", "x".repeat(URL_BYTES_MAX));
        for (kind, text, reason) in [
            ("dance", "channel", "only text, image, file and event say which channel"),
            ("default", "channel", "only text, image, file and event say which channel"),
            ("text", "http://a", "unknown; expected"),
            ("text", "handler", "unknown; expected"),
            ("text", "webhook:a", "the URL does not begin with http://"),
            ("text", "webhook:/a", "the URL does not begin with http://"),
            ("text", "webhook:ftp://a", "the URL does not begin with http://"),
            ("text", "webhook:http://a:b@c/", "a user and a password cannot stand"),
            ("text", "webhook:http://:80/", "no"),
            ("text", "webhook:", "no URL"),
            ("text", "webhook:http://a/\"", "a character cannot stand"),
            ("text", &long, "more than 2048"),
            ("ping", "webhook:http://a", "the server's own business"),
            ("", "webhook:http://a", "a type has 1 to 64 bytes"),
            ("a\n", "webhook:http://a", "control characters"),
        ] {
            let error = Routes::default().set(kind, text).unwrap_err();
            assert!(error.contains(reason), "{kind} {text}: {error}");
        }
    }
}
