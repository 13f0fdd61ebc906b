//! io_uring where it differs from epoll: connections in the tables of its rings, kernels that forbid it,
//! and nothing left behind. Everything else runs on it with `STENTOR_TEST_BACKEND=uring` and `uring-direct`.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, Signal, setrlimit};

use crate::support::*;

const DIRECT: &[&str] = &["--backend", "uring", "--direct-descriptors", "true", "--shards", "1"];

/// A server with connections in rings of 300 slots.
fn direct(flags: &[&str]) -> Server {
    let flags: Vec<_> = DIRECT.iter().chain(flags).copied().collect();
    Launch::limited("ulimit -n 300", &flags).start()
}

/// What the kernel says of each ring: a file of `/proc/PID/fdinfo`.
fn rings(server: &Server) -> Vec<String> {
    let folder = format!("/proc/{}/fdinfo", server.id());
    let entries = std::fs::read_dir(folder).expect("it runs");
    let texts = entries.filter_map(|entry| std::fs::read_to_string(entry.ok()?.path()).ok());
    texts.filter(|text| text.contains("PollList:")).collect()
}

/// Files in the tables of all rings.
fn files_in_rings(server: &Server) -> usize {
    let is_file = |line: &&str| {
        let number = line.trim_start().split(':').next().unwrap_or_default();
        line.starts_with(' ') && number.parse::<u32>().is_ok() && line.contains("socket:")
    };
    rings(server).iter().map(|text| text.lines().filter(is_file).count()).sum()
}

#[test]
fn rings_hold_more_connections_than_the_process_may_have_files() {
    const COUNT: usize = 1000;
    let server = direct(&["--max-connections", "1000"]);
    let mut peers: Vec<_> = (0..COUNT).map(|_| Peer::open(&server)).collect();
    assert!(server.open_files() < 60, "{} files", server.open_files());
    assert!(rings(&server).len() > 3, "{} rings", rings(&server).len());
    peers.iter_mut().for_each(|peer| peer.subscribe("all"));
    peers[COUNT - 1].publish("all", r#""from the last ring""#);
    for peer in &mut peers {
        peer.expect_publication("all", r#""from the last ring""#);
    }
    drop(peers);
    server.wait_for_connections(0);
    wait_until("all slots are free", || files_in_rings(&server) == 0);
    fresh_client_works(&server);
}

#[test]
fn a_full_table_turns_people_away_and_takes_them_again() {
    let server = direct(&[]);
    let most: usize = server.banner[2]
        .split("up to ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next()?.parse().ok())
        .expect("a number of connections");
    assert!((100..300).contains(&most), "{:?}", server.banner);
    let peers: Vec<_> = (0..most).map(|_| Peer::open(&server)).collect();
    let mut refused = Peer::connect(&server);
    refused.send(upgrade_request("/ws", "").as_bytes());
    assert_eq!(refused.response().status, 503);
    drop((peers, refused));
    server.wait_for_connections(0);
    let again: Vec<_> = (0..most).map(|_| Peer::open(&server)).collect();
    assert_eq!(server.connections(), again.len() as u64);
}

/// Connects, resets and ends `count` times in a random order, from an address of its own.
fn come_and_go(server: &Server, seed: u8, count: u32) {
    // More connections at a time are more ports in use, of which an address has few.
    const OPEN_MAX: usize = 50;
    let pings = Asker::pings(180);
    let mut random = Random::new(seed.into());
    let mut open: Vec<Peer> = Vec::new();
    for index in 0..count {
        let source = [127, 0, 1 + seed, 1 + (index % 8) as u8].into();
        let mut peer = Peer::connect_from(server, source);
        match random.below(6) {
            // Not a word, a part of one, a whole one, and gone before the answer.
            0 => peer.abort(),
            1 => {
                drop(peer.try_send(b"GET / HTTP/1.1\r\nHo"));
                peer.hang_up();
            }
            2 => {
                drop(peer.try_send(upgrade_request("/ws", "").as_bytes()));
                peer.abort();
            }
            3 => {
                drop(
                    peer.try_send(b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
                );
                peer.hang_up();
            }
            _ => {
                peer.upgrade("/ws");
                peer.subscribe(&format!("c{}", index % 10));
                open.push(peer);
            }
        }
        if open.len() > OPEN_MAX {
            let mut peer = open.swap_remove(random.below(open.len()));
            match random.below(4) {
                // With several buffers under way from it, and their answers to it.
                0 | 1 => {
                    drop(peer.try_send(&pings));
                    peer.abort();
                }
                2 => peer.abort(),
                _ => peer.hang_up(),
            }
        }
    }
}

#[test]
fn connects_resets_and_ends_in_any_order_leave_nothing_behind() {
    const COUNT: u32 = 100_000;
    const CLIENTS: u8 = 4;
    let server = direct(&["--max-connections", "600", "--heartbeat", "60s"]);
    let files = server.open_files();
    std::thread::scope(|threads| {
        for seed in 0..CLIENTS {
            let server = &server;
            threads.spawn(move || come_and_go(server, seed, COUNT / u32::from(CLIENTS)));
        }
    });
    server.wait_for_connections(0);
    wait_until("all slots are free", || files_in_rings(&server) == 0);
    assert!(server.open_files() <= files + 4, "{files} files, then {}", server.open_files());
    let receives = server.connections_by_shard();
    assert_eq!(receives.iter().sum::<usize>(), 0, "receives that nobody cancelled");
    wait_until("no frame is held", || server.counter("frames_held") == 0);
    fresh_client_works(&server);
}

#[test]
fn a_stopped_reader_and_a_paused_writer_lose_nothing_in_a_ring() {
    let server = direct(&["--echo", "/echo", "--max-message-size", "1MiB"]);
    let mut peer = Peer::open_at(&server, "/echo");
    let payload = vec![b'x'; 512 << 10];
    // More than both kernels hold: the server stops reading until its answers are read.
    let mut sender = peer.sender();
    let writer = std::thread::spawn(move || {
        use std::io::Write as _;
        for _ in 0..40 {
            sender.write_all(&frame(OpCode::BINARY, &payload)).expect("the server reads on");
        }
    });
    for _ in 0..40 {
        let echoed = peer.frame_within(PATIENCE).expect("an echo");
        assert_eq!((echoed.opcode, echoed.payload.len()), (OpCode::BINARY, 512 << 10));
    }
    writer.join().expect("no panics");
}

/// A client whose pings are numbered.
struct Asker {
    peer: Peer,
    /// Number of the next pong.
    next: usize,
}

impl Asker {
    /// 64 of them, and the header of each, are one receive buffer.
    const PING_BYTES: usize = 248;

    fn open(server: &Server) -> Self {
        Self { peer: Peer::open(server), next: 0 }
    }

    fn pings(count: usize) -> Vec<u8> {
        let ping = |id: usize| {
            let text = format!(r#"{{"type":"ping","id":{id}}}"#);
            frame(OpCode::TEXT, format!("{text:<width$}", width = Self::PING_BYTES).as_bytes())
        };
        (0..count).flat_map(ping).collect()
    }

    fn ask(&mut self, count: usize) {
        self.peer.send(&Self::pings(count));
    }

    /// Takes up what comes until nothing does for so long, or `count` pongs have come, in order.
    fn read(&mut self, count: usize, patience: Duration) {
        while self.next < count
            && let Some(frame) = self.peer.frame_within(patience)
        {
            if let Some(rest) = frame.text().strip_prefix(r#"{"type":"pong","id":"#) {
                let id = rest.split(',').next().expect("a first part");
                assert_eq!(id, self.next.to_string());
                self.next += 1;
            }
        }
    }

    #[track_caller]
    fn expect(&mut self, count: usize) {
        self.read(count, PATIENCE);
        assert_eq!(self.next, count);
    }
}

#[test]
fn what_is_held_for_readers_that_go_on_together_comes_before_what_they_send_then() {
    // More than are taken up in one turn.
    const STOPPED: usize = 200;
    const FLOWING: usize = 60;
    // A buffer that makes the shard pause, and one that is held then.
    const FIRST: usize = 80;
    // Three buffers: what a turn takes up ends between the second and the third of somebody.
    const MANY: usize = 180;
    let server = Server::start(&[
        "--backend=uring",
        "--shards=1",
        "--send-queue-size=1KiB",
        "--slow-consumer=drop_newest",
        "--set=limits.slow_consumer_timeout=60s",
    ]);
    let shard = server.find_thread("stentor-0").expect("it runs");
    let stall = || StalledThread::stop(shard).expect("a parent may trace its child");
    let mut stopped: Vec<_> = (0..STOPPED).map(|_| Asker::open(&server)).collect();
    let mut flowing: Vec<_> = (0..FLOWING).map(|_| Asker::open(&server)).collect();
    stopped.iter_mut().for_each(|asker| asker.peer.subscribe("all"));
    let mut publisher = Peer::open(&server);
    let large = format!("{:?}", "x".repeat(60_000));
    while server.counter("dropped_newest") < 2 * STOPPED as u64 {
        publisher.publish_acked("all", &large);
    }
    // They do not read, so they are not read from when their pongs do not fit.
    let stalled = stall();
    stopped.iter_mut().for_each(|asker| asker.ask(FIRST));
    drop(stalled);
    server.wait_for_counter("receive_paused", STOPPED as u64);
    // While the shard stands still, there is room for all of them again, and then much to receive from
    // the others: it finds all of that at once.
    let stalled = stall();
    std::thread::scope(|threads| {
        for asker in &mut stopped {
            threads.spawn(|| asker.read(FIRST, Duration::from_millis(100)));
        }
    });
    flowing.iter_mut().for_each(|asker| asker.ask(MANY));
    drop(stalled);
    stopped.iter_mut().for_each(|asker| asker.expect(FIRST));
    flowing.iter_mut().for_each(|asker| asker.expect(MANY));
}

#[test]
fn receives_that_find_no_buffer_are_counted_and_lose_nothing() {
    // Of each, three buffers: more than the 128 of one ring of several.
    const PEERS: usize = 240;
    const MANY: usize = 180;
    let server = direct(&["--max-connections", "600"]);
    let mut askers: Vec<_> = (0..PEERS).map(|_| Asker::open(&server)).collect();
    assert_eq!(server.counter("receive_buffers_empty"), 0);
    let shard = server.find_thread("stentor-0").expect("it runs");
    let stalled = StalledThread::stop(shard).expect("a parent may trace its child");
    askers.iter_mut().for_each(|asker| asker.ask(MANY));
    drop(stalled);
    askers.iter_mut().for_each(|asker| asker.expect(MANY));
    assert!(server.counter("receive_buffers_empty") > 0);
}

fn forbid_io_uring(command: &mut Command) {
    forbid(command, libc::SYS_io_uring_setup);
}
/// Direct descriptors leave no choice, wherever else the tests have them.
fn auto() -> Launch {
    Launch::new(&["--backend", "auto", "--direct-descriptors", "false"])
}

#[test]
fn where_io_uring_is_forbidden_auto_serves_with_epoll_and_says_why() {
    let launch = auto().with(forbid_io_uring);
    let server = launch.start();
    assert!(server.banner[1].ends_with(", epoll\n"), "{:?}", server.banner);
    let said = server.log.wait_for(0, |line| line["message"] == "no io_uring, so epoll");
    assert!(said["error"].as_str().is_some_and(|error| error.contains("forbidden")), "{said}");
    fresh_client_works(&server);
}

#[test]
fn where_io_uring_is_forbidden_uring_does_not_start_and_says_what_to_do() {
    let launch = Launch::new(&["--backend", "uring"]).with(forbid_io_uring);
    let Err(output) = launch.try_start() else { panic!("it started") };
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    for wanted in ["io_uring", "seccomp", "--backend epoll"] {
        assert!(text.contains(wanted), "{text}");
    }
}

/// Lets what is started lock next to no memory. The kernel counts that of rings only for those without
/// `CAP_IPC_LOCK`, so a process of root must lose it first; for others there is nothing to lose.
fn lock_little_memory(command: &mut Command) {
    // linux/capability.h
    const CAP_IPC_LOCK: libc::c_ulong = 14;
    let limit = || {
        let little = Rlimit { current: Some(16 << 10), maximum: Some(16 << 10) };
        setrlimit(Resource::Memlock, little)?;
        // SAFETY: a plain system call.
        match unsafe { libc::prctl(libc::PR_CAPBSET_DROP, CAP_IPC_LOCK, 0, 0, 0) } {
            0 => Ok(()),
            _ => match std::io::Error::last_os_error() {
                error if error.kind() == std::io::ErrorKind::PermissionDenied => Ok(()),
                error => Err(error),
            },
        }
    };
    // SAFETY: only system calls between fork and exec.
    unsafe { command.pre_exec(limit) };
}

#[test]
fn with_too_little_memory_to_lock_auto_serves_with_epoll_and_says_why() {
    let launch = auto().with(lock_little_memory);
    let server = launch.start();
    assert!(server.banner[1].ends_with(", epoll\n"), "{:?}", server.banner);
    let said = server.log.wait_for(0, |line| line["message"] == "no io_uring, so epoll");
    assert!(said["error"].as_str().is_some_and(|error| error.contains("ulimit -l")), "{said}");
    fresh_client_works(&server);
}

#[test]
fn with_too_little_memory_to_lock_uring_does_not_start_and_says_what_to_do() {
    let launch = Launch::new(&["--backend", "uring"]).with(lock_little_memory);
    let Err(output) = launch.try_start() else { panic!("it started") };
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    for wanted in ["io_uring", "ulimit -l", "CAP_IPC_LOCK", "--backend epoll"] {
        assert!(text.contains(wanted), "{text}");
    }
}

#[test]
fn direct_descriptors_without_io_uring_are_an_error() {
    let launch = Launch::new(&["--backend", "epoll", "--direct-descriptors", "true"]);
    let Err(output) = launch.try_start() else { panic!("it started") };
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("server.backend"), "{text}");
}

#[test]
fn it_stops_in_order_with_connections_in_several_rings() {
    let mut server = direct(&["--max-connections", "600"]);
    let peers: Vec<_> = (0..600).map(|_| Peer::open(&server)).collect();
    server.signal(Signal::TERM);
    for mut peer in peers {
        peer.expect_close(1001, "shutdown");
        peer.send(&frame(OpCode::CLOSE, &close_payload(1001, b"")));
        peer.expect_end();
    }
    assert_eq!(server.wait_for_exit(PATIENCE).code(), Some(0));
}
