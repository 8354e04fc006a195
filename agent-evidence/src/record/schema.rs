//! The macros that say once, for writer, reader and documentation, what an object holds and in which order.
//!
//! `object!` is a JSON object with fixed key order, `row!` a JSON array with one place per field, `words!` a
//! closed vocabulary, `flags!` a set of words, and `bodies!` the kinds of entries.

/// One member of an object, for the tables of FORMAT.md.
#[derive(Debug, Clone, Copy)]
pub struct Member {
    /// Key, or the name of a place in a row.
    pub key: &'static str,
    /// Name of the form of its value.
    pub form: &'static str,
    /// Whether its value is an array of items of that form.
    pub list: bool,
    /// Whether it may be left out.
    pub optional: bool,
    /// What it means.
    pub meaning: &'static str,
}

/// One kind of entry, for the tables of FORMAT.md.
#[derive(Debug, Clone, Copy)]
pub struct KindSchema {
    /// The word in `kind`.
    pub kind: &'static str,
    /// Whether it belongs to the control chain.
    pub control: bool,
    /// What it says.
    pub meaning: &'static str,
    /// Members of its body.
    pub members: &'static [Member],
}

/// An object, row, vocabulary or set that kinds refer to, for the tables of FORMAT.md.
#[derive(Debug, Clone, Copy)]
pub struct FormSchema {
    /// Its name in the tables.
    pub form: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// `object`, `row`, `words` or `flags`.
    pub shape: &'static str,
    /// Members, places or words.
    pub members: &'static [Member],
}

/// A type that has its own table.
pub(super) trait Described {
    const SCHEMA: FormSchema;
}

/// Declares a JSON object: a struct, its encoder, its decoder and its table.
macro_rules! object {
    ($(#[doc = $doc:literal])* $name:ident<$life:lifetime> as $form:literal { $($fields:tt)* }) => {
        object!(@build [$($doc)*] $name [<$life>] $life $form $($fields)*);
    };
    ($(#[doc = $doc:literal])* $name:ident as $form:literal { $($fields:tt)* }) => {
        object!(@build [$($doc)*] $name [] 'a $form $($fields)*);
    };
    (@build [$($doc:literal)*] $name:ident [$($gen:tt)*] $life:lifetime $form:literal
        $( $(#[doc = $field_doc:literal])* $field:ident: $type:ty = $key:literal, )*
    ) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name $($gen)* {
            $( $(#[doc = $field_doc])* pub $field: $type, )*
        }

        impl<$life> $crate::record::write::Encode for $name $($gen)* {
            fn encode(&self, out: &mut $crate::record::write::Writer<'_>) {
                out.byte(b'{');
                $( out.member($key, concat!(",\"", $key, "\":"), &self.$field); )*
                out.byte(b'}');
            }
        }

        impl<$life> $crate::record::read::Decode<$life> for $name $($gen)* {
            const FORM: &'static str = $form;

            fn decode(
                bytes: &mut $crate::record::read::Reader<$life>,
            ) -> Result<Self, $crate::record::read::DecodeError> {
                bytes.expect("{")?;
                $( let $field = bytes.member($key, concat!(",\"", $key, "\":"))?; )*
                bytes.expect("}")?;
                Ok(Self { $($field),* })
            }
        }

        impl<$life> $crate::record::schema::Described for $name $($gen)* {
            const SCHEMA: $crate::record::schema::FormSchema = $crate::record::schema::FormSchema {
                form: $form,
                meaning: concat!($($doc),*),
                shape: "object",
                members: &[$($crate::record::schema::Member {
                    key: $key,
                    form: <$type as $crate::record::read::Decode<'_>>::FORM,
                    list: $crate::record::schema::begins_with(stringify!($type), "List<"),
                    optional: $crate::record::schema::begins_with(stringify!($type), "Option<")
                        || $crate::record::schema::begins_with(stringify!($type), "ActMarks"),
                    meaning: concat!($($field_doc),*),
                }),*],
            };
        }
    };
}

/// Declares a JSON array with one place per field.
macro_rules! row {
    ($(#[doc = $doc:literal])* $name:ident as $form:literal {
        $first:ident: $first_type:ty = $first_doc:literal,
        $( $field:ident: $type:ty = $field_doc:literal, )*
    }) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $name {
            #[doc = $first_doc]
            pub $first: $first_type,
            $( #[doc = $field_doc] pub $field: $type, )*
        }

        impl $crate::record::write::Encode for $name {
            fn encode(&self, out: &mut $crate::record::write::Writer<'_>) {
                out.byte(b'[');
                self.$first.encode(out);
                $( out.byte(b','); self.$field.encode(out); )*
                out.byte(b']');
            }
        }

        impl<'a> $crate::record::read::Decode<'a> for $name {
            const FORM: &'static str = $form;

            fn decode(
                bytes: &mut $crate::record::read::Reader<'a>,
            ) -> Result<Self, $crate::record::read::DecodeError> {
                bytes.expect("[")?;
                let $first = $crate::record::read::Decode::decode(bytes)?;
                $( bytes.expect(",")?; let $field = $crate::record::read::Decode::decode(bytes)?; )*
                bytes.expect("]")?;
                Ok(Self { $first, $($field),* })
            }
        }

        impl $crate::record::schema::Described for $name {
            const SCHEMA: $crate::record::schema::FormSchema = $crate::record::schema::FormSchema {
                form: $form,
                meaning: concat!($($doc),*),
                shape: "row",
                members: &[
                    $crate::record::schema::Member {
                        key: stringify!($first),
                        form: <$first_type as $crate::record::read::Decode<'_>>::FORM,
                        list: false,
                        optional: false,
                        meaning: $first_doc,
                    },
                    $($crate::record::schema::Member {
                        key: stringify!($field),
                        form: <$type as $crate::record::read::Decode<'_>>::FORM,
                        list: false,
                        optional: false,
                        meaning: $field_doc,
                    }),*
                ],
            };
        }
    };
}

/// Declares a closed vocabulary.
macro_rules! words {
    ($(#[doc = $doc:literal])* $name:ident as $form:literal { $( $(#[doc = $word_doc:literal])* $variant:ident = $word:literal, )* }) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $( $(#[doc = $word_doc])* $variant, )* }

        impl $name {
            /// Every word, in the order of the specification.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The word in entries.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $word, )* }
            }

            /// The value with this word.
            #[must_use]
            pub fn parse(word: &str) -> Option<Self> {
                match word { $( $word => Some(Self::$variant), )* _ => None }
            }
        }

        impl $crate::record::write::Encode for $name {
            fn encode(&self, out: &mut $crate::record::write::Writer<'_>) {
                out.word(self.as_str());
            }
        }

        impl<'a> $crate::record::read::Decode<'a> for $name {
            const FORM: &'static str = $form;

            fn decode(
                bytes: &mut $crate::record::read::Reader<'a>,
            ) -> Result<Self, $crate::record::read::DecodeError> {
                bytes.word(concat!("a word of ", $form), Self::parse)
            }
        }

        impl $crate::record::schema::Described for $name {
            const SCHEMA: $crate::record::schema::FormSchema = $crate::record::schema::FormSchema {
                form: $form,
                meaning: concat!($($doc),*),
                shape: "words",
                members: &[$($crate::record::schema::Member {
                    key: $word, form: "", list: false, optional: false, meaning: concat!($($word_doc),*),
                }),*],
            };
        }
    };
}

/// Declares a set of words: written as an array in the order of declaration, left out when empty.
macro_rules! flags {
    ($(#[doc = $doc:literal])* $name:ident as $form:literal { $( $(#[doc = $word_doc:literal])* $flag:ident = $bit:literal $word:literal, )* }) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct $name(u32);

        impl $name {
            /// The empty set.
            pub const NONE: Self = Self(0);
            $( $(#[doc = $word_doc])* pub const $flag: Self = Self(1 << $bit); )*

            const WORDS: &'static [(Self, &'static str)] = &[$((Self::$flag, $word)),*];

            /// Whether all of `other` are in the set.
            #[must_use]
            pub const fn contains(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

            /// Whether the set is empty.
            #[must_use]
            pub const fn is_empty(self) -> bool {
                self.0 == 0
            }

            /// The set with `other` added when `condition` holds.
            #[must_use]
            pub const fn with(self, other: Self, condition: bool) -> Self {
                if condition { Self(self.0 | other.0) } else { self }
            }

            /// The words in the set, in order.
            pub fn words(self) -> impl Iterator<Item = &'static str> {
                Self::WORDS.iter().filter(move |(flag, _)| self.contains(*flag)).map(|(_, word)| *word)
            }
        }

        impl std::ops::BitOr for $name {
            type Output = Self;
            fn bitor(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }
        }

        impl $crate::record::write::Encode for $name {
            fn is_absent(&self) -> bool {
                self.is_empty()
            }

            fn encode(&self, out: &mut $crate::record::write::Writer<'_>) {
                out.byte(b'[');
                for word in self.words() {
                    out.comma();
                    out.word(word);
                }
                out.byte(b']');
            }
        }

        impl<'a> $crate::record::read::Decode<'a> for $name {
            const FORM: &'static str = $form;

            fn absent() -> Option<Self> {
                Some(Self::NONE)
            }

            fn decode(
                bytes: &mut $crate::record::read::Reader<'a>,
            ) -> Result<Self, $crate::record::read::DecodeError> {
                bytes.expect("[")?;
                let mut set = Self::NONE;
                loop {
                    // Order and repetition are caught when the entry is compared with its own encoding.
                    set = set | bytes.word(concat!("a word of ", $form), |word| {
                        Self::WORDS.iter().find(|(_, known)| *known == word).map(|(flag, _)| *flag)
                    })?;
                    if bytes.skip(b"]") {
                        return Ok(set);
                    }
                    bytes.expect(",")?;
                }
            }
        }

        impl $crate::record::schema::Described for $name {
            const SCHEMA: $crate::record::schema::FormSchema = $crate::record::schema::FormSchema {
                form: $form,
                meaning: concat!($($doc),*),
                shape: "flags",
                members: &[$($crate::record::schema::Member {
                    key: $word, form: "", list: false, optional: false, meaning: concat!($($word_doc),*),
                }),*],
            };
        }
    };
}

/// Declares the kinds of entries.
macro_rules! bodies {
    ($( $(#[doc = $doc:literal])* $kind:ident($body:ident $(<$life:lifetime>)?) = $word:literal control $control:literal, )*) => {
        /// What an entry says.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind { $( $(#[doc = $doc])* $kind, )* }

        impl Kind {
            /// Every kind, in the order of the specification.
            pub const ALL: &'static [Self] = &[$(Self::$kind),*];

            /// The word in entries.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $( Self::$kind => $word, )* }
            }

            /// The kind with this word.
            #[must_use]
            pub fn parse(word: &str) -> Option<Self> {
                match word { $( $word => Some(Self::$kind), )* _ => None }
            }

            /// Whether entries of this kind are numbered in the control chain.
            #[must_use]
            pub fn is_control(self) -> bool {
                match self { $( Self::$kind => $control, )* }
            }

            fn decode_body<'a>(self, bytes: &mut Reader<'a>) -> Result<Body<'a>, DecodeError> {
                match self { $( Self::$kind => Decode::decode(bytes).map(Body::$kind), )* }
            }
        }

        /// The part of an entry that its kind decides. Large and unboxed: it lives on the stack between decoding an
        /// event and writing its entry.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Body<'a> { $( $(#[doc = $doc])* $kind($body $(<$life>)?), )* }

        impl Body<'_> {
            /// Its kind.
            #[must_use]
            pub fn kind(&self) -> Kind {
                match self { $( Self::$kind(_) => Kind::$kind, )* }
            }
        }

        impl Encode for Body<'_> {
            fn encode(&self, out: &mut Writer<'_>) {
                match self { $( Self::$kind(body) => body.encode(out), )* }
            }
        }

        impl Encode for Kind {
            fn encode(&self, out: &mut Writer<'_>) {
                out.word(self.as_str());
            }
        }

        impl<'a> Decode<'a> for Kind {
            const FORM: &'static str = "kind";

            fn decode(bytes: &mut Reader<'a>) -> Result<Self, DecodeError> {
                bytes.word("a kind of entry", Self::parse)
            }
        }

        /// Every kind with the members of its body: the tables of FORMAT.md are made from this.
        pub const KINDS: &[KindSchema] = &[$(KindSchema {
            kind: $word,
            control: $control,
            meaning: concat!($($doc),*),
            members: <$body as Described>::SCHEMA.members,
        }),*];
    };
}

/// Whether the name of a type begins so. Compile-time only: types cannot be compared in constants.
pub(super) const fn begins_with(type_name: &str, start: &str) -> bool {
    let (name, start) = (type_name.as_bytes(), start.as_bytes());
    let mut position = 0;
    while position < start.len() {
        if position >= name.len() || name[position] != start[position] {
            return false;
        }
        position += 1;
    }
    true
}

pub(super) use {bodies, flags, object, row, words};
