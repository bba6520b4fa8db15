//! Small capitals and digits for the captions of exported films: five pixels wide, seven high.

use image::{Rgb, RgbImage};

/// Height of a line.
pub const HEIGHT: u32 = 7;
const WIDTH: u32 = 5;
const INK: Rgb<u8> = Rgb([240; 3]);

/// Width of the longest line, "STEP 1000000 EMA", with what is left free before it, in pixels of the letters.
const LINE: u32 = 16 * (WIDTH + 1) + 2;

/// Screen pixels per pixel of the letters, for pictures of that scale, that together are so wide: the same for all frames
/// of a film, whatever their captions say.
pub fn size(scale: u32, width: u32) -> u32 {
    (scale / 2).min(width / LINE).clamp(1, 4)
}

/// What the longest line takes in letters of that size.
pub fn width(size: u32) -> u32 {
    LINE * size
}

/// Rows of a letter from the top; the lowest of five bits is its right edge. Letters that are not here stay blank.
fn rows(letter: char) -> [u8; 7] {
    match letter {
        '0' => [14, 17, 19, 21, 25, 17, 14],
        '1' => [4, 12, 4, 4, 4, 4, 14],
        '2' => [14, 17, 1, 6, 8, 16, 31],
        '3' => [14, 17, 1, 6, 1, 17, 14],
        '4' => [2, 6, 10, 18, 31, 2, 2],
        '5' => [31, 16, 30, 1, 1, 17, 14],
        '6' => [6, 8, 16, 30, 17, 17, 14],
        '7' => [31, 1, 2, 4, 8, 8, 8],
        '8' => [14, 17, 17, 14, 17, 17, 14],
        '9' => [14, 17, 17, 15, 1, 2, 12],
        '=' => [0, 0, 31, 0, 31, 0, 0],
        't' => [8, 8, 28, 8, 8, 9, 6],
        'A' => [14, 17, 17, 31, 17, 17, 17],
        'C' => [14, 17, 16, 16, 16, 17, 14],
        'D' => [30, 17, 17, 17, 17, 17, 30],
        'E' => [31, 16, 16, 30, 16, 16, 31],
        'L' => [16, 16, 16, 16, 16, 16, 31],
        'M' => [17, 27, 21, 21, 17, 17, 17],
        'O' => [14, 17, 17, 17, 17, 17, 14],
        'P' => [30, 17, 17, 30, 16, 16, 16],
        'R' => [30, 17, 17, 30, 20, 18, 17],
        'S' => [15, 16, 16, 14, 1, 1, 30],
        'T' => [31, 4, 4, 4, 4, 4, 4],
        'W' => [17, 17, 17, 21, 21, 21, 10],
        _ => [0; 7],
    }
}

/// Writes a line with its top left corner at `at`; what does not fit is cut off.
pub fn write(canvas: &mut RgbImage, text: &str, at: [u32; 2], size: u32) {
    for (i, letter) in text.chars().enumerate() {
        let left = at[0] + i as u32 * (WIDTH + 1) * size;
        for (y, row) in rows(letter).into_iter().enumerate() {
            for x in (0..WIDTH).filter(|x| row >> (WIDTH - 1 - x) & 1 == 1) {
                for dot in 0..size * size {
                    let place = [left + x * size + dot % size, at[1] + y as u32 * size + dot / size];
                    if let Some(pixel) = canvas.get_pixel_mut_checked(place[0], place[1]) {
                        *pixel = INK;
                    }
                }
            }
        }
    }
}
