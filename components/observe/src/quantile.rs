//! Quantiles from histogram buckets, by the rule of Prometheus' `histogram_quantile`, so that a number here and a number
//! on somebody's Grafana agree.

use std::collections::BTreeMap;

/// A bucket's upper bound, ordered by value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bound(f64);

impl Bound {
    /// None for NaN, which is no bound.
    pub fn new(upper: f64) -> Option<Self> {
        (!upper.is_nan()).then_some(Self(upper))
    }

    /// The value, possibly infinite.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl Eq for Bound {}

impl Ord for Bound {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Bound {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// How many observations fell into each bucket and not into the one below: sums of several histograms stay exact even
/// when their bounds differ.
pub type Buckets = BTreeMap<Bound, f64>;

/// The value below which a fraction `q` of the observations lies, linearly interpolated within its bucket; none without
/// observations, and when all of them are in the one open bucket. A quantile in the open last bucket is its lower bound.
pub fn quantile(q: f64, buckets: &Buckets) -> Option<f64> {
    let total: f64 = buckets.values().sum();
    if total <= 0.0 {
        return None;
    }
    let rank = q * total;
    let (mut below, mut lower) = (0.0, 0.0);
    for (bound, count) in buckets {
        let upper = bound.get();
        if below + count >= rank && *count > 0.0 {
            return match upper.is_finite() {
                true => Some(lower + (upper - lower) * ((rank - below) / count)),
                false => (lower > 0.0).then_some(lower),
            };
        }
        (below, lower) = (below + count, upper);
    }
    // Rounding left the rank a hair above the sum.
    buckets.keys().rev().map(|bound| bound.get()).find(|upper| upper.is_finite())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn buckets(counts: &[(f64, f64)]) -> Buckets {
        counts.iter().map(|(upper, count)| (Bound::new(*upper).unwrap(), *count)).collect()
    }

    #[test]
    fn values_are_those_of_histogram_quantile() {
        let inf = f64::INFINITY;
        // Expected values computed by hand from the rule in Prometheus' promql/quantile.go.
        type Case<'a> = (f64, &'a [(f64, f64)], Option<f64>);
        let cases: [Case<'_>; 9] = [
            (0.5, &[], None),
            (0.5, &[(1.0, 0.0), (inf, 0.0)], None),
            (0.5, &[(1.0, 10.0)], Some(0.5)),
            (0.95, &[(1.0, 10.0)], Some(0.95)),
            (0.5, &[(1.0, 2.0), (2.0, 2.0), (inf, 0.0)], Some(1.0)),
            (0.75, &[(1.0, 2.0), (2.0, 2.0), (inf, 0.0)], Some(1.5)),
            (0.99, &[(1.0, 1.0), (10.0, 0.0), (20.0, 1.0)], Some(19.8)),
            (0.99, &[(50000.0, 1.0), (inf, 99.0)], Some(50000.0)),
            (0.5, &[(inf, 4.0)], None),
        ];
        for (q, counts, expected) in cases {
            let found = quantile(q, &buckets(counts));
            let same = match (found, expected) {
                (Some(found), Some(expected)) => (found - expected).abs() < 1e-9,
                (found, expected) => found == expected,
            };
            assert!(same, "q={q} of {counts:?}: {found:?}, not {expected:?}");
        }
    }

    #[test]
    fn not_a_number_is_no_bound() {
        assert_eq!(Bound::new(f64::NAN), None);
    }

    proptest! {
        #[test]
        fn quantiles_grow_with_q_and_stay_within_the_bounds(
            counts in prop::collection::vec(0u32..1000, 1..26),
            (low, high) in (0.0..=1.0f64, 0.0..=1.0f64),
        ) {
            let counts: Vec<_> = counts.iter().enumerate().map(|(i, n)| ((i + 1) as f64, f64::from(*n))).collect();
            let buckets = buckets(&counts);
            let (low, high) = (low.min(high), low.max(high));
            match (quantile(low, &buckets), quantile(high, &buckets)) {
                (Some(a), Some(b)) => prop_assert!(a <= b && a >= 0.0 && b <= counts.len() as f64),
                (None, None) => prop_assert!(counts.iter().all(|(_, n)| *n == 0.0)),
                other => prop_assert!(false, "{other:?}"),
            }
        }
    }
}
