//! The real binary: started, watched from outside, stopped.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::log::parse_counters;
use super::{Log, PATIENCE, eventually, wait_until};

const PROGRAM: &str = env!("CARGO_BIN_EXE_stentor");

/// Whether the tests run the server on io_uring: `STENTOR_TEST_BACKEND=uring`, or `uring-direct` for
/// connections in the tables of its rings.
pub fn on_uring() -> bool {
    test_backend().starts_with("uring")
}

pub fn on_direct_descriptors() -> bool {
    test_backend() == "uring-direct"
}

fn test_backend() -> String {
    let backend = std::env::var("STENTOR_TEST_BACKEND").unwrap_or_default();
    let known = ["", "epoll", "uring", "uring-direct"];
    assert!(known.contains(&backend.as_str()), "STENTOR_TEST_BACKEND={backend:?} is none");
    backend
}

/// How to start a server. The environment holds nothing but what is said here.
pub struct Launch {
    command: Command,
}

impl Launch {
    /// Two shards on a port that the kernel chooses, not pinned: tests run side by side.
    pub fn new(flags: &[&str]) -> Self {
        Self::bare(flags)
            .env("STENTOR_SERVER_LISTEN", "127.0.0.1:0")
            .env("STENTOR_SERVER_SHARDS", "2")
            .env("STENTOR_SERVER_PIN", "false")
    }

    /// With the defaults of the program.
    pub fn bare(flags: &[&str]) -> Self {
        let mut command = Command::new(PROGRAM);
        command.arg("serve").args(flags).env_clear();
        Self { command }.on_backend()
    }

    /// As [`Launch::new`], by a shell that sets limits first.
    pub fn limited(limits: &str, flags: &[&str]) -> Self {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &format!("{limits}; exec \"$0\" \"$@\""), PROGRAM, "serve"]);
        command.args(flags).env_clear();
        Self { command }
            .on_backend()
            .env("STENTOR_SERVER_LISTEN", "127.0.0.1:0")
            .env("STENTOR_SERVER_PIN", "false")
    }

    /// Every test runs on every backend: which one, the environment of the tests says.
    fn on_backend(self) -> Self {
        let launch = if on_uring() { self.env("STENTOR_SERVER_BACKEND", "uring") } else { self };
        if on_direct_descriptors() {
            launch.env("STENTOR_SERVER_DIRECT_DESCRIPTORS", "true")
        } else {
            launch
        }
    }

    /// Changes the command before it starts.
    pub fn with(mut self, change: impl FnOnce(&mut Command)) -> Self {
        change(&mut self.command);
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Starts it and waits until it serves and minds its signals.
    pub fn start(self) -> Server {
        let started = self.try_start();
        let server =
            started.unwrap_or_else(|output| panic!("the server did not start: {output:?}"));
        let shards: usize =
            server.banner[1].split(' ').next().and_then(|word| word.parse().ok()).expect("shards");
        let last = format!("stentor-{}", shards - 1);
        wait_until("every shard runs", || server.find_thread(&last).is_some());
        wait_until("signals are handled", || server.handles(Signal::USR1));
        server
    }

    /// Starts it and waits for its banner. The output, if it ends before that.
    pub fn try_start(mut self) -> Result<Server, Output> {
        let piped = self.command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().expect("the binary starts");
        let log = Arc::new(Log::default());
        let collector = Arc::clone(&log);
        let stderr = BufReader::new(child.stderr.take().expect("it is piped"));
        let watch = thread::spawn(move || collector.collect(stderr));
        let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut banner: Vec<String> = Vec::new();
        while banner.len() < 3 {
            let mut line = String::new();
            if stdout.read_line(&mut line).expect("text") == 0 {
                let status = child.wait().expect("it is our child");
                watch.join().expect("no panics");
                let stderr = log.lines().join("\n").into_bytes();
                return Err(Output { status, stdout: banner.concat().into_bytes(), stderr });
            }
            banner.push(line);
        }
        let address = banner[0]
            .split_once("http://")
            .and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok())
            .unwrap_or_else(|| panic!("no address in {banner:?}"));
        Ok(Server { child, address, banner, log, stdout, watch: Some(watch) })
    }
}

/// A running server; it is killed when this is dropped.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
    /// The first three lines on stdout.
    pub banner: Vec<String>,
    pub log: Arc<Log>,
    /// Kept open: a server whose stdout is gone is another test.
    stdout: BufReader<ChildStdout>,
    watch: Option<thread::JoinHandle<()>>,
}

impl Server {
    pub fn start(flags: &[&str]) -> Self {
        Launch::new(flags).start()
    }

    /// The address of the server API, where `--admin` was given: the line behind the banner.
    #[track_caller]
    pub fn admin_address(&mut self) -> SocketAddr {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("text");
        let address = line.trim().strip_prefix("server API on http://");
        address.and_then(|address| address.parse().ok()).unwrap_or_else(|| panic!("{line:?}"))
    }

    pub fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("it runs");
    }

    /// Whether the process catches this signal.
    pub fn handles(&self, signal: Signal) -> bool {
        let text = self.proc("status");
        let caught = text.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        caught.is_some_and(|mask| mask & 1 << (signal.as_raw() - 1) != 0)
    }

    /// Everything the server has counted, by name; what is zero is absent.
    #[track_caller]
    pub fn counters(&self) -> BTreeMap<String, u64> {
        let from = self.log.len();
        self.signal(Signal::USR1);
        let line = self.log.wait_for(from, |line| line["message"] == "counters");
        parse_counters(line["counters"].as_str().expect("a text"))
    }

    #[track_caller]
    pub fn counter(&self, name: &str) -> u64 {
        self.counters().get(name).copied().unwrap_or_default()
    }

    #[track_caller]
    pub fn wait_for_counter(&self, name: &str, value: u64) {
        let mut last = 0;
        let reached = eventually(PATIENCE, || {
            last = self.counter(name);
            last >= value
        });
        assert!(reached, "{name} is {last}, not {value}");
    }

    /// Connections that the server knows of.
    #[track_caller]
    pub fn connections(&self) -> u64 {
        let from = self.log.len();
        self.signal(Signal::USR1);
        let line = self.log.wait_for(from, |line| line["message"] == "counters");
        line["connections"].as_u64().expect("a number")
    }

    #[track_caller]
    pub fn wait_for_connections(&self, wanted: u64) {
        let mut last = 0;
        let reached = eventually(PATIENCE, || {
            last = self.connections();
            last == wanted
        });
        assert!(reached, "{last} connections, not {wanted}");
    }

    /// Bytes of physical memory.
    pub fn rss(&self) -> u64 {
        let text = self.proc("smaps_rollup");
        let line = text.lines().find_map(|line| line.strip_prefix("Rss:"));
        let kilobytes: Option<u64> =
            line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok());
        1024 * kilobytes.unwrap_or_else(|| panic!("no Rss in {text}"))
    }

    /// Processor time of all threads that live.
    pub fn cpu_time(&self) -> Duration {
        let nanoseconds = self.threads().into_iter().map(|id| {
            let text = self.proc(&format!("task/{id}/schedstat"));
            let first = text.split_whitespace().next();
            first.and_then(|number| number.parse().ok()).unwrap_or(0)
        });
        Duration::from_nanos(nanoseconds.sum())
    }

    pub fn open_files(&self) -> usize {
        let folder = format!("/proc/{}/fd", self.child.id());
        fs::read_dir(folder).expect("it runs").count()
    }

    /// The thread with that name.
    pub fn find_thread(&self, name: &str) -> Option<i32> {
        let is_named = |id: &i32| self.proc(&format!("task/{id}/comm")).trim() == name;
        self.threads().into_iter().find(is_named)
    }

    /// The connections of each event loop, as the kernel knows them: what each epoll instance
    /// watches, without the listener and the waker; or the receives under way in each io_uring.
    pub fn connections_by_shard(&self) -> Vec<usize> {
        let folder = format!("/proc/{}/fdinfo", self.child.id());
        let entries = fs::read_dir(folder).expect("it runs");
        entries
            .filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok())
            .filter_map(|text| {
                let count = |start| text.lines().filter(|line| line.starts_with(start)).count();
                match count("PollList:") {
                    0 => count("tfd:").checked_sub(2),
                    _ => Some(count("  op=27,")),
                }
            })
            .collect()
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// A file of `/proc` about this process.
    pub fn proc(&self, name: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{name}", self.child.id())).unwrap_or_default()
    }

    /// Waits for its end and the last line of its log.
    #[track_caller]
    pub fn wait_for_exit(&mut self, patience: Duration) -> ExitStatus {
        let mut status = None;
        let ended = eventually(patience, || {
            status = self.child.try_wait().expect("it is our child");
            status.is_some()
        });
        assert!(ended, "it still runs after {patience:?}");
        if let Some(watch) = self.watch.take() {
            watch.join().expect("no panics");
        }
        status.expect("it ended")
    }

    fn threads(&self) -> Vec<i32> {
        let folder = format!("/proc/{}/task", self.child.id());
        let entries = fs::read_dir(folder).expect("it runs");
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
    }
}

/// Ends it as no program can notice.
#[track_caller]
pub fn kill(mut server: Server) {
    server.signal(Signal::KILL);
    server.wait_for_exit(PATIENCE);
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
        if let Some(watch) = self.watch.take() {
            drop(watch.join());
        }
        let lines = self.log.lines();
        let panicked = lines.iter().find(|line| line.contains("panicked"));
        if thread::panicking() {
            let last = &lines[lines.len().saturating_sub(10)..];
            eprintln!("the last lines of the server's log:\n{}", last.join("\n"));
        } else if let Some(line) = panicked {
            panic!("the server: {line}");
        }
    }
}

/// Runs `stentor` to its end.
pub fn run(arguments: &[&str]) -> Output {
    run_with(arguments, &[], "")
}

/// Runs `stentor` to its end with these variables and this stdin.
pub fn run_with(arguments: &[&str], environment: &[(&str, &str)], stdin: &str) -> Output {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).env_clear().envs(environment.iter().copied());
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().expect("the binary starts");
    let mut input = child.stdin.take().expect("it is piped");
    // It need not read what it has no use for.
    drop(input.write_all(stdin.as_bytes()));
    drop(input);
    wait_until("the command ends", || child.try_wait().expect("it is our child").is_some());
    let output = child.wait_with_output().expect("it ended");
    assert_eq!(output.status.signal(), None, "it ended by itself");
    output
}
