//! The ring against the kernel's corners: short sends, no buffer, more completions than there is room
//! for, cancelled requests.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use socket2::{Domain, Socket, Type};

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

fn ring(buffers: u16) -> Ring {
    let ring = Ring::new(RingOptions { slots: None, buffers, accepts: 4 });
    ring.expect("this kernel has io_uring")
}

/// Two ends of one connection.
fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    server.set_nodelay(true).unwrap();
    client.set_nodelay(true).unwrap();
    (server, client)
}

fn file(stream: &TcpStream) -> File {
    File::Descriptor(stream.as_raw_fd())
}

/// Waits for the next completion.
fn wait(ring: &mut Ring) -> Completion {
    for _ in 0..1000 {
        ring.enter(Some(PATIENCE / 1000)).unwrap();
        if let Some(completion) = ring.take() {
            return completion;
        }
    }
    panic!("no completion within {PATIENCE:?}");
}

fn errno(completion: &Completion) -> Option<Errno> {
    let error = completion.result.as_ref().err()?;
    error.raw_os_error().map(Errno::from_raw_os_error)
}

#[test]
fn a_full_socket_takes_a_part_then_nothing_then_has_room() {
    static MUCH: [u8; 32 << 20] = [7; 32 << 20];
    let (server, mut client) = pair();
    let mut ring = ring(4);
    ring.send_static(file(&server), &MUCH, 1);
    let sent = wait(&mut ring).result.unwrap() as usize;
    assert!(sent > 0 && sent < MUCH.len(), "{sent}");
    ring.send_static(file(&server), &MUCH[sent..], 2);
    let mut refused = wait(&mut ring);
    let mut total = sent;
    // The peer's kernel may have made room meanwhile.
    while let Ok(count) = refused.result {
        total += count as usize;
        ring.send_static(file(&server), &MUCH[total..], 2);
        refused = wait(&mut ring);
    }
    assert_eq!(errno(&refused), Some(Errno::AGAIN));
    ring.await_room(file(&server), 3);
    let mut received = vec![0; total];
    client.read_exact(&mut received).unwrap();
    let room = wait(&mut ring);
    assert_eq!((room.user_data, room.result.is_ok()), (3, true));
}

#[test]
fn without_a_buffer_a_receive_ends_and_nothing_is_lost() {
    const MESSAGE: usize = 100;
    let (server, mut client) = pair();
    let mut ring = ring(2);
    ring.receive(file(&server), 1);
    ring.enter(None).unwrap();
    let mut held = Vec::new();
    let mut received = 0;
    let mut starved = false;
    for round in 0..4 {
        client.write_all(&[round; MESSAGE]).unwrap();
        let completion = wait(&mut ring);
        if errno(&completion) == Some(Errno::NOBUFS) {
            assert!(!completion.more);
            starved = true;
            break;
        }
        received += completion.result.unwrap() as usize;
        held.extend(completion.buffer);
    }
    assert!(starved && held.len() == 2, "{held:?}");
    for buffer in held.drain(..) {
        ring.recycle(buffer);
    }
    ring.receive(file(&server), 1);
    while received < 3 * MESSAGE {
        let completion = wait(&mut ring);
        received += completion.result.unwrap() as usize;
        let buffer = completion.buffer.expect("bytes come in a buffer");
        assert!(ring.bytes(&buffer).iter().all(|byte| *byte == 2));
        ring.recycle(buffer);
    }
    assert_eq!(received, 3 * MESSAGE);
}

#[test]
fn more_completions_than_there_is_room_for_all_come() {
    const COUNT: u64 = 3 * COMPLETIONS_MAX as u64;
    let (server, _client) = pair();
    let mut ring = ring(2);
    for number in 0..COUNT {
        // Nothing has this number: each is answered at once.
        ring.cancel(u64::MAX, number);
    }
    drop(server);
    let mut seen = vec![false; COUNT as usize];
    for _ in 0..COUNT {
        let completion = wait(&mut ring);
        assert_eq!(errno(&completion), Some(Errno::NOENT));
        assert!(!std::mem::replace(&mut seen[completion.user_data as usize], true));
    }
    assert!(ring.take().is_none());
}

#[test]
fn a_cancelled_receive_ends_once_and_its_file_can_be_closed() {
    let (server, mut client) = pair();
    let mut ring = ring(2);
    ring.receive(file(&server), 1);
    ring.enter(None).unwrap();
    ring.cancel(1, 2);
    let mut ends = [wait(&mut ring), wait(&mut ring)].map(|end| (end.user_data, end.more));
    ends.sort_unstable();
    assert_eq!(ends, [(1, false), (2, false)]);
    drop(server);
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0, "nothing holds it open");
}

#[test]
fn accepts_have_the_addresses_of_their_peers() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut ring = ring(2);
    for place in 0..4 {
        ring.accept(listener.as_fd(), place, u64::from(place));
    }
    ring.enter(None).unwrap();
    let address = listener.local_addr().unwrap();
    let clients: Vec<_> = (0..4).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut files = Vec::new();
    let mut peers: Vec<_> = (0..4)
        .map(|_| {
            let accepted = wait(&mut ring);
            let file = ring.accepted_file(accepted.result.unwrap());
            files.push(file);
            ring.peer(accepted.user_data as u16).unwrap()
        })
        .collect();
    for file in files {
        ring.close(file, 9);
        assert_eq!(wait(&mut ring).user_data, 9);
    }
    let mut expected: Vec<_> = clients.iter().map(|client| client.local_addr().unwrap()).collect();
    peers.sort_unstable();
    expected.sort_unstable();
    assert_eq!(peers, expected);
}

#[test]
fn an_event_tells_of_another_ring_only_while_that_is_wanted() {
    let event = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
    let (server, mut client) = pair();
    let mut ring = ring(4);
    ring.notify(event.as_fd()).unwrap();
    ring.set_notifying(false);
    ring.receive(file(&server), 1);
    ring.enter(None).unwrap();
    ring.set_notifying(true);
    client.write_all(b"x").unwrap();
    let mut files = [PollFd::new(&event, PollFlags::IN)];
    let timeout = Timespec::try_from(PATIENCE).unwrap();
    assert_eq!(poll(&mut files, Some(&timeout)).unwrap(), 1);
    assert_eq!(wait(&mut ring).result.unwrap(), 1);
}

#[test]
fn addresses_of_dials_outlive_a_full_queue() {
    /// Three requests each: some find the queue full.
    const DIALS: u32 = REQUESTS_MAX;
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    listener.listen(DIALS as i32).unwrap();
    let target = listener.local_addr().unwrap().as_socket().unwrap();
    let options = RingOptions { slots: Some(DIALS), buffers: 4, accepts: 0 };
    let mut ring = Ring::new(options).expect("this kernel has io_uring");
    let source = |slot: u32| Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 1, 0, 1)) + slot);
    for slot in 0..DIALS {
        ring.dial(slot, SocketAddr::from((source(slot), 0)), target, slot.into());
    }
    let mut dialed: Vec<_> = (0..DIALS).map(|_| wait(&mut ring)).collect();
    dialed.sort_by_key(|completion| completion.user_data);
    for (slot, completion) in (0..).zip(dialed) {
        assert!(completion.result.is_ok() && completion.user_data == slot, "{completion:?}");
    }
    let peers = (0..DIALS).map(|_| listener.accept().unwrap().1.as_socket_ipv4().unwrap());
    let peers: BTreeSet<_> = peers.map(|peer| *peer.ip()).collect();
    assert_eq!(peers, (0..DIALS).map(source).collect());
}
