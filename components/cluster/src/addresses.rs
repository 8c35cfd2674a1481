//! Service addresses.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};

use serde_json::{Value, json};

use crate::{
    admit::default,
    failure::{Cause, Failure},
    object::{child_mut, take, text},
    resources::Res,
    store::Store,
};

/// Service addresses, handed out in order; one that was given back is not used again before the range has come round.
#[derive(Debug)]
pub(crate) struct Addresses {
    base: u32,
    next: u32,
}

/// How many addresses a range has: a /16 without its ends.
const ADDRESS_COUNT: u32 = 65_534;

impl Addresses {
    /// Addresses of the /16 at `network`.
    pub(crate) fn new(network: Ipv4Addr) -> Self {
        Self { base: network.to_bits(), next: 1 }
    }

    /// Gives a Service its cluster address, or checks the one it asks for.
    pub(crate) fn assign(
        &mut self,
        resource: &Res,
        value: &mut Value,
        old: Option<&Value>,
        store: &Store,
    ) -> Result<(), Failure> {
        let name = text(value, "/metadata/name").to_owned();
        let had = old.map(|old| text(old, "/spec/clusterIP").to_owned()).unwrap_or_default();
        let asked = text(value, "/spec/clusterIP").to_owned();
        let spec = child_mut(value, "spec");
        if spec.get("type").is_some_and(|kind| kind == "ExternalName") {
            take(spec, "clusterIP");
            take(spec, "clusterIPs");
            return Ok(());
        }
        let address = if asked.is_empty() && !had.is_empty() {
            had
        } else if asked.is_empty() {
            self.next_free(*resource, store)?
        } else {
            let taken = asked != had && asked != "None" && used(*resource, store).contains(&asked);
            let cause = if asked != "None" && asked.parse::<IpAddr>().is_err() {
                Some(Cause::invalid(
                    "spec.clusterIPs[0]",
                    &asked,
                    "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                ))
            } else {
                taken.then(|| {
                    Cause::invalid(
                        "spec.clusterIPs",
                        [&asked],
                        "failed to allocate IP: provided IP is already allocated",
                    )
                })
            };
            if let Some(cause) = cause {
                return Err(Failure::invalid(resource, &name, &[cause]));
            }
            asked
        };
        let family = if address.contains(':') { "IPv6" } else { "IPv4" };
        default(spec, "ipFamilies", json!([family]));
        default(spec, "ipFamilyPolicy", "SingleStack");
        spec.insert("clusterIPs".to_owned(), json!([address]));
        spec.insert("clusterIP".to_owned(), address.into());
        Ok(())
    }

    fn next_free(&mut self, resource: Res, store: &Store) -> Result<String, Failure> {
        let used = used(resource, store);
        for _ in 0..ADDRESS_COUNT {
            let address = Ipv4Addr::from_bits(self.base.wrapping_add(self.next)).to_string();
            self.next = self.next % ADDRESS_COUNT + 1;
            if !used.contains(&address) {
                return Ok(address);
            }
        }
        Err(Failure::internal("failed to allocate a serviceIP: range is full"))
    }
}

fn used(resource: Res, store: &Store) -> BTreeSet<String> {
    store
        .list(resource, "")
        .iter()
        .map(|service| text(&service.value, "/spec/clusterIP").to_owned())
        .collect()
}
