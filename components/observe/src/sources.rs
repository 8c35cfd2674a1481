//! Where [`crate::samples::Samples`] come from.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    proxies::Proxy,
    samples::{PodName, Samples},
};
use prometheus::{AskError, Prometheus};

pub mod prometheus;
pub mod reading;
pub mod scrape;
pub mod text;
pub mod trail;
pub mod window;

/// A place to ask for what happened lately.
#[derive(Clone)]
pub enum Source {
    /// The proxies themselves, read by [`scrape::Scraper`].
    Window(scrape::Shared),
    /// A server that reads and keeps them.
    Prometheus(Prometheus),
}

impl Source {
    /// What happened in the last `window`.
    ///
    /// # Errors
    /// The server cannot be asked; the proxies themselves always answer, with what is missing told in the answer.
    pub async fn samples(&self, window: Duration) -> Result<Samples, AskError> {
        match self {
            Self::Window(shared) => Ok(shared.samples(window)),
            Self::Prometheus(prometheus) => prometheus.samples(window).await,
        }
    }

    /// What each proxy said of itself when it was last read.
    ///
    /// # Errors
    /// As of [`Source::samples`].
    pub async fn proxies(&self) -> Result<BTreeMap<PodName, Proxy>, AskError> {
        match self {
            Self::Window(shared) => Ok(shared.proxies()),
            Self::Prometheus(prometheus) => prometheus.proxies().await,
        }
    }
}
