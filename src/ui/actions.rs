//! Everything a person can do in the window: its name, what it says in a tooltip, and its keys, in one table.

use super::branches::BranchAction;
use super::curve::CurveSettings;
use super::export::ExportSettings;
use super::playback::Direction;
use super::state::{FilmSettings, RunSettings};
use super::tree::{Travel, Version};
use crate::engine::{Changes, Quantity};
use egui::{Key, KeyboardShortcut, Modifiers};
use std::path::PathBuf;
use std::sync::Arc;

/// The views.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum View {
    /// The forward and the reverse film.
    #[default]
    Film,
    /// True noise beside predicted noise.
    Noise,
    /// How fast a picture drowns.
    Schedule,
    /// What happens in one step.
    Step,
    /// The film and its branches.
    Branches,
    /// DDPM beside DDIM.
    Race,
    /// Branches of the film at four t.
    Shared,
    /// A training run.
    Training,
    /// The runs in a folder.
    Runs,
    /// What the next training learns from.
    Data,
}

impl View {
    /// Whether it stands over the timeline, so that the keys of the film work in it.
    pub fn has_timeline(self) -> bool {
        matches!(self, Self::Film | Self::Noise | Self::Schedule | Self::Step | Self::Branches)
    }
}

/// What a path is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathUse {
    /// A diffusers folder to load.
    OpenModel,
    /// A folder to save into.
    SaveModel,
    /// A picture to drown in noise.
    OpenImage,
    /// Where a training run writes its checkpoints.
    TrainingOut,
    /// Where a training run finds its images.
    TrainingData,
    /// The folder that the runs are in.
    Runs,
    /// A run of any program to watch.
    Watch,
}

/// One thing that a person did.
#[derive(Clone, Debug, PartialEq)]
pub enum UiAction {
    /// Go to a view.
    Show(View),
    /// Show or hide the list of keys.
    ToggleKeys,
    /// Open or close the settings at the right.
    ToggleSettings,
    /// System, light, dark.
    NextTheme,
    /// Full screen and back.
    FullScreen,
    /// All but the film, its timeline and its numbers away, in large type; and back.
    Present,
    /// Usual or high contrast.
    ToggleContrast,
    /// Close the topmost message or overlay.
    Dismiss,
    /// Ask for a path.
    AskPath(PathUse),
    /// A path was given.
    UsePath(PathUse, PathBuf),
    /// Go back to the model inside the program.
    LoadShipped,
    /// Fetch the paper's CIFAR-10 network from the hub.
    FetchCifar,
    /// Stop fetching a model.
    StopFetch,
    /// Stop watching a run.
    StopWatch,
    /// Play or pause the film.
    PlayPause,
    /// Play that way.
    Play(Direction),
    /// So many states towards the picture.
    Step(isize),
    /// To that state, in doses.
    Seek(usize),
    /// To x_T.
    ToNoise,
    /// To x_0.
    ToImage,
    /// The other direction.
    Turn,
    /// Stand still.
    Pause,
    /// Play that way; the same again is faster.
    Shuttle(Direction),
    /// Once, loop, bounce.
    NextRepeat,
    /// The part that repeats begins at the playhead.
    SetIn,
    /// The part that repeats ends at the playhead.
    SetOut,
    /// The whole film repeats.
    WholeFilm,
    /// Timesteps or log-SNR along the timeline.
    NextScale,
    /// The next higher speed.
    Faster,
    /// The next lower speed.
    Slower,
    /// That speed.
    SetSpeed(f64),
    /// Another seed, and its films.
    NewSeed,
    /// Compute the reverse film again, with the model as it is now.
    Resample,
    /// Stop computing the reverse film.
    StopFilm,
    /// Compute both films again.
    Restart,
    /// 1, 4, 9, 16 or 64 pictures.
    NextGrid,
    /// Draw a picture, or stop drawing.
    ToggleDrawing,
    /// Drown that drawing.
    Drawn(Arc<[u8]>),
    /// Let the model return from the forward film's picture at the playhead.
    BringBack,
    /// What the reverse side shows.
    Look(Quantity),
    /// Which picture the noise view looks into.
    NoisePicture(usize),
    /// The next line of the algorithm.
    NextLine,
    /// What is done with branches of the film.
    Branch(BranchAction),
    /// Start a race.
    StartRace,
    /// End it.
    StopRace,
    /// Branch the film at four t; again: the next of its pictures.
    StartShared,
    /// Keep the branches as far as they have come.
    StopShared,
    /// Ask how the film is to be written into a file.
    AskExport,
    /// Write it.
    Export(Box<ExportSettings>),
    /// Stop writing it.
    CancelExport,
    /// The pictures at the playhead to the clipboard.
    CopyFrame,
    /// A file was dropped on the window.
    Dropped(PathBuf),
    /// Make a film and its branches again, to undo or redo or because its file was dropped.
    Restore(Box<Version>, Option<Travel>),
    /// Change what the films are made from.
    SetFilm(FilmSettings),
    /// Change the settings of the next training.
    SetRun(RunSettings),
    /// The folder that the runs are in, as typed.
    SetRunsFolder(String),
    /// Read the runs in it.
    ReadRuns,
    /// The settings of a run, for the next training.
    StartFrom(Box<RunSettings>),
    /// Keep that text in the folder of a run.
    SaveNotes(PathBuf, String),
    /// Read the data of the next training.
    ReadData,
    /// Stop reading them.
    StopReading,
    /// Start training.
    StartTraining,
    /// Start the training that fits into a lecture.
    StartLecture,
    /// From where a training was stopped, or the last good state of one that diverged, with half its rate.
    GoOn,
    /// Pause or resume training.
    HoldTraining,
    /// Other settings from the next step of training on.
    ChangeTraining(Changes),
    /// Samples of the training under way.
    SampleNow,
    /// End training.
    StopTraining,
    /// EMA beside raw in the place of the curve, and back.
    EnlargeSnapshots,
    /// How the loss is drawn.
    SetCurve(CurveSettings),
    /// Linear or logarithmic loss axis.
    ToggleLog,
}

/// Where a shortcut works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everywhere.
    Window,
    /// In one view; those of the film in every view with the timeline.
    In(View),
}

/// How an action is called.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The action.
    pub action: UiAction,
    /// Where its keys work.
    pub scope: Scope,
    /// Its name, as on a button or in a menu.
    pub label: &'static str,
    /// What it does, for a tooltip.
    pub tooltip: &'static str,
    /// Its keys.
    pub keys: Option<KeyboardShortcut>,
}

/// All actions that have a name, in the order of the keys overlay.
pub fn table() -> Vec<Entry> {
    use BranchAction::{Forget, Fork, Redo, Undo};
    use Scope::{In, Window};
    use UiAction as A;
    use View::{Branches, Data, Film, Noise, Race, Schedule, Step, Training};
    const NONE: Modifiers = Modifiers::NONE;
    const SHIFT: Modifiers = Modifiers::SHIFT;
    const COMMAND: Modifiers = Modifiers::COMMAND;
    let entry = |action, scope, label, tooltip, keys: Option<(Modifiers, Key)>| Entry {
        action,
        scope,
        label,
        tooltip,
        keys: keys.map(|(modifiers, key)| KeyboardShortcut::new(modifiers, key)),
    };
    vec![
        entry(A::Show(Film), Window, "Film", "Watch the film run both ways", Some((NONE, Key::F2))),
        entry(A::Show(Noise), Window, "Noise", "True noise beside predicted noise", Some((NONE, Key::F5))),
        entry(A::Show(Schedule), Window, "Schedule", "How fast a picture drowns", Some((NONE, Key::F7))),
        entry(A::Show(Step), Window, "Step", "What happens in one step", Some((NONE, Key::F8))),
        entry(
            A::Show(Branches),
            Window,
            "Branches",
            "The film and its branches, side by side",
            Some((COMMAND, Key::B)),
        ),
        entry(A::Show(Race), Window, "Race", "DDPM beside DDIM from the same noise", Some((NONE, Key::F9))),
        entry(
            A::Show(View::Shared),
            Window,
            "Shared latents",
            "What x_t decides: branches of the film at four t (Ho et al. 2020, Figure 7)",
            Some((COMMAND, Key::Num7)),
        ),
        entry(A::Show(Training), Window, "Training", "Watch a model learn", Some((NONE, Key::F3))),
        entry(
            A::Show(View::Runs),
            Window,
            "Runs",
            "The runs in a folder: curves over each other, notes",
            Some((COMMAND, Key::R)),
        ),
        entry(A::Show(Data), Window, "Data", "What the next training learns from", Some((COMMAND, Key::D))),
        entry(A::ToggleSettings, Window, "Settings", "Open or close the settings", Some((NONE, Key::F4))),
        entry(A::ToggleKeys, Window, "Keys", "List all keys", Some((NONE, Key::F1))),
        entry(A::NextTheme, Window, "Theme", "Follow the system, light, or dark", Some((NONE, Key::F6))),
        entry(A::FullScreen, Window, "Full screen", "Full screen and back", Some((NONE, Key::F11))),
        entry(
            A::Present,
            Window,
            "Presentation",
            "Only the film, its timeline and its numbers, in large type; and back",
            Some((NONE, Key::F10)),
        ),
        entry(A::ToggleContrast, Window, "High contrast", "Usual or high contrast", Some((NONE, Key::F12))),
        entry(A::Dismiss, Window, "Close message", "Close the topmost message or panel", Some((NONE, Key::Escape))),
        entry(
            A::AskPath(PathUse::OpenModel),
            Window,
            "Open model…",
            "Load a model from a diffusers folder, or from the Hugging Face hub",
            Some((COMMAND, Key::O)),
        ),
        entry(
            A::AskPath(PathUse::SaveModel),
            Window,
            "Save model…",
            "Save the training that runs or no folder holds, or else the loaded model, as a diffusers folder",
            Some((COMMAND, Key::S)),
        ),
        entry(
            A::AskPath(PathUse::OpenImage),
            Window,
            "Open image…",
            "Drown a picture of your own; it can also be dropped on the window",
            Some((COMMAND, Key::I)),
        ),
        entry(A::LoadShipped, Window, "Shipped model", "Go back to the model inside the program", None),
        entry(
            A::FetchCifar,
            Window,
            "Fetch google/ddpm-cifar10-32",
            "The paper's own CIFAR-10 network, from the Hugging Face hub: 143 MB, fetched once",
            None,
        ),
        entry(A::StopFetch, Window, "Stop fetching", "The next time it goes on from there", None),
        entry(
            A::AskPath(PathUse::Watch),
            Window,
            "Watch a run…",
            "Follow any training that writes TensorBoard event files; they are only read",
            Some((COMMAND, Key::W)),
        ),
        entry(A::StopWatch, Window, "Stop watching", "Back to the training of this window", None),
        entry(A::PlayPause, In(Film), "Play", "Play or pause", Some((NONE, Key::Space))),
        entry(
            A::Step(1),
            In(Film),
            "Step towards image",
            "One step of the reverse process",
            Some((NONE, Key::ArrowRight)),
        ),
        entry(
            A::Step(-1),
            In(Film),
            "Step towards noise",
            "One step of the forward process",
            Some((NONE, Key::ArrowLeft)),
        ),
        entry(A::Step(10), In(Film), "Ten steps towards image", "Ten steps", Some((SHIFT, Key::ArrowRight))),
        entry(A::Step(-10), In(Film), "Ten steps towards noise", "Ten steps", Some((SHIFT, Key::ArrowLeft))),
        entry(A::ToNoise, In(Film), "To noise", "Go to t = T, pure noise", Some((NONE, Key::Home))),
        entry(A::ToImage, In(Film), "To image", "Go to t = 0, the picture", Some((NONE, Key::End))),
        entry(
            A::Turn,
            In(Film),
            "Direction",
            "Run towards the image (reverse process) or towards noise (forward process)",
            Some((NONE, Key::D)),
        ),
        entry(
            A::Shuttle(Direction::ToNoise),
            In(Film),
            "Shuttle to noise",
            "Play towards noise; again: faster",
            Some((NONE, Key::J)),
        ),
        entry(A::Pause, In(Film), "Pause", "Stand still", Some((NONE, Key::K))),
        entry(
            A::Shuttle(Direction::ToImage),
            In(Film),
            "Shuttle to image",
            "Play towards the image; again: faster",
            Some((NONE, Key::L)),
        ),
        entry(A::NextRepeat, In(Film), "Repeat", "At the end: stop, loop, or run back", Some((NONE, Key::B))),
        entry(A::SetIn, In(Film), "Repeat from here", "The part that repeats begins here", Some((NONE, Key::I))),
        entry(A::SetOut, In(Film), "Repeat up to here", "The part that repeats ends here", Some((NONE, Key::O))),
        entry(A::WholeFilm, In(Film), "Repeat the whole film", "Take both marks away", Some((NONE, Key::Backspace))),
        entry(
            A::NextScale,
            In(Film),
            "Scale of the timeline",
            "Timesteps, or the logarithm of the signal-to-noise ratio",
            Some((NONE, Key::A)),
        ),
        entry(A::Slower, In(Film), "Slower", "Lower speed", Some((NONE, Key::ArrowDown))),
        entry(A::Faster, In(Film), "Faster", "Higher speed", Some((NONE, Key::ArrowUp))),
        entry(A::SetSpeed(0.1), In(Film), "Speed 0.1×", "A tenth of the usual speed", Some((NONE, Key::Num0))),
        entry(A::SetSpeed(1.0), In(Film), "Speed 1×", "Ten seconds from noise to image", Some((NONE, Key::Num1))),
        entry(A::SetSpeed(2.0), In(Film), "Speed 2×", "Twice the usual speed", Some((NONE, Key::Num2))),
        entry(A::SetSpeed(4.0), In(Film), "Speed 4×", "Four times the usual speed", Some((NONE, Key::Num4))),
        entry(A::SetSpeed(8.0), In(Film), "Speed 8×", "Eight times the usual speed", Some((NONE, Key::Num8))),
        entry(
            A::NewSeed,
            In(Film),
            "New seed",
            "Other noise, other pictures; the same seed gives the same film",
            Some((NONE, Key::R)),
        ),
        entry(
            A::Resample,
            In(Film),
            "Sample again",
            "Compute the reverse film again, with the model as it is now",
            Some((NONE, Key::Enter)),
        ),
        entry(
            A::StopFilm,
            In(Film),
            "Stop computing",
            "Keep the reverse film as far as it has come",
            Some((NONE, Key::S)),
        ),
        entry(A::NextGrid, In(Film), "Pictures", "Show 1, 4, 9, 16 or 64 pictures", Some((NONE, Key::G))),
        entry(
            A::ToggleDrawing,
            In(Film),
            "Draw",
            "Draw a picture of your own on the model's grid, or stop drawing",
            Some((NONE, Key::W)),
        ),
        entry(
            A::BringBack,
            In(Film),
            "Bring back",
            "Let the model return from this noisy picture; again at the same t: with another seed (SDEdit)",
            Some((NONE, Key::V)),
        ),
        entry(
            A::Branch(Fork),
            In(Film),
            "Fork",
            "Leave the film at the playhead, for a branch of it",
            Some((NONE, Key::F)),
        ),
        entry(
            A::Branch(Undo),
            In(Film),
            "Undo",
            "Take the last fork, name or deletion back, or a new film that took the branches",
            Some((COMMAND, Key::Z)),
        ),
        entry(A::Branch(Redo), In(Film), "Redo", "Make the change again", Some((COMMAND.plus(SHIFT), Key::Z))),
        entry(
            A::Branch(Forget),
            In(Branches),
            "Delete",
            "The branch on screen and all that leave it",
            Some((NONE, Key::Delete)),
        ),
        entry(A::Look(Quantity::State), In(Film), "Show x_t", "The state of the film", Some((NONE, Key::X))),
        entry(
            A::Look(Quantity::PredictedStart),
            In(Film),
            "Show predicted x_0",
            "The picture that the network, or the oracle, expects at the end",
            Some((NONE, Key::P)),
        ),
        entry(
            A::Look(Quantity::PredictedNoise),
            In(Film),
            "Show predicted noise",
            "What the network, or the oracle, takes for noise in x_t",
            Some((NONE, Key::E)),
        ),
        entry(
            A::Look(Quantity::Dose),
            In(Film),
            "Show the change of a step",
            "What the step from this state changes",
            Some((NONE, Key::C)),
        ),
        entry(
            A::StartRace,
            In(Race),
            "Start the race",
            "Both samplers start from the same noise",
            Some((NONE, Key::Enter)),
        ),
        entry(
            A::StartShared,
            In(View::Shared),
            "Branch the film",
            "Six branches of x_t at each of four t; again: of the next picture",
            Some((NONE, Key::Enter)),
        ),
        entry(
            A::StopShared,
            In(View::Shared),
            "Stop",
            "Keep the branches as far as they have come",
            Some((NONE, Key::S)),
        ),
        entry(A::StopRace, In(Race), "Stop the race", "Both samplers stay where they are", Some((NONE, Key::S))),
        entry(
            A::AskExport,
            Window,
            "Export film…",
            "Write the film as GIF, APNG, WebP, MP4, PNG or CSV, with all that makes it again",
            Some((COMMAND, Key::E)),
        ),
        entry(A::CancelExport, Window, "Cancel export", "Stop writing; no file is left", None),
        entry(
            A::CopyFrame,
            Window,
            "Copy frame",
            "The pictures at the playhead to the clipboard, also with Ctrl+C",
            None,
        ),
        entry(
            A::NextLine,
            In(Film),
            "Next line",
            "One line of the algorithm beside the step's equation",
            Some((NONE, Key::N)),
        ),
        entry(A::ReadData, In(Data), "Read again", "Read the files again: they may have changed", Some((NONE, Key::R))),
        entry(A::StopReading, In(Data), "Stop reading", "Stop reading the data", Some((NONE, Key::S))),
        entry(
            A::StartTraining,
            In(Training),
            "Start",
            "Start training with these settings",
            Some((COMMAND, Key::Enter)),
        ),
        entry(
            A::StartLecture,
            In(Training),
            "Digits in three minutes",
            "From random weights to digits that can be read: three minutes on two CPU cores with AVX-512, longer on slower ones",
            Some((COMMAND, Key::L)),
        ),
        entry(A::GoOn, In(Training), "Go on", "From its last step; if it diverged from the last good state", None),
        entry(A::HoldTraining, In(Training), "Pause", "Pause or resume training", Some((NONE, Key::Space))),
        entry(A::ReadRuns, In(View::Runs), "Read again", "Read the runs in the folder", Some((COMMAND, Key::Enter))),
        entry(A::StopTraining, In(Training), "Stop", "End this training", Some((COMMAND, Key::Period))),
        entry(
            A::SampleNow,
            In(Training),
            "Sample now",
            "What the model draws as it is now, from the noise of all its samples; also while it is paused",
            Some((NONE, Key::S)),
        ),
        entry(
            A::EnlargeSnapshots,
            In(Training),
            "Enlarge",
            "EMA beside raw, as they drew after so many steps, in the place of the curve; and back",
            Some((NONE, Key::E)),
        ),
        entry(A::ToggleLog, In(Training), "Logarithmic", "Linear or logarithmic loss axis", Some((NONE, Key::L))),
    ]
}

/// Label, tooltip and keys of `action`, if it is in the table.
pub fn entry(action: &UiAction) -> Option<Entry> {
    table().into_iter().find(|e| e.action == *action)
}

/// What the tooltip of `action` says: what it does, and its keys.
pub fn tooltip(ctx: &egui::Context, action: &UiAction) -> String {
    entry(action).map_or_else(String::new, |e| match e.keys {
        Some(keys) => format!("{} ({})", e.tooltip, ctx.format_shortcut(&keys)),
        None => e.tooltip.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_actions_share_a_shortcut_where_both_work() {
        let all = table();
        for (i, a) in all.iter().enumerate() {
            for b in &all[i + 1..] {
                let together = a.scope == b.scope || a.scope == Scope::Window || b.scope == Scope::Window;
                assert!(!(together && a.keys.is_some() && a.keys == b.keys), "{} and {}", a.label, b.label);
                assert_ne!(a.action, b.action);
            }
        }
    }

    #[test]
    fn shortcuts_leave_zoom_and_the_clipboard_alone() {
        let taken = [Key::Plus, Key::Minus, Key::Equals, Key::Num0, Key::A, Key::C, Key::V, Key::X];
        for e in table() {
            assert!(e.keys.is_none_or(|k| !(k.modifiers.command && taken.contains(&k.logical_key))), "{}", e.label);
        }
    }

    #[test]
    fn names_are_sentence_case_without_a_full_stop() {
        for e in table() {
            for text in [e.label, e.tooltip] {
                assert!(text.starts_with(char::is_uppercase) && !text.ends_with('.'), "{text}");
            }
        }
    }
}
