//! The server that a client command talks to, and who it is there.

use crate::client::{Client, ClientError, DEFAULT_URL};
use crate::config::raw::TOKEN_VARIABLE;
use clap::Args;
use std::env;

#[derive(Args)]
pub struct Remote {
    /// The server
    #[arg(long, default_value = DEFAULT_URL)]
    url: String,
    /// Authenticate with this token; others on this machine can see it here, in STENTOR_TOKEN they
    /// cannot [env: STENTOR_TOKEN]
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
}

impl Remote {
    pub fn connect(&self) -> Result<Client, ClientError> {
        let variable = env::var(TOKEN_VARIABLE).ok().filter(|token| !token.is_empty());
        match self.token.clone().or(variable) {
            Some(token) => Client::connect_as(&self.url, &token),
            None => Client::connect(&self.url),
        }
    }
}
