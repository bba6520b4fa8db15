//! A model on its way from the Hugging Face hub: how far it has come, and a button that stops it.

use super::actions::UiAction;
use super::state::AppState;
use super::style::{self, GRID};
use super::window::Window;
use crate::engine::{Command, JobId};
use egui::{Align, Layout, Margin, Panel, ProgressBar, RichText, Ui};

/// A download under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetching {
    job: JobId,
    /// owner/name
    name: String,
    /// Bytes of the newest file: there, and in all.
    bytes: (u64, u64),
}

impl Fetching {
    /// Whether it is that job.
    pub fn is(&self, job: JobId) -> bool {
        self.job == job
    }

    /// Takes in how far it has come.
    pub fn follow(&mut self, job: JobId, done: u64, total: u64) {
        if self.is(job) {
            self.bytes = (done, total);
        }
    }
}

impl Window {
    /// Fetches a model of the hub; then it is loaded.
    pub(super) fn fetch(&mut self, name: &str) {
        let job = self.state.new_job();
        self.state.fetching = Some(Fetching { job, name: name.to_owned(), bytes: (0, 0) });
        self.commands.push(Command::Fetch(job, name.to_owned()));
    }

    /// Stops that; a network that does not answer is not waited for.
    pub(super) fn stop_fetch(&mut self) {
        self.commands.extend(self.state.fetching.take().map(|fetching| Command::Cancel(fetching.job)));
    }
}

/// Draws how far it is, under the top bar.
pub fn panel(ui: &mut Ui, state: &AppState, out: &mut Vec<UiAction>) {
    let Some(Fetching { name, bytes: (done, total), .. }) = &state.fetching else { return };
    let frame = egui::Frame::new().fill(style::palette(ui).panel).inner_margin(Margin::symmetric(16, 6));
    Panel::top("fetch").resizable(false).frame(frame).show(ui, |ui| {
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
            style::button(ui, &UiAction::StopFetch, out);
            ui.add_space(GRID);
            let (text, share) = if *total > 0 {
                let megabytes = |bytes: u64| format!("{:.1}", bytes as f64 / 1e6);
                (format!("{} of {} MB", megabytes(*done), megabytes(*total)), *done as f32 / *total as f32)
            } else {
                ("asking the hub".to_owned(), 0.0)
            };
            ui.add(ProgressBar::new(share).desired_width(240.0).text(text)).on_hover_text("What is there stays there");
            ui.with_layout(Layout::left_to_right(Align::Center), |ui| {
                ui.add(
                    egui::Label::new(RichText::new(format!("Fetching {name} from the Hugging Face hub"))).truncate(),
                );
            });
        });
    });
}
