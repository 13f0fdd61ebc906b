//! The layers of the crate and other rules of the house, held over the source text.
//!
//! A file imports the layers below its own and its own folder, never upwards or sideways. Tests are
//! held to it like everything else.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Lowest first. What stands on one line does not know each other.
const LAYERS: &[&[&str]] = &[
    &["ids", "schema", "filter"],
    &["config", "metrics"],
    &["proto", "io"],
    &["message", "client"],
    &["broker", "mesh"],
    &["shard", "bridge", "admin", "log", "checker"],
    &["server", "bench"],
    &["cli"],
];

/// Where `unsafe` may stand.
const UNSAFE_ALLOWED: &[&str] = &["io/", "proto/decoder/mask.rs"];
/// Where errors may lose their type.
const ANYHOW_ALLOWED: &[&str] = &["main.rs", "cli/"];
/// Where the clock is read; everybody else is told the time.
const CLOCK_ALLOWED: &[&str] = &[
    "io/epoll.rs",
    "io/uring/",
    "log/thread.rs",
    "log/tests/thread.rs",
    "log/simulated.rs",
    "server.rs",
    "server/running.rs",
    "client/",
    "bench/",
];

const LINES_MAX: usize = 600;

/// A source file: its path below `src`, and its text.
struct Source {
    path: String,
    text: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_string(), text: text.to_string() }
    }

    /// The module right below the crate that this file belongs to.
    fn module(&self) -> &str {
        let first = self.path.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// Modules between the crate and the text of this file: what `super` counts.
    fn depth(&self) -> usize {
        let parts = self.path.split('/').count();
        if self.path.ends_with("/mod.rs") { parts - 1 } else { parts }
    }

    /// The code, line by line with its number, without comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let code = |line: &'_ str| line.find("//").unwrap_or(line.len());
        self.text.lines().map(move |line| &line[..code(line)]).zip(1..).map(|(line, at)| (at, line))
    }

    /// The same as one text, for what goes over lines.
    fn stripped(&self) -> String {
        self.code().map(|(_, line)| format!("{line}\n")).collect()
    }

    fn is_among(&self, places: &[&str]) -> bool {
        places.iter().any(|place| self.path == *place || self.path.starts_with(place))
    }
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

/// The modules right below the crate that a file names.
fn imports(source: &Source) -> BTreeSet<String> {
    let text = source.stripped();
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices("crate::") {
        found.extend(first_names(&text[at + "crate::".len()..]));
    }
    // A module inside of the file is one deeper.
    let (plain, tests) = text.split_once("#[cfg(test)]\nmod tests {").unwrap_or((&text, ""));
    for (text, depth) in [(plain, source.depth()), (tests, source.depth() + 1)] {
        let chain = "super::".repeat(depth);
        for (at, _) in text.match_indices(&chain) {
            found.extend(first_names(&text[at + chain.len()..]));
        }
    }
    found.remove("super");
    found
}

/// The first name of a path, or of each path of a group: of `{a::b, c::{d, e}}`, `a` and `c`.
fn first_names(path: &str) -> Vec<String> {
    let name = |text: &str| -> String {
        text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    let Some(group) = path.trim_start().strip_prefix('{') else { return vec![name(path)] };
    let mut depth = 1;
    let mut names = vec![name(group)];
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => names.push(name(&group[at + 1..])),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

fn check_layers(source: &Source) -> Vec<String> {
    let module = source.module();
    let complain = |text: String| format!("{}: {text}", source.path);
    match module {
        // Names the modules, imports none.
        "lib" => {
            return imports(source)
                .iter()
                .map(|name| complain(format!("imports {name}")))
                .collect();
        }
        "main" => {
            let text = source.stripped();
            let paths = text
                .match_indices("stentor::")
                .flat_map(|(at, found)| first_names(&text[at + found.len()..]));
            return paths
                .filter(|name| name != "cli")
                .map(|name| complain(format!("imports {name}")))
                .collect();
        }
        _ => {}
    }
    let Some(own) = layer(module) else {
        return vec![complain(format!("{module} has no place in the layers"))];
    };
    imports(source)
        .iter()
        .filter(|name| *name != module)
        .filter_map(|name| match layer(name) {
            Some(other) if other < own => None,
            Some(other) if other == own => Some(format!("imports sideways: {name}")),
            Some(_) => Some(format!("imports upwards: {name}")),
            None => Some(format!("imports {name}, which has no place in the layers")),
        })
        .map(complain)
        .collect()
}

fn check_tidiness(source: &Source) -> Vec<String> {
    let mut problems = Vec::new();
    let mut complain = |at: usize, text: &str| {
        problems.push(format!("{}:{at}: {text}", source.path));
    };
    if !source.text.starts_with("//! ") {
        complain(1, "does not begin with what the file is for");
    }
    let lines = source.text.lines().count();
    if lines > LINES_MAX {
        complain(lines, &format!("has {lines} lines, more than {LINES_MAX}"));
    }
    for (word, allowed) in [
        ("unsafe ", UNSAFE_ALLOWED),
        ("anyhow", ANYHOW_ALLOWED),
        ("Instant::now", CLOCK_ALLOWED),
        ("SystemTime::now", CLOCK_ALLOWED),
        ("todo!", &[]),
        ("unimplemented!", &[]),
        ("dbg!", &[]),
        ("static mut", &[]),
    ] {
        for (at, _) in source.code().filter(|(_, line)| line.contains(word)) {
            if !source.is_among(allowed) {
                complain(at, &format!("`{}` may not stand here", word.trim()));
            }
        }
    }
    // In comments as well.
    for word in ["FIXME", "XXX"] {
        for (at, _) in (1..).zip(source.text.lines()).filter(|(_, line)| line.contains(word)) {
            complain(at, &format!("{word} is left"));
        }
    }
    problems
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("it is in the repository") {
            let path: PathBuf = entry.expect("readable").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(&root).expect("it is below");
                let text = fs::read_to_string(&path).expect("text");
                found.push(Source::new(name.to_str().expect("text"), &text));
            }
        }
    }
    assert!(found.len() > 50, "only {} files found", found.len());
    found
}

#[track_caller]
fn expect_none(problems: Vec<String>) {
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn every_file_keeps_to_its_layer() {
    let sources = sources();
    let imports: usize = sources.iter().map(|source| imports(source).len()).sum();
    assert!(imports > 100, "only {imports} imports found");
    expect_none(sources.iter().flat_map(check_layers).collect());
}

#[test]
fn every_file_is_tidy() {
    expect_none(sources().iter().flat_map(check_tidiness).collect());
}

// A check that cannot fail is no check.

#[track_caller]
fn expect_problems(check: fn(&Source) -> Vec<String>, path: &str, text: &str, wanted: &[&str]) {
    let problems = check(&Source::new(path, text));
    assert_eq!(problems.len(), wanted.len(), "{problems:?}");
    for (problem, wanted) in problems.iter().zip(wanted) {
        assert!(problem.contains(wanted), "{problem} is not about {wanted}");
    }
}

#[test]
fn what_points_upwards_or_sideways_is_found() {
    let check = check_layers;
    expect_problems(check, "proto/head.rs", "use crate::shard::Shard;\n", &["upwards: shard"]);
    expect_problems(check, "mesh.rs", "use crate::broker::Broker;\n", &["sideways: broker"]);
    expect_problems(check, "io/mod.rs", "use crate::proto;\n", &["sideways: proto"]);
    expect_problems(check, "ids.rs", "fn f(c: &crate::config::Config) {}\n", &["upwards: config"]);
    expect_problems(check, "client/mod.rs", "use crate::nowhere::X;\n", &["no place"]);
    expect_problems(check, "newcomer.rs", "", &["newcomer has no place"]);
    let group = "use crate::{\n    ids::{ShardId, server},\n    io,\n    server::Server,\n};\n";
    expect_problems(check, "broker/mod.rs", group, &["upwards: server"]);
    expect_problems(check, "mesh.rs", "use super::server::Server;\n", &["upwards: server"]);
    expect_problems(check, "io/sim.rs", "use super::super::shard::X;\n", &["upwards: shard"]);
    let tests = "#[cfg(test)]\nmod tests {\n    use crate::shard::Shard;\n}\n";
    expect_problems(check, "io/sim.rs", tests, &["upwards: shard"]);
    expect_problems(check, "main.rs", "stentor::server::run()\n", &["imports server"]);
    expect_problems(check, "lib.rs", "pub use crate::shard::Shard;\n", &["imports shard"]);
}

#[test]
fn what_points_downwards_or_home_is_not() {
    let check = check_layers;
    let text = "use crate::{ids::Token, config::Config};\nuse crate::proto::http;\n\
                use super::opcode::OpCode;\n// use crate::shard\n/// [`x`](crate::server::x)\n\
                #[cfg(test)]\nmod tests {\n    use super::super::close;\n}\n";
    expect_problems(check, "proto/http/head.rs", text, &[]);
    expect_problems(check, "main.rs", "stentor::cli::run()\n", &[]);
    let text = "fn f() {}\n#[cfg(test)]\nmod tests {\n    use super::f;\n}\n";
    expect_problems(check, "mesh.rs", text, &[]);
}

#[test]
fn what_is_untidy_is_found() {
    let check = check_tidiness;
    let tidy = "//! A file.\n";
    expect_problems(check, "broker/mod.rs", tidy, &[]);
    expect_problems(check, "broker/mod.rs", "use x;\n", &["begin"]);
    for (line, word) in [
        ("unsafe { f() }", "unsafe"),
        ("use anyhow::Result;", "anyhow"),
        ("let now = Instant::now();", "Instant::now"),
        ("todo!()", "todo!"),
        ("unimplemented!()", "unimplemented!"),
        ("static mut X: u8 = 0;", "static mut"),
        ("// FIXME", "FIXME"),
    ] {
        expect_problems(check, "broker/mod.rs", &format!("{tidy}{line}\n"), &[word]);
    }
    expect_problems(check, "io/ring.rs", &format!("{tidy}unsafe {{ f() }}\n"), &[]);
    expect_problems(check, "broker/mod.rs", &format!("{tidy}// unsafe {{ }}\n"), &[]);
    expect_problems(check, "broker/mod.rs", &tidy.repeat(601), &["601 lines"]);
}
