//! A Prometheus server as the source: for clusters that have one, and for more pods than one process should read.
//!
//! - `prometheus/promql.rs`: what is asked
//! - `prometheus/client.rs`: how it is asked
//! - `prometheus/reply.rs`: what its answers mean
//!
//! It must scrape the proxies as the configuration that `conduit install` ships does: job `conduit-proxy`, with
//! `namespace`, `pod` and the owners as labels. Rows are then computed as from the proxies' own answers.
//!
//! What is asked are increases without extrapolation: the last value in the window less the last one before it, so that
//! rare requests are counted as often as they happened. Prometheus' own `increase()`, which estimates what came before
//! the first sample and after the last one, is used only where a series began anew within the window, and for what
//! Prometheus has not known for the whole of it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::sync::watch;

mod client;
mod promql;
mod reply;

pub use client::{AskError, InvalidUrl, Url};

use crate::{
    inventory::Inventory,
    proxies::Proxy,
    samples::{PodName, Samples},
};
use client::Client;
use promql::Question;
use reply::{Answers, Vector};

/// Recording rules: sums that dashboards and alerts ask for again and again.
pub const RULES: &str = include_str!("prometheus/rules.yml");
/// Alerts: what an operator must know before users do.
pub const ALERTS: &str = include_str!("prometheus/alerts.yml");

/// Dashboards for Grafana, by the names of their files.
pub const DASHBOARDS: [(&str, &str); 2] = [
    ("conduit-certificates.json", include_str!("prometheus/grafana/certificates.json")),
    ("conduit-mesh.json", include_str!("prometheus/grafana/mesh.json")),
];

/// A Prometheus server. Cloning shares.
#[derive(Clone)]
pub struct Prometheus {
    client: Arc<Client>,
    inventory: watch::Receiver<Arc<Inventory>>,
}

impl Prometheus {
    /// The server at `url`, reached over `net`; `inventory` says which pods it ought to know.
    pub fn new(url: Url, net: conduit_net::Net, inventory: watch::Receiver<Arc<Inventory>>) -> Self {
        Self { client: Arc::new(Client::new(url, net)), inventory }
    }

    /// What happened in the last `window`, by the server's own clock.
    ///
    /// # Errors
    /// The server cannot be asked, or does not answer as Prometheus does.
    pub async fn samples(&self, window: Duration) -> Result<Samples, AskError> {
        let now = self.client.now().await?;
        let vector = |question: Question| self.client.query::<Vector>(question.text(window), now);
        let (scrapes, known, births, responses, latencies, closes, open, received, sent, answered, closed) =
            tokio::try_join!(
                self.client.query(promql::scrapes(window), now),
                vector(Question::Known),
                vector(Question::Births),
                vector(Question::Increase(promql::RESPONSES)),
                vector(Question::Increase(promql::LATENCIES)),
                vector(Question::Increase(promql::CLOSES)),
                vector(Question::Open),
                vector(Question::Increase(promql::RECEIVED)),
                vector(Question::Increase(promql::SENT)),
                vector(Question::Age(promql::RESPONSES)),
                vector(Question::Age(promql::CLOSES)),
            )?;
        let answers = Answers {
            now,
            window,
            scrapes,
            known,
            births,
            responses,
            latencies,
            closes,
            open,
            received,
            sent,
            ages: [answered, closed],
        };
        let inventory = self.inventory.borrow().clone();
        Ok(answers.samples(&inventory))
    }

    /// What each proxy says of itself; since when it does is not asked.
    ///
    /// # Errors
    /// As of [`Prometheus::samples`].
    pub async fn proxies(&self) -> Result<BTreeMap<PodName, Proxy>, AskError> {
        let now = self.client.now().await?;
        let (up, said) = tokio::try_join!(
            self.client.query(promql::UP.to_owned(), now),
            self.client.query(promql::sayings(), now),
        )?;
        Ok(reply::proxies(&up, &said))
    }
}
