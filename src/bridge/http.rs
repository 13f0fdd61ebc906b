//! One HTTP/1.1 connection to one URL, kept from request to request.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

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
    /// With the name that the server must prove to have; `None`: nothing is encrypted.
    tls: Option<(TlsConnector, ServerName<'static>)>,
    /// Whose last response was read whole.
    idle: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    /// The URL has a host: the configuration has checked that. `tls`: if it is one of `https`.
    ///
    /// # Errors
    ///
    /// Nobody can prove to be this host.
    pub fn new(url: &Uri, timeout: Duration, tls: Option<&TlsConnector>) -> io::Result<Self> {
        let host = url.host().unwrap_or_default().trim_matches(['[', ']']).to_string();
        let authority = url.authority().map(ToString::to_string).unwrap_or_default();
        let path = url.path_and_query().map_or("/", |path| path.as_str()).to_string();
        let (scheme, port) = if tls.is_some() { ("https", 443) } else { ("http", 80) };
        let name = format!("{scheme}://{authority}{}", url.path());
        let port = url.port_u16().unwrap_or(port);
        let tls = match tls {
            Some(tls) => {
                let host = ServerName::try_from(host.clone()).map_err(|error| {
                    io::Error::other(format!("no certificate can be for `{host}`: {error}"))
                })?;
                Some((tls.clone(), host))
            }
            None => None,
        };
        Ok(Self { host, port, authority, path, name, timeout, tls, idle: None })
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
        match &self.tls {
            None => begin(stream).await,
            Some((tls, host)) => {
                let secured = tls.connect(host.clone(), stream).await;
                begin(secured.map_err(|error| format!("no TLS: {error}"))?).await
            }
        }
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

/// HTTP on a stream.
async fn begin<S>(stream: S) -> Result<SendRequest<Full<Bytes>>, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut http = http1::Builder::new();
    http.max_buf_size(HEAD_BYTES_MAX);
    let shaken = http.handshake(TokioIo::new(stream)).await;
    let (sender, connection) = shaken.map_err(|error| text(&error))?;
    // It ends with its sender.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

/// An error with its cause.
fn text(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
