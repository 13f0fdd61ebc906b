//! One HTTP/1.1 connection to one URL, kept from request to request.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Bytes of the head of a response.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Bytes of the body of a response.
const BODY_BYTES_MAX: usize = 1 << 20;

const AGENT: &str = concat!("stentor/", env!("CARGO_PKG_VERSION"));

/// The status of a response and its body; `None`: that is too long, or broke off.
pub type Exchanged = (StatusCode, Option<Bytes>);

/// What requests go through.
pub struct Client {
    host: String,
    port: u16,
    /// As the `Host` field has it.
    authority: String,
    /// Path and query.
    path: String,
    /// Host and path; what stands in a query may be secret.
    name: String,
    /// From a request to its whole response.
    timeout: Duration,
    /// Whose last response was read whole.
    idle: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    /// The URL has a host and is one of `http`: the configuration has checked that.
    pub fn new(url: &Uri, timeout: Duration) -> Self {
        let host = url.host().unwrap_or_default().trim_matches(['[', ']']).to_string();
        let authority = url.authority().map(ToString::to_string).unwrap_or_default();
        let path = url.path_and_query().map_or("/", |path| path.as_str()).to_string();
        let name = format!("http://{authority}{}", url.path());
        let port = url.port_u16().unwrap_or(80);
        Self { host, port, authority, path, name, timeout, idle: None }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// # Errors
    ///
    /// Why there is no response; whether the request has arrived is not known.
    pub async fn post(
        &mut self,
        body: Bytes,
        signature: Option<&str>,
    ) -> Result<Exchanged, String> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(&self.path)
            .header(HOST, &self.authority)
            .header(USER_AGENT, AGENT)
            .header(CONTENT_TYPE, "application/json");
        if let Some(signature) = signature {
            request = request.header("X-Stentor-Signature", signature);
        }
        let request = request.body(Full::new(body)).map_err(|error| error.to_string())?;
        let timeout = self.timeout;
        match tokio::time::timeout(timeout, self.exchange(request)).await {
            Ok(exchanged) => exchanged,
            Err(_) => Err(format!("no response within {timeout:?}")),
        }
    }

    async fn exchange(&mut self, mut request: Request<Full<Bytes>>) -> Result<Exchanged, String> {
        if let Some(mut idle) = self.idle.take()
            && idle.ready().await.is_ok()
        {
            match idle.try_send_request(request).await {
                Ok(response) => return Ok(self.finish(idle, response).await),
                Err(mut error) => match error.take_message() {
                    // The server has ended the connection meanwhile, and saw nothing of this.
                    Some(unsent) => request = unsent,
                    None => return Err(text(error.error())),
                },
            }
        }
        let mut sender = self.connect().await?;
        let sent = sender.send_request(request).await;
        let response = sent.map_err(|error| text(&error))?;
        Ok(self.finish(sender, response).await)
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, String> {
        let stream = TcpStream::connect((&*self.host, self.port)).await;
        let stream = stream.map_err(|error| format!("cannot connect: {error}"))?;
        // Fails only on a socket that is no TCP socket.
        drop(stream.set_nodelay(true));
        let mut http = http1::Builder::new();
        http.max_buf_size(HEAD_BYTES_MAX);
        let shaken = http.handshake(TokioIo::new(stream)).await;
        let (sender, connection) = shaken.map_err(|error| text(&error))?;
        // It ends with its sender.
        tokio::spawn(async move { drop(connection.await) });
        Ok(sender)
    }

    async fn finish(
        &mut self,
        sender: SendRequest<Full<Bytes>>,
        response: Response<Incoming>,
    ) -> Exchanged {
        let (head, body) = response.into_parts();
        match Limited::new(body, BODY_BYTES_MAX).collect().await {
            Ok(body) => {
                self.idle = Some(sender);
                (head.status, Some(body.to_bytes()))
            }
            Err(_) => (head.status, None),
        }
    }
}

/// An error with its cause.
fn text(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
