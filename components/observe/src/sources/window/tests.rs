use super::*;
use crate::{
    sources::reading::{MAX_SETS, Unreadable},
    testing::pod,
};

const NOW: UnixTime = UnixTime::from_secs(1_000_000);
const MINUTE: Duration = Duration::from_secs(60);

/// Reads one pod at seconds after the start.
struct Reader {
    window: Window,
    pod: Pod,
}

impl Reader {
    fn new() -> Self {
        Self { window: Window::new(100_000), pod: pod("shop", "web", 1) }
    }

    fn at(second: u32) -> Tick {
        Tick(36_000 + second * 10)
    }

    fn read(&mut self, second: u32, text: &str) {
        let now = NOW + Duration::from_secs(second.into());
        self.window.read(&self.pod, Self::at(second), now, reading(text).unwrap()).unwrap();
    }

    fn samples(&self, second: u32, window: Duration) -> Samples {
        self.window.samples(Self::at(second), window)
    }

    fn responses(&self, second: u32) -> f64 {
        self.samples(second, MINUTE).responses.iter().map(|counted| counted.count).sum()
    }
}

fn reading(text: &str) -> Result<Reading, Unreadable> {
    let mut reading = Reading::default();
    reading.feed(text.as_bytes())?;
    reading.finish()
}

/// A proxy that has answered `count` requests and began `age` seconds before NOW.
fn proxy(count: u32, age: u64) -> String {
    let start = NOW.as_secs() - age;
    format!(
        "process_start_time_seconds {start}\n\
         response_total{{direction=\"inbound\",tls=\"true\",classification=\"success\",status_code=\"200\"}} {count}\n"
    )
}

#[test]
fn an_old_process_begins_at_what_it_had_counted() {
    let mut reader = Reader::new();
    reader.read(0, &proxy(1000, 3600));
    assert_eq!(reader.responses(0), 0.0);
    reader.read(2, &proxy(1007, 3600));
    assert_eq!(reader.responses(2), 7.0);
    let samples = reader.samples(2, MINUTE);
    assert_eq!(
        (samples.covered, samples.responses[0].source.covered),
        (Duration::from_secs(2), Duration::from_secs(2))
    );
    assert_eq!(samples.sources, BTreeSet::from([PodName::new("shop", "web-1")]));
}

#[test]
fn what_was_not_read_yet_does_not_lower_the_rate() {
    let mut reader = Reader::new();
    reader.read(0, &proxy(1000, 3600));
    reader.read(2, &proxy(1020, 3600));
    let rate = |reader: &Reader, second| {
        let counted = &reader.samples(second, MINUTE).responses[0];
        counted.count / counted.source.covered.as_secs_f64()
    };
    assert_eq!(rate(&reader, 3), 10.0);
    // Once the window is full, what its beginning cuts off and what its end lacks are the same.
    (2..=40).for_each(|step| reader.read(step * 2, &proxy(1000 + step * 20, 3600)));
    assert_eq!(rate(&reader, 81), 10.0);
    // A pod that is gone did nothing more.
    reader.window.keep([], Reader::at(90));
    assert_eq!(reader.samples(100, MINUTE).responses[0].source.covered, MINUTE);
}

#[test]
fn a_process_that_just_began_counts_in_full() {
    let mut reader = Reader::new();
    reader.read(0, &proxy(5, 4));
    let samples = reader.samples(0, MINUTE);
    assert_eq!(reader.responses(0), 5.0);
    assert_eq!(
        (samples.covered, samples.responses[0].source.covered),
        (Duration::from_secs(4), Duration::from_secs(4))
    );
}

#[test]
fn a_pod_that_is_born_later_is_averaged_over_the_whole_time_it_could_have_served() {
    let mut reader = Reader::new();
    reader.read(0, &proxy(0, 3600));
    let second = Reader { window: reader.window, pod: pod("shop", "web", 2) };
    let mut reader = second;
    reader.read(30, &proxy(30, 0).replace("1000000", "1000028"));
    let samples = reader.samples(30, MINUTE);
    assert_eq!(samples.responses[0].count, 30.0);
    assert_eq!(samples.responses[0].source.covered, Duration::from_secs(30));
}

#[test]
fn a_series_that_was_not_there_before_counts_in_full() {
    let mut reader = Reader::new();
    reader.read(0, &proxy(1000, 3600));
    let new = "response_total{direction=\"inbound\",tls=\"true\",classification=\"failure\"} 3\n";
    reader.read(2, &(proxy(1000, 3600) + new));
    assert_eq!(reader.responses(2), 3.0);
}

#[test]
fn a_restart_counts_what_came_after_it_even_when_the_counters_are_already_higher() {
    let mut reader = Reader::new();
    reader.read(0, &proxy(10, 3600));
    // Without a start time, a fall is the only sign.
    reader.read(2, &proxy(4, 3600));
    assert_eq!(reader.responses(2), 4.0);
    reader.read(4, &proxy(50, 0));
    assert_eq!(reader.responses(4), 54.0);
}

#[test]
fn what_happened_while_a_pod_could_not_be_read_is_counted_and_the_gap_is_told() {
    let mut reader = Reader::new();
    reader.read(0, &proxy(10, 3600));
    reader.window.failed(&reader.pod, "no answer".to_owned());
    let unscraped = reader.samples(20, MINUTE).unscraped;
    let expected = Unscraped {
        namespace: "shop".into(),
        pod: "web-1".into(),
        reason: "no answer".into(),
        since_ms: Some(20_000),
    };
    assert_eq!(unscraped, [expected]);
    reader.read(30, &proxy(40, 3600));
    assert_eq!(reader.responses(30), 30.0);
    assert_eq!(reader.samples(30, MINUTE).unscraped, []);
}

#[test]
fn a_pod_never_read_within_the_window_is_no_source() {
    let mut reader = Reader::new();
    reader.read(0, &proxy(10, 3600));
    assert!(!reader.samples(59, MINUTE).sources.is_empty());
    assert!(reader.samples(60, MINUTE).sources.is_empty());
}

#[test]
fn a_pod_that_is_gone_counts_until_it_leaves_every_window() {
    let mut reader = Reader::new();
    reader.read(0, &proxy(0, 3600));
    reader.read(10, &proxy(8, 3600));
    reader.window.keep([], Reader::at(20));
    assert_eq!(reader.responses(20), 8.0);
    assert_eq!(reader.responses(70), 0.0);
    reader.window.keep([], Reader::at(611));
    assert!(reader.window.pods.is_empty());
}

#[test]
fn a_pod_of_the_same_name_is_another_pod() {
    let mut reader = Reader::new();
    reader.read(0, &proxy(10, 3600));
    reader.read(2, &proxy(20, 3600));
    reader.pod.uid = "another".to_owned();
    reader.read(4, &proxy(100, 3600));
    assert_eq!(reader.responses(4), 10.0);
}

#[test]
fn histograms_are_kept_by_bucket_and_summed_over_what_rows_do_not_need() {
    let text = |fast: u32, slow: u32| {
        let line = |le: &str, count: u32, class: &str| {
            let labels = format!("direction=\"inbound\",tls=\"true\",classification=\"{class}\",le=\"{le}\"");
            format!("response_latency_ms_bucket{{{labels}}} {count}\n")
        };
        [
            line("1.0", fast, "success"),
            line("2.0", fast + slow, "success"),
            line("+Inf", fast + slow, "success"),
            line("1.0", 0, "failure"),
            line("2.0", slow, "failure"),
            line("+Inf", slow, "failure"),
            "response_latency_ms_sum{direction=\"inbound\"} 17\n".to_owned(),
        ]
        .concat()
    };
    let mut reader = Reader::new();
    reader.read(0, &text(1, 1));
    reader.read(2, &text(4, 2));
    let latencies = reader.samples(2, MINUTE).latencies;
    let [measured] = &latencies[..] else { panic!("{latencies:?}") };
    assert_eq!(measured.labels.get("classification"), None);
    let buckets: Vec<_> = measured.buckets.iter().map(|(bound, count)| (bound.get(), *count)).collect();
    assert_eq!(buckets, [(1.0, 3.0), (2.0, 2.0), (f64::INFINITY, 0.0)]);
}

#[test]
fn a_connection_counts_when_it_closes_or_is_still_open() {
    let mut reader = Reader::new();
    let text = |open: u32, closed: u32| {
        format!(
            "tcp_open_connections{{direction=\"inbound\",peer=\"src\",tls=\"true\"}} {open}\n\
             tcp_close_total{{direction=\"inbound\",peer=\"src\",tls=\"true\",classification=\"success\"}} {closed}\n"
        )
    };
    reader.read(0, &text(2, 7));
    reader.read(2, &text(1, 9));
    let total: f64 = reader.samples(2, MINUTE).connections.iter().map(|counted| counted.count).sum();
    assert_eq!(total, 3.0);
}

#[test]
fn a_histogram_whose_lines_are_interrupted_is_one_histogram() {
    let bucket =
        |le: &str, count: u32| format!("response_latency_ms_bucket{{tls=\"true\",le=\"{le}\"}} {count}\n");
    let text = |n: u32| bucket("+Inf", n * 3) + &proxy(n, 3600) + &bucket("1.0", n);
    let mut reader = Reader::new();
    reader.read(0, &text(1));
    reader.read(2, &text(2));
    let buckets: Vec<_> = reader.samples(2, MINUTE).latencies[0].buckets.values().copied().collect();
    assert_eq!(buckets, [1.0, 2.0]);
}

#[test]
fn what_cannot_be_a_count_fails_the_whole_reading() {
    for bad in ["NaN", "-1", "+Inf"] {
        let text = format!("response_total{{direction=\"inbound\"}} 7\nresponse_total {bad}\n");
        assert!(matches!(reading(&text), Err(Unreadable::Text(error)) if error.line == 2), "{bad}");
    }
    assert!(reading("response_total{direction=\"inbound\"} 1").is_err());
    assert!(reading("response_latency_ms_bucket{le=\"x\"} 1\n").is_err());
    // What is not looked at need not make sense.
    assert!(reading("something_else NaN\n").is_ok());
}

fn authorities(count: usize, value: u32) -> String {
    let line =
        |i| format!("response_total{{direction=\"inbound\",tls=\"true\",authority=\"a{i}\"}} {value}\n");
    (0..count).map(line).collect()
}

#[test]
fn beyond_the_limit_series_lose_their_names_and_no_total_is_lost() {
    let mut reader = Reader::new();
    reader.read(0, &authorities(MAX_FOLDED + 500, 1));
    reader.read(2, &authorities(MAX_FOLDED + 500, 2));
    let samples = reader.samples(2, MINUTE);
    assert_eq!(samples.responses.len(), MAX_FOLDED + 1);
    assert_eq!(reader.responses(2), (MAX_FOLDED + 500) as f64);
}

#[test]
fn a_pod_with_more_series_than_can_be_kept_is_not_read() {
    assert_eq!(reading(&authorities(MAX_SETS + 1, 1)).unwrap_err(), Unreadable::TooMuch);
}

#[test]
fn a_pod_for_which_there_is_no_room_is_not_read_until_there_is() {
    let mut reader = Reader { window: Window::new(30), pod: pod("shop", "web", 1) };
    reader.read(0, &authorities(10, 1));
    reader.read(2, &authorities(10, 2));
    assert_eq!(reader.window.size(), (1, 20));
    let other = pod("shop", "web", 2);
    let text = reading(&authorities(11, 1)).unwrap();
    assert_eq!(reader.window.read(&other, Reader::at(4), NOW, text), Err(Full { max_series: 30 }));
    assert_eq!(reader.responses(4), 10.0);
    reader.window.keep([&other], Reader::at(700));
    let text = reading(&authorities(11, 1)).unwrap();
    assert_eq!(reader.window.read(&other, Reader::at(700), NOW, text), Ok(()));
}

#[test]
fn series_that_nobody_uses_any_more_are_forgotten() {
    let mut reader = Reader::new();
    reader.read(0, &proxy(5, 3600));
    reader.read(2, &proxy(6, 3600));
    reader.read(700, &proxy(6, 3600));
    assert!(reader.window.pods.values().all(|past| past.grown.is_empty()));
}

#[test]
fn an_empty_bucket_is_known_to_be_empty() {
    let text = |count| {
        let bucket = |le, count| {
            format!("response_latency_ms_bucket{{direction=\"inbound\",tls=\"true\",le=\"{le}\"}} {count}\n")
        };
        [bucket("1.0", 0), bucket("3.0", 0), bucket("4.0", count), bucket("+Inf", count)].concat()
    };
    let mut reader = Reader::new();
    reader.read(0, &text(1));
    reader.read(2, &text(3));
    let buckets: Vec<_> = reader.samples(2, MINUTE).latencies[0].buckets.values().copied().collect();
    assert_eq!(buckets, [0.0, 0.0, 2.0, 0.0]);
}
