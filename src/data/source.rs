//! Where data come from: "mnist", a path, or several of them.

use std::fmt;
use std::path::PathBuf;

/// Stands between the places of a list.
const SEPARATOR: char = ';';

/// Where a data set comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The 60,000 training images of MNIST, part of this program.
    Mnist,
    /// An IDX file or a folder with one, CIFAR batches or a folder with them, a folder of pictures, or one picture.
    Path(PathBuf),
    /// All of these as one data set, in this order. A file that several of them hold is read once.
    Several(Vec<Self>),
    /// All but a few images, which are held out: see [`Dataset::held_out`].
    ///
    /// [`Dataset::held_out`]: super::Dataset::held_out
    Rest(Box<Self>),
}

impl Source {
    /// "mnist", a path, or several of them with semicolons between; a semicolon inside a path is written twice, and a
    /// folder called mnist is "./mnist".
    pub fn parse(text: &str) -> Self {
        let mut places = vec![String::new()];
        let mut rest = text.chars().peekable();
        while let Some(c) = rest.next() {
            if c == SEPARATOR && rest.next_if_eq(&SEPARATOR).is_none() {
                places.push(String::new());
            } else if let Some(place) = places.last_mut() {
                place.push(c);
            }
        }
        if places.len() == 1 {
            return Self::one(text.replace(";;", ";"));
        }
        let places = places.iter().map(|place| place.trim()).filter(|place| !place.is_empty());
        let mut sources: Vec<Self> = places.map(|place| Self::one(place.to_owned())).collect();
        if sources.len() == 1 { sources.remove(0) } else { Self::Several(sources) }
    }

    fn one(place: String) -> Self {
        if place == "mnist" { Self::Mnist } else { Self::Path(place.into()) }
    }

    /// What [`Source::parse`] reads as all of these places.
    pub fn join<'a>(places: impl IntoIterator<Item = &'a str>) -> String {
        places.into_iter().map(|place| place.replace(SEPARATOR, ";;")).collect::<Vec<_>>().join("; ")
    }

    /// Each place by itself.
    pub fn places(&self) -> &[Self] {
        match self {
            Self::Several(sources) => sources,
            Self::Rest(of) => of.places(),
            one => std::slice::from_ref(one),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mnist => f.write_str("mnist"),
            Self::Path(path) => path.display().fmt(f),
            Self::Rest(of) => of.fmt(f),
            Self::Several(sources) => {
                let places: Vec<String> = sources.iter().map(ToString::to_string).collect();
                f.write_str(&Self::join(places.iter().map(String::as_str)))
            }
        }
    }
}
