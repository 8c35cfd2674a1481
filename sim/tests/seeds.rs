//! The worlds of a fixed block of seeds.

mod support;

use sim::{judge::judge, plan::Plan};

/// As many as a minute allows in a debug build; `sim sweep` runs thousands.
const SEEDS: std::ops::Range<u64> = 1..9;

#[test]
fn the_worlds_of_a_block_of_seeds_violate_nothing() {
    let seeds: Vec<u64> = SEEDS.collect();
    let wrong = support::side_by_side(&seeds, |seed| match judge(&Plan::of_seed(*seed), false) {
        Ok(verdict) => {
            verdict.violations.iter().map(|violation| format!("seed {seed}: {violation}")).collect()
        }
        Err(stopped) => vec![stopped.to_string()],
    });
    let wrong: Vec<String> = wrong.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "see `cargo run -p sim --release -- run --seed N`:\n{}", wrong.join("\n"));
}
