//! Start and stop: the banner, signals, addresses, where settings come from.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::process::Output;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::*;

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A start that must fail with this exit code and these words.
#[track_caller]
fn expect_refusal(launch: Launch, code: i32, words: &[&str]) {
    let output = launch.try_start().err().expect("it must not start");
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    let text = stderr(&output);
    for word in words {
        assert!(text.contains(word), "{word:?} is missing in: {text}");
    }
    assert!(output.stdout.is_empty(), "{output:?}");
}

// Starting.

#[test]
fn it_starts_at_once_and_small() {
    // Everything of a development build is larger and slower; a release keeps to 100 ms and 8 MiB.
    let (time_max, memory_max) =
        if cfg!(debug_assertions) { (300, 20 << 20) } else { (100, 8 << 20) };
    let fastest = (0..5)
        .map(|_| {
            let start = Instant::now();
            let server = Launch::new(&[]).try_start().expect("it starts");
            let mut peer = Peer::connect(&server);
            peer.send(get("/health", "").as_bytes());
            assert_eq!(peer.response().status, 200);
            let took = start.elapsed();
            let rss = server.rss();
            assert!(rss < memory_max, "{} KiB", rss >> 10);
            took
        })
        .min();
    assert!(fastest < Some(Duration::from_millis(time_max)), "{fastest:?}");
}

#[test]
fn the_banner_says_address_shards_and_limits() {
    let server = Launch::bare(&["--listen", "127.0.0.1:0", "--shards", "2"]).start();
    let address = server.address;
    let version = env!("CARGO_PKG_VERSION");
    let first = format!("stentor {version} listening on http://{address} (ws://{address})\n");
    assert_eq!(server.banner[0], first);
    assert!(server.banner[1].starts_with("2 shards, pinned to core"), "{:?}", server.banner);
    let backend = if on_uring() { "io_uring" } else { "epoll" };
    assert!(server.banner[1].ends_with(&format!(", {backend}\n")), "{:?}", server.banner);
    assert!(server.banner[2].starts_with("open files "), "{:?}", server.banner);
    assert!(server.banner[2].ends_with(" connections\n"), "{:?}", server.banner);
    assert_ne!(address.port(), 0);

    let server = Launch::new(&["--shards", "1"]).start();
    assert_eq!(server.banner[1], format!("1 shard, not pinned, {backend}\n"));
}

#[test]
fn open_files_are_raised_to_the_hard_limit() {
    let launch = Launch::limited("ulimit -S -n 256; ulimit -H -n 1000", &["--shards", "1"]);
    let server = launch.start();
    let banner = &server.banner[2];
    assert!(banner.starts_with("open files 1000 (raised from 256): up to "), "{banner}");
    let limits = server.proc("limits");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("a line");
    let numbers: Vec<_> = line.split_whitespace().skip(3).take(2).collect();
    assert_eq!(numbers, ["1000", "1000"]);
    // As many as it says fit in.
    let connections: usize = banner
        .split_whitespace()
        .rev()
        .nth(1)
        .and_then(|word| word.parse().ok())
        .expect("a number");
    let least = if on_direct_descriptors() { 850 } else { 900 };
    assert!((least..1000).contains(&connections), "{banner}");
    let mut peers: Vec<_> = (0..connections).map(|_| Peer::open(&server)).collect();
    peers.iter_mut().for_each(|peer| peer.expect_idle());
}

#[test]
fn more_connections_than_open_files_allow_are_warned_of() {
    let warnings = |wanted: &str| {
        let launch = Launch::limited("ulimit -n 1000", &["--max-connections", wanted]);
        let server = launch.env("STENTOR_SERVER_SHARDS", "1").start();
        let allowed =
            server.banner[2].split_whitespace().rev().nth(1).expect("a number").to_string();
        // The log is written beside the banner: what was warned of stands before the counters.
        server.counters();
        let lines = server.log.lines();
        (allowed, lines.into_iter().filter(|line| line.contains("WARN")).collect::<Vec<_>>())
    };
    let (allowed, lines) = warnings("5000");
    if on_direct_descriptors() {
        assert_eq!((allowed.as_str(), lines.len()), ("5000", 0), "they need no open files");
        return;
    }
    assert_eq!(lines.len(), 1, "{lines:?}");
    let text = format!("max_connections = 5000: open files 1000 allow {allowed}; ");
    assert!(lines[0].contains(&text) && lines[0].contains("ulimit -n"), "{lines:?}");
    let (allowed, lines) = warnings("900");
    assert_eq!((allowed.as_str(), lines.len()), ("900", 0));
}

#[test]
fn an_address_in_use_is_an_error_that_says_what_to_do() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it is bound").to_string();
    let words = ["error: cannot listen on ", &address, "in use", "--listen"];
    expect_refusal(Launch::bare(&["--listen", &address]), 1, &words);
}

#[test]
fn a_second_server_does_not_share_the_address() {
    let first = Server::start(&[]);
    let address = first.address.to_string();
    expect_refusal(Launch::bare(&["--listen", &address]), 1, &["in use", "--listen"]);
    fresh_client_works(&first);
}

#[test]
fn a_restart_takes_the_address_of_its_predecessor_at_once() {
    let mut first = Server::start(&[]);
    let address = first.address;
    let _peers: Vec<_> = (0..20).map(|_| Peer::open(&first)).collect();
    first.signal(Signal::TERM);
    // They do not answer the Close; the server leaves nevertheless.
    assert_eq!(first.wait_for_exit(PATIENCE).code(), Some(0));
    let second = Launch::bare(&["--listen", &address.to_string()]).start();
    fresh_client_works(&second);
}

#[test]
fn what_cannot_be_configured_does_not_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("bad.toml");
    fs::write(&file, "[limits]\nmax_topic = 5\n").expect("it is ours");
    let path = file.to_str().expect("text");
    let words = [&format!("{path}:2:1"), "limits.max_topic", "limits.max_topics"];
    expect_refusal(Launch::new(&["--config", path]), 1, &words);
    expect_refusal(Launch::new(&["--config", "/does/not/exist"]), 1, &["/does/not/exist"]);
    expect_refusal(Launch::new(&["--heartbeat", "25"]), 1, &["--heartbeat", "no unit", "25s"]);
    expect_refusal(Launch::new(&["--set", "limits.nonsense=1"]), 1, &["limits.nonsense"]);
    let variable = Launch::new(&[]).env("STENTOR_SERVER_SHARDS", "many");
    expect_refusal(variable, 1, &["STENTOR_SERVER_SHARDS", "whole number"]);
    expect_refusal(Launch::new(&["--unknown"]), 2, &["--unknown"]);
}

#[test]
fn a_public_address_has_to_be_asked_for_twice() {
    let words = ["0.0.0.0:0", "refused", "--insecure", "127.0.0.1"];
    expect_refusal(Launch::bare(&["--listen", "0.0.0.0:0"]), 1, &words);
    let server = Launch::bare(&["--listen", "0.0.0.0:0", "--insecure"]).start();
    assert!(server.banner[0].contains("http://0.0.0.0:"), "{:?}", server.banner);
    let address = format!("127.0.0.1:{}", server.address.port()).parse().expect("an address");
    let mut peer = Peer::try_connect(address).expect("the server accepts");
    peer.upgrade("/ws");
    peer.expect_idle();
}

#[test]
fn a_flag_beats_the_environment_which_beats_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("stentor.toml");
    let text = "[server]\nlisten = \"127.0.0.1:0\"\nshards = 3\n\
                [limits]\nmax_message_size = 100\nmax_subscriptions = 1\n";
    fs::write(&file, text).expect("it is ours");
    let path = file.to_str().expect("text");
    let server = Launch::bare(&["--max-message-size", "300"])
        .env("STENTOR_CONFIG", path)
        .env("STENTOR_SERVER_SHARDS", "1")
        .env("STENTOR_LIMITS_MAX_MESSAGE_SIZE", "200")
        .start();
    // From the environment, then the file, then the flag.
    assert!(server.banner[1].starts_with("1 shard,"), "{:?}", server.banner);
    let mut peer = Peer::open(&server);
    peer.subscribe("a");
    peer.send_text(r#"{"action":"subscribe","channel":"b"}"#);
    assert_eq!(peer.json()["data"]["code"], "too_many_subscriptions");
    peer.send_text(&format!("{{\"type\":\"ping\"}}{}", " ".repeat(300 - 15)));
    peer.expect_text(r#"{"type":"pong"}"#);
    peer.send_text(&format!("{{\"type\":\"ping\"}}{}", " ".repeat(301 - 15)));
    peer.expect_close(1009, "too_big");
}

#[test]
fn port_alone_changes_the_port() {
    // Somebody else could take it in between; then another one is tried.
    let started = (0..5).find_map(|_| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("it is bound").port();
        drop(listener);
        let server = Launch::bare(&[]).env("PORT", &port.to_string()).try_start().ok()?;
        assert_eq!(server.address.to_string(), format!("127.0.0.1:{port}"));
        Some(server)
    });
    fresh_client_works(&started.expect("one of five ports is free"));
    expect_refusal(Launch::bare(&[]).env("PORT", "http"), 1, &["PORT", "http"]);
}

// Stopping.

#[test]
fn a_signal_closes_everybody_with_1001_and_ends_with_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = Server::start(&["--echo", "/echo"]);
        let mut peers: Vec<_> = (0..200).map(|_| Peer::open(&server)).collect();
        peers.push(Peer::open_at(&server, "/echo"));
        for peer in peers.iter_mut().take(100) {
            peer.subscribe("a");
        }
        let mut idle = Peer::connect(&server);
        idle.send(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(idle.response().status, 200);
        let start = Instant::now();
        server.signal(signal);
        for mut peer in peers {
            peer.expect_close(1001, "shutdown");
            peer.send(&frame(OpCode::CLOSE, &close_payload(1001, b"")));
            peer.expect_end();
        }
        idle.expect_end();
        drop(idle);
        assert_eq!(server.wait_for_exit(PATIENCE).code(), Some(0));
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
        assert_eq!(server.log.with_message("shutting down").len(), 1);
        let last = server.log.with_message("stopped").pop().expect("the last counters");
        assert_eq!(last["connections"], 0);
        let counters = last["counters"].as_str().expect("a text");
        assert!(counters.contains("longest_turn_us="), "{counters}");
        assert!(!counters.contains("frames_held="), "{counters}");
    }
}

#[test]
fn under_load_everybody_is_told_and_it_ends_in_time() {
    const CLIENTS: usize = 200;
    let mut server = Server::start(&["--shards", "2", "--shutdown-timeout", "5s"]);
    let mut stopped = Peer::connect_small(&server, 4096);
    stopped.upgrade("/ws");
    stopped.subscribe("load0");
    let stop = AtomicBool::new(false);
    let ready = AtomicUsize::new(0);
    let peers: Vec<_> = (0..CLIENTS).map(|_| Peer::open(&server)).collect();
    thread::scope(|scope| {
        let clients: Vec<_> = peers
            .into_iter()
            .enumerate()
            .map(|(index, mut peer)| {
                peer.subscribe(&format!("load{}", index % 10));
                let mut sender = peer.sender();
                let (stop, ready) = (&stop, &ready);
                scope.spawn(move || {
                    // Many at once, without waiting for anything.
                    let text = format!(
                        r#"{{"action":"publish","channel":"load{}","data":1}}"#,
                        index % 10
                    );
                    let burst = frame(OpCode::TEXT, text.as_bytes()).repeat(if index < 20 {
                        300
                    } else {
                        3
                    });
                    while !stop.load(Ordering::Relaxed) && sender.write_all(&burst).is_ok() {
                        thread::sleep(Duration::from_millis(20));
                    }
                });
                scope.spawn(move || {
                    peer.text();
                    ready.fetch_add(1, Ordering::Relaxed);
                    let close = peer.skip_to_close();
                    drop(peer.try_send(&frame(OpCode::CLOSE, &close_payload(1001, b""))));
                    peer.hang_up();
                    close
                })
            })
            .collect();
        let all = eventually(PATIENCE, || ready.load(Ordering::Relaxed) == CLIENTS);
        // Else those who publish would never end.
        stop.store(!all, Ordering::Relaxed);
        assert!(all, "not everybody publishes and receives");
        let start = Instant::now();
        server.signal(Signal::TERM);
        for client in clients {
            assert_eq!(client.join().expect("no panics"), (1001, "shutdown".to_string()));
        }
        stop.store(true, Ordering::Relaxed);
        let status = server.wait_for_exit(PATIENCE);
        assert_eq!(status.code(), Some(0), "{status:?}");
        assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
    });
    drop(stopped);
}

#[test]
fn a_reader_that_never_reads_does_not_hold_it_longer_than_the_timeout() {
    let flags = ["--shutdown-timeout", "1s", "--set", "limits.close_timeout=1m"];
    let mut server = Server::start(&flags);
    let mut stopped = Peer::connect_small(&server, 4096);
    stopped.upgrade("/ws");
    stopped.subscribe("a");
    let mut publisher = Peer::open(&server);
    for _ in 0..500 {
        publisher.publish_acked("a", &format!(r#""{}""#, "x".repeat(1000)));
    }
    let start = Instant::now();
    server.signal(Signal::TERM);
    publisher.expect_close(1001, "shutdown");
    assert_eq!(server.wait_for_exit(PATIENCE).code(), Some(0));
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(900), "{took:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
    drop(stopped);
}

#[test]
fn while_it_stops_nobody_new_is_accepted() {
    let mut server = Server::start(&["--shutdown-timeout", "1s"]);
    let mut peer = Peer::open(&server);
    server.signal(Signal::TERM);
    peer.expect_close(1001, "shutdown");
    wait_until("the port is closed", || std::net::TcpStream::connect(server.address).is_err());
    assert_eq!(server.wait_for_exit(PATIENCE).code(), Some(0));
}

#[test]
fn a_signal_reaches_every_shard_whatever_it_is_about_to_do() {
    for attempt in 0..60 {
        let mut server = Server::start(&["--shards", "2"]);
        let mut peer = Peer::open(&server);
        // A shard has just answered, and is on its way to sleep.
        let start = Instant::now();
        server.signal(Signal::TERM);
        peer.expect_close(1001, "shutdown");
        drop(peer);
        // The end of the process is the kernel's, which takes seconds on a busy machine.
        server.log.wait_for(0, |line| line["message"] == "stopped");
        let took = start.elapsed();
        // Less than the longest time that a shard sleeps, so it was woken.
        assert!(took < Duration::from_millis(800), "attempt {attempt}: {took:?}");
        assert_eq!(server.wait_for_exit(PATIENCE).code(), Some(0));
    }
}

#[test]
fn a_second_signal_ends_it_at_once() {
    for signal in [Signal::TERM, Signal::INT] {
        let flags = ["--shutdown-timeout", "1m", "--set", "limits.close_timeout=1m"];
        let mut server = Server::start(&flags);
        // It never answers the Close.
        let mut peer = Peer::open(&server);
        server.signal(signal);
        peer.expect_close(1001, "shutdown");
        let start = Instant::now();
        server.signal(signal);
        let status = server.wait_for_exit(PATIENCE);
        assert_eq!(status.signal(), Some(signal.as_raw()), "{status:?}");
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    }
}

#[test]
fn signals_are_minded_from_the_banner_on() {
    for _ in 0..20 {
        // Without the waiting of `start`.
        let mut server = Launch::new(&[]).try_start().expect("it starts");
        server.signal(Signal::TERM);
        let status = server.wait_for_exit(PATIENCE);
        assert_eq!(status.code(), Some(0), "{status:?}");
    }
}
