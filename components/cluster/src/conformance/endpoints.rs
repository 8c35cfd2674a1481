//! What the endpoints controllers make of Services and pods.

use serde_json::{Value, json};

use super::scratch::{Failed, MERGE, STRATEGIC, Scratch, ensure, idle_pod, same};

/// Makes a pod labelled `app=a` and reports it at `address`.
async fn start(s: &Scratch, name: &str, address: &str, ready: bool) -> Result<(), Failed> {
    start_pod(s, idle_pod(name, json!({ "app": "a" })), address, ready).await
}

async fn start_pod(s: &Scratch, mut pod: Value, address: &str, ready: bool) -> Result<(), Failed> {
    let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    pod["spec"]["nodeName"] = s.namespace.as_str().into();
    s.post(&s.at("pods"), pod).await?.expect(201)?;
    let status = json!({ "status": { "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }] } });
    s.patch(STRATEGIC, &s.at(&format!("pods/{name}/status")), status).await?.expect(200)?;
    set_ready(s, &name, ready).await
}

async fn set_ready(s: &Scratch, name: &str, ready: bool) -> Result<(), Failed> {
    let status = if ready { "True" } else { "False" };
    let status = json!({ "status": { "conditions": [{ "type": "Ready", "status": status }] } });
    s.patch(STRATEGIC, &s.at(&format!("pods/{name}/status")), status).await?.expect(200).map(drop)
}

async fn service(s: &Scratch, extra: Value) -> Result<(), Failed> {
    s.node().await?;
    let mut spec =
        json!({ "selector": { "app": "a" }, "ports": [{ "name": "web", "port": 80, "targetPort": "http" }] });
    if let (Value::Object(spec), Value::Object(extra)) = (&mut spec, extra) {
        spec.extend(extra);
    }
    let body = json!({ "metadata": { "name": "a", "labels": { "team": "x" } }, "spec": spec });
    s.post(&s.at("services"), body).await?.expect(201).map(drop)
}

/// The addresses in Endpoints `a`: ready ones, and those that are not.
async fn addresses(s: &Scratch) -> Result<(Vec<String>, Vec<String>), Failed> {
    let endpoints = s.get(&s.at("endpoints/a")).await?.body;
    let of = |field: &str| -> Vec<String> {
        let subsets = endpoints["subsets"].as_array().cloned().unwrap_or_default();
        let addresses = subsets.iter().filter_map(|subset| subset[field].as_array()).flatten();
        let mut addresses: Vec<_> = addresses.filter_map(|a| a["ip"].as_str().map(str::to_owned)).collect();
        addresses.sort();
        addresses
    };
    Ok((of("addresses"), of("notReadyAddresses")))
}

/// The addresses in the slices of Service `a` with their readiness, sorted.
async fn sliced(s: &Scratch) -> Result<Vec<(String, bool)>, Failed> {
    let mut found = Vec::new();
    for slice in slices(s).await? {
        for endpoint in slice["endpoints"].as_array().into_iter().flatten() {
            let address = endpoint["addresses"][0].as_str().unwrap_or_default().to_owned();
            found.push((address, endpoint["conditions"]["ready"] == true));
        }
    }
    found.sort();
    Ok(found)
}

async fn slices(s: &Scratch) -> Result<Vec<Value>, Failed> {
    slices_of(s, "a").await
}

async fn slices_of(s: &Scratch, service: &str) -> Result<Vec<Value>, Failed> {
    let group = s.get("/apis/discovery.k8s.io").await?.expect(200)?.body;
    let version = group["preferredVersion"]["groupVersion"].as_str().unwrap_or_default().to_owned();
    let path =
        s.at_group(&version, &format!("endpointslices?labelSelector=kubernetes.io/service-name%3D{service}"));
    let list = s.get(&path).await?.expect(200)?.body;
    Ok(list["items"].as_array().cloned().unwrap_or_default())
}

async fn until(s: &Scratch, ready: &[&str], not_ready: &[&str]) -> Result<(), Failed> {
    s.eventually(&format!("endpoints are {ready:?} and {not_ready:?}"), || async {
        let now = addresses(s).await?;
        Ok(now.0 == ready && now.1 == not_ready)
    })
    .await?;
    let mut wanted: Vec<_> = ready.iter().map(|address| ((*address).to_owned(), true)).collect();
    wanted.extend(not_ready.iter().map(|address| ((*address).to_owned(), false)));
    wanted.sort();
    s.eventually(&format!("slices are {wanted:?}"), || async { Ok(sliced(s).await? == wanted) }).await
}

pub(super) async fn endpoints_follow_pods_and_their_readiness(s: Scratch) -> Result<(), Failed> {
    service(&s, json!({})).await?;
    start(&s, "one", "10.9.0.1", true).await?;
    start(&s, "two", "10.9.0.2", false).await?;
    until(&s, &["10.9.0.1"], &["10.9.0.2"]).await?;
    set_ready(&s, "two", true).await?;
    until(&s, &["10.9.0.1", "10.9.0.2"], &[]).await?;
    s.kill("one").await?;
    until(&s, &["10.9.0.2"], &[]).await?;
    let endpoints = s.get(&s.at("endpoints/a")).await?.expect(200)?.body;
    same("labels", &endpoints["metadata"]["labels"]["team"], "x")?;
    let target = &endpoints["subsets"][0]["addresses"][0]["targetRef"];
    same("kind of the target", &target["kind"], "Pod")?;
    same("name of the target", &target["name"], "two")?;
    let slice = slices(&s).await?.first().cloned().unwrap_or_default();
    same("address type", &slice["addressType"], "IPv4")?;
    let generation = slice["metadata"]["generation"].as_u64();
    ensure(generation > Some(1), || format!("a changed slice is of generation {generation:?}"))?;
    same("owner", &slice["metadata"]["ownerReferences"][0]["kind"], "Service")?;
    let manager = "endpointslice-controller.k8s.io";
    same("manager", &slice["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"], manager)?;
    same("target", &slice["endpoints"][0]["targetRef"]["name"], "two")
}

pub(super) async fn named_ports_are_resolved_for_each_pod(s: Scratch) -> Result<(), Failed> {
    service(&s, json!({})).await?;
    start(&s, "one", "10.9.0.1", true).await?;
    let mut other = idle_pod("two", json!({ "app": "a" }));
    other["spec"]["containers"][0]["ports"][0]["containerPort"] = 9090.into();
    start_pod(&s, other, "10.9.0.2", true).await?;
    until(&s, &["10.9.0.1", "10.9.0.2"], &[]).await?;
    let endpoints = s.get(&s.at("endpoints/a")).await?.expect(200)?.body;
    let mut pairs: Vec<(String, Value)> = endpoints["subsets"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|subset| (subset["addresses"][0]["ip"].to_string(), subset["ports"].clone()))
        .collect();
    pairs.sort_by(|a, b| a.0.cmp(&b.0));
    let port = |number: u16| json!([{ "name": "web", "port": number, "protocol": "TCP" }]);
    let expected = vec![("\"10.9.0.1\"".to_owned(), port(8080)), ("\"10.9.0.2\"".to_owned(), port(9090))];
    ensure(pairs == expected, || format!("{pairs:?}"))?;
    s.eventually("pods with different ports are in different slices", || async {
        let slices = slices(&s).await?;
        Ok(slices
            .iter()
            .filter(|slice| slice["endpoints"].as_array().is_some_and(|all| all.len() == 1))
            .count()
            == 2)
    })
    .await
}

pub(super) async fn unready_pods_are_published_on_demand(s: Scratch) -> Result<(), Failed> {
    service(&s, json!({ "clusterIP": "None", "publishNotReadyAddresses": true })).await?;
    start(&s, "one", "10.9.0.1", false).await?;
    until(&s, &["10.9.0.1"], &[]).await?;
    let endpoints = s.get(&s.at("endpoints/a")).await?.expect(200)?.body;
    same("mark of a headless service", &endpoints["metadata"]["labels"]["service.kubernetes.io/headless"], "")
}

pub(super) async fn a_service_without_selector_is_left_alone(s: Scratch) -> Result<(), Failed> {
    let body = json!({ "metadata": { "name": "a" }, "subsets": [{ "addresses": [{ "ip": "10.9.0.7" }], "ports": [{ "port": 80 }] }] });
    s.post(&s.at("endpoints"), body).await?.expect(201)?;
    let body = json!({ "metadata": { "name": "a" }, "spec": { "ports": [{ "port": 80 }] } });
    s.post(&s.at("services"), body).await?.expect(201)?;
    // Another Service's endpoints show that the controller has come past.
    let other = json!({ "metadata": { "name": "b" }, "spec": { "selector": { "app": "a" }, "ports": [{ "port": 80 }] } });
    s.post(&s.at("services"), other).await?.expect(201)?;
    s.eventually("the other service has endpoints", || async { s.exists(&s.at("endpoints/b")).await })
        .await?;
    let now = addresses(&s).await?;
    ensure(now.0 == ["10.9.0.7"], || format!("{now:?}"))
}

pub(super) async fn a_finished_pod_is_no_endpoint(s: Scratch) -> Result<(), Failed> {
    service(&s, json!({})).await?;
    let mut once = idle_pod("once", json!({ "app": "a" }));
    once["spec"]["restartPolicy"] = "Never".into();
    start_pod(&s, once, "10.9.0.1", true).await?;
    until(&s, &["10.9.0.1"], &[]).await?;
    let done =
        json!({ "status": { "phase": "Succeeded", "conditions": [{ "type": "Ready", "status": "False" }] } });
    s.patch(STRATEGIC, &s.at("pods/once/status"), done).await?.expect(200)?;
    until(&s, &[], &[]).await
}

pub(super) async fn endpoints_go_with_their_service(s: Scratch) -> Result<(), Failed> {
    service(&s, json!({})).await?;
    start(&s, "one", "10.9.0.1", true).await?;
    until(&s, &["10.9.0.1"], &[]).await?;
    s.delete(&s.at("services/a"), None).await?.expect(200)?;
    s.eventually("endpoints and slices are gone", || async {
        Ok(!s.exists(&s.at("endpoints/a")).await? && slices(&s).await?.is_empty())
    })
    .await
}

pub(super) async fn a_terminating_pod_takes_no_traffic(s: Scratch) -> Result<(), Failed> {
    service(&s, json!({})).await?;
    start(&s, "one", "10.9.0.1", true).await?;
    start(&s, "two", "10.9.0.2", true).await?;
    until(&s, &["10.9.0.1", "10.9.0.2"], &[]).await?;
    s.delete(&s.at("pods/one"), None).await?.expect(200)?;
    s.eventually("endpoints are without the pod", || async {
        let now = addresses(&s).await?;
        Ok(now.0 == ["10.9.0.2"] && now.1.is_empty())
    })
    .await?;
    // Newer slices go on showing the pod, as one that is not ready.
    s.eventually("no slice sends to the pod", || async {
        let ready = sliced(&s).await?.into_iter().filter(|(_, ready)| *ready);
        Ok(ready.map(|(address, _)| address).eq(["10.9.0.2"]))
    })
    .await?;
    s.kill("one").await
}

pub(super) async fn a_pod_without_a_named_port_is_missing_from_that_port_alone(
    s: Scratch,
) -> Result<(), Failed> {
    let ports = json!([{ "name": "web", "port": 80, "targetPort": "http" }, { "name": "raw", "port": 81 }]);
    service(&s, json!({ "ports": ports })).await?;
    start(&s, "one", "10.9.0.1", true).await?;
    let mut other = idle_pod("two", json!({ "app": "a" }));
    other["spec"]["containers"][0]["ports"] = json!([]);
    start_pod(&s, other, "10.9.0.2", true).await?;
    s.eventually("each port has the pods that have it", || async {
        let endpoints = s.get(&s.at("endpoints/a")).await?.body;
        let subsets = endpoints["subsets"].as_array().cloned().unwrap_or_default();
        let having = |port: &str| -> Vec<Value> {
            let with = |subset: &&Value| {
                subset["ports"].as_array().is_some_and(|all| all.iter().any(|p| p["name"] == port))
            };
            subsets
                .iter()
                .filter(with)
                .flat_map(|s| s["addresses"].as_array().cloned())
                .flatten()
                .map(|a| a["ip"].clone())
                .collect()
        };
        Ok(having("web") == ["10.9.0.1"] && having("raw") == ["10.9.0.1", "10.9.0.2"])
    })
    .await
}

/// Writes Endpoints by hand.
async fn by_hand(s: &Scratch, name: &str, labels: Value, subset: Value) -> Result<(), Failed> {
    let body = json!({ "metadata": { "name": name, "labels": labels }, "subsets": [subset] });
    s.post(&s.at("endpoints"), body).await?.expect(201).map(drop)
}

pub(super) async fn endpoints_by_hand_are_mirrored_into_slices(s: Scratch) -> Result<(), Failed> {
    let service = json!({ "metadata": { "name": "a" }, "spec": { "ports": [{ "port": 80 }] } });
    s.post(&s.at("services"), service).await?.expect(201)?;
    let subset = json!({
        "addresses": [{ "ip": "10.9.0.7" }], "notReadyAddresses": [{ "ip": "10.9.0.8" }],
        "ports": [{ "port": 3306 }],
    });
    by_hand(&s, "a", json!({ "team": "x" }), subset).await?;
    // Whether the second one is ready differs: 1.20 forgets that it is not.
    let shown = async || {
        let endpoints = sliced(&s).await?;
        let addresses = endpoints.iter().map(|(address, _)| address.as_str());
        Ok(addresses.eq(["10.9.0.7", "10.9.0.8"]) && endpoints[0].1)
    };
    s.eventually("slices show both", shown).await?;
    let slice = &slices(&s).await?[0];
    let (labels, owner) = (&slice["metadata"]["labels"], &slice["metadata"]["ownerReferences"][0]);
    same(
        "manager",
        &labels["endpointslice.kubernetes.io/managed-by"],
        "endpointslicemirroring-controller.k8s.io",
    )?;
    same("label of the Endpoints", &labels["team"], "x")?;
    same("kind of the owner", &owner["kind"], "Endpoints")?;
    same("port", &slice["ports"][0]["port"], 3306)?;
    same("name of the port", &slice["ports"][0]["name"], "")?;

    let changed =
        json!({ "subsets": [{ "addresses": [{ "ip": "10.9.0.8" }], "ports": [{ "port": 3307 }] }] });
    s.patch(MERGE, &s.at("endpoints/a"), changed).await?.expect(200)?;
    s.eventually("slices follow", || async {
        let port = slices(&s).await?.first().map(|slice| slice["ports"][0]["port"].clone());
        Ok(sliced(&s).await? == [("10.9.0.8".to_owned(), true)] && port == Some(json!(3307)))
    })
    .await?;
    s.delete(&s.at("endpoints/a"), None).await?.expect(200)?;
    s.eventually("slices go with the Endpoints", || async { Ok(slices(&s).await?.is_empty()) }).await
}

pub(super) async fn only_endpoints_of_a_service_without_selector_are_mirrored(
    s: Scratch,
) -> Result<(), Failed> {
    let subset = || json!({ "addresses": [{ "ip": "10.9.0.7" }], "ports": [{ "port": 3306 }] });
    let skipped = json!({ "endpointslice.kubernetes.io/skip-mirror": "true" });
    let service = |name: &str| json!({ "metadata": { "name": name }, "spec": { "ports": [{ "port": 80 }] } });
    s.post(&s.at("services"), service("a")).await?.expect(201)?;
    by_hand(&s, "a", skipped, subset()).await?;
    by_hand(&s, "nobodys", json!({}), subset()).await?;
    // Another one's slices show that the controller has come past.
    s.post(&s.at("services"), service("b")).await?.expect(201)?;
    by_hand(&s, "b", json!({}), subset()).await?;
    s.eventually("the other one is mirrored", || async { Ok(!slices_of(&s, "b").await?.is_empty()) }).await?;
    for name in ["a", "nobodys"] {
        let found = slices_of(&s, name).await?;
        ensure(found.is_empty(), || format!("{name} is mirrored: {found:?}"))?;
    }
    Ok(())
}
