//! What somebody may have meant by a name that is none of ours: the other half of an error's
//! sentence.

use super::keys::{self, ENVIRONMENT_PREFIX, SECTIONS};
use super::raw::CONFIG_VARIABLE;

/// Names that other servers have for a key of ours.
const HABITS: [(&str, &str); 10] = [
    ("port", "server.listen"),
    ("host", "server.listen"),
    ("address", "server.listen"),
    ("addr", "server.listen"),
    ("bind", "server.listen"),
    ("hostname", "server.listen"),
    ("workers", "server.shards"),
    ("worker_processes", "server.shards"),
    ("threads", "server.shards"),
    ("processes", "server.shards"),
];

/// For a key of the file or of `--set`; `valid` are the paths that it may be a slip for.
pub fn for_key(path: &str, valid: &[String]) -> String {
    match habit(path).filter(|meant| valid.iter().any(|path| path == meant)) {
        Some(meant) => {
            let field = keys::find(meant).map(|key| key.field.expected());
            format!("the key for that is `{meant}`: {}", field.unwrap_or_default())
        }
        None => match nearest(path, valid.iter().map(String::as_str)) {
            Some(nearest) => format!("the nearest valid key is `{nearest}`"),
            None => "`stentor config --help` lists the valid keys".to_string(),
        },
    }
}

pub fn for_section(name: &str) -> String {
    match nearest(name, SECTIONS.into_iter()) {
        Some(nearest) => format!("the nearest valid section is [{nearest}]"),
        None => format!("the valid sections are [{}]", SECTIONS.join("], [")),
    }
}

/// For a variable that starts with `STENTOR_`.
pub fn for_variable(name: &str) -> String {
    if name.starts_with(CONFIG_VARIABLE) {
        return format!("the nearest valid name is {CONFIG_VARIABLE}");
    }
    // The name of a section is one word, so that the first `_` ends it.
    let path = name.strip_prefix(ENVIRONMENT_PREFIX).unwrap_or(name).to_ascii_lowercase();
    let path = path.replacen('_', ".", 1);
    let variable = |path| keys::find(path).map(|key| key.environment_name());
    if let Some(meant) = habit(&path).and_then(variable) {
        return format!("the variable for that is {meant}");
    }
    match nearest(&path, keys::keys().map(|key| key.path)).and_then(variable) {
        Some(nearest) => format!("the nearest valid name is {nearest}"),
        None => "`stentor config --help` lists the keys".to_string(),
    }
}

fn habit(path: &str) -> Option<&'static str> {
    let found = HABITS.iter().find(|(habit, _)| *habit == leaf(path));
    found.map(|(_, meant)| *meant)
}

/// The candidate that looks most like `path`, if it is near: of its last segment a third at most is
/// wrong. A key in the wrong section is near.
fn nearest<'a>(path: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let is_near = |candidate: &&'a str| {
        let (one, other) = (leaf(path), leaf(candidate));
        let length = one.chars().count().max(other.chars().count());
        3 * strsim::damerau_levenshtein(one, other) <= length
    };
    let likeness = |candidate: &&'a str| {
        let whole = strsim::normalized_damerau_levenshtein(path, candidate);
        let leaves = strsim::normalized_damerau_levenshtein(leaf(path), leaf(candidate));
        whole.max(0.95 * leaves)
    };
    candidates.filter(is_near).max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
}

fn leaf(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(path: &str) -> String {
        let valid: Vec<_> = keys::keys().map(|key| key.path.to_string()).collect();
        for_key(path, &valid)
    }

    #[test]
    fn only_what_is_near_is_suggested() {
        for (path, meant) in [
            ("server.shard", "server.shards"),
            ("shards", "server.shards"),
            ("server.max_topics", "limits.max_topics"),
            ("limits.max_mesage_size", "limits.max_message_size"),
            ("heartbeat.intervall", "heartbeat.interval"),
        ] {
            assert_eq!(key(path), format!("the nearest valid key is `{meant}`"));
        }
        for path in ["server.tls", "limits.nonsense", "server.pun_intended", "x", ""] {
            assert_eq!(key(path), "`stentor config --help` lists the valid keys", "{path}");
        }
        assert_eq!(for_section("limit"), "the nearest valid section is [limits]");
        assert!(for_section("tls").starts_with("the valid sections are [server], [limits], "));
    }

    #[test]
    fn the_habits_of_other_servers_are_known() {
        for path in ["server.port", "port", "server.host", "limits.address", "bind"] {
            let hint = key(path);
            assert!(hint.starts_with("the key for that is `server.listen`: an address"), "{hint}");
        }
        assert!(key("server.workers").starts_with("the key for that is `server.shards`: a whole"));
        assert!(key("threads").contains("`server.shards`"));
        for (_, meant) in HABITS {
            assert!(keys::find(meant).is_some(), "{meant}");
        }
        // In a namespace there is no such key.
        let hint = for_key("namespaces.chat.port", &["namespaces.chat.slow_consumer".to_string()]);
        assert_eq!(hint, "`stentor config --help` lists the valid keys");
    }

    #[test]
    fn variables_are_told_as_variables() {
        for (name, hint) in [
            ("STENTOR_SERVER_SHARD", "the nearest valid name is STENTOR_SERVER_SHARDS"),
            ("STENTOR_SHARDS", "the nearest valid name is STENTOR_SERVER_SHARDS"),
            ("STENTOR_LIMIT_MAX_TOPICS", "the nearest valid name is STENTOR_LIMITS_MAX_TOPICS"),
            ("STENTOR_CONFIG_FILE", "the nearest valid name is STENTOR_CONFIG"),
            ("STENTOR_PORT", "the variable for that is STENTOR_SERVER_LISTEN"),
            ("STENTOR_SERVER_PORT", "the variable for that is STENTOR_SERVER_LISTEN"),
            ("STENTOR_TLS_CERT", "`stentor config --help` lists the keys"),
        ] {
            assert_eq!(for_variable(name), hint, "{name}");
        }
    }
}
