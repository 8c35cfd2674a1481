//! Every named scenario: nothing is violated, nothing is left unproven, and what happens is what is told in `snapshots`.

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use sim::{
    judge::judge,
    scenarios::{self, SEED, Scenario},
    timeline,
};

#[test]
fn every_scenario_shows_what_it_promises() {
    let stories = support::side_by_side(&scenarios::all(), tell);
    let wrong: Vec<String> = stories.iter().filter_map(|(_, wrong)| wrong.clone()).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let mut changed = Vec::new();
    for (scenario, (story, _)) in scenarios::all().into_iter().zip(stories) {
        // All of them are compared before any of them fails.
        let compared = std::panic::catch_unwind(|| insta::assert_snapshot!(scenario.name, story));
        changed.extend(compared.is_err().then_some(scenario.name));
    }
    assert!(changed.is_empty(), "these stories have changed: {}", changed.join(", "));
}

/// What happens in a scenario, and what is wrong with it.
fn tell(scenario: &&'static Scenario) -> (String, Option<String>) {
    let plan = (scenario.plan)(SEED);
    let verdict = match judge(&plan, false) {
        Ok(verdict) => verdict,
        Err(stopped) => return (String::new(), Some(format!("{}: {stopped}", scenario.name))),
    };
    let violations = verdict.violations.iter().map(ToString::to_string);
    let unproven = scenario.unproven(&verdict).into_iter().map(|what| format!("nothing is proven: {what}"));
    let wrong: Vec<String> = violations.chain(unproven).collect();
    let wrong = (!wrong.is_empty()).then(|| format!("{}:\n  {}", scenario.name, wrong.join("\n  ")));
    (format!("{}\n\n{}", scenario.about, timeline::of(&plan, &verdict)), wrong)
}
