//! How other commands find the demo.

use conduit_identity::UnixTime;
use conduit_net::TokioNetwork;
use conduit_observe::demo_file::{Demo, Place};

use super::application::NAMESPACE;
use crate::{client, output};

/// The file that names the demo, as long as this lives.
pub(super) struct DemoFile {
    place: Place,
    pid: u32,
}

impl DemoFile {
    /// Writes it, unless another demo that runs has one. Without it the demo is as good; the others then need
    /// `--api-addr`.
    pub(super) async fn write(api: &str, now: UnixTime) -> Option<Self> {
        let (place, pid) = (Place::of_user(), std::process::id());
        if let Some(other) = running(&place).await {
            output::note(&format!(
                "note: other commands find the demo that runs as process {}; for this one they need --api-addr {api}",
                other.pid
            ));
            return None;
        }
        let namespace = Some(NAMESPACE.to_owned());
        match place.write(&Demo { api_addr: api.to_owned(), pid, started: now.as_secs(), namespace }) {
            Ok(()) => Some(Self { place, pid }),
            Err(error) => {
                let path = place.path().display();
                output::note(&format!(
                    "note: cannot write {path} ({error}); other commands need --api-addr {api}"
                ));
                None
            }
        }
    }
}

async fn running(place: &Place) -> Option<Demo> {
    let demo = place.read().ok().flatten()?;
    client::answers(&TokioNetwork::shared(), &demo).await.then_some(demo)
}

impl Drop for DemoFile {
    fn drop(&mut self) {
        if let Err(error) = self.place.remove(self.pid) {
            output::note(&format!("note: {} stays behind: {error}", self.place.path().display()));
        }
    }
}
