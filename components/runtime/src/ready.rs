//! What must have happened before a process says it is ready, and what an operator should know besides.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;

/// The readiness of a process. Cloning shares.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    pending: BTreeMap<&'static str, usize>,
    notes: BTreeMap<&'static str, String>,
}

impl Readiness {
    /// Holds readiness back until [`Guard::ready`] or the guard's drop.
    pub fn guard(&self, what: &'static str) -> Guard {
        *self.state.lock().pending.entry(what).or_default() += 1;
        Guard { readiness: self.clone(), what }
    }

    /// What is still awaited, in alphabetical order; ready when empty.
    pub fn pending(&self) -> Vec<&'static str> {
        self.state.lock().pending.keys().copied().collect()
    }

    /// Shows `text` under `name` in the body of `/ready`, without any effect on its status: TLS that does not work is
    /// worth telling and no reason to take the application out of its Service.
    pub fn note(&self, name: &'static str, text: impl Into<String>) {
        self.state.lock().notes.insert(name, text.into());
    }

    /// The notes, by name.
    pub fn notes(&self) -> Vec<(&'static str, String)> {
        self.state.lock().notes.iter().map(|(name, text)| (*name, text.clone())).collect()
    }
}

/// One thing that readiness waits for.
#[derive(Debug)]
pub struct Guard {
    readiness: Readiness,
    what: &'static str,
}

impl Guard {
    /// It has happened.
    pub fn ready(self) {}
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut state = self.readiness.state.lock();
        if let Some(count) = state.pending.get_mut(self.what) {
            *count -= 1;
            if *count == 0 {
                state.pending.remove(self.what);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_every_guard_is_gone_whatever_the_notes_say() {
        let readiness = Readiness::default();
        let (inbound, outbound) = (readiness.guard("inbound"), readiness.guard("outbound"));
        readiness.note("tls", "expired");
        assert_eq!(readiness.pending(), ["inbound", "outbound"]);
        inbound.ready();
        assert_eq!(readiness.pending(), ["outbound"]);
        outbound.ready();
        assert!(readiness.pending().is_empty());
    }
}
