//! Where [`crate::samples::Samples`] come from.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    proxies::Proxy,
    samples::{PodName, Samples},
};

pub mod reading;
pub mod scrape;
pub mod text;
pub mod trail;
pub mod window;

/// A place to ask for what happened lately. An enum: a second source (a Prometheus server) is another variant, and
/// everything above it stays as it is.
#[derive(Clone)]
pub enum Source {
    /// The proxies themselves, read by [`scrape::Scraper`].
    Window(scrape::Shared),
}

impl Source {
    /// What happened in the last `window`.
    pub async fn samples(&self, window: Duration) -> Samples {
        match self {
            Self::Window(shared) => shared.samples(window),
        }
    }

    /// What each proxy said of itself when it was last read.
    pub async fn proxies(&self) -> BTreeMap<PodName, Proxy> {
        match self {
            Self::Window(shared) => shared.proxies(),
        }
    }
}
