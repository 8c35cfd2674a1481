//! The client, on loopback sockets.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use conduit_k8s::client::{ConnectError, connect, plain};
use conduit_net::TokioNetwork;
use http::{Request, Response};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Config};
use rcgen::{CertificateParams, KeyPair};
use tokio_rustls::{TlsAcceptor, rustls};

/// An API server that has one ConfigMap, whose data is what the client asked for it with; over TLS if it has a key.
async fn serve(tls: Option<TlsAcceptor>) -> SocketAddr {
    let mut listener = TokioNetwork::shared().bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let addr = listener.local_addr();
    tokio::spawn(async move {
        while let Ok(accepted) = listener.accept().await {
            let tls = tls.clone();
            tokio::spawn(async move {
                let server = hyper::server::conn::http1::Builder::new();
                match tls {
                    Some(tls) => {
                        let Ok(io) = tls.accept(accepted.io).await else { return };
                        server.serve_connection(TokioIo::new(io), service_fn(answer)).await
                    }
                    None => server.serve_connection(TokioIo::new(accepted.io), service_fn(answer)).await,
                }
                .ok();
            });
        }
    });
    addr
}

async fn answer<B>(request: Request<B>) -> Result<Response<Full<Bytes>>, Infallible> {
    let token = request.headers().get("authorization").map(|value| value.to_str().unwrap().to_owned());
    let object = serde_json::json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "answer"},
        "data": {"path": request.uri().to_string(), "token": token.unwrap_or_default()},
    });
    Ok(Response::new(Full::from(object.to_string())))
}

async fn ask(client: kube::Client) -> kube::Result<Vec<String>> {
    let api: Api<ConfigMap> = Api::default_namespaced(client);
    Ok(api.get("answer").await?.data.unwrap_or_default().into_values().collect())
}

const PATH: &str = "/api/v1/namespaces/shop/configmaps/answer";

#[tokio::test]
async fn a_plain_api_server_is_reached_by_address() {
    let addr = serve(None).await;
    let client = plain(TokioNetwork::shared(), addr, "shop").unwrap();
    assert_eq!(ask(client).await.unwrap(), [PATH, ""]);
}

#[tokio::test]
async fn an_api_server_with_tls_must_prove_its_name_by_the_configured_root() {
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
    let config =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            )
            .unwrap();
    let addr = serve(Some(TlsAcceptor::from(Arc::new(config)))).await;

    let mut config = Config::new(format!("https://{addr}").parse().unwrap());
    config.default_namespace = "shop".to_owned();
    config.root_cert = Some(vec![certificate.der().to_vec()]);
    config.auth_info.token = Some("secret".to_owned().into());
    let client = connect(TokioNetwork::shared(), config.clone()).unwrap();
    assert_eq!(ask(client).await.unwrap(), [PATH, "Bearer secret"]);

    let other = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    config.root_cert = Some(vec![other.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()]);
    let client = connect(TokioNetwork::shared(), config).unwrap();
    assert!(matches!(ask(client).await, Err(kube::Error::Service(_))), "an untrusted server is not asked");
}

#[tokio::test]
async fn an_http_proxy_is_told_to_be_unsupported() {
    let mut config = Config::new("https://10.0.0.1:6443".parse().unwrap());
    config.proxy_url = Some("http://proxy.example:3128".parse().unwrap());
    let error = connect(TokioNetwork::shared(), config).err().unwrap();
    assert!(matches!(error, ConnectError::Proxy(_)), "{error}");
}

#[tokio::test]
async fn an_api_server_that_accepts_and_says_nothing_does_not_hold_a_request_for_ever() {
    let listener = TokioNetwork::shared().bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let client = plain(TokioNetwork::shared(), listener.local_addr(), "shop").unwrap();
    let asked = tokio::spawn(ask(client));
    // Connected for sure before time is turned forward: a paused clock would run ahead of the sockets.
    let mut listener = listener;
    let _silent = listener.accept().await.unwrap();
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(40)).await;
    assert!(matches!(asked.await.unwrap(), Err(kube::Error::Service(_))));
}
