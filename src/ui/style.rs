//! Every colour, size and font of the window, and the small widgets that all views share.

use super::actions::{self, UiAction};
use egui::{
    Align2, Color32, FontData, FontDefinitions, FontFamily, FontId, Painter, Pos2, Rect, Response, RichText, Role,
    Sense, Stroke, StrokeKind, TextStyle, Theme, Ui, Vec2, WidgetInfo, pos2, vec2,
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
    hover: Color32::from_rgb(0xd9, 0xde, 0xe5),
    accent: Color32::from_rgb(0x00, 0x6a, 0xa7),
    on_accent: Color32::WHITE,
    state: Color32::from_rgb(0x00, 0x6a, 0xa7),
    xstart: Color32::from_rgb(0x00, 0x78, 0x58),
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
    hover: Color32::from_rgb(0x39, 0x3f, 0x47),
    accent: Color32::from_rgb(0x1f, 0x6f, 0xae),
    on_accent: Color32::WHITE,
    state: Color32::from_rgb(0x56, 0xb4, 0xe9),
    xstart: Color32::from_rgb(0x2d, 0xc0, 0x94),
    eps: Color32::from_rgb(0xe6, 0x9f, 0x00),
    oracle: Color32::from_rgb(0xdf, 0x9a, 0xc5),
    noise: Color32::from_rgb(0xa6, 0xad, 0xb6),
    error: Color32::from_rgb(0xff, 0x8a, 0x80),
    warning: Color32::from_rgb(0xf0, 0xc2, 0x4b),
};

/// Behind pictures, in both themes: neither their black nor their white.
pub const MID_GREY: Color32 = Color32::from_gray(0x80);

/// Shows a texture as it is.
pub const UNTINTED: Color32 = Color32::WHITE;

/// The colours of the theme in use.
pub fn palette(ui: &Ui) -> &'static Palette {
    if ui.visuals().dark_mode { &DARK } else { &LIGHT }
}

/// Text, strong.
pub fn semibold(size: f32) -> FontId {
    FontId::new(size, FontFamily::Name("semibold".into()))
}

/// Numbers that change: every digit has the same width.
pub fn mono(size: f32) -> FontId {
    FontId::monospace(size)
}

/// Gives the window its fonts and both its themes.
pub fn apply(ctx: &egui::Context) {
    ctx.set_fonts(fonts());
    for (theme, palette) in [(Theme::Light, &LIGHT), (Theme::Dark, &DARK)] {
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
        (&mut v.widgets.inactive, p.control, p.control),
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

/// What a picture is painted like, for a tooltip.
pub const GREY_MAP: &str = "−1 is black, +1 is white; values beyond are clipped";
/// What predicted noise is painted like.
pub const NOISE_MAP: &str = "Noise: −3 is blue, 0 is white, +3 is orange";

/// The difference at which the diverging colours end.
pub const ERROR_RANGE: f32 = 0.5;
/// What small differences are painted like.
pub const ERROR_MAP: &str = "Difference: −0.5 is blue, 0 is white, +0.5 is orange";

/// Painted signs for buttons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Icon {
    /// Triangle to the right.
    Play,
    /// Triangle to the left.
    PlayBack,
    /// Two bars.
    Pause,
    /// Bar and triangle to the left.
    StepBack,
    /// Triangle to the right and bar.
    StepOn,
    /// To the left end.
    ToStart,
    /// To the right end.
    ToEnd,
    /// Arrow up to a bar.
    Once,
    /// A ring with an arrow head.
    Loop,
    /// Arrows both ways.
    Bounce,
    /// Three sliders.
    Settings,
    /// Half-filled disc.
    Theme,
    /// Question mark.
    Keys,
}

fn paint_icon(painter: &Painter, icon: Icon, c: Pos2, r: f32, color: Color32) {
    let stroke = Stroke::new(1.8, color);
    let triangle = |x: f32, half: f32, way: f32| {
        let points = vec![pos2(x - half * way, c.y - r), pos2(x + half * way, c.y), pos2(x - half * way, c.y + r)];
        painter.add(egui::Shape::convex_polygon(points, color, Stroke::NONE));
    };
    let bar = |x: f32, w: f32| {
        painter.rect_filled(Rect::from_center_size(pos2(x, c.y), vec2(w, 2.0 * r)), 0.0, color);
    };
    let arrow = |from: Pos2, to: Pos2| {
        painter.line_segment([from, to], stroke);
        let d = (to - from).normalized() * r * 0.5;
        for turn in [d.rot90(), -d.rot90()] {
            painter.line_segment([to, to - d + turn], stroke);
        }
    };
    match icon {
        Icon::Play => triangle(c.x + r * 0.12, r * 0.8, 1.0),
        Icon::PlayBack => triangle(c.x - r * 0.12, r * 0.8, -1.0),
        Icon::Pause => [-0.45, 0.45].into_iter().for_each(|x| bar(c.x + x * r, r * 0.5)),
        Icon::StepBack => {
            triangle(c.x - r * 0.3, r * 0.6, -1.0);
            bar(c.x + r * 0.7, r * 0.3);
        }
        Icon::StepOn => {
            triangle(c.x + r * 0.3, r * 0.6, 1.0);
            bar(c.x - r * 0.7, r * 0.3);
        }
        Icon::ToStart => {
            triangle(c.x + r * 0.2, r * 0.7, -1.0);
            bar(c.x - r * 0.8, r * 0.3);
        }
        Icon::ToEnd => {
            triangle(c.x - r * 0.2, r * 0.7, 1.0);
            bar(c.x + r * 0.8, r * 0.3);
        }
        Icon::Once => {
            arrow(pos2(c.x - r, c.y), pos2(c.x + r * 0.6, c.y));
            painter.line_segment([pos2(c.x + r, c.y - r * 0.7), pos2(c.x + r, c.y + r * 0.7)], stroke);
        }
        Icon::Loop => {
            let at = |turn: f32| c + r * 0.85 * Vec2::angled(turn);
            let points = (0..=20).map(|i| at(-0.6 + i as f32 * 0.255)).collect();
            painter.add(egui::Shape::line(points, stroke));
            arrow(at(4.3), at(4.75));
        }
        Icon::Bounce => {
            arrow(pos2(c.x - r, c.y - r * 0.45), pos2(c.x + r, c.y - r * 0.45));
            arrow(pos2(c.x + r, c.y + r * 0.45), pos2(c.x - r, c.y + r * 0.45));
        }
        Icon::Settings => {
            for (y, knob) in [(-0.65, 0.4), (0.0, -0.4), (0.65, 0.15)] {
                let y = c.y + y * r;
                painter.line_segment([pos2(c.x - r, y), pos2(c.x + r, y)], stroke);
                painter.circle_filled(pos2(c.x + knob * r, y), r * 0.3, color);
            }
        }
        Icon::Theme => {
            painter.circle_stroke(c, r * 0.9, stroke);
            let half = (0..=16).map(|i| c + r * 0.9 * Vec2::angled((i as f32 / 16.0 - 0.5) * std::f32::consts::PI));
            painter.add(egui::Shape::convex_polygon(half.collect(), color, Stroke::NONE));
        }
        Icon::Keys => {
            painter.text(c, Align2::CENTER_CENTER, "?", semibold(r * 2.2), color);
        }
    }
}

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
    paint_icon(ui.painter(), icon, rect.center(), 7.5, ink);
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
    if response.on_hover_text(actions::tooltip(ui.ctx(), action)).clicked() {
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
            let response = ui.selectable_label(choice == old, label);
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
        ui.checkbox(checked, label)
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
    let p = palette(ui);
    let text = if rest.is_empty() { kind.to_owned() } else { format!("{kind} · {rest}") };
    let room = (ui.available_width() - 2.0 * GRID).max(0.0);
    let job = egui::text::LayoutJob {
        wrap: egui::text::TextWrapping::truncate_at_width(room),
        ..egui::text::LayoutJob::simple_singleline(text.clone(), semibold(SMALL), p.text)
    };
    let galley = ui.painter().layout_job(job);
    let (rect, response) = ui.allocate_exact_size(galley.size() + vec2(2.0 * GRID, 8.0), Sense::hover());
    response.widget_info(|| WidgetInfo::labeled(Role::Label, true, &text));
    ui.painter().rect(rect, RADIUS, p.panel, Stroke::new(1.0, p.hairline), StrokeKind::Inside);
    ui.painter().galley(rect.min + vec2(GRID, 4.0), galley, p.text);
    response
}

/// A caption over a number that changes. `sample` is the widest text it will hold, so that nothing moves.
pub fn readout(ui: &mut Ui, caption: &str, value: &str, sample: &str, size: f32, tooltip: &str) {
    let p = palette(ui);
    let font = mono(size);
    let text = ui.painter().layout_no_wrap(value.to_owned(), font.clone(), p.text);
    let widest = ui.painter().layout_no_wrap(sample.to_owned(), font, p.text);
    let name = ui.painter().layout_no_wrap(caption.to_owned(), FontId::proportional(SMALL), p.weak);
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

/// 40000 as "40,000".
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A time left as "1:02:03", "2:03", or a dash when nobody knows.
pub fn duration(seconds: f64) -> String {
    if !(0.0..1e8).contains(&seconds) {
        return "–".into();
    }
    let s = seconds.round() as u64;
    let (h, m, s) = (s / 3600, s / 60 % 60, s % 60);
    if h > 0 { format!("{h}:{m:02}:{s:02}") } else { format!("{m}:{s:02}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!([0, 999, 1000, 40_000, 1_234_567].map(thousands), ["0", "999", "1,000", "40,000", "1,234,567"]);
        assert_eq!([0.4, 61.0, 3723.0, f64::INFINITY, -1.0].map(duration), ["0:00", "1:01", "1:02:03", "–", "–"]);
    }

    #[test]
    fn pictures_are_black_to_white_and_clipped() {
        assert_eq!([-7.0, -1.0, 0.0, 1.0, 7.0].map(|x| grey(x).r()), [0, 0, 128, 255, 255]);
        assert_eq!(grey(f32::NAN).r(), 0);
        assert_eq!(rgb([-1.0, 0.0, 1.0]), Color32::from_rgb(0, 128, 255));
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
    fn everything_written_can_be_read_on_both_themes() {
        for p in [&LIGHT, &DARK] {
            for ink in [p.text, p.weak, p.state, p.xstart, p.eps, p.oracle, p.noise, p.error, p.warning] {
                for paper in [p.background, p.panel] {
                    assert!(contrast(ink, paper) >= 4.5, "{ink:?} on {paper:?}: {}", contrast(ink, paper));
                }
            }
            assert!(contrast(p.on_accent, p.accent) >= 4.5);
            assert!(contrast(p.text, p.control) >= 4.5 && contrast(p.text, p.hover) >= 4.5);
        }
    }
}
