//! Before a training that no file holds is lost, or branches of its films, the window asks.

use super::actions::PathUse;
use super::dialogs;
use super::numbers;
use super::state::{AppState, Phase, Training};
use super::tree::{Plan, Travel};
use super::window::Window;
use crate::engine::{JobId, Outcome, Which};
use egui::{Ui, ViewportCommand};

/// Whether the window closes whatever is not saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closing {
    No,
    /// To be asked for in the next frame.
    Due,
    /// Asked for.
    Now,
}

/// What a person wants to do although a training is not saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Close,
    Train,
    TrainForLecture,
}

/// What is to become of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// Ask where, save, then go on.
    Save,
    /// Go on without it.
    Discard,
    /// Do not go on.
    Cancel,
}

/// The question what is to become of that training.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unsaved {
    pub wish: Wish,
    /// Whether it is on screen.
    pub shown: bool,
    /// Whether it ever was.
    pub asked: bool,
    /// The save after which the wish is granted.
    pub saving: Option<JobId>,
}

impl Unsaved {
    pub(super) fn new(wish: Wish) -> Self {
        Self { wish, shown: false, asked: false, saving: None }
    }
}

/// The question whether a new film may take branches that could never be made again.
pub(super) struct Parting {
    /// What the new film is to have.
    pub plans: Vec<Plan>,
    pub way: Option<Travel>,
    /// Whether it has been on screen.
    pub shown: bool,
}

impl AppState {
    /// Whether the film is of weights in training, which nothing holds once they are trained on. A model that was opened may
    /// hold them.
    pub(super) fn of_training(&self) -> bool {
        let [hash, held] = [self.reverse.source.as_ref().map(|by| &by.hash), self.model.as_ref().map(|m| &m.hash)];
        hash != held && self.reverse.made.as_ref().is_some_and(|made| made.which == Which::Training)
    }

    /// Whether a new film would take branches that cannot be made again. One that is on its way takes them anyway.
    pub(super) fn would_lose_branches(&self) -> bool {
        let on_its_way = self.reverse.job != self.branches.root && self.reverse.phase == Phase::Busy;
        self.of_training() && !self.branches.is_empty() && !on_its_way
    }
}

impl Window {
    /// Closes without a question, whatever is lost.
    pub(super) fn never_ask(&mut self) {
        self.closing = Closing::Now;
    }

    /// Holds a window that is about to close while a training is not saved. To be called in every frame, drawn or not.
    pub fn hold_close(&mut self, ctx: &egui::Context) {
        if ctx.input(|i| i.viewport().close_requested()) {
            self.leave_all_runs();
        }
        let unsaved = self.state.training.as_ref().is_some_and(|t| t.unsaved().is_some());
        if ctx.input(|i| i.viewport().close_requested()) && unsaved && self.closing == Closing::No {
            ctx.send_viewport_cmd(ViewportCommand::CancelClose);
            ctx.send_viewport_cmd(ViewportCommand::Minimized(false));
            match &mut self.unsaved {
                // also where it is being asked for another reason
                Some(unsaved) => unsaved.wish = Wish::Close,
                None => self.unsaved = Some(Unsaved::new(Wish::Close)),
            }
        }
    }

    /// Does what waited for the training to be saved or given up.
    pub(super) fn grant(&mut self) {
        match self.unsaved.take().map(|u| u.wish) {
            Some(Wish::Close) => self.closing = Closing::Due,
            Some(Wish::Train) => self.train(),
            Some(Wish::TrainForLecture) => self.train_for_lecture(),
            None => {}
        }
    }

    /// Takes in that a save is over, if it is the one that was waited for.
    pub(super) fn saved_before(&mut self, job: JobId, outcome: &Outcome) {
        if let Some(unsaved) = self.unsaved.filter(|u| u.saving == Some(job)) {
            // a failed save asks again, under its message
            self.unsaved = Some(Unsaved { saving: None, shown: false, ..unsaved });
            if *outcome == Outcome::Done {
                self.grant();
            }
        }
    }

    pub(super) fn close_if_due(&mut self, ctx: &egui::Context) {
        if self.closing == Closing::Due {
            self.closing = Closing::Now;
            ctx.send_viewport_cmd(ViewportCommand::Close);
        }
    }

    pub(super) fn ask_unsaved(&mut self, ui: &Ui) {
        let Some(unsaved) = self.unsaved.as_mut().filter(|u| u.saving.is_none()) else { return };
        let Some(steps) = self.state.training.as_ref().and_then(Training::unsaved) else {
            // saved by itself while a person was asked: what to do then is not answered
            if unsaved.asked {
                self.unsaved = None;
            } else {
                self.grant();
            }
            return;
        };
        let first_frame = !std::mem::replace(&mut unsaved.shown, true);
        unsaved.asked = true;
        let why = format!("{} steps are in memory only and would be lost", numbers::thousands(steps));
        let answers = [
            (Answer::Save, "Save…", "Choose a folder for the model and its training"),
            (Answer::Discard, "Discard", "Lose this training"),
            (Answer::Cancel, "Cancel", "Keep the training and the window (Esc)"),
        ];
        let words = ["This training is not saved", why.as_str()];
        match dialogs::question(ui, words, &answers, Answer::Cancel, first_frame) {
            Some(Answer::Save) => {
                unsaved.shown = false;
                self.ask_path(PathUse::SaveModel);
            }
            Some(Answer::Discard) => self.grant(),
            Some(Answer::Cancel) => self.unsaved = None,
            None => {}
        }
    }

    pub(super) fn ask_parting(&mut self, ui: &Ui) {
        let Some(parting) = &mut self.parting else { return };
        let first_frame = !std::mem::replace(&mut parting.shown, true);
        let step = self.state.reverse.source.as_ref().and_then(|by| by.step).unwrap_or_default();
        let why = format!(
            "A new film takes them for good: they are of the training as it was after {} steps",
            numbers::thousands(step)
        );
        let answers = [
            (false, "Keep the branches", "Make no new film (Esc)"),
            (true, "New film", "Lose the branches of the film on screen"),
        ];
        let words = ["These branches cannot be made again", why.as_str()];
        let answer = dialogs::question(ui, words, &answers, false, first_frame);
        let Some(parting) = self.parting.take_if(|_| answer.is_some()) else { return };
        if answer == Some(true) {
            self.sample_now(parting.plans, parting.way);
        } else if let Some(made) = self.state.reverse.made.clone() {
            self.replace_settings(made.beside(&self.state.settings));
            self.state.fit_settings();
            self.drown();
        }
    }
}
