//! Simulated servers that are told more than they can pass on.

use super::rooms::{hear, open, room_at, say};
use super::scenarios::world;
use super::{TOPICS, World};
use crate::broker::home_of;
use crate::ids::ShardId;

#[test]
fn a_local_flood_keeps_nobody_out() {
    let mut world = world(2, |config| config.limits.fanout_backlog = 3000);
    // A topic that is at home on shard 1, where somebody reads and somebody floods.
    let topic = (0..TOPICS.len())
        .find(|topic| home_of(&world.settings.hasher, 2, TOPICS[*topic]) == ShardId(1))
        .expect("one of the topics");
    let reader = world.open_client(1);
    let flooder = world.open_client(1);
    let remote = world.open_client(0);
    world.clients[reader].subscribe(&world.network, topic, &mut world.random);
    world.steps(50);
    let mut steps = 0;
    while !world.clients[remote].is_subscribed(topic) {
        for _ in 0..40 {
            world.publish(flooder, topic);
        }
        if steps == 20 {
            world.clients[remote].subscribe(&world.network, topic, &mut world.random);
        }
        world.step();
        steps += 1;
        assert!(steps < 2000, "the other shard is never heard");
    }
    for _ in 0..100 {
        for _ in 0..40 {
            world.publish(flooder, topic);
        }
        world.step();
    }
    world.control.shutdown();
    for _ in 0..2000 {
        world.step();
    }
    assert!(world.shards.iter().all(|shard| shard.state().has_ended()), "it never ends");
}

#[test]
fn refusals_that_their_publishers_shard_is_too_slow_for_do_not_pile_up() {
    const BACKLOG: usize = 100_000;
    const PUBLISHERS: usize = 150;
    const BURST: usize = 20;
    const ROUNDS: usize = 40;
    let mut world = world(2, |config| config.limits.mesh_backlog = BACKLOG);
    // At home on shard 1; who publishes and who reads is on shard 0, which has few turns.
    let publishers = [(); PUBLISHERS].map(|()| open(&mut world, 0).0);
    let (reader, _) = open(&mut world, 0);
    let channel = room_at(&world, 1);
    say(&world, reader, &format!(r#"{{"action":"subscribe","channel":"{channel}"}}"#));
    hear(&mut world, reader, "subscription_confirm");
    let publish = format!(r#"{{"action":"publish","channel":"{channel}","data":1,"id":7}}"#);
    let answers = |world: &mut World| {
        world.said(reader);
        let said = publishers.iter().map(|socket| world.said(*socket));
        said.map(|said| said.matches(r#""requestId":7"#).count()).sum::<usize>()
    };
    let (mut most, mut answered) = (0, 0);
    for _ in 0..ROUNDS {
        for socket in publishers {
            (0..BURST).for_each(|_| say(&world, socket, &publish));
        }
        for turn in 0..50 {
            world.shards[usize::from(turn > 0)].turn().expect("a turn");
        }
        most = most.max(world.shards[1].mesh.waiting(ShardId(0)));
        answered += answers(&mut world);
    }
    assert!(most > BACKLOG, "nothing is refused: {most}");
    // Besides, a turn's publications are on their way when it turns out that they are too many.
    assert!(most < 3 * BACKLOG + PUBLISHERS * BURST * 256, "{most} bytes wait");
    let mut steps = 0;
    while answered < ROUNDS * PUBLISHERS * BURST {
        world.step();
        answered += answers(&mut world);
        steps += 1;
        assert!(steps < 10_000, "{answered} are answered");
    }
    assert_eq!(world.shards[1].mesh.waiting(ShardId(0)), 0);
}
