//! An HTTP server that a test holds in its hand: it sees each request, and says when and what is answered.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

use super::PATIENCE;

/// The end of a webhook.
pub struct Hook {
    pub address: SocketAddr,
    scheme: &'static str,
    calls: Receiver<Call>,
}

/// One request, which waits for its answer.
pub struct Call {
    /// The request line and the fields, each on a line.
    pub head: String,
    pub body: String,
    answer: Sender<(u16, String)>,
}

impl Hook {
    pub fn open() -> Self {
        Self::accept(None)
    }

    /// Encrypted, with a certificate of [`authority`].
    pub fn open_secure() -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let certificate =
            CertificateDer::from_pem_file(tls_file("cert.pem")).expect("a certificate");
        let key = PrivateKeyDer::from_pem_file(tls_file("key.pem")).expect("a key");
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("there are some")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("they belong together");
        Self::accept(Some(Arc::new(config)))
    }

    fn accept(tls: Option<Arc<ServerConfig>>) -> Self {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("it has one");
        let (sender, calls) = channel();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (sender, tls) = (sender.clone(), tls.clone());
                thread::spawn(move || match tls {
                    None => serve(stream, &sender),
                    Some(tls) => {
                        let connection = ServerConnection::new(tls).expect("it is configured");
                        serve(StreamOwned::new(connection, stream), &sender);
                    }
                });
            }
        });
        Self { address, scheme, calls }
    }

    /// The value of a route that leads here.
    pub fn route(&self) -> String {
        format!("webhook:{}://{}/hook", self.scheme, self.address)
    }

    #[track_caller]
    pub fn call(&self) -> Call {
        self.calls.recv_timeout(PATIENCE).expect("a request comes")
    }

    /// Whether nothing has come that was not looked at.
    pub fn is_idle(&self) -> bool {
        self.calls.try_recv().is_err()
    }
}

impl Call {
    /// The value of a field of the head.
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    #[track_caller]
    pub fn messages(&self) -> Vec<Value> {
        let body: Value = serde_json::from_str(&self.body).expect("JSON");
        body["messages"].as_array().expect("messages").clone()
    }

    pub fn answer(self, status: u16, body: &str) {
        // The server may have given up.
        drop(self.answer.send((status, body.to_owned())));
    }
}

/// The file of those who sign the certificate of [`Hook::open_secure`].
pub fn authority() -> PathBuf {
    tls_file("ca.pem")
}

fn tls_file(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/server/support/tls", name].iter().collect()
}

/// The requests of one connection; without an answer it ends.
fn serve(mut stream: impl Read + Write, calls: &Sender<Call>) {
    while let Some((head, body)) = read_request(&mut stream) {
        let (answer, answers) = channel();
        if calls.send(Call { head, body, answer }).is_err() {
            return;
        }
        let Ok((status, body)) = answers.recv() else { return };
        let response = format!(
            "HTTP/1.1 {status} x\r\nContent-Length: {}\r\nContent-Type: application/json\r\n\r\n{body}",
            body.len()
        );
        if stream.write_all(response.as_bytes()).is_err() {
            return;
        }
    }
}

fn read_request(stream: &mut impl Read) -> Option<(String, String)> {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        if let Some(end) = bytes.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let head = String::from_utf8(bytes[..end].to_vec()).expect("a head is text");
            let length = head
                .to_lowercase()
                .lines()
                .find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
            let body = bytes.get(end + 4..end + 4 + length.unwrap_or_default());
            if let Some(body) = body {
                return Some((head, String::from_utf8(body.to_vec()).expect("text")));
            }
        }
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return None,
            Ok(count) => bytes.extend_from_slice(&piece[..count]),
        }
    }
}
