//! What clients may send in protobuf, from the schema itself: each field with its number and its form, and
//! bytes of any form.

use std::collections::BTreeMap;
use std::path::Path;

/// Bodies that only the server sends: whatever is in them is not read.
const SERVERS: [&str; 8] = [
    "publication",
    "confirmation",
    "error",
    "response",
    "welcome",
    "session_restored",
    "gap",
    "presence",
];
const ENVELOPE: &str = ".stentor.v1.Envelope";

/// The messages by their names.
pub struct Schema(BTreeMap<String, Vec<Field>>);

#[derive(Debug, Clone)]
pub struct Field {
    pub name: String,
    pub number: u32,
    pub kind: Kind,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    Number,
    Text,
    Bytes,
    /// By its name.
    Message(String),
}

impl Kind {
    pub fn wire_type(&self) -> u32 {
        if *self == Self::Number { 0 } else { 2 }
    }
}

impl Schema {
    /// That of the repository.
    pub fn read() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/proto/protobuf");
        let files = protox::compile([folder.join("stentor.proto")], [folder]).expect("a schema");
        let mut messages = BTreeMap::new();
        let mut waiting: Vec<_> = files.file.into_iter().flat_map(|it| it.message_type).collect();
        for message in &mut waiting {
            message.name = Some(format!(".stentor.v1.{}", message.name()));
        }
        while let Some(message) = waiting.pop() {
            let field = message.field.iter().map(|field| Field {
                name: field.name().to_owned(),
                number: field.number() as u32,
                kind: match field.r#type().as_str_name() {
                    "TYPE_STRING" => Kind::Text,
                    "TYPE_BYTES" => Kind::Bytes,
                    "TYPE_MESSAGE" => Kind::Message(field.type_name().to_owned()),
                    _ => Kind::Number,
                },
            });
            messages.insert(message.name().to_owned(), field.collect());
            let name = message.name().to_owned();
            waiting.extend(message.nested_type.into_iter().map(|mut nested| {
                nested.name = Some(format!("{name}.{}", nested.name()));
                nested
            }));
        }
        Self(messages)
    }

    /// The fields of the envelope with what clients send in one.
    pub fn requests(&self) -> impl Iterator<Item = &Field> {
        let bodies = self.fields(ENVELOPE).iter();
        bodies.filter(|field| field.number >= 10 && !SERVERS.contains(&&*field.name))
    }

    /// Every field that a client may send, with the numbers of those that it is in.
    pub fn visit_requests(&self, visit: &mut impl FnMut(&[u32], &Field)) {
        let around = self.fields(ENVELOPE).iter().filter(|field| field.number < 10);
        for field in around.chain(self.requests()) {
            self.visit(&mut Vec::new(), field, visit);
        }
    }

    fn visit(&self, path: &mut Vec<u32>, field: &Field, visit: &mut impl FnMut(&[u32], &Field)) {
        visit(path, field);
        if let Kind::Message(message) = &field.kind {
            path.push(field.number);
            for inner in self.fields(message) {
                self.visit(path, inner, visit);
            }
            path.pop();
        }
    }

    /// Each field of a message, with something in it.
    pub fn samples(&self, message: &str) -> Vec<Vec<u8>> {
        let sample = |of: &Field| match &of.kind {
            Kind::Number => field(of.number, 0, b"\x01"),
            Kind::Text | Kind::Bytes => field(of.number, 2, b"\x03a:b"),
            Kind::Message(inner) => within(&[of.number], self.samples(inner).concat()),
        };
        self.fields(message).iter().map(sample).collect()
    }

    fn fields(&self, message: &str) -> &[Field] {
        self.0.get(message).unwrap_or_else(|| panic!("no {message}"))
    }
}

/// A field with this behind its key.
pub fn field(number: u32, wire_type: u32, content: &[u8]) -> Vec<u8> {
    [&varint((number << 3 | wire_type) as usize), content].concat()
}

/// The content of the innermost of these fields, each in the one before.
pub fn within(path: &[u32], content: Vec<u8>) -> Vec<u8> {
    let inner = |content: Vec<u8>, number: &u32| field(*number, 2, &delimited(&content));
    path.iter().rev().fold(content, inner)
}

/// Behind its length.
pub fn delimited(content: &[u8]) -> Vec<u8> {
    [&varint(content.len()), content].concat()
}

fn varint(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}
