//! The hot path in pieces: `cargo bench --bench hot_path`, or with a name behind `--` some of it.

mod support;

use criterion::{Criterion, criterion_group, criterion_main};
use support::cases::CASES;

fn hot_path(criterion: &mut Criterion) {
    for (name, prepare) in CASES {
        let mut case = prepare();
        criterion.bench_function(name, |bencher| bencher.iter(&mut case));
    }
}

criterion_group!(benches, hot_path);
criterion_main!(benches);
