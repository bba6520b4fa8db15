//! The film and its branches as a tree: what each is made from, how far it has come, and which of them is shown.

use super::branches::Draft;
use super::state::{Film, FilmSettings, Method};
use crate::engine::{Fork, JobId, Predictor, Provenance, SampleRequest, Trajectory, Variance};
use std::collections::BTreeMap;

/// Changes that can be undone.
const HISTORY: usize = 100;

/// Names a branch as long as its film is there, also when it is computed again.
pub type Id = usize;
/// The film that all branches leave in the end.
pub const ROOT: Id = 0;

/// All that makes a branch.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Which one.
    pub id: Id,
    /// What a person calls it.
    pub name: String,
    /// What it leaves: another branch, or [`ROOT`].
    pub parent: Id,
    /// The state in which it leaves.
    pub doses: usize,
    /// What follows is made from these.
    pub settings: FilmSettings,
}

impl Plan {
    /// How it leaves its parent.
    pub fn fork(&self) -> Fork {
        let SampleRequest { predictor, sampler, clip, seed, .. } = self.settings.sample_request();
        Fork { doses: self.doses, predictor, sampler, clip, seed }
    }
}

/// A branch as far as it has come.
#[derive(Clone, Debug)]
pub struct Branch {
    /// What makes it.
    pub plan: Plan,
    /// What it is from the state on in which it leaves.
    pub own: Film<Provenance>,
}

/// A film with its branches: all that makes them again.
#[derive(Clone, Debug, PartialEq)]
pub struct Version {
    /// Short name of the model.
    pub model: String,
    /// What its weights hash to.
    pub hash: String,
    /// Training steps behind it, where known.
    pub step: Option<u64>,
    /// What the film is made from, by the loaded model.
    pub settings: FilmSettings,
    /// Its branches.
    pub plans: Vec<Plan>,
}

impl Version {
    /// Whether both are branches of one film.
    pub fn has_film_of(&self, other: &Self) -> bool {
        self.hash == other.hash && self.settings.sample_request() == other.settings.sample_request()
    }

    /// Lets no branch have an id up to `last`.
    pub fn renumber(&mut self, last: Id) {
        for plan in &mut self.plans {
            plan.id += last;
            plan.parent += if plan.parent == ROOT { 0 } else { last };
        }
    }
}

/// Through the changes that were made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Travel {
    /// To what there was before the last one.
    Undo,
    /// To what there was before that was undone.
    Redo,
}

/// Branches to make once the film that they leave has begun.
#[derive(Clone, Debug)]
pub struct Growing {
    /// The job of that film.
    pub job: JobId,
    /// The branches.
    pub plans: Vec<Plan>,
    /// Whether it is an undo or a redo that asked for them.
    pub way: Option<Travel>,
}

/// All branches of the newest reverse film.
#[derive(Clone, Debug, Default)]
pub struct Branches {
    /// The job that made that film.
    pub root: Option<JobId>,
    /// In the order in which they were made, so that each comes after what it leaves.
    pub list: Vec<Branch>,
    /// The one to show.
    pub chosen: Id,
    /// The one to set beside it, where that was asked for.
    pub compared: Option<Id>,
    /// The chosen branch with the noisier states of what it leaves.
    pub whole: Option<Film<Provenance>>,
    /// What was chosen for the next one.
    pub draft: Option<Draft>,
    /// What there was before each change, the newest last.
    pub past: Vec<Version>,
    /// What there was before each change was undone, the newest last.
    pub future: Vec<Version>,
    /// The newest name.
    pub last_id: Id,
    /// Those of a film on its way.
    pub to_grow: Option<Growing>,
}

impl Branches {
    /// From now on they are those of that job's film. `old` is what there was; where it had branches, the way back leads there.
    /// Returns whether a new film took them there.
    pub fn belong_to(&mut self, root: JobId, old: Option<Version>) -> bool {
        let way = self.to_grow.as_ref().filter(|growing| growing.job == root).and_then(|growing| growing.way);
        let taken = way.is_none() && old.is_some() && !self.is_empty();
        match (old, way) {
            (old, Some(way)) => self.went(way, old),
            (Some(old), None) if taken => self.changed(old),
            _ => {}
        }
        let Self { past, future, last_id, to_grow, .. } = std::mem::take(self);
        *self = Self { root: Some(root), past, future, last_id, to_grow, ..Self::default() };
        taken
    }

    /// Takes in that a change followed on `old`.
    pub fn changed(&mut self, old: Version) {
        if self.past.len() == HISTORY {
            self.past.remove(0);
        }
        self.past.push(old);
        self.future.clear();
        // what is on its way is now a change like others
        self.to_grow.iter_mut().for_each(|growing| growing.way = None);
    }

    /// What lies that way.
    pub fn ahead(&self, way: Travel) -> Option<&Version> {
        match way {
            Travel::Undo => self.past.last(),
            Travel::Redo => self.future.last(),
        }
    }

    /// Takes in that `old` was left that way.
    pub fn went(&mut self, way: Travel, old: Option<Version>) {
        let (from, to) = match way {
            Travel::Undo => (&mut self.past, &mut self.future),
            Travel::Redo => (&mut self.future, &mut self.past),
        };
        from.pop();
        to.extend(old);
    }

    /// No change leads to films of that model and its weights any more.
    pub fn forget_weights(&mut self, of: &Version) {
        let others = |version: &Version| (&version.model, &version.hash) != (&of.model, &of.hash);
        self.past.retain(others);
        self.future.retain(others);
    }

    /// The film that this job makes or made.
    pub fn of_job(&mut self, job: JobId) -> Option<&mut Film<Provenance>> {
        self.list.iter_mut().map(|branch| &mut branch.own).find(|film| film.job == Some(job))
    }

    /// Brings what is shown up to date with what has come.
    pub fn follow(&mut self, root: &Film<Provenance>) {
        self.whole = self.get(self.chosen).and_then(|branch| {
            let job = branch.own.job?;
            let mut film = branch.own.clone();
            film.film = Some((job, self.whole(self.chosen, root)?));
            Some(film)
        });
    }

    /// A film from its beginning.
    pub fn whole(&self, id: Id, root: &Film<Provenance>) -> Option<Trajectory> {
        match self.get(id) {
            Some(Branch { plan, own }) => {
                let parent = self.whole(plan.parent, root)?;
                Some(parent.left_at(plan.doses, own.film.as_ref().map(|(_, film)| film)))
            }
            None => root.film.as_ref().filter(|(job, _)| Some(*job) == self.root).map(|(_, film)| film.clone()),
        }
    }

    /// That branch.
    pub fn get(&self, id: Id) -> Option<&Branch> {
        self.list.iter().find(|branch| branch.plan.id == id)
    }

    /// The job that makes it.
    pub fn job(&self, id: Id) -> Option<JobId> {
        self.get(id).map_or(self.root, |branch| branch.own.job)
    }

    /// The states in which branches leave, and which do there.
    pub fn forks(&self) -> BTreeMap<usize, Vec<Id>> {
        let mut forks: BTreeMap<usize, Vec<Id>> = BTreeMap::new();
        for Branch { plan, .. } in &self.list {
            forks.entry(plan.doses).or_default().push(plan.id);
        }
        forks
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The one on screen.
    pub fn chosen(&self) -> Id {
        if self.whole.is_some() { self.chosen } else { ROOT }
    }

    /// What stands beside it: what was asked for, or else what it leaves, or the newest that leaves the film.
    pub fn compared(&self) -> Option<Id> {
        let chosen = self.chosen();
        let there = |id: &Id| *id != chosen && (*id == ROOT || self.get(*id).is_some());
        let parent = self.get(chosen).map(|branch| branch.plan.parent);
        self.compared.filter(there).or(parent).or(self.list.last().map(|branch| branch.plan.id))
    }

    /// The film and its branches as a tree is read: each with how deep it stands.
    pub fn tree(&self) -> Vec<(Id, usize)> {
        let mut tree = vec![(ROOT, 0)];
        let mut next = 0;
        while let Some(&(parent, depth)) = tree.get(next) {
            next += 1;
            let own = self.list.iter().filter(|branch| branch.plan.parent == parent);
            tree.splice(next..next, own.map(|branch| (branch.plan.id, depth + 1)));
        }
        tree
    }

    /// What a person calls it.
    pub fn name(&self, id: Id) -> &str {
        self.get(id).map_or("The film", |branch| branch.plan.name.as_str())
    }

    /// What made the state of `id` at `state`: itself, or what it leaves further on towards the picture.
    pub fn maker(&self, mut id: Id, state: usize) -> Id {
        while let Some(branch) = self.get(id).filter(|branch| state > branch.plan.doses) {
            id = branch.plan.parent;
        }
        id
    }

    /// What a branch leaves that leaves the chosen film in this state: where that has only just left another, the other too.
    pub fn parent_at(&self, state: usize) -> Id {
        let mut id = self.maker(self.chosen(), state);
        while let Some(branch) = self.get(id).filter(|branch| state == branch.plan.doses) {
            id = branch.plan.parent;
        }
        id
    }

    /// Whether there is a change to undo, and one to make again.
    pub fn history(&self) -> [bool; 2] {
        [!self.past.is_empty(), !self.future.is_empty()]
    }

    /// The branches from the film to the chosen one, each leaving the one before.
    pub fn chain(&self) -> Vec<&Branch> {
        let mut chain = Vec::new();
        let mut id = self.chosen();
        while let Some(branch) = self.get(id) {
            chain.push(branch);
            id = branch.plan.parent;
        }
        chain.reverse();
        chain
    }

    /// All that makes them.
    pub fn plans(&self) -> Vec<Plan> {
        self.list.iter().map(|branch| branch.plan.clone()).collect()
    }

    /// Those of `plans` that `gone` and all that leave it are not among.
    pub fn without(&self, gone: Id) -> Vec<Plan> {
        let mut ids = vec![gone];
        for branch in &self.list {
            if ids.contains(&branch.plan.parent) {
                ids.push(branch.plan.id);
            }
        }
        self.plans().into_iter().filter(|plan| !ids.contains(&plan.id)).collect()
    }

    /// A name that none has yet.
    pub fn free_name(&self, name: String) -> String {
        let taken = |name: &String| self.list.iter().any(|branch| branch.plan.name == *name);
        let numbered = (2..).map(|i| format!("{name} ({i})"));
        std::iter::once(name.clone()).chain(numbered).find(|name| !taken(name)).unwrap_or(name)
    }
}

/// "σ² small", "η = 0.5".
fn parameter(settings: &FilmSettings) -> String {
    match (settings.method, settings.variance) {
        (Method::Ddpm, Variance::FixedLarge) => "σ² large".to_owned(),
        (Method::Ddpm, Variance::FixedSmall) => "σ² small".to_owned(),
        (Method::Ddim, _) => format!("η = {}", settings.eta),
    }
}

/// "DDIM η = 0.5".
fn rule(settings: &FilmSettings) -> String {
    format!("{} {}", settings.sample_request().sampler.name(), parameter(settings))
}

/// What made a state: "DDIM η = 0.5, seed 3".
pub fn words(settings: &FilmSettings) -> String {
    let clip = if settings.clip { "" } else { ", not clipped" };
    format!("{}{clip}, seed {}", rule(settings), settings.seed)
}

/// "new noise, η = 1 from t = 500": what is other than in the film that it leaves.
pub fn describe(old: &FilmSettings, new: &FilmSettings, doses: usize) -> String {
    let predictor = match new.predictor {
        Predictor::Ema => "EMA",
        Predictor::Raw => "raw",
        Predictor::Oracle => "oracle",
    };
    let rule = if new.method == old.method { parameter(new) } else { rule(new) };
    let changes = [
        (new.seed != old.seed, "new noise"),
        (new.sample_request().sampler != old.sample_request().sampler, rule.as_str()),
        (new.clip != old.clip, if new.clip { "clipped" } else { "not clipped" }),
        (new.predictor != old.predictor, predictor),
    ];
    let changes: Vec<_> = changes.into_iter().filter_map(|(is_other, words)| is_other.then_some(words)).collect();
    let what = if changes.is_empty() { "the same".to_owned() } else { changes.join(", ") };
    format!("{what} from t = {doses}")
}
