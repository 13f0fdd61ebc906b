//! HTTP requests of a connection: the upgrade, two small pages, and refusals.

use std::time::{Duration, UNIX_EPOCH};

use super::State;
use super::connection::{Aside, HeadBuffer, Phase};
use super::identity::Identity;
use crate::config::reserved_by;
use crate::ids::{Moment, Token};
use crate::io::FrameClass;
use crate::metrics::Counter;
use crate::proto::Answer;
use crate::proto::http::{
    Plain, Refusal, Request, Upgrade, check_start, find_head_end, parse_request, plain_response,
    refusal_response, upgrade_response,
};

const INDEX_HTML: &str = include_str!("../web/index.html");

const TEXT: &str = "text/plain; charset=utf-8";

/// For whoever opens the address of a WebSocket as a page.
const UPGRADE_REQUIRED: &str = "This path is for WebSocket alone: connect to it with ws:// and not \
                                http://. A page about it is at /.\n";

/// A shard that has not turned for this long is stalled; a healthy one turns every second.
const STALLED_AFTER: Duration = Duration::from_secs(5);

/// When somebody turned away at the connection limit may try again.
const RETRY_AFTER: Duration = Duration::from_secs(5);

impl State {
    /// Takes requests off `bytes` until one upgrades the connection, which gets the rest, or ends it.
    pub(super) fn read_head(&mut self, token: Token, mut bytes: &mut [u8]) {
        while !bytes.is_empty() && self.phase(token) == Phase::Head {
            let Some((request, taken)) = self.next_request(token, bytes) else { return };
            bytes = &mut bytes[taken..];
            match request {
                Ok(Request::Upgrade(upgrade)) => self.upgrade(token, &upgrade),
                Ok(Request::Plain(plain)) => self.answer(token, &plain),
                Err(refusal) => self.refuse(token, &refusal),
            }
        }
        if matches!(self.phase(token), Phase::Open | Phase::Echo) && !bytes.is_empty() {
            self.read_frames(token, bytes);
        }
    }

    /// The next request, and how many of `bytes` belong to it. `None`: it is not complete, and what
    /// came of it is kept.
    fn next_request(
        &mut self,
        token: Token,
        bytes: &[u8],
    ) -> Option<(Result<Request, Refusal>, usize)> {
        let limits = self.head_limits;
        let connection = self.connection(token)?;
        let Some(head) = connection.head() else {
            // Nearly every head comes in one piece: no copy.
            let mut scanned = 0;
            if let Some(end) = find_head_end(bytes, &mut scanned) {
                return Some((parse_request(&bytes[..end], &limits), end));
            }
            if let Err(refusal) = check_start(bytes, &limits) {
                return Some((Err(refusal), bytes.len()));
            }
            let head = HeadBuffer { bytes: bytes.to_vec(), scanned };
            connection.aside = Some(Box::new(Aside::Head(head)));
            return None;
        };
        let before = head.bytes.len();
        // One byte over the limit tells that it was passed; the decoder of frames gets the rest.
        let room = (limits.bytes_max + 1).saturating_sub(before);
        let taken = bytes.len().min(room);
        if head.bytes.capacity() < before + taken {
            // Twice the bytes, but never more than a head may have.
            head.bytes.reserve_exact(before.max(taken).min(room));
        }
        head.bytes.extend_from_slice(&bytes[..taken]);
        if let Some(end) = find_head_end(&head.bytes, &mut head.scanned) {
            let request = parse_request(&head.bytes[..end], &limits);
            connection.aside = None;
            return Some((request, end - before));
        }
        let refusal = check_start(&head.bytes, &limits).err()?;
        Some((Err(refusal), bytes.len()))
    }

    fn upgrade(&mut self, token: Token, upgrade: &Upgrade) {
        let config = &self.settings.config;
        let is_echo = config.diagnostics.echo.as_deref() == Some(upgrade.path.as_str());
        if self.settings.metrics.connections() as usize > self.settings.connections_max {
            self.refuse(token, &Refusal::over_capacity(RETRY_AFTER));
            return;
        }
        if reserved_by(&upgrade.path).is_some() {
            self.refuse(token, &Refusal::reserved_path());
            return;
        }
        let user = match self.upgrading_user(token, upgrade, is_echo) {
            Ok(user) => user,
            Err(refusal) => {
                self.refuse(token, &refusal);
                return;
            }
        };
        let subprotocol = upgrade.subprotocol.filter(|_| !is_echo);
        self.count(Counter::Upgrades, 1);
        if let Some(connection) = self.connection(token) {
            connection.traffic.begin_messages();
        }
        self.queue_bytes(token, upgrade_response(upgrade, subprotocol), FrameClass::Http);
        self.enter(token, if is_echo { Phase::Echo } else { Phase::Open });
        if let Some(subprotocol) = subprotocol
            && let Some(connection) = self.connection(token)
        {
            connection.encoding = subprotocol.encoding();
        }
        if let Some(user) = user {
            self.become_user(token, user);
        }
        if subprotocol.is_some() {
            self.welcome(token);
        }
    }

    /// With a subprotocol the server speaks first.
    fn welcome(&mut self, token: Token) {
        let Some(&mut Identity { connection_id, session_id, .. }) = self.identity(token) else {
            return;
        };
        self.next_message_id += 1;
        let config = &self.settings.config;
        let welcome = Answer::Welcome {
            connection_id,
            session_id,
            message_id: self.next_message_id,
            heartbeat_ms: config.heartbeat.interval.as_millis() as u64,
            message_bytes_max: config.limits.max_message_size,
        };
        self.reply(token, &welcome);
    }

    fn answer(&mut self, token: Token, request: &Plain) {
        let (status, content_type, body) = match request.path.as_str() {
            "/" => (200, "text/html; charset=utf-8", INDEX_HTML.to_owned()),
            "/health" => self.health(),
            path if reserved_by(path).is_some() => (404, TEXT, "not found\n".to_owned()),
            // Every other path is a WebSocket's, and nothing else.
            _ => (426, TEXT, UPGRADE_REQUIRED.to_owned()),
        };
        // RFC 9110, 15.5.22: MUST send Upgrade, to indicate the required protocol.
        let upgrade = [("Upgrade", "websocket")];
        let extra = if status == 426 { &upgrade[..] } else { &[] };
        if status == 200 {
            self.count(Counter::HttpRequests, 1);
        }
        // Whoever asks without reading the answers is not kept for more.
        let queue_max = self.settings.config.limits.send_queue_size / 2;
        let queued = self.connection(token).map_or(0, |connection| connection.queue.bytes());
        let keep_alive = request.keep_alive && queued <= queue_max && !self.shutdown.has_begun();
        let body = body.as_bytes();
        let response = plain_response(
            status,
            content_type,
            body,
            keep_alive,
            request.head_only,
            &self.date(),
            extra,
        );
        self.queue_bytes(token, response, FrameClass::Http);
        // Kept alive, the time for the next request begins now.
        self.enter(token, if keep_alive { Phase::Head } else { Phase::Draining });
    }

    /// 200 only while every shard turns; a stalled one is named.
    fn health(&self) -> (u16, &'static str, String) {
        let shards = self.settings.metrics.shards();
        let stalled: Vec<_> = shards
            .iter()
            .enumerate()
            .filter(|(_, metrics)| {
                let last = metrics.last_turn().map_or(self.now, Moment);
                self.now.since(last) > STALLED_AFTER
            })
            .map(|(index, _)| index.to_string())
            .collect();
        let (status, word) = if stalled.is_empty() { (200, "ok") } else { (503, "stalled") };
        let body = format!(
            "{{\"status\":\"{word}\",\"shards\":{},\"stalled\":[{}]}}\n",
            shards.len(),
            stalled.join(",")
        );
        (status, "application/json", body)
    }

    /// Now, as HTTP writes it.
    fn date(&self) -> String {
        let unix_time = Duration::from_millis(self.settings.unix_start + self.now.0);
        httpdate::fmt_http_date(UNIX_EPOCH + unix_time)
    }

    pub(super) fn refuse(&mut self, token: Token, refusal: &Refusal) {
        self.count(Counter::named(refusal.reason).unwrap_or(Counter::BadRequest), 1);
        self.note(token, refusal.reason, &refusal.text);
        self.queue_bytes(token, refusal_response(refusal, &self.date()), FrameClass::Http);
        self.enter(token, Phase::Draining);
    }
}
