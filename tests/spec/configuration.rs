use std::{
    ffi::OsString,
    fs,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use chitchat::config::{self, Config, Data, Entry, Faults, Given, SETTINGS, Sources};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::program::{Finished, chitchat};

#[test]
fn without_any_source_every_setting_has_its_default() {
    let (config, entries) = config::load(Sources::default()).expect("the defaults should be right");

    assert_eq!(config.limits.text_chars, 128);
    assert!(
        entries.iter().all(|entry| entry.origin == "default"),
        "{entries:?}"
    );
    assert_eq!(entries, config::defaults());
}

#[tokio::test]
async fn each_layer_overrides_the_one_before_it_default_file_variable_flag() {
    let file = toml("[client]\nname = 'Ada'\nroom = 'file'");
    let run = async |variable: bool, arguments: &[&str]| {
        let mut program = chitchat(["config", "--json"].iter().chain(arguments));
        if variable {
            program = program.variable("CHITCHAT_CLIENT__ROOM", "variable");
        }
        let room = setting(&program.run().await, "client.room");
        (room["value"].clone(), room["origin"].clone())
    };
    let path = file
        .path
        .to_str()
        .expect("a temporary path should be UTF-8");
    let line = format!("{path}:3");

    assert_eq!(run(false, &[]).await, (json!("lobby"), json!("default")));
    assert_eq!(
        run(false, &["--config", path]).await,
        (json!("file"), json!(line))
    );
    assert_eq!(
        run(true, &["--config", path]).await,
        (json!("variable"), json!("variable CHITCHAT_CLIENT__ROOM"))
    );
    assert_eq!(
        run(true, &["--config", path, "--room", "flag"]).await,
        (json!("flag"), json!("flag --room"))
    );
}

#[tokio::test]
async fn every_flag_that_is_a_setting_says_so_in_its_origin() {
    let flags = [
        ("--server", "http://[::1]:1", "client.server"),
        ("--name", "Ada", "client.name"),
        ("--id", "7", "client.id"),
        ("--room", "attic", "client.room"),
        ("--backlog", "3", "client.backlog"),
        ("--listen", "127.0.0.1:0", "server.listen"),
        ("--data", "memory", "server.data"),
    ];
    let arguments = flags.iter().flat_map(|(flag, value, _)| [*flag, *value]);

    let finished = chitchat(["config", "--json"].into_iter().chain(arguments))
        .run()
        .await;

    for (flag, value, key) in flags {
        let setting = setting(&finished, key);
        let shown = setting["value"]
            .as_str()
            .map_or(setting["value"].to_string(), String::from);
        assert_eq!(
            (shown.as_str(), setting["origin"].as_str()),
            (value, Some(format!("flag {flag}").as_str()))
        );
    }
}

#[tokio::test]
async fn the_file_may_be_named_by_a_variable_and_a_flag_goes_before_that() {
    let (named, other) = (toml("limits.rate = 1"), toml("limits.rate = 2"));

    let by_variable = chitchat(["config", "--json"])
        .variable("CHITCHAT_CONFIG", &named.path)
        .run()
        .await;
    let by_flag = chitchat([
        &"config".into(),
        &"--json".into(),
        &OsString::from("--config"),
        other.path.as_os_str(),
    ])
    .variable("CHITCHAT_CONFIG", &named.path)
    .run()
    .await;
    let by_nothing = chitchat(["config", "--json"])
        .variable("CHITCHAT_CONFIG", "")
        .run()
        .await;

    assert_eq!(setting(&by_variable, "limits.rate")["value"], 1);
    assert_eq!(setting(&by_flag, "limits.rate")["value"], 2);
    assert_eq!(setting(&by_nothing, "limits.rate")["origin"], "default");
}

#[tokio::test]
async fn a_named_file_that_is_missing_is_a_fault() {
    let by_flag = chitchat(["config", "--config", "/nowhere/chitchat.toml"])
        .run()
        .await;
    let by_variable = chitchat(["config"])
        .variable("CHITCHAT_CONFIG", "/nowhere/chitchat.toml")
        .run()
        .await;

    assert_wrong(
        &by_flag,
        &["flag --config: cannot read /nowhere/chitchat.toml"],
    );
    assert_wrong(
        &by_variable,
        &["variable CHITCHAT_CONFIG: cannot read /nowhere/chitchat.toml"],
    );
}

/// Kubernetes gives every container the addresses of the services around it; one named `chitchat` yields these.
#[test]
fn variables_without_a_double_underscore_are_not_ours() {
    let variables = [
        ("CHITCHAT_PORT", "tcp://10.0.0.7:50052"),
        ("CHITCHAT_SERVICE_HOST", "10.0.0.7"),
        ("CHITCHAT_PORT_50052_TCP_ADDR", "10.0.0.7"),
        ("CHITCHAT", "yes"),
        ("OTHER__THING", "yes"),
    ];

    let (_, entries) = config::load(from_variables(variables)).expect("they should be ignored");

    assert_eq!(entries, config::defaults());
}

#[test]
fn an_empty_variable_is_as_good_as_none() {
    let (config, _) =
        load_variables([("CHITCHAT_CLIENT__NAME", ""), ("CHITCHAT_LIMITS__RATE", "")]);

    assert_eq!((config.client.name, config.limits.rate), (None, 1_000));
}

#[test]
fn variables_hold_numbers_switches_and_texts_that_look_like_either() {
    let (config, _) = load_variables([
        ("CHITCHAT_LIMITS__RATE", "0"),
        ("CHITCHAT_TELEMETRY__TEXT", "true"),
        ("CHITCHAT_CLIENT__NAME", "123"),
        ("CHITCHAT_CLIENT__ROOM", "true"),
        ("CHITCHAT_SERVER__GRACE", "1m 30s"),
        ("CHITCHAT_SERVER__DATA", "memory"),
    ]);

    assert_eq!((config.limits.rate, config.telemetry.text), (0, true));
    assert_eq!(
        (config.client.name.as_deref(), config.client.room.as_str()),
        (Some("123"), "true")
    );
    assert_eq!(
        (config.server.grace.as_secs(), config.server.data),
        (90, Data::Memory)
    );
}

#[test]
fn in_a_file_a_text_is_quoted_and_a_number_is_not() {
    let faults = load_toml("client.name = 123\nlimits.rate = '5'\ntelemetry.text = 'true'")
        .expect_err("types differ");

    let keys: Vec<_> = faults
        .0
        .iter()
        .filter_map(|fault| fault.setting.as_ref())
        .cloned()
        .collect();
    let expected = [
        ("client.name", "123"),
        ("limits.rate", "'5'"),
        ("telemetry.text", "'true'"),
    ];
    assert_eq!(
        keys,
        expected.map(|(key, value)| (key.to_owned(), value.to_owned()))
    );
}

#[test]
fn a_duration_needs_its_unit() {
    for good in ["5s", "500ms", "1m 30s", "0s"] {
        assert!(load_flag("server.grace", good).is_ok(), "{good}");
        assert!(
            load_toml(&format!("server.grace = '{good}'")).is_ok(),
            "{good}"
        );
    }
    for bare in ["5", "0", "0.5", "-1"] {
        let faults = load_flag("server.grace", bare).expect_err(bare);
        assert!(faults.to_string().contains("add a unit"), "{faults}");
        let faults = load_toml(&format!("server.grace = '{bare}'")).expect_err(bare);
        assert!(faults.to_string().contains("add a unit"), "{faults}");
    }
    for bad in ["s", "5 parsecs", "-5s", ""] {
        assert!(load_flag("server.grace", bad).is_err(), "{bad}");
    }
    let faults = load_toml("server.grace = 5").expect_err("a number has no unit");
    assert!(faults.to_string().contains("add a unit"), "{faults}");
}

#[test]
fn a_setting_takes_what_is_at_the_ends_of_its_range_and_nothing_beyond() {
    let ranges = [
        ("server.grace", ["", "0s", "1h", "1h 1ns"]),
        (
            "server.keepalive_interval",
            ["99ms", "100ms", "1h", "1h 1ns"],
        ),
        (
            "server.keepalive_timeout",
            ["99ms", "100ms", "5m", "5m 1ns"],
        ),
        (
            "server.first_byte_timeout",
            ["99ms", "100ms", "5m", "5m 1ns"],
        ),
        ("server.drain_timeout", ["", "0s", "5m", "5m 1ns"]),
        ("server.connections", ["0", "1", "1000000", "1000001"]),
        (
            "server.listen",
            ["0.0.0.0:-1", "0.0.0.0:0", "[::]:65535", "0.0.0.0:65536"],
        ),
        ("limits.text_chars", ["0", "1", "512", "16385"]),
        ("limits.text_bytes", ["0", "128", "7552", "16385"]),
        ("limits.name_chars", ["0", "1", "256", "257"]),
        ("limits.message_bytes", ["1023", "1152", "65536", "65537"]),
        ("limits.rate", ["-1", "0", "1000000", "1000001"]),
        ("limits.stall", ["", "0s", "1h", "1h 1ns"]),
        ("limits.clock_jump", ["0", "1", "4294967296", "4294967297"]),
        // More than limits.history_events' default, 1,000,000, only goes together with more of those.
        ("limits.dedup_events", ["0", "1", "1000000", "10000001"]),
        (
            "limits.history_events",
            ["-1", "0", "1099511627776", "1099511627777"],
        ),
        ("limits.history_age", ["", "0s", "36500d", "36500d 1ns"]),
        ("limits.rooms", ["0", "1", "1000000", "1000001"]),
        (
            "limits.memory_bytes",
            ["1048575", "1048576", "1099511627776", "1099511627777"],
        ),
        (
            "limits.feed_bytes",
            ["65535", "65536", "1099511627776", "1099511627777"],
        ),
        ("client.id", ["-1", "0", "2147483647", "2147483648"]),
        ("client.backlog", ["-1", "0", "1000", "1001"]),
    ];
    for (key, [below, lowest, highest, above]) in ranges {
        for good in [lowest, highest] {
            let loaded = load_flag(key, good);
            assert!(loaded.is_ok(), "{key} = {good}: {loaded:?}");
        }
        for bad in [below, above] {
            assert!(
                load_flag(key, bad).is_err(),
                "{key} = {bad:?} should be refused"
            );
        }
    }
    for number in [
        "1.5",
        "5_000",
        "0x10",
        "five",
        "",
        "99999999999999999999999",
    ] {
        assert!(load_flag("limits.rate", number).is_err(), "{number}");
    }
}

#[test]
fn names_rooms_addresses_and_words_are_what_they_must_be() {
    let (name, room) = ("å".repeat(32), "r".repeat(64));
    let (long_name, long_room) = ("å".repeat(33), "r".repeat(65));
    let cases: [(&str, &[&str], &[&str]); 11] = [
        (
            "client.name",
            &["A", &name, "Mary-Ann O'Hara"],
            &["", " ", "a\u{1b}b", "-a", "server", &long_name],
        ),
        (
            "client.room",
            &["r", &room, "a.b_c-1"],
            &["", &long_room, "a b", "a/b"],
        ),
        (
            "client.server",
            &[
                "http://127.0.0.1:50052",
                "http://server:50052/",
                "http://[::1]:50052",
            ],
            &[
                "",
                "localhost:50052",
                "127.0.0.1:50052",
                "http://",
                "http://a/b",
                "ftp://a:1",
            ],
        ),
        (
            "client.jaeger",
            &[
                "http://localhost:16686",
                "http://[::1]:16686/",
                "https://tools.example/jaeger/ui/",
            ],
            &[
                "",
                "localhost:16686",
                "ftp://localhost",
                "http://",
                "http://localhost:65536",
                "http://ada:secret@localhost",
                "http://localhost/?service=a",
                "http://localhost/#a",
                "http://local host",
                "http://localhost/\u{1b}]8;;",
                "http://localhost/\u{202e}",
            ],
        ),
        (
            "server.listen",
            &["127.0.0.1:1", "[::]:1"],
            &["", ":50052", "50052", "localhost:50052"],
        ),
        ("server.data", &["memory", "./memory", "/data"], &[""]),
        ("telemetry.file", &["spans.jsonl"], &[""]),
        ("telemetry.text", &["true", "false"], &["", "yes", "1"]),
        (
            "telemetry.clock_offset",
            &["0s", "1500ms", "-2s", "1h", "-1h"],
            &["", "2", "-2", "--2s", "- 2s", "+2s", "1h 1ns", "-1h 1ns"],
        ),
        ("log.format", &["text", "json"], &["", "JSON", "pretty"]),
        ("order.kind", &["local"], &["", "remote"]),
    ];
    for (key, good, bad) in cases {
        for value in good {
            let loaded = load_flag(key, value);
            assert!(loaded.is_ok(), "{key} = {value:?}: {loaded:?}");
        }
        for value in bad {
            assert!(
                load_flag(key, value).is_err(),
                "{key} = {value:?} should be refused"
            );
        }
    }
}

#[tokio::test]
async fn jaegers_address_is_shown_as_it_was_given_with_its_origin_and_a_wrong_one_is_told() {
    let config = |address: &'static str| {
        chitchat(["config", "--json"])
            .variable("CHITCHAT_CLIENT__JAEGER", address)
            .run()
    };

    let unset = setting(&config("").await, "client.jaeger");
    assert_eq!(
        (&unset["value"], &unset["origin"]),
        (&Value::Null, &json!("default"))
    );
    let set = setting(
        &config("https://tools.example/jaeger/").await,
        "client.jaeger",
    );
    assert_eq!(set["value"], "https://tools.example/jaeger/");
    assert_eq!(set["origin"], "variable CHITCHAT_CLIENT__JAEGER");
    assert_wrong(
        &config("localhost:16686").await,
        &[
            "variable CHITCHAT_CLIENT__JAEGER: client.jaeger = \"localhost:16686\": must be \"http://HOST:PORT\" or \"https://HOST\"",
        ],
    );
}

/// `tracing` itself takes a lone unknown word for a module's name, and logs nothing else from then on.
#[test]
fn a_mistyped_log_level_does_not_silence_the_log() {
    for good in [
        "off",
        "info",
        "chitchat=debug",
        "warn,chitchat::order=trace,h2=off",
    ] {
        assert!(load_flag("log.level", good).is_ok(), "{good}");
    }
    for bad in [
        "",
        "inof",
        "chitchat",
        "info,",
        "chitchat=loud",
        "info,chitchat",
    ] {
        assert!(load_flag("log.level", bad).is_err(), "{bad}");
    }
}

#[test]
fn limits_that_depend_on_each_other_are_judged_together() {
    let at_the_edge = "limits = {text_bytes = 600, text_chars = 600, message_bytes = 1240}";
    let one_less = "limits = {text_bytes = 600, text_chars = 601, message_bytes = 1239}";
    let a_longer_name = "limits.name_chars = 33\nclient.name = 'aaaaaaaaaabbbbbbbbbbccccccccccddd'";

    assert!(load_toml(at_the_edge).is_ok());
    assert!(load_toml(a_longer_name).is_ok());
    let faults = load_toml(one_less).expect_err("neither fits").to_string();
    assert!(
        faults.contains("limits.text_chars (601)") && faults.contains("limits.text_bytes (600)"),
        "{faults}"
    );
    assert!(
        faults.contains("limits.message_bytes (1239) must be at least 1240"),
        "{faults}"
    );
}

#[test]
fn a_limit_that_is_wrong_by_itself_is_not_compared_with_others() {
    let faults = load_toml("limits.text_bytes = 0\nlimits.text_chars = 1000")
        .expect_err("no text has 0 bytes");

    assert_eq!(faults.0.len(), 1, "{faults}");
}

#[tokio::test]
async fn all_faults_of_all_layers_are_told_at_once_with_key_source_and_value() {
    let file = toml("[server]\ngrace = 5\n\n[limits]\nrate = 'fast'\ntext_chras = 5\n");
    let path = file.path.display();

    let finished = chitchat(["config", "--server", "localhost:50052", "--id", "one"])
        .variable("CHITCHAT_CONFIG", &file.path)
        .variable("CHITCHAT_LIMITS__ROOMS", "0")
        .variable("CHITCHAT_LIMITS__MESSAGE_BYTES", "1100")
        .variable("CHITCHAT_LOG__COLOUR", "red")
        .variable(
            "CHITCHAT_CLIENT__NAME",
            OsString::from_vec(vec![b'a', 0xff]),
        )
        .run()
        .await;

    assert_wrong(
        &finished,
        &[
            &format!("{path}:2: server.grace = 5: add a unit"),
            &format!("{path}:5: limits.rate = 'fast': must be a whole number from 0 to 1000000"),
            &format!(
                "{path}:6: limits.text_chras = 5: no such setting; did you mean limits.text_chars?"
            ),
            "variable CHITCHAT_LIMITS__ROOMS: limits.rooms = \"0\": must be a whole number from 1 to 1000000",
            "variable CHITCHAT_LIMITS__MESSAGE_BYTES: limits.message_bytes = \"1100\": limits.message_bytes (1100) must",
            "variable CHITCHAT_LOG__COLOUR: log.colour = \"red\": no such setting",
            "variable CHITCHAT_CLIENT__NAME: client.name = \"a\\xFF\": not UTF-8",
            "flag --server: client.server = \"localhost:50052\": must be \"http://HOST:PORT\"",
            "flag --id: client.id = \"one\": must be a whole number",
        ],
    );
}

#[tokio::test]
async fn a_wrong_configuration_starts_nothing() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let data = directory.path().join("data");
    let spans = directory.path().join("spans.jsonl");

    let finished = chitchat(["serve", "--listen", "127.0.0.1:0"])
        .variable("CHITCHAT_SERVER__DATA", &data)
        .variable("CHITCHAT_TELEMETRY__FILE", &spans)
        .variable("CHITCHAT_LIMITS__RATE", "fast")
        .run()
        .await;

    assert_wrong(
        &finished,
        &["variable CHITCHAT_LIMITS__RATE: limits.rate = \"fast\": must be a whole number"],
    );
    let made = fs::read_dir(directory.path())
        .expect("the directory is there")
        .count();
    assert_eq!(made, 0, "neither data nor spans should be there");
}

#[test]
fn a_wrong_value_is_a_fault_even_where_a_later_layer_overrides_it() {
    let file = toml("limits.rate = 'fast'");
    let mut sources = from_variables([("CHITCHAT_LIMITS__RATE", "5")]);
    sources.file = Some(file.path.clone());

    let faults = config::load(sources).expect_err("the file is wrong");

    assert_eq!(faults.0.len(), 1, "{faults}");
}

#[test]
fn settings_in_the_wrong_place_are_faults() {
    for text in [
        "server = 5",
        "rate = 5",
        "[limit]\nrate = 5",
        "[[limits]]\nrate = 5",
        "limits.rate.max = 5",
    ] {
        let faults = load_toml(text).expect_err(text);
        assert!(faults.to_string().contains("no such setting"), "{faults}");
    }
    assert!(
        load_toml("# nothing yet\n[limits]\n").is_ok(),
        "an empty section sets nothing"
    );
}

#[test]
fn what_is_not_toml_is_told_with_its_line() {
    let faults = load_toml("[limits]\nrate = = 3\n[server]\ngrace = '5s'\ngrace = '6s'")
        .expect_err("it is not TOML");

    let text = faults.to_string();
    assert!(
        text.contains(":2: not TOML") && text.contains(":5: not TOML: duplicate key"),
        "{text}"
    );
}

#[tokio::test]
async fn config_prints_every_setting_for_programs() {
    let finished = chitchat(["config", "--json"]).run().await;

    assert_eq!((finished.code, finished.stderr.as_str()), (0, ""));
    let printed: Vec<Value> = serde_json::from_str(&finished.stdout).expect("one JSON array");
    let keys: Vec<_> = printed
        .iter()
        .map(|entry| entry["key"].as_str().expect("a key"))
        .collect();
    assert_eq!(
        keys,
        SETTINGS
            .iter()
            .map(|setting| setting.key)
            .collect::<Vec<_>>()
    );
    assert_eq!(setting(&finished, "server.grace")["value"], "5s");
    assert_eq!(setting(&finished, "client.name")["value"], Value::Null);
}

#[tokio::test]
async fn config_prints_every_setting_for_people() {
    let finished = chitchat(["config", "--name", "Ada"]).run().await;

    assert_eq!(finished.code, 0);
    let rows: Vec<Vec<_>> = finished
        .stdout
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(rows.len(), SETTINGS.len() + 1);
    assert_eq!(rows[0], ["KEY", "VALUE", "ORIGIN"]);
    assert!(
        rows.contains(&vec!["server.listen", "\"0.0.0.0:50052\"", "default"]),
        "{}",
        finished.stdout
    );
    assert!(
        rows.contains(&vec!["client.name", "\"Ada\"", "flag", "--name"]),
        "{}",
        finished.stdout
    );
}

#[test]
fn what_config_prints_can_be_given_back_in_a_file() {
    let defaults = config::defaults();
    let set = defaults.iter().filter(|entry| !entry.value.is_null());
    let text: String = set
        .map(|Entry { key, value, .. }| format!("{key} = {value}\n"))
        .collect();

    let (_, entries) = load_toml(&text).expect("defaults are valid");

    let values = |entries: Vec<Entry>| {
        entries
            .into_iter()
            .map(|entry| entry.value)
            .collect::<Vec<_>>()
    };
    assert_eq!(values(entries), values(defaults));
}

#[test]
fn every_setting_of_the_program_can_be_set() {
    let config = serde_json::to_value(Config::default()).expect("settings are plain data");
    let mut fields = Vec::new();
    for (section, settings) in config.as_object().expect("sections") {
        fields.extend(
            settings
                .as_object()
                .expect("settings")
                .keys()
                .map(|name| format!("{section}.{name}")),
        );
    }

    let mut rows: Vec<_> = SETTINGS
        .iter()
        .map(|setting| setting.key.to_owned())
        .collect();
    fields.sort();
    rows.sort();
    assert_eq!(rows, fields);
}

#[test]
fn the_summary_for_the_log_is_one_line_with_every_setting() {
    let (_, entries) = load_flag("client.name", "Ada").expect("a good name");

    let summary = config::summary(&entries);

    assert!(!summary.contains('\n'));
    assert!(
        summary.contains("client.name=\"Ada\" client.id=0 client.room=\"lobby\""),
        "{summary}"
    );
}

#[tokio::test]
async fn a_wrong_command_line_exits_with_2_and_help_names_the_exit_codes() {
    let wrong = chitchat(["config", "--serve"]).run().await;
    let nothing = chitchat::<&str>([]).run().await;
    let help = chitchat(["--help"]).run().await;

    assert_eq!((wrong.code, nothing.code, help.code), (2, 2, 0));
    for line in [
        "1  no, or failed",
        "2  usage or configuration is wrong, nothing was started",
    ] {
        assert!(help.stdout.contains(line), "{}", help.stdout);
    }
}

/// Exit code 2, nothing on standard output, and on standard error exactly one line per fault, beginning like these.
fn assert_wrong(finished: &Finished, faults: &[&str]) {
    assert_eq!(
        (finished.code, finished.stdout.as_str()),
        (2, ""),
        "{}",
        finished.stderr
    );
    let lines: Vec<_> = finished.stderr.lines().skip(1).map(str::trim).collect();
    for fault in faults {
        assert!(
            lines.iter().any(|line| line.starts_with(fault)),
            "{fault}\nis not in\n{}",
            finished.stderr
        );
    }
    assert_eq!(lines.len(), faults.len(), "{}", finished.stderr);
}

/// One entry of what `chitchat config --json` printed.
fn setting(finished: &Finished, key: &str) -> Value {
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    let entries: Vec<Value> = serde_json::from_str(&finished.stdout).expect("one JSON array");
    entries
        .into_iter()
        .find(|entry| entry["key"] == key)
        .expect("every setting is printed")
}

type Loaded = Result<(Config, Vec<Entry>), Faults>;

fn load_flag(key: &str, value: &str) -> Loaded {
    config::load(Sources {
        flags: vec![Given::flag("test", key, value)],
        ..Sources::default()
    })
}

fn load_toml(text: &str) -> Loaded {
    let file = toml(text);
    config::load(Sources {
        file: Some(file.path.clone()),
        ..Sources::default()
    })
}

fn load_variables<const N: usize>(variables: [(&str, &str); N]) -> (Config, Vec<Entry>) {
    config::load(from_variables(variables)).expect("the variables should be right")
}

fn from_variables<const N: usize>(variables: [(&str, &str); N]) -> Sources {
    Sources {
        variables: variables
            .map(|(name, value)| (name.into(), value.into()))
            .into(),
        ..Sources::default()
    }
}

struct File {
    path: PathBuf,
    _directory: TempDir,
}

/// A file that lives as long as what is returned.
fn toml(text: &str) -> File {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = Path::new(directory.path()).join("chitchat.toml");
    fs::write(&path, text).expect("the file should be written");
    File {
        path,
        _directory: directory,
    }
}
