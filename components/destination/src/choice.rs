//! What one client may choose from where the Service leaves the choice not to chance. Pure.
//!
//! A client that balances by itself no longer goes through kube-proxy, and must do what kube-proxy would have done: an
//! application may rely on it. Clients know nothing of affinity or nodes, so each is told of those endpoints only that
//! it may use.

use std::{net::IpAddr, net::SocketAddr, sync::Arc};

use crate::view::{Endpoint, Known, View};

/// Who asks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Client {
    /// Its address; none when it cannot be told.
    pub(crate) ip: Option<IpAddr>,
    /// Its node; none when it is no pod that is known.
    pub(crate) node: Option<Arc<str>>,
}

impl Known {
    /// What `client` is told. Unknown where it cannot be said which endpoints are its own: then kube-proxy chooses.
    pub(crate) fn for_client(&self, client: &Client) -> View {
        let mut known = self.clone();
        if self.choice.on_node {
            let Some(node) = &client.node else { return View::Unknown };
            known.endpoints.retain(|_, endpoint| endpoint.node.as_ref() == Some(node));
        }
        if self.choice.by_client {
            let Some(ip) = client.ip else { return View::Unknown };
            let chosen =
                known.endpoints.iter().max_by_key(|entry| weight(ip, entry)).map(|(address, _)| *address);
            known.endpoints.retain(|address, _| Some(*address) == chosen);
        }
        View::Known(Arc::new(known))
    }
}

/// Rendezvous hashing (highest random weight; FNV-1a, mixed as splitmix64 does): the same client gets the same endpoint
/// from every replica of this service, before and after a restart, and another one only when its own is gone.
fn weight(client: IpAddr, (address, _): &(&SocketAddr, &Endpoint)) -> u64 {
    let octets = format!("{client} {address}").into_bytes();
    let fold = |hash: u64, octet: u8| (hash ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3);
    let hash = octets.into_iter().fold(0xcbf2_9ce4_8422_2325, fold);
    let mixed = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::view::Choice;

    fn known(endpoints: impl IntoIterator<Item = u8>, choice: Choice) -> Known {
        let endpoint = |n: u8| {
            let node = Some(if n & 1 == 0 { "even" } else { "odd" }.into());
            (SocketAddr::from(([10, 1, 0, n], 80)), Endpoint { node, ..Endpoint::default() })
        };
        Known { endpoints: endpoints.into_iter().map(endpoint).collect(), choice, ..Known::default() }
    }

    fn told(view: View) -> Vec<SocketAddr> {
        match view {
            View::Known(known) => known.endpoints.keys().copied().collect(),
            View::Unknown => panic!("something is known"),
        }
    }

    fn client(n: u8) -> Client {
        Client { ip: Some(IpAddr::from([10, 2, 0, n])), node: None }
    }

    const BY_CLIENT: Choice = Choice { by_client: true, on_node: false };
    const ON_NODE: Choice = Choice { by_client: false, on_node: true };

    #[test]
    fn a_client_keeps_its_endpoint_as_long_as_that_is_there() {
        let (all, fewer) = (known(0..10, BY_CLIENT), known(0..9, BY_CLIENT));
        let lost = SocketAddr::from(([10, 1, 0, 9], 80));
        let mut spread = BTreeMap::new();
        for n in 0..200 {
            let [before] = told(all.for_client(&client(n)))[..] else { panic!("one endpoint expected") };
            let [after] = told(fewer.for_client(&client(n)))[..] else { panic!("one endpoint expected") };
            assert_ne!(after, lost);
            assert!(before == after || before == lost);
            *spread.entry(before).or_insert(0) += 1;
        }
        assert_eq!(spread.len(), 10, "everybody is somebody's: {spread:?}");
        assert!(spread.values().all(|count| *count < 60), "{spread:?}");
    }

    #[test]
    fn a_local_service_is_its_node_s() {
        let here = Client { ip: None, node: Some("even".into()) };
        assert_eq!(told(known(0..4, ON_NODE).for_client(&here)).len(), 2);
        let elsewhere = Client { ip: None, node: Some("third".into()) };
        assert!(told(known(0..4, ON_NODE).for_client(&elsewhere)).is_empty());
    }

    #[test]
    fn who_cannot_be_told_apart_is_left_to_kube_proxy() {
        for choice in [BY_CLIENT, ON_NODE] {
            assert_eq!(known(0..4, choice).for_client(&Client::default()), View::Unknown);
        }
    }
}
