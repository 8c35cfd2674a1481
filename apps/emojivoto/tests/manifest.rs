//! The manifest deploys the application that the binary is.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

fn documents() -> Vec<Value> {
    let text = include_str!("../emojivoto.yml");
    text.split("\n---\n").map(|document| serde_saphyr::from_str(document).unwrap()).collect()
}

fn of_kind<'a>(documents: &'a [Value], kind: &str) -> Vec<&'a Value> {
    documents.iter().filter(|document| document["kind"] == kind).collect()
}

fn ports(of: &Value, field: &str) -> BTreeSet<u64> {
    of.as_array().into_iter().flatten().map(|port| port[field].as_u64().unwrap()).collect()
}

#[test]
fn every_service_leads_to_ports_that_a_deployment_serves() {
    let documents = documents();
    let mut served = BTreeMap::new();
    for deployment in of_kind(&documents, "Deployment") {
        let template = &deployment["spec"]["template"];
        assert_eq!(deployment["spec"]["selector"]["matchLabels"], template["metadata"]["labels"]);
        let labels = template["metadata"]["labels"].to_string();
        served.insert(labels, ports(&template["spec"]["containers"][0]["ports"], "containerPort"));
    }
    for service in of_kind(&documents, "Service") {
        let selected = &served[&service["spec"]["selector"].to_string()];
        assert_eq!(
            &ports(&service["spec"]["ports"], "targetPort"),
            selected,
            "{}",
            service["metadata"]["name"]
        );
    }
}

#[test]
fn every_server_that_is_named_exists() {
    let documents = documents();
    let known: BTreeSet<String> = of_kind(&documents, "Service")
        .into_iter()
        .flat_map(|service| {
            let name = service["metadata"]["name"].as_str().unwrap().to_owned();
            ports(&service["spec"]["ports"], "port")
                .into_iter()
                .map(move |port| format!("{name}.emojivoto:{port}"))
        })
        .collect();
    let mut named = 0;
    for deployment in of_kind(&documents, "Deployment") {
        let container = &deployment["spec"]["template"]["spec"]["containers"][0];
        for variable in container["env"].as_array().unwrap() {
            if variable["name"].as_str().unwrap().ends_with("_HOST") {
                named += 1;
                assert!(known.contains(variable["value"].as_str().unwrap()), "{variable}");
            }
        }
    }
    assert_eq!(named, 4);
}
