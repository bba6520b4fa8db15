//! The branches of the film: the tree at the left with the form of the next one, and two films beside their difference.

use super::actions::UiAction;
use super::branches::{BranchAction, Draft};
use super::film;
use super::film_settings;
use super::pictures::{self, Atlas, Map};
use super::state::{AppState, Phase};
use super::style::{self, GRID};
use super::tree::{self, Id, ROOT};
use crate::diffusion::Images;
use crate::engine::{JobId, Quantity, Trajectory};
use egui::{
    Align, Align2, FontId, Label, Layout, Panel, Rect, RichText, Role, ScrollArea, Sense, Stroke, StrokeKind, Ui,
    UiBuilder, WidgetInfo, pos2, vec2,
};

/// Width of the tree.
const TREE: f32 = 328.0;
/// Height of a film in it.
const ROW: f32 = 64.0;
/// How far a branch stands to the right of what it leaves.
const INDENT: f32 = 2.0 * GRID;
/// The deepest that a branch is drawn, so that its name still has room.
const DEEPEST: usize = 5;
/// Height of what stands below the tree.
const FORM: f32 = 260.0;
/// Height of a line of the form.
const FORM_ROW: f32 = 28.0;
/// Height of the words over the pictures.
const WORDS: f32 = 78.0;
/// Height of the line under them.
const CAPTION: f32 = 26.0;

/// What the pictures of a side were made from.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Key {
    job: JobId,
    doses: usize,
    frames: usize,
    missing: Option<usize>,
    quantity: Quantity,
}

/// One of the films that are compared.
struct Side<'a> {
    id: Id,
    job: JobId,
    film: &'a Trajectory,
}

impl Side<'_> {
    fn key(&self, doses: usize, quantity: Quantity) -> Option<Key> {
        let (frame, missing) = (self.film.at(doses)?.doses, self.film.missing(doses, quantity));
        Some(Key { job: self.job, doses: frame, frames: self.film.len(), missing, quantity })
    }

    /// Its pictures at `doses`, or as near to there as it has come.
    fn pictures(&self, doses: usize, quantity: Quantity) -> Option<(usize, Images)> {
        let frame = self.film.at(doses)?;
        Some((frame.doses, self.film.view(frame, quantity)?))
    }
}

/// The view of the branches.
#[derive(Default)]
pub struct BranchView {
    /// A name that is being typed.
    name: Option<(Id, String)>,
    /// The chosen film that was scrolled to.
    in_sight: Id,
    thumbs: Atlas,
    /// Which films have a thumbnail, and of which state.
    thumbs_hold: Vec<(JobId, usize)>,
    /// Left, right, difference.
    sides: [Atlas; 3],
    hold: [Option<Key>; 2],
    /// The states that are shown at the left and at the right.
    doses: [Option<usize>; 2],
    /// The root of the mean square of the difference, where both are in the same state.
    apart: Option<f32>,
}

impl BranchView {
    /// Draws the view for the state at `doses`.
    pub fn ui(&mut self, ui: &mut Ui, state: &AppState, doses: usize, quantity: Quantity, out: &mut Vec<UiAction>) {
        if !state.presenting {
            let frame = egui::Frame::new().inner_margin(egui::Margin { right: 16, top: 8, bottom: 0, left: 0 });
            Panel::left("tree").resizable(false).exact_size(TREE).frame(frame).show(ui, |ui| {
                self.tree(ui, state, doses, out);
            });
        }
        let left = if state.presenting { 0 } else { 16 };
        let frame = egui::Frame::new().inner_margin(egui::Margin { left, top: 8, ..Default::default() });
        egui::CentralPanel::default().frame(frame).show(ui, |ui| self.compare(ui, state, doses, quantity, out));
    }

    fn tree(&mut self, ui: &mut Ui, state: &AppState, doses: usize, out: &mut Vec<UiAction>) {
        ui.horizontal(|ui| {
            ui.label(RichText::new("Branches").font(style::semibold(style::LARGE)));
            ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                let [undo, redo] = state.branches.history();
                for (action, can) in [(BranchAction::Redo, redo), (BranchAction::Undo, undo)] {
                    ui.add_enabled_ui(can, |ui| style::button(ui, &UiAction::Branch(action), out));
                }
            });
        });
        self.thumbnails(ui, state);
        if ui.available_height() < FORM + 2.0 * ROW {
            ScrollArea::vertical().auto_shrink(false).show(ui, |ui| {
                self.rows(ui, state, out);
                self.below(ui, state, doses, out);
            });
            return;
        }
        let frame = egui::Frame::new().inner_margin(egui::Margin { top: 8, bottom: 8, ..Default::default() });
        Panel::bottom("fork").resizable(false).show_separator_line(false).frame(frame).show(ui, |ui| {
            self.below(ui, state, doses, out);
        });
        ScrollArea::vertical().auto_shrink(false).show(ui, |ui| self.rows(ui, state, out));
    }

    fn rows(&mut self, ui: &mut Ui, state: &AppState, out: &mut Vec<UiAction>) {
        ui.scope(|ui| {
            ui.spacing_mut().item_spacing.y = 0.0;
            let mut above = [0.0; DEEPEST + 1];
            for (id, depth) in state.branches.tree() {
                let depth = depth.min(DEEPEST);
                let rect = self.row(ui, state, id, depth, out);
                let stroke = Stroke::new(1.0, style::palette(ui).weak);
                if let Some(from) = depth.checked_sub(1).and_then(|parent| above.get(parent)) {
                    let x = rect.left() + (depth as f32 - 0.5) * INDENT;
                    ui.painter().vline(x, *from..=rect.center().y, stroke);
                    ui.painter().hline(x..=rect.left() + depth as f32 * INDENT, rect.center().y, stroke);
                }
                above[depth] = rect.bottom() - 3.0;
                if id == state.branches.chosen() && std::mem::replace(&mut self.in_sight, id) != id {
                    ui.scroll_to_rect(rect, None);
                }
            }
        });
    }

    /// What stands below the tree.
    fn below(&mut self, ui: &mut Ui, state: &AppState, doses: usize, out: &mut Vec<UiAction>) {
        self.chosen(ui, state, out);
        ui.separator();
        form(ui, state, doses, out);
    }

    /// Brings the texture of the newest state of each film up to date.
    fn thumbnails(&mut self, ui: &Ui, state: &AppState) {
        let films = state.branches.tree().into_iter().filter_map(|(id, _)| state.own(id).film.as_ref());
        let newest: Vec<_> = films.filter_map(|(job, film)| Some((*job, film, film.reached()?))).collect();
        let hold: Vec<_> = newest.iter().map(|(job, _, reached)| (*job, *reached)).collect();
        if self.thumbs_hold == hold {
            return;
        }
        self.thumbs_hold = hold;
        let pictures = newest.iter().filter_map(|(_, film, reached)| film.view(film.at(*reached)?, Quantity::State));
        let pictures: Vec<Images> = pictures.map(|images| images.picture(0)).collect();
        self.thumbs.set(ui, pictures.iter().map(|images| (images, 1, Map::Picture)));
    }

    fn row(&self, ui: &mut Ui, state: &AppState, id: Id, depth: usize, out: &mut Vec<UiAction>) -> Rect {
        let p = style::palette(ui);
        let (rect, response) = ui.allocate_exact_size(vec2(ui.available_width(), ROW), Sense::click());
        let chosen = state.branches.chosen() == id;
        let (name, words) = (state.branches.name(id), progress(state, id));
        response.widget_info(|| WidgetInfo::selected(Role::Button, true, chosen, format!("{name}: {words}")));
        let mut inner = rect.shrink2(vec2(0.0, 2.0));
        inner.set_left(rect.left() + depth as f32 * INDENT);
        if chosen || response.hovered() || response.has_focus() {
            ui.painter().rect_filled(inner, 4.0, if chosen { p.hover } else { p.control });
        }
        let picture = Rect::from_min_size(inner.min, vec2(inner.height(), inner.height()));
        let own = state.own(id);
        let place = self.thumbs_hold.iter().position(|(job, _)| own.film.as_ref().is_some_and(|(made, _)| made == job));
        if let Some(place) = place {
            let grid = pictures::layout(picture, 1, self.thumbs.size(), ui.pixels_per_point());
            grid.cells.iter().for_each(|cell| self.thumbs.paint(ui, place, *cell));
            let edge = if own.phase == Phase::Done { p.xstart } else { p.state };
            ui.painter().rect_stroke(grid.outer, 0.0, Stroke::new(1.0, edge), StrokeKind::Outside);
        }
        inner.set_left(picture.right() + GRID);
        let mut text = ui.new_child(UiBuilder::new().max_rect(inner).layout(Layout::top_down(Align::Min)));
        text.spacing_mut().item_spacing.y = 4.0;
        text.add_space(10.0);
        let label = RichText::new(name).font(style::semibold(style::BODY));
        text.add(Label::new(label).truncate().selectable(false));
        let small = RichText::new(&words).size(style::SMALL).color(p.weak);
        text.add(Label::new(small).truncate().selectable(false));
        let says = state.made(id).map_or_else(String::new, tree::words);
        if response.on_hover_text(format!("Show {name}\n{says}")).clicked() {
            out.push(UiAction::Branch(BranchAction::Choose(id)));
        }
        rect
    }

    /// The name of the chosen branch, to change, and its end.
    fn chosen(&mut self, ui: &mut Ui, state: &AppState, out: &mut Vec<UiAction>) {
        let id = state.branches.chosen();
        let kept = state.branches.name(id);
        ui.add_enabled_ui(id != ROOT, |ui| {
            ui.horizontal(|ui| {
                let typed = self.name.take().filter(|(of, _)| *of == id);
                let mut name = typed.map_or_else(|| kept.to_owned(), |(_, name)| name);
                let width = ui.available_width() - 92.0;
                let says = "The name of the branch on screen";
                let field = style::text_field(ui, &mut name, "Name", width).on_hover_text(says);
                let field = field.on_disabled_hover_text("Branches have names; this is the film that they leave");
                if field.has_focus() {
                    self.name = Some((id, name));
                } else if field.lost_focus() && name.trim() != kept && !name.trim().is_empty() {
                    out.push(UiAction::Branch(BranchAction::Rename(id, name.trim().to_owned())));
                }
                style::button(ui, &UiAction::Branch(BranchAction::Forget), out);
            });
        });
    }

    fn compare(&mut self, ui: &mut Ui, state: &AppState, doses: usize, quantity: Quantity, out: &mut Vec<UiAction>) {
        let Some((job, film)) = &state.shown().film else {
            let reason = "A branch leaves a film at one of its states";
            return style::placeholder(ui, "No film yet", reason, Some(("Start", UiAction::Restart)), out);
        };
        let shown = Side { id: state.branches.chosen(), job: *job, film };
        let Some(id) = state.branches.compared() else {
            let reason =
                "Go to a frame and leave the film there: with other noise, another σ², η, clipping or other weights";
            return style::placeholder(ui, "What if it went on differently?", reason, None, out);
        };
        let whole = state.branches.whole(id, &state.reverse);
        let other = whole.as_ref().zip(state.own(id).job).map(|(film, job)| Side { id, job, film });
        ui.horizontal(|ui| {
            film::quantity_choice(ui, state, quantity, out);
            if !state.presenting {
                ui.add_space(GRID);
                beside(ui, state, id, out);
            }
        });
        let Some(other) = other else { return };
        let sides = [other, shown];
        self.fill(ui, &sides, doses, quantity);
        let area = ui.available_rect_before_wrap();
        let width = ((area.width() - 4.0 * GRID) / 3.0).max(1.0);
        for i in 0..3 {
            let min = pos2(area.left() + i as f32 * (width + 2.0 * GRID), area.top());
            let rect = Rect::from_min_size(min, vec2(width, area.height().max(0.0)));
            ui.scope_builder(UiBuilder::new().max_rect(rect).id_salt(i), |ui| match sides.get(i) {
                Some(side) => self.side(ui, state, side, i, doses, quantity),
                None => self.difference(ui, film.shape()[0] == 1),
            });
        }
    }

    /// Brings the pictures and their difference up to date.
    fn fill(&mut self, ui: &Ui, sides: &[Side<'_>; 2], doses: usize, quantity: Quantity) {
        let hold = sides.each_ref().map(|side| side.key(doses, quantity));
        if self.hold == hold {
            return;
        }
        self.hold = hold;
        let pictures = sides.each_ref().map(|side| side.pictures(doses, quantity));
        let map = film::map(quantity);
        for (atlas, side) in self.sides.iter_mut().zip(&pictures) {
            atlas.set(ui, side.iter().map(|(_, images)| (images, images.n, map)));
        }
        self.doses = pictures.each_ref().map(|side| side.as_ref().map(|(doses, _)| *doses));
        let [Some((left, a)), Some((right, b))] = pictures else {
            self.apart = None;
            return;
        };
        self.apart = (left == right).then(|| {
            let change: Vec<f32> = b.data.iter().zip(&a.data).map(|(b, a)| b - a).collect();
            let mean = change.iter().map(|v| f64::from(v * v)).sum::<f64>() / change.len().max(1) as f64;
            let images = Images { data: change, ..b };
            self.sides[2].set(ui, std::iter::once((&images, images.n, Map::Error)));
            mean.sqrt() as f32
        });
    }

    fn side(&self, ui: &mut Ui, state: &AppState, side: &Side<'_>, i: usize, doses: usize, quantity: Quantity) {
        let p = style::palette(ui);
        let name = state.branches.name(side.id);
        let maker = state.branches.maker(side.id, self.doses[i].unwrap_or(side.film.state(doses)));
        let area = head(ui, name, |ui| {
            let words = state.made(maker).map_or_else(String::new, tree::words);
            ui.add(Label::new(RichText::new(words).color(p.weak)).truncate());
            if let Some(by) = &state.own(maker).source {
                film::badge(ui, by).on_hover_text(&by.model);
            }
        });
        let (color, symbol) = film::symbol(p, quantity);
        let Some(at) = self.doses[i] else {
            let why = if doses == 0 { "At t = 0 nothing is left to predict" } else { "It comes in a moment" };
            return middle(ui, area, why);
        };
        let grid = film::grid(ui, &self.sides[i], area, color, &format!("{name}: {symbol} at t = {at}"));
        let here = side.film.missing(doses, quantity).is_some() || side.film.state(doses) == at;
        caption(ui, grid, if here { format!("t = {at}") } else { format!("t = {at} so far") });
    }

    fn difference(&self, ui: &mut Ui, grey: bool) {
        let area = head(ui, "Difference", |ui| {
            ui.add(
                Label::new(RichText::new("the right one minus the left one").color(style::palette(ui).weak)).truncate(),
            );
            scale(ui, grey);
        });
        let Some(apart) = self.apart else { return middle(ui, area, "Both have to be in the same state") };
        let color = style::palette(ui).weak;
        let grid = film::grid(ui, &self.sides[2], area, color, &format!("Difference, root mean square {apart:.3}"));
        let words = if apart == 0.0 { "none: the pictures are equal".to_owned() } else { format!("RMS {apart:.3}") };
        caption(ui, grid, words);
    }
}

/// How far a film has come.
fn progress(state: &AppState, id: Id) -> String {
    let own = state.own(id);
    let reached = own.film.as_ref().and_then(|(_, film)| film.reached());
    let begins = match (state.branches.get(id), &own.film) {
        (Some(branch), _) => branch.plan.doses,
        (None, Some((_, film))) => film.beginning(),
        (None, None) => return "nothing yet".to_owned(),
    };
    match (&own.phase, reached) {
        (Phase::Failed(_), _) => format!("t = {begins}: not made"),
        (Phase::Busy, None) => format!("t = {begins}: waits for its turn"),
        (Phase::Busy, Some(t)) => format!("t = {begins} → {t}, computing"),
        (Phase::Stopped, Some(t)) => format!("t = {begins} → {t}, stopped"),
        (_, Some(t)) => format!("t = {begins} → {t}"),
        (_, None) => format!("t = {begins}: stopped"),
    }
}

/// What the next branch is made from, and the button that makes it.
fn form(ui: &mut Ui, state: &AppState, doses: usize, out: &mut Vec<UiAction>) {
    ui.spacing_mut().item_spacing.y = 4.0;
    ui.spacing_mut().interact_size.y = FORM_ROW;
    let old = state.draft();
    let Draft { mut new_noise, mut settings } = old.clone();
    let noises = [
        (true, "New noise", "Every step draws other noise than the film that it leaves"),
        (false, "Same noise", "The noise of the film that it leaves, so that only what is chosen here differs"),
    ];
    style::segments(ui, &noises, &mut new_noise);
    film_settings::predictor(ui, state, &mut settings);
    film_settings::rule(ui, &mut settings);
    film_settings::clip(ui, &mut settings);
    let draft = Draft { new_noise, settings };
    if draft != old {
        out.push(UiAction::Branch(BranchAction::Draft(draft)));
    }
    let (label, why) = match state.fork_at(doses) {
        Ok(t) => (format!("Fork at t = {t}"), None),
        Err(why) => ("Fork".to_owned(), Some(why)),
    };
    ui.horizontal(|ui| {
        ui.add_enabled_ui(why.is_none(), |ui| {
            style::labelled_button(ui, &label, &UiAction::Branch(BranchAction::Fork), true, out);
        });
        if let Some(why) = why {
            ui.add(Label::new(RichText::new(why).size(style::SMALL).color(style::palette(ui).weak)).truncate());
        }
    });
}

/// The choice of what stands at the left.
fn beside(ui: &mut Ui, state: &AppState, compared: Id, out: &mut Vec<UiAction>) {
    ui.label("Beside");
    let menu = ui.menu_button(format!("{} ⏷", state.branches.name(compared)), |ui| {
        for (id, _) in state.branches.tree().into_iter().filter(|(id, _)| *id != state.branches.chosen()) {
            if ui.selectable_label(id == compared, state.branches.name(id)).clicked() {
                out.push(UiAction::Branch(BranchAction::Compare(id)));
                ui.close();
            }
        }
    });
    menu.response.on_hover_text("What stands at the left of the film on screen");
}

/// The words over pictures. Returns the room for the pictures.
fn head(ui: &mut Ui, title: &str, rest: impl FnOnce(&mut Ui)) -> Rect {
    let mut area = ui.available_rect_before_wrap();
    ui.spacing_mut().item_spacing.y = 4.0;
    ui.add(Label::new(RichText::new(title).font(style::semibold(style::BODY))).truncate());
    rest(ui);
    area.set_top((area.top() + WORDS).min(area.bottom()));
    area.set_bottom((area.bottom() - CAPTION).max(area.top()));
    area
}

/// Writes under pictures.
fn caption(ui: &Ui, pictures: Rect, text: String) {
    let at = pos2(pictures.center().x, pictures.bottom() + CAPTION / 2.0);
    ui.painter().text(at, Align2::CENTER_CENTER, text, style::mono(style::SMALL), style::palette(ui).text);
}

/// Why there are no pictures.
fn middle(ui: &Ui, area: Rect, text: &str) {
    let color = style::palette(ui).weak;
    let words = ui.painter().layout(text.to_owned(), FontId::proportional(style::BODY), color, area.width());
    ui.painter().galley(area.center() - words.size() / 2.0, words, color);
}

/// What the colours of a difference mean.
fn scale(ui: &mut Ui, grey: bool) {
    let (rect, response) = ui.allocate_exact_size(vec2(ui.available_width().min(220.0), 22.0), Sense::hover());
    response.on_hover_text(style::ERROR_MAP).widget_info(|| WidgetInfo::labeled(Role::Label, true, style::ERROR_MAP));
    let p = style::palette(ui);
    let font = FontId::proportional(style::SMALL);
    if !grey {
        let words = "mid-grey is no difference";
        ui.painter().text(rect.left_center(), Align2::LEFT_CENTER, words, font, p.weak);
        return;
    }
    let bar = rect.shrink2(vec2(40.0, 5.0));
    pictures::scale(ui, bar);
    let ends = [
        (bar.left_center() - vec2(6.0, 0.0), Align2::RIGHT_CENTER, "−"),
        (bar.right_center() + vec2(6.0, 0.0), Align2::LEFT_CENTER, "+"),
    ];
    for (at, align, sign) in ends {
        ui.painter().text(at, align, format!("{sign}{}", style::ERROR_RANGE), font.clone(), p.weak);
    }
}
