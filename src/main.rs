//! From errors to exit codes: 0 done, 1 failed, 2 (by clap) not understood.

use std::process::ExitCode;

fn main() -> ExitCode {
    stentor::cli::run().unwrap_or_else(|error| {
        let mut text = error.to_string();
        for cause in error.chain().skip(1).map(ToString::to_string) {
            // Some errors tell their cause themselves.
            if !text.contains(&cause) {
                text = format!("{text}: {cause}");
            }
        }
        eprintln!("error: {text}");
        ExitCode::FAILURE
    })
}
