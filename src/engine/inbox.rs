//! Commands that wait for the worker: a newer film makes an older one pointless, and a save is never dropped.

use super::worker::Outbox;
use super::{Command, JobId};
use crate::error::Error;
use crossbeam_channel::{Receiver, TryRecvError};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

/// The worker's end of the channel, and what has come out of it but was not begun.
pub(super) struct Inbox<'a> {
    channel: &'a Receiver<Command>,
    out: &'a Outbox,
    waiting: RefCell<VecDeque<Command>>,
    /// What was handed out last.
    begun: Cell<Option<(JobId, Kind)>>,
}

/// Of each of these only the newest matters.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Sample,
    Forward,
    Compare,
    Train,
}

fn kind(command: &Command) -> Option<Kind> {
    match command {
        Command::Sample(..) => Some(Kind::Sample),
        Command::Forward(..) => Some(Kind::Forward),
        Command::Compare(..) => Some(Kind::Compare),
        Command::Train(..) => Some(Kind::Train),
        Command::Recall { .. }
        | Command::SetTraining(_)
        | Command::Change(_)
        | Command::Load(..)
        | Command::Fetch(..)
        | Command::Watch(..)
        | Command::Save(..)
        | Command::Race(..)
        | Command::Export(..)
        | Command::ReadRecipe(..)
        | Command::ReadRuns(..)
        | Command::SaveNotes(..)
        | Command::Cancel(_) => None,
    }
}

impl<'a> Inbox<'a> {
    pub fn new(channel: &'a Receiver<Command>, out: &'a Outbox) -> Self {
        Self { channel, out, waiting: RefCell::default(), begun: Cell::new(None) }
    }

    /// The next command to begin; waits for one if `wait`.
    pub fn next(&self, wait: bool) -> Result<Command, TryRecvError> {
        let mut state = self.collect();
        if wait && state == TryRecvError::Empty && self.waiting.borrow().is_empty() {
            self.file(self.channel.recv()?);
            state = self.collect();
        }
        let command = self.waiting.borrow_mut().pop_front().ok_or(state)?;
        self.begun.set(command.job().zip(kind(&command)));
        Ok(command)
    }

    /// Whether the job that was begun last need not go on: it is cancelled, replaced by a newer one, or all ends.
    pub fn stops(&self, id: JobId) -> bool {
        self.collect();
        let begun = self.begun.get().filter(|(job, _)| *job == id).map(|(_, kind)| kind);
        let ends = |c: &Command| matches!(c, Command::Cancel(job) if *job == id) || begun.is_some() && kind(c) == begun;
        self.out.quit() || self.waiting.borrow().iter().any(ends)
    }

    /// What was asked for and will not be begun.
    pub fn rest(&self) -> VecDeque<Command> {
        self.collect();
        self.waiting.take()
    }

    /// Takes in what has come; says why no more comes now.
    fn collect(&self) -> TryRecvError {
        loop {
            match self.channel.try_recv() {
                Ok(command) => self.file(command),
                Err(state) => return state,
            }
        }
    }

    fn file(&self, command: Command) {
        let pointless = |old: &Command| match (&command, old) {
            (Command::Sample(..), Command::Sample(..))
            | (Command::Forward(..), Command::Forward(..))
            | (Command::Compare(..), Command::Compare(..)) => true,
            (Command::Recall { film: a, .. }, Command::Recall { film: b, .. }) => a == b,
            (Command::Cancel(_), Command::Save(..) | Command::SaveNotes(..)) => false,
            (Command::Cancel(id), old) => old.job() == Some(*id),
            _ => false,
        };
        let mut ended = Vec::new();
        self.waiting.borrow_mut().retain(|old| {
            let keep = !pointless(old);
            ended.extend(old.job().filter(|_| !keep));
            keep
        });
        self.waiting.borrow_mut().push_back(command);
        for job in ended {
            self.out.finished(job, Err(Error::cancelled()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Event, ForwardRequest, ForwardSource, Origin, Outcome, Which};
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    fn forward(job: JobId) -> Command {
        Command::Forward(
            job,
            ForwardRequest { which: Which::Loaded, schedule: None, seed: 1, n: 1, source: ForwardSource::Data },
        )
    }

    /// What the worker gets of these commands, and the jobs that end without having begun.
    fn pass(commands: Vec<Command>) -> (Vec<String>, Vec<JobId>) {
        let (sender, receiver) = crossbeam_channel::bounded(64);
        let (events, told) = crossbeam_channel::bounded(64);
        let out = Outbox::new(events, Arc::new(AtomicBool::new(false)), Arc::new(|| ()));
        let inbox = Inbox::new(&receiver, &out);
        commands.into_iter().for_each(|c| sender.send(c).unwrap());
        let mut got = Vec::new();
        while let Ok(command) = inbox.next(false) {
            let name = format!("{command:?}");
            got.push(format!("{} {}", name.split('(').next().unwrap(), command.job().unwrap_or(0)));
        }
        drop(sender);
        assert_eq!(inbox.next(true).unwrap_err(), TryRecvError::Disconnected);
        let ended = told.try_iter().map(|event| match event {
            Event::Finished(job, Outcome::Cancelled) => job,
            other => panic!("{other:?}"),
        });
        (got, ended.collect())
    }

    #[test]
    fn only_the_newest_film_is_begun_and_every_save() {
        let scrubbing = (1..=50).map(forward).chain([Command::Save(51, "a".into()), Command::Save(52, "b".into())]);
        let (got, ended) = pass(scrubbing.chain([forward(53)]).collect());
        assert_eq!(got, ["Save 51", "Save 52", "Forward 53"]);
        assert_eq!(ended, (1..=50).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_cancelled_before_its_turn_never_begins_but_saves_do() {
        let load = Command::Load(1, Origin::Shipped);
        let commands = vec![load, forward(2), Command::Save(3, "a".into()), Command::Cancel(3), Command::Cancel(1)];
        let (got, ended) = pass(commands);
        assert_eq!(got, ["Forward 2", "Save 3", "Cancel 0", "Cancel 0"]);
        assert_eq!(ended, [1]);
    }

    #[test]
    fn a_job_stops_for_its_cancel_and_for_a_newer_one_of_its_kind() {
        let (sender, receiver) = crossbeam_channel::bounded(64);
        let (events, _told) = crossbeam_channel::bounded(64);
        let quit = Arc::new(AtomicBool::new(false));
        let out = Outbox::new(events, Arc::clone(&quit), Arc::new(|| ()));
        let inbox = Inbox::new(&receiver, &out);
        sender.send(forward(1)).unwrap();
        inbox.next(true).unwrap();
        sender.send(Command::Save(2, "a".into())).unwrap();
        assert!(!inbox.stops(1));
        sender.send(forward(3)).unwrap();
        assert!(inbox.stops(1) && !inbox.stops(2));
        sender.send(Command::Cancel(7)).unwrap();
        assert!(inbox.stops(7));
        quit.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(inbox.stops(2));
    }
}
