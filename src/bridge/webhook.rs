//! Webhooks: a batch of messages in one signed POST.

use std::io;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit, Mac};
use hyper::{StatusCode, Uri};
use sha2::Sha256;
use tokio_rustls::TlsConnector;

use super::delivery;
use super::http::Client;
use super::target::{Failure, Target};
use crate::config::{Secret, Webhooks};
use crate::message::{BridgeMessage, BridgeOutcome};

/// An HTTP endpoint of the operator's.
pub struct Webhook {
    client: Client,
    secret: Option<Secret>,
}

impl Webhook {
    /// `tls`: if the URL is one of `https`.
    ///
    /// # Errors
    ///
    /// As [`Client::new`].
    pub fn new(url: &Uri, webhooks: &Webhooks, tls: Option<&TlsConnector>) -> io::Result<Self> {
        let client = Client::new(url, webhooks.timeout, tls)?;
        Ok(Self { client, secret: webhooks.secret.clone() })
    }
}

impl Target for Webhook {
    fn name(&self) -> &str {
        self.client.name()
    }

    async fn deliver(&mut self, batch: &[BridgeMessage]) -> Result<Vec<BridgeOutcome>, Failure> {
        let body = Bytes::from(delivery::body(batch));
        let signature = self.secret.as_ref().map(|secret| sign(secret, &body));
        let exchanged = self.client.post(body, signature.as_deref()).await;
        let (status, body) = exchanged.map_err(Failure::passing)?;
        if status.is_success() {
            return Ok(delivery::outcomes(batch, body.as_deref()));
        }
        let reason = format!("it answers {status}");
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            return Err(Failure::passing(reason));
        }
        Err(Failure::lasting(reason))
    }
}

/// The value of the header: `sha256=` and the HMAC of the body, in hexadecimal.
fn sign(secret: &Secret, body: &[u8]) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes());
    let mut mac = mac.expect("HMAC takes keys of any length");
    mac.update(body);
    format!("sha256={}", HEXLOWER.encode(&mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_that_of_rfc_2104() {
        // RFC 4231 has no key of 16 visible characters; this is what `openssl dgst -hmac` says.
        let secret = Secret::parse("0123456789abcdef").unwrap().unwrap();
        assert_eq!(
            sign(&secret, b"what is signed"),
            "sha256=abdd0f398a7a28785b3821761aa9e9e52cb600de4b3886cde0936fd4f298ecc8"
        );
    }
}
