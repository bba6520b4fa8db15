//! Rows of numbers as they are saved: column by column, so that each name is there once, and no digit that reading does not
//! need.

use serde::de::{DeserializeOwned, Error as _};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

/// Rows whose fields are whole numbers, f32, and lists of them.
pub(super) fn serialize<'a, C, S: Serializer>(rows: &'a C, serializer: S) -> Result<S::Ok, S::Error>
where
    C: IntoIterator<Item: Serialize + 'a>,
    &'a C: IntoIterator<Item = &'a C::Item>,
{
    let mut columns: Map<String, Value> = Map::new();
    for row in rows {
        let row = serde_json::to_value(row).map_err(S::Error::custom)?;
        let Value::Object(cells) = row else { return Err(S::Error::custom("a row without names")) };
        for (name, cell) in cells {
            if let Value::Array(column) = columns.entry(name).or_insert_with(|| Value::Array(Vec::new())) {
                column.push(shortest(cell));
            }
        }
    }
    columns.serialize(serializer)
}

/// The same rows, also those that older versions saved row by row.
pub(super) fn deserialize<'de, C, D: Deserializer<'de>>(deserializer: D) -> Result<C, D::Error>
where
    C: IntoIterator<Item: DeserializeOwned> + FromIterator<C::Item>,
{
    let rows = match Value::deserialize(deserializer)? {
        Value::Array(rows) => rows,
        Value::Object(columns) => by_row(columns).ok_or_else(|| D::Error::custom("columns of unlike length"))?,
        _ => return Err(D::Error::custom("neither rows nor columns")),
    };
    rows.into_iter().map(|row| serde_json::from_value(row).map_err(D::Error::custom)).collect()
}

fn by_row(columns: Map<String, Value>) -> Option<Vec<Value>> {
    let n = columns.values().next().map_or(Some(0), |column| column.as_array().map(Vec::len))?;
    let mut rows = vec![Map::new(); n];
    for (name, column) in columns {
        let Value::Array(cells) = column else { return None };
        if cells.len() != n {
            return None;
        }
        rows.iter_mut().zip(cells).for_each(|(row, cell)| drop(row.insert(name.clone(), cell)));
    }
    Some(rows.into_iter().map(Value::Object).collect())
}

/// An f32 with the fewest digits that are read back as the same f32.
fn shortest(cell: Value) -> Value {
    match cell {
        Value::Array(cells) => cells.into_iter().map(shortest).collect(),
        Value::Number(number) if number.is_f64() => {
            let long = number.as_f64().unwrap_or_default();
            let short: f64 = (long as f32).to_string().parse().unwrap_or(long);
            // also where the last bit is read wrong
            let safe = [short.next_down(), short, short.next_up()].iter().all(|v| *v as f32 == long as f32);
            if safe { short.into() } else { long.into() }
        }
        cell => cell,
    }
}

#[cfg(test)]
mod tests {
    use super::super::metrics::StepStats;
    use super::*;
    use crate::diffusion::noise::{Purpose, stream};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Curve {
        #[serde(with = "super")]
        steps: Vec<StepStats>,
    }

    #[test]
    fn every_number_is_read_back_bit_by_bit() {
        let mut bits = stream(1, Purpose::Pick, [0, 0]);
        let mut number = || loop {
            let v = f32::from_bits((bits.below(1 << 16) << 16 | bits.below(1 << 16)) as u32);
            if v.is_finite() {
                break v;
            }
        };
        let mut curve = Curve { steps: Vec::new() };
        for step in 0..20_000 {
            let [loss, grad_norm, learning_rate, update_ratio, ema_decay] = std::array::from_fn(|_| number());
            curve.steps.push(StepStats { step, loss, grad_norm, learning_rate, update_ratio, ema_decay });
        }
        let edges = [f32::MAX, f32::MIN_POSITIVE, 1e-45, -0.0, 0.1];
        for (stats, edge) in curve.steps.iter_mut().zip(edges) {
            stats.loss = edge;
        }
        let bits = |curve: &Curve| -> Vec<u32> {
            curve.steps.iter().flat_map(|s| [s.loss, s.grad_norm, s.learning_rate].map(f32::to_bits)).collect()
        };
        let text = serde_json::to_string(&curve).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        let again: Curve = serde_json::from_value(value).unwrap();
        assert!(again == curve && bits(&again) == bits(&curve));
    }

    #[test]
    fn columns_are_short_and_rows_of_older_versions_are_read() {
        let rows = r#"{"steps":[{"step":7,"loss":0.10000000149011612,"grad_norm":2.0,"learning_rate":0.5},
            {"step":8,"loss":0.25,"grad_norm":1.0,"learning_rate":0.5,"update_ratio":1.0,"ema_decay":0.75}]}"#;
        let curve: Curve = serde_json::from_str(rows).unwrap();
        assert_eq!((curve.steps[0].loss, curve.steps[0].ema_decay, curve.steps[1].step), (0.1, 0.0, 8));
        let text = serde_json::to_string(&curve).unwrap();
        let columns = r#"{"steps":{"step":[7,8],"loss":[0.1,0.25],"grad_norm":[2.0,1.0],"learning_rate":[0.5,0.5],"#;
        assert!(text.starts_with(columns), "{text}");
        assert_eq!(serde_json::from_str::<Curve>(&text).unwrap(), curve);
        let none = Curve { steps: Vec::new() };
        assert_eq!(serde_json::from_str::<Curve>(&serde_json::to_string(&none).unwrap()).unwrap(), none);
        for damaged in [r#"{"steps":{"step":[7,8],"loss":[0.1]}}"#, r#"{"steps":7}"#, r#"{"steps":{"step":7}}"#] {
            assert!(serde_json::from_str::<Curve>(damaged).is_err(), "{damaged}");
        }
    }
}
