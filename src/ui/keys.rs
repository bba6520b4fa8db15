//! Keys that were pressed, as actions.

use super::actions::{Entry, Scope, UiAction, View, table};
use egui::{Id, Key, KeyboardShortcut, Popup};

/// Takes the shortcuts that were pressed out of the input. While a widget has the keyboard, keys that it may want for
/// itself are left to it; one that acts closes an open menu. `watching`: whether the training view shows another's run.
pub fn pressed(ctx: &egui::Context, view: View, watching: bool, out: &mut Vec<UiAction>) {
    let (text, widget) = (ctx.text_edit_focused(), ctx.memory(|m| m.focused().is_some()));
    let menu = Popup::is_any_open(ctx);
    // escape ends typing before it comes here
    let typed = ctx.data_mut(|data| std::mem::replace(data.get_temp_mut_or_default(Id::unique("typing")), text));
    let mut entries = table();
    // egui lets Shift+X count as X, so the longer shortcut goes first
    let held = |keys: KeyboardShortcut| u8::from(keys.modifiers.command) + u8::from(keys.modifiers.shift);
    entries.sort_by_key(|e| std::cmp::Reverse(e.keys.map_or(0, held)));
    ctx.input_mut(|input| {
        for Entry { action, scope, keys, .. } in entries {
            let here = match scope {
                Scope::Window => true,
                Scope::In(View::Film) => view.has_timeline(),
                // what is watched stands in the place of the own training
                Scope::In(View::Training) if watching => {
                    let free = matches!(action, UiAction::ToggleLog | UiAction::StartLecture | UiAction::StartTraining);
                    free && view == View::Training
                }
                Scope::In(other) => other == view,
            };
            let Some(keys) = keys.filter(|_| here) else { continue };
            let plain = !keys.modifiers.command && !is_function_key(keys.logical_key);
            let widgets_own = matches!(
                keys.logical_key,
                Key::Space | Key::Enter | Key::ArrowLeft | Key::ArrowRight | Key::ArrowUp | Key::ArrowDown
            );
            // typing is undone by its own field
            let text_own = plain || keys.logical_key == Key::Z;
            let left = text_own && text
                || plain && widgets_own && widget
                || (menu || typed) && keys.logical_key == Key::Escape;
            if !left && input.consume_shortcut(&keys) {
                out.push(action);
            }
        }
    });
    if menu && !out.is_empty() {
        Popup::close_all(ctx);
    }
}

fn is_function_key(key: Key) -> bool {
    key == Key::Escape || (Key::F1..=Key::F35).contains(&key)
}
