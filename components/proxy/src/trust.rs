//! Keeping the credentials in step with their files, and saying how that goes: once in the log, always in the metrics
//! and in the body of `/ready`. Never in its status: a proxy without TLS serves plaintext.

use conduit_identity::{ReloadResult, Store};
use conduit_runtime::ready::Readiness;
use parking_lot::Mutex;

use crate::{config::Config, metrics::Metrics};

/// The name of the note in `/ready`.
const NOTE: &str = "tls";

/// Never returns.
pub(crate) async fn keep(config: &Config, store: Store, metrics: Metrics, readiness: Readiness) {
    if let Some(problem) = &config.tls.problem {
        tracing::warn!(problem, "TLS settings are not usable; serving plaintext");
    }
    let Some(own) = &config.tls.own else {
        readiness.note(NOTE, "disabled");
        return std::future::pending().await;
    };
    let last = Mutex::new(config.tls.problem.clone());
    let watch = conduit_identity::watch(
        own.files.clone(),
        store.clone(),
        |result| {
            metrics.tls.reload(&result);
            *last.lock() = told(&result);
        },
        config.timeouts.tls_poll,
    );
    // What is held changes by itself, too: it expires.
    let show = async {
        loop {
            readiness.note(NOTE, note(&store, last.lock().as_deref()));
            tokio::time::sleep(config.timeouts.tls_poll).await;
        }
    };
    tokio::join!(watch, show);
}

/// Logs what changed, and returns what is wrong.
fn told(result: &ReloadResult) -> Option<String> {
    let problem = match result {
        ReloadResult::Reloaded => {
            tracing::info!("credentials loaded");
            return None;
        }
        ReloadResult::Unreadable(error) => error.to_string(),
        ReloadResult::Rejected(error) => error.to_string(),
    };
    tracing::warn!(problem, "no new credentials; what works is kept, and the files are tried again");
    Some(problem)
}

fn note(store: &Store, problem: Option<&str>) -> String {
    let mut note = match (store.current(), store.held()) {
        (Ok(loaded), _) => format!("true, until {}", loaded.credentials.not_after()),
        (Err(unusable), Some(held)) => format!("{}, until {}", unusable.label(), held.not_after()),
        (Err(unusable), None) => unusable.label().to_owned(),
    };
    if let Some(problem) = problem {
        note.push_str(": ");
        note.push_str(problem);
    }
    note
}
