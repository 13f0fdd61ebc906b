//! The commands as a person at a terminal meets them: what they print, where, and how they end.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStderr, ChildStdout, Command, Output, Stdio};

use rustix::process::Signal;

use crate::support::*;

#[track_caller]
fn expect(output: &Output, code: i32, stdout: &str, stderr: &str) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(text(&output.stdout), stdout, "{output:?}");
    assert_eq!(text(&output.stderr), stderr, "{output:?}");
    assert_eq!(output.status.code(), Some(code), "{output:?}");
}

/// `stentor subscribe`, which goes on.
struct Subscriber {
    child: Child,
    stdout: BufReader<ChildStdout>,
    stderr: BufReader<ChildStderr>,
}

impl Subscriber {
    /// Waits until it is subscribed to `channels`.
    fn start(server: &Server, channels: &[&str], flags: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_stentor"))
            .args(["subscribe", "--url", &server.url()])
            .args(flags)
            .args(channels)
            .env_clear()
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let stderr = BufReader::new(child.stderr.take().expect("it is piped"));
        let mut subscriber = Self { child, stdout, stderr };
        let without_place = |line: String| match line.split_once(" at ") {
            Some((begin, _)) => format!("{begin}\n"),
            None => line,
        };
        let mut confirmed: Vec<_> =
            channels.iter().map(|_| without_place(subscriber.error_line())).collect();
        let mut wanted: Vec<_> =
            channels.iter().map(|channel| format!("subscribed to {channel}\n")).collect();
        confirmed.sort();
        wanted.sort();
        assert_eq!(confirmed, wanted);
        subscriber
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("text");
        line
    }

    fn error_line(&mut self) -> String {
        let mut line = String::new();
        self.stderr.read_line(&mut line).expect("text");
        line
    }

    #[track_caller]
    fn expect_exit(&mut self, code: i32) {
        let mut status = None;
        wait_until("it ends", || {
            status = self.child.try_wait().expect("it is our child");
            status.is_some()
        });
        assert_eq!(status.and_then(|status| status.code()), Some(code));
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn publish(server: &Server, channel: &str, data: &str) -> Output {
    run(&["publish", channel, data, "--url", &server.url()])
}

// Subscribe and publish.

#[test]
fn a_publication_from_one_terminal_is_printed_in_the_other() {
    let server = Server::start(&[]);
    let mut subscriber = Subscriber::start(&server, &["news"], &["--count", "3"]);
    for (data, line) in [
        (r#"{"title": "hello",  "n":1.0}"#, "{\"title\": \"hello\",  \"n\":1.0}\n"),
        ("Hello, everybody", "\"Hello, everybody\"\n"),
        ("42", "42\n"),
    ] {
        expect(&publish(&server, "news", data), 0, "", "");
        assert_eq!(subscriber.line(), line);
    }
    // It asked for three.
    subscriber.expect_exit(0);
    server.wait_for_connections(0);
}

#[test]
fn several_channels_are_told_apart() {
    let server = Server::start(&[]);
    let mut subscriber = Subscriber::start(&server, &["chat:lobby", "news"], &["--count", "2"]);
    expect(&publish(&server, "news", "1"), 0, "", "");
    assert_eq!(subscriber.line(), "news\t1\n");
    expect(&publish(&server, "chat:lobby", "[2]"), 0, "", "");
    assert_eq!(subscriber.line(), "chat:lobby\t[2]\n");
    subscriber.expect_exit(0);
}

#[test]
fn json_prints_the_whole_message() {
    let server = Server::start(&[]);
    let mut subscriber = Subscriber::start(&server, &["news"], &["--json", "--count", "1"]);
    expect(&publish(&server, "news", "1"), 0, "", "");
    assert_eq!(subscriber.line(), "{\"channel\":\"news\",\"data\":1}\n");
    subscriber.expect_exit(0);
}

#[test]
fn lines_of_stdin_are_published_one_by_one() {
    let server = Server::start(&[]);
    let mut subscriber = Subscriber::start(&server, &["log"], &["--count", "3"]);
    let input = "first line\n\n{\"a\":1}\n  \n\"last\"";
    let output = run_with(&["publish", "log", "-", "--url", &server.url()], &[], input);
    expect(&output, 0, "", "");
    for line in ["\"first line\"\n", "{\"a\":1}\n", "\"last\"\n"] {
        assert_eq!(subscriber.line(), line);
    }
}

#[test]
fn a_bad_line_of_stdin_is_reported_and_the_others_are_published() {
    let server = Server::start(&[]);
    let mut subscriber = Subscriber::start(&server, &["log"], &["--count", "2"]);
    let publish = ["publish", "log", "-", "--url", &server.url()];
    let output = run_with(&publish, &[], "{\"a\":\n1\n\n[\n2\n");
    let words = "DATA starts like JSON, but is not; to send it as text, write it as a JSON string";
    let errors = format!(
        "stdin, line 1: {words}\nstdin, line 4: {words}\nerror: 2 lines were not published\n"
    );
    expect(&output, 1, "", &errors);
    assert_eq!((subscriber.line(), subscriber.line()), ("1\n".into(), "2\n".into()));
    subscriber.expect_exit(0);
    // What the server refuses is such a line, too.
    let publish = ["publish", "system", "-", "--url", &server.url()];
    let errors = "stdin, line 2: the channel `system` is reserved (channel_reserved)\n\
                  error: 1 line was not published\n";
    expect(&run_with(&publish, &[], "\n1\n"), 1, "", errors);
    // And what is too long for it, though that ends the connection.
    let server = Server::start(&["--max-message-size", "1KiB"]);
    let mut subscriber = Subscriber::start(&server, &["log"], &["--count", "2"]);
    let publish = ["publish", "log", "-", "--url", &server.url()];
    let output = run_with(&publish, &[], &format!("1\n{}\n2\n", "x".repeat(5000)));
    let errors = "stdin, line 2: closed by the server: 1009 too_big: the message has more bytes than its \
                  `limits.max_message_size`\nerror: 1 line was not published\n";
    expect(&output, 1, "", errors);
    assert_eq!((subscriber.line(), subscriber.line()), ("1\n".into(), "2\n".into()));
    subscriber.expect_exit(0);
}

#[test]
fn what_looks_like_json_and_is_not_is_refused() {
    let server = Server::start(&[]);
    let output = publish(&server, "news", r#"{"a": 1,}"#);
    let words = "error: DATA starts like JSON, but is not; to send it as text, write it as a JSON \
                 string\n";
    expect(&output, 1, "", words);
    assert_eq!(server.counter("publications"), 0);
}

#[test]
fn a_refusal_of_the_server_is_shown() {
    let server = Server::start(&[]);
    let refused = "the channel `system` is reserved (channel_reserved)\n";
    expect(&publish(&server, "system", "1"), 1, "", &format!("error: {refused}"));
    let output = run(&["subscribe", "system", "--url", &server.url()]);
    let words = format!("error: cannot subscribe to system: {refused}");
    expect(&output, 1, "", &words);
    let output = run(&["subscribe", "", "--url", &server.url()]);
    let words = "error: cannot subscribe to \"\": a channel name needs at least one character \
                 (channel_invalid)\n";
    expect(&output, 1, "", words);
}

#[test]
fn without_a_server_it_says_how_to_start_one() {
    // A port that was free a moment ago.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("ws://{}", listener.local_addr().expect("it is bound"));
    drop(listener);
    let words = format!(
        "error: cannot connect to {url}: connection refused; is the server running? start it \
         with: stentor serve\n"
    );
    expect(&run(&["publish", "news", "1", "--url", &url]), 1, "", &words);
    expect(&run(&["subscribe", "news", "--url", &url]), 1, "", &words);
}

#[test]
fn a_wrong_address_is_explained() {
    let server = Server::start(&[]);
    for (url, words) in [
        ("http://127.0.0.1:1", "`http://` is not WebSocket"),
        ("127.0.0.1:8080", "write it like ws://127.0.0.1:8080"),
        ("wss://127.0.0.1:1", "TLS (wss://) is not supported"),
        (
            &format!("{}/health", server.url()),
            "does not speak WebSocket: it answered with HTTP status 404",
        ),
    ] {
        let output = run(&["publish", "news", "1", "--url", url]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{url}");
        assert!(text.starts_with("error: ") && text.contains(words), "{url}: {text}");
    }
}

#[test]
fn a_server_that_leaves_is_told_and_is_an_error() {
    let server = Server::start(&[]);
    let mut subscriber = Subscriber::start(&server, &["news"], &[]);
    server.signal(Signal::TERM);
    assert_eq!(subscriber.error_line(), "error: closed by the server: 1001 shutdown\n");
    subscriber.expect_exit(1);
}

#[test]
fn a_subscriber_answers_heartbeats_while_nothing_comes() {
    let server = Server::start(&["--heartbeat", "200ms"]);
    let mut subscriber = Subscriber::start(&server, &["news"], &["--count", "1"]);
    server.wait_for_counter("heartbeats_sent", 8);
    expect(&publish(&server, "news", "1"), 0, "", "");
    assert_eq!(subscriber.line(), "1\n");
    subscriber.expect_exit(0);
    assert_eq!(server.counter("no_heartbeat"), 0);
}

// Check and config.

#[test]
fn check_says_what_is_wrong_and_where() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("stentor.toml");
    let path = file.to_str().expect("text");
    fs::write(&file, "[server]\nlisten = \"127.0.0.1:9000\"\n").expect("it is ours");
    expect(&run(&["check", path]), 0, &format!("{path}: ok\n"), "");

    let text =
        "[server]\nlisten = \"nowhere\"\nshard = 2\n\n[limit]\n\n[heartbeat]\ninterval = 25\n";
    fs::write(&file, text).expect("it is ours");
    let output = run(&["check", path]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 4, "{text}");
    for (line, place, words) in [
        (lines[0], ":2:10: ", "server.listen = \"nowhere\": `nowhere` is not an IP address"),
        (
            lines[1],
            ":3:1: ",
            "unknown key `server.shard`; the nearest valid key is `server.shards`",
        ),
        (lines[2], ":5:2: ", "unknown section [limit]; the nearest valid section is [limits]"),
        (lines[3], ":8:12: ", "heartbeat.interval = 25: `25` has no unit"),
    ] {
        assert!(line.starts_with(&format!("{path}{place}{words}")), "{line}");
    }

    fs::write(&file, "[server\n").expect("it is ours");
    let output = run(&["check", path]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with(&format!("{path}:1:")));

    let output = run(&["check", "/does/not/exist.toml"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.starts_with("error: cannot read the configuration file"), "{text}");
}

#[test]
fn config_prints_what_holds_and_where_it_comes_from() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("stentor.toml");
    let path = file.to_str().expect("text");
    fs::write(&file, "[limits]\nmax_topics = 7\n").expect("it is ours");
    let arguments = ["config", "--config", path, "--shards", "3", "--set", "limits.max_errors=9"];
    let output = run_with(&arguments, &[("PORT", "9000"), ("STENTOR_LOG_LEVEL", "warn")], "");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0));
    for (line, origin) in [
        ("listen = \"127.0.0.1:9000\"", "env PORT"),
        ("shards = 3", "--shards"),
        ("max_topics = 7", &format!("{path}:2")),
        ("max_errors = 9", "--set limits.max_errors"),
        ("level = \"warn\"", "env STENTOR_LOG_LEVEL"),
        ("max_message_size = \"64KiB\"", "default"),
    ] {
        let found = text.lines().find(|found| found.starts_with(line));
        let found = found.unwrap_or_else(|| panic!("{line} is missing in {text}"));
        assert!(found.ends_with(&format!("# {origin}")), "{found}");
    }
    // It is itself a configuration that says the same.
    fs::write(&file, &text).expect("it is ours");
    expect(&run(&["check", path]), 0, &format!("{path}: ok\n"), "");
    let again = run(&["config", "--config", path]);
    let values = |text: &str| -> Vec<String> {
        text.lines().filter_map(|line| Some(line.split_once('#')?.0.trim().to_string())).collect()
    };
    assert_eq!(values(&String::from_utf8_lossy(&again.stdout)), values(&text));
}

#[test]
fn a_variable_that_names_no_key_is_warned_of() {
    let output = run_with(&["config"], &[("STENTOR_SERVER_SHARD", "2")], "");
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("warning: env STENTOR_SERVER_SHARD"), "{text}");
    assert!(text.contains("the nearest valid name is STENTOR_SERVER_SHARDS"), "{text}");
}

#[test]
fn help_is_at_hand_and_mistakes_exit_with_2() {
    for arguments in [&["--help"][..], &["serve", "--help"], &["publish", "--help"], &["--version"]]
    {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(output.stderr.is_empty() && !output.stdout.is_empty(), "{output:?}");
    }
    for arguments in [&[][..], &["dance"], &["subscribe"], &["publish", "a"], &["check"]] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{output:?}");
    }
}
