//! The subprotocol `stentor.v1.protobuf` over real sockets, spoken by generated code.

#[rustfmt::skip]
#[path = "support/envelope.rs"]
#[allow(clippy::all, dead_code)]
mod envelope;
mod support;

use std::fs;
use std::path::Path;

/// What `prost` makes of the schema stands in the repository, so that no build needs a generator.
#[test]
fn the_generated_code_is_that_of_the_schema() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (schema, generated) = ("src/proto/protobuf/stentor.proto", "tests/support/envelope.rs");
    let folder = tempfile::tempdir().expect("a folder");
    let files = protox::compile([root.join(schema)], [root.join("src/proto/protobuf")])
        .expect("the schema is one");
    let mut config = prost_build::Config::new();
    config.out_dir(folder.path()).compile_fds(files).expect("code is made of it");
    let fresh = fs::read_to_string(folder.path().join("stentor.v1.rs")).expect("it is there");
    if std::env::var_os("STENTOR_GENERATE").is_some() {
        fs::write(root.join(generated), &fresh).expect("it is ours");
    }
    let kept = fs::read_to_string(root.join(generated)).expect("it is there");
    assert!(fresh == kept, "run this with STENTOR_GENERATE=1 after a change of {schema}");
}
