//! What the page's script draws: all groups as JSON.

use super::collect::Collection;
use super::curves::{MeanCurve, MeanScore, group_scores, mean_curve, mean_scores, rounded};
use super::group::{Group, Groups, Mean};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// One group as the script reads it.
#[derive(Serialize)]
struct Entry {
    rule: String,
    /// By dotted key; numbers as numbers.
    values: Map<String, Value>,
    /// `accuracy` or `loss`.
    metric: &'static str,
    best: Option<Point>,
    seconds: Option<Point>,
    /// Whether its learning rate is the best.
    chosen: bool,
    /// `1 diverged`; empty where everything completed.
    troubles: String,
    curve: Option<MeanCurve>,
    scores: Vec<MeanScore>,
}

#[derive(Serialize)]
struct Point {
    mean: f64,
    deviation: Option<f64>,
    seeds: usize,
}

impl From<Mean> for Point {
    fn from(mean: Mean) -> Self {
        Self {
            mean: rounded(mean.mean),
            deviation: mean.deviation.map(rounded),
            seeds: mean.seeds,
        }
    }
}

/// The groups, and scores without a run as rules of their own, as JSON that can stand in a `<script>` element.
pub(crate) fn figures(collection: &Collection, groups: &Groups<'_>) -> String {
    let mut entries: Vec<Entry> = groups
        .groups
        .iter()
        .map(|g| entry(g, &groups.keys))
        .collect();
    entries.extend(collection.scores.iter().map(|scores| Entry {
        rule: format!("files: {}", scores.name),
        values: Map::new(),
        metric: "accuracy",
        best: None,
        seconds: None,
        chosen: false,
        troubles: String::new(),
        curve: None,
        scores: mean_scores(&[&scores.rows]),
    }));
    let keys: Vec<&String> = groups.keys.iter().filter(|k| groups.varies(k)).collect();
    let all = json!({ "keys": keys, "groups": entries });
    // No `<` can begin an end tag or a comment; in JSON it stands in strings only.
    all.to_string().replace('<', "\\u003c")
}

fn entry(group: &Group<'_>, keys: &[String]) -> Entry {
    let value = |text: &String| match text.parse::<f64>() {
        Ok(number) if number.is_finite() => json!(number),
        _ => json!(text),
    };
    let values = keys.iter().zip(&group.values);
    let values = values.map(|(k, v)| (k.clone(), v.as_ref().map_or(Value::Null, value)));
    Entry {
        rule: group.rule.clone(),
        values: values.collect(),
        metric: if group.metric.more() {
            "accuracy"
        } else {
            "loss"
        },
        best: group.best.map(Point::from),
        seconds: group.seconds.map(Point::from),
        chosen: group.chosen,
        troubles: group.troubles(),
        curve: mean_curve(group),
        scores: group_scores(group),
    }
}
