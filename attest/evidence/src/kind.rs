//! The type string at key 0 of every object: it separates hash domains, so that
//! the bytes of one kind can never be taken for another.

use minicbor::decode::{Decode, Decoder};
use minicbor::encode::{Encode, Encoder, Write};

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
        pub struct $name;

        impl $name {
            /// The string at key 0.
            pub const TEXT: &'static str = $text;
        }

        impl<C> Encode<C> for $name {
            fn encode<W: Write>(
                &self,
                encoder: &mut Encoder<W>,
                _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                encoder.str(Self::TEXT)?;
                Ok(())
            }
        }

        impl<'b, C> Decode<'b, C> for $name {
            fn decode(
                decoder: &mut Decoder<'b>,
                _: &mut C,
            ) -> Result<Self, minicbor::decode::Error> {
                let position = decoder.position();
                if decoder.str()? == Self::TEXT {
                    Ok(Self)
                } else {
                    Err(minicbor::decode::Error::message(concat!("type is not ", $text))
                        .at(position))
                }
            }
        }
    )*};
}

kinds! {
    /// A [`crate::SessionStatement`].
    SessionKind = "merestone/session/v1";
    /// An [`crate::EpochStatement`].
    EpochKind = "merestone/epoch/v1";
    /// An [`crate::Entry`].
    EntryKind = "merestone/entry/v1";
    /// A [`crate::Bundle`].
    BundleKind = "merestone/bundle/v1";
    /// A [`crate::Geotag`].
    GeotagKind = "merestone/geotag/v1";
    /// An [`crate::EnrolRequest`].
    EnrolRequestKind = "merestone/enrol-request/v1";
    /// An [`crate::EnrolChallenge`].
    EnrolChallengeKind = "merestone/enrol-challenge/v1";
    /// An [`crate::EnrolAnswer`].
    EnrolAnswerKind = "merestone/enrol-answer/v1";
    /// An [`crate::EnrolPending`].
    EnrolPendingKind = "merestone/enrol-pending/v1";
    /// An [`crate::Enrolment`].
    EnrolmentKind = "merestone/enrolment/v1";
    /// [`crate::Revocations`].
    RevocationsKind = "merestone/revocations/v1";
}
