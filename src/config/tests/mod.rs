//! Files, environment and flags against what they should mean, and what is said when they mean
//! nothing.

mod every_key;

use super::field::Field;
use super::keys::{SECTIONS, keys};
use super::*;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Sources that name their file `stentor.toml`, whatever folder it is in.
struct Written {
    folder: tempfile::TempDir,
    sources: Sources,
}

fn file(text: &str) -> Written {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stentor.toml");
    fs::write(&path, text).unwrap();
    Written { folder, sources: Sources { file: Some(path), ..Sources::default() } }
}

impl Written {
    fn environment(mut self, name: &str, text: &str) -> Self {
        self.sources.environment.insert(name.to_string(), text.to_string());
        self
    }

    fn flag(mut self, path: &str, text: &str) -> Self {
        let flag = format!("--set {path}");
        let (path, text) = (path.to_string(), text.to_string());
        self.sources.flags.push(Assignment { flag, path, text });
        self
    }

    fn load(&self) -> Loaded {
        self.sources.load().unwrap_or_else(|error| panic!("{error}"))
    }

    /// What is wrong, a line for each, without the folder.
    fn problems(&self) -> Vec<String> {
        match self.sources.load() {
            Err(ConfigError::Invalid(problems)) => {
                problems.iter().map(|problem| self.show(problem)).collect()
            }
            other => panic!("not refused: {other:?}"),
        }
    }

    fn show(&self, problem: &Problem) -> String {
        let folder: &Path = self.folder.path();
        problem.to_string().replace(&format!("{}/", folder.display()), "")
    }
}

#[test]
fn nothing_written_is_the_default() {
    let loaded = Sources::default().load().unwrap();
    assert_eq!(loaded.config, Config::default());
    assert!(loaded.origins.is_empty() && loaded.warnings.is_empty());
    assert_eq!(file("").load().config, Config::default());
}

#[test]
fn the_server_api_needs_a_key_off_loopback() {
    for address in ["0.0.0.0:8081", "[::]:8081", "192.168.1.1:8081"] {
        let written = file("").flag("admin.listen", address);
        let problems = written.problems();
        assert_eq!(problems.len(), 1);
        for words in [
            &format!("--set admin.listen: admin.listen = \"{address}\": refused"),
            "there is no admin.key",
            "STENTOR_ADMIN_KEY (16 to 256 visible ASCII characters",
        ] {
            assert!(problems[0].contains(words), "{problems:?}");
        }
        written.environment("STENTOR_ADMIN_KEY", "0123456789abcdef").load();
    }
    for address in ["127.0.0.2:1", "[::1]:1", ""] {
        file("").flag("admin.listen", address).load();
    }
}

#[test]
fn a_schema_is_read_once_and_named_where_it_is_wrong() {
    let written = file("[namespaces.a]\nschema = \"envelope\"\n[namespaces.b]\n");
    let loaded = written.load();
    let schemas = loaded.config.schemas.clone().unwrap();
    assert!(schemas.of_channel("a:x").is_some() && schemas.of_channel("b:x").is_none());
    assert_eq!(file(&loaded.to_toml()).load().config, loaded.config);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none.json");
    let path = path.to_str().unwrap();
    let problems = file(&format!("channels.schema = '{path}'\n[namespaces.a]\n")).problems();
    assert_eq!(problems.len(), 1, "{problems:?}");
    let expected = format!("channels.schema = \"{path}\": No such file");
    assert!(problems[0].contains(&expected), "{problems:?}");
}

#[test]
fn a_secret_is_never_repeated() {
    let written = file("").environment("STENTOR_ADMIN_KEY", "0123456789-unsaid");
    let loaded = written.load();
    let text = loaded.to_toml();
    assert!(text.contains("# key is set and not shown"), "{text}");
    assert!(text.contains("  # env STENTOR_ADMIN_KEY"), "{text}");
    assert!(!format!("{text}{loaded:?}").contains("unsaid"));
    file(&text).load();
    for text in ["unsaid", "unsaid unsaid unsaid"] {
        let problems = file("").flag("admin.key", text).problems();
        assert!(problems[0].contains("admin.key = (not shown): "), "{problems:?}");
        assert!(!problems[0].contains("unsaid"), "{problems:?}");
    }
}

#[test]
fn flags_win_over_the_environment_over_the_file() {
    let written = file("[server]\nshards = 1\npin = false\n[limits]\nmax_topics = 1\n")
        .environment("STENTOR_SERVER_SHARDS", "2")
        .environment("STENTOR_LIMITS_MAX_TOPICS", "2")
        .environment("STENTOR_SERVER_INSECURE", "1")
        .environment("STENTOR_LOG_LEVEL", "")
        .environment("HOME", "/")
        .flag("server.shards", "3");
    let loaded = written.load();
    assert_eq!(loaded.config.server.shards, Some(3));
    assert_eq!(loaded.config.limits.max_topics, 2);
    assert!(!loaded.config.server.pin);
    assert_eq!(loaded.origin("server.shards").to_string(), "--set server.shards");
    assert_eq!(loaded.origin("limits.max_topics").to_string(), "env STENTOR_LIMITS_MAX_TOPICS");
    assert!(loaded.origin("server.pin").brief().ends_with("/stentor.toml:3"));
    assert_eq!(loaded.origin("log.level"), Origin::Default);
    assert!(loaded.warnings.is_empty());
}

#[test]
fn port_changes_the_port_alone_and_yields_to_the_full_address() {
    let listen = |written: &Written| written.load().config.server.listen.to_string();
    let written = file("").environment("PORT", "9000");
    assert_eq!(listen(&written), "127.0.0.1:9000");
    assert_eq!(written.load().origin("server.listen").to_string(), "env PORT");
    let written = file("server.listen = '[::1]:1'").environment("PORT", "9000");
    assert_eq!(listen(&written), "[::1]:9000");
    let written = written.environment("STENTOR_SERVER_LISTEN", "127.0.0.1:9001");
    assert_eq!(listen(&written), "127.0.0.1:9001");
    // Two variables that contradict each other: whoever set both is told.
    let warnings: Vec<_> = written.load().warnings.iter().map(ToString::to_string).collect();
    let expected = "env PORT: ignored: env STENTOR_SERVER_LISTEN gives the whole address";
    assert_eq!(warnings, [expected]);
    let written = written.environment("PORT", "9001");
    assert!(written.load().warnings.is_empty());
    let written = written.environment("PORT", "http");
    assert_eq!(written.problems(), [r#"env PORT: PORT = "http": expected a port from 0 to 65535"#]);
}

#[test]
fn a_key_given_by_two_flags_is_refused() {
    let mut written = file("").flag("server.shards", "3");
    let (flag, path, text) = ("--shards", "server.shards", "2");
    let assignment = Assignment { flag: flag.into(), path: path.into(), text: text.into() };
    written.sources.flags.insert(0, assignment);
    let written = written.flag("log.level", "info").flag("log.level", "info");
    assert_eq!(
        written.problems(),
        [
            "--set log.level: log.level is given twice, the other time by --set log.level",
            "--set server.shards: server.shards is given twice, the other time by --shards",
        ]
    );
}

#[test]
fn a_variable_can_name_the_file() {
    let Written { folder, mut sources } = file("[server]\nshards = 7\n");
    let path = sources.file.take().unwrap().display().to_string();
    sources.environment.insert("STENTOR_CONFIG".to_string(), path);
    assert_eq!(sources.load().unwrap().config.server.shards, Some(7));
    sources.file = Some(PathBuf::from("/nonexistent/stentor.toml"));
    let error = sources.load().unwrap_err().to_string();
    assert!(
        error.starts_with("cannot read the configuration file /nonexistent/stentor.toml: No such"),
        "{error}"
    );
    drop(folder);
}

#[test]
fn a_namespace_starts_from_the_channels_section() {
    let written = file("[namespaces.a]\n[channels]\nslow_consumer = 'conflate'\n")
        .flag("channels.slow_consumer", "drop_newest")
        .flag("namespaces.b.slow_consumer", "disconnect");
    let loaded = written.load();
    let policies: Vec<_> = loaded
        .config
        .namespaces
        .iter()
        .map(|namespace| (namespace.name.as_str(), namespace.options.slow_consumer))
        .collect();
    assert_eq!(policies, [("a", SlowConsumer::DropNewest), ("b", SlowConsumer::Disconnect)]);
    let origin = loaded.origin("namespaces.a.slow_consumer").to_string();
    assert_eq!(origin, "--set channels.slow_consumer");
}

#[test]
fn everything_wrong_is_said_at_once_with_its_place() {
    let written = file(concat!(
        "[limits]\n",
        "max_message_size = \"64QB\"\n",
        "  max_mesage_size = 1\n",
        "max_topics = [1, 2]\n",
        "max_errors = {}\n",
        "close_timeout = 5\n",
        "[limit]\n",
        "max_topics = 1\n",
        "[server]\n",
        "max_topics = 1\n",
        "shards = 5000\n",
        "pin = \"maybe\"\n",
        "[namespaces]\n",
        "chat = 1\n",
        "\"a b\" = {}\n",
        "games.slow_consumr = \"conflate\"\n",
        "news.slow_consumer = \"Conflate\"\n",
    ))
    .environment("STENTOR_HEARTBEAT_INTERVAL", "1ms")
    .flag("diagnostics.echo", "/api/echo")
    .flag("shards", "2");
    let size = r#"a size from 1 to 1GiB, such as 65536, "64KiB" (1024) or "64KB" (1000)"#;
    let policies = "one of drop_oldest, drop_newest, conflate, disconnect";
    let expected = [
        format!(
            "stentor.toml:2:20: limits.max_message_size = \"64QB\": `QB` is not a unit of size (B, \
             KB, KiB, MB, MiB, GB, GiB); expected {size}"
        ),
        "stentor.toml:3:3: unknown key `limits.max_mesage_size`; the nearest valid key is \
         `limits.max_message_size`"
            .to_string(),
        "stentor.toml:4:14: limits.max_topics = [1, 2]: an array; expected a whole number from 1 to \
         4294967295"
            .to_string(),
        "stentor.toml:5:14: limits.max_errors = {}: a table; expected a whole number from 1 to \
         50000"
            .to_string(),
        "stentor.toml:6:17: limits.close_timeout = 5: `5` has no unit: write `5s` for seconds or \
         `5ms` for milliseconds; expected a duration from 1ms to 1d, such as \"500ms\", \"25s\" or \
         \"1m30s\""
            .to_string(),
        "stentor.toml:7:2: unknown section [limit]; the nearest valid section is [limits]"
            .to_string(),
        "stentor.toml:10:1: unknown key `server.max_topics`; the nearest valid key is \
         `limits.max_topics`"
            .to_string(),
        "stentor.toml:11:10: server.shards = 5000: out of range; expected a whole number from 0 to \
         1024"
            .to_string(),
        "stentor.toml:12:7: server.pin = \"maybe\": neither; expected true or false".to_string(),
        "stentor.toml:14:1: `namespaces.chat` is a section: write [namespaces.chat]".to_string(),
        "stentor.toml:15:1: `a b` cannot name a namespace: ` ` is not one of A-Z a-z 0-9 _ -"
            .to_string(),
        "stentor.toml:16:7: unknown key `namespaces.games.slow_consumr`; the nearest valid key is \
         `namespaces.games.slow_consumer`"
            .to_string(),
        format!(
            "stentor.toml:17:22: namespaces.news.slow_consumer = \"Conflate\": unknown name; \
             expected {policies}"
        ),
        "env STENTOR_HEARTBEAT_INTERVAL: heartbeat.interval = \"1ms\": out of range; expected a \
         duration from 100ms to 1h, such as \"500ms\", \"25s\" or \"1m30s\""
            .to_string(),
        "--set diagnostics.echo: diagnostics.echo = \"/api/echo\": `/api/*` belongs to the server; \
         expected a path such as \"/echo\", or \"\" for none"
            .to_string(),
        "--set shards: unknown key `shards`; the nearest valid key is `server.shards`".to_string(),
    ];
    assert_eq!(written.problems(), expected);
}

#[test]
fn a_group_that_is_none_is_told_with_its_place() {
    let written = file("[groups]\npro = 'plan = 1'\n\"\" = 'a'\nx = 7\nc = []\n")
        .flag("groups.d", "beta &&")
        .environment("STENTOR_GROUPS_X", "beta");
    let problems = written.problems();
    let expected = [
        "stentor.toml:2:7: groups.pro = 'plan = 1': no filter: expected `&&`, `||` or the end at byte 5",
        "stentor.toml:3:6: groups. = 'a': a group has 1 to 64 bytes",
        "stentor.toml:4:5: groups.x = 7: no filter: expected an attribute, `!` or `(` at byte 0",
        "stentor.toml:5:5: groups.c = []: an array; expected a text",
        "--set groups.d: groups.d = \"beta &&\": no filter: expected an attribute",
    ];
    assert_eq!(problems.len(), expected.len(), "{problems:?}");
    for (problem, expected) in problems.iter().zip(expected) {
        assert!(problem.starts_with(expected), "{problem}");
    }
}

#[test]
fn a_route_that_is_none_is_told_with_its_place() {
    let written = file("[routes]\ndance = 'channel'\na.b = 'webhook:http://a'\nping = 7\nc = []\n")
        .flag("routes.d", "webhook:ftp://a")
        .environment("STENTOR_ROUTES_TEXT", "channel");
    let problems = written.problems();
    let expected = [
        "stentor.toml:2:9: routes.dance = 'channel': only text, image, file and event say",
        "stentor.toml:3:1: routes.a = a: a table; a type with a `.` is",
        "stentor.toml:4:8: routes.ping = 7: unknown; expected \"webhook:https://HOST",
        "stentor.toml:5:5: routes.c = []: an array; expected a text",
        "--set routes.d: routes.d = \"webhook:ftp://a\": the URL does not begin with http://",
    ];
    assert_eq!(problems.len(), expected.len(), "{problems:?}");
    for (problem, expected) in problems.iter().zip(expected) {
        assert!(problem.starts_with(expected), "{problem}");
    }
    let written =
        file("[routes]\n\"a.b\" = 'webhook:http://a'\n").environment("STENTOR_ROUTES_X", "y");
    let loaded = written.load();
    assert!(loaded.to_toml().contains("[routes]\n\"a.b\" = \"webhook:http://a/\"  # "));
    assert!(loaded.warnings[0].to_string().contains("routes are set in the file, or with --set"));
    // The later one holds.
    let written = written.flag("routes.a.b", "webhook:http://b");
    assert_eq!(
        written.load().config.routes.iter().next().unwrap().1.to_string(),
        "webhook:http://b/"
    );
}

#[test]
fn a_value_above_a_section_is_told_apart() {
    assert_eq!(
        file("limits = 5\nshards = 2\n").problems(),
        [
            "stentor.toml:1:1: `limits` is a section: write [limits]",
            "stentor.toml:2:1: unknown key `shards`; the nearest valid key is `server.shards`"
        ]
    );
}

#[test]
fn syntax_errors_have_line_and_column() {
    let problems = file("[server]\nlisten = \"127.0.0.1:1\nshards = = 2\n[server]\n").problems();
    assert!(problems[0].starts_with("stentor.toml:2:"), "{problems:?}");
    assert!(problems.iter().any(|problem| problem.starts_with("stentor.toml:3:")), "{problems:?}");
    let problems = file("[server]\nshards = 1\nshards = 2\n").problems();
    assert_eq!(problems.len(), 1);
    assert!(problems[0].starts_with("stentor.toml:3:1: duplicate key"), "{problems:?}");
}

#[test]
fn a_public_address_needs_insecure() {
    for address in ["0.0.0.0:8080", "[::]:8080", "192.168.1.1:8080"] {
        let written = file(&format!("[server]\nlisten = \"{address}\"\n"));
        let problems = written.problems();
        assert_eq!(problems.len(), 1);
        for words in [
            &format!("stentor.toml:2:10: server.listen = \"{address}\": refused"),
            "nothing authenticates clients",
            "127.0.0.1:8080",
            "--insecure",
            "server.insecure = true",
        ] {
            assert!(problems[0].contains(words), "{problems:?}");
        }
        assert!(written.flag("server.insecure", "true").load().config.server.insecure);
    }
    for address in ["127.0.0.2:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
        file(&format!("[server]\nlisten = \"{address}\"\n")).load();
    }
}

#[test]
fn what_is_probably_a_slip_is_a_warning() {
    let written = file("[limits]\nsend_queue_size = '32KiB'\n")
        .environment("STENTOR_LIMIT_MAX_TOPICS", "1")
        .environment("STENTOR_NAMESPACES_CHAT_SLOW_CONSUMER", "conflate")
        .environment("STENTOR_CONFIG_FILE", "x");
    let warnings = written.load().warnings;
    let shown: Vec<_> = warnings.iter().map(|warning| written.show(warning)).collect();
    assert_eq!(
        shown,
        [
            "env STENTOR_CONFIG_FILE: ignored: it names no key; the nearest valid name is \
             STENTOR_CONFIG",
            "env STENTOR_LIMIT_MAX_TOPICS: ignored: it names no key; the nearest valid name is \
             STENTOR_LIMITS_MAX_TOPICS",
            "env STENTOR_NAMESPACES_CHAT_SLOW_CONSUMER: ignored: namespaces are set in the \
             file, or with --set",
            "stentor.toml:2:19: limits.send_queue_size = 32KiB: smaller than \
             limits.max_message_size (64KiB), so the largest messages reach a \
             blocked reader only when nothing else waits for it",
        ]
    );
}

#[test]
fn what_is_printed_loads_the_same() {
    let sources = [
        file(""),
        file("[server]\nlisten = '0.0.0.0:1'\ninsecure = true\n[namespaces.b]\n")
            .environment("STENTOR_LIMITS_MAX_MESSAGE_SIZE", "65537")
            .environment("STENTOR_LIMITS_MAX_CONNECTIONS", "10")
            .flag("heartbeat.interval", "61s")
            .flag("diagnostics.echo", "/echo")
            .flag("namespaces.a.slow_consumer", "conflate")
            .flag("routes.a.b \"c\"", "webhook:http://127.0.0.1:9/x?y={z}"),
    ];
    for written in sources {
        let loaded = written.load();
        let text = loaded.to_toml();
        let again = file(&text).load();
        assert_eq!(again.config, loaded.config, "{text}");
        assert!(again.warnings.is_empty());
        // Every line of a value says where it came from.
        assert!(text.lines().all(|line| line.contains(" = ") == line.contains("  # ")), "{text}");
    }
}

#[test]
fn what_is_printed_names_its_origins() {
    let written = file("[server]\nshards = 3\n")
        .environment("STENTOR_LIMITS_MAX_CONNECTIONS", "10")
        .flag("limits.max_topics", "5");
    let folder = format!("{}/", written.folder.path().display());
    let text = written.load().to_toml().replace(&folder, "");
    let line = |start: &str| {
        let line = text.lines().find(|line| line.starts_with(start)).unwrap();
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("listen"), r#"listen = "127.0.0.1:8080" # default"#);
    assert_eq!(line("shards"), "shards = 3 # stentor.toml:2");
    assert_eq!(
        line("max_connections"),
        "max_connections = 10 # env STENTOR_LIMITS_MAX_CONNECTIONS"
    );
    assert_eq!(line("max_topics"), "max_topics = 5 # --set limits.max_topics");
    assert_eq!(line("max_message_size"), r#"max_message_size = "64KiB" # default"#);
    assert_eq!(line("echo"), r#"echo = "" # default"#);
}

#[test]
fn a_file_name_cannot_break_out_of_its_comment() {
    let origin = Origin::File { path: "a\nb".into(), line: 1, column: 1 };
    assert_eq!(origin.brief(), "a?b:1");
}

#[test]
fn the_list_of_keys_is_sound() {
    let mut sections: Vec<&str> = keys().map(|key| key.section()).collect();
    sections.dedup();
    let expected: Vec<&str> = SECTIONS
        .into_iter()
        .filter(|section| !matches!(*section, "namespaces" | "schemas" | "routes" | "groups"))
        .collect();
    assert_eq!(
        sections, expected,
        "the keys of a section stand together, in the order of SECTIONS"
    );
    let names: BTreeMap<_, _> = keys().map(|key| (key.environment_name(), key)).collect();
    assert_eq!(names.len(), keys().count());
    assert_eq!(names["STENTOR_LIMITS_MAX_MESSAGE_SIZE"].path, "limits.max_message_size");
    for key in keys() {
        // Its own default is within its bounds.
        let mut config = Config::default();
        let text = key.show(&config);
        key.set(&mut config, text.trim_matches('"')).unwrap();
        assert_eq!(config, Config::default(), "{}", key.path);
        for name in key.field.choices() {
            key.set(&mut config, name).unwrap();
            assert_eq!(key.show(&config), format!("\"{name}\""));
        }
        if let Field::Count(at, range) | Field::Size(at, range) = &key.field {
            at(&mut config).store(*range.end());
            assert_eq!(at(&mut config).load(), *range.end(), "{} fits its field", key.path);
        }
        assert!(!key.help.ends_with('.') && !key.help.contains('\n'));
    }
}

#[test]
fn keys_are_read_with_the_configuration_and_never_shown() {
    const TOKEN: &str = "0123456789abcdef";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    let text = format!("[auth]\nkeys_file = \"{}\"\nrequired = true\n", path.display());
    let problem = file(&text).problems().remove(0);
    assert!(problem.contains("auth.keys_file = ") && problem.contains("No such file"), "{problem}");
    fs::write(&path, format!("alice {TOKEN}\nbob {}\n", &TOKEN[1..])).unwrap();
    let problem = file(&text).problems().remove(0);
    assert!(problem.contains("line 2: a token of 15 bytes"), "{problem}");
    assert!(!problem.contains(&TOKEN[1..]), "{problem}");
    fs::write(&path, format!("alice {TOKEN}\n")).unwrap();
    let loaded = file(&text).load();
    assert_eq!(
        loaded.config.auth.keys.user_of(TOKEN.as_bytes()).map(|user| &**user),
        Some("alice")
    );
    assert!(!loaded.to_toml().contains(TOKEN) && !format!("{:?}", loaded.config).contains(TOKEN));
    let problems = file("[auth]\nrequired = true\n").problems();
    assert!(problems[0].contains("nobody can authenticate: set auth.keys_file"), "{problems:?}");
}

#[test]
fn authentication_without_encryption_is_no_reason_to_listen_for_everybody() {
    let keys = tempfile::NamedTempFile::new().unwrap();
    fs::write(&keys, "alice 0123456789abcdef\n").unwrap();
    let auth = format!("[auth]\nkeys_file = \"{}\"\nrequired = true\n", keys.path().display());
    let problems = file(&format!("{auth}[server]\nlisten = \"0.0.0.0:80\"\n")).problems();
    assert!(problems[0].contains("nothing is encrypted"), "{problems:?}");
    file(&format!("{auth}[server]\nlisten = \"0.0.0.0:80\"\ninsecure = true\n")).load();
}

#[test]
fn a_queue_for_users_needs_a_folder() {
    let problems = file("[namespaces.mail]\noffline_queue = true\n").problems();
    assert!(
        problems[0].contains("namespaces.mail.offline_queue = true: needs a folder"),
        "{problems:?}"
    );
    let text = "[channels]\ndirect = true\n[namespaces.mail]\noffline_queue = true\n\
                [namespaces.other]\ndirect = false\n[store]\ndirectory = \"x\"\n";
    let config = file(text).load().config;
    for (channel, namespace) in
        [("a", Some("")), ("none:a", Some("")), ("mail:a", Some("mail")), ("other:a", None)]
    {
        assert_eq!(config.inbox_namespace(channel), namespace, "{channel}");
    }
    let inboxes: Vec<_> = config.inboxes().collect();
    let names: Vec<_> = inboxes.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["\u{1}", "\u{1}mail"]);
    assert!(!inboxes[0].1.has_history() && inboxes[1].1.is_durable());
}
