//! Event loops with tables of descriptors of their own (`server.unshare_descriptors`): each has the limit
//! of open files to itself, and what one closes is closed.

use std::fs;
use std::io::ErrorKind;
use std::net::TcpStream;

use rustix::process::Signal;

use crate::support::*;

/// Said outright, whatever backend the tests have otherwise.
const EPOLL: &[&str] =
    &["--backend=epoll", "--direct-descriptors=false", "--unshare-descriptors", "--shards=2"];

/// With 256 open files for each of two event loops.
fn unshared(flags: &[&str]) -> Launch {
    let flags = [EPOLL, flags].concat();
    Launch::limited("ulimit -n 256", &flags)
}

/// Sockets in the table of one thread.
fn sockets(server: &Server, thread: i32) -> usize {
    let folder = format!("/proc/{}/task/{thread}/fd", server.id());
    let entries = fs::read_dir(folder).expect("it runs");
    let targets = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
}

fn sockets_of_shards(server: &Server) -> [usize; 2] {
    ["stentor-0", "stentor-1"]
        .map(|name| sockets(server, server.find_thread(name).expect("it runs")))
}

#[test]
fn more_connections_than_one_table_holds_are_served() {
    const COUNT: usize = 400;
    let server = unshared(&[]).start();
    server.wait_for_connections(0);
    let before = sockets_of_shards(&server);
    let mut peers: Vec<_> = (0..COUNT).map(|_| Peer::open(&server)).collect();
    // The list of a folder in /proc is no snapshot: it may leave one out.
    let all = before.iter().sum::<usize>() + COUNT;
    wait_until("all have a socket", || sockets_of_shards(&server).iter().sum::<usize>() == all);
    let [first, second] = sockets_of_shards(&server);
    assert!(first < 256 && second < 256, "{first} and {second}");
    assert!(server.open_files() < 30, "{} of the main thread", server.open_files());
    peers.iter_mut().for_each(|peer| peer.subscribe("all"));
    for publisher in [0, COUNT - 1] {
        let data = publisher.to_string();
        peers[publisher].publish("all", &data);
        peers.iter_mut().for_each(|peer| peer.expect_publication("all", &data));
    }
    // Sockets exist in one table only, so they end when their event loop closes them.
    peers.into_iter().for_each(Peer::close);
    server.wait_for_connections(0);
    wait_until("all sockets are gone", || sockets_of_shards(&server) == before);
    assert_eq!(server.counter("accept_paused"), 0);
    fresh_client_works(&server);
}

#[test]
fn nobody_is_left_in_the_queue_of_a_listener_that_another_table_keeps() {
    let mut server = unshared(&[]).start();
    let mut peers: Vec<_> = (0..20).map(|_| Peer::open(&server)).collect();
    server.signal(Signal::TERM);
    peers.iter_mut().for_each(|peer| peer.expect_close(1001, "shutdown"));
    // It still waits for their half of the handshake, and takes nobody in meanwhile.
    for _ in 0..20 {
        let refused = TcpStream::connect(server.address).expect_err("nobody listens");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    }
    for mut peer in peers {
        peer.send(&frame(OpCode::CLOSE, &close_payload(1001, b"")));
        peer.expect_end();
    }
    assert_eq!(server.wait_for_exit(PATIENCE).code(), Some(0));
}

#[test]
fn the_limit_on_connections_stays_exact() {
    let server = unshared(&["--max-connections=300"]).start();
    assert!(server.banner[2].ends_with(": up to 300 connections\n"), "{:?}", server.banner);
    let peers: Vec<_> = (0..300).map(|_| Peer::open(&server)).collect();
    let mut refused = Peer::connect(&server);
    refused.send(upgrade_request("/ws", "").as_bytes());
    assert_eq!(refused.response().status, 503);
    drop(peers);
}

#[track_caller]
fn expect_refusal(launch: Launch, words: &[&str]) {
    let Err(output) = launch.try_start() else { panic!("it started") };
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    for word in words {
        assert!(text.contains(word), "{word:?} is missing in: {text}");
    }
}

#[test]
fn with_io_uring_it_is_refused() {
    let words = ["server.unshare_descriptors", "epoll", "server.direct_descriptors"];
    expect_refusal(Launch::new(&["--backend=uring", "--unshare-descriptors"]), &words);
    let both = ["--backend=auto", "--direct-descriptors", "--unshare-descriptors"];
    expect_refusal(Launch::new(&both), &words);
}

#[test]
fn where_it_is_forbidden_it_says_so_and_what_to_do() {
    let launch = unshared(&[]).with(|command| forbid(command, libc::SYS_unshare));
    expect_refusal(launch, &["server.unshare_descriptors", "seccomp", "leave this off"]);
}
