//! What a request costs besides being forwarded: picking its endpoint, and recording it.
//!
//! `cargo bench -p conduit-proxy --bench records`; nanoseconds per operation, the best of several rounds, because
//! whatever else the machine does only ever adds.

#![allow(clippy::print_stdout, reason = "a benchmark prints what it measured")]

use std::time::Duration;

use conduit_proxy::bench::{Balance, Records};
use tokio::time::Instant;

const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_millis(150);
/// Operations between two looks at the clock.
const BATCH: u32 = 1_000;

fn main() {
    for count in [1, 3, 100, 5_000] {
        let mut balance = Balance::new(count);
        measure(&format!("pick and record the answer, {count} endpoints"), || balance.request());
    }
    for count in [1, 3, 15, 100] {
        if let Some(mut records) = Records::new(count) {
            measure(&format!("record a request, {count} endpoints in turn"), || records.request());
        }
    }
    if let Some(mut records) = Records::new(200) {
        measure("record a read", || records.read());
        (0..200).for_each(|_| records.request());
        println!("{:>12} octets of metrics for 200 endpoints", records.encode());
        let start = Instant::now();
        records.encode();
        println!("{:>12} us to write them", start.elapsed().as_micros());
    }
}

fn measure(what: &str, mut operation: impl FnMut()) {
    let best = (0..ROUNDS).map(|_| round(&mut operation)).fold(f64::INFINITY, f64::min);
    println!("{best:>12.1} ns  {what}");
}

fn round(operation: &mut impl FnMut()) -> f64 {
    let start = Instant::now();
    let mut done = 0_u32;
    loop {
        (0..BATCH).for_each(|_| operation());
        done += BATCH;
        let elapsed = start.elapsed();
        if elapsed >= ROUND {
            return elapsed.as_nanos() as f64 / f64::from(done);
        }
    }
}
