//! What is done with the film and its branches: forks, names, deletions, and their undo and redo. A branch that is brought
//! back is computed again, which gives the same pictures.

use super::actions::View;
use super::state::{AppState, Film, FilmSettings, Severity, next_seed};
use super::tree::{Branch, Id, Plan, ROOT, Travel, Version, describe};
use super::window::Window;
use crate::diffusion::reel::MOST_BRANCHES;
use crate::engine::{Command, Fork, JobId, Left, Maker, PredictionType, Predictor, Provenance, Which};

/// Said when a new film has taken the branches.
const TAKEN: &str = "The branches went with their film";

/// What a person does with branches.
#[derive(Clone, Debug, PartialEq)]
pub enum BranchAction {
    /// Leave the film on screen at the playhead.
    Fork,
    /// Change what the next one is made from.
    Draft(Draft),
    /// Show that one.
    Choose(Id),
    /// Set that one beside it.
    Compare(Id),
    /// Call it so.
    Rename(Id, String),
    /// Delete the one on screen with all that leave it.
    Forget,
    /// Take the last change back.
    Undo,
    /// Make it again.
    Redo,
}

/// What the next branch is made from.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    /// With noise of its own, or with that of the film that it leaves.
    pub new_noise: bool,
    /// All but its seed.
    pub settings: FilmSettings,
}

impl AppState {
    /// The reverse film on screen: the newest, or a branch of it from the very beginning.
    pub fn shown(&self) -> &Film<Provenance> {
        self.branches.whole.as_ref().unwrap_or(&self.reverse)
    }

    /// What `id` made itself.
    pub fn own(&self, id: Id) -> &Film<Provenance> {
        self.branches.get(id).map_or(&self.reverse, |branch| &branch.own)
    }

    /// What made the state that the film on screen shows at `doses`.
    fn maker(&self, doses: usize) -> Option<Id> {
        let (_, film) = self.shown().film.as_ref()?;
        let state = film.at(doses).map_or(film.state(doses), |frame| frame.doses);
        Some(self.branches.maker(self.branches.chosen(), state))
    }

    /// What a film is made from, from the state on in which it begins.
    pub fn made(&self, id: Id) -> Option<&FilmSettings> {
        self.branches.get(id).map(|branch| &branch.plan.settings).or(self.reverse.made.as_ref())
    }

    /// What the state that the film on screen shows at `doses` is made from.
    pub fn made_at(&self, doses: usize) -> Option<&FilmSettings> {
        self.made(self.maker(doses)?)
    }

    /// What ε̂ and x̂_0 at `doses` follow from: what a network predicts, or the oracle (`None`).
    pub fn predicts_at(&self, doses: usize) -> Option<PredictionType> {
        let oracle = self.made_at(doses).is_some_and(|made| made.predictor == Predictor::Oracle);
        (!oracle).then(|| self.predicts())
    }

    /// Whose the state is that the film on screen shows at `doses`.
    pub fn source_at(&self, doses: usize) -> Option<&Provenance> {
        self.own(self.maker(doses)?).source.as_ref()
    }

    /// Where the branch that made the state at `doses` leaves the film before it.
    pub fn leaves(&self, doses: usize) -> Option<usize> {
        Some(self.branches.get(self.maker(doses)?)?.plan.doses)
    }

    /// What the film on screen has left on its way, the nearest first.
    pub fn left(&self) -> Vec<Left> {
        let of = |branch: &&Branch| {
            let film = self.own(branch.plan.parent);
            let by = Maker::of(film.source.as_ref()?);
            Some(Left { job: film.film.as_ref()?.0, doses: branch.plan.doses, by })
        };
        self.branches.chain().iter().rev().filter_map(of).collect()
    }

    /// How the film on screen leaves the newest one.
    pub fn forks(&self) -> Vec<Fork> {
        self.branches.chain().into_iter().map(|branch| branch.plan.fork()).collect()
    }

    /// The film with its branches.
    pub fn version(&self) -> Option<Version> {
        let Provenance { model, hash, step, .. } = self.reverse.source.clone()?;
        // the hash says whose weights they are
        let settings = FilmSettings { which: Which::Loaded, ..self.reverse.made.clone()? };
        Some(Version { model, hash, step, settings, plans: self.branches.plans() })
    }

    /// Takes in that a film of that job begins, which the branches are not of.
    pub fn take_branches(&mut self, job: JobId) {
        let mut old = self.version();
        if let Some(version) = old.take_if(|_| self.of_training()) {
            // nothing leads back to weights that were trained on
            self.branches.forget_weights(&version);
        }
        if self.branches.belong_to(job, old) {
            let details = "Undo (Ctrl+Z in the film view) brings both back".to_owned();
            self.notify(Severity::Info, TAKEN.to_owned(), details);
        }
    }

    /// The next undo leads elsewhere than was said.
    fn unsay_taken(&mut self) {
        self.banners.retain(|banner| banner.what != TAKEN);
    }

    /// What the next branch is made from, as chosen, or else as the state at the playhead with other noise.
    pub fn draft(&self) -> Draft {
        let settings = || self.made_at(self.playback.doses()).unwrap_or(&self.settings).clone();
        self.branches.draft.clone().unwrap_or_else(|| Draft { new_noise: true, settings: settings() })
    }

    /// The state in which the next branch leaves the film on screen.
    ///
    /// # Errors
    /// Why none can.
    pub fn fork_at(&self, doses: usize) -> Result<usize, String> {
        let Some((_, film)) = &self.shown().film else { return Err("There is no film yet".to_owned()) };
        let drawn = self.shared.as_ref().map_or(0, |shared| shared.under_way().count());
        let state = film.state(doses);
        let parent = self.own(self.branches.parent_at(state)).film.as_ref();
        if state == 0 {
            Err("At t = 0 no step is left".to_owned())
        } else if self.reverse.film.as_ref().map(|(job, _)| *job) != self.reverse.job {
            Err("A new film takes its place".to_owned())
        } else if parent.and_then(|(_, film)| film.reached()).is_none_or(|reached| state < reached) {
            Err("The film has not come here yet".to_owned())
        } else if self.branches.len() + drawn >= MOST_BRANCHES {
            Err(format!("{MOST_BRANCHES} branches are held: delete one first"))
        } else {
            Ok(state)
        }
    }

    /// The branch that would leave at the playhead.
    fn next_plan(&self) -> Result<Plan, String> {
        let doses = self.fork_at(self.playback.doses())?;
        let parent = self.branches.parent_at(doses);
        let old = self.made(parent).ok_or("There is no film yet")?;
        let Draft { new_noise, mut settings } = self.draft();
        let plans = &self.branches.list;
        let used = |seed: &u64| *seed == old.seed || plans.iter().any(|branch| branch.plan.settings.seed == *seed);
        let newest = plans.last().map_or(old.seed, |branch| branch.plan.settings.seed);
        let mut seeds = std::iter::successors(Some(next_seed(newest)), |seed| Some(next_seed(*seed)));
        settings.seed = if new_noise { seeds.find(|seed| !used(seed)).unwrap_or(newest) } else { old.seed };
        let name = self.branches.free_name(describe(old, &settings, doses));
        Ok(Plan { id: self.branches.last_id + 1, name, parent, doses, settings })
    }
}

impl Window {
    /// Does what a person asked for.
    pub(super) fn branch(&mut self, action: BranchAction) {
        use BranchAction as A;
        let branches = &mut self.state.branches;
        match action {
            A::Fork => self.fork(),
            A::Draft(draft) => branches.draft = Some(draft),
            A::Choose(id) => self.choose(id),
            A::Compare(id) => branches.compared = Some(id),
            A::Rename(id, name) => {
                let mut plans = branches.plans();
                plans.iter_mut().filter(|plan| plan.id == id).for_each(|plan| plan.name.clone_from(&name));
                self.change(plans);
            }
            A::Forget => {
                if branches.chosen() != ROOT {
                    let plans = branches.without(branches.chosen());
                    self.change(plans);
                }
            }
            A::Undo => self.go(Travel::Undo),
            A::Redo => self.go(Travel::Redo),
        }
    }

    /// To what there was; where that was another film, it is made again first.
    fn go(&mut self, way: Travel) {
        let then = self.state.branches.ahead(way).cloned();
        let Some((now, then)) = self.state.version().zip(then) else { return };
        self.state.unsay_taken();
        if self.state.reverse.job == self.state.branches.root && now.has_film_of(&then) {
            self.state.branches.went(way, Some(now));
            self.go_to(then.plans);
        } else {
            self.restore(Box::new(then), Some(way));
        }
    }

    fn fork(&mut self) {
        match self.state.next_plan() {
            Ok(plan) => {
                let mut plans = self.state.branches.plans();
                plans.push(plan);
                self.change(plans);
                self.view = View::Branches;
            }
            Err(why) => self.state.notify(Severity::Warning, "The film cannot be branched here".to_owned(), why),
        }
    }

    /// Makes the branches that wait for their film, if that has begun.
    pub(super) fn grow(&mut self) {
        let branches = &mut self.state.branches;
        if let Some(growing) = branches.to_grow.take_if(|growing| Some(growing.job) == branches.root) {
            self.go_to(growing.plans);
        }
    }

    fn choose(&mut self, id: Id) {
        let branches = &mut self.state.branches;
        (branches.chosen, branches.compared, branches.draft) = (id, None, None);
        branches.follow(&self.state.reverse);
    }

    /// A change that can be undone.
    fn change(&mut self, plans: Vec<Plan>) {
        if let Some(now) = self.state.version() {
            self.state.branches.changed(now);
            self.state.unsay_taken();
            self.go_to(plans);
        }
    }

    /// Lets the branches be these: what is not among them is forgotten, what is new is computed.
    pub(super) fn go_to(&mut self, plans: Vec<Plan>) {
        let state = &mut self.state;
        let (gone, mut kept): (Vec<Branch>, Vec<Branch>) = std::mem::take(&mut state.branches.list)
            .into_iter()
            .partition(|branch| plans.iter().all(|plan| plan.id != branch.plan.id));
        if !gone.is_empty() {
            self.commands.push(Command::Forget(gone.iter().filter_map(|branch| branch.own.job).collect()));
        }
        let mut next =
            gone.iter().find(|branch| branch.plan.id == state.branches.chosen).map(|branch| branch.plan.parent);
        for plan in plans {
            let own = match kept.iter().position(|branch| branch.plan.id == plan.id) {
                Some(i) => kept.remove(i).own,
                None => {
                    let Some(parent) = state.branches.job(plan.parent) else { continue };
                    let mut own = Film::default();
                    let job = state.new_job();
                    own.expect(job, plan.settings.clone());
                    self.commands.push(Command::Fork(job, plan.fork().request(parent)));
                    next = Some(plan.id);
                    own
                }
            };
            state.branches.last_id = state.branches.last_id.max(plan.id);
            state.branches.list.push(Branch { plan, own });
        }
        if let Some(id) = next {
            self.choose(if self.state.branches.get(id).is_some() { id } else { ROOT });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::Images;
    use crate::diffusion::schedule::{Schedule, ScheduleConfig};
    use crate::engine::{Event, ForkRequest, Frame, JobId, Predictor, Trajectory, Variance};
    use crate::ui::Preferences;
    use crate::ui::state::Method;
    use std::sync::Arc;

    const SHAPE: [usize; 3] = [1, 1, 2];

    /// Begins the film of a job and gives it all states down to `last`, each with the value of the job.
    fn make(window: &mut Window, job: JobId, begins: usize, last: usize) {
        let schedule = Arc::new(Schedule::new(&ScheduleConfig { steps: 50, ..Default::default() }).unwrap());
        let film = Trajectory::new(4, SHAPE, schedule).with_states((0..=begins).collect(), usize::MAX);
        let by = Provenance {
            model: "tiny".into(),
            hash: String::new(),
            step: None,
            predictor: Predictor::Ema,
            only_copy: false,
            prediction_type: PredictionType::Epsilon,
            oracle: None,
            from: None,
            sampler: "DDPM",
            calls: begins,
        };
        window.handle(Event::SampleStarted(job, Box::new(film), by));
        for doses in (last..=begins).rev() {
            let images = Images::new(4, SHAPE, vec![job as f32; 8]);
            window.handle(Event::Frame(job, Arc::new(Frame::state(doses, &images))));
        }
    }

    /// A window with a film down to t = 0, and its job.
    fn window() -> (Window, JobId) {
        let mut window = Window::new(Preferences::default());
        let job = window.state.new_job();
        window.state.reverse.expect(job, FilmSettings::default());
        make(&mut window, job, 50, 0);
        (window, job)
    }

    fn fork(window: &mut Window, doses: usize) -> (JobId, ForkRequest) {
        window.state.playback.seek(doses);
        window.branch(BranchAction::Fork);
        let commands = window.take_commands();
        let [Command::Fork(job, request)] = commands.as_slice() else { panic!("{commands:?}") };
        (*job, request.clone())
    }

    fn names(window: &Window) -> Vec<(String, usize)> {
        let branches = &window.state.branches;
        branches.tree().into_iter().map(|(id, depth)| (branches.name(id).to_owned(), depth)).collect()
    }

    #[test]
    fn a_branch_leaves_what_made_the_state_at_the_playhead_and_takes_all_before_from_it() {
        let (mut window, root) = window();
        let (first, request) = fork(&mut window, 40);
        assert_eq!((request.parent, request.doses, request.repeat), (root, 40, None));
        assert_ne!(request.seed, FilmSettings::default().seed, "new noise");
        make(&mut window, first, 40, 0);
        let (second, request) = fork(&mut window, 20);
        assert_eq!((request.parent, request.doses), (first, 20));
        make(&mut window, second, 20, 7);
        let (third, request) = fork(&mut window, 45);
        assert_eq!((request.parent, request.doses), (root, 45), "there the film is that of the root");
        let (fourth, request) = fork(&mut window, 45);
        assert_eq!((request.parent, request.doses), (root, 45), "also where the chosen one waits to leave it");
        window.branch(BranchAction::Undo);
        assert!(matches!(&window.take_commands()[..], [Command::Forget(gone)] if *gone == [fourth]));
        window.branch(BranchAction::Choose(3));
        assert_eq!(names(&window).iter().map(|(_, depth)| *depth).collect::<Vec<_>>(), [0, 1, 2, 1]);
        assert_eq!(window.state.branches.chosen(), 3);
        window.branch(BranchAction::Choose(2));
        let (job, film) = window.state.shown().film.as_ref().unwrap();
        let value = |doses: usize| film.value(film.at(doses).unwrap(), crate::engine::Quantity::State, 0);
        assert_eq!((*job, film.reached()), (second, Some(7)));
        for (doses, made) in [(50, root), (41, root), (40, first), (21, first), (20, second), (7, second)] {
            assert_eq!(value(doses), Some(made as f32), "at {doses}");
        }
        assert_eq!(window.state.made_at(20).unwrap().seed, window.state.made(2).unwrap().seed);
        assert_eq!(window.state.made_at(21).unwrap().seed, window.state.made(1).unwrap().seed);
        assert_eq!((window.state.leaves(30), window.state.leaves(41)), (Some(40), None));
        assert_eq!(window.state.extent().reached, Some(7));
        make(&mut window, third, 45, 0);
        assert_eq!(window.state.extent().reached, Some(7), "another branch changes nothing here");
        // a new film takes all its branches away
        let job = window.state.new_job();
        window.state.reverse.expect(job, FilmSettings::default());
        assert!(window.state.fork_at(20).unwrap_err().contains("new film"));
        make(&mut window, job, 50, 10);
        assert!(window.state.branches.is_empty() && window.state.branches.history() == [true, false]);
        assert_eq!(window.state.shown().job, Some(job));
        assert!(window.state.fork_at(9).unwrap_err().contains("not come here"));
    }

    #[test]
    fn every_change_of_the_tree_is_undone_and_made_again_with_the_very_same_branches() {
        let (mut window, root) = window();
        let first = fork(&mut window, 40);
        make(&mut window, first.0, 40, 0);
        let second = fork(&mut window, 20);
        make(&mut window, second.0, 20, 0);
        window.branch(BranchAction::Rename(1, "mine".into()));
        window.branch(BranchAction::Choose(1));
        window.branch(BranchAction::Forget);
        let commands = window.take_commands();
        let gone = vec![first.0, second.0];
        assert!(matches!(&commands[..], [Command::Forget(jobs)] if *jobs == gone), "{commands:?}");
        assert_eq!((names(&window).len(), window.state.branches.chosen()), (1, ROOT));
        window.branch(BranchAction::Undo);
        let commands = window.take_commands();
        let [Command::Fork(a, one), Command::Fork(b, two)] = &commands[..] else { panic!("{commands:?}") };
        assert_eq!(*one, first.1);
        assert_eq!(*two, ForkRequest { parent: *a, ..second.1.clone() }, "the branch that it leaves comes first");
        assert!(![first.0, second.0, root].contains(a) && a != b, "by other jobs");
        assert_eq!(names(&window)[1], ("mine".to_owned(), 1));
        window.branch(BranchAction::Undo);
        assert_eq!(names(&window)[1].0, "new noise from t = 40");
        assert!(window.take_commands().is_empty(), "a name is no work");
        window.branch(BranchAction::Undo);
        window.branch(BranchAction::Undo);
        assert_eq!((names(&window).len(), window.state.branches.history()), (1, [false, true]));
        window.branch(BranchAction::Undo);
        for _ in 0..3 {
            window.branch(BranchAction::Redo);
        }
        let redone = window.take_commands();
        assert!(redone.iter().any(|c| matches!(c, Command::Fork(_, fork) if *fork == first.1)));
        assert_eq!(names(&window)[1..], [("mine".to_owned(), 1), ("new noise from t = 20".to_owned(), 2)]);
        // another change is the end of what was undone
        window.branch(BranchAction::Rename(2, "other".into()));
        assert_eq!(window.state.branches.history(), [true, false]);
    }

    #[test]
    fn branches_are_named_after_what_they_change_and_there_are_eight_at_most() {
        let (mut window, _) = window();
        let settings = FilmSettings::default();
        for (new_noise, changed, name) in [
            (true, settings.clone(), "new noise from t = 30"),
            (true, settings.clone(), "new noise from t = 30 (2)"),
            (false, settings.clone(), "the same from t = 30"),
            (false, FilmSettings { variance: Variance::FixedLarge, ..settings.clone() }, "σ² large from t = 30"),
            (false, FilmSettings { eta: 1.0, method: Method::Ddim, ..settings.clone() }, "DDIM η = 1 from t = 30"),
            (false, FilmSettings { eta: 1.0, clip: false, ..settings.clone() }, "not clipped from t = 30"),
            (true, FilmSettings { predictor: Predictor::Raw, ..settings.clone() }, "new noise, raw from t = 30"),
            (false, FilmSettings { predictor: Predictor::Oracle, ..settings.clone() }, "oracle from t = 30"),
        ] {
            window.branch(BranchAction::Choose(ROOT));
            window.branch(BranchAction::Draft(Draft { new_noise, settings: changed.clone() }));
            let (job, request) = fork(&mut window, 30);
            make(&mut window, job, 30, 0);
            let asked = changed.sample_request();
            assert_eq!(
                (request.sampler, request.predictor, request.clip),
                (asked.sampler, asked.predictor, asked.clip)
            );
            assert_eq!(request.seed == settings.seed, !new_noise);
            assert_eq!(names(&window).last().unwrap().0, name);
        }
        let seeds: std::collections::HashSet<_> = (1..=8).map(|id| window.state.made(id).unwrap().seed).collect();
        assert_eq!(seeds.len(), 4, "three of new noise, all others of the film's");
        window.branch(BranchAction::Fork);
        assert!(window.take_commands().is_empty());
        assert!(window.state.banners[0].details.contains("8 branches are held"));
    }
}
