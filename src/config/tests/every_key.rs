//! Every key there is, from a file into its place.

use super::*;
use crate::ids::GroupName;
use crate::schema::SchemaSource;

#[test]
fn every_key_is_read_from_a_file() {
    let keys = tempfile::NamedTempFile::new().unwrap();
    fs::write(&keys, "alice 0123456789abcdef attributes=plan=pro\n").unwrap();
    let keys = keys.path();
    let written = file(
        &r#"
        [server]
        listen = "[::1]:9000"
        shards = 4
        pin = false
        insecure = true
        shutdown_timeout = "1m30s"
        backend = "auto"
        direct_descriptors = true
        unshare_descriptors = true
        [limits]
        max_connections = 1_000
        max_message_size = "1MiB"
        max_head_size = 0x2000
        max_head_fields = 32
        handshake_timeout = "1s"
        close_timeout = "2s"
        message_timeout = "3s"
        max_empty_fragments = 0
        control_frame_rate = 5
        max_subscriptions = 6
        max_errors = 7
        publish_rate = 8
        publish_burst = 9
        send_queue_size = "2MB"
        slow_consumer_timeout = "10ms"
        max_topics = 11
        fanout_backlog = "12MiB"
        mesh_backlog = "13MiB"
        history_memory = "14MiB"
        max_unacked = 26
        max_checked_size = "27KiB"
        checked_in_turn = "3KiB"
        max_rooms = 30
        [heartbeat]
        interval = "500ms"
        [auth]
        keys_file = "KEYS"
        required = true
        timeout = "4s"
        max_users = 26
        max_connections_per_user = 27
        [sessions]
        ttl = "26s"
        max_parked = 27
        memory = "28KiB"
        durable = true
        durable_interval = "28s"
        [channels]
        level = "history"
        slow_consumer = "conflate"
        history_size = 15
        history_bytes = "16KiB"
        history_ttl = "17s"
        last = true
        idempotency_window = "18s"
        idempotency_size = 19
        tags = true
        direct = true
        offline_queue = true
        offline_queue_size = 28
        offline_queue_bytes = "29KiB"
        offline_queue_ttl = "30s"
        ack_timeout = "27s"
        ack_retries = 28
        presence = true
        presence_info = "name, plan"
        join_leave = true
        join_leave_interval = "29ms"
        rooms = false
        auto_create = true
        room_ttl = "31s"
        moderators = "role == 'mod'"
        senders = "role != 'guest'"
        kick_closes = true
        schema = "envelope"
        [namespaces.chat]
        level = "live"
        slow_consumer = "drop_oldest"
        [namespaces.prices]
        [groups]
        pro = "plan == 'pro'"
        [schemas]
        order = "envelope"
        [routes]
        text = "webhook:http://127.0.0.1:26/x"
        [webhooks]
        timeout = "26s"
        retries = 27
        queue_size = 28
        batch_size = 29
        batch_timeout = "30ms"
        secret = "a-secret-of-31-bytes"
        [store]
        directory = 'C:\"store"'
        sync = "interval 20ms"
        max_size = "21GiB"
        segment_size = "22MiB"
        cache_size = "26MiB"
        read_memory = "27MiB"
        backlog = "23MiB"
        max_channels = 24
        forget_after = "25d"
        [admin]
        listen = "127.0.0.1:26"
        key = "a-key-of-twenty-seven"
        max_connections = 28
        max_body_size = "29KiB"
        timeout = "30s"
        max_groups = 31
        max_group_users = 32
        [diagnostics]
        echo = "/echo"
        [log]
        level = "debug"
        format = "json"
        "#
        .replace("KEYS", keys.to_str().unwrap()),
    );
    let config = written.load().config;
    let channels = ChannelOptions {
        level: Level::History,
        slow_consumer: SlowConsumer::Conflate,
        history_size: 15,
        history_bytes: 16 << 10,
        history_ttl: Duration::from_secs(17),
        last: true,
        idempotency_window: Duration::from_secs(18),
        idempotency_size: 19,
        tags: true,
        direct: true,
        offline_queue: true,
        offline_queue_size: 28,
        offline_queue_bytes: 29 << 10,
        offline_queue_ttl: Duration::from_secs(30),
        ack_timeout: Duration::from_secs(27),
        ack_retries: 28,
        presence: true,
        presence_info: vec!["name".into(), "plan".into()],
        join_leave: true,
        join_leave_interval: Duration::from_millis(29),
        rooms: false,
        auto_create: true,
        room_ttl: Duration::from_secs(31),
        moderators: UserRule::parse("role == 'mod'").unwrap(),
        senders: UserRule::parse("role != 'guest'").unwrap(),
        kick_closes: true,
        schema: Some(SchemaSource::Envelope),
    };
    let namespace = |name: &str, level, slow_consumer| Namespace {
        name: name.to_string(),
        options: ChannelOptions { level, slow_consumer, ..channels.clone() },
    };
    assert_eq!(
        config,
        Config {
            server: Server {
                listen: "[::1]:9000".parse().unwrap(),
                shards: Some(4),
                pin: false,
                insecure: true,
                shutdown_timeout: Duration::from_secs(90),
                backend: BackendChoice::Auto,
                direct_descriptors: true,
                unshare_descriptors: true,
            },
            limits: Limits {
                max_connections: Some(1000),
                max_message_size: 1 << 20,
                max_head_size: 0x2000,
                max_head_fields: 32,
                handshake_timeout: Duration::from_secs(1),
                close_timeout: Duration::from_secs(2),
                message_timeout: Duration::from_secs(3),
                max_empty_fragments: 0,
                control_frame_rate: 5,
                max_subscriptions: 6,
                max_errors: 7,
                publish_rate: 8,
                publish_burst: 9,
                send_queue_size: 2_000_000,
                slow_consumer_timeout: Duration::from_millis(10),
                max_topics: 11,
                fanout_backlog: 12 << 20,
                mesh_backlog: 13 << 20,
                history_memory: 14 << 20,
                max_unacked: 26,
                max_checked_size: 27 << 10,
                checked_in_turn: 3 << 10,
                max_rooms: 30,
            },
            heartbeat: Heartbeat { interval: Duration::from_millis(500) },
            auth: Auth {
                keys_file: Some(keys.to_path_buf()),
                keys: {
                    let mut keys = Keys::read(keys).unwrap();
                    let pro = UserRule::parse("plan == 'pro'").unwrap().unwrap();
                    keys.add_group(&GroupName::parse("pro").unwrap(), &pro);
                    Arc::new(keys)
                },
                required: true,
                timeout: Duration::from_secs(4),
                max_users: 26,
                max_connections_per_user: 27,
            },
            sessions: Sessions {
                ttl: Duration::from_secs(26),
                max_parked: 27,
                memory: 28 << 10,
                durable: true,
                durable_interval: Duration::from_secs(28),
            },
            namespaces: vec![
                namespace("chat", Level::Live, SlowConsumer::DropOldest),
                namespace("prices", Level::History, SlowConsumer::Conflate),
            ],
            channels,
            schemas: config.schemas.clone(),
            groups: {
                let mut groups = GroupRules::default();
                groups.set("pro", "plan == 'pro'").unwrap();
                groups
            },
            type_schemas: {
                let mut schemas = TypeSchemas::default();
                schemas.set("order", "envelope").unwrap();
                schemas
            },
            routes: {
                let mut routes = Routes::default();
                routes.set("text", "webhook:http://127.0.0.1:26/x").unwrap();
                routes
            },
            webhooks: Webhooks {
                timeout: Duration::from_secs(26),
                retries: 27,
                queue_size: 28,
                batch_size: 29,
                batch_timeout: Duration::from_millis(30),
                secret: Secret::parse("a-secret-of-31-bytes").unwrap(),
            },
            store: Store {
                directory: Some("C:\\\"store\"".into()),
                sync: SyncMode::Interval(Duration::from_millis(20)),
                max_size: 21 << 30,
                segment_size: 22 << 20,
                backlog: 23 << 20,
                cache_size: 26 << 20,
                read_memory: 27 << 20,
                max_channels: 24,
                forget_after: Duration::from_hours(25 * 24),
            },
            admin: Admin {
                listen: Some("127.0.0.1:26".parse().unwrap()),
                key: Secret::parse("a-key-of-twenty-seven").unwrap(),
                max_connections: 28,
                max_body_size: 29 << 10,
                timeout: Duration::from_secs(30),
                max_groups: 31,
                max_group_users: 32,
            },
            diagnostics: Diagnostics { echo: Some("/echo".to_string()) },
            log: Log { level: LogLevel::Debug, format: LogFormat::Json },
        }
    );
    // A key that is missing above would still have its default, or not be in the list.
    for key in crate::config::keys::keys().filter(|key| !key.field.hides(&mut config.clone())) {
        assert_ne!(key.show(&config), key.show(&Config::default()), "{}", key.path);
    }
}
