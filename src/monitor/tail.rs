//! An event file that another program is writing: read as it grows, never held open, never written.

use super::event::{Event, MOST_PARTS};
use super::record::{Head, head};
use std::fs::{self, File, Metadata};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

/// Bytes read at a time, if no record is larger.
const PIECE: u64 = 4 << 20;

/// How far a file was read.
pub(super) struct Tail {
    path: PathBuf,
    /// Bytes of whole records.
    read: u64,
    /// What identifies the file, as far as the system tells.
    identity: Option<u64>,
    /// What is wrong with it, in words.
    pub problem: Option<String>,
}

/// What a look at a file brought.
pub(super) enum Seen {
    /// These events, and whether more is there already.
    Grown(Vec<Event>, bool),
    /// It is another file than before, or shorter: all that came from it no longer holds.
    Replaced,
}

#[cfg(unix)]
fn identity(file: &Metadata) -> Option<u64> {
    Some(std::os::unix::fs::MetadataExt::ino(file))
}

#[cfg(not(unix))]
fn identity(_: &Metadata) -> Option<u64> {
    None
}

impl Tail {
    pub fn new(path: PathBuf) -> Self {
        Self { path, read: 0, identity: None, problem: None }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the whole records after those that were read.
    pub fn look(&mut self) -> Seen {
        match self.next() {
            Ok(seen) => seen,
            Err(e) => {
                self.problem = Some(e.to_string());
                Seen::Grown(Vec::new(), false)
            }
        }
    }

    fn next(&mut self) -> io::Result<Seen> {
        let there = fs::metadata(&self.path)?;
        if !there.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        let now = identity(&there);
        if there.len() < self.read || self.identity.is_some() && self.identity != now {
            (self.read, self.identity, self.problem) = (0, None, None);
            return Ok(Seen::Replaced);
        }
        self.identity = now;
        if there.len() == self.read {
            return Ok(Seen::Grown(Vec::new(), false));
        }
        let mut piece = PIECE;
        loop {
            let mut bytes = Vec::new();
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(self.read))?;
            file.take(piece).read_to_end(&mut bytes)?;
            let at_end = (bytes.len() as u64) < piece;
            let mut events = Vec::new();
            let (mut used, mut parts) = (0, 0);
            self.problem = None;
            let wanted = loop {
                if parts > MOST_PARTS {
                    break None;
                }
                match head(&bytes[used..]) {
                    Head::Whole(record, all) => {
                        match Event::read(record) {
                            Ok((event, its)) => {
                                events.push(event);
                                parts += its;
                            }
                            Err(why) => self.note(used, &why),
                        }
                        used += all;
                    }
                    // the last one may still be on its way
                    Head::Spoiled(all) if used + all < bytes.len() || !at_end => {
                        self.note(used, "the check sum of a record is wrong, so it is left out");
                        used += all;
                    }
                    Head::Broken(why) => {
                        self.note(used, why);
                        break None;
                    }
                    Head::Partial(all) => break Some(all as u64),
                    Head::Spoiled(_) => break None,
                }
            };
            self.read += used as u64;
            match wanted {
                // a record larger than a piece
                Some(all) if used == 0 && !at_end && all > piece => piece = all,
                _ => return Ok(Seen::Grown(events, used > 0 && (!at_end || parts > MOST_PARTS))),
            }
        }
    }

    fn note(&mut self, used: usize, why: &str) {
        let place = self.read + used as u64;
        self.problem.get_or_insert_with(|| format!("damaged at byte {place}: {why}"));
    }
}

#[cfg(test)]
mod tests {
    use super::super::event::{Content, Summary, Tensor, Value, What};
    use super::super::record;
    use super::*;
    use prost::Message as _;

    fn summary(values: Vec<Value>) -> Vec<u8> {
        Event { what: Some(What::Summary(Summary { values })), ..Event::default() }.encode_to_vec()
    }

    /// The events of a file of these records, look by look, and what is wrong with it.
    fn looks(records: &[Vec<u8>]) -> (Vec<Vec<Event>>, Option<String>) {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("events");
        let mut bytes = Vec::new();
        records.iter().for_each(|record| record::push(&mut bytes, record));
        fs::write(&path, bytes).unwrap();
        let mut tail = Tail::new(path);
        let mut looks = Vec::new();
        loop {
            let Seen::Grown(events, more) = tail.look() else { panic!() };
            looks.push(events);
            if !more {
                return (looks, tail.problem);
            }
        }
    }

    #[test]
    fn records_of_countless_small_parts_are_left_out() {
        let strings = Tensor { strings: vec![Vec::new(); MOST_PARTS], ..Tensor::default() };
        let strings = Value { content: Some(Content::Tensor(strings)), ..Value::default() };
        for bomb in [summary(vec![Value::default(); MOST_PARTS + 1]), summary(vec![strings.clone()])] {
            let (looks, problem) = looks(&[bomb, summary(vec![Value::default()])]);
            assert_eq!(looks.concat().len(), 1);
            let problem = problem.unwrap();
            assert_eq!(problem, "damaged at byte 0: a record holds more than 65536 values, so it is left out");
        }
        // a value that goes on after its summary
        let mut bomb = summary(vec![strings]);
        let inner = bomb.iter().position(|byte| *byte == 0x0a).unwrap();
        bomb.splice(1..inner, [4]);
        let (looks, problem) = looks(&[bomb]);
        assert_eq!((looks.concat().len(), problem.as_deref()), (0, Some("damaged at byte 0: a record is no event")));
    }

    #[test]
    fn a_look_takes_in_a_bounded_number_of_values() {
        const EACH: usize = 1 << 12;
        let (looks, problem) = looks(&vec![summary(vec![Value::default(); EACH]); 100]);
        assert_eq!((looks.concat().len(), problem), (100, None));
        assert!(looks.iter().all(|events| events.len() * EACH <= MOST_PARTS + EACH));
    }
}
