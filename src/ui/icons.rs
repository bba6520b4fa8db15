//! The signs on buttons, painted.

use super::style;
use egui::{Align2, Color32, Painter, Pos2, Rect, Stroke, Vec2, pos2, vec2};

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

/// Paints a sign around `c`, `r` high and wide each way.
pub fn paint(painter: &Painter, icon: Icon, c: Pos2, r: f32, color: Color32) {
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
            painter.text(c, Align2::CENTER_CENTER, "?", style::semibold(r * 2.2), color);
        }
    }
}
