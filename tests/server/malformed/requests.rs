//! Requests in JSON, and what may stand in each of their places.

use serde_json::Value;

/// A request, and its places: each with the kinds of values that may stand there.
///
/// `n` null, `b` a truth, `i` a whole number, `-` a negative one, `f` a fraction, `s` text, `r` a string of
/// any escapes (then with `s`), `a` an array, `o` an object. `!`: something must stand there. `=` what is
/// wrong there is refused with, in place of `invalid_message`.
const REQUESTS: &[(&str, &str)] = &[
    (
        r#"{"id":"r","action":"subscribe","channel":"a","since":1,"limit":5}"#,
        "id:i-sr action:s! channel:s! since:i limit:i",
    ),
    (
        r#"{"id":"r","action":"subscribe","channel":"a","recover":{"epoch":"e","offset":1}}"#,
        "recover:o recover.epoch:s! recover.offset:i!",
    ),
    (r#"{"id":"r","action":"unsubscribe","channel":"a"}"#, "id:i-sr channel:s!"),
    (r#"{"id":"r","action":"unsubscribe","subscriptionId":1}"#, "subscriptionId:i!"),
    (
        r#"{"id":"r","action":"publish","channel":"a","data":1,"echo":false,"messageId":"m"}"#,
        "id:i-sr channel:s! data:nbi-fsrao! echo:b messageId:sr",
    ),
    (
        r#"{"id":"r","action":"publish","channel":"a","data":1,"filter":"x"}"#,
        "channel:s! data:nbi-fsrao! filter:sr",
    ),
    (
        r#"{"id":"r","action":"publish","channel":"a","data":1,"tags":{"plan":"pro"}}"#,
        "channel:s! data:nbi-fsrao! tags:o tags.plan:s",
    ),
    (r#"{"id":"r","action":"subscribe","channel":"a","filter":"x"}"#, "channel:s! filter:s"),
    (
        r#"{"id":"r","action":"publish","channel":"a","data":1,"to":{"user":"u"}}"#,
        "id:i-sr channel:s! data:nbi-fsrao! to:o to.user:s!",
    ),
    (
        r#"{"id":"r","action":"publish","channel":"a","data":1,"to":{"users":["u"],"except":{"users":["v"],"connections":["c"]}}}"#,
        "channel:s! data:nbi-fsrao! to:o to.users:! to.except:o to.except.users:a to.except.connections:a",
    ),
    (
        r#"{"id":"r","action":"publish","channel":"a","data":1,"to":{"everybody":true}}"#,
        "channel:s! data:nbi-fsrao! to:o to.everybody:b!",
    ),
    (r#"{"id":"r","type":"ping","timestamp":5}"#, "id:i-sr type:s! timestamp:i-fsr"),
    (r#"{"id":"r","type":"auth","payload":{"token":"t"}}"#, "id:i-sr payload:o! payload.token:s!"),
    (
        r#"{"id":"r","type":"query","payload":{"resource":"history","parameters":{"channel":"a","since":1,"until":2,"limit":3,"reverse":true}}}"#,
        "id:i-sr payload:o! payload.resource:s! payload.parameters:o! payload.parameters.channel:s! \
         payload.parameters.since:i payload.parameters.until:i payload.parameters.limit:i \
         payload.parameters.reverse:b",
    ),
    (
        r#"{"id":"r","type":"query","payload":{"resource":"presence","parameters":{"channel":"a","limit":3,"after":4}}}"#,
        "payload.parameters:o! payload.parameters.channel:s! payload.parameters.limit:i \
         payload.parameters.after:i",
    ),
    (
        r#"{"id":"r","type":"query","payload":{"resource":"room","parameters":{"room":"a"}}}"#,
        "payload.parameters:o payload.parameters.room:s",
    ),
    (
        r#"{"id":"r","type":"query","payload":{"resource":"weather","parameters":1}}"#,
        "payload:o! payload.resource:s! payload.parameters:nbi-fsrao",
    ),
    (
        r#"{"id":"r","type":"event","timestamp":1,"sender":"x","version":"1.0","echo":false,"messageId":"m","channel":"e","payload":{"event":"e","data":1}}"#,
        "id:i-sr timestamp:i-fsr sender:s version:s=unsupported_version echo:b messageId:sr channel:s \
         offset: deliveryId: payload:o! payload.event:s! payload.data:nbi-fsrao",
    ),
    (
        r#"{"id":"r","type":"text","timestamp":1,"sender":"x","version":"1.0","echo":false,"messageId":"m","channel":"c","payload":{"content":"x"}}"#,
        "id:i-sr timestamp:i-fsr sender:s version:s=unsupported_version echo:b messageId:sr channel:s \
         offset: deliveryId: payload:o!",
    ),
    (
        r#"{"id":"r","type":"image","metadata":{"channel":"c"},"payload":{}}"#,
        "metadata:o metadata.channel:s payload:o!",
    ),
    (r#"{"id":"r","type":"file","channel":"c","payload":{}}"#, "channel:s payload:o!"),
    (r#"{"id":"r","type":"ack","messageId":"0000000000000001-1"}"#, "id:i-sr messageId:!"),
    (r#"{"id":"r","type":"ack","channel":"a","offset":1}"#, "id:i-sr channel:s! offset:i!"),
    (
        r#"{"id":"r","type":"restore_session","sessionId":"s","connectionId":"c","positions":{"a":1,"b":{"epoch":"e","offset":1}}}"#,
        "id:i-sr sessionId:s! connectionId:s! positions:o positions.a:i positions.b:i \
         positions.b.epoch:s! positions.b.offset:i!",
    ),
    (r#"{"id":"r","type":"end_session","sessionId":"s"}"#, "id:i-sr sessionId:s!"),
    (
        r#"{"id":"r","type":"command","payload":{"action":"create_room","parameters":{"room":"a","name":"A","maxUsers":3,"metadata":{}}}}"#,
        "id:i-sr payload:o!=no_route payload.action:s!=no_route payload.parameters:o \
         payload.parameters.room:s payload.parameters.name:s payload.parameters.maxUsers:i \
         payload.parameters.metadata:o",
    ),
    (
        r#"{"id":"r","type":"command","version":"1.0","channel":"a","payload":{"action":"kick","target":"u"}}"#,
        "version:s=unsupported_version channel:s payload.target:s!",
    ),
    (
        r#"{"id":"r","type":"command","metadata":{"channel":"a"},"payload":{"action":"mute","parameters":{"target":"u"}}}"#,
        "metadata:o metadata.channel:s payload.parameters:o! payload.parameters.target:s!",
    ),
    (
        r#"{"id":"r","type":"command","payload":{"action":"unmute","parameters":{"room":"a","user":"u"}}}"#,
        "payload.parameters.room:s payload.parameters.user:s!",
    ),
    (r#"{"id":"r","type":"command","payload":{"action":"join","target":"a"}}"#, "payload.target:s"),
    (r#"{"id":"r","type":"dance","payload":1}"#, "id:i-sr type:s! payload:nbi-fsrao=no_route"),
];

pub struct Request {
    pub text: &'static str,
    pub places: Vec<Place>,
}

pub struct Place {
    /// From the message to it, with a point before each step but the first.
    pub path: &'static str,
    pub kinds: &'static str,
    pub is_required: bool,
    /// Of what is wrong there.
    pub code: String,
}

/// What becomes of a place.
#[derive(Debug, Clone, Copy)]
pub enum Edit {
    /// This JSON stands there.
    Replace(&'static str),
    Remove,
    Twice,
}

/// All of them.
pub fn requests() -> impl Iterator<Item = Request> {
    REQUESTS.iter().map(|(text, places)| {
        let places = places.split_whitespace().map(Place::read).collect();
        Request { text, places }
    })
}

impl Place {
    fn read(text: &'static str) -> Self {
        let (path, rest) = text.split_once(':').expect("a path");
        let (kinds, code) = rest.split_once('=').unwrap_or((rest, "invalid_message"));
        let is_required = kinds.ends_with('!');
        Self { path, kinds, is_required, code: code.to_owned() }
    }

    /// Whether what stands there must be Unicode.
    pub fn is_text(&self) -> bool {
        self.kinds.contains('s') && !self.kinds.contains('r')
    }
}

impl Request {
    pub fn has(&self, place: &Place) -> bool {
        self.value().pointer(&format!("/{}", place.path.replace('.', "/"))).is_some()
    }

    /// With one of its places changed.
    pub fn edited(&self, place: &Place, edit: Edit) -> String {
        edited(&self.value(), place.path, edit)
    }

    fn value(&self) -> Value {
        serde_json::from_str(self.text).expect("JSON")
    }
}

fn edited(value: &Value, path: &str, edit: Edit) -> String {
    let Value::Object(members) = value else { panic!("no object at {path}: {value}") };
    let (step, rest) = path.split_once('.').map_or((path, None), |(step, rest)| (step, Some(rest)));
    let member = |key: &str, json: &str| format!("{}:{json}", Value::from(key));
    let mut written = Vec::new();
    for (key, value) in members {
        let whole = member(key, &value.to_string());
        match (rest, edit) {
            _ if key != step => written.push(whole),
            (Some(rest), _) => written.push(member(key, &edited(value, rest, edit))),
            (None, Edit::Replace(json)) => written.push(member(key, json)),
            (None, Edit::Twice) => written.extend([whole.clone(), whole]),
            (None, Edit::Remove) => {}
        }
    }
    if let Edit::Replace(json) = edit
        && !members.contains_key(step)
    {
        written.push(member(step, json));
    }
    format!("{{{}}}", written.join(","))
}
