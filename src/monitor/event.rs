//! What an event file holds, as far as this program writes or reads it: TensorFlow's `event.proto`, `summary.proto` and
//! `tensor.proto`. Other fields are skipped.

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost::{Message, Oneof};

/// What the first record of a file says.
pub(super) const VERSION: &str = "brain.Event:2";
/// [`SessionLog::status`]: what follows takes the place of older events from its step on.
pub(super) const START: i32 = 1;
/// The most [`PARTS`] that a record may have.
pub(super) const MOST_PARTS: usize = 1 << 16;
/// Tags on the way to what takes two bytes of a record and up to hundreds in memory: values, strings and dimensions.
const PARTS: [&[u32]; 3] = [&[5, 1], &[5, 1, 8, 8], &[5, 1, 8, 2, 2]];

/// Fields at the end of a path of tags, if the message can be read so far.
fn count(mut message: &[u8], path: &[u32]) -> Option<usize> {
    let [tag, inner @ ..] = path else { return Some(1) };
    let mut found = 0;
    while !message.is_empty() {
        let (field, wire) = decode_key(&mut message).ok()?;
        if field == *tag && wire == WireType::LengthDelimited {
            let length = usize::try_from(decode_varint(&mut message).ok()?).ok()?;
            let (content, rest) = message.split_at_checked(length)?;
            found += count(content, inner)?;
            message = rest;
        } else {
            skip_field(wire, field, &mut message, DecodeContext::default()).ok()?;
        }
    }
    Some(found)
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    pub wall_time: f64,
    #[prost(int64, tag = "2")]
    pub step: i64,
    #[prost(oneof = "What", tags = "3, 5, 7")]
    pub what: Option<What>,
}

impl Event {
    /// Reads a record that takes a bounded amount of memory: the event, and how many [`PARTS`] it has.
    pub fn read(record: &[u8]) -> Result<(Self, usize), String> {
        // decoding allocates before it finds an error, so what cannot be counted is not decoded
        match PARTS.iter().map(|path| count(record, path)).sum::<Option<usize>>() {
            None => Err("a record is no event".into()),
            Some(parts) if parts > MOST_PARTS => {
                Err(format!("a record holds more than {MOST_PARTS} values, so it is left out"))
            }
            Some(parts) => match Self::decode(record) {
                Ok(event) => Ok((event, parts)),
                Err(e) => Err(format!("a record is no event: {e}")),
            },
        }
    }
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum What {
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    Summary(Summary),
    #[prost(message, tag = "7")]
    SessionLog(SessionLog),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct SessionLog {
    #[prost(int32, tag = "1")]
    pub status: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Summary {
    #[prost(message, repeated, tag = "1")]
    pub values: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Value {
    #[prost(string, tag = "1")]
    pub tag: String,
    #[prost(oneof = "Content", tags = "2, 4, 8")]
    pub content: Option<Content>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Content {
    #[prost(float, tag = "2")]
    Scalar(f32),
    #[prost(message, tag = "4")]
    Image(Image),
    #[prost(message, tag = "8")]
    Tensor(Tensor),
}

/// How newer writers wrap scalars and pictures.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Tensor {
    /// 1 f32, 2 f64, 7 strings.
    #[prost(int32, tag = "1")]
    pub dtype: i32,
    #[prost(message, optional, tag = "2")]
    pub shape: Option<Shape>,
    #[prost(bytes = "vec", tag = "4")]
    pub content: Vec<u8>,
    #[prost(float, repeated, tag = "5")]
    pub floats: Vec<f32>,
    #[prost(double, repeated, tag = "6")]
    pub doubles: Vec<f64>,
    #[prost(bytes = "vec", repeated, tag = "8")]
    pub strings: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Shape {
    #[prost(message, repeated, tag = "2")]
    pub dims: Vec<Dim>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Dim {
    #[prost(int64, tag = "1")]
    pub size: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Image {
    #[prost(int32, tag = "1")]
    pub height: i32,
    #[prost(int32, tag = "2")]
    pub width: i32,
    /// 1 grey, 3 red, green and blue.
    #[prost(int32, tag = "3")]
    pub colorspace: i32,
    /// The bytes of a PNG, JPEG or GIF file.
    #[prost(bytes = "vec", tag = "4")]
    pub encoded: Vec<u8>,
}
