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
    /// The first damage that was passed over.
    damage: Option<String>,
    /// What stood in the way of the last look.
    obstacle: Option<String>,
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
        Self { path, read: 0, identity: None, damage: None, obstacle: None }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is wrong with it, in words.
    pub fn problem(&self) -> Option<&str> {
        self.obstacle.as_deref().or(self.damage.as_deref())
    }

    /// Reads the whole records after those that were read.
    pub fn look(&mut self) -> Seen {
        match self.next() {
            Ok(seen) => seen,
            Err(e) => {
                self.obstacle = Some(e.to_string());
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
            (self.read, self.identity, self.damage, self.obstacle) = (0, None, None, None);
            return Ok(Seen::Replaced);
        }
        self.identity = now;
        if there.len() == self.read {
            self.obstacle = None;
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
            self.obstacle = None;
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
                            Err(why) => self.pass_over(used, &why),
                        }
                        used += all;
                    }
                    // the last one may still be on its way
                    Head::Spoiled(all) if used + all < bytes.len() || !at_end => {
                        self.pass_over(used, "the check sum of a record is wrong, so it is left out");
                        used += all;
                    }
                    Head::Broken(why) => {
                        self.obstacle = Some(self.damaged(used, why));
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

    fn pass_over(&mut self, used: usize, why: &str) {
        if self.damage.is_none() {
            self.damage = Some(self.damaged(used, why));
        }
    }

    fn damaged(&self, used: usize, why: &str) -> String {
        format!("damaged at byte {}: {why}", self.read + used as u64)
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
                return (looks, tail.problem().map(str::to_owned));
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

    #[test]
    fn damage_far_from_the_end_of_a_long_file_is_still_told() {
        let long = summary(vec![Value::default(); 1 << 12]);
        let mut records = vec![summary(vec![Value::default(); MOST_PARTS + 1])];
        records.extend(std::iter::repeat_n(long, 100));
        let (looks, problem) = looks(&records);
        assert!(looks.len() > 2);
        assert_eq!(
            problem.as_deref(),
            Some("damaged at byte 0: a record holds more than 65536 values, so it is left out")
        );
    }
}
