//! Commands that wait for the worker: a newer film makes an older one pointless, and a save is never dropped.

use super::Command;
use super::outbox::Outbox;
use crate::error::Error;
use crossbeam_channel::{Receiver, TryRecvError};
use std::cell::RefCell;
use std::collections::VecDeque;

/// The worker's end of the channel, and what has come out of it but was not begun.
pub(super) struct Inbox<'a> {
    channel: &'a Receiver<Command>,
    out: &'a Outbox,
    waiting: RefCell<VecDeque<Command>>,
}

impl Command {
    /// Whether it makes pointless what was asked for before and not begun.
    pub fn replaces(&self, old: &Self) -> bool {
        match (self, old) {
            (Self::Sample(..), Self::Sample(..))
            | (Self::Forward(..), Self::Forward(..))
            | (Self::Compare(..), Self::Compare(..))
            | (Self::Look(..), Self::Look(..)) => true,
            (Self::Recall { film: a, .. }, Self::Recall { film: b, .. }) => a == b,
            (Self::Cancel(_), Self::Save(..) | Self::SaveNotes(..)) => false,
            (Self::Cancel(id), old) => old.job() == Some(*id),
            _ => false,
        }
    }
}

impl<'a> Inbox<'a> {
    pub fn new(channel: &'a Receiver<Command>, out: &'a Outbox) -> Self {
        Self { channel, out, waiting: RefCell::default() }
    }

    /// The next command to begin; waits for one if `wait`.
    pub fn next(&self, wait: bool) -> Result<Command, TryRecvError> {
        let mut state = self.collect();
        if wait && state == TryRecvError::Empty && self.waiting.borrow().is_empty() {
            self.file(self.channel.recv()?);
            state = self.collect();
        }
        self.waiting.borrow_mut().pop_front().ok_or(state)
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
        let mut ended = Vec::new();
        self.waiting.borrow_mut().retain(|old| {
            let keep = !command.replaces(old);
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
    use super::super::{Event, ForwardRequest, ForwardSource, JobId, Origin, Outcome, Which};
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
        let scrubbing = (1..=50)
            .map(forward)
            .chain([Command::Save(51, Which::Loaded, "a".into()), Command::Save(52, Which::Loaded, "b".into())]);
        let (got, ended) = pass(scrubbing.chain([forward(53)]).collect());
        assert_eq!(got, ["Save 51", "Save 52", "Forward 53"]);
        assert_eq!(ended, (1..=50).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_cancelled_before_its_turn_never_begins_but_saves_do() {
        let load = Command::Load(1, Origin::Shipped);
        let commands =
            vec![load, forward(2), Command::Save(3, Which::Loaded, "a".into()), Command::Cancel(3), Command::Cancel(1)];
        let (got, ended) = pass(commands);
        assert_eq!(got, ["Forward 2", "Save 3", "Cancel 0", "Cancel 0"]);
        assert_eq!(ended, [1]);
    }
}
