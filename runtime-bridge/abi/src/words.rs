//! Enums whose variants are words: of the language, of the note, of C.

/// Defines an enum with a word for each variant, and from the one list `ALL`, `COUNT`, the method
/// that gives the word, `parse` and `Display`. The name after the comma is that of the method.
///
/// The enum is `Copy`, ordered and hashed; more is derived by an attribute of its own.
#[macro_export]
macro_rules! words {
    (
        $(#[$attribute:meta])*
        $visibility:vis enum $name:ident, $method:ident {
            $($(#[$about:meta])* $variant:ident $(= $number:literal)? => $word:literal,)+
        }
    ) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        $visibility enum $name {
            $($(#[$about])* $variant $(= $number)?,)+
        }

        impl $name {
            /// Every variant, in the order of the list.
            $visibility const ALL: [$name; $name::COUNT] = [$($name::$variant),+];
            /// How many there are.
            $visibility const COUNT: usize = $name::WORDS.len();
            /// Their words, in the same order.
            $visibility const WORDS: &[&str] = &[$($word),+];

            /// The word for it.
            #[must_use]
            $visibility const fn $method(self) -> &'static str {
                match self {
                    $($name::$variant => $word,)+
                }
            }

            /// The variant with that word.
            #[must_use]
            $visibility fn parse(word: &str) -> Option<$name> {
                $name::ALL.into_iter().find(|variant| variant.$method() == word)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.$method())
            }
        }
    };
}
