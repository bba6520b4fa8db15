//! Every colour, size and font of the window, and the small widgets that all views share.

use super::actions::{self, UiAction};
use super::icons;
pub use super::icons::Icon;
use egui::text::{LayoutJob, TextFormat};
use egui::{
    Align, Color32, FontData, FontDefinitions, FontFamily, FontId, Response, RichText, Role, Sense, Stroke, StrokeKind,
    TextStyle, Theme, Ui, Vec2, WidgetInfo, pos2, vec2,
};
use std::sync::Arc;

/// Captions.
pub const SMALL: f32 = 13.0;
/// Text.
pub const BODY: f32 = 15.0;
/// Headings and the numbers under the film.
pub const LARGE: f32 = 20.0;
/// The numbers of a training.
pub const HUGE: f32 = 28.0;
/// The grid on which everything stands.
pub const GRID: f32 = 8.0;
/// Height of a control.
pub const CONTROL: f32 = 32.0;
const RADIUS: u8 = 5;

/// The colours of one theme. A symbol has one colour everywhere (Okabe & Ito 2008, darkened or lightened until it can
/// be read as text on that theme's background).
#[derive(Debug)]
pub struct Palette {
    /// Behind everything.
    pub background: Color32,
    /// Behind panels and bars.
    pub panel: Color32,
    /// Text.
    pub text: Color32,
    /// Captions.
    pub weak: Color32,
    /// Lines between things.
    pub hairline: Color32,
    /// Buttons and fields at rest.
    pub control: Color32,
    /// Around them.
    pub edge: Color32,
    /// Buttons under the pointer.
    pub hover: Color32,
    /// What is chosen, and the primary button.
    pub accent: Color32,
    /// Text on `accent`.
    pub on_accent: Color32,
    /// x_t.
    pub state: Color32,
    /// x̂_0.
    pub xstart: Color32,
    /// ε̂.
    pub eps: Color32,
    /// What the oracle says.
    pub oracle: Color32,
    /// z.
    pub noise: Color32,
    /// Errors.
    pub error: Color32,
    /// Warnings.
    pub warning: Color32,
}

const LIGHT: Palette = Palette {
    background: Color32::from_rgb(0xff, 0xff, 0xff),
    panel: Color32::from_rgb(0xf5, 0xf6, 0xf8),
    text: Color32::from_rgb(0x1a, 0x1c, 0x1f),
    weak: Color32::from_rgb(0x55, 0x5c, 0x65),
    hairline: Color32::from_rgb(0xd5, 0xd9, 0xde),
    control: Color32::from_rgb(0xe8, 0xeb, 0xef),
    edge: Color32::from_rgb(0xe8, 0xeb, 0xef),
    hover: Color32::from_rgb(0xd9, 0xde, 0xe5),
    accent: Color32::from_rgb(0x00, 0x50, 0xa0),
    on_accent: Color32::WHITE,
    state: Color32::from_rgb(0x00, 0x50, 0xa0),
    xstart: Color32::from_rgb(0x00, 0x7d, 0x5c),
    eps: Color32::from_rgb(0xb4, 0x4f, 0x00),
    oracle: Color32::from_rgb(0x92, 0x3c, 0x78),
    noise: Color32::from_rgb(0x5b, 0x62, 0x6b),
    error: Color32::from_rgb(0xb3, 0x26, 0x1e),
    warning: Color32::from_rgb(0x8a, 0x5a, 0x00),
};

const DARK: Palette = Palette {
    background: Color32::from_rgb(0x14, 0x16, 0x19),
    panel: Color32::from_rgb(0x1c, 0x1f, 0x23),
    text: Color32::from_rgb(0xea, 0xec, 0xef),
    weak: Color32::from_rgb(0xa6, 0xad, 0xb6),
    hairline: Color32::from_rgb(0x35, 0x3a, 0x41),
    control: Color32::from_rgb(0x2a, 0x2e, 0x34),
    edge: Color32::from_rgb(0x2a, 0x2e, 0x34),
    hover: Color32::from_rgb(0x39, 0x3f, 0x47),
    accent: Color32::from_rgb(0x1f, 0x6f, 0xae),
    on_accent: Color32::WHITE,
    state: Color32::from_rgb(0x58, 0xa6, 0xff),
    xstart: Color32::from_rgb(0x3d, 0xd6, 0xa0),
    eps: Color32::from_rgb(0xe6, 0x9f, 0x00),
    oracle: Color32::from_rgb(0xdf, 0x9a, 0xc5),
    noise: Color32::from_rgb(0xa6, 0xad, 0xb6),
    error: Color32::from_rgb(0xff, 0x8a, 0x80),
    warning: Color32::from_rgb(0xf0, 0xc2, 0x4b),
};

/// For bright rooms and tired eyes: black on white, every line dark.
const LIGHT_HIGH: Palette = Palette {
    background: Color32::WHITE,
    panel: Color32::WHITE,
    text: Color32::BLACK,
    weak: Color32::from_rgb(0x26, 0x28, 0x2b),
    hairline: Color32::from_rgb(0x55, 0x5c, 0x65),
    control: Color32::WHITE,
    edge: Color32::BLACK,
    hover: Color32::from_rgb(0xda, 0xe8, 0xf5),
    accent: Color32::from_rgb(0x00, 0x3a, 0x8c),
    on_accent: Color32::WHITE,
    state: Color32::from_rgb(0x00, 0x3a, 0x8c),
    xstart: Color32::from_rgb(0x00, 0x5f, 0x3f),
    eps: Color32::from_rgb(0x8a, 0x38, 0x00),
    oracle: Color32::from_rgb(0x74, 0x24, 0x5c),
    noise: Color32::from_rgb(0x40, 0x44, 0x4a),
    error: Color32::from_rgb(0x96, 0x0d, 0x0d),
    warning: Color32::from_rgb(0x66, 0x42, 0x00),
};

/// The same for dark rooms: white on black, every line bright.
const DARK_HIGH: Palette = Palette {
    background: Color32::BLACK,
    panel: Color32::BLACK,
    text: Color32::WHITE,
    weak: Color32::from_rgb(0xdc, 0xe0, 0xe5),
    hairline: Color32::from_rgb(0x9a, 0xa1, 0xaa),
    control: Color32::BLACK,
    edge: Color32::WHITE,
    hover: Color32::from_rgb(0x1f, 0x3a, 0x52),
    accent: Color32::from_rgb(0x6c, 0xb4, 0xff),
    on_accent: Color32::BLACK,
    state: Color32::from_rgb(0x6c, 0xb4, 0xff),
    xstart: Color32::from_rgb(0x4e, 0xe6, 0xb0),
    eps: Color32::from_rgb(0xff, 0xb3, 0x1a),
    oracle: Color32::from_rgb(0xf2, 0xb0, 0xd8),
    noise: Color32::from_rgb(0xc4, 0xca, 0xd1),
    error: Color32::from_rgb(0xff, 0xa3, 0x9b),
    warning: Color32::from_rgb(0xff, 0xd5, 0x66),
};

/// Behind pictures, in both themes: neither their black nor their white.
pub const MID_GREY: Color32 = Color32::from_gray(0x80);

/// Shows a texture as it is.
pub const UNTINTED: Color32 = Color32::WHITE;

/// The colours of the theme in use.
pub fn palette(ui: &Ui) -> &'static Palette {
    let panel = ui.visuals().window_fill;
    [&LIGHT, &DARK, &LIGHT_HIGH, &DARK_HIGH].into_iter().find(|p| p.panel == panel).unwrap_or(&DARK)
}

/// Text, strong.
pub fn semibold(size: f32) -> FontId {
    FontId::new(size, FontFamily::Name("semibold".into()))
}

/// Numbers that change: every digit has the same width.
pub fn mono(size: f32) -> FontId {
    FontId::monospace(size)
}

/// Gives the window its fonts.
pub fn set_fonts(ctx: &egui::Context) {
    ctx.set_fonts(fonts());
}

/// Gives the window both its themes, of usual or high contrast.
pub fn set_themes(ctx: &egui::Context, high_contrast: bool) {
    let (light, dark) = if high_contrast { (&LIGHT_HIGH, &DARK_HIGH) } else { (&LIGHT, &DARK) };
    for (theme, palette) in [(Theme::Light, light), (Theme::Dark, dark)] {
        ctx.style_mut_of(theme, |style| set_style(style, palette));
    }
}

fn fonts() -> FontDefinitions {
    let mut fonts = FontDefinitions::default();
    let all: [(&str, &'static [u8]); 3] = [
        ("Inter", include_bytes!("../../assets/fonts/Inter-Regular.otf")),
        ("Inter SemiBold", include_bytes!("../../assets/fonts/Inter-SemiBold.otf")),
        ("JetBrains Mono", include_bytes!("../../assets/fonts/JetBrainsMono-Regular.ttf")),
    ];
    for (name, bytes) in all {
        fonts.font_data.insert(name.into(), Arc::new(FontData::from_static(bytes)));
    }
    let fallback = fonts.families.get(&FontFamily::Proportional).cloned().unwrap_or_default();
    for (family, name) in [
        (FontFamily::Proportional, "Inter"),
        (FontFamily::Name("semibold".into()), "Inter SemiBold"),
        (FontFamily::Monospace, "JetBrains Mono"),
    ] {
        fonts.families.insert(family, std::iter::once(name.to_owned()).chain(fallback.iter().cloned()).collect());
    }
    fonts
}

fn set_style(style: &mut egui::Style, p: &Palette) {
    style.text_styles = [
        (TextStyle::Small, FontId::proportional(SMALL)),
        (TextStyle::Body, FontId::proportional(BODY)),
        (TextStyle::Button, FontId::proportional(BODY)),
        (TextStyle::Heading, semibold(LARGE)),
        (TextStyle::Monospace, mono(BODY)),
    ]
    .into();
    style.spacing.item_spacing = Vec2::splat(GRID);
    style.spacing.button_padding = vec2(10.0, 5.0);
    style.spacing.interact_size = vec2(40.0, CONTROL);
    style.spacing.combo_width = 80.0;
    style.spacing.slider_width = 120.0;
    style.spacing.scroll.floating_allocated_width = GRID;
    style.animation_time = 0.0;
    let v = &mut style.visuals;
    v.panel_fill = p.background;
    v.window_fill = p.panel;
    v.window_stroke = Stroke::new(1.0, p.hairline);
    v.extreme_bg_color = p.background;
    v.faint_bg_color = p.panel;
    v.code_bg_color = p.control;
    v.override_text_color = None;
    v.weak_text_color = Some(p.weak);
    v.selection.bg_fill = p.accent;
    v.selection.stroke = Stroke::new(1.0, p.on_accent);
    v.hyperlink_color = p.state;
    v.error_fg_color = p.error;
    v.warn_fg_color = p.warning;
    v.window_corner_radius = RADIUS.into();
    v.menu_corner_radius = RADIUS.into();
    v.disabled_alpha = 0.6;
    v.slider_trailing_fill = true;
    for (widget, fill, stroke) in [
        (&mut v.widgets.noninteractive, p.panel, p.hairline),
        (&mut v.widgets.inactive, p.control, p.edge),
        (&mut v.widgets.hovered, p.hover, p.weak),
        (&mut v.widgets.active, p.hover, p.text),
        (&mut v.widgets.open, p.hover, p.hairline),
    ] {
        widget.bg_fill = fill;
        widget.weak_bg_fill = fill;
        widget.bg_stroke = Stroke::new(1.0, stroke);
        widget.fg_stroke = Stroke::new(1.0, p.text);
        widget.corner_radius = RADIUS.into();
        widget.expansion = 0.0;
    }
}

/// x in [-1, 1] as black to white, clipped, as in the official code.
pub fn grey(x: f32) -> Color32 {
    Color32::from_gray(level(x))
}

/// Three values in [-1, 1] as a colour, clipped.
pub fn rgb(x: [f32; 3]) -> Color32 {
    let [r, g, b] = x.map(level);
    Color32::from_rgb(r, g, b)
}

fn level(x: f32) -> u8 {
    ((x + 1.0) * 127.5).round().clamp(0.0, 255.0) as u8
}

/// The value at which the diverging colours end.
pub const NOISE_RANGE: f32 = 3.0;

/// Noise: blue below zero, near-white at zero, orange above, to ±[`NOISE_RANGE`].
pub fn diverging(x: f32) -> Color32 {
    let zero = [0xf5_u8, 0xf5, 0xf5];
    let end = if x < 0.0 { [0x00_u8, 0x5a, 0x9c] } else { [0xc8, 0x55, 0x00] };
    let share = (x.abs() / NOISE_RANGE).clamp(0.0, 1.0);
    let [r, g, b] = std::array::from_fn(|i| {
        let (from, to) = (f32::from(zero[i]), f32::from(end[i]));
        (from + (to - from) * share).round() as u8
    });
    Color32::from_rgb(r, g, b)
}

/// A value of 0 to 1 from dark blue to bright yellow, in equal steps of lightness (cividis, Nuñez et al. 2018).
pub fn sequential(x: f32) -> Color32 {
    const STOPS: [[f32; 3]; 5] =
        [[0.0, 34.0, 78.0], [65.0, 77.0, 107.0], [124.0, 123.0, 120.0], [188.0, 175.0, 111.0], [254.0, 232.0, 56.0]];
    let at = x.clamp(0.0, 1.0) * (STOPS.len() - 1) as f32;
    let i = (at as usize).min(STOPS.len() - 2);
    let [r, g, b] = std::array::from_fn(|k| (STOPS[i][k] + (STOPS[i + 1][k] - STOPS[i][k]) * (at - i as f32)) as u8);
    Color32::from_rgb(r, g, b)
}

/// What a picture is painted like, for a tooltip.
pub const GREY_MAP: &str = "−1 is black, +1 is white; values beyond are clipped";
/// What predicted noise is painted like.
pub const NOISE_MAP: &str = "Noise: −3 is blue, 0 is white, +3 is orange";

/// The difference at which the diverging colours end.
pub const ERROR_RANGE: f32 = 0.5;
/// What small differences are painted like.
pub const ERROR_MAP: &str = "Difference: −0.5 is blue, 0 is white, +0.5 is orange";

/// A square button with a painted sign, named after its action.
pub fn icon_button(ui: &mut Ui, icon: Icon, action: &UiAction, primary: bool, out: &mut Vec<UiAction>) {
    let p = palette(ui);
    let size = vec2(if primary { 1.5 * CONTROL } else { CONTROL }, CONTROL);
    let (rect, response) = ui.allocate_exact_size(size, Sense::click());
    let label = actions::entry(action).map_or("", |e| e.label);
    response.widget_info(|| WidgetInfo::labeled(Role::Button, ui.is_enabled(), label));
    let visuals = ui.style().interact(&response);
    let (fill, ink) = match (primary, response.hovered() || response.has_focus()) {
        (true, _) => (p.accent, p.on_accent),
        (false, true) => (p.hover, p.text),
        (false, false) => (Color32::TRANSPARENT, p.text),
    };
    ui.painter().rect_filled(rect, RADIUS, fill);
    if response.has_focus() || primary && response.hovered() {
        ui.painter().rect_stroke(rect, RADIUS, visuals.bg_stroke, StrokeKind::Inside);
    }
    icons::paint(ui.painter(), icon, rect.center(), 7.5, ink);
    let tooltip = actions::tooltip(ui.ctx(), action);
    if response.on_hover_text(tooltip).clicked() {
        out.push(action.clone());
    }
}

/// A text button named after its action.
pub fn button(ui: &mut Ui, action: &UiAction, out: &mut Vec<UiAction>) {
    labelled_button(ui, actions::entry(action).map_or("", |e| e.label), action, false, out);
}

/// A text button of another name; the one `primary` button of a view stands out.
pub fn labelled_button(ui: &mut Ui, label: &str, action: &UiAction, primary: bool, out: &mut Vec<UiAction>) {
    let response = if primary { self::primary(ui, label) } else { ui.button(label) };
    let tooltip = actions::tooltip(ui.ctx(), action);
    if response.on_disabled_hover_text(&tooltip).on_hover_text(tooltip).clicked() {
        out.push(action.clone());
    }
}

/// The button that stands out.
pub fn primary(ui: &mut Ui, label: &str) -> Response {
    let p = palette(ui);
    ui.add(egui::Button::new(RichText::new(label).color(p.on_accent).font(semibold(BODY))).fill(p.accent))
}

/// A choice of few, all visible, as one strip. Returns whether another was chosen.
pub fn segments<T: Copy + PartialEq>(ui: &mut Ui, choices: &[(T, &str, &str)], chosen: &mut T) -> bool {
    let old = *chosen;
    ui.horizontal(|ui| {
        ui.spacing_mut().item_spacing.x = 2.0;
        // in a row that is filled from the right, the first choice still stands at the left
        let backwards = ui.layout().prefer_right_to_left();
        for i in 0..choices.len() {
            let Some(&(choice, label, tooltip)) = choices.get(if backwards { choices.len() - 1 - i } else { i }) else {
                continue;
            };
            let on = choice == old;
            let color = if on { ui.visuals().selection.stroke.color } else { ui.visuals().text_color() };
            let response = ui.selectable_label(on, indexed(label, BODY, color));
            let response = if tooltip.is_empty() { response } else { response.on_hover_text(tooltip) };
            if response.clicked() {
                *chosen = choice;
            }
        }
    });
    *chosen != old
}

/// A box to tick, with an edge that can be seen on every background.
pub fn checkbox(ui: &mut Ui, checked: &mut bool, label: &str) -> Response {
    ui.scope(|ui| {
        let edge = Stroke::new(1.0, palette(ui).weak);
        ui.visuals_mut().widgets.inactive.bg_stroke = edge;
        ui.checkbox(checked, indexed(label, BODY, ui.visuals().text_color()))
    })
    .inner
}

/// A line of text to type; `name` is what a screen reader calls it.
pub fn text_field(ui: &mut Ui, text: &mut String, name: &str, width: f32) -> Response {
    let field = egui::TextEdit::singleline(text).desired_width(width).align(egui::Align2::LEFT_CENTER);
    let response = ui.add(field.min_size(vec2(0.0, ui.spacing().interact_size.y)));
    response.widget_info(|| WidgetInfo::labeled(Role::TextInput, true, name));
    response
}

/// Whose picture it is.
pub fn badge(ui: &mut Ui, kind: &str, rest: &str) -> Response {
    badge_of(ui, kind, &[rest])
}

/// Whose picture it is, as far as there is room: the first of the texts that fits, or else the last, cut off. A screen reader
/// gets the first.
pub fn badge_of(ui: &mut Ui, kind: &str, texts: &[&str]) -> Response {
    let p = palette(ui);
    let room = (ui.available_width() - 2.0 * GRID).max(0.0);
    let whole = |rest: &&str| if rest.is_empty() { kind.to_owned() } else { format!("{kind} · {rest}") };
    let lay = |text: String| {
        let wrap = egui::text::TextWrapping::truncate_at_width(room);
        ui.painter().layout_job(LayoutJob { wrap, ..LayoutJob::simple_singleline(text, semibold(SMALL), p.text) })
    };
    let spoken = texts.first().map(whole).unwrap_or_default();
    let mut galleys = texts.iter().map(|rest| lay(whole(rest)));
    let fits = galleys.find(|galley| !galley.elided);
    let galley = fits.unwrap_or_else(|| lay(texts.last().map(whole).unwrap_or_default()));
    let (rect, response) = ui.allocate_exact_size(galley.size() + vec2(2.0 * GRID, 8.0), Sense::hover());
    response.widget_info(|| WidgetInfo::labeled(Role::Label, true, &spoken));
    ui.painter().rect(rect, RADIUS, p.panel, Stroke::new(1.0, p.hairline), StrokeKind::Inside);
    ui.painter().galley(rect.min + vec2(GRID, 4.0), galley, p.text);
    response
}

/// A line of text in which `_` lowers the word or number after it, an index; two of them are one to read.
pub fn indexed(text: &str, size: f32, color: Color32) -> LayoutJob {
    let (mut job, text) = (LayoutJob::default(), text.replace("__", "\0"));
    let mut write = |text: &str, size: f32, line_height: Option<f32>| {
        let font_id = FontId::proportional(size);
        let text = text.replace('\0', "_");
        job.append(&text, 0.0, TextFormat { font_id, color, line_height, valign: Align::BOTTOM, ..Default::default() });
    };
    // letters stand in the middle of a taller line, at whose bottom an index stands
    let tall = text.contains('_').then_some(1.5 * size);
    let mut pieces = text.split('_');
    write(pieces.next().unwrap_or_default(), size, tall);
    for piece in pieces {
        let (index, rest) = piece.split_at(piece.find(|c: char| !c.is_alphanumeric()).unwrap_or(piece.len()));
        write(index, size * 0.72, None);
        write(rest, size, tall);
    }
    job
}

/// A caption over a number that changes. `sample` is the widest text it will hold, so that nothing moves.
pub fn readout(ui: &mut Ui, caption: &str, value: &str, sample: &str, size: f32, tooltip: &str) {
    let p = palette(ui);
    let font = mono(size);
    let text = ui.painter().layout_no_wrap(value.to_owned(), font.clone(), p.text);
    let widest = ui.painter().layout_no_wrap(sample.to_owned(), font, p.text);
    let name = ui.painter().layout_job(indexed(caption, SMALL, p.weak));
    let width = widest.size().x.max(text.size().x).max(name.size().x);
    let size = vec2(width, name.size().y + text.size().y);
    let (rect, response) = ui.allocate_exact_size(size, Sense::hover());
    response.widget_info(|| WidgetInfo::labeled(Role::Label, true, format!("{caption} {value}")));
    ui.painter().galley(rect.min, name, p.weak);
    ui.painter().galley(pos2(rect.left(), rect.bottom() - text.size().y), text, p.text);
    if !tooltip.is_empty() {
        response.on_hover_text(tooltip);
    }
}

/// A plot that is only looked at: it takes no scrolling, dragging or zooming.
pub fn still_plot(ui: &Ui, id: &str) -> egui_plot::Plot<'static> {
    egui_plot::Plot::new(id)
        .show_background(false)
        .grid_color(palette(ui).hairline)
        .show_crosshair(false)
        .allow_scroll(false)
        .allow_drag(false)
        .allow_zoom(false)
        .allow_boxed_zoom(false)
}

/// What an empty, busy or failed part of a view says: what is missing, why, and the button that mends it.
pub fn placeholder(ui: &mut Ui, headline: &str, reason: &str, mend: Option<(&str, UiAction)>, out: &mut Vec<UiAction>) {
    ui.vertical_centered(|ui| {
        ui.add_space((ui.available_height() / 2.0 - 56.0).max(0.0));
        ui.label(RichText::new(headline).font(semibold(LARGE)));
        ui.label(RichText::new(reason).color(palette(ui).weak));
        if let Some((label, action)) = mend {
            ui.add_space(GRID);
            labelled_button(ui, label, &action, true, out);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_black_to_white_and_clipped() {
        assert_eq!([-7.0, -1.0, 0.0, 1.0, 7.0].map(|x| grey(x).r()), [0, 0, 128, 255, 255]);
        assert_eq!(grey(f32::NAN).r(), 0);
        assert_eq!(rgb([-1.0, 0.0, 1.0]), Color32::from_rgb(0, 128, 255));
    }

    #[test]
    fn an_index_stands_below_the_line() {
        let context = egui::Context::default();
        set_fonts(&context);
        drop(context.run_ui(egui::RawInput::default(), |ui| {
            let galley = ui.painter().layout_job(indexed("L_vlb, bits", 20.0, LIGHT.text));
            let lowered = |i: usize| galley.rows[0].row.glyphs[i].pos.y - galley.rows[0].row.glyphs[0].pos.y;
            assert!((1..4).all(|i| (2.0..8.0).contains(&lowered(i))) && lowered(4).abs() < 1e-3);
        }));
    }

    #[test]
    fn noise_is_painted_around_zero() {
        assert_eq!(diverging(0.0), Color32::from_gray(0xf5));
        assert_eq!((diverging(3.0), diverging(-3.0)), (diverging(30.0), diverging(-30.0)));
        assert!(diverging(2.0).r() > diverging(2.0).b() && diverging(-2.0).b() > diverging(-2.0).r());
    }

    /// WCAG 2 contrast ratio.
    fn contrast(a: Color32, b: Color32) -> f32 {
        let luminance = |c: Color32| {
            let [r, g, b] = [c.r(), c.g(), c.b()].map(|v| {
                let v = f32::from(v) / 255.0;
                if v <= 0.04045 { v / 12.92 } else { ((v + 0.055) / 1.055).powf(2.4) }
            });
            0.2126 * r + 0.7152 * g + 0.0722 * b
        };
        let (a, b) = (luminance(a) + 0.05, luminance(b) + 0.05);
        (a / b).max(b / a)
    }

    #[test]
    fn everything_written_can_be_read_on_every_theme() {
        for (p, least, lines) in
            [(&LIGHT, 4.5, 1.0), (&DARK, 4.5, 1.0), (&LIGHT_HIGH, 7.0, 4.5), (&DARK_HIGH, 7.0, 4.5)]
        {
            for ink in [p.text, p.weak, p.state, p.xstart, p.eps, p.oracle, p.noise, p.error, p.warning] {
                for paper in [p.background, p.panel] {
                    assert!(contrast(ink, paper) >= least, "{ink:?} on {paper:?}: {}", contrast(ink, paper));
                }
            }
            assert!(contrast(p.on_accent, p.accent) >= least);
            assert!(contrast(p.text, p.control) >= least && contrast(p.text, p.hover) >= least);
            assert!(contrast(p.hairline, p.background) >= lines && contrast(p.edge, p.background) >= lines);
        }
    }

    /// How a dichromat sees a colour (Machado, Oliveira & Fernandes 2009, severity 1, on linear RGB), in CIE L*a*b*.
    fn seen(c: Color32, deficiency: [[f32; 3]; 3]) -> [f32; 3] {
        let linear = [c.r(), c.g(), c.b()].map(|v| {
            let v = f32::from(v) / 255.0;
            if v <= 0.04045 { v / 12.92 } else { ((v + 0.055) / 1.055).powf(2.4) }
        });
        let times = |m: [[f32; 3]; 3], v: [f32; 3]| m.map(|row| row.iter().zip(v).map(|(a, b)| a * b).sum::<f32>());
        let rgb = times(deficiency, linear).map(|v| v.clamp(0.0, 1.0));
        let xyz = times([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]], rgb);
        let white = [0.9505, 1.0, 1.089];
        let f = |i: usize| {
            let t = xyz[i] / white[i];
            if t > 0.008856 { t.cbrt() } else { 7.787 * t + 16.0 / 116.0 }
        };
        [116.0 * f(1) - 16.0, 500.0 * (f(0) - f(1)), 200.0 * (f(1) - f(2))]
    }

    const DEFICIENCIES: [(&str, [[f32; 3]; 3]); 4] = [
        ("none", [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]),
        ("protanopia", [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]]),
        ("deuteranopia", [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]),
        ("tritanopia", [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]]),
    ];

    fn distance(a: [f32; 3], b: [f32; 3]) -> f32 {
        a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt()
    }

    #[test]
    fn symbols_differ_for_colour_blind_eyes() {
        for p in [&LIGHT, &DARK, &LIGHT_HIGH, &DARK_HIGH] {
            for (name, eyes) in DEFICIENCIES {
                // z is grey and always drawn with its letter beside noise, so it is left out
                for (a, b) in [(p.state, p.xstart), (p.state, p.eps), (p.xstart, p.eps)] {
                    let apart = distance(seen(a, eyes), seen(b, eyes));
                    // 2.3 is just noticeable
                    assert!(apart > 15.0, "{name}: {a:?} and {b:?} are {apart} apart");
                }
            }
        }
    }

    #[test]
    fn the_noise_map_is_ordered_for_colour_blind_eyes() {
        for (name, eyes) in DEFICIENCIES {
            let lab = |x: f32| seen(diverging(x), eyes);
            for side in [-1.0, 1.0] {
                for i in 0..12 {
                    let (near, far) = (lab(side * 0.25 * i as f32), lab(side * 0.25 * (i + 1) as f32));
                    assert!(near[0] > far[0] + 1.0, "{name}: larger noise is darker");
                }
            }
            for x in [1.0, 2.0, 3.0] {
                assert!(distance(lab(x), lab(-x)) > 20.0, "{name}: {x} and its negative look different");
            }
        }
    }
}
