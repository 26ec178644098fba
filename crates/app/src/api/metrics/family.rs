//! Families of samples, as the encoder wants them.

use mimeo_engine::{LAG_BOUNDS, Lags};
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

/// Each sample with its labels.
pub(super) fn gauge<V: Into<String>>(
    name: &str,
    help: &str,
    samples: impl IntoIterator<Item = (Vec<(&'static str, V)>, f64)>,
) -> MetricFamily {
    let sample = |value| {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        Metric::from_gauge(gauge)
    };
    family(name, help, MetricType::GAUGE, samples.into_iter().map(|(labels, value)| (labels, sample(value))))
}

pub(super) fn counter<V: Into<String>>(
    name: &str,
    help: &str,
    samples: impl IntoIterator<Item = (Vec<(&'static str, V)>, f64)>,
) -> MetricFamily {
    let sample = |value| {
        let (mut metric, mut counter) = (Metric::default(), Counter::default());
        counter.set_value(value);
        metric.set_counter(counter);
        metric
    };
    family(name, help, MetricType::COUNTER, samples.into_iter().map(|(labels, value)| (labels, sample(value))))
}

pub(super) fn histogram<'a, V: Into<String>>(
    name: &str,
    help: &str,
    samples: impl IntoIterator<Item = (Vec<(&'static str, V)>, &'a Lags)>,
) -> MetricFamily {
    let sample = |lags: &Lags| {
        let mut so_far = 0;
        let buckets = LAG_BOUNDS.iter().zip(lags.buckets).map(|(bound, count)| {
            so_far += count;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(so_far);
            bucket
        });
        let (mut metric, mut histogram) = (Metric::default(), Histogram::default());
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(lags.count);
        histogram.set_sample_sum(lags.sum);
        metric.set_histogram(histogram);
        metric
    };
    family(name, help, MetricType::HISTOGRAM, samples.into_iter().map(|(labels, lags)| (labels, sample(lags))))
}

fn family<V: Into<String>>(
    name: &str,
    help: &str,
    kind: MetricType,
    samples: impl Iterator<Item = (Vec<(&'static str, V)>, Metric)>,
) -> MetricFamily {
    let labelled = |(labels, mut metric): (Vec<(&'static str, V)>, Metric)| {
        let pair = |(name, value): (&'static str, V)| {
            let mut pair = LabelPair::default();
            pair.set_name(name.into());
            pair.set_value(value.into());
            pair
        };
        metric.set_label(labels.into_iter().map(pair).collect());
        metric
    };
    let mut family = MetricFamily::default();
    family.set_name(name.into());
    family.set_help(help.into());
    family.set_field_type(kind);
    family.set_metric(samples.map(labelled).collect());
    family
}
