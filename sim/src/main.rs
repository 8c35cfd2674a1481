//! `sim`: replays a seed.

use std::time::Instant;

use sim::{judge::judge, plan::Plan};

#[allow(clippy::disallowed_methods, clippy::print_stdout, reason = "the tool measures itself, and prints")]
fn main() {
    let seed = std::env::args().nth(1).and_then(|seed| seed.parse().ok());
    let plan = seed.map_or_else(|| Plan::quiet(1), Plan::of_seed);
    for planned in &plan.faults {
        println!("{planned}");
    }
    let begun = Instant::now();
    match judge(&plan, true) {
        Err(stopped) => println!("{stopped}"),
        Ok(verdict) => {
            for violation in &verdict.violations {
                println!("{violation}");
            }
            if std::env::args().nth(2).is_some() {
                for c in &verdict.run.wire {
                    println!("wire {c:?}");
                }
                for pod in &verdict.run.pods {
                    println!(
                        "pod {} {} {:?} {:?}-{:?} outages {:?}",
                        pod.ip, pod.name, pod.sidecar, pod.from, pod.until, pod.outages
                    );
                }
                for line in verdict.trace.lines() {
                    println!("trace {line}");
                }
                println!("{:#?}", plan.servers);
                println!("{:#?}", plan.clients);
                let seen: std::collections::BTreeSet<_> =
                    verdict.run.wire.iter().flat_map(|c| c.markers.iter().map(|m| m.0)).collect();
                for (id, op) in &verdict.run.ops.asked {
                    if !seen.contains(id) {
                        println!(
                            "unseen {id} {} {:?} {:?} {:?}",
                            op.service, op.protocol, op.started, op.outcome
                        );
                    }
                }
            }
            println!("idle {:?}", verdict.idle_faults());
            println!(
                "{} pods {} operations {} connections {:?}",
                verdict.run.pods.len(),
                verdict.run.ops.asked.len(),
                verdict.run.wire.len(),
                verdict.trace.sum()
            );
        }
    }
    println!("took {:?}", begun.elapsed());
}
