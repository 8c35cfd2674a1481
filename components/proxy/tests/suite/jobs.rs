//! A proxy that ends with its application.

use std::time::Duration;

use crate::support::{Pod, World, app::serve, within};

#[tokio::test]
async fn what_the_application_said_last_arrives_before_the_proxy_ends() {
    let world = World::new().await;
    let job = Pod::with(&world, 2, |config| config.end_with_pod = Some("u1".to_owned())).await;
    let other = Pod::plain(&world, 3);
    let (heard, shown) = tokio::sync::oneshot::channel();
    let heard = parking_lot::Mutex::new(Some(heard));
    let app = serve(&other, move |mut client| {
        let heard = heard.lock().take();
        async move {
            client.expect("\x01first").await;
            client.send("go on").await;
            let rest = client.rest().await.unwrap();
            heard.unwrap().send(rest).unwrap();
        }
    })
    .await;
    let mut io = job.connect(app).await;
    io.send("\x01first").await;
    io.expect("go on").await;
    world.destination.end("u2");
    world.destination.end("u1");
    io.send("last words").await;
    drop(io);
    assert_eq!(within(shown).await.unwrap(), b"last words");
    let mut job = job;
    let proxy = job.proxy.as_mut().unwrap();
    within(&mut proxy.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_job_completes_although_a_connection_stays_open() {
    let world = World::new().await;
    let mut job = Pod::with(&world, 2, |config| config.end_with_pod = Some("u1".to_owned())).await;
    let other = Pod::plain(&world, 3);
    let app = serve(&other, |mut client| async move {
        client.expect("\x01hello").await;
        client.send("hello").await;
        std::future::pending::<()>().await;
    })
    .await;
    let mut held = job.connect(app).await;
    held.send("\x01hello").await;
    held.expect("hello").await;
    world.destination.end("u1");
    let ended = tokio::time::timeout(Duration::from_secs(5), &mut job.proxy.as_mut().unwrap().task).await;
    ended.expect("in the time that is promised").unwrap().unwrap();
}

#[tokio::test]
async fn a_proxy_that_is_not_of_a_job_asks_for_nothing() {
    let world = World::new().await;
    let web = Pod::with(&world, 2, |_| {}).await;
    let mut job = Pod::with(&world, 4, |config| config.end_with_pod = Some("u1".to_owned())).await;
    for uid in ["", "u1"] {
        world.destination.end(uid);
    }
    within(&mut job.proxy.as_mut().unwrap().task).await.unwrap().unwrap();
    assert!(web.admin("/live").await.ends_with("ok\n") && !web.proxy().task.is_finished());
}
