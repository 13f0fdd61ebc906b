//! The listening sockets: one per shard on the same address, so that the kernel spreads connections.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that wait for `accept`; the kernel cuts this to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Kernel buffer for what a connection is sent. Without a fixed size each slow reader could grow it
/// to 4 MiB, out of reach of the slow-consumer policies. The kernel doubles the number.
const SEND_BUFFER_BYTES: usize = 128 << 10;

/// Binds `count` listeners to one address. With port 0 the first one chooses it.
///
/// `SO_REUSEPORT` would let a second server join silently, so the address is first tried without it:
/// an address in use is an error, as everywhere else.
pub fn bind(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    let probe = socket(address)?;
    probe.bind(&address.into())?;
    let address = local_address(&probe)?;
    drop(probe);
    (0..count)
        .map(|_| {
            let socket = socket(address)?;
            socket.set_reuse_port(true)?;
            // Accepted sockets inherit these: no system call per connection.
            socket.set_tcp_nodelay(true)?;
            socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
            defer_accept(&socket)?;
            socket.bind(&address.into())?;
            socket.listen(BACKLOG)?;
            socket.set_nonblocking(true)?;
            Ok(TcpListener::from(socket))
        })
        .collect()
}

/// Has the kernel keep a connection to itself until its first bytes are there: clients speak first in
/// HTTP and in TLS. That saves a wake-up per connection. A silent one is handed over after a second,
/// when the kernel asks it again (tcp(7), `TCP_DEFER_ACCEPT`); its time-out begins then.
fn defer_accept(socket: &Socket) -> io::Result<()> {
    let seconds: libc::c_int = 1;
    // SAFETY: the kernel reads an int at this address, during the call only.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            (&raw const seconds).cast(),
            size_of_val(&seconds) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart need not wait for the TIME_WAIT of its predecessor's connections.
    socket.set_reuse_address(true)?;
    Ok(socket)
}

fn local_address(socket: &Socket) -> io::Result<SocketAddr> {
    socket.local_addr()?.as_socket().ok_or_else(|| io::Error::other("not an IP address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_share_one_address_and_nobody_else_gets_it() {
        let listeners = bind("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        let address = listeners[0].local_addr().unwrap();
        assert!(listeners.iter().all(|listener| listener.local_addr().unwrap() == address));
        assert_eq!(bind(address, 1).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
